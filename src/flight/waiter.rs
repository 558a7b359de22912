//! The one record by which a flight wakes whoever waits for it, thread or task.

use std::task::Waker;

use crate::entry::removal::call_catching;
use crate::util::sync::Thread;

/// Whom to wake. Wakers are user code: they are made, called and dropped outside every lock.
pub(crate) enum Wake {
    /// Nobody has asked yet, or the wake has been taken.
    Nobody,
    Thread(Thread),
    Task(Waker),
}

impl Wake {
    /// Wakes. A waker that panics harms only itself: the others are still called.
    pub(crate) fn call(self) {
        match self {
            Wake::Nobody => {}
            Wake::Thread(thread) => thread.unpark(),
            Wake::Task(waker) => {
                call_catching(move || waker.wake());
            }
        }
    }
}
