//! What was written at the source, and what a read must not be older than because of it.
//!
//! A read of a key in a process is not older than
//! 1. any write through this process that was answered when the read began;
//! 2. any write that was answered when this process began to act upon a message that covers the key, if that was
//!    before the read began;
//! 3. the source at any moment at which the server made everything older invalid, if that was longer ago than the
//!    stated bound when the read began: the heartbeat and the timeout together. While the tier fails or refuses, a load
//!    has no placeholder by which others could reach it, and who comes while it runs joins it, as without a tier: then
//!    the bound is longer by the longest load.

use std::collections::VecDeque;

pub(crate) const KEYS: usize = 4;
pub(crate) const MILLI: u64 = 1_000_000;
/// No loader takes longer.
pub(crate) const LONGEST_LOAD: u64 = 400 * MILLI;

/// Two keys bear one tag.
pub(crate) fn tag(key: usize) -> &'static str {
    ["even", "odd"][key % 2]
}

pub(crate) fn name(key: usize) -> String {
    format!("k{key}")
}

/// A value says of which key it is.
pub(crate) fn value(key: usize, version: u64) -> u64 {
    ((key as u64 + 1) << 32) | version
}

#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) source: [u64; KEYS],
    /// Writes under way: one a key, as a database would have it.
    pub(crate) is_written: [bool; KEYS],
    /// The last write of each key that was answered.
    known: [u64; KEYS],
    /// By process: 1. and 2.
    floors: Vec<[u64; KEYS]>,
    /// When the server made invalid what was older than this.
    invalidated: [VecDeque<(u64, u64)>; KEYS],
    /// Of those, what has been so for longer than the bound.
    settled: [u64; KEYS],
    /// What has been invalid for longer than the bound and the longest load.
    settling: [VecDeque<(u64, u64)>; KEYS],
    settled_long: [u64; KEYS],
    failed: Vec<Option<u64>>,
    pub(crate) bound: u64,
    pub(crate) reads: u64,
    pub(crate) strict: u64,
    pub(crate) writes: u64,
    pub(crate) wrong: Option<String>,
}

/// What a read must not be older than.
#[derive(Clone, Copy)]
pub(crate) struct Floor {
    by_word: u64,
    by_time: u64,
}

impl Oracle {
    pub(crate) fn new(processes: usize, bound: u64) -> Self {
        Oracle {
            floors: vec![[0; KEYS]; processes],
            failed: vec![None; processes],
            bound,
            ..Oracle::default()
        }
    }

    pub(crate) fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// The source has a new value. The write's number.
    pub(crate) fn write(&mut self, key: usize) -> u64 {
        self.writes += 1;
        self.source[key] += 1;
        self.source[key]
    }

    /// A write was answered.
    pub(crate) fn answered(&mut self, process: usize, key: usize, version: u64) {
        self.known[key] = self.known[key].max(version);
        self.floors[process][key] = self.floors[process][key].max(version);
    }

    /// A process begins to act upon a message; what it must know of this key afterwards.
    pub(crate) fn begins_to_act(&self, key: usize) -> u64 {
        self.known[key]
    }

    pub(crate) fn has_acted(&mut self, process: usize, key: usize, floor: u64) {
        self.floors[process][key] = self.floors[process][key].max(floor);
    }

    /// The server makes everything invalid that is older than the source is now.
    pub(crate) fn invalidates(&mut self, key: usize, now: u64) {
        self.invalidated[key].push_back((now, self.source[key]));
    }

    /// The tier has failed a process.
    pub(crate) fn failed(&mut self, process: usize, now: u64) {
        self.failed[process] = Some(now);
    }

    /// A read begins.
    pub(crate) fn floor(&mut self, process: usize, key: usize, now: u64) -> Floor {
        let lately = self.failed[process].is_some_and(|at| at + LONGEST_LOAD >= now);
        self.strict += u64::from(!lately);
        while let Some(&(at, version)) = self.invalidated[key].front() {
            if at + self.bound >= now {
                break;
            }
            self.settled[key] = self.settled[key].max(version);
            self.invalidated[key].pop_front();
            self.settling[key].push_back((at, version));
        }
        while let Some(&(at, version)) = self.settling[key].front() {
            if at + self.bound + LONGEST_LOAD >= now {
                break;
            }
            self.settled_long[key] = self.settled_long[key].max(version);
            self.settling[key].pop_front();
        }
        Floor {
            by_word: self.floors[process][key],
            by_time: if lately {
                self.settled_long[key]
            } else {
                self.settled[key]
            },
        }
    }

    /// A read ends.
    pub(crate) fn read(&mut self, process: usize, key: usize, floor: Floor, read: u64) {
        self.reads += 1;
        let (of, version) = ((read >> 32) as usize, read & 0xffff_ffff);
        if of != key + 1 || version > self.source[key] {
            self.wrong(format!(
                "process {process} read {of}:{version} under key {key}"
            ));
        } else if version < floor.by_word {
            let known = floor.by_word;
            self.wrong(format!(
                "process {process} read version {version} of key {key}, after it had known of {known}"
            ));
        } else if version < floor.by_time {
            let should = floor.by_time;
            self.wrong(format!(
                "process {process} read version {version} of key {key}, longer than the bound after {should} was written"
            ));
        }
    }
}
