//! A tier in memory that counts what it is asked, holds calls of a kind back, refuses them, or keeps from its process
//! what others have changed. Futures over it are polled by hand: nobody is woken when a call is let go.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use larder::ManualClock;
use larder::tier::{
    AddReply, Change, ContentId, FlushCause, MemoryServer, MemoryTier, Tier, TierError, TierFuture,
    TierListener, Tiered, TieredBuilder,
};
use parking_lot::Mutex;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) type Node = Tiered<String, u64>;

/// What is done to the calls, by their names.
#[derive(Default)]
pub(crate) struct Reins {
    asked: Mutex<BTreeMap<&'static str, u64>>,
    held: Mutex<BTreeSet<&'static str>>,
    refused: Mutex<BTreeMap<&'static str, TierError>>,
    /// Messages about keys are set aside, as on Redis while a fenced write of the key is on its way.
    deaf: AtomicBool,
}

impl Reins {
    pub(crate) fn hold(&self, call: &'static str) {
        self.held.lock().insert(call);
    }

    pub(crate) fn let_go(&self, call: &'static str) {
        self.held.lock().remove(call);
    }

    pub(crate) fn refuse(&self, call: &'static str, error: TierError) {
        self.refused.lock().insert(call, error);
    }

    pub(crate) fn refuse_nothing(&self) {
        self.refused.lock().clear();
    }

    pub(crate) fn hear(&self, hears: bool) {
        self.deaf.store(!hears, Relaxed);
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut *self.asked.lock())
    }
}

/// A process's tier.
pub(crate) struct Held {
    inner: Arc<MemoryTier>,
    reins: Arc<Reins>,
    ear: Mutex<Option<Arc<Ear>>>,
}

struct Ear {
    listener: Weak<dyn TierListener>,
    reins: Arc<Reins>,
}

impl TierListener for Ear {
    fn changed(&self, changes: &[Change]) {
        let is_heard =
            |change: &&Change| !self.reins.deaf.load(Relaxed) || !matches!(change, Change::Key(_));
        let heard: Vec<Change> = changes.iter().filter(is_heard).cloned().collect();
        self.listener.upgrade().unwrap().changed(&heard);
    }
    fn flushed(&self, cause: FlushCause) {
        self.listener.upgrade().unwrap().flushed(cause);
    }
    fn connection_changed(&self, up: bool) {
        self.listener.upgrade().unwrap().connection_changed(up);
    }
}

impl Held {
    fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        call: impl FnOnce(&MemoryTier) -> TierFuture<T> + Send + 'static,
    ) -> TierFuture<T> {
        *self.reins.asked.lock().entry(name).or_default() += 1;
        if let Some(error) = self.reins.refused.lock().get(name) {
            return Box::pin(ready(Err(error.clone())));
        }
        if !self.reins.held.lock().contains(name) {
            return call(&self.inner);
        }
        let (reins, inner) = (self.reins.clone(), self.inner.clone());
        Box::pin(async move {
            let turn = |_: &mut Context<'_>| match reins.held.lock().contains(name) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            };
            poll_fn(turn).await;
            call(&inner).await
        })
    }
}

impl Tier for Held {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<Vec<Option<Vec<u8>>>> {
        self.call("get_many", |tier| tier.get_many(keys))
    }
    fn add(&self, key: Vec<u8>, content: Vec<u8>, time: Duration) -> TierFuture<AddReply> {
        self.call("add", move |tier| tier.add(key, content, time))
    }
    fn set_placeholder(&self, key: Vec<u8>, content: Vec<u8>, time: Duration) -> TierFuture<u64> {
        self.call("seize", move |tier| {
            tier.set_placeholder(key, content, time)
        })
    }
    fn compare_and_set(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        over: ContentId,
        time: Duration,
    ) -> TierFuture<bool> {
        self.call("put", move |tier| {
            tier.compare_and_set(key, content, over, time)
        })
    }
    fn remove(&self, key: Vec<u8>, over: ContentId) -> TierFuture<bool> {
        self.call("remove", move |tier| tier.remove(key, over))
    }
    fn remove_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<u64> {
        self.call("remove_many", |tier| tier.remove_many(keys))
    }
    fn versions(&self, names: Vec<Box<str>>) -> TierFuture<Vec<Option<u64>>> {
        self.call("versions", |tier| tier.versions(names))
    }
    fn sequence(&self) -> TierFuture<u64> {
        self.call("sequence", |tier| tier.sequence())
    }
    fn init_versions(&self, names: Vec<Box<str>>) -> TierFuture<()> {
        self.call("settle", move |tier| tier.init_versions(names))
    }
    fn incr_version(&self, name: Box<str>) -> TierFuture<u64> {
        self.call("bump", |tier| tier.incr_version(name))
    }
    fn listen(&self, listener: Weak<dyn TierListener>) {
        let ear = Arc::new(Ear {
            listener,
            reins: self.reins.clone(),
        });
        *self.ear.lock() = Some(ear.clone());
        let heard: Arc<dyn TierListener> = ear;
        self.inner.listen(Arc::downgrade(&heard));
    }
    fn timeout(&self) -> Duration {
        self.inner.timeout()
    }
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.inner.sleep(time)
    }
}

/// A server in memory, and a clock that is turned by hand.
pub(crate) struct World {
    pub(crate) time: ManualClock,
    pub(crate) server: MemoryServer,
}

impl World {
    pub(crate) fn new() -> Self {
        let time = ManualClock::new();
        let server = MemoryServer::with_clock(time.clock());
        World { time, server }
    }

    /// A process's tier, and its reins.
    pub(crate) fn held(&self) -> (Held, Arc<Reins>) {
        let reins = Arc::new(Reins::default());
        let held = Held {
            inner: Arc::new(self.server.tier()),
            reins: reins.clone(),
            ear: Mutex::new(None),
        };
        (held, reins)
    }

    /// Values live for a hundred seconds, and for ten in a process's L1.
    pub(crate) fn over(&self, tier: impl Tier) -> TieredBuilder<String, u64> {
        Tiered::builder(tier)
            .max_capacity(1_000)
            .clock(self.time.clock())
            .time_to_live(SECOND * 100)
            .l1_time_to_live(SECOND * 10)
    }

    pub(crate) fn builder(&self) -> TieredBuilder<String, u64> {
        self.over(self.server.tier())
    }

    /// A process that is past its first value.
    pub(crate) fn node(&self) -> Node {
        warm(self.builder())
    }

    /// A process that is past its first value, with reins on its tier.
    pub(crate) fn held_node(
        &self,
        set: impl FnOnce(TieredBuilder<String, u64>) -> TieredBuilder<String, u64>,
    ) -> (Node, Arc<Reins>) {
        let (held, reins) = self.held();
        let node = warm(set(self.over(held)));
        reins.asked();
        (node, reins)
    }

    /// Whether anything stands in the shared tier under a key, be it a placeholder.
    pub(crate) fn stands(&self, key: &str) -> bool {
        let place = format!(":{key}").into_bytes();
        let found = pollster::block_on(self.server.tier().get_many(vec![place]));
        found.unwrap()[0].is_some()
    }
}

/// What every value is valid for has a version, and the process knows it.
fn warm(builder: TieredBuilder<String, u64>) -> Node {
    let node = builder.build().unwrap();
    node.get_or_load("warm", || 0).unwrap();
    node
}

/// A future that is polled by hand.
pub(crate) type Task<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Its output, if it has come so far.
pub(crate) fn poll<T>(task: &mut Task<'_, T>) -> Option<T> {
    match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// A load that cannot go on without its turn.
pub(crate) async fn once(turn: &AtomicBool, value: u64) -> u64 {
    poll_fn(|_| match turn.load(Relaxed) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
    value
}
