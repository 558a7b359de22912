//! A tier in this process: for tests, and for running without a server.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::contract::{AddReply, Change, Tier, TierFuture, TierListener};
use super::envelope::{self, ContentId};
use crate::util::clock::{Clock, nanos};
use crate::util::sync::Mutex;

/// What several [`MemoryTier`]s share: the server, as it were.
///
/// ```
/// use larder::tier::MemoryServer;
///
/// let server = MemoryServer::new();
/// let (one_process, another) = (server.tier(), server.tier());
/// # let _ = (one_process, another);
/// ```
#[derive(Clone)]
pub struct MemoryServer {
    shared: Arc<ServerInner>,
}

struct ServerInner {
    state: Mutex<MemoryState>,
    clock: Clock,
}

#[derive(Default)]
struct MemoryState {
    contents: HashMap<Vec<u8>, StoredContent>,
    versions: HashMap<Box<str>, u64>,
    sequence: u64,
    listeners: Vec<Weak<dyn TierListener>>,
}

struct StoredContent {
    bytes: Vec<u8>,
    expires_at: u64,
}

impl MemoryServer {
    /// An empty one.
    ///
    /// ```
    /// let server = larder::tier::MemoryServer::new();
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn new() -> Self {
        MemoryServer::with_clock(Clock::system())
    }

    /// An empty one that tells the time by this clock.
    ///
    /// ```
    /// let time = larder::ManualClock::new();
    /// let server = larder::tier::MemoryServer::with_clock(time.clock());
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        MemoryServer {
            shared: Arc::new(ServerInner {
                state: Mutex::new(MemoryState::default()),
                clock,
            }),
        }
    }

    /// One process's way to it. Each [`Tiered`](super::Tiered) takes one of its own.
    ///
    /// ```
    /// let tier = larder::tier::MemoryServer::new().tier();
    /// # let _ = tier;
    /// ```
    #[must_use]
    pub fn tier(&self) -> MemoryTier {
        MemoryTier {
            shared: self.shared.clone(),
            own: Mutex::new(None),
        }
    }
}

impl Default for MemoryServer {
    fn default() -> Self {
        MemoryServer::new()
    }
}

impl fmt::Debug for MemoryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryServer").finish_non_exhaustive()
    }
}

/// A [`Tier`] in this process. Unbounded: what has expired goes when its key is looked at.
///
/// ```
/// use larder::tier::{MemoryServer, Tiered};
///
/// let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier())
///     .max_capacity(100)
///     .build()?;
/// assert_eq!(cache.get_or_load("six", || 6)?, 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MemoryTier {
    shared: Arc<ServerInner>,
    own: Mutex<Option<Weak<dyn TierListener>>>,
}

impl fmt::Debug for MemoryTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTier").finish_non_exhaustive()
    }
}

impl MemoryState {
    /// What lives under a key. The dead is dropped.
    fn live(&mut self, key: &[u8], now: u64) -> Option<&StoredContent> {
        if self.contents.get(key)?.expires_at <= now {
            self.contents.remove(key);
        }
        self.contents.get(key)
    }

    fn holds(&mut self, key: &[u8], content_id: ContentId, now: u64) -> bool {
        self.live(key, now)
            .is_some_and(|content| envelope::content_id_of(&content.bytes) == Some(content_id))
    }

    fn store(&mut self, key: Vec<u8>, bytes: Vec<u8>, now: u64, time_to_live: Duration) {
        let expires_at = now.saturating_add(nanos(time_to_live));
        self.contents
            .insert(key, StoredContent { bytes, expires_at });
    }
}

impl MemoryTier {
    fn with<T>(&self, work: impl FnOnce(&mut MemoryState, u64) -> T) -> T {
        let now = self.shared.clock.now();
        work(&mut self.shared.state.lock(), now)
    }

    /// Tells everybody of a change; with no lock held, for listeners call back.
    fn tell(&self, changes: &[Change]) {
        self.tell_and(changes, changes);
    }

    /// Tells every listener of a fenced write: the writer by [`Change::Own`], all others by [`Change::Key`].
    fn tell_own(&self, key: Vec<u8>, content_id: Option<ContentId>) {
        let own = content_id.map(|content_id| Change::Own(key.clone(), content_id));
        let changes = [Change::Key(key)];
        self.tell_and(
            &changes,
            own.as_ref().map_or(&changes, std::slice::from_ref),
        );
    }

    fn tell_and(&self, changes: &[Change], to_own: &[Change]) {
        let own = self.own.lock().clone();
        let listeners = self.with(|state, _| {
            state
                .listeners
                .retain(|listener| listener.strong_count() > 0);
            state.listeners.clone()
        });
        for listener in listeners {
            let is_own = own.as_ref().is_some_and(|own| own.ptr_eq(&listener));
            if let Some(listener) = listener.upgrade() {
                listener.changed(if is_own { to_own } else { changes });
            }
        }
    }
}

impl Tier for MemoryTier {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<Vec<Option<Vec<u8>>>> {
        let found = self.with(|state, now| {
            let look = |key: &Vec<u8>| Some(state.live(key, now)?.bytes.clone());
            keys.iter().map(look).collect()
        });
        Box::pin(ready(Ok(found)))
    }

    fn add(&self, key: Vec<u8>, content: Vec<u8>, time_to_live: Duration) -> TierFuture<AddReply> {
        let (told, content_id) = (key.clone(), envelope::content_id_of(&content));
        let add_reply = self.with(|state, now| {
            let stored = state.live(&key, now).is_none();
            if stored {
                state.store(key, content, now, time_to_live);
            }
            AddReply {
                stored,
                sequence: state.sequence,
            }
        });
        if add_reply.stored {
            self.tell_own(told, content_id);
        }
        Box::pin(ready(Ok(add_reply)))
    }

    fn set_placeholder(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        time_to_live: Duration,
    ) -> TierFuture<u64> {
        let changes = [Change::Key(key.clone())];
        let sequence = self.with(|state, now| {
            state.store(key, content, now, time_to_live);
            state.sequence
        });
        self.tell(&changes);
        Box::pin(ready(Ok(sequence)))
    }

    fn compare_and_set(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        over: ContentId,
        time_to_live: Duration,
    ) -> TierFuture<bool> {
        let (told, content_id) = (key.clone(), envelope::content_id_of(&content));
        let stored = self.with(|state, now| {
            let stored = state.holds(&key, over, now);
            if stored {
                state.store(key, content, now, time_to_live);
            }
            stored
        });
        if stored {
            self.tell_own(told, content_id);
        }
        Box::pin(ready(Ok(stored)))
    }

    fn remove(&self, key: Vec<u8>, over: ContentId) -> TierFuture<bool> {
        let removed = self.with(|state, now| {
            state.holds(&key, over, now) && state.contents.remove(&key).is_some()
        });
        if removed {
            self.tell_own(key, Some(over));
        }
        Box::pin(ready(Ok(removed)))
    }

    fn remove_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<u64> {
        let removed = self.with(|state, now| {
            let mut removed = 0;
            for key in &keys {
                removed += u64::from(state.live(key, now).is_some());
                state.contents.remove(key);
            }
            removed
        });
        let changes: Vec<Change> = keys.into_iter().map(Change::Key).collect();
        self.tell(&changes);
        Box::pin(ready(Ok(removed)))
    }

    fn versions(&self, names: Vec<Box<str>>) -> TierFuture<Vec<Option<u64>>> {
        let found = self.with(|state, _| {
            names
                .iter()
                .map(|name| state.versions.get(name).copied())
                .collect()
        });
        Box::pin(ready(Ok(found)))
    }

    fn sequence(&self) -> TierFuture<u64> {
        let sequence = self.with(|state, _| state.sequence);
        Box::pin(ready(Ok(sequence)))
    }

    fn init_versions(&self, names: Vec<Box<str>>) -> TierFuture<()> {
        let changes = self.with(|state, _| {
            let mut changes = Vec::new();
            for name in names {
                if state.versions.contains_key(&name) {
                    continue;
                }
                state.versions.insert(name.clone(), state.sequence);
                changes.push(Change::Version(name));
            }
            changes
        });
        self.tell(&changes);
        Box::pin(ready(Ok(())))
    }

    fn incr_version(&self, name: Box<str>) -> TierFuture<u64> {
        let changes = [Change::Version(name.clone())];
        let version = self.with(|state, _| {
            state.sequence += 1;
            state.versions.insert(name, state.sequence);
            state.sequence
        });
        self.tell(&changes);
        Box::pin(ready(Ok(version)))
    }

    fn listen(&self, listener: Weak<dyn TierListener>) {
        *self.own.lock() = Some(listener.clone());
        self.with(|state, _| state.listeners.push(listener.clone()));
        if let Some(listener) = listener.upgrade() {
            listener.connection_changed(true);
        }
    }

    fn timeout(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(super::sleep::Sleep::until(self.shared.clock.clone(), time))
    }
}
