//! What a caller says about one entry ([`EntryOptions`]), what a loader answers with ([`Loaded`]),
//! and the entry as a shard keeps it.

pub(crate) mod expiry;
pub(crate) mod forgotten;
pub(crate) mod freshness;
pub(crate) mod generation;
pub(crate) mod hash;
pub(crate) mod header;
pub(crate) mod removal;
pub(crate) mod stats;

use std::time::Duration;

use crate::entry::freshness::OwnWindows;
use crate::entry::header::EntryHeader;

/// How long an entry may live, as one call says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ttl {
    /// What the cache is configured with.
    #[default]
    Default,
    /// This long.
    For(Duration),
    /// Until it is evicted or removed.
    Forever,
}

/// What one insertion says beyond key and value: its time to live and its tags.
///
/// ```
/// use larder::{Cache, EntryOptions};
/// use std::time::Duration;
///
/// let cache = Cache::builder().max_capacity(100).build()?;
/// let options = EntryOptions::new().time_to_live(Duration::from_secs(5)).tag("user:7");
/// cache.insert_with("profile:7", "Ada", options)?;
/// cache.invalidate_tag("user:7");
/// assert_eq!(cache.get("profile:7"), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct EntryOptions {
    pub(crate) ttl: Ttl,
    pub(crate) tags: Vec<Box<str>>,
    pub(crate) load_time: Option<Duration>,
    pub(crate) weight: Option<u64>,
    pub(crate) windows: OwnWindows,
}

impl EntryOptions {
    /// The most tags one entry can carry. Naming more is [`RejectReason::TooManyTags`].
    ///
    /// [`RejectReason::TooManyTags`]: crate::RejectReason::TooManyTags
    pub const MAX_TAGS: usize = 128;

    /// Options that say nothing: the cache's own expiry, no tags.
    ///
    /// ```
    /// let options = larder::EntryOptions::new();
    /// # let _ = options;
    /// ```
    pub fn new() -> Self {
        EntryOptions::default()
    }

    /// The time this entry lives, counted from its insertion, instead of the cache's. Zero is never
    /// stored; 584 years and more are for ever. A deadline is kept to 20 µs (to 2.1 ms if it lies more than
    /// 5.5 years after the machine's start) and rounded down, so a time as short as that may be over at once.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let options = larder::EntryOptions::new().time_to_live(Duration::from_millis(1));
    /// # let _ = options;
    /// ```
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.ttl = Ttl::For(time);
        self
    }

    /// This entry does not expire by age, whatever the cache's time to live says. A time to idle
    /// still applies.
    ///
    /// ```
    /// let options = larder::EntryOptions::new().no_expiry();
    /// # let _ = options;
    /// ```
    pub fn no_expiry(mut self) -> Self {
        self.ttl = Ttl::Forever;
        self
    }

    /// How long this value took to make (δ), for
    /// [`early_expiration`](crate::CacheBuilder::early_expiration): kept to a microsecond, rounded up, 71 minutes
    /// at most. What a loader brings is measured unless this says otherwise; an insertion without it is never
    /// early.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let options = larder::EntryOptions::new().load_time(Duration::from_millis(40));
    /// # let _ = options;
    /// ```
    pub fn load_time(mut self, time: Duration) -> Self {
        self.load_time = Some(time);
        self
    }

    /// What this entry weighs, instead of what the cache's [`weigher`](crate::CacheBuilder::weigher) would say. A
    /// cache without one counts entries, and takes no notice.
    ///
    /// ```
    /// let options = larder::EntryOptions::new().weight(4096);
    /// # let _ = options;
    /// ```
    pub fn weight(mut self, weight: u64) -> Self {
        self.weight = Some(weight);
        self
    }

    /// This entry's window, instead of the cache's
    /// [`stale_while_revalidate`](crate::CacheBuilder::stale_while_revalidate): kept to a millisecond, rounded down,
    /// 49 days at most; zero is never. Costs 8 bytes an entry, from the first entry on that says so.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let options = larder::EntryOptions::new().stale_while_revalidate(Duration::from_secs(30));
    /// # let _ = options;
    /// ```
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.windows = self.windows.while_revalidate(window);
        self
    }

    /// This entry's window, instead of that of the cache's [`stale_if_error`](crate::CacheBuilder::stale_if_error);
    /// as with [`stale_while_revalidate`](Self::stale_while_revalidate). For how long a source rests after a
    /// failure, only the cache says.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let options = larder::EntryOptions::new().stale_if_error(Duration::from_secs(3600));
    /// # let _ = options;
    /// ```
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.windows = self.windows.if_error(window);
        self
    }

    /// Adds a tag: [`invalidate_tag`](crate::Cache::invalidate_tag) with its name kills the entry.
    ///
    /// ```
    /// let options = larder::EntryOptions::new().tag("product:7").tag("category:2");
    /// # let _ = options;
    /// ```
    pub fn tag(mut self, name: impl Into<Box<str>>) -> Self {
        let name = name.into();
        // A tag named twice is one tag. Past the limit the entry is refused, whatever its names.
        if self.tags.len() > Self::MAX_TAGS || !self.tags.contains(&name) {
            self.tags.push(name);
        }
        self
    }

    /// Adds several tags.
    ///
    /// ```
    /// let options = larder::EntryOptions::new().tags(["product:7", "category:2"]);
    /// # let _ = options;
    /// ```
    pub fn tags<T: Into<Box<str>>>(self, names: impl IntoIterator<Item = T>) -> Self {
        names.into_iter().fold(self, EntryOptions::tag)
    }
}

/// A loader's full answer: the value, and how to keep it.
///
/// ```
/// use larder::{Cache, Loaded};
/// use std::convert::Infallible;
/// use std::time::Duration;
///
/// let cache: Cache<String, String> = Cache::builder().max_capacity(100).build()?;
/// let page = cache.get_or_load_with("front", || {
///     let page = Loaded::new("<h1>Shop</h1>".to_owned());
///     Ok::<_, Infallible>(page.time_to_live(Duration::from_secs(60)).tag("product:7"))
/// })?;
/// assert_eq!(page, "<h1>Shop</h1>");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Loaded<V> {
    pub(crate) what: What<V>,
    pub(crate) options: EntryOptions,
}

/// What a loader found.
#[derive(Clone)]
pub(crate) enum What<V> {
    Value(V),
    /// For this caller alone.
    Uncacheable(V),
    /// Nothing.
    Absent,
    /// What is there is as good as new.
    Unchanged,
}

impl<V> Loaded<V> {
    /// A value to be kept as the cache is configured.
    ///
    /// ```
    /// let answer = larder::Loaded::new(42);
    /// # let _ = answer;
    /// ```
    pub fn new(value: V) -> Self {
        Loaded::of(What::Value(value))
    }

    fn of(what: What<V>) -> Self {
        Loaded {
            what,
            options: EntryOptions::new(),
        }
    }

    /// A value for this caller alone. It is not stored and not shared with those who wait, who call
    /// their own loaders; for a while, further callers of this key do so at once instead of queueing.
    ///
    /// ```
    /// let answer = larder::Loaded::uncacheable("your balance is 12");
    /// # let _ = answer;
    /// ```
    pub fn uncacheable(value: V) -> Self {
        Loaded::of(What::Uncacheable(value))
    }

    /// There is nothing under this key. A call that can say so, does; one that can only return a value or an error
    /// answers [`LoadError::Absent`](crate::LoadError::Absent). What was there goes.
    ///
    /// The absence is remembered for this answer's [`time_to_live`](Self::time_to_live), or else for the cache's
    /// [`negative_time_to_live`](crate::CacheBuilder::negative_time_to_live): until then loading calls are answered
    /// without a loader. A write, an invalidation, or one of a tag that this answer names, ends it; `get` and
    /// [`add`](crate::Cache::add) take no notice of it. Weight and windows mean nothing here.
    ///
    /// ```
    /// let answer = larder::Loaded::<u64>::absent().time_to_live(std::time::Duration::from_secs(5));
    /// # let _ = answer;
    /// ```
    pub fn absent() -> Self {
        Loaded::of(What::Absent)
    }

    /// The value that the loader was given as the previous one is still right (an HTTP source said 304, say): it
    /// stays, with its tags, weight and windows, and a new deadline, counted from the end of the load; of this
    /// answer only the time to live counts. If it has left the cache meanwhile, who waited is given it all the same,
    /// and it is not stored. A loader that was given no previous value, and answers so, has failed:
    /// [`LoadError::NoPrevious`](crate::LoadError::NoPrevious).
    ///
    /// ```
    /// let answer = larder::Loaded::<u64>::unchanged().time_to_live(std::time::Duration::from_secs(60));
    /// # let _ = answer;
    /// ```
    pub fn unchanged() -> Self {
        Loaded::of(What::Unchanged)
    }

    /// See [`EntryOptions::time_to_live`]. Counted from the end of the load. A value with a time of
    /// zero still goes to all who waited for it.
    ///
    /// ```
    /// let answer = larder::Loaded::new(42).time_to_live(std::time::Duration::from_secs(1));
    /// # let _ = answer;
    /// ```
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.options = self.options.time_to_live(time);
        self
    }

    /// See [`EntryOptions::no_expiry`].
    ///
    /// ```
    /// let answer = larder::Loaded::new(42).no_expiry();
    /// # let _ = answer;
    /// ```
    pub fn no_expiry(mut self) -> Self {
        self.options = self.options.no_expiry();
        self
    }

    /// See [`EntryOptions::weight`].
    ///
    /// ```
    /// let answer = larder::Loaded::new("a long page").weight(4096);
    /// # let _ = answer;
    /// ```
    pub fn weight(mut self, weight: u64) -> Self {
        self.options = self.options.weight(weight);
        self
    }

    /// See [`EntryOptions::stale_while_revalidate`].
    ///
    /// ```
    /// let answer = larder::Loaded::new(42).stale_while_revalidate(std::time::Duration::from_secs(30));
    /// # let _ = answer;
    /// ```
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.options = self.options.stale_while_revalidate(window);
        self
    }

    /// See [`EntryOptions::stale_if_error`].
    ///
    /// ```
    /// let answer = larder::Loaded::new(42).stale_if_error(std::time::Duration::from_secs(3600));
    /// # let _ = answer;
    /// ```
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.options = self.options.stale_if_error(window);
        self
    }

    /// See [`EntryOptions::tag`].
    ///
    /// ```
    /// let answer = larder::Loaded::new(42).tag("product:7");
    /// # let _ = answer;
    /// ```
    pub fn tag(mut self, name: impl Into<Box<str>>) -> Self {
        self.options = self.options.tag(name);
        self
    }

    /// See [`EntryOptions::tags`].
    ///
    /// ```
    /// let answer = larder::Loaded::new(42).tags(["product:7", "category:2"]);
    /// # let _ = answer;
    /// ```
    pub fn tags<T: Into<Box<str>>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.options = self.options.tags(names);
        self
    }
}

/// Never prints the value.
impl<V> std::fmt::Debug for Loaded<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("options", &self.options)
            .field("cacheable", &matches!(self.what, What::Value(_)))
            .finish_non_exhaustive()
    }
}

/// An entry in its slot. What only some caches need (weight, idle time, tags, namespace, version) lies
/// in side tables, so that nobody pays for what they did not ask for.
pub(crate) struct Entry<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) header: EntryHeader,
}
