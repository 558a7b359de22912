//! Every way in which a server says no: typed, counted, and no reason for a loading call to fail.

use std::time::Duration;

use larder::tier::redis::{Redis, StatsHandle};
use larder::tier::{FlushCause, ServerErrorKind, TierError, Tiered};

use crate::server::{Server, now, until};

type Node = Tiered<String, u64>;

fn node(server: &Server) -> (Node, StatsHandle) {
    let link = server.link().build().unwrap();
    let watch = link.stats_handle();
    (server.node(link), watch)
}

fn refused(watch: &StatsHandle, kind: ServerErrorKind) -> u64 {
    let server_errors = watch.stats().server_errors;
    server_errors
        .iter()
        .find(|(counted, _)| *counted == kind)
        .map_or(0, |(_, count)| *count)
}

fn flushed(watch: &StatsHandle, cause: FlushCause) -> u64 {
    let flushes = watch.stats().flushes;
    flushes
        .iter()
        .find(|(kind, _)| *kind == cause)
        .map_or(0, |(_, count)| *count)
}

fn is(error: &TierError, wanted: ServerErrorKind) -> bool {
    matches!(error, TierError::Refused { kind, .. } if *kind == wanted)
}

/// Loading calls go on, and afterwards the tier is used again by itself.
fn loads_all_the_same(node: &Node) {
    for n in 0..20 {
        assert_eq!(
            node.get_or_load(&format!("all the same {n}"), || n)
                .unwrap(),
            n
        );
    }
}

fn recovers(node: &Node) {
    until("a value is stored again", || {
        let stored = node.insert("again".to_owned(), 1);
        stored.is_ok() && node.get("again").is_ok_and(|found| found == Some(1))
    });
}

#[test]
fn out_of_memory() {
    let Some(server) = Server::start() else {
        return;
    };
    let (node, watch) = node(&server);
    node.insert("old".to_owned(), 1).unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = node.insert("k".to_owned(), 1).unwrap_err();
    assert!(is(&error, ServerErrorKind::OutOfMemory), "{error}");
    assert!(error.to_string().contains("maxmemory"), "{error}");
    // A write that could not be made is still a write.
    node.insert("old".to_owned(), 2).unwrap_err();
    until("the older value is gone", || {
        server.cli(&["EXISTS", "larder:v::old"]) == "0"
    });
    loads_all_the_same(&node);
    until("it was counted", || {
        refused(&watch, ServerErrorKind::OutOfMemory) > 0
    });
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    recovers(&node);
}

#[test]
fn an_invalidation_that_was_refused_is_made_up_for() {
    let Some(server) = Server::start() else {
        return;
    };
    let (writer, watch) = node(&server);
    let (reader, _) = node(&server);
    reader
        .get_or_load_with("k", || Ok::<_, String>(larder::Loaded::new(1).tag("t")))
        .unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = writer.invalidate_tag("t").unwrap_err();
    assert!(
        is(&error, ServerErrorKind::OutOfMemory) || matches!(error, TierError::BreakerOpen),
        "{error}"
    );
    assert!(watch.stats().retries > 0);
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    until("the reader has heard of it", || {
        reader.get("k").unwrap().is_none()
    });
    until("nothing is owed", || watch.stats().retries == 0);
}

#[test]
fn read_only() {
    let Some(server) = Server::start() else {
        return;
    };
    let (node, watch) = node(&server);
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    // Before the heartbeat has seen it, or when the link is dialled again.
    until("it was refused", || {
        let _ = node.insert("k".to_owned(), 1);
        refused(&watch, ServerErrorKind::ReadOnly) > 0
    });
    until("the change of role was seen", || {
        flushed(&watch, FlushCause::ServerChange) > 0
    });
    until("a replica is no tier", || !node.is_connected());
    until("it says what to do", || {
        let text = watch.stats().last_error.unwrap();
        text.contains("point the URL at the primary")
    });
    loads_all_the_same(&node);
    assert!(node.is_empty());
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    recovers(&node);
}

#[test]
fn without_its_primary() {
    let Some(server) = Server::start() else {
        return;
    };
    let (node, watch) = node(&server);
    server.cli(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    until("it was counted", || {
        loads_all_the_same(&node);
        let _ = node.get("k");
        refused(&watch, ServerErrorKind::MasterDown) > 0
    });
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    recovers(&node);
    assert!(!watch.stats().breaker_open);
}

#[test]
fn a_replica_that_is_promoted() {
    let Some(server) = Server::start() else {
        return;
    };
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let link = server.link().build().unwrap();
    let watch = link.stats_handle();
    let node: Node = Tiered::builder(link).max_capacity(100).build().unwrap();
    until("it was refused", || {
        refused(&watch, ServerErrorKind::ReadOnly) > 0
    });
    loads_all_the_same(&node);
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    recovers(&node);
}

#[test]
fn a_password_is_missing_or_wrong_or_changed() {
    let Some(server) = Server::start() else {
        return;
    };
    let (node, watch) = node(&server);
    server.cli(&["CONFIG", "SET", "requirepass", "right"]);
    server.cli_as(&["-a", "right"], &["CLIENT", "KILL", "TYPE", "normal"]);
    until("NOAUTH was counted", || {
        refused(&watch, ServerErrorKind::NoAuth) > 0
    });
    until("it is down", || !node.is_connected());
    loads_all_the_same(&node);
    let text = watch.stats().last_error.unwrap();
    assert!(text.contains("password"), "{text}");
    for (password, kind) in [("wrong", Some(ServerErrorKind::WrongPass)), ("right", None)] {
        let url = format!("{}?pass={password}", server.url());
        let link = Redis::builder(&url)
            .backoff(Duration::from_millis(5), Duration::from_millis(100))
            .build()
            .unwrap();
        let watch = link.stats_handle();
        let node: Node = Tiered::builder(link).max_capacity(100).build().unwrap();
        match kind {
            Some(kind) => until("it was counted", || refused(&watch, kind) > 0),
            None => until("there is a link", || node.is_connected()),
        }
        loads_all_the_same(&node);
        let shown = format!("{:?} {:?}", watch.stats(), Redis::builder(&url));
        assert!(!shown.contains(password), "a password is shown: {shown}");
    }
    server.cli_as(&["-a", "right"], &["CONFIG", "SET", "requirepass", ""]);
    recovers(&node);
}

#[test]
fn a_user_who_may_not_do_it() {
    let Some(server) = Server::start() else {
        return;
    };
    server.cli(&[
        "ACL",
        "SETUSER",
        "shy",
        "on",
        ">secret",
        "~larder:*",
        "+@all",
        "-set",
    ]);
    let url = format!("{}?user=shy&pass=secret", server.url());
    let link = Redis::builder(&url).build().unwrap();
    let watch = link.stats_handle();
    let node: Node = Tiered::builder(link).max_capacity(100).build().unwrap();
    until("NOPERM was counted", || {
        let _ = node.insert("k".to_owned(), 1);
        refused(&watch, ServerErrorKind::NoPermission) > 0
    });
    loads_all_the_same(&node);
    server.cli(&["ACL", "SETUSER", "shy", "+set"]);
    recovers(&node);
}

#[test]
fn what_the_documents_say_a_user_needs_is_enough() {
    let Some(server) = Server::start() else {
        return;
    };
    let mut rule: Vec<&str> = vec!["ACL", "SETUSER", "lean", "on", ">secret", "~p:*"];
    rule.extend([
        "+hello",
        "+auth",
        "+select",
        "+client|tracking",
        "+role",
        "+get",
        "+mget",
        "+set",
        "+del",
        "+getrange",
        "+exists",
        "+incr",
        "+info",
        "+time",
        "+eval",
    ]);
    assert_eq!(server.cli(&rule), "OK");
    let url = format!("{}?user=lean&pass=secret&db=3", server.url());
    let link = Redis::builder(&url).prefix("p:").build().unwrap();
    let watch = link.stats_handle();
    let node = server.node(link);
    let tagged = || Ok::<_, String>(larder::Loaded::new(1).tag("t"));
    node.get_or_load_with("k", tagged).unwrap();
    assert!(node.add("l".to_owned(), 1).unwrap());
    node.get_many_or_load(["k", "l", "m"], |missing: &[String]| {
        Ok::<_, String>(vec![Some(1); missing.len()])
    })
    .unwrap();
    node.invalidate("l").unwrap();
    node.invalidate_tag("t").unwrap();
    node.clear().unwrap();
    assert!(
        watch
            .stats()
            .server_errors
            .iter()
            .all(|(_, count)| *count == 0)
    );
    assert_ne!(
        server.cli(&["-n", "3", "DBSIZE"]),
        "0",
        "in the database of the URL"
    );
    assert_eq!(server.cli(&["DBSIZE"]), "0");
}

#[test]
fn reading_its_data() {
    let Some(server) = Server::start() else {
        return;
    };
    let (node, watch) = node(&server);
    server.cli(&["DEBUG", "POPULATE", "3000"]);
    server.cli(&["CONFIG", "SET", "dbfilename", "dump.rdb"]);
    assert_eq!(server.cli(&["SAVE"]), "OK");
    assert!(server.directory().join("dump.rdb").exists());
    server.kill();
    // A millisecond a key, looking up now and then: LOADING for some three seconds.
    server.launch(&[
        "--key-load-delay",
        "1000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    until("LOADING was counted", || {
        loads_all_the_same(&node);
        refused(&watch, ServerErrorKind::Loading) > 0
    });
    recovers(&node);
}

#[test]
fn something_else_under_the_key() {
    let Some(server) = Server::start() else {
        return;
    };
    let (node, watch) = node(&server);
    server.cli(&["RPUSH", "larder:v::k", "1"]);
    assert!(is(&node.get("k").unwrap_err(), ServerErrorKind::WrongType));
    assert_eq!(node.get_or_load("k", || 7).unwrap(), 7);
    // It is nobody else's fault: the breaker stays closed.
    for _ in 0..20 {
        node.get("k").unwrap_err();
    }
    assert_eq!(watch.stats().breaker_openings, 0);
    node.invalidate("k").unwrap();
    assert_eq!(node.get_or_load("k", || 8).unwrap(), 8);
    assert_eq!(node.get("k").unwrap(), Some(8));
}

#[test]
fn nobody_is_there() {
    let Some(server) = Server::start() else {
        return;
    };
    server.kill();
    let link = server.link().build().unwrap();
    let watch = link.stats_handle();
    let node: Node = Tiered::builder(link).max_capacity(100).build().unwrap();
    assert!(matches!(node.get("k"), Err(TierError::Down)));
    assert!(matches!(
        node.insert("k".to_owned(), 1),
        Err(TierError::Down)
    ));
    loads_all_the_same(&node);
    assert!(
        node.is_empty(),
        "nothing is kept that nobody could invalidate"
    );
    until("dialled again, and again", || watch.stats().dials > 3);
    server.run(&[]);
    recovers(&node);
}

#[test]
fn kept_for_a_short_time_while_it_is_down_if_that_was_asked_for() {
    let Some(server) = Server::start() else {
        return;
    };
    let link = server.link().build().unwrap();
    let node: Node = Tiered::builder(link)
        .max_capacity(100)
        .serve_while_down(Duration::from_secs(3600))
        .build()
        .unwrap();
    until("there is a link", || node.is_connected());
    server.kill();
    until("it is down", || !node.is_connected());
    assert_eq!(node.get_or_load("k", || 1).unwrap(), 1);
    assert_eq!(node.get_or_load("k", || unreachable!()).unwrap(), 1);
    server.run(&[]);
    until("what was kept meanwhile is gone", || {
        node.get("k").is_ok_and(|found| found.is_none())
    });
}

#[test]
fn the_budget_bounds_a_call() {
    let Some(server) = Server::start() else {
        return;
    };
    let link = server
        .link()
        .timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let node: Node = Tiered::builder(link)
        .max_capacity(100)
        .budget(Duration::from_millis(300))
        .build()
        .unwrap();
    until("there is a link", || node.is_connected());
    // A loader that never ends, and a server that never answers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let began = now();
    let late = runtime.block_on(node.get_or_load_async("k", std::future::pending::<u64>));
    assert!(matches!(late, Err(larder::LoadError::LoadTimedOut { .. })));
    server.signal("STOP");
    for n in 0..5 {
        assert_eq!(node.get_or_load(&format!("k{n}"), || n).unwrap(), n);
    }
    server.signal("CONT");
    // Not a mark in time: whoever took this long was not bounded.
    assert!(now().saturating_duration_since(began) < Duration::from_secs(30));
    drop(runtime);
    // The link outlives the runtime of those who called.
    recovers(&node);
}
