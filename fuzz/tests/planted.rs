//! A checker that cannot fail proves nothing: each planted bug has to be caught, by seeded inputs alone.

#![allow(clippy::print_stdout, reason = "the counts are what a run leaves")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::Inputs;
use larder_fuzz::targets::{ALL, Bug, Target};

const MOST: u32 = 5_000;

/// How many inputs it took, and what the checker said.
fn caught(target: &Target, bug: &'static str) -> Option<(u32, String)> {
    let mut inputs = Inputs::new(11);
    (1..=MOST).find_map(|number| {
        let input = inputs.draw(600);
        let run = || (target.drive)(&input, Bug::planted(bug));
        let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
        let said = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        Some((number, said.unwrap_or_default()))
    })
}

#[test]
fn every_planted_bug_is_caught() {
    // The panics are expected, and their stories long.
    std::panic::set_hook(Box::new(|_| {}));
    larder_fuzz::targets::tell_no_stories();
    let mut blind = Vec::new();
    for target in ALL {
        assert!(
            !target.bugs.is_empty(),
            "{} has no planted bug",
            target.name
        );
        for bug in target.bugs {
            match caught(target, bug) {
                Some((inputs, said)) => {
                    let said = said.lines().next().unwrap_or_default();
                    println!("counts fuzz.planted.{bug} inputs={inputs} said=\"{said}\"");
                }
                None => blind.push(*bug),
            }
        }
    }
    let _ = std::panic::take_hook();
    assert!(blind.is_empty(), "not caught in {MOST} inputs: {blind:?}");
}
