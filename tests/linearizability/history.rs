//! What was called when: stamps from one counter, a shared clock that is turned under a journal, the
//! cache's own removals stamped under its lock, and the events of all this.
//!
//! # Stamps
//! Every stamp is drawn by `fetch_add` from one counter: before a call, after it, and inside the
//! journal, which the cache calls under the stripe's lock. So "returned before the other was called"
//! is a comparison of numbers, and a removal happened exactly where its line stands.
//!
//! # The clock
//! A [`ManualClock`] cannot be read, so two shadows enclose it: `high` moves before it, `low` after.
//! Whatever a call read lies between `low` at its call and `high` at its return.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder::{Clock, ManualClock, RemovalCause};

/// Keys from here on live in the namespace, the ones below in the root: the journal names no namespace.
pub const NAMESPACED: u32 = 1000;

/// A value: its number above, what `incr` added to it below.
pub const VALUE_SHIFT: u32 = 16;

/// No deadline.
pub const NEVER: u64 = u64::MAX;

/// Which keys an event concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Key(u32),
    Everything,
    Namespace,
}

impl Target {
    pub fn covers(self, key: u32) -> bool {
        match self {
            Target::Key(own) => own == key,
            Target::Everything => true,
            Target::Namespace => key >= NAMESPACED,
        }
    }
}

/// What a call did to one key, and what it answered. The cache's many methods come down to these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `get`, `peek`, and every conditional write whose condition did not hold.
    Read(Option<u64>),
    /// `contains_key`, `touch` that found nothing: a read that does not say which value.
    Has(bool),
    /// A write: a new value over this one, or over nothing.
    Put {
        value: u64,
        life: Life,
        old: Option<u64>,
    },
    /// `compute` that put: a value that inherits the tags of this one, and its deadline if that is its own. Otherwise,
    /// and over nothing, it lives for the cache's `ttl`.
    Compute {
        value: u64,
        ttl: Option<u64>,
        old: Option<u64>,
    },
    /// A write that was refused. What was there is gone.
    Refuse,
    /// `remove`, and `compute` that removed.
    Take(Option<u64>),
    /// `invalidate`: whether something live was there.
    Discard(bool),
    /// `incr` by one: the sum.
    Incr(Option<u64>),
    /// `touch` that found something, with its new time to live.
    Touch { ttl: Option<u64> },
    /// A loading call that ran no loader: it found this value, or waited for it.
    Given(u64),
    /// The end of a load. `must`: nothing came between, so the value has to be stored.
    Publish { value: u64, life: Life, must: bool },
    /// `clear` of any extent, or with tags (a set of bits) the invalidation of one.
    Kill { tags: u8 },
    /// A line of the cache's journal.
    Line(RemovalCause),
}

/// What a value is stored under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub ttl: Option<u64>,
    pub tags: u8,
    /// The call said how long it lives.
    pub own: bool,
}

impl Life {
    pub const PLAIN: Life = Life::tagged(0);

    /// For ever, under these tags.
    pub const fn tagged(tags: u8) -> Life {
        Life {
            ttl: None,
            tags,
            own: true,
        }
    }

    /// As long as the cache says, without tags.
    pub const fn by_default(ttl: Option<u64>) -> Life {
        Life {
            ttl,
            tags: 0,
            own: false,
        }
    }
}

/// One act with its interval: of stamps, and of clock readings.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub target: Target,
    pub act: Act,
    pub call: u64,
    pub ret: u64,
    pub low: u64,
    pub high: u64,
    /// What the database had come to before the call; noted by what revokes.
    pub revision: u64,
}

/// One run of a loader.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub key: u32,
    pub value: u64,
    pub life: Life,
    /// What the loader read in the database.
    pub revision: u64,
    /// Of the call that ran it.
    pub call: u64,
    pub start: u64,
    pub end: u64,
    /// Of the call that ran it.
    pub ret: u64,
    pub low: u64,
    pub high: u64,
}

/// A moment outside any call of the cache.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub stamp: u64,
    pub low: u64,
    pub high: u64,
}

/// Everything that one round's threads and its cache write to.
#[derive(Debug, Default)]
pub struct Recorder {
    stamps: AtomicU64,
    manual: ManualClock,
    low: AtomicU64,
    high: AtomicU64,
    turning: Mutex<()>,
    database: AtomicU64,
    lines: Mutex<Vec<Event>>,
}

impl Recorder {
    pub fn new() -> Arc<Self> {
        Arc::new(Recorder::default())
    }

    pub fn clock(&self) -> Clock {
        self.manual.clock()
    }

    /// Now. `low` is read first and `high` last, so that they enclose the clock here; the caller uses
    /// the `low` of its call and the `high` of its return.
    pub fn moment(&self) -> Moment {
        let low = self.low.load(Ordering::SeqCst);
        let stamp = self.stamps.fetch_add(1, Ordering::SeqCst);
        let high = self.high.load(Ordering::SeqCst);
        Moment { stamp, low, high }
    }

    /// Turns the clock. One thread at a time: otherwise `low` could overtake it.
    pub fn advance(&self, nanos: u64) {
        let _turn = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        self.high.fetch_add(nanos, Ordering::SeqCst);
        self.manual.advance(Duration::from_nanos(nanos));
        self.low.fetch_add(nanos, Ordering::SeqCst);
    }

    /// Changes the database that loaders read, as one does before an invalidation.
    pub fn commit(&self) -> u64 {
        self.database.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn revision(&self) -> u64 {
        self.database.load(Ordering::SeqCst)
    }

    /// For `CacheBuilder::__journal`: one line, stamped under the stripe's lock.
    pub fn line(&self, key: u32, cause: RemovalCause) {
        let at = self.moment();
        let line = Event::of(Target::Key(key), Act::Line(cause), at, at);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(line);
    }

    /// The journal, whose cache has come to rest.
    pub fn take_lines(&self) -> Vec<Event> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut lines)
    }
}

impl Event {
    pub fn of(target: Target, act: Act, call: Moment, ret: Moment) -> Self {
        Event {
            target,
            act,
            call: call.stamp,
            ret: ret.stamp,
            low: call.low,
            high: ret.high,
            revision: 0,
        }
    }

    /// Whether the event revokes the load in flight of the keys it covers. Conditional writes that did
    /// not apply are recorded as reads, so that they do not count here.
    pub fn revokes(&self) -> bool {
        match self.act {
            Act::Put { .. }
            | Act::Compute { .. }
            | Act::Refuse
            | Act::Take(_)
            | Act::Discard(_)
            | Act::Kill { .. } => true,
            Act::Incr(sum) => sum.is_some(),
            _ => false,
        }
    }

    /// Whether it revokes loads of `key` whose value carries `tags`.
    pub fn revokes_load(&self, key: u32, tags: u8) -> bool {
        let tagged = match self.act {
            Act::Kill { tags: 0 } => true,
            Act::Kill { tags: killed } => killed & tags != 0,
            _ => true,
        };
        tagged && self.revokes() && self.target.covers(key)
    }

    /// The value that the call handed to its caller.
    pub fn served(&self) -> Option<u64> {
        match self.act {
            Act::Read(value)
            | Act::Take(value)
            | Act::Put { old: value, .. }
            | Act::Compute { old: value, .. } => value,
            Act::Incr(value) => value,
            Act::Given(value) => Some(value),
            _ => None,
        }
    }
}

/// A whole round.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub events: Vec<Event>,
    pub loads: Vec<Load>,
}

impl History {
    pub fn absorb(&mut self, other: History) {
        self.events.extend(other.events);
        self.loads.extend(other.loads);
    }

    /// How many values left the cache for this cause.
    pub fn lines(&self, cause: RemovalCause) -> u64 {
        let lines = self.events.iter();
        lines.filter(|event| event.act == Act::Line(cause)).count() as u64
    }
}
