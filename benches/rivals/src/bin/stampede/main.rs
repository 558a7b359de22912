//! Many callers at once, threads and tasks: on one cold key, and on a hot key while its value expires.
//!
//! On a cold key somebody has to wait; the question is how often the loader ran, and how long the last of the callers
//! slept after the value was there. A cold wait therefore counts from when the loader woke, or from when the caller
//! asked if that was later (or if the loader did not sleep). How late the loader woke stands beside it: tokio's timer
//! counts in milliseconds, and would drown what the caches do. On a hot key the question is whether anybody waits at
//! all, and a wait is the whole call.

#![forbid(unsafe_code)]

mod hot;
mod line;
mod rounds;
mod tasks;
mod threads;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, value_parser};

use crate::line::{Line, table};

/// Many callers at once on one key, for larder, moka and quick_cache
///
/// Fails if a cache calls the loader of a cold key other than once in a round.
#[derive(Debug, Parser)]
#[command(name = "stampede", version)]
struct Args {
    /// Callers (threads) on a cold key, each a row of its own
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [2, 64, 1000], value_parser = value_parser!(u16).range(1..=4000))]
    callers: Vec<u16>,

    /// Callers (tasks on a runtime of two threads) on a cold key, each a row of its own
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [2, 64, 1000, 10_000], value_parser = value_parser!(u16).range(1..))]
    tasks: Vec<u16>,

    /// How long the loader sleeps, in milliseconds, each a row of its own
    #[arg(long, value_name = "MS", value_delimiter = ',', default_values_t = [0, 1, 10, 100])]
    loader: Vec<u16>,

    /// Rounds, each on a new key, the caches taking turns
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// Seconds that a hot key is asked for; it lives a tenth of one, and takes 5 ms to load
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = value_parser!(u16).range(1..=600))]
    hot: u16,

    /// Print one JSON array, and nothing else
    #[arg(long)]
    json: bool,
}

fn main() -> std::io::Result<ExitCode> {
    let args = Args::parse();
    let rounds = usize::from(args.rounds);
    let sleeps = || {
        args.loader
            .iter()
            .map(|&ms| Duration::from_millis(ms.into()))
    };
    let mut lines = Vec::new();
    for &callers in &args.callers {
        for sleep in sleeps() {
            lines.extend(threads::cold(callers.into(), sleep, rounds));
        }
    }
    let runtime = tasks::runtime()?;
    for &tasks in &args.tasks {
        for sleep in sleeps() {
            lines.extend(tasks::cold(&runtime, tasks.into(), sleep, rounds));
        }
    }
    drop(runtime);
    lines.extend(hot::hot(args.hot));
    print(&lines, args.json)
}

fn print(lines: &[Line], json: bool) -> std::io::Result<ExitCode> {
    let mut out = std::io::stdout();
    if json {
        serde_json::to_writer_pretty(&mut out, lines)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", table(lines))?;
    }
    let mut exit = ExitCode::SUCCESS;
    for fault in lines.iter().flat_map(|line| &line.faults) {
        writeln!(std::io::stderr(), "{fault}")?;
        exit = ExitCode::FAILURE;
    }
    Ok(exit)
}
