//! Every order of the commands of two processes that load and one that invalidates, with the real code on both sides
//! of the tier: nothing older than the last write may be left anywhere, or be read after the write is known.
//!
//! A command waits for its turn; so do the messages about changes, which come to a process in their order. The turns
//! are chosen depth first until none is left untried: all orders in which somebody who could go on is made to wait at
//! most `SWITCHES` times.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use larder::tier::{MemoryServer, Scope, Tiered};
use larder::{Loaded, ManualClock};
use parking_lot::Mutex;

use crate::stepped::{Bug, Stepped, TASK, Turns};

/// How often in one run somebody else goes on though the last one could.
const SWITCHES: usize = 3;

/// The turns of one run: what to choose first, and then always the first that there is.
pub(crate) struct Path {
    choices: Vec<(usize, usize)>,
    at: Cell<usize>,
}

impl Path {
    pub(crate) fn new() -> Self {
        Path {
            choices: Vec::new(),
            at: Cell::new(0),
        }
    }

    pub(crate) fn choose(&mut self, options: usize) -> usize {
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
    pub(crate) fn next(&mut self) -> bool {
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

/// Who goes on next: whoever went on last, unless a switch is spent on somebody else.
pub(crate) struct Order {
    last: usize,
    switches: usize,
}

impl Order {
    pub(crate) fn new() -> Self {
        Order {
            last: usize::MAX,
            switches: SWITCHES,
        }
    }

    pub(crate) fn choose(&mut self, mut open: Vec<usize>, path: &mut Path) -> usize {
        let last = open.iter().position(|&who| who == self.last);
        if let Some(at) = last {
            open.swap(0, at);
            if self.switches == 0 {
                open.truncate(1);
            }
        }
        let choice = path.choose(open.len());
        self.switches -= usize::from(choice > 0 && last.is_some());
        self.last = open[choice];
        self.last
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
fn poll_all(tasks: &mut [Task<'_>]) {
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
                .time_to_live(Duration::from_secs(10))
                .stale_if_error(Duration::from_secs(1_000), Duration::from_millis(1))
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
                poll_all(&mut tasks);
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
                    let shared = node.with_scope(Scope::Shared);
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
        let mut order = Order::new();
        loop {
            poll_all(&mut tasks);
            if tasks.iter().all(Option::is_none) {
                break;
            }
            // The writer reads back at once: what is in question is what it finds.
            let open = self.open(known.get());
            let next = order.choose(open, path);
            if next < 3 {
                let mut waiting = self.turns.waiting.lock();
                let at = waiting.iter().position(|turn| turn.0 == next).unwrap();
                waiting.remove(at).1.store(true, Relaxed);
            } else {
                self.deliver(next - 3);
            }
        }
        if read_back.get() != Some(1) {
            let read = read_back.get();
            return Err(format!("read by the writer after its write: {read:?}"));
        }
        self.deliver_all();
        self.check()
    }

    /// What can go on: a task by its number, a process's next message behind them. The writer alone, if it can and is
    /// to go `first`.
    fn open(&self, first: bool) -> Vec<usize> {
        let waiting = self.turns.waiting.lock();
        let mut open: Vec<usize> = waiting.iter().map(|turn| turn.0).collect();
        let messages = self.turns.messages.lock();
        let told = (0..2).filter(|&process| !messages[process].is_empty());
        open.extend(told.map(|process| process + 3));
        assert!(!open.is_empty(), "nobody can go on");
        if first && open.contains(&0) {
            return vec![0];
        }
        open
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
    let mut path = Path::new();
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
