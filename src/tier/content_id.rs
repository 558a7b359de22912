//! Content ids: no two contents have the same one.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use super::envelope::ContentId;

/// Makes content ids: keyed hashes of a counter, so that no other process or handle makes an equal one.
pub(super) struct ContentIds {
    keys: [RandomState; 2],
    next: AtomicU64,
}

impl ContentIds {
    pub(super) fn new() -> Self {
        ContentIds {
            keys: [RandomState::new(), RandomState::new()],
            next: AtomicU64::new(0),
        }
    }

    pub(super) fn next(&self) -> ContentId {
        // Relaxed: only uniqueness matters.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut content_id = [0; 16];
        content_id[..8].copy_from_slice(&self.keys[0].hash_one(number).to_le_bytes());
        content_id[8..].copy_from_slice(&self.keys[1].hash_one(number).to_le_bytes());
        ContentId(content_id)
    }
}
