//! The value that everything is done with: it knows its key, and is counted from birth to death.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// How many payloads there are.
static LIVE: AtomicI64 = AtomicI64::new(0);

/// A value on the heap that names the key it was made for.
pub(crate) struct Payload {
    key: String,
    bytes: Vec<u8>,
    #[cfg(larder_plant = "race")]
    reads: plant::Reads,
}

impl Payload {
    pub(crate) fn new(key: &str, len: usize) -> Arc<Payload> {
        LIVE.fetch_add(1, Ordering::SeqCst);
        Arc::new(Payload {
            key: key.to_owned(),
            bytes: vec![len as u8; len],
            #[cfg(larder_plant = "race")]
            reads: plant::Reads::default(),
        })
    }

    pub(crate) fn live() -> i64 {
        LIVE.load(Ordering::SeqCst)
    }

    pub(crate) fn weight(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Reads all of it: memory that was freed or changed hands would be noticed here.
    pub(crate) fn check(&self, key: &str) {
        assert_eq!(self.key, key, "a value was served under another key");
        let len = self.bytes.len();
        assert!(
            self.bytes.iter().all(|byte| *byte == len as u8),
            "a value of {key} changed"
        );
        #[cfg(larder_plant = "race")]
        self.reads.count();
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A counter that several readers of one value raise without agreeing on it.
#[cfg(larder_plant = "race")]
mod plant {
    #[derive(Default)]
    pub(super) struct Reads(std::cell::UnsafeCell<u64>);

    // SAFETY: there is none. This is the planted race, which ThreadSanitizer has to report.
    unsafe impl Sync for Reads {}

    impl Reads {
        pub(super) fn count(&self) {
            // SAFETY: as above.
            unsafe { *self.0.get() += 1 };
        }
    }
}
