//! Look-ups by borrowed keys, iteration, and statistics.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder::{Cache, EntryOptions, Equivalent};

use crate::{SECOND, ignore, sized, timed, weighted};

#[test]
fn a_borrowed_key_will_do_everywhere() {
    let cache: Cache<String, u64> = Cache::builder().max_capacity(10).build().unwrap();
    cache.insert("a".to_owned(), 1);
    assert_eq!((cache.get("a"), cache.peek("a")), (Some(1), Some(1)));
    assert!(cache.contains_key("a") && cache.touch("a", None));
    assert_eq!(cache.incr("a", 1), Some(2));
    assert_eq!(cache.get_many(["a", "b"]), [Some(2), None]);
    assert_eq!(cache.get_or_load("b", || 7), 7);
    cache.compute("c", |_| larder::Compute::Put(3));
    assert_eq!(cache.remove_if("c", |_| true), Some(3));
    assert_eq!(cache.remove("a"), Some(2));
    assert!(cache.invalidate("b"));
    assert_eq!(cache.remove_many(["a", "b"]), 0);
}

/// A key in two parts, to be looked up without building it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Page {
    site: String,
    number: u32,
}

struct PageRef<'a>(&'a str, u32);

impl Hash for PageRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        self.1.hash(state);
    }
}

impl Equivalent<Page> for PageRef<'_> {
    fn equivalent(&self, page: &Page) -> bool {
        self.0 == page.site && self.1 == page.number
    }
}

#[test]
fn a_key_of_ones_own_equivalence_will_do() {
    let cache: Cache<Page, u64> = Cache::builder().max_capacity(10).build().unwrap();
    let site = "shop".to_owned();
    cache.insert(Page { site, number: 7 }, 1);
    assert_eq!(cache.get(&PageRef("shop", 7)), Some(1));
    assert_eq!(cache.get(&PageRef("shop", 8)), None);
    assert_eq!(cache.remove(&PageRef("shop", 7)), Some(1));
}

#[test]
fn a_walk_at_rest_sees_every_entry_once() {
    for count in [0, 1, 63, 64, 65, 5000, 50_000] {
        let cache = sized(100_000);
        (0..count).for_each(|n| ignore(cache.insert(n, 2 * n)));
        (0..count).step_by(3).for_each(|n| ignore(cache.remove(&n)));
        let mut seen: Vec<(u64, u64)> = cache.iter().collect();
        seen.sort_unstable();
        let want: Vec<_> = (0..count)
            .filter(|n| n % 3 != 0)
            .map(|n| (n, 2 * n))
            .collect();
        assert_eq!(seen, want);
        assert_eq!((cache.stats().hits(), cache.stats().misses()), (0, 0));
    }
}

#[test]
fn a_walk_beside_writers_sees_what_stays_exactly_once() {
    let cache = sized(20_000);
    (0..3000).for_each(|n| ignore(cache.insert(n, 0)));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                cache.insert(10_000 + n % 3000, n);
                cache.remove(&(10_000 + (n + 1500) % 3000));
                n += 1;
            }
        });
        for _ in 0..20 {
            let mut seen: HashMap<u64, u32> = HashMap::new();
            for (key, _) in &mut cache.iter() {
                *seen.entry(key).or_default() += 1;
            }
            assert!(
                (0..3000).all(|n| seen.get(&n) == Some(&1)),
                "each that stayed, once"
            );
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_walk_holds_no_lock_between_its_steps() {
    let cache = sized(1000);
    (0..200).for_each(|n| ignore(cache.insert(n, n)));
    let mut walk = cache.iter();
    let first = walk.next().expect("200 are there");
    cache.clear();
    cache.insert(first.0, 7);
    // What is left is at most the page that was copied, and what came since.
    assert!(walk.count() <= 64);
}

// ---- statistics ----

#[test]
fn reads_are_counted_and_looks_are_not() {
    let cache = sized(100);
    cache.insert(1, 1);
    cache.get(&1);
    cache.get(&2);
    cache.get_many(&[1, 2, 3]);
    cache.get_or_load(&1, || 1);
    cache.get_or_load(&4, || 4);
    cache.peek(&1);
    cache.contains_key(&1);
    let stats = cache.stats();
    assert_eq!((stats.hits(), stats.misses()), (3, 4));
    assert!((stats.hit_ratio() - 3.0 / 7.0).abs() < 1e-9);
    assert_eq!(
        (stats.inserts(), stats.loads(), stats.load_failures()),
        (2, 1, 0)
    );
}

#[test]
fn removals_are_counted_by_cause_and_with_their_weight() {
    let time = larder::ManualClock::new();
    let cache = weighted(100).clock(time.clock()).build().unwrap();
    let second = EntryOptions::new().time_to_live(SECOND);
    cache.insert_with(1, 10, second).unwrap();
    cache.insert(2, 20);
    cache.insert(2, 30);
    cache.remove(&2);
    time.advance(SECOND);
    cache.run_pending(10);
    cache.insert(3, 90);
    cache.insert(4, 80);
    assert!(cache.try_insert(5, 101).is_err());
    let stats = cache.stats();
    assert_eq!(
        (stats.expired(), stats.replaced(), stats.explicit()),
        (1, 1, 1)
    );
    assert_eq!((stats.evicted(), stats.evicted_weight()), (1, 90));
    assert_eq!((stats.rejections(), stats.inserts()), (1, 5));
    assert_eq!((stats.len(), stats.weight()), (1, 80));
    cache.clear();
    cache.run_pending(10);
    assert_eq!(cache.stats().invalidated(), 1);
}

#[test]
fn loads_are_counted_and_timed() {
    let (cache, time) = timed(|builder| builder);
    let failed = cache.try_get_or_load(&1, || {
        time.advance(SECOND);
        Err::<u64, _>("no")
    });
    assert!(failed.is_err());
    cache.get_or_load(&1, || {
        time.advance(SECOND);
        1
    });
    let stats = cache.stats();
    assert_eq!(
        (stats.loads(), stats.load_failures(), stats.joined()),
        (2, 1, 0)
    );
    assert_eq!(stats.load_time(), 2 * SECOND);
}

#[test]
fn a_difference_counts_what_came_between() {
    let cache = sized(100);
    cache.insert(1, 1);
    cache.get(&1);
    let before = cache.stats();
    cache.insert(2, 2);
    cache.get(&1);
    cache.get(&9);
    let between = cache.stats().since(&before);
    assert_eq!(
        (between.hits(), between.misses(), between.inserts()),
        (1, 1, 1)
    );
    assert_eq!(
        (between.len(), between.weight()),
        (2, 2),
        "the later snapshot's"
    );
    assert_eq!(between.load_time(), Duration::ZERO);
}

#[test]
fn hits_and_misses_are_conserved_under_threads() {
    let cache = sized(100);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for n in 0..5000 {
                    cache.get(&(n % 150));
                    cache.insert(n % 150, n);
                }
            });
        }
    });
    let stats = cache.stats();
    assert_eq!(stats.hits() + stats.misses(), 15_000);
    assert_eq!(stats.inserts(), 15_000);
    let left = stats.replaced() + stats.evicted() + stats.len();
    assert_eq!(left, 15_000);
}
