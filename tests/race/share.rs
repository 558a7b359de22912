//! Sharing one load: at any time at most one loader runs that may publish, and all get its value.

use larder::{LoadError, TryLoadError};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

use super::{KEY, World, explore};

#[test]
fn one_loader_serves_threads_and_tasks() {
    explore(|| {
        let world = World::new();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || world.load())
            })
            .collect();
        let task = {
            let world = world.clone();
            shuttle::future::spawn(async move { world.load_async().await })
        };
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), 1);
        }
        assert_eq!(shuttle::future::block_on(task).expect("not cancelled"), 1);
        assert_eq!(world.loads(), 1);
        assert_eq!(world.cache.get(&KEY), Some(1));
        world.finish();
    });
}

/// An absence is told to those who waited for it, and the next caller loads anew.
#[test]
fn an_absence_is_shared_and_the_next_one_loads() {
    explore(|| {
        let world = World::new();
        let running = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let (world, running) = (world.clone(), Arc::clone(&running));
                shuttle::future::spawn(async move {
                    let loader = || async {
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two loaders");
                        let first = world.loads.fetch_add(1, Ordering::SeqCst) == 0;
                        shuttle::future::yield_now().await;
                        running.fetch_sub(1, Ordering::SeqCst);
                        if first { None } else { Some(5) }
                    };
                    // `None` is told to those who ask for an option; others go on to load.
                    match world.cache.get_or_load_optional_async(&KEY, loader).await {
                        Some(value) => value,
                        None => world.cache.get_or_load_async(&KEY, || async { 5 }).await,
                    }
                })
            })
            .collect();
        for caller in callers {
            assert_eq!(shuttle::future::block_on(caller).expect("not cancelled"), 5);
        }
        world.finish();
    });
}

/// A remembered failure is of the past once the key was invalidated.
#[test]
fn a_failure_does_not_outlive_an_invalidation() {
    explore(|| {
        let minute = std::time::Duration::from_secs(60);
        let world = World::with(|builder| builder.error_time_to_live(minute));
        let failing = {
            let world = world.clone();
            thread::spawn(move || try_read(&world))
        };
        let other = {
            let world = world.clone();
            thread::spawn(move || try_read(&world))
        };
        world.change();
        world.cache.invalidate(&KEY);
        assert_eq!(try_read(&world), Some(2));
        for thread in [failing, other] {
            let got = thread.join().expect("no panic");
            assert!(matches!(got, None | Some(2)));
        }
        world.cache.invalidate(&KEY);
        world.finish();
    });
}

/// The loader fails as long as the truth is 1.
fn try_read(world: &World) -> Option<u64> {
    let loader = || match world.read() {
        1 => Err("not yet"),
        truth => Ok(truth),
    };
    match world.cache.try_get_or_load(&KEY, loader) {
        Ok(value) => Some(value),
        Err(TryLoadError::Own(_) | TryLoadError::Shared(LoadError::Failed(_))) => None,
        Err(error) => panic!("{error}"),
    }
}
