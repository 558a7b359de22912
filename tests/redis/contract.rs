//! What the real server and its stand-ins agree on, and what a miss costs in commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use larder::Loaded;
use larder::tier::{Change, Fence, FlushCause, MemoryServer, Pledge, Tier, TierListener};
use parking_lot::Mutex;
use pollster::block_on;

use crate::server::{Server, until};

/// Hears everything, in one line each.
#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl TierListener for Ear {
    fn changed(&self, changes: &[Change]) {
        let mut heard = self.0.lock();
        heard.extend(changes.iter().map(|change| match change {
            Change::Key(key) => format!("key {}", String::from_utf8_lossy(key)),
            Change::Own(key) => format!("own {}", String::from_utf8_lossy(key)),
            Change::Version(name) => format!("version {name}"),
            _ => String::new(),
        }));
    }
    fn flushed(&self, cause: FlushCause) {
        self.0.lock().push(format!("flushed {cause:?}"));
    }
    fn linked(&self, up: bool) {
        self.0.lock().push(format!("linked {up}"));
    }
}

/// Contents with a seal of their own: the envelope's place for it, and nothing else.
fn content(seal: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![b'x'; 24 + length];
    bytes[8..24].fill(seal);
    bytes
}

fn seal(of: u8) -> larder::tier::Seal {
    larder::tier::Seal([of; 16])
}

/// Runs many random operations, and writes down what each answered. Versions are given by their rank: where a
/// sequence begins is the server's own affair.
fn journal(tier: &dyn Tier, seed: u64) -> Vec<String> {
    let mut state = seed;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let hour = Duration::from_secs(3600);
    let start = block_on(tier.sequence()).unwrap();
    let rank = |version: u64| version - start;
    let mut sealed = 0u8;
    let mut lines = Vec::new();
    let mut last_born = start;
    for _ in 0..400 {
        let key = |n: u64| format!("k{n}").into_bytes();
        let name = |n: u64| -> Box<str> { format!("#t{n}").into() };
        let one = draw(5);
        let line = match draw(11) {
            0 | 1 => {
                let many = (0..1 + draw(4))
                    .map(|n| key((one + n) % 5))
                    .collect::<Vec<_>>();
                let found = block_on(tier.get_many(many)).unwrap();
                let seals = found
                    .iter()
                    .map(|found| found.as_ref().map(|found| (found[8], found.len())));
                format!("get {:?}", seals.collect::<Vec<_>>())
            }
            2 => {
                sealed = sealed.wrapping_add(1);
                let added = tier.add(key(one), content(sealed, one as usize), hour);
                let Pledge { stored, sequence } = block_on(added).unwrap();
                last_born = sequence;
                format!("add {stored} {}", rank(sequence))
            }
            3 => {
                sealed = sealed.wrapping_add(1);
                let put = tier.put(key(one), content(sealed, 3), Fence::None, hour);
                format!("put {}", block_on(put).unwrap())
            }
            4 | 5 => {
                let over = Fence::Value(seal(sealed.wrapping_sub(draw(3) as u8)));
                sealed = sealed.wrapping_add(1);
                let put = tier.put(key(one), content(sealed, 3), over, hour);
                format!("put over {}", block_on(put).unwrap())
            }
            6 => format!(
                "remove {}",
                block_on(tier.remove(key(one), Fence::None)).unwrap()
            ),
            7 => {
                let over = Fence::Placeholder(seal(sealed.wrapping_sub(draw(2) as u8)));
                format!(
                    "remove over {}",
                    block_on(tier.remove(key(one), over)).unwrap()
                )
            }
            8 => {
                let names = (0..1 + draw(3)).map(&name).collect();
                let found = block_on(tier.versions(names)).unwrap();
                let ranks = found.into_iter().map(|version| version.map(rank));
                format!("versions {:?}", ranks.collect::<Vec<_>>())
            }
            9 => {
                let born = if draw(2) == 0 {
                    last_born
                } else {
                    block_on(tier.sequence()).unwrap()
                };
                block_on(tier.settle(vec![name(draw(3)), name(3)], born)).unwrap();
                format!("settled, at {}", rank(block_on(tier.sequence()).unwrap()))
            }
            _ => match draw(2) {
                0 => format!("bump {}", rank(block_on(tier.bump(name(draw(3)))).unwrap())),
                _ => {
                    let many = vec![key(one), key((one + 1) % 5)];
                    format!("remove many {}", block_on(tier.remove_many(many)).unwrap())
                }
            },
        };
        lines.push(line);
    }
    lines
}

#[test]
fn the_tier_in_memory_answers_as_the_server_does() {
    for seed in 0..10 {
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
        let fake = MemoryServer::new().tier();
        let (real, fake) = (journal(&real, seed), journal(&fake, seed));
        for (step, (real, fake)) in real.iter().zip(&fake).enumerate() {
            assert_eq!(real, fake, "seed {seed}, step {step}");
        }
        let kinds = real
            .iter()
            .map(|line| line.split(' ').next().unwrap_or_default());
        let mut counts = BTreeMap::<&str, u64>::new();
        kinds.for_each(|kind| *counts.entry(kind).or_default() += 1);
        assert!(counts.len() >= 7, "{counts:?}");
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
        assert!(heard("own k"));
        let over = Fence::Placeholder(seal(1));
        assert!(block_on(tier.put(b"k".to_vec(), content(2, 0), over, hour)).unwrap());
        assert!(heard("own k"));
        assert!(!block_on(tier.put(b"k".to_vec(), content(3, 0), over, hour)).unwrap());
        assert!(!heard("own k"), "nothing was written");
        block_on(tier.put(b"k".to_vec(), content(4, 0), Fence::None, hour)).unwrap();
        assert!(heard("key k"));
        block_on(tier.remove_many(vec![b"k".to_vec()])).unwrap();
        assert!(heard("key k"));
        block_on(tier.bump("#t".into())).unwrap();
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
        let watch = link.watch();
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
    // The server evicts at random while it is written to. Whatever it evicts it must have announced.
    let Some(server) = Server::start_with(&["--maxmemory-policy", "allkeys-random"]) else {
        return;
    };
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
            .map(|key| format!("larder:v:{key}"))
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
    assert!(kept > 100);
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
    let left: i64 = server.cli(&["PTTL", "larder:v:l"]).parse().unwrap();
    assert!((1..=300_000).contains(&left), "{left}");
}
