//! Times to live and to idle, expiry policies, jitter, and the clock of the machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::{Cache, EntryOptions, Expiry, RejectReason};

use crate::{MILLI, SECOND, ignore, timed};

const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn lives(time: Duration) -> EntryOptions {
    EntryOptions::new().time_to_live(time)
}

#[test]
fn a_ttl_of_zero_is_never_stored_and_removes_the_older_value() {
    let (cache, _) = timed(|builder| builder);
    cache.insert(1, 1);
    let rejected = cache.insert_with(1, 2, lives(Duration::ZERO)).unwrap_err();
    assert_eq!(rejected.value, 2);
    assert_eq!(rejected.reason, RejectReason::ZeroTimeToLive);
    assert_eq!((cache.get(&1), cache.len()), (None, 0));
    assert_eq!(cache.stats().explicit(), 1);
}

#[test]
fn add_with_a_ttl_of_zero_wins_every_time() {
    let (cache, _) = timed(|builder| builder);
    for _ in 0..3 {
        let rejected = cache.add_with(1, 2, lives(Duration::ZERO)).unwrap_err();
        assert_eq!(rejected.reason, RejectReason::ZeroTimeToLive);
    }
}

#[test]
fn a_load_with_a_ttl_of_zero_is_delivered_and_not_stored() {
    let (cache, _) = timed(|builder| builder);
    let load = || Ok::<_, String>(larder::Loaded::new(7).time_to_live(Duration::ZERO));
    assert_eq!(cache.get_or_load_with(&1, load).unwrap(), 7);
    assert_eq!(cache.get(&1), None);
}

#[test]
fn a_life_too_short_to_be_kept_is_over_at_once() {
    let (cache, _time) = timed(|builder| builder.time_to_live(Duration::from_nanos(1)));
    cache.insert(1, 1);
    assert_eq!(cache.get(&1), None);
    let (cache, time) = timed(|builder| builder.time_to_live(Duration::from_nanos(35_000)));
    cache.insert(1, 1);
    time.advance(Duration::from_nanos(19_999));
    assert_eq!(cache.get(&1), Some(1));
    time.advance(Duration::from_nanos(15_001));
    assert_eq!(cache.get(&1), None);
}

#[test]
fn a_value_lives_until_its_deadline_and_not_at_it() {
    // A deadline is kept to 20 µs, and to 2.1 ms where it is years ahead; it is rounded down.
    let (near, far) = (Duration::from_micros(20), Duration::from_micros(2_100));
    for (ttl, lost) in [
        (near, Duration::from_nanos(1)),
        (MILLI, near),
        (SECOND, near),
        (Duration::from_secs(86_400), near),
        (100 * YEAR, far),
        (500 * YEAR, far),
    ] {
        let (cache, time) = timed(|builder| builder.time_to_live(ttl));
        cache.insert(1, 1);
        time.advance(ttl - lost);
        assert_eq!(cache.get(&1), Some(1), "just before {ttl:?}");
        time.advance(lost);
        assert_eq!(cache.get(&1), None, "at {ttl:?}");
        assert_eq!((cache.peek(&1), cache.contains_key(&1)), (None, false));
        assert_eq!(cache.iter().count(), 0);
    }
}

#[test]
fn a_ttl_beyond_the_clock_is_for_ever() {
    for ttl in [Duration::MAX, Duration::from_secs(u64::MAX), 600 * YEAR] {
        let (cache, time) = timed(|builder| builder.time_to_live(ttl));
        cache.insert(1, 1);
        assert!(cache.touch(&1, Some(ttl)));
        cache.insert_with(2, 2, lives(ttl)).unwrap();
        time.advance(583 * YEAR);
        assert_eq!(
            (cache.get(&1), cache.get(&2)),
            (Some(1), Some(2)),
            "{ttl:?}"
        );
    }
}

#[test]
fn jitter_on_a_ttl_beyond_the_clock_does_not_overflow() {
    for ttl in [Duration::MAX - MILLI, Duration::from_secs(u64::MAX)] {
        // So little that nothing is taken off: the product is the time itself, as a float.
        let (cache, _) = timed(|builder| builder.time_to_live(ttl).jitter(1e-17));
        cache.insert(1, 1);
        assert_eq!(cache.get(&1), Some(1));
    }
}

#[test]
fn jitter_only_shortens() {
    let (cache, time) = timed(|builder| builder.time_to_live(SECOND).jitter(0.5));
    (0..1000).for_each(|n| ignore(cache.insert(n, n)));
    time.advance(499 * MILLI);
    assert_eq!(cache.iter().count(), 1000, "none before half its time");
    time.advance(251 * MILLI);
    let half = cache.iter().count();
    assert!((300..700).contains(&half), "{half} of 1000 in the middle");
    time.advance(250 * MILLI);
    assert_eq!(cache.iter().count(), 0, "none at or after its time");
}

#[test]
fn what_a_call_says_goes_before_what_the_cache_says() {
    let (cache, time) = timed(|builder| builder.time_to_live(SECOND));
    cache.insert_with(1, 1, lives(2 * SECOND)).unwrap();
    cache
        .insert_with(2, 2, EntryOptions::new().no_expiry())
        .unwrap();
    cache.insert(3, 3);
    time.advance(SECOND);
    assert_eq!(cache.get_many(&[1, 2, 3]), [Some(1), Some(2), None]);
    time.advance(SECOND);
    assert_eq!(cache.get_many(&[1, 2]), [None, Some(2)]);
}

#[test]
fn an_overwritten_value_lives_by_the_new_rules() {
    let (cache, time) = timed(|builder| builder);
    cache.insert_with(1, 1, lives(SECOND)).unwrap();
    cache.insert(1, 2);
    time.advance(10 * SECOND);
    assert_eq!(cache.get(&1), Some(2));
}

#[test]
fn touch_counts_from_now_and_none_is_for_ever() {
    let (cache, time) = timed(|builder| builder.time_to_live(SECOND));
    cache.insert(1, 1);
    cache.insert(2, 2);
    time.advance(SECOND / 2);
    assert!(cache.touch(&1, Some(SECOND)) && cache.touch(&2, None));
    time.advance(SECOND / 2);
    assert_eq!(cache.get(&1), Some(1));
    time.advance(SECOND / 2);
    assert_eq!((cache.get(&1), cache.get(&2)), (None, Some(2)));
    assert!(!cache.touch(&1, None), "nothing live is there");
    time.advance(1000 * SECOND);
    assert_eq!(cache.get(&2), Some(2));
}

#[test]
fn touch_can_shorten_a_life() {
    let (cache, time) = timed(|builder| builder.time_to_live(100 * SECOND));
    cache.insert(1, 1);
    assert!(cache.touch(&1, Some(MILLI)));
    time.advance(MILLI);
    assert_eq!(cache.get(&1), None);
    assert_eq!(cache.run_pending(10), 1, "the wheel follows");
}

#[test]
fn touch_with_zero_removes() {
    let (cache, _) = timed(|builder| builder);
    cache.insert(1, 1);
    assert!(cache.touch(&1, Some(Duration::ZERO)));
    assert_eq!((cache.get(&1), cache.len()), (None, 0));
    assert_eq!(cache.stats().explicit(), 1);
}

// ---- time to idle ----

#[test]
fn an_idle_entry_goes_and_a_used_one_stays() {
    let (cache, time) = timed(|builder| builder.time_to_idle(SECOND));
    cache.insert(1, 1);
    cache.insert(2, 2);
    for _ in 0..5 {
        time.advance(SECOND - MILLI);
        assert_eq!(cache.get(&1), Some(1));
    }
    assert_eq!(cache.get(&2), None);
    time.advance(SECOND);
    assert_eq!(cache.get(&1), None);
}

#[test]
fn looking_without_touching_does_not_renew_the_idle_time() {
    let (cache, time) = timed(|builder| builder.time_to_idle(SECOND));
    cache.insert(1, 1);
    time.advance(SECOND - MILLI);
    assert_eq!(cache.peek(&1), Some(1));
    assert!(cache.contains_key(&1));
    assert_eq!(cache.iter().count(), 1);
    time.advance(MILLI);
    assert_eq!(cache.get(&1), None);
}

#[test]
fn touch_renews_the_idle_time() {
    let (cache, time) = timed(|builder| builder.time_to_idle(SECOND));
    cache.insert(1, 1);
    time.advance(SECOND - MILLI);
    assert!(cache.touch(&1, None));
    time.advance(SECOND - MILLI);
    assert_eq!(cache.get(&1), Some(1));
}

#[test]
fn counting_renews_the_idle_time() {
    // "How long an entry lives from its last read or write on": counting is a write.
    let (cache, time) = timed(|builder| builder.time_to_idle(SECOND));
    cache.insert(1, 1);
    for sum in 2..6 {
        time.advance(SECOND - MILLI);
        assert_eq!(cache.incr(&1, 1), Some(sum));
    }
}

#[test]
fn whichever_of_ttl_and_tti_ends_first_counts() {
    let (cache, time) = timed(|builder| builder.time_to_live(SECOND).time_to_idle(SECOND / 2));
    cache.insert(1, 1);
    for _ in 0..3 {
        time.advance(SECOND / 4);
        assert_eq!(cache.get(&1), Some(1));
    }
    time.advance(SECOND / 4);
    assert_eq!(
        cache.get(&1),
        None,
        "its time to live is over, however busy"
    );
}

// ---- expiry policies ----

/// Creation: the value in seconds. Update: what was left, and a second. Read: what was left, doubled.
struct Policy;

impl Expiry<u64, u64> for Policy {
    fn after_create(&self, _: &u64, seconds: &u64) -> Option<Duration> {
        (*seconds < 1000).then(|| Duration::from_secs(*seconds))
    }

    fn after_update(&self, _: &u64, _: &u64, remaining: Option<Duration>) -> Option<Duration> {
        remaining.map(|left| left + SECOND)
    }

    fn after_read(&self, value: &u64, remaining: Option<Duration>) -> Option<Duration> {
        match value {
            5 => Some(Duration::ZERO),
            _ => remaining.map(|left| 2 * left),
        }
    }

    fn reads(&self) -> bool {
        true
    }
}

#[test]
fn the_policy_decides_at_creation() {
    let (cache, time) = timed(|builder| builder.time_to_live(MILLI).expiry(Policy));
    cache.insert(1, 10);
    cache.insert(2, 2000);
    assert!(
        cache.try_insert(3, 0).is_err(),
        "zero is past its date at once"
    );
    time.advance(10 * SECOND - MILLI);
    assert_eq!(cache.peek(&1), Some(10));
    time.advance(MILLI);
    assert_eq!((cache.peek(&1), cache.peek(&2)), (None, Some(2000)));
}

#[test]
fn the_policy_is_told_at_an_update_what_was_left() {
    let (cache, time) = timed(|builder| builder.expiry(Policy));
    cache.insert(1, 10);
    time.advance(4 * SECOND);
    cache.insert(1, 20);
    time.advance(7 * SECOND - MILLI);
    assert_eq!(
        cache.peek(&1),
        Some(20),
        "six seconds were left, and one was added"
    );
    time.advance(MILLI);
    assert_eq!(cache.peek(&1), None);
}

#[test]
fn the_policy_decides_at_a_read() {
    let (cache, time) = timed(|builder| builder.expiry(Policy));
    cache.insert(1, 10);
    cache.insert(2, 5);
    time.advance(4 * SECOND);
    assert_eq!(cache.get(&1), Some(10), "six seconds become twelve");
    assert_eq!(cache.get(&2), Some(5), "its last read");
    assert_eq!(cache.peek(&2), None);
    time.advance(12 * SECOND - MILLI);
    assert_eq!(cache.peek(&1), Some(10));
    time.advance(MILLI);
    assert_eq!(cache.peek(&1), None);
}

/// Turns the clock past the deadline while the policy is asked, and looks.
struct Late {
    time: larder::ManualClock,
    asked: AtomicU64,
}

impl Expiry<u64, u64> for Late {
    fn after_create(&self, _: &u64, _: &u64) -> Option<Duration> {
        Some(SECOND)
    }

    fn after_read(&self, _: &u64, _: Option<Duration>) -> Option<Duration> {
        if self.asked.fetch_add(1, Ordering::Relaxed) == 0 {
            self.time.advance(2 * SECOND);
        }
        Some(SECOND)
    }

    fn reads(&self) -> bool {
        true
    }
}

#[test]
fn a_read_never_brings_back_what_has_expired_meanwhile() {
    let (cache, time) = {
        let time = larder::ManualClock::new();
        let late = Late {
            time: time.clone(),
            asked: AtomicU64::new(0),
        };
        let builder = Cache::builder().max_capacity(10).clock(time.clock());
        (builder.expiry(late).build().unwrap(), time)
    };
    cache.insert(1, 1);
    time.advance(SECOND / 2);
    assert_eq!(cache.get(&1), Some(1), "it was live when it was read");
    // By now its deadline has passed, before the policy's answer came.
    assert_eq!(cache.peek(&1), None, "absent stays absent until a write");
}

#[test]
fn a_call_that_names_its_ttl_overrides_the_policy() {
    let (cache, time) = timed(|builder| builder.expiry(Policy));
    cache.insert_with(1, 10, lives(SECOND)).unwrap();
    time.advance(SECOND);
    assert_eq!(cache.peek(&1), None);
}

// ---- the machine's clock ----

#[test]
fn on_the_machines_clock_nothing_is_served_late_and_nothing_goes_early() {
    let ttl = 50 * MILLI;
    let cache = Cache::builder()
        .max_capacity(1000)
        .time_to_live(ttl)
        .build()
        .unwrap();
    for round in 0..6u64 {
        let before = Instant::now();
        cache.insert(round, round);
        let after = Instant::now();
        loop {
            let asked = Instant::now();
            let hit = cache.get(&round).is_some();
            let answered = Instant::now();
            assert!(!hit || asked < after + ttl, "served late");
            assert!(hit || answered > before + ttl - MILLI, "gone early");
            if !hit {
                break;
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn hits_then_silence_then_one_hit_past_the_deadline_is_a_miss() {
    // No thread and no ticker turns the time here: the look itself must read a clock that moves.
    let ttl = 50 * MILLI;
    let cache = Cache::builder()
        .max_capacity(10)
        .time_to_live(ttl)
        .build()
        .unwrap();
    let before = Instant::now();
    cache.insert(1, 1);
    while before.elapsed() < 20 * MILLI {
        // On a busy machine the thread may be away until the deadline.
        let hit = cache.get(&1).is_some();
        assert!(hit || before.elapsed() > ttl - MILLI, "gone early");
    }
    std::thread::sleep(ttl);
    assert_eq!(cache.get(&1), None);
}
