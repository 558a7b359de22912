//! Replays traces of keys through `larder`, beside simulators whose answers are known exactly.
//!
//! A *trace* is a list of requests, each a key. A request is answered from the cache, or else is a
//! miss that stores the key. The parts stand by themselves, so that tests can ask them directly.

#![forbid(unsafe_code)]

pub mod capacity;
pub mod error;
pub mod replay;
pub mod report;
pub mod sim;
pub mod trace;
