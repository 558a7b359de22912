//! The command line: every switch with its limits, so that a bad value is turned away by `clap`
//! with a sentence that names it, before anything is built or opened.

use std::path::PathBuf;

use clap::{Parser, value_parser};

/// Starts a small shop over SQLite, drives it over HTTP first without and then with a cache, and
/// prints one table of what it measured.
#[derive(Debug, Clone, Parser)]
#[command(name = "storefront", version, about)]
pub struct Args {
    /// Port of the cached shop on 127.0.0.1; 0 takes any free port
    #[arg(long, default_value_t = 0)]
    pub port: u16,

    /// Keep the shop's database in this file (built if missing, used again if complete); without
    /// it the file lives in a temporary directory and is removed at the end
    #[arg(long, value_name = "PATH")]
    pub database: Option<PathBuf>,

    /// Leave the cached shop running after the table, until Ctrl-C
    #[arg(long)]
    pub serve: bool,

    /// Print one JSON object, and nothing else, on standard output
    #[arg(long)]
    pub json: bool,

    /// No progress on standard error
    #[arg(long)]
    pub quiet: bool,

    /// Requests of the cached traffic
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = value_parser!(u32).range(1..=10_000_000))]
    pub requests: u32,

    /// Requests of the uncached traffic: the first N of the same list
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub uncached_requests: u32,

    /// Connections of the traffic, cached and uncached alike [default: the number of cores]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=64))]
    pub connections: Option<u16>,

    /// Price changes, each followed at once by reads on other connections
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub price_changes: u32,

    /// Requests released together on one cold category page
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = value_parser!(u32).range(2..=400))]
    pub stampede: u32,

    /// Price changes by two processes on the Redis that the environment variable REDIS_URL names;
    /// none without it
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub process_changes: u32,

    /// Products of a shop that has to be built [default: 50000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1_000..=1_000_000))]
    pub products: Option<u32>,

    /// Plant a bug: change prices without invalidating their tags. The run must then find stale
    /// prices and fail, which shows that the check is able to
    #[arg(long, hide = true)]
    pub break_invalidation: bool,

    /// Be the second process of a run: serve its database over its Redis, under this prefix, until
    /// standard input is closed
    #[arg(long, hide = true, value_name = "PREFIX", requires = "database")]
    pub peer: Option<String>,
}

impl Args {
    /// One connection per core unless told otherwise: more would measure the queue for the cores
    /// and make the uncached pages look slower than they are.
    pub fn traffic_connections(&self) -> usize {
        match self.connections {
            Some(connections) => usize::from(connections),
            None => {
                std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(1, 64))
            }
        }
    }
}
