//! The server fails, again and again, while processes read and write: nothing stale is read beyond what `watched.rs`
//! allows, nothing panics, and afterwards everybody has the newest values, by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use larder::tier::Tiered;
use larder::tier::redis::{Redis, RedisBuilder, StatsHandle};

use crate::server::{Server, moment, now, until};
use crate::watched::{KEYS, Process, Source, Watched};

/// How long each storm lasts.
const STORM: Duration = Duration::from_millis(2_500);

/// A budget for calls, over the link's own timeout.
const BUDGET: Duration = Duration::from_secs(2);

struct Storm {
    server: Server,
    processes: Vec<Process>,
    watches: Vec<StatsHandle>,
}

impl Storm {
    fn new(link: impl Fn(&Server) -> RedisBuilder, settings: &[&str]) -> Option<Self> {
        let server = Server::start_with(settings)?;
        let source = Arc::new(Source::default());
        let mut watches = Vec::new();
        let processes = (0..3).map(|number| {
            let redis: Redis = link(&server).build().unwrap();
            watches.push(redis.stats_handle());
            let (tier, seen) = Watched::new(redis, source.clone());
            let mut builder = Tiered::builder(tier).max_capacity(1_000).budget(BUDGET);
            if number == 1 {
                builder = builder.wait_for_others(Duration::from_millis(50));
            }
            if number == 2 {
                builder = builder
                    .l1_time_to_live(Duration::from_millis(200))
                    .stale_if_error(Duration::from_secs(1), Duration::from_millis(10));
            }
            let cache = builder.build().unwrap();
            Process {
                cache,
                seen,
                source: source.clone(),
            }
        });
        let processes: Vec<_> = processes.collect();
        until("there are links", || {
            processes.iter().all(|process| process.cache.is_connected())
        });
        Some(Storm {
            server,
            processes,
            watches,
        })
    }

    /// Everybody works while the server suffers; then it is left alone.
    fn run(self, what: &str, suffer: impl Fn(&Server)) {
        let over = AtomicBool::new(false);
        let (reads, told, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let longest = AtomicU64::new(0);
        let counts = (&reads, &told, &failed, &longest);
        let stop = &over;
        thread::scope(|threads| {
            for (number, process) in self.processes.iter().enumerate() {
                let work = move || {
                    let (reads, told, failed, longest) = counts;
                    let mut round = number as u64;
                    while !stop.load(SeqCst) {
                        round = round
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        let key = (round >> 33) as usize % KEYS;
                        let began = now();
                        if number < 2 && (round >> 40) % 16 == 0 {
                            let count = if process.write(key) { told } else { failed };
                            count.fetch_add(1, SeqCst);
                        } else {
                            process.read(key);
                            reads.fetch_add(1, SeqCst);
                        }
                        let took = now().saturating_duration_since(began);
                        longest.fetch_max(took.as_micros() as u64, SeqCst);
                        moment(u64::from(round % 64 == 0));
                    }
                };
                threads.spawn(work);
            }
            let end = now() + STORM;
            // A panic of the storm's own would leave the others at work for ever.
            let weather = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                while now() < end {
                    moment(100);
                    suffer(&self.server);
                }
            }));
            over.store(true, SeqCst);
            weather.unwrap();
        });
        self.calm(what);
        let sum = |count: fn(&StatsHandle) -> u64| self.watches.iter().map(count).sum::<u64>();
        let flushes = sum(|watch| watch.stats().flushes.iter().map(|(_, count)| count).sum());
        println!(
            "counts: {what}: {reads:?} reads, {told:?} invalidations answered, {failed:?} that failed, {flushes} \
             flushes, {} dials, longest call {} ms",
            sum(|watch| watch.stats().dials),
            longest.load(SeqCst) / 1_000
        );
        assert!(reads.into_inner() > 100 && told.into_inner() > 10);
        assert!(flushes > 3, "it was no storm");
        // Not a mark in time: whoever waits for as long hangs.
        assert!(longest.into_inner() < 30_000_000, "a call hung");
    }

    /// Afterwards: links, and the newest values everywhere, though nobody writes any more.
    fn calm(&self, what: &str) {
        for process in &self.processes {
            until(&format!("a link after {what}"), || {
                process.cache.is_connected()
            });
        }
        for process in &self.processes {
            for key in 0..KEYS {
                let newest = process.source.values[key].load(SeqCst);
                until(
                    &format!("key {key} is as the source has it after {what}"),
                    || process.read(key) == newest,
                );
            }
        }
        // And once more by writing: what was in the way is gone.
        for key in 0..KEYS {
            until("an invalidation is answered", || {
                self.processes[0].write(key)
            });
        }
    }
}

fn tracking(server: &Server) -> RedisBuilder {
    server.link()
}

fn storm(what: &str, suffer: impl Fn(&Server)) {
    if let Some(storm) = Storm::new(tracking, &[]) {
        storm.run(what, suffer);
    }
}

#[test]
fn connections_are_killed() {
    storm("CLIENT KILL", |server| {
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    });
}

#[test]
fn connections_are_killed_while_everything_is_announced() {
    if let Some(storm) = Storm::new(|server| server.link().broadcast(), &[]) {
        storm.run("CLIENT KILL, broadcast", |server| {
            server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        });
    }
}

#[test]
fn the_server_hangs() {
    storm("SIGSTOP", |server| {
        server.signal("STOP");
        moment(400);
        server.signal("CONT");
        moment(200);
    });
}

#[test]
fn the_server_dies() {
    storm("SIGKILL", |server| {
        server.kill();
        moment(100);
        server.run(&[]);
        moment(150);
    });
}

#[test]
fn the_server_pauses() {
    storm("CLIENT PAUSE", |server| {
        server.cli(&["CLIENT", "PAUSE", "350", "ALL"]);
        moment(500);
    });
}

#[test]
fn the_server_is_slow() {
    let slow = |server: &Server| server.link().timeout(Duration::from_secs(1));
    if let Some(storm) = Storm::new(slow, &[]) {
        storm.run("slow, and killed now and then", |server| {
            server.cli(&["CLIENT", "PAUSE", "60", "ALL"]);
            moment(80);
            server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        });
    }
}

#[test]
fn everything_is_deleted() {
    storm("FLUSHALL", |server| {
        server.cli(&["FLUSHALL"]);
    });
}

#[test]
fn memory_runs_out() {
    storm("maxmemory 1", |server| {
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        moment(150);
        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        moment(150);
    });
}

#[test]
fn memory_is_evicted() {
    // Everything may go, the versions and the sequence among it, all the time.
    let settings = ["--maxmemory-policy", "allkeys-random"];
    if let Some(storm) = Storm::new(tracking, &settings) {
        storm.run("eviction", |server| {
            server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
            moment(20);
            server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
            moment(100);
            server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        });
    }
}

#[test]
fn the_server_becomes_a_replica_and_is_promoted_again() {
    storm("REPLICAOF", |server| {
        server.cli(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
        server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
        moment(250);
        server.cli(&["REPLICAOF", "NO", "ONE"]);
        moment(150);
    });
}

#[test]
fn the_password_is_changed() {
    storm("requirepass", |server| {
        server.cli(&["CONFIG", "SET", "requirepass", "other"]);
        server.cli_as(&["-a", "other"], &["CLIENT", "KILL", "TYPE", "normal"]);
        moment(200);
        server.cli_as(&["-a", "other"], &["CONFIG", "SET", "requirepass", ""]);
        moment(200);
    });
}
