//! Exact simulators over keys numbered from 0: what the named policy does, by its definition.

mod belady;
mod fifo;
mod lru;

pub use belady::Belady;
pub use fifo::Fifo;
pub use lru::Lru;

/// A cache of keys alone, told of one request after the other.
pub trait Simulator {
    /// Whether the key was there; if not it is stored, as the policy sees fit.
    fn request(&mut self, id: u32) -> bool;

    /// Whether the key is there now.
    fn contains(&self, id: u32) -> bool;
}

/// Replays all requests and counts the hits.
pub fn hits(simulator: &mut impl Simulator, ids: &[u32]) -> u64 {
    ids.iter().map(|&id| u64::from(simulator.request(id))).sum()
}
