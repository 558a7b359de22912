//! One million entries that expire at once: what a call pays, what comes back and when, who is told, and
//! how long a lock is held, all by count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::{Cache, CacheBuilder, Clock, ManualClock};

use crate::{DEBUG, SECOND, alone, heap, ignore};

const MANY: u64 = 1_000_000;
const SHARDS: usize = 8;
/// What a critical section reclaims at most (promise 10).
const SLICE: u64 = 64;
/// Slots that one critical section may look at: ten for each of its 64 removals (a look from the wheel, a few at the
/// entry itself, and those whose index bucket moves). Twice the removals would be over it.
const HOLD: u64 = 10 * SLICE;

struct Burst {
    cache: Cache<u64, u64>,
    /// How often each key was told of.
    told: Arc<Vec<AtomicU64>>,
    /// The longest hold of a thread that told of a removal.
    hold: Arc<AtomicU64>,
    empty: i64,
    full: i64,
}

impl Burst {
    fn new(clock: Clock, ttl: Duration, maintained: bool) -> Burst {
        let told: Arc<Vec<AtomicU64>> = Arc::new((0..MANY).map(|_| AtomicU64::new(0)).collect());
        let hold = Arc::new(AtomicU64::new(0));
        let (counts, longest) = (Arc::clone(&told), Arc::clone(&hold));
        let mut builder: CacheBuilder<u64, u64> = Cache::builder()
            .max_capacity(2 * MANY)
            .shards(SHARDS)
            .time_to_live(ttl)
            .clock(clock)
            .removal_listener(move |key: &u64, _, _| {
                longest.fetch_max(larder::__longest_hold(), Ordering::Relaxed);
                if let Some(count) = counts.get(*key as usize) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        if maintained {
            builder = builder.maintenance(Duration::from_millis(100));
        }
        let cache = builder.build().expect("a valid configuration");
        let empty = heap::bytes();
        (0..MANY).for_each(|n| ignore(cache.insert(n, n)));
        Burst {
            full: heap::bytes(),
            cache,
            told,
            hold,
            empty,
        }
    }

    /// What is left of what the entries took, in percent.
    fn left(&self) -> f64 {
        (heap::bytes() - self.empty) as f64 / (self.full - self.empty) as f64 * 100.0
    }

    fn assert_each_told_once(&self) {
        let wrong = self
            .told
            .iter()
            .filter(|count| count.load(Ordering::Relaxed) != 1)
            .count();
        assert_eq!(wrong, 0, "{wrong} of {MANY} were not told of exactly once");
    }

    /// What a call reclaimed, and what it freed.
    fn cost(&self, call: impl FnOnce(&Cache<u64, u64>)) -> (u64, u64) {
        let (before, freed) = (self.cache.stats(), heap::freed());
        call(&self.cache);
        let freed = heap::freed() - freed;
        let done = self.cache.stats().since(&before);
        (done.expired() + done.evicted() + done.invalidated(), freed)
    }

    /// Of this thread and of those that told of removals.
    fn longest_hold(&self) -> u64 {
        self.hold
            .load(Ordering::Relaxed)
            .max(larder::__longest_hold())
    }
}

/// What writes had to do to reclaim a million.
struct Drained {
    writes: u64,
    /// The most that one write reclaimed, and the most blocks that it freed.
    dearest: u64,
    freed: u64,
    hold: u64,
    left: f64,
    /// Entries that are there at the end, in percent of what was there.
    entries: f64,
}

/// Lets a million expire and writes until all of them are gone, asserting on the way that no write pays for
/// more than a batch.
fn drain(how: &str, write: fn(&Cache<u64, u64>, u64)) -> Drained {
    let time = ManualClock::new();
    let burst = Burst::new(time.clock(), 60 * SECOND, false);
    time.advance(61 * SECOND);
    ignore(larder::__longest_hold());
    let (mut dearest, mut freed, mut writes) = (0, 0, 0);
    // Once all are gone, some memory may be left to give back.
    while burst.cache.stats().expired() < MANY || (writes < MANY / 32 && burst.left() > 2.0) {
        writes += 1;
        assert!(writes <= MANY / 32, "{how}: {} left", burst.cache.len());
        let (reclaimed, blocks) = burst.cost(|cache| write(cache, writes));
        assert!(
            reclaimed <= SLICE + 1,
            "{how}: a write reclaimed {reclaimed}"
        );
        dearest = dearest.max(reclaimed);
        freed = freed.max(blocks);
    }
    burst.assert_each_told_once();
    let drained = Drained {
        writes,
        dearest,
        freed,
        hold: burst.longest_hold(),
        left: burst.left(),
        entries: burst.cache.len() as f64 / MANY as f64 * 100.0,
    };
    println!(
        "figures a million expired at once, {how}: {writes} writes ({} allowed), {dearest} reclaimed and {freed} \
         blocks freed by one at most, {} slots under one lock at most ({HOLD} allowed), {:.1} % of {} bytes left \
         with {:.1} % of the entries",
        MANY / 32,
        drained.hold,
        drained.left,
        burst.full - burst.empty,
        drained.entries,
    );
    drained
}

impl Drained {
    fn assert_counts(&self) {
        assert!(self.writes >= MANY / SLICE, "{} writes", self.writes);
        assert!(self.dearest <= SLICE + 1, "{} reclaimed", self.dearest);
        if DEBUG {
            assert!((1..=HOLD).contains(&self.hold), "{} slots", self.hold);
        } else {
            println!("skipped: slots under a lock are counted in debug builds only");
        }
    }
}

/// New entries, that live on.
fn store(cache: &Cache<u64, u64>, n: u64) {
    ignore(cache.insert(MANY + n, 0));
}

/// A few thousand entries, over and over.
fn overwrite(cache: &Cache<u64, u64>, n: u64) {
    ignore(cache.insert(MANY + n % 4096, 0));
}

/// Removals of what is not there: writes that leave nothing behind.
fn remove(cache: &Cache<u64, u64>, n: u64) {
    ignore(cache.remove(&(MANY + n)));
}

#[test]
fn writes_pay_for_a_million_that_expired_at_once_in_slices() {
    let _alone = alone();
    drain("by new entries", store).assert_counts();
    let drained = drain("by removals", remove);
    drained.assert_counts();
    assert!(drained.left < 2.0, "{:.1} % is left", drained.left);
}

/// One entry in a hundred keeps one byte in a hundred, and as much again and a little for blocks.
#[test]
fn writes_that_stay_keep_no_more_than_their_share() {
    let _alone = alone();
    for (how, write) in [
        ("by overwriting", overwrite as fn(&Cache<u64, u64>, u64)),
        ("by new entries", store),
    ] {
        let drained = drain(how, write);
        assert!(
            drained.left <= 2.0 * drained.entries + 5.0,
            "{how}: {:.1} % is left for {:.1} % of the entries",
            drained.left,
            drained.entries
        );
    }
}

/// A critical section that frees 64 entries frees about as many blocks, not thousands.
#[test]
fn no_write_frees_more_blocks_than_a_slice() {
    let _alone = alone();
    let drained = drain("by removals", remove);
    assert!(drained.freed <= 2 * SLICE, "{} blocks", drained.freed);
}

#[test]
fn every_other_call_pays_a_slice_a_shard_as_well() {
    let _alone = alone();
    let time = ManualClock::new();
    let burst = Burst::new(time.clock(), 60 * SECOND, false);
    time.advance(61 * SECOND);
    ignore(larder::__longest_hold());
    type Call = fn(&Cache<u64, u64>);
    // What a call may reclaim: a batch for each critical section of a shard, and the entry it meets itself.
    let calls: [(&str, u64, Call); 11] = [
        ("get", 0, |cache| ignore(cache.get(&5))),
        ("get_many", 0, |cache| ignore(cache.get_many(&[1, 2, 3]))),
        ("iter", 0, |cache| assert_eq!(cache.iter().count(), 0)),
        ("add", 1, |cache| ignore(cache.add(7, 1))),
        ("remove", 1, |cache| ignore(cache.remove(&8))),
        ("touch", 1, |cache| ignore(cache.touch(&9, None))),
        ("get_or_load", 2, |cache| {
            ignore(cache.get_or_load(&12, || 1))
        }),
        ("run_pending(64)", 1, |cache| ignore(cache.run_pending(64))),
        ("insert_many", 3, |cache| {
            cache.insert_many([(14, 1), (15, 1), (16, 1)]);
        }),
        ("retain", 2 * SHARDS as u64, |cache| {
            ignore(cache.retain(|_, _| true));
        }),
        ("clear", SHARDS as u64, Cache::clear),
    ];
    for (name, visits, call) in calls {
        let (reclaimed, _) = burst.cost(call);
        assert!(
            reclaimed <= visits * (SLICE + 1),
            "{name} reclaimed {reclaimed}"
        );
    }
    // However large the budget, the lock is free between batches.
    burst.cache.run_pending(u32::MAX);
    let hold = burst.longest_hold();
    println!("figures run_pending of the rest: {hold} slots under one lock at most");
    assert!(!DEBUG || (1..=HOLD).contains(&hold), "{hold} slots");
    assert!(burst.left() < 2.0, "{:.1} % is left", burst.left());
}

#[test]
fn with_maintenance_a_million_are_back_in_seconds() {
    let _alone = alone();
    // Longer than filling takes, so that all of them expire in one stroke: the clock is turned.
    let time = ManualClock::new();
    let burst = Burst::new(time.clock(), 3600 * SECOND, true);
    let start = Instant::now();
    time.advance(3601 * SECOND);
    while burst.cache.stats().expired() < MANY || burst.left() > 2.0 {
        assert!(
            start.elapsed() < 20 * SECOND,
            "{} expired, {:.1} % left",
            burst.cache.stats().expired(),
            burst.left()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed();
    println!(
        "figures a million expired at once, with maintenance every 100 ms: back after {} ms, {:.1} % of the bytes \
         left, {} slots under one lock at most",
        took.as_millis(),
        burst.left(),
        burst.longest_hold()
    );
    burst.assert_each_told_once();
    let hold = burst.longest_hold();
    assert!(!DEBUG || (1..=HOLD).contains(&hold), "{hold} slots");
}

/// On the machine's clock as well: two hundred thousand, since they have to be stored within their time.
#[test]
fn with_maintenance_on_the_machines_clock_the_bytes_come_back() {
    let _alone = alone();
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(MANY)
        .shards(SHARDS)
        .time_to_live(3 * SECOND)
        .maintenance(Duration::from_millis(100))
        .build()
        .expect("a valid configuration");
    let empty = heap::bytes();
    let start = Instant::now();
    (0..MANY / 5).for_each(|n| ignore(cache.insert(n, n)));
    let taken = heap::bytes() - empty;
    let deadline = start + 3 * SECOND + start.elapsed();
    while (heap::bytes() - empty) * 50 > taken {
        assert!(Instant::now() < deadline + 20 * SECOND, "{}", cache.len());
        std::thread::sleep(Duration::from_millis(1));
    }
    println!(
        "figures the last of 200,000 on the machine's clock: back {} ms after its deadline",
        Instant::now()
            .saturating_duration_since(deadline)
            .as_millis()
    );
    assert!(cache.is_empty());
}
