//! Following a flight: waiting for another caller's load, as a thread or as a task.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::leader::Lead;
use crate::entry::generation::Namespace;
use crate::entry::removal::drop_catching;
use crate::flight::wait_graph::{Node, Waits};
use crate::flight::waiter::Wake;
use crate::flight::{Flight, Kept, Look, Outcome};
use crate::store::Store;
use crate::util::sync::Arc;

/// How a wait ended.
pub(crate) enum Followed<K, V> {
    /// The flight is over.
    Over(Arc<Outcome<V>>),
    /// The leader went without a result, or had its time, and this caller leads now.
    Lead(Lead<K, V>),
    /// The wait deadline has passed.
    TimedOut(Duration),
    /// The flight was revoked and its leader has gone or had its time: look again.
    Again,
}

/// A place among those who wait for a flight. Dropped, it is given up, and a wake that was meant for it
/// goes on to the next.
pub(crate) struct Follow<K, V> {
    store: Arc<Store<K, V>>,
    namespace: Arc<Namespace>,
    flight: Kept<K, V>,
    ticket: u64,
    /// The number of the sequence when this caller joined.
    joined: u64,
    since: u64,
    waits: Waits,
    waker: Option<Waker>,
    sleep: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Whether it waits for a value, and not for its turn with the key.
    loads: bool,
    /// Whether this caller began the load, and has another run the loader: it does not take over from that one.
    own: bool,
    over: bool,
}

/// What one look comes to.
enum Step<K, V> {
    Ended(Followed<K, V>),
    /// Nothing yet; look again by then at the latest.
    Wait {
        at_most: u64,
        wakes: bool,
    },
}

impl<K, V> Follow<K, V> {
    pub(super) fn new(
        store: &Arc<Store<K, V>>,
        namespace: &Arc<Namespace>,
        flight: Arc<Flight<K, V>>,
        ticket: u64,
        joined: u64,
        loads: bool,
    ) -> Self {
        Follow {
            store: Arc::clone(store),
            namespace: Arc::clone(namespace),
            flight: Kept::new(flight),
            ticket,
            joined,
            since: store.clock.now(),
            waits: Waits::default(),
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

    pub(super) fn set_waits(&mut self, waits: Waits) {
        self.waits = waits;
    }

    pub(crate) fn flight(&self) -> &Flight<K, V> {
        &self.flight
    }

    /// The number of the sequence at which this caller joined: what was invalidated up to then, it must
    /// not be given.
    pub(crate) fn joined(&self) -> u64 {
        self.joined
    }

    /// When this wait has lasted as long as the wait deadline allows.
    pub(crate) fn deadline(&self) -> u64 {
        self.since.saturating_add(self.store.loads.wait_deadline)
    }

    /// Parks the thread until the wait ends: when the load does, or `until` that moment of the clock.
    pub(crate) fn wait(&mut self, until: u64) -> Followed<K, V> {
        loop {
            let wake = Wake::Thread(crate::util::sync::current());
            match self.step(Some(wake), until) {
                Step::Ended(followed) => return followed,
                Step::Wait { at_most, .. } => {
                    let longest = self.store.clock.longest_park();
                    // An unpark that came since the look is kept by the thread: this returns at once.
                    crate::util::sync::park_timeout(Duration::from_nanos(at_most).min(longest));
                }
            }
        }
    }

    /// The same for a task. A task wakes by itself only if the cache was given a timer; without one it
    /// sees a deadline when anything else makes it look.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, until: u64) -> Poll<Followed<K, V>> {
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
                Step::Ended(followed) => return Poll::Ready(followed),
                // The wake was spent: register again, and look once more.
                Step::Wait { wakes: false, .. } => drop_catching(self.waker.take()),
                Step::Wait { at_most, .. } => {
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

    fn step(&mut self, wake: Option<Wake>, until: u64) -> Step<K, V> {
        let load_deadline = self.store.loads.load_deadline;
        match self.flight.look(self.ticket, wake) {
            Look::Over(outcome) => {
                self.over = true;
                Step::Ended(Followed::Over(outcome))
            }
            Look::Claim => self.claim(),
            Look::Waiting { since, wakes } => {
                let now = self.store.clock.now();
                let load_left = load_deadline.saturating_sub(now.saturating_sub(since));
                let waited = now.saturating_sub(self.since);
                let wait_left = until.saturating_sub(now);
                if load_left == 0 && !self.own {
                    self.claim()
                } else if wait_left == 0 {
                    Step::Ended(Followed::TimedOut(Duration::from_nanos(waited)))
                } else {
                    Step::Wait {
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
    fn claim(&mut self) -> Step<K, V> {
        let (store, flight, ticket) = (&self.store, &self.flight, self.ticket);
        // As in `begin`: the node stands before the visit settles.
        let node = Node::new();
        let entered = node.enter();
        let claimed = store.visit(store.stripe(flight.hash), |visit| {
            if !visit.flights.contains(flight) {
                return None;
            }
            let now = visit.now.precise();
            let epoch = store.epochs.current();
            let overdue = now.saturating_sub(store.loads.load_deadline);
            let claimed = flight.claim(ticket, epoch, now, overdue);
            if claimed.is_some() {
                flight.set_leader_node(node.id());
            }
            Some((claimed, epoch))
        });
        drop(entered);
        match claimed {
            // Revoked, and nobody brings its value any more.
            None => Step::Ended(Followed::Again),
            Some((Some((term, wake)), epoch)) => {
                drop_catching(wake);
                self.over = true;
                self.store.force_permit();
                let namespace = Arc::clone(&self.namespace);
                let flight = Kept::new(Arc::clone(&self.flight));
                let term = (term, epoch);
                let lead = Lead::new(&self.store, namespace, flight, term, node, self.loads);
                Step::Ended(Followed::Lead(lead))
            }
            // Another caller was faster. Whatever it leads to is seen at the next look.
            Some((None, _)) => Step::Wait {
                at_most: 0,
                wakes: false,
            },
        }
    }
}

impl<K, V> Lead<K, V> {
    /// A place among those who wait for this load, for the call that has it run elsewhere.
    pub(crate) fn follow(&self) -> Follow<K, V> {
        let flight = Arc::clone(&self.flight);
        let ticket = flight.follow();
        let mut follow = Follow::new(
            &self.store,
            &self.namespace,
            flight,
            ticket,
            self.epoch,
            true,
        )
        .of_its_own();
        // No circle: nothing waits for this leader's node but what has begun since, of which this is the first.
        if let Some(waits) = Waits::begin(self.flight.node()) {
            follow.set_waits(waits);
        }
        follow
    }
}

impl<K, V> Drop for Follow<K, V> {
    fn drop(&mut self) {
        drop_catching(self.waker.take());
        if self.over {
            return;
        }
        if self.flight.leave(self.ticket) {
            // Leaderless and deserted: nobody else will take it out of the table.
            let flight = &self.flight;
            let removed = self.store.visit(self.store.stripe(flight.hash), |visit| {
                if visit.flights.contains(flight) && flight.is_deserted() {
                    visit.flights.remove(flight)
                } else {
                    None
                }
            });
            drop_catching(removed);
        }
    }
}
