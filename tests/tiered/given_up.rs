//! What is left of calls that are given up, that fail, or that take too long: nothing. Each test is a sentence that a
//! review found untrue.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use larder::tier::{MemoryServer, TierError, Tiered};
use larder::{LoadError, Loaded, TryLoadError};
use parking_lot::Mutex;

use crate::found::Bytes;
use crate::l1::{Node, SECOND, Task, World, poll};
use crate::support::eventually;

type Many = Result<Vec<Option<u64>>, String>;

#[test]
fn a_load_that_is_given_up_takes_its_placeholder_away() {
    let world = World::new();
    let node = world.node();
    let mut load: Task<'_, _> = Box::pin(node.get_or_load_async("k", pending));
    let mut many: Task<'_, _> =
        Box::pin(node.get_many_or_load_async(["l", "m"], |_| pending::<Many>()));
    assert!(poll(&mut load).is_none() && poll(&mut many).is_none());
    assert!(["k", "l", "m"].iter().all(|key| world.stands(key)));
    drop(load);
    assert!(!world.stands("k"));
    drop(many);
    assert!(!world.stands("l") && !world.stands("m"));
    // So does one whose budget is used up.
    let hasty = world.builder().budget(SECOND).build().unwrap();
    let mut load: Task<'_, _> = Box::pin(hasty.get_or_load_async("k", pending));
    assert!(poll(&mut load).is_none() && world.stands("k"));
    world.time.advance(SECOND);
    assert!(poll(&mut load).unwrap().is_err());
    assert!(!world.stands("k"));
}

#[test]
fn a_loader_that_panics_or_fails_leaves_no_placeholder() {
    let world = World::new();
    let node = world.node();
    let panics = |work: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
    panics(&|| drop(node.get_or_load("k", || panic!("of the loader"))));
    panics(&|| {
        let load = |_: &[String]| -> Many { panic!("of the loader") };
        drop(node.get_many_or_load(["l", "m"], load));
    });
    node.try_get_or_load("n", || "x".parse::<u64>())
        .unwrap_err();
    let fails = |_: &[String]| -> Many { Err("no".to_owned()) };
    node.get_many_or_load(["o", "p"], fails).unwrap_err();
    let too_few = |_: &[String]| -> Many { Ok(vec![Some(1)]) };
    node.get_many_or_load(["q", "r"], too_few).unwrap_err();
    let nothing = |_: &[String]| -> Many { Ok(vec![None, Some(1)]) };
    node.get_many_or_load(["s", "stored"], nothing).unwrap();
    for key in ["k", "l", "m", "n", "o", "p", "q", "r", "s"] {
        assert!(!world.stands(key), "{key}");
    }
    assert!(world.stands("stored"));
}

#[test]
fn a_change_that_fails_or_is_given_up_leaves_no_placeholder() {
    let world = World::new();
    // There are no bytes for 13.
    let node = world.builder().build_with(Bytes(200)).unwrap();
    assert_eq!(node.get_or_load("k", || 13).unwrap(), 13);
    for _ in 0..2 {
        let error = node.insert("k".to_owned(), 13).unwrap_err();
        assert!(matches!(error, TierError::Unencodable(_)), "{error}");
        assert!(!world.stands("k"));
        let error = node.add("k".to_owned(), 13).unwrap_err();
        assert!(matches!(error, TierError::Unencodable(_)), "{error}");
        assert!(!world.stands("k"));
    }
    let (node, reins) = world.held_node(|builder| builder);
    reins.hold("put");
    let mut add: Task<'_, _> = Box::pin(node.add_async("k".to_owned(), 1));
    assert!(poll(&mut add).is_none() && world.stands("k"));
    drop(add);
    assert!(!world.stands("k"));
}

/// How many threads of this process sleep for somebody.
#[cfg(target_os = "linux")]
fn sleepers() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |thread: std::io::Result<std::fs::DirEntry>| {
        // A thread that has ended meanwhile has none.
        std::fs::read_to_string(thread.ok()?.path().join("comm")).ok()
    };
    let names = threads.filter_map(name);
    names.filter(|name| name.trim() == "larder-sleep").count()
}

#[cfg(target_os = "linux")]
#[test]
fn a_sleep_that_is_given_up_leaves_no_thread() {
    let hour = SECOND * 3_600;
    let tier = MemoryServer::new().tier();
    let node: Node = Tiered::builder(tier)
        .max_capacity(1_000)
        .budget(hour)
        .build()
        .unwrap();
    let mut loads: Vec<Task<'_, _>> = Vec::new();
    for n in 0..50 {
        let mut load: Task<'_, _> = Box::pin({
            let node = node.clone();
            async move { node.get_or_load_async(&format!("k{n}"), pending).await }
        });
        assert!(poll(&mut load).is_none());
        loads.push(load);
    }
    eventually("fifty threads sleep", || sleepers() >= 50);
    drop(loads);
    eventually("no thread sleeps for those any more", || sleepers() < 50);
    // Nor for the other tests' calls, once they have ended.
    eventually("no thread sleeps at all", || sleepers() == 0);
}

/// A process whose attached loader says when it begins, and ends when `open` is dropped.
fn with_a_slow_loader(world: &World) -> (Node, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (begin, begun) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let loader = move |_: &String| {
        let _ = begin.send(());
        let _ = gate.lock().recv();
        Ok::<_, String>(Loaded::new(1))
    };
    let builder = world.builder().budget(SECOND).loader(loader);
    (builder.build().unwrap(), begun, open)
}

#[test]
fn the_budget_bounds_who_waits_for_an_attached_loader() {
    for space in [None, Some("red")] {
        let world = World::new();
        let (node, begun, open) = with_a_slow_loader(&world);
        let node = space.map_or(node.clone(), |space| node.namespace(space));
        let load = || {
            let node = node.clone();
            thread::spawn(move || node.load("k"))
        };
        let leads = load();
        begun.recv().unwrap();
        let (before, waits) = (node.stats().joined(), load());
        eventually("it waits for the other", || node.stats().joined() > before);
        // Its wait may begin a little later than that. No other bound is reached: those are of thirty seconds.
        let mut advanced = Duration::ZERO;
        eventually("the budget has ended the wait", || {
            if advanced < SECOND * 25 {
                advanced += SECOND / 200;
                world.time.advance(SECOND / 200);
            }
            waits.is_finished()
        });
        let late = waits.join().unwrap();
        assert!(
            matches!(late, Err(LoadError::LoadTimedOut { after }) if after == SECOND),
            "{space:?}: {late:?}"
        );
        drop(open);
        let _ = leads.join().unwrap();
        eventually("the loader has ended", || {
            node.get("k").is_ok_and(|found| found == Some(1))
        });
    }
}

#[test]
fn the_budget_bounds_all_turns_of_a_call_together() {
    let world = World::new();
    let (node, reins) = world.held_node(|builder| builder.budget(SECOND * 10));
    reins.hold("get_many");
    let mut other: Task<'_, _> = Box::pin(node.get_async("k"));
    let mut read: Task<'_, _> = Box::pin(node.get_async("k"));
    let mut load: Task<'_, _> = Box::pin(node.get_or_load_async("k", || async { 1 }));
    let answer = |_| async { Many::Ok(vec![Some(1)]) };
    let mut many: Task<'_, _> = Box::pin(node.get_many_or_load_async(["k"], answer));
    assert!(poll(&mut other).is_none() && poll(&mut read).is_none());
    assert!(poll(&mut load).is_none() && poll(&mut many).is_none());
    world.time.advance(SECOND * 6);
    // The first turn ends, with an answer that the loading calls cannot take: each begins a second.
    reins.let_go("get_many");
    assert_eq!(poll(&mut other).unwrap().unwrap(), None);
    reins.hold("get_many");
    assert_eq!(poll(&mut read).unwrap().unwrap(), None);
    assert!(poll(&mut load).is_none() && poll(&mut many).is_none());
    world.time.advance(SECOND * 4);
    let (load, many) = (poll(&mut load).unwrap(), poll(&mut many).unwrap());
    let ten = SECOND * 10;
    assert!(matches!(load, Err(LoadError::LoadTimedOut { after }) if after == ten));
    let late = |error: &TryLoadError<String>| matches!(error, TryLoadError::Shared(LoadError::LoadTimedOut { after }) if *after == ten);
    assert!(many.is_err_and(|error| late(&error)));
    // A read that waits for the tier.
    let mut read: Task<'_, _> = Box::pin(node.get_async("l"));
    assert!(poll(&mut read).is_none());
    world.time.advance(SECOND * 9);
    assert!(poll(&mut read).is_none());
    world.time.advance(SECOND);
    let late = poll(&mut read).unwrap();
    assert!(matches!(late, Err(TierError::NotWaited { .. })), "{late:?}");
}

#[test]
fn an_insertion_that_is_given_up_leaves_no_placeholder() {
    let world = World::new();
    let (node, reins) = world.held_node(|builder| builder);
    reins.hold("put");
    let mut insert: Task<'_, _> = Box::pin(node.insert_async("k".to_owned(), 1));
    assert!(poll(&mut insert).is_none() && world.stands("k"));
    drop(insert);
    assert!(!world.stands("k"));
}
