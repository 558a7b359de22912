//! larder beside other caches: the same work, the same hasher, the same capacity, in interleaved
//! rounds. Only ratios within a run mean anything; the machine's load moves everything else.

#![forbid(unsafe_code)]

mod engines;
mod race;
mod report;
mod work;

use std::io::Write;
use std::time::Duration;

use clap::{Parser, value_parser};

use crate::race::{Data, Settings};
use crate::report::Row;
use crate::work::{Kind, Numbers, Pages, Work};

/// Races larder against other caches and prints medians, ranges and ratios
#[derive(Debug, Parser)]
#[command(name = "rivals", version)]
struct Args {
    /// Only rows whose name (such as "churn u64 ×2") contains one of these
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    only: Vec<String>,

    /// Only these caches, by the names in the table
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    caches: Vec<String>,

    /// Rounds, after one that is not recorded
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// Length of one cache's slice of a round, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = value_parser!(u16).range(1..=400))]
    slice: u16,

    /// Threads, each a row of its own
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 2], value_parser = value_parser!(u16).range(1..=256))]
    threads: Vec<u16>,

    /// Print one JSON array, and nothing else
    #[arg(long)]
    json: bool,
}

/// Memory taken before all else and kept. The first pages that a process gets are those that others left,
/// scattered, and slow to translate addresses into: of two copies of the same cache, the one that was filled
/// first was up to 15 % slower. With these out of the way the order no longer matters.
const LEFTOVERS: usize = 1 << 30;

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let leftovers = std::hint::black_box(vec![1_u8; LEFTOVERS]);
    let mut rows = Vec::new();
    run::<Numbers>(&args, &mut rows)?;
    run::<Pages>(&args, &mut rows)?;
    if args.json {
        let lines: Vec<_> = rows.iter().flat_map(|row: &Row| &row.lines).collect();
        serde_json::to_writer_pretty(std::io::stdout(), &lines)?;
        writeln!(std::io::stdout())?;
    }
    drop(leftovers);
    Ok(())
}

fn run<K: Kind>(args: &Args, rows: &mut Vec<Row>) -> std::io::Result<()>
where
    Data<K>: Sync,
{
    let settings = Settings {
        rounds: usize::from(args.rounds),
        slice: Duration::from_millis(u64::from(args.slice)),
        engines: args.caches.clone(),
    };
    let mut data = None;
    for work in Work::ALL {
        for &threads in &args.threads {
            let name = format!("{} {} ×{threads}", work.name(), K::NAME);
            if !args.only.is_empty() && !args.only.iter().any(|only| name.contains(only)) {
                continue;
            }
            let data = data.get_or_insert_with(Data::<K>::new);
            let row = race::row(work, usize::from(threads), data, &settings);
            if !args.json {
                writeln!(std::io::stdout(), "{}", row.table())?;
            }
            rows.push(row);
        }
    }
    Ok(())
}
