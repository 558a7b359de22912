//! The files of `tests/broken/patches`: reading their headers, and applying their diffs with `git apply`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The suite that must fail on a planted bug.
#[derive(Debug)]
pub(crate) enum Suite {
    /// An integration test of the crate, by name.
    Integration(String),
    /// The crate's own unit tests.
    Unit,
    /// The models of `tests/race`.
    Race,
}

/// A planted bug.
#[derive(Debug)]
pub(crate) struct Patch {
    /// The file's name without its ending.
    pub(crate) name: String,
    /// The number of the promise that the bug breaks.
    pub(crate) promise: u32,
    pub(crate) suite: Suite,
    pub(crate) all_features: bool,
    /// A part of the names of the tests to run; empty for all of the suite.
    pub(crate) test: String,
    pub(crate) diff: String,
}

/// All planted bugs, by name. Panics on a file that is no planted bug.
pub(crate) fn all(root: &Path) -> Vec<Patch> {
    let folder = root.join("tests/broken/patches");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap();
            parse(name, &fs::read_to_string(path).unwrap())
                .unwrap_or_else(|complaint| panic!("{}: {complaint}", path.display()))
        })
        .collect()
}

fn parse(name: &str, text: &str) -> Result<Patch, String> {
    let (header, diff) = text
        .split_once("\n\n")
        .ok_or("no empty line ends the header")?;
    let field = |field: &str| {
        header
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| *name == field)
            .map(|(_, value)| value.trim())
    };
    let promise: u32 = field("promise")
        .and_then(|number| number.parse().ok())
        .ok_or("the header has no `promise: <number>`")?;
    if !name.starts_with(&format!("{promise:02}-")) {
        return Err(format!("the name does not begin with promise {promise}"));
    }
    let suite = match field("suite").ok_or("the header has no `suite:`")? {
        "unit tests" => Suite::Unit,
        "tests/race" => Suite::Race,
        suite => {
            let suite = suite.strip_prefix("tests/").ok_or("an unknown `suite:`")?;
            Suite::Integration(suite.to_owned())
        }
    };
    Ok(Patch {
        name: name.to_owned(),
        promise,
        suite,
        all_features: field("features") == Some("all"),
        test: field("test").unwrap_or_default().to_owned(),
        diff: diff.to_owned(),
    })
}

impl Patch {
    /// Whether the patch applies to the tree at `root`, without changing it.
    pub(crate) fn check(&self, root: &Path) -> Result<(), String> {
        self.git_apply(root, &["--check"])
    }

    /// Applies the patch to the tree.
    pub(crate) fn plant(&self, tree: &Path) -> Result<(), String> {
        self.git_apply(tree, &[])
    }

    /// Reverts `plant`.
    pub(crate) fn take_back(&self, tree: &Path) -> Result<(), String> {
        self.git_apply(tree, &["--reverse"])
    }

    fn git_apply(&self, tree: &Path, arguments: &[&str]) -> Result<(), String> {
        let mut git = Command::new("git")
            .arg("apply")
            .args(arguments)
            .current_dir(tree)
            // Within a repository, git would take the paths from the repository's root.
            .env("GIT_DIR", tree.join("no repository"))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("git does not start: {error}"))?;
        // Git reads all of a patch before it complains.
        git.stdin
            .take()
            .unwrap()
            .write_all(self.diff.as_bytes())
            .map_err(|error| error.to_string())?;
        let output = git.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }
}
