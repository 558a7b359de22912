//! What can go wrong, each with what to do about it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why [`CacheBuilder::build`](crate::CacheBuilder::build) refused a configuration.
///
/// ```
/// use larder::{BuildError, Cache};
///
/// let refused = Cache::<u64, u64>::builder().build().unwrap_err();
/// assert_eq!(refused, BuildError::NoCapacity);
/// assert!(refused.to_string().contains("max_capacity"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// `max_capacity` was not called.
    NoCapacity,
    /// The entry bound is above what the 32-bit slot numbers of the shards can address.
    TooManyEntries {
        /// The bound asked for.
        asked: u64,
        /// The largest bound that can be had.
        limit: u64,
    },
    /// `shards` was called with zero.
    NoShards,
    /// `jitter` was not in `0.0..=1.0`.
    Jitter,
    /// `early_expiration` was given a number below zero, infinity or none at all.
    Beta,
    /// A duration that must not be zero was.
    ZeroDuration {
        /// The builder's method that took it.
        setting: &'static str,
    },
    /// A bound on loads of zero: no loader could ever run.
    NoLoads,
    /// A timeout was set, and there is no attached loader, or nobody but the call itself to run it.
    Timeouts {
        /// The builder's method that is missing.
        missing: &'static str,
    },
    /// The maintenance thread could not be started.
    Thread {
        /// The operating system's words.
        reason: String,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::NoCapacity => f.write_str(
                "a cache needs a bound: call max_capacity(entries), or max_capacity(total weight) \
                 together with weigher(..)",
            ),
            BuildError::TooManyEntries { asked, limit } => write!(
                f,
                "{asked} entries are more than this cache can number: lower max_capacity or \
                 max_entries to {limit} or less, or raise shards"
            ),
            BuildError::NoShards => {
                f.write_str("a cache has at least one shard: call shards(1) or leave it out")
            }
            BuildError::Jitter => {
                f.write_str("jitter is a share of the time to live: give a number from 0.0 to 1.0")
            }
            BuildError::Beta => f.write_str(
                "early_expiration(β) takes a finite number from 0.0 (never early) up: 1.0 is usual, more \
                 is earlier",
            ),
            BuildError::ZeroDuration { setting } => write!(
                f,
                "{setting} was given zero, which no value could outlive: give a longer time, or \
                 leave {setting} out"
            ),
            BuildError::NoLoads => f.write_str(
                "max_loads(0) would refuse every load: give at least 1, or leave it out for no bound",
            ),
            BuildError::Timeouts { missing } => write!(
                f,
                "soft_timeout and hard_timeout are for attached loaders that run apart from the call which waits: \
                 they need {missing}"
            ),
            BuildError::Thread { reason } => write!(
                f,
                "the maintenance thread did not start ({reason}): free some threads, or build \
                 without maintenance and call run_pending from a thread of your own"
            ),
        }
    }
}

impl Error for BuildError {}

/// A value that the cache did not keep, handed back with the reason.
///
/// Whatever the cache held under the key before is gone all the same: a refused write is still a
/// write, and the older value is not served after it.
///
/// ```
/// use larder::{Cache, RejectReason};
///
/// let cache = Cache::builder()
///     .max_capacity(10)
///     .weigher(|_key: &&str, text: &String| text.len() as u64)
///     .build()?;
/// let rejected = cache.try_insert("essay", "far too long for ten".to_owned()).unwrap_err();
/// assert!(matches!(rejected.reason, RejectReason::TooHeavy { weight: 20, .. }));
/// assert_eq!(rejected.value, "far too long for ten");
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected<V> {
    /// The value, back.
    pub value: V,
    /// Why it was not kept.
    pub reason: RejectReason,
}

/// Why a value was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RejectReason {
    /// It weighs more than [`max_entry_weight`](crate::Cache::max_entry_weight).
    TooHeavy {
        /// What the weigher said.
        weight: u64,
        /// The heaviest that would have been kept.
        limit: u64,
    },
    /// The cache has a capacity of zero.
    NoCapacity,
    /// Its time to live is zero: it would be past its date at once.
    ZeroTimeToLive,
    /// It names more tags than an entry can carry.
    TooManyTags {
        /// How many it names.
        tags: usize,
        /// How many an entry can carry: [`MAX_TAGS`](crate::EntryOptions::MAX_TAGS).
        limit: usize,
    },
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RejectReason::TooHeavy { weight, limit } => write!(
                f,
                "the entry weighs {weight}, and the heaviest this cache keeps weighs {limit}: raise \
                 max_capacity or lower the number of shards"
            ),
            RejectReason::NoCapacity => {
                f.write_str("the cache has a capacity of zero: raise it to keep anything")
            }
            RejectReason::ZeroTimeToLive => {
                f.write_str("the entry's time to live is zero: it would expire as it is stored")
            }
            RejectReason::TooManyTags { tags, limit } => write!(
                f,
                "the entry names {tags} tags and can carry {limit}: use fewer, coarser tags"
            ),
        }
    }
}

impl<V> fmt::Display for Rejected<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "value not kept: {}", self.reason)
    }
}

/// Never prints the value.
impl<V> fmt::Debug for Rejected<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl<V> Error for Rejected<V> {}

/// Why a load brought no value. Clones share one cause.
///
/// ```
/// use larder::LoadError;
///
/// fn advise(error: &LoadError) -> &'static str {
///     match error {
///         LoadError::Failed(_) => "the loader said no",
///         LoadError::Recursive => "a loader waits for itself",
///         _ => "try again later",
///     }
/// }
/// assert_eq!(advise(&LoadError::Recursive), "a loader waits for itself");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The loader ran, in this call or in the one that this call waited for, and failed.
    Failed(Arc<dyn Error + Send + Sync>),
    /// Waiting would never end: the load this call would wait for is itself waiting, directly or
    /// through other loads, for the loader that made this call.
    Recursive,
    /// Another call's load took longer than the wait deadline.
    WaitTimedOut {
        /// How long this call waited.
        waited: Duration,
    },
    /// The loader took longer than [`hard_timeout`](crate::CacheBuilder::hard_timeout), or, if that is shorter, the
    /// load deadline. It goes on, and its value is stored, unless another call takes over.
    LoadTimedOut {
        /// The shorter of the two.
        after: Duration,
    },
    /// The attached loader was to run on another thread or in a task, for the sake of a timeout, and did not run to
    /// its end.
    Abandoned,
    /// The number of loads in flight has reached `max_loads`.
    TooManyLoads {
        /// The bound.
        limit: usize,
    },
    /// A loader of many keys answered with more or fewer values than it was asked for. None was stored.
    WrongCount {
        /// How many keys it was given.
        asked: usize,
        /// How many answers it gave.
        answered: usize,
    },
    /// The loader ran, in this call or another, and found nothing under this key. (Not a failure: the calls that
    /// can answer with `None` do.)
    Absent,
    /// The loader answered [`Loaded::unchanged`](crate::Loaded::unchanged), and had been given no previous value.
    NoPrevious,
    /// `load` was called on a cache that was built without a loader.
    NoLoader,
}

/// A number with what it counts, in the singular or the plural.
struct Counted(usize, &'static str, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counted(number, one, many) = *self;
        write!(f, "{number} {}", if number == 1 { one } else { many })
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Failed(cause) => write!(f, "the loader failed: {cause}"),
            LoadError::Recursive => f.write_str(
                "the loader waits, directly or through other loads, for its own result: load the \
                 other key before starting this load, or outside the cache",
            ),
            LoadError::WaitTimedOut { waited } => write!(
                f,
                "gave up after waiting {waited:?} for another caller's load of this key: make the \
                 loader faster, or raise wait_deadline; if the load is led by a task, a blocking call on its \
                 runtime's thread may have kept it from running: use the async form in tasks"
            ),
            LoadError::LoadTimedOut { after } => write!(
                f,
                "the loader has taken longer than {after:?}, which is hard_timeout or the load deadline; it goes on, \
                 so try again in a while, make it faster, or raise them"
            ),
            LoadError::Abandoned => f.write_str(
                "the loader did not run to its end: it panicked, no thread could be started, or what \
                 was given to executor or spawner dropped it",
            ),
            LoadError::TooManyLoads { limit } => write!(
                f,
                "{} in flight, as many as max_loads allows: try again later, or raise it",
                Counted(*limit, "load is", "loads are")
            ),
            LoadError::WrongCount { asked, answered } => write!(
                f,
                "the loader was asked for {} and gave {}: return one answer for each \
                 key, in their order, with None for what does not exist",
                Counted(*asked, "key", "keys"),
                Counted(*answered, "answer", "answers"),
            ),
            LoadError::Absent => f.write_str("the loader found nothing under this key"),
            LoadError::NoPrevious => f.write_str(
                "the loader answered that its value is unchanged, and there was none: answer so only when \
                 the loader was given a previous value",
            ),
            LoadError::NoLoader => f.write_str(
                "this cache has no loader of its own: give one to the builder with loader(..) or \
                 async_loader(..), or call get_or_load with one",
            ),
        }
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            LoadError::Failed(cause) => Some(&**cause),
            _ => None,
        }
    }
}

/// What a fallible load returns: the loader's own error by value where this call ran the loader,
/// otherwise a [`LoadError`] that all who waited share.
///
/// ```
/// use larder::{Cache, TryLoadError};
///
/// let cache: Cache<u64, u64> = Cache::builder().max_capacity(10).build()?;
/// let failed = cache.try_get_or_load(&1, || Err::<u64, _>("no such row")).unwrap_err();
/// assert!(matches!(failed, TryLoadError::Own("no such row")));
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TryLoadError<E> {
    /// This call ran the loader, and this is its error.
    Own(E),
    /// This call ran no loader of its own.
    Shared(LoadError),
}

impl<E: fmt::Display> fmt::Display for TryLoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLoadError::Own(error) => error.fmt(f),
            TryLoadError::Shared(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> Error for TryLoadError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            TryLoadError::Own(_) => None,
            TryLoadError::Shared(error) => Some(error),
        }
    }
}

/// A loader's error as those who waited see it. The error itself goes, by value, to the caller whose
/// loader it was; the others may expect different error types, so what they share is its words.
#[derive(Debug)]
pub(crate) struct Told(String);

impl Told {
    pub(crate) fn of(error: &impl fmt::Display) -> LoadError {
        LoadError::Failed(Arc::new(Told(error.to_string())))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Told {}
