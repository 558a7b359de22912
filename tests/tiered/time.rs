//! Times, turned by hand: how long a copy lives here, what is loaded again before its time is up, what is served
//! after it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use larder::tier::{MemoryServer, Tiered, TieredBuildError, TieredBuilder};
use larder::{Loaded, ManualClock};

const SECOND: Duration = Duration::from_secs(1);

struct World {
    time: ManualClock,
    server: MemoryServer,
}

impl World {
    fn new() -> Self {
        let time = ManualClock::new();
        let server = MemoryServer::with_clock(time.clock());
        World { time, server }
    }

    fn builder(&self) -> TieredBuilder<String, u64> {
        Tiered::builder(self.server.tier())
            .max_capacity(100)
            .clock(self.time.clock())
            .time_to_live(SECOND * 100)
            .l1_time_to_live(SECOND * 10)
    }

    /// A process that is past its first value.
    fn node(&self, builder: TieredBuilder<String, u64>) -> Tiered<String, u64> {
        let node = builder.build().unwrap();
        node.get_or_load("warm", || 0).unwrap();
        node
    }
}

#[test]
fn a_copy_lives_for_the_shorter_of_its_own_time_and_what_is_left() {
    let world = World::new();
    let (here, there) = (world.node(world.builder()), world.node(world.builder()));
    here.get_or_load("k", || 1).unwrap();
    let asked = |node: &Tiered<String, u64>| {
        let before = node.tiered_stats();
        assert_eq!(node.get_or_load("k", || 2).unwrap(), 1);
        node.tiered_stats() != before
    };
    world.time.advance(SECOND * 9);
    assert!(!asked(&here));
    world.time.advance(SECOND * 2);
    assert!(
        asked(&here),
        "its own time is up, and the shared tier has it"
    );
    // Five seconds are left of a hundred.
    world.time.advance(SECOND * 84);
    assert!(asked(&there));
    world.time.advance(SECOND * 4);
    assert!(!asked(&there));
    world.time.advance(SECOND);
    assert_eq!(
        there.get_or_load("k", || 3).unwrap(),
        3,
        "a hundred are over"
    );
}

#[test]
fn a_loaders_own_time_is_the_shared_tiers_and_bounds_ours() {
    let world = World::new();
    let (here, there) = (world.node(world.builder()), world.node(world.builder()));
    let short = || Ok::<_, String>(Loaded::new(1).time_to_live(SECOND * 3));
    here.get_or_load_with("k", short).unwrap();
    world.time.advance(SECOND * 2);
    assert_eq!(there.get("k").unwrap(), Some(1));
    world.time.advance(SECOND);
    assert_eq!(
        (here.get("k").unwrap(), there.get("k").unwrap()),
        (None, None)
    );
    // Nothing is stored that has no time at all.
    let none = || Ok::<_, String>(Loaded::new(1).time_to_live(Duration::ZERO));
    assert_eq!(here.get_or_load_with("k", none).unwrap(), Some(1));
    assert_eq!(
        (here.get("k").unwrap(), there.get("k").unwrap()),
        (None, None)
    );
}

#[test]
fn a_copy_whose_time_here_is_up_is_the_shared_tiers_again_as_long_as_that_is_fresh() {
    for stale in [false, true] {
        let world = World::new();
        let builder = world.builder();
        let builder = match stale {
            false => builder,
            true => builder
                .stale_while_revalidate(SECOND * 1_000)
                .stale_if_error(SECOND * 50, SECOND),
        };
        let (here, there) = (world.node(builder), world.node(world.builder()));
        here.get_or_load("k", || 1).unwrap();
        for _ in 0..9 {
            world.time.advance(SECOND * 11);
            assert_eq!(here.get_or_load("k", || unreachable!()).unwrap(), 1);
        }
        // The other process has loaded a newer one: that ends the refresh.
        world.time.advance(SECOND * 2);
        assert_eq!(there.get_or_load("k", || 7).unwrap(), 7);
        assert_eq!(here.get_or_load("k", || unreachable!()).unwrap(), 7);
    }
}

#[test]
fn a_process_without_a_copy_serves_the_shared_stale_one_if_its_loader_fails() {
    let world = World::new();
    let node = || world.node(world.builder().stale_if_error(SECOND * 50, SECOND));
    let (here, there) = (node(), node());
    let tagged = || Ok::<_, String>(Loaded::new(1).tag("t"));
    let fails = || Err::<Loaded<u64>, _>("down");
    here.get_or_load_with("k", tagged).unwrap();
    world.time.advance(SECOND * 120);
    assert_eq!(there.get_or_load_with("k", fails).unwrap(), Some(1));
    assert_eq!(there.tiered_stats().stale_served, 1);
    // Not after its tag has moved, and not after the window.
    there.invalidate_tag("t").unwrap();
    assert!(there.get_or_load_with("k", fails).is_err());
    here.get_or_load_with("k", tagged).unwrap();
    world.time.advance(SECOND * 151);
    assert!(there.get_or_load_with("k", fails).is_err());
}

#[test]
fn what_it_took_to_load_travels_with_the_value() {
    let world = World::new();
    let early = || world.node(world.builder().early_expiration(1.0));
    let (here, there) = (early(), early());
    let time = world.time.clone();
    let slow = |value| {
        let time = time.clone();
        move || {
            time.advance(SECOND);
            value
        }
    };
    here.get_or_load("k", slow(1)).unwrap();
    // Of ten seconds' own time the last five are early, with a load that takes one: some call of many loads again.
    assert_eq!(there.get("k").unwrap(), Some(1));
    world.time.advance(SECOND * 9);
    let again = (0..1_000).any(|_| there.get_or_load("k", || 2).unwrap() == 2);
    assert!(again, "a copy from the shared tier is loaded early, too");
}

#[test]
fn settings_that_keep_nothing_are_refused() {
    let world = World::new();
    for builder in [
        world.builder().time_to_live(Duration::ZERO),
        world.builder().l1_time_to_live(Duration::ZERO),
    ] {
        let error = builder.build().unwrap_err();
        assert!(matches!(error, TieredBuildError::ZeroTimeToLive));
    }
    let nothing: TieredBuilder<String, u64> = Tiered::builder(world.server.tier());
    assert!(matches!(
        nothing.build().unwrap_err(),
        TieredBuildError::Own(_)
    ));
    let hasty = world.builder().budget(Duration::ZERO).build();
    assert!(matches!(
        hasty.unwrap_err(),
        TieredBuildError::Budget { .. }
    ));
}

#[test]
fn an_attached_loader_asks_the_shared_tier_first() {
    let world = World::new();
    let loads = std::sync::Arc::new(AtomicU64::new(0));
    let node = || {
        let loads = loads.clone();
        let loader = move |_: &String| Ok::<_, String>(Loaded::new(loads.fetch_add(1, Relaxed)));
        world.builder().loader(loader).build().unwrap()
    };
    let (here, there) = (node(), node());
    let first = here.load("k").unwrap();
    assert_eq!(there.load("k").unwrap(), first);
    assert_eq!(loads.load(Relaxed), 1);
}
