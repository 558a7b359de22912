//! Takeover at the load deadline, against the leader that comes back late.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

use super::{KEY, World, explore, pending_times};

const SECOND: Duration = Duration::from_secs(1);

/// The leader finishes while its time runs out and two others wait. Whoever took over last publishes;
/// the one that was overtaken never does.
#[test]
fn an_overtaken_leader_cannot_publish() {
    explore(|| {
        let world = World::with(|builder| builder.load_deadline(SECOND));
        let overtakers = Arc::new(AtomicU64::new(0));
        let late = world.clone();
        let mut leader: Pin<Box<dyn Future<Output = u64> + Send>> = Box::pin(async move {
            let loader = || async {
                pending_times(1).await;
                1
            };
            late.cache.get_or_load_async(&KEY, loader).await
        });
        let mut context = Context::from_waker(Waker::noop());
        assert!(leader.as_mut().poll(&mut context).is_pending());
        let leader = thread::spawn(move || shuttle::future::block_on(leader));
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let (world, overtakers) = (world.clone(), Arc::clone(&overtakers));
                thread::spawn(move || {
                    world.cache.get_or_load(&KEY, || {
                        overtakers.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        2
                    })
                })
            })
            .collect();
        world.pass(SECOND);
        assert_eq!(leader.join().expect("no panic"), 1, "its own value");
        let got: Vec<_> = waiting
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect();
        let overtakers = overtakers.load(Ordering::SeqCst);
        assert!(overtakers <= 1, "the second has its own time");
        let expected = if overtakers == 0 { 1 } else { 2 };
        assert_eq!(got, [expected; 2]);
        assert_eq!(world.cache.get(&KEY), Some(expected));
        assert_eq!(world.cache.stats().inserts(), 1);
        world.finish();
    });
}

/// The key is invalidated during a takeover: three loaders may run, and none publishes a value of the past.
#[test]
fn takeover_against_invalidation() {
    explore(|| {
        let world = World::with(|builder| builder.load_deadline(SECOND));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || world.load())
            })
            .collect();
        world.pass(SECOND);
        world.change();
        world.cache.invalidate(&KEY);
        world.pass(SECOND);
        assert_eq!(world.load(), 2);
        for caller in callers {
            caller.join().expect("no panic");
        }
        assert_eq!(world.cache.get(&KEY), Some(2));
        world.finish();
    });
}
