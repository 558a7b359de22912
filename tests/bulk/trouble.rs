//! What a reviewer tried: callers that take over, user code that loads in turn, drops that panic.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Instant;

use larder::{Cache, LoadError, TryLoadError};

use crate::executor::{Gate, Hand};
use crate::{Numbers, SECOND, at_rest, held, numbers, tenfold};

/// Two calls that each take over what the other waits for: neither waits while it leads. (Both hung until the load
/// deadline once.)
#[test]
fn two_that_take_over_do_not_wait_for_each_other() {
    let cache = numbers();
    let (never, open) = (Gate::default(), Gate::default());
    let single = |key: u64| {
        let (cache, never) = (&cache, &never);
        let load = move || async move {
            never.opened().await;
            key
        };
        Hand::pending(async move { cache.get_or_load_async(&key, load).await })
    };
    let (one, two) = (single(1), single(2));
    open.open();
    let mut b = held(&cache, &open, &[2, 1], 10);
    let mut a = held(&cache, &open, &[1, 2], 10);
    assert!(b.poll().is_pending() && a.poll().is_pending());
    drop((one, two));
    // The first that is polled takes over what it can and gets on with it; no order brings both to a stop.
    let mut answers = [None, None];
    for _ in 0..3 {
        for (hand, answer) in [&mut b, &mut a].into_iter().zip(&mut answers) {
            if answer.is_none() {
                if let Poll::Ready(values) = hand.poll() {
                    *answer = Some(values.unwrap());
                }
            }
        }
    }
    let [b, a] = answers;
    assert_eq!(b.unwrap(), [Some(20), Some(10)]);
    assert_eq!(a.unwrap(), [Some(10), Some(20)]);
    at_rest(&cache);
}

/// What the user's functions load in turn, while a call still leads some of its keys.
#[test]
fn a_weigher_that_loads_another_of_the_keys_does_not_wait_for_its_own_call() {
    static CACHE: OnceLock<Numbers> = OnceLock::new();
    let builder = Cache::builder().max_capacity(100).weigher(|key, _| {
        if let (1, Some(cache)) = (*key, CACHE.get()) {
            assert_eq!(cache.get_or_load(&2, || 99), 99, "by itself");
        }
        1
    });
    let cache = CACHE.get_or_init(|| builder.build().unwrap());
    let begun = Instant::now();
    let values = cache.get_many_or_load([&1, &2], tenfold);
    assert_eq!(values.unwrap(), [Some(10), Some(20)]);
    assert!(begun.elapsed() < 10 * SECOND, "it waited for itself");
    at_rest(cache);
}

#[test]
fn an_async_loader_that_loads_before_its_future_does_not_wait_for_its_own_call() {
    let cache = numbers();
    let begun = Instant::now();
    let load = |missing: Vec<u64>| {
        let inner = cache.get_or_load(&1, || 5);
        async move { Ok::<_, String>(missing.iter().map(|n| Some(n * inner)).collect()) }
    };
    let values = pollster::block_on(cache.get_many_or_load_async([&1, &2], load));
    assert_eq!(values.unwrap(), [Some(5), Some(10)]);
    assert!(begun.elapsed() < 10 * SECOND, "it waited for itself");
    at_rest(&cache);
}

/// A key or a value whose `Drop` panics, once it is told to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bad(u64);

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

impl Drop for Bad {
    fn drop(&mut self) {
        assert!(!ARMED.get(), "it may");
    }
}

#[test]
fn drops_that_panic_end_neither_the_process_nor_the_call() {
    let keys = [Bad(1), Bad(2)];
    let cache: Cache<Bad, u64> = Cache::builder().max_capacity(100).build().unwrap();
    let values = cache.get_many_or_load(&keys, |_| {
        ARMED.set(true);
        Ok::<_, String>(vec![Some(1), Some(2)])
    });
    ARMED.set(false);
    assert_eq!(values.unwrap(), [Some(1), Some(2)]);
    let cache: Cache<Bad, u64> = Cache::builder().max_capacity(100).build().unwrap();
    let died = catch_unwind(AssertUnwindSafe(|| {
        cache.get_many_or_load(&keys, |_| -> Result<Vec<Option<u64>>, String> {
            ARMED.set(true);
            panic!("the loader")
        })
    }));
    ARMED.set(false);
    assert!(died.is_err());
    assert_eq!(cache.__flights(), (0, 0));
    let cache: Cache<u64, Bad> = Cache::builder().max_capacity(100).build().unwrap();
    let wrong = cache.get_many_or_load([&1], |_| {
        ARMED.set(true);
        Ok::<_, String>(vec![Some(Bad(1)), Some(Bad(2))])
    });
    ARMED.set(false);
    assert!(matches!(
        wrong,
        Err(TryLoadError::Shared(LoadError::WrongCount { .. }))
    ));
}
