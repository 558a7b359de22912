//! Waiting without a runtime: for a change of a key, for the first of two futures, and blocking.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::contract::TierError;
use crate::util::sync::{Arc, Mutex};

/// Tasks that wait for keys to change.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<Vec<u8>, Waiting>>);

/// Those that wait for one key.
type Waiting = Vec<Arc<Mutex<WaitState>>>;

#[derive(Default)]
struct WaitState {
    changed: bool,
    waker: Option<Waker>,
}

/// A wait for a key; it ends at the first change after it was begun.
pub(super) struct ChangeWait<'a> {
    waiters: &'a Waiters,
    key: Vec<u8>,
    state: Arc<Mutex<WaitState>>,
}

impl Waiters {
    pub(super) fn wait_for(&self, key: &[u8]) -> ChangeWait<'_> {
        let state = Arc::default();
        let mut waiters = self.0.lock();
        waiters
            .entry(key.to_vec())
            .or_default()
            .push(Arc::clone(&state));
        drop(waiters);
        ChangeWait {
            waiters: self,
            key: key.to_vec(),
            state,
        }
    }

    pub(super) fn changed(&self, key: &[u8]) {
        let waiting = self.0.lock().remove(key);
        waiting.into_iter().flatten().for_each(|state| wake(&state));
    }

    pub(super) fn everything_changed(&self) {
        let waiting = std::mem::take(&mut *self.0.lock());
        waiting
            .into_values()
            .flatten()
            .for_each(|state| wake(&state));
    }
}

/// Wakes with no lock held: a waker is the user's code.
fn wake(state: &Mutex<WaitState>) {
    let waker = {
        let mut state = state.lock();
        state.changed = true;
        state.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Future for ChangeWait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let mut state = self.state.lock();
        if state.changed {
            return Poll::Ready(());
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for ChangeWait<'_> {
    fn drop(&mut self) {
        let mut waiters = self.waiters.0.lock();
        if let Some(waiting) = waiters.get_mut(&self.key) {
            waiting.retain(|state| !Arc::ptr_eq(state, &self.state));
            if waiting.is_empty() {
                waiters.remove(&self.key);
            }
        }
    }
}

/// The first's output, unless the second ends before it.
pub(super) async fn with_timeout<T>(
    first: impl Future<Output = T>,
    second: impl Future<Output = ()>,
) -> Option<T> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| {
        if let Poll::Ready(output) = first.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        second.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// The output of whichever ends first.
#[cfg(feature = "redis")]
pub(super) async fn first<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| match one.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(output),
        Poll::Pending => other.as_mut().poll(context),
    })
    .await
}

/// All outputs, in order; all are under way together.
pub(super) async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                if let Poll::Ready(ready) = future.as_mut().poll(context) {
                    *output = Some(ready);
                }
            }
        }
        if outputs.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

thread_local! {
    /// Whether this is a tier's own thread, whose work everybody waits for.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread runs a tier.
#[cfg(feature = "redis")]
pub(super) fn this_thread_runs_a_tier() {
    OWN.set(true);
}

/// Waits for a future on this thread.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, TierError> {
    let mut future = pin!(future);
    // A hit is ready at once, and needs no waker.
    if let Poll::Ready(output) = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        return Ok(output);
    }
    if OWN.try_with(Cell::get) == Ok(true) {
        return Err(TierError::OwnThread);
    }
    Ok(pollster::block_on(future))
}
