//! Cancellation at every step: the right to load is never lost with the future that held it, and a
//! wake is never lost with the follower it was meant for.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use shuttle::rand::Rng;
use shuttle::thread;

use super::{World, explore, pending_times};

/// A waker that only remembers that it was called.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Flag {
    fn woken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A load whose loader is pending three times.
async fn slow(world: &World) -> u64 {
    let loader = || async {
        pending_times(3).await;
        world.read()
    };
    world.cache.get_or_load_async(&super::KEY, loader).await
}

/// Polls a future up to `times`, letting others run in between, and drops it.
fn poll_and_drop(future: impl Future<Output = u64>, times: u32) {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..times {
        if future.as_mut().poll(&mut context).is_ready() {
            return;
        }
        thread::yield_now();
    }
}

/// Three futures are dropped, each at any of its poll points, leading, following or just woken; two
/// tasks stay. If a wake were lost, they would never end.
#[test]
fn callers_are_dropped_at_each_poll_point() {
    explore(|| {
        let world = World::new();
        let dropped: Vec<_> = (0..3)
            .map(|_| {
                let world = world.clone();
                let times = shuttle::rand::thread_rng().gen_range(0..=4);
                thread::spawn(move || poll_and_drop(slow(&world), times))
            })
            .collect();
        let stay: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                shuttle::future::spawn(async move { slow(&world).await })
            })
            .collect();
        for task in stay {
            assert_eq!(shuttle::future::block_on(task).expect("not cancelled"), 1);
        }
        for thread in dropped {
            thread.join().expect("no panic");
        }
        world.finish();
    });
}

/// The leader goes, and so does the follower that it woke, without having been polled. The next must
/// be woken.
#[test]
fn a_dropped_candidate_passes_the_wake_on() {
    explore(|| {
        let world = World::new();
        let mut leader: Pin<Box<dyn Future<Output = u64>>> = Box::pin(slow(&world));
        let mut context = Context::from_waker(Waker::noop());
        assert!(leader.as_mut().poll(&mut context).is_pending());
        let candidate = {
            let world = world.clone();
            thread::spawn(move || poll_and_drop(slow(&world), 1))
        };
        let next = {
            let world = world.clone();
            shuttle::future::spawn(async move { slow(&world).await })
        };
        drop(leader);
        candidate.join().expect("no panic");
        assert_eq!(shuttle::future::block_on(next).expect("not cancelled"), 1);
        world.finish();
    });
}

/// All who wait go, in any order with the leader: nothing is left behind.
#[test]
fn a_deserted_flight_leaves_no_slot() {
    explore(|| {
        let world = World::new();
        let threads: Vec<_> = (0..3)
            .map(|times| {
                let world = world.clone();
                thread::spawn(move || poll_and_drop(slow(&world), times + 1))
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
        world.finish();
    });
}

/// A follower moves to another waker while the leader finishes: the last waker it was polled with is
/// the one that is called.
#[test]
fn the_last_waker_is_the_one_that_is_woken() {
    explore(|| {
        let world = World::new();
        let leader = {
            let world = world.clone();
            thread::spawn(move || world.load())
        };
        let flags = [(); 3].map(|()| std::sync::Arc::new(Flag::default()));
        let mut follower = pin!(slow(&world));
        let mut last = None;
        for flag in &flags {
            let waker = Waker::from(std::sync::Arc::clone(flag));
            last = Some(follower.as_mut().poll(&mut Context::from_waker(&waker)));
            if matches!(last, Some(Poll::Ready(_))) {
                break;
            }
            thread::yield_now();
        }
        if matches!(last, Some(Poll::Pending)) && world.loads() == 0 {
            // It may be the leader itself; only then does it not depend on being woken.
            while follower
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
            {
                thread::yield_now();
            }
            leader.join().expect("no panic");
        } else {
            leader.join().expect("no panic");
            if matches!(last, Some(Poll::Pending)) {
                assert!(flags[2].woken(), "the current waker was not called");
                let done = follower
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()));
                assert_eq!(done, Poll::Ready(1));
            }
        }
        world.finish();
    });
}

/// An invalidation or a write finds a flight without a leader: its followers are told.
#[test]
fn revocation_against_abandonment() {
    explore(|| {
        let world = World::new();
        let leader = {
            let world = world.clone();
            thread::spawn(move || poll_and_drop(slow(&world), 1))
        };
        let follower = {
            let world = world.clone();
            shuttle::future::spawn(async move { slow(&world).await })
        };
        let writer = {
            let world = world.clone();
            thread::spawn(move || match shuttle::rand::thread_rng().gen_range(0..3) {
                0 => {
                    let _ = world.cache.insert(super::KEY, 9);
                }
                1 => {
                    let _ = world.cache.remove(&super::KEY);
                }
                _ => world.cache.clear(),
            })
        };
        leader.join().expect("no panic");
        let got = shuttle::future::block_on(follower).expect("not cancelled");
        assert!(matches!(got, 1 | 9));
        writer.join().expect("no panic");
        world.finish();
    });
}
