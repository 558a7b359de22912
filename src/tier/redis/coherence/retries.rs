//! Commands that make up for lost or refused writes: when they are queued, sent and answered.

use super::{Coherence, ConnectionPhase};
use crate::tier::contract::FlushCause;
use crate::tier::redis::event::{Action, ConnectionId, Effect};
use crate::tier::redis::in_flight::RequestKind;
use crate::tier::redis::response::Response;
use crate::util::clock::nanos;

impl Coherence {
    /// Sends the retry queue; once it is empty, requests may be sent over the connection.
    pub(super) fn drain_retries(
        &mut self,
        now: u64,
        connection: ConnectionId,
        out: &mut Vec<Action>,
    ) {
        if self.retry_queue.len() > 0 {
            self.send_retries(now, connection, out);
            return;
        }
        self.phase = ConnectionPhase::Up {
            connection,
            ask_at: now.saturating_add(nanos(self.rules.heartbeat)),
        };
        self.breaker.succeeded();
        self.counters.breaker_is(false);
        self.counters.flushed(FlushCause::Connected);
        // What was kept while there was no connection was never tracked.
        out.push(Action::Flush(FlushCause::Connected));
        out.push(Action::ConnectionChanged(true));
    }

    pub(super) fn send_retries(
        &mut self,
        now: u64,
        connection: ConnectionId,
        out: &mut Vec<Action>,
    ) {
        let commands = self.retry_queue.send();
        self.send_own(now, connection, commands, RequestKind::Retry, out);
    }

    /// Sends the retry queue over a connection that is up: writes that were refused, or that came while the breaker was
    /// open.
    pub(super) fn send_retries_soon(
        &mut self,
        now: u64,
        connection: ConnectionId,
        out: &mut Vec<Action>,
    ) {
        if self.retry_queue.len() > 0 && !self.retry_queue.is_sending() {
            self.send_retries(now, connection, out);
        }
    }

    pub(super) fn retries_acked(
        &mut self,
        now: u64,
        connection: ConnectionId,
        responses: &[Response],
        out: &mut Vec<Action>,
    ) {
        let refused = |place: usize| responses.get(place).and_then(Response::as_error);
        let changes = self.retry_queue.ack(|place| refused(place).is_none());
        self.counters.set_retries(self.retry_queue.len() as u64);
        let error = responses.iter().find_map(Response::as_error);
        match error {
            // A connection that is up goes on; what was refused is tried again with the next heartbeat.
            Some(_) if self.is_up() => out.push(Action::Tell(changes)),
            Some(error) => {
                out.push(Action::Close(connection));
                self.take_in_flight();
                self.back_off(now, &error);
            }
            None if self.is_up() => {
                out.push(Action::Tell(changes));
                self.send_retries_soon(now, connection, out);
            }
            None => self.drain_retries(now, connection, out),
        }
    }

    /// Remembers what makes up for a write that was lost or refused, or that could not be made.
    pub(super) fn enqueue_retry(&mut self, effect: Effect) {
        let Effect::Write { on_loss, changes } = effect else {
            return;
        };
        for command in on_loss {
            self.retry_queue.add(command, changes.clone());
        }
        self.counters.set_retries(self.retry_queue.len() as u64);
    }
}
