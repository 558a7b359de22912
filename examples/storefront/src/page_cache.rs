//! Where a shop keeps its pages: in a cache of its own, or in one ahead of a Redis that it shares
//! with other processes. Both load a missing page once, and both make every page go that bears an
//! invalidated tag; the shared one in every process.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use larder::{
    Cache, LoadError, Stats, TryLoadError,
    tier::{
        FlushCause, Tiered,
        redis::{Redis, StatsHandle},
    },
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{
    error::{ShopError, StoreError},
    pages::{Answer, Page},
    shop::Source,
};

/// Pages the cache may hold: more than the shop has, as they take little room.
const CAPACITY: u64 = 100_000;
const TIME_TO_LIVE: Duration = Duration::from_secs(300);
/// For so long past its time a page is served while it is loaded anew.
const STALE_WHILE_LOADING: Duration = Duration::from_secs(30);
/// For so long past its time a page is served while the database is down.
const STALE_ON_ERROR: Duration = Duration::from_secs(600);
/// For so long a database that has failed is not asked again for a page that can be served.
const REST: Duration = Duration::from_millis(200);
/// After so long an invalidation that failed is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// For so long it is tried, in a run that somebody waits for.
const PATIENCE: Duration = Duration::from_secs(120);
/// For so long the first link to Redis is waited for.
const FIRST_LINK: Duration = Duration::from_secs(5);

/// The pages of one shop. A handle, as its caches are.
#[derive(Clone)]
pub enum PageCache {
    Own(Cache<Page, Answer>),
    Shared(SharedPages),
}

/// Pages ahead of Redis. The loader goes along with each call, as the tier has no attached one for
/// tasks.
#[derive(Clone)]
pub struct SharedPages {
    tiered: Tiered<Page, Answer>,
    watch: StatsHandle,
    source: Source,
    retries: Arc<AtomicU64>,
}

/// What a shop has seen of the tier that it shares, as `/link` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkRecord {
    /// How old a copy may get while nothing is heard of the server.
    pub staleness_bound: Duration,
    /// Links that were lost.
    pub losses: u64,
    /// Why the last one was, or was not made.
    pub last_error: Option<String>,
    /// How often everything was forgotten, for whatever cause.
    pub flushes: u64,
    pub dials: u64,
    /// Changes that the server told of, of which there was a copy here.
    pub useful_pushes: u64,
    /// Calls to the tier that failed.
    pub failed_calls: u64,
    /// Invalidations that were tried again because the tier had failed.
    pub retried_invalidations: u64,
}

impl PageCache {
    /// In this process alone, none for longer than `most`.
    pub fn own(source: Source, most: Duration) -> Result<Self, StoreError> {
        let load = move |page| {
            let source = source.clone();
            async move { source.load(page, most).await }
        };
        let cache = Cache::builder()
            .name("pages")
            .max_capacity(CAPACITY)
            .time_to_live(TIME_TO_LIVE.min(most))
            .async_loader(load)
            .early_expiration(1.0)
            .stale_while_revalidate(STALE_WHILE_LOADING)
            .stale_if_error(STALE_ON_ERROR, REST)
            .spawner(|load| drop(tokio::spawn(load)))
            .build()?;
        Ok(Self::Own(cache))
    }

    /// Ahead of a Redis; returns when its link stands.
    pub async fn shared(source: Source, redis: Redis) -> Result<Self, StoreError> {
        let watch = redis.stats_handle();
        let tiered = Tiered::builder(redis)
            .max_capacity(CAPACITY)
            .time_to_live(TIME_TO_LIVE)
            .stale_if_error(STALE_ON_ERROR, REST)
            .build()?;
        let begun = Instant::now();
        while !tiered.is_connected() {
            if begun.elapsed() > FIRST_LINK {
                let why = watch.stats().last_error;
                return Err(StoreError::NoLink {
                    within: FIRST_LINK,
                    why: why.as_deref().unwrap_or("no answer yet").to_owned(),
                });
            }
            sleep(AGAIN).await;
        }
        Ok(Self::Shared(SharedPages {
            tiered,
            watch,
            source,
            retries: Arc::default(),
        }))
    }

    pub async fn load(&self, page: Page) -> Result<Answer, ShopError> {
        let shared = match self {
            Self::Own(cache) => return cache.load_async(&page).await.map_err(ShopError::Load),
            Self::Shared(shared) => shared,
        };
        let load = || shared.source.load(page, TIME_TO_LIVE);
        match shared.tiered.get_or_load_with_async(&page, load).await {
            Ok(Some(answer)) => Ok(answer),
            // The loader answers for every page, also for those that the shop has not got.
            Ok(None) => Err(ShopError::Load(LoadError::Absent)),
            Err(TryLoadError::Own(error)) => Err(error),
            Err(TryLoadError::Shared(error)) => Err(ShopError::Load(error)),
            Err(other) => {
                let why: Box<dyn Error + Send + Sync> = other.to_string().into();
                Err(ShopError::Load(LoadError::Failed(why.into())))
            }
        }
    }

    /// Makes all pages go that bear the tag, in every process, and returns when that is done. While
    /// the tier is down it is tried again and again, and the change it follows is not answered:
    /// others might show the old state once they have their links back.
    pub async fn invalidate_tag(&self, tag: &str) -> Result<(), ShopError> {
        let shared = match self {
            Self::Own(cache) => {
                cache.invalidate_tag(tag);
                return Ok(());
            }
            Self::Shared(shared) => shared,
        };
        let begun = Instant::now();
        while let Err(why) = shared.tiered.invalidate_tag_async(tag).await {
            if begun.elapsed() > PATIENCE {
                return Err(ShopError::Untold(why));
            }
            shared.retries.fetch_add(1, Ordering::Relaxed);
            sleep(AGAIN).await;
        }
        Ok(())
    }

    pub fn stats(&self) -> Stats {
        match self {
            Self::Own(cache) => cache.stats(),
            Self::Shared(shared) => shared.tiered.stats(),
        }
    }

    /// What has been seen of the shared tier, if there is one.
    pub fn link(&self) -> Option<LinkRecord> {
        let Self::Shared(shared) = self else {
            return None;
        };
        let (link, calls) = (shared.watch.stats(), shared.tiered.tiered_stats());
        let lost = |cause| {
            !matches!(
                cause,
                FlushCause::Connected | FlushCause::ServerFlush | FlushCause::Unreadable
            )
        };
        let losses = link.flushes.iter().filter(|(cause, _)| lost(*cause));
        Some(LinkRecord {
            staleness_bound: link.staleness_bound,
            losses: losses.map(|(_, times)| times).sum(),
            last_error: link.last_error.as_deref().map(str::to_owned),
            flushes: link.flushes.iter().map(|(_, times)| times).sum(),
            dials: link.dials,
            useful_pushes: calls.useful_pushes,
            failed_calls: calls.l2_errors,
            retried_invalidations: shared.retries.load(Ordering::Relaxed),
        })
    }
}
