//! What comes between a refresh and its end takes its right to publish away, as with any load.
//!
//! (A canary of these tests: publish an early refresh over an invalidation.)

use larder::{EntryOptions, Loaded};

use crate::executor::{Gate, Hand};
use crate::{KEY, Numbers, at_rest, held, in_the_window, served};

/// What comes between, and its name.
type Between = (&'static str, fn(&Numbers));

/// Does `between` while a refresh is under way that will bring 2; what the cache then holds.
fn after(between: impl FnOnce(&Numbers)) -> Option<u64> {
    let (cache, _time) = in_the_window();
    let gate = Gate::default();
    let mut elected = held(&cache, &gate, 2);
    between(&cache);
    gate.open();
    // Whoever ran the loader gets what it loaded, whatever came between.
    assert_eq!(elected.ready(), 2);
    at_rest(&cache);
    cache.get(&KEY)
}

#[test]
fn nothing_is_published_over_an_invalidation() {
    assert_eq!(after(|_| ()), Some(2), "the refresh by itself");
    let table: [Between; 6] = [
        ("touch with no time", |cache| {
            assert!(cache.touch(&KEY, Some(std::time::Duration::ZERO)));
        }),
        ("remove", |cache| assert_eq!(cache.remove(&KEY), Some(1))),
        ("invalidate", |cache| assert!(cache.invalidate(&KEY))),
        ("clear", Numbers::clear),
        ("remove_if", |cache| {
            assert_eq!(cache.remove_if(&KEY, |value| *value == 1), Some(1));
        }),
        ("retain", |cache| assert_eq!(cache.retain(|_, _| false), 1)),
    ];
    for (name, between) in table {
        assert_eq!(after(between), None, "{name}");
    }
}

#[test]
fn nothing_is_published_over_a_write() {
    assert_eq!(
        after(|cache| assert_eq!(cache.insert(KEY, 3), Some(1))),
        Some(3)
    );
    assert_eq!(
        after(|cache| assert_eq!(cache.replace(KEY, 3), Ok(1))),
        Some(3)
    );
    assert_eq!(
        after(|cache| {
            cache.compute(&KEY, |value| larder::Compute::Put(value.unwrap() + 9));
        }),
        Some(10)
    );
    // Neither of these writes anything.
    assert_eq!(
        after(|cache| assert!(!cache.add(KEY, 3).is_stored())),
        Some(2)
    );
    assert_eq!(
        after(|cache| {
            cache.compute(&KEY, |_| larder::Compute::Keep);
        }),
        Some(2)
    );
}

#[test]
fn a_tag_of_the_value_at_hand_or_of_the_answer_takes_the_right_away() {
    for named_by in ["the value", "the answer"] {
        let (cache, time) = in_the_window();
        if named_by == "the value" {
            let options = EntryOptions::new()
                .tag("t")
                .time_to_live(crate::SECOND)
                .load_time(crate::MILLI);
            cache.insert_with(KEY, 1, options).unwrap();
            time.advance(750 * crate::MILLI);
        }
        let gate = Gate::default();
        let mut elected = Hand::pending(cache.get_or_load_with_async(&KEY, || async {
            gate.opened().await;
            Ok::<_, String>(Loaded::new(2).tag("t"))
        }));
        cache.invalidate_tag("t");
        gate.open();
        assert_eq!(elected.ready().unwrap(), 2);
        let left = if named_by == "the value" {
            None
        } else {
            Some(1)
        };
        assert_eq!(cache.get(&KEY), left, "named by {named_by}");
        at_rest(&cache);
    }
}

#[test]
fn a_touch_revokes_nothing() {
    let between = |cache: &Numbers| assert!(cache.touch(&KEY, Some(9 * crate::SECOND)));
    assert_eq!(after(between), Some(2));
}

#[test]
fn a_removed_value_is_not_served_while_its_refresh_is_under_way() {
    let (cache, _time) = in_the_window();
    let gate = Gate::default();
    let mut elected = held(&cache, &gate, 2);
    assert_eq!(served(&cache), 1);
    assert!(cache.invalidate(&KEY));
    assert_eq!(cache.get(&KEY), None);
    // A load that begins now is a new one.
    let mut fresh = Hand::new(cache.get_or_load_async(&KEY, || async { 3 }));
    assert_eq!(fresh.ready(), 3);
    gate.open();
    assert_eq!(elected.ready(), 2);
    assert_eq!(cache.get(&KEY), Some(3));
    at_rest(&cache);
}
