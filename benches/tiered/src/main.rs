//! larder over Redis, beside the redis crate on the same server: what a read costs in time, in interleaved rounds;
//! what it costs in commands, counted by the server; and how long another process goes on serving what this one has
//! invalidated. Starts a server of its own. Only ratios within a run mean anything; the machine's load moves
//! everything else.

#![forbid(unsafe_code)]

mod counts;
mod error;
mod lag;
mod larders;
mod observer;
mod peer;
mod race;
mod redises;
mod report;
mod rows;
mod server;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, value_parser};
use serde::Serialize;

use crate::error::BenchError;
use crate::race::Settings;
use crate::server::Server;

/// Measures larder over a Redis server that it starts by itself, beside plain redis-rs and redis-rs's own cache
///
/// Fails if a call of larder takes other than the stated number of commands and round trips, or if another process
/// serves a value after it has dropped it.
#[derive(Debug, Parser)]
#[command(name = "tiered", version)]
struct Args {
    /// Only rows whose name (such as "L2 hit unix 100 B") contains one of these
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    only: Vec<String>,

    /// Rounds, after one that is not recorded
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// Length of one contestant's slice of a round, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = value_parser!(u16).range(1..=2000))]
    slice: u16,

    /// Samples of the lag for each of its rows, in all rounds together
    #[arg(long, value_name = "N", default_value_t = 2250, value_parser = value_parser!(u32).range(1..=1_000_000))]
    samples: u32,

    /// The server's program
    #[arg(long, value_name = "PROGRAM", default_value = "redis-server")]
    server: PathBuf,

    /// Print one JSON object, and nothing else
    #[arg(long)]
    json: bool,

    /// What the bench starts its second copy with
    #[arg(long, value_names = ["URL", "PREFIX"], num_args = 2, hide = true)]
    peer: Vec<String>,
}

/// All that came out.
#[derive(Serialize)]
struct Report {
    server: String,
    counts: Vec<counts::Line>,
    reads: Vec<report::Line>,
    lags: Vec<lag::Line>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.peer[..] {
        [url, prefix] => peer::run(url, prefix).map(|()| Vec::new()),
        _ => run(&args),
    };
    let faults = done.unwrap_or_else(|error| vec![error.to_string()]);
    for fault in &faults {
        // If even this cannot be written, the exit code says it.
        let _ = writeln!(std::io::stderr(), "{fault}");
    }
    if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Returns what was not as stated.
fn run(args: &Args) -> Result<Vec<String>, BenchError> {
    let server = Server::start(&args.server)?;
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|o| name.contains(o));
    let settings = Settings {
        rounds: usize::from(args.rounds),
        slice: Duration::from_millis(args.slice.into()),
    };
    let mut out = std::io::stdout();
    // First, while nobody else's connection says anything to the server.
    let (counts, mut faults) = counts::run(&server, wanted)?;
    if !args.json && !counts.is_empty() {
        writeln!(out, "redis-server {}", server.version()?)?;
        writeln!(out, "{}", counts::table(&counts))?;
    }
    let mut reads = Vec::new();
    for row in rows::all().into_iter().filter(|row| wanted(&row.name())) {
        let lines = row.run(&server, &settings)?;
        if !args.json {
            writeln!(out, "{}", report::table(&lines))?;
        }
        reads.extend(lines);
    }
    let (lags, stale) = lag::run(&server, settings.rounds, args.samples as usize, wanted)?;
    faults.extend(stale);
    if !args.json && !lags.is_empty() {
        writeln!(out, "{}", lag::table(&lags))?;
    }
    if counts.is_empty() && reads.is_empty() && lags.is_empty() && faults.is_empty() {
        return Err(BenchError::NoRow);
    }
    if args.json {
        let report = Report {
            server: server.version()?,
            counts,
            reads,
            lags,
        };
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    }
    Ok(faults)
}
