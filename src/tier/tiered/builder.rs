//! The settings of a [`Tiered`].

use std::error::Error;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use super::namespace::qualified_key;
use super::own_writes::{LoaderDemand, Writes};
use super::{L1Value, Scope, Tiered, TieredCounters, TieredInner, TieredLoader, TieredRules};
use crate::cache::{Cache, CacheBuilder};
use crate::entry::Loaded;
use crate::tier::async_util::{Waiters, block_on};
use crate::tier::codec::{Codec, Postcard};
use crate::tier::content_id::ContentIds;
use crate::tier::contract::Tier;
use crate::tier::envelope::EnvelopeLimits;
use crate::tier::key::FromTierKey;
use crate::util::clock::Clock;
use crate::util::error::BuildError;
use crate::util::sync::Arc;

type BoxError = Box<dyn Error + Send + Sync>;

/// Settings of a [`Tiered`]; made by [`Tiered::builder`].
///
/// ```
/// use larder::tier::{MemoryServer, Tiered};
/// use std::time::Duration;
///
/// let cache: Tiered<String, String> = Tiered::builder(MemoryServer::new().tier())
///     .max_capacity(10_000)
///     .time_to_live(Duration::from_secs(3600))
///     .l1_time_to_live(Duration::from_secs(60))
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct TieredBuilder<K, V> {
    l1: CacheBuilder<K, L1Value<V>>,
    tier: Arc<dyn Tier>,
    clock: Clock,
    loader: Option<TieredLoader<K, V>>,
    rules: TieredRules,
}

/// Why a [`Tiered`] was not built.
#[derive(Debug)]
#[non_exhaustive]
pub enum TieredBuildError {
    /// The L1 could not be built.
    Own(BuildError),
    /// The time to live, in the shared tier or the L1, is zero: nothing would be kept.
    ZeroTimeToLive,
    /// The budget is not longer than one call to the tier may take: no call would get past it.
    Budget {
        /// The budget.
        budget: Duration,
        /// How long one call to the tier may take.
        timeout: Duration,
    },
}

impl fmt::Display for TieredBuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TieredBuildError::Own(error) => write!(f, "the L1: {error}"),
            TieredBuildError::ZeroTimeToLive => f.write_str(
                "a time to live of zero keeps nothing: give time_to_live and l1_time_to_live more",
            ),
            TieredBuildError::Budget { budget, timeout } => write!(
                f,
                "the budget of {budget:?} is used up by one call to the tier, which may take {timeout:?}: raise the \
                 budget, or lower the tier's timeout"
            ),
        }
    }
}

impl Error for TieredBuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            TieredBuildError::Own(error) => Some(error),
            _ => None,
        }
    }
}

impl<K, V> fmt::Debug for TieredBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredBuilder").finish_non_exhaustive()
    }
}

impl<K, V> TieredBuilder<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(tier: Box<dyn Tier>) -> Self {
        TieredBuilder {
            l1: Cache::builder(),
            tier: tier.into(),
            clock: Clock::system(),
            loader: None,
            rules: TieredRules {
                schema: 0,
                limits: EnvelopeLimits::default(),
                time_to_live: Duration::from_secs(300),
                l1_time_to_live: Duration::from_secs(60),
                stale: Duration::ZERO,
                lease: Duration::from_secs(30),
                max_wait: Duration::ZERO,
                serve_while_down: Duration::ZERO,
                budget: None,
            },
        }
    }

    /// How much the L1 holds; see [`CacheBuilder::max_capacity`]. Must be given.
    pub fn max_capacity(mut self, capacity: u64) -> Self {
        self.l1 = self.l1.max_capacity(capacity);
        self
    }

    /// What a value weighs in the L1; see [`CacheBuilder::weigher`]. A remembered absence weighs 1.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.l1 = self.l1.weigher(move |key, held: &L1Value<V>| {
            held.value.as_ref().map_or(1, |value| weigher(key, value))
        });
        self
    }

    /// How long a value lives in the shared tier if nothing else is said of it. 300 s unless set.
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.rules.time_to_live = time;
        self
    }

    /// The longest that the L1 keeps a value without asking the shared tier again: the last bound on staleness,
    /// whatever messages get lost. 60 s unless set.
    pub fn l1_time_to_live(mut self, time: Duration) -> Self {
        self.rules.l1_time_to_live = time;
        self
    }

    /// The version of the values' type. Contents of another one are not read, and are replaced: raise it when the type
    /// changes. 0 unless set.
    pub fn schema(mut self, version: u32) -> Self {
        self.rules.schema = version;
        self
    }

    /// The most bytes that a value may have in the shared tier. Larger ones are not stored there, nor read. 64 MiB
    /// unless set.
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.rules.limits.payload = bytes;
        self
    }

    /// How long the placeholder of a load is kept in the shared tier. A load that takes longer is answered to its
    /// callers, and not stored. 30 s unless set.
    pub fn lease(mut self, time: Duration) -> Self {
        self.rules.lease = time;
        self
    }

    /// Waits this long for another process that loads the same key, instead of loading at the same time; then loads
    /// all the same. Woken by the tier's message. Zero, as is so unless set, waits for nobody.
    pub fn wait_for_others(mut self, time: Duration) -> Self {
        self.rules.max_wait = time;
        self
    }

    /// Keeps what is loaded while the tier is down for this long in the L1, where nobody can invalidate it from
    /// elsewhere; all of it goes when the connection is back. Zero, as is so unless set, keeps nothing.
    pub fn serve_while_down(mut self, time: Duration) -> Self {
        self.rules.serve_while_down = time;
        self
    }

    /// The longest that a reading call takes, all its waiting together: for others' loads, for the tier, for others'
    /// processes and for an asynchronous loader. (A loader that blocks its thread cannot be stopped.) A call over it
    /// ends with [`LoadError::LoadTimedOut`](crate::LoadError::LoadTimedOut). Not bounded by anything but the tier's
    /// own timeout and the wait deadline of 30 s unless set.
    pub fn budget(mut self, time: Duration) -> Self {
        self.rules.budget = Some(time);
        self
    }

    /// Loads values of the L1 again before their time is up (XFetch, see [`CacheBuilder::early_expiration`]).
    /// The shared tier is asked first whether it has a newer value. How long a value took to load travels with it.
    pub fn early_expiration(mut self, beta: f64) -> Self {
        self.l1 = self.l1.early_expiration(beta);
        self
    }

    /// How long past its deadline a copy of the L1 is served while another call loads the value (see
    /// [`CacheBuilder::stale_while_revalidate`]). The window ends with the shared tier's content:
    /// when that is gone too, whoever comes waits for the one that loads.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.l1 = self.l1.stale_while_revalidate(window);
        self
    }

    /// How long past its deadline a value is served if its loader fails, and how long the loader rests then (see
    /// [`CacheBuilder::stale_if_error`]). The shared tier keeps values as much longer, so that a process that has no
    /// copy of its own has something to serve, too.
    pub fn stale_if_error(mut self, window: Duration, rest: Duration) -> Self {
        self.rules.stale = window;
        self.l1 = self.l1.stale_if_error(window, rest);
        self
    }

    /// Where the L1 reads the time.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.l1 = self.l1.clock(clock.clone());
        self.clock = clock;
        self
    }

    /// The loader behind [`Tiered::load`]; values are loaded again in the background by it.
    pub fn loader<F, E>(mut self, loader: F) -> Self
    where
        F: Fn(&K) -> Result<Loaded<V>, E> + Send + Sync + 'static,
        E: Into<BoxError>,
    {
        self.loader = Some(Arc::new(move |key: &K| loader(key).map_err(Into::into)));
        self
    }

    /// Builds it, with values in the tier as [postcard](Postcard).
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn build(self) -> Result<Tiered<K, V>, TieredBuildError>
    where
        V: serde::Serialize + serde::de::DeserializeOwned,
    {
        self.build_with(Postcard)
    }

    /// Builds it, with values in the tier as this codec has them.
    ///
    /// # Errors
    /// What is wrong with the settings.
    ///
    /// ```
    /// use larder::tier::{MemoryServer, RawBytes, Tiered};
    ///
    /// let cache: Tiered<String, String> = Tiered::builder(MemoryServer::new().tier())
    ///     .max_capacity(1_000)
    ///     .build_with(RawBytes)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build_with(self, codec: impl Codec<V>) -> Result<Tiered<K, V>, TieredBuildError> {
        let TieredBuilder {
            l1,
            tier,
            clock,
            loader,
            rules,
        } = self;
        if rules.time_to_live.is_zero() || rules.l1_time_to_live.is_zero() {
            return Err(TieredBuildError::ZeroTimeToLive);
        }
        if let Some(budget) = rules.budget.filter(|budget| *budget <= tier.timeout()) {
            let timeout = tier.timeout();
            return Err(TieredBuildError::Budget { budget, timeout });
        }
        let whole: Arc<OnceLock<Weak<TieredInner<K, V>>>> = Arc::default();
        let timer = tier.clone();
        let mut l1 = l1
            .time_to_live(rules.l1_time_to_live)
            .timer(move |time| timer.sleep(time));
        if let Some(loader) = loader.clone() {
            l1 = l1.loader_with_previous(attached(whole.clone(), loader));
            if let Some(budget) = rules.budget {
                l1 = l1.hard_timeout(budget);
            }
        }
        let versions = Cache::builder()
            .max_capacity(VERSIONS)
            .time_to_live(rules.l1_time_to_live)
            .clock(clock.clone())
            .build();
        let inner = Arc::new(TieredInner {
            l1: l1.build().map_err(TieredBuildError::Own)?,
            versions: versions.map_err(TieredBuildError::Own)?,
            tier: tier.clone(),
            codec: Box::new(codec),
            rules,
            content_ids: ContentIds::new(),
            writes: Writes::default(),
            demand: LoaderDemand::default(),
            nothings: AtomicU64::new(0),
            waiters: Waiters::default(),
            loader,
            connected: AtomicBool::new(false),
            clock,
            counters: TieredCounters::default(),
        });
        let _ = whole.set(Arc::downgrade(&inner));
        let listener: Arc<dyn crate::tier::contract::TierListener> = inner.clone();
        tier.listen(Arc::downgrade(&listener));
        Ok(Tiered {
            l1: inner.l1.clone(),
            inner,
            scope: Scope::default(),
            namespace: None,
        })
    }
}

/// How many tags' versions are known at a time. An unknown one costs a command.
const VERSIONS: u64 = 65_536;

/// The attached loader as the L1 runs it: the shared tier first.
fn attached<K, V>(
    whole: Arc<OnceLock<Weak<TieredInner<K, V>>>>,
    loader: TieredLoader<K, V>,
) -> impl Fn(&K, Option<&L1Value<V>>) -> Result<Loaded<L1Value<V>>, BoxError> + Send + Sync + 'static
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    move |key, previous| {
        let inner = whole.get().and_then(Weak::upgrade);
        let inner = inner.ok_or("the cache is gone")?;
        let mut load = Some(|| async { loader(key) });
        let qualified_key = qualified_key(None, &key.to_tier());
        let fill = inner.fill(&qualified_key, previous.cloned(), &mut load);
        block_on(fill).map_err(BoxError::from)?
    }
}
