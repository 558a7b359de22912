//! Processes, a server and the network between them, in one thread and in a time of their own: everything that can go
//! wrong does, by a seed. The state machine of the link, the protocol and the caches are the real ones; the server is
//! `tests/support/mini_redis.rs`, which `tests/redis/` holds against a real one.
//!
//! What is demanded is said in `oracle.rs`: it knows what was written at the source, and nothing of the caches. After
//! the faults everything is healed, and then everybody has to come to the newest values by themselves.
//!
//! A seed that fails is printed; `LARDER_SEED=17 cargo test --features redis --test simulation one_seed -- --nocapture`
//! runs it again (with `LARDER_TRACE=1` told step by step), and it belongs into `tests/simulation/seeds.txt`. `LARDER_SEEDS=100000` runs more of them.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "counts are what the run shows")]

mod faults;
#[path = "../support/mini_redis.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod mini_redis;
mod network;
mod oracle;
mod process;
mod work;

use std::collections::BTreeMap;

use faults::Fault;
use network::Bug;
use work::run;

/// How many seeds are run, beside those that have failed before.
const SEEDS: u64 = 2_000;

fn seeds() -> u64 {
    let asked = std::env::var("LARDER_SEEDS").ok();
    asked.map_or(SEEDS, |seeds| seeds.parse().unwrap())
}

#[test]
fn nothing_stale_is_read_and_everything_heals() {
    let kept = include_str!("seeds.txt").lines();
    let kept = kept.filter_map(|line| line.split('#').next()?.trim().parse::<u64>().ok());
    let mut met: BTreeMap<Fault, u64> = BTreeMap::new();
    let (mut reads, mut strict, mut writes) = (0, 0, 0);
    for seed in kept.chain(1..=seeds()) {
        let outcome = run(seed, Bug::None);
        if let Some(wrong) = outcome.wrong {
            panic!("LARDER_SEED={seed}: {wrong}");
        }
        for (fault, times) in outcome.met {
            *met.entry(fault).or_default() += times;
        }
        reads += outcome.reads;
        strict += outcome.strict;
        writes += outcome.writes;
    }
    println!(
        "counts: {} seeds, {reads} reads checked ({strict} against the strict bound), {writes} writes, faults met: {met:?}",
        seeds()
    );
    for fault in Fault::ALL {
        let times = met.get(&fault).copied().unwrap_or_default();
        assert!(times >= 100, "{fault:?} was met {times} times");
    }
    assert!(reads > seeds() * 50 && strict > seeds() * 30 && writes > seeds() * 10);
}

#[test]
fn planted_bugs_are_caught() {
    for bug in Bug::PLANTED {
        let caught = (1..=SEEDS).find_map(|seed| Some((seed, run(seed, bug).wrong?)));
        let (seed, wrong) = caught.unwrap_or_else(|| panic!("{bug:?} was not caught"));
        println!("counts: {bug:?} is caught by seed {seed}: {wrong}");
    }
}

/// Runs one seed.
#[test]
fn one_seed() {
    let seed = std::env::var("LARDER_SEED").map_or(1, |seed| seed.parse().unwrap());
    let outcome = run(seed, Bug::None);
    println!("counts: seed {seed}: {:?}", outcome.met);
    assert_eq!(outcome.wrong, None);
}
