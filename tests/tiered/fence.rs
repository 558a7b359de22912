//! Every order of the commands of two processes that load and one that invalidates, with the real code on both sides
//! of the tier: nothing older than the last write may be left anywhere, or be read after the write is known.
//!
//! A command waits for its turn; so do the messages about changes, which come to a process in their order. The turns
//! are chosen depth first until none is left untried: all orders in which somebody who could go on is made to wait at
//! most `SWITCHES` times.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use larder::tier::{
    Change, Fence, FlushCause, MemoryServer, MemoryTier, Pledge, Scope, Tier, TierFuture,
    TierListener, Tiered,
};
use larder::{Loaded, ManualClock};
use parking_lot::Mutex;

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    /// A put is made whatever stands there.
    NoFence,
    /// Messages get lost.
    Deaf,
    /// A write's own process is not told of it before the answer.
    NoDetach,
}

/// How often in one run somebody else goes on though the last one could.
const SWITCHES: usize = 3;

thread_local! {
    /// Which task is being polled.
    static TASK: Cell<usize> = const { Cell::new(0) };
}

/// Everything that waits for its turn.
#[derive(Default)]
struct Turns {
    /// Who waits, and the turn.
    waiting: Mutex<Vec<(usize, Arc<AtomicBool>)>>,
    messages: Mutex<Vec<VecDeque<Message>>>,
}

type Message = (Weak<dyn TierListener>, Vec<Change>);

impl Turns {
    fn take(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let turn = Arc::new(AtomicBool::new(false));
        let turns = self.clone();
        let mut enlisted = false;
        poll_fn(move |_| {
            if turn.load(Relaxed) {
                return Poll::Ready(());
            }
            if !enlisted {
                enlisted = true;
                turns.waiting.lock().push((TASK.get(), turn.clone()));
            }
            Poll::Pending
        })
    }
}

/// A process's tier, each of whose commands waits for its turn.
struct Stepped {
    inner: Arc<MemoryTier>,
    turns: Arc<Turns>,
    process: usize,
    bug: Bug,
    ear: Mutex<Option<Arc<Ear>>>,
}

/// Hears of changes at once, and passes them on in their turn; but at once what the process does itself.
struct Ear {
    turns: Arc<Turns>,
    process: usize,
    bug: Bug,
    listener: Weak<dyn TierListener>,
    own: AtomicBool,
}

impl TierListener for Ear {
    fn changed(&self, changes: &[Change]) {
        if self.own.load(Relaxed) {
            if let (Some(listener), true) = (self.listener.upgrade(), self.bug != Bug::NoDetach) {
                listener.changed(changes);
            }
        } else if self.bug != Bug::Deaf {
            let message = (self.listener.clone(), changes.to_vec());
            self.turns.messages.lock()[self.process].push_back(message);
        }
    }

    fn flushed(&self, _: FlushCause) {}

    fn linked(&self, up: bool) {
        if let Some(listener) = self.listener.upgrade() {
            listener.linked(up);
        }
    }
}

impl Stepped {
    fn step<T: Send + 'static>(
        &self,
        command: impl FnOnce(&MemoryTier) -> TierFuture<T> + Send + 'static,
    ) -> TierFuture<T> {
        let (turn, inner) = (self.turns.take(), self.inner.clone());
        let ear = self.ear.lock().clone();
        Box::pin(async move {
            turn.await;
            let own = |own| ear.iter().for_each(|ear| ear.own.store(own, Relaxed));
            own(true);
            let answer = command(&inner);
            own(false);
            answer.await
        })
    }
}

impl Tier for Stepped {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<Vec<Option<Vec<u8>>>> {
        self.step(|tier| tier.get_many(keys))
    }
    fn add(&self, key: Vec<u8>, content: Vec<u8>, time: Duration) -> TierFuture<Pledge> {
        self.step(move |tier| tier.add(key, content, time))
    }
    fn put(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        fence: Fence,
        time: Duration,
    ) -> TierFuture<bool> {
        let bug = self.bug;
        self.step(move |tier| {
            let fence = if bug == Bug::NoFence {
                Fence::None
            } else {
                fence
            };
            tier.put(key, content, fence, time)
        })
    }
    fn remove(&self, key: Vec<u8>, fence: Fence) -> TierFuture<bool> {
        self.step(move |tier| tier.remove(key, fence))
    }
    fn remove_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<u64> {
        self.step(|tier| tier.remove_many(keys))
    }
    fn versions(&self, names: Vec<Box<str>>) -> TierFuture<Vec<Option<u64>>> {
        self.step(|tier| tier.versions(names))
    }
    fn sequence(&self) -> TierFuture<u64> {
        self.step(|tier| tier.sequence())
    }
    fn settle(&self, names: Vec<Box<str>>, born: u64) -> TierFuture<()> {
        self.step(move |tier| tier.settle(names, born))
    }
    fn bump(&self, name: Box<str>) -> TierFuture<u64> {
        self.step(|tier| tier.bump(name))
    }
    fn listen(&self, listener: Weak<dyn TierListener>) {
        let ear = Arc::new(Ear {
            turns: self.turns.clone(),
            process: self.process,
            bug: self.bug,
            listener,
            own: AtomicBool::new(false),
        });
        let heard: Arc<dyn TierListener> = ear.clone();
        *self.ear.lock() = Some(ear);
        self.inner.listen(Arc::downgrade(&heard));
    }
    fn timeout(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
}

/// The turns of one run: what to choose first, and then always the first that there is.
struct Path {
    choices: Vec<(usize, usize)>,
    at: Cell<usize>,
}

impl Path {
    fn choose(&mut self, options: usize) -> usize {
        let at = self.at.get();
        self.at.set(at + 1);
        if at == self.choices.len() {
            self.choices.push((0, options));
        }
        assert_eq!(
            self.choices[at].1, options,
            "the same choices lead to the same place"
        );
        self.choices[at].0
    }

    /// The next path, depth first; `false` if this was the last.
    fn next(&mut self) -> bool {
        self.at.set(0);
        while let Some((choice, options)) = self.choices.pop() {
            if choice + 1 < options {
                self.choices.push((choice + 1, options));
                return true;
            }
        }
        false
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scenario {
    /// Nothing is there; the write invalidates the key.
    Miss,
    /// An older value is there and is loaded again; the write invalidates the key, in the shared tier alone.
    Refresh,
    /// Nothing is there; the write invalidates a tag that the answers bear.
    Tag,
}

struct Run {
    time: ManualClock,
    turns: Arc<Turns>,
    origin: Arc<AtomicU64>,
    nodes: Vec<Tiered<String, u64>>,
}

type Task<'a> = Option<Pin<Box<dyn Future<Output = ()> + 'a>>>;

/// Polls until nobody gets any further without a turn.
fn settle(tasks: &mut [Task<'_>]) {
    let mut context = Context::from_waker(Waker::noop());
    // One task's step can wake another, a few times over.
    for _ in 0..3 {
        for (number, task) in tasks.iter_mut().enumerate() {
            TASK.set(number);
            let done = task
                .as_mut()
                .is_some_and(|task| task.as_mut().poll(&mut context).is_ready());
            if done {
                *task = None;
            }
        }
    }
}

impl Run {
    fn new(scenario: Scenario, bug: Bug) -> Self {
        let time = ManualClock::new();
        let server = MemoryServer::with_clock(time.clock());
        let turns = Arc::new(Turns::default());
        turns.messages.lock().resize_with(2, VecDeque::new);
        let node = |process| {
            let tier = Stepped {
                inner: Arc::new(server.tier()),
                turns: turns.clone(),
                process,
                bug,
                ear: Mutex::new(None),
            };
            Tiered::builder(tier)
                .max_capacity(8)
                .clock(time.clock())
                .own_time_to_live(Duration::from_secs(10))
                .stale_while_revalidate(Duration::from_secs(1_000))
                .build()
                .unwrap()
        };
        let nodes = vec![node(0), node(1)];
        let run = Run {
            time,
            turns,
            origin: Arc::default(),
            nodes,
        };
        // The first value's versions, and a value to be loaded again, with nobody else about.
        for node in &run.nodes {
            let warm = async || {
                node.get_or_load_with_async("warm", || run.load())
                    .await
                    .unwrap();
                if scenario == Scenario::Refresh {
                    node.get_or_load_with_async("k", || run.load())
                        .await
                        .unwrap();
                }
            };
            let mut tasks: [Task<'_>; 1] = [Some(Box::pin(warm()))];
            while tasks[0].is_some() {
                settle(&mut tasks);
                let waiting = std::mem::take(&mut *run.turns.waiting.lock());
                waiting
                    .iter()
                    .for_each(|(_, turn)| turn.store(true, Relaxed));
                run.deliver_all();
            }
        }
        if scenario == Scenario::Refresh {
            run.time.advance(Duration::from_secs(11));
        }
        run
    }

    /// The loader: a turn, then a look at the source.
    fn load(&self) -> impl Future<Output = Result<Loaded<u64>, String>> + use<> {
        let (turn, origin) = (self.turns.take(), self.origin.clone());
        async move {
            turn.await;
            Ok(Loaded::new(origin.load(Relaxed)).tag("t"))
        }
    }

    fn deliver(&self, process: usize) {
        let message = self.turns.messages.lock()[process].pop_front();
        if let Some((listener, changes)) = message {
            listener.upgrade().unwrap().changed(&changes);
        }
    }

    fn deliver_all(&self) {
        for process in 0..2 {
            while !self.turns.messages.lock()[process].is_empty() {
                self.deliver(process);
            }
        }
    }

    /// Gives turns as the path has it, until everybody is done.
    fn go(&self, scenario: Scenario, path: &mut Path) -> Result<(), String> {
        let (known, read_back) = (Cell::new(false), Cell::new(None));
        let write = async {
            self.turns.take().await;
            self.origin.store(1, Relaxed);
            let node = &self.nodes[1];
            match scenario {
                Scenario::Tag => node.invalidate_tag_async("t").await.unwrap(),
                Scenario::Miss => drop(node.invalidate_async("k").await.unwrap()),
                Scenario::Refresh => {
                    let shared = node.within(Scope::Shared);
                    shared.invalidate_async("k").await.unwrap();
                }
            }
            known.set(true);
            // Who reads here from now on reads the new value.
            let read = node.get_or_load_with_async("k", || self.load()).await;
            read_back.set(read.unwrap());
        };
        let load = async |node: usize| {
            let node = &self.nodes[node];
            node.get_or_load_with_async("k", || self.load())
                .await
                .unwrap();
        };
        let mut tasks: [Task<'_>; 3] = [
            Some(Box::pin(write)),
            Some(Box::pin(load(0))),
            Some(Box::pin(load(1))),
        ];
        let (mut last, mut switches) = (usize::MAX, SWITCHES);
        loop {
            settle(&mut tasks);
            if tasks.iter().all(Option::is_none) {
                break;
            }
            // What can go on: a task by its number, a process's next message behind them.
            let mut open: Vec<usize> = self
                .turns
                .waiting
                .lock()
                .iter()
                .map(|turn| turn.0)
                .collect();
            open.extend(
                (0..2)
                    .filter(|&p| !self.turns.messages.lock()[p].is_empty())
                    .map(|p| p + 3),
            );
            assert!(!open.is_empty(), "nobody can go on");
            if known.get() && open.contains(&0) {
                // The writer reads back at once: what is in question is what it finds.
                open.retain(|&who| who == 0);
            } else if let (true, Some(at)) = (
                open.contains(&last),
                open.iter().position(|&who| who == last),
            ) {
                open.swap(0, at);
                if switches == 0 {
                    open.truncate(1);
                }
            }
            let choice = path.choose(open.len());
            switches -= usize::from(choice > 0 && open[0] == last);
            last = open[choice];
            if last < 3 {
                let mut waiting = self.turns.waiting.lock();
                let at = waiting.iter().position(|turn| turn.0 == last).unwrap();
                waiting.remove(at).1.store(true, Relaxed);
            } else {
                self.deliver(last - 3);
            }
        }
        if read_back.get() != Some(1) {
            let read = read_back.get();
            return Err(format!("read by the writer after its write: {read:?}"));
        }
        self.deliver_all();
        self.check()
    }

    /// What is left anywhere once everybody has heard of everything.
    fn check(&self) -> Result<(), String> {
        for (process, node) in self.nodes.iter().enumerate() {
            let mut read = pin!(node.get_async("k"));
            let mut context = Context::from_waker(Waker::noop());
            let found = loop {
                if let Poll::Ready(found) = read.as_mut().poll(&mut context) {
                    break found.unwrap();
                }
                let waiting = std::mem::take(&mut *self.turns.waiting.lock());
                assert!(!waiting.is_empty());
                waiting
                    .iter()
                    .for_each(|(_, turn)| turn.store(true, Relaxed));
            };
            if found.is_some_and(|found| found != 1) {
                return Err(format!(
                    "process {process} has {found:?} after the write of 1"
                ));
            }
        }
        Ok(())
    }
}

/// Runs all orders; how many there were, or the first that went wrong.
fn explore(scenario: Scenario, bug: Bug) -> Result<u64, String> {
    let mut path = Path {
        choices: Vec::new(),
        at: Cell::new(0),
    };
    let mut runs = 0;
    loop {
        runs += 1;
        let run = Run::new(scenario, bug);
        run.go(scenario, &mut path)
            .map_err(|wrong| format!("{wrong}; turns {:?}", path.choices))?;
        if !path.next() {
            return Ok(runs);
        }
    }
}

#[test]
fn a_miss_in_every_order() {
    let runs = explore(Scenario::Miss, Bug::None).unwrap();
    println!("counts: {runs} orders of two loads and an invalidation");
    assert!(runs > 1_000);
}

#[test]
fn a_refresh_in_every_order() {
    let runs = explore(Scenario::Refresh, Bug::None).unwrap();
    println!("counts: {runs} orders of two refreshes and an invalidation");
    assert!(runs > 1_000);
}

#[test]
fn a_tag_in_every_order() {
    let runs = explore(Scenario::Tag, Bug::None).unwrap();
    println!("counts: {runs} orders of two loads and an invalidation of a tag");
    assert!(runs > 1_000);
}

#[test]
fn planted_bugs_are_caught() {
    for (scenario, bug) in [
        (Scenario::Miss, Bug::NoFence),
        (Scenario::Refresh, Bug::NoFence),
        (Scenario::Miss, Bug::Deaf),
        (Scenario::Tag, Bug::Deaf),
        (Scenario::Refresh, Bug::NoDetach),
    ] {
        let found = explore(scenario, bug);
        assert!(found.is_err(), "{scenario:?} {bug:?}");
    }
}
