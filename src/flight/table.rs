//! The flights of one stripe, by key.

use std::collections::VecDeque;

use equivalent::Equivalent;

use super::Flight;
use crate::ds::index::Index;
use crate::entry::hash::KeyHash;
use crate::entry::removal::drop_catching;
use crate::util::sync::{Arc, Weak};

/// The flights of one stripe, by key. Its owner's lock guards it.
pub(crate) struct FlightTable<K, V> {
    index: Index,
    flights: Vec<Option<Arc<Flight<K, V>>>>,
    free: Vec<u32>,
    /// Keys whose value was declared uncacheable lately: whole hashes, and until when.
    uncacheable: Vec<(u64, u64)>,
    /// Flights that are over and remembered, oldest first.
    over: VecDeque<Arc<Flight<K, V>>>,
    detached: Detached<K, V>,
}

/// Flights that left the table while their leaders were running: each with its epoch, for as long as anybody has it.
struct Detached<K, V> {
    flights: Vec<(u64, Weak<Flight<K, V>>)>,
    /// At this length those that are gone are looked for.
    clean_at: usize,
}

impl<K, V> Detached<K, V> {
    const SMALLEST_CLEAN: usize = 8;

    fn add(&mut self, epoch: u64, flight: &Arc<Flight<K, V>>) {
        if self.flights.len() >= self.clean_at {
            // Not upgraded: the last owner of a flight drops a key of the user's, and a lock is held.
            self.flights.retain(|(_, flight)| flight.strong_count() > 0);
            self.flights.shrink_to(2 * self.flights.len());
            self.clean_at = (2 * self.flights.len()).max(Self::SMALLEST_CLEAN);
        }
        self.flights.push((epoch, Arc::downgrade(flight)));
    }

    fn oldest(&self) -> Option<u64> {
        let running = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.strong_count() > 0);
        running.map(|(epoch, _)| *epoch).min()
    }
}

/// How many uncacheable keys a stripe remembers.
const UNCACHEABLE: usize = 64;
/// How many failures and absences a stripe remembers.
const OVER: usize = 1024;

impl<K, V> FlightTable<K, V> {
    pub(crate) fn new() -> Self {
        FlightTable {
            index: Index::new(None),
            flights: Vec::new(),
            free: Vec::new(),
            uncacheable: Vec::new(),
            over: VecDeque::new(),
            detached: Detached {
                flights: Vec::new(),
                clean_at: Detached::<K, V>::SMALLEST_CLEAN,
            },
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// Whether there is nothing in here, and nothing remembered.
    #[inline]
    pub(crate) fn holds_nothing(&self) -> bool {
        self.is_empty() && self.uncacheable.is_empty() && self.over.is_empty()
    }

    /// The flight of a key. Runs `Eq`.
    #[inline]
    pub(crate) fn find<Q>(
        &self,
        hash: KeyHash,
        namespace: u32,
        key: &Q,
    ) -> Option<Arc<Flight<K, V>>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        if self.is_empty() {
            return None;
        }
        self.find_among(hash, namespace, key)
    }

    #[cold]
    fn find_among<Q>(&self, hash: KeyHash, namespace: u32, key: &Q) -> Option<Arc<Flight<K, V>>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let place = self.index.find(hash.in_shard(), |place| {
            self.flights[place as usize].as_ref().is_some_and(|flight| {
                flight.hash == hash && flight.namespace == namespace && key.equivalent(&flight.key)
            })
        })?;
        self.flights[place as usize].clone()
    }

    pub(crate) fn contains(&self, flight: &Arc<Flight<K, V>>) -> bool {
        self.place(flight).is_some()
    }

    /// Adds a flight for a key that has none.
    pub(crate) fn add(&mut self, flight: Arc<Flight<K, V>>) {
        let hash = flight.hash.in_shard();
        let place = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            (self.flights.len() - 1) as u32
        });
        self.flights[place as usize] = Some(flight);
        let flights = &self.flights;
        self.index
            .insert(hash, place, |place| hash_at(flights, place));
    }

    /// Takes a flight out. The caller drops what comes back after unlocking: it may own the key.
    pub(crate) fn remove(&mut self, flight: &Arc<Flight<K, V>>) -> Option<Arc<Flight<K, V>>> {
        let place = self.place(flight)?;
        let flights = &self.flights;
        self.index.remove(flight.hash.in_shard(), place, |place| {
            hash_at(flights, place)
        });
        self.free.push(place);
        let gone = self.flights[place as usize].take();
        if self.is_empty() {
            // A burst of loads leaves no memory behind.
            self.flights = Vec::new();
            self.free = Vec::new();
        }
        gone
    }

    /// Takes out a flight that another call than its leader ends. Its leader may go on, for those who wait.
    pub(crate) fn detach(&mut self, flight: &Arc<Flight<K, V>>) -> Option<Arc<Flight<K, V>>> {
        if let Some(epoch) = flight.running_epoch() {
            self.detached.add(epoch, flight);
        }
        self.remove(flight)
    }

    /// The epoch of the oldest load that is running, in the table or detached. O(flights).
    pub(crate) fn oldest_epoch(&self) -> Option<u64> {
        let here = self.flights.iter().flatten();
        let oldest = here.filter_map(|flight| flight.running_epoch()).min();
        oldest.into_iter().chain(self.detached.oldest()).min()
    }

    /// All flights of a namespace.
    pub(crate) fn of_namespace(&self, namespace: u32) -> Vec<Arc<Flight<K, V>>> {
        let all = self.flights.iter().flatten();
        all.filter(|flight| flight.namespace == namespace)
            .cloned()
            .collect()
    }

    /// Remembers that a key's value was declared uncacheable.
    pub(crate) fn remember_uncacheable(&mut self, hash: KeyHash, until: u64) {
        self.forget_uncacheable(hash);
        if self.uncacheable.len() == UNCACHEABLE {
            self.uncacheable.remove(0);
        }
        self.uncacheable.push((hash.whole(), until));
    }

    #[inline]
    pub(crate) fn forget_uncacheable(&mut self, hash: KeyHash) {
        if !self.uncacheable.is_empty() {
            self.forget_among(hash);
        }
    }

    #[cold]
    fn forget_among(&mut self, hash: KeyHash) {
        self.uncacheable.retain(|&(whole, _)| whole != hash.whole());
    }

    pub(crate) fn is_uncacheable(&self, hash: KeyHash, now: u64) -> bool {
        self.uncacheable
            .iter()
            .any(|&(whole, until)| whole == hash.whole() && now < until)
    }

    /// Keeps a flight that is over until its time is, too. A flight that has to go for it comes back, to be dropped
    /// outside the lock.
    #[must_use]
    pub(crate) fn remember(&mut self, flight: Arc<Flight<K, V>>) -> Option<Arc<Flight<K, V>>> {
        self.over.push_back(flight);
        if self.over.len() <= OVER {
            return None;
        }
        let oldest = self.over.pop_front()?;
        self.remove(&oldest);
        Some(oldest)
    }

    /// Forgets up to `most` of those whose time is over.
    #[must_use]
    pub(crate) fn forget_expired(&mut self, now: u64, most: usize) -> Vec<Arc<Flight<K, V>>> {
        let mut gone = Vec::new();
        while gone.len() < most {
            let Some(flight) = self.over.pop_front() else {
                break;
            };
            let over = flight.remembered_until().is_none_or(|until| until <= now);
            if !over && self.contains(&flight) {
                // Not all are remembered for the same time: those behind it have their turn at the next call.
                self.over.push_back(flight);
                break;
            }
            self.remove(&flight);
            gone.push(flight);
        }
        gone
    }

    pub(crate) fn remembers(&self) -> bool {
        !self.over.is_empty()
    }

    /// How many callers wait for the flights in the table.
    pub(crate) fn followers(&self) -> usize {
        let all = self.flights.iter().flatten();
        all.map(|flight| flight.followers()).sum()
    }

    /// How many flights are in the table.
    pub(crate) fn len(&self) -> usize {
        self.index.len() as usize
    }

    fn place(&self, flight: &Arc<Flight<K, V>>) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        self.index.find(flight.hash.in_shard(), |place| {
            self.flights[place as usize]
                .as_ref()
                .is_some_and(|other| Arc::ptr_eq(other, flight))
        })
    }
}

/// Drops the flights one by one, for the sake of keys whose `Drop` panics.
impl<K, V> Drop for FlightTable<K, V> {
    fn drop(&mut self) {
        for flight in self.flights.drain(..).flatten() {
            drop_catching(flight);
        }
        for flight in self.over.drain(..) {
            drop_catching(flight);
        }
    }
}

fn hash_at<K, V>(flights: &[Option<Arc<Flight<K, V>>>], place: u32) -> u32 {
    flights[place as usize]
        .as_ref()
        .map_or(0, |flight| flight.hash.in_shard())
}
