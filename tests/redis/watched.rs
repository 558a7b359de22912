//! A tier whose messages are written down as they are acted upon, and what must be true of every read because of
//! them.
//!
//! The source of all values is a number a key. A writer raises it and then invalidates the key. What is demanded of
//! a read in a process:
//!
//! 1. It is not older than any write whose invalidation had been answered when the process *began* to act upon some
//!    message that covers the key, if it had done so when the read began.
//! 2. In the writer's own process, it is not older than any write whose invalidation had been answered when the read
//!    began.
//! 3. If there was no link from its beginning to its end, it is as new as the source was when it began.
//!
//! So it is held against what the process itself has seen of the link, not against the time that has passed.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use larder::tier::{
    AddReply, Change, ContentId, FlushCause, Tier, TierFuture, TierListener, Tiered,
};
use parking_lot::Mutex;

pub(crate) const KEYS: usize = 8;

/// The source, and of which writes of it the invalidation has been answered.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) values: [AtomicU64; KEYS],
    pub(crate) known: [AtomicU64; KEYS],
}

/// What one process has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// What a read of each key must not be older than.
    floors: [AtomicU64; KEYS],
    down: AtomicBool,
    /// How often that changed.
    turns: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) messages: AtomicU64,
}

pub(crate) fn name(key: usize) -> String {
    format!("k{key}")
}

/// The tier, with an ear between it and the cache.
pub(crate) struct Watched<T> {
    inner: T,
    source: Arc<Source>,
    seen: Arc<Seen>,
    ear: Mutex<Option<Arc<Ear>>>,
}

struct Ear {
    listener: Weak<dyn TierListener>,
    source: Arc<Source>,
    seen: Arc<Seen>,
}

impl Ear {
    /// Acts upon a message about these keys.
    fn act(&self, keys: impl Iterator<Item = usize>, act: impl FnOnce(&dyn TierListener)) {
        let floors: Vec<_> = keys
            .map(|key| (key, self.source.known[key].load(SeqCst)))
            .collect();
        if let Some(listener) = self.listener.upgrade() {
            act(&*listener);
        }
        for (key, floor) in floors {
            self.seen.floors[key].fetch_max(floor, SeqCst);
        }
    }
}

impl TierListener for Ear {
    fn changed(&self, changes: &[Change]) {
        self.seen.messages.fetch_add(1, SeqCst);
        let keys = changes.iter().filter_map(|change| match change {
            Change::Key(key) => std::str::from_utf8(key)
                .ok()?
                .strip_prefix(":k")?
                .parse()
                .ok(),
            _ => None,
        });
        self.act(keys, |listener| listener.changed(changes));
    }

    fn flushed(&self, cause: FlushCause) {
        self.seen.flushes.fetch_add(1, SeqCst);
        self.act(0..KEYS, |listener| listener.flushed(cause));
    }

    fn connection_changed(&self, up: bool) {
        if up {
            self.seen.down.store(false, SeqCst);
            self.seen.turns.fetch_add(1, SeqCst);
        }
        if let Some(listener) = self.listener.upgrade() {
            listener.connection_changed(up);
        }
        if !up {
            self.seen.turns.fetch_add(1, SeqCst);
            self.seen.down.store(true, SeqCst);
        }
    }
}

impl<T: Tier> Watched<T> {
    pub(crate) fn new(inner: T, source: Arc<Source>) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let watched = Watched {
            inner,
            source,
            seen: seen.clone(),
            ear: Mutex::new(None),
        };
        (watched, seen)
    }
}

impl<T: Tier> Tier for Watched<T> {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<Vec<Option<Vec<u8>>>> {
        self.inner.get_many(keys)
    }
    fn add(&self, key: Vec<u8>, content: Vec<u8>, time: Duration) -> TierFuture<AddReply> {
        self.inner.add(key, content, time)
    }
    fn set_placeholder(&self, key: Vec<u8>, content: Vec<u8>, time: Duration) -> TierFuture<u64> {
        self.inner.set_placeholder(key, content, time)
    }
    fn compare_and_set(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        over: ContentId,
        time: Duration,
    ) -> TierFuture<bool> {
        self.inner.compare_and_set(key, content, over, time)
    }
    fn remove(&self, key: Vec<u8>, over: ContentId) -> TierFuture<bool> {
        self.inner.remove(key, over)
    }
    fn remove_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<u64> {
        self.inner.remove_many(keys)
    }
    fn versions(&self, names: Vec<Box<str>>) -> TierFuture<Vec<Option<u64>>> {
        self.inner.versions(names)
    }
    fn sequence(&self) -> TierFuture<u64> {
        self.inner.sequence()
    }
    fn init_versions(&self, names: Vec<Box<str>>) -> TierFuture<()> {
        self.inner.init_versions(names)
    }
    fn incr_version(&self, name: Box<str>) -> TierFuture<u64> {
        self.inner.incr_version(name)
    }
    fn listen(&self, listener: Weak<dyn TierListener>) {
        let ear = Arc::new(Ear {
            listener,
            source: self.source.clone(),
            seen: self.seen.clone(),
        });
        let heard: Arc<dyn TierListener> = ear.clone();
        *self.ear.lock() = Some(ear);
        self.inner.listen(Arc::downgrade(&heard));
    }
    fn timeout(&self) -> Duration {
        self.inner.timeout()
    }
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.inner.sleep(time)
    }
}

/// A process: its cache, and what it has seen.
pub(crate) struct Process {
    pub(crate) cache: Tiered<String, u64>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) source: Arc<Source>,
}

impl Process {
    /// Reads a key through the cache, and checks what was read.
    pub(crate) fn read(&self, key: usize) -> u64 {
        let floor = self.seen.floors[key].load(SeqCst);
        let turn = self.seen.turns.load(SeqCst);
        let was_down = self.seen.down.load(SeqCst);
        let newest = self.source.values[key].load(SeqCst);
        let load = || self.source.values[key].load(SeqCst);
        let read = self.cache.get_or_load(&name(key), load).unwrap();
        let stayed_down =
            was_down && self.seen.down.load(SeqCst) && self.seen.turns.load(SeqCst) == turn;
        assert!(
            read >= floor,
            "key {key}: {read} was read after {floor} had been heard of"
        );
        assert!(
            !stayed_down || read >= newest,
            "key {key}: {read} was read without a link, and the source had {newest}"
        );
        assert!(read <= self.source.values[key].load(SeqCst), "of nowhere");
        read
    }

    /// Changes a key at the source, and invalidates it: whether the tier was told.
    pub(crate) fn write(&self, key: usize) -> bool {
        let version = self.source.values[key].fetch_add(1, SeqCst) + 1;
        if self.cache.invalidate(&name(key)).is_err() {
            return false;
        }
        self.source.known[key].fetch_max(version, SeqCst);
        let read = self.read(key);
        assert!(
            read >= version,
            "key {key}: {read} was read in the process that had written {version}"
        );
        true
    }
}
