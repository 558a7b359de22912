//! Which module may import which: the order of the rooms, and of the files within each room.
//!
//! Imports are read as text: `use` trees, and paths that begin with `crate::`, `super::` or the name of a child
//! module. A name that a room's `mod.rs` re-exports counts as a name of the file that it comes from, so a circle
//! cannot hide behind a re-export.

use std::collections::{BTreeMap, BTreeSet};

/// Each room and its parts, lowest first: a part imports only from parts before it. `mod` is the room's own
/// `mod.rs`.
pub(crate) const ROOMS: &[(&str, &[&str])] = &[
    // util: ground, knows nothing of caches. ds: single-threaded, integers only. entry, policy: plain values and
    // rules. A flight knows no shard, a shard no lock; the store alone locks stripes of both. load: the protocol of a
    // load. cache: the handle that callers hold. tier: the caches of several processes. The rest is the web side, over
    // public names only.
    (
        "",
        &[
            "util", "ds", "entry", "policy", "flight", "shard", "store", "load", "cache", "tier",
            "http", "fragment", "settings", "signals",
        ],
    ),
    (
        "util",
        &["cpu", "rng", "error", "sync", "clock", "counter", "mod"],
    ),
    (
        "ds",
        &[
            "chunked_vec",
            "index",
            "list",
            "ghost",
            "timer_wheel",
            "mod",
        ],
    ),
    ("ds/index", &["bucket", "table", "mod"]),
    (
        "entry",
        &[
            "freshness",
            "header",
            "mod",
            "expiry",
            "forgotten",
            "generation",
            "hash",
            "removal",
            "stats",
        ],
    ),
    (
        "policy",
        &["usage", "mod", "settings", "lru", "s3fifo", "any"],
    ),
    ("policy/s3fifo", &["mod", "evict_and_admit", "tuning"]),
    (
        "flight",
        &["wait_graph", "waiter", "mod", "join", "table", "turn"],
    ),
    (
        "shard",
        &[
            "slab",
            "side_tables",
            "deferred_free",
            "mod",
            "lookup",
            "remove",
            "evict",
            "insert",
            "insert_fast",
            "compact",
            "validate",
        ],
    ),
    (
        "store",
        &[
            "mod", "get", "stale", "put", "put_fast", "remove", "update", "scan", "tags",
        ],
    ),
    (
        "load",
        &[
            "permit", "leader", "follower", "join", "refresh", "turn", "mod",
        ],
    ),
    ("load/leader", &["mod", "without_value"]),
    (
        "cache",
        &[
            "attached",
            "executor",
            "maintenance",
            "mod",
            "observe",
            "builder",
            "read",
            "write",
            "iter",
            "step",
            "timeout",
            "background",
            "load",
            "load_async",
            "bulk",
            "compute",
            "counters",
            "predicate",
        ],
    ),
    ("cache/builder", &["mod", "loading", "build"]),
    ("cache/observe", &["metrics", "span", "mod"]),
    (
        "tier",
        &[
            "envelope",
            "contract",
            "counters",
            "codec",
            "key",
            "content_id",
            "async_util",
            "sleep",
            "memory",
            "lock",
            "tiered",
            "redis",
            "mod",
        ],
    ),
    (
        "tier/tiered",
        &[
            "own_writes",
            "mod",
            "versions",
            "namespace",
            "builder",
            "miss",
            "publish",
            "invalidation",
            "load",
            "bulk",
            "write",
        ],
    ),
    ("tier/redis/coherence", &["mod", "retries"]),
    (
        "tier/redis",
        &[
            "backoff",
            "breaker",
            "commands",
            "response",
            "event",
            "counters",
            "in_flight",
            "retry_queue",
            "coherence",
            "client",
            "connection",
            "settings",
            "mod",
        ],
    ),
];

/// Rooms of the crate that do not exist yet.
pub(crate) const TO_COME: &[&str] = &["http", "fragment", "settings", "signals"];

/// A module's path from the crate's root: `["store", "get"]`.
type Path = Vec<String>;

/// The modules of a crate, as text.
struct Modules {
    texts: BTreeMap<Path, String>,
    children: BTreeMap<Path, BTreeSet<String>>,
    /// For each module, the names that it re-exports, and the child that each comes from.
    exports: BTreeMap<Path, BTreeMap<String, String>>,
}

/// Imports of a part that is not before the importer in its room, and rooms whose list is not that of their files.
/// `files` are the crate's files by path from the tree's root.
pub(crate) fn complaints(files: &[(String, String)], rooms: &[(&str, &[&str])]) -> Vec<String> {
    let modules = Modules::read(files);
    let mut complaints = modules.unlisted(rooms);
    for (path, text) in &modules.texts {
        for (room, importer, imported, name) in modules.imports(path, text) {
            let order = rooms.iter().find(|(name, _)| *name == room.join("/"));
            let place =
                |part: &str| order.and_then(|(_, parts)| parts.iter().position(|p| *p == part));
            if let (Some(own), Some(other)) = (place(&importer), place(&imported)) {
                if other > own {
                    complaints.push(format!(
                        "{}: `{importer}` imports `{name}` of `{imported}`, which is above it",
                        path.join("::")
                    ));
                }
            }
        }
    }
    complaints
}

impl Modules {
    fn read(files: &[(String, String)]) -> Self {
        let mut modules = Modules {
            texts: BTreeMap::new(),
            children: BTreeMap::new(),
            exports: BTreeMap::new(),
        };
        for (file, text) in files {
            let path = module_path(file);
            if let Some((name, parent)) = path.split_last() {
                let children = modules.children.entry(parent.to_vec()).or_default();
                children.insert(name.clone());
            }
            modules.texts.insert(path, crate::without_comments(text));
        }
        for (path, text) in &modules.texts {
            let mut exports = BTreeMap::new();
            for (is_export, trees) in modules.paths(path, text) {
                for tree in trees.into_iter().filter(|_| is_export) {
                    let tree: Vec<_> = tree.into_iter().skip_while(|s| s == "self").collect();
                    if let (Some(child), Some(name)) = (tree.first(), tree.last()) {
                        if modules.is_child(path, child) {
                            exports.insert(name.clone(), child.clone());
                        }
                    }
                }
            }
            modules.exports.insert(path.clone(), exports);
        }
        modules
    }

    fn is_child(&self, module: &[String], name: &str) -> bool {
        self.children
            .get(module)
            .is_some_and(|all| all.contains(name))
    }

    /// Rooms without a list, parts without a place in it, and places without a part.
    fn unlisted(&self, rooms: &[(&str, &[&str])]) -> Vec<String> {
        let mut complaints = Vec::new();
        for (room, children) in &self.children {
            let name = room.join("/");
            let Some((_, parts)) = rooms.iter().find(|(room, _)| *room == name) else {
                complaints.push(format!("`{name}` has no order in ROOMS"));
                continue;
            };
            for child in children {
                if !parts.contains(&child.as_str()) {
                    complaints.push(format!("ROOMS gives `{child}` no place in `{name}`"));
                }
            }
            for part in *parts {
                let is_to_come = name.is_empty() && TO_COME.contains(part);
                if *part != "mod" && children.contains(*part) == is_to_come {
                    complaints.push(format!(
                        "`{part}` of `{name}`: it exists, or TO_COME names it, and not both"
                    ));
                }
            }
        }
        complaints
    }

    /// The imports of a module: the room that importer and imported share, the part that each is in, and the name.
    fn imports(&self, path: &[String], text: &str) -> Vec<(Path, String, String, String)> {
        let mut found = Vec::new();
        for (is_export, trees) in self.paths(path, text) {
            for tree in trees {
                let target = match tree[0].as_str() {
                    "crate" => tree[1..].to_vec(),
                    "super" => {
                        let ups = tree.iter().take_while(|s| *s == "super").count();
                        let stem = &path[..path.len().saturating_sub(ups)];
                        [stem, &tree[ups..]].concat()
                    }
                    // A child: of `mod.rs`, and no import if it is handed on.
                    _ if is_export => continue,
                    _ => [path, &tree].concat(),
                };
                let shared = path.iter().zip(&target).take_while(|(a, b)| a == b).count();
                let (room, Some(name)) = (&path[..shared], target.get(shared)) else {
                    continue;
                };
                let importer = path.get(shared).map_or("mod", String::as_str);
                let exported = self.exports.get(room).and_then(|all| all.get(name));
                let imported = match exported {
                    _ if self.is_child(room, name) => name,
                    Some(child) => child,
                    None if defines(&self.texts[room], name) => "mod",
                    // `super` of a module within a file is that file.
                    None => continue,
                };
                if importer != imported {
                    let part = (importer.to_owned(), imported.to_owned());
                    found.push((room.to_vec(), part.0, part.1, target.join("::")));
                }
            }
        }
        found
    }

    /// The paths in a module's text that begin with `crate`, `super` or a child, each as the list of paths that its
    /// use tree stands for, and whether it is a re-export. In a module of tests, only those from `crate`: `super` is
    /// the file itself.
    fn paths(&self, module: &[String], text: &str) -> Vec<(bool, Vec<Path>)> {
        let tests = text.find("mod tests {").unwrap_or(text.len());
        let mut found = Vec::new();
        for (at, _) in text.match_indices("::") {
            let start = text[..at]
                .rfind(|c: char| !c.is_alphanumeric() && c != '_')
                .map_or(0, |before| before + 1);
            let head = &text[start..at];
            let begins = !text[..start].ends_with("::");
            let is_head = head == "crate"
                || start < tests && (head == "super" || self.is_child(module, head));
            if begins && is_head {
                let before = text[..start].trim_end();
                let is_use = before.ends_with("use");
                let line = before.rsplit([';', '}', '\n']).next().unwrap_or_default();
                let is_export = is_use && line.trim_start().starts_with("pub");
                let (trees, _) = expand(&text[start..]);
                found.push((is_export, trees));
            }
        }
        found
    }
}

/// Whether an item of this name is defined in the text.
fn defines(text: &str, name: &str) -> bool {
    const KEYWORDS: [&str; 8] = [
        "fn", "struct", "enum", "trait", "type", "const", "static", "mod",
    ];
    text.match_indices(name).any(|(at, _)| {
        let ends = !text[at + name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let before = text[..at].trim_end_matches(' ');
        let keyword = |word: &&str| before.ends_with(*word) && before.len() < at;
        ends && KEYWORDS.iter().any(keyword)
    })
}

/// The paths that a use tree stands for, and how much text it takes.
fn expand(text: &str) -> (Vec<Path>, usize) {
    let mut stem: Path = Vec::new();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let open = rest.trim_start();
        if open.starts_with('{') {
            at += rest.len() - open.len() + 1;
            let mut all = Vec::new();
            loop {
                at += text[at..].len() - text[at..].trim_start_matches([',', ' ', '\n']).len();
                if text[at..].starts_with('}') || at >= text.len() {
                    return (all, (at + 1).min(text.len()));
                }
                let (paths, length) = expand(&text[at..]);
                if length == 0 {
                    return (all, at);
                }
                at += length;
                all.extend(paths.into_iter().map(|path| [&stem[..], &path].concat()));
            }
        }
        let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*');
        let name = &rest[..name.unwrap_or(rest.len())];
        if name.is_empty() {
            return (vec![stem], at);
        }
        stem.push(name.to_owned());
        at += name.len();
        if let Some(alias) = text[at..].strip_prefix(" as ") {
            let end = alias.find(|c: char| !c.is_alphanumeric() && c != '_');
            let alias = &alias[..end.unwrap_or(alias.len())];
            // Kept at the end: a re-export is known by its last name.
            stem.extend(["as".to_owned(), alias.to_owned()]);
            at += 4 + alias.len();
        }
        match text[at..].strip_prefix("::") {
            Some(_) => at += 2,
            None => return (vec![stem], at),
        }
    }
}

/// `src/store/get.rs` is `["store", "get"]`, `src/store/mod.rs` is `["store"]`.
fn module_path(file: &str) -> Path {
    let inside = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut path: Path = inside.split('/').map(str::to_owned).collect();
    if path
        .last()
        .is_some_and(|last| last == "mod" || last == "lib")
    {
        path.pop();
    }
    path
}

/// A file, its text, and how many complaints are due.
const CASES: &[(&str, &str, usize)] = &[
    ("src/low.rs", "use crate::high::Own;\n", 1),
    ("src/low.rs", "// use crate::high::Own;\n", 0),
    ("src/low.rs", "fn f() { crate::high::f() }\n", 1),
    (
        "src/low.rs",
        "use crate::{\n    high::{Own, second::Last},\n    low::Low,\n};\n",
        2,
    ),
    (
        "src/high/second.rs",
        "use super::Own;\nuse super::first::First;\nuse crate::low::Low;\n",
        0,
    ),
    ("src/high/first.rs", "use super::second::Last;\n", 1),
    ("src/high/first.rs", "use super::Own;\n", 1),
    // The re-export is the file that it comes from.
    ("src/high/first.rs", "use super::{Last};\n", 1),
    ("src/high/first.rs", "use super::Alias;\n", 1),
    ("src/high/first.rs", "use crate::high::Last as Other;\n", 1),
    (
        "src/high/mod.rs",
        "mod first;\nmod second;\nuse first::First;\n",
        0,
    ),
    (
        "src/high/mod.rs",
        "mod first;\nmod second;\nuse second::Last;\n",
        1,
    ),
    (
        "src/high/mod.rs",
        "mod first;\nmod second;\nfn f() { second::f() }\n",
        1,
    ),
    (
        "src/high/first.rs",
        "mod tests {\n    use super::Own;\n}\n",
        0,
    ),
    (
        "src/high/first.rs",
        "mod tests {\n    use crate::high::second::Last;\n}\n",
        1,
    ),
    ("src/high/third.rs", "\n", 1),
    ("src/other/mod.rs", "\n", 1),
];

/// Each kind of violation is found, and what is allowed is not.
#[test]
fn planted_violations_are_found() {
    const ROOMS: &[(&str, &[&str])] = &[
        (
            "",
            &["low", "high", "http", "fragment", "settings", "signals"],
        ),
        ("high", &["first", "mod", "second"]),
    ];
    let check = |file: &str, text: &str| {
        let mut files = vec![
            ("src/lib.rs".to_owned(), "mod high;\nmod low;\n".to_owned()),
            ("src/low.rs".to_owned(), "pub struct Low;\n".to_owned()),
            (
                "src/high/mod.rs".to_owned(),
                "mod first;\nmod second;\npub(crate) use second::Last;\npub(crate) use second::{Last as Alias};\npub struct Own;\n"
                    .to_owned(),
            ),
            (
                "src/high/first.rs".to_owned(),
                "pub struct First;\n".to_owned(),
            ),
            (
                "src/high/second.rs".to_owned(),
                "pub struct Last;\n".to_owned(),
            ),
        ];
        files.retain(|(name, _)| name != file);
        files.push((file.to_owned(), text.to_owned()));
        complaints(&files, ROOMS).len()
    };
    for (file, text, expected) in CASES {
        assert_eq!(check(file, text), *expected, "{file}: {text}");
    }
}
