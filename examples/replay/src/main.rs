//! Hit ratio and throughput of traces, for larder beside exact LRU, FIFO and Belady's optimum.

#![forbid(unsafe_code)]

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use larder_replay::{
    capacity::Capacity,
    error::ReplayError,
    replay::{Policy, replay},
    report::{Report, Run, TraceReport},
    trace::{Format, Trace},
};

/// Replays traces of keys through larder, beside exact LRU, FIFO and Belady's optimum, and prints
/// their hit ratios and throughputs.
#[derive(Debug, Parser)]
#[command(name = "larder-replay", version, about)]
struct Args {
    /// Traces, one after the other; '-' is standard input, and so is leaving them out
    #[arg(value_name = "TRACE")]
    traces: Vec<PathBuf>,

    /// How the traces are written
    #[arg(long, value_enum)]
    format: Format,

    /// Entries, like 10000, or a share of a trace's distinct keys, like 1%; several with commas
    #[arg(
        long,
        value_name = "N|P%",
        value_delimiter = ',',
        default_value = "1%,10%"
    )]
    capacity: Vec<Capacity>,

    /// Only these columns, in this order; several with commas [default: all]
    #[arg(long, value_enum, value_name = "POLICY", value_delimiter = ',')]
    policy: Vec<Policy>,

    /// Print one JSON object, and nothing else, on standard output
    #[arg(long)]
    json: bool,

    /// No progress on standard error (which has none anyway if it is no terminal)
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has read enough.
        Err(ReplayError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("larder-replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), ReplayError> {
    let standard_input = PathBuf::from("-");
    let paths = if args.traces.is_empty() {
        if io::stdin().is_terminal() {
            return Err(ReplayError::NoTrace);
        }
        std::slice::from_ref(&standard_input)
    } else {
        &args.traces[..]
    };
    match paths.iter().filter(|path| **path == standard_input).count() {
        0 | 1 => {}
        times => return Err(ReplayError::StandardInputTwice(times)),
    }
    let policies = if args.policy.is_empty() {
        &Policy::ALL[..]
    } else {
        &args.policy[..]
    };

    let bar = progress(args, paths.len() * args.capacity.len() * policies.len());
    let traces = paths
        .iter()
        .map(|path| one_trace(path, args, policies, &bar))
        .collect::<Result<Vec<_>, _>>()?;
    bar.finish_and_clear();

    let report = Report { traces };
    let text = if args.json {
        serde_json::to_string(&report).map_err(io::Error::from)?
    } else {
        report.table(policies)
    };
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

fn progress(args: &Args, runs: usize) -> ProgressBar {
    if args.quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(runs as u64);
    // The template is a constant; were it ever wrong, the plain bar is good enough.
    if let Ok(style) = ProgressStyle::with_template("{msg:<32} {bar:32} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn one_trace(
    path: &Path,
    args: &Args,
    policies: &[Policy],
    bar: &ProgressBar,
) -> Result<TraceReport, ReplayError> {
    bar.set_message(format!("{}: reading", path.display()));
    let trace = Trace::open(path, args.format)?;
    let mut runs = Vec::new();
    for capacity in &args.capacity {
        let entries = capacity.entries(trace.distinct);
        let mut results = Vec::new();
        for &policy in policies {
            bar.set_message(format!("{} {capacity} {}", trace.name, policy.title()));
            results.push(replay(&trace, policy, entries)?);
            bar.inc(1);
        }
        runs.push(Run {
            capacity: capacity.to_string(),
            entries,
            results,
        });
    }
    Ok(TraceReport {
        requests: trace.ids.len() as u64,
        distinct: trace.distinct,
        name: trace.name,
        runs,
    })
}
