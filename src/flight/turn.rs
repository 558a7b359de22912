//! Turns: who may change a key by what it read there.
//!
//! A read-modify-write (`compute`, `remove_if`) that lost a race leads the flight of its key, without a loader, until it
//! has written: that is its turn. Others that read, decide and write wait for it; blind writes, which depend on nothing
//! that is there, do not, and revoke it.

use super::{Flight, FlightPhase, wait_graph};
use crate::util::sync::Arc;

// Of std, also under shuttle, as the leader's id is.
use std::sync::atomic::Ordering;

/// What a write does about the turn of another call with its key.
pub(crate) enum WriteTurn<'a, K, V> {
    /// It leaves the key alone, to wait for that turn.
    Respects,
    /// It has one itself: it leads this flight, for this term. Should another have taken over, it leaves the key alone.
    Has(&'a Arc<Flight<K, V>>, u64),
    /// It writes all the same: it depends on nothing, or waiting would never end.
    Ignores,
}

impl<K, V> Copy for WriteTurn<'_, K, V> {}

impl<K, V> Clone for WriteTurn<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> WriteTurn<'_, K, V> {
    /// Whether the flight in the table says that another call has its turn, and this one minds. Called under the
    /// stripe's lock.
    pub(crate) fn waits_for(&self, flight: Option<&Arc<Flight<K, V>>>) -> bool {
        let Some(flight) = flight.filter(|flight| flight.is_turn()) else {
            return false;
        };
        match self {
            WriteTurn::Respects => true,
            WriteTurn::Has(own, term) => !Arc::ptr_eq(own, flight) || !flight.is_led_by(*term),
            WriteTurn::Ignores => false,
        }
    }
}

impl<K, V> Flight<K, V> {
    /// Whether a leader has its turn with the key.
    pub(crate) fn is_turn(&self) -> bool {
        let state = self.state.lock();
        state.turn && matches!(state.phase, FlightPhase::Led)
    }

    /// Whether a leader that began after `overdue` runs its loader, and has no mere turn.
    pub(crate) fn is_load_under_way(&self, overdue: u64) -> bool {
        let state = self.state.lock();
        let led = matches!(state.phase, FlightPhase::Led);
        led && !state.turn && state.since > overdue
    }

    /// Notes a write of the key that takes the flight out of the table: whether the leader's own code made it.
    pub(crate) fn note_write(&self) {
        let mut state = self.state.lock();
        state.wrote_own_key |=
            state.turn && wait_graph::is_loading_as(self.leader_id.load(Ordering::Relaxed));
    }

    /// Whether the leader's own code has written the key during its turn.
    pub(crate) fn has_written_own_key(&self) -> bool {
        self.state.lock().wrote_own_key
    }
}
