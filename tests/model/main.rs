//! Random operations against a reference model, over the product of configurations.
//!
//! `LARDER_MODEL_CASES` sets the number of cases a configuration (default 3), `LARDER_MODEL_SEED` runs
//! one seed alone. A failure prints its seed, its configuration and the last steps.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a failing case tells how to run it again; a fresh seed comes from the wall clock"
)]

mod aging;
mod cells;
mod config;
mod loads;
mod ops;
mod reference;
mod run;
mod steps;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::time::{SystemTime, UNIX_EPOCH};

/// Seeds that once found something, and a few that did not.
const SEEDS: &[u64] = &[1, 2];
const STEPS: u32 = 200;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The seeds of one configuration: the fixed ones, then fresh ones.
fn seeds() -> Vec<u64> {
    if let Some(seed) = number("LARDER_MODEL_SEED") {
        return vec![seed];
    }
    let cases = number("LARDER_MODEL_CASES").unwrap_or(3) as usize;
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let fresh = clock.map_or(0, |time| time.as_nanos() as u64) >> 10;
    eprintln!("fresh seeds from {fresh} on");
    SEEDS.iter().copied().chain(fresh..).take(cases).collect()
}

fn run_all(lru: bool, shards: u64) {
    for seed in seeds() {
        for (number, mut config) in config::Config::all(lru, shards).into_iter().enumerate() {
            let seed = seed.wrapping_mul(64).wrapping_add(number as u64);
            config.spread(seed);
            run::case(config, seed, STEPS);
        }
    }
}

#[test]
fn s3fifo_in_one_shard_does_what_the_model_does() {
    run_all(false, 1);
}

#[test]
fn s3fifo_in_eight_shards_does_what_the_model_does() {
    run_all(false, 8);
}

#[test]
fn lru_in_one_shard_does_what_the_model_does() {
    run_all(true, 1);
}

#[test]
fn lru_in_eight_shards_does_what_the_model_does() {
    run_all(true, 8);
}
