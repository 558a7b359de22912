//! A tier in memory each of whose commands waits for its turn, and so do the messages about changes, which come to a
//! process in their order.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use larder::tier::{
    AddReply, Change, ContentId, FlushCause, MemoryTier, Tier, TierFuture, TierListener,
};
use parking_lot::Mutex;

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bug {
    None,
    /// A put is made whatever stands there.
    NoFence,
    /// Messages get lost.
    Deaf,
    /// A write's own process is not told of it before the answer.
    NoDetach,
}

thread_local! {
    /// Which task is being polled.
    pub(crate) static TASK: Cell<usize> = const { Cell::new(0) };
}

/// Everything that waits for its turn.
#[derive(Default)]
pub(crate) struct Turns {
    /// Who waits, and the turn.
    pub(crate) waiting: Mutex<Vec<(usize, Arc<AtomicBool>)>>,
    pub(crate) messages: Mutex<Vec<VecDeque<Message>>>,
}

pub(crate) type Message = (Weak<dyn TierListener>, Vec<Change>);

impl Turns {
    pub(crate) fn take(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
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
pub(crate) struct Stepped {
    pub(crate) inner: Arc<MemoryTier>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) process: usize,
    pub(crate) bug: Bug,
    pub(crate) ear: Mutex<Option<Arc<Ear>>>,
}

/// Hears of changes at once, and passes them on in their turn; but at once what the process does itself.
pub(crate) struct Ear {
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

    fn connection_changed(&self, up: bool) {
        if let Some(listener) = self.listener.upgrade() {
            listener.connection_changed(up);
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
    fn add(&self, key: Vec<u8>, content: Vec<u8>, time: Duration) -> TierFuture<AddReply> {
        self.step(move |tier| tier.add(key, content, time))
    }
    fn set_placeholder(&self, key: Vec<u8>, content: Vec<u8>, time: Duration) -> TierFuture<u64> {
        self.step(move |tier| tier.set_placeholder(key, content, time))
    }
    fn compare_and_set(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        over: ContentId,
        time: Duration,
    ) -> TierFuture<bool> {
        let bug = self.bug;
        self.step(move |tier| {
            if bug != Bug::NoFence {
                return tier.compare_and_set(key, content, over, time);
            }
            // Whatever stands there, it is said to have been the right one.
            drop(tier.set_placeholder(key.clone(), content.clone(), time));
            Box::pin(std::future::ready(Ok(true)))
        })
    }
    fn remove(&self, key: Vec<u8>, over: ContentId) -> TierFuture<bool> {
        self.step(move |tier| tier.remove(key, over))
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
    fn init_versions(&self, names: Vec<Box<str>>) -> TierFuture<()> {
        self.step(move |tier| tier.init_versions(names))
    }
    fn incr_version(&self, name: Box<str>) -> TierFuture<u64> {
        self.step(|tier| tier.incr_version(name))
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
