//! Loads as tasks: polled by hand, a few at a time, and some of them dropped halfway.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::calls::{Caller, Strings};
use crate::payload::Payload;

/// Wakes are counted and otherwise ignored: whoever polls here polls again anyway.
struct Wakes(AtomicU64);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Pending so many times, each time waking itself.
struct Steps(u64);

impl Future for Steps {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

type Task<'a> = Pin<Box<dyn Future<Output = Arc<Payload>> + 'a>>;

async fn load(cache: &Strings, key: String, steps: u64, fails: bool) -> Arc<Payload> {
    let loaded = cache.try_get_or_load_async(&key, || async {
        Steps(steps).await;
        if fails {
            Err("planned")
        } else {
            Ok(Payload::new(&key, 40))
        }
    });
    match loaded.await {
        Ok(value) => value,
        // Then for oneself, and published or not.
        Err(_) => {
            cache
                .get_or_load_async(&key, || async {
                    Steps(1).await;
                    Payload::new(&key, 41)
                })
                .await
        }
    }
}

/// Three tasks over two keys. A thread that has tasks under way calls nothing that parks: it may itself
/// be the one that leads.
pub(crate) fn run(caller: &mut Caller<'_>) {
    let keys = [caller.key(), caller.key()];
    let mut tasks: Vec<(String, Option<Task<'_>>, Arc<Wakes>)> = Vec::new();
    for number in 0..3 {
        let key = keys[number % 2].clone();
        let (steps, fails) = (caller.chance.below(4), caller.chance.below(8) == 0);
        let task = load(caller.cache, key.clone(), steps, fails);
        tasks.push((
            key,
            Some(Box::pin(task)),
            Arc::new(Wakes(AtomicU64::new(0))),
        ));
    }
    while tasks.iter().any(|(_, task, _)| task.is_some()) {
        for (key, task, wakes) in &mut tasks {
            let Some(running) = task else { continue };
            // Another waker, now and then, as when a task moves to another executor.
            if caller.chance.below(8) == 0 {
                *wakes = Arc::new(Wakes(AtomicU64::new(0)));
            }
            let waker = Waker::from(Arc::clone(wakes));
            match running.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(value) => {
                    value.check(key);
                    *task = None;
                }
                Poll::Pending if caller.chance.below(10) == 0 => *task = None,
                Poll::Pending => std::thread::yield_now(),
            }
        }
    }
}
