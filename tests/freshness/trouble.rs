//! What a reviewer tried: values with a `Drop` of their own, windows without an end, loads that outlast what they
//! were to replace, callers that take over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder::{Cache, Compute, EntryOptions, Expiry, Freshness, Loaded, ManualClock};

use crate::executor::{Gate, Hand};
use crate::{ALWAYS, KEY, MILLI, Numbers, SECOND, at_rest, load, timed};

/// Half a second past its time, stale for `revalidate` and for `error`.
fn past(revalidate: Duration, error: Duration) -> (Numbers, ManualClock) {
    let (cache, time) = timed(0.0, |builder| {
        builder
            .stale_while_revalidate(revalidate)
            .stale_if_error(error, SECOND)
    });
    cache.insert(KEY, 1);
    time.advance(1_500 * MILLI);
    (cache, time)
}

fn fails(cache: &Numbers) -> bool {
    cache
        .try_get_or_load(&KEY, || Err::<u64, _>("the source is down"))
        .is_err()
}

#[test]
fn a_window_without_an_end_makes_nothing_live_for_ever() {
    for (revalidate, error) in [
        (Duration::MAX, Duration::ZERO),
        (Duration::ZERO, Duration::MAX),
    ] {
        let (cache, time) = past(revalidate, error);
        time.advance(1_000_000 * SECOND);
        assert_eq!((cache.get(&KEY), cache.peek(&KEY)), (None, None));
        assert!(!cache.contains_key(&KEY));
        let found = cache.get_with_freshness(&KEY);
        assert!(
            matches!(found, Some((1, Freshness::Stale { .. }))),
            "{found:?}"
        );
        cache.run_pending(64);
        at_rest(&cache);
        cache.insert(KEY, 2);
        assert_eq!(cache.get(&KEY), Some(2));
        at_rest(&cache);
    }
}

#[test]
fn each_window_is_for_its_own_purpose() {
    // Stale while somebody loads is not stale instead of an error...
    let (cache, _time) = past(10 * SECOND, Duration::ZERO);
    assert!(fails(&cache));
    assert_eq!(cache.stats().stale_on_error(), 0);
    // ...also where there is a window for that, which is over.
    let (cache, time) = past(10 * SECOND, SECOND);
    assert!(!fails(&cache));
    time.advance(6 * SECOND);
    assert!(fails(&cache));
    assert!(cache.get_with_freshness(&KEY).is_some());
}

/// What happens while a loader runs that then fails.
type Meanwhile = (&'static str, fn(&Numbers, &ManualClock), Option<u64>);

#[test]
fn what_is_served_instead_of_an_error_is_looked_for_when_there_is_one() {
    let table: [Meanwhile; 7] = [
        ("nothing", |_, _| (), Some(1)),
        (
            "invalidate",
            |cache, _| ignore(cache.invalidate(&KEY)),
            None,
        ),
        ("clear", |cache, _| cache.clear(), None),
        ("invalidate_tag", |cache, _| cache.invalidate_tag("t"), None),
        (
            "retain",
            |cache, _| ignore(cache.retain(|_, _| false)),
            None,
        ),
        ("insert", |cache, _| ignore(cache.insert(KEY, 2)), Some(2)),
        ("the window ends", |_, time| time.advance(50 * SECOND), None),
    ];
    for (name, meanwhile, served) in table {
        for early in [true, false] {
            let (cache, time) = timed(ALWAYS, |builder| {
                builder.stale_if_error(10 * SECOND, SECOND)
            });
            let options = EntryOptions::new().tag("t").load_time(10 * MILLI);
            cache.insert_with(KEY, 1, options).unwrap();
            time.advance(if early { 750 } else { 1_500 } * MILLI);
            let answer = cache.try_get_or_load(&KEY, || {
                meanwhile(&cache, &time);
                Err::<u64, _>("the source is down")
            });
            assert_eq!(answer.ok(), served, "{name}, early: {early}");
        }
    }
}

fn ignore<T>(_: T) {}

#[test]
fn an_early_load_that_outlasts_its_value_and_fails_is_an_error() {
    let (cache, time) = timed(ALWAYS, |builder| builder);
    load(&cache, &time, 1);
    time.advance(750 * MILLI);
    let answer = cache.try_get_or_load(&KEY, || {
        time.advance(SECOND);
        Err::<u64, _>("the source is down")
    });
    assert!(answer.is_err(), "{answer:?}");
    at_rest(&cache);
}

#[test]
fn removals_by_a_closure_end_a_stale_value_too() {
    type Call = fn(&Numbers);
    let calls: [(&str, Call); 3] = [
        ("retain", |cache| assert_eq!(cache.retain(|_, _| false), 0)),
        ("remove_if", |cache| {
            assert_eq!(cache.remove_if(&KEY, |_| true), None);
        }),
        ("compute", |cache| {
            ignore(cache.compute(&KEY, |_| Compute::Remove));
        }),
    ];
    for (name, call) in calls {
        let (cache, _time) = past(10 * SECOND, 10 * SECOND);
        assert!(cache.get_with_freshness(&KEY).is_some());
        call(&cache);
        assert_eq!(cache.get_with_freshness(&KEY), None, "{name}");
        assert!(fails(&cache), "{name}");
        at_rest(&cache);
    }
    // What the closure keeps, it keeps.
    let (cache, _time) = past(10 * SECOND, 10 * SECOND);
    cache.retain(|_, value| *value == 1);
    assert!(cache.get_with_freshness(&KEY).is_some());
}

#[test]
fn who_takes_over_is_served_as_well() {
    let (cache, _time) = past(Duration::ZERO, 10 * SECOND);
    let gate = Gate::default();
    let load = async || {
        gate.opened().await;
        Err::<u64, _>("the source is down")
    };
    let leader = Hand::pending(cache.try_get_or_load_async(&KEY, load));
    let mut follower = Hand::pending(cache.try_get_or_load_async(&KEY, load));
    drop(leader);
    gate.open();
    assert_eq!(follower.ready().unwrap(), 1);
    assert_eq!(cache.__flights(), (1, 0), "the source rests");
    assert_eq!(cache.get_or_load(&KEY, || unreachable!("it rests")), 1);
}

#[test]
fn a_load_of_ones_own_that_fails_is_covered_up_too() {
    let (cache, time) = timed(0.0, |builder| builder.stale_if_error(10 * SECOND, SECOND));
    let (gate, alone) = (Gate::default(), Gate::default());
    let mut leader = Hand::pending(cache.get_or_load_with_async(&KEY, async || {
        gate.opened().await;
        Ok::<_, String>(Loaded::uncacheable(5))
    }));
    let mut follower = Hand::pending(cache.try_get_or_load_async(&KEY, async || {
        alone.opened().await;
        Err::<u64, _>("the source is down")
    }));
    gate.open();
    assert_eq!(leader.ready().unwrap(), 5);
    // What the leader has is its own: this one loads alone, and meanwhile a value comes and grows stale.
    assert!(follower.poll().is_pending());
    cache.insert(KEY, 1);
    time.advance(1_500 * MILLI);
    alone.open();
    assert_eq!(follower.ready().unwrap(), 1);
    at_rest(&cache);
}

#[test]
fn an_answer_that_cannot_be_kept_ends_the_value_it_was_to_replace() {
    let (cache, time) = timed(ALWAYS, |builder| builder);
    load(&cache, &time, 1);
    time.advance(750 * MILLI);
    let answer = Loaded::new(2).time_to_live(Duration::ZERO);
    let value = cache.get_or_load_with(&KEY, || Ok::<_, String>(answer));
    assert_eq!(value.unwrap(), 2);
    assert_eq!(cache.get(&KEY), None);
    at_rest(&cache);
}

/// Takes its time over reads: as long as the value has left.
struct Slow(ManualClock);

impl Expiry<u64, u64> for Slow {
    fn after_create(&self, _: &u64, _: &u64) -> Option<Duration> {
        Some(SECOND)
    }

    fn after_read(&self, _: &u64, left: Option<Duration>) -> Option<Duration> {
        self.0.advance(SECOND);
        left.map(|left| left + SECOND)
    }

    fn reads(&self) -> bool {
        true
    }
}

#[test]
fn a_read_ends_no_stale_value() {
    let time = ManualClock::new();
    let cache: Numbers = Cache::builder()
        .max_capacity(100)
        .expiry(Slow(time.clone()))
        .stale_if_error(100 * SECOND, SECOND)
        .clock(time.clock())
        .build()
        .unwrap();
    cache.insert(KEY, 1);
    assert_eq!(cache.get(&KEY), Some(1));
    assert!(matches!(
        cache.get_with_freshness(&KEY),
        Some((1, Freshness::Stale { .. }))
    ));
}

/// A value that looks, where it is dropped, whether a lock is held; and may panic there.
#[derive(Clone)]
struct Touchy {
    held: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    panics: bool,
}

impl Drop for Touchy {
    fn drop(&mut self) {
        self.held
            .fetch_add(larder::__lock_depth(), Ordering::SeqCst);
        self.dropped.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics, "it may");
    }
}

fn touchy(panics: bool) -> (Cache<u64, Touchy>, ManualClock, Touchy) {
    let time = ManualClock::new();
    let cache = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .early_expiration(ALWAYS)
        .stale_while_revalidate(10 * SECOND)
        .stale_if_error(20 * SECOND, SECOND)
        .clock(time.clock())
        .build()
        .unwrap();
    let value = Touchy {
        held: Arc::default(),
        dropped: Arc::default(),
        panics,
    };
    (cache, time, value)
}

#[test]
fn no_value_is_dropped_under_a_lock() {
    let (cache, time, sample) = touchy(false);
    let options = EntryOptions::new().load_time(10 * MILLI);
    cache.insert_with(KEY, sample.clone(), options).unwrap();
    let fail = || {
        cache
            .try_get_or_load(&KEY, || Err::<Touchy, _>("down"))
            .is_err()
    };
    // Early, stale for both, for errors alone, for nobody; each failing, and resting after it.
    for _ in 0..250 {
        time.advance(100 * MILLI);
        for _ in 0..3 {
            ignore(fail());
            ignore(cache.get_with_freshness(&KEY).is_some());
        }
        let gate = Gate::default();
        let load = async || {
            gate.opened().await;
            Err::<Touchy, _>("down")
        };
        let mut tasks: Vec<_> = (0..3)
            .map(|_| Hand::new(cache.try_get_or_load_async(&KEY, load)))
            .collect();
        tasks.iter_mut().for_each(|task| ignore(task.poll()));
        gate.open();
        drop(tasks);
    }
    assert!(sample.dropped.load(Ordering::SeqCst) > 1_000);
    assert_eq!(
        sample.held.load(Ordering::SeqCst),
        0,
        "locks held by a drop"
    );
}

#[test]
fn a_loader_and_a_drop_may_panic_at_once() {
    let (cache, time, sample) = touchy(true);
    let sample = std::mem::ManuallyDrop::new(sample);
    let options = EntryOptions::new().load_time(10 * MILLI);
    cache.insert_with(KEY, (*sample).clone(), options).unwrap();
    for age in [750, 750] {
        time.advance(age * MILLI);
        let died = catch_unwind(AssertUnwindSafe(|| {
            let value = cache.get_or_load(&KEY, || panic!("the loader"));
            std::mem::forget(value);
        }));
        assert!(died.is_err());
        assert_eq!(cache.__flights(), (0, 0));
    }
    assert!(sample.dropped.load(Ordering::SeqCst) >= 2);
}

/// What rests long is not pushed out by what is remembered for a moment.
#[test]
fn short_memories_do_not_crowd_out_long_ones() {
    let time = ManualClock::new();
    let cache: Numbers = Cache::builder()
        .max_capacity(10_000)
        .shards(1)
        .time_to_live(SECOND)
        .error_time_to_live(MILLI)
        .stale_if_error(10_000 * SECOND, 3_600 * SECOND)
        .clock(time.clock())
        .build()
        .unwrap();
    cache.insert(KEY, 1);
    time.advance(2 * SECOND);
    let asked = AtomicUsize::new(0);
    let ask = |key: u64| {
        cache.try_get_or_load(&key, || {
            asked.fetch_add(1, Ordering::SeqCst);
            Err::<u64, _>("down")
        })
    };
    assert_eq!(ask(KEY).unwrap(), 1);
    for key in 100..3_000 {
        assert!(ask(key).is_err());
        time.advance(10 * MILLI);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2_901);
    assert_eq!(ask(KEY).unwrap(), 1);
    assert_eq!(asked.load(Ordering::SeqCst), 2_901, "it rests for an hour");
    let flights = cache.__flights().0;
    assert!(flights < 20, "{flights} failures remembered");
}
