//! When a value is early: the window, what opens it, what closes it, and what it costs outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{BuildError, Cache, EntryOptions, EvictionPolicy, Expiry, Freshness};

use crate::{ALWAYS, KEY, MILLI, Numbers, SECOND, at_rest, in_the_window, load, timed};

fn freshness(cache: &Numbers) -> Option<Freshness> {
    cache
        .get_with_freshness(&KEY)
        .map(|(_, freshness)| freshness)
}

#[test]
fn a_loaded_value_is_early_in_the_second_half_of_its_life_at_most() {
    let (cache, time) = timed(ALWAYS, |builder| builder);
    load(&cache, &time, 1);
    assert_eq!(freshness(&cache), Some(Freshness::Fresh));
    time.advance(499 * MILLI);
    assert_eq!(freshness(&cache), Some(Freshness::Fresh));
    time.advance(MILLI);
    assert_eq!(freshness(&cache), Some(Freshness::Early));
    time.advance(500 * MILLI - Duration::from_micros(40));
    assert_eq!(freshness(&cache), Some(Freshness::Early));
    time.advance(Duration::from_micros(40));
    assert_eq!(freshness(&cache), None, "a second is over");
    at_rest(&cache);
}

#[test]
fn a_window_is_no_longer_than_sixteen_deltas() {
    let (cache, time) = timed(1.0, |builder| builder);
    load(&cache, &time, 1);
    time.advance(839 * MILLI);
    for _ in 0..10_000 {
        assert_eq!(freshness(&cache), Some(Freshness::Fresh));
    }
    // One δ before the end a draw in three says so.
    time.advance(151 * MILLI);
    let early = (0..10_000).filter(|_| freshness(&cache) == Some(Freshness::Early));
    let early = early.count();
    assert!((3_400..3_960).contains(&early), "{early} of 10,000");
}

#[test]
fn without_beta_and_without_a_load_nothing_is_early() {
    let (never, time) = timed(0.0, |builder| builder);
    load(&never, &time, 1);
    let (by_hand, other_time) = timed(ALWAYS, |builder| builder);
    by_hand.insert(KEY, 1);
    for _ in 0..999 {
        assert_eq!(freshness(&never), Some(Freshness::Fresh));
        assert_eq!(freshness(&by_hand), Some(Freshness::Fresh));
        time.advance(MILLI);
        other_time.advance(MILLI);
    }
}

#[test]
fn an_insertion_that_says_how_long_its_value_took_is_early_like_a_load() {
    let (cache, time) = timed(ALWAYS, |builder| builder);
    let options = EntryOptions::new().load_time(10 * MILLI);
    cache.insert_with(KEY, 1, options).unwrap();
    time.advance(750 * MILLI);
    assert_eq!(freshness(&cache), Some(Freshness::Early));
    // Written over by hand, it is not any more.
    cache.insert(KEY, 2);
    time.advance(750 * MILLI);
    assert_eq!(freshness(&cache), Some(Freshness::Fresh));
    at_rest(&cache);
}

#[test]
fn the_slot_of_an_early_value_makes_no_other_early() {
    let (cache, time) = timed(ALWAYS, |builder| builder.max_capacity(1));
    load(&cache, &time, 1);
    // Evicts, and takes the slot.
    cache.insert(8, 8);
    time.advance(999 * MILLI);
    assert_eq!(cache.get_with_freshness(&8), Some((8, Freshness::Fresh)));
    time.advance(MILLI);
    assert_eq!(
        cache.get_with_freshness(&8),
        None,
        "its life is its own, too"
    );
    at_rest(&cache);
}

#[test]
fn a_touch_gives_the_window_a_new_place() {
    let (cache, time) = in_the_window();
    assert!(cache.touch(&KEY, Some(100 * SECOND)));
    assert_eq!(freshness(&cache), Some(Freshness::Fresh));
    time.advance(49 * SECOND);
    assert_eq!(freshness(&cache), Some(Freshness::Fresh));
    time.advance(50 * SECOND);
    assert_eq!(freshness(&cache), Some(Freshness::Early));
    time.advance(SECOND);
    assert_eq!(freshness(&cache), None);
}

#[test]
fn what_lives_for_ever_is_never_early() {
    let (cache, time) = timed(ALWAYS, |builder| builder);
    let options = EntryOptions::new().no_expiry().load_time(SECOND);
    cache.insert_with(KEY, 1, options).unwrap();
    time.advance(1_000_000 * SECOND);
    assert_eq!(freshness(&cache), Some(Freshness::Fresh));
}

/// A million values with windows, of which every deadline is held to the tick: the header keeps where the window
/// begins, and nothing may take that for the deadline.
#[test]
fn a_window_moves_no_deadline() {
    let (cache, time) = timed(ALWAYS, |builder| builder.max_capacity(2_000));
    for n in 0..1_000 {
        let life = Duration::from_micros(20 * (n + 2));
        let options = EntryOptions::new().time_to_live(life).load_time(MILLI);
        cache.insert_with(n, n, options).unwrap();
    }
    for tick in 0..1_003 {
        for n in [tick, tick + 1, tick + 500] {
            let alive = n < 1_000 && n + 2 > tick;
            assert_eq!(cache.contains_key(&n), alive, "{n} at {tick}");
        }
        let left = cache.get(&(tick + 1));
        assert_eq!(left.is_some(), tick + 1 < 1_000);
        time.advance(Duration::from_micros(20));
        cache.run_pending(64);
        at_rest(&cache);
    }
    time.advance(SECOND);
    while cache.run_pending(64) > 0 {}
    assert_eq!((cache.len(), cache.stats().expired()), (0, 1_000));
}

/// The draw, and the clock that it needs, belong to the window. (A canary of this test: draw on every hit.)
#[test]
#[cfg(debug_assertions)]
fn outside_the_window_a_hit_reads_no_precise_clock() {
    let cache = Cache::builder()
        .max_capacity(100)
        .time_to_live(3_600 * SECOND)
        .early_expiration(1.0)
        .build()
        .unwrap();
    cache.get_or_load(&KEY, || 1);
    let before = larder::__precise_readings();
    for _ in 0..100_000 {
        assert_eq!(cache.get_or_load(&KEY, || unreachable!("it is there")), 1);
        assert_eq!(cache.get(&KEY), Some(1));
        assert_eq!(cache.get_with_freshness(&KEY), Some((1, Freshness::Fresh)));
    }
    assert_eq!(larder::__precise_readings() - before, 0);
}

struct Listens;

impl Expiry<u64, u64> for Listens {
    fn after_create(&self, _: &u64, _: &u64) -> Option<Duration> {
        Some(SECOND)
    }

    fn reads(&self) -> bool {
        true
    }
}

#[test]
fn caches_whose_hits_write_have_windows_too() {
    let lru = timed(ALWAYS, |builder| {
        builder.eviction_policy(EvictionPolicy::Lru)
    });
    let renewed = timed(ALWAYS, |builder| builder.expiry(Listens));
    let weighed = timed(ALWAYS, |builder| builder.weigher(|_, _| 1));
    let idle = timed(ALWAYS, |builder| builder.time_to_idle(10 * SECOND));
    for (cache, time) in [lru, renewed, weighed, idle] {
        load(&cache, &time, 1);
        assert_eq!(freshness(&cache), Some(Freshness::Fresh));
        time.advance(750 * MILLI);
        assert_eq!(freshness(&cache), Some(Freshness::Early));
        assert_eq!(load(&cache, &time, 2), 2);
        assert_eq!(freshness(&cache), Some(Freshness::Fresh));
        assert_eq!(cache.stats().refreshes(), 1);
        at_rest(&cache);
    }
}

#[test]
fn from_an_age_on_a_loading_call_loads_again() {
    let (cache, time) = timed(0.0, |builder| builder.refresh_after(300 * MILLI));
    cache.insert(KEY, 1);
    time.advance(299 * MILLI);
    assert_eq!(freshness(&cache), Some(Freshness::Fresh));
    assert_eq!(load(&cache, &time, 2), 1);
    time.advance(MILLI);
    assert_eq!(freshness(&cache), Some(Freshness::Early));
    assert_eq!(cache.get(&KEY), Some(1), "for all others it is live");
    assert_eq!(load(&cache, &time, 2), 2);
    assert_eq!(cache.stats().refreshes(), 1);
    // A new value, and a new age; which a touch does not make any younger.
    time.advance(200 * MILLI);
    assert!(cache.touch(&KEY, Some(SECOND)));
    time.advance(99 * MILLI);
    assert_eq!(load(&cache, &time, 3), 2);
    time.advance(MILLI);
    assert_eq!(load(&cache, &time, 3), 3);
    // Its deadline is where it was.
    time.advance(SECOND);
    assert_eq!(cache.get(&KEY), None);
    at_rest(&cache);
}

#[test]
fn what_never_expires_or_not_so_late_has_no_age_to_be_loaded_at() {
    let (cache, time) = timed(0.0, |builder| builder.refresh_after(SECOND));
    cache.insert(KEY, 1);
    time.advance(SECOND - MILLI);
    assert_eq!(freshness(&cache), Some(Freshness::Fresh));
    cache
        .insert_with(KEY, 1, EntryOptions::new().no_expiry())
        .unwrap();
    time.advance(1_000 * SECOND);
    assert_eq!(freshness(&cache), Some(Freshness::Fresh));
    let zero = Cache::<u64, u64>::builder()
        .max_capacity(9)
        .refresh_after(Duration::ZERO);
    let setting = "refresh_after";
    assert_eq!(
        zero.build().unwrap_err(),
        BuildError::ZeroDuration { setting }
    );
}

/// What a policy is asked when a value is loaded again.
struct Asked(Arc<AtomicU64>);

impl Expiry<u64, u64> for Asked {
    fn after_create(&self, _: &u64, _: &u64) -> Option<Duration> {
        Some(SECOND)
    }

    fn after_update(&self, _: &u64, _: &u64, remaining: Option<Duration>) -> Option<Duration> {
        let remaining = remaining.expect("it expires");
        self.0.store(remaining.as_millis() as u64, Ordering::SeqCst);
        Some(2 * SECOND)
    }
}

#[test]
fn a_policy_hears_of_a_value_that_is_loaded_again_as_of_an_update() {
    let remaining = Arc::new(AtomicU64::new(0));
    let policy = Asked(Arc::clone(&remaining));
    let (cache, time) = timed(0.0, |builder| {
        builder.expiry(policy).refresh_after(SECOND / 2)
    });
    load(&cache, &time, 1);
    time.advance(600 * MILLI);
    // The load takes ten milliseconds.
    load(&cache, &time, 2);
    assert_eq!(remaining.load(Ordering::SeqCst), 390);
    time.advance(2 * SECOND - MILLI);
    assert_eq!(cache.get(&KEY), Some(2));
    time.advance(MILLI);
    assert_eq!(cache.get(&KEY), None);
}

/// Whichever window begins first decides.
#[test]
fn a_value_is_surely_due_at_its_age_also_where_loads_are_slow() {
    let (cache, time) = timed(0.125, |builder| {
        builder.time_to_live(3 * SECOND).refresh_after(SECOND)
    });
    // 16·δ·β is 2 s, of which draws get 1.5 s; and the age comes 2 s before the deadline.
    let slow = EntryOptions::new().load_time(SECOND);
    cache.insert_with(KEY, 1, slow).unwrap();
    time.advance(SECOND);
    assert_eq!(freshness(&cache), Some(Freshness::Early));
}

#[test]
fn long_lives_have_ages_too() {
    let hour = 3_600 * SECOND;
    let (cache, time) = timed(0.0, |builder| {
        builder.time_to_live(48 * hour).refresh_after(hour)
    });
    cache.insert(KEY, 1);
    time.advance(hour - SECOND);
    assert_eq!(freshness(&cache), Some(Freshness::Fresh));
    time.advance(SECOND);
    assert_eq!(freshness(&cache), Some(Freshness::Early));
    time.advance(47 * hour - SECOND);
    assert_eq!(cache.get(&KEY), Some(1));
    time.advance(SECOND);
    assert_eq!(cache.get(&KEY), None);
}

/// Lives three seconds from each read on.
struct Sliding;

impl Expiry<u64, u64> for Sliding {
    fn after_create(&self, _: &u64, _: &u64) -> Option<Duration> {
        Some(3 * SECOND)
    }

    fn after_read(&self, _: &u64, _: Option<Duration>) -> Option<Duration> {
        Some(3 * SECOND)
    }

    fn reads(&self) -> bool {
        true
    }
}

/// Each read gives it a new deadline, and none makes it younger or older.
#[test]
fn a_value_that_lives_by_its_reads_grows_old_all_the_same() {
    let (cache, time) = timed(0.0, |builder| {
        builder.expiry(Sliding).refresh_after(2 * SECOND)
    });
    cache.insert(KEY, 1);
    // Steps that no unit of a deadline divides.
    let step = Duration::from_nanos(71_429);
    let mut reads = 0;
    while freshness(&cache) == Some(Freshness::Fresh) {
        time.advance(step);
        reads += 1;
    }
    let age = step * reads;
    assert!(
        (2 * SECOND..2 * SECOND + MILLI).contains(&age),
        "due at the age of {age:?}"
    );
    assert_eq!(freshness(&cache), Some(Freshness::Early));
    time.advance(3 * SECOND - MILLI);
    assert_eq!(cache.get(&KEY), Some(1));
    time.advance(3 * SECOND);
    assert_eq!(cache.get(&KEY), None);
    at_rest(&cache);
}
