//! The redis crate as a contestant: its connections as they are, and its own cache.

use std::num::NonZeroUsize;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::caching::CacheConfig;
use redis::{AsyncConnectionConfig, Client, Cmd, Connection, cmd};
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::race::{Ask, Call};
use crate::rows::{Keys, Work};
use crate::server::{Link, Server};

/// How long a stored value lives, in seconds: as larder's.
const HOUR: u32 = 3600;
/// No call is to be given up because others use the machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn get(key: &str) -> Cmd {
    let mut get = cmd("GET");
    get.arg(key);
    get
}

fn set(key: &str, value: &[u8]) -> Cmd {
    let mut set = cmd("SET");
    set.arg(key).arg(value).arg("EX").arg(HOUR);
    set
}

/// Puts the values on the server.
pub fn fill(server: &Server, keys: &Keys, value: &[u8]) -> Result<(), BenchError> {
    let mut connection = server.connect(Link::Unix)?;
    for key in keys.all() {
        set(key, value).exec(&mut connection)?;
    }
    Ok(())
}

/// A connection for tasks.
pub fn plain(
    server: &Server,
    link: Link,
    runtime: &Runtime,
) -> Result<MultiplexedConnection, BenchError> {
    let client = Client::open(server.url(link))?;
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    Ok(runtime.block_on(client.get_multiplexed_async_connection_with_config(&config))?)
}

/// A connection with the crate's own cache, of so many values.
pub fn cached(
    server: &Server,
    link: Link,
    runtime: &Runtime,
    values: NonZeroUsize,
) -> Result<MultiplexedConnection, BenchError> {
    let client = Client::open(server.resp3_url(link))?;
    let cache = CacheConfig::new().set_size(values);
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(PATIENCE))
        .set_cache_config(cache);
    Ok(runtime.block_on(client.get_multiplexed_async_connection_with_config(&config))?)
}

/// A connection that a thread uses.
pub struct Called {
    connection: Connection,
    work: Work,
    keys: Keys,
    value: Vec<u8>,
}

impl Called {
    pub fn new(connection: Connection, work: Work, keys: Keys, value: Vec<u8>) -> Self {
        Called {
            connection,
            work,
            keys,
            value,
        }
    }
}

impl Call for Called {
    fn prepare(&mut self) -> Result<(), BenchError> {
        match self.work {
            Work::Hit | Work::L2Hit => self.keys.step(),
            Work::Miss => self.keys.draw("called"),
        }
        Ok(())
    }

    fn call(&mut self) -> Result<usize, BenchError> {
        if self.work != Work::Miss {
            let value: Vec<u8> = get(self.keys.current()).query(&mut self.connection)?;
            return Ok(value.len());
        }
        let found: Option<Vec<u8>> = get(self.keys.fresh()).query(&mut self.connection)?;
        // As a loader would, it makes a value of its own.
        let value = found.unwrap_or_else(|| self.value.clone());
        set(self.keys.fresh(), &value).exec(&mut self.connection)?;
        Ok(value.len())
    }

    fn check(&self) -> Result<(), BenchError> {
        Ok(())
    }
}

/// A connection that a task uses.
pub struct Asked {
    connection: MultiplexedConnection,
    work: Work,
    has_cache: bool,
    who: &'static str,
    keys: Keys,
    value: Vec<u8>,
}

impl Asked {
    pub fn new(
        connection: MultiplexedConnection,
        work: Work,
        has_cache: bool,
        who: &'static str,
        keys: Keys,
        value: Vec<u8>,
    ) -> Self {
        Asked {
            connection,
            work,
            has_cache,
            who,
            keys,
            value,
        }
    }
}

impl Ask for Asked {
    fn prepare(&mut self) -> Result<(), BenchError> {
        match self.work {
            Work::Hit => {}
            Work::L2Hit => self.keys.step(),
            Work::Miss => self.keys.draw(self.who),
        }
        Ok(())
    }

    async fn ask(&mut self) -> Result<usize, BenchError> {
        if self.work == Work::Hit {
            self.keys.step();
        }
        if self.work != Work::Miss {
            let key = self.keys.current();
            let value: Vec<u8> = get(key).query_async(&mut self.connection).await?;
            return Ok(value.len());
        }
        let key = self.keys.fresh();
        let found: Option<Vec<u8>> = get(key).query_async(&mut self.connection).await?;
        let value = found.unwrap_or_else(|| self.value.clone());
        set(key, &value).exec_async(&mut self.connection).await?;
        Ok(value.len())
    }

    fn check(&self) -> Result<(), BenchError> {
        let stats = self.connection.get_cache_statistics();
        let as_stated = match (&stats, self.work) {
            (Some(stats), Work::Hit) => stats.miss <= self.keys.all().len(),
            (Some(stats), Work::L2Hit) => stats.hit == 0 && stats.miss > 0,
            _ => !self.has_cache,
        };
        if as_stated {
            return Ok(());
        }
        let what = format!("reads that should be {:?}: {stats:?}", self.work);
        Err(BenchError::Work {
            who: "redis-rs's cache",
            what,
        })
    }
}
