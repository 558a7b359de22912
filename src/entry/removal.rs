//! Values on their way out: why they left ([`RemovalCause`]), the batch in which they leave a locked
//! shard, and the listener that hears of them once the lock is gone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::util::sync::Mutex;
use crate::util::sync::atomic::{AtomicU64, Ordering};

/// Why a value left the cache.
///
/// ```
/// use larder::RemovalCause;
///
/// assert!(RemovalCause::Size.was_evicted());
/// assert!(!RemovalCause::Replaced.was_evicted());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemovalCause {
    /// A call removed it: `remove`, `invalidate`, `remove_if`, `retain`, `compute`, a `touch` with a
    /// time of zero, or a write that was itself refused.
    Explicit,
    /// A new value took its place.
    Replaced,
    /// Its time was up. It is told when the slot is reclaimed, which can be later.
    Expired,
    /// It had to make room.
    Size,
    /// `clear`, a namespace's `clear` or `invalidate_tag` killed it. It is told when the slot is
    /// reclaimed, which can be later.
    Invalidated,
}

impl RemovalCause {
    /// Whether the cache let the value go by itself ([`Size`](Self::Size), [`Expired`](Self::Expired))
    /// rather than on a caller's order.
    ///
    /// ```
    /// assert!(larder::RemovalCause::Expired.was_evicted());
    /// ```
    pub fn was_evicted(self) -> bool {
        matches!(self, RemovalCause::Size | RemovalCause::Expired)
    }
}

/// One value that left a shard, with its key.
pub(crate) struct RemovedEntry<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) cause: RemovalCause,
    pub(crate) weight: u64,
    pub(crate) namespace: u32,
    pub(crate) epoch: u64,
}

/// What left a shard in one critical section. The first is kept inline: most calls remove at most one
/// value, and those allocate nothing.
pub(crate) struct RemovedBatch<K, V> {
    first: Option<RemovedEntry<K, V>>,
    rest: Vec<RemovedEntry<K, V>>,
}

impl<K, V> RemovedBatch<K, V> {
    pub(crate) fn new() -> Self {
        RemovedBatch {
            first: None,
            rest: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, gone: RemovedEntry<K, V>) {
        if self.first.is_none() {
            self.first = Some(gone);
        } else {
            self.push_more(gone);
        }
    }

    #[cold]
    fn push_more(&mut self, gone: RemovedEntry<K, V>) {
        self.rest.push(gone);
    }

    pub(crate) fn extend(&mut self, gone: Option<RemovedEntry<K, V>>) {
        if let Some(gone) = gone {
            self.push(gone);
        }
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<&RemovedEntry<K, V>> {
        self.first.as_ref()
    }

    #[inline]
    pub(crate) fn take_first(&mut self) -> Option<RemovedEntry<K, V>> {
        self.first.take()
    }

    /// All but the first.
    #[inline]
    pub(crate) fn take_rest(&mut self) -> Option<Vec<RemovedEntry<K, V>>> {
        (!self.rest.is_empty()).then(|| std::mem::take(&mut self.rest))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &RemovedEntry<K, V>> {
        self.first.iter().chain(&self.rest)
    }
}

/// A removal listener, and the means to copy a value for it.
pub(crate) type Listener<K, V> = (Box<dyn Fn(&K, &V, RemovalCause) + Send + Sync>, fn(&V) -> V);

/// A removal that waits for the listener on the thread that it happened on.
struct QueuedRemoval<K, V> {
    teller: Option<usize>,
    key: K,
    value: V,
    cause: RemovalCause,
}

/// Calls the removal listener, outside locks, never nested.
///
/// A listener may use the cache. What that removes is queued, and told by the call that is already
/// telling, after it returns from the listener. Values that go back to the caller cannot wait in a
/// queue, so a copy does: hence `clone`, taken where the builder knows `V: Clone`.
pub(crate) struct Notifier<K, V> {
    listener: Option<Listener<K, V>>,
    /// What listeners removed while they ran, and on which thread.
    queue: Mutex<VecDeque<QueuedRemoval<K, V>>>,
    panics: AtomicU64,
}

crate::util::sync::thread_local! {
    /// The notifiers (by address) whose listener is running on this thread.
    static TELLING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

impl<K, V> Notifier<K, V> {
    pub(crate) fn new(listener: Option<Listener<K, V>>) -> Self {
        Notifier {
            listener,
            queue: Mutex::new(VecDeque::new()),
            panics: AtomicU64::new(0),
        }
    }

    /// How often the listener panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Whether a removed value needs no further work: there is no listener, and dropping it does nothing.
    #[inline]
    pub(crate) fn is_indifferent(&self) -> bool {
        self.listener.is_none() && !std::mem::needs_drop::<(K, V)>()
    }

    /// Tells of a value that is dropped afterwards.
    #[inline]
    pub(crate) fn tell(&self, key: K, value: V, cause: RemovalCause) {
        if self.listener.is_none() {
            drop_catching(key);
            drop_catching(value);
        } else if self.is_telling() {
            self.enqueue(key, value, cause);
        } else {
            self.call(&key, &value, cause);
            drop_catching(key);
            drop_catching(value);
        }
    }

    /// Tells of a value that goes back to the caller.
    pub(crate) fn tell_and_return(&self, key: K, value: V, cause: RemovalCause) -> V {
        match &self.listener {
            Some((_, clone)) if self.is_telling() => {
                match catch_unwind(AssertUnwindSafe(|| clone(&value))) {
                    Ok(copy) => self.enqueue(key, copy, cause),
                    Err(panic) => {
                        // Nothing is left that could wait: told now, nested, rather than not at all.
                        drop_catching(panic);
                        self.call(&key, &value, cause);
                        drop_catching(key);
                    }
                }
            }
            Some(_) => {
                self.call(&key, &value, cause);
                drop_catching(key);
            }
            None => drop_catching(key),
        }
        value
    }

    /// Queues an event that was raised inside the listener, for the call that runs it.
    fn enqueue(&self, key: K, value: V, cause: RemovalCause) {
        let event = QueuedRemoval {
            teller: teller(),
            key,
            value,
            cause,
        };
        self.queue.lock().push_back(event);
    }

    /// The next event that the listener raised on this thread.
    fn next_queued(&self) -> Option<QueuedRemoval<K, V>> {
        let teller = teller();
        let mut queue = self.queue.lock();
        let at = queue.iter().position(|event| event.teller == teller)?;
        queue.remove(at)
    }

    fn is_telling(&self) -> bool {
        // A thread that is ending has given its list up: nobody is telling on it any more.
        TELLING
            .try_with(|telling| telling.borrow().contains(&self.address()))
            .unwrap_or(false)
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Calls the listener, then once for every event raised meanwhile inside it.
    fn call(&self, key: &K, value: &V, cause: RemovalCause) {
        let Some(listener) = &self.listener else {
            return;
        };
        let _ = TELLING.try_with(|telling| telling.borrow_mut().push(self.address()));
        self.call_once(listener, key, value, cause);
        while let Some(event) = self.next_queued() {
            self.call_once(listener, &event.key, &event.value, event.cause);
            drop_catching(event.key);
            drop_catching(event.value);
        }
        let _ = TELLING.try_with(|telling| telling.borrow_mut().pop());
    }

    fn call_once(&self, listener: &Listener<K, V>, key: &K, value: &V, cause: RemovalCause) {
        if call_catching(|| (listener.0)(key, value, cause)) {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What tells this thread from all others that are alive: where its list of notifiers lies.
fn teller() -> Option<usize> {
    TELLING
        .try_with(|telling| std::ptr::from_ref(telling).addr())
        .ok()
}

/// Drops a value of the user's. A panic in its `Drop` ends here: the value belongs to some earlier
/// caller, and whoever happens to evict it must not suffer for it. One value a call: two that panic
/// within one unwinding would end the process.
pub(crate) fn drop_catching<T>(value: T) {
    if std::mem::needs_drop::<T>() {
        call_catching(move || drop(value));
    }
}

/// Calls user code whose panic must end here. Returns whether it panicked.
pub(crate) fn call_catching(call: impl FnOnce()) -> bool {
    let Err(payload) = catch_unwind(AssertUnwindSafe(call)) else {
        return false;
    };
    // What was thrown is user code, too, and may throw in its own `Drop`. That is where it ends.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(payload);
    }
    true
}
