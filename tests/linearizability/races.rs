//! Races that are set up instead of waited for, judged by the same checker. Each promise that a planted
//! bug breaks has one here that breaks every time.

use std::sync::Barrier;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use larder::Compute;

use crate::SMALL;
use crate::caller::{Caller, Rig};
use crate::history::{History, Life, NAMESPACED};
use crate::mix::Shape;
use crate::rules::judge;

const ROOMY: Shape = Shape {
    name: "races",
    capacity: 4000,
    shards: 1,
    ttl: None,
    ..SMALL
};

/// The longest that a set-up waits for its other side. Nothing waits so long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is loaded carries the tag that `Way::Tag` moves.
const RED: Life = Life::tagged(1);

fn finish(rig: &Rig, mut history: History) {
    history.events.extend(rig.recorder.take_lines());
    if let Err(why) = judge(&history) {
        panic!("{why}");
    }
    #[cfg(debug_assertions)]
    rig.root.__validate();
}

/// Promise 2, H3: of threads that `add` the same absent key at once, one wins.
#[test]
fn of_racing_adds_exactly_one_wins() {
    const THREADS: usize = 4;
    const KEYS: u32 = 500;
    let rig = ROOMY.rig();
    let start = Barrier::new(THREADS);
    let mut history = History::default();
    let mut wins = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS as u64)
            .map(|thread| {
                let (rig, start) = (&rig, &start);
                scope.spawn(move || {
                    let mut caller = Caller::new(rig, thread);
                    let mut wins = 0;
                    for key in 0..KEYS {
                        start.wait();
                        wins += u32::from(caller.add(key, Life::PLAIN));
                    }
                    (caller.history, wins)
                })
            })
            .collect();
        for thread in threads {
            let (own, won) = thread.join().expect("an adding thread panicked");
            history.absorb(own);
            wins += won;
        }
    });
    finish(&rig, history);
    assert_eq!(wins, KEYS, "one winner for each absence");
}

/// What comes between a loader's look at the database and its answer.
#[derive(Clone, Copy, Debug)]
enum Way {
    Insert,
    Add,
    Put,
    Remove,
    Invalidate,
    Refuse,
    Clear,
    ClearNamespace,
    Tag,
}

const WAYS: [Way; 9] = [
    Way::Insert,
    Way::Add,
    Way::Put,
    Way::Remove,
    Way::Invalidate,
    Way::Refuse,
    Way::Clear,
    Way::ClearNamespace,
    Way::Tag,
];

fn revoke(caller: &mut Caller, key: u32, way: Way) {
    match way {
        Way::Insert => drop(caller.insert(key, Life::PLAIN)),
        Way::Add => assert!(
            caller.add(key, Life::PLAIN),
            "a load in flight is an absence"
        ),
        Way::Put => caller.compute(key, Compute::Put(())),
        Way::Remove => drop(caller.remove(key)),
        Way::Invalidate => drop(caller.invalidate(key)),
        Way::Refuse => caller.refuse(key),
        Way::Clear => caller.clear(),
        Way::ClearNamespace => caller.clear_namespace(),
        Way::Tag => caller.invalidate_tag(0),
    }
}

/// A loader that says when it has read the database, and answers when it is told to.
fn gate() -> (impl FnOnce() + Send, Receiver<()>, Sender<()>) {
    let (reading, has_read) = channel();
    let (answer, told) = channel();
    let within = move || {
        // Should the test be over already, there is nobody to hear of it.
        let _ = reading.send(());
        let _ = told.recv_timeout(PATIENCE);
    };
    (within, has_read, answer)
}

/// Waits until `joined` calls have joined a flight or `ran` says that it needs no waiting for.
fn until_joined(rig: &Rig, joined: u64, ran: &Receiver<()>) {
    for _ in 0..1_000_000 {
        if rig.root.stats().joined() >= joined || ran.try_recv().is_ok() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("a caller neither waits nor loads");
}

/// One load with a revocation in its midst. A caller that had joined before may be given its value;
/// with `late`, so asks one that comes after it.
fn overtake(way: Way, key: u32, late: bool) {
    let rig = ROOMY.rig();
    let mut hand = Caller::new(&rig, 1);
    let mut callers = [2, 3, 4].map(|thread| Caller::new(&rig, thread));
    let [leader, early, later] = &mut callers;
    let (within, has_read, answer) = gate();
    std::thread::scope(|scope| {
        scope.spawn(|| leader.load(key, RED, within));
        has_read.recv_timeout(PATIENCE).expect("the loader runs");
        scope.spawn(|| early.load(key, RED, || ()));
        let (_, nobody) = channel();
        until_joined(&rig, 1, &nobody);
        revoke(&mut hand, key, way);
        // What is there right after it, before and after the load ends.
        hand.get(key);
        if late {
            let (runs, ran) = channel();
            scope.spawn(move || {
                later.load(key, RED, || runs.send(()).unwrap_or(()));
            });
            // A written value is found: then this caller neither waits nor loads.
            if !rig.handle(key).contains_key(&key) {
                until_joined(&rig, 2, &ran);
            }
        }
        answer.send(()).expect("the loader waits to be told");
    });
    hand.get(key);
    hand.load(key, RED, || ());
    let mut history = hand.history;
    for caller in callers {
        history.absorb(caller.history);
    }
    finish(&rig, history);
}

/// Promise 4, H7, H8, H10: what was loaded before a revocation is served to nobody who came after it.
#[test]
fn nothing_loaded_before_a_revocation_is_served_after_it() {
    for way in WAYS {
        for late in [false, true] {
            for _ in 0..5 {
                overtake(way, NAMESPACED, late);
                if !matches!(way, Way::ClearNamespace) {
                    overtake(way, 0, late);
                }
            }
        }
    }
}

/// Promise 3, H9: callers that miss together share one loader.
#[test]
fn of_callers_that_miss_together_one_loads() {
    const WAITERS: u64 = 3;
    for round in 0..50 {
        let rig = ROOMY.rig();
        let mut leader = Caller::new(&rig, 1);
        let mut waiters: Vec<_> = (0..WAITERS).map(|n| Caller::new(&rig, 2 + n)).collect();
        let (within, has_read, answer) = gate();
        std::thread::scope(|scope| {
            scope.spawn(|| leader.load(round, RED, within));
            has_read.recv_timeout(PATIENCE).expect("the loader runs");
            for waiter in &mut waiters {
                scope.spawn(|| waiter.load(round, RED, || ()));
            }
            let (_, nobody) = channel();
            until_joined(&rig, WAITERS, &nobody);
            answer.send(()).expect("the loader waits to be told");
        });
        let mut history = leader.history;
        for waiter in waiters {
            history.absorb(waiter.history);
        }
        assert_eq!(history.loads.len(), 1, "loaders that ran");
        finish(&rig, history);
    }
}
