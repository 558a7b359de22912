//! Joining a flight: who leads it, who follows, and who takes over.

use super::waiter::Wake;
use super::{Flight, FlightOutcome, FlightPhase};
use crate::entry::generation::EpochCounter;
use crate::util::error::LoadError;

/// A caller that asks for a flight in the table.
pub(crate) struct Joiner<'a> {
    /// The highest minimum epoch that the caller must respect.
    pub(crate) min_epoch: u64,
    /// The epoch of a term that begins now.
    pub(crate) epoch: u64,
    /// Its term would be a turn, without a loader.
    pub(crate) turn: bool,
    pub(crate) now: u64,
    /// The start before which a leader has had its time.
    pub(crate) overdue: u64,
    /// It can be given an error that is remembered.
    pub(crate) takes_errors: bool,
    /// It waits for a loader that has not begun, too: one of its own would queue behind that one.
    pub(crate) queues: bool,
    pub(crate) epochs: &'a EpochCounter,
}

/// What a caller finds when it asks for a flight in the table.
pub(crate) enum FlightJoin {
    /// It leads from now on.
    Leader { term: u64 },
    /// It would lead, and may not: too many loads are in flight.
    Refused,
    /// It waits, under this ticket.
    Follower { ticket: u64 },
    /// The load failed a moment ago, and the failure is remembered.
    Failed(LoadError),
    /// It found nothing a moment ago, and that is remembered.
    Absent,
    /// It failed a while ago, and is not to be tried again where there is a value to serve instead.
    CoolingDown,
    /// The flight is of the past: a new one must take its place.
    Obsolete,
}

impl<K, V> Flight<K, V> {
    /// Joins or claims a flight in the table. Called under the stripe's lock. `may_lead` is asked if
    /// the caller would lead.
    pub(crate) fn join(&self, joiner: Joiner<'_>, may_lead: impl FnOnce() -> bool) -> FlightJoin {
        let Joiner {
            min_epoch,
            epoch,
            turn,
            now,
            overdue,
            takes_errors,
            queues,
            epochs,
        } = joiner;
        let mut state = self.state.lock();
        if state.epoch < min_epoch {
            return FlightJoin::Obsolete;
        }
        let tags = state.negative.tags.as_ref();
        if tags.is_some_and(|tags| !tags.admits(state.epoch, epochs)) {
            return FlightJoin::Obsolete;
        }
        match &state.phase {
            FlightPhase::Over(outcome) => match &**outcome {
                FlightOutcome::Absent { .. } if now < state.negative.by_all => FlightJoin::Absent,
                FlightOutcome::Failed(error) if takes_errors && now < state.negative.by_all => {
                    FlightJoin::Failed(error.clone())
                }
                FlightOutcome::Failed(_) if now < state.negative.by_served => {
                    FlightJoin::CoolingDown
                }
                _ => FlightJoin::Obsolete,
            },
            FlightPhase::Led if state.since > overdue && (!state.queued || queues) => {
                let ticket = state.add_follower();
                FlightJoin::Follower { ticket }
            }
            FlightPhase::Led | FlightPhase::Leaderless => {
                if may_lead() {
                    let term = state.begin_term(epoch, now, turn);
                    FlightJoin::Leader { term }
                } else {
                    FlightJoin::Refused
                }
            }
        }
    }

    /// A place among the followers for the call that began this flight, and has another lead it. No lock of the
    /// stripe is needed: should the flight have left the table, its leader or its end will tell this one, too.
    pub(crate) fn follow(&self) -> u64 {
        self.state.lock().add_follower()
    }

    /// Makes a follower the leader. Called under the stripe's lock while the flight is in the table; the
    /// follower's wake comes back to be dropped after it.
    pub(crate) fn claim(
        &self,
        ticket: u64,
        epoch: u64,
        now: u64,
        overdue: u64,
        turn: bool,
    ) -> Option<(u64, Option<Wake>)> {
        let mut state = self.state.lock();
        let claimable = match state.phase {
            FlightPhase::Leaderless => true,
            FlightPhase::Led => state.since <= overdue,
            FlightPhase::Over(_) => false,
        };
        if !claimable {
            return None;
        }
        let wake = state.followers.remove(&ticket);
        Some((state.begin_term(epoch, now, turn), wake))
    }
}
