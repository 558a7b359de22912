//! One process: its cache, its link's state machine, and what the network has for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use larder::ManualClock;
use larder::tier::redis::internals::{
    Answer, Client, Coherence, Commands, ConnectionCounters, ConnectionId, ConnectionRules,
    RedisTier, Request,
};
use larder::tier::{Change, FlushCause, TierListener, Tiered};
use parking_lot::Mutex;

use crate::faults::Dice;
use crate::network::Bug;
use crate::oracle::{KEYS, Oracle, tag};

pub(crate) const TIMEOUT: Duration = Duration::from_millis(100);
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(200);

/// What the tier hands to the simulation.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) requests: Mutex<Vec<(Request, Answer)>>,
    listener: Mutex<Option<Weak<dyn TierListener>>>,
    /// The process's own time.
    pub(crate) now: AtomicU64,
}

struct DeskPort(Arc<Desk>);

impl Client for DeskPort {
    fn submit(&self, request: Request, answer: Answer) {
        self.0.requests.lock().push((request, answer));
    }
    fn listen(&self, listener: Weak<dyn TierListener>) {
        *self.0.listener.lock() = Some(listener);
    }
    fn timeout(&self) -> Duration {
        TIMEOUT
    }
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(Sleep::on(&self.0, time))
    }
}

/// Everybody is polled whenever anything happens, so nobody needs to be woken.
pub(crate) struct Sleep {
    desk: Arc<Desk>,
    until: u64,
}

impl Sleep {
    pub(crate) fn on(desk: &Arc<Desk>, time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Sleep {
            desk: desk.clone(),
            until: desk.now.load(Relaxed).saturating_add(nanos),
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.desk.now.load(Relaxed) >= self.until {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// A connection, as its process sees it.
pub(crate) struct Wire {
    pub(crate) link: ConnectionId,
    pub(crate) is_silent: bool,
    /// Nothing overtakes: the last delivery in each direction.
    pub(crate) to_server: u64,
    pub(crate) to_process: u64,
}

pub(crate) struct Process {
    pub(crate) number: usize,
    pub(crate) cache: Tiered<String, u64>,
    pub(crate) coherence: Coherence,
    pub(crate) counters: Arc<ConnectionCounters>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) answers: HashMap<u64, Answer>,
    pub(crate) wire: Option<Wire>,
    errors: u64,
    clock: ManualClock,
    oracle: Rc<RefCell<Oracle>>,
    bug: Bug,
}

impl Process {
    pub(crate) fn new(
        number: usize,
        bug: Bug,
        dice: &mut Dice,
        oracle: Rc<RefCell<Oracle>>,
    ) -> Self {
        let layout = Commands::new("");
        let mut handshake = layout.handshake(false);
        if bug == Bug::OldRunBelieved {
            handshake.remove(1);
        }
        let mut rules = ConnectionRules {
            timeout: TIMEOUT,
            heartbeat: HEARTBEAT,
            backoff: (Duration::from_millis(2), Duration::from_millis(50)),
            trips_at: 5,
            rest: Duration::from_millis(30),
            handshake,
            ping: layout.ping(),
            invalidate_all: layout.incr_version("*"),
            max_retry_words: if bug == Bug::DebtsForgotten { 0 } else { 12 },
        };
        if bug == Bug::DebtsForgotten {
            rules.invalidate_all = layout.ping().pop().unwrap();
        }
        let counters = Arc::new(ConnectionCounters::default());
        let mut jitter = Dice::new(dice.draw(u64::MAX));
        let draw = move || jitter.draw(1 << 20) as f64 / (1 << 20) as f64;
        let coherence = Coherence::new(rules, counters.clone(), Box::new(draw));
        let desk = Arc::new(Desk::default());
        let clock = ManualClock::new();
        let tier = RedisTier::new(DeskPort(desk.clone()), layout);
        let milli = Duration::from_millis;
        let mut builder = Tiered::builder(tier)
            .max_capacity(64)
            .clock(clock.clock())
            .time_to_live(milli(200 + dice.draw(2_000)))
            .l1_time_to_live(milli(50 + dice.draw(2_000)))
            .lease(milli(20 + dice.draw(300)));
        if dice.one_in(3) {
            builder = builder.wait_for_others(milli(1 + dice.draw(60)));
        }
        if dice.one_in(3) {
            builder = builder.stale_while_revalidate(milli(dice.draw(500)));
        }
        if dice.one_in(3) {
            builder = builder.stale_if_error(milli(dice.draw(500)), milli(1 + dice.draw(50)));
        }
        Process {
            number,
            cache: builder.build().unwrap(),
            coherence,
            counters,
            desk,
            answers: HashMap::new(),
            wire: None,
            errors: 0,
            clock,
            oracle,
            bug,
        }
    }

    /// Lets time pass, for this process alone if its clock jumps.
    pub(crate) fn pass(&self, nanos: u64) {
        self.desk.now.fetch_add(nanos, Relaxed);
        self.clock.advance(Duration::from_nanos(nanos));
    }

    /// Whether the tier has failed it since this was asked.
    pub(crate) fn has_failed(&mut self) -> bool {
        let errors = self.cache.tiered_stats().l2_errors;
        std::mem::replace(&mut self.errors, errors) != errors
    }

    pub(crate) fn now(&self) -> u64 {
        self.desk.now.load(Relaxed)
    }

    fn act(&self, covers: impl Fn(usize) -> bool, act: impl FnOnce(&dyn TierListener)) {
        let listener = self.desk.listener.lock().as_ref().and_then(Weak::upgrade);
        let known: Vec<(usize, u64)> = (0..KEYS)
            .filter(|&key| covers(key))
            .map(|key| (key, self.oracle.borrow().begins_to_act(key)))
            .collect();
        if let Some(listener) = listener {
            act(&*listener);
        }
        for (key, floor) in known {
            self.oracle.borrow_mut().has_acted(self.number, key, floor);
        }
    }

    pub(crate) fn tell(&self, changes: &[Change]) {
        let covers = |key: usize| {
            changes.iter().any(|change| match change {
                Change::Key(bytes) => *bytes == format!(":k{key}").into_bytes(),
                Change::Version(name) => **name == *"*" || name.strip_prefix('#') == Some(tag(key)),
                _ => false,
            })
        };
        self.act(covers, |listener| listener.changed(changes));
    }

    pub(crate) fn flush(&self, cause: FlushCause) {
        let ignored = self.bug == Bug::FlushIgnored
            && !matches!(cause, FlushCause::ServerFlush | FlushCause::Unreadable);
        if !ignored {
            self.act(|_| true, |listener| listener.flushed(cause));
        }
    }

    pub(crate) fn connection_changed(&self, up: bool) {
        self.act(|_| false, |listener| listener.connection_changed(up));
    }
}
