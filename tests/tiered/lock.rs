//! The lock: one holder at a time, numbers that grow with the holders, and holders that were stopped for too long.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use larder::ManualClock;
use larder::tier::{LockManager, MemoryServer};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn of_many_processes_one_holds_it_at_a_time_and_their_numbers_grow() {
    let server = MemoryServer::new();
    let (inside, last, turns) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let locks = LockManager::new(server.tier());
                for _ in 0..50 {
                    let held = locks.lock("k", MINUTE, MINUTE).unwrap().unwrap();
                    assert_eq!(inside.fetch_add(1, SeqCst), 0, "two hold it");
                    let number = held.fencing_number();
                    assert!(last.swap(number, SeqCst) < number);
                    turns.fetch_add(1, SeqCst);
                    inside.fetch_sub(1, SeqCst);
                    assert!(held.unlock().unwrap());
                }
            });
        }
    });
    assert_eq!(turns.into_inner(), 200);
}

#[test]
fn a_holder_that_was_stopped_for_too_long_takes_nothing_from_the_next() {
    let time = ManualClock::new();
    let server = MemoryServer::with_clock(time.clock());
    let locks = || LockManager::with_clock(server.tier(), time.clock());
    let (here, there) = (locks(), locks());
    let mut stopped = here.try_lock("k", MINUTE).unwrap().unwrap();
    assert!(there.try_lock("k", MINUTE).unwrap().is_none());
    time.advance(MINUTE);
    assert!(stopped.remaining().is_zero(), "it knows by itself");
    let next = there.try_lock("k", MINUTE).unwrap().unwrap();
    // What the work is written to: a number below one that was seen is refused.
    let seen = AtomicU64::new(0);
    let write = |number| seen.fetch_max(number, SeqCst) <= number;
    assert!(write(next.fencing_number()));
    assert!(
        !write(stopped.fencing_number()),
        "the stopped one's write is refused"
    );
    assert!(!stopped.extend(MINUTE).unwrap());
    drop(stopped);
    assert!(
        here.try_lock("k", MINUTE).unwrap().is_none(),
        "the next one's stands"
    );
    assert!(next.unlock().unwrap());
}

#[test]
fn it_ends_with_its_holder() {
    let server = MemoryServer::new();
    let (here, there) = (
        LockManager::new(server.tier()),
        LockManager::new(server.tier()),
    );
    let held = here.try_lock("k", MINUTE).unwrap().unwrap();
    assert!(here.try_lock("other", MINUTE).unwrap().is_some(), "by name");
    std::thread::scope(|threads| {
        // Whoever waits is woken by the message.
        let waiting = threads.spawn(|| there.lock("k", MINUTE, MINUTE).unwrap().is_some());
        let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = held;
            std::panic::resume_unwind(Box::new("the work failed"));
        }));
        assert!(gone.is_err());
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn it_lasts_longer_if_its_holder_says_so_in_time() {
    let time = ManualClock::new();
    let server = MemoryServer::with_clock(time.clock());
    let locks = LockManager::with_clock(server.tier(), time.clock());
    let mut held = locks.try_lock("k", MINUTE).unwrap().unwrap();
    for _ in 0..5 {
        time.advance(MINUTE / 2);
        assert!(held.extend(MINUTE).unwrap());
        assert_eq!(held.remaining(), MINUTE);
    }
    time.advance(MINUTE);
    assert!(!held.extend(MINUTE).unwrap());
    assert!(held.remaining().is_zero());
    assert!(!held.unlock().unwrap());
    // Nobody waits for what does not come in time.
    let _other = locks.try_lock("k", MINUTE).unwrap().unwrap();
    assert!(locks.lock("k", MINUTE, Duration::ZERO).unwrap().is_none());
}
