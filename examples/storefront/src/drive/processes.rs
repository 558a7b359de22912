//! Two processes over one database and one Redis: prices are changed through one and read through
//! the other, in turn. `judge.rs` says what the prices read have to be.
//!
//! Each lane has products of its own, so that it knows each one's newest price. A change goes to
//! one process; while it is under way, the other one is read all the time (the race, and the reads
//! that go on while Redis is away); as soon as it is answered, the other one is read until it shows
//! the new price, and once more; at last the process that made it is read, whose copy the next
//! change, made by the other, has to make go.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    drive::{
        client::Client,
        judge::{Floors, Stale},
        ledger::prices_in,
        traffic::percentile_ms,
    },
    error::StoreError,
    page_cache::LinkRecord,
    pages::Page,
    progress::Bar,
};

/// As many as a small machine has cores: more would measure the queue for them.
const LANES: u32 = 2;
const PRODUCTS_PER_LANE: u32 = 50;
/// So many stale prices are enough to know that something is wrong: each may take the bound.
const ENOUGH: u64 = 4;
/// Between two reads while a change is under way: it is not to be starved by them.
const RACING_GAP: Duration = Duration::from_millis(1);
/// Between two looks at the links.
const WATCH: Duration = Duration::from_millis(25);

/// What the two processes came to.
#[derive(Debug, Serialize)]
pub struct Processes {
    pub changes: u64,
    /// Prices read in the process that had not made the change, after its answer.
    pub checks: u64,
    /// Prices read in the process that had not made the change, while the change was under way.
    pub racing_checks: u64,
    /// Prices read in the process that had made the change, after its answer.
    pub own_checks: u64,
    /// Prices, of all these, that were older than they may be.
    pub stale: u64,
    /// What an older price is borne for, while nothing is heard of the server.
    pub staleness_bound_ms: f64,
    /// Of the checks, those that still showed the old price, within the bound.
    pub old_within_bound: u64,
    /// When the last of them was sent, after its change's answer.
    pub last_old_ms: f64,
    /// From a change's answer in one process to the first answer of the other that shows it, in
    /// which the other had to ask the tier and the database.
    pub push_p50_ms: f64,
    pub push_p99_ms: f64,
    pub push_max_ms: f64,
    /// Of each process.
    pub link_losses: [u64; 2],
    pub flushes: [u64; 2],
    pub dials: [u64; 2],
    pub useful_pushes: [u64; 2],
    pub failed_calls: [u64; 2],
    pub retried_invalidations: [u64; 2],
    pub seconds: f64,
    #[serde(skip)]
    pub first_stale: Option<String>,
}

impl Processes {
    /// What is wrong, in words; empty if nothing.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.stale > 0 {
            let first = self.first_stale.as_deref().unwrap_or_default();
            failures.push(format!(
                "{} prices were stale in the two processes; first: {first}",
                self.stale
            ));
        }
        if self.stale == 0 && self.useful_pushes.contains(&0) {
            failures.push(
                "a process was told of no change of a page that it had, so nothing was checked; is Redis up, and are its notifications on?"
                    .to_owned(),
            );
        }
        failures
    }

    /// Its rows of the table.
    pub fn rows(&self) -> [[String; 3]; 3] {
        let row = |name: String, cached| [name, String::new(), cached];
        let [first, second] = self.link_losses;
        let again: u64 = self.retried_invalidations.iter().sum();
        [
            row(
                format!("two processes, {} price changes", self.changes),
                format!(
                    "{} stale of {} prices read in the other",
                    self.stale, self.checks
                ),
            ),
            row(
                "change in one, shown by the other".to_owned(),
                format!(
                    "p50 {:.3} ms, p99 {:.3} ms",
                    self.push_p50_ms, self.push_p99_ms
                ),
            ),
            row(
                "links to Redis lost".to_owned(),
                format!("{first} and {second}, {again} invalidations tried again"),
            ),
        ]
    }
}

/// What the lanes share.
struct Drive<'d> {
    addresses: [SocketAddr; 2],
    bound: Duration,
    changes: u64,
    made: AtomicU64,
    stale: AtomicU64,
    bar: &'d Bar,
}

/// What one lane has seen.
#[derive(Default)]
struct Tally {
    checks: u64,
    racing_checks: u64,
    own_checks: u64,
    old_within_bound: u64,
    last_old: Duration,
    pushes: Vec<Duration>,
    first_stale: Option<String>,
}

/// One product of a lane.
struct Product {
    id: u32,
    price: i64,
    floors: Floors,
}

/// A lane's connections to one process.
struct Doors {
    writer: Client,
    racer: Client,
    follower: Client,
}

/// Has `changes` prices changed and read by the processes at these addresses.
pub async fn change(
    addresses: [SocketAddr; 2],
    changes: u32,
    bar: &Bar,
) -> Result<Processes, StoreError> {
    let before = links(addresses).await?;
    let drive = Drive {
        addresses,
        bound: before[0].staleness_bound,
        changes: u64::from(changes),
        made: AtomicU64::new(0),
        stale: AtomicU64::new(0),
        bar,
    };
    let lanes = try_join_all((0..LANES).map(|lane| drive.lane(lane)));
    let tallies = tokio::select! {
        tallies = lanes => tallies?,
        stopped = drive.watch() => return Err(stopped),
    };
    let after = links(addresses).await?;
    Ok(drive.settle(tallies, &before, &after))
}

impl Drive<'_> {
    async fn lane(&self, lane: u32) -> Result<Tally, StoreError> {
        let mut doors = Vec::with_capacity(2);
        for address in self.addresses {
            doors.push(Doors {
                writer: Client::connect(address).await?,
                racer: Client::connect(address).await?,
                follower: Client::connect(address).await?,
            });
        }
        let mut products = Vec::new();
        for number in 0..PRODUCTS_PER_LANE {
            let id = 1 + number * LANES + lane;
            let mut price = 0;
            // Both, so that both have a copy that can get stale.
            for door in &mut doors {
                price = read(&mut door.follower, id).await?;
            }
            let floors = Floors::default();
            products.push(Product { id, price, floors });
        }
        let mut tally = Tally::default();
        // Each product is changed by the one process, then by the other.
        for number in 0_usize.. {
            if self.stale.load(Ordering::Relaxed) >= ENOUGH || !self.begin() {
                break;
            }
            let place = number / 2 % products.len();
            self.make(number % 2, &mut doors, &mut products[place], &mut tally)
                .await?;
            self.bar.step();
        }
        Ok(tally)
    }

    /// Whether there is a change left to make.
    fn begin(&self) -> bool {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        if number == self.changes / 2 {
            self.bar
                .say("two processes: half of the changes are under way");
        }
        number < self.changes
    }

    /// One change by the process `by`, and all reads that belong to it.
    async fn make(
        &self,
        by: usize,
        doors: &mut [Doors],
        product: &mut Product,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let other = 1 - by;
        let (id, price) = (product.id, product.price + 1);
        let floors = product.floors;
        let [first, second] = doors else {
            return Ok(());
        };
        let (here, there) = if by == 0 {
            (first, second)
        } else {
            (second, first)
        };
        let answered = AtomicBool::new(false);
        let race = async {
            let mut shown = vec![read(&mut there.racer, id).await?];
            while !answered.load(Ordering::Relaxed) {
                sleep(RACING_GAP).await;
                shown.push(read(&mut there.racer, id).await?);
            }
            Ok::<_, StoreError>(shown)
        };
        let change_and_follow = async {
            let change = here.writer.set_price(id, price).await;
            let at = Instant::now();
            answered.store(true, Ordering::Relaxed);
            change?;
            product.price = price;
            product.floors.answered(by, price);
            self.follow(other, &mut there.follower, product, at, tally)
                .await?;
            Ok::<_, StoreError>(at)
        };
        let (raced, followed) = tokio::join!(race, change_and_follow);
        let at = followed?;
        for shown in raced? {
            tally.racing_checks += 1;
            let judged = floors.before(other, shown);
            self.note(judged, other, id, shown, tally);
        }
        let since = at.elapsed();
        let shown = read(&mut here.follower, id).await?;
        tally.own_checks += 1;
        let judged = product.floors.after(by, shown, price, since, self.bound);
        self.note(judged.map(|_| ()), by, id, shown, tally);
        Ok(())
    }

    /// Reads a process until it shows a change that was answered at `at`, and once more.
    async fn follow(
        &self,
        process: usize,
        client: &mut Client,
        product: &mut Product,
        at: Instant,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let mut seen = false;
        loop {
            let since = at.elapsed();
            let shown = read(client, product.id).await?;
            tally.checks += 1;
            let floors = &mut product.floors;
            let judged = floors.after(process, shown, product.price, since, self.bound);
            self.note(judged.map(|_| ()), process, product.id, shown, tally);
            match judged {
                Ok(true) if !seen => {
                    tally.pushes.push(at.elapsed());
                    seen = true;
                }
                Ok(false) => {
                    tally.old_within_bound += 1;
                    tally.last_old = tally.last_old.max(since);
                }
                // Seen twice, or as stale as it gets.
                Ok(true) | Err(_) => return Ok(()),
            }
        }
    }

    fn note(
        &self,
        judged: Result<(), Stale>,
        process: usize,
        id: u32,
        shown: i64,
        tally: &mut Tally,
    ) {
        let Err(stale) = judged else { return };
        self.stale.fetch_add(1, Ordering::Relaxed);
        tally.first_stale.get_or_insert_with(|| {
            let (name, bound) = (NAMES[process], self.bound);
            match stale {
                Stale::WentBack => format!(
                    "the {name} process showed product {id} at {shown} cents, after it had shown or made a newer price"
                ),
                Stale::BeyondBound => format!(
                    "the {name} process showed product {id} at {shown} cents, {bound:?} after a change of that had been answered"
                ),
            }
        });
    }

    /// Says when a link is lost. Ends by an error alone.
    async fn watch(&self) -> StoreError {
        let mut known = [0; 2];
        loop {
            let links = match links(self.addresses).await {
                Ok(links) => links,
                Err(error) => return error,
            };
            for (process, link) in links.iter().enumerate() {
                if link.losses > known[process] {
                    known[process] = link.losses;
                    let name = NAMES[process];
                    let why = link.last_error.as_deref().unwrap_or("it is not known why");
                    self.bar.say(&format!(
                        "two processes: the {name} has lost its link to Redis: {why}"
                    ));
                }
            }
            sleep(WATCH).await;
        }
    }

    fn settle(
        &self,
        tallies: Vec<Tally>,
        before: &[LinkRecord; 2],
        after: &[LinkRecord; 2],
    ) -> Processes {
        let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum();
        let grown = |count: fn(&LinkRecord) -> u64| {
            [0, 1].map(|process| count(&after[process]) - count(&before[process]))
        };
        let mut pushes: Vec<Duration> = Vec::new();
        for tally in &tallies {
            pushes.extend(&tally.pushes);
        }
        pushes.sort_unstable();
        let last_old = tallies.iter().map(|tally| tally.last_old).max();
        Processes {
            changes: self.made.load(Ordering::Relaxed).min(self.changes),
            checks: sum(|tally| tally.checks),
            racing_checks: sum(|tally| tally.racing_checks),
            own_checks: sum(|tally| tally.own_checks),
            stale: self.stale.load(Ordering::Relaxed),
            staleness_bound_ms: ms(self.bound),
            old_within_bound: sum(|tally| tally.old_within_bound),
            last_old_ms: ms(last_old.unwrap_or_default()),
            push_p50_ms: rounded(percentile_ms(&pushes, 50.0)),
            push_p99_ms: rounded(percentile_ms(&pushes, 99.0)),
            push_max_ms: rounded(percentile_ms(&pushes, 100.0)),
            link_losses: grown(|link| link.losses),
            flushes: grown(|link| link.flushes),
            dials: grown(|link| link.dials),
            useful_pushes: grown(|link| link.useful_pushes),
            failed_calls: grown(|link| link.failed_calls),
            retried_invalidations: grown(|link| link.retried_invalidations),
            seconds: 0.0,
            first_stale: tallies.into_iter().find_map(|tally| tally.first_stale),
        }
    }
}

const NAMES: [&str; 2] = ["first", "second"];

/// The price of a product, by the page that takes the least time to render: it is the messages
/// that are measured.
async fn read(client: &mut Client, product: u32) -> Result<i64, StoreError> {
    let page = Page::Price(product);
    let shown = prices_in(&client.get(page).await?);
    match shown.iter().find(|(id, _)| *id == product) {
        Some(&(_, price)) => Ok(price),
        None => Err(StoreError::Missing {
            page: page.to_string(),
            product,
        }),
    }
}

/// What both processes have seen of their links.
async fn links(addresses: [SocketAddr; 2]) -> Result<[LinkRecord; 2], StoreError> {
    let [first, second] = addresses.map(link);
    Ok([first.await?, second.await?])
}

async fn link(address: SocketAddr) -> Result<LinkRecord, StoreError> {
    let body = Client::connect(address).await?.get("/link").await?;
    Ok(serde_json::from_slice(&body).map_err(std::io::Error::from)?)
}

fn ms(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3)
}

/// Microseconds: what was measured is not more exact.
fn rounded(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}
