//! The Redis that the processes of a run share, if the environment names one.
//!
//! The URL may hold a password: it stands in no message, no argument and no `Debug`.

use std::{
    collections::hash_map::RandomState,
    env::{self, VarError},
    hash::BuildHasher,
    time::Duration,
};

use larder::tier::redis::Redis;

use crate::error::StoreError;

/// The longest wait before a lost server is dialled again: a run is short.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
const SHORTEST_WAIT: Duration = Duration::from_millis(20);
/// For so long an answer is waited for when the run's keys are removed.
const ANSWER: Duration = Duration::from_secs(5);
/// How many keys are asked for, and removed, at a time.
const PORTION: usize = 1_000;

/// A server, and what a run's keys on it begin with.
#[derive(Clone)]
pub struct RedisServer {
    url: String,
    prefix: String,
}

impl RedisServer {
    /// The server that `REDIS_URL` names, under a prefix; without one, under one that no other run
    /// has, as runs over different databases must not read each other's pages.
    pub fn from_environment(prefix: Option<&str>) -> Result<Option<Self>, StoreError> {
        let url = match env::var("REDIS_URL") {
            Ok(url) if !url.is_empty() => url,
            Ok(_) | Err(VarError::NotPresent) => return Ok(None),
            Err(VarError::NotUnicode(_)) => return Err(StoreError::RedisUrl),
        };
        let prefix = prefix.map_or_else(
            // Each `RandomState` hashes differently.
            || format!("storefront:{:016x}:", RandomState::new().hash_one(())),
            str::to_owned,
        );
        Ok(Some(Self { url, prefix }))
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A link to it, for one cache.
    pub fn link(&self) -> Result<Redis, StoreError> {
        Ok(Redis::builder(&self.url)
            .prefix(&*self.prefix)
            .backoff(SHORTEST_WAIT, LONGEST_WAIT)
            .build()?)
    }

    /// Removes all keys of the run. Pages go by themselves when their time is up; the versions of
    /// tags, by design, never do (a run that is interrupted leaves them). Blocks its thread.
    pub fn clean_up(&self) -> Result<(), redis::RedisError> {
        let client = redis::Client::open(self.url.as_str())?;
        let mut connection = client.get_connection_with_timeout(ANSWER)?;
        connection.set_read_timeout(Some(ANSWER))?;
        let mut cursor = 0_u64;
        loop {
            let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(format!("{}*", self.prefix))
                .arg("COUNT")
                .arg(PORTION)
                .query(&mut connection)?;
            if !keys.is_empty() {
                redis::cmd("UNLINK").arg(keys).exec(&mut connection)?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}
