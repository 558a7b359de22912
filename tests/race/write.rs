//! Writes against loads, and `add` against itself.

use std::time::Duration;

use larder::{Added, EntryOptions};
use shuttle::thread;

use super::{KEY, World, explore};

/// A write during a load: the cache keeps the written value, and callers get one or the other.
fn load_against_write(write: fn(&World) -> bool) {
    explore(move || {
        let world = World::new();
        let thread = {
            let world = world.clone();
            thread::spawn(move || world.load())
        };
        let task = {
            let world = world.clone();
            shuttle::future::spawn(async move { world.load_async().await })
        };
        if write(&world) {
            assert_eq!(world.cache.get(&KEY), Some(9), "a load published over it");
            assert_eq!(world.load(), 9);
        }
        let results = [
            thread.join().expect("no panic"),
            shuttle::future::block_on(task).expect("not cancelled"),
        ];
        for result in results {
            assert!(matches!(result, 1 | 9));
        }
        world.finish();
    });
}

#[test]
fn load_against_insert() {
    load_against_write(|world| {
        world.cache.insert(KEY, 9);
        true
    });
}

#[test]
fn load_against_add() {
    load_against_write(|world| world.cache.add(KEY, 9).is_stored());
}

#[test]
fn load_against_compute() {
    load_against_write(|world| {
        let put = |_: Option<&u64>| larder::Compute::Put(9);
        world.cache.compute(&KEY, put).new == Some(9)
    });
}

/// Of those who add to an absence, exactly one wins, and the others see what it stored.
#[test]
fn one_adder_wins_an_absence() {
    explore(|| {
        let world = World::new();
        let adders: Vec<_> = (0..3)
            .map(|n| {
                let cache = world.cache.clone();
                thread::spawn(move || cache.add(KEY, n))
            })
            .collect();
        let results: Vec<_> = adders
            .into_iter()
            .map(|adder| adder.join().expect("no panic"))
            .collect();
        let winner = results.iter().position(Added::is_stored).expect("a winner") as u64;
        for (n, result) in results.into_iter().enumerate() {
            match result {
                Added::Present { present, value } => {
                    assert_eq!((present, value), (winner, n as u64));
                }
                _ => assert_eq!(n as u64, winner, "two winners"),
            }
        }
        assert_eq!(world.cache.get(&KEY), Some(winner));
        world.finish();
    });
}

/// The entry expires in the middle: whoever still sees it loses, and of the others exactly one wins.
#[test]
fn one_adder_wins_an_expiry() {
    explore(|| {
        let world = World::new();
        let second = Duration::from_secs(1);
        let options = move || EntryOptions::new().time_to_live(second);
        let old = world.cache.add_with(KEY, 100, options());
        assert_eq!(old, Ok(Added::Stored));
        let adders: Vec<_> = (0..3)
            .map(|n| {
                let cache = world.cache.clone();
                thread::spawn(move || cache.add_with(KEY, n, options()).expect("room"))
            })
            .collect();
        world.pass(second);
        let results: Vec<_> = adders
            .into_iter()
            .map(|adder| adder.join().expect("no panic"))
            .collect();
        let winners = results.iter().filter(|result| result.is_stored()).count();
        let late = world.cache.add_with(KEY, 200, options()).expect("room");
        match late {
            Added::Stored => assert_eq!(winners, 0, "the winner's entry is gone"),
            Added::Present { present, .. } => {
                assert_eq!(winners, 1);
                assert!(results[present as usize].is_stored());
            }
            _ => unreachable!("there are two answers"),
        }
        world.finish();
    });
}

/// An insertion and a removal, with a load between them: the last write decides.
#[test]
fn load_between_insert_and_remove() {
    explore(|| {
        let world = World::new();
        let loader = {
            let world = world.clone();
            thread::spawn(move || world.load())
        };
        let writer = {
            let world = world.clone();
            thread::spawn(move || world.cache.insert(KEY, 9))
        };
        writer.join().expect("no panic");
        world.change();
        world.cache.remove(&KEY);
        assert!(!matches!(world.cache.get(&KEY), Some(1 | 9)));
        assert!(matches!(loader.join().expect("no panic"), 1 | 2 | 9));
        world.finish();
    });
}

/// A write beside an invalidation comes before it, finds the old value and is gone after it, or comes
/// after it, finds nothing and stays. Never a half of each.
fn write_against(invalidate: fn(&larder::Cache<u64, u64>)) {
    explore(move || {
        let world = World::new();
        let tagged = || EntryOptions::new().tag("t");
        // Registered beforehand: the registry's own locks are unknown to the scheduler.
        let cache = world.cache.namespace("n");
        cache
            .insert_with(KEY, 1, tagged())
            .expect("there is room for one");
        let writer = {
            let cache = cache.clone();
            thread::spawn(move || cache.insert_with(KEY, 9, tagged()).expect("there is room"))
        };
        let other = {
            let cache = cache.clone();
            thread::spawn(move || invalidate(&cache))
        };
        let replaced = writer.join().expect("no panic");
        other.join().expect("no panic");
        let left = replaced.is_none().then_some(9);
        assert_eq!(cache.get(&KEY), left, "the write replaced {replaced:?}");
    });
}

#[test]
fn write_against_a_tag() {
    write_against(|cache| cache.invalidate_tag("t"));
}

#[test]
fn write_against_a_clear_of_its_namespace() {
    write_against(|cache| cache.clear());
}

#[test]
fn write_against_a_clear_of_all() {
    explore(|| {
        let world = World::new();
        world.cache.insert(KEY, 1);
        let writer = {
            let cache = world.cache.clone();
            thread::spawn(move || cache.insert(KEY, 9))
        };
        let other = {
            let cache = world.cache.clone();
            thread::spawn(move || cache.clear())
        };
        let replaced = writer.join().expect("no panic");
        other.join().expect("no panic");
        let left = replaced.is_none().then_some(9);
        assert_eq!(
            world.cache.get(&KEY),
            left,
            "the write replaced {replaced:?}"
        );
    });
}

/// Two computations and a blind write of the key, which is counted up by the computations and set to 100 by the write:
/// neither computation is lost to the other, both end, and who came last is seen.
#[test]
fn computations_against_each_other_and_a_write() {
    explore(|| {
        let world = World::new();
        world.cache.insert(KEY, 0);
        let computing: Vec<_> = (0..2)
            .map(|_| {
                let cache = world.cache.clone();
                thread::spawn(move || {
                    let mut runs = 0;
                    cache.compute(&KEY, |old| {
                        runs += 1;
                        assert!(runs <= 6, "the closure runs too often");
                        thread::yield_now();
                        larder::Compute::Put(old.map_or(1, |n| n + 1))
                    });
                })
            })
            .collect();
        let writing = {
            let cache = world.cache.clone();
            thread::spawn(move || cache.insert(KEY, 100))
        };
        for thread in computing {
            thread.join().expect("no panic");
        }
        writing.join().expect("no panic");
        let left = world.cache.get(&KEY);
        assert!(matches!(left, Some(100..=102)), "{left:?}");
        world.finish();
    });
}

/// A computation, a counter and an `add`, none of which is blind: nothing is lost.
#[test]
fn a_computation_against_a_counter() {
    explore(|| {
        let world = World::new();
        world.cache.insert(KEY, 0);
        let computing: Vec<_> = (0..2)
            .map(|_| {
                let cache = world.cache.clone();
                thread::spawn(move || {
                    cache.compute(&KEY, |old| {
                        thread::yield_now();
                        larder::Compute::Put(old.map_or(1, |n| n + 1))
                    })
                })
            })
            .collect();
        // More than a closure runs again for blind writes.
        for _ in 0..30 {
            world.cache.incr(&KEY, 10);
        }
        for thread in computing {
            let _ = thread.join().expect("no panic");
        }
        assert_eq!(world.cache.get(&KEY), Some(302));
        world.finish();
    });
}
