//! What a review found in the protocol, each defect as the sentence that holds since. On the tier in memory, with calls
//! held back and futures polled by hand.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use larder::tier::{Codec, CodecError, Scope, ServerErrorKind, TierError, Tiered};
use larder::{EntryOptions, LoadError, Loaded, TryLoadError};

use crate::l1::{SECOND, Task, World, once, poll};
use crate::support::eventually;

#[test]
fn a_write_of_ones_own_spares_the_load_that_made_it_and_no_other() {
    let world = World::new();
    let there = world.node();
    let (here, reins) = world.held_node(|builder| builder);
    let tagged = EntryOptions::new().tag("t");
    there.insert_with("k".to_owned(), 1, tagged).unwrap();
    // It has read the older value, and waits for the version of its tag.
    reins.hold("versions");
    let mut read: Task<'_, _> = Box::pin(here.get_async("k"));
    assert!(poll(&mut read).is_none());
    reins.hear(false);
    assert!(there.invalidate("k").unwrap());
    assert!(here.add("k".to_owned(), 2).unwrap());
    reins.hear(true);
    reins.let_go("versions");
    assert_eq!(
        poll(&mut read).unwrap().unwrap(),
        Some(1),
        "it began before"
    );
    assert_eq!(here.get("k").unwrap(), Some(2));
    // The load that made a write keeps what it has written.
    assert_eq!(here.get_or_load("l", || 1).unwrap(), 1);
    reins.asked();
    assert_eq!(here.get("l").unwrap(), Some(1));
    assert!(reins.asked().is_empty());
}

#[test]
fn an_unchanged_value_is_renewed_in_both_tiers_and_for_the_usual_time() {
    let world = World::new();
    let there = world.node();
    let (here, reins) =
        world.held_node(|builder| builder.stale_while_revalidate(SECOND * 1_000_000));
    let unchanged = || Ok::<_, String>(Loaded::unchanged());
    here.get_or_load("k", || 1).unwrap();
    world.time.advance(SECOND * 110);
    assert_eq!(here.get_or_load_with("k", unchanged).unwrap(), Some(1));
    world.time.advance(SECOND * 9);
    reins.asked();
    assert_eq!(here.get_or_load("k", || unreachable!()).unwrap(), 1);
    assert!(reins.asked().is_empty(), "renewed in the own cache");
    world.time.advance(SECOND * 90);
    assert_eq!(there.get("k").unwrap(), Some(1), "and in the shared tier");
    assert!(world.stands("k"));
    world.time.advance(SECOND);
    assert_eq!(there.get("k").unwrap(), None, "for a hundred seconds");
    assert!(!world.stands("k"));
    // Where only the L1 remembers what it was.
    assert_eq!(here.get_or_load_with("k", unchanged).unwrap(), Some(1));
    assert_eq!(there.get("k").unwrap(), Some(1));
    world.time.advance(SECOND * 100);
    assert!(!world.stands("k"));
    assert_eq!(here.get_or_load("k", || 2).unwrap(), 2);
    // An attached loader can say so, too.
    let attached = world
        .builder()
        .stale_while_revalidate(SECOND)
        .loader(|_: &String| Ok::<_, String>(Loaded::unchanged()))
        .build()
        .unwrap();
    assert!(matches!(attached.load("n"), Err(LoadError::NoPrevious)));
}

#[test]
fn unchanged_without_a_previous_value_is_an_error_and_nothing_is_kept() {
    let world = World::new();
    let node = world.node();
    let unchanged = || Ok::<_, String>(Loaded::unchanged());
    for _ in 0..2 {
        let error = node.get_or_load_with("k", unchanged).unwrap_err();
        let expected = matches!(error, TryLoadError::Shared(LoadError::NoPrevious));
        assert!(expected, "{error}");
        assert!(!world.stands("k"));
    }
    // Past its date without a window it is no previous value either.
    let short = || Ok::<_, String>(Loaded::new(1).time_to_live(SECOND * 5));
    node.get_or_load_with("k", short).unwrap();
    world.time.advance(SECOND * 6);
    let _ = node.get_or_load_with("k", unchanged);
    world.time.advance(SECOND * 1_000);
    assert_eq!(node.get("k").unwrap(), None);
    assert_eq!(node.get_or_load("k", || 2).unwrap(), 2);
}

#[test]
fn a_call_with_a_loader_is_not_answered_by_one_without() {
    let world = World::new();
    let (node, reins) = world.held_node(|builder| builder);
    let load = |missing: Vec<String>| async move { Ok::<_, String>(vec![Some(2); missing.len()]) };
    reins.hold("get_many");
    let mut reads: Vec<Task<'_, _>> = Vec::new();
    for key in ["k", "l", "m"] {
        let mut read: Task<'_, _> = Box::pin(node.get_async(key));
        assert!(poll(&mut read).is_none());
        reads.push(read);
    }
    // These wait for the reads.
    let mut one: Task<'_, _> = Box::pin(node.get_or_load_async("k", || async { 1 }));
    let mut many: Task<'_, _> = Box::pin(node.get_many_or_load_async(["l", "m"], load));
    assert!(poll(&mut one).is_none() && poll(&mut many).is_none());
    reins.let_go("get_many");
    for read in &mut reads {
        assert_eq!(poll(read).unwrap().unwrap(), None);
    }
    assert_eq!(poll(&mut one).unwrap().unwrap(), 1);
    assert_eq!(poll(&mut many).unwrap().unwrap(), [Some(2), Some(2)]);
}

#[test]
fn calls_without_a_loader_cannot_keep_one_with_a_loader_waiting() {
    let world = World::new();
    let (node, reins) = world.held_node(|builder| builder);
    let mut read: Task<'_, _> = Box::pin(node.get_async("k"));
    reins.hold("get_many");
    assert!(poll(&mut read).is_none());
    let mut load: Task<'_, _> = Box::pin(node.get_or_load_async("k", || async { 1 }));
    assert!(poll(&mut load).is_none());
    // In each turn another read is there before it.
    let mut turns = 0;
    let loaded = loop {
        reins.let_go("get_many");
        assert_eq!(poll(&mut read).unwrap().unwrap(), None);
        reins.hold("get_many");
        read = Box::pin(node.get_async("k"));
        assert!(poll(&mut read).is_none());
        if let Some(loaded) = poll(&mut load) {
            break loaded;
        }
        turns += 1;
        assert!(turns < 3);
        reins.let_go("get_many");
        if let Some(loaded) = poll(&mut load) {
            break loaded;
        }
    };
    assert_eq!(loaded.unwrap(), 1);
}

#[test]
fn a_remembered_absence_is_not_asked_for_again() {
    let world = World::new();
    let (node, reins) = world.held_node(|builder| builder);
    let absent = || Ok::<_, String>(Loaded::absent());
    assert_eq!(node.get_or_load_with("k", absent).unwrap(), None);
    reins.asked();
    for _ in 0..20 {
        assert_eq!(node.get("k").unwrap(), None);
        let loaded = node.get_or_load("k", || unreachable!());
        assert!(matches!(loaded, Err(LoadError::Absent)));
        let load = || -> Result<Loaded<u64>, String> { unreachable!() };
        assert_eq!(node.get_or_load_with("k", load).unwrap(), None);
        let load = |_: &[String]| -> Result<Vec<Option<u64>>, String> { unreachable!() };
        assert_eq!(node.get_many_or_load(["k"], load).unwrap(), [None]);
    }
    assert!(reins.asked().is_empty());
    // Another process asks once.
    let (other, reins) = world.held_node(|builder| builder);
    for _ in 0..20 {
        let loaded = other.get_or_load("k", || unreachable!());
        assert!(matches!(loaded, Err(LoadError::Absent)));
    }
    assert_eq!(
        reins.asked().into_iter().collect::<Vec<_>>(),
        [("get_many", 1)]
    );
}

/// Eight bytes, the first one first or last; without bytes for 13.
pub(crate) struct Bytes(pub(crate) u8);

impl Codec<u64> for Bytes {
    fn id(&self) -> u8 {
        self.0
    }
    fn encode(&self, value: &u64, into: &mut Vec<u8>) -> Result<(), CodecError> {
        if *value == 13 {
            return Err(CodecError::new("no bytes for 13"));
        }
        into.extend(value.to_be_bytes());
        Ok(())
    }
    fn decode(&self, bytes: &[u8]) -> Result<u64, CodecError> {
        Ok(u64::from_be_bytes(
            bytes.try_into().map_err(CodecError::new)?,
        ))
    }
}

#[test]
fn add_counts_as_absent_what_get_does() {
    let world = World::new();
    let old = world.node();
    let newer = world.builder().schema(1).build().unwrap();
    let other = world.builder().build_with(Bytes(200)).unwrap();
    for (node, key) in [(&newer, "schema"), (&other, "codec")] {
        old.insert(key.to_owned(), 1).unwrap();
        assert_eq!(node.get(key).unwrap(), None, "{key}");
        assert!(node.add(key.to_owned(), 2).unwrap(), "{key}");
        assert!(!node.add(key.to_owned(), 3).unwrap(), "{key}");
        assert_eq!(node.get(key).unwrap(), Some(2), "{key}");
    }
    // The entry that says that there is no value.
    let absent = || Ok::<_, String>(Loaded::absent());
    assert_eq!(old.get_or_load_with("absent", absent).unwrap(), None);
    assert!(old.add("absent".to_owned(), 2).unwrap());
    assert!(!old.add("absent".to_owned(), 3).unwrap());
    assert_eq!(old.get("absent").unwrap(), Some(2));
}

#[test]
fn nothing_is_kept_because_a_tier_that_is_there_refused() {
    let world = World::new();
    let (node, reins) = world.held_node(|builder| builder.serve_while_down(SECOND * 5));
    let refused = TierError::Refused {
        kind: ServerErrorKind::OutOfMemory,
        message: "OOM".into(),
    };
    let loads = AtomicU64::new(0);
    let load = || loads.fetch_add(1, Relaxed);
    for error in [refused, TierError::BreakerOpen] {
        for call in ["put", "get_many", "add"] {
            reins.refuse(call, error.clone());
            let before = loads.load(Relaxed);
            for n in 0..3 {
                assert_eq!(node.get_or_load(call, load).unwrap(), before + n);
                let many =
                    node.get_many_or_load([call], |_: &[String]| Ok::<_, String>(vec![Some(7)]));
                assert_eq!(many.unwrap(), [Some(7)]);
            }
            reins.refuse_nothing();
            assert!(!world.stands(call), "{call}");
        }
    }
    // While it is down, it is kept.
    reins.refuse("get_many", TierError::Down);
    let kept = node.get_or_load("k", load).unwrap();
    assert_eq!(node.get_or_load("k", load).unwrap(), kept);
}

#[test]
fn an_insertion_that_races_with_a_load_stands_when_it_returns() {
    let world = World::new();
    let there = world.node();
    let (here, reins) = world.held_node(|builder| builder);
    reins.hold("put");
    let mut insert: Task<'_, _> = Box::pin(here.insert_async("k".to_owned(), 1));
    assert!(poll(&mut insert).is_none());
    // A load finds its placeholder, and stores over that.
    assert_eq!(there.get_or_load("k", || 7).unwrap(), 7);
    assert_eq!(there.get("k").unwrap(), Some(7));
    reins.let_go("put");
    poll(&mut insert).unwrap().unwrap();
    let asked = reins.asked();
    assert_eq!((asked["seize"], asked["put"]), (2, 2));
    for node in [&here, &there, &world.node()] {
        assert_eq!(node.get("k").unwrap(), Some(1));
    }
}

#[test]
fn who_waits_for_others_is_woken_by_what_its_own_process_writes() {
    let world = World::new();
    let patient =
        |builder: larder::tier::TieredBuilder<String, u64>| builder.wait_for_others(SECOND * 1_000);
    let (node, _) = world.held_node(patient);
    let turn = AtomicBool::new(false);
    let mut load: Task<'_, _> = Box::pin(node.get_or_load_async("k", || once(&turn, 1)));
    assert!(poll(&mut load).is_none());
    // No call that joins it, then: one that finds its placeholder.
    node.with_scope(Scope::Local).invalidate("k").unwrap();
    let mut waits: Task<'_, _> = Box::pin(node.get_or_load_async("k", || async { unreachable!() }));
    assert!(poll(&mut waits).is_none());
    turn.store(true, Relaxed);
    assert_eq!(poll(&mut load).unwrap().unwrap(), 1);
    assert_eq!(poll(&mut waits).unwrap().unwrap(), 1, "by the other's load");
    // By an `add` over the placeholder of another process.
    let there = world.node();
    let mut load: Task<'_, _> = Box::pin(there.get_or_load_async("l", std::future::pending));
    assert!(poll(&mut load).is_none());
    let mut waits: Task<'_, _> = Box::pin(node.get_or_load_async("l", || async { unreachable!() }));
    assert!(poll(&mut waits).is_none());
    assert!(node.add("l".to_owned(), 2).unwrap());
    assert_eq!(poll(&mut waits).unwrap().unwrap(), 2, "by the addition");
    assert_eq!(node.tiered_stats().waits, 2);
}

#[test]
fn many_keys_cost_each_the_same() {
    let world = World::new();
    let (held, reins) = world.held();
    let node: Tiered<u64, u64> = Tiered::builder(held).max_capacity(100_000).build().unwrap();
    let load = |missing: &[u64]| Ok::<_, String>(missing.iter().map(|key| Some(*key)).collect());
    node.get_many_or_load(&[u64::MAX], load).unwrap();
    reins.asked();
    // So many that it is not done in time if each costs as much as all of them.
    let count = if cfg!(debug_assertions) {
        5_000
    } else {
        20_000
    };
    let keys: Vec<u64> = (0..count).collect();
    let loading = {
        let (node, keys) = (node.clone(), keys.clone());
        std::thread::spawn(move || node.get_many_or_load(&keys, load).unwrap())
    };
    eventually("all are loaded", || loading.is_finished());
    let loaded = loading.join().unwrap();
    let right = |(value, key): (&Option<u64>, &u64)| *value == Some(*key);
    assert!(loaded.iter().zip(&keys).all(right));
    let asked: Vec<_> = reins.asked().into_iter().collect();
    assert_eq!(asked, [("add", count), ("get_many", 1), ("put", count)]);
    node.get_many_or_load(&keys, load).unwrap();
    assert!(reins.asked().is_empty());
}

#[test]
fn an_unchanged_absence_is_renewed_in_both_tiers() {
    let world = World::new();
    let there = world.node();
    let (here, _) = world.held_node(|builder| builder.stale_while_revalidate(SECOND * 1_000_000));
    let absent = || Ok::<_, String>(Loaded::absent());
    assert_eq!(here.get_or_load_with("k", absent).unwrap(), None);
    world.time.advance(SECOND * 110);
    let unchanged = || Ok::<_, String>(Loaded::unchanged());
    assert_eq!(here.get_or_load_with("k", unchanged).unwrap(), None);
    for node in [&here, &there] {
        let load = || -> Result<Loaded<u64>, String> { unreachable!() };
        assert_eq!(node.get_or_load_with("k", load).unwrap(), None);
    }
}

#[test]
fn what_is_unchanged_keeps_its_tags() {
    let world = World::new();
    let there = world.node();
    let (here, _) = world.held_node(|builder| builder.stale_while_revalidate(SECOND * 1_000_000));
    let tagged = || Ok::<_, String>(Loaded::new(1).tag("t"));
    here.get_or_load_with("k", tagged).unwrap();
    // The first value of a new tag is not kept here at once.
    assert_eq!(here.get("k").unwrap(), Some(1));
    world.time.advance(SECOND * 110);
    let unchanged = || Ok::<_, String>(Loaded::unchanged());
    assert_eq!(here.get_or_load_with("k", unchanged).unwrap(), Some(1));
    assert_eq!(there.get("k").unwrap(), Some(1));
    here.invalidate_tag("t").unwrap();
    assert_eq!(here.get("k").unwrap(), None);
    assert_eq!(there.get("k").unwrap(), None);
}

#[test]
fn many_keys_are_looked_up_alone_if_another_calls_loader_fails() {
    let world = World::new();
    let (node, reins) = world.held_node(|builder| builder);
    reins.hold("add");
    let fails = || async { Err::<u64, _>("no".to_owned()) };
    let mut load: Task<'_, _> = Box::pin(node.try_get_or_load_async("k", fails));
    assert!(poll(&mut load).is_none());
    let mut many: Task<'_, _> = Box::pin(node.get_many_async(["k"]));
    assert!(poll(&mut many).is_none(), "it waits for the load");
    reins.let_go("add");
    let ready = |task: &mut dyn FnMut() -> bool| (0..100).any(|_| task());
    let mut found = None;
    assert!(ready(
        &mut || poll(&mut load).is_some_and(|loaded| loaded.is_err())
    ));
    assert!(ready(&mut || {
        found = poll(&mut many);
        found.is_some()
    }));
    assert_eq!(found.unwrap().unwrap(), [None]);
}

#[test]
fn an_entry_may_have_all_its_tags_in_a_namespace_too() {
    let world = World::new();
    let node = world.node().namespace("space");
    let tags = (0..EntryOptions::MAX_TAGS).map(|n| format!("t{n}"));
    let tagged = EntryOptions::new().tags(tags);
    node.insert_with("k".to_owned(), 1, tagged).unwrap();
    assert_eq!(node.get("k").unwrap(), Some(1));
}

#[test]
fn new_tags_do_not_keep_each_others_loads_out() {
    let world = World::new();
    let (here, there) = (world.node(), world.node());
    for n in 0..20 {
        let tagged = |tag: String| Ok::<_, String>(Loaded::new(n).tag(tag));
        here.get_or_load_with(&format!("a{n}"), || {
            // Meanwhile somebody loads with another new tag.
            there
                .get_or_load_with(&format!("b{n}"), || tagged(format!("b{n}")))
                .unwrap();
            tagged(format!("a{n}"))
        })
        .unwrap();
        assert_eq!(there.get(&format!("a{n}")).unwrap(), Some(n));
        assert_eq!(here.get(&format!("b{n}")).unwrap(), Some(n));
    }
}
