//! The run from the database to the verdict, one phase after another.

use std::{
    collections::HashMap,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::task::{JoinSet, spawn_blocking};

use crate::{
    args::Args,
    database::Database,
    drive::{
        outage, pages_match, prices,
        processes::{self, Processes},
        stampede, traffic,
    },
    error::StoreError,
    pages::Page,
    peer::{self, Peer},
    progress::Progress,
    redis_server::RedisServer,
    report::{Findings, Report, Seconds},
    seed, server,
    shop::Shop,
};

/// Where the database lies, and the temporary directory it lies in if the user named no place.
pub fn database_path(args: &Args) -> Result<(PathBuf, Option<TempDir>), StoreError> {
    if let Some(path) = &args.database {
        return Ok((path.clone(), None));
    }
    let directory = tempfile::Builder::new()
        .prefix("storefront-")
        .tempdir()
        .map_err(StoreError::TemporaryDirectory)?;
    Ok((directory.path().join("shop.sqlite"), Some(directory)))
}

/// Everything there is to do; returns whether all checks passed.
pub async fn run(args: &Args, path: &Path) -> Result<bool, StoreError> {
    let progress = Progress::new(args.quiet);
    let redis = RedisServer::from_environment(None)?;
    let link = redis.as_ref().map(RedisServer::link).transpose()?;
    // The port first: it is soon known whether it is free, and the rest takes a while.
    let (listener, address) = server::listen(args.port).await?;
    let (plain_listener, plain_address) = server::listen(0).await?;

    let mut seconds = Seconds {
        database: ensure_database(args, path, &progress).await?,
        ..Seconds::default()
    };
    let plain = Arc::new(Shop::uncached(Database::open(path)?));
    let shop = match link {
        Some(link) => Shop::shared(Database::open(path)?, link).await?,
        None => Shop::cached(Database::open(path)?, Duration::MAX)?,
    };
    let shop = Arc::new(shop.broken_if(args.break_invalidation));
    let brief = Arc::new(Shop::cached(Database::open(path)?, outage::LIFE)?);
    let (brief_listener, brief_address) = server::listen(0).await?;
    // Dropped at the end of the run, which stops both servers.
    let mut servers = JoinSet::new();
    servers.spawn(server::serve(plain_listener, Arc::clone(&plain)));
    servers.spawn(server::serve(listener, Arc::clone(&shop)));
    servers.spawn(server::serve(brief_listener, Arc::clone(&brief)));

    let stops = async {
        match servers.join_next().await {
            Some(stopped) => stopped?,
            None => Ok(()),
        }
    };
    let work = async {
        let shops = Shops {
            plain: &plain,
            plain_address,
            cached: &shop,
            cached_address: address,
            brief: &brief,
            brief_address,
        };
        let mut report = measure(args, &shops, &mut seconds, &progress).await?;
        if let Some(redis) = &redis {
            let processes = two_processes(args, path, redis, address, &progress).await?;
            report.two_processes = Some(processes);
        }
        present(args, &report)?;
        if args.serve {
            announce(args, address)?;
            tokio::signal::ctrl_c().await?;
        }
        Ok(report.failures().is_empty())
    };
    let result = tokio::select! {
        result = work => result,
        stopped = stops => stopped.map(|()| false),
    };
    if let Some(redis) = redis {
        // What was measured stands, whether this goes well or not.
        if let Err(error) = spawn_blocking(move || redis.clean_up()).await? {
            eprintln!("storefront: the run's keys are left on the Redis: {error}");
        }
    }
    result
}

/// Is the second process of a run.
pub async fn run_as_peer(args: &Args, path: &Path, prefix: &str) -> Result<bool, StoreError> {
    match RedisServer::from_environment(Some(prefix))? {
        Some(redis) => peer::serve(args, path, &redis).await,
        None => Err(StoreError::NoRedisUrl),
    }
}

/// Starts the second process, has both change and read prices, and ends it.
async fn two_processes(
    args: &Args,
    path: &Path,
    redis: &RedisServer,
    address: SocketAddr,
    progress: &Progress,
) -> Result<Processes, StoreError> {
    let peer = Peer::start(args, path, redis).await?;
    let bar = progress.phase("two processes", u64::from(args.process_changes));
    let addresses = [address, peer.address];
    let mut found = processes::change(addresses, args.process_changes, &bar).await?;
    found.seconds = bar.done();
    Ok(found)
}

/// Builds the database unless a complete one is there; returns how long that took, in seconds.
async fn ensure_database(args: &Args, path: &Path, progress: &Progress) -> Result<f64, StoreError> {
    if seed::is_complete(path, args.products)? {
        progress.say(&format!("using the shop at {}", path.display()));
        return Ok(0.0);
    }
    let products = args.products.unwrap_or(seed::DEFAULT_PRODUCTS);
    let bar = progress.phase("building the shop", seed::steps(products));
    let (path, steps) = (path.to_owned(), bar.clone());
    spawn_blocking(move || seed::build(&path, products, &steps)).await??;
    Ok(bar.done())
}

/// The shops, over the same database.
struct Shops<'s> {
    plain: &'s Arc<Shop>,
    plain_address: SocketAddr,
    cached: &'s Arc<Shop>,
    cached_address: SocketAddr,
    /// One whose pages expire soon.
    brief: &'s Arc<Shop>,
    brief_address: SocketAddr,
}

async fn measure(
    args: &Args,
    shops: &Shops<'_>,
    seconds: &mut Seconds,
    progress: &Progress,
) -> Result<Report, StoreError> {
    let connections = args.traffic_connections();
    let database = &shops.cached.database;
    let requests = traffic::requests(database, args.requests.max(args.uncached_requests));
    let first: Arc<[Page]> = requests
        .iter()
        .copied()
        .take(args.uncached_requests as usize)
        .collect();
    let all: Arc<[Page]> = requests.into_iter().take(args.requests as usize).collect();

    let bar = progress.phase("uncached traffic", first.len() as u64);
    let nothing = Arc::new(HashMap::new());
    let mut uncached =
        traffic::drive(shops.plain_address, first, connections, nothing, &bar).await?;
    let uncached_queries = shops.plain.database.statements();
    seconds.uncached_traffic = bar.done();

    // Before the cached traffic, while no page is in the cache yet.
    let bar = progress.phase("stampede", u64::from(args.stampede));
    let stampede = stampede::storm(shops.cached_address, shops.cached, args.stampede, &bar).await?;
    seconds.stampede = bar.done();

    let (queries_before, stats_before) = (database.statements(), shops.cached.stats());
    let bar = progress.phase("cached traffic", all.len() as u64);
    let expected = Arc::new(std::mem::take(&mut uncached.bodies));
    let cached = traffic::drive(shops.cached_address, all, connections, expected, &bar).await?;
    let cached_queries = database.statements() - queries_before;
    let traffic_hit_ratio = shops.cached.stats().since(&stats_before).hit_ratio();
    seconds.cached_traffic = bar.done();

    let bar = progress.phase("price changes", u64::from(args.price_changes));
    let changes =
        prices::change(shops.cached_address, shops.cached, args.price_changes, &bar).await?;
    let hit_ratio = shops.cached.stats().hit_ratio();
    seconds.price_changes = bar.done();

    let sample = sample(database);
    let bar = progress.phase("comparing pages", sample.len() as u64);
    let differing =
        pages_match::differing(shops.plain_address, shops.cached_address, &sample, &bar).await?;
    seconds.comparison = bar.done();

    let bar = progress.phase("expiry and outage", 2);
    let outage = outage::play(shops.brief_address, shops.brief, &bar).await?;
    seconds.outage = bar.done();

    Ok(Report::new(Findings {
        products: database.products(),
        connections,
        pages_compared: cached.all.len() as u64 + stampede.requests + sample.len() as u64,
        pages_differing: uncached.differing + stampede.differing + cached.differing + differing,
        uncached,
        uncached_queries,
        cached,
        cached_queries,
        stampede,
        changes,
        outage,
        traffic_hit_ratio,
        hit_ratio,
        seconds: std::mem::take(seconds),
    }))
}

/// The pages compared after the price changes: of every kind some, the large categories included.
fn sample(database: &Database) -> Vec<Page> {
    let categories = (1..=database.categories()).step_by(4).map(Page::Category);
    let products = (1..=database.products()).take(200).map(Page::Product);
    [Page::Featured, Page::Sidebar]
        .into_iter()
        .chain(categories)
        .chain(products)
        .collect()
}

fn present(args: &Args, report: &Report) -> Result<(), StoreError> {
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(
            out,
            "{}",
            serde_json::to_string(report).map_err(io::Error::from)?
        )?;
    } else {
        writeln!(out, "{}", report.table())?;
    }
    out.flush()?;
    for failure in report.failures() {
        eprintln!("storefront: FAILED: {failure}");
    }
    Ok(())
}

fn announce(args: &Args, address: SocketAddr) -> Result<(), StoreError> {
    let line = format!("the cached shop is open at http://{address}/ until Ctrl-C");
    if args.json {
        eprintln!("{line}");
    } else {
        writeln!(io::stdout().lock(), "{line}")?;
    }
    Ok(())
}
