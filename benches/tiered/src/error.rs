//! What can go wrong, and what to do about it.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;

use larder::tier::{TierError, TieredBuildError};
use larder::{LoadError, TryLoadError};
use thiserror::Error;

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum BenchError {
    /// There is no such program, or it may not be run.
    #[error(
        "{program} was not started ({why}): install it (Debian: apt-get install redis-server), or name it by --server"
    )]
    NoServer { program: PathBuf, why: io::Error },
    /// It ended by itself, or said nothing.
    #[error("the server {what}; a Redis of 6.2 or newer is needed. The end of its log:\n{log}")]
    Server { what: &'static str, log: String },
    /// larder has no link to the server.
    #[error("larder had no link to {url} after {seconds} s: {why}")]
    NoLink {
        url: String,
        seconds: u64,
        why: String,
    },
    /// No row was asked for.
    #[error("no row's name contains what --only gives: run without it, and look at the names")]
    NoRow,
    /// The other process did not do its part.
    #[error("the second process {what}: what it wrote to stderr says why")]
    Peer { what: String },
    /// The work was not what the row says, so that its figures would mean nothing.
    #[error("{who}: {what}")]
    Work { who: &'static str, what: String },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("redis-rs: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("larder's tier: {0}")]
    Tier(#[from] TierError),
    #[error("larder's URL: {0}")]
    Url(#[from] larder::tier::redis::RedisError),
    #[error("larder's settings: {0}")]
    Settings(#[from] TieredBuildError),
    #[error("larder's load: {0}")]
    Load(#[from] LoadError),
    #[error("larder's load: {0}")]
    TryLoad(#[from] TryLoadError<Infallible>),
    #[error("a thread panicked: {0}")]
    Panic(#[from] tokio::task::JoinError),
}
