//! Loading values again where no caller waits for it: with the attached loaders, on threads of a small pool or
//! wherever the builder was told.

use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::attached::{LoadFuture, either, shared};
use super::executor::{Executor, Job};
use super::observe::span::LoadSpan;
use super::step::unless_nothing_is_unchanged;
use super::timeout::LoadReason;
use super::{Cache, CacheInner};
use crate::entry::Loaded;
use crate::entry::generation::Namespace;
use crate::entry::removal::drop_catching;
use crate::load::LeaderGuard;
use crate::util::error::LoadError;
use crate::util::sync::{Arc, Weak};

/// What a job keeps of its cache: enough to end a load, and not enough to keep it alive.
struct WeakCache<K, V, S> {
    inner: Weak<CacheInner<K, V, S>>,
    namespace: Arc<Namespace>,
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    fn weak(&self) -> WeakCache<K, V, S> {
        WeakCache {
            inner: Arc::downgrade(&self.inner),
            namespace: Arc::clone(&self.namespace),
        }
    }

    /// Runs the attached loader for a leader on a thread of the executor. Returns `false` if no thread can run it: the
    /// leader is dropped, which leaves the key to the next.
    pub(super) fn run_on_a_thread(
        &self,
        mut leader: LeaderGuard<K, V>,
        reason: LoadReason,
    ) -> bool {
        let weak = self.weak();
        // Made here: it belongs to what this call belongs to.
        let span = LoadSpan::new(self.label(), name_of(reason));
        if reason == LoadReason::Refresh {
            leader.queue_refresh();
        }
        let unbegun = UnbegunJob::unless_begun(&weak, reason);
        let job: Job = Box::new(move || {
            unbegun.begun();
            let Some(cache) = weak.cache() else { return };
            let Some(loader) = &cache.inner.rules.loader else {
                return;
            };
            let pressing =
                matches!(&cache.inner.executor, Some(Executor::Threads(pool)) if pool.is_long());
            if !begins(&mut leader, reason, pressing) {
                return;
            }
            let running = (leader.load_id().enter(), span.enter());
            let answer = catch_unwind(AssertUnwindSafe(|| {
                (loader.call)(leader.key(), leader.previous())
            }));
            drop(running);
            match answer {
                Ok(answer) => cache.finish_in_background(leader, reason, answer.map_err(shared)),
                Err(panic) => cache.died_in_background(reason, panic),
            }
        });
        match &self.inner.executor {
            Some(Executor::Threads(pool)) => {
                let awaited = reason == LoadReason::Load;
                pool.run(job, awaited).map_err(drop_catching).is_ok()
            }
            Some(Executor::Given(spawn)) => catching(|| spawn(job)).is_some(),
            None => false,
        }
    }

    /// Spawns a task that runs the attached asynchronous loader for a leader. Returns `false` if there is no spawner
    /// or it panics: the leader is dropped, and the key is free for the next caller.
    pub(super) fn run_in_a_task(&self, mut leader: LeaderGuard<K, V>, reason: LoadReason) -> bool {
        let (Some(spawn), Some(loader)) = (&self.inner.spawner, &self.inner.rules.async_loader)
        else {
            return false;
        };
        let weak = self.weak();
        let span = LoadSpan::new(self.label(), name_of(reason));
        let key = leader.key().clone();
        let taken = catching(|| {
            let running = (leader.load_id().enter(), span.enter());
            let load = (loader.call)(key, leader.previous().cloned());
            drop(running);
            if reason == LoadReason::Refresh {
                leader.queue_refresh();
            }
            let unbegun = UnbegunJob::unless_begun(&weak, reason);
            spawn(Box::pin(async move {
                unbegun.begun();
                if !begins(&mut leader, reason, false) {
                    return;
                }
                let answer = guarded(&leader, &span, load).await;
                let Some(cache) = weak.cache() else { return };
                match answer {
                    Ok(answer) => {
                        cache.finish_in_background(leader, reason, answer.map_err(shared));
                    }
                    Err(panic) => cache.died_in_background(reason, panic),
                }
            }));
        });
        taken.is_some()
    }

    /// Ends a load whose value nobody waits for. A failure is counted as one of a refresh, whatever the value is
    /// that is there.
    fn finish_in_background(
        &self,
        leader: LeaderGuard<K, V>,
        reason: LoadReason,
        answer: Result<Loaded<V>, LoadError>,
    ) {
        let answer =
            unless_nothing_is_unchanged(answer, leader.previous().is_some()).map_err(either);
        let well = answer.is_ok();
        // The weigher, say, is the user's, and its panic nobody's here.
        let finished = catching(
            || match self.finish(leader, answer, LoadError::clone, false) {
                Ok(value) => drop_catching(value),
                Err(error) => drop_catching(error),
            },
        );
        if !well || finished.is_none() {
            self.count_failed(reason);
        }
    }

    /// The loader panicked: the leader was dropped, which left the key to the next caller.
    fn died_in_background(&self, reason: LoadReason, panic: Box<dyn std::any::Any + Send>) {
        drop_catching(panic);
        self.count_failed(reason);
    }

    /// What a call waits for is counted as its load.
    fn count_failed(&self, reason: LoadReason) {
        if reason == LoadReason::Refresh {
            self.inner.store.counters.refresh_failure();
        }
    }
}

/// Notes that the loader of a queued leader begins. Returns `false` if it need not run, or may not.
fn begins<K, V>(leader: &mut LeaderGuard<K, V>, reason: LoadReason, pressing: bool) -> bool {
    match reason {
        LoadReason::Refresh => leader.begin_queued_refresh(),
        LoadReason::Load => leader.begin_queued_load(pressing),
    }
}

/// Counts a refresh that was not taken, or was dropped before it began: goes with the job.
struct UnbegunJob<K, V, S>(Option<Weak<CacheInner<K, V, S>>>);

impl<K, V, S> UnbegunJob<K, V, S> {
    fn unless_begun(cache: &WeakCache<K, V, S>, reason: LoadReason) -> Self {
        UnbegunJob((reason == LoadReason::Refresh).then(|| Weak::clone(&cache.inner)))
    }

    /// The job is being run.
    fn begun(mut self) {
        self.0 = None;
    }
}

impl<K, V, S> Drop for UnbegunJob<K, V, S> {
    fn drop(&mut self) {
        if let Some(cache) = self.0.take().and_then(|cache| cache.upgrade()) {
            cache.store.counters.refresh_refusal();
        }
    }
}

impl<K, V, S> WeakCache<K, V, S> {
    fn cache(&self) -> Option<Cache<K, V, S>> {
        Some(Cache::of(
            self.inner.upgrade()?,
            Arc::clone(&self.namespace),
        ))
    }
}

/// What an attached loader's future comes to, or its panic, on the stack of loads while it is polled.
async fn guarded<K, V>(
    leader: &LeaderGuard<K, V>,
    span: &LoadSpan,
    mut load: LoadFuture<V>,
) -> std::thread::Result<<LoadFuture<V> as Future>::Output> {
    let answer = poll_fn(|context| {
        let _running = (leader.load_id().enter(), span.enter());
        match catch_unwind(AssertUnwindSafe(|| load.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await;
    drop_catching(load);
    answer
}

fn name_of(reason: LoadReason) -> &'static str {
    match reason {
        LoadReason::Refresh => "refresh",
        LoadReason::Load => "miss",
    }
}

/// What a function of the user's returns, unless it panics.
fn catching<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(drop_catching)
        .ok()
}
