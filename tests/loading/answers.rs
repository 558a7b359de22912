//! What callers may ask for and what they are given: attached loaders, bounds, answers that are not
//! stored, threads and tasks on one flight.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use larder::{Cache, LoadError, Loaded, TryLoadError};

use super::executor::{Gate, Hand};
use super::{KEY, Numbers, Runs, SECOND, at_rest, held, numbers, timed, until_joined, waiting};

/// A thread leads and a task follows, and the other way round.
#[test]
fn threads_and_tasks_share_a_flight() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = held(&cache, &gate, 1);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| cache.get_or_load(&KEY, || 2));
        let fallible = scope.spawn(|| cache.try_get_or_load(&KEY, || Ok::<_, String>(3)));
        until_joined(&cache, 2);
        gate.open();
        assert_eq!(leader.ready(), 1);
        assert_eq!(thread.join().expect("no panic"), 1);
        assert!(matches!(fallible.join().expect("no panic"), Ok(1)));
    });
    cache.clear();
    let blocked = Gate::default();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            cache.get_or_load(&KEY, || {
                blocked.block();
                4
            })
        });
        while cache.__flights().1 == 0 {
            std::thread::yield_now();
        }
        let mut task = waiting(&cache, 5);
        blocked.open();
        assert_eq!(thread.join().expect("no panic"), 4);
        assert_eq!((task.wakes(), task.ready()), (1, 4));
    });
    at_rest(&cache);
}

/// Both attached loaders, which share flights with each other and with loaders given by call.
#[test]
fn attached_loaders_share_flights() {
    let (gate, runs) = (Gate::default(), Arc::new(Runs::default()));
    let (opened, counted) = (gate.clone(), Arc::clone(&runs));
    let (cache, _time) = timed(|builder| {
        builder
            .loader(|key: &u64| Ok::<_, LoadError>(Loaded::new(key * 10)))
            .async_loader(move |key| {
                let opened = opened.clone();
                counted.next();
                async move {
                    opened.opened().await;
                    Ok::<_, LoadError>(Loaded::new(key * 100).tag("t"))
                }
            })
    });
    let mut leader = Hand::pending(cache.load_async(&KEY));
    let mut second = Hand::pending(cache.load_async(&KEY));
    let mut given = waiting(&cache, 1);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| cache.load(&KEY));
        until_joined(&cache, 3);
        gate.open();
        assert!(matches!(leader.ready(), Ok(700)));
        assert!(matches!(thread.join().expect("no panic"), Ok(700)));
    });
    assert!(matches!(second.ready(), Ok(700)));
    assert_eq!((given.ready(), runs.count()), (700, 1));
    cache.invalidate_tag("t");
    assert!(matches!(cache.load(&KEY), Ok(70)));
    at_rest(&cache);
}

/// An attached loader's own error reaches every caller as itself.
#[test]
fn an_attached_loaders_error_keeps_its_type() {
    let (cache, _time) =
        timed(|builder| builder.loader(|_: &u64| "x".parse::<u64>().map(Loaded::new)));
    match cache.load(&KEY) {
        Err(LoadError::Failed(cause)) => assert!(cause.is::<std::num::ParseIntError>()),
        other => panic!("expected a failure, got {other:?}"),
    }
    at_rest(&cache);
}

#[test]
fn a_cache_without_a_loader_says_so() {
    let cache = numbers();
    assert!(matches!(cache.load(&KEY), Err(LoadError::NoLoader)));
    let answer = pollster::block_on(cache.load_async(&KEY));
    assert!(matches!(answer, Err(LoadError::NoLoader)));
    at_rest(&cache);
}

/// Past the bound fallible calls are refused and the others run alone; joining needs no permit.
#[test]
fn loads_in_flight_are_bounded() {
    let (cache, _time) = timed(|builder| builder.max_loads(2));
    let gate = Gate::default();
    let mut leader = held(&cache, &gate, 1);
    let (other, opened) = (KEY + 1, &gate);
    let mut second = Hand::pending(cache.get_or_load_async(&other, || opened_then(opened, 2)));
    let third = KEY + 2;
    let refused = cache.try_get_or_load(&third, || Ok::<_, String>(3));
    assert!(matches!(
        refused,
        Err(TryLoadError::Shared(LoadError::TooManyLoads { limit: 2 }))
    ));
    assert_eq!(cache.get_or_load(&third, || 4), 4);
    assert_eq!(cache.get(&third), None, "it ran alone");
    let mut follower = waiting(&cache, 5);
    gate.open();
    assert_eq!(
        (leader.ready(), second.ready(), follower.ready()),
        (1, 2, 1)
    );
    assert!(matches!(
        cache.try_get_or_load(&third, || Ok::<_, String>(6)),
        Ok(6)
    ));
    at_rest(&cache);
}

/// A caller that joins uses no permit, not even for a moment: with one permit, a fallible load of
/// another key is refused only while a leader has it.
#[test]
fn joining_and_hitting_take_no_permit() {
    let (cache, _time) = timed(|builder| builder.max_loads(1));
    cache.insert(KEY, 1);
    let (hits, done) = (AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // It hits for as long as the other thread loads: neither can be over before the other has begun.
        scope.spawn(|| {
            while !done.load(Relaxed) {
                assert_eq!(cache.get_or_load(&KEY, || unreachable!()), 1);
                hits.fetch_add(1, Relaxed);
            }
        });
        let loads = || {
            while hits.load(Relaxed) == 0 {
                std::thread::yield_now();
            }
            for _ in 0..2_000 {
                let loaded = cache.try_get_or_load(&(KEY + 1), || Ok::<_, String>(2));
                assert!(matches!(loaded, Ok(2)), "refused");
                cache.remove(&(KEY + 1));
            }
        };
        // Also after a panic, which would otherwise wait for the other thread for ever.
        let loaded = catch_unwind(AssertUnwindSafe(loads));
        done.store(true, Relaxed);
        loaded.unwrap_or_else(|panic| resume_unwind(panic));
    });
    at_rest(&cache);
}

async fn opened_then(gate: &Gate, value: u64) -> u64 {
    gate.opened().await;
    value
}

/// A cache that can hold nothing still lets one caller load for all who ask meanwhile.
#[test]
fn a_cache_without_capacity_shares_loads() {
    let cache: Numbers = Cache::builder().max_capacity(0).build().expect("valid");
    let gate = Gate::default();
    let mut leader = held(&cache, &gate, 1);
    let mut follower = waiting(&cache, 2);
    gate.open();
    assert_eq!((leader.ready(), follower.ready()), (1, 1));
    assert_eq!((cache.get(&KEY), cache.len()), (None, 0));
    assert_eq!(cache.get_or_load(&KEY, || 3), 3);
    at_rest(&cache);
}

/// A value that may not be kept, by its time or its weight, goes to all who waited for it.
#[test]
fn an_answer_that_cannot_be_kept_is_delivered() {
    let answers: [fn() -> Loaded<u64>; 2] = [
        || Loaded::new(1).time_to_live(Duration::ZERO),
        || Loaded::new(1_000_000),
    ];
    for answer in answers {
        let (cache, _time) = timed(|builder| builder.weigher(|_, &value| value));
        let gate = Gate::default();
        let opened = &gate;
        let mut leader = Hand::pending(cache.get_or_load_with_async(&KEY, || async {
            opened.opened().await;
            Ok::<_, String>(answer())
        }));
        let mut follower = waiting(&cache, 2);
        gate.open();
        let value = leader.ready().expect("the loader cannot fail");
        assert_eq!(follower.ready(), value);
        assert_eq!((cache.get(&KEY), cache.len()), (None, 0));
        assert_eq!(cache.stats().unpublished(), 1);
        at_rest(&cache);
    }
}

/// The time to live of an answer counts from the end of the load, and is kept to.
#[test]
fn an_answers_time_to_live_counts_from_its_end() {
    let (cache, time) = timed(|builder| builder);
    let load = || {
        time.pass(10 * SECOND);
        Ok::<_, String>(Loaded::new(1).time_to_live(SECOND))
    };
    assert!(matches!(cache.get_or_load_with(&KEY, load), Ok(1)));
    time.pass(SECOND - Duration::from_nanos(1));
    assert_eq!(cache.get(&KEY), Some(1));
    time.pass(Duration::from_nanos(1));
    assert_eq!(cache.get(&KEY), None);
    assert_eq!(cache.get_or_load(&KEY, || 2), 2);
    assert_eq!(cache.stats().load_time(), 10 * SECOND);
    at_rest(&cache);
}

/// An entry that expired or was evicted is loaded again, once.
#[test]
fn an_expired_entry_is_loaded_again_once() {
    let (cache, time) = timed(|builder| builder.time_to_live(SECOND));
    cache.insert(KEY, 1);
    time.pass(SECOND);
    let gate = Gate::default();
    let mut leader = held(&cache, &gate, 2);
    let mut follower = waiting(&cache, 3);
    gate.open();
    assert_eq!((leader.ready(), follower.ready()), (2, 2));
    assert_eq!(cache.get(&KEY), Some(2));
    at_rest(&cache);
}
