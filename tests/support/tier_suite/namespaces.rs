//! The suite's promises about namespaces.

use larder::Loaded;
use larder::tier::Tiered;

use super::World;

type Node = Tiered<String, u64>;

fn tagged(value: u64, tag: &str) -> Result<Loaded<u64>, String> {
    Ok(Loaded::new(value).tag(tag))
}

/// What a process has under one key in the root, in `red` and in `blue`.
fn all(node: &Node, key: &str) -> [Option<u64>; 3] {
    let (red, blue) = (node.namespace("red"), node.namespace("blue"));
    [node, &red, &blue].map(|view| view.get(key).unwrap())
}

/// Puts 1, 2 and 3 there.
fn fill(node: &Node, key: &str) {
    let (red, blue) = (node.namespace("red"), node.namespace("blue"));
    for (view, value) in [node, &red, &blue].into_iter().zip(1..) {
        assert_eq!(view.get_or_load(key, || value).unwrap(), value);
    }
}

pub(crate) fn keys_of_different_namespaces_are_apart<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    fill(&here, "k");
    for node in [&here, &there] {
        assert_eq!(all(node, "k"), [Some(1), Some(2), Some(3)]);
        world.until(|| {
            let before = node.tiered_stats();
            assert_eq!(all(node, "k"), [Some(1), Some(2), Some(3)]);
            // From the L1.
            before == node.tiered_stats()
        });
    }
    let red = there.namespace("red");
    assert!(!red.add("k".to_owned(), 9).unwrap());
    red.insert("k".to_owned(), 4).unwrap();
    world.until(|| all(&here, "k") == [Some(1), Some(4), Some(3)]);
    assert!(red.invalidate("k").unwrap());
    world.until(|| all(&here, "k") == [Some(1), None, Some(3)]);
    assert!(red.add("k".to_owned(), 5).unwrap());
    world.until(|| all(&here, "k") == [Some(1), Some(5), Some(3)]);
    let many = red.get_many_or_load(["k", "l"], |missing: &[String]| {
        assert_eq!(missing, ["l"]);
        Ok::<_, String>(vec![Some(6)])
    });
    assert_eq!(many.unwrap(), [Some(5), Some(6)]);
    assert_eq!(all(&here, "l"), [None, Some(6), None]);
    // Names and keys that would run into one another.
    for (name, key) in [("", ":k"), ("red:k", ""), ("3:red", "k"), ("re", "d:k")] {
        let odd = there.namespace(name);
        odd.insert(key.to_owned(), 7).unwrap();
        assert_eq!(odd.get(key).unwrap(), Some(7));
        assert_eq!(all(&there, "k"), [Some(1), Some(5), Some(3)], "{name:?}");
    }
    assert_eq!(here.get("3:red:k").unwrap(), None);
}

pub(crate) fn clear_of_a_namespace_clears_it_everywhere_and_nothing_else<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    fill(&here, "k");
    assert_eq!(all(&there, "k"), [Some(1), Some(2), Some(3)]);
    there.namespace("red").clear().unwrap();
    assert_eq!(all(&there, "k"), [Some(1), None, Some(3)]);
    world.until(|| all(&here, "k") == [Some(1), None, Some(3)]);
    assert_eq!(all(&world.node(), "k"), [Some(1), None, Some(3)]);
    // What is stored in it later stays.
    let red = here.namespace("red");
    assert_eq!(red.get_or_load("k", || 4).unwrap(), 4);
    world.until(|| all(&there, "k") == [Some(1), Some(4), Some(3)]);
}

pub(crate) fn clear_of_the_root_clears_every_namespace<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    fill(&here, "k");
    assert_eq!(all(&there, "k"), [Some(1), Some(2), Some(3)]);
    here.clear().unwrap();
    assert_eq!(all(&here, "k"), [None; 3]);
    world.until(|| all(&there, "k") == [None; 3]);
    assert_eq!(all(&world.node(), "k"), [None; 3]);
}

pub(crate) fn a_tag_reaches_into_namespaces<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    fill(&here, "plain");
    let (red, blue) = (here.namespace("red"), here.namespace("blue"));
    for view in [&here, &red, &blue] {
        view.get_or_load_with("k", || tagged(1, "t")).unwrap();
    }
    assert_eq!(all(&there, "k"), [Some(1); 3]);
    assert_eq!(all(&there, "plain"), [Some(1), Some(2), Some(3)]);
    // Through whichever view.
    blue.invalidate_tag("t").unwrap();
    for node in [&here, &there, &world.node()] {
        world.until(|| all(node, "k") == [None; 3]);
        assert_eq!(all(node, "plain"), [Some(1), Some(2), Some(3)]);
    }
}

pub(crate) fn nothing_is_stored_that_was_loaded_before_its_namespace_was_cleared<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    // One that has a version, and one that has none yet.
    here.namespace("red").get_or_load("known", || 0).unwrap();
    for name in ["red", "new"] {
        let (view, other) = (here.namespace(name), there.namespace(name));
        for clears in [&view, &other] {
            let loaded = view.get_or_load("k", || {
                clears.clear().unwrap();
                1
            });
            assert_eq!(loaded.unwrap(), 1, "who waited gets it");
            assert_eq!(view.get("k").unwrap(), None, "{name}");
            assert_eq!(other.get("k").unwrap(), None, "{name}");
        }
        let many = view.get_many_or_load(["l", "m"], |_: &[String]| {
            other.clear().unwrap();
            Ok::<_, String>(vec![Some(1), Some(2)])
        });
        assert_eq!(many.unwrap(), [Some(1), Some(2)]);
        assert_eq!(other.get("l").unwrap(), None, "{name}");
        assert_eq!(view.get_or_load("k", || 2).unwrap(), 2);
        // That of another namespace is no hindrance.
        let loaded = view.get_or_load("n", || {
            there.namespace("blue").clear().unwrap();
            3
        });
        assert_eq!(loaded.unwrap(), 3);
        assert_eq!(other.get("n").unwrap(), Some(3), "{name}");
    }
}

pub(crate) fn views_do_not_nest<W: World>() {
    let world = W::new();
    let (here, there) = (world.node(), world.node());
    let red = here.namespace("red");
    red.namespace("blue").insert("k".to_owned(), 1).unwrap();
    world.until(|| all(&there, "k") == [None, None, Some(1)]);
    assert_eq!(all(&red, "k"), [None, None, Some(1)]);
    red.clear().unwrap();
    assert_eq!(all(&here, "k"), [None, None, Some(1)]);
}
