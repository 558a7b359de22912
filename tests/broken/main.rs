//! Planted bugs: each breaks one promise of the README in a copy of the tree, and the tests that the README names
//! for that promise must fail.
//!
//! A bug is a file in `tests/broken/patches`, named after the promise and what goes wrong. It is a patch with a
//! header that says which suite must fail:
//!
//! ```text
//! promise: 5                     the row of the README's table
//! suite: tests/contract          or `tests/race`, or `unit tests`
//! features: all                  only where the suite needs the crate's features; implies --release
//! test: a_part_of_a_test's_name  without a name, the whole suite runs
//!
//! --- a/src/util/clock.rs
//! +++ b/src/util/clock.rs
//! …
//! ```
//!
//! To write one, change the source, save `git diff` under such a header, and take the change back. A patch that no
//! longer applies after a change of the source fails the fast test below, which names it.
//!
//! Planting all bugs takes half an hour to an hour on two cores, so it runs on request:
//!
//! ```sh
//! cargo test --test broken -- --ignored --nocapture                           # all of them
//! LARDER_BREAK='deadline' cargo test --test broken -- --ignored --nocapture   # those with this word in their name; several: 'a,b'
//! ```
//!
//! The copy is in `target/broken`; the tree itself is never changed.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the tree has failed"
)]
#![allow(clippy::print_stdout, reason = "a table is its result")]

mod patch;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use patch::{Patch, Suite};

/// What the copy needs to be built; the rest of the tree is not copied.
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

/// The time a suite may take. A test that hangs on a broken promise has noticed it.
const MAX_WAIT: Duration = Duration::from_secs(240);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[test]
fn every_patch_applies() {
    let mut complaints = Vec::new();
    for patch in patch::all(root()) {
        if let Err(complaint) = patch.check(root()) {
            complaints.push(format!("{}: {complaint}", patch.name));
        }
    }
    assert!(
        complaints.is_empty(),
        "these planted bugs no longer apply to the source; write each again:\n{}",
        complaints.join("\n")
    );
}

/// The check above fails for a patch whose lines are not in the source.
#[test]
fn a_patch_that_does_not_apply_is_found() {
    let mut patch = patch::all(root()).remove(0);
    assert_eq!(patch.check(root()), Ok(()));
    let wrong = patch.diff.replacen("\n-", "\n-no such line", 1);
    assert_ne!(wrong, patch.diff);
    patch.diff = wrong;
    assert!(patch.check(root()).is_err());
}

/// A filter that matches no test would let its bug pass.
#[test]
fn every_patch_names_tests_that_exist() {
    for patch in patch::all(root()) {
        let names = names_in(&patch.suite);
        for part in patch.test.split("::").filter(|part| !part.is_empty()) {
            assert!(
                names.iter().any(|name| name.contains(part)),
                "{}: its suite has no test or module named `{part}`",
                patch.name
            );
        }
    }
    assert!(
        !names_in(&Suite::Race)
            .iter()
            .any(|name| name == "no_such_test")
    );
}

/// The words of a suite's files, and the files' names: among them those of its tests and modules.
fn names_in(suite: &Suite) -> BTreeSet<String> {
    let mut open = match suite {
        Suite::Integration(suite) => {
            let tests = root().join("tests");
            vec![
                tests.join(suite),
                tests.join(format!("{suite}.rs")),
                tests.join("support"),
            ]
        }
        Suite::Race => vec![root().join("tests/race")],
        Suite::Unit => vec![root().join("src")],
    };
    let mut names = BTreeSet::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            open.extend(entries.filter(|path| !path.ends_with("target")));
        } else if path.is_file() && path.extension().is_some_and(|ext| ext == "rs") {
            names.extend(
                path.file_stem()
                    .map(|stem| stem.to_string_lossy().into_owned()),
            );
            let text = fs::read_to_string(&path).unwrap();
            let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
            names.extend(words.map(str::to_owned));
        }
    }
    names
}

#[test]
fn every_promise_of_the_readme_has_a_patch() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let promised: BTreeSet<u32> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
        .collect();
    assert!(promised.len() >= 11, "the table of promises: {promised:?}");
    let broken: BTreeSet<u32> = patch::all(root()).iter().map(|p| p.promise).collect();
    let missing: Vec<_> = promised.difference(&broken).collect();
    assert!(missing.is_empty(), "no patch breaks promises {missing:?}");
    let unknown: Vec<_> = broken.difference(&promised).collect();
    assert!(unknown.is_empty(), "the README has no promises {unknown:?}");
}

#[test]
#[ignore = "half an hour to an hour, run by `tests/run planted-all`: builds and runs a suite once for each planted bug"]
fn every_planted_bug_is_caught() {
    let words = std::env::var("LARDER_BREAK").unwrap_or_default();
    let patches: Vec<_> = patch::all(root())
        .into_iter()
        .filter(|patch| words.split(',').any(|word| patch.name.contains(word)))
        .collect();
    assert!(
        !patches.is_empty(),
        "no planted bug has one of `{words}` in its name"
    );
    let tree = copy_of_the_tree();
    let mut uncaught = Vec::new();
    for patch in &patches {
        patch.plant(&tree).unwrap();
        let verdict = run(&tree, patch);
        patch.take_back(&tree).unwrap();
        println!("{}: {verdict}", patch.name);
        if !verdict.starts_with("caught") {
            uncaught.push(&patch.name);
        }
    }
    println!(
        "counts planted bugs: {} run, {} not caught",
        patches.len(),
        uncaught.len()
    );
    assert!(uncaught.is_empty(), "not caught: {uncaught:#?}");
}

/// Builds the suite of a planted bug and runs it. The verdict begins with "caught" if a test failed.
fn run(tree: &Path, patch: &Patch) -> String {
    let build = cargo(tree, patch, &["--no-run"]).output().unwrap();
    if !build.status.success() {
        return format!("does not compile\n{}", text(&build));
    }
    let mut waited = Duration::ZERO;
    let mut command = cargo(tree, patch, &[]);
    command
        .stdout(fs::File::create(tree.join("stdout")).unwrap())
        .stderr(fs::File::create(tree.join("stderr")).unwrap());
    // A group of its own, so that a test that hangs is killed along with cargo.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            if status.success() {
                return "NOT CAUGHT".to_owned();
            }
            break;
        }
        if waited > MAX_WAIT {
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            child.kill().unwrap();
            child.wait().unwrap();
            return "caught: hangs".to_owned();
        }
        #[allow(clippy::disallowed_methods, reason = "waits for another program")]
        std::thread::sleep(POLL_INTERVAL);
        waited += POLL_INTERVAL;
    }
    let printed = fs::read_to_string(tree.join("stdout")).unwrap();
    let failed: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .collect();
    if failed.is_empty() {
        "caught: aborts".to_owned()
    } else {
        format!("caught by {}", failed.join(", "))
    }
}

fn cargo(tree: &Path, patch: &Patch, more: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(tree).arg("test");
    if patch.all_features {
        cargo.args(["--release", "--all-features"]);
    }
    let target = match &patch.suite {
        Suite::Integration(suite) => {
            cargo.args(["-p", "larder", "--test", suite]);
            "target"
        }
        Suite::Unit => {
            cargo.args(["-p", "larder", "--lib"]);
            "target"
        }
        Suite::Race => {
            cargo.args(["--release", "--manifest-path", "tests/race/Cargo.toml"]);
            cargo.env("RUSTFLAGS", "--cfg larder_shuttle");
            "tests/race/target"
        }
    };
    // The target directories of the tree itself: the dependencies are built there already.
    cargo.env("CARGO_TARGET_DIR", root().join(target));
    cargo.env("LARDER_MODEL_CASES", "2");
    cargo.args(more).args(["--", &patch.test]);
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
