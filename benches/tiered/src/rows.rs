//! The rows: which work, over which link, with values of which size; and who takes part.

use std::num::NonZeroUsize;
use std::sync::Arc;

use larder::tier::RawBytes;
use tokio::runtime::{Builder, Runtime};

use crate::error::BenchError;
use crate::larders::{self, Larder};
use crate::race::{self, Batch, Contestant, Settings};
use crate::redises::{self, Asked, Called};
use crate::report::Line;
use crate::server::{Link, Server};

/// Where a read finds its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// In the process's own cache.
    Hit,
    /// On the server. larder's own copy is dropped before each read.
    L2Hit,
    /// Nowhere: a loader returns it at once, and it is stored.
    Miss,
}

/// How many values there are to be read: of 10 KiB, somewhat more than a megabyte.
const KEYS: usize = 128;

const SIZES: [(usize, &str); 2] = [(100, "100 B"), (10 << 10, "10 KiB")];

/// The names of the values that are there, and of those that never were.
#[derive(Clone)]
pub struct Keys {
    names: Arc<[String]>,
    at: usize,
    fresh: String,
    drawn: u64,
}

impl Keys {
    fn new() -> Self {
        Keys {
            names: (0..KEYS).map(|n| format!("product:{n:06}")).collect(),
            at: 0,
            fresh: String::new(),
            drawn: 0,
        }
    }

    pub fn all(&self) -> &[String] {
        &self.names
    }

    /// The next of those that are there.
    pub fn step(&mut self) {
        self.at = (self.at + 1) % self.names.len();
    }

    pub fn current(&self) -> &str {
        &self.names[self.at]
    }

    /// A name that nobody has had, if `who` is nobody else's.
    pub fn draw(&mut self, who: &str) {
        self.drawn += 1;
        self.fresh = format!("{who}:{:08}", self.drawn);
    }

    pub fn fresh(&self) -> &str {
        &self.fresh
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    work: Work,
    link: Link,
    size: usize,
    size_name: &'static str,
}

/// All of them, in the order of the report.
pub fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    for work in [Work::Hit, Work::L2Hit, Work::Miss] {
        for (size, size_name) in SIZES {
            // A hit uses no link.
            let links = if work == Work::Hit {
                &Link::ALL[..1]
            } else {
                &Link::ALL[..]
            };
            rows.extend(links.iter().map(|&link| Row {
                work,
                link,
                size,
                size_name,
            }));
        }
    }
    rows
}

impl Row {
    pub fn name(&self) -> String {
        let (link, size) = (self.link.name(), self.size_name);
        match self.work {
            Work::Hit => format!("L1 hit {size}"),
            Work::L2Hit => format!("L2 hit {link} {size}"),
            Work::Miss => format!("full miss {link} {size}"),
        }
    }

    pub fn run(&self, server: &Server, settings: &Settings) -> Result<Vec<Line>, BenchError> {
        server.clear()?;
        let (one, two) = (runtime(1)?, runtime(2)?);
        let value = vec![b'x'; self.size];
        redises::fill(server, &Keys::new(), &value)?;
        let (contestants, batch) = match self.work {
            Work::Hit => (self.hits(server, &two, value)?, Batch(256)),
            Work::L2Hit | Work::Miss => (self.reads(server, [&one, &two], value)?, Batch(1)),
        };
        race::run(&self.name(), contestants, batch, settings)
    }

    fn hits<'a>(
        &self,
        server: &Server,
        runtime: &'a Runtime,
        value: Vec<u8>,
    ) -> Result<Vec<Contestant<'a>>, BenchError> {
        let (work, size) = (self.work, self.size);
        let shared: Arc<[u8]> = value.clone().into();
        let url = server.url(self.link);
        let larder = |who, value: &Arc<[u8]>| {
            Larder::new(
                larders::open(&url, who, RawBytes)?,
                work,
                who,
                Keys::new(),
                value.clone(),
            )
        };
        let copied = Larder::new(
            larders::open(&url, "copied", RawBytes)?,
            work,
            "copied",
            Keys::new(),
            value,
        )?;
        let (thread, task) = (larder("thread", &shared)?, larder("task", &shared)?);
        let cached = redises::cached(server, self.link, runtime, CACHED)?;
        let cached = Asked::new(
            cached,
            work,
            true,
            "cached",
            Keys::new(),
            vec![0; self.size],
        );
        let batch = Batch(256);
        Ok(vec![
            Contestant::thread("larder get, Arc", thread, size, batch).beside(CACHE_HIT),
            Contestant::thread("larder get, Vec", copied, size, batch).beside(CACHE_HIT),
            Contestant::task("larder get_async, Arc", runtime, task, size, batch).beside(CACHE_HIT),
            Contestant::task(CACHE_HIT, runtime, cached, size, batch),
        ])
    }

    fn reads<'a>(
        &self,
        server: &Server,
        [one, two]: [&'a Runtime; 2],
        value: Vec<u8>,
    ) -> Result<Vec<Contestant<'a>>, BenchError> {
        let (work, size, batch) = (self.work, self.size, Batch(1));
        let names = if work == Work::L2Hit {
            &L2_NAMES
        } else {
            &MISS_NAMES
        };
        let shared: Arc<[u8]> = value.clone().into();
        let url = server.url(self.link);
        let larder = |who| {
            let cache = larders::open(&url, who, RawBytes)?;
            Larder::new(cache, work, who, Keys::new(), shared.clone())
        };
        let (thread, task) = (larder("thread")?, larder("task")?);
        let called = Called::new(server.connect(self.link)?, work, Keys::new(), value.clone());
        let asked = |runtime, who| {
            let connection = redises::plain(server, self.link, runtime)?;
            let keys = Keys::new();
            Ok::<_, BenchError>(Asked::new(
                connection,
                work,
                false,
                who,
                keys,
                value.clone(),
            ))
        };
        let mut all = vec![
            Contestant::thread(names[0], thread, size, batch).beside(names[2]),
            Contestant::task(names[1], two, task, size, batch).beside(names[3]),
            Contestant::thread(names[2], called, size, batch),
            Contestant::task(names[3], two, asked(two, "two")?, size, batch),
            Contestant::task(names[4], one, asked(one, "one")?, size, batch).beside(names[3]),
        ];
        if work == Work::L2Hit {
            // Room for one value, and never the same asked for twice in a row: always a miss.
            let cached = redises::cached(server, self.link, two, NonZeroUsize::MIN)?;
            let cached = Asked::new(cached, work, true, "cached", Keys::new(), value.clone());
            let contestant = Contestant::task("redis-rs cache, its miss", two, cached, size, batch);
            all.push(contestant.beside(names[3]));
        }
        Ok(all)
    }
}

/// Room for all values.
const CACHED: NonZeroUsize = NonZeroUsize::new(32 * KEYS).expect("not zero");

const CACHE_HIT: &str = "redis-rs cache, its hit";

/// larder by a thread and by a task; redis-rs by a thread, by a task on a runtime of two threads and of one.
const L2_NAMES: [&str; 5] = [
    "larder get",
    "larder get_async",
    "redis-rs GET, sync",
    "redis-rs GET, async",
    "redis-rs GET, async, 1 thread",
];

const MISS_NAMES: [&str; 5] = [
    "larder get_or_load",
    "larder get_or_load_async",
    "redis-rs GET+SET, sync",
    "redis-rs GET+SET, async",
    "redis-rs GET+SET, async, 1 thread",
];

fn runtime(threads: usize) -> std::io::Result<Runtime> {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build()
}
