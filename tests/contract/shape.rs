//! What the types promise: errors that say what to change, `Debug` that keeps secrets, `Send` and `Sync`.

use std::fmt::{Debug, Display};
use std::time::Duration;

use larder::{
    Added, BuildError, Cache, CacheBuilder, Clock, Compute, Computed, EntryOptions, Iter,
    LoadError, Loaded, ManualClock, Rejected, Stats, TryLoadError,
};

fn refused(configure: impl FnOnce(CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64>) -> BuildError {
    let builder = configure(Cache::builder().max_capacity(10));
    builder.build().expect_err("this configuration is refused")
}

fn says(error: &impl Display, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not name {word:?}");
    }
}

#[test]
fn every_refusal_of_a_configuration_says_what_to_change() {
    let none = Cache::<u64, u64>::builder().build().unwrap_err();
    assert_eq!(none, BuildError::NoCapacity);
    says(&none, &["max_capacity"]);

    let many = refused(|builder| builder.max_capacity(u64::MAX).shards(1));
    assert!(matches!(
        many,
        BuildError::TooManyEntries {
            asked: u64::MAX,
            ..
        }
    ));
    says(&many, &["max_capacity", "max_entries", "shards"]);
    let many = refused(|builder| {
        let builder = builder.weigher(|_, _| 1).shards(1);
        builder.max_entries(1 << 33)
    });
    assert!(matches!(many, BuildError::TooManyEntries { .. }));

    let shards = refused(|builder| builder.shards(0));
    assert_eq!(shards, BuildError::NoShards);
    says(&shards, &["shards"]);

    for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let jitter = refused(|builder| builder.jitter(share));
        assert_eq!(jitter, BuildError::Jitter);
        says(&jitter, &["jitter", "0.0", "1.0"]);
    }

    for beta in [-1.0, -1e-9, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let refusal = refused(|builder| builder.early_expiration(beta));
        assert_eq!(refusal, BuildError::Beta);
        says(&refusal, &["early_expiration", "0.0", "1.0"]);
    }

    let loads = refused(|builder| builder.max_loads(0));
    assert_eq!(loads, BuildError::NoLoads);
    says(&loads, &["max_loads"]);
}

#[test]
fn every_duration_of_zero_is_refused_by_its_name() {
    type Set = fn(CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64>;
    let table: [(&str, Set); 5] = [
        ("time_to_live", |builder| {
            builder.time_to_live(Duration::ZERO)
        }),
        ("time_to_idle", |builder| {
            builder.time_to_idle(Duration::ZERO)
        }),
        ("load_deadline", |builder| {
            builder.load_deadline(Duration::ZERO)
        }),
        ("wait_deadline", |builder| {
            builder.wait_deadline(Duration::ZERO)
        }),
        ("maintenance", |builder| builder.maintenance(Duration::ZERO)),
    ];
    for (name, set) in table {
        let error = refused(set);
        assert_eq!(error, BuildError::ZeroDuration { setting: name });
        says(&error, &[name, "longer"]);
    }
}

#[test]
fn a_thread_that_cannot_be_had_is_said_so() {
    // Reaching it would take all of the machine's threads: only its words are checked.
    let reason = "no more threads".to_owned();
    says(
        &BuildError::Thread { reason },
        &["no more threads", "maintenance", "run_pending"],
    );
}

#[test]
fn extreme_configurations_are_accepted() {
    let builder = Cache::<u64, u64>::builder().max_capacity((1 << 30) - 2000);
    let cache = builder
        .shards(1)
        .time_to_live(Duration::MAX)
        .build()
        .unwrap();
    cache.insert(1, 1);
    assert_eq!(cache.get(&1), Some(1));
    let builder = Cache::<u64, u64>::builder().max_capacity(9).jitter(1.0);
    let cache = builder
        .time_to_idle(Duration::MAX)
        .shards(usize::MAX)
        .build()
        .unwrap();
    cache.insert(1, 1);
    assert_eq!(cache.get(&1), Some(1));
}

#[test]
fn rejections_and_load_errors_say_what_to_do() {
    let cache = Cache::builder()
        .max_capacity(10)
        .weigher(|_: &u64, n: &u64| *n);
    let cache = cache.build().unwrap();
    says(
        &cache.try_insert(1, 11).unwrap_err(),
        &["11", "10", "max_capacity"],
    );
    says(&LoadError::TooManyLoads { limit: 7 }, &["7", "max_loads"]);
    let wrong = LoadError::WrongCount {
        asked: 31,
        answered: 30,
    };
    says(&wrong, &["31", "30", "None"]);
    let waited = Duration::from_secs(3);
    says(
        &LoadError::WaitTimedOut { waited },
        &["3s", "wait_deadline"],
    );
    says(&cache.load(&1).unwrap_err(), &["loader"]);
}

const CANARY: &str = "canary-7f3a";

fn keeps_silent(value: &impl Debug) {
    for text in [format!("{value:?}"), format!("{value:#?}")] {
        assert!(!text.contains(CANARY), "{text}");
    }
}

#[test]
fn no_debug_output_holds_a_key_or_a_value() {
    let builder = || {
        Cache::<String, String>::builder()
            .max_capacity(10)
            .name("names are fine")
    };
    keeps_silent(&builder());
    let cache = builder().build().unwrap();
    cache.insert(CANARY.to_owned(), CANARY.to_owned());
    keeps_silent(&cache);
    keeps_silent(&cache.namespace("a"));
    keeps_silent(&cache.stats());
    assert!(!cache.inspect().contains(CANARY));
    let mut walk = cache.iter();
    keeps_silent(&walk);
    assert!(walk.next().is_some());
    keeps_silent(&walk);
    keeps_silent(&cache.add(CANARY.to_owned(), CANARY.to_owned()));
    keeps_silent(&cache.add("other".to_owned(), CANARY.to_owned()));
    keeps_silent(&cache.compute(CANARY, |_| Compute::Put(CANARY.to_owned())));
    keeps_silent(&Loaded::new(CANARY.to_owned()));
    let none = EntryOptions::new().time_to_live(Duration::ZERO);
    let rejected = cache.insert_with(CANARY.to_owned(), CANARY.to_owned(), none);
    let rejected = rejected.unwrap_err();
    keeps_silent(&rejected);
    assert!(!rejected.to_string().contains(CANARY));
    let load = || Ok::<_, LoadError>(Loaded::uncacheable(CANARY.to_owned()));
    assert_eq!(cache.get_or_load_with(CANARY, load).unwrap(), CANARY);
    keeps_silent(&cache);
    assert!(!cache.inspect().contains(CANARY));
}

/// Checked by compiling: handles go to other threads, whatever the bounds say.
#[test]
fn handles_are_send_sync_and_clone() {
    fn shared<T: Send + Sync + 'static>() {}
    fn cloned<T: Clone>() {}
    shared::<Cache<String, Vec<u8>>>();
    shared::<CacheBuilder<String, String>>();
    shared::<Iter<String, String>>();
    shared::<(Stats, Clock, ManualClock, EntryOptions, BuildError)>();
    shared::<(LoadError, TryLoadError<String>, Rejected<String>)>();
    shared::<(Loaded<u64>, Added<u64>, Compute<u64>, Computed<u64>)>();
    cloned::<Cache<String, String>>();
    cloned::<(Stats, Clock, ManualClock, EntryOptions, LoadError)>();
    // A handle clones although neither key nor value does.
    struct Whole;
    cloned::<Cache<Whole, Whole>>();
}

/// Futures of the loading calls may move between threads.
#[test]
fn loading_futures_are_send() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    let cache: Cache<u64, u64> = Cache::builder().max_capacity(10).build().unwrap();
    let loading = send(cache.get_or_load_async(&1, || async { 7 }));
    assert_eq!(pollster::block_on(loading), 7);
    let loading = send(cache.try_get_or_load_async(&2, || async { Ok::<_, String>(8) }));
    assert_eq!(pollster::block_on(loading).unwrap(), 8);
}

#[test]
fn clones_share_one_cache_and_its_name() {
    let builder = Cache::<u64, u64>::builder().max_capacity(10).name("users");
    let cache = builder.build().unwrap();
    let other = cache.clone();
    cache.insert(1, 1);
    assert_eq!((other.get(&1), other.name()), (Some(1), Some("users")));
    assert!(format!("{cache:?}").contains("users"));
}
