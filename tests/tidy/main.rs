//! The house rules that a compiler does not check, as a test: which module may import which, how long
//! files and functions may grow, where `unsafe` and the machine's clock may stand.
//!
//! Each rule is a function over text, and each has a planted violation that it must find.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the tree has failed"
)]

mod layers;
mod names;

use std::fs;
use std::path::{Path, PathBuf};

/// The only files that may say `unsafe`.
const UNSAFE: &[&str] = &["src/util/cpu.rs", "src/util/clock.rs"];

/// The only file that may ask the machine for the time.
const CLOCK: &[&str] = &["src/util/clock.rs"];

/// Lines before a file's tests. Nothing is over it today, and nothing may be.
const FILE_LINES: usize = 500;

/// Lines of one function, signature and braces included.
const FUNCTION_LINES: usize = 70;

#[test]
fn modules_import_only_from_below() {
    let complaints = layers::complaints(&sources(), layers::ROOMS);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn each_concept_has_the_name_that_the_field_uses() {
    let sources = sources();
    let retired = sources
        .iter()
        .flat_map(|(path, text)| names::retired(path, text));
    let complaints: Vec<String> = retired.chain(names::doubles(&sources)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn files_and_functions_stay_short() {
    let mut complaints = Vec::new();
    for (path, text) in sources().into_iter().chain(tests()) {
        complaints.extend(long_file(&path, &text));
        complaints.extend(long_functions(&path, &text));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn unsafe_stands_only_where_it_is_listed_and_argued_for() {
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        complaints.extend(stray_unsafe(&path, &text));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn only_the_clock_asks_for_the_time() {
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        complaints.extend(stray_clock(&path, &text));
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is() {
    for (path, text) in sources().into_iter().chain(tests()) {
        assert!(
            text.starts_with("//!") || text.starts_with("#!["),
            "{path} has no module document"
        );
    }
}

#[test]
fn no_file_is_dead() {
    let all = sources();
    for (path, _) in &all {
        let file = Path::new(path);
        let name = file.file_stem().unwrap().to_str().unwrap();
        if name == "lib" {
            continue;
        }
        let (name, parent) = if name == "mod" {
            let folder = file.parent().unwrap();
            (
                folder.file_name().unwrap().to_str().unwrap(),
                folder.parent().unwrap(),
            )
        } else {
            (name, file.parent().unwrap())
        };
        let declared = ["mod.rs", "lib.rs"].iter().any(|owner| {
            let owner = parent.join(owner);
            all.iter()
                .any(|(p, text)| Path::new(p) == owner && text.contains(&format!("mod {name};")))
        });
        assert!(declared, "{path} belongs to no module");
    }
}

#[test]
fn the_root_exports_few_names() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let names: usize = text
        .split("pub use ")
        .skip(1)
        .map(|item| item.split(';').next().unwrap())
        .map(|item| {
            item.split('{')
                .next_back()
                .unwrap()
                .split(',')
                .filter(|n| !n.trim().trim_end_matches('}').is_empty())
                .count()
        })
        .sum();
    // A ratchet: more than the fifteen that the design hoped for, each a type that a signature names.
    assert!(names <= 26, "{names} names at the crate root");
}

/// Each checker finds what it is there for.
#[test]
fn planted_violations_are_found() {
    let long = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES));
    assert_eq!(long_functions("x.rs", &long).len(), 1);
    let fits = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES - 2));
    assert!(long_functions("x.rs", &fits).is_empty());
    assert!(long_file("x.rs", &"x\n".repeat(FILE_LINES + 1)).is_some());

    let argued = "// SAFETY: the pointer is valid.\nunsafe { f() }\n";
    assert!(stray_unsafe("src/util/clock.rs", argued).is_empty());
    assert_eq!(
        stray_unsafe("src/util/clock.rs", "unsafe { f() }\n").len(),
        1
    );
    assert_eq!(stray_unsafe("src/shard/mod.rs", argued).len(), 1);
    assert_eq!(
        stray_clock("src/store/mod.rs", "let t = Instant::now();").len(),
        1
    );
    assert!(stray_clock("src/store/mod.rs", "/// not `Instant::now()`").is_empty());
}

fn long_file(path: &str, text: &str) -> Option<String> {
    let lines = text
        .lines()
        .position(|line| line.trim_start().starts_with("mod tests {"))
        .unwrap_or_else(|| text.lines().count());
    (lines > FILE_LINES)
        .then(|| format!("{path}: {lines} lines before its tests, over {FILE_LINES}"))
}

/// Functions over the bound. Relies on rustfmt: a function ends at the first closing brace that is
/// indented like its `fn`.
fn long_functions(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut complaints = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_fn = [
            "fn ",
            "pub fn ",
            "pub const fn ",
            "async fn ",
            "pub async fn ",
            "const fn ",
        ]
        .iter()
        .any(|head| code.starts_with(head))
            || (code.starts_with("pub(") && code.contains(" fn "));
        if !is_fn {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let end = lines[start..].iter().position(|line| {
            *line == format!("{indent}}}")
                || line.ends_with(';')
                    && line.starts_with(indent)
                    && !line[indent.len()..].starts_with(' ')
        });
        let length = end.map_or(1, |end| end + 1);
        if length > FUNCTION_LINES {
            complaints.push(format!(
                "{path}:{}: {length} lines, over {FUNCTION_LINES}",
                start + 1
            ));
        }
    }
    complaints
}

fn stray_unsafe(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut complaints = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap();
        let says_unsafe = code
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| word == "unsafe");
        if !says_unsafe {
            continue;
        }
        if !UNSAFE.contains(&path) {
            complaints.push(format!(
                "{path}:{}: unsafe outside the listed files",
                number + 1
            ));
        }
        let above = &lines[number.saturating_sub(6)..number];
        if !above.iter().any(|line| line.contains("SAFETY:")) {
            complaints.push(format!(
                "{path}:{}: unsafe without its argument",
                number + 1
            ));
        }
    }
    complaints
}

fn stray_clock(path: &str, text: &str) -> Vec<String> {
    if CLOCK.contains(&path) {
        return Vec::new();
    }
    let code = without_comments(text);
    ["Instant::now", "SystemTime", "clock_gettime"]
        .iter()
        .filter(|word| code.contains(*word))
        .map(|word| format!("{path}: says {word}; time comes from a Clock"))
        .collect()
}

fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file of the crate, by its path from the root.
fn sources() -> Vec<(String, String)> {
    files("src")
}

fn tests() -> Vec<(String, String)> {
    files("tests")
}

fn files(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let name = path.strip_prefix(root()).unwrap();
                found.push((name.to_str().unwrap().replace('\\', "/"), text));
            }
        }
    }
    found.sort();
    found
}
