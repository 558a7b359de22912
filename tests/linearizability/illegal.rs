//! The checker checked: histories by hand, the illegal ones (H1 to H11) and their legal neighbours. A
//! checker that cannot fail proves nothing. (H12 is `come_to_rest` in `mix`; H13 says what is not
//! promised.)

use larder::RemovalCause::{Expired, Explicit, Invalidated, Replaced, Size};

use crate::history::{Act, Event, History, Life, Load, Target};
use crate::rules::judge;

const KEY: u32 = 7;

fn event(act: Act, call: u64, ret: u64) -> Event {
    Event {
        target: Target::Key(KEY),
        act,
        call,
        ret,
        low: 0,
        high: 0,
        revision: 0,
    }
}

/// `event`, by a clock that was between `low` and `high`.
fn at(low: u64, high: u64, event: Event) -> Event {
    Event { low, high, ..event }
}

fn put(value: u64, old: Option<u64>, call: u64, ret: u64) -> Event {
    let life = Life::PLAIN;
    event(Act::Put { value, life, old }, call, ret)
}

fn put_for(ttl: u64, value: u64, call: u64, ret: u64) -> Event {
    let life = Life {
        ttl: Some(ttl),
        ..Life::PLAIN
    };
    let old = None;
    event(Act::Put { value, life, old }, call, ret)
}

fn put_red(value: u64, call: u64, ret: u64) -> Event {
    let life = Life::tagged(1);
    let old = None;
    event(Act::Put { value, life, old }, call, ret)
}

fn read(value: impl Into<Option<u64>>, call: u64, ret: u64) -> Event {
    event(Act::Read(value.into()), call, ret)
}

fn line(cause: larder::RemovalCause, stamp: u64) -> Event {
    event(Act::Line(cause), stamp, stamp)
}

fn kill(tags: u8, call: u64, ret: u64) -> Event {
    let act = Act::Kill { tags };
    Event {
        target: Target::Everything,
        ..event(act, call, ret)
    }
}

fn given(value: u64, call: u64, ret: u64) -> Event {
    event(Act::Given(value), call, ret)
}

/// A load whose call was `call..ret` and whose loader ran one stamp after the one and before the other.
fn load(value: u64, call: u64, ret: u64) -> Load {
    Load {
        key: KEY,
        value,
        life: Life::PLAIN,
        revision: 0,
        call,
        start: call + 1,
        end: ret - 1,
        ret,
        low: 0,
        high: 0,
    }
}

fn is_legal(events: &[Event], loads: &[Load]) -> bool {
    let history = History {
        events: events.to_vec(),
        loads: loads.to_vec(),
    };
    judge(&history).is_ok()
}

fn assert_legal(events: &[Event], loads: &[Load]) {
    assert!(is_legal(events, loads), "rejected: {events:?} {loads:?}");
}

fn assert_illegal(events: &[Event], loads: &[Load]) {
    assert!(!is_legal(events, loads), "accepted: {events:?} {loads:?}");
}

const NONE: Option<u64> = None;

#[test]
fn h1_a_value_that_nobody_wrote_or_not_yet() {
    assert_illegal(&[read(1, 1, 2)], &[]);
    assert_illegal(&[read(1, 1, 2), put(1, None, 3, 4)], &[]);
    assert_legal(&[read(1, 1, 3), put(1, None, 2, 4)], &[]);
    assert_illegal(&[given(1, 1, 2)], &[load(1, 1, 5)]);
    assert_legal(&[given(1, 2, 6)], &[load(1, 1, 5)]);
}

#[test]
fn h2_a_value_that_is_gone() {
    let before = put(1, None, 1, 2);
    assert_illegal(&[before, line(Size, 3), read(1, 4, 5)], &[]);
    assert_legal(&[before, line(Size, 4), read(1, 3, 5)], &[]);
    let taken = event(Act::Take(Some(1)), 3, 5);
    assert_illegal(&[before, taken, line(Explicit, 4), read(1, 6, 7)], &[]);
    let replaced = put(2, Some(1), 3, 5);
    assert_illegal(&[before, replaced, line(Replaced, 4), read(1, 6, 7)], &[]);
    assert_legal(&[before, replaced, line(Replaced, 4), read(2, 6, 7)], &[]);
}

#[test]
fn h3_two_adds_that_both_win() {
    assert_illegal(&[put(1, None, 1, 4), put(2, None, 2, 3)], &[]);
    let invalidated = event(Act::Discard(true), 5, 7);
    let between = [invalidated, line(Explicit, 6)];
    let first = put(1, None, 1, 4);
    assert_legal(&[first, between[0], between[1], put(2, None, 8, 9)], &[]);
    assert_legal(&[first, line(Size, 5), put(2, None, 4, 9)], &[]);
}

#[test]
fn h4_an_add_that_fails_on_nothing() {
    // A failed `add` reads the value that was there.
    assert_illegal(&[put(1, None, 1, 2), line(Size, 3), read(1, 4, 5)], &[]);
    assert_illegal(&[event(Act::Has(true), 1, 2)], &[]);
}

#[test]
fn h5_a_value_that_vanished() {
    assert_illegal(&[put(1, None, 1, 2), read(NONE, 3, 4)], &[]);
    assert_illegal(&[put(1, None, 1, 2), put(2, None, 3, 4)], &[]);
    assert_illegal(&[put(1, None, 1, 2), event(Act::Discard(false), 3, 4)], &[]);
    assert_legal(&[put(1, None, 1, 4), read(NONE, 2, 3)], &[]);
    // A line does not excuse a miss before it.
    assert_illegal(&[put(1, None, 1, 2), read(NONE, 3, 4), line(Size, 5)], &[]);
}

#[test]
fn h6_a_value_past_its_deadline() {
    let before = put_for(10, 1, 1, 2);
    assert_illegal(&[before, at(10, 10, read(1, 3, 4))], &[]);
    assert_legal(&[before, at(9, 10, read(1, 3, 4))], &[]);
    assert_legal(&[before, at(9, 10, read(NONE, 3, 4))], &[]);
    assert_illegal(&[before, at(0, 9, read(NONE, 3, 4))], &[]);
    // Once expired it stays so.
    let missed = at(9, 10, read(NONE, 3, 4));
    assert_illegal(&[before, missed, at(9, 10, read(1, 5, 6))], &[]);
    // It is not reclaimed for its date before that.
    assert_illegal(&[before, at(9, 9, line(Expired, 3))], &[]);
    assert_legal(&[before, at(9, 10, line(Expired, 3))], &[]);
    // A touch lengthens its life, and its deadline is known as well as the clock was.
    let touched = at(9, 11, event(Act::Touch { ttl: Some(10) }, 3, 4));
    assert_legal(&[before, touched, at(20, 20, read(1, 5, 6))], &[]);
    assert_illegal(&[before, touched, at(21, 21, read(1, 5, 6))], &[]);
}

#[test]
fn h7_what_was_loaded_before_an_invalidation() {
    let invalidated = event(Act::Discard(false), 4, 5);
    assert_illegal(&[invalidated, read(1, 8, 9)], &[load(1, 1, 7)]);
    assert_illegal(&[invalidated, given(1, 6, 9)], &[load(1, 1, 8)]);
    // A load that began after it may be served.
    assert_legal(
        &[event(Act::Discard(false), 1, 2), read(1, 8, 9)],
        &[load(1, 3, 7)],
    );
    // By the database, too: an old revision is stale however the stamps stand.
    let mut committed = event(Act::Discard(false), 1, 3);
    committed.revision = 5;
    assert_illegal(&[committed, read(1, 8, 9)], &[load(1, 2, 7)]);
}

#[test]
fn h7_a_load_never_covers_a_write() {
    let written = put(2, None, 4, 5);
    assert_illegal(&[written, read(1, 8, 9)], &[load(1, 1, 7)]);
    assert_illegal(&[written, read(NONE, 8, 9)], &[load(1, 1, 7)]);
    assert_legal(&[written, read(2, 8, 9)], &[load(1, 1, 7)]);
}

#[test]
fn h8_what_was_loaded_before_a_clear_or_a_tag_moved() {
    assert_illegal(&[kill(0, 4, 5), read(1, 8, 9)], &[load(1, 1, 7)]);
    let red = Load {
        life: Life::tagged(1),
        ..load(1, 1, 7)
    };
    assert_illegal(&[kill(1, 4, 5), read(1, 8, 9)], &[red]);
    assert_legal(&[kill(2, 4, 5), read(1, 8, 9)], &[red]);
    // Stored values die with their tag, and with no other.
    assert_illegal(&[put_red(1, 1, 2), kill(1, 3, 4), read(1, 5, 6)], &[]);
    assert_illegal(&[put_red(1, 1, 2), kill(2, 3, 4), read(NONE, 5, 6)], &[]);
    assert_legal(&[put_red(1, 1, 2), kill(3, 3, 4), read(NONE, 5, 6)], &[]);
}

#[test]
fn h8_one_clear_kills_once() {
    // The second write found the first one dead, so it came after the clear.
    let dead = line(Invalidated, 5);
    let lost = [
        put(1, None, 1, 2),
        kill(0, 3, 10),
        put(2, None, 4, 6),
        dead,
        read(NONE, 7, 8),
    ];
    assert_illegal(&lost, &[]);
    // And one that replaced a live value came before it.
    let survived = [
        put(1, None, 1, 2),
        kill(0, 3, 8),
        put(2, Some(1), 4, 6),
        read(2, 9, 10),
    ];
    assert_illegal(&[&survived[..], &[line(Replaced, 5)]].concat(), &[]);
}

#[test]
fn h9_two_loaders_at_once() {
    assert_illegal(&[], &[load(1, 1, 9), load(2, 2, 8)]);
    assert_legal(
        &[event(Act::Discard(false), 4, 5)],
        &[load(1, 1, 12), load(2, 6, 10)],
    );
    // Nobody knows the tags of a value that is not there yet.
    assert_illegal(&[kill(1, 4, 5)], &[load(1, 1, 12), load(2, 6, 10)]);
}

#[test]
fn h10_who_joins_late_is_not_given_the_older_load() {
    let removed = event(Act::Take(None), 4, 5);
    assert_illegal(&[removed, given(1, 6, 9)], &[load(1, 1, 8)]);
    // Who had joined before may be.
    assert_legal(&[removed, given(1, 3, 9)], &[load(1, 1, 8)]);
}

#[test]
fn h11_a_value_that_leaves_twice() {
    let before = put(1, None, 1, 2);
    assert_illegal(&[before, line(Size, 3), line(Size, 4)], &[]);
    assert_illegal(&[before, line(Size, 3), at(9, 9, line(Expired, 4))], &[]);
    assert_illegal(&[before, line(Invalidated, 3)], &[]);
    assert_legal(&[before, kill(0, 3, 5), line(Invalidated, 4)], &[]);
    let taken = event(Act::Take(Some(1)), 3, 6);
    assert_legal(&[before, taken, line(Explicit, 4)], &[]);
    assert_illegal(&[before, taken], &[]);
    assert_illegal(&[before, taken, line(Explicit, 4), line(Explicit, 5)], &[]);
    assert_illegal(&[before, taken, line(Explicit, 7)], &[]);
}

#[test]
fn a_load_that_nothing_revoked_is_stored() {
    assert_illegal(&[read(NONE, 6, 7)], &[load(1, 1, 5)]);
    assert_legal(&[read(1, 6, 7)], &[load(1, 1, 5)]);
    // Revoked, it may be stored or not, as the one or the other came first.
    assert_legal(&[kill(0, 2, 6), read(NONE, 7, 8)], &[load(1, 1, 5)]);
}

#[test]
fn counters_and_refused_writes() {
    let counted = |sum| event(Act::Incr(sum), 3, 4);
    assert_legal(&[put(1, None, 1, 2), counted(Some(2)), read(2, 5, 6)], &[]);
    assert_illegal(&[put(1, None, 1, 2), counted(Some(2)), read(1, 5, 6)], &[]);
    assert_illegal(&[put(1, None, 1, 2), counted(Some(3))], &[]);
    assert_illegal(&[put(1, None, 1, 2), counted(None)], &[]);
    let refused = [event(Act::Refuse, 3, 5), line(Explicit, 4)];
    assert_illegal(
        &[put(1, None, 1, 2), refused[0], refused[1], read(1, 6, 7)],
        &[],
    );
    assert_legal(
        &[put(1, None, 1, 2), refused[0], refused[1], read(NONE, 6, 7)],
        &[],
    );
}

/// A write's line about the dead value it found is stamped late in its visit: a tag may move before.
#[test]
fn a_dead_value_makes_place_for_a_write() {
    let dead = [put_red(1, 1, 2), kill(1, 3, 4)];
    let stored = |tail: &[Event]| [&dead[..], &[put(2, None, 5, 12)], tail].concat();
    assert_legal(&stored(&[line(Invalidated, 10), read(2, 13, 14)]), &[]);
    assert_legal(
        &stored(&[kill(0, 7, 8), line(Invalidated, 10), read(NONE, 13, 14)]),
        &[],
    );
    assert_illegal(
        &stored(&[kill(2, 7, 8), line(Invalidated, 10), read(NONE, 13, 14)]),
        &[],
    );
    // The line is owed, by this call.
    assert_illegal(&stored(&[read(2, 13, 14)]), &[]);
    assert_illegal(&stored(&[read(2, 11, 14), line(Invalidated, 13)]), &[]);
    assert_illegal(&stored(&[line(Invalidated, 13)]), &[]);
}

/// More events at once than a word has bits: the search's memory must not mix them up.
#[test]
fn a_wide_history_is_searched_to_its_end() {
    let mut events = vec![put(1, None, 1, 1000)];
    for n in 0..200 {
        events.push(read(NONE, 2 + n, 400 + n));
    }
    assert_legal(&events, &[]);
    events.push(read(2, 300, 800));
    assert_illegal(&events, &[]);
}
