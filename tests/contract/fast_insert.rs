//! A full cache: a new key takes the place of a victim by a way of its own, which must differ from the long one in
//! nothing but its cost.

use std::collections::HashMap;
use std::sync::mpsc::channel;

use larder::{Cache, EntryOptions, ManualClock, RemovalCause};
use parking_lot::Mutex;

use crate::{MILLI, SECOND, ignore, sized, timed};

const FULL: u64 = 200;

/// Full of the keys below `FULL`, in one shard.
fn full() -> Cache<u64, u64> {
    let cache = sized(FULL);
    (0..FULL).for_each(|n| ignore(cache.insert(n, n)));
    assert_eq!(cache.len(), FULL);
    cache
}

#[test]
fn each_new_key_displaces_one_entry_and_each_is_told_once() {
    let told = std::sync::Arc::new(Mutex::new(Vec::new()));
    let heard = std::sync::Arc::clone(&told);
    let cache = Cache::builder()
        .max_capacity(FULL)
        .removal_listener(move |&key: &u64, &value: &u64, cause| {
            assert_eq!(larder::__lock_depth(), 0);
            heard.lock().push((key, value, cause));
        })
        .build()
        .unwrap();
    for key in 0..FULL * 10 {
        assert_eq!(cache.insert(key, key * 2), None);
        assert_eq!(cache.len(), FULL.min(key + 1));
        assert_eq!(cache.peek(&key), Some(key * 2));
    }
    let mut told = std::mem::take(&mut *told.lock());
    assert_eq!(told.len() as u64, FULL * 9);
    assert!(told.iter().all(|&(key, value, cause)| {
        value == key * 2 && cause == RemovalCause::Size && !cache.contains_key(&key)
    }));
    told.sort_unstable_by_key(|gone| gone.0);
    told.dedup_by_key(|gone| gone.0);
    assert_eq!(told.len() as u64, FULL * 9, "one was told twice");
    let stats = cache.stats();
    assert_eq!((stats.inserts(), stats.evicted()), (FULL * 10, FULL * 9));
    assert_eq!(stats.evicted_weight(), FULL * 9);
}

#[test]
fn a_listener_finds_counted_what_it_is_told() {
    let handle: std::sync::Arc<Mutex<Option<Cache<u64, u64>>>> = Default::default();
    let inside = std::sync::Arc::clone(&handle);
    let told = std::sync::Arc::new(Mutex::new(Vec::new()));
    let counts = std::sync::Arc::clone(&told);
    let cache = Cache::builder()
        .max_capacity(10)
        .removal_listener(move |_: &u64, _: &u64, _| {
            let evicted = inside.lock().as_ref().map(|cache| cache.stats().evicted());
            counts.lock().push(evicted);
        })
        .build()
        .unwrap();
    *handle.lock() = Some(cache.clone());
    (0..13).for_each(|n| ignore(cache.insert(n, n)));
    assert_eq!(*told.lock(), [Some(1), Some(2), Some(3)]);
    handle.lock().take();
}

#[test]
fn what_is_served_is_what_was_written_last() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) % n
    };
    let (cache, time) = timed(|builder| builder.max_capacity(FULL).time_to_live(SECOND));
    let mut last: HashMap<u64, (u64, u64)> = HashMap::new();
    let mut now = 0;
    for step in 0..60_000_u64 {
        let key = next(FULL * 2);
        match next(100) {
            0..=59 => {
                let before = cache.insert(key, step);
                let known = last.insert(key, (step, now + 1_000));
                if let Some(before) = before {
                    let (value, deadline) = known.expect("what was cleared is gone");
                    assert!(before == value && now < deadline, "{key} at {now}");
                }
            }
            60..=93 => {
                if let Some(value) = cache.get(&key) {
                    let (known, deadline) = last[&key];
                    assert!(value == known && now < deadline, "{key} at {now}");
                }
            }
            94..=95 => ignore(
                cache
                    .remove(&key)
                    .map(|value| assert_eq!(value, last[&key].0)),
            ),
            96 => {
                // Without a tag: after the first of those, a shard has something beside its slots for good.
                let options = EntryOptions::new().time_to_live(20 * MILLI);
                assert!(cache.insert_with(key, step, options).is_ok());
                last.insert(key, (step, now + 20));
            }
            97 => {
                assert!(
                    cache
                        .insert_with(key, step, EntryOptions::new().no_expiry())
                        .is_ok()
                );
                last.insert(key, (step, u64::MAX));
            }
            98 if next(20) == 0 => {
                cache.clear();
                assert_eq!(cache.len(), 0);
                last.clear();
            }
            _ => {
                let millis = next(30);
                now += millis;
                time.advance(millis as u32 * MILLI);
            }
        }
        assert!(cache.len() <= FULL);
        #[cfg(debug_assertions)]
        if step % 61 == 0 {
            cache.__validate();
        }
    }
    let stats = cache.stats();
    assert!(
        stats.evicted() > 5_000 && stats.expired() > 100,
        "{stats:?}"
    );
}

#[test]
fn a_value_with_a_deadline_in_the_place_of_one_without_is_reclaimed_on_time() {
    let time = ManualClock::new();
    let cache = Cache::builder()
        .max_capacity(FULL)
        .clock(time.clock())
        .time_to_live(SECOND)
        .build()
        .unwrap();
    for n in 0..FULL {
        assert!(
            cache
                .insert_with(n, n, EntryOptions::new().no_expiry())
                .is_ok()
        );
    }
    let long = EntryOptions::new().time_to_live(3_600 * SECOND);
    for n in FULL..FULL * 2 {
        assert!(cache.insert_with(n, n, long.clone()).is_ok());
    }
    (FULL * 2..FULL * 4).for_each(|n| ignore(cache.insert(n, n)));
    time.advance(2 * SECOND);
    cache.run_pending(u32::MAX);
    assert_eq!(cache.stats().expired(), FULL);
    assert!(cache.is_empty());
}

#[test]
fn a_new_key_revokes_its_load_in_a_full_cache_too() {
    let cache = full();
    let key = 5_000;
    let (entered, running) = channel();
    let (release, gate) = channel::<()>();
    std::thread::scope(|scope| {
        let cache = &cache;
        let loading = scope.spawn(move || {
            cache.get_or_load(&key, || {
                entered.send(()).unwrap();
                gate.recv().unwrap();
                1
            })
        });
        running.recv().unwrap();
        assert_eq!(cache.insert(key, 2), None);
        release.send(()).unwrap();
        loading.join().unwrap();
    });
    assert_eq!(
        cache.get(&key),
        Some(2),
        "what was loaded was stored over what was written"
    );
    assert_eq!(cache.len(), FULL);
}

#[test]
fn a_cleared_cache_takes_new_keys_without_evicting_any() {
    let cache = full();
    cache.clear();
    (0..FULL).for_each(|n| ignore(cache.insert(10_000 + n, n)));
    assert_eq!(cache.len(), FULL);
    assert!((0..FULL).all(|n| cache.peek(&(10_000 + n)) == Some(n)));
    assert_eq!(cache.stats().evicted(), 0);
}
