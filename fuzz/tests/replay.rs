//! Without libFuzzer: the committed corpus, and a fixed number of seeded inputs, through every target.

#![allow(clippy::print_stdout, reason = "the counts are what a run leaves")]

mod common;

use std::fs;
use std::path::Path;

use common::Inputs;
use larder_fuzz::targets::{ALL, Bug, Counts};

/// Seeded inputs per target. A run of all of them takes a few seconds without optimization.
const SEEDED: u64 = 1_000;
const LONGEST: u64 = 600;

/// What the committed corpus may be, so that it stays something to read and to review.
const MOST_FILES: usize = 40;
const MOST_BYTES: u64 = 100 << 10;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("a file of the corpus"))
        .collect()
}

fn say(target: &str, source: &str, inputs: usize, counts: &Counts) {
    let told: Vec<String> = counts
        .iter()
        .map(|(what, times)| format!("{}={times}", what.replace(' ', "-")))
        .collect();
    println!(
        "counts fuzz.{target}.{source} inputs={inputs} {}",
        told.join(" ")
    );
}

#[test]
fn the_corpus_passes() {
    let mut bytes = 0;
    for target in ALL {
        let inputs = corpus(target.name);
        assert!(!inputs.is_empty(), "{}: no corpus", target.name);
        assert!(
            inputs.len() <= MOST_FILES,
            "{}: {}",
            target.name,
            inputs.len()
        );
        let mut counts = Counts::default();
        for input in &inputs {
            counts.merge(&(target.drive)(input, Bug::NONE));
            bytes += input.len() as u64;
        }
        say(target.name, "corpus", inputs.len(), &counts);
        for what in target.needs {
            let times = counts.of(what);
            assert!(
                times > 0,
                "{}: the corpus never shows `{what}`",
                target.name
            );
        }
    }
    assert!(bytes < MOST_BYTES, "a corpus of {bytes} bytes");
}

#[test]
fn seeded_inputs_pass() {
    for target in ALL {
        let mut inputs = Inputs::new(7);
        let mut counts = Counts::default();
        for _ in 0..SEEDED {
            counts.merge(&(target.drive)(&inputs.draw(LONGEST), Bug::NONE));
        }
        say(target.name, "seeded", SEEDED as usize, &counts);
        for what in target.needs {
            let times = counts.of(what);
            assert!(times >= 20, "{}: `{what}` came {times} times", target.name);
        }
    }
}
