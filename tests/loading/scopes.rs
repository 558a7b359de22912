//! Tags, namespaces and `clear` during a load.

use larder::{Cache, Loaded, TryLoadError};

use super::executor::{Gate, Hand};
use super::{KEY, Numbers, at_rest, held, numbers, waiting};

type Tagged<'a> = Hand<'a, Result<u64, TryLoadError<String>>>;

/// A load whose answer, once the gate is open, names the tag `product:7`.
fn tagged<'a>(cache: &'a Numbers, gate: &'a Gate, value: u64) -> Tagged<'a> {
    Hand::pending(cache.get_or_load_with_async(&KEY, move || async move {
        gate.opened().await;
        Ok(Loaded::new(value).tag("shop").tag("product:7"))
    }))
}

/// The tag moves while nobody knows that the answer will name it.
#[test]
fn a_tag_that_moves_during_the_load_keeps_its_answer_out() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = tagged(&cache, &gate, 1);
    let mut before = waiting(&cache, 2);
    cache.invalidate_tag("product:7");
    gate.open();
    assert!(matches!(leader.ready(), Ok(1)));
    assert_eq!(before.ready(), 1, "it had joined before");
    assert_eq!(cache.get(&KEY), None);
    assert_eq!(cache.stats().unpublished(), 1);
    at_rest(&cache);
}

/// Who joins after the move must not be given what was read before it.
#[test]
fn a_follower_that_joined_after_the_move_loads_again() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = tagged(&cache, &gate, 1);
    let mut before = waiting(&cache, 2);
    cache.invalidate_tag("product:7");
    let mut after = waiting(&cache, 3);
    gate.open();
    assert!(matches!(leader.ready(), Ok(1)));
    assert_eq!((before.ready(), after.ready()), (1, 3));
    assert_eq!(cache.get(&KEY), Some(3));
    at_rest(&cache);
}

/// A second move must not hide the first, which came before the follower. The storefront once served a
/// stale price this way: a tag knows only its latest move.
#[test]
fn a_second_move_does_not_hide_the_first() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = tagged(&cache, &gate, 1);
    cache.invalidate_tag("product:7");
    let mut follower = waiting(&cache, 3);
    cache.invalidate_tag("product:7");
    gate.open();
    assert!(matches!(leader.ready(), Ok(1)));
    assert_eq!(follower.ready(), 3);
    at_rest(&cache);
}

/// Threads, too: the call began after the invalidation had returned.
#[test]
fn a_thread_that_joined_after_the_move_loads_again() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = tagged(&cache, &gate, 1);
    cache.invalidate_tag("shop");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| cache.get_or_load(&KEY, || 3));
        super::until_joined(&cache, 1);
        gate.open();
        assert!(matches!(leader.ready(), Ok(1)));
        assert_eq!(thread.join().expect("no panic"), 3);
    });
    assert_eq!(cache.get(&KEY), Some(3));
    at_rest(&cache);
}

#[test]
fn a_tag_that_the_answer_does_not_name_keeps_nothing_out() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = tagged(&cache, &gate, 1);
    cache.invalidate_tag("product:8");
    gate.open();
    assert!(matches!(leader.ready(), Ok(1)));
    assert_eq!(cache.get(&KEY), Some(1));
    cache.invalidate_tag("product:7");
    assert_eq!(cache.get(&KEY), None, "published with its tags");
    at_rest(&cache);
}

/// Invalidates so many tags that nothing bears.
fn churn(cache: &Numbers, names: u64) {
    for n in 0..names {
        cache.invalidate_tag(&format!("churn {n}"));
    }
}

/// The registry forgets names, and must not forget which were invalidated while a load runs.
#[test]
fn invalidating_unrelated_tags_keeps_no_answer_out() {
    for names in [1_100, 50_000] {
        let (cache, gate) = (numbers(), Gate::default());
        let mut leader = tagged(&cache, &gate, 1);
        churn(&cache, names);
        gate.open();
        assert!(matches!(leader.ready(), Ok(1)));
        assert_eq!(cache.get(&KEY), Some(1), "{names} unrelated names");
        assert_eq!(cache.stats().unpublished(), 0);
        // A remembered absence has tags, too.
        let (cache, gate) = (
            super::timed(|b| b.negative_time_to_live(super::SECOND)).0,
            Gate::default(),
        );
        let mut leader = Hand::pending(cache.get_or_load_with_async(&KEY, || async {
            gate.opened().await;
            Ok::<_, String>(Loaded::absent().tag("mine"))
        }));
        churn(&cache, names);
        gate.open();
        assert!(leader.ready().is_err());
        let remembered = cache.get_or_load_optional(&KEY, || unreachable!("it is remembered"));
        assert_eq!(remembered, None);
    }
}

#[test]
fn a_tag_that_was_invalidated_among_many_others_keeps_its_answer_out() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = tagged(&cache, &gate, 1);
    churn(&cache, 3_000);
    cache.invalidate_tag("product:7");
    let mut after = waiting(&cache, 3);
    churn(&cache, 50_000);
    let stats = cache.stats();
    gate.open();
    assert!(matches!(leader.ready(), Ok(1)));
    assert_eq!(cache.stats().since(&stats).unpublished_invalidated(), 1);
    assert_eq!(after.ready(), 3, "it joined after the invalidation");
    assert_eq!(cache.get(&KEY), Some(3));
    at_rest(&cache);
}

/// A load that was revoked publishes nothing, but it has followers, and what they may be given hangs on its tags.
#[test]
fn a_revoked_load_remembers_its_tags_for_those_who_wait() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = tagged(&cache, &gate, 1);
    cache.invalidate_tag("product:7");
    let mut after = waiting(&cache, 3);
    cache.remove(&KEY);
    churn(&cache, 50_000);
    gate.open();
    assert!(matches!(leader.ready(), Ok(1)));
    assert_eq!(after.ready(), 3, "it joined after the invalidation");
    assert_eq!(cache.stats().unpublished_revoked(), 1);
    at_rest(&cache);
}

/// What no load needs any more is forgotten, also where nothing is invalidated any more.
#[test]
fn tags_are_remembered_for_no_longer_than_a_load_runs() {
    let remembered = |cache: &Numbers| {
        let text = cache.inspect();
        let count = text
            .split("forgotten tags ")
            .nth(1)
            .expect("it says how many");
        count
            .split(',')
            .next()
            .expect("a number")
            .parse::<u64>()
            .expect("a number")
    };
    let (cache, gate) = (numbers(), Gate::default());
    churn(&cache, 5_000);
    assert_eq!(remembered(&cache), 0, "nobody loads");
    let mut leader = tagged(&cache, &gate, 1);
    churn(&cache, 20_000);
    assert!(remembered(&cache) > 10_000);
    gate.open();
    assert!(leader.ready().is_ok());
    cache.run_pending(1);
    assert_eq!(remembered(&cache), 0);
}

/// An answer with more tags than an entry can carry is delivered, and not stored without them.
#[test]
fn an_answer_with_too_many_tags_is_delivered_and_not_stored() {
    let cache = numbers();
    let load = || {
        let names = (0..=larder::EntryOptions::MAX_TAGS).map(|n| n.to_string());
        Ok::<_, String>(Loaded::new(1).tags(names))
    };
    assert!(matches!(cache.get_or_load_with(&KEY, load), Ok(1)));
    assert_eq!(cache.get(&KEY), None);
    at_rest(&cache);
}

/// What happens to a load in `loading` when `cleared` is cleared in the middle.
#[track_caller]
fn clear_during_a_load(loading: &Numbers, cleared: &Numbers, revoked: bool) {
    let gate = Gate::default();
    let mut leader = held(loading, &gate, 1);
    let mut before = waiting(loading, 2);
    cleared.clear();
    let mut after = Hand::new(loading.get_or_load_async(&KEY, || async { 3 }));
    if revoked {
        assert_eq!(after.ready(), 3, "a load of its own");
    } else {
        assert!(after.poll().is_pending());
    }
    gate.open();
    assert_eq!((leader.ready(), before.ready()), (1, 1));
    let expected = if revoked { 3 } else { after.ready() };
    assert_eq!(loading.get(&KEY), Some(expected));
    at_rest(loading);
}

#[test]
fn a_clear_revokes_the_loads_of_its_scope_and_no_others() {
    let views = || {
        let root: Numbers = numbers();
        (root.namespace("a"), root.namespace("b"), root)
    };
    let (a, _, root) = views();
    clear_during_a_load(&root, &root, true);
    clear_during_a_load(&a, &a, true);
    let (a, b, root) = views();
    clear_during_a_load(&a, &root, true);
    clear_during_a_load(&b, &a, false);
    let (a, _, root) = views();
    clear_during_a_load(&root, &a, false);
}

/// The same key in two namespaces is two keys: two loads, side by side.
#[test]
fn namespaces_do_not_share_loads() {
    let root: Cache<u64, u64> = numbers();
    let (a, b) = (root.namespace("a"), root.namespace("b"));
    let gate = Gate::default();
    let mut first = held(&a, &gate, 1);
    let mut second = held(&b, &gate, 2);
    assert_eq!(root.__flights(), (2, 2));
    gate.open();
    assert_eq!((first.ready(), second.ready()), (1, 2));
    assert_eq!(
        (a.get(&KEY), b.get(&KEY), root.get(&KEY)),
        (Some(1), Some(2), None)
    );
    at_rest(&root);
}
