//! User code with a counter, a lock-depth check, a fuse and a way back into the cache in every
//! callback: the key, the value, the hasher, the waker and the error of these tests, and the world
//! that all of one scenario's instruments share.
//!
//! A world is leaked, so that instruments can point at it without owning it; a scenario's is a few
//! hundred bytes.

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::task::{RawWaker, RawWakerVTable, Waker};

use larder::RemovalCause;
use parking_lot::Mutex;

/// What the cache calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Call {
    BuildHasher,
    Hash,
    Eq,
    KeyClone,
    KeyDrop,
    ValueClone,
    ValueDrop,
    Weigher,
    AfterCreate,
    AfterUpdate,
    AfterRead,
    Listener,
    /// A loader, up to the future of an asynchronous one.
    Loader,
    /// The future of an asynchronous loader.
    Poll,
    /// The closures of `compute`, `remove_if`, `retain`, and the iterators given to `*_many`.
    Closure,
    /// `Display` of a loader's error.
    Display,
    Timer,
    WakerClone,
    WakerWake,
    WakerDrop,
}

impl Call {
    pub(crate) const ALL: [Call; CALLS] = [
        Call::BuildHasher,
        Call::Hash,
        Call::Eq,
        Call::KeyClone,
        Call::KeyDrop,
        Call::ValueClone,
        Call::ValueDrop,
        Call::Weigher,
        Call::AfterCreate,
        Call::AfterUpdate,
        Call::AfterRead,
        Call::Listener,
        Call::Loader,
        Call::Poll,
        Call::Closure,
        Call::Display,
        Call::Timer,
        Call::WakerClone,
        Call::WakerWake,
        Call::WakerDrop,
    ];

    /// Whether the promise lets it run under its shard's lock (and under that one alone).
    pub(crate) fn may_run_locked(self) -> bool {
        matches!(self, Call::Eq | Call::KeyClone | Call::ValueClone)
    }
}

const CALLS: usize = 20;
const NEVER: usize = usize::MAX;

/// The payload of an injected panic.
pub(crate) struct Injected;

type Errand = Arc<dyn Fn() + Send + Sync>;

/// How many instances of a type were made and dropped.
#[derive(Default)]
pub(crate) struct Census {
    made: AtomicI64,
    dropped: AtomicI64,
}

impl Census {
    pub(crate) fn living(&self) -> i64 {
        self.made.load(SeqCst) - self.dropped.load(SeqCst)
    }
}

/// What the instruments of one scenario share.
#[derive(Default)]
pub(crate) struct World {
    armed: AtomicUsize,
    left: AtomicI64,
    fired: AtomicU64,
    calls: [AtomicU64; CALLS],
    locked: [AtomicU64; CALLS],
    pub(crate) keys: Census,
    pub(crate) values: Census,
    next_value: AtomicU64,
    /// What the listener heard: the value's number and the cause.
    pub(crate) events: Mutex<Vec<(u64, RemovalCause)>>,
    errand: Mutex<Option<(Call, u32, Errand)>>,
}

thread_local! {
    /// With how many locks held this thread set out on an errand. An errand's own callbacks run no
    /// errands; and what it calls under a lock that it found held is its own fault.
    static ON_ERRAND: Cell<Option<usize>> = const { Cell::new(None) };
}

impl World {
    pub(crate) fn new() -> &'static World {
        let world = World::default();
        world.armed.store(NEVER, SeqCst);
        Box::leak(Box::new(world))
    }

    /// From now on the n-th such call panics.
    pub(crate) fn arm(&self, call: Call, n: i64) {
        self.left.store(n, SeqCst);
        self.armed.store(call as usize, SeqCst);
    }

    /// Ends injections, and tells how many there were.
    pub(crate) fn disarm(&self) -> u64 {
        self.armed.store(NEVER, SeqCst);
        let errand = self.errand.lock().take();
        drop(errand);
        self.fired.load(SeqCst)
    }

    /// From now on the first `budget` such calls run `errand`.
    pub(crate) fn send(&self, call: Call, budget: u32, errand: impl Fn() + Send + Sync + 'static) {
        *self.errand.lock() = Some((call, budget, Arc::new(errand)));
    }

    /// How often `call` was made.
    pub(crate) fn calls(&self, call: Call) -> u64 {
        self.calls[call as usize].load(SeqCst)
    }

    /// Every callback comes through here.
    pub(crate) fn hook(&self, call: Call) {
        self.calls[call as usize].fetch_add(1, SeqCst);
        let allowed = ON_ERRAND.get().unwrap_or(0) + usize::from(call.may_run_locked());
        if larder::__lock_depth() > allowed {
            // Counted, not raised: a panic from a `Drop` under a lock would end the process.
            self.locked[call as usize].fetch_add(1, SeqCst);
        }
        self.run_errand(call);
        // A second panic while the first unwinds would end the process, rightly.
        if self.armed.load(SeqCst) == call as usize
            && !std::thread::panicking()
            && self.left.fetch_sub(1, SeqCst) == 1
        {
            self.fired.fetch_add(1, SeqCst);
            panic_any(Injected);
        }
    }

    fn run_errand(&self, call: Call) {
        if ON_ERRAND.get().is_some() || std::thread::panicking() {
            return;
        }
        let errand = match &mut *self.errand.lock() {
            Some((at, budget, errand)) if *at == call && *budget > 0 => {
                *budget -= 1;
                Arc::clone(errand)
            }
            _ => return,
        };
        struct Back;
        impl Drop for Back {
            fn drop(&mut self) {
                ON_ERRAND.set(None);
            }
        }
        ON_ERRAND.set(Some(larder::__lock_depth()));
        let _back = Back;
        errand();
        self.fired.fetch_add(1, SeqCst);
    }

    /// The callbacks that ran under a lock and may not, with how often.
    pub(crate) fn locked(&self) -> Vec<(Call, u64)> {
        Call::ALL
            .into_iter()
            .map(|call| (call, self.locked[call as usize].load(SeqCst)))
            .filter(|&(_, times)| times > 0)
            .collect()
    }

    pub(crate) fn key(&'static self, id: u64) -> Key {
        self.keys.made.fetch_add(1, SeqCst);
        Key { id, world: self }
    }

    /// A value like no other: its number tells it from all, save its clones.
    pub(crate) fn value(&'static self) -> Value {
        self.heavy(1)
    }

    pub(crate) fn heavy(&'static self, weight: u64) -> Value {
        self.values.made.fetch_add(1, SeqCst);
        let id = self.next_value.fetch_add(1, SeqCst);
        Value {
            id,
            weight,
            world: self,
        }
    }
}

pub(crate) struct Key {
    pub(crate) id: u64,
    pub(crate) world: &'static World,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.world.hook(Call::Hash);
        // Few hashes, so that look-ups compare several keys.
        state.write_u64(self.id % 4);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.world.hook(Call::Eq);
        self.id == other.id
    }
}

impl Eq for Key {}

impl Clone for Key {
    fn clone(&self) -> Key {
        self.world.hook(Call::KeyClone);
        self.world.key(self.id)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.world.keys.dropped.fetch_add(1, SeqCst);
        self.world.hook(Call::KeyDrop);
    }
}

pub(crate) struct Value {
    pub(crate) id: u64,
    pub(crate) weight: u64,
    world: &'static World,
}

impl Clone for Value {
    fn clone(&self) -> Value {
        self.world.hook(Call::ValueClone);
        self.world.values.made.fetch_add(1, SeqCst);
        Value { ..*self }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.world.values.dropped.fetch_add(1, SeqCst);
        self.world.hook(Call::ValueDrop);
    }
}

/// Hashes the same in every run, so that a failure can be repeated.
pub(crate) struct Hashing(pub(crate) &'static World);

impl BuildHasher for Hashing {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        self.0.hook(Call::BuildHasher);
        DefaultHasher::new()
    }
}

/// A loader's error.
pub(crate) struct Failure(pub(crate) &'static World);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hook(Call::Display);
        f.write_str("failed")
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Failure")
    }
}

impl std::error::Error for Failure {}

/// What a waker of these tests wakes. `std::task::Wake` shows neither clones nor drops, so this is a
/// waker with a table of its own; it points at leaked memory and owns nothing.
pub(crate) struct Tap {
    world: &'static World,
    pub(crate) woken: AtomicBool,
    clones: AtomicI64,
}

impl Tap {
    pub(crate) fn new(world: &'static World) -> &'static Tap {
        Box::leak(Box::new(Tap {
            world,
            woken: AtomicBool::new(false),
            clones: AtomicI64::new(0),
        }))
    }

    /// Wakers that live.
    pub(crate) fn living(&self) -> i64 {
        self.clones.load(SeqCst)
    }

    pub(crate) fn waker(&'static self) -> Waker {
        self.clones.fetch_add(1, SeqCst);
        let data: *const Tap = self;
        // SAFETY: the table's functions read nothing but the `Tap` that `data` points at, which is
        // leaked and shared by atomics alone, so that they may be called from any thread at any time.
        unsafe { Waker::new(data.cast(), &TABLE) }
    }
}

static TABLE: RawWakerVTable = RawWakerVTable::new(
    |data| {
        let tap = tap_at(data);
        tap.world.hook(Call::WakerClone);
        tap.clones.fetch_add(1, SeqCst);
        RawWaker::new(data, &TABLE)
    },
    |data| {
        let tap = tap_at(data);
        tap.clones.fetch_sub(1, SeqCst);
        tap.woken.store(true, SeqCst);
        tap.world.hook(Call::WakerWake);
    },
    |data| {
        tap_at(data).woken.store(true, SeqCst);
        tap_at(data).world.hook(Call::WakerWake);
    },
    |data| {
        tap_at(data).clones.fetch_sub(1, SeqCst);
        tap_at(data).world.hook(Call::WakerDrop);
    },
);

fn tap_at(data: *const ()) -> &'static Tap {
    // SAFETY: only `Tap::waker` makes wakers with this table, and their data is a leaked `Tap`.
    unsafe { &*data.cast::<Tap>() }
}
