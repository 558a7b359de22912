//! Breaks each promise in a copy of the tree, and sees that the tests which the README names for it
//! fail. The copy lies in `target/broken`; the tree itself is never changed.
//!
//! The breaking takes a quarter of an hour, so it runs when asked for:
//!
//! ```sh
//! cargo test --test broken -- --ignored --nocapture                       # all of them
//! LARDER_BREAK='deadline' cargo test --test broken -- --ignored --nocapture   # those with this word
//! ```
//!
//! What always runs is the check that each break still applies: that its text is in the source, once.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the tree has failed"
)]
#![allow(clippy::print_stdout, reason = "a table is its result")]

mod breaks;
mod calls;
mod keeping;
mod tiers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use breaks::{Break, Suite};

/// What the copy needs to be built; the rest of the tree stays behind.
const COPIED: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "clippy.toml",
    "README.md",
    "ARCHITECTURE.md",
    "src",
    "tests",
    "benches",
    "examples",
];

/// A test that hangs on a broken promise has noticed it.
const PATIENCE: Duration = Duration::from_secs(240);
const STEP: Duration = Duration::from_millis(50);

#[test]
fn every_break_still_applies() {
    for broken in breaks::all() {
        let text = fs::read_to_string(root().join(broken.file)).unwrap();
        let count = text.matches(broken.from).count();
        assert_eq!(
            count, 1,
            "{}: `{}` stands {count} times in {}",
            broken.what, broken.from, broken.file
        );
    }
}

#[test]
fn every_promise_that_has_a_test_has_a_break() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let promised: Vec<u32> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
        .collect();
    assert!(promised.len() >= 11, "the table of promises: {promised:?}");
    for promise in promised {
        assert!(
            breaks::all().any(|broken| broken.promise == promise),
            "promise {promise} is broken nowhere"
        );
    }
}

#[test]
#[ignore = "a quarter of an hour: builds and runs the suites once for each break"]
fn every_broken_promise_is_noticed() {
    let tree = copy_of_the_tree();
    let only = std::env::var("LARDER_BREAK").unwrap_or_default();
    let mut unnoticed = Vec::new();
    for broken in breaks::all() {
        if !broken.what.contains(&only) {
            continue;
        }
        let verdict = run(&tree, broken);
        println!("promise {:>2}  {}: {verdict}", broken.promise, broken.what);
        if !verdict.starts_with("noticed") {
            unnoticed.push(broken.what);
        }
    }
    assert!(unnoticed.is_empty(), "not noticed: {unnoticed:#?}");
}

/// Applies one break, runs its test, and takes the break back.
fn run(tree: &Path, broken: &Break) -> String {
    let file = tree.join(broken.file);
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, whole.replacen(broken.from, broken.to, 1)).unwrap();
    let verdict = judge(tree, broken);
    fs::write(&file, whole).unwrap();
    verdict
}

fn judge(tree: &Path, broken: &Break) -> String {
    let build = cargo(tree, broken, &["--no-run"]).output().unwrap();
    if !build.status.success() {
        return format!("does not compile\n{}", text(&build));
    }
    let mut waited = Duration::ZERO;
    let mut child = cargo(tree, broken, &[])
        .stdout(fs::File::create(tree.join("stdout")).unwrap())
        .stderr(fs::File::create(tree.join("stderr")).unwrap())
        .spawn()
        .unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            if status.success() {
                return "NOT NOTICED".to_owned();
            }
            break;
        }
        if waited > PATIENCE {
            // Cargo goes; the test it started is stopped by name, for it is in nobody's group.
            child.kill().unwrap();
            child.wait().unwrap();
            let _ = Command::new("pkill").args(["-f", "broken/build"]).status();
            return "noticed: hangs".to_owned();
        }
        #[allow(clippy::disallowed_methods, reason = "waits for another program")]
        std::thread::sleep(STEP);
        waited += STEP;
    }
    let printed = fs::read_to_string(tree.join("stdout")).unwrap();
    let failed: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .collect();
    if failed.is_empty() {
        "noticed: aborts".to_owned()
    } else {
        format!("noticed by {}", failed.join(", "))
    }
}

fn cargo(tree: &Path, broken: &Break, more: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(tree).arg("test");
    let target = match broken.suite {
        Suite::Test(suite) => {
            cargo.args(["-p", "larder", "--test", suite]);
            "build"
        }
        Suite::Tier(suite) => {
            cargo.args([
                "--release",
                "-p",
                "larder",
                "--all-features",
                "--test",
                suite,
            ]);
            "build-tier"
        }
        Suite::TierUnit => {
            cargo.args(["--release", "-p", "larder", "--all-features", "--lib"]);
            "build-tier"
        }
        Suite::Race => {
            cargo.args(["--release", "--manifest-path", "tests/race/Cargo.toml"]);
            cargo.env("RUSTFLAGS", "--cfg larder_shuttle");
            "build-race"
        }
    };
    cargo.env("CARGO_TARGET_DIR", tree.parent().unwrap().join(target));
    cargo.env("LARDER_MODEL_CASES", "2");
    cargo.args(more).args(["--", broken.test]);
    cargo
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn copy_of_the_tree() -> PathBuf {
    let tree = root().join("target/broken/tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).unwrap();
    }
    fs::create_dir_all(&tree).unwrap();
    for name in COPIED {
        copy(&root().join(name), &tree.join(name));
    }
    tree
}

fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::copy(from, to).unwrap();
        return;
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        if name != "target" {
            copy(&from.join(&name), &to.join(&name));
        }
    }
}
