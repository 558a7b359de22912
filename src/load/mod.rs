//! The protocol of a load: who joins, who leads, who follows, and how a load ends.
//!
//! A miss joins the flight of its key. The flight is led by the one caller whose loader runs, and followed by those
//! who wait. Everything that changes the table of flights or publishes a value happens under the
//! exclusive lock of the key's stripe, which only `store` can take.

mod follower;
mod join;
mod leader;
mod permit;
mod refresh;
mod turn;

pub(crate) use follower::{Follower, WaitOutcome};
pub(crate) use join::{Accepts, JoinOutcome, Purpose};
pub(crate) use leader::LeaderGuard;
