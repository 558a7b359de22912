//! Values that are loaded again while they are served: early, or stale. As in `invalidate`, what was read before an
//! invalidation began is not served after it returned, neither by the refresh nor by the value it was to replace.

use std::time::Duration;

use larder::{EntryOptions, LoadError, Loaded};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

use super::{KEY, World, explore};

const MILLI: Duration = Duration::from_millis(1);

/// A value of 1, in whose window every draw says "early"; after `age` of a second's life.
fn aged(age: Duration) -> World {
    let world = World::with(|builder| {
        builder
            .time_to_live(1_000 * MILLI)
            .early_expiration(1e9)
            .stale_while_revalidate(10_000 * MILLI)
            .stale_if_error(10_000 * MILLI, 1_000 * MILLI)
    });
    let options = EntryOptions::new().load_time(10 * MILLI);
    world
        .cache
        .insert_with(KEY, 1, options)
        .expect("there is room");
    world.clock.advance(age);
    world
}

fn early() -> World {
    aged(750 * MILLI)
}

fn stale() -> World {
    aged(1_500 * MILLI)
}

fn against(world: fn() -> World, invalidate: fn(&World)) {
    explore(move || {
        let world = world();
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || world.load())
            })
            .collect();
        world.change();
        invalidate(&world);
        assert_ne!(world.cache.get(&KEY), Some(1), "stale");
        assert_eq!(world.load(), 2, "served or joined what is past");
        for caller in callers {
            assert!(matches!(caller.join().expect("no panic"), 1 | 2));
        }
        assert_eq!(world.cache.get(&KEY), Some(2));
        world.finish();
    });
}

#[test]
fn an_early_load_against_invalidate() {
    against(early, |world| {
        world.cache.invalidate(&KEY);
    });
}

#[test]
fn an_early_load_against_clear() {
    against(early, |world| world.cache.clear());
}

#[test]
fn a_stale_value_against_invalidate() {
    against(stale, |world| {
        world.cache.invalidate(&KEY);
    });
}

#[test]
fn a_stale_value_against_clear() {
    against(stale, |world| world.cache.clear());
}

/// At any moment one loader runs at most, and nobody is left without a value.
fn one_at_a_time(world: fn() -> World) {
    explore(move || {
        let world = world();
        let running = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let (world, running) = (world.clone(), Arc::clone(&running));
                thread::spawn(move || {
                    world.cache.get_or_load(&KEY, || {
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two loaders");
                        thread::yield_now();
                        running.fetch_sub(1, Ordering::SeqCst);
                        2
                    })
                })
            })
            .collect();
        for caller in callers {
            assert!(matches!(caller.join().expect("no panic"), 1 | 2));
        }
        assert_eq!(world.cache.get(&KEY), Some(2));
        // Nobody waited: what is there will do.
        assert_eq!(world.cache.stats().joined(), 0);
        world.finish();
    });
}

#[test]
fn one_loads_early_and_nobody_waits() {
    one_at_a_time(early);
}

#[test]
fn one_loads_what_is_stale_and_nobody_waits() {
    one_at_a_time(stale);
}

/// A source that fails, twice at once: each caller is served the stale value, and then it rests.
#[test]
fn a_failing_source_is_covered_up_for_all() {
    explore(|| {
        let world = stale();
        let asked = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let (world, asked) = (world.clone(), Arc::clone(&asked));
                thread::spawn(move || {
                    world.cache.try_get_or_load(&KEY, || {
                        asked.fetch_add(1, Ordering::SeqCst);
                        Err::<u64, _>("down")
                    })
                })
            })
            .collect();
        for caller in callers {
            let answer = caller.join().expect("no panic");
            assert_eq!(answer.expect("the stale value"), 1);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "it rests");
    });
}

type Job = Box<dyn FnOnce() + Send>;

/// A cache whose attached loader is run by a thread of its own for each call, because of a timeout.
fn handed_out(run: fn(Job)) -> World {
    let truth = Arc::new(AtomicU64::new(1));
    let seen = Arc::clone(&truth);
    let world = World::with(|builder| {
        builder
            .loader(move |_: &u64| {
                let truth = seen.load(Ordering::SeqCst);
                thread::yield_now();
                Ok::<_, String>(Loaded::new(truth))
            })
            .hard_timeout(Duration::from_secs(10))
            .executor(run)
    });
    World { truth, ..world }
}

#[test]
fn a_load_that_runs_elsewhere_against_invalidate() {
    explore(|| {
        let world = handed_out(|job| drop(thread::spawn(job)));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || world.cache.load(&KEY))
            })
            .collect();
        world.change();
        world.cache.invalidate(&KEY);
        assert_ne!(world.cache.get(&KEY), Some(1), "stale");
        let value = world.cache.load(&KEY).expect("a value");
        assert_eq!(value, 2, "served or joined what is past");
        for caller in callers {
            assert!(matches!(caller.join().expect("no panic"), Ok(1 | 2)));
        }
        assert_eq!(world.cache.get(&KEY), Some(2));
    });
}

/// Nobody waits for a job that was dropped, wherever that happens, and each caller is told once.
#[test]
fn a_load_that_is_dropped_elsewhere_strands_nobody() {
    explore(|| {
        let world = handed_out(|job| drop(thread::spawn(move || drop(job))));
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || world.cache.load(&KEY))
            })
            .collect();
        for caller in callers {
            let told = caller.join().expect("no panic");
            assert!(matches!(told, Err(LoadError::Abandoned)), "{told:?}");
        }
        // Who dropped the last job may not be done with it.
        while world.cache.__flights().1 > 0 {
            thread::yield_now();
        }
        world.finish();
    });
}
