//! The shop: its pages, straight from the database or through a `larder` cache, and its prices.
//!
//! This is the file to read for how a service uses the cache: `page` loads a missing page once
//! however many requests ask for it, and again before its time is up, while all are served what is
//! there; a database that is down is not noticed for pages that were there before; and `set_price`
//! makes every page that shows the product go. `page_cache.rs` holds the caches' settings: one of the
//! shop's own, or one ahead of a Redis that it shares with other processes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use larder::{Loaded, Stats, tier::redis::Redis};

use crate::{
    database::Database,
    error::{ShopError, StoreError},
    page_cache::PageCache,
    pages::{self, Answer, Page},
    queries,
};

/// One shop: all that its handlers need.
pub struct Shop {
    pub database: Arc<Database>,
    pub cache: Option<PageCache>,
    source: Source,
    /// Off only under the planted bug of `--break-invalidation`.
    invalidates: bool,
}

/// What loads the pages.
#[derive(Clone)]
pub struct Source {
    database: Arc<Database>,
    /// Loads of each category's page, counted inside the loader.
    loads: Arc<[CategoryLoads]>,
}

#[derive(Debug, Default)]
struct CategoryLoads {
    calls: AtomicU64,
    running: AtomicU64,
}

/// A running load; counted down on drop, so also when the load is given up.
struct Running<'l>(&'l CategoryLoads);

impl<'l> Running<'l> {
    fn begin(loads: &'l CategoryLoads) -> Self {
        loads.calls.fetch_add(1, Ordering::SeqCst);
        loads.running.fetch_add(1, Ordering::SeqCst);
        Self(loads)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Source {
    fn new(database: &Arc<Database>) -> Self {
        Self {
            database: Arc::clone(database),
            loads: (0..=database.categories())
                .map(|_| CategoryLoads::default())
                .collect(),
        }
    }

    /// The page, rendered anew, with its tags, for `most` at the longest.
    pub async fn load(&self, page: Page, most: Duration) -> Result<Loaded<Answer>, ShopError> {
        let page = self.render(page).await?;
        Ok(Loaded::new(page.answer)
            .tags(page.tags)
            .time_to_live(page.time_to_live.min(most)))
    }

    async fn render(&self, page: Page) -> Result<pages::Rendered, ShopError> {
        let _running = match page {
            Page::Category(id) => self.loads.get(id as usize).map(Running::begin),
            _ => None,
        };
        self.database
            .read(move |session| pages::render(page, session))
            .await
    }
}

impl Shop {
    /// A shop that renders every page anew.
    pub fn uncached(database: Arc<Database>) -> Self {
        Self {
            source: Source::new(&database),
            database,
            cache: None,
            invalidates: true,
        }
    }

    /// A shop that keeps its pages in a cache of its own, none for longer than `most`.
    pub fn cached(database: Arc<Database>, most: Duration) -> Result<Self, StoreError> {
        let mut shop = Self::uncached(database);
        shop.cache = Some(PageCache::own(shop.source.clone(), most)?);
        Ok(shop)
    }

    /// A shop that keeps its pages in a cache ahead of a Redis, which other processes share;
    /// returns when its link stands.
    pub async fn shared(database: Arc<Database>, link: Redis) -> Result<Self, StoreError> {
        let mut shop = Self::uncached(database);
        shop.cache = Some(PageCache::shared(shop.source.clone(), link).await?);
        Ok(shop)
    }

    /// The same shop with the planted bug, if it is asked for: changes invalidate nothing.
    pub fn broken_if(self, broken: bool) -> Self {
        Self {
            invalidates: !broken,
            ..self
        }
    }

    /// The page, from the cache if there is one.
    pub async fn page(&self, page: Page) -> Result<Answer, ShopError> {
        match &self.cache {
            Some(cache) => cache.load(page).await,
            None => Ok(self.source.render(page).await?.answer),
        }
    }

    /// Sets a price and returns when no page can show the old one any more; false if there is no
    /// such product. The order matters: commit first, then invalidate, then answer. (Another
    /// process that shares the cache's tier is told at the same time, and a message's way later.)
    pub async fn set_price(&self, product: u32, price_cents: i64) -> Result<bool, ShopError> {
        let cache = self.cache.clone().filter(|_| self.invalidates);
        let database = Arc::clone(&self.database);
        // Both steps in one task: it runs to its end even if the client goes away meanwhile and
        // this future is dropped, so there is no commit without its invalidation.
        tokio::spawn(async move {
            let known = database
                .write(move |session| queries::set_price(session, product, price_cents))
                .await?;
            if let Some(cache) = cache {
                cache.invalidate_tag(&pages::product_tag(product)).await?;
            }
            Ok(known)
        })
        .await?
    }

    /// The counters of the cache; of nothing, if there is none.
    pub fn stats(&self) -> Stats {
        self.cache
            .as_ref()
            .map(PageCache::stats)
            .unwrap_or_default()
    }

    /// How often the category's loader has been called.
    pub fn category_loads(&self, category: u32) -> u64 {
        self.source
            .loads
            .get(category as usize)
            .map_or(0, |loads| loads.calls.load(Ordering::SeqCst))
    }

    /// Whether a load of the category's page is in flight now.
    pub fn category_is_loading(&self, category: u32) -> bool {
        self.source
            .loads
            .get(category as usize)
            .is_some_and(|loads| loads.running.load(Ordering::SeqCst) > 0)
    }
}
