//! What can go wrong, in words for the person at the terminal: what failed, and what to do.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use thiserror::Error;

/// A failure of the shop itself, while it answers one request.
#[derive(Debug, Error)]
pub enum ShopError {
    #[error("the database could not answer: {0}")]
    Sql(#[from] rusqlite::Error),
    #[error("no database connection is left; restart the shop")]
    NoConnection,
    #[error("the task that ran the queries was stopped: {0}")]
    Stopped(#[from] tokio::task::JoinError),
    #[error("the page could not be loaded: {0}")]
    Load(larder::LoadError),
    #[error("the change is made, and Redis could not be told of it in time; start it again: {0}")]
    Untold(larder::tier::TierError),
    #[error("the database is down, as the outage of this run has it")]
    Down,
}

/// A failure that ends the program.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error(
        "cannot keep the database at {}: {source}\nGive --database the path of a file, in a directory you may write to", path.display()
    )]
    DatabaseFile { path: PathBuf, source: io::Error },
    #[error(
        "cannot make a temporary directory: {0}\nGive --database a path, or set TMPDIR to a directory you may write to"
    )]
    TemporaryDirectory(io::Error),
    #[error(
        "{} is there already and is not a shop of this version: {reason}\nRemove it, or give --database another path", path.display()
    )]
    ForeignDatabase { path: PathBuf, reason: String },
    #[error(
        "{} holds a shop of {found} products, --products asks for {asked}\nRemove the file, give another path, or leave --products out", path.display()
    )]
    OtherSize {
        path: PathBuf,
        found: u32,
        asked: u32,
    },
    #[error("the database at {} failed while {doing}: {source}\nIs the disk full, or the file in use elsewhere?", path.display())]
    Database {
        path: PathBuf,
        doing: &'static str,
        source: rusqlite::Error,
    },

    #[error(
        "port {0} is in use by another program\nGive --port another number, or 0 for any free port"
    )]
    PortInUse(u16),
    #[error(
        "cannot listen on {address}: {source}\nGive --port another number, or 0 for any free port"
    )]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the shop stopped serving: {0}")]
    Serve(io::Error),
    #[error("cannot start the threads of the program: {0}")]
    Runtime(io::Error),
    #[error("cannot build the page cache: {0}")]
    Cache(#[from] larder::BuildError),
    #[error("cannot build the page cache: {0}")]
    SharedCache(#[from] larder::tier::TieredBuildError),

    #[error(
        "REDIS_URL is set and cannot be used: {0}\nCorrect it, or unset it to run without Redis"
    )]
    Redis(#[from] larder::tier::redis::RedisError),
    #[error("REDIS_URL is set and is not UTF-8; correct it, or unset it to run without Redis")]
    RedisUrl,
    #[error("--peer needs the environment variable REDIS_URL")]
    NoRedisUrl,
    #[error(
        "no link to the Redis that REDIS_URL names within {within:?}: {why}\nStart it, correct REDIS_URL, or unset it to run without Redis"
    )]
    NoLink { within: Duration, why: String },
    #[error("the second process {doing}: {source}")]
    Peer {
        doing: &'static str,
        source: io::Error,
    },

    #[error(
        "cannot connect to the shop at {address}: {source}\nIf this says too many open files, raise the limit (ulimit -n) or lower --stampede"
    )]
    Connect {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the request {request} got no answer: {source}")]
    Request {
        request: String,
        source: hyper::Error,
    },
    #[error("the request {request} was answered {status}: {body}")]
    Status {
        request: String,
        status: u16,
        body: String,
    },
    #[error("the page {page} does not show product {product}, which it should")]
    Missing { page: String, product: u32 },
    #[error(
        "the shop's pages list no products, so there is no price to change; remove the database and run again"
    )]
    NothingToChange,
    #[error("a task of the driver was stopped: {0}")]
    Driver(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Shop(#[from] ShopError),
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
    #[error("stopped by Ctrl-C before the run was complete")]
    Interrupted,
}
