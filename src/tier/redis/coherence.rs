//! The link to the server as a state machine: events in, actions out. No socket, no clock, no thread, no callback:
//! `connection.rs` gives it a real server, `tests/simulation` one that misbehaves.
//!
//! # Why what it lets through is coherent
//! A *link* is one connection, under a number that is never used again. Requests are sent over the current link only
//! once tracking has been armed on it and everything older has been flushed; answers, pushes and losses of any
//! other link are ignored. When a link ends, for whatever reason, the order is: it stops being the current one, it
//! is closed, everything is flushed, and only then those who wait for its answers are told. So nothing that was
//! read over it can be published after the flush (what was begun before the flush has lost its right by it), and
//! what begins after the flush cannot be answered over it.
//!
//! # Pushes for what this process did itself
//! The server also announces the changes that this link made. (With NOLOOP it would not; but it would then not
//! announce either what it *evicts* while it runs one of our commands, and forget that we had read that. Seen on
//! Redis 7.0: of 53 keys evicted so, no push for one. So default tracking runs without NOLOOP.) For an ordinary
//! write the announcement does no harm. A fenced one is about to fill the cache, and must not be undone by its own
//! echo: so it ends with reading back what stands there, and a push for its key that comes between its being sent
//! and that reading is set aside. If the content read back is the one written, then whatever was set aside was
//! about older contents, and the listener is told of [`Change::Own`]: everything under the key goes, but the load
//! that wrote. Otherwise it is told of what was set aside as of any change.

use std::sync::Arc;

use super::backoff::Backoff;
use super::breaker::Breaker;
use super::commands::Command;
use super::counters::LinkCounters;
use super::event::{Action, Effect, Event, Link, Request, Rules};
use super::in_flight::{Errand, Pending, Unanswered};
use super::response::{self, Push, Reply};
use super::retry_queue::Debts;
use crate::tier::contract::{Change, FlushCause, Refusal, TierError};
use crate::util::clock::{NEVER, nanos};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down {
        dial_at: u64,
    },
    Dialing {
        link: Link,
        overdue_at: u64,
    },
    /// Tracking is being armed, and what is owed is being paid.
    Arming {
        link: Link,
    },
    Up {
        link: Link,
        ask_at: u64,
    },
}

/// The state machine.
pub struct Coherence {
    rules: Rules,
    phase: Phase,
    next_link: Link,
    /// Requests and the machine's own errands have numbers of two kinds: the latter are odd.
    next_errand: u64,
    unanswered: Unanswered,
    role: Option<Reply>,
    debts: Debts,
    breaker: Breaker,
    backoff: Backoff,
    draw: Box<dyn FnMut() -> f64 + Send>,
    counters: Arc<LinkCounters>,
}

impl std::fmt::Debug for Coherence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coherence")
            .field("phase", &self.phase)
            .field("unanswered", &self.unanswered.len())
            .finish_non_exhaustive()
    }
}

impl Coherence {
    /// One that dials at its first tick. `draw` gives numbers in `0.0..1.0`.
    pub fn new(
        rules: Rules,
        counters: Arc<LinkCounters>,
        draw: Box<dyn FnMut() -> f64 + Send>,
    ) -> Self {
        Coherence {
            breaker: Breaker::new(rules.trips_at, nanos(rules.rest)),
            backoff: Backoff::new(nanos(rules.backoff.0), nanos(rules.backoff.1)),
            phase: Phase::Down { dial_at: 0 },
            next_link: 1,
            next_errand: 1,
            unanswered: Unanswered::default(),
            role: None,
            debts: Debts::new(rules.most_owed, rules.invalidate_all.clone()),
            rules,
            draw,
            counters,
        }
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens; in nanoseconds of the clock that `now` is of.
    #[must_use]
    pub fn next_tick(&self) -> u64 {
        let own = match self.phase {
            Phase::Down { dial_at } => dial_at,
            Phase::Dialing { overdue_at, .. } => overdue_at,
            Phase::Arming { .. } => NEVER,
            Phase::Up { ask_at, .. } => ask_at,
        };
        own.min(self.unanswered.overdue_at())
    }

    /// Whether requests are sent.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// Takes an event; what is to be done about it is added to `out`.
    pub fn handle(&mut self, now: u64, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Request(request) => self.request(now, request, out),
            Event::Dialed(link) => self.dialed(now, link, out),
            Event::DialFailed(link, error) => {
                if matches!(self.phase, Phase::Dialing { link: current, .. } if current == link) {
                    self.back_off(now, &error);
                }
            }
            Event::Replied(link, id, replies) if self.is_current(link) => {
                self.replied(now, link, id, replies, out);
            }
            Event::Pushed(link, push) if self.is_current(link) => self.pushed(now, push, out),
            Event::Lost(link, why) if self.is_current(link) => {
                self.lose(now, FlushCause::Disconnected, &TierError::Lost { why }, out);
            }
            // Of a link that has been closed: everything of it was flushed then.
            Event::Replied(..) | Event::Pushed(..) | Event::Lost(..) => {}
            Event::Tick => self.tick(now, out),
        }
    }

    fn link(&self) -> Option<Link> {
        match self.phase {
            Phase::Down { .. } | Phase::Dialing { .. } => None,
            Phase::Arming { link } | Phase::Up { link, .. } => Some(link),
        }
    }

    fn is_current(&self, link: Link) -> bool {
        self.link() == Some(link)
    }

    fn request(&mut self, now: u64, request: Request, out: &mut Vec<Action>) {
        let Request {
            id,
            commands,
            effect,
        } = request;
        let Phase::Up { link, .. } = self.phase else {
            self.owe(effect);
            out.push(Action::Answer(id, Err(TierError::Down)));
            return;
        };
        if !self.breaker.admits(now) {
            self.owe(effect);
            out.push(Action::Answer(id, Err(TierError::Resting)));
            return;
        }
        self.counters.commands(commands.len() as u64);
        if matches!(effect, Effect::Read) {
            self.counters.reads();
        }
        self.send(now, link, id, commands, Errand::For(effect), out);
    }

    fn send(
        &mut self,
        now: u64,
        link: Link,
        id: u64,
        commands: Vec<Command>,
        errand: Errand,
        out: &mut Vec<Action>,
    ) {
        let overdue_at = now.saturating_add(nanos(self.rules.timeout));
        self.unanswered.add(id, now, overdue_at, errand);
        out.push(Action::Send(link, id, commands));
    }

    fn send_own(
        &mut self,
        now: u64,
        link: Link,
        commands: Vec<Command>,
        errand: Errand,
        out: &mut Vec<Action>,
    ) {
        let id = self.next_errand;
        self.next_errand += 2;
        self.send(now, link, id, commands, errand, out);
    }

    fn dialed(&mut self, now: u64, link: Link, out: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Dialing { link: current, .. } if current == link) {
            // It came too late.
            out.push(Action::Close(link));
            return;
        }
        self.phase = Phase::Arming { link };
        let arming = self.rules.arming.clone();
        self.send_own(now, link, arming, Errand::Arm, out);
    }

    fn replied(
        &mut self,
        now: u64,
        link: Link,
        id: u64,
        replies: Result<Vec<Reply>, Arc<str>>,
        out: &mut Vec<Action>,
    ) {
        let replies = match replies {
            Ok(replies) => replies,
            Err(why) => {
                self.lose(now, FlushCause::Disconnected, &TierError::Lost { why }, out);
                return;
            }
        };
        let Some(pending) = self.unanswered.answered(id) else {
            return;
        };
        match pending.errand {
            Errand::Arm => self.armed(now, link, &replies, out),
            Errand::Repay => self.repaid(now, link, &replies, out),
            Errand::Heartbeat => self.beat(now, replies, out),
            Errand::For(effect) => {
                self.counters.took(now.saturating_sub(pending.sent_at));
                self.done(now, id, effect, pending.aside, replies, out);
            }
        }
    }

    /// What was sent over a link that is gone will not be answered.
    fn take_unanswered(&mut self) -> std::collections::BTreeMap<u64, Pending> {
        self.debts.unpaid();
        self.unanswered.take_all()
    }

    /// Tracking stands, or does not.
    fn armed(&mut self, now: u64, link: Link, replies: &[Reply], out: &mut Vec<Action>) {
        if let Some(error) = response::refusal_to_arm(replies) {
            out.push(Action::Close(link));
            self.take_unanswered();
            self.back_off(now, &error);
            return;
        }
        self.role = replies.last().cloned().map(Reply::role);
        self.repay(now, link, out);
    }

    /// Sends what is owed, and opens the link to everybody once nothing is.
    fn repay(&mut self, now: u64, link: Link, out: &mut Vec<Action>) {
        if self.debts.len() > 0 {
            self.pay(now, link, out);
            return;
        }
        self.phase = Phase::Up {
            link,
            ask_at: now.saturating_add(nanos(self.rules.heartbeat)),
        };
        self.breaker.succeeded();
        self.counters.breaker_is(false);
        self.counters.flushed(FlushCause::Connected);
        // What was kept while there was no link, if anything was, was never tracked.
        out.push(Action::Flush(FlushCause::Connected));
        out.push(Action::Linked(true));
    }

    fn pay(&mut self, now: u64, link: Link, out: &mut Vec<Action>) {
        let commands = self.debts.pay();
        self.send_own(now, link, commands, Errand::Repay, out);
    }

    /// Over a link that stands: for what was refused, or asked for while the server was left alone.
    fn pay_soon(&mut self, now: u64, link: Link, out: &mut Vec<Action>) {
        if self.debts.len() > 0 && !self.debts.is_paying() {
            self.pay(now, link, out);
        }
    }

    fn repaid(&mut self, now: u64, link: Link, replies: &[Reply], out: &mut Vec<Action>) {
        let refused = |place: usize| replies.get(place).and_then(Reply::as_error);
        let changes = self.debts.paid(|place| refused(place).is_none());
        self.counters.owes(self.debts.len() as u64);
        let error = replies.iter().find_map(Reply::as_error);
        match error {
            // A link that stands goes on; what was refused is tried again with the next heartbeat.
            Some(_) if self.is_up() => out.push(Action::Tell(changes)),
            Some(error) => {
                out.push(Action::Close(link));
                self.take_unanswered();
                self.back_off(now, &error);
            }
            None if self.is_up() => {
                out.push(Action::Tell(changes));
                self.pay_soon(now, link, out);
            }
            None => self.repay(now, link, out),
        }
    }

    fn beat(&mut self, now: u64, mut replies: Vec<Reply>, out: &mut Vec<Action>) {
        match replies.pop() {
            Some(reply) if reply.as_error().is_none() => {
                // The link has lasted: its loss would be news.
                self.backoff.reset();
                let role = Some(reply.role());
                if role != self.role {
                    let why = TierError::Lost {
                        why: "the server changed its role".into(),
                    };
                    self.lose(now, FlushCause::ServerChange, &why, out);
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
        aside: bool,
        replies: Vec<Reply>,
        out: &mut Vec<Action>,
    ) {
        let refusal = replies.iter().find_map(Reply::refusal);
        match effect {
            Effect::Read => {}
            Effect::Write { changes, owed } => {
                out.push(Action::Tell(changes.clone()));
                if refusal.is_some() {
                    // It has not come to pass, and somebody counts on it.
                    self.owe(Effect::Write { changes, owed });
                    if let Phase::Up { link, .. } = self.phase {
                        self.pay_soon(now, link, out);
                    }
                }
            }
            Effect::Fenced { key, seal } => {
                let stands = matches!(replies.last(), Some(Reply::Bytes(read)) if *read == seal.0);
                if stands {
                    out.push(Action::Tell(vec![Change::Own(key, seal)]));
                } else if aside {
                    out.push(Action::Tell(vec![Change::Key(key)]));
                }
            }
        }
        match refusal {
            // The key's own fault, or the caller's.
            None | Some(Refusal::WrongType) => self.breaker.succeeded(),
            Some(refusal) => {
                self.counters.refused(refusal);
                if self.breaker.failed(now) {
                    self.counters.breaker_opened();
                }
            }
        }
        self.counters.breaker_is(self.breaker.is_open());
        out.push(Action::Answer(id, Ok(replies)));
    }

    fn pushed(&mut self, now: u64, push: Push, out: &mut Vec<Action>) {
        self.counters.pushed();
        match push {
            Push::Changed(changes) => {
                self.counters.changed(changes.len() as u64);
                let changes: Vec<Change> = changes
                    .into_iter()
                    .filter(|change| !self.set_aside(change))
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
                self.lose(now, FlushCause::Disconnected, &why, out);
            }
            Push::Foreign => {}
        }
    }

    /// Whether a fenced write of this key is on its way, which will tell of it.
    fn set_aside(&mut self, change: &Change) -> bool {
        let Change::Key(changed) = change else {
            return false;
        };
        // The first that was sent is the first to be answered, and so the first to tell.
        let fenced = self.unanswered.fenced(changed);
        fenced.map(|pending| pending.aside = true).is_some()
    }

    fn flush(&mut self, cause: FlushCause, out: &mut Vec<Action>) {
        self.counters.flushed(cause);
        out.push(Action::Flush(cause));
    }

    /// The link is given up. See the module's argument for the order.
    fn lose(&mut self, now: u64, cause: FlushCause, error: &TierError, out: &mut Vec<Action>) {
        let Some(link) = self.link() else { return };
        let was_up = self.is_up();
        self.back_off(now, error);
        out.push(Action::Close(link));
        if was_up {
            self.flush(cause, out);
            // Not before the flush: who is told that there is no link shall find nothing old.
            out.push(Action::Linked(false));
        }
        for (id, pending) in self.take_unanswered() {
            if let Errand::For(effect) = pending.errand {
                self.owe(effect);
                out.push(Action::Answer(id, Err(error.clone())));
            }
        }
    }

    /// Remembers what makes up for a write that was lost or refused, or that could not be made.
    fn owe(&mut self, effect: Effect) {
        let Effect::Write { owed, changes } = effect else {
            return;
        };
        for command in owed {
            self.debts.add(command, changes.clone());
        }
        self.counters.owes(self.debts.len() as u64);
    }

    fn back_off(&mut self, now: u64, error: &TierError) {
        self.counters.link_failed(error);
        let wait = match error {
            TierError::Refused {
                refusal: Refusal::NoAuth | Refusal::WrongPass | Refusal::NoPermission,
                ..
            } => self.backoff.longest(),
            _ => self.backoff.next((self.draw)()),
        };
        self.phase = Phase::Down {
            dial_at: now.saturating_add(wait),
        };
    }

    fn tick(&mut self, now: u64, out: &mut Vec<Action>) {
        if self.unanswered.overdue_at() <= now {
            let error = TierError::TimedOut {
                after: self.rules.timeout,
            };
            self.counters.timed_out();
            self.lose(now, FlushCause::TimedOut, &error, out);
        }
        match self.phase {
            Phase::Down { dial_at } if dial_at <= now => {
                let link = self.next_link;
                self.next_link += 1;
                self.phase = Phase::Dialing {
                    link,
                    overdue_at: now.saturating_add(nanos(self.rules.timeout)),
                };
                self.counters.dialled();
                out.push(Action::Dial(link));
            }
            Phase::Dialing { link, overdue_at } if overdue_at <= now => {
                out.push(Action::Close(link));
                let after = self.rules.timeout;
                self.back_off(now, &TierError::TimedOut { after });
            }
            Phase::Up { link, ask_at } if ask_at <= now => {
                self.phase = Phase::Up {
                    link,
                    ask_at: now.saturating_add(nanos(self.rules.heartbeat)),
                };
                let heartbeat = self.rules.beat.clone();
                self.send_own(now, link, heartbeat, Errand::Heartbeat, out);
                self.pay_soon(now, link, out);
            }
            _ => {}
        }
    }
}

#[cfg(all(test, not(larder_shuttle)))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::{Action, Change, Coherence, Command, Effect, Event, Push, Reply, Request, Rules};
    use crate::tier::envelope::Seal;
    use std::time::Duration;

    fn command(word: &str) -> Command {
        vec![word.into()]
    }

    fn role() -> Reply {
        Reply::List(vec![Reply::Bytes(b"master".to_vec())])
    }

    /// One whose link 1 stands.
    fn linked() -> Coherence {
        let second = Duration::from_secs(1);
        let rules = Rules {
            timeout: second,
            heartbeat: second,
            backoff: (second, second),
            trips_at: 5,
            rest: second,
            arming: vec![command("ROLE")],
            beat: vec![command("ROLE")],
            invalidate_all: command("ALL"),
            most_owed: 100,
        };
        let mut link = Coherence::new(rules, Default::default(), Box::new(|| 0.0));
        let mut out = Vec::new();
        link.handle(0, Event::Tick, &mut out);
        link.handle(0, Event::Dialed(1), &mut out);
        link.handle(0, Event::Replied(1, 1, Ok(vec![role()])), &mut out);
        assert!(link.is_up());
        link
    }

    fn key() -> Vec<Change> {
        vec![Change::Key(b"k".to_vec())]
    }

    /// A fenced write of a key, a message about it, and what was read back: what the listener is told.
    fn told(read_back: &[u8]) -> Vec<Vec<Change>> {
        let (mut link, mut out) = (linked(), Vec::new());
        let effect = Effect::Fenced {
            key: b"k".to_vec(),
            seal: Seal([7; 16]),
        };
        let request = Request {
            id: 2,
            commands: vec![command("PUT"), command("SEAL")],
            effect,
        };
        link.handle(0, Event::Request(request), &mut out);
        link.handle(0, Event::Pushed(1, Push::Changed(key())), &mut out);
        let telling = |action: &Action| matches!(action, Action::Tell(_));
        assert!(!out.iter().any(telling), "it is set aside");
        let replies = vec![Reply::Int(1), Reply::Bytes(read_back.to_vec())];
        link.handle(0, Event::Replied(1, 2, Ok(replies)), &mut out);
        // And the next message about the key is nobody's echo.
        link.handle(0, Event::Pushed(1, Push::Changed(key())), &mut out);
        let told = out.into_iter().filter_map(|action| match action {
            Action::Tell(changes) => Some(changes),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn a_message_beside_an_own_write_is_told_unless_the_write_stands() {
        let own = Change::Own(b"k".to_vec(), Seal([7; 16]));
        assert_eq!(told(&[7; 16]), [vec![own], key()]);
        assert_eq!(told(&[8; 16]), [key(), key()]);
        assert_eq!(told(&[]), [key(), key()]);
    }

    #[test]
    fn a_lost_link_is_closed_then_flushed_and_only_then_is_anybody_told() {
        let (mut link, mut out) = (linked(), Vec::new());
        let effect = Effect::Write {
            changes: key(),
            owed: vec![command("DEL")],
        };
        let request = Request {
            id: 2,
            commands: vec![command("DEL")],
            effect,
        };
        link.handle(0, Event::Request(request), &mut out);
        out.clear();
        link.handle(0, Event::Lost(1, "gone".into()), &mut out);
        let order: Vec<&str> = out
            .iter()
            .map(|action| match action {
                Action::Close(1) => "close",
                Action::Flush(_) => "flush",
                Action::Linked(false) => "down",
                Action::Answer(2, Err(_)) => "answer",
                _ => "else",
            })
            .collect();
        assert_eq!(order, ["close", "flush", "down", "answer"]);
        // What was lost is paid before the next link is anybody's.
        out.clear();
        link.handle(u64::MAX / 2, Event::Tick, &mut out);
        link.handle(u64::MAX / 2, Event::Dialed(2), &mut out);
        link.handle(
            u64::MAX / 2,
            Event::Replied(2, 3, Ok(vec![role()])),
            &mut out,
        );
        assert!(!link.is_up());
        let paid = out.iter().any(|action| {
            matches!(action, Action::Send(2, 5, commands) if *commands == [command("DEL")])
        });
        assert!(paid, "{out:?}");
        link.handle(
            u64::MAX / 2,
            Event::Replied(2, 5, Ok(vec![Reply::Int(1)])),
            &mut out,
        );
        assert!(link.is_up());
    }
}
