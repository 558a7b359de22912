//! Per-key single flight: who loads, who waits, and what becomes of both.
//!
//! A [`Flight`] is one load of one key. While it is in its stripe's [`FlightTable`], callers that
//! miss join it; its *leader* alone runs a loader, and alone may publish. This module holds the state
//! machine and knows no shard; `load` and `store` call it under the stripe's lock wherever the table or the right
//! to publish is concerned.
//!
//! # The states of a flight
//!
//! | state | in the table | meaning |
//! |---|---|---|
//! | `Led` | yes | a leader runs its loader; followers wait |
//! | `Led` | no | *detached*: revoked; the leader's value goes to those who had joined, not into the cache |
//! | `Leaderless` | yes | *abandoned*: the leader was dropped or panicked; the next caller or follower to look claims it |
//! | `Over` | yes | a *failed* load, or one that found nothing, that is remembered for a while |
//! | `Over` | no | done, absent, failed, given up or superseded: followers take the outcome and go |
//!
//! # Invariants
//! * `state` is a leaf lock: nothing else is locked, and no user code runs, while it is held. Stripe
//!   before flight.
//! * `term` grows with every change of leader. A leader may publish only under the stripe's lock, while
//!   its flight is in the table and its term is the flight's.
//! * `epoch` is drawn under the stripe's lock when a leader's term begins, before its loader runs.
//! * Followers join under the stripe's lock while the flight is in the table, so a flight that has left the table gains
//!   no more of them; save the call that began it, which may follow the leader that it handed the loader to.
//! * Whoever ends a flight, or makes it leaderless, takes the wakes it owes out of the state under the
//!   lock and calls them after it. A follower that goes away from a leaderless flight wakes the next.

mod join;
mod table;
mod turn;
pub(crate) mod wait_graph;
pub(crate) mod waiter;

pub(crate) use join::{FlightJoin, Joiner};
pub(crate) use table::FlightTable;
pub(crate) use turn::WriteTurn;

use std::collections::BTreeMap;
// Of std, also under shuttle: read while the wait graph's real lock is held, where nobody may be scheduled.
use std::sync::atomic::{AtomicU64, Ordering};

use crate::entry::generation::TagSet;
use crate::entry::hash::KeyHash;
use crate::util::error::LoadError;
use crate::util::sync::{Arc, Mutex};
use waiter::Wake;

/// How a flight ended, as its followers see it.
pub(crate) enum FlightOutcome<V> {
    /// The value. If a tag of its moved while it was loaded, `overtaken` is the number at which the load
    /// began: a follower that joined at a later number must load again, for it may have begun after
    /// that invalidation had returned. (A tag knows only its latest move, so which of the moves since
    /// came before the follower cannot be told.)
    Done { value: V, overtaken: Option<u64> },
    /// The loader found nothing; `overtaken` as above.
    Absent { overtaken: Option<u64> },
    /// The loader failed, and those who waited share its error.
    Failed(LoadError),
    /// The value is for the leader's caller alone: followers call their own loaders.
    GivenUp,
    /// A write came between, or the flight was detached and then abandoned: followers look again.
    Superseded,
}

enum FlightPhase<V> {
    Led,
    Leaderless,
    Over(Arc<FlightOutcome<V>>),
}

struct FlightState<V> {
    phase: FlightPhase<V>,
    term: u64,
    epoch: u64,
    /// When the leader's term began.
    since: u64,
    /// The leader runs no loader: it has its turn with the key.
    turn: bool,
    /// The leader's own code has written the key during its turn.
    wrote_own_key: bool,
    /// The leader's loader has not begun, and waits for a thread.
    queued: bool,
    /// Until when the end of the load is remembered.
    negative: NegativeResult,
    /// By ticket, so that wakes go out in the order of joining.
    followers: BTreeMap<u64, Wake>,
    next_ticket: u64,
}

/// One load of one key.
pub(crate) struct Flight<K, V> {
    pub(crate) hash: KeyHash,
    pub(crate) namespace: u32,
    key: K,
    state: Mutex<FlightState<V>>,
    /// The id of the current leader, by which the wait graph finds circles of loads.
    leader_id: Arc<AtomicU64>,
}

/// An owner of a flight that lets it go without a panic: it may be the last, with a key of the user's.
pub(crate) struct FlightRef<K, V>(Option<Arc<Flight<K, V>>>);

impl<K, V> FlightRef<K, V> {
    pub(crate) fn new(flight: Arc<Flight<K, V>>) -> Self {
        FlightRef(Some(flight))
    }
}

impl<K, V> std::ops::Deref for FlightRef<K, V> {
    type Target = Arc<Flight<K, V>>;

    fn deref(&self) -> &Arc<Flight<K, V>> {
        match &self.0 {
            Some(flight) => flight,
            // Emptied by `drop` alone.
            None => unreachable!("a flight that was let go"),
        }
    }
}

impl<K, V> Drop for FlightRef<K, V> {
    fn drop(&mut self) {
        crate::entry::removal::drop_catching(self.0.take());
    }
}

/// Until when the end of a load without a value is remembered.
#[derive(Default)]
pub(crate) struct NegativeResult {
    /// By everybody: it is the answer.
    pub(crate) by_all: u64,
    /// By callers that have a value to serve instead.
    pub(crate) by_served: u64,
    /// The tags of an absence: once one of them has moved, it is of the past.
    pub(crate) tags: Option<Box<TagSet>>,
}

impl NegativeResult {
    fn until(&self) -> u64 {
        self.by_all.max(self.by_served)
    }
}

/// What a follower finds when it looks.
pub(crate) enum FollowerView<V> {
    Waiting {
        /// When the present leader's term began.
        since: u64,
        /// Whether this follower will be woken: a wake may have been spent on a claim that another
        /// caller made first.
        wakes: bool,
    },
    Claim,
    Over(Arc<FlightOutcome<V>>),
}

impl<K, V> Flight<K, V> {
    /// A new flight, led by its maker: for a `turn`, or for a loader.
    pub(crate) fn new(
        hash: KeyHash,
        namespace: u32,
        key: K,
        epoch: u64,
        now: u64,
        turn: bool,
    ) -> Arc<Self> {
        Arc::new(Flight {
            hash,
            namespace,
            key,
            state: Mutex::new(FlightState {
                phase: FlightPhase::Led,
                term: FIRST_TERM,
                epoch,
                since: now,
                turn,
                wrote_own_key: false,
                queued: false,
                negative: NegativeResult::default(),
                followers: BTreeMap::new(),
                next_ticket: 0,
            }),
            leader_id: Arc::new(AtomicU64::new(wait_graph::NO_LOAD)),
        })
    }

    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    pub(crate) fn leader_id(&self) -> &Arc<AtomicU64> {
        &self.leader_id
    }

    /// Records who leads, for the search for circles.
    pub(crate) fn set_leader_id(&self, load_id: u64) {
        // Relaxed: the search runs under the wait graph's own lock and tolerates a leader in change.
        self.leader_id.store(load_id, Ordering::Relaxed);
    }

    /// What a follower sees; with `wake`, it asks to be woken when that changes.
    pub(crate) fn view(&self, ticket: u64, wake: Option<Wake>) -> FollowerView<V> {
        let mut state = self.state.lock();
        let mut unneeded = wake;
        let mut wakes = false;
        if let Some(place) = state.followers.get_mut(&ticket) {
            if let Some(wake) = unneeded.take() {
                unneeded = Some(std::mem::replace(place, wake));
            }
            wakes = !matches!(place, Wake::Nobody);
        }
        let view = match &state.phase {
            FlightPhase::Over(outcome) => FollowerView::Over(Arc::clone(outcome)),
            FlightPhase::Leaderless => FollowerView::Claim,
            FlightPhase::Led => FollowerView::Waiting {
                since: state.since,
                wakes,
            },
        };
        drop(state);
        // A waker is user code, also in its `Drop`.
        crate::entry::removal::drop_catching(unneeded);
        view
    }

    /// A follower goes away. Returns whether the flight is now leaderless and deserted.
    pub(crate) fn leave(&self, ticket: u64) -> bool {
        let mut state = self.state.lock();
        let own = state.followers.remove(&ticket);
        let mut next = None;
        let mut deserted = false;
        if matches!(state.phase, FlightPhase::Leaderless) {
            // The wake that was meant for this follower goes on to the next.
            next = state.take_next_wake();
            deserted = state.followers.is_empty();
        }
        drop(state);
        if let Some(next) = next {
            next.call();
        }
        crate::entry::removal::drop_catching(own);
        deserted
    }

    /// Whether `term` still leads. Called under the stripe's lock before publishing.
    pub(crate) fn is_led_by(&self, term: u64) -> bool {
        let state = self.state.lock();
        state.term == term && matches!(state.phase, FlightPhase::Led)
    }

    /// Whether nobody leads and nobody waits.
    pub(crate) fn is_deserted(&self) -> bool {
        let state = self.state.lock();
        matches!(state.phase, FlightPhase::Leaderless) && state.followers.is_empty()
    }

    /// The loader of this term's leader has to wait for a thread: whoever would wait for it takes over.
    pub(crate) fn wait_for_leader(&self, term: u64) {
        let mut state = self.state.lock();
        state.queued |= state.term == term;
    }

    /// It begins, if the term still leads. (Also of a flight that has left the table: some may wait for it.)
    pub(crate) fn leader_begins(&self, term: u64) -> bool {
        let mut state = self.state.lock();
        let leads = state.term == term && matches!(state.phase, FlightPhase::Led);
        state.queued &= !leads;
        leads
    }

    /// Whether a leader that began after `overdue` runs its loader.
    pub(crate) fn is_under_way(&self, overdue: u64) -> bool {
        let state = self.state.lock();
        matches!(state.phase, FlightPhase::Led) && state.since > overdue
    }

    /// The epoch of the load that is running; `None` if none is, or none that anybody will be given the value of.
    pub(crate) fn running_epoch(&self) -> Option<u64> {
        let state = self.state.lock();
        matches!(state.phase, FlightPhase::Led).then_some(state.epoch)
    }

    /// How many wait.
    pub(crate) fn followers(&self) -> usize {
        self.state.lock().followers.len()
    }

    /// The leader of `term` goes without a result. Called under the stripe's lock while the flight is in
    /// the table. Returns the wake of the follower that should claim it, to be called after the lock.
    pub(crate) fn abandon(&self, term: u64) -> Option<Wake> {
        let mut state = self.state.lock();
        if state.term != term || !matches!(state.phase, FlightPhase::Led) {
            return None;
        }
        state.phase = FlightPhase::Leaderless;
        state.take_next_wake()
    }

    /// Ends the flight for everybody, if `term` leads or `term` is `None`. Wakes all followers. To be
    /// called outside the stripe's lock, or with the wakes kept until after it.
    #[must_use = "the followers sleep until the wakes are called"]
    pub(crate) fn end(
        &self,
        term: Option<u64>,
        outcome: FlightOutcome<V>,
        negative: NegativeResult,
    ) -> Wakes<V> {
        let outcome = Arc::new(outcome);
        let mut state = self.state.lock();
        if matches!(state.phase, FlightPhase::Over(_))
            || term.is_some_and(|term| term != state.term)
        {
            return Wakes(Vec::new(), Some(outcome));
        }
        state.phase = FlightPhase::Over(outcome);
        state.negative = negative;
        let wakes = state
            .followers
            .values_mut()
            .map(|place| std::mem::replace(place, Wake::Nobody))
            .collect();
        Wakes(wakes, None)
    }

    /// The flight has been taken out of the table. If a write did it, or if nobody leads, its followers
    /// are told to look again; otherwise they wait on for what the leader brings.
    pub(crate) fn detach(&self, written: bool) -> Wakes<V> {
        let leaderless = matches!(self.state.lock().phase, FlightPhase::Leaderless);
        // Out of the table, a leaderless flight gains no leader: the answer cannot change meanwhile.
        if written || leaderless {
            self.end(None, FlightOutcome::Superseded, NegativeResult::default())
        } else {
            Wakes(Vec::new(), None)
        }
    }

    /// Until when a value is served instead of another attempt after this failure, to a caller that could be given
    /// the failure itself, or not; `None` for a flight that is not over.
    pub(crate) fn cools_down_until(&self, takes_errors: bool) -> Option<u64> {
        let state = self.state.lock();
        let until = if takes_errors {
            state.negative.until()
        } else {
            state.negative.by_served
        };
        matches!(state.phase, FlightPhase::Over(_)).then_some(until)
    }

    /// When the end of this load may be forgotten; `None` for a flight that is not over.
    pub(crate) fn remembered_until(&self) -> Option<u64> {
        let state = self.state.lock();
        matches!(state.phase, FlightPhase::Over(_)).then_some(state.negative.until())
    }
}

const FIRST_TERM: u64 = 1;

/// The term of the maker of a flight.
pub(crate) fn first_term() -> u64 {
    FIRST_TERM
}

impl<V> FlightState<V> {
    fn begin_term(&mut self, epoch: u64, now: u64, turn: bool) -> u64 {
        self.phase = FlightPhase::Led;
        (self.queued, self.turn) = (false, turn);
        self.term += 1;
        self.epoch = epoch;
        self.since = now;
        self.term
    }

    fn add_follower(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.followers.insert(ticket, Wake::Nobody);
        ticket
    }

    /// The wake of the follower that joined first among those that wait.
    fn take_next_wake(&mut self) -> Option<Wake> {
        self.followers
            .values_mut()
            .find(|wake| !matches!(wake, Wake::Nobody))
            .map(|place| std::mem::replace(place, Wake::Nobody))
    }
}

/// Wakes to be called, and an outcome that was not used, to be dropped outside locks.
pub(crate) struct Wakes<V>(Vec<Wake>, Option<Arc<FlightOutcome<V>>>);

impl<V> Wakes<V> {
    pub(crate) fn call(self) {
        for wake in self.0 {
            wake.call();
        }
        crate::entry::removal::drop_catching(self.1);
    }
}
