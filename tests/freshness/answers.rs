//! What a loader may answer beside its value: windows and a weight of its own.

use larder::{Cache, EntryOptions, Freshness, Loaded, RemovalCause};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::executor::Gate;
use crate::{KEY, MILLI, Numbers, SECOND, at_rest, held, served, timed};

fn answer(cache: &Numbers, key: u64, answer: Loaded<u64>) -> u64 {
    cache
        .get_or_load_with(&key, || Ok::<_, Infallible>(answer))
        .unwrap()
}

#[test]
fn an_answers_windows_are_its_own() {
    // Also in a cache that has none.
    let (cache, time) = timed(0.0, |builder| builder);
    answer(
        &cache,
        KEY,
        Loaded::new(1).stale_while_revalidate(5 * SECOND),
    );
    answer(&cache, KEY + 1, Loaded::new(2));
    time.advance(2 * SECOND);
    let by = SECOND;
    assert_eq!(
        cache.get_with_freshness(&KEY),
        Some((1, Freshness::Stale { by }))
    );
    assert_eq!(cache.get_with_freshness(&(KEY + 1)), None);
    let gate = Gate::default();
    let mut elected = held(&cache, &gate, 3);
    assert_eq!(served(&cache), 1);
    gate.open();
    assert_eq!(elected.ready(), 3);
    // The new value said nothing of it.
    time.advance(SECOND);
    assert_eq!(cache.get_with_freshness(&KEY), None);
    at_rest(&cache);
}

#[test]
fn an_answer_can_do_without_the_caches_windows() {
    let (cache, time) = timed(0.0, |builder| builder.stale_if_error(9 * SECOND, SECOND));
    answer(&cache, KEY, Loaded::new(1).stale_if_error(Duration::ZERO));
    answer(&cache, KEY + 1, Loaded::new(2));
    time.advance(SECOND);
    let fail = |key: u64| cache.try_get_or_load(&key, || Err::<u64, _>("down")).ok();
    assert_eq!((fail(KEY), fail(KEY + 1)), (None, Some(2)));
}

#[test]
fn a_window_of_its_own_answers_errors_until_it_is_over() {
    let (cache, time) = timed(0.0, |builder| builder);
    let options = || EntryOptions::new().stale_if_error(3 * SECOND);
    cache.insert_with(KEY, 1, options()).unwrap();
    let fail = || cache.try_get_or_load(&KEY, || Err::<u64, _>("down")).ok();
    time.advance(SECOND);
    assert_eq!(fail(), Some(1));
    time.advance(3 * SECOND - MILLI);
    assert_eq!(fail(), Some(1));
    time.advance(MILLI);
    assert_eq!(fail(), None);
    assert_eq!(cache.stats().stale_on_error(), 2);
}

#[test]
fn an_entry_leaves_when_its_own_window_is_over() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let (cache, time) = timed(0.0, move |builder| {
        builder.removal_listener(move |key: &u64, _: &u64, cause| {
            heard.lock().unwrap().push((*key, cause));
        })
    });
    let long = EntryOptions::new().stale_if_error(5 * SECOND);
    cache.insert_with(1, 1, long).unwrap();
    cache.insert(2, 2);
    let expired = |keys: &[u64]| {
        cache.run_pending(1_000);
        #[cfg(debug_assertions)]
        cache.__validate();
        let keys: Vec<_> = keys
            .iter()
            .map(|key| (*key, RemovalCause::Expired))
            .collect();
        assert_eq!(*told.lock().unwrap(), keys);
    };
    time.advance(2 * SECOND);
    expired(&[2]);
    // Its slot is another's now, who says nothing of a window.
    cache.insert(3, 3);
    time.advance(2 * SECOND);
    expired(&[2, 3]);
    time.advance(3 * SECOND);
    expired(&[2, 3, 1]);
}

/// An entry of a shorter window in the slot of one with a longer one, and the other way round.
#[test]
fn a_slot_forgets_the_window_of_its_last_entry() {
    let (cache, time) = timed(0.0, |builder| builder);
    let with = |seconds: u32| EntryOptions::new().stale_if_error(seconds * SECOND);
    for (first, second) in [(9, 0), (0, 9), (9, 3)] {
        cache.insert_with(KEY, 1, with(first)).unwrap();
        cache.insert_with(KEY, 2, with(second)).unwrap();
        time.advance(SECOND);
        let stale = cache.get_with_freshness(&KEY).is_some();
        assert_eq!(stale, second > 0, "{first} {second}");
        #[cfg(debug_assertions)]
        cache.__validate();
        time.advance(second * SECOND);
        assert_eq!(cache.get_with_freshness(&KEY), None);
        cache.run_pending(1_000);
        assert!(cache.is_empty());
    }
}

#[test]
fn an_answers_weight_counts_instead_of_the_weighers() {
    let cache: Numbers = Cache::builder()
        .max_capacity(100)
        .weigher(|key: &u64, _: &u64| {
            assert_ne!(*key, KEY, "it was told");
            10
        })
        .build()
        .unwrap();
    answer(&cache, KEY, Loaded::new(1).weight(30));
    answer(&cache, KEY + 1, Loaded::new(2));
    assert_eq!(cache.weight(), 40);
    let heavy = EntryOptions::new().weight(101);
    assert!(cache.insert_with(KEY, 3, heavy).is_err());
    assert_eq!((cache.get(&KEY), cache.weight()), (None, 10));
    // Without a weigher an entry is an entry.
    let (cache, _) = timed(0.0, |builder| builder);
    answer(&cache, KEY, Loaded::new(1).weight(1_000));
    assert_eq!((cache.weight(), cache.len()), (1, 1));
}
