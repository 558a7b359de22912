//! A timer for a tier that has no runtime: a thread for each sleep that is waited for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::sync::Mutex;
use crate::time::{Clock, nanos};

/// Ends when the clock has reached its time.
pub(super) struct Sleep {
    clock: Clock,
    until: u64,
    /// Who waits, once a thread has been asked to wake them; emptied when the sleep is dropped, which ends the thread.
    waker: Option<Arc<Mutex<Option<Waker>>>>,
}

impl Sleep {
    pub(super) fn until(clock: Clock, time: Duration) -> Self {
        Sleep {
            until: clock.now().saturating_add(nanos(time)),
            clock,
            waker: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.until {
            return Poll::Ready(());
        }
        if let Some(waker) = &self.waker {
            *waker.lock() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let shared = Arc::new(Mutex::new(Some(context.waker().clone())));
        self.waker = Some(shared.clone());
        let (clock, until) = (self.clock.clone(), self.until);
        let watch = move || {
            loop {
                let left = until.saturating_sub(clock.now());
                if left == 0 || Arc::strong_count(&shared) == 1 {
                    break;
                }
                thread::park_timeout(Duration::from_nanos(left).min(clock.longest_park()));
            }
            let waker = shared.lock().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        };
        if thread::Builder::new()
            .name("larder-sleep".to_owned())
            .spawn(watch)
            .is_err()
        {
            // Without a thread nobody would wake the task: let it look again.
            context.waker().wake_by_ref();
            self.waker = None;
        }
        Poll::Pending
    }
}
