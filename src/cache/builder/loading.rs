//! The settings of loading.

use std::error::Error;
use std::time::Duration;

use super::CacheBuilder;
use crate::cache::attached::{AsyncLoader, Attached, BlockingLoader};
use crate::entry::Loaded;

impl<K, V, S> CacheBuilder<K, V, S> {
    /// At most so many shared loaders at a time, over all keys; one that takes over from a leader past its
    /// deadline comes on top. Past it, the fallible loading calls answer
    /// [`LoadError::TooManyLoads`](crate::LoadError::TooManyLoads), and the others run their loader for
    /// themselves. Default: no bound.
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(9).max_loads(64).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn max_loads(mut self, loads: usize) -> Self {
        self.max_loads = Some(loads);
        self
    }

    /// How long a loader may take before one of those who wait takes over from it. It is not
    /// interrupted, but can no longer store its value. Default: 30 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let soon = Duration::from_secs(2);
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(9).load_deadline(soon).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn load_deadline(mut self, time: Duration) -> Self {
        self.load_deadline = time;
        self
    }

    /// How long a fallible loading call waits for another's loader before it answers
    /// [`LoadError::WaitTimedOut`](crate::LoadError::WaitTimedOut). The others wait on, under the load
    /// deadline. Default: 30 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let soon = Duration::from_secs(2);
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(9).wait_deadline(soon).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn wait_deadline(mut self, time: Duration) -> Self {
        self.wait_deadline = time;
        self
    }

    /// For how long a loader's failure is remembered and answered to the fallible loading calls of the
    /// key without running a loader. A write or an invalidation of the key ends it. At most 1,024
    /// failures a shard are remembered. Default: zero, not at all.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let second = Duration::from_secs(1);
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .error_time_to_live(second)
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn error_time_to_live(mut self, time: Duration) -> Self {
        self.error_time_to_live = time;
        self
    }

    /// For how long it is remembered that a loader found nothing
    /// ([`get_or_load_optional`](crate::Cache::get_or_load_optional), [`Loaded::absent`]), unless its answer says:
    /// loading calls of the key are answered so without a loader meanwhile. A write or an invalidation of the key
    /// ends it. Remembered with the failures, apart from the capacity. Default: zero, not at all.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .negative_time_to_live(Duration::from_secs(5))
    ///     .build()?;
    /// assert_eq!(cache.get_or_load_optional(&404, || None), None);
    /// assert_eq!(cache.get_or_load_optional(&404, || unreachable!("it is remembered")), None);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn negative_time_to_live(mut self, time: Duration) -> Self {
        self.negative_time_to_live = time;
        self
    }

    /// Loads a value again at the first loading call that finds it so old or older, counted from its write, while
    /// its time is not up: as with [`early_expiration`](Self::early_expiration), but surely. Where both are set, the
    /// one whose window begins first decides for a value. A new life ([`touch`](crate::Cache::touch), or an
    /// [`Expiry`](crate::Expiry) that hears of reads) makes no value younger. For values that expire by age only: one
    /// that does not is never loaded again by itself, and neither is one whose life was not longer than this age when
    /// it was written. If the loader fails, every call tries again, unless the source rests:
    /// [`stale_if_error`](Self::stale_if_error) says for how long. Costs 8 bytes an entry. Default: never.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let minute = Duration::from_secs(60);
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .time_to_live(60 * minute)
    ///     .refresh_after(5 * minute)
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn refresh_after(mut self, age: Duration) -> Self {
        self.refresh_after = Some(age);
        self
    }

    /// Loads hot values again before their time is up, so that nobody waits when it is: a loading call that
    /// finds a value `left` before its deadline becomes, with the probability e^(-left / (δ·β)), the one that
    /// loads it anew. δ is how long its loads take, measured and smoothed; the last 16·δ·β count, and at most half
    /// the time to live. Others are served the value at hand meanwhile. If the loader fails, so is this call, as
    /// long as the value's time is not up ([`Stats::refresh_failures`](crate::Stats::refresh_failures)); if it finds
    /// nothing, the value goes.
    /// A call that brings its loader runs it itself; with an attached one, [`refresh_threads`](Self::refresh_threads)
    /// do and the call is served at once.
    ///
    /// Cold values are not loaded: a read has to come. Caches that know nothing of each other (several
    /// processes) load about e^(1/β) times for each expiry between them. A value that was inserted by hand is
    /// early only with a [`load_time`](crate::EntryOptions::load_time). Costs a hit outside the window nothing,
    /// and 8 bytes an entry that was loaded.
    ///
    /// β = 1 is usual; more is earlier. Default: 0, never.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .time_to_live(Duration::from_secs(60))
    ///     .early_expiration(1.0)
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn early_expiration(mut self, beta: f64) -> Self {
        self.beta = beta;
        self
    }

    /// For so long after its time is up, a value is still served to loading calls while one of them loads it anew:
    /// nobody waits but that one. All other calls take it for absent, and a write, a removal or an invalidation ends
    /// it. It stays in the cache for that long and competes for its room like others.
    /// [`get_with_freshness`](crate::Cache::get_with_freshness) tells a stale value from a fresh one. Default: zero,
    /// never.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .time_to_live(Duration::from_secs(60))
    ///     .stale_while_revalidate(Duration::from_secs(10))
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = window;
        self
    }

    /// For `window` after its time is up, a value is served to a loading call whose loader fails, or that would get
    /// another's error; and for `rest` after a failure it is served without asking the loader again, so that a
    /// source that is down is asked once in that time and not at every call. A value whose time is not up, and
    /// whose early load failed, rests likewise. As [`stale_while_revalidate`](Self::stale_while_revalidate)
    /// otherwise, and apart from it: the longer one says how long a value is kept. Default: zero, never.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let (hour, seconds) = (Duration::from_secs(3600), Duration::from_secs(5));
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .time_to_live(Duration::from_secs(60))
    ///     .stale_if_error(hour, seconds)
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn stale_if_error(mut self, window: Duration, rest: Duration) -> Self {
        self.stale_if_error = (window, rest);
        self
    }

    /// How long a call of an attached loader ([`load`](crate::Cache::load), [`load_async`](crate::Cache::load_async))
    /// waits for it, its own or another's, where a stale value could be served instead of an error
    /// ([`stale_if_error`](Self::stale_if_error)): then that value is served. The loader goes on and its value is
    /// stored. Such loaders run on the cache's threads, or where [`executor`](Self::executor) and
    /// [`spawner`](Self::spawner) say, also where nothing is there yet; for tasks a
    /// [`timer`](Self::timer) is needed, too. Keys whose values were declared uncacheable are loaded by each call
    /// itself, however long that takes; and so is what a loader loads in turn, for which whoever waits for that
    /// loader has its timeouts. A loader that panics, or is dropped, is
    /// [`LoadError::Abandoned`](crate::LoadError::Abandoned). Default: never.
    ///
    /// ```
    /// # use std::{convert::Infallible, time::Duration};
    /// # use larder::Loaded;
    /// let (hour, second) = (Duration::from_secs(3600), Duration::from_secs(1));
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .time_to_live(60 * second)
    ///     .stale_if_error(hour, second)
    ///     .loader(|n: &u64| Ok::<_, Infallible>(Loaded::new(n * n)))
    ///     .soft_timeout(Duration::from_millis(50))
    ///     .hard_timeout(2 * second)
    ///     .build()?;
    /// assert_eq!(cache.load(&7)?, 49);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn soft_timeout(mut self, time: Duration) -> Self {
        self.soft_timeout = Some(time);
        self
    }

    /// How long a call of an attached loader waits for it at all: then it answers
    /// [`LoadError::LoadTimedOut`](crate::LoadError::LoadTimedOut), or with a stale value, as for any error. Otherwise
    /// as [`soft_timeout`](Self::soft_timeout). Default: as long as the load and wait deadlines say.
    ///
    /// ```
    /// # use std::{convert::Infallible, time::Duration};
    /// # use larder::Loaded;
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .loader(|n: &u64| Ok::<_, Infallible>(Loaded::new(n * n)))
    ///     .hard_timeout(Duration::from_secs(2))
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn hard_timeout(mut self, time: Duration) -> Self {
        self.hard_timeout = Some(time);
        self
    }

    /// How many threads [`load`](crate::Cache::load) may have to load values again while they are served, early or
    /// stale, and to load for calls with a timeout. They are started when first needed and end when idle for ten
    /// seconds; up to 64 refreshes a thread wait their turn; past that the value at hand is served and not
    /// refreshed. Calls with a timeout wait their turn until that is over, however many they are; past 64 a thread, a
    /// load whose calls have all left is not begun. The threads are never joined. Zero: the call that is elected
    /// loads by itself, as with a loader of its own. Default: 2, and none without an attached [`loader`](Self::loader)
    /// and something for them to do.
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(9).refresh_threads(8).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn refresh_threads(mut self, threads: usize) -> Self {
        self.refresh_threads = threads;
        self
    }

    /// Where [`load`](crate::Cache::load) has values loaded again, instead of threads of the cache's own: a function
    /// that runs a job soon and elsewhere, such as `tokio::task::spawn_blocking`. It may drop the job, or panic:
    /// then the value at hand is served, and the next call that is elected tries again; a call with a timeout that has
    /// nothing to be served gets [`LoadError::Abandoned`](crate::LoadError::Abandoned).
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .executor(|job| drop(std::thread::spawn(job)))
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn executor<F>(mut self, run: F) -> Self
    where
        F: Fn(Box<dyn FnOnce() + Send>) + Send + Sync + 'static,
    {
        self.executor = Some(Box::new(run));
        self
    }

    /// Where [`load_async`](crate::Cache::load_async) has values loaded again: a function that runs a future, such
    /// as `tokio::spawn`. Without it the task that is elected loads by itself. It may drop the future, or panic, as
    /// with [`executor`](Self::executor).
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .spawner(|future| drop(std::thread::spawn(|| pollster::block_on(future))))
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn spawner<F>(mut self, spawn: F) -> Self
    where
        F: Fn(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static,
    {
        self.spawner = Some(Box::new(spawn));
        self
    }

    /// Lets tasks that wait for another's load see their deadlines by themselves: a function that makes
    /// a future which ends after the given time, such as `tokio::time::sleep`.
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .timer(|time| async move { std::thread::sleep(time) }) // your runtime's sleep
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn timer<F, Fut>(mut self, timer: F) -> Self
    where
        F: Fn(Duration) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.timer = Some(Box::new(move |time| Box::pin(timer(time))));
        self
    }

    /// The loader behind [`Cache::load`](crate::Cache::load).
    ///
    /// ```
    /// use larder::{Cache, Loaded};
    ///
    /// let numbers: Cache<String, u32> = Cache::builder()
    ///     .max_capacity(9)
    ///     .loader(|text: &String| text.parse().map(Loaded::new))
    ///     .build()?;
    /// assert_eq!(numbers.load("7")?, 7);
    /// assert!(numbers.load("seven").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn loader<F, E>(mut self, loader: F) -> Self
    where
        F: Fn(&K) -> Result<Loaded<V>, E> + Send + Sync + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let loader: BlockingLoader<K, V> = Box::new(move |key, _| loader(key).map_err(Into::into));
        self.rules.loader = Some(Attached {
            call: loader,
            shows_previous: false,
        });
        self
    }

    /// Attaches a blocking loader that is also given the previous value, if there is one: the value that it is to
    /// replace, live or stale. It may answer [`Loaded::unchanged`]. See
    /// [`get_or_load_with_previous`](crate::Cache::get_or_load_with_previous).
    ///
    /// ```
    /// use larder::{Cache, Loaded};
    /// use std::convert::Infallible;
    ///
    /// let pages: Cache<String, String> = Cache::builder()
    ///     .max_capacity(9)
    ///     .loader_with_previous(|path: &String, previous: Option<&String>| {
    ///         Ok::<_, Infallible>(match previous {
    ///             Some(_) => Loaded::unchanged(),
    ///             None => Loaded::new(format!("the page at {path}")),
    ///         })
    ///     })
    ///     .build()?;
    /// assert_eq!(pages.load("/")?, "the page at /");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn loader_with_previous<F, E>(mut self, loader: F) -> Self
    where
        F: Fn(&K, Option<&V>) -> Result<Loaded<V>, E> + Send + Sync + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let loader: BlockingLoader<K, V> =
            Box::new(move |key, previous| loader(key, previous).map_err(Into::into));
        self.rules.loader = Some(Attached {
            call: loader,
            shows_previous: true,
        });
        self
    }

    /// The loader behind [`Cache::load_async`](crate::Cache::load_async).
    ///
    /// ```
    /// use larder::{Cache, Loaded};
    /// use std::convert::Infallible;
    ///
    /// let squares: Cache<u64, u64> = Cache::builder()
    ///     .max_capacity(9)
    ///     .async_loader(|n: u64| async move { Ok::<_, Infallible>(Loaded::new(n * n)) })
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn async_loader<F, Fut, E>(mut self, loader: F) -> Self
    where
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let loader: AsyncLoader<K, V> = Box::new(move |key, _| {
            let load = loader(key);
            Box::pin(async move { load.await.map_err(Into::into) })
        });
        self.rules.async_loader = Some(Attached {
            call: loader,
            shows_previous: false,
        });
        self
    }

    /// Attaches an asynchronous loader that is also given the previous value, if there is one: the value that it is
    /// to replace, live or stale. It may answer [`Loaded::unchanged`]. See
    /// [`get_or_load_with_previous_async`](crate::Cache::get_or_load_with_previous_async).
    ///
    /// ```
    /// use larder::{Cache, Loaded};
    /// use std::convert::Infallible;
    ///
    /// let squares: Cache<u64, u64> = Cache::builder()
    ///     .max_capacity(9)
    ///     .async_loader_with_previous(|n: u64, previous: Option<u64>| async move {
    ///         Ok::<_, Infallible>(previous.map_or_else(|| Loaded::new(n * n), |_| Loaded::unchanged()))
    ///     })
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn async_loader_with_previous<F, Fut, E>(mut self, loader: F) -> Self
    where
        F: Fn(K, Option<V>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let loader: AsyncLoader<K, V> = Box::new(move |key, previous| {
            let load = loader(key, previous);
            Box::pin(async move { load.await.map_err(Into::into) })
        });
        self.rules.async_loader = Some(Attached {
            call: loader,
            shows_previous: true,
        });
        self
    }
}
