//! What a `Tiered` promises, on the tier in memory. `tests/redis` runs the same suite on a real server.
#![cfg(feature = "tiered")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "counts are what the run shows")]

mod fence;
mod found;
mod given_up;
mod l1;
mod lock;
mod race;
mod stepped;
#[path = "../support/tier_suite/mod.rs"]
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod time;

use larder::tier::{MemoryServer, MemoryTier};

/// The tier in memory: it tells of changes before it answers.
struct Memory(MemoryServer);

impl suite::World for Memory {
    type Tier = MemoryTier;

    fn new() -> Self {
        Memory(MemoryServer::new())
    }

    fn tier(&self) -> MemoryTier {
        self.0.tier()
    }

    fn until(&self, heard: impl Fn() -> bool) {
        assert!(heard(), "the tier in memory tells at once");
    }
}

suite::suite!(crate::Memory);
