//! A lock that several processes share: for work that should be done once, and must not be stored twice.
//!
//! A lock in a cache is a promise for a time. Its holder can be stopped for longer than that, and another takes it; so
//! it can keep work from being done twice at the same time *mostly*, and never alone. What makes it safe is the
//! *fencing number*: it grows with every holder, so whatever the work is written to can refuse a number lower than one
//! it has seen. (For values in the cache itself no lock is needed: [`Tiered`](super::Tiered) fences every value by
//! itself.)
//!
//! # Why the numbers grow with the holders
//! A holder's token is put where there is nothing; then the number is drawn; then the token is read back. If it is
//! there still, it has been there all the time, since no token is used twice: so the number was drawn while this was
//! the holder, and the next holder's is drawn after it.

use std::fmt;
use std::sync::Weak;
use std::time::Duration;

use super::async_util::{Waiters, block_on, with_timeout};
use super::content_id::ContentIds;
use super::contract::{Change, FlushCause, Tier, TierError, TierListener};
use super::envelope::{ContentId, Envelope, EnvelopeLimits, Kind, content_id_of};
use crate::util::clock::{Clock, nanos};
use crate::util::sync::Arc;

/// Locks by name, over a [`Tier`] of their own: a connection, and a prefix, that no cache uses. Each name leaves a
/// number behind in it. A handle: clones are cheap.
///
/// ```
/// use larder::tier::{LockManager, MemoryServer};
/// use std::time::Duration;
///
/// let locks = LockManager::new(MemoryServer::new().tier());
/// let minute = Duration::from_secs(60);
/// let held = locks.try_lock("nightly report", minute)?.expect("nobody else holds it");
/// assert!(locks.try_lock("nightly report", minute)?.is_none());
/// // … write the report, and hand `held.fencing_number()` to whatever keeps it …
/// assert!(held.unlock()?, "it was ours to the end");
/// assert!(locks.try_lock("nightly report", minute)?.is_some());
/// # Ok::<(), larder::tier::TierError>(())
/// ```
#[derive(Clone)]
pub struct LockManager {
    shared: Arc<LockManagerInner>,
}

struct LockManagerInner {
    tier: Arc<dyn Tier>,
    waiters: Waiters,
    clock: Clock,
    content_ids: ContentIds,
}

impl TierListener for LockManagerInner {
    fn changed(&self, changes: &[Change]) {
        for change in changes {
            if let Change::Key(key) | Change::Own(key, _) = change {
                self.waiters.changed(key);
            }
        }
    }

    fn flushed(&self, _: FlushCause) {
        self.waiters.everything_changed();
    }

    fn connection_changed(&self, _: bool) {}
}

/// A lock that is held; given back when it is dropped, if it is held still.
#[must_use = "a lock that is dropped is given back"]
pub struct LockGuard {
    shared: Arc<LockManagerInner>,
    key: Vec<u8>,
    content_id: ContentId,
    number: u64,
    /// By the clock of this process, from before the tier was asked.
    until: u64,
    is_over: bool,
}

impl fmt::Debug for LockManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockManager").finish_non_exhaustive()
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("fencing_number", &self.number)
            .finish_non_exhaustive()
    }
}

impl LockManager {
    /// Over this tier.
    ///
    /// ```
    /// let locks = larder::tier::LockManager::new(larder::tier::MemoryServer::new().tier());
    /// # let _ = locks;
    /// ```
    pub fn new(tier: impl Tier) -> Self {
        LockManager::with_clock(tier, Clock::system())
    }

    /// A manager of locks on this tier that reads this clock.
    ///
    /// ```
    /// # use larder::tier::{LockManager, MemoryServer};
    /// let time = larder::ManualClock::new();
    /// let server = MemoryServer::with_clock(time.clock());
    /// let locks = LockManager::with_clock(server.tier(), time.clock());
    /// # let _ = locks;
    /// ```
    pub fn with_clock(tier: impl Tier, clock: Clock) -> Self {
        let shared = Arc::new(LockManagerInner {
            tier: Arc::new(tier),
            waiters: Waiters::default(),
            clock,
            content_ids: ContentIds::new(),
        });
        let listener: Arc<dyn TierListener> = shared.clone();
        let listener: Weak<dyn TierListener> = Arc::downgrade(&listener);
        shared.tier.listen(listener);
        LockManager { shared }
    }

    /// Takes a lock for a time, a millisecond at least; `None` if somebody holds it.
    ///
    /// # Errors
    /// The tier's. The lock may then be taken all the same, until its time is up.
    ///
    /// ```
    /// # use larder::tier::{LockManager, MemoryServer};
    /// # let locks = LockManager::new(MemoryServer::new().tier());
    /// let held = locks.try_lock("report", std::time::Duration::from_secs(60))?;
    /// assert!(held.is_some());
    /// # Ok::<(), larder::tier::TierError>(())
    /// ```
    pub fn try_lock(&self, name: &str, time: Duration) -> Result<Option<LockGuard>, TierError> {
        block_on(self.try_lock_async(name, time))?
    }

    /// Asynchronous form of [`try_lock`](Self::try_lock): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`try_lock`](Self::try_lock).
    pub async fn try_lock_async(
        &self,
        name: &str,
        time: Duration,
    ) -> Result<Option<LockGuard>, TierError> {
        let shared = &self.shared;
        let (key, content_id) = (name.as_bytes().to_vec(), shared.content_ids.next());
        let until = shared.clock.now().saturating_add(nanos(time));
        let added = shared.tier.add(key.clone(), token(&key, content_id)?, time);
        // From here on it is given back if anything goes wrong.
        let mut held = LockGuard {
            shared: shared.clone(),
            key,
            content_id,
            number: 0,
            until,
            is_over: false,
        };
        if !added.await?.stored {
            held.is_over = true;
            return Ok(None);
        }
        held.number = shared.tier.incr_version(name.into()).await?;
        let stands = held.is_read_back().await?;
        if !stands || held.remaining().is_zero() {
            return Ok(None);
        }
        Ok(Some(held))
    }

    /// Takes a lock for a time, waiting for whoever holds it no longer than `max_wait`; `None` if that was too short.
    /// Woken by the tier's message.
    ///
    /// # Errors
    /// Those of [`try_lock`](Self::try_lock).
    ///
    /// ```
    /// # use larder::tier::{LockManager, MemoryServer};
    /// # use std::time::Duration;
    /// # let locks = LockManager::new(MemoryServer::new().tier());
    /// let held = locks.lock("report", Duration::from_secs(60), Duration::from_secs(5))?;
    /// assert!(held.is_some());
    /// # Ok::<(), larder::tier::TierError>(())
    /// ```
    pub fn lock(
        &self,
        name: &str,
        time: Duration,
        max_wait: Duration,
    ) -> Result<Option<LockGuard>, TierError> {
        block_on(self.lock_async(name, time, max_wait))?
    }

    /// Asynchronous form of [`lock`](Self::lock): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`try_lock`](Self::try_lock).
    pub async fn lock_async(
        &self,
        name: &str,
        time: Duration,
        max_wait: Duration,
    ) -> Result<Option<LockGuard>, TierError> {
        let shared = &self.shared;
        let end = shared.clock.now().saturating_add(nanos(max_wait));
        loop {
            let changed = shared.waiters.wait_for(name.as_bytes());
            if let Some(held) = self.try_lock_async(name, time).await? {
                return Ok(Some(held));
            }
            // The tier tells of changes of what has been read.
            let read = shared.tier.get_many(vec![name.as_bytes().to_vec()]);
            let is_free = read.await?.first().is_none_or(Option::is_none);
            let left = Duration::from_nanos(end.saturating_sub(shared.clock.now()));
            if left.is_zero() {
                return Ok(None);
            }
            if !is_free {
                // What expires may go unheard.
                with_timeout(changed, shared.tier.sleep(left.min(LOOK_AGAIN))).await;
            }
        }
    }
}

/// How long a waiting call goes without a look.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A content that says nothing but whose it is.
fn token(key: &[u8], content_id: ContentId) -> Result<Vec<u8>, TierError> {
    let token = Envelope {
        kind: Kind::Placeholder,
        codec: 0,
        schema: 0,
        content_id,
        created: 0,
        expires: u64::MAX,
        stale_until: u64::MAX,
        load_time: 0,
        tags: Vec::new(),
        payload: &[],
    };
    let token = token.encode(key, &EnvelopeLimits::default());
    token.map_err(|error| TierError::Unencodable(std::sync::Arc::new(error)))
}

impl LockGuard {
    /// Greater than that of everybody who held this lock before. Whatever the work is written to should refuse a lower
    /// one than it has seen.
    #[must_use]
    pub fn fencing_number(&self) -> u64 {
        self.number
    }

    /// How much of the lock's time is left, by the clock of this process; zero once it may be somebody else's.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        Duration::from_nanos(self.until.saturating_sub(self.shared.clock.now()))
    }

    /// Holds it for so long from now on; `false` if it is somebody else's, or nobody's, already. The number stays.
    ///
    /// # Errors
    /// The tier's. The lock's time is then as it was, at least.
    ///
    /// ```
    /// # use larder::tier::{LockManager, MemoryServer};
    /// # use std::time::Duration;
    /// # let locks = LockManager::new(MemoryServer::new().tier());
    /// let mut held = locks.try_lock("report", Duration::from_secs(1))?.expect("free");
    /// assert!(held.extend(Duration::from_secs(60))?);
    /// assert!(held.remaining() > Duration::from_secs(30));
    /// # Ok::<(), larder::tier::TierError>(())
    /// ```
    pub fn extend(&mut self, time: Duration) -> Result<bool, TierError> {
        block_on(self.extend_async(time))?
    }

    /// Asynchronous form of [`extend`](Self::extend): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`extend`](Self::extend).
    pub async fn extend_async(&mut self, time: Duration) -> Result<bool, TierError> {
        let until = self.shared.clock.now().saturating_add(nanos(time));
        // The same token once more: whoever reads it back, now or after an answer that was lost, knows it.
        let token = token(&self.key, self.content_id)?;
        let put = self
            .shared
            .tier
            .compare_and_set(self.key.clone(), token, self.content_id, time);
        if put.await? {
            self.until = until;
            return Ok(true);
        }
        self.is_over = true;
        self.until = 0;
        Ok(false)
    }

    /// Gives it back, and says whether it was held to the end: `false` means that its time had run out, and that
    /// somebody else may have done the same work.
    ///
    /// # Errors
    /// The tier's. The lock ends with its time.
    pub fn unlock(self) -> Result<bool, TierError> {
        block_on(self.unlock_async())?
    }

    /// Asynchronous form of [`unlock`](Self::unlock): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`unlock`](Self::unlock).
    pub async fn unlock_async(mut self) -> Result<bool, TierError> {
        self.is_over = true;
        self.shared
            .tier
            .remove(self.key.clone(), self.content_id)
            .await
    }

    async fn is_read_back(&self) -> Result<bool, TierError> {
        let found = self.shared.tier.get_many(vec![self.key.clone()]).await?;
        let found = found.into_iter().next().flatten();
        Ok(found.is_some_and(|found| content_id_of(&found) == Some(self.content_id)))
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if !self.is_over {
            // It is on its way from the call on; nobody waits.
            drop(self.shared.tier.remove(self.key.clone(), self.content_id));
        }
    }
}
