//! What one key may do: a state, and where an event can lead from it.
//!
//! A value does not vanish. It is replaced or removed by a call, or killed by a `clear` or a tag, or
//! found past its date; or a line of the journal says that the cache let it go. A dead or expired value
//! still lies in its slot until a line (or nothing, if the history ends) tells that it was reclaimed.
//! That is how `Dead` differs from `Absent`, and how a line without a value is found out.
//!
//! A write that finds such a value unlinks it, and its line is stamped at the end of the write's own
//! visit to the shard. Other calls that need the lock cannot come between; a `clear` or a tag, which
//! need none, can. `Storing` is the state between the two.

use larder::RemovalCause;

use crate::history::{Act, Event, Life, NEVER};

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Its slot is empty.
    Absent,
    /// Its slot holds a value that may not be served any more.
    Dead,
    Live(Entry),
    /// Its slot has just been given a new value (`None`: killed already) by a call that returns at
    /// `until`; the line about what had lain there is still to come.
    Storing {
        entry: Option<Entry>,
        until: u64,
    },
}

/// A live value. Its deadline is known up to the turns of the clock during the call that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub value: u64,
    pub tags: u8,
    pub earliest: u64,
    pub latest: u64,
    /// Its life was said by who wrote it.
    pub own: bool,
}

impl Entry {
    fn stored(value: u64, life: Life, event: &Event) -> Entry {
        let mut entry = Entry {
            value,
            tags: life.tags,
            earliest: NEVER,
            latest: NEVER,
            own: life.own,
        };
        entry.renew(life.ttl, event);
        entry
    }

    fn renew(&mut self, ttl: Option<u64>, event: &Event) {
        self.earliest = ttl.map_or(NEVER, |ttl| event.low + ttl);
        self.latest = ttl.map_or(NEVER, |ttl| event.high + ttl);
    }

    /// Whether a call may still serve it: the clock at its call was before the deadline.
    fn may_live(&self, event: &Event) -> bool {
        event.low < self.latest
    }

    /// Whether a call may miss it for its date: the clock at its return had come to the deadline.
    fn may_expire(&self, event: &Event) -> bool {
        self.earliest != NEVER && event.high >= self.earliest
    }
}

/// Where an event can lead: nowhere (it is illegal here), or to one or two states.
pub type Next = [Option<State>; 2];

const ILLEGAL: Next = [None, None];

fn to(state: State) -> Next {
    [Some(state), None]
}

fn only_if(legal: bool, state: State) -> Next {
    if legal { to(state) } else { ILLEGAL }
}

/// A call that found nothing. A live value whose time may be up is dead from then on.
fn found_nothing(state: State, event: &Event) -> Next {
    match state {
        State::Live(entry) => only_if(entry.may_expire(event), State::Dead),
        State::Storing { .. } => ILLEGAL,
        state => to(state),
    }
}

/// Stores where nothing live is.
fn store(state: State, event: &Event, entry: Entry) -> Option<State> {
    let storing = State::Storing {
        entry: Some(entry),
        until: event.ret,
    };
    match state {
        State::Absent => Some(State::Live(entry)),
        State::Dead => Some(storing),
        State::Live(old) => old.may_expire(event).then_some(storing),
        State::Storing { .. } => None,
    }
}

/// A call that found a live value (this one, if it says so) and left `then`.
fn found(
    state: State,
    event: &Event,
    value: Option<u64>,
    then: impl FnOnce(Entry) -> State,
) -> Next {
    match state {
        // A read may have come before a `clear` that the line had to wait for.
        State::Storing {
            entry: Some(entry),
            until,
        } if is_read(event) && event.call < until && value == Some(entry.value) => {
            only_if(entry.may_live(event), state)
        }
        State::Live(entry) if value.is_none_or(|value| value == entry.value) => {
            only_if(entry.may_live(event), then(entry))
        }
        _ => ILLEGAL,
    }
}

/// What an event does to a key.
pub fn step(state: State, event: &Event) -> Next {
    let empty = state == State::Absent;
    let storing = matches!(state, State::Storing { .. });
    match event.act {
        Act::Read(Some(value)) => found(state, event, Some(value), State::Live),
        Act::Has(true) => found(state, event, None, State::Live),
        Act::Read(None) | Act::Has(false) | Act::Incr(None) => found_nothing(state, event),
        Act::Put { value, life, old } => {
            let stored = Entry::stored(value, life, event);
            match old {
                Some(_) => found(state, event, old, |_| State::Live(stored)),
                None => [store(state, event, stored), None],
            }
        }
        Act::Compute { value, ttl, old } => {
            let mut stored = Entry::stored(value, Life::by_default(ttl), event);
            match old {
                Some(_) => found(state, event, old, |old| {
                    stored.tags = old.tags;
                    State::Live(if old.own {
                        Entry { value, ..old }
                    } else {
                        stored
                    })
                }),
                None => [store(state, event, stored), None],
            }
        }
        Act::Refuse if empty => to(state),
        Act::Take(None) | Act::Discard(false) => only_if(empty, state),
        Act::Take(value @ Some(_)) => found(state, event, value, |_| State::Absent),
        Act::Refuse | Act::Discard(true) => found(state, event, None, |_| State::Absent),
        Act::Incr(Some(sum)) => found(state, event, Some(sum - 1), |entry| {
            State::Live(Entry {
                value: sum,
                ..entry
            })
        }),
        Act::Touch { ttl } => found(state, event, None, |mut entry| {
            entry.renew(ttl, event);
            entry.own = true;
            State::Live(entry)
        }),
        // Found, or waited for after finding nothing: then it is given whatever its time to live.
        Act::Given(value) => match found(state, event, Some(value), State::Live) {
            ILLEGAL => found_nothing(state, event),
            found => found,
        },
        Act::Publish { value, life, must } => {
            let stored = store(state, event, Entry::stored(value, life, event));
            [stored, (!must && !storing).then_some(state)]
        }
        Act::Kill { tags } => to(kill(state, tags)),
        Act::Line(cause) => line(state, event, cause),
    }
}

fn kill(state: State, tags: u8) -> State {
    let hits = |entry: Entry| tags == 0 || entry.tags & tags != 0;
    match state {
        State::Live(entry) if hits(entry) => State::Dead,
        State::Storing { entry, until } => State::Storing {
            entry: entry.filter(|entry| !hits(*entry)),
            until,
        },
        state => state,
    }
}

/// A line of the journal: the slot is empty from here on (or holds what was just stored), and what it
/// held was fit to leave so.
fn line(state: State, event: &Event, cause: RemovalCause) -> Next {
    let fits = match (state, cause) {
        (State::Absent, _) => false,
        // Only what was found past its date or killed is unlinked to make place for a write.
        (State::Storing { entry, until }, RemovalCause::Expired | RemovalCause::Invalidated) => {
            return only_if(event.call < until, entry.map_or(State::Dead, State::Live));
        }
        (State::Storing { .. }, _) => false,
        // Reclaimed. A value that died while its eviction was being decided may be called evicted.
        (State::Dead, _) => true,
        (State::Live(_), RemovalCause::Size) => true,
        (State::Live(entry), RemovalCause::Expired) => entry.may_expire(event),
        (State::Live(_), _) => false,
    };
    only_if(fits, State::Absent)
}

/// Whether the event changes no state that it is legal in, save that of a value past its date. Such an
/// event can be taken as soon as it is legal without a change: no order is lost by it.
pub fn is_read(event: &Event) -> bool {
    matches!(
        event.act,
        Act::Read(_) | Act::Has(_) | Act::Incr(None) | Act::Given(_)
    )
}
