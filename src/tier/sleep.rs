//! A timer for a tier that has no runtime: a thread for each sleep that is waited for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::util::clock::{Clock, nanos};
use crate::util::sync::Mutex;

/// Ends when the clock has reached its time.
pub(super) struct Sleep {
    clock: Clock,
    until: u64,
    watch: Option<Watch>,
}

/// A thread that has been asked to wake whoever waits.
struct Watch {
    /// Held by the thread as well; when it holds it alone, nobody waits any more.
    waker: Arc<Mutex<Option<Waker>>>,
    thread: Thread,
}

impl Sleep {
    pub(super) fn until(clock: Clock, time: Duration) -> Self {
        Sleep {
            until: clock.now().saturating_add(nanos(time)),
            clock,
            watch: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.until {
            return Poll::Ready(());
        }
        if let Some(watch) = &self.watch {
            let waker = context.waker().clone();
            let before = watch.waker.lock().replace(waker);
            drop(before);
            // The thread may have woken the one before meanwhile.
            return if self.clock.now() >= self.until {
                Poll::Ready(())
            } else {
                Poll::Pending
            };
        }
        let shared = Arc::new(Mutex::new(Some(context.waker().clone())));
        let (clock, until, waker) = (self.clock.clone(), self.until, shared.clone());
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
        let builder = thread::Builder::new().name("larder-sleep".to_owned());
        match builder.spawn(watch) {
            Ok(thread) => {
                let thread = thread.thread().clone();
                self.watch = Some(Watch { waker, thread });
            }
            // Without a thread nobody would wake the task: let it look again.
            Err(_) => context.waker().wake_by_ref(),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(Watch { waker, thread }) = self.watch.take() {
            drop(waker);
            thread.unpark();
        }
    }
}
