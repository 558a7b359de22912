//! Invalidation against loads: what was read before an invalidation began is not served to a call that
//! began after it returned.

use larder::{Cache, EntryOptions};
use shuttle::thread;

use super::{KEY, World, explore};

/// Two callers load while `invalidate` runs. Whoever asks after it must not see the older truth.
fn load_against(world: fn() -> World, load: fn(&World) -> u64, invalidate: fn(&World)) {
    explore(move || {
        let world = world();
        let loaders: Vec<_> = (0..2)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || load(&world))
            })
            .collect();
        world.change();
        invalidate(&world);
        assert_ne!(world.cache.get(&KEY), Some(1), "stale");
        assert_eq!(load(&world), 2, "joined a load of the past");
        for loader in loaders {
            assert!(matches!(loader.join().expect("no panic"), 1 | 2));
        }
        assert_eq!(world.cache.get(&KEY), Some(2));
        world.finish();
    });
}

#[test]
fn load_against_invalidate() {
    load_against(World::new, World::load, |world| {
        world.cache.invalidate(&KEY);
    });
}

/// A task loads while the key is invalidated.
#[test]
fn task_load_against_invalidate() {
    let load = |world: &World| shuttle::future::block_on(world.load_async());
    load_against(World::new, load, |world| {
        world.cache.invalidate(&KEY);
    });
}

#[test]
fn load_against_clear() {
    load_against(World::new, World::load, |world| world.cache.clear());
}

#[test]
fn load_against_retain() {
    load_against(World::new, World::load, |world| {
        world.cache.retain(|_, _| false);
    });
}

#[test]
fn load_against_remove_if() {
    load_against(World::new, World::load, |world| {
        world.cache.remove_if(&KEY, |_| true);
    });
}

/// A cache whose registry knows the names, so that no model registers one.
fn tagged() -> World {
    let world = World::new();
    let options = EntryOptions::new().tags(["a", "b"]);
    world
        .cache
        .insert_with(KEY + 1, 0, options)
        .expect("there is room");
    world
}

/// Only the loader's answer names the tag.
#[test]
fn load_against_a_tag_of_its_answer() {
    load_against(
        tagged,
        |world| world.load_tagged("a"),
        |world| {
            world.cache.invalidate_tag("a");
        },
    );
}

/// One loader runs and nothing else, so that the schedules go deep into its publishing.
#[test]
fn publishing_against_a_tag_of_its_answer() {
    explore(|| {
        let world = tagged();
        let loader = world.clone();
        let loader = thread::spawn(move || loader.load_tagged("a"));
        world.change();
        world.cache.invalidate_tag("a");
        assert_ne!(world.cache.get(&KEY), Some(1), "stale");
        loader.join().expect("no panic");
        assert_ne!(world.cache.get(&KEY), Some(1), "stale");
    });
}

/// The namespace is open before, and views share the world's cache.
fn spaced() -> World {
    let mut world = World::new();
    world.cache = world.cache.namespace("n");
    world
}

#[test]
fn load_against_a_clear_of_its_namespace() {
    load_against(spaced, World::load, |world| world.cache.clear());
}

#[test]
fn load_in_a_namespace_against_a_clear_of_all() {
    explore(|| {
        let root = World::new();
        let mut world = root.clone();
        world.cache = root.cache.namespace("n");
        let loader = {
            let world = world.clone();
            thread::spawn(move || world.load())
        };
        world.change();
        root.cache.clear();
        assert_eq!(world.load(), 2);
        loader.join().expect("no panic");
        assert_eq!(world.cache.get(&KEY), Some(2));
        world.finish();
    });
}

/// Two tags of one entry move at once, while readers verify it: whichever returns, the entry is dead.
#[test]
fn two_tags_move_while_an_entry_is_verified() {
    fn bump(cache: &Cache<u64, u64>, tag: &str) {
        cache.invalidate_tag(tag);
        assert_ne!(cache.get(&KEY), Some(1), "{tag} moved");
    }

    explore(|| {
        let world = World::new();
        let options = || EntryOptions::new().tags(["a", "b", "c"]);
        let cache = world.cache.clone();
        cache.insert_with(KEY, 1, options()).expect("room");
        let a = {
            let cache = cache.clone();
            thread::spawn(move || bump(&cache, "a"))
        };
        let b = {
            let cache = cache.clone();
            thread::spawn(move || bump(&cache, "b"))
        };
        let mut gone = false;
        for _ in 0..3 {
            let seen = cache.get(&KEY);
            assert!(seen.is_none() || !gone, "it came back");
            gone |= seen.is_none();
        }
        a.join().expect("no panic");
        b.join().expect("no panic");
        assert_eq!(cache.get(&KEY), None);
        cache.insert_with(KEY, 2, options()).expect("room");
        assert_eq!(cache.get(&KEY), Some(2), "born after the moves");
        world.finish();
    });
}

/// A load that finds its value dead by an invalidation in progress begins after that invalidation: nothing revokes it,
/// and what it brings is stored.
fn load_during(invalidate: fn(&World), load: fn(&World) -> u64) {
    explore(move || {
        let world = tagged();
        let options = EntryOptions::new().tag("a");
        let put = world.cache.insert_with(KEY, 0, options);
        put.expect("there is room");
        let invalidating = {
            let world = world.clone();
            thread::spawn(move || invalidate(&world))
        };
        // It loads once the old value is dead, whether or not the invalidation has returned by then.
        while world.cache.peek(&KEY).is_some() {
            thread::yield_now();
        }
        assert_eq!(load(&world), 1);
        assert_eq!(world.loads(), 1);
        assert_eq!(world.cache.get(&KEY), Some(1), "what it brought is stored");
        invalidating.join().expect("no panic");
        assert_eq!(world.cache.get(&KEY), Some(1), "what it brought stays");
        world.finish();
    });
}

#[test]
fn load_that_begins_during_a_tags_invalidation() {
    load_during(
        |world| world.cache.invalidate_tag("a"),
        |world| world.load_tagged("a"),
    );
}

#[test]
fn load_that_begins_during_a_clear() {
    load_during(|world| world.cache.clear(), World::load);
}

/// With the load as a task.
#[test]
fn task_load_that_begins_during_a_tags_invalidation() {
    load_during(
        |world| world.cache.invalidate_tag("a"),
        |world| {
            let loader = || async {
                let truth = world.read();
                super::pending_times(1).await;
                Ok::<_, String>(larder::Loaded::new(truth).tag("a"))
            };
            let load = world.cache.get_or_load_with_async(&KEY, loader);
            shuttle::future::block_on(load).expect("the loader cannot fail")
        },
    );
}
