//! The search of Wing and Gong for an order of one key's events, with Lowe's memory of what was tried.
//!
//! An event may come next if none that is still to come had returned before it was called. A
//! configuration is the set of events done and the state they led to; each is tried once.

use std::collections::HashSet;
use std::fmt::Write;

use crate::history::Event;
use crate::model::{State, is_read, step};

/// The events done: all of the first `full` words of 64, and those whose bit is set further on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Done {
    full: usize,
    words: Vec<u64>,
}

impl Done {
    fn contains(&self, event: usize) -> bool {
        match (event / 64).checked_sub(self.full) {
            None => true,
            Some(word) => self
                .words
                .get(word)
                .is_some_and(|word| word >> (event % 64) & 1 == 1),
        }
    }

    fn with(&self, event: usize) -> Done {
        let mut more = self.clone();
        let word = event / 64 - more.full;
        if more.words.len() <= word {
            more.words.resize(word + 1, 0);
        }
        more.words[word] |= 1 << (event % 64);
        let filled = more.words.iter().take_while(|word| **word == u64::MAX);
        let filled = filled.count();
        more.words.drain(..filled);
        more.full += filled;
        more
    }

    fn count(&self) -> usize {
        let ones = self.words.iter().map(|word| word.count_ones() as usize);
        64 * self.full + ones.sum::<usize>()
    }

    fn first_undone(&self) -> usize {
        let ones = self.words.first().map_or(0, |word| word.trailing_ones());
        64 * self.full + ones as usize
    }
}

/// Finds an order in which the events, all of one key, are legal.
///
/// # Errors
/// There is none: with the furthest that the search came.
pub fn linearize(mut events: Vec<Event>, first: State) -> Result<(), String> {
    events.sort_by_key(|event| event.call);
    let mut tried = HashSet::new();
    let mut open = vec![(Done::default(), first)];
    let mut furthest = open[0].clone();
    while let Some((done, state)) = open.pop() {
        let count = done.count();
        if count == events.len() {
            return Ok(());
        }
        if count > furthest.0.count() {
            furthest = (done.clone(), state);
        }
        let next = follow(&events, &done, state);
        for configuration in next {
            if tried.insert(configuration.clone()) {
                open.push(configuration);
            }
        }
    }
    Err(explain(&events, &furthest.0, furthest.1))
}

/// The configurations that one more event leads to.
fn follow(events: &[Event], done: &Done, state: State) -> Vec<(Done, State)> {
    let mut next = Vec::new();
    let mut earliest_return = u64::MAX;
    for (at, event) in events.iter().enumerate().skip(done.first_undone()) {
        if event.call > earliest_return {
            break;
        }
        if done.contains(at) {
            continue;
        }
        earliest_return = earliest_return.min(event.ret);
        for led_to in step(state, event).into_iter().flatten() {
            if led_to == state && is_read(event) {
                return vec![(done.with(at), state)];
            }
            next.push((done.with(at), led_to));
        }
    }
    // The search takes the last one first: let that be the earliest, which is most often right.
    next.reverse();
    next
}

fn explain(events: &[Event], done: &Done, state: State) -> String {
    let stuck = done.first_undone();
    let mut text = format!(
        "no legal order: {} of {} events, then {state:?} fits none of\n",
        done.count(),
        events.len()
    );
    for (at, event) in events.iter().enumerate() {
        if at + 12 > stuck && at < stuck + 12 {
            let mark = if done.contains(at) { ' ' } else { '*' };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{mark} {event:?}");
        }
    }
    text
}
