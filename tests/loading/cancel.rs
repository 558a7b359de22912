//! Cancellation: a future that is dropped, at whatever point, takes nothing with it that others need.

use super::executor::{Executor, Gate, Hand};
use super::{KEY, POLLS, Runs, at_rest, held, numbers, run_out, slow, until_joined, waiting};

#[test]
fn a_leader_dropped_at_each_poll_point_hands_over() {
    for polls in 0..=POLLS {
        let cache = numbers();
        let mut leader = Hand::new(slow(&cache, 1));
        for _ in 0..polls {
            assert!(leader.poll().is_pending());
        }
        let mut first = Hand::pending(slow(&cache, 2));
        let mut second = Hand::pending(slow(&cache, 3));
        drop(leader);
        // Dropped before its first poll, the future never led.
        if polls > 0 {
            assert_eq!((first.wakes(), second.wakes()), (1, 0), "one candidate");
        }
        assert_eq!(run_out(&mut first), 2);
        assert_eq!(second.ready(), 2);
        assert_eq!(cache.stats().inserts(), 1);
        at_rest(&cache);
    }
}

/// A follower dropped at any point changes nothing for the others.
#[test]
fn followers_dropped_at_each_poll_point_are_forgotten() {
    for polls in 0..3 {
        let (cache, gate) = (numbers(), Gate::default());
        let mut leader = held(&cache, &gate, 1);
        let mut gone = Hand::new(slow(&cache, 2));
        for _ in 0..polls {
            assert!(gone.poll().is_pending());
        }
        let mut stays = waiting(&cache, 3);
        drop(gone);
        gate.open();
        assert_eq!((leader.ready(), stays.ready()), (1, 1));
        at_rest(&cache);
    }
}

/// The candidate that was woken goes without having looked: the wake goes on, one by one.
#[test]
fn a_dropped_candidate_passes_the_wake_on() {
    let (cache, gate) = (numbers(), Gate::default());
    let leader = held(&cache, &gate, 1);
    let mut waiters: Vec<_> = (0..5).map(|n| waiting(&cache, 10 + n)).collect();
    drop(leader);
    for _ in 0..4 {
        let wakes: Vec<_> = waiters.iter().map(Hand::wakes).collect();
        assert_eq!(wakes.iter().sum::<usize>(), 1, "{wakes:?}");
        assert_eq!(wakes[0], 1, "in the order of joining");
        drop(waiters.remove(0));
    }
    assert_eq!(waiters[0].wakes(), 1);
    assert_eq!(waiters[0].ready(), 14);
    at_rest(&cache);
}

/// A caller that comes between takes the lead; the candidate that was woken goes on waiting, and is
/// woken again.
#[test]
fn a_candidate_that_was_outrun_is_woken_again() {
    let (cache, gate) = (numbers(), Gate::default());
    let leader = held(&cache, &gate, 1);
    let mut candidate = waiting(&cache, 2);
    drop(leader);
    assert_eq!(candidate.wakes(), 1);
    let mut outrunner = held(&cache, &gate, 3);
    assert!(candidate.poll().is_pending());
    gate.open();
    assert_eq!(outrunner.ready(), 3);
    assert_eq!(candidate.wakes(), 2);
    assert_eq!(candidate.ready(), 3);
    at_rest(&cache);
}

#[test]
fn the_last_waiter_of_a_leaderless_flight_leaves_no_slot() {
    let (cache, gate) = (numbers(), Gate::default());
    let leader = held(&cache, &gate, 1);
    let waiters = [waiting(&cache, 2), waiting(&cache, 3)];
    assert_eq!(cache.__flights(), (1, 1));
    drop(leader);
    assert_eq!(cache.__flights(), (1, 0), "two wait for a leader");
    drop(waiters);
    at_rest(&cache);
    assert_eq!(cache.get_or_load(&KEY, || 4), 4);
}

/// quick_cache's test: polled with one waker and then with another, only the other is called.
#[test]
fn only_the_last_waker_is_called() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = held(&cache, &gate, 1);
    let mut follower = waiting(&cache, 2);
    let former = follower.change_waker();
    assert!(follower.poll().is_pending());
    gate.open();
    assert_eq!(leader.ready(), 1);
    assert_eq!((former.count(), follower.wakes()), (0, 1));
    assert_eq!(follower.ready(), 1);
}

/// Between hand-overs, too.
#[test]
fn a_changed_waker_is_called_at_a_hand_over() {
    let (cache, gate) = (numbers(), Gate::default());
    let leader = held(&cache, &gate, 1);
    let mut follower = waiting(&cache, 2);
    let former = follower.change_waker();
    assert!(follower.poll().is_pending());
    drop(leader);
    assert_eq!((former.count(), follower.wakes()), (0, 1));
    assert_eq!(follower.ready(), 2);
    at_rest(&cache);
}

/// A runtime goes down with leaders and followers in it. A task of another runtime and a thread, which
/// waited for them, load instead; a new runtime can load as well.
#[test]
fn a_runtime_that_is_shut_down_in_the_middle_strands_nobody() {
    let cache = numbers();
    let mut runtime = Executor::new();
    for n in 0..100 {
        let cache = cache.clone();
        runtime.spawn(async move {
            cache.get_or_load_async(&KEY, std::future::pending).await;
            n
        });
    }
    assert_eq!(runtime.run(), 100);
    let mut other = Executor::new();
    let outside = {
        let cache = cache.clone();
        other.spawn(async move { cache.get_or_load_async(&KEY, || async { 2 }).await })
    };
    assert_eq!(other.run(), 1);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| cache.get_or_load(&KEY, || 2));
        until_joined(&cache, 101);
        drop(runtime);
        assert_eq!(thread.join().expect("no panic"), 2);
    });
    other.finish();
    assert_eq!(outside.take(), Some(2));
    at_rest(&cache);
    cache.clear();
    let mut fresh = Executor::new();
    let loaded = {
        let cache = cache.clone();
        fresh.spawn(async move { cache.get_or_load_async(&KEY, || async { 3 }).await })
    };
    assert_eq!(fresh.run(), 0);
    assert_eq!(loaded.take(), Some(3));
}

/// The loader's future goes before the key is handed over: never two at once.
#[test]
fn a_cancelled_loader_has_ended_before_the_next_one_begins() {
    struct Running<'a>(&'a Runs);

    impl Drop for Running<'_> {
        fn drop(&mut self) {
            self.0.next();
        }
    }

    let (cache, ended) = (numbers(), Runs::default());
    let (at, over) = (&cache, &ended);
    let leader = Hand::pending(at.get_or_load_async(&KEY, || async move {
        let _running = Running(over);
        std::future::pending().await
    }));
    let mut follower = Hand::pending(at.get_or_load_async(&KEY, || async move {
        assert_eq!(over.count(), 1, "the other loader is still there");
        2
    }));
    drop(leader);
    assert_eq!(follower.ready(), 2);
    at_rest(&cache);
}
