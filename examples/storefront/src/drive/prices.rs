//! Price changes under load. Two teams of buyers work through the shop a category at a time; the
//! buyers of a team change prices in the same moment, while pages that the other team's changes
//! made go are being loaded. Every change is followed, as soon as it is answered, by reads of the
//! product, its category and the featured page on other connections, and raced by reads of the
//! same pages that are sent along with it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use futures_util::future::try_join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tokio::{sync::Mutex, task::JoinSet};

use crate::{
    drive::{
        client::Client,
        ledger::{Ledger, Verdict, prices_in},
    },
    error::StoreError,
    pages::Page,
    progress::Bar,
    shop::Shop,
};

const TEAMS: usize = 2;
const BUYERS_PER_TEAM: usize = 4;
/// Changes in one category before the buyers go on to the next.
const WAVE: usize = 20;
const SEED: u64 = 0x00C4_A96E;

/// What the phase came to.
#[derive(Debug)]
pub struct Changes {
    pub changes: u64,
    /// Changes sent while a load of the category's page was in flight.
    pub during_loads: u64,
    pub verdict: Verdict,
}

/// One planned change.
#[derive(Debug, Clone, Copy)]
struct Change {
    product: u32,
    category: u32,
}

/// The changes to make, and each product's newest price; its lock keeps two buyers from changing
/// the same product at once, which would leave open whose price is the newer.
#[derive(Debug)]
struct Plan {
    changes: Vec<Change>,
    prices: HashMap<u32, Mutex<i64>>,
}

/// Makes `count` changes at the shop, and checks every price that is read meanwhile.
pub async fn change(
    address: SocketAddr,
    shop: &Arc<Shop>,
    count: u32,
    bar: &Bar,
) -> Result<Changes, StoreError> {
    let plan = Arc::new(plan(address, shop.database.categories(), count as usize).await?);
    let ledger = Arc::new(Ledger::default());
    let next = Arc::new(AtomicUsize::new(0));
    let during_loads = Arc::new(AtomicU64::new(0));
    let mut teams = JoinSet::new();
    for _ in 0..TEAMS {
        let mut buyers = Vec::with_capacity(BUYERS_PER_TEAM);
        for _ in 0..BUYERS_PER_TEAM {
            buyers.push(Buyer {
                shop: Arc::clone(shop),
                plan: Arc::clone(&plan),
                ledger: Arc::clone(&ledger),
                during_loads: Arc::clone(&during_loads),
                writer: Client::connect(address).await?,
                racers: Readers::connect(address).await?,
                followers: Readers::connect(address).await?,
            });
        }
        let (plan, next, bar) = (Arc::clone(&plan), Arc::clone(&next), bar.clone());
        teams.spawn(async move {
            while let Some(batch) = plan
                .changes
                .chunks(BUYERS_PER_TEAM)
                .nth(next.fetch_add(1, Ordering::Relaxed))
            {
                try_join_all(
                    buyers
                        .iter_mut()
                        .zip(batch)
                        .map(|(buyer, change)| buyer.make(*change, &bar)),
                )
                .await?;
            }
            Ok::<_, StoreError>(())
        });
    }
    while let Some(team) = teams.join_next().await {
        team??;
    }
    let changes = plan.changes.len() as u64;
    Ok(Changes {
        changes,
        during_loads: during_loads.load(Ordering::Relaxed),
        verdict: ledger.verdict(),
    })
}

/// Looks up what the pages show and plans changes of those products: every category has its turn,
/// and where a category has a featured product, half of its changes are to that.
async fn plan(address: SocketAddr, categories: u32, count: usize) -> Result<Plan, StoreError> {
    let mut client = Client::connect(address).await?;
    let featured: HashMap<u32, i64> = prices_in(&client.get(Page::Featured).await?)
        .into_iter()
        .collect();
    let mut shown = Vec::new();
    for category in 1..=categories {
        let products = prices_in(&client.get(Page::Category(category)).await?);
        if !products.is_empty() {
            shown.push((category, products));
        }
    }
    if shown.is_empty() {
        return Err(StoreError::NothingToChange);
    }
    let mut random = StdRng::seed_from_u64(SEED);
    shown.shuffle(&mut random);
    let prices = shown
        .iter()
        .flat_map(|(_, products)| products)
        .map(|&(id, price)| (id, Mutex::new(price)))
        .collect();
    let changes = (0..count).map(|number| {
        let (category, products) = &shown[number / WAVE % shown.len()];
        let star = products.iter().find(|(id, _)| featured.contains_key(id));
        let product = match star {
            Some(&(id, _)) if random.random_bool(0.5) => id,
            _ => products[random.random_range(0..products.len())].0,
        };
        Change {
            product,
            category: *category,
        }
    });
    Ok(Plan {
        changes: changes.collect(),
        prices,
    })
}

/// One who changes prices, with the connections that read along.
struct Buyer {
    shop: Arc<Shop>,
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    during_loads: Arc<AtomicU64>,
    writer: Client,
    racers: Readers,
    followers: Readers,
}

impl Buyer {
    async fn make(&mut self, change: Change, bar: &Bar) -> Result<(), StoreError> {
        let Self {
            shop,
            plan,
            ledger,
            during_loads,
            writer,
            racers,
            followers,
        } = self;
        let changed_and_followed = async {
            if let Some(price) = plan.prices.get(&change.product) {
                let mut price = price.lock().await;
                if shop.category_is_loading(change.category) {
                    during_loads.fetch_add(1, Ordering::Relaxed);
                }
                *price += 1;
                writer.set_price(change.product, *price).await?;
                ledger.answered(change.product, *price);
            }
            followers.read(ledger, change).await
        };
        // The racers' reads are on their way while the price is changed.
        let (raced, followed) = tokio::join!(racers.read(ledger, change), changed_and_followed);
        bar.step();
        raced.and(followed)
    }
}

/// Three connections, one for each page that shows a changed price.
struct Readers {
    product: Client,
    category: Client,
    featured: Client,
}

impl Readers {
    async fn connect(address: SocketAddr) -> Result<Self, StoreError> {
        Ok(Self {
            product: Client::connect(address).await?,
            category: Client::connect(address).await?,
            featured: Client::connect(address).await?,
        })
    }

    /// Reads the three pages at once and checks all prices they show.
    async fn read(&mut self, ledger: &Ledger, change: Change) -> Result<(), StoreError> {
        let product = Some(change.product);
        let (first, second, third) = tokio::join!(
            read(
                &mut self.product,
                Page::Product(change.product),
                product,
                ledger
            ),
            read(
                &mut self.category,
                Page::Category(change.category),
                product,
                ledger
            ),
            read(&mut self.featured, Page::Featured, None, ledger),
        );
        first.and(second).and(third)
    }
}

async fn read(
    client: &mut Client,
    page: Page,
    must_show: Option<u32>,
    ledger: &Ledger,
) -> Result<(), StoreError> {
    let page_name = page.to_string();
    let mark = ledger.mark();
    let shown = prices_in(&client.get(&page_name).await?);
    ledger.check(&page_name, &shown, mark);
    match must_show {
        Some(product) if !shown.iter().any(|&(id, _)| id == product) => Err(StoreError::Missing {
            page: page_name,
            product,
        }),
        _ => Ok(()),
    }
}
