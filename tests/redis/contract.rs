//! What the real server and its stand-ins agree on, and what a miss costs in commands.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use larder::Loaded;
use larder::tier::redis::internals::{Answer, Client, Commands, RedisTier, Request};
use larder::tier::{Change, FlushCause, MemoryServer, Tier, TierListener};
use parking_lot::Mutex;
use pollster::block_on;

use crate::journal::{content, content_id, journal};
use crate::mini_redis::MiniRedis;
use crate::server::{Server, until};

/// Hears everything, in one line each.
#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl TierListener for Ear {
    fn changed(&self, changes: &[Change]) {
        let mut heard = self.0.lock();
        heard.extend(changes.iter().map(|change| match change {
            Change::Key(key) => format!("key {}", String::from_utf8_lossy(key)),
            Change::Own(key, by) => format!("own {} {}", String::from_utf8_lossy(key), by.0[0]),
            Change::Version(name) => format!("version {name}"),
            _ => String::new(),
        }));
    }
    fn flushed(&self, cause: FlushCause) {
        self.0.lock().push(format!("flushed {cause:?}"));
    }
    fn connection_changed(&self, up: bool) {
        self.0.lock().push(format!("linked {up}"));
    }
}

/// The small Redis, at once and without a link.
struct AtOnce(Mutex<MiniRedis>);

impl Client for AtOnce {
    fn submit(&self, request: Request, answer: Answer) {
        let mut redis = self.0.lock();
        let run = |command: &Vec<Vec<u8>>| redis.run(0, command).0;
        let _ = answer.send(Ok(request.commands.iter().map(run).collect()));
    }
    fn listen(&self, _: Weak<dyn TierListener>) {}
    fn timeout(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn what_stands_in_for_the_server_answers_as_it_does() {
    for seed in 0..20 {
        let Some(server) = Server::start() else {
            return;
        };
        let real = server.link().build().unwrap();
        let ear = Arc::new(Ear::default());
        let listener: Arc<dyn TierListener> = ear.clone();
        real.listen(Arc::downgrade(&listener));
        until("there is a link", || {
            ear.0.lock().contains(&"linked true".to_owned())
        });
        let real = journal(&real, seed);
        let memory = journal(&MemoryServer::new().tier(), seed);
        let mini = AtOnce(Mutex::new(MiniRedis::at(1_700_000_000_000)));
        let mini = journal(&RedisTier::new(mini, Commands::new("p:")), seed);
        for (step, real) in real.iter().enumerate() {
            assert_eq!(real, &memory[step], "in memory: seed {seed}, step {step}");
            assert_eq!(
                real, &mini[step],
                "the small Redis: seed {seed}, step {step}"
            );
        }
        let kinds = real
            .iter()
            .map(|line| line.split(' ').next().unwrap_or_default());
        let kinds: BTreeSet<&str> = kinds.collect();
        assert!(kinds.len() >= 7, "{kinds:?}");
    }
}

#[test]
fn a_writer_has_heard_of_its_write_when_it_is_answered() {
    let Some(server) = Server::start() else {
        return;
    };
    for broadcast in [false, true] {
        let link = server.link().prefix(format!("{broadcast}:"));
        let link = if broadcast { link.broadcast() } else { link };
        let tier = link.build().unwrap();
        let ear = Arc::new(Ear::default());
        let listener: Arc<dyn TierListener> = ear.clone();
        tier.listen(Arc::downgrade(&listener));
        until("there is a link", || {
            ear.0.lock().contains(&"linked true".to_owned())
        });
        let heard = |what: &str| std::mem::take(&mut *ear.0.lock()).contains(&what.to_owned());
        let hour = Duration::from_secs(3600);
        heard("");
        block_on(tier.add(b"k".to_vec(), content(1, 0), hour)).unwrap();
        assert!(heard("own k 1"));
        let over = content_id(1);
        assert!(block_on(tier.compare_and_set(b"k".to_vec(), content(2, 0), over, hour)).unwrap());
        assert!(heard("own k 2"));
        assert!(!block_on(tier.compare_and_set(b"k".to_vec(), content(3, 0), over, hour)).unwrap());
        assert!(!heard("own k 3"), "nothing was written");
        block_on(tier.set_placeholder(b"k".to_vec(), content(4, 0), hour)).unwrap();
        assert!(heard("key k"));
        block_on(tier.remove_many(vec![b"k".to_vec()])).unwrap();
        assert!(heard("key k"));
        block_on(tier.incr_version("#t".into())).unwrap();
        assert!(heard("version #t"));
    }
}

#[test]
fn what_a_miss_costs_in_commands() {
    let Some(server) = Server::start() else {
        return;
    };
    let link = |server: &Server| {
        let link = server
            .link()
            .heartbeat(Duration::from_secs(3600))
            .build()
            .unwrap();
        let watch = link.stats_handle();
        (server.node(link), watch)
    };
    let ((here, watch), (there, other)) = (link(&server), link(&server));
    there
        .get_or_load_with("k", || Ok::<_, String>(Loaded::new(1).tag("t")))
        .unwrap();
    here.get_or_load_with("other", || Ok::<_, String>(Loaded::new(1).tag("t")))
        .unwrap();
    let asked = |work: &dyn Fn()| {
        let before = (
            watch.stats().commands,
            server.info("total_commands_processed"),
        );
        work();
        let counted = watch.stats().commands - before.0;
        // Ours, and INFO itself.
        let served = server.info("total_commands_processed") - before.1 - 1;
        (counted, served)
    };
    let hit = asked(&|| assert_eq!(here.get("k").unwrap(), Some(1)));
    // What a script calls counts as commands at the server.
    let full = asked(&|| assert_eq!(here.get_or_load("full", || 1).unwrap(), 1));
    let own = asked(&|| assert_eq!(here.get("full").unwrap(), Some(1)));
    println!(
        "counts: commands (asked, served) of a miss that the tier answers {hit:?}, of a full one {full:?}"
    );
    assert_eq!(hit.0, 1, "one GET");
    assert_eq!(
        full.0, 5,
        "GET, the placeholder and its seal, the value and its seal"
    );
    assert_eq!(own, (0, 0));
    assert!(hit.1 >= 1 && full.1 >= 5);
    assert!(other.stats().commands > 0);
}

#[test]
fn nothing_is_kept_here_that_the_server_does_not_remember() {
    // The server evicts at random while it is written to. Whatever it evicts it must have announced. One time in five
    // that is the very key by which it is told whether it is still the same run, and nothing is kept here then.
    for _ in 0..20 {
        let Some(server) = Server::start_with(&["--maxmemory-policy", "allkeys-random"]) else {
            return;
        };
        if kept_while_evicting(&server) > 100 {
            return;
        }
    }
    panic!("it kept nothing, time after time");
}

/// How many of 4,000 values are kept here after the server has evicted some, each of which it must remember.
fn kept_while_evicting(server: &Server) -> usize {
    let reader = server.node(server.link().build().unwrap());
    let used = server.info("used_memory");
    server.cli(&[
        "CONFIG",
        "SET",
        "maxmemory",
        &(used + (1 << 20)).to_string(),
    ]);
    for n in 0..4_000 {
        reader.get_or_load(&format!("evicted {n}"), || n).unwrap();
    }
    assert!(server.info("evicted_keys") > 100, "it evicts");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let here = |key: &str| {
        let before = reader.tiered_stats();
        let found = reader.get(key).unwrap();
        found.is_some() && before == reader.tiered_stats()
    };
    let keys: Vec<String> = (0..4_000).map(|n| format!("evicted {n}")).collect();
    let mut kept = 0;
    for keys in keys.chunks(400) {
        let kept_here: Vec<&String> = keys.iter().filter(|key| here(key)).collect();
        kept += kept_here.len();
        if kept_here.is_empty() {
            continue;
        }
        let names: Vec<String> = kept_here
            .iter()
            .map(|key| format!("larder:v::{key}"))
            .collect();
        let mut command = vec!["EXISTS"];
        command.extend(names.iter().map(String::as_str));
        until("what is kept here is there", || {
            let there = server.cli(&command);
            there == kept_here.len().to_string() || kept_here.iter().any(|key| !here(key))
        });
    }
    println!(
        "counts: {} evicted, {kept} kept here",
        server.info("evicted_keys")
    );
    kept
}

#[test]
fn what_has_expired_on_the_server_is_not_served_here() {
    let Some(server) = Server::start() else {
        return;
    };
    let (here, there) = (
        server.node(server.link().build().unwrap()),
        server.node(server.link().build().unwrap()),
    );
    let short = || Ok::<_, String>(Loaded::new(1).time_to_live(Duration::from_millis(300)));
    here.get_or_load_with("k", short).unwrap();
    let _ = there.get("k").unwrap();
    until("its time is up in both processes", || {
        here.get("k").unwrap().is_none() && there.get("k").unwrap().is_none()
    });
    // Without anybody asking the server, too: nothing lives there for ever.
    there.insert("l".to_owned(), 1).unwrap();
    let left: i64 = server.cli(&["PTTL", "larder:v::l"]).parse().unwrap();
    assert!((1..=300_000).contains(&left), "{left}");
}
