//! Loading values again where no caller waits for it: with the attached loaders, on threads of a small pool or
//! wherever the builder was told.

use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::attached::{LoadFuture, either, shared};
use super::executor::{Background, Job};
use super::observe::span::LoadSpan;
use super::step::unless_nothing_is_unchanged;
use super::timeout::Errand;
use super::{Cache, Inner};
use crate::entry::Loaded;
use crate::entry::generation::Namespace;
use crate::entry::removal::drop_catching;
use crate::load::Lead;
use crate::util::error::LoadError;
use crate::util::sync::{Arc, Weak};

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

    /// Has the attached loader run for a lead. `false`: nobody can run it, and the lead, dropped, leaves the key to
    /// the next.
    pub(super) fn run_on_a_thread(&self, mut lead: Lead<K, V>, errand: Errand) -> bool {
        let home = self.home();
        // Made here: it belongs to what this call belongs to.
        let span = LoadSpan::new(self.label(), name_of(errand));
        if errand == Errand::Refresh {
            lead.hand_over();
        }
        let job: Job = Box::new(move || {
            let Some(cache) = home.cache() else { return };
            let Some(loader) = &cache.inner.rules.loader else {
                return;
            };
            if !begins(&mut lead, errand) {
                return;
            }
            let running = (lead.node().enter(), span.enter());
            let answer = catch_unwind(AssertUnwindSafe(|| {
                (loader.call)(lead.key(), lead.previous())
            }));
            drop(running);
            match answer {
                Ok(answer) => cache.finish_in_background(lead, errand, answer.map_err(shared)),
                Err(panic) => cache.died_in_background(errand, panic),
            }
        });
        let taken = match &self.inner.background {
            Some(Background::Threads(pool)) => pool.run(job).map_err(drop_catching).is_ok(),
            Some(Background::Given(spawn)) => catching(|| spawn(job)).is_some(),
            None => false,
        };
        self.count_refusal(errand, taken);
        taken
    }

    /// The same with the attached loader for tasks.
    pub(super) fn run_in_a_task(&self, mut lead: Lead<K, V>, errand: Errand) -> bool {
        let (Some(spawn), Some(loader)) = (&self.inner.spawn_task, &self.inner.rules.async_loader)
        else {
            return false;
        };
        let home = self.home();
        let span = LoadSpan::new(self.label(), name_of(errand));
        let key = lead.key().clone();
        let taken = catching(|| {
            let running = (lead.node().enter(), span.enter());
            let load = (loader.call)(key, lead.previous().cloned());
            drop(running);
            if errand == Errand::Refresh {
                lead.hand_over();
            }
            spawn(Box::pin(async move {
                if !begins(&mut lead, errand) {
                    return;
                }
                let answer = guarded(&lead, &span, load).await;
                let Some(cache) = home.cache() else { return };
                match answer {
                    Ok(answer) => {
                        cache.finish_in_background(lead, errand, answer.map_err(shared));
                    }
                    Err(panic) => cache.died_in_background(errand, panic),
                }
            }));
        });
        self.count_refusal(errand, taken.is_some());
        taken.is_some()
    }

    fn count_refusal(&self, errand: Errand, taken: bool) {
        if errand == Errand::Refresh && !taken {
            self.inner.store.counters.refresh_refusal();
        }
    }

    /// Ends a load whose value nobody waits for. A failure is counted as one of a refresh, whatever the value is
    /// that is there.
    fn finish_in_background(
        &self,
        lead: Lead<K, V>,
        errand: Errand,
        answer: Result<Loaded<V>, LoadError>,
    ) {
        let answer = unless_nothing_is_unchanged(answer, lead.previous().is_some()).map_err(either);
        let well = answer.is_ok();
        // The weigher, say, is the user's, and its panic nobody's here.
        let finished = catching(
            || match self.finish(lead, answer, LoadError::clone, false) {
                Ok(value) => drop_catching(value),
                Err(error) => drop_catching(error),
            },
        );
        if !well || finished.is_none() {
            self.count_failed(errand);
        }
    }

    /// The loader panicked: the lead, dropped, has left the key to the next.
    fn died_in_background(&self, errand: Errand, panic: Box<dyn std::any::Any + Send>) {
        drop_catching(panic);
        self.count_failed(errand);
    }

    /// What a call waits for is counted as its load.
    fn count_failed(&self, errand: Errand) {
        if errand == Errand::Refresh {
            self.inner.store.counters.refresh_failure();
        }
    }
}

/// A loader begins for a lead that was handed to whoever runs it. `false`: it need not, or may not.
fn begins<K, V>(lead: &mut Lead<K, V>, errand: Errand) -> bool {
    match errand {
        Errand::Refresh => lead.begin_now(),
        Errand::Load => lead.begin_elsewhere(),
    }
}

impl<K, V, S> Home<K, V, S> {
    fn cache(&self) -> Option<Cache<K, V, S>> {
        Some(Cache::of(
            self.inner.upgrade()?,
            Arc::clone(&self.namespace),
        ))
    }
}

/// What an attached loader's future comes to, or its panic, on the stack of loads while it is polled.
async fn guarded<K, V>(
    lead: &Lead<K, V>,
    span: &LoadSpan,
    mut load: LoadFuture<V>,
) -> std::thread::Result<<LoadFuture<V> as Future>::Output> {
    let answer = poll_fn(|context| {
        let _running = (lead.node().enter(), span.enter());
        match catch_unwind(AssertUnwindSafe(|| load.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await;
    drop_catching(load);
    answer
}

fn name_of(errand: Errand) -> &'static str {
    match errand {
        Errand::Refresh => "refresh",
        Errand::Load => "miss",
    }
}

/// What a function of the user's returns, unless it panics.
fn catching<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(drop_catching)
        .ok()
}
