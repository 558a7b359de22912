//! Flights of tasks: leaders that panic, are cancelled, overtaken or revoked while others wait, with a
//! panic in every callback in turn. Tasks are polled by hand, and only when they were woken, so that a
//! wake that was lost shows as a task that waits for ever.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::instruments::{Call, Injected, Tap, Value, World};
use crate::rig::{ABSENT, EXPIRED, Rig, Variant, complaint, text_of};
use crate::watch::{collect_failures, watched};

/// Longer than any deadline of a load or a wait.
const TOO_LONG: Duration = Duration::from_secs(31);

/// Holds a loader up.
#[derive(Default)]
struct Gate {
    entered: AtomicBool,
    open: AtomicBool,
}

struct Task<'a> {
    /// `None` once it has ended, well or not.
    future: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    gate: Arc<Gate>,
    tap: &'static Tap,
}

/// Tasks that load one key.
struct Crew<'a> {
    rig: &'a Rig,
    key: u64,
    tasks: Vec<Task<'a>>,
    taps: Vec<&'static Tap>,
    /// Panics that reached a task, and were not injected.
    wrong: Option<String>,
}

impl<'a> Crew<'a> {
    /// The first task leads, the others follow.
    fn new(rig: &'a Rig, key: u64, tasks: usize) -> Crew<'a> {
        let mut crew = Crew {
            rig,
            key,
            tasks: Vec::new(),
            taps: Vec::new(),
            wrong: None,
        };
        (0..tasks).for_each(|_| crew.join());
        crew
    }

    /// One more task, polled once.
    fn join(&mut self) {
        let (rig, key, gate) = (self.rig, self.key, Arc::new(Gate::default()));
        let held = Arc::clone(&gate);
        self.tasks.push(Task {
            future: Some(Box::pin(async move {
                let key = rig.key(key);
                let load = || held_up(rig.world, held);
                // Not returned: a value that is being returned leaks if the key's `Drop` panics
                // (rust-lang/rust#47949).
                drop(rig.cache.get_or_load_async(&key, load).await);
            })),
            gate,
            tap: Tap::new(rig.world),
        });
        self.taps.push(self.tasks[self.tasks.len() - 1].tap);
        self.poll(self.tasks.len() - 1);
    }

    fn poll(&mut self, task: usize) {
        let task = &mut self.tasks[task];
        let Some(mut future) = task.future.take() else {
            return;
        };
        task.tap.woken.store(false, SeqCst);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let waker = task.tap.waker();
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(()) => {}
                Poll::Pending => task.future = Some(future),
            }
        }));
        self.note(polled);
    }

    /// Polls with a waker that the task has not had before.
    fn poll_anew(&mut self, task: usize) {
        let tap = Tap::new(self.rig.world);
        self.taps.push(tap);
        self.tasks[task].tap = tap;
        self.poll(task);
    }

    fn cancel(&mut self, task: usize) {
        let future = self.tasks[task].future.take();
        let dropped = catch_unwind(AssertUnwindSafe(move || drop(future)));
        self.note(dropped);
    }

    fn note(&mut self, result: std::thread::Result<()>) {
        if let Err(payload) = result {
            if !payload.is::<Injected>() {
                self.wrong = Some(text_of(&*payload));
            }
        }
    }

    fn act(&mut self, act: impl FnOnce(&Rig)) {
        let rig = self.rig;
        let acted = catch_unwind(AssertUnwindSafe(|| act(rig)));
        self.note(acted);
    }

    /// Opens all gates, and polls whoever was woken until nobody is.
    fn finish(mut self) {
        self.tasks
            .iter()
            .for_each(|task| task.gate.open.store(true, SeqCst));
        while let Some(next) = self.tasks.iter().position(|task| {
            let runs = task.gate.entered.load(SeqCst) || task.tap.woken.load(SeqCst);
            runs && task.future.is_some()
        }) {
            self.poll(next);
        }
        let asleep = self
            .tasks
            .iter()
            .filter(|task| task.future.is_some())
            .count();
        (0..self.tasks.len()).for_each(|task| self.cancel(task));
        // A callback that panicked may be the very wake: nobody can be woken by a waker that panics
        // before it wakes. These wake first.
        assert_eq!(asleep, 0, "tasks that nobody wakes");
        assert_eq!(self.wrong, None);
        let wakers: i64 = self.taps.iter().map(|tap| tap.living()).sum();
        assert_eq!(wakers, 0, "wakers left");
    }
}

/// A loader that pends until its gate is open.
fn held_up(world: &'static World, gate: Arc<Gate>) -> impl Future<Output = Value> {
    world.hook(Call::Loader);
    let mut polled = false;
    std::future::poll_fn(move |_| {
        gate.entered.store(true, SeqCst);
        if !gate.open.load(SeqCst) {
            return Poll::Pending;
        }
        if !std::mem::replace(&mut polled, true) {
            world.hook(Call::Poll);
        }
        Poll::Ready(world.value())
    })
}

type Scene = (&'static str, fn(&mut Crew<'_>));

const SCENES: &[Scene] = &[
    ("the leader finishes", |_| ()),
    ("the leader is cancelled", |crew| crew.cancel(0)),
    (
        "the leader is cancelled, and a follower that was not woken is polled",
        |crew| {
            crew.cancel(0);
            crew.poll(2);
        },
    ),
    ("the same with a new waker", |crew| {
        crew.cancel(0);
        crew.poll_anew(2);
    }),
    (
        "the leader and whoever was woken in turn are cancelled",
        |crew| {
            (0..3).for_each(|task| crew.cancel(task));
        },
    ),
    ("everybody is cancelled", |crew| {
        (0..4).for_each(|task| crew.cancel(task))
    }),
    ("everybody is cancelled, the leader last", |crew| {
        (0..4).rev().for_each(|task| crew.cancel(task));
    }),
    ("a follower overtakes the leader", |crew| {
        crew.rig.time.advance(TOO_LONG);
        crew.poll(2);
    }),
    ("a newcomer overtakes the leader", |crew| {
        crew.rig.time.advance(TOO_LONG);
        crew.join();
        (0..4).for_each(|task| crew.poll(task));
    }),
    ("a newcomer takes the cancelled leader's place", |crew| {
        crew.cancel(0);
        crew.join();
    }),
    ("every follower changes its waker", |crew| {
        (1..4).for_each(|task| crew.poll_anew(task));
        (1..4).for_each(|task| crew.poll(task));
    }),
    ("a write comes between", |crew| {
        let key = crew.key;
        crew.act(|rig| drop(rig.cache.insert(rig.key(key), rig.world.value())));
    }),
    (
        "an invalidation comes between, and the leader is cancelled",
        |crew| {
            let key = crew.key;
            crew.act(|rig| drop(rig.cache.remove(&rig.key(key))));
            crew.join();
            crew.cancel(0);
        },
    ),
    ("retain revokes everything", |crew| {
        crew.act(|rig| _ = rig.cache.retain(|_, _| true));
        crew.join();
    }),
    ("all is cleared", |crew| {
        crew.act(|rig| rig.cache.clear());
        crew.join();
    }),
];

const MOST_CALLS: i64 = 16;

/// Plays a scene with a panic at the n-th call, and returns whether there was such a call.
fn play(scene: Scene, key: u64, call: Call, n: i64) -> (bool, Option<String>) {
    let rig = Rig::new(Variant::Policy);
    rig.world.arm(call, n);
    let wrong = complaint(|| {
        let mut crew = Crew::new(&rig, key, 4);
        (scene.1)(&mut crew);
        crew.finish();
    });
    let fired = rig.world.disarm() > 0;
    // The books come first: what is wrong there is nearer to the cause.
    let wrong = complaint(|| rig.check()).or(wrong);
    (fired, wrong)
}

#[test]
fn every_callback_may_panic_while_tasks_wait_for_each_other() {
    watched(|place| {
        collect_failures(true);
        let (mut pairs, mut panics, mut complaints) = (0, 0, Vec::new());
        for &scene in SCENES {
            for call in Call::ALL {
                for (n, key) in (1..=MOST_CALLS).flat_map(|n| [(n, ABSENT), (n, EXPIRED)]) {
                    let at = format!("{}, {call:?} {n} of {key}", scene.0);
                    place.lock().clone_from(&at);
                    let (fired, wrong) = play(scene, key, call, n);
                    complaints.extend(wrong.map(|wrong| format!("{at}: {wrong}")));
                    pairs += u64::from(fired && n == 1);
                    panics += u64::from(fired);
                    if !fired && key == EXPIRED {
                        break;
                    }
                }
            }
        }
        collect_failures(false);
        println!("tasks: {pairs} pairs of scene and callback, {panics} injections");
        let count = complaints.len();
        assert!(count == 0, "{count} complaints:\n{}", complaints.join("\n"));
    });
}

#[test]
fn a_panic_of_the_loader_reaches_its_caller_and_the_next_takes_over() {
    const PANICS: usize = 3;
    const WAITING: usize = 8;
    watched(|_| {
        let rig = Rig::new(Variant::Plain);
        let loads = std::sync::atomic::AtomicUsize::new(0);
        let (rig_at, loads_at) = (&rig, &loads);
        let load = move || {
            let load = loads_at.fetch_add(1, SeqCst);
            // The first waits until all others do.
            while load == 0 && rig_at.cache.stats().joined() < WAITING as u64 {
                std::thread::yield_now();
            }
            if load < PANICS {
                panic_any(Injected);
            }
            rig_at.world.value()
        };
        let answers: Vec<_> = std::thread::scope(|scope| {
            let call = || {
                catch_unwind(AssertUnwindSafe(|| {
                    rig_at.cache.get_or_load(&rig_at.key(ABSENT), load).id
                }))
            };
            let threads: Vec<_> = (0..=WAITING).map(|_| scope.spawn(call)).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().unwrap();
            threads.into_iter().map(join).collect()
        });
        let panicked = answers.iter().filter(|answer| answer.is_err()).count();
        let mut values: Vec<u64> = answers.into_iter().flatten().collect();
        values.dedup();
        assert_eq!((panicked, values.len()), (PANICS, 1));
        assert_eq!(loads.load(SeqCst), PANICS + 1);
        rig.check();
    });
}
