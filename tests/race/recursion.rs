//! Loads that load in turn: a circle is found by whoever closes it, and nobody waits for ever.

use larder::{LoadError, TryLoadError};
use shuttle::thread;

use super::{World, explore};

/// A loads B and B loads A, each in its own thread: both come back, and somebody was told of a circle
/// exactly if both ran into each other.
#[test]
fn a_circle_over_two_threads_ends() {
    fn outer(world: &World, key: u64, other: u64) -> Result<u64, TryLoadError<String>> {
        let cache = &world.cache;
        cache.try_get_or_load(&key, || {
            match cache.try_get_or_load(&other, || {
                thread::yield_now();
                Ok::<_, String>(other)
            }) {
                Ok(value) => Ok(value),
                Err(TryLoadError::Shared(LoadError::Recursive)) => Ok(0),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    explore(|| {
        let world = World::new();
        let other = {
            let world = world.clone();
            thread::spawn(move || outer(&world, 1, 2).expect("no failure"))
        };
        let a = outer(&world, 2, 1).expect("no failure");
        let b = other.join().expect("no panic");
        assert!(matches!((a, b), (0..=2, 0..=2)), "{a} {b}");
        world.finish();
    });
}

/// Loads that cannot fail run for themselves where waiting would close a circle.
#[test]
fn overlapping_loads_in_opposite_order_end() {
    explore(|| {
        let world = World::new();
        let load = |world: &World, first: u64, second: u64| {
            let cache = &world.cache;
            cache.get_or_load(&first, || cache.get_or_load(&second, || 5))
        };
        let other = {
            let world = world.clone();
            thread::spawn(move || load(&world, 1, 2))
        };
        assert_eq!(load(&world, 2, 1), 5);
        assert_eq!(other.join().expect("no panic"), 5);
        world.finish();
    });
}

/// Tasks whose loads cannot fail run for themselves where waiting would close a circle.
#[test]
fn overlapping_tasks_in_opposite_order_end() {
    async fn load(world: &World, first: u64, second: u64) -> u64 {
        let cache = &world.cache;
        let inner = || cache.get_or_load_async(&second, || async { 5 });
        cache.get_or_load_async(&first, inner).await
    }

    explore(|| {
        let world = World::new();
        let tasks = [(1, 2), (2, 1)].map(|(first, second)| {
            let world = world.clone();
            shuttle::future::spawn(async move { load(&world, first, second).await })
        });
        for task in tasks {
            assert_eq!(shuttle::future::block_on(task).expect("not cancelled"), 5);
        }
        world.finish();
    });
}
