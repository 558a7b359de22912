//! Seals: what no two contents share.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use super::envelope::Seal;

/// Makes seals: a keyed hash of a counter, so that neither another process nor another handle makes the same.
pub(super) struct Seals {
    keys: [RandomState; 2],
    next: AtomicU64,
}

impl Seals {
    pub(super) fn new() -> Self {
        Seals {
            keys: [RandomState::new(), RandomState::new()],
            next: AtomicU64::new(0),
        }
    }

    pub(super) fn next(&self) -> Seal {
        // Relaxed: only uniqueness matters.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut seal = [0; 16];
        seal[..8].copy_from_slice(&self.keys[0].hash_one(number).to_le_bytes());
        seal[8..].copy_from_slice(&self.keys[1].hash_one(number).to_le_bytes());
        Seal(seal)
    }
}
