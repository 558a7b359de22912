//! Loaders that load: nested loads work, circles end.

use std::sync::Barrier;

use larder::{LoadError, TryLoadError};

use super::executor::{Gate, Hand};
use super::{KEY, Numbers, at_rest, numbers};

const A: u64 = 1;
const B: u64 = 2;

/// What a loader saw of the key that it asked for in turn.
type Seen = Result<u64, TryLoadError<String>>;

fn is_recursive(seen: &Seen) -> bool {
    matches!(seen, Err(TryLoadError::Shared(LoadError::Recursive)))
}

#[test]
fn a_loader_may_load_another_key() {
    let cache = numbers();
    let value = cache.get_or_load(&A, || cache.get_or_load(&B, || 4) + 1);
    assert_eq!((value, cache.get(&A), cache.get(&B)), (5, Some(5), Some(4)));
    let value = pollster::block_on(cache.get_or_load_async(&3, || async {
        cache.get_or_load_async(&4, || async { 8 }).await + 1
    }));
    assert_eq!((value, cache.get(&3), cache.get(&4)), (9, Some(9), Some(8)));
    at_rest(&cache);
}

#[test]
fn a_loader_that_loads_its_own_key_is_told() {
    let cache = numbers();
    let value = cache.try_get_or_load(&KEY, || {
        let inner = cache.try_get_or_load(&KEY, || Ok::<_, String>(1));
        assert!(is_recursive(&inner), "{inner:?}");
        Ok::<_, String>(2)
    });
    assert!(matches!(value, Ok(2)));
    assert_eq!(cache.get(&KEY), Some(2));
    at_rest(&cache);
}

#[test]
fn a_task_that_loads_its_own_key_is_told() {
    let cache = numbers();
    let value = pollster::block_on(cache.try_get_or_load_async(&KEY, || async {
        let inner = cache.try_get_or_load_async(&KEY, || async { Ok::<_, String>(1) });
        let inner = inner.await;
        assert!(is_recursive(&inner), "{inner:?}");
        Ok::<_, String>(2)
    }));
    assert!(matches!(value, Ok(2)));
    at_rest(&cache);
}

/// A load that cannot fail runs its loader for itself, and stores nothing.
#[test]
fn an_infallible_load_of_its_own_key_runs_alone() {
    let cache = numbers();
    let value = cache.get_or_load(&KEY, || {
        let inner = cache.get_or_load(&KEY, || 1);
        assert_eq!(cache.get(&KEY), None, "the inner value is not stored");
        inner + 1
    });
    assert_eq!((value, cache.get(&KEY)), (2, Some(2)));
    at_rest(&cache);
}

/// A, then B, then A again, on one thread.
#[test]
fn a_circle_over_several_keys_is_told() {
    let cache = numbers();
    let value = cache.try_get_or_load(&A, || {
        cache.try_get_or_load(&B, || {
            let third = cache.try_get_or_load(&3, || {
                let inner = cache.try_get_or_load(&A, || Ok::<_, String>(0));
                assert!(is_recursive(&inner), "{inner:?}");
                Ok::<_, String>(3)
            });
            third.map(|value| value + 1)
        })
    });
    assert!(matches!(value, Ok(4)), "{value:?}");
    assert_eq!(cache.len(), 3);
    at_rest(&cache);
}

/// Loads `first`, and from its loader, once both callers lead, `second`.
fn cross(cache: &Numbers, both: &Barrier, first: u64, second: u64) -> Seen {
    let mut inner = Ok(0);
    let outer = cache.try_get_or_load(&first, || {
        both.wait();
        inner = cache.try_get_or_load(&second, || Ok(0));
        Ok::<_, String>(first)
    });
    assert!(matches!(outer, Ok(value) if value == first), "{outer:?}");
    inner
}

/// Two threads lead a key each and want the other's: one of them is told, and the other is served.
#[test]
fn a_circle_over_two_threads_is_told_to_one() {
    for _ in 0..100 {
        let (cache, both) = (numbers(), Barrier::new(2));
        let (ab, ba) = std::thread::scope(|scope| {
            let other = scope.spawn(|| cross(&cache, &both, B, A));
            let ab = cross(&cache, &both, A, B);
            (ab, other.join().expect("no panic"))
        });
        match (&ab, &ba) {
            (Ok(B), told) | (told, Ok(A)) => assert!(is_recursive(told), "{told:?}"),
            _ => panic!("nobody was served: {ab:?} {ba:?}"),
        }
        at_rest(&cache);
    }
}

/// Loads `first`, and from its loader, once the gate is open, `second`; 100 if that closed a circle.
async fn closing(
    cache: &Numbers,
    gate: &Gate,
    first: u64,
    second: u64,
) -> Result<u64, TryLoadError<String>> {
    let loader = || async {
        gate.opened().await;
        let inner = cache.try_get_or_load_async(&second, || async { Ok::<_, String>(0) });
        match inner.await {
            told if is_recursive(&told) => Ok(100),
            Ok(value) => Ok(value + 1),
            Err(error) => Err(error.to_string()),
        }
    };
    cache.try_get_or_load_async(&first, loader).await
}

/// Two tasks of one thread load in known order: the second one closes the circle.
#[test]
fn a_circle_over_two_tasks_is_told_to_who_closes_it() {
    let (cache, gate) = (numbers(), Gate::default());
    let (mut first, mut second) = (
        Hand::pending(closing(&cache, &gate, A, B)),
        Hand::pending(closing(&cache, &gate, B, A)),
    );
    gate.open();
    assert!(first.poll().is_pending(), "it waits for the second");
    assert!(
        matches!(second.ready(), Ok(100)),
        "which would wait for the first"
    );
    assert!(matches!(first.ready(), Ok(101)));
    at_rest(&cache);
}

/// A thread and a task on another thread.
#[test]
fn a_circle_over_a_thread_and_a_task_ends() {
    let (cache, both) = (numbers(), Barrier::new(2));
    let task = async {
        cache
            .get_or_load_async(&B, || async {
                both.wait();
                cache.get_or_load_async(&A, || async { 5 }).await
            })
            .await
    };
    let (a, b) = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            cache.get_or_load(&A, || {
                both.wait();
                cache.get_or_load(&B, || 5)
            })
        });
        let b = pollster::block_on(task);
        (thread.join().expect("no panic"), b)
    });
    assert_eq!((a, b), (5, 5));
    at_rest(&cache);
}

/// Loads the first key, from its loader the second, and so on.
fn nest(cache: &Numbers, keys: &[u64]) -> u64 {
    match keys.split_first() {
        None => 5,
        Some((first, rest)) => cache.get_or_load(first, || {
            std::thread::yield_now();
            nest(cache, rest)
        }),
    }
}

/// Loads of the same keys in opposite and in rotated orders, overlapping: everybody comes back.
#[test]
fn overlapping_loads_of_several_keys_do_not_deadlock() {
    for _ in 0..50 {
        let (cache, start) = (numbers(), Barrier::new(4));
        let orders: [[u64; 6]; 4] = [
            [1, 2, 3, 4, 5, 6],
            [6, 5, 4, 3, 2, 1],
            [3, 4, 5, 6, 1, 2],
            [4, 3, 2, 1, 6, 5],
        ];
        std::thread::scope(|scope| {
            for order in &orders {
                let (cache, start) = (&cache, &start);
                scope.spawn(move || {
                    start.wait();
                    assert_eq!(nest(cache, order), 5);
                });
            }
        });
        at_rest(&cache);
    }
}

/// Waiting for a load that itself waits for a third is no circle.
#[test]
fn a_chain_is_no_circle() {
    let (cache, gate) = (numbers(), Gate::default());
    std::thread::scope(|scope| {
        let last = scope.spawn(|| {
            cache.get_or_load(&3, || {
                gate.block();
                7
            })
        });
        while cache.__flights().1 < 1 {
            std::thread::yield_now();
        }
        let middle = scope.spawn(|| cache.get_or_load(&B, || cache.get_or_load(&3, || 0)));
        super::until_joined(&cache, 1);
        let first = scope.spawn(|| cache.get_or_load(&A, || cache.get_or_load(&B, || 0)));
        super::until_joined(&cache, 2);
        gate.open();
        for thread in [last, middle, first] {
            assert_eq!(thread.join().expect("no panic"), 7);
        }
    });
    assert_eq!(cache.stats().loads(), 3);
    at_rest(&cache);
}
