//! The connection to the server as a state machine: events in, actions out. No socket, no clock, no thread, no
//! callback: `connection.rs` gives it a real server, `tests/simulation` one that misbehaves.
//!
//! # Why what it lets through is coherent
//! A connection has a number that is never used again. Requests are sent over the current connection only after its
//! handshake has turned tracking on and everything older has been flushed; answers, pushes and losses of any other
//! connection are ignored. When a connection ends, for whatever reason, the order is: it stops being the current one,
//! it is closed, everything is flushed, and only then are the callers that wait for its answers told. So nothing that
//! was read over it can be published after the flush (a load that began before the flush was revoked by it), and what
//! begins after the flush cannot be answered over it.
//!
//! # Pushes for what this process did itself
//! The server also announces the changes that this connection made. (With NOLOOP it would not; but it would then not
//! announce either what it *evicts* while it runs one of our commands, and forget that we had read that. Seen on
//! Redis 7.0: of 53 keys evicted so, no push for one. So default tracking runs without NOLOOP.) For an ordinary
//! write the announcement does no harm. A fenced write is about to fill the cache, and must not be undone by its own
//! echo: so it ends with reading back what is stored, and a push for its key that comes between its being sent and
//! that reading is deferred. If the content read back is the one written, then the deferred pushes were about older
//! contents, and the listener is told of [`Change::Own`]: every load of the key is revoked, except the one that wrote.
//! Otherwise the listener is told of the deferred pushes as of any change.

mod retries;

use std::sync::Arc;

use super::backoff::Backoff;
use super::breaker::Breaker;
use super::commands::Command;
use super::counters::ConnectionCounters;
use super::event::{Action, ConnectionId, ConnectionRules, Effect, Event, Request};
use super::in_flight::{InFlight, InFlightRequest, RequestKind};
use super::response::{self, Push, Response};
use super::retry_queue::RetryQueue;
use crate::tier::contract::{Change, FlushCause, ServerErrorKind, TierError};
use crate::util::clock::{NEVER, nanos};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionPhase {
    Down {
        dial_at: u64,
    },
    Dialing {
        connection: ConnectionId,
        overdue_at: u64,
    },
    /// Tracking is being turned on, and the retry queue is being sent.
    Handshaking {
        connection: ConnectionId,
    },
    Up {
        connection: ConnectionId,
        ask_at: u64,
    },
}

/// The state machine.
pub struct Coherence {
    rules: ConnectionRules,
    phase: ConnectionPhase,
    next_connection: ConnectionId,
    /// Requests of callers have even numbers, those of the state machine itself odd ones.
    next_own_id: u64,
    in_flight: InFlight,
    role: Option<Response>,
    retry_queue: RetryQueue,
    breaker: Breaker,
    backoff: Backoff,
    draw: Box<dyn FnMut() -> f64 + Send>,
    counters: Arc<ConnectionCounters>,
}

impl std::fmt::Debug for Coherence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coherence")
            .field("phase", &self.phase)
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}

impl Coherence {
    /// One that dials at its first tick. `draw` gives numbers in `0.0..1.0`.
    pub fn new(
        rules: ConnectionRules,
        counters: Arc<ConnectionCounters>,
        draw: Box<dyn FnMut() -> f64 + Send>,
    ) -> Self {
        Coherence {
            breaker: Breaker::new(rules.trips_at, nanos(rules.rest)),
            backoff: Backoff::new(nanos(rules.backoff.0), nanos(rules.backoff.1)),
            phase: ConnectionPhase::Down { dial_at: 0 },
            next_connection: 1,
            next_own_id: 1,
            in_flight: InFlight::default(),
            role: None,
            retry_queue: RetryQueue::new(rules.max_retry_words, rules.invalidate_all.clone()),
            rules,
            draw,
            counters,
        }
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens; in nanoseconds of the clock that `now` is of.
    #[must_use]
    pub fn next_tick(&self) -> u64 {
        let own = match self.phase {
            ConnectionPhase::Down { dial_at } => dial_at,
            ConnectionPhase::Dialing { overdue_at, .. } => overdue_at,
            ConnectionPhase::Handshaking { .. } => NEVER,
            ConnectionPhase::Up { ask_at, .. } => ask_at,
        };
        own.min(self.in_flight.overdue_at())
    }

    /// Whether requests are sent.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.phase, ConnectionPhase::Up { .. })
    }

    /// Takes an event; what is to be done about it is added to `out`.
    pub fn handle(&mut self, now: u64, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Request(request) => self.request(now, request, out),
            Event::Dialed(connection) => self.dialed(now, connection, out),
            Event::DialFailed(connection, error) => {
                if matches!(self.phase, ConnectionPhase::Dialing { connection: current, .. } if current == connection)
                {
                    self.back_off(now, &error);
                }
            }
            Event::Replied(connection, id, responses) if self.is_current(connection) => {
                self.replied(now, connection, id, responses, out);
            }
            Event::Pushed(connection, push) if self.is_current(connection) => {
                self.pushed(now, push, out)
            }
            Event::Lost(connection, why) if self.is_current(connection) => {
                self.disconnect(now, FlushCause::Disconnected, &TierError::Lost { why }, out);
            }
            // Of a connection that has been closed: everything that was read over it was flushed then.
            Event::Replied(..) | Event::Pushed(..) | Event::Lost(..) => {}
            Event::Tick => self.tick(now, out),
        }
    }

    fn connection(&self) -> Option<ConnectionId> {
        match self.phase {
            ConnectionPhase::Down { .. } | ConnectionPhase::Dialing { .. } => None,
            ConnectionPhase::Handshaking { connection }
            | ConnectionPhase::Up { connection, .. } => Some(connection),
        }
    }

    fn is_current(&self, connection: ConnectionId) -> bool {
        self.connection() == Some(connection)
    }

    fn request(&mut self, now: u64, request: Request, out: &mut Vec<Action>) {
        let Request {
            id,
            commands,
            effect,
        } = request;
        let ConnectionPhase::Up { connection, .. } = self.phase else {
            self.enqueue_retry(effect);
            out.push(Action::Answer(id, Err(TierError::Down)));
            return;
        };
        if !self.breaker.admits(now) {
            self.enqueue_retry(effect);
            out.push(Action::Answer(id, Err(TierError::BreakerOpen)));
            return;
        }
        self.counters.commands(commands.len() as u64);
        if matches!(effect, Effect::Read) {
            self.counters.reads();
        }
        self.send(now, connection, id, commands, RequestKind::For(effect), out);
    }

    fn send(
        &mut self,
        now: u64,
        connection: ConnectionId,
        id: u64,
        commands: Vec<Command>,
        kind: RequestKind,
        out: &mut Vec<Action>,
    ) {
        let overdue_at = now.saturating_add(nanos(self.rules.timeout));
        self.in_flight.add(id, now, overdue_at, kind);
        out.push(Action::Send(connection, id, commands));
    }

    fn send_own(
        &mut self,
        now: u64,
        connection: ConnectionId,
        commands: Vec<Command>,
        kind: RequestKind,
        out: &mut Vec<Action>,
    ) {
        let id = self.next_own_id;
        self.next_own_id += 2;
        self.send(now, connection, id, commands, kind, out);
    }

    fn dialed(&mut self, now: u64, connection: ConnectionId, out: &mut Vec<Action>) {
        if !matches!(self.phase, ConnectionPhase::Dialing { connection: current, .. } if current == connection)
        {
            // It came too late.
            out.push(Action::Close(connection));
            return;
        }
        self.phase = ConnectionPhase::Handshaking { connection };
        let handshake = self.rules.handshake.clone();
        self.send_own(now, connection, handshake, RequestKind::Handshake, out);
    }

    fn replied(
        &mut self,
        now: u64,
        connection: ConnectionId,
        id: u64,
        responses: Result<Vec<Response>, Arc<str>>,
        out: &mut Vec<Action>,
    ) {
        let responses = match responses {
            Ok(responses) => responses,
            Err(why) => {
                self.disconnect(now, FlushCause::Disconnected, &TierError::Lost { why }, out);
                return;
            }
        };
        let Some(pending) = self.in_flight.answered(id) else {
            return;
        };
        match pending.kind {
            RequestKind::Handshake => self.handshake_done(now, connection, &responses, out),
            RequestKind::Retry => self.retries_acked(now, connection, &responses, out),
            RequestKind::Heartbeat => self.heartbeat_answered(now, responses, out),
            RequestKind::For(effect) => {
                self.counters.took(now.saturating_sub(pending.sent_at));
                self.done(now, id, effect, pending.deferred_push, responses, out);
            }
        }
    }

    /// Takes what was sent over a connection that is lost: it will not be answered.
    fn take_in_flight(&mut self) -> std::collections::BTreeMap<u64, InFlightRequest> {
        self.retry_queue.requeue();
        self.in_flight.take_all()
    }

    /// Takes the answers to the handshake: tracking is on, or the connection is given up.
    fn handshake_done(
        &mut self,
        now: u64,
        connection: ConnectionId,
        responses: &[Response],
        out: &mut Vec<Action>,
    ) {
        if let Some(error) = response::handshake_error(responses) {
            out.push(Action::Close(connection));
            self.take_in_flight();
            self.back_off(now, &error);
            return;
        }
        self.role = responses.last().cloned().map(Response::role);
        self.drain_retries(now, connection, out);
    }

    fn heartbeat_answered(
        &mut self,
        now: u64,
        mut responses: Vec<Response>,
        out: &mut Vec<Action>,
    ) {
        match responses.pop() {
            Some(response) if response.as_error().is_none() => {
                // The connection has lasted: after its loss the waits start from the shortest.
                self.backoff.reset();
                let role = Some(response.role());
                if role != self.role {
                    let why = TierError::Lost {
                        why: "the server changed its role".into(),
                    };
                    self.disconnect(now, FlushCause::ServerChange, &why, out);
                }
            }
            // An error is an answer: the server is there.
            _ => {}
        }
    }

    /// A request was answered: the listener hears of what it did before the one who asked.
    fn done(
        &mut self,
        now: u64,
        id: u64,
        effect: Effect,
        deferred_push: bool,
        responses: Vec<Response>,
        out: &mut Vec<Action>,
    ) {
        let kind = responses.iter().find_map(Response::error_kind);
        match effect {
            Effect::Read => {}
            Effect::Write { changes, on_loss } => {
                out.push(Action::Tell(changes.clone()));
                if kind.is_some() {
                    // It has not come to pass, and somebody counts on it.
                    self.enqueue_retry(Effect::Write { changes, on_loss });
                    if let ConnectionPhase::Up { connection, .. } = self.phase {
                        self.send_retries_soon(now, connection, out);
                    }
                }
            }
            Effect::Fenced { key, content_id } => {
                let stands = matches!(responses.last(), Some(Response::Bytes(read)) if *read == content_id.0);
                if stands {
                    out.push(Action::Tell(vec![Change::Own(key, content_id)]));
                } else if deferred_push {
                    out.push(Action::Tell(vec![Change::Key(key)]));
                }
            }
        }
        match kind {
            // The key's own fault, or the caller's.
            None | Some(ServerErrorKind::WrongType) => self.breaker.succeeded(),
            Some(kind) => {
                self.counters.server_error(kind);
                if self.breaker.failed(now) {
                    self.counters.breaker_opened();
                }
            }
        }
        self.counters.breaker_is(self.breaker.is_open());
        out.push(Action::Answer(id, Ok(responses)));
    }

    fn pushed(&mut self, now: u64, push: Push, out: &mut Vec<Action>) {
        self.counters.pushed();
        match push {
            Push::Changed(changes) => {
                self.counters.changed(changes.len() as u64);
                let changes: Vec<Change> = changes
                    .into_iter()
                    .filter(|change| !self.defer_push(change))
                    .collect();
                if !changes.is_empty() {
                    out.push(Action::Tell(changes));
                }
            }
            Push::Everything => self.flush(FlushCause::ServerFlush, out),
            Push::Unreadable => self.flush(FlushCause::Unreadable, out),
            Push::Closed => {
                let why = TierError::Lost {
                    why: "the server closed the connection".into(),
                };
                self.disconnect(now, FlushCause::Disconnected, &why, out);
            }
            Push::Foreign => {}
        }
    }

    /// Whether a fenced write of this key is on its way, which will tell of it.
    fn defer_push(&mut self, change: &Change) -> bool {
        let Change::Key(changed) = change else {
            return false;
        };
        // The first that was sent is the first to be answered, and so the first to tell.
        let fenced = self.in_flight.fenced(changed);
        fenced.map(|pending| pending.deferred_push = true).is_some()
    }

    fn flush(&mut self, cause: FlushCause, out: &mut Vec<Action>) {
        self.counters.flushed(cause);
        out.push(Action::Flush(cause));
    }

    /// Gives the connection up. The module's documentation argues for the order.
    fn disconnect(
        &mut self,
        now: u64,
        cause: FlushCause,
        error: &TierError,
        out: &mut Vec<Action>,
    ) {
        let Some(connection) = self.connection() else {
            return;
        };
        let was_up = self.is_up();
        self.back_off(now, error);
        out.push(Action::Close(connection));
        if was_up {
            self.flush(cause, out);
            // Not before the flush: a caller that is told that there is no connection must find nothing old.
            out.push(Action::ConnectionChanged(false));
        }
        for (id, pending) in self.take_in_flight() {
            if let RequestKind::For(effect) = pending.kind {
                self.enqueue_retry(effect);
                out.push(Action::Answer(id, Err(error.clone())));
            }
        }
    }

    fn back_off(&mut self, now: u64, error: &TierError) {
        self.counters.connection_failed(error);
        let wait = match error {
            TierError::Refused {
                kind:
                    ServerErrorKind::NoAuth | ServerErrorKind::WrongPass | ServerErrorKind::NoPermission,
                ..
            } => self.backoff.longest(),
            _ => self.backoff.next((self.draw)()),
        };
        self.phase = ConnectionPhase::Down {
            dial_at: now.saturating_add(wait),
        };
    }

    fn tick(&mut self, now: u64, out: &mut Vec<Action>) {
        if self.in_flight.overdue_at() <= now {
            let error = TierError::TimedOut {
                after: self.rules.timeout,
            };
            self.counters.timed_out();
            self.disconnect(now, FlushCause::TimedOut, &error, out);
        }
        match self.phase {
            ConnectionPhase::Down { dial_at } if dial_at <= now => {
                let connection = self.next_connection;
                self.next_connection += 1;
                self.phase = ConnectionPhase::Dialing {
                    connection,
                    overdue_at: now.saturating_add(nanos(self.rules.timeout)),
                };
                self.counters.dialled();
                out.push(Action::Dial(connection));
            }
            ConnectionPhase::Dialing {
                connection,
                overdue_at,
            } if overdue_at <= now => {
                out.push(Action::Close(connection));
                let after = self.rules.timeout;
                self.back_off(now, &TierError::TimedOut { after });
            }
            ConnectionPhase::Up { connection, ask_at } if ask_at <= now => {
                self.phase = ConnectionPhase::Up {
                    connection,
                    ask_at: now.saturating_add(nanos(self.rules.heartbeat)),
                };
                let heartbeat = self.rules.ping.clone();
                self.send_own(now, connection, heartbeat, RequestKind::Heartbeat, out);
                self.send_retries_soon(now, connection, out);
            }
            _ => {}
        }
    }
}

#[cfg(all(test, not(larder_shuttle)))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::{
        Action, Change, Coherence, Command, ConnectionRules, Effect, Event, Push, Request, Response,
    };
    use crate::tier::envelope::ContentId;
    use std::time::Duration;

    fn command(word: &str) -> Command {
        vec![word.into()]
    }

    fn role() -> Response {
        Response::List(vec![Response::Bytes(b"master".to_vec())])
    }

    /// One whose connection 1 is up.
    fn connected() -> Coherence {
        let second = Duration::from_secs(1);
        let rules = ConnectionRules {
            timeout: second,
            heartbeat: second,
            backoff: (second, second),
            trips_at: 5,
            rest: second,
            handshake: vec![command("ROLE")],
            ping: vec![command("ROLE")],
            invalidate_all: command("ALL"),
            max_retry_words: 100,
        };
        let mut connection = Coherence::new(rules, Default::default(), Box::new(|| 0.0));
        let mut out = Vec::new();
        connection.handle(0, Event::Tick, &mut out);
        connection.handle(0, Event::Dialed(1), &mut out);
        connection.handle(0, Event::Replied(1, 1, Ok(vec![role()])), &mut out);
        assert!(connection.is_up());
        connection
    }

    fn key() -> Vec<Change> {
        vec![Change::Key(b"k".to_vec())]
    }

    /// A fenced write of a key, a message about it, and what was read back: what the listener is told.
    fn told(read_back: &[u8]) -> Vec<Vec<Change>> {
        let (mut connection, mut out) = (connected(), Vec::new());
        let effect = Effect::Fenced {
            key: b"k".to_vec(),
            content_id: ContentId([7; 16]),
        };
        let request = Request {
            id: 2,
            commands: vec![command("PUT"), command("SEAL")],
            effect,
        };
        connection.handle(0, Event::Request(request), &mut out);
        connection.handle(0, Event::Pushed(1, Push::Changed(key())), &mut out);
        let telling = |action: &Action| matches!(action, Action::Tell(_));
        assert!(!out.iter().any(telling), "it is set aside");
        let responses = vec![Response::Int(1), Response::Bytes(read_back.to_vec())];
        connection.handle(0, Event::Replied(1, 2, Ok(responses)), &mut out);
        // The next message about the key is nobody's echo.
        connection.handle(0, Event::Pushed(1, Push::Changed(key())), &mut out);
        let told = out.into_iter().filter_map(|action| match action {
            Action::Tell(changes) => Some(changes),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn a_message_beside_an_own_write_is_told_unless_the_write_stands() {
        let own = Change::Own(b"k".to_vec(), ContentId([7; 16]));
        assert_eq!(told(&[7; 16]), [vec![own], key()]);
        assert_eq!(told(&[8; 16]), [key(), key()]);
        assert_eq!(told(&[]), [key(), key()]);
    }

    #[test]
    fn a_lost_link_is_closed_then_flushed_and_only_then_is_anybody_told() {
        let (mut connection, mut out) = (connected(), Vec::new());
        let effect = Effect::Write {
            changes: key(),
            on_loss: vec![command("DEL")],
        };
        let request = Request {
            id: 2,
            commands: vec![command("DEL")],
            effect,
        };
        connection.handle(0, Event::Request(request), &mut out);
        out.clear();
        connection.handle(0, Event::Lost(1, "gone".into()), &mut out);
        let order: Vec<&str> = out
            .iter()
            .map(|action| match action {
                Action::Close(1) => "close",
                Action::Flush(_) => "flush",
                Action::ConnectionChanged(false) => "down",
                Action::Answer(2, Err(_)) => "answer",
                _ => "else",
            })
            .collect();
        assert_eq!(order, ["close", "flush", "down", "answer"]);
        // What was lost is made up for before requests are sent over the next connection.
        out.clear();
        connection.handle(u64::MAX / 2, Event::Tick, &mut out);
        connection.handle(u64::MAX / 2, Event::Dialed(2), &mut out);
        connection.handle(
            u64::MAX / 2,
            Event::Replied(2, 3, Ok(vec![role()])),
            &mut out,
        );
        assert!(!connection.is_up());
        let is_sent = out.iter().any(|action| {
            matches!(action, Action::Send(2, 5, commands) if *commands == [command("DEL")])
        });
        assert!(is_sent, "{out:?}");
        connection.handle(
            u64::MAX / 2,
            Event::Replied(2, 5, Ok(vec![Response::Int(1)])),
            &mut out,
        );
        assert!(connection.is_up());
    }
}
