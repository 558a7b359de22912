//! Ends: panics on top of panics, caches dropped from inside their own callbacks, iterators that go on
//! after a panic, listeners that never miss anything. What may end the process runs in one of its own.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use larder::{Cache, Compute, ManualClock, RemovalCause};
use parking_lot::Mutex;

use crate::instruments::{Call, Injected};
use crate::rig::{ABSENT, EXPIRED, Rig, Variant, text_of};
use crate::watch::{CALLED_FROM_INSIDE, Rescue, in_child, watched};

/// Whether bombs go off, and how many there are.
#[derive(Default)]
struct Fuse {
    lit: AtomicBool,
    living: AtomicI64,
}

/// Panics when dropped, also while another panic unwinds: a `Drop` that nobody contains then ends the
/// process.
struct Bomb(Arc<Fuse>);

impl Bomb {
    fn new(fuse: &Arc<Fuse>) -> Bomb {
        fuse.living.fetch_add(1, SeqCst);
        Bomb(Arc::clone(fuse))
    }
}

impl Clone for Bomb {
    fn clone(&self) -> Bomb {
        Bomb::new(&self.0)
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.living.fetch_sub(1, SeqCst);
        if self.0.lit.load(SeqCst) {
            panic_any(Injected);
        }
    }
}

#[derive(Clone)]
#[allow(dead_code, reason = "the bomb is there to be dropped")]
struct BombKey(u64, Bomb);

impl PartialEq for BombKey {
    fn eq(&self, other: &BombKey) -> bool {
        self.0 == other.0
    }
}

impl Eq for BombKey {}

impl std::hash::Hash for BombKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// What weighs as much as it says.
type Charge = (u64, Bomb);

struct Minefield {
    fuse: Arc<Fuse>,
    time: ManualClock,
    told: Arc<AtomicU64>,
    cache: Cache<BombKey, Charge>,
}

const MINES: u64 = 8;

impl Minefield {
    fn new() -> Minefield {
        let (time, told) = (ManualClock::new(), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&told);
        let cache = Cache::builder()
            .max_capacity(MINES)
            .time_to_live(Duration::from_secs(9))
            .clock(time.clock())
            .weigher(|_, charge: &Charge| charge.0)
            .removal_listener(move |_, _, _| {
                count.fetch_add(1, SeqCst);
            })
            .build();
        let field = Minefield {
            fuse: Arc::default(),
            time,
            told,
            cache: cache.unwrap(),
        };
        (0..MINES).for_each(|id| drop(field.cache.insert(field.key(id), field.charge(1))));
        field
    }

    fn key(&self, id: u64) -> BombKey {
        BombKey(id, Bomb::new(&self.fuse))
    }

    fn charge(&self, weight: u64) -> Charge {
        (weight, Bomb::new(&self.fuse))
    }

    /// All mines have left, and were told of and dropped, and `left` entries are there.
    fn check(self, left: u64) {
        self.fuse.lit.store(false, SeqCst);
        assert_eq!((self.told.load(SeqCst), self.cache.len()), (MINES, left));
        #[cfg(debug_assertions)]
        self.cache.__validate();
        assert_eq!(self.cache.__flights(), (0, 0));
        let living = self.fuse.living.load(SeqCst);
        assert_eq!(u64::try_from(living), Ok(2 * left), "keys and values");
        drop(self.cache);
        assert_eq!(self.fuse.living.load(SeqCst), 0, "keys and values");
    }
}

#[test]
fn many_drops_that_panic_in_one_eviction_harm_nobody() {
    in_child(
        "ends::many_drops_that_panic_in_one_eviction_harm_nobody",
        || {
            let field = Minefield::new();
            let (key, charge) = (field.key(100), field.charge(MINES));
            field.fuse.lit.store(true, SeqCst);
            assert!(field.cache.insert(key, charge).is_none());
            field.check(1);
        },
    );
}

#[test]
fn many_drops_that_panic_in_one_sweep_harm_nobody() {
    in_child(
        "ends::many_drops_that_panic_in_one_sweep_harm_nobody",
        || {
            let cleared = Minefield::new();
            cleared.fuse.lit.store(true, SeqCst);
            cleared.cache.clear();
            cleared.cache.run_pending(u32::MAX);
            cleared.check(0);
            let expired = Minefield::new();
            expired.fuse.lit.store(true, SeqCst);
            expired.time.advance(Duration::from_secs(10));
            expired.cache.run_pending(u32::MAX);
            expired.check(0);
        },
    );
}

#[test]
fn many_drops_that_panic_with_the_cache_do_not_end_the_process() {
    in_child(
        "ends::many_drops_that_panic_with_the_cache_do_not_end_the_process",
        || {
            let field = Minefield::new();
            field.fuse.lit.store(true, SeqCst);
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(field.cache)));
            // Whether one of the panics gets out is left open.
            drop(dropped);
            assert_eq!(field.fuse.living.load(SeqCst), 0, "keys and values left");
            assert_eq!(field.told.load(SeqCst), 0, "dropping the cache told");
        },
    );
}

#[test]
fn a_loader_that_panics_with_a_key_whose_drop_panics_does_not_end_the_process() {
    in_child(
        "ends::a_loader_that_panics_with_a_key_whose_drop_panics_does_not_end_the_process",
        || {
            let field = Minefield::new();
            let key = field.key(100);
            let loaded = catch_unwind(AssertUnwindSafe(|| {
                field.cache.get_or_load(&key, || {
                    field.fuse.lit.store(true, SeqCst);
                    panic_any(Injected)
                })
            }));
            field.fuse.lit.store(false, SeqCst);
            assert!(loaded.is_err());
            drop((loaded, key));
            assert_eq!(field.cache.__flights(), (0, 0));
            assert_eq!(field.fuse.living.load(SeqCst), 2 * MINES as i64);
        },
    );
}

#[test]
fn a_panic_whose_payload_panics_silences_no_listener() {
    in_child(
        "ends::a_panic_whose_payload_panics_silences_no_listener",
        || {
            let (fuse, told) = (Arc::new(Fuse::default()), Arc::new(AtomicU64::new(0)));
            let (lit, count) = (Arc::clone(&fuse), Arc::clone(&told));
            let listener = move |_: &u64, _: &u64, _| {
                count.fetch_add(1, SeqCst);
                panic_any(Bomb::new(&lit));
            };
            let builder = Cache::builder().max_capacity(10).removal_listener(listener);
            let cache = builder.build().unwrap();
            (0..3).for_each(|id| _ = cache.insert(id, id));
            fuse.lit.store(true, SeqCst);
            for id in 0..3 {
                let removed = catch_unwind(AssertUnwindSafe(|| cache.remove(&id)));
                assert!(removed.is_ok(), "the listener's panic got out");
            }
            assert_eq!(told.load(SeqCst), 3);
        },
    );
}

#[test]
fn a_listener_that_panics_stays_on_and_hears_everything() {
    watched(|_| {
        const REMOVALS: u64 = 100;
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let builder = Cache::builder().max_capacity(10).removal_listener(
            move |&key: &u64, _: &u64, cause| {
                heard.lock().push((key, cause));
                if key % 3 == 0 {
                    panic_any(Injected);
                }
            },
        );
        let cache = builder.build().unwrap();
        for key in 0..REMOVALS {
            cache.insert(key, key);
            assert_eq!(cache.remove(&key), Some(key));
        }
        let all: Vec<_> = (0..REMOVALS)
            .map(|key| (key, RemovalCause::Explicit))
            .collect();
        assert_eq!(*told.lock(), all);
    });
}

#[test]
fn what_a_listener_removes_is_told_after_it_and_once() {
    watched(|_| {
        const CHAIN: u64 = 20;
        let events = Arc::new(Mutex::new(Vec::new()));
        let inside = Arc::new(AtomicU64::new(0));
        let home: Arc<Mutex<Option<Cache<u64, u64>>>> = Arc::default();
        let (heard, depth, door) = (Arc::clone(&events), Arc::clone(&inside), Arc::clone(&home));
        let builder = Cache::builder().max_capacity(100).removal_listener(
            move |&key: &u64, &value: &u64, cause| {
                assert_eq!(
                    depth.fetch_add(1, SeqCst),
                    0,
                    "a listener inside a listener"
                );
                heard.lock().push((key, value, cause));
                let cache = door.lock().clone();
                if let (Some(cache), true) = (cache, key < CHAIN) {
                    // By three ways: handed back, dropped, replaced.
                    cache.remove(&(key + 1));
                    cache.invalidate(&(key + 2));
                    cache.insert(1000, key);
                }
                depth.fetch_sub(1, SeqCst);
            },
        );
        let cache = builder.build().unwrap();
        (0..CHAIN).for_each(|key| _ = cache.insert(key, key));
        *home.lock() = Some(cache.clone());
        assert_eq!(cache.remove(&0), Some(0));
        home.lock().take();
        let mut events = events.lock().clone();
        events.sort_unstable_by_key(|event| (event.0, event.1));
        let removed: Vec<u64> = events
            .iter()
            .map(|event| event.0)
            .filter(|&key| key < CHAIN)
            .collect();
        assert_eq!(removed, (0..CHAIN).collect::<Vec<_>>());
        events.dedup();
        // Each of the writes to 1000 but the last was replaced.
        let replaced = events
            .iter()
            .filter(|event| event.2 == RemovalCause::Replaced)
            .count();
        assert_eq!(replaced as u64, cache.stats().replaced());
        assert_eq!(events.len() as u64, CHAIN + cache.stats().replaced());
    });
}

#[test]
fn a_compute_that_has_queued_may_load_its_key() {
    watched(|_| {
        // Once is enough to queue.
        const LOST_RACES: u32 = 1;
        let rig = Rig::new(Variant::Plain);
        let (mut races, rescue) = (0, Rescue::new());
        let compute = || {
            let done = rig.cache.compute(&rig.key(ABSENT), |_| {
                races += 1;
                if races > LOST_RACES {
                    drop(
                        rig.cache
                            .get_or_load(&rig.key(ABSENT), || rig.world.value()),
                    );
                } else {
                    drop(rig.cache.insert(rig.key(ABSENT), rig.world.value()));
                }
                Compute::Put(rig.world.value())
            });
            assert!(done.new.is_some());
        };
        let ((), rescued) = rescue.over(&rig.time, compute);
        assert!(!rescued, "the closure waited for its own turn");
        assert!(races > LOST_RACES, "it never queued");
        rig.check();
    });
}

#[test]
fn what_a_load_throws_out_on_its_way_may_load_the_same_key() {
    watched(|_| {
        let rescue = Rescue::new();
        for call in [Call::Listener, Call::KeyDrop, Call::ValueDrop] {
            let rig = Rig::new(Variant::Plain);
            let (cache, world, key) = (rig.cache.clone(), rig.world, rig.key(EXPIRED));
            // The load's flight is in the table when its critical section reclaims the expired values.
            world.send(call, 3, move || {
                drop(cache.get_or_load(&world.key(EXPIRED), || world.value()));
            });
            let load = || drop(rig.cache.get_or_load(&key, || world.value()));
            let ((), rescued) = rescue.over(&rig.time, load);
            assert!(world.disarm() > 0, "{call:?} was not called");
            assert!(!rescued, "{call:?} waited for itself");
            drop(key);
            rig.check();
        }
    });
}

#[test]
fn the_last_handle_may_be_dropped_on_the_maintenance_thread() {
    watched(|_| {
        /// Holds the only handle to the cache that it stands in.
        struct Anchor(Mutex<Option<Cache<u64, Arc<Anchor>>>>, Arc<AtomicI64>);
        impl Drop for Anchor {
            fn drop(&mut self) {
                drop(self.0.lock().take());
                self.1.fetch_sub(1, SeqCst);
            }
        }
        let living = Arc::new(AtomicI64::new(0));
        let millisecond = Duration::from_millis(1);
        for _ in 0..20 {
            let cache = Cache::builder()
                .max_capacity(10)
                .time_to_live(20 * millisecond)
                .maintenance(millisecond)
                .build()
                .unwrap();
            for key in 0..4 {
                living.fetch_add(1, SeqCst);
                let anchor = Anchor(Mutex::new(None), Arc::clone(&living));
                cache.insert(key, Arc::new(anchor));
            }
            let anchor = cache.peek(&0);
            if let Some(anchor) = anchor {
                *anchor.0.lock() = Some(cache);
            }
        }
        // They go when their time is up, one and all; the watch ends a wait that never does.
        while living.load(SeqCst) > 0 {
            std::thread::yield_now();
        }
    });
}

#[test]
fn a_thread_may_use_a_cache_while_it_ends() {
    in_child("ends::a_thread_may_use_a_cache_while_it_ends", || {
        struct Last(Cache<u64, u64>);
        impl Drop for Last {
            fn drop(&mut self) {
                self.0.insert(1, 1);
                self.0.insert(1, 2);
                self.0.remove(&1);
                self.0.get_or_load(&2, || 2);
            }
        }
        thread_local! {
            static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
        }
        let told = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&told);
        let builder = Cache::builder()
            .max_capacity(10)
            .removal_listener(move |_, _, _| {
                count.fetch_add(1, SeqCst);
            });
        let cache: Cache<u64, u64> = builder.build().unwrap();
        let handle = cache.clone();
        let thread = std::thread::spawn(move || {
            // Thread-locals end in the reverse order of their first use: the cache's end first.
            LAST.with(|last| *last.borrow_mut() = Some(Last(handle.clone())));
            handle.insert(1, 0);
            handle.get_or_load(&3, || 3);
            handle.remove(&1);
        });
        thread.join().unwrap();
        assert_eq!(told.load(SeqCst), 3);
        assert_eq!(cache.get(&2), Some(2));
    });
}

#[test]
fn an_iterator_goes_on_after_a_panic_and_repeats_nothing() {
    watched(|_| {
        for call in [Call::KeyClone, Call::ValueClone] {
            for n in 1..=12 {
                let rig = Rig::new(Variant::Plain);
                rig.world.arm(call, n);
                let mut seen = Vec::new();
                let mut iter = rig.cache.iter();
                loop {
                    match catch_unwind(AssertUnwindSafe(|| iter.next())) {
                        Ok(Some((key, _))) => seen.push(key.id),
                        Ok(None) => break,
                        Err(payload) => assert!(payload.is::<Injected>()),
                    }
                }
                let all = seen.len();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), all, "{call:?} {n}: seen twice");
                drop(iter);
                rig.check();
            }
        }
    });
}

#[test]
fn eq_and_clone_that_call_the_cache_are_told_off() {
    if !cfg!(debug_assertions) {
        // A release build does not look.
        return;
    }
    type Use = fn(&Rig);
    let uses: [(Call, Use); 3] = [
        (Call::Eq, |rig| {
            drop(rig.cache.insert(rig.key(0), rig.world.value()))
        }),
        (Call::ValueClone, |rig| drop(rig.cache.get(&rig.key(0)))),
        (Call::KeyClone, |rig| drop(rig.cache.iter().next())),
    ];
    watched(move |_| {
        for (call, using) in uses {
            let rig = Rig::new(Variant::Plain);
            let cache = rig.cache.clone();
            rig.world.send(call, 1, move || _ = cache.len());
            let told_off = catch_unwind(AssertUnwindSafe(|| using(&rig)));
            let text = text_of(&*told_off.expect_err("nobody said anything"));
            assert!(text.contains(CALLED_FROM_INSIDE), "{call:?}: {text}");
            rig.world.disarm();
            rig.check();
        }
    });
}
