//! A run: callers at work, faults by chance, then health.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use larder::tier::{Scope, Tiered};
use larder::{EntryOptions, Loaded};

use crate::faults::{Dice, Fault};
use crate::network::{Bug, Network};
use crate::oracle::{KEYS, LONGEST_LOAD, MILLI, Oracle, name, tag, value};
use crate::process::{Desk, HEARTBEAT, Process, Sleep, TIMEOUT};

/// For how long there are faults.
const TROUBLE: u64 = 1_200 * MILLI;
/// How long everybody may take to recover, in a time that costs nothing.
const RECOVERY: u64 = 20_000 * MILLI;

pub(crate) struct Outcome {
    pub(crate) wrong: Option<String>,
    pub(crate) met: BTreeMap<Fault, u64>,
    pub(crate) reads: u64,
    /// Those to which the bound applied without allowance.
    pub(crate) strict: u64,
    pub(crate) writes: u64,
}

type Call = Pin<Box<dyn Future<Output = ()>>>;

/// What a call needs.
#[derive(Clone)]
struct Caller {
    number: usize,
    cache: Tiered<String, u64>,
    desk: Arc<Desk>,
    oracle: Rc<RefCell<Oracle>>,
    /// The network's time, which no process knows.
    time: Rc<RefCell<u64>>,
    takes: Duration,
    bug: Bug,
}

impl Caller {
    fn load(&self, key: usize) -> impl Future<Output = Result<Loaded<u64>, String>> + use<> {
        let (oracle, sleep) = (self.oracle.clone(), Sleep::on(&self.desk, self.takes));
        async move {
            // The source is read at once; what was read is under way for a while.
            let version = oracle.borrow().source[key];
            sleep.await;
            Ok(Loaded::new(value(key, version)).tag(tag(key)))
        }
    }

    async fn read(self, key: usize) {
        let floor = self
            .oracle
            .borrow_mut()
            .floor(self.number, key, *self.time.borrow());
        let load = || self.load(key);
        if let Ok(Some(read)) = self.cache.get_or_load_with_async(&*name(key), load).await {
            self.oracle.borrow_mut().read(self.number, key, floor, read);
        }
    }

    async fn look(self, key: usize) {
        let floor = self
            .oracle
            .borrow_mut()
            .floor(self.number, key, *self.time.borrow());
        if let Ok(Some(read)) = self.cache.get_async(&*name(key)).await {
            self.oracle.borrow_mut().read(self.number, key, floor, read);
        }
    }

    async fn read_many(self) {
        let now = *self.time.borrow();
        let names: Vec<String> = (0..KEYS).map(name).collect();
        let floors: Vec<_> = (0..KEYS)
            .map(|key| self.oracle.borrow_mut().floor(self.number, key, now))
            .collect();
        let load = |missing: Vec<String>| {
            let oracle = self.oracle.borrow();
            let key = |name: &String| name[1..].parse::<usize>().unwrap();
            let values = missing
                .iter()
                .map(key)
                .map(|key| Some(Loaded::new(value(key, oracle.source[key])).tag(tag(key))));
            let (values, sleep) = (
                values.collect::<Vec<_>>(),
                Sleep::on(&self.desk, self.takes),
            );
            async move {
                sleep.await;
                Ok::<_, String>(values)
            }
        };
        let asked = names.iter().map(|name| &**name);
        let Ok(found) = self.cache.get_many_or_load_with_async(asked, load).await else {
            return;
        };
        for (key, (read, floor)) in found.into_iter().zip(floors).enumerate() {
            if let Some(read) = read {
                self.oracle.borrow_mut().read(self.number, key, floor, read);
            }
        }
    }

    /// Changes keys at the source, and then has them invalidated.
    async fn write(self, keys: Vec<usize>, how: How) {
        let writing = Writing::begin(&self.oracle, &keys);
        let versions = writing.versions.clone();
        let cache = &self.cache;
        let done = match how {
            How::Key => cache.invalidate_async(&*name(keys[0])).await.is_ok(),
            How::Shared => {
                let shared = cache.with_scope(Scope::Shared);
                shared.invalidate_async(&*name(keys[0])).await.is_ok()
            }
            How::Tag => cache.invalidate_tag_async(tag(keys[0])).await.is_ok(),
            How::Everything => cache.clear_async().await.is_ok(),
            How::Add => {
                let value = value(keys[0], versions[0]);
                let tagged = EntryOptions::new().tag(tag(keys[0]));
                let added = cache.add_with_async(name(keys[0]), value, tagged).await;
                added.is_ok_and(|added| added)
                    || cache.invalidate_async(&*name(keys[0])).await.is_ok()
            }
            How::Insert => {
                let value = value(keys[0], versions[0]);
                let tagged = EntryOptions::new().tag(tag(keys[0]));
                let stored = cache.insert_with_async(name(keys[0]), value, tagged.clone());
                let stored = stored.await.is_ok();
                if self.bug == Bug::FilledFromOwnWrite {
                    Sleep::on(&self.desk, Duration::from_millis(30)).await;
                    let here = cache.with_scope(Scope::Local);
                    let _ = here.insert_with_async(name(keys[0]), value, tagged).await;
                }
                stored
            }
        };
        if done {
            for (key, version) in keys.iter().zip(versions) {
                self.oracle
                    .borrow_mut()
                    .answered(self.number, *key, version);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum How {
    Key,
    Shared,
    Tag,
    Everything,
    Insert,
    /// By `add`; by its key if somebody was faster.
    Add,
}

/// One write a key at a time; over when this is dropped.
struct Writing {
    oracle: Rc<RefCell<Oracle>>,
    keys: Vec<usize>,
    versions: Vec<u64>,
}

impl Writing {
    fn begin(oracle: &Rc<RefCell<Oracle>>, keys: &[usize]) -> Self {
        let mut state = oracle.borrow_mut();
        let mut write = |key: &usize| {
            state.is_written[*key] = true;
            state.write(*key)
        };
        Writing {
            oracle: oracle.clone(),
            keys: keys.to_vec(),
            versions: keys.iter().map(&mut write).collect(),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut oracle = self.oracle.borrow_mut();
        self.keys
            .iter()
            .for_each(|key| oracle.is_written[*key] = false);
    }
}

struct Run {
    network: Network,
    calls: Vec<Call>,
    oracle: Rc<RefCell<Oracle>>,
    time: Rc<RefCell<u64>>,
    /// How likely writes are, one in so many calls.
    writes: u64,
    /// The most milliseconds from one fault to the next.
    calm: u64,
}

pub(crate) fn run(seed: u64, bug: Bug) -> Outcome {
    let mut dice = Dice::new(seed);
    let bound = u64::try_from((HEARTBEAT + TIMEOUT).as_nanos()).unwrap();
    let processes = 1 + dice.draw(4) as usize;
    let oracle = Rc::new(RefCell::new(Oracle::new(processes, bound)));
    let writes = 3 + dice.draw(12);
    let mut network = Network::new(Dice::new(dice.draw(u64::MAX)), oracle.clone(), bug);
    for number in 0..processes {
        let process = Process::new(number, bug, &mut dice, oracle.clone());
        network.processes.push(process);
    }
    let mut run = Run {
        network,
        calls: Vec::new(),
        oracle,
        time: Rc::default(),
        writes,
        calm: [150, 300, 2_000][dice.draw(3) as usize],
    };
    run.trouble();
    run.recovery();
    let oracle = run.oracle.borrow();
    Outcome {
        wrong: oracle.wrong.clone(),
        met: run.network.met.clone(),
        reads: oracle.reads,
        strict: oracle.strict,
        writes: oracle.writes,
    }
}

impl Run {
    fn draw(&mut self, below: u64) -> u64 {
        self.network.dice.draw(below)
    }

    fn is_wrong(&self) -> bool {
        self.oracle.borrow().wrong.is_some()
    }

    /// Lets everybody who can go on do so.
    fn run_ready(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        // One's step may be what another waits for.
        for _ in 0..3 {
            self.calls
                .retain_mut(|call| call.as_mut().poll(&mut context).is_pending());
            self.network.deliver();
        }
    }

    fn step(&mut self, at: u64) {
        // Nobody sleeps longer than a millisecond unseen.
        let at = at.clamp(self.network.now + MILLI / 50, self.network.now + MILLI);
        self.network.pass(at);
        *self.time.borrow_mut() = at;
        self.network.deliver();
        self.run_ready();
        for process in &mut self.network.processes {
            if process.has_failed() {
                self.oracle.borrow_mut().failed(process.number, at);
            }
        }
    }

    fn trouble(&mut self) {
        let (mut next_call, mut next_fault) = (0, 30 * MILLI);
        while self.network.now < TROUBLE && !self.is_wrong() {
            let now = self.network.now;
            if next_call <= now {
                next_call = now + self.draw(4 * MILLI);
                self.call();
            }
            if next_fault <= now {
                next_fault = now + self.draw(self.calm * MILLI);
                self.fault();
            }
            self.step(self.network.next().min(next_call).min(next_fault));
        }
    }

    fn caller(&mut self, number: usize) -> Caller {
        let takes = if self.network.dice.one_in(20) {
            self.network.meets(Fault::SlowLoader);
            Duration::from_nanos(self.draw(LONGEST_LOAD))
        } else {
            Duration::from_micros(self.draw(5_000))
        };
        let process = &self.network.processes[number];
        Caller {
            number,
            cache: process.cache.clone(),
            desk: process.desk.clone(),
            oracle: self.oracle.clone(),
            time: self.time.clone(),
            takes,
            bug: self.network.bug,
        }
    }

    fn call(&mut self) {
        let processes = self.network.processes.len() as u64;
        let number = self.draw(processes) as usize;
        let caller = self.caller(number);
        let key = self.draw(KEYS as u64) as usize;
        if self.draw(self.writes) > 0 {
            let read: Call = match self.draw(8) {
                0 => Box::pin(caller.look(key)),
                1 => Box::pin(caller.read_many()),
                _ => Box::pin(caller.read(key)),
            };
            self.calls.push(read);
            return;
        }
        let (how, keys) = match self.draw(11) {
            0 => (How::Everything, (0..KEYS).collect()),
            1 | 2 => (
                How::Tag,
                (0..KEYS).filter(|other| other % 2 == key % 2).collect(),
            ),
            3 => (How::Shared, vec![key]),
            4 | 5 => (How::Insert, vec![key]),
            6 | 7 => (How::Add, vec![key]),
            _ => (How::Key, vec![key]),
        };
        let keys: Vec<usize> = keys;
        if !keys.iter().any(|key| self.oracle.borrow().is_written[*key]) {
            self.calls.push(Box::pin(caller.write(keys, how)));
        }
    }

    fn fault(&mut self) {
        let fault = Fault::ALL[self.draw(Fault::ALL.len() as u64) as usize];
        let until = self.network.now + self.draw(250) * MILLI;
        self.network.trace(|| format!("fault {fault:?}"));
        let processes = self.network.processes.len() as u64;
        let number = self.draw(processes) as usize;
        let network = &mut self.network;
        match fault {
            Fault::Cut => network.cut(number),
            Fault::Silence => {
                if let Some(wire) = &mut network.processes[number].wire {
                    wire.is_silent = true;
                }
            }
            Fault::Delay => network.slow = until,
            Fault::Hang => network.hangs = until,
            Fault::Restart | Fault::RestartEmpty | Fault::RestartOlder => {
                self.restart(fault, until)
            }
            Fault::Unreachable => network.unreachable = until,
            Fault::Replica => network.redis.is_replica = !network.redis.is_replica,
            Fault::Full => network.redis.is_full = !network.redis.is_full,
            Fault::FlushAll => {
                let told = network.redis.delete_everything();
                network.tell(told);
            }
            Fault::Eviction => {
                let keys: Vec<Vec<u8>> = network.redis.contents.keys().cloned().collect();
                if !keys.is_empty() {
                    let key = &keys[network.dice.draw(keys.len() as u64) as usize];
                    let told = network.redis.evict(key);
                    network.tell(told);
                }
            }
            Fault::Corruption | Fault::UnreadablePush => network.corrupts = until,
            Fault::Cancelled => {
                if !self.calls.is_empty() {
                    let at = network.dice.draw(self.calls.len() as u64) as usize;
                    drop(self.calls.swap_remove(at));
                }
            }
            Fault::ClockJump => {
                let nanos = network.dice.draw(600) * MILLI;
                network.processes[number].pass(nanos);
            }
            // These are met on the way.
            Fault::Late | Fault::SlowLoader => return,
        }
        // Counted where they are met.
        if !matches!(fault, Fault::Corruption | Fault::UnreadablePush) {
            self.network.meets(fault);
        }
        // Whatever is changed for a while; sometimes a copy of the data is set aside for an older restart.
        if self.network.dice.one_in(3) {
            self.network.saved = self.network.redis.contents.clone();
        }
    }

    fn restart(&mut self, fault: Fault, until: u64) {
        let network = &mut self.network;
        for number in 0..network.processes.len() {
            network.cut(number);
        }
        network.unreachable = until;
        network.redis.run += 1;
        match fault {
            Fault::RestartEmpty => network.redis.contents.clear(),
            Fault::RestartOlder => network.redis.contents = network.saved.clone(),
            _ => {}
        }
    }

    /// All is well from now on: calls end, links come, and everybody has the newest values, though nobody writes.
    fn recovery(&mut self) {
        let network = &mut self.network;
        (
            network.hangs,
            network.unreachable,
            network.slow,
            network.corrupts,
        ) = (0, 0, 0, 0);
        (network.redis.is_replica, network.redis.is_full) = (false, false);
        let end = network.now + RECOVERY;
        let healed = |run: &Run| {
            let is_well = |process: &Process| {
                let stats = process.counters.snapshot();
                process.cache.is_connected() && stats.retries == 0 && !stats.breaker_open
            };
            run.calls.is_empty() && run.network.processes.iter().all(is_well)
        };
        while !healed(self) && !self.is_wrong() {
            if self.network.now > end {
                let waiting = self.calls.len();
                let states = self.network.processes.iter().map(|process| {
                    let stats = process.counters.snapshot();
                    let connected = process.cache.is_connected();
                    (connected, stats.retries, stats.breaker_open)
                });
                let states: Vec<_> = states.collect();
                let stuck = format!(
                    "not healed: {waiting} calls wait; connected, retries, breaker open: {states:?}"
                );
                return self.oracle.borrow_mut().wrong(stuck);
            }
            if self.network.dice.one_in(50) {
                // A breaker closes by a call.
                self.call_to_read();
            }
            self.step(self.network.next());
        }
        // Whatever was told is acted upon within the bound.
        let quiet = self.network.now + 400 * MILLI;
        while self.network.now < quiet && !self.is_wrong() {
            self.step(self.network.next().min(quiet));
        }
        for number in 0..self.network.processes.len() {
            for key in 0..KEYS {
                self.has_the_newest(number, key);
            }
        }
    }

    fn call_to_read(&mut self) {
        let processes = self.network.processes.len() as u64;
        let number = self.draw(processes) as usize;
        let mut caller = self.caller(number);
        caller.takes = Duration::ZERO;
        let key = self.draw(KEYS as u64) as usize;
        self.calls.push(Box::pin(caller.read(key)));
    }

    fn has_the_newest(&mut self, number: usize, key: usize) {
        if self.is_wrong() {
            return;
        }
        let newest = value(key, self.oracle.borrow().source[key]);
        let mut caller = self.caller(number);
        caller.takes = Duration::ZERO;
        let found = Rc::new(RefCell::new(None));
        let (put, cache) = (found.clone(), caller.cache.clone());
        self.calls.push(Box::pin(async move {
            let load = || caller.load(key);
            let read = cache.get_or_load_with_async(&*name(key), load).await;
            *put.borrow_mut() = Some(read.ok().flatten());
        }));
        let end = self.network.now + RECOVERY;
        while found.borrow().is_none() && self.network.now < end {
            self.step(self.network.next());
        }
        let read = *found.borrow();
        if read != Some(Some(newest)) {
            let (read, newest) = (
                read.flatten().map(|read| read & 0xffff_ffff),
                newest & 0xffff_ffff,
            );
            self.oracle.borrow_mut().wrong(format!(
                "all is well, and process {number} has {read:?} of key {key}, not {newest}"
            ));
        }
    }
}
