//! The events and actions of the state machine of a connection.

use std::sync::Arc;
use std::time::Duration;

use super::commands::Command;
use super::response::{Push, Response};
use crate::tier::contract::{Change, FlushCause, TierError};
use crate::tier::envelope::ContentId;

/// The number of one connection.
pub type ConnectionId = u64;

/// What the state machine is told.
#[derive(Debug)]
pub enum Event {
    /// Somebody asks for something.
    Request(Request),
    /// A connection that was dialled is up.
    Dialed(ConnectionId),
    /// A connection that was dialled could not be made.
    DialFailed(ConnectionId, TierError),
    /// The answers to the commands of one [`Action::Send`], or that there will be none.
    Replied(ConnectionId, u64, Result<Vec<Response>, Arc<str>>),
    /// A message that nobody asked for.
    Pushed(ConnectionId, Push),
    /// The connection is gone.
    Lost(ConnectionId, Arc<str>),
    /// Nothing but that time has passed.
    Tick,
}

/// What the state machine wants done, in this order.
#[derive(Debug)]
pub enum Action {
    /// Make a connection. Answered by [`Event::Dialed`] or [`Event::DialFailed`].
    Dial(ConnectionId),
    /// Send these over it, in one write if that can be. Answered by [`Event::Replied`].
    Send(ConnectionId, u64, Vec<Command>),
    /// Close it. Nothing that was sent may be answered any more.
    Close(ConnectionId),
    /// Tell the listener.
    Tell(Vec<Change>),
    /// Tell the listener.
    Flush(FlushCause),
    /// Tell the listener whether there is a connection.
    ConnectionChanged(bool),
    /// Answer the request with this number.
    Answer(u64, Result<Vec<Response>, TierError>),
}

/// Something that somebody asks for.
#[derive(Debug)]
pub struct Request {
    /// Its number, never used before.
    pub id: u64,
    /// What to send.
    pub commands: Vec<Command>,
    /// What it does to the server's contents.
    pub effect: Effect,
}

/// What a request does, as far as the cache of this process has to know.
#[derive(Debug)]
pub enum Effect {
    /// It reads.
    Read,
    /// It changes these. Should it be lost, the commands in `on_loss` are sent before the next connection is used, and
    /// should it be refused, soon and again: they remove what the lost one may have left.
    Write {
        /// What it changes.
        changes: Vec<Change>,
        /// What makes up for it.
        on_loss: Vec<Command>,
    },
    /// It changes this key, if a fence holds, and then reads the id of the content that is stored, which should then be
    /// this.
    Fenced {
        /// What it changes.
        key: Vec<u8>,
        /// What the last answer is if it did.
        content_id: ContentId,
    },
}

/// The times and bounds of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionRules {
    /// How long a request may take, and a connection to be made, handshake included.
    pub timeout: Duration,
    /// How often the server is asked whether it is there.
    pub heartbeat: Duration,
    /// The shortest wait before dialling again, and the longest.
    pub backoff: (Duration, Duration),
    /// So many failures in a row open the breaker.
    pub trips_at: u32,
    /// For so long.
    pub rest: Duration,
    /// What is sent first over each connection. Its last answer is the server's role.
    pub handshake: Vec<Command>,
    /// What asks the server whether it is there. Its last answer is the server's role.
    pub ping: Vec<Command>,
    /// What makes everything that was ever stored invalid: for when the retry queue is full.
    pub invalidate_all: Command,
    /// How many words, of all commands together, the retry queue holds.
    pub max_retry_words: usize,
}
