//! The configurations: every combination of policy, weigher, lifetimes, shards and listener.

use std::hash::{Hash, Hasher};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use larder::{Cache, EvictionPolicy, Expiry, ManualClock, RemovalCause};

use crate::support::Rng;

/// A key that knows its namespace without being told apart by it, so that the journal, which is told of
/// keys alone, says which namespace lost one. Two namespaces hold *equal* keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) id: u32,
    pub(crate) space: u8,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

pub(crate) type Subject = Cache<Key, i64>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) lru: bool,
    pub(crate) weigher: bool,
    pub(crate) ttl: bool,
    pub(crate) tti: bool,
    pub(crate) expiry: bool,
    /// The expiry policy hears of reads.
    pub(crate) reads: bool,
    pub(crate) shards: u64,
    pub(crate) listener: bool,
    pub(crate) negative: bool,
    pub(crate) windows: Windows,
}

/// For how long a value is stale after its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) revalidate: Duration,
    pub(crate) error: Duration,
    /// How long a source that failed is left alone, where a stale value was served instead.
    pub(crate) rest: Duration,
}

impl Windows {
    const NONE: Windows = Windows {
        revalidate: Duration::ZERO,
        error: Duration::ZERO,
        rest: Duration::ZERO,
    };

    /// Either alone, each longer than the other, and one without an end; rests shorter and longer than
    /// `NEGATIVE`.
    const CHOICES: [Windows; 6] = [
        Windows::NONE,
        Windows::of(40, Duration::ZERO, 0),
        Windows::of(0, Duration::from_millis(80), 30),
        Windows::of(120, Duration::from_millis(50), 20),
        Windows::of(30, Duration::from_millis(300), 200),
        Windows::of(0, Duration::MAX, 60),
    ];

    const fn of(revalidate: u64, error: Duration, rest: u64) -> Windows {
        Windows {
            revalidate: Duration::from_millis(revalidate),
            error,
            rest: Duration::from_millis(rest),
        }
    }
}

pub(crate) const TTL: Duration = Duration::from_millis(150);
pub(crate) const TTI: Duration = Duration::from_millis(90);
pub(crate) const NEGATIVE: Duration = Duration::from_millis(120);
/// How long the engine remembers an uncacheable key.
pub(crate) const UNCACHEABLE: Duration = Duration::from_secs(5);

/// The weight of a value: mostly light, sometimes nothing, sometimes too much for any capacity here.
pub(crate) fn weight(value: i64) -> u64 {
    if value % 41 == 0 {
        1 << 40
    } else {
        value.rem_euclid(5) as u64
    }
}

/// The expiry policy, as plain functions of the value, so that the reference can ask it too.
pub(crate) mod policy {
    use std::time::Duration;

    pub(crate) fn create(value: i64) -> Option<Duration> {
        match value.rem_euclid(11) {
            0 => None,
            1 => Some(Duration::ZERO),
            n => Some(Duration::from_millis(20 * n as u64)),
        }
    }

    pub(crate) fn update(value: i64, remaining: Option<Duration>) -> Option<Duration> {
        if value % 3 == 0 {
            remaining
        } else {
            create(value)
        }
    }

    pub(crate) fn read(value: i64, remaining: Option<Duration>) -> Option<Duration> {
        match value.rem_euclid(7) {
            0 => Some(Duration::from_millis(200)),
            1 if value % 5 == 0 => Some(Duration::ZERO),
            2 => None,
            _ => remaining,
        }
    }
}

struct Policy {
    reads: bool,
}

impl Expiry<Key, i64> for Policy {
    fn after_create(&self, _: &Key, value: &i64) -> Option<Duration> {
        policy::create(*value)
    }

    fn after_update(&self, _: &Key, value: &i64, remaining: Option<Duration>) -> Option<Duration> {
        policy::update(*value, remaining)
    }

    fn after_read(&self, value: &i64, remaining: Option<Duration>) -> Option<Duration> {
        policy::read(*value, remaining)
    }

    fn reads(&self) -> bool {
        self.reads
    }
}

/// A cache with everything that watches it.
pub(crate) struct Watched {
    pub(crate) cache: Subject,
    pub(crate) time: ManualClock,
    /// Told under the lock, of every removal.
    pub(crate) journal: Receiver<(Key, RemovalCause)>,
    /// What the listener heard.
    pub(crate) heard: Receiver<(Key, i64, RemovalCause)>,
}

impl Config {
    /// Every combination for one policy and one number of shards; what is left of the choices is spread
    /// over the cases.
    pub(crate) fn all(lru: bool, shards: u64) -> Vec<Config> {
        (0..32)
            .map(|bits: u32| {
                let bit = |n: u32| bits & (1 << n) != 0;
                Config {
                    lru,
                    shards,
                    weigher: bit(0),
                    ttl: bit(1),
                    tti: bit(2),
                    expiry: bit(3),
                    listener: bit(4),
                    reads: false,
                    negative: false,
                    windows: Windows::NONE,
                }
            })
            .collect()
    }

    /// Makes the choices whose product would be too much. Drawn, so that none of them goes with one of the
    /// others.
    pub(crate) fn spread(&mut self, seed: u64) {
        let mut rng = Rng::new(!seed);
        self.reads = rng.percent(50);
        self.negative = rng.percent(60);
        if rng.percent(70) {
            self.windows = rng.pick(&Windows::CHOICES);
        }
    }

    pub(crate) fn weight(&self, value: i64) -> u64 {
        if self.weigher { weight(value) } else { 1 }
    }

    pub(crate) fn build(&self, capacity: u64) -> Watched {
        let time = ManualClock::new();
        let (tell_journal, journal) = channel();
        let (tell_heard, heard) = channel();
        // A cache has eight shards only if it is built for that many entries; it keeps them when its
        // capacity is lowered to what a short test can fill.
        let built_for = if self.shards == 1 { capacity } else { 8192 };
        let policy = if self.lru {
            EvictionPolicy::Lru
        } else {
            EvictionPolicy::S3Fifo
        };
        let mut builder = Cache::builder()
            .max_capacity(built_for)
            .shards(self.shards as usize)
            .eviction_policy(policy)
            .clock(time.clock())
            .__journal(move |key: &Key, cause| {
                let _ = tell_journal.send((*key, cause));
            });
        if self.weigher {
            builder = builder.weigher(|_, value| weight(*value));
        }
        if self.ttl {
            builder = builder.time_to_live(TTL);
        }
        if self.tti {
            builder = builder.time_to_idle(TTI);
        }
        if self.expiry {
            builder = builder.expiry(Policy { reads: self.reads });
        }
        if self.negative {
            builder = builder.error_time_to_live(NEGATIVE);
        }
        let Windows {
            revalidate,
            error,
            rest,
        } = self.windows;
        builder = builder
            .stale_while_revalidate(revalidate)
            .stale_if_error(error, rest);
        if self.listener {
            builder = builder.removal_listener(move |key, value, cause| {
                let _ = tell_heard.send((*key, *value, cause));
            });
        }
        let cache = builder.build().expect("the configuration is valid");
        let shards = format!("shards {},", self.shards);
        assert!(cache.inspect().starts_with(&shards), "{}", cache.inspect());
        cache.set_capacity(capacity);
        Watched {
            cache,
            time,
            journal,
            heard,
        }
    }
}
