//! `compute`, `remove_if` and the counters: what a value inherits, what races do, how often a closure runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use larder::{Cache, Compute, ComputeError, EntryOptions, EvictionPolicy, RemovalCause};

use crate::{SECOND, ignore, sized, timed};

type Call = fn(&Cache<u64, u64>);

/// The most runs of a closure in one call, as the documents of `compute` state it.
const MOST_RUNS: u32 = 6;

fn add_one(old: Option<&u64>) -> Compute<u64> {
    Compute::Put(old.map_or(1, |n| n + 1))
}

#[test]
fn a_computed_value_inherits_tags_windows_and_the_own_time_to_live() {
    let (cache, time) = timed(|builder| builder.time_to_live(100 * SECOND));
    let options = EntryOptions::new()
        .tag("counters")
        .time_to_live(10 * SECOND)
        .stale_if_error(5 * SECOND);
    cache.insert_with(1, 1, options.clone()).unwrap();
    cache.insert_with(2, 1, options).unwrap();
    for key in [1, 2] {
        assert_eq!(cache.compute(&key, add_one).new, Some(2));
    }
    cache.invalidate_tag("counters");
    assert_eq!(cache.get(&1), None, "its tag was invalidated");
    assert_eq!(
        cache.compute(&2, add_one).new,
        Some(1),
        "there was nothing to inherit"
    );

    let options = EntryOptions::new()
        .time_to_live(10 * SECOND)
        .stale_if_error(5 * SECOND);
    cache.insert_with(3, 1, options).unwrap();
    time.advance(9 * SECOND);
    assert_eq!(cache.compute(&3, add_one).new, Some(2));
    time.advance(SECOND);
    assert_eq!(cache.get(&3), None, "ten seconds after its insertion");
    let fails = || Err::<u64, _>("the source is down");
    assert_eq!(
        cache.try_get_or_load(&3, fails).ok(),
        Some(2),
        "its window is open"
    );
    time.advance(5 * SECOND);
    assert!(cache.try_get_or_load(&3, fails).is_err());
}

#[test]
fn an_own_life_without_end_is_inherited_and_the_caches_time_to_live_begins_anew() {
    let (cache, time) = timed(|builder| builder.time_to_live(10 * SECOND));
    cache
        .insert_with(1, 1, EntryOptions::new().no_expiry())
        .unwrap();
    cache.insert(2, 1);
    time.advance(9 * SECOND);
    for key in [1, 2] {
        ignore(cache.compute(&key, add_one));
    }
    time.advance(9 * SECOND);
    assert_eq!(cache.get(&2), Some(2), "written nine seconds ago");
    time.advance(100 * SECOND);
    assert_eq!((cache.get(&1), cache.get(&2)), (Some(2), None));
    // What `touch` says is the entry's own, too.
    cache.insert(3, 1);
    assert!(cache.touch(&3, Some(50 * SECOND)));
    ignore(cache.compute(&3, add_one));
    time.advance(49 * SECOND);
    assert_eq!(cache.get(&3), Some(2));
    // A write that says nothing has nothing of its own.
    cache.insert(3, 1);
    time.advance(9 * SECOND);
    ignore(cache.compute(&3, add_one));
    time.advance(9 * SECOND);
    assert_eq!(cache.get(&3), Some(2));
}

/// Runs `call` in a thread while this one writes the key again and again: blind writes, as fast as it goes.
fn beside_a_writer(call: impl FnOnce(&Cache<u64, u64>) + Send) {
    let cache = sized(100);
    cache.insert(1, 0);
    let (done, done_there) = (AtomicBool::new(false), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            done_there.wait();
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                cache.insert(1, n);
            }
        });
        done_there.wait();
        call(&cache);
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(cache.__flights(), (0, 0));
}

#[test]
fn a_closure_beside_a_plain_writer_runs_a_few_times_and_ends() {
    beside_a_writer(|cache| {
        for _ in 0..20 {
            let mut runs = 0;
            let computed = cache.compute(&1, |old| {
                runs += 1;
                // Long enough for the writer to come between.
                let seen = cache.peek(&1);
                while cache.peek(&1) == seen {
                    std::thread::yield_now();
                }
                Compute::Put(old.map_or(0, |n| n + 1_000_000_000))
            });
            assert_eq!(runs, MOST_RUNS);
            assert!(computed.new.is_some());
        }
    });
}

#[test]
fn remove_if_beside_a_plain_writer_ends_and_a_no_is_asked_once() {
    beside_a_writer(|cache| {
        let wait_for_a_write = || {
            let seen = cache.peek(&1);
            while cache.peek(&1) == seen {
                std::thread::yield_now();
            }
        };
        let mut runs = 0;
        let kept = cache.remove_if(&1, |_| {
            runs += 1;
            wait_for_a_write();
            false
        });
        assert_eq!((kept, runs), (None, 1));
        runs = 0;
        let removed = cache.remove_if(&1, |_| {
            runs += 1;
            wait_for_a_write();
            true
        });
        assert!(removed.is_some());
        assert_eq!(runs, MOST_RUNS);
    });
}

/// A long closure beside short ones: it lost to each of them, and now they wait for its turn.
#[test]
fn a_slow_computation_beside_fast_ones_takes_its_turn() {
    let cache = sized(100);
    let (runs, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let fast = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                ignore(cache.compute(&1, add_one));
                fast.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..10 {
            runs.store(0, Ordering::Relaxed);
            ignore(cache.compute(&1, |old| {
                runs.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
                add_one(old)
            }));
            assert!(
                runs.load(Ordering::Relaxed) <= 2,
                "{runs:?} runs beside computations alone"
            );
        }
        done.store(true, Ordering::Relaxed);
    });
    // No update was lost.
    assert_eq!(cache.get(&1), Some(10 + fast.load(Ordering::Relaxed)));
}

#[test]
fn computations_of_many_threads_run_each_closure_twice_at_most() {
    let (threads, each) = (8, 100);
    let (cache, runs) = (sized(100), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..each {
                    ignore(cache.compute(&1, |old| {
                        runs.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_micros(50));
                        add_one(old)
                    }));
                }
            });
        }
    });
    assert_eq!(cache.get(&1), Some(threads * each));
    assert!(
        runs.load(Ordering::Relaxed) <= 2 * threads * each,
        "{runs:?}"
    );
}

/// Has a computation lose its race, so that it has its turn, and runs `meanwhile` beside its second run.
fn during_a_turn(cache: &Cache<u64, u64>, meanwhile: impl FnOnce() + Send) -> (u32, Option<u64>) {
    let (entered, running) = channel();
    let (release, gate) = channel::<()>();
    let mut runs = 0;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            running.recv().expect("it has its turn");
            meanwhile();
            release.send(()).expect("the computation waits");
        });
        let computed = cache.compute(&1, |old| {
            runs += 1;
            match runs {
                1 => ignore(std::thread::scope(|scope| {
                    scope.spawn(|| cache.insert(1, 1)).join()
                })),
                2 => {
                    entered.send(()).expect("the other thread listens");
                    gate.recv().expect("the other thread releases");
                }
                _ => {}
            }
            Compute::Put(old.map_or(0, |n| n + 100))
        });
        (runs, computed.new)
    })
}

#[test]
fn no_blind_write_waits_for_a_turn() {
    let writes: [Call; 5] = [
        |cache| ignore(cache.insert(1, 5)),
        |cache| ignore(cache.remove(&1)),
        |cache| ignore(cache.invalidate(&1)),
        |cache| cache.clear(),
        |cache| ignore(cache.touch(&1, Some(Duration::ZERO))),
    ];
    for write in writes {
        let cache = sized(100);
        // Would it wait, the closure would never be released.
        let (runs, new) = during_a_turn(&cache, || write(&cache));
        assert_eq!(runs, 3);
        assert!(new == Some(105) || new == Some(0));
    }
}

#[test]
fn whatever_changes_a_value_by_what_it_is_waits_for_a_turn() {
    let changes: [(Call, u64); 5] = [
        (|cache| ignore(cache.incr(&1, 1)), 102),
        (|cache| ignore(cache.decr(&1, 1)), 100),
        (|cache| assert_eq!(cache.replace(1, 7), Ok(101)), 7),
        (|cache| ignore(cache.compute(&1, add_one)), 102),
        (
            |cache| assert_eq!(cache.remove_if(&1, |n| *n == 101), Some(101)),
            0,
        ),
    ];
    for (change, left) in changes {
        let cache = sized(100);
        std::thread::scope(|scope| {
            let mut waiting = None;
            let cache = &cache;
            let computed = during_a_turn(cache, || {
                waiting = Some(scope.spawn(move || change(cache)));
                while cache.__waiting() == 0 {
                    std::thread::yield_now();
                }
            });
            assert_eq!(computed, (2, Some(101)), "nobody came between");
            waiting.expect("it was spawned").join().expect("no panic");
        });
        assert_eq!(cache.get(&1).unwrap_or(0), left);
        assert_eq!(cache.__flights(), (0, 0));
    }
}

#[test]
fn an_add_that_would_store_waits_for_a_turn() {
    let (cache, time) = timed(|builder| builder);
    let (entered, running) = channel();
    let mut runs = 0;
    std::thread::scope(|scope| {
        let cache = &cache;
        let adding = scope.spawn(move || {
            running.recv().expect("it has its turn");
            cache.add(1, 5)
        });
        let computed = cache.compute(&1, |old| {
            runs += 1;
            match runs {
                1 => {
                    let options = EntryOptions::new().time_to_live(SECOND);
                    std::thread::scope(|scope| {
                        scope.spawn(|| ignore(cache.insert_with(1, 1, options)));
                    });
                }
                2 => {
                    // What it saw expires, which takes no turn away.
                    time.advance(SECOND);
                    entered.send(()).expect("the other thread listens");
                    while cache.__waiting() == 0 {
                        std::thread::yield_now();
                    }
                }
                _ => assert_eq!(old, None),
            }
            Compute::Put(9)
        });
        assert_eq!((runs, computed.new), (3, Some(9)));
        assert!(!adding.join().expect("no panic").is_stored());
    });
}

#[test]
fn a_closure_that_writes_its_own_key_ends_and_try_compute_says_so() {
    let writes: [(Call, Option<u64>); 5] = [
        (|cache| ignore(cache.insert(1, 5)), Some(5)),
        (|cache| ignore(cache.incr(&1, 1)), Some(12)),
        (|cache| ignore(cache.remove(&1)), None),
        (|cache| ignore(cache.compute(&1, add_one)), Some(12)),
        (|cache| ignore(cache.replace(1, 7)), Some(7)),
    ];
    for (write, left) in writes {
        let (heard, told) = channel();
        let cache = Cache::builder()
            .max_capacity(100)
            .removal_listener(move |_key, value: &u64, cause| {
                let _ = heard.send((*value, cause));
            })
            .build()
            .unwrap();
        cache.insert(1, 10);
        let mut runs = 0;
        let decide = |_: Option<&u64>| {
            runs += 1;
            write(&cache);
            Ok::<_, String>(Compute::Put(1_000))
        };
        assert_eq!(
            cache.try_compute(&1, decide),
            Err(ComputeError::WroteOwnKey)
        );
        assert!(runs <= 2, "{runs} runs");
        assert_eq!(cache.get(&1), left, "what the closure wrote stands");
        let lost = told
            .try_iter()
            .any(|told| told == (1_000, RemovalCause::Replaced));
        assert!(
            lost,
            "the listener hears of the value that it decided to put"
        );
        // Without a way to say so, `compute` does as much.
        let computed = cache.compute(&1, |_| {
            write(&cache);
            Compute::Put(2_000)
        });
        assert_eq!(computed.new, Some(2_000));
        // Where there is nothing, a removal changes nothing.
        let kept = if left.is_none() {
            Some(2_000)
        } else {
            cache.get(&1)
        };
        assert_eq!(cache.get(&1), kept);
        assert!(left.is_none() || kept != Some(2_000));
        assert_eq!(cache.stats().inserts() - removals(&cache), cache.len());
        assert_eq!(cache.__flights(), (0, 0));
    }
}

fn removals(cache: &Cache<u64, u64>) -> u64 {
    let stats = cache.stats();
    stats.explicit() + stats.replaced() + stats.expired() + stats.evicted() + stats.invalidated()
}

#[test]
fn an_error_of_the_closure_comes_back_with_its_cause_and_changes_nothing() {
    let cache = sized(100);
    cache.insert(1, 1);
    let parse = |_: Option<&u64>| "x".parse().map(Compute::Put);
    let error = cache.try_compute(&1, parse).unwrap_err();
    let cause = std::error::Error::source(&error).expect("a cause");
    assert_eq!(cause.to_string(), "invalid digit found in string");
    assert_eq!(error.to_string(), "the closure failed");
    assert_eq!(cache.get(&1), Some(1));
}

#[test]
fn counting_and_touching_are_uses() {
    for policy in [EvictionPolicy::S3Fifo, EvictionPolicy::Lru] {
        let uses: [Call; 4] = [
            |cache| ignore(cache.incr(&0, 1)),
            |cache| ignore(cache.decr(&0, 1)),
            |cache| assert!(cache.touch(&0, None)),
            |cache| ignore(cache.get(&0)),
        ];
        for (n, used) in uses.into_iter().enumerate() {
            let cache: Cache<u64, u64> = Cache::builder()
                .max_capacity(50)
                .shards(1)
                .eviction_policy(policy)
                .build()
                .unwrap();
            cache.insert(0, 0);
            for key in 1..=1_000 {
                used(&cache);
                cache.insert(key, 0);
            }
            assert!(cache.contains_key(&0), "use {n} under {policy:?}");
        }
    }
}

/// The turn of a computation is no load: it needs no permit, and takes none.
#[test]
fn a_turn_counts_against_no_bound_on_loads() {
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(100)
        .max_loads(1)
        .build()
        .unwrap();
    let other = Arc::new(cache.clone());
    let (runs, _) = during_a_turn(&cache, move || {
        assert_eq!(
            other.try_get_or_load(&2, || Ok::<_, String>(2)).ok(),
            Some(2)
        );
    });
    assert_eq!(runs, 2);
}
