//! The shop: its pages, straight from the database or through a `larder` cache, and its prices.
//!
//! This is the file to read for how a service uses the cache: `page` loads a missing page once
//! however many requests ask for it, and again before its time is up, while all are served what is
//! there; a database that is down is not noticed for pages that were there before; and `set_price`
//! makes every page that shows the product go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use larder::{Cache, Loaded};

use crate::{
    args::Args,
    database::Database,
    error::{ShopError, StoreError},
    pages::{self, Answer, Page},
    queries,
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

/// One shop: all that its handlers need.
pub struct Shop {
    pub database: Arc<Database>,
    pub cache: Option<Cache<Page, Answer>>,
    /// Loads of each category's page, counted inside the loader.
    loads: Arc<[CategoryLoads]>,
    /// Off only under the planted bug of `--break-invalidation`.
    invalidates: bool,
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

impl Shop {
    /// A shop that renders every page anew.
    pub fn uncached(database: Arc<Database>) -> Self {
        Self {
            loads: loads_of(&database),
            database,
            cache: None,
            invalidates: true,
        }
    }

    /// A shop that keeps its pages in a cache, none for longer than `most`.
    pub fn cached(
        database: Arc<Database>,
        args: &Args,
        most: Duration,
    ) -> Result<Self, StoreError> {
        let loads = loads_of(&database);
        let (source, counts) = (Arc::clone(&database), Arc::clone(&loads));
        let load = move |page| {
            let (database, loads) = (Arc::clone(&source), Arc::clone(&counts));
            async move {
                let page = render(page, &database, &loads).await?;
                Ok::<_, ShopError>(
                    Loaded::new(page.answer)
                        .tags(page.tags)
                        .time_to_live(page.time_to_live.min(most)),
                )
            }
        };
        let cache = Cache::builder()
            .name("pages")
            .max_capacity(CAPACITY)
            .time_to_live(TIME_TO_LIVE.min(most))
            .async_loader(load)
            .early_expiration(1.0)
            .stale_while_revalidate(STALE_WHILE_LOADING)
            .stale_if_error(STALE_ON_ERROR, REST)
            .refresh_in_task(|load| drop(tokio::spawn(load)))
            .build()?;
        Ok(Self {
            database,
            cache: Some(cache),
            loads,
            invalidates: !args.break_invalidation,
        })
    }

    /// The page, from the cache if there is one.
    pub async fn page(&self, page: Page) -> Result<Answer, ShopError> {
        match &self.cache {
            Some(cache) => cache.load_async(&page).await.map_err(ShopError::Load),
            None => Ok(render(page, &self.database, &self.loads).await?.answer),
        }
    }

    /// Sets a price and returns when no page can show the old one any more; false if there is no
    /// such product. The order matters: commit first, then invalidate, then answer.
    pub async fn set_price(&self, product: u32, price_cents: i64) -> Result<bool, ShopError> {
        let cache = self.cache.clone().filter(|_| self.invalidates);
        // Both steps in one closure: it runs to its end even if the client goes away meanwhile and
        // this future is dropped, so there is no commit without its invalidation.
        self.database
            .write(move |session| {
                let known = queries::set_price(session, product, price_cents)?;
                if let Some(cache) = cache {
                    cache.invalidate_tag(&pages::product_tag(product));
                }
                Ok(known)
            })
            .await
    }

    /// How often the category's loader has been called.
    pub fn category_loads(&self, category: u32) -> u64 {
        self.loads
            .get(category as usize)
            .map_or(0, |loads| loads.calls.load(Ordering::SeqCst))
    }

    /// Whether a load of the category's page is in flight now.
    pub fn category_is_loading(&self, category: u32) -> bool {
        self.loads
            .get(category as usize)
            .is_some_and(|loads| loads.running.load(Ordering::SeqCst) > 0)
    }
}

fn loads_of(database: &Database) -> Arc<[CategoryLoads]> {
    (0..=database.categories())
        .map(|_| CategoryLoads::default())
        .collect()
}

async fn render(
    page: Page,
    database: &Arc<Database>,
    loads: &[CategoryLoads],
) -> Result<pages::Rendered, ShopError> {
    let _running = match page {
        Page::Category(id) => loads.get(id as usize).map(Running::begin),
        _ => None,
    };
    database
        .read(move |session| pages::render(page, session))
        .await
}
