//! The shared tier on a Redis server.
//!
//! `layout.rs` says what is sent, `reply.rs` what comes back, `coherence.rs` decides what may be believed, and
//! `link.rs` is the only file that knows a socket.

mod backoff;
mod breaker;
mod coherence;
mod counters;
mod debts;
mod event;
mod layout;
mod link;
mod pending;
mod port;
mod reply;
mod settings;

pub use counters::{RedisStats, TrackingAdvice};
pub use settings::{Redis, RedisBuilder, RedisError, RedisWatch};

/// What a simulation needs to stand in for the server and the network.
#[doc(hidden)]
pub mod parts {
    pub use super::coherence::Coherence;
    pub use super::counters::LinkCounters;
    pub use super::event::{Action, Command, Effect, Event, Link, Request, Rules};
    pub use super::layout::Layout;
    pub use super::port::{Answer, Port, RedisTier};
    pub use super::reply::{Push, Reply};
}
