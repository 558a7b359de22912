//! Loading values again where no caller waits for it: with the attached loaders, on threads of a small pool or
//! wherever the builder was told.

use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use super::load::shared;
use super::load_async::LoadFuture;
use super::pool::{Job, Pool};
use super::{Cache, Inner};
use crate::entry::Loaded;
use crate::error::LoadError;
use crate::generation::Namespace;
use crate::removal::contain_drop;
use crate::store::Lead;
use crate::sync::{Arc, Weak};

/// The future of a refresh.
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who runs refreshes with the attached loader for threads.
pub(super) enum Background {
    Threads(Pool),
    Given(Box<dyn Fn(Job) + Send + Sync>),
}

/// Who runs refreshes with the attached loader for tasks.
pub(super) type SpawnTask = Box<dyn Fn(Task) + Send + Sync>;

/// What a job keeps of its cache: enough to end a load, and not enough to keep it alive.
struct Home<K, V, S> {
    inner: Weak<Inner<K, V, S>>,
    namespace: Arc<Namespace>,
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    fn home(&self) -> Home<K, V, S> {
        Home {
            inner: Arc::downgrade(&self.inner),
            namespace: Arc::clone(&self.namespace),
        }
    }

    /// Has the attached loader load a value again. If nobody can run it, the lead, dropped, leaves the key to the
    /// next.
    pub(super) fn refresh_on_a_thread(&self, mut lead: Lead<K, V>) {
        let home = self.home();
        lead.hand_over();
        let job: Job = Box::new(move || {
            let Some(cache) = home.cache() else { return };
            let Some(loader) = &cache.inner.rules.loader else {
                return;
            };
            if !lead.begin_now() {
                return;
            }
            let running = lead.node().enter();
            let answer = catch_unwind(AssertUnwindSafe(|| {
                (loader.call)(lead.key(), lead.previous())
            }));
            drop(running);
            match answer {
                Ok(answer) => cache.finish_in_background(lead, answer.map_err(shared)),
                Err(panic) => cache.died_in_background(panic),
            }
        });
        let taken = match &self.inner.background {
            Some(Background::Threads(pool)) => pool.run(job).map_err(contain_drop).is_ok(),
            Some(Background::Given(spawn)) => contained(|| spawn(job)).is_some(),
            None => false,
        };
        self.count_unless(taken);
    }

    /// The same with the attached loader for tasks.
    pub(super) fn refresh_in_a_task(&self, mut lead: Lead<K, V>) {
        let (Some(spawn), Some(loader)) = (&self.inner.spawn_task, &self.inner.rules.async_loader)
        else {
            return;
        };
        let home = self.home();
        let key = lead.key().clone();
        let taken = contained(|| {
            let running = lead.node().enter();
            let load = (loader.call)(key, lead.previous().cloned());
            drop(running);
            lead.hand_over();
            spawn(Box::pin(async move {
                if !lead.begin_now() {
                    return;
                }
                let answer = guarded(&lead, load).await;
                let Some(cache) = home.cache() else { return };
                match answer {
                    Ok(answer) => {
                        cache.finish_in_background(lead, answer.map_err(shared));
                    }
                    Err(panic) => cache.died_in_background(panic),
                }
            }));
        });
        self.count_unless(taken.is_some());
    }

    fn count_unless(&self, taken: bool) {
        if !taken {
            self.inner.store.counters.refresh_refusal();
        }
    }

    /// Ends a load whose value nobody waits for. A failure is counted as one of a refresh, whatever the value is
    /// that is there.
    fn finish_in_background(&self, lead: Lead<K, V>, answer: Result<Loaded<V>, LoadError>) {
        let well = answer.is_ok();
        // The weigher, say, is the user's, and its panic nobody's here.
        let finished = contained(
            || match self.finish(lead, answer, LoadError::clone, false) {
                Ok(value) => contain_drop(value),
                Err(error) => contain_drop(error),
            },
        );
        if !well || finished.is_none() {
            self.inner.store.counters.refresh_failure();
        }
    }

    /// The loader panicked: the lead, dropped, has left the key to the next.
    fn died_in_background(&self, panic: Box<dyn std::any::Any + Send>) {
        contain_drop(panic);
        self.inner.store.counters.refresh_failure();
    }
}

impl<K, V, S> Home<K, V, S> {
    fn cache(&self) -> Option<Cache<K, V, S>> {
        Some(Cache {
            inner: self.inner.upgrade()?,
            namespace: Arc::clone(&self.namespace),
        })
    }
}

/// What an attached loader's future comes to, or its panic, on the stack of loads while it is polled.
async fn guarded<K, V>(
    lead: &Lead<K, V>,
    mut load: LoadFuture<V>,
) -> std::thread::Result<<LoadFuture<V> as Future>::Output> {
    let answer = poll_fn(|context| {
        let _running = lead.node().enter();
        match catch_unwind(AssertUnwindSafe(|| load.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await;
    contain_drop(load);
    answer
}

/// What a function of the user's returns, unless it panics.
fn contained<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(contain_drop)
        .ok()
}
