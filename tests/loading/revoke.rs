//! Writes and removals during a load: what of it is published, and who gets what.

use larder::{Compute, EntryOptions};

use super::executor::{Gate, Hand};
use super::{
    KEY, Numbers, POLLS, Runs, SECOND, at_rest, held, numbers, run_out, slow, timed, until_joined,
    waiting,
};

/// Something done to the cache while a load is under way, by name.
type Act = (&'static str, fn(&Numbers));

/// What removes the key without putting anything there.
const REMOVALS: [Act; 7] = [
    ("remove", |cache| {
        let _ = cache.remove(&KEY);
    }),
    ("invalidate", |cache| {
        let _ = cache.invalidate(&KEY);
    }),
    ("remove_many", |cache| {
        let _ = cache.remove_many([&KEY]);
    }),
    ("remove_if", |cache| {
        let _ = cache.remove_if(&KEY, |_| true);
    }),
    ("retain", |cache| {
        let _ = cache.retain(|_, _| false);
    }),
    ("clear", |cache| cache.clear()),
    ("a refused write", |cache| {
        let options = EntryOptions::new().time_to_live(std::time::Duration::ZERO);
        assert!(cache.insert_with(KEY, 9, options).is_err());
    }),
];

/// What puts 9 there.
const WRITES: [Act; 4] = [
    ("insert", |cache| {
        let _ = cache.insert(KEY, 9);
    }),
    ("add", |cache| assert!(cache.add(KEY, 9).is_stored())),
    ("insert_many", |cache| cache.insert_many([(KEY, 9)])),
    ("compute", |cache| {
        let _ = cache.compute(&KEY, |_| Compute::Put(9));
    }),
];

/// What changes nothing.
const NEITHER: [Act; 8] = [
    ("a failed replace", |cache| {
        assert_eq!(cache.replace(KEY, 9), Err(9))
    }),
    ("touch", |cache| assert!(!cache.touch(&KEY, Some(SECOND)))),
    ("compute that keeps", |cache| {
        let _ = cache.compute(&KEY, |_| Compute::Keep);
    }),
    ("incr", |cache| assert_eq!(cache.incr(&KEY, 1), None)),
    ("get", |cache| assert_eq!(cache.get(&KEY), None)),
    ("peek", |cache| assert_eq!(cache.peek(&KEY), None)),
    ("a write elsewhere", |cache| {
        let _ = cache.insert(KEY + 1, 9);
    }),
    ("run_pending", |cache| {
        let _ = cache.run_pending(100);
    }),
];

/// Runs `act` after each poll of a load with a follower, and hands on what the two came to.
fn at_each_step(
    name: &str,
    act: fn(&Numbers),
    check: impl Fn(&Numbers, &mut Hand<'_, u64>, &mut Hand<'_, u64>, &str),
) {
    for polls in 1..=POLLS {
        let cache = numbers();
        let mut leader = Hand::new(slow(&cache, 1));
        for _ in 0..polls {
            assert!(leader.poll().is_pending());
        }
        let mut follower = waiting(&cache, 2);
        act(&cache);
        let step = format!("{name} after poll {polls}");
        check(&cache, &mut leader, &mut follower, &step);
        at_rest(&cache);
    }
}

/// Who had joined gets the loaded value; it is not published; who comes later loads anew.
#[test]
fn a_removal_at_each_step_keeps_the_load_out_of_the_cache() {
    for (name, act) in REMOVALS {
        at_each_step(name, act, |cache, leader, follower, step| {
            assert!(follower.poll().is_pending(), "{step}: it waits on");
            assert_eq!((run_out(leader), follower.ready()), (1, 1), "{step}");
            assert_eq!(cache.get(&KEY), None, "{step}: published");
            let stats = cache.stats();
            assert_eq!((stats.unpublished(), stats.detached()), (1, 1), "{step}");
        });
        at_each_step(name, act, |cache, leader, follower, step| {
            assert_eq!(cache.get_or_load(&KEY, || 5), 5, "{step}: joined the past");
            assert_eq!((run_out(leader), follower.ready()), (1, 1), "{step}");
            assert_eq!(cache.get(&KEY), Some(5), "{step}: overwritten");
        });
    }
}

/// Two flights of one key stand at once: the revoked one ends without harm to the other.
#[test]
fn a_revoked_load_ends_beside_the_new_one() {
    for (name, act) in REMOVALS {
        at_each_step(name, act, |cache, leader, follower, step| {
            let gate = Gate::default();
            let mut later = held(cache, &gate, 5);
            let mut joined = waiting(cache, 6);
            assert_eq!((run_out(leader), follower.ready()), (1, 1), "{step}");
            assert!(joined.poll().is_pending(), "{step}: it joined the new one");
            gate.open();
            assert_eq!((later.ready(), joined.ready()), (5, 5), "{step}");
            assert_eq!(cache.get(&KEY), Some(5), "{step}");
        });
    }
}

/// Who had joined gets the written value, at once; the leader gets its own.
#[test]
fn a_write_at_each_step_wins_over_the_load() {
    for (name, act) in WRITES {
        at_each_step(name, act, |cache, leader, follower, step| {
            assert_eq!(follower.wakes(), 1, "{step}");
            assert_eq!(follower.ready(), 9, "{step}");
            assert_eq!(run_out(leader), 1, "{step}");
            assert_eq!(cache.get(&KEY), Some(9), "{step}: overwritten");
        });
    }
}

#[test]
fn what_changes_nothing_revokes_nothing() {
    for (name, act) in NEITHER {
        at_each_step(name, act, |cache, leader, follower, step| {
            assert!(follower.poll().is_pending(), "{step}");
            assert_eq!((run_out(leader), follower.ready()), (1, 1), "{step}");
            assert_eq!(cache.get(&KEY), Some(1), "{step}: revoked");
        });
    }
}

/// What a `compute` would remove dies before it can, and a load begins: nothing is left to remove.
#[test]
fn a_removal_of_what_has_died_meanwhile_revokes_nothing() {
    for (stale, by_time) in [(false, false), (false, true), (true, false)] {
        let (cache, time) = timed(|builder| match stale {
            true => builder.stale_if_error(9 * SECOND, SECOND),
            false => builder,
        });
        let tagged = || EntryOptions::new().tag("red").time_to_live(SECOND);
        let (gate, mut load) = (Gate::default(), None);
        cache.insert_with(KEY, 9, tagged()).expect("a small value");
        let computed = cache.compute(&KEY, |old| {
            if old.is_some() {
                match by_time {
                    true => time.pass(SECOND),
                    false => cache.invalidate_tag("red"),
                }
                load = Some(held(&cache, &gate, 1));
            }
            Compute::Remove
        });
        let case = format!("stale: {stale}, by time: {by_time}");
        assert_eq!((computed.old, computed.new), (None, None), "{case}");
        gate.open();
        assert_eq!(load.expect("begun").ready(), 1, "{case}");
        assert_eq!(cache.get(&KEY), Some(1), "{case}: revoked");
    }
}

/// What is dead and not yet swept is nothing to remove, either, where stale values are kept.
#[test]
fn a_removal_of_what_is_dead_revokes_nothing() {
    let (cache, _) = timed(|builder| builder.stale_if_error(9 * SECOND, SECOND));
    let gate = Gate::default();
    cache
        .insert_with(KEY, 9, EntryOptions::new().tag("red"))
        .expect("a small value");
    cache.invalidate_tag("red");
    let mut load = held(&cache, &gate, 1);
    let computed = cache.compute(&KEY, |_| Compute::Remove);
    assert_eq!((computed.old, computed.new), (None, None));
    gate.open();
    assert_eq!(load.ready(), 1);
    assert_eq!(cache.get(&KEY), Some(1), "revoked");
}

/// A thread that waits for a load is told of a write as a task is.
#[test]
fn a_waiting_thread_gets_the_written_value() {
    let (cache, gate) = (numbers(), Gate::default());
    let mut leader = held(&cache, &gate, 1);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| cache.get_or_load(&KEY, || 2));
        until_joined(&cache, 1);
        cache.insert(KEY, 9);
        assert_eq!(thread.join().expect("no panic"), 9);
    });
    gate.open();
    assert_eq!(leader.ready(), 1);
    assert_eq!(cache.get(&KEY), Some(9));
    at_rest(&cache);
}

/// A removal, then a write, then a removal, all during one load: the last one decides.
#[test]
fn several_changes_during_one_load_apply_in_order() {
    let (cache, gate, runs) = (numbers(), Gate::default(), Runs::default());
    let mut leader = held(&cache, &gate, 1);
    cache.remove(&KEY);
    cache.insert(KEY, 9);
    assert_eq!(cache.remove(&KEY), Some(9));
    gate.open();
    assert_eq!(leader.ready(), 1);
    assert_eq!(cache.get(&KEY), None);
    let load = || runs.next() as u64;
    assert_eq!(cache.get_or_load(&KEY, load), 1);
    at_rest(&cache);
}

/// A loader that writes its own key: the written value stands, the caller gets the loaded one.
#[test]
fn a_loader_may_write_its_own_key() {
    let cache = numbers();
    let value = cache.get_or_load(&KEY, || {
        cache.insert(KEY, 9);
        1
    });
    assert_eq!((value, cache.get(&KEY)), (1, Some(9)));
    let value = cache.get_or_load(&(KEY + 1), || {
        cache.invalidate(&(KEY + 1));
        2
    });
    assert_eq!((value, cache.get(&(KEY + 1))), (2, None));
    at_rest(&cache);
}

/// What a predicate does to loads in flight: one that condemns nothing leaves them alone, and one that condemns takes
/// the right from those whose values it cannot judge. What a load brings meanwhile is judged like the rest.
#[test]
fn a_predicate_revokes_only_what_it_might_have_condemned() {
    let (cache, gate) = (numbers(), Gate::default());
    cache.insert(1, 10);
    let mut load = held(&cache, &gate, 5);
    assert_eq!(cache.retain(|_, _| true), 0);
    assert_eq!(cache.remove_if(&1, |_| false), None);
    gate.open();
    assert_eq!(load.ready(), 5);
    assert_eq!(cache.get(&KEY), Some(5), "nothing was condemned");
    at_rest(&cache);

    // Another entry is condemned; the load might be of that kind.
    cache.remove(&KEY);
    let gate = Gate::default();
    let mut load = held(&cache, &gate, 5);
    assert_eq!(cache.retain(|_, n| *n != 10), 1);
    gate.open();
    assert_eq!(load.ready(), 5);
    assert_eq!(cache.get(&KEY), None);
    at_rest(&cache);
    assert_eq!(cache.stats().unpublished_revoked(), 1);
}

#[test]
fn what_a_load_brings_during_a_retain_is_judged_like_the_rest() {
    for condemns in [true, false] {
        let (cache, gate) = (numbers(), Gate::default());
        cache.insert(1, 10);
        let mut load = Some(held(&cache, &gate, 5));
        let mut asked = Vec::new();
        let removed = cache.retain(|key, n| {
            asked.push((*key, *n));
            // The load ends while this is asked about another key.
            if let Some(mut load) = load.take() {
                gate.open();
                assert_eq!(load.ready(), 5);
            }
            *n != 10 && (*n != 5 || !condemns)
        });
        assert!(asked.contains(&(KEY, 5)), "{asked:?}");
        assert_eq!(removed, if condemns { 2 } else { 1 });
        assert_eq!(cache.get(&KEY), (!condemns).then_some(5));
        at_rest(&cache);
    }
}
