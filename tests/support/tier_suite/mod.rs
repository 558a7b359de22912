//! The promises that hold on any tier: each a function over a `World`, which makes the tiers of several processes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use larder::tier::{Scope, Tier, Tiered, TieredBuilder};
use larder::{EntryOptions, LoadError, Loaded, TryLoadError};

mod namespaces;
pub(crate) use namespaces::{
    a_tag_reaches_into_namespaces, clear_of_a_namespace_clears_it_everywhere_and_nothing_else,
    clear_of_the_root_clears_every_namespace, keys_of_different_namespaces_are_apart,
    nothing_is_stored_that_was_loaded_before_its_namespace_was_cleared, views_do_not_nest,
};

/// A server that several processes share.
pub(crate) trait World: Sized {
    type Tier: Tier;
    /// Whether one can be made here.
    fn exists() -> bool {
        true
    }
    fn new() -> Self;
    /// Another process's way to it.
    fn tier(&self) -> Self::Tier;
    /// Waits until something is so, which has to become so by messages that are under way.
    fn until(&self, heard: impl Fn() -> bool);

    fn builder(&self) -> TieredBuilder<String, u64> {
        Tiered::builder(self.tier()).max_capacity(1_000)
    }

    fn node(&self) -> Tiered<String, u64> {
        let node = self.builder().build().unwrap();
        while !node.is_connected() {
            std::thread::yield_now();
        }
        // The first value ever, so that what every value is valid for has a version.
        node.get_or_load("warm", || 0).unwrap();
        node
    }
}

/// The tests of the suite, for one kind of world.
macro_rules! suite {
    ($world:ty) => {
        $crate::suite::suite!($world:
            one_loads_and_the_other_reads
            an_invalidation_reaches_every_process
            nothing_is_stored_that_was_loaded_before_an_invalidation
            nothing_is_stored_that_was_loaded_before_an_insertion
            a_tag_that_moves_while_a_value_is_loaded_keeps_it_out
            a_tag_kills_what_bears_it_everywhere_and_nothing_else
            clear_is_for_everybody
            an_absence_is_added_to_once
            a_failing_loader_leaves_the_way_free
            an_absence_is_remembered_everywhere
            a_call_without_a_loader_does_not_speak_for_one_that_has_one
            many_keys_are_one_question_and_one_load
            a_scope_bounds_a_change
            what_cannot_be_read_is_loaded_again
            who_waits_for_others_does_not_load
            futures_can_be_sent
            keys_of_different_namespaces_are_apart
            clear_of_a_namespace_clears_it_everywhere_and_nothing_else
            clear_of_the_root_clears_every_namespace
            a_tag_reaches_into_namespaces
            nothing_is_stored_that_was_loaded_before_its_namespace_was_cleared
            views_do_not_nest
        );
    };
    ($world:ty: $($test:ident)*) => {$(
        #[test]
        fn $test() {
            if <$world as $crate::suite::World>::exists() {
                $crate::suite::$test::<$world>();
            }
        }
    )*};
}
pub(crate) use suite;

fn tagged(value: u64, tag: &str) -> Result<Loaded<u64>, String> {
    Ok(Loaded::new(value).tag(tag))
}

pub(crate) fn one_loads_and_the_other_reads<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    assert_eq!(here.get_or_load("k", || 1).unwrap(), 1);
    assert_eq!(there.get_or_load("k", || unreachable!()).unwrap(), 1);
    // A tier may announce what one has read already, and so take a copy away in vain; but not for ever.
    world.until(|| {
        let asked = (here.tiered_stats(), there.tiered_stats());
        for node in [&here, &there] {
            assert_eq!(node.get("k").unwrap(), Some(1));
            assert_eq!(node.get_or_load("k", || unreachable!()).unwrap(), 1);
        }
        // A copy of one's own is not asked for.
        asked == (here.tiered_stats(), there.tiered_stats())
    });
    assert_eq!(here.get("nothing").unwrap(), None);
}

pub(crate) fn an_invalidation_reaches_every_process<W: World>() {
    let world = W::new();
    let nodes = [world.node(), world.node(), world.node()];
    for round in 0..20 {
        let loads = AtomicU64::new(0);
        for node in &nodes {
            let load = || loads.fetch_add(1, Relaxed) + round * 10;
            assert_eq!(node.get_or_load("k", load).unwrap(), round * 10);
        }
        assert_eq!(loads.into_inner(), 1);
        let writer = &nodes[round as usize % 3];
        assert!(writer.invalidate("k").unwrap());
        // Of its own change a process has heard when the call returns.
        assert_eq!(writer.get("k").unwrap(), None);
        world.until(|| nodes.iter().all(|node| node.get("k").unwrap().is_none()));
        assert!(!writer.invalidate("k").unwrap());
    }
}

pub(crate) fn nothing_is_stored_that_was_loaded_before_an_invalidation<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    for writer in [&here, &there] {
        let loaded = here.get_or_load("k", || {
            writer.invalidate("k").unwrap();
            1
        });
        assert_eq!(loaded.unwrap(), 1, "who waited gets it");
        assert_eq!(here.get("k").unwrap(), None);
        assert_eq!(there.get("k").unwrap(), None);
    }
    assert!(here.tiered_stats().refused_publishes >= 2);
    assert_eq!(here.get_or_load("k", || 2).unwrap(), 2);
    assert_eq!(there.get("k").unwrap(), Some(2));
}

pub(crate) fn nothing_is_stored_that_was_loaded_before_an_insertion<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    for writer in [&here, &there] {
        here.invalidate("k").unwrap();
        here.get_or_load("k", || {
            writer.insert("k".to_owned(), 2).unwrap();
            1
        })
        .unwrap();
        for node in [&here, &there] {
            world.until(|| node.get("k").unwrap() == Some(2));
        }
    }
}

pub(crate) fn a_tag_that_moves_while_a_value_is_loaded_keeps_it_out<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    // Known before, and never heard of.
    here.get_or_load_with("other", || tagged(0, "known"))
        .unwrap();
    for (key, tag) in [("a", "known"), ("b", "new")] {
        let loaded = here.get_or_load_with(key, || {
            there.invalidate_tag(tag).unwrap();
            tagged(1, tag)
        });
        assert_eq!(loaded.unwrap(), Some(1));
        assert_eq!(here.get(key).unwrap(), None, "{tag}");
        assert_eq!(there.get(key).unwrap(), None, "{tag}");
    }
}

pub(crate) fn a_tag_kills_what_bears_it_everywhere_and_nothing_else<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    for (key, tag) in [("a", "red"), ("b", "red"), ("c", "blue")] {
        here.get_or_load_with(key, || tagged(1, tag)).unwrap();
    }
    let all = |node: &Tiered<String, u64>| ["a", "b", "c"].map(|key| node.get(key).unwrap());
    assert_eq!(all(&there), [Some(1); 3]);
    assert_eq!(all(&here), [Some(1); 3]);
    here.invalidate_tag("red").unwrap();
    assert_eq!(all(&here), [None, None, Some(1)]);
    world.until(|| all(&there) == [None, None, Some(1)]);
    here.insert_with("a".to_owned(), 2, EntryOptions::new().tag("red"))
        .unwrap();
    world.until(|| all(&there) == [Some(2), None, Some(1)]);
    there.invalidate_tag("red").unwrap();
    world.until(|| all(&here) == [None, None, Some(1)]);
}

pub(crate) fn clear_is_for_everybody<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    for node in [&here, &there] {
        assert_eq!(node.get_or_load("k", || 1).unwrap(), 1);
    }
    there.clear().unwrap();
    assert_eq!(there.get("k").unwrap(), None);
    world.until(|| here.get("k").unwrap().is_none());
    assert_eq!(here.get_or_load("k", || 2).unwrap(), 2);
    assert_eq!(there.get("k").unwrap(), Some(2));
}

pub(crate) fn an_absence_is_added_to_once<W: World>() {
    let world = W::new();
    let nodes = [world.node(), world.node()];
    for round in 0..20 {
        let key = format!("k{round}");
        let added: u64 = std::thread::scope(|threads| {
            let add = |node: &Tiered<String, u64>| node.add(key.clone(), 1).unwrap();
            let adding: Vec<_> = nodes
                .iter()
                .cycle()
                .take(4)
                .map(|node| threads.spawn(move || u64::from(add(node))))
                .collect();
            adding.into_iter().map(|add| add.join().unwrap()).sum()
        });
        assert_eq!(added, 1);
    }
    // What was invalidated, and what is being loaded, is absent.
    nodes[0].invalidate("k0").unwrap();
    assert!(nodes[1].add("k0".to_owned(), 2).unwrap());
    nodes[0].clear().unwrap();
    assert!(nodes[1].add("k1".to_owned(), 2).unwrap());
    nodes[0]
        .get_or_load("loading", || {
            assert!(nodes[1].add("loading".to_owned(), 2).unwrap());
            1
        })
        .unwrap();
    world.until(|| nodes[0].get("loading").unwrap() == Some(2));
}

pub(crate) fn a_failing_loader_leaves_the_way_free<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    let failed = here.try_get_or_load("k", || "x".parse::<u64>());
    assert!(matches!(failed, Err(TryLoadError::Own(_))));
    // Nobody has to wait for the placeholder to expire.
    assert_eq!(there.get_or_load("k", || 1).unwrap(), 1);
    assert_eq!(there.get("k").unwrap(), Some(1));
    assert_eq!(here.get("k").unwrap(), Some(1));
}

pub(crate) fn an_absence_is_remembered_everywhere<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    let absent = || Ok::<_, String>(Loaded::absent());
    assert_eq!(here.get_or_load_with("k", absent).unwrap(), None);
    for node in [&here, &there] {
        let load = || -> Result<Loaded<u64>, String> { unreachable!() };
        assert_eq!(node.get_or_load_with("k", load).unwrap(), None);
        let asked = node.get_or_load("k", || unreachable!());
        assert!(matches!(asked, Err(LoadError::Absent)));
        assert_eq!(node.get("k").unwrap(), None);
    }
    there.insert("k".to_owned(), 1).unwrap();
    world.until(|| here.get("k").unwrap() == Some(1));
}

pub(crate) fn a_call_without_a_loader_does_not_speak_for_one_that_has_one<W: World>() {
    let world = W::new();
    let node = world.node();
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                for n in 0..300 {
                    let _ = node.get(&format!("k{n}")).unwrap();
                }
            });
        }
        for n in 0..300 {
            assert_eq!(node.get_or_load(&format!("k{n}"), || n).unwrap(), n);
        }
    });
}

pub(crate) fn many_keys_are_one_question_and_one_load<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    there.insert("b".to_owned(), 2).unwrap();
    here.get_or_load("a", || 1).unwrap();
    let keys = || ["a", "b", "c", "d", "e"];
    let found = here.get_many_or_load(keys(), |missing: &[String]| {
        assert_eq!(missing, ["c", "d", "e"]);
        Ok::<_, String>(vec![Some(3), Some(4), None])
    });
    let all = [Some(1), Some(2), Some(3), Some(4), None];
    assert_eq!(found.unwrap(), all);
    let found = there.get_many_or_load(keys(), |missing: &[String]| {
        assert_eq!(missing, ["e"]);
        Ok::<_, String>(vec![None])
    });
    assert_eq!(found.unwrap(), all);
    here.insert_many((0..600).map(|n| (format!("many{n}"), n)))
        .unwrap();
    for n in [0, 255, 256, 599] {
        world.until(|| there.get(&format!("many{n}")).unwrap() == Some(n));
    }
    assert_eq!(there.get_many(["many7", "none"]).unwrap(), [Some(7), None]);
    // An invalidation in the middle keeps out what it concerns.
    here.clear().unwrap();
    here.get_many_or_load(["a", "b"], |_: &[String]| {
        there.invalidate("a").unwrap();
        Ok::<_, String>(vec![Some(10), Some(20)])
    })
    .unwrap();
    assert_eq!(there.get("a").unwrap(), None);
    assert_eq!(there.get("b").unwrap(), Some(20));
    let wrong = here.get_many_or_load(["x", "y"], |_: &[String]| Ok::<_, String>(vec![Some(1)]));
    let wrong = matches!(
        wrong,
        Err(TryLoadError::Shared(LoadError::WrongCount {
            asked: 2,
            answered: 1
        }))
    );
    assert!(wrong);
}

pub(crate) fn a_scope_bounds_a_change<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    here.get_or_load("k", || 1).unwrap();
    assert_eq!(there.get("k").unwrap(), Some(1));
    world.until(|| {
        assert_eq!(here.get("k").unwrap(), Some(1));
        here.with_scope(Scope::Local).invalidate("k").unwrap()
    });
    assert!(!here.with_scope(Scope::Local).invalidate("k").unwrap());
    assert_eq!(
        here.get("k").unwrap(),
        Some(1),
        "the shared tier has it still"
    );
    here.with_scope(Scope::Local)
        .insert("mine".to_owned(), 7)
        .unwrap();
    assert_eq!(here.get("mine").unwrap(), Some(7));
    assert_eq!(there.get("mine").unwrap(), None);
    assert!(here.with_scope(Scope::Shared).invalidate("k").unwrap());
    assert_eq!(here.get("k").unwrap(), None);
    world.until(|| there.get("k").unwrap().is_none());
    here.with_scope(Scope::Local).clear().unwrap();
    assert!(here.is_empty());
}

pub(crate) fn what_cannot_be_read_is_loaded_again<W: World>() {
    let world = W::new();
    let (raw, node) = (world.tier(), world.node());
    let minute = std::time::Duration::from_secs(60);
    for (n, bad) in [&b""[..], b"short", &[0; 100], &[b'L'; 23]]
        .into_iter()
        .enumerate()
    {
        let key = format!("bad{n}");
        node.insert(key.clone(), 1).unwrap();
        let mut bad = bad.to_vec();
        bad.resize(bad.len().max(24), 0);
        let place = format!(":{key}").into_bytes();
        world.until(|| {
            let seized = raw.set_placeholder(place.clone(), bad.clone(), minute);
            pollster::block_on(seized).is_ok()
        });
        world.until(|| node.get(&key).unwrap().is_none());
        assert_eq!(node.get_or_load(&key, || 2).unwrap(), 2);
        assert_eq!(node.get(&key).unwrap(), Some(2));
    }
    // Another version of the type.
    let newer = world.builder().schema(1).build().unwrap();
    while !newer.is_connected() {
        std::thread::yield_now();
    }
    node.insert("k".to_owned(), 1).unwrap();
    assert_eq!(newer.get("k").unwrap(), None);
    assert_eq!(newer.get_or_load("k", || 3).unwrap(), 3);
    world.until(|| node.get("k").unwrap().is_none());
    assert!(node.tiered_stats().bad_contents >= 5);
}

pub(crate) fn who_waits_for_others_does_not_load<W: World>() {
    let world = W::new();
    let node = || {
        let builder = world.builder();
        let node = builder.wait_for_others(std::time::Duration::from_secs(20));
        let node = node.build().unwrap();
        while !node.is_connected() {
            std::thread::yield_now();
        }
        node.get_or_load("warm", || 0).unwrap();
        node
    };
    let nodes = [node(), node(), node()];
    for round in 0..10 {
        let key = format!("k{round}");
        let loads = AtomicU64::new(0);
        std::thread::scope(|threads| {
            for node in &nodes {
                threads.spawn(|| {
                    let loaded = node.get_or_load(&key, || {
                        std::thread::park_timeout(std::time::Duration::from_millis(5));
                        loads.fetch_add(1, Relaxed)
                    });
                    assert_eq!(loaded.unwrap(), 0);
                });
            }
        });
        assert_eq!(loads.into_inner(), 1);
    }
}

pub(crate) fn futures_can_be_sent<W: World>() {
    fn goes(_: &impl Send) {}
    let world = W::new();
    let node = world.node();
    goes(&node.get_async("k"));
    goes(&node.get_or_load_async("k", || async { 1 }));
    goes(&node.try_get_or_load_async("k", || async { Ok::<_, String>(1) }));
    goes(&node.get_or_load_with_async("k", || async { tagged(1, "t") }));
    let load = |missing: Vec<String>| async move { Ok::<_, String>(vec![Some(1); missing.len()]) };
    goes(&node.get_many_or_load_async(["k"], load));
    goes(&node.insert_async("k".to_owned(), 1));
    goes(&node.insert_many_async([("k".to_owned(), 1)]));
    goes(&node.get_many_async(["k"]));
    goes(&node.add_async("k".to_owned(), 1));
    goes(&node.invalidate_async("k"));
    goes(&node.invalidate_many_async(["k"]));
    goes(&node.invalidate_tag_async("t"));
    goes(&node.clear_async());
    assert_eq!(
        pollster::block_on(node.get_or_load_async("k", || async { 5 })).unwrap(),
        5
    );
    assert_eq!(pollster::block_on(node.get_async("k")).unwrap(), Some(5));
}
