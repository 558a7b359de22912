//! What a review found on a real server, each defect as the sentence that holds since: commands that arrive late,
//! invalidations that could not be made, servers that come back with older data.

use std::net::TcpListener;
use std::time::Duration;

use larder::Loaded;
use larder::tier::redis::{Redis, RedisBuilder, StatsHandle};
use larder::tier::{TierError, Tiered};

use crate::late::Way;
use crate::server::{Server, until};

type Node = Tiered<String, u64>;

/// What only the script has that puts a placeholder whatever stands there.
const SET_PLACEHOLDER: &str = "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return sequence";
/// What only the script has that puts one where there is nothing.
const ADD: &str = "'NX'";
/// What only the script has that stores over a content.
const PUT: &str = "~= ARGV[5]";

fn node(server: &Server) -> (Node, StatsHandle) {
    watched(server, server.link())
}

fn watched(server: &Server, link: RedisBuilder) -> (Node, StatsHandle) {
    let link = link.build().unwrap();
    let watch = link.stats_handle();
    (server.node(link), watch)
}

/// A process whose way to the server is a roundabout one.
fn node_by(server: &Server, way: &Way) -> Node {
    let link = Redis::builder(&way.url())
        .timeout(Duration::from_millis(300))
        .backoff(Duration::from_millis(5), Duration::from_millis(100));
    watched(server, link).0
}

/// The call goes out and is not answered; another link takes the place of this one.
fn is_given_up<T: std::fmt::Debug>(
    node: &Node,
    way: &Way,
    call: impl FnOnce() -> Result<T, TierError>,
) {
    way.shut();
    let error = call().unwrap_err();
    assert!(matches!(error, TierError::TimedOut { .. }), "{error}");
    way.until_held();
    until("there is another link", || node.is_connected());
}

#[test]
fn an_insertion_that_arrives_late_brings_nothing_back() {
    for (late, left) in [(PUT, Some(2)), (SET_PLACEHOLDER, None)] {
        let Some(server) = Server::start() else {
            return;
        };
        let way = Way::new(&server, late);
        let (here, there) = (node_by(&server, &way), node(&server).0);
        is_given_up(&here, &way, || here.insert("k".to_owned(), 1));
        until("a later value is stored", || {
            here.insert("k".to_owned(), 2).is_ok()
        });
        assert_eq!(here.get("k").unwrap(), Some(2));
        assert_eq!(there.get("k").unwrap(), Some(2));
        way.open();
        // A late value is not stored. A late placeholder takes away what stands there, as an invalidation would.
        let fresh = node(&server).0;
        assert_eq!(fresh.get("k").unwrap(), left);
        for node in [&here, &there] {
            until("everybody has heard of it", || {
                let found = node.get("k").unwrap();
                assert_ne!(found, Some(1));
                found == left
            });
        }
        assert_eq!(fresh.get_or_load("k", || 2).unwrap(), 2);
    }
}

#[test]
fn an_addition_that_arrives_late_brings_nothing_back() {
    for late in [PUT, ADD] {
        let Some(server) = Server::start() else {
            return;
        };
        let way = Way::new(&server, late);
        let (here, there) = (node_by(&server, &way), node(&server).0);
        is_given_up(&here, &way, || here.add("k".to_owned(), 1));
        there.invalidate("k").unwrap();
        way.open();
        for node in [&here, &there, &node(&server).0] {
            assert_eq!(node.get("k").unwrap(), None);
        }
        assert_eq!(there.get_or_load("k", || 2).unwrap(), 2);
        assert_eq!(here.get("k").unwrap().unwrap_or(2), 2);
    }
}

#[test]
fn an_invalidation_asked_for_while_the_server_rests_is_made_up_for_over_the_same_link() {
    let Some(server) = Server::start() else {
        return;
    };
    let (reader, _) = node(&server);
    let hour = Duration::from_secs(3_600);
    let (writer, watch) = watched(&server, server.link().breaker(1, hour));
    writer.insert("k".to_owned(), 1).unwrap();
    let tagged = || Ok::<_, String>(Loaded::new(1).tag("t"));
    writer.get_or_load_with("l", tagged).unwrap();
    until("the reader has both", || {
        reader.get("k").unwrap() == Some(1) && reader.get("l").unwrap() == Some(1)
    });
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    writer.insert("other".to_owned(), 1).unwrap_err();
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    // It rests for an hour now.
    let (invalidated, moved) = (writer.invalidate("k"), writer.invalidate_tag("t"));
    assert!(
        matches!(invalidated, Err(TierError::BreakerOpen)),
        "{invalidated:?}"
    );
    assert!(matches!(moved, Err(TierError::BreakerOpen)), "{moved:?}");
    until("the reader has heard of both", || {
        reader.get("k").unwrap().is_none() && reader.get("l").unwrap().is_none()
    });
    until("nothing is owed", || watch.stats().retries == 0);
    assert_eq!(watch.stats().dials, 1);
    assert!(matches!(writer.get("k"), Err(TierError::BreakerOpen)));
}

#[test]
fn what_was_refused_is_owed_to_the_next_link_and_none_is_used_before_it_is_paid() {
    let Some(server) = Server::start() else {
        return;
    };
    let ((writer, watch), (reader, _)) = (node(&server), node(&server));
    let tagged = |value| move || Ok::<_, String>(Loaded::new(value).tag("t"));
    writer.get_or_load_with("k", tagged(1)).unwrap();
    assert_eq!(reader.get("k").unwrap(), Some(1));
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    writer.invalidate_tag("t").unwrap_err();
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let dials = watch.stats().dials;
    until("several links were tried", || {
        watch.stats().dials > dials + 3
    });
    // Over none of them the older value was read.
    assert!(!writer.is_connected() && writer.get("k").is_err());
    assert!(watch.stats().retries > 0);
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    until("the writer has a link", || writer.is_connected());
    assert_eq!(watch.stats().retries, 0);
    assert_eq!(writer.get("k").unwrap(), None);
    until("the reader has heard of it", || {
        reader.get("k").is_ok_and(|found| found.is_none())
    });
}

/// Both have the newer value of `k` and of `l`; what a server has that stood still before it is the older.
fn change(here: &Node, there: &Node) {
    let newer = || Ok::<_, String>(Loaded::new(2).tag("t"));
    here.invalidate("k").unwrap();
    here.invalidate_tag("t").unwrap();
    for node in [here, there] {
        until("both have the newer values", || {
            ["k", "l"]
                .iter()
                .all(|key| node.get_or_load_with(*key, newer).unwrap() == Some(2))
        });
    }
}

/// Neither may read the older value once it is linked to the server that has that.
fn read_nothing_older(nodes: &[&Node]) {
    let newer = || Ok::<_, String>(Loaded::new(2).tag("t"));
    for node in nodes {
        until("there is a link again", || node.is_connected());
        for key in ["k", "l"] {
            let found = node.get(key).unwrap();
            assert_ne!(found, Some(1), "{key}");
        }
    }
    for node in nodes {
        for key in ["k", "l"] {
            assert_eq!(node.get_or_load_with(key, newer).unwrap(), Some(2));
        }
    }
}

#[test]
fn a_server_that_comes_back_with_older_data_serves_none_of_it() {
    let Some(server) = Server::start() else {
        return;
    };
    let ((here, _), (there, _)) = (node(&server), node(&server));
    here.insert("k".to_owned(), 1).unwrap();
    here.get_or_load_with("l", || Ok::<_, String>(Loaded::new(1).tag("t")))
        .unwrap();
    assert_eq!(server.cli(&["SAVE"]), "OK");
    change(&here, &there);
    server.kill();
    until("both have lost their links", || {
        !here.is_connected() && !there.is_connected()
    });
    server.run(&[]);
    assert_ne!(
        server.cli(&["EXISTS", "larder:v::k"]),
        "0",
        "the older value is there"
    );
    read_nothing_older(&[&here, &there, &node(&server).0]);
}

#[test]
fn a_replica_that_lacked_the_latest_and_is_promoted_serves_nothing_older() {
    if !Server::is_installed() {
        return;
    }
    let free = || {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    };
    let port = free().to_string();
    let (Some(primary), Some(replica)) = (Server::start_with(&["--port", &port]), Server::start())
    else {
        return;
    };
    // The address under which the processes know the server.
    let address = primary.directory().join("address");
    let lead_to = |server: &Server| {
        let _ = std::fs::remove_file(&address);
        std::os::unix::fs::symlink(server.directory().join("socket"), &address).unwrap();
    };
    lead_to(&primary);
    let by_address = || {
        let link = Redis::builder(&format!("unix://{}", address.display()))
            .heartbeat(Duration::from_millis(50))
            .backoff(Duration::from_millis(5), Duration::from_millis(100));
        watched(&primary, link)
    };
    let ((here, seen), (there, seen_there)) = (by_address(), by_address());
    here.insert("k".to_owned(), 1).unwrap();
    here.get_or_load_with("l", || Ok::<_, String>(Loaded::new(1).tag("t")))
        .unwrap();
    replica.cli(&["REPLICAOF", "127.0.0.1", &port]);
    until("the replica has both", || {
        replica.cli(&["EXISTS", "larder:v::k", "larder:v::l"]) == "2"
    });
    // From now on it hears of nothing.
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    change(&here, &there);
    lead_to(&replica);
    primary.kill();
    until("both have dialled again", || {
        seen.stats().dials > 1 && seen_there.stats().dials > 1
    });
    read_nothing_older(&[&here, &there]);
}
