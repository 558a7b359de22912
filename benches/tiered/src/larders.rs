//! larder as a contestant.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder::tier::redis::{Redis, StatsHandle};
use larder::tier::{Codec, Scope, Tiered};

use crate::error::BenchError;
use crate::race::{Ask, Call};
use crate::rows::{Keys, Work};

const CAPACITY: u64 = 10_000;
/// How long the link may take to stand.
const PATIENCE: Duration = Duration::from_secs(10);

const HEARTBEAT: Duration = Duration::from_secs(4 * PATIENCE.as_secs());

/// Longer than any run: neither time to live is what is measured.
const HOUR: Duration = Duration::from_secs(3600);

/// A cache with a link of its own, once that stands, and what its link counts.
pub fn open_watched<V: Clone + Send + Sync + 'static>(
    url: &str,
    prefix: &str,
    heartbeat: Duration,
    codec: impl Codec<V>,
) -> Result<(Tiered<String, V>, StatsHandle), BenchError> {
    // No call is to be given up because others use the machine.
    let redis = Redis::builder(url)
        .prefix(format!("larder-{prefix}:"))
        .timeout(PATIENCE)
        .heartbeat(heartbeat)
        .build()?;
    let watch = redis.stats_handle();
    let cache = Tiered::builder(redis)
        .max_capacity(CAPACITY)
        .time_to_live(HOUR)
        .l1_time_to_live(HOUR)
        .build_with(codec)?;
    let begun = Instant::now();
    while !cache.is_connected() {
        if begun.elapsed() > PATIENCE {
            let why = watch.stats().last_error;
            return Err(BenchError::NoLink {
                url: url.to_owned(),
                seconds: PATIENCE.as_secs(),
                why: why.map_or("no reason was seen".to_owned(), |why| why.to_string()),
            });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((cache, watch))
}

/// Opens a cache whose heartbeat is longer than the timeout, which is the default: the link's timers work
/// as they usually do.
pub fn open<V: Clone + Send + Sync + 'static>(
    url: &str,
    prefix: &str,
    codec: impl Codec<V>,
) -> Result<Tiered<String, V>, BenchError> {
    Ok(open_watched(url, prefix, HEARTBEAT, codec)?.0)
}

/// Values whose length can be told.
pub trait Length: Clone + Send + Sync + 'static {
    fn length(&self) -> usize;
}

impl Length for Arc<[u8]> {
    fn length(&self) -> usize {
        self.len()
    }
}

impl Length for Vec<u8> {
    fn length(&self) -> usize {
        self.len()
    }
}

/// larder at one kind of work.
pub struct Larder<V> {
    cache: Tiered<String, V>,
    /// The own cache alone.
    here: Tiered<String, V>,
    work: Work,
    who: &'static str,
    keys: Keys,
    value: V,
    asked: u64,
}

impl<V: Length> Larder<V> {
    /// Puts the values on the server.
    pub fn new(
        cache: Tiered<String, V>,
        work: Work,
        who: &'static str,
        keys: Keys,
        value: V,
    ) -> Result<Self, BenchError> {
        for key in keys.all() {
            cache.insert(key.clone(), value.clone())?;
        }
        Ok(Larder {
            here: cache.with_scope(Scope::Local),
            cache,
            work,
            who,
            keys,
            value,
            asked: 0,
        })
    }

    fn ready(&mut self) -> Result<(), BenchError> {
        match self.work {
            Work::Hit => {}
            Work::L2Hit => {
                self.keys.step();
                self.here.invalidate(self.keys.current())?;
            }
            Work::Miss => self.keys.draw(self.who),
        }
        Ok(())
    }

    fn fault(&self) -> Result<(), BenchError> {
        let stats = self.cache.tiered_stats();
        let (hits, misses) = (stats.l2_hits, stats.l2_misses);
        let as_stated = match self.work {
            // Each value is fetched once.
            Work::Hit => misses == 0 && hits <= self.keys.all().len() as u64,
            Work::L2Hit => misses == 0 && hits == self.asked,
            Work::Miss => hits == 0 && misses == self.asked,
        };
        if as_stated && stats.l2_errors == 0 && stats.refused_publishes == 0 {
            return Ok(());
        }
        let what = format!(
            "{} reads that should be {:?}: {stats:?}",
            self.asked, self.work
        );
        Err(BenchError::Work {
            who: "larder",
            what,
        })
    }
}

impl<V: Length> Call for Larder<V> {
    fn prepare(&mut self) -> Result<(), BenchError> {
        self.ready()
    }

    fn call(&mut self) -> Result<usize, BenchError> {
        self.asked += 1;
        match self.work {
            Work::Hit => {
                self.keys.step();
                Ok(self
                    .cache
                    .get(self.keys.current())?
                    .map_or(0, |value| value.length()))
            }
            Work::L2Hit => Ok(self
                .cache
                .get(self.keys.current())?
                .map_or(0, |value| value.length())),
            Work::Miss => {
                let value = self
                    .cache
                    .get_or_load(self.keys.fresh(), || self.value.clone())?;
                Ok(value.length())
            }
        }
    }

    fn check(&self) -> Result<(), BenchError> {
        self.fault()
    }
}

impl<V: Length> Ask for Larder<V> {
    fn prepare(&mut self) -> Result<(), BenchError> {
        self.ready()
    }

    async fn ask(&mut self) -> Result<usize, BenchError> {
        self.asked += 1;
        if self.work == Work::Miss {
            let load = || std::future::ready(self.value.clone());
            let value = self
                .cache
                .get_or_load_async(self.keys.fresh(), load)
                .await?;
            return Ok(value.length());
        }
        if self.work == Work::Hit {
            self.keys.step();
        }
        let value = self.cache.get_async(self.keys.current()).await?;
        Ok(value.map_or(0, |value| value.length()))
    }

    fn check(&self) -> Result<(), BenchError> {
        self.fault()
    }
}
