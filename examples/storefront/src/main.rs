//! A small shop over SQLite whose pages `larder` keeps: the program builds the shop, serves it on
//! loopback without and with the cache, drives both over HTTP, checks them and prints one table.
//! With REDIS_URL set the cache stands ahead of that Redis, and a second process of the program
//! shares it.

#![forbid(unsafe_code)]

mod args;
mod database;
mod drive;
mod error;
mod page_cache;
mod pages;
mod peer;
mod progress;
mod queries;
mod redis_server;
mod report;
mod run;
mod seed;
mod server;
mod shop;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use crate::{args::Args, error::StoreError};

fn main() -> ExitCode {
    let args = Args::parse();
    match start(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(StoreError::Interrupted) => {
            eprintln!("storefront: {}", StoreError::Interrupted);
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("storefront: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything and says whether all checks passed; what kept it from running is an error.
fn start(args: &Args) -> Result<bool, StoreError> {
    let (path, _temporary) = run::database_path(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(StoreError::Runtime)?;
    if let Some(prefix) = &args.peer {
        // No answer of its own to Ctrl-C, which reaches both processes: the first one's is enough.
        return runtime.block_on(run::run_as_peer(args, &path, prefix));
    }
    let result = runtime.block_on(async {
        tokio::select! {
            // In this order: under --serve the run itself waits for Ctrl-C, and ends well by it.
            biased;
            result = run::run(args, &path) => result,
            _ = tokio::signal::ctrl_c() => Err(StoreError::Interrupted),
        }
    });
    // The connections are closed before the temporary directory goes with `_temporary`.
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}
