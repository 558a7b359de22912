//! A shard that has lost many entries moves the rest together. Nobody may notice, save by the memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use larder::{Cache, CacheBuilder, Compute, EntryOptions, EvictionPolicy, Expiry, ManualClock};

use crate::{SECOND, ignore};

/// So wide that a block has 64 slots: a few hundred entries are several blocks.
type Wide = [u64; 128];

/// Entries, of which one in ten stays.
const MANY: u64 = 2000;

fn wide(n: u64) -> Wide {
    [n; 128]
}

fn builder() -> CacheBuilder<u64, Wide> {
    Cache::builder().max_capacity(2 * MANY).shards(1)
}

fn fill(cache: &Cache<u64, Wide>) {
    (0..MANY).for_each(|n| ignore(cache.insert(n, wide(n))));
}

fn stays(n: u64) -> bool {
    n % 10 == 7
}

/// Removes all that does not stay, and lets critical sections move what does.
fn thin_out(cache: &Cache<u64, Wide>) {
    (0..MANY)
        .filter(|&n| !stays(n))
        .for_each(|n| ignore(cache.remove(&n)));
    (0..MANY).for_each(|n| ignore(cache.remove(&(MANY + n))));
    while cache.run_pending(u32::MAX) > 0 {}
    validate(cache);
}

fn validate(cache: &Cache<u64, Wide>) {
    #[cfg(debug_assertions)]
    cache.__validate();
    ignore(cache);
}

#[test]
fn entries_keep_all_they_have() {
    for policy in [EvictionPolicy::S3Fifo, EvictionPolicy::Lru] {
        let time = ManualClock::new();
        let cache = builder()
            .eviction_policy(policy)
            .weigher(|n, _| n % 2)
            .time_to_idle(100 * SECOND)
            .clock(time.clock())
            .build()
            .unwrap();
        let rooms = ["a", "b"].map(|name| cache.namespace(name));
        for n in 0..MANY {
            let life = Duration::from_secs(10 + n % 50);
            let tag = if n % 3 == 0 { "three" } else { "other" };
            let options = EntryOptions::new().time_to_live(life).tag(tag);
            ignore(cache.insert_with(n, wide(n), options));
            ignore(rooms[n as usize % 2].insert(n, wide(2 * n)));
        }
        // From here on there are versions.
        cache.compute(&7, |old| {
            old.map_or(Compute::Keep, |old| Compute::Put(*old))
        });
        for n in (0..MANY).filter(|&n| !stays(n)) {
            ignore(cache.remove(&n));
            rooms.iter().for_each(|room| ignore(room.remove(&n)));
        }
        thin_out(&cache);
        let kept = || (0..MANY).filter(|&n| stays(n));
        assert_eq!(cache.len(), 2 * kept().count() as u64);
        assert_eq!(cache.weight(), 2 * kept().map(|n| n % 2).sum::<u64>());
        assert!(kept().all(|n| cache.get(&n) == Some(wide(n))));
        assert!(kept().all(|n| rooms[n as usize % 2].get(&n) == Some(wide(2 * n))));
        assert!(kept().all(|n| rooms[1 - n as usize % 2].get(&n).is_none()));
        cache.invalidate_tag("three");
        rooms[1].clear();
        let is_alive = |n: u64, at: u64| n % 3 != 0 && at < 10 + n % 50;
        for at in 0..60 {
            for n in kept() {
                assert_eq!(cache.peek(&n).is_some(), is_alive(n, at), "{n} at {at}");
                assert!(rooms[1].get(&n).is_none());
            }
            time.advance(SECOND);
            validate(&cache);
        }
        assert_eq!(rooms[0].iter().count(), 0, "numbers that stay are odd");
        time.advance(50 * SECOND);
        while cache.run_pending(u32::MAX) > 0 {}
        assert_eq!(cache.len(), 0);
    }
}

#[test]
fn a_walk_sees_what_stays_exactly_once() {
    let cache = builder().build().unwrap();
    fill(&cache);
    let mut walk = cache.iter();
    let mut seen: Vec<u64> = walk.by_ref().take(200).map(|(n, _)| n).collect();
    thin_out(&cache);
    seen.extend(walk.map(|(n, _)| n));
    seen.retain(|&n| stays(n));
    seen.sort_unstable();
    let want: Vec<u64> = (0..MANY).filter(|&n| stays(n)).collect();
    assert_eq!(seen, want);
    // The walk is over: now they may move.
    thin_out(&cache);
    assert_eq!(cache.iter().count(), want.len());
}

#[test]
fn what_is_read_meanwhile_is_never_missed() {
    let cache = builder().build().unwrap();
    fill(&cache);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Acquire) || reads < MANY {
                let n = reads % (MANY / 10) * 10 + 7;
                assert_eq!(cache.get(&n), Some(wide(n)));
                reads += 1;
            }
        });
        thin_out(&cache);
        done.store(true, Ordering::Release);
        reader.join().unwrap();
    });
}

/// While it is asked about a read, the entry moves.
struct Moving(Arc<OnceLock<Cache<u64, Wide>>>);

impl Expiry<u64, Wide> for Moving {
    fn after_create(&self, _: &u64, _: &Wide) -> Option<Duration> {
        Some(10 * SECOND)
    }

    fn after_read(&self, _: &Wide, _: Option<Duration>) -> Option<Duration> {
        thin_out(self.0.get().unwrap());
        Some(60 * SECOND)
    }

    fn reads(&self) -> bool {
        true
    }
}

#[test]
fn a_life_that_a_read_renews_is_renewed_wherever_the_entry_is() {
    let (shared, time) = (Arc::new(OnceLock::new()), ManualClock::new());
    let cache = builder()
        .expiry(Moving(Arc::clone(&shared)))
        .clock(time.clock())
        .build()
        .unwrap();
    assert!(shared.set(cache.clone()).is_ok());
    fill(&cache);
    // One of the last that were stored.
    let last = MANY - 3;
    assert_eq!(cache.get(&last), Some(wide(last)));
    time.advance(59 * SECOND);
    assert_eq!(cache.peek(&last), Some(wide(last)));
    assert_eq!(cache.peek(&7), None);
}
