//! A whole history judged: every key's order, and what no single key's state can tell, which is what
//! loads promise.
//!
//! | rule | history |
//! |---|---|
//! | an order exists for each key | H1 to H8, H11 |
//! | nothing loaded before a revocation is served to a later call | H7, H8, H10 |
//! | two loaders of a key overlap only around a revocation | H9 |
//! | removals pair with the calls that made them | H11 |

use std::collections::{BTreeSet, HashMap};

use larder::RemovalCause;

use crate::history::{Act, Event, History, Load, Target};
use crate::model::State;
use crate::search::linearize;

/// Judges a history.
///
/// # Errors
/// What is wrong with it, for the first key that something is wrong with.
pub fn judge(history: &History) -> Result<(), String> {
    let loads: HashMap<u64, &Load> = history
        .loads
        .iter()
        .map(|load| (load.value, load))
        .collect();
    let revokers: Vec<&Event> = history
        .events
        .iter()
        .filter(|event| event.revokes())
        .collect();
    nothing_stale(history, &loads, &revokers)?;
    one_loader(history, &revokers)?;
    for key in keys(history) {
        let events = events_of(history, key, &loads, &revokers);
        removals_pair(&events).map_err(|why| format!("key {key}: {why}"))?;
        let ordered = events
            .into_iter()
            .filter(|event| !is_paired(event))
            .collect();
        linearize(ordered, State::Absent).map_err(|why| format!("key {key}: {why}"))?;
    }
    Ok(())
}

fn keys(history: &History) -> BTreeSet<u32> {
    let touched = history
        .events
        .iter()
        .filter_map(|event| match event.target {
            Target::Key(key) => Some(key),
            _ => None,
        });
    touched
        .chain(history.loads.iter().map(|load| load.key))
        .collect()
}

/// One key's events, the publications of its loads among them.
fn events_of(
    history: &History,
    key: u32,
    loads: &HashMap<u64, &Load>,
    revokers: &[&Event],
) -> Vec<Event> {
    let own = history
        .events
        .iter()
        .filter(|event| event.target.covers(key));
    let calls = own.map(|event| match event.act {
        // Only who came before the load was over can have waited for it. Others found the value.
        Act::Given(value) if loads.get(&value).is_none_or(|load| event.call > load.ret) => Event {
            act: Act::Read(Some(value)),
            ..*event
        },
        _ => *event,
    });
    let own = history.loads.iter().filter(|load| load.key == key);
    let publications = own.map(|load| publication(load, revokers));
    calls.chain(publications).collect()
}

/// The end of a load. If nothing that revokes it overlaps its call, it has to be stored.
fn publication(load: &Load, revokers: &[&Event]) -> Event {
    let revoked = revokers.iter().any(|event| {
        event.revokes_load(load.key, load.life.tags)
            && event.call < load.ret
            && event.ret > load.call
    });
    Event {
        target: Target::Key(load.key),
        act: Act::Publish {
            value: load.value,
            life: load.life,
            must: !revoked,
        },
        call: load.end,
        ret: load.ret,
        low: load.low,
        high: load.high,
        revision: 0,
    }
}

/// Promise 4: nothing loaded before an invalidation is served to a call that began after it returned,
/// by the stamps and by what the database said.
fn nothing_stale(
    history: &History,
    loads: &HashMap<u64, &Load>,
    revokers: &[&Event],
) -> Result<(), String> {
    for event in &history.events {
        let Some(load) = event.served().and_then(|value| loads.get(&value)) else {
            continue;
        };
        if load.end > event.ret {
            return Err(format!("{event:?} serves what was loaded later: {load:?}"));
        }
        for revoker in revokers {
            let covers = revoker.ret < event.call && revoker.revokes_load(load.key, load.life.tags);
            let before = load.start < revoker.call || load.revision < revoker.revision;
            if covers && before {
                return Err(format!("{event:?} serves {load:?}, revoked by {revoker:?}"));
            }
        }
    }
    Ok(())
}

/// Promise 3: two loaders of a key run at once only if a revocation came between the moments at which
/// their callers took the lead: somewhere between call and start. That of a tag is no excuse: until the answer is there, nobody knows what tags it has.
fn one_loader(history: &History, revokers: &[&Event]) -> Result<(), String> {
    let mut by_key: HashMap<u32, Vec<&Load>> = HashMap::new();
    for load in &history.loads {
        by_key.entry(load.key).or_default().push(load);
    }
    for (key, mut loads) in by_key {
        loads.sort_by_key(|load| load.start);
        for (at, first) in loads.iter().enumerate() {
            let overlapping = loads[at + 1..].iter().filter(|load| load.start < first.end);
            for second in overlapping {
                let excused = revokers.iter().any(|revoker| {
                    revoker.revokes_load(key, 0)
                        && revoker.call < second.start
                        && revoker.ret > first.call.min(second.call)
                });
                if !excused {
                    return Err(format!("two loaders at once: {first:?} and {second:?}"));
                }
            }
        }
    }
    Ok(())
}

/// Lines that tell what a call did are paired with the call, and say nothing that it does not.
fn is_paired(event: &Event) -> bool {
    matches!(
        event.act,
        Act::Line(RemovalCause::Replaced | RemovalCause::Explicit)
    )
}

/// Each line about a replaced value belongs to one write, each about an explicit removal to one call
/// that removes; and the other way round.
fn removals_pair(events: &[Event]) -> Result<(), String> {
    let removes = |act: &Act| match act {
        Act::Put { old: Some(_), .. } | Act::Compute { old: Some(_), .. } => {
            Some((RemovalCause::Replaced, true))
        }
        Act::Take(Some(_)) | Act::Discard(true) => Some((RemovalCause::Explicit, true)),
        // Where a weigher is asked, it is written like any other value.
        Act::Incr(Some(_)) => Some((RemovalCause::Replaced, false)),
        // It does not say whether anything was there.
        Act::Refuse => Some((RemovalCause::Explicit, false)),
        _ => None,
    };
    for cause in [RemovalCause::Replaced, RemovalCause::Explicit] {
        let lines = || events.iter().filter(|event| event.act == Act::Line(cause));
        let calls = || {
            let removing = |event: &&Event| removes(&event.act).is_some_and(|(by, _)| by == cause);
            events.iter().filter(removing)
        };
        let certain = calls()
            .filter(|event| removes(&event.act) == Some((cause, true)))
            .count();
        let told = lines().count();
        if told < certain || told > calls().count() {
            return Err(format!(
                "{told} lines say {cause:?}, and {certain} calls did it"
            ));
        }
        for line in lines() {
            if !calls().any(|event| event.call < line.call && line.call < event.ret) {
                return Err(format!("no call made {line:?}"));
            }
        }
    }
    Ok(())
}
