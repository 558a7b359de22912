//! Zipf traffic: one list of requests, of which the uncached shop gets the beginning and the cached
//! shop the whole, over the same number of connections.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, distr::Distribution, rngs::StdRng};
use rand_distr::Zipf;
use tokio::task::JoinSet;

use crate::{
    database::Database, drive::client::Client, error::StoreError, pages::Page, progress::Bar,
};

const SEED: u64 = 0x2EAD_E125;

/// What visitors of a shop ask for: a few pages most of the time, and a long tail of products.
pub fn requests(database: &Database, count: u32) -> Vec<Page> {
    let mut random = StdRng::seed_from_u64(SEED);
    // Zipf over at least one item with a finite exponent is always valid.
    let (Ok(categories), Ok(products)) = (
        Zipf::new(f64::from(database.categories()), 1.0),
        Zipf::new(f64::from(database.products()), 1.1),
    ) else {
        return Vec::new();
    };
    (0..count)
        .map(|_| match random.random_range(0..100) {
            0..20 => Page::Featured,
            20..30 => Page::Sidebar,
            30..65 => Page::Category(categories.sample(&mut random) as u32),
            _ => Page::Product(products.sample(&mut random) as u32),
        })
        .collect()
}

/// What one phase of traffic measured.
#[derive(Debug)]
pub struct Measured {
    pub wall: Duration,
    /// Sorted.
    pub all: Vec<Duration>,
    /// Those of category pages alone, sorted.
    pub categories: Vec<Duration>,
    /// The body of every page asked for.
    pub bodies: HashMap<Page, Bytes>,
    /// Answers that differed from the expected body, or from an earlier answer.
    pub differing: u64,
}

impl Measured {
    pub fn requests_per_second(&self) -> f64 {
        self.all.len() as f64 / self.wall.as_secs_f64().max(f64::EPSILON)
    }
}

/// The value that `percent` of the sorted samples do not exceed, in milliseconds.
pub fn percentile_ms(sorted: &[Duration], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .map_or(0.0, |sample| sample.as_secs_f64() * 1e3)
}

/// Sends the requests over `connections` connections, each sending its next one as soon as the
/// last is answered, and compares every body with the expected one where there is one.
pub async fn drive(
    address: SocketAddr,
    requests: Arc<[Page]>,
    connections: usize,
    expected: Arc<HashMap<Page, Bytes>>,
    bar: &Bar,
) -> Result<Measured, StoreError> {
    let clients = Client::connect_many(address, connections).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let differing = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut visitors = JoinSet::new();
    for client in clients {
        let (requests, next, differing) = (
            Arc::clone(&requests),
            Arc::clone(&next),
            Arc::clone(&differing),
        );
        visitors.spawn(visit(
            client,
            requests,
            next,
            Arc::clone(&expected),
            differing,
            bar.clone(),
        ));
    }
    let mut samples = Vec::with_capacity(requests.len());
    let mut bodies = HashMap::new();
    while let Some(visitor) = visitors.join_next().await {
        let (seen, read) = visitor??;
        samples.extend(seen);
        bodies.extend(read);
    }
    let wall = started.elapsed();
    let sorted = |mut samples: Vec<Duration>| {
        samples.sort_unstable();
        samples
    };
    let of_categories = samples
        .iter()
        .filter(|(page, _)| matches!(page, Page::Category(_)));
    Ok(Measured {
        wall,
        categories: sorted(of_categories.map(|&(_, took)| took).collect()),
        all: sorted(samples.into_iter().map(|(_, took)| took).collect()),
        bodies,
        differing: differing.load(Ordering::Relaxed),
    })
}

type Visit = (Vec<(Page, Duration)>, HashMap<Page, Bytes>);

async fn visit(
    mut client: Client,
    requests: Arc<[Page]>,
    next: Arc<AtomicUsize>,
    expected: Arc<HashMap<Page, Bytes>>,
    differing: Arc<AtomicU64>,
    bar: Bar,
) -> Result<Visit, StoreError> {
    let mut samples = Vec::new();
    let mut bodies: HashMap<Page, Bytes> = HashMap::new();
    while let Some(&page) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        let sent = Instant::now();
        let body = client.get(page).await?;
        samples.push((page, sent.elapsed()));
        let earlier = expected.get(&page).or_else(|| bodies.get(&page));
        if earlier.is_some_and(|earlier| *earlier != body) {
            differing.fetch_add(1, Ordering::Relaxed);
        }
        bodies.entry(page).or_insert(body);
        bar.step();
    }
    Ok((samples, bodies))
}
