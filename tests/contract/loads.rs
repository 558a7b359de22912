//! Loads on one thread: remembered failures, uncacheable answers, circles and bounds. What happens beside
//! other callers is in the operation × state table of `tests/model`.

use larder::{Cache, LoadError, Loaded, TryLoadError};

use crate::{SECOND, ignore, sized, timed};

fn fails(cache: &Cache<u64, u64>) -> Result<u64, TryLoadError<&'static str>> {
    cache.try_get_or_load(&1, || Err("no such row"))
}

#[test]
fn a_failure_is_not_stored_unless_asked_for() {
    let cache = sized(10);
    for _ in 0..2 {
        assert!(matches!(
            fails(&cache),
            Err(TryLoadError::Own("no such row"))
        ));
    }
    assert_eq!(cache.stats().load_failures(), 2);
    assert_eq!(cache.__flights(), (0, 0));
}

#[test]
fn a_failure_is_remembered_for_its_time_and_no_longer() {
    let (cache, time) = timed(|builder| builder.error_time_to_live(SECOND));
    assert!(matches!(fails(&cache), Err(TryLoadError::Own(_))));
    time.advance(SECOND - crate::MILLI);
    let told = fails(&cache);
    let Err(TryLoadError::Shared(LoadError::Failed(cause))) = told else {
        panic!("{told:?}");
    };
    assert_eq!(cause.to_string(), "no such row");
    time.advance(crate::MILLI);
    assert_eq!(cache.try_get_or_load(&1, || Ok::<_, &str>(7)).unwrap(), 7);
}

#[test]
fn remembered_failures_are_forgotten_in_time_and_hold_no_memory() {
    let (cache, time) = timed(|builder| builder.error_time_to_live(SECOND));
    for n in 0..500 {
        assert!(cache.try_get_or_load(&n, || Err::<u64, _>("no")).is_err());
    }
    assert_eq!(cache.__flights(), (500, 0));
    time.advance(SECOND);
    (0..500).for_each(|n| ignore(cache.insert(1000 + n % 9, n)));
    assert_eq!(cache.__flights(), (0, 0));
}

#[test]
fn an_uncacheable_answer_is_its_callers_alone() {
    let (cache, time) = timed(|builder| builder);
    let own = || Ok::<_, String>(Loaded::uncacheable(7));
    assert_eq!(cache.get_or_load_with(&1, own).unwrap(), 7);
    assert_eq!(cache.get(&1), None);
    assert_eq!(cache.get_or_load(&1, || 8), 8, "for a while nobody queues");
    assert_eq!(cache.get(&1), None, "nor stores");
    assert_eq!(
        cache.get_or_load(&1, || 9),
        9,
        "but a cacheable answer ends that"
    );
    assert_eq!(cache.get(&1), Some(9));
    assert_eq!(cache.get_or_load_with(&2, own).unwrap(), 7);
    time.advance(5 * SECOND);
    assert_eq!(cache.get_or_load(&2, || 8), 8);
    assert_eq!(cache.get(&2), Some(8), "and so does time");
}

#[test]
fn a_loader_that_waits_for_itself_is_told_so() {
    let cache = sized(10);
    let outer = cache.try_get_or_load(&1, || {
        let inner = cache.try_get_or_load(&1, || Ok::<_, String>(8));
        assert!(matches!(
            inner,
            Err(TryLoadError::Shared(LoadError::Recursive))
        ));
        // The form that cannot fail loads for itself instead.
        Ok::<_, String>(cache.get_or_load(&1, || 9))
    });
    assert_eq!(outer.unwrap(), 9);
}

#[test]
fn no_more_loaders_run_than_allowed() {
    let (cache, _) = timed(|builder| builder.max_loads(1));
    let outer = cache.get_or_load(&1, || {
        let inner = cache.try_get_or_load(&2, || Ok::<_, String>(8));
        let many = TryLoadError::<String>::Shared(LoadError::TooManyLoads { limit: 1 });
        assert_eq!(inner.unwrap_err().to_string(), many.to_string());
        cache.get_or_load(&3, || 9)
    });
    assert_eq!((outer, cache.get(&1), cache.get(&3)), (9, Some(9), None));
    assert_eq!(cache.get_or_load(&2, || 7), 7, "the place is free again");
}

#[test]
fn nothing_found_is_not_stored() {
    let cache = sized(10);
    assert_eq!(cache.get_or_load_optional(&1, || None), None);
    assert_eq!(cache.get_or_load_optional(&1, || Some(7)), Some(7));
    assert_eq!(cache.get_or_load_optional(&1, || None), Some(7));
}

#[test]
fn load_runs_the_loader_of_the_cache() {
    let (cache, _) = timed(|builder| {
        builder.loader(|n: &u64| {
            if *n == 0 {
                Err("zero")
            } else {
                Ok(Loaded::new(n * n))
            }
        })
    });
    assert_eq!((cache.load(&7).unwrap(), cache.get(&7)), (49, Some(49)));
    assert!(matches!(cache.load(&0), Err(LoadError::Failed(_))));
    assert!(matches!(sized(10).load(&1), Err(LoadError::NoLoader)));
}
