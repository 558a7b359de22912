//! The shared tier on a Redis server.
//!
//! `commands.rs` says what is sent, `response.rs` what comes back, `coherence/` decides what may be believed, and
//! `connection.rs` is the only file that knows a socket.

mod backoff;
mod breaker;
mod client;
mod coherence;
mod commands;
mod connection;
mod counters;
mod event;
mod in_flight;
mod response;
mod retry_queue;
mod settings;

pub use counters::{RedisStats, TrackingAdvice};
pub use settings::{Redis, RedisBuilder, RedisError, StatsHandle};

/// What a simulation needs to replace the server and the network.
#[doc(hidden)]
pub mod internals {
    pub use super::client::{Answer, Client, RedisTier};
    pub use super::coherence::Coherence;
    pub use super::commands::{Command, Commands};
    pub use super::counters::ConnectionCounters;
    pub use super::event::{Action, ConnectionId, ConnectionRules, Effect, Event, Request};
    pub use super::response::{Push, Response};
}
