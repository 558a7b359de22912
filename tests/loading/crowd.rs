//! Crowds: many callers of one cold key, threads and tasks together.

use std::cell::Cell;
use std::rc::Rc;

use super::executor::{Executor, Gate};
use super::{KEY, Numbers, Runs, at_rest, numbers, until_joined};

const TASKS: u64 = 10_000;
const THREADS: u64 = 64;

type Results = Vec<Rc<Cell<Option<u64>>>>;

/// Ten thousand tasks that want the key, and would load `value`.
fn crowd(cache: &Numbers, value: u64) -> (Executor, Results) {
    let mut executor = Executor::new();
    let results = (0..TASKS)
        .map(|_| {
            let cache = cache.clone();
            executor.spawn(async move { cache.get_or_load_async(&KEY, || async { value }).await })
        })
        .collect();
    (executor, results)
}

#[test]
fn two_hundred_threads_call_one_loader() {
    let (cache, runs) = (numbers(), Runs::default());
    let load = || {
        runs.next();
        until_joined(&cache, 199);
        1
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..200)
            .map(|_| scope.spawn(|| cache.get_or_load(&KEY, load)))
            .collect();
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), 1);
        }
    });
    assert_eq!(runs.count(), 1);
    let stats = cache.stats();
    assert_eq!(
        (stats.loads(), stats.joined(), stats.misses()),
        (1, 199, 200)
    );
    at_rest(&cache);
}

#[test]
fn ten_thousand_tasks_and_64_threads_share_one_load() {
    let (cache, gate) = (numbers(), Gate::default());
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| {
            cache.get_or_load(&KEY, || {
                gate.block();
                1
            })
        });
        while cache.__flights().1 == 0 {
            std::thread::yield_now();
        }
        let (mut executor, results) = crowd(&cache, 2);
        assert_eq!(executor.run() as u64, TASKS);
        let threads: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| cache.get_or_load(&KEY, || 3)))
            .collect();
        until_joined(&cache, TASKS + THREADS);
        gate.open();
        executor.finish();
        assert!(results.iter().all(|result| result.take() == Some(1)));
        assert_eq!(leader.join().expect("no panic"), 1);
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), 1);
        }
    });
    assert_eq!(cache.stats().loads(), 1);
    at_rest(&cache);
}

/// The leader goes with everybody waiting: exactly one of them loads for the others.
#[test]
fn a_crowd_is_handed_over_once() {
    let (cache, gate) = (numbers(), Gate::default());
    let leader = super::held(&cache, &gate, 1);
    let (mut executor, results) = crowd(&cache, 2);
    assert_eq!(executor.run() as u64, TASKS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| cache.get_or_load(&KEY, || 2)))
            .collect();
        until_joined(&cache, TASKS + THREADS);
        drop(leader);
        executor.finish();
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), 2);
        }
    });
    assert!(results.iter().all(|result| result.take() == Some(2)));
    assert_eq!(cache.stats().inserts(), 1);
    at_rest(&cache);
}

/// Ten thousand candidates go one after the other, each passing the wake on. The last one is left.
#[test]
fn a_crowd_that_leaves_passes_the_wake_through() {
    let (cache, gate) = (numbers(), Gate::default());
    let leader = super::held(&cache, &gate, 1);
    let (mut leaving, _) = crowd(&cache, 2);
    assert_eq!(leaving.run() as u64, TASKS);
    let mut last = super::waiting(&cache, 3);
    drop(leader);
    drop(leaving);
    assert_eq!(last.wakes(), 1);
    assert_eq!(last.ready(), 3);
    at_rest(&cache);
}

/// Followers that were dropped are neither waited for nor woken.
#[test]
fn a_crowd_that_left_is_forgotten() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = super::held(&cache, &gate, 1);
    let (mut leaving, _) = crowd(&cache, 2);
    assert_eq!(leaving.run() as u64, TASKS);
    drop(leaving);
    let mut stays = super::waiting(&cache, 3);
    gate.open();
    assert_eq!((leader.ready(), stays.ready()), (1, 1));
    at_rest(&cache);
}

/// Whoever is woken by the end of a load finds its permit free.
#[test]
fn a_load_gives_its_permit_back_before_it_wakes_anybody() {
    let cache: Numbers = larder::Cache::builder()
        .max_capacity(1_000)
        .max_loads(1)
        .build()
        .expect("a valid configuration");
    for round in 0..300 {
        let gate = Gate::default();
        let key = 2 * round;
        std::thread::scope(|scope| {
            let (cache, gate) = (&cache, &gate);
            let leader = scope.spawn(move || {
                cache.get_or_load(&key, || {
                    gate.block();
                    1
                })
            });
            while cache.__flights().1 == 0 {
                std::thread::yield_now();
            }
            let follower = scope.spawn(move || {
                assert_eq!(cache.get_or_load(&key, || unreachable!("it waits")), 1);
                cache
                    .try_get_or_load(&(key + 1), || Ok::<_, String>(2))
                    .ok()
            });
            until_joined(cache, round + 1);
            gate.open();
            assert_eq!(follower.join().expect("no panic"), Some(2), "round {round}");
            assert_eq!(leader.join().expect("no panic"), 1);
        });
    }
    at_rest(&cache);
}
