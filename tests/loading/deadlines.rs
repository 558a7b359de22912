//! Every wait is finite: takeover at the load deadline, an error at the wait deadline.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::task::{Poll, Waker};
use std::time::Duration;

use larder::{LoadError, TryLoadError};

use super::executor::{Gate, Hand};
use super::{KEY, Numbers, SECOND, Time, at_rest, held, timed, until_joined, waiting};

const NANO: Duration = Duration::from_nanos(1);

fn with_load_deadline() -> (Numbers, Time) {
    timed(|builder| builder.load_deadline(SECOND))
}

/// The leader is never polled again. Nobody is told: who asks next takes over.
#[test]
fn the_next_caller_takes_over_from_a_leader_past_its_deadline() {
    let ((cache, time), gate) = (with_load_deadline(), Gate::default());
    let mut leader = held(&cache, &gate, 1);
    time.pass(SECOND - NANO);
    let mut early = waiting(&cache, 2);
    time.pass(NANO);
    assert_eq!(cache.get_or_load(&KEY, || 3), 3);
    assert_eq!(early.wakes(), 1);
    assert_eq!(early.ready(), 3, "the flight is the same");
    gate.open();
    assert_eq!(leader.ready(), 1, "its own value");
    assert_eq!(cache.get(&KEY), Some(3), "and nobody else's");
    let stats = cache.stats();
    assert_eq!((stats.inserts(), stats.unpublished()), (1, 1));
    at_rest(&cache);
}

/// The overtaken leader comes back while the one that overtook it still loads.
#[test]
fn an_overtaken_leader_ends_nothing() {
    let ((cache, time), gates) = (with_load_deadline(), [Gate::default(), Gate::default()]);
    let mut leader = held(&cache, &gates[0], 1);
    time.pass(SECOND);
    let mut overtaker = held(&cache, &gates[1], 2);
    let mut follower = waiting(&cache, 3);
    gates[0].open();
    assert_eq!(leader.ready(), 1);
    assert_eq!(cache.get(&KEY), None);
    assert!(follower.poll().is_pending(), "it waits for the new leader");
    gates[1].open();
    assert_eq!((overtaker.ready(), follower.ready()), (2, 2));
    assert_eq!(cache.get(&KEY), Some(2));
    at_rest(&cache);
}

/// Dropped, failed or given up, an overtaken leader takes nothing from the new one.
#[test]
fn an_overtaken_leader_that_goes_takes_nothing_with_it() {
    let ((cache, time), gates) = (with_load_deadline(), [Gate::default(), Gate::default()]);
    let dropped = held(&cache, &gates[0], 1);
    time.pass(SECOND);
    let gate = &gates[0];
    let mut failing = Hand::pending(cache.try_get_or_load_async(&KEY, || async move {
        gate.opened().await;
        Err("late")
    }));
    time.pass(SECOND);
    let mut overtaker = held(&cache, &gates[1], 2);
    let mut follower = waiting(&cache, 3);
    drop(dropped);
    gates[0].open();
    assert!(matches!(failing.ready(), Err(TryLoadError::Own("late"))));
    assert!(follower.poll().is_pending());
    gates[1].open();
    assert_eq!((overtaker.ready(), follower.ready()), (2, 2));
    assert_eq!(cache.get(&KEY), Some(2));
    at_rest(&cache);
}

#[test]
fn a_waiting_thread_takes_over_by_itself() {
    let ((cache, time), gate) = (with_load_deadline(), Gate::default());
    let leader = held(&cache, &gate, 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| cache.get_or_load(&KEY, || 2)))
            .collect();
        until_joined(&cache, 4);
        time.pass(SECOND);
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), 2);
        }
    });
    assert_eq!(cache.stats().inserts(), 1);
    drop(leader);
    assert_eq!(cache.get(&KEY), Some(2));
    at_rest(&cache);
}

/// Without a timer a task sees the deadline when anything polls it.
#[test]
fn a_task_without_a_timer_takes_over_when_it_is_polled() {
    let ((cache, time), gate) = (with_load_deadline(), Gate::default());
    let leader = held(&cache, &gate, 1);
    let mut follower = waiting(&cache, 2);
    time.pass(SECOND);
    assert_eq!(follower.wakes(), 0, "nobody tells it");
    assert_eq!(follower.ready(), 2);
    drop(leader);
    at_rest(&cache);
}

/// With one, it is woken by its own sleep, and takes over.
#[test]
fn a_task_with_a_timer_takes_over_by_itself() {
    let (sleepers, sleeping) = channel::<Waker>();
    let (rung, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let (bell, longest) = (Arc::clone(&rung), Arc::clone(&asked));
    let (cache, time) = timed(|builder| {
        builder.load_deadline(SECOND).timer(move |sleep| {
            longest.fetch_max(sleep.as_nanos() as u64, Ordering::SeqCst);
            let (bell, sleepers) = (Arc::clone(&bell), sleepers.clone());
            poll_fn(move |context| {
                if bell.load(Ordering::SeqCst) {
                    return Poll::Ready(());
                }
                // The test holds the other end.
                let _ = sleepers.send(context.waker().clone());
                Poll::Pending
            })
        })
    });
    let gate = Gate::default();
    let leader = held(&cache, &gate, 1);
    let mut follower = waiting(&cache, 2);
    let asked = Duration::from_nanos(asked.load(Ordering::SeqCst));
    assert!((SECOND..2 * SECOND).contains(&asked), "slept {asked:?}");
    time.pass(asked);
    rung.store(true, Ordering::SeqCst);
    sleeping.try_iter().for_each(Waker::wake);
    assert!(follower.wakes() > 0);
    assert_eq!(follower.ready(), 2);
    drop(leader);
    assert_eq!(cache.get(&KEY), Some(2));
    at_rest(&cache);
}

#[track_caller]
fn assert_timed_out(result: Result<u64, TryLoadError<String>>, after: Duration) {
    match result {
        Err(TryLoadError::Shared(LoadError::WaitTimedOut { waited })) => assert_eq!(waited, after),
        other => panic!("expected a time-out, got {other:?}"),
    }
}

/// The wait deadline is an error for the forms that have errors; the others wait on.
#[test]
fn a_fallible_wait_ends_with_a_typed_error() {
    let (cache, time) = timed(|builder| builder.wait_deadline(SECOND));
    let gate = Gate::default();
    let mut leader = held(&cache, &gate, 1);
    let mut patient = waiting(&cache, 2);
    let mut task = Hand::pending(cache.try_get_or_load_async(&KEY, || async { Ok(3) }));
    time.pass(SECOND - NANO);
    assert!(task.poll().is_pending());
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| cache.try_get_or_load(&KEY, || Ok(4)));
        until_joined(&cache, 3);
        time.pass(NANO);
        assert_timed_out(task.ready(), SECOND);
        // The thread joined a nanosecond before; from there its own second counts.
        time.pass(SECOND - NANO);
        assert_timed_out(thread.join().expect("no panic"), SECOND);
    });
    assert!(patient.poll().is_pending());
    gate.open();
    assert_eq!((leader.ready(), patient.ready()), (1, 1));
    assert_eq!(cache.stats().loads(), 1);
    at_rest(&cache);
}

/// The flight was revoked and its leader hangs: who had joined looks again after the load deadline.
#[test]
fn followers_of_a_hung_detached_leader_load_again() {
    let ((cache, time), gate) = (with_load_deadline(), Gate::default());
    let mut leader = held(&cache, &gate, 1);
    let mut follower = waiting(&cache, 2);
    cache.invalidate(&KEY);
    assert!(follower.poll().is_pending());
    time.pass(SECOND);
    assert_eq!(follower.ready(), 2);
    gate.open();
    assert_eq!(leader.ready(), 1);
    assert_eq!(cache.get(&KEY), Some(2));
    at_rest(&cache);
}

/// A loader that hangs holds nobody up who wants another key, or this one after an invalidation.
#[test]
fn a_hung_loader_blocks_its_own_flight_only() {
    let ((cache, _time), gate) = (with_load_deadline(), Gate::default());
    let leader = held(&cache, &gate, 1);
    assert_eq!(cache.get_or_load(&(KEY + 1), || 5), 5);
    assert_eq!(cache.get(&KEY), None);
    cache.invalidate(&KEY);
    assert_eq!(cache.get_or_load(&KEY, || 2), 2);
    drop(leader);
    assert_eq!(cache.get(&KEY), Some(2));
    at_rest(&cache);
}

/// Taking over needs no permit of its own, and gives back none too many.
#[test]
fn a_takeover_is_not_refused_by_the_bound_on_loads() {
    let (cache, time) = timed(|builder| builder.load_deadline(SECOND).max_loads(1));
    let gate = Gate::default();
    let leader = held(&cache, &gate, 1);
    let mut follower = waiting(&cache, 2);
    time.pass(SECOND);
    assert_eq!(follower.ready(), 2);
    assert_eq!(cache.__flights(), (0, 1), "the overtaken one still runs");
    drop(leader);
    at_rest(&cache);
}
