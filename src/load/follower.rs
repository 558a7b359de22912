//! Following a flight: waiting for another caller's load, as a thread or as a task.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::leader::LeaderGuard;
use crate::entry::generation::Namespace;
use crate::entry::removal::drop_catching;
use crate::flight::wait_graph::{LoadId, WaitEdge};
use crate::flight::waiter::Wake;
use crate::flight::{Flight, FlightOutcome, FlightRef, FollowerView};
use crate::store::Store;
use crate::util::sync::Arc;

/// How a wait ended.
pub(crate) enum WaitOutcome<K, V> {
    /// The flight is over.
    Over(Arc<FlightOutcome<V>>),
    /// The leader went without a result, or had its time, and this caller leads now.
    Leader(LeaderGuard<K, V>),
    /// The wait deadline has passed.
    TimedOut(Duration),
    /// The flight was revoked and its leader has gone or had its time: look again.
    Again,
}

/// A place among those who wait for a flight. Dropped, it is given up, and a wake that was meant for it
/// goes on to the next.
pub(crate) struct Follower<K, V> {
    store: Arc<Store<K, V>>,
    namespace: Arc<Namespace>,
    flight: FlightRef<K, V>,
    ticket: u64,
    /// The current epoch when this caller joined.
    joined: u64,
    since: u64,
    wait_edge: WaitEdge,
    waker: Option<Waker>,
    sleep: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Whether it waits for a value, and not for its turn with the key.
    loads: bool,
    /// Whether this caller began the load, and has another run the loader: it does not take over from that one.
    own: bool,
    over: bool,
}

/// What one look comes to.
enum WaitStep<K, V> {
    Ended(WaitOutcome<K, V>),
    /// Nothing yet; look again by then at the latest.
    Wait {
        at_most: u64,
        wakes: bool,
    },
}

impl<K, V> Follower<K, V> {
    pub(super) fn new(
        store: &Arc<Store<K, V>>,
        namespace: &Arc<Namespace>,
        flight: Arc<Flight<K, V>>,
        ticket: u64,
        joined: u64,
        loads: bool,
    ) -> Self {
        Follower {
            store: Arc::clone(store),
            namespace: Arc::clone(namespace),
            flight: FlightRef::new(flight),
            ticket,
            joined,
            since: store.clock.now(),
            wait_edge: WaitEdge::default(),
            waker: None,
            sleep: None,
            loads,
            own: false,
            over: false,
        }
    }

    /// Whether it waits for a value, and not for its turn.
    pub(super) fn is_for_a_load(&self) -> bool {
        self.loads
    }

    /// For the caller that began the load.
    pub(super) fn of_its_own(mut self) -> Self {
        self.own = true;
        self
    }

    pub(super) fn set_wait_edge(&mut self, wait_edge: WaitEdge) {
        self.wait_edge = wait_edge;
    }

    pub(crate) fn flight(&self) -> &Flight<K, V> {
        &self.flight
    }

    /// The epoch at which this caller joined: what was invalidated up to then, it must
    /// not be given.
    pub(crate) fn joined(&self) -> u64 {
        self.joined
    }

    /// When this wait has lasted as long as the wait deadline allows.
    pub(crate) fn deadline(&self) -> u64 {
        self.since.saturating_add(self.store.loads.wait_deadline)
    }

    /// Parks the thread until the wait ends: when the load does, or `until` that moment of the clock.
    pub(crate) fn wait(&mut self, until: u64) -> WaitOutcome<K, V> {
        loop {
            let wake = Wake::Thread(crate::util::sync::current());
            match self.step(Some(wake), until) {
                WaitStep::Ended(outcome) => return outcome,
                WaitStep::Wait { at_most, .. } => {
                    let longest = self.store.clock.longest_park();
                    // An unpark that came since the look is kept by the thread: this returns at once.
                    crate::util::sync::park_timeout(Duration::from_nanos(at_most).min(longest));
                }
            }
        }
    }

    /// Polls the wait of a task, which ends when the load does, or at the moment `until`. A task wakes at a deadline
    /// by itself only if the cache was given a timer; without one it notices the deadline at its next poll.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        until: u64,
    ) -> Poll<WaitOutcome<K, V>> {
        loop {
            let fresh = match &self.waker {
                Some(waker) if waker.will_wake(context.waker()) => None,
                _ => Some(context.waker().clone()),
            };
            let wake = fresh.clone().map(Wake::Task);
            if fresh.is_some() {
                drop_catching(std::mem::replace(&mut self.waker, fresh));
            }
            match self.step(wake, until) {
                WaitStep::Ended(outcome) => return Poll::Ready(outcome),
                // The wake was spent: register again, and look once more.
                WaitStep::Wait { wakes: false, .. } => drop_catching(self.waker.take()),
                WaitStep::Wait { at_most, .. } => {
                    if self.poll_sleep(context, at_most).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Whether the sleep until the next deadline is over; for ever pending without a timer.
    fn poll_sleep(&mut self, context: &mut Context<'_>, at_most: u64) -> Poll<()> {
        let Some(timer) = &self.store.loads.timer else {
            return Poll::Pending;
        };
        let sleep = self
            .sleep
            .get_or_insert_with(|| timer(Duration::from_nanos(at_most.saturating_add(1))));
        let slept = sleep.as_mut().poll(context);
        if slept.is_ready() {
            self.sleep = None;
        }
        slept
    }

    fn step(&mut self, wake: Option<Wake>, until: u64) -> WaitStep<K, V> {
        let load_deadline = self.store.loads.load_deadline;
        match self.flight.view(self.ticket, wake) {
            FollowerView::Over(outcome) => {
                self.over = true;
                WaitStep::Ended(WaitOutcome::Over(outcome))
            }
            FollowerView::Claim => self.claim(),
            FollowerView::Waiting { since, wakes } => {
                let now = self.store.clock.now();
                let load_left = load_deadline.saturating_sub(now.saturating_sub(since));
                let waited = now.saturating_sub(self.since);
                let wait_left = until.saturating_sub(now);
                if load_left == 0 && !self.own {
                    self.claim()
                } else if wait_left == 0 {
                    WaitStep::Ended(WaitOutcome::TimedOut(Duration::from_nanos(waited)))
                } else {
                    WaitStep::Wait {
                        at_most: if self.own {
                            wait_left
                        } else {
                            load_left.min(wait_left)
                        },
                        wakes,
                    }
                }
            }
        }
    }

    /// Tries to become the leader: the flight is leaderless, or its leader has had its time.
    fn claim(&mut self) -> WaitStep<K, V> {
        let (store, flight, ticket) = (&self.store, &self.flight, self.ticket);
        // As in `join_or_lead`: on this thread's stack before the deferred work runs.
        let load_id = LoadId::new();
        let running = load_id.enter();
        let claimed = store.with_stripe_mut(store.stripe(flight.hash), |stripe| {
            if !stripe.flights.contains(flight) {
                return None;
            }
            let now = stripe.now.precise();
            let epoch = store.epochs.of_load();
            let overdue = now.saturating_sub(store.loads.load_deadline);
            let claimed = flight.claim(ticket, epoch, now, overdue, !self.loads);
            if claimed.is_some() {
                flight.set_leader_id(load_id.id());
            }
            Some((claimed, epoch))
        });
        drop(running);
        match claimed {
            // Revoked, and no leader brings its value any more.
            None => WaitStep::Ended(WaitOutcome::Again),
            Some((Some((term, wake)), epoch)) => {
                drop_catching(wake);
                self.over = true;
                if self.loads {
                    self.store.force_permit();
                }
                let namespace = Arc::clone(&self.namespace);
                let flight = FlightRef::new(Arc::clone(&self.flight));
                let term = (term, epoch);
                let leader =
                    LeaderGuard::new(&self.store, namespace, flight, term, load_id, self.loads);
                WaitStep::Ended(WaitOutcome::Leader(leader))
            }
            // Another caller was faster. Whatever it leads to is seen at the next look.
            Some((None, _)) => WaitStep::Wait {
                at_most: 0,
                wakes: false,
            },
        }
    }
}

impl<K, V> LeaderGuard<K, V> {
    /// A place among those who wait for this load, for the call that has it run elsewhere.
    pub(crate) fn follow(&self) -> Follower<K, V> {
        let flight = Arc::clone(&self.flight);
        let ticket = flight.follow();
        let mut follower = Follower::new(
            &self.store,
            &self.namespace,
            flight,
            ticket,
            self.epoch,
            true,
        )
        .of_its_own();
        // No circle: nothing waits for this leader but what has begun since, of which this is the first.
        if let Some(wait_edge) = WaitEdge::begin(self.flight.leader_id()) {
            follower.set_wait_edge(wait_edge);
        }
        follower
    }
}

impl<K, V> Drop for Follower<K, V> {
    fn drop(&mut self) {
        drop_catching(self.waker.take());
        if self.over {
            return;
        }
        if self.flight.leave(self.ticket) {
            // Leaderless and deserted: nobody else will take it out of the table.
            let flight = &self.flight;
            let removed = self
                .store
                .with_stripe_mut(self.store.stripe(flight.hash), |stripe| {
                    if stripe.flights.contains(flight) && flight.is_deserted() {
                        stripe.flights.remove(flight)
                    } else {
                        None
                    }
                });
            drop_catching(removed);
        }
    }
}
