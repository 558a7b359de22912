//! The targets. Each reads a list of operations out of the input, performs it on one part of larder and
//! on a reference that is too simple to be wrong, and panics where the two part.
//!
//! Every checker has planted bugs: named places where its own calls go wrong on purpose, as if larder
//! did. `drive` with one of the names has to panic on some input, which `tests/planted.rs` asserts, and
//! `LARDER_FUZZ_BUG=name cargo fuzz run target` has to find one by itself.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use arbitrary::Unstructured;

pub mod cache;
pub mod ghost;
pub mod shard;
pub mod slab;
pub mod wheel;

/// A target, for those who drive them all.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub drive: fn(&[u8], Bug) -> Counts,
    /// The names of its planted bugs.
    pub bugs: &'static [&'static str],
    /// What a few thousand random inputs have to bring about, or the target is not testing it.
    pub needs: &'static [&'static str],
}

pub const ALL: &[Target] = &[
    shard::TARGET,
    wheel::TARGET,
    slab::TARGET,
    ghost::TARGET,
    cache::TARGET,
];

/// The bug that this run plants in its own calls, if any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bug(Option<&'static str>);

impl Bug {
    pub const NONE: Bug = Bug(None);

    pub fn planted(name: &'static str) -> Bug {
        Bug(Some(name))
    }

    /// The one named by `LARDER_FUZZ_BUG`, read once; so a fuzzer can be watched finding it.
    pub fn from_environment(bugs: &[&'static str]) -> Bug {
        static NAME: OnceLock<Option<String>> = OnceLock::new();
        let name = NAME.get_or_init(|| std::env::var("LARDER_FUZZ_BUG").ok());
        let Some(name) = name else {
            return Bug::NONE;
        };
        let known = bugs.iter().find(|bug| *bug == name);
        Bug(Some(known.unwrap_or_else(|| {
            panic!("LARDER_FUZZ_BUG={name}: this target has {bugs:?}")
        })))
    }

    pub(crate) fn is(self, name: &str) -> bool {
        self.0 == Some(name)
    }
}

/// How often what happened, so that a run which tests nothing shows.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub(crate) fn add(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }

    pub fn merge(&mut self, other: &Counts) {
        for (what, times) in &other.0 {
            self.add(what, *times);
        }
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(what, times)| (*what, *times))
    }
}

/// The input as a source of choices. Once it is used up, every choice is the first one.
pub(crate) struct Input<'a>(Unstructured<'a>);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Input(Unstructured::new(data))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// Below `n`, evenly.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        self.0.int_in_range(0..=n.max(1) - 1).unwrap_or(0)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *self.0.choose(from).unwrap_or(&from[0])
    }

    /// A span of any magnitude below `2^bits`: mostly an edge of a power of two, else anything.
    pub(crate) fn span(&mut self, bits: u32) -> u64 {
        let power = 1_u64 << self.below(bits);
        match self.below(4) {
            0 => power,
            1 => power - 1,
            2 => power + u64::from(self.byte()),
            _ => power.saturating_add(self.0.arbitrary::<u64>().unwrap_or(0) % power),
        }
    }
}

static QUIET: AtomicBool = AtomicBool::new(false);

/// For the test that wants every checker to panic.
pub fn tell_no_stories() {
    // Relaxed: whether a story is printed orders nothing.
    QUIET.store(true, Ordering::Relaxed);
}

/// The operations so far, printed should the run fail: the whole list, as a reproduction has to be.
pub(crate) struct Story<Op: Debug> {
    ops: Vec<Op>,
}

impl<Op: Debug> Story<Op> {
    pub(crate) fn new() -> Self {
        Story { ops: Vec::new() }
    }

    pub(crate) fn then(&mut self, op: Op) {
        self.ops.push(op);
    }
}

impl<Op: Debug> Drop for Story<Op> {
    #[allow(clippy::print_stderr, reason = "it is a reproduction's only trace")]
    fn drop(&mut self) {
        if std::thread::panicking() && !QUIET.load(Ordering::Relaxed) {
            eprintln!("after these {} operations:", self.ops.len());
            for op in &self.ops {
                eprintln!("  {op:?}");
            }
        }
    }
}

/// Nanoseconds to which a deadline is kept.
pub const GRAIN: u64 = 20_000;

/// A deadline as an entry keeps it. Those of a run lie within the years for which that is so.
pub fn kept(deadline: u64) -> u64 {
    if deadline == u64::MAX {
        u64::MAX
    } else {
        deadline - deadline % GRAIN
    }
}
