//! Many keys by one call of one loader: what it is asked for, what it shares with other calls, and what is left when
//! something goes wrong.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "where a test unwraps, the failure is the message; that nothing waits takes real time"
)]

#[path = "../support/executor.rs"]
#[allow(dead_code, reason = "each test crate uses its part")]
mod executor;
mod trouble;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use executor::{Gate, Hand};
use larder::{Cache, EntryOptions, LoadError, Loaded, ManualClock, TryLoadError};

type Numbers = Cache<u64, u64>;
type Answer = Result<Vec<Option<u64>>, TryLoadError<String>>;

const SECOND: Duration = Duration::from_secs(1);

fn numbers() -> Numbers {
    Cache::builder().max_capacity(10_000).build().unwrap()
}

/// Ten times each number.
fn tenfold(missing: &[u64]) -> Result<Vec<Option<u64>>, String> {
    Ok(missing.iter().map(|n| Some(10 * n)).collect())
}

/// A bulk load by a task whose loader waits at the gate, and answers `factor` times each number.
fn held<'a>(cache: &'a Numbers, gate: &'a Gate, keys: &'a [u64], factor: u64) -> Hand<'a, Answer> {
    Hand::new(
        cache.get_many_or_load_async(keys, move |missing: Vec<u64>| async move {
            gate.opened().await;
            Ok(missing.iter().map(|n| Some(factor * n)).collect())
        }),
    )
}

/// Nobody loads and nobody waits, and the shards are whole.
#[track_caller]
fn at_rest(cache: &Numbers) {
    assert_eq!(cache.__flights(), (0, 0), "flights, loads running");
    #[cfg(debug_assertions)]
    cache.__validate();
}

#[test]
fn the_loader_is_asked_once_for_what_is_missing_in_order() {
    let cache = numbers();
    cache.insert(2, 22);
    let mut asked = Vec::new();
    let values = cache.get_many_or_load([&3, &2, &1, &3, &9], |missing: &[u64]| {
        asked.push(missing.to_vec());
        Ok::<_, String>(
            missing
                .iter()
                .map(|n| (*n != 9).then_some(10 * n))
                .collect(),
        )
    });
    assert_eq!(
        values.unwrap(),
        [Some(30), Some(22), Some(10), Some(30), None]
    );
    assert_eq!(asked, [[3, 1, 9]]);
    assert_eq!(
        (cache.get(&1), cache.get(&3), cache.get(&9)),
        (Some(10), Some(30), None)
    );
    let stats = cache.stats();
    assert_eq!((stats.loads(), stats.joined()), (3, 0));
    at_rest(&cache);
    // All there: nobody is asked. Nor where there are no keys.
    let none =
        |_: &[u64]| -> Result<Vec<Option<u64>>, String> { unreachable!("nothing is missing") };
    assert_eq!(
        cache.get_many_or_load([&1, &2], none).unwrap(),
        [Some(10), Some(22)]
    );
    assert_eq!(cache.get_many_or_load([] as [&u64; 0], none).unwrap(), []);
}

#[test]
fn a_thousand_keys_are_one_call() {
    let cache = numbers();
    let keys: Vec<u64> = (0..1_000).collect();
    let calls = AtomicUsize::new(0);
    let values = cache.get_many_or_load(&keys, |missing| {
        calls.fetch_add(1, Ordering::SeqCst);
        tenfold(missing)
    });
    assert!(
        values
            .unwrap()
            .into_iter()
            .eq(keys.iter().map(|n| Some(10 * n)))
    );
    assert_eq!((calls.load(Ordering::SeqCst), cache.len()), (1, 1_000));
    at_rest(&cache);
}

#[test]
fn keys_come_as_they_are_borrowed() {
    let cache: Cache<String, usize> = Cache::builder().max_capacity(10).build().unwrap();
    let lengths = cache.get_many_or_load(["one", "three"], |missing: &[String]| {
        Ok::<_, String>(missing.iter().map(|word| Some(word.len())).collect())
    });
    assert_eq!(lengths.unwrap(), [Some(3), Some(5)]);
    assert_eq!(cache.get("three"), Some(5));
}

#[test]
fn what_another_call_loads_is_waited_for_after_ones_own_is_stored() {
    let cache = numbers();
    let (first, second) = (Gate::default(), Gate::default());
    let mut one = held(&cache, &first, &[1, 2], 10);
    assert!(one.poll().is_pending());
    let mut two = held(&cache, &second, &[2, 3], 100);
    assert!(two.poll().is_pending());
    second.open();
    assert!(two.poll().is_pending(), "2 is the other's");
    assert_eq!(cache.get(&3), Some(300), "stored before waiting");
    first.open();
    assert_eq!(one.ready().unwrap(), [Some(10), Some(20)]);
    assert_eq!(two.ready().unwrap(), [Some(20), Some(300)]);
    assert_eq!((cache.stats().loads(), cache.stats().joined()), (3, 1));
    at_rest(&cache);
}

/// Each leads what the other joins, for as many keys as there are. (A canary: wait for joined keys before publishing
/// one's own.)
#[test]
fn two_that_overlap_do_not_wait_for_each_other() {
    for round in 0..200 {
        let (cache, start) = (numbers(), Barrier::new(2));
        let loads = AtomicUsize::new(0);
        let up: Vec<u64> = (0..50).collect();
        let down: Vec<u64> = (0..50).rev().collect();
        std::thread::scope(|scope| {
            for keys in [&up, &down] {
                let (cache, start, loads) = (&cache, &start, &loads);
                scope.spawn(move || {
                    start.wait();
                    let values = cache.get_many_or_load(keys, |missing| {
                        loads.fetch_add(missing.len(), Ordering::SeqCst);
                        std::thread::yield_now();
                        tenfold(missing)
                    });
                    let right = keys.iter().map(|n| Some(10 * n));
                    assert!(values.unwrap().into_iter().eq(right));
                });
            }
        });
        assert_eq!(
            loads.load(Ordering::SeqCst),
            50,
            "each key once, round {round}"
        );
        at_rest(&cache);
    }
}

#[test]
fn single_loads_and_bulk_loads_share_flights() {
    let cache = numbers();
    let gate = Gate::default();
    let mut bulk = held(&cache, &gate, &[1, 2], 10);
    assert!(bulk.poll().is_pending());
    let mut single =
        Hand::pending(cache.get_or_load_async(&2, || async { panic!("it is loaded") }));
    gate.open();
    assert_eq!(bulk.ready().unwrap(), [Some(10), Some(20)]);
    assert_eq!(single.ready(), 20);
    at_rest(&cache);
}

#[test]
fn a_wrong_number_of_answers_stores_nothing_and_says_so() {
    for answered in [0, 1, 3] {
        let cache = numbers();
        let values = cache.get_many_or_load([&1, &2], |_| Ok::<_, String>(vec![Some(5); answered]));
        let error = values.unwrap_err();
        let is = matches!(
            error,
            TryLoadError::Shared(LoadError::WrongCount { asked: 2, answered: n }) if n == answered
        );
        assert!(is, "{error}");
        assert!(cache.is_empty());
        at_rest(&cache);
    }
}

#[test]
fn an_error_is_the_callers_own_and_shared_with_those_who_waited() {
    let cache = numbers();
    cache.insert(1, 11);
    let gate = Gate::default();
    let mut bulk = Hand::pending(cache.get_many_or_load_async([&1, &2, &3], async |_| {
        gate.opened().await;
        Err::<Vec<Option<u64>>, _>("down")
    }));
    let mut waits = Hand::pending(cache.try_get_or_load_async(&3, || async { Ok::<_, String>(3) }));
    gate.open();
    assert!(matches!(bulk.ready(), Err(TryLoadError::Own("down"))));
    assert!(matches!(
        waits.ready(),
        Err(TryLoadError::Shared(LoadError::Failed(_)))
    ));
    assert_eq!((cache.get(&1), cache.len()), (Some(11), 1));
    assert_eq!(cache.stats().load_failures(), 2);
    at_rest(&cache);
}

#[test]
fn anothers_error_leaves_what_this_call_loaded() {
    let cache = numbers();
    let gate = Gate::default();
    let mut fails = Hand::pending(cache.try_get_or_load_async(&1, || async {
        gate.opened().await;
        Err::<u64, _>("down")
    }));
    let mut bulk = Hand::pending(
        cache.get_many_or_load_async([&1, &2], async |missing: Vec<u64>| tenfold(&missing)),
    );
    assert_eq!(cache.get(&2), Some(20));
    gate.open();
    assert!(fails.ready().is_err());
    assert!(matches!(bulk.ready(), Err(TryLoadError::Shared(_))));
    assert_eq!(cache.get(&2), Some(20));
    at_rest(&cache);
}

#[test]
fn stale_values_answer_a_loader_that_fails() {
    let time = ManualClock::new();
    let cache: Numbers = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .stale_if_error(10 * SECOND, SECOND)
        .clock(time.clock())
        .build()
        .unwrap();
    cache.insert_many([(1, 11), (2, 22)]);
    time.advance(2 * SECOND);
    let fails = |_: &[u64]| Err::<Vec<Option<u64>>, _>("down");
    let served = cache.get_many_or_load([&1, &2], fails);
    assert_eq!(served.unwrap(), [Some(11), Some(22)]);
    assert!(
        cache.get_many_or_load([&1, &3], fails).is_err(),
        "3 has nothing to serve"
    );
    assert_eq!(cache.stats().stale_on_error(), 3);
}

#[test]
fn values_that_are_due_for_an_early_load_are_loaded_with_the_rest() {
    let time = ManualClock::new();
    let cache: Numbers = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .early_expiration(1e9)
        .clock(time.clock())
        .build()
        .unwrap();
    let options = EntryOptions::new().load_time(SECOND / 100);
    cache.insert_with(1, 11, options).unwrap();
    cache.insert(2, 22);
    time.advance(SECOND * 3 / 4);
    let mut asked = Vec::new();
    let values = cache.get_many_or_load([&1, &2, &3], |missing| {
        asked.extend_from_slice(missing);
        tenfold(missing)
    });
    assert_eq!(values.unwrap(), [Some(10), Some(22), Some(30)]);
    assert_eq!(asked, [1, 3]);
    at_rest(&cache);
}

#[test]
fn an_invalidation_takes_one_keys_right_away_and_no_others() {
    let cache = numbers();
    let gate = Gate::default();
    let mut bulk = held(&cache, &gate, &[1, 2, 3], 10);
    assert!(bulk.poll().is_pending());
    cache.invalidate(&2);
    cache.insert(3, 33);
    gate.open();
    assert_eq!(bulk.ready().unwrap(), [Some(10), Some(20), Some(30)]);
    assert_eq!(
        (cache.get(&1), cache.get(&2), cache.get(&3)),
        (Some(10), None, Some(33))
    );
    assert_eq!(cache.stats().unpublished(), 2);
    at_rest(&cache);
}

#[test]
fn each_value_is_kept_as_its_answer_says() {
    let cache = numbers();
    let values = cache.get_many_or_load_with([&1, &2, &3], |_| {
        Ok::<_, String>(vec![
            Some(Loaded::new(10).tag("t")),
            Some(Loaded::uncacheable(20)),
            Some(Loaded::new(30).no_expiry()),
        ])
    });
    assert_eq!(values.unwrap(), [Some(10), Some(20), Some(30)]);
    assert_eq!(
        (cache.get(&1), cache.get(&2), cache.get(&3)),
        (Some(10), None, Some(30))
    );
    cache.invalidate_tag("t");
    assert_eq!(cache.get(&1), None);
    // Remembered as uncacheable: loaded, and not shared.
    assert_eq!(cache.get_many_or_load([&2], tenfold).unwrap(), [Some(20)]);
    at_rest(&cache);
}

#[test]
fn a_panic_leaves_every_key_to_the_next() {
    let cache = numbers();
    let died = catch_unwind(AssertUnwindSafe(|| {
        cache.get_many_or_load([&1, &2], |_| -> Result<Vec<Option<u64>>, String> {
            panic!("the loader")
        })
    }));
    assert!(died.is_err());
    at_rest(&cache);
    assert_eq!(
        cache.get_many_or_load([&1, &2], tenfold).unwrap(),
        [Some(10), Some(20)]
    );
}

#[test]
fn a_task_that_goes_away_leaves_every_key_to_those_who_wait() {
    let cache = numbers();
    let gate = Gate::default();
    let mut gone = held(&cache, &gate, &[1, 2], 10);
    assert!(gone.poll().is_pending());
    let mut calls = Vec::new();
    let mut bulk = Hand::new(
        cache.get_many_or_load_async([&1, &2, &3], |missing: Vec<u64>| {
            calls.push(missing.clone());
            async move { tenfold(&missing) }
        }),
    );
    assert!(bulk.poll().is_pending());
    drop(gone);
    assert_eq!(bulk.ready().unwrap(), [Some(10), Some(20), Some(30)]);
    drop(bulk);
    assert_eq!(calls.concat().len(), 3, "each once: {calls:?}");
    assert_eq!(calls[0], [3]);
    at_rest(&cache);
}

#[test]
fn a_loader_that_asks_for_its_own_keys_is_told() {
    let cache = numbers();
    let values = cache.get_many_or_load([&1, &2], |missing| {
        let inner = cache.try_get_or_load(&2, || Ok::<_, String>(2));
        assert!(matches!(
            inner,
            Err(TryLoadError::Shared(LoadError::Recursive))
        ));
        tenfold(missing)
    });
    assert_eq!(values.unwrap(), [Some(10), Some(20)]);
    at_rest(&cache);
}

#[test]
fn a_bulk_load_for_tasks_can_go_from_thread_to_thread() {
    fn goes<T: Send>(_: &T) {}
    let cache = numbers();
    goes(&cache.get_many_or_load_async([&1], async |missing: Vec<u64>| tenfold(&missing)));
}
