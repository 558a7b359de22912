//! Memory comes back when entries leave: by time, by `clear`, by a lower capacity, one by one.

use std::fmt::Write as _;

use larder::{Cache, EntryOptions, ManualClock};

use crate::{SECOND, alone, heap, ignore};

const ENTRIES: u64 = 100_000;
const SHARDS: usize = 8;
/// What may be left of what the entries took, in percent: directories of blocks, and the last block.
const LEFT: f64 = 2.0;
/// A cache that has evicted remembers hashes of what it evicted, as many as it has room for entries. They
/// are no entry's, and stay.
const GHOST_BYTES: f64 = 5.4;

/// A cache with everything that lies beside the slots, filled.
struct Full {
    cache: Cache<u64, u64>,
    time: ManualClock,
    /// Live bytes before the first entry, and when full.
    empty: i64,
    full: i64,
    /// The keys to remove by hand: all that were ever stored.
    keys: u64,
    ghosts: f64,
}

impl Full {
    /// Filled once, or filled with twice as many more: then slots are taken in no order.
    fn new(churned: bool) -> Full {
        let time = ManualClock::new();
        let cache = Cache::builder()
            .max_capacity(ENTRIES)
            .shards(SHARDS)
            .weigher(|_, _| 1)
            .time_to_live(10 * SECOND)
            .time_to_idle(10 * SECOND)
            .clock(time.clock())
            .build()
            .expect("a valid configuration");
        let empty = heap::bytes();
        let keys = if churned {
            3 * ENTRIES
        } else {
            ENTRIES * 95 / 100
        };
        for n in 0..keys {
            // One in three is read, so that the queues differ.
            let options = EntryOptions::new().tag("one");
            ignore(cache.insert_with(n, n, options));
            if n % 3 == 0 {
                ignore(cache.get(&(n / 2)));
            }
        }
        Full {
            full: heap::bytes(),
            cache,
            time,
            empty,
            keys,
            ghosts: if churned {
                GHOST_BYTES * ENTRIES as f64
            } else {
                0.0
            },
        }
    }

    /// What is left of what the entries took, in percent, not counting ghosts.
    fn left(&self) -> f64 {
        let taken = (self.full - self.empty) as f64;
        ((heap::bytes() - self.empty) as f64 - self.ghosts).max(0.0) / taken * 100.0
    }

    fn run_pending(&self) {
        while self.cache.run_pending(u32::MAX) > 0 {}
    }
}

/// Does it to a cache that was filled once and to one that was churned, and complains about more than
/// `most` percent left.
fn leave(how: &str, most: f64, away: fn(&Full)) {
    let _alone = alone();
    let mut over = String::new();
    for churned in [false, true] {
        let full = Full::new(churned);
        away(&full);
        let left = full.left();
        let state = if churned { "churned" } else { "filled once" };
        println!(
            "figures left {how}, {state}: {left:.1} % of {} bytes ({} at most), {} entries",
            full.full - full.empty,
            most,
            full.cache.len()
        );
        if left > most {
            let _ = writeln!(over, "{how}, {state}: {left:.1} % is left");
        }
    }
    assert!(over.is_empty(), "{over}");
}

#[test]
fn memory_comes_back_after_expiry() {
    leave("after expiry", LEFT, |full| {
        full.time.advance(11 * SECOND);
        full.run_pending();
    });
}

#[test]
fn memory_comes_back_after_clear() {
    leave("after clear", LEFT, |full| {
        full.cache.clear();
        full.run_pending();
    });
}

/// A tenth of the entries keeps a tenth of the memory, and half as much for blocks that are not full.
#[test]
fn memory_comes_back_after_the_capacity_is_lowered() {
    leave("after a tenth of the capacity", 15.0, |full| {
        full.cache.set_capacity(ENTRIES / 10);
        full.run_pending();
    });
}

#[test]
fn memory_comes_back_after_every_entry_was_removed_by_hand() {
    leave("after removal by hand", LEFT, |full| {
        (0..full.keys).for_each(|n| ignore(full.cache.remove(&n)));
        full.run_pending();
    });
}

#[test]
fn memory_comes_back_after_the_last_handle() {
    let _alone = alone();
    let before = (heap::bytes(), heap::blocks());
    drop(Full::new(true));
    let left = (heap::bytes() - before.0, heap::blocks() - before.1);
    // The harness may have started or ended a test meanwhile.
    assert!(left.0.abs() < 20_000, "{} bytes are left", left.0);
    assert!(left.1.abs() < 100, "{} blocks are left", left.1);
}
