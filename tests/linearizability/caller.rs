//! One thread that calls a cache and writes down what it called: a method here for each of the cache's.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use larder::{Added, Cache, Compute, EntryOptions, Loaded, TryLoadError};

use crate::history::{
    Act, Event, History, Life, Load, Moment, NAMESPACED, Recorder, Target, VALUE_SHIFT,
};

/// The tags that entries carry, by their bits.
pub const TAGS: [&str; 2] = ["red", "blue"];

/// A cache under test: its two handles and its recorder.
#[derive(Clone)]
pub struct Rig {
    pub root: Cache<u32, u64>,
    pub named: Cache<u32, u64>,
    pub recorder: Arc<Recorder>,
    /// The cache's own time to live, in nanoseconds.
    pub ttl: Option<u64>,
}

impl Rig {
    pub fn handle(&self, key: u32) -> &Cache<u32, u64> {
        if key >= NAMESPACED {
            &self.named
        } else {
            &self.root
        }
    }
}

/// Turns the clock past every deadline if its thread panics in the cache: whoever waits for that
/// thread's load then gives up, and the test fails instead of hanging.
struct Alarm(Arc<Recorder>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let past_all = 2 * PATIENCE.as_nanos() as u64;
            self.0.advance(past_all);
        }
    }
}

/// How long, by the manual clock, loads and waits may take: more than any round turns it on.
pub const PATIENCE: Duration = Duration::from_secs(10_000);

/// What a loading call of either form runs.
type Loader<'a> = Box<dyn FnOnce() -> Result<Loaded<u64>, Infallible> + 'a>;

/// One thread's hand.
pub struct Caller {
    pub rig: Rig,
    pub history: History,
    pub calls: u64,
    thread: u64,
    values: u64,
}

impl Caller {
    pub fn new(rig: &Rig, thread: u64) -> Self {
        Caller {
            rig: rig.clone(),
            history: History::default(),
            calls: 0,
            thread,
            values: 0,
        }
    }

    /// A value that nobody else writes. Zero is none: counters count from values up.
    pub fn fresh(&mut self) -> u64 {
        self.values += 1;
        (self.thread << 24 | self.values) << VALUE_SHIFT
    }

    fn default_life(&self) -> Life {
        Life::by_default(self.rig.ttl)
    }

    /// Calls, and writes down what the answer stands for.
    fn record<R>(
        &mut self,
        key: u32,
        call: impl FnOnce(&Cache<u32, u64>) -> R,
        act: impl FnOnce(&R) -> Act,
    ) -> R {
        let _alarm = Alarm(Arc::clone(&self.rig.recorder));
        let revision = self.rig.recorder.revision();
        let began = self.rig.recorder.moment();
        let answer = call(self.rig.handle(key));
        let ended = self.rig.recorder.moment();
        self.note(Target::Key(key), act(&answer), began, ended, revision);
        answer
    }

    fn note(&mut self, target: Target, act: Act, began: Moment, ended: Moment, revision: u64) {
        self.calls += 1;
        let mut event = Event::of(target, act, began, ended);
        event.revision = revision;
        self.history.events.push(event);
    }

    pub fn get(&mut self, key: u32) -> Option<u64> {
        self.record(key, |cache| cache.get(&key), |value| Act::Read(*value))
    }

    pub fn peek(&mut self, key: u32) -> Option<u64> {
        self.record(key, |cache| cache.peek(&key), |value| Act::Read(*value))
    }

    pub fn contains(&mut self, key: u32) -> bool {
        self.record(
            key,
            |cache| cache.contains_key(&key),
            |there| Act::Has(*there),
        )
    }

    pub fn insert(&mut self, key: u32, life: Life) -> Option<u64> {
        let value = self.fresh();
        let call = |cache: &Cache<u32, u64>| cache.insert_with(key, value, options(life));
        let stored = |old: &Result<Option<u64>, _>| match old {
            Ok(old) => Act::Put {
                value,
                life,
                old: *old,
            },
            Err(_) => Act::Refuse,
        };
        self.record(key, call, stored).unwrap_or(None)
    }

    /// A write that says nothing of its value: it lives as long as the cache says.
    pub fn insert_plain(&mut self, key: u32) -> Option<u64> {
        let value = self.fresh();
        let life = self.default_life();
        let call = |cache: &Cache<u32, u64>| cache.insert(key, value);
        let stored = |&old: &Option<u64>| Act::Put { value, life, old };
        self.record(key, call, stored)
    }

    /// A write that must be refused: no time to live.
    pub fn refuse(&mut self, key: u32) {
        let value = self.fresh();
        let nothing = EntryOptions::new().time_to_live(Duration::ZERO);
        let call = |cache: &Cache<u32, u64>| cache.insert_with(key, value, nothing).is_err();
        let refused = self.record(key, call, |_| Act::Refuse);
        assert!(refused, "a value without time to live was stored");
    }

    pub fn add(&mut self, key: u32, life: Life) -> bool {
        let value = self.fresh();
        let call = |cache: &Cache<u32, u64>| cache.add_with(key, value, options(life));
        let added = |added: &Result<Added<u64>, _>| match added {
            Ok(Added::Present { present, .. }) => Act::Read(Some(*present)),
            _ => Act::Put {
                value,
                life,
                old: None,
            },
        };
        matches!(self.record(key, call, added), Ok(Added::Stored))
    }

    pub fn replace(&mut self, key: u32) -> Result<u64, u64> {
        let (value, life) = (self.fresh(), self.default_life());
        let replaced = |old: &Result<u64, u64>| match old {
            Ok(old) => Act::Put {
                value,
                life,
                old: Some(*old),
            },
            Err(_) => Act::Read(None),
        };
        self.record(key, |cache| cache.replace(key, value), replaced)
    }

    pub fn remove(&mut self, key: u32) -> Option<u64> {
        self.record(key, |cache| cache.remove(&key), |old| Act::Take(*old))
    }

    /// As one invalidates: first the database, then the cache.
    pub fn invalidate(&mut self, key: u32) -> bool {
        self.rig.recorder.commit();
        self.record(
            key,
            |cache| cache.invalidate(&key),
            |there| Act::Discard(*there),
        )
    }

    pub fn incr(&mut self, key: u32) -> Option<u64> {
        self.record(key, |cache| cache.incr(&key, 1), |sum| Act::Incr(*sum))
    }

    pub fn touch(&mut self, key: u32, ttl: Option<u64>) -> bool {
        let time = ttl.map(Duration::from_nanos);
        let touched = |there: &bool| {
            if *there {
                Act::Touch { ttl }
            } else {
                Act::Has(false)
            }
        };
        self.record(key, |cache| cache.touch(&key, time), touched)
    }

    /// `compute` that decides the same whatever it sees; `Put` is told to put a fresh value.
    pub fn compute(&mut self, key: u32, decision: Compute<()>) {
        let (value, ttl) = (self.fresh(), self.rig.ttl);
        let mut runs = 0;
        let decide = |_: Option<&u64>| {
            runs += 1;
            // After the last run it may count as overtaken, and the value is nowhere seen.
            assert!(
                runs < 6,
                "it never happened, and the model does not know what to do about it"
            );
            match decision {
                Compute::Put(()) => Compute::Put(value),
                Compute::Remove => Compute::Remove,
                _ => Compute::Keep,
            }
        };
        let call = |cache: &Cache<u32, u64>| {
            let done = cache.compute(&key, decide);
            (done.old, done.new)
        };
        let computed = |&(old, new): &(Option<u64>, Option<u64>)| match (old, new) {
            (old, Some(new)) if new == value => Act::Compute { value, ttl, old },
            (Some(_), None) => Act::Take(old),
            _ => Act::Read(old),
        };
        let (old, new) = self.record(key, call, computed);
        let expected = match decision {
            Compute::Put(()) => Some(value),
            Compute::Remove => None,
            _ => old,
        };
        assert_eq!(new, expected, "what compute says it left");
    }

    /// A loading call. Its loader reads the database, calls `within`, and returns.
    pub fn load(&mut self, key: u32, life: Life, within: impl FnOnce()) -> u64 {
        self.load_by(key, life, within, |cache, loader| {
            cache.get_or_load_with(&key, loader)
        })
    }

    /// A loading call of a task, which this thread polls until it is done.
    pub fn load_as_a_task(&mut self, key: u32, life: Life, within: impl FnOnce()) -> u64 {
        self.load_by(key, life, within, |cache, loader| {
            let load = cache.get_or_load_with_async(&key, || async { loader() });
            pollster::block_on(load)
        })
    }

    fn load_by<W: FnOnce()>(
        &mut self,
        key: u32,
        life: Life,
        within: W,
        call: impl FnOnce(&Cache<u32, u64>, Loader<'_>) -> Result<u64, TryLoadError<Infallible>>,
    ) -> u64 {
        let value = self.fresh();
        let recorder = Arc::clone(&self.rig.recorder);
        let _alarm = Alarm(Arc::clone(&recorder));
        let mut run = None;
        let began = recorder.moment();
        let loader = || {
            let start = recorder.moment();
            let revision = recorder.revision();
            within();
            run = Some((start, revision, recorder.moment()));
            Ok::<_, Infallible>(loaded(value, life))
        };
        let given = match call(self.rig.handle(key), Box::new(loader)) {
            Ok(given) => given,
            Err(error) => panic!("a load that cannot fail failed: {error}"),
        };
        let ended = recorder.moment();
        let Some((start, revision, end)) = run else {
            self.note(Target::Key(key), Act::Given(given), began, ended, 0);
            return given;
        };
        assert_eq!(given, value, "a caller that loads is given what it loaded");
        // It loaded because it found nothing. The rest of the call is in the `Load`.
        self.note(Target::Key(key), Act::Read(None), began, start, 0);
        self.history.loads.push(Load {
            key,
            value,
            life,
            revision,
            call: began.stamp,
            start: start.stamp,
            end: end.stamp,
            ret: ended.stamp,
            low: end.low,
            high: ended.high,
        });
        given
    }

    pub fn clear(&mut self) {
        self.kill(Target::Everything, 0, |rig| rig.root.clear());
    }

    pub fn clear_namespace(&mut self) {
        self.kill(Target::Namespace, 0, |rig| rig.named.clear());
    }

    pub fn invalidate_tag(&mut self, tag: usize) {
        self.kill(Target::Everything, 1 << tag, |rig| {
            rig.root.invalidate_tag(TAGS[tag]);
        });
    }

    fn kill(&mut self, target: Target, tags: u8, call: impl FnOnce(&Rig)) {
        let recorder = Arc::clone(&self.rig.recorder);
        let _alarm = Alarm(Arc::clone(&recorder));
        let revision = recorder.commit();
        let began = recorder.moment();
        call(&self.rig);
        let ended = recorder.moment();
        self.note(target, Act::Kill { tags }, began, ended, revision);
    }
}

fn tag_names(tags: u8) -> impl Iterator<Item = &'static str> {
    let carried = move |(bit, _): &(usize, &&str)| tags >> bit & 1 == 1;
    TAGS.iter()
        .enumerate()
        .filter(carried)
        .map(|(_, name)| *name)
}

fn options(life: Life) -> EntryOptions {
    let options = EntryOptions::new().tags(tag_names(life.tags));
    match life.ttl {
        Some(ttl) => options.time_to_live(Duration::from_nanos(ttl)),
        None => options.no_expiry(),
    }
}

fn loaded(value: u64, life: Life) -> Loaded<u64> {
    let loaded = Loaded::new(value).tags(tag_names(life.tags));
    match life.ttl {
        Some(ttl) => loaded.time_to_live(Duration::from_nanos(ttl)),
        None => loaded.no_expiry(),
    }
}
