//! The five ways in which a flight ends: done, failed, given up, abandoned, detached.

use std::panic::{AssertUnwindSafe, catch_unwind};

use larder::{LoadError, Loaded, TryLoadError};

use super::executor::{Gate, Hand};
use super::{KEY, Numbers, Runs, SECOND, at_rest, held, numbers, timed, until_joined, waiting};

/// A load that can fail, by a task that has joined another's.
fn trying(cache: &Numbers) -> Hand<'_, Result<u64, TryLoadError<String>>> {
    Hand::pending(cache.try_get_or_load_async(&KEY, || async { Ok(99) }))
}

/// A load that fails once the gate is open.
fn failing<'a>(
    cache: &'a Numbers,
    gate: &'a Gate,
) -> Hand<'a, Result<u64, TryLoadError<&'static str>>> {
    Hand::pending(cache.try_get_or_load_async(&KEY, move || async move {
        gate.opened().await;
        Err("no luck")
    }))
}

#[track_caller]
fn assert_shared<E: std::fmt::Debug>(result: Result<u64, TryLoadError<E>>, text: &str) {
    match result {
        Err(TryLoadError::Shared(LoadError::Failed(cause))) => assert_eq!(cause.to_string(), text),
        other => panic!("expected a shared failure, got {other:?}"),
    }
}

#[test]
fn done_goes_to_all_who_waited_and_into_the_cache() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = held(&cache, &gate, 1);
    let mut followers = [waiting(&cache, 2), waiting(&cache, 3)];
    gate.open();
    assert_eq!(leader.ready(), 1);
    for follower in &mut followers {
        assert_eq!(follower.wakes(), 1, "woken once");
        assert_eq!(follower.ready(), 1);
    }
    assert_eq!(cache.get(&KEY), Some(1));
    let stats = cache.stats();
    assert_eq!((stats.loads(), stats.joined(), stats.inserts()), (1, 2, 1));
    at_rest(&cache);
}

/// The leader has its error by value, whatever its type; followers share its text, whatever theirs.
#[test]
fn a_failure_is_shared_by_callers_with_different_error_types() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = failing(&cache, &gate);
    let mut strings = trying(&cache);
    let mut numeric = Hand::pending(cache.try_get_or_load_async(&KEY, || async { Err(5_u8) }));
    gate.open();
    assert!(matches!(leader.ready(), Err(TryLoadError::Own("no luck"))));
    assert_shared(strings.ready(), "no luck");
    assert_shared(numeric.ready(), "no luck");
    assert_eq!(cache.get(&KEY), None);
    assert_eq!(cache.stats().load_failures(), 1);
    at_rest(&cache);
}

#[test]
fn a_failure_is_not_kept_unless_asked_for() {
    let cache = numbers();
    assert!(cache.try_get_or_load(&KEY, || Err("no")).is_err());
    assert!(matches!(
        cache.try_get_or_load(&KEY, || Ok::<_, String>(2)),
        Ok(2)
    ));
    at_rest(&cache);
}

/// Who cannot be given an error goes on to load for itself, and then for all.
#[test]
fn an_infallible_follower_of_a_failure_loads_next() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = failing(&cache, &gate);
    let mut first = waiting(&cache, 2);
    let mut second = waiting(&cache, 3);
    gate.open();
    assert!(leader.ready().is_err());
    assert_eq!((first.ready(), second.ready()), (2, 2));
    assert_eq!(cache.get(&KEY), Some(2));
    at_rest(&cache);
}

#[test]
fn a_remembered_failure_is_answered_until_its_time_is_over() {
    let (cache, time) = timed(|builder| builder.error_time_to_live(SECOND));
    assert!(cache.try_get_or_load(&KEY, || Err("down")).is_err());
    let runs = Runs::default();
    let again = || {
        cache.try_get_or_load(&KEY, || {
            runs.next();
            Ok::<_, String>(2)
        })
    };
    assert_shared(again(), "down");
    time.pass(SECOND - std::time::Duration::from_nanos(1));
    assert_shared(again(), "down");
    assert_eq!(runs.count(), 0);
    assert_eq!(cache.__flights(), (1, 0), "the failure is in the table");
    time.pass(std::time::Duration::from_nanos(1));
    assert!(matches!(again(), Ok(2)));
    assert_eq!(runs.count(), 1);
    cache.run_pending(10);
    at_rest(&cache);
}

/// Each of these ends the memory of a failure at once.
#[test]
fn a_remembered_failure_ends_with_a_write_or_an_invalidation() {
    let ends: [fn(&Numbers); 6] = [
        |cache| {
            let _ = cache.insert(KEY, 2);
        },
        |cache| {
            let _ = cache.add(KEY, 2);
        },
        |cache| {
            let _ = cache.remove(&KEY);
        },
        |cache| cache.clear(),
        |cache| {
            let _ = cache.retain(|_, _| true);
        },
        |cache| {
            let _ = cache.remove_if(&KEY, |_| false);
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let (cache, _time) = timed(|builder| builder.error_time_to_live(SECOND));
        assert!(cache.try_get_or_load(&KEY, || Err("down")).is_err());
        end(&cache);
        let value = cache.try_get_or_load(&KEY, || Ok::<_, String>(2));
        assert!(matches!(value, Ok(2)), "number {number}: {value:?}");
        at_rest(&cache);
    }
}

/// A remembered failure is an absence: an infallible load runs its loader, and `add` wins.
#[test]
fn a_remembered_failure_is_no_value() {
    let (cache, _time) = timed(|builder| builder.error_time_to_live(SECOND));
    assert!(cache.try_get_or_load(&KEY, || Err("down")).is_err());
    assert_eq!(cache.get(&KEY), None);
    assert!(!cache.contains_key(&KEY));
    assert_eq!(cache.get_or_load(&KEY, || 3), 3);
    assert_eq!(cache.get(&KEY), Some(3));
    at_rest(&cache);
}

/// Followers of an uncacheable answer load for themselves, and so does whoever asks for a while.
#[test]
fn given_up_is_remembered() {
    let (cache, time) = timed(|builder| builder);
    let gate = Gate::default();
    let (at, opened) = (&cache, &gate);
    let mut leader = Hand::pending(at.get_or_load_with_async(&KEY, || async {
        opened.opened().await;
        Ok::<_, String>(Loaded::uncacheable(1))
    }));
    let mut follower = waiting(&cache, 2);
    gate.open();
    assert!(matches!(leader.ready(), Ok(1)));
    assert_eq!(follower.ready(), 2, "its own");
    // The follower's answer may be cached, which ends the memory: say it again.
    let uncacheable = || Ok::<_, String>(Loaded::uncacheable(3));
    assert!(matches!(cache.get_or_load_with(&KEY, uncacheable), Ok(3)));
    let private = Gate::default();
    let personal = || async {
        private.opened().await;
        Ok::<_, String>(Loaded::uncacheable(4))
    };
    let mut alone = Hand::pending(cache.get_or_load_with_async(&KEY, personal));
    assert!(
        matches!(cache.get_or_load_with(&KEY, uncacheable), Ok(3)),
        "nobody queues"
    );
    private.open();
    assert!(matches!(alone.ready(), Ok(4)));
    assert_eq!(cache.len(), 0);
    time.pass(60 * SECOND);
    let shared = Gate::default();
    let mut leader = held(&cache, &shared, 5);
    let mut follower = waiting(&cache, 6);
    shared.open();
    assert_eq!((leader.ready(), follower.ready()), (5, 5), "shared again");
    at_rest(&cache);
}

/// Eight threads wait for a loader that panics three times: four runs, each caller but the first
/// three gets the value.
#[test]
fn a_panic_goes_to_its_caller_and_the_next_one_leads() {
    let (cache, runs) = (numbers(), Runs::default());
    let panicked = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let load = || {
                        let run = runs.next();
                        if run == 1 {
                            until_joined(&cache, 7);
                        }
                        // Quiet: this panic is no news.
                        if run <= 3 {
                            std::panic::resume_unwind(Box::new("planned"));
                        }
                        11
                    };
                    catch_unwind(AssertUnwindSafe(|| cache.get_or_load(&KEY, load)))
                })
            })
            .collect();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().expect("caught"));
        results.filter(Result::is_err).count()
    });
    assert_eq!((panicked, runs.count()), (3, 4));
    assert_eq!(cache.get(&KEY), Some(11));
    assert_eq!(cache.stats().load_failures(), 3);
    at_rest(&cache);
}

/// A loader's future panics while it is polled, with a task waiting.
#[test]
fn a_panic_in_a_task_hands_over() {
    let (cache, gate) = (numbers(), Gate::default());
    let (at, opened) = (&cache, &gate);
    let mut leader = Hand::pending(at.get_or_load_async(&KEY, || async {
        opened.opened().await;
        std::panic::resume_unwind(Box::new("planned"))
    }));
    let mut follower = waiting(&cache, 2);
    gate.open();
    assert!(catch_unwind(AssertUnwindSafe(|| leader.poll())).is_err());
    assert_eq!(follower.wakes(), 1);
    assert_eq!(follower.ready(), 2);
    drop(leader);
    at_rest(&cache);
}

/// Revoked and then abandoned: who had joined looks again.
#[test]
fn a_detached_leader_that_goes_leaves_nobody_waiting() {
    let (cache, gate) = (numbers(), Gate::default());
    let leader = held(&cache, &gate, 1);
    let mut follower = waiting(&cache, 2);
    cache.invalidate(&KEY);
    assert!(
        follower.poll().is_pending(),
        "the detached leader may still bring it"
    );
    drop(leader);
    assert_eq!(follower.ready(), 2);
    assert_eq!(cache.get(&KEY), Some(2));
    at_rest(&cache);
}

/// Nothing is told to those who can be told; the others load.
#[test]
fn absence_is_told_to_those_who_asked_for_an_option() {
    let (cache, gate) = (numbers(), Gate::default());
    let (at, opened) = (&cache, &gate);
    let mut leader = Hand::pending(at.get_or_load_optional_async(&KEY, || async {
        opened.opened().await;
        None
    }));
    let mut option = Hand::pending(cache.get_or_load_optional_async(&KEY, || async { Some(2) }));
    let mut value = waiting(&cache, 3);
    gate.open();
    assert_eq!(leader.ready(), None);
    assert_eq!(option.ready(), None);
    assert_eq!(value.ready(), 3);
    at_rest(&cache);
}
