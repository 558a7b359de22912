//! Runs the operation × state table (`table.rs`): sets the state up, calls the operation, looks.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use larder::{Cache, CacheBuilder, Compute, EntryOptions, Loaded, ManualClock, TryLoadError};

use crate::aging;
use crate::support::eventually;
use crate::table::{
    COMPUTED, KEY, LATER, LOADED, NEGATIVE, OLD, Place, Row, TABLE, TAG, TTL, WINDOW, word,
};

/// What the key is before the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Fresh,
    Expired,
    DeadByTag,
    DeadBySpace,
    DeadByClear,
    Negative,
    InFlight,
    /// A live value, while a `compute` that lost its races holds the turn.
    FreshInTurn,
}

/// The columns: one text, and the states that it holds for.
const PAST: [State; 4] = [
    State::Expired,
    State::DeadByTag,
    State::DeadBySpace,
    State::DeadByClear,
];

pub(crate) type Builder = CacheBuilder<&'static str, i64>;

impl Place {
    pub(crate) fn new(set: impl FnOnce(Builder) -> Builder) -> Self {
        let time = ManualClock::new();
        let builder = Cache::builder()
            .max_capacity(100)
            .error_time_to_live(NEGATIVE)
            .clock(time.clock());
        let root = set(builder).build().expect("the configuration is valid");
        let view = root.namespace("space");
        Place { root, view, time }
    }

    pub(crate) fn store_old(&self) {
        let options = EntryOptions::new().time_to_live(TTL).tag(TAG);
        let options = options.load_time(aging::LOAD_TIME);
        let stored = self.view.insert_with("key", OLD, options);
        assert_eq!(stored.map_err(|rejected| rejected.reason), Ok(None));
    }

    /// A cell's cache, in a state that needs no other thread. With `windows`, values are loaded early and
    /// kept when they are stale.
    fn in_state(state: State, windows: bool) -> Self {
        let place = Place::new(|builder| match windows {
            true => aging::with_windows(builder),
            false => builder,
        });
        if !matches!(state, State::Absent | State::Negative | State::InFlight) {
            place.store_old();
        }
        if windows && PAST.contains(&state) {
            // Stale now, which is to be no different once it is dead, or its window over, too.
            place.time.advance(TTL);
        }
        match state {
            State::Expired => place.time.advance(if windows { WINDOW } else { TTL }),
            State::DeadByTag => place.root.invalidate_tag(TAG),
            State::DeadBySpace => place.view.clear(),
            State::DeadByClear => place.root.clear(),
            State::Negative => {
                let failed = place.view.try_get_or_load(KEY, || Err::<i64, _>("no"));
                assert!(matches!(failed, Err(TryLoadError::Own("no"))));
            }
            _ => {}
        }
        place
    }

    fn after(&self) -> &'static str {
        self.view.peek(KEY).map_or("-", word)
    }

    /// Whether a failure is remembered: a fallible load runs no loader then.
    fn failure_is_remembered(&self) -> bool {
        let mut ran = false;
        let answer = self.view.try_get_or_load(KEY, || {
            ran = true;
            Err::<i64, _>("asked")
        });
        !ran && answer.is_err()
    }
}

fn with_and_without_windows() -> impl Iterator<Item = (&'static Row, bool)> {
    TABLE.iter().flat_map(|row| [(row, false), (row, true)])
}

fn check(row: &Row, state: State, got: &str, want: &str) {
    assert_eq!(got, want, "{} in state {state:?}", row.name);
}

/// The columns in which nothing else is going on. Windows that are not open make no difference.
#[test]
fn every_operation_in_every_state_at_rest() {
    for (row, windows) in with_and_without_windows() {
        let rest = [(State::Absent, row.absent), (State::Fresh, row.fresh)];
        let past = PAST.map(|state| (state, row.past));
        for (state, want) in rest.into_iter().chain(past) {
            let place = Place::in_state(state, windows);
            let result = (row.call)(&place);
            check(row, state, &format!("{result} → {}", place.after()), want);
            #[cfg(debug_assertions)]
            place.root.__validate();
        }
    }
}

#[test]
fn every_operation_on_a_remembered_failure() {
    for (row, windows) in with_and_without_windows() {
        let place = Place::in_state(State::Negative, windows);
        let result = (row.call)(&place);
        let after = place.after();
        // A live value hides what is remembered, so its time is let pass, which revokes nothing.
        if place.view.touch(KEY, Some(Duration::from_millis(1))) {
            place.time.advance(WINDOW + Duration::from_millis(1));
        }
        let forgotten = if place.failure_is_remembered() {
            ""
        } else {
            " !"
        };
        let got = format!("{result} → {after}{forgotten}");
        check(row, State::Negative, &got, row.negative);
    }
}

/// A load that stays in its loader until it is released.
struct Parked {
    place: Place,
    release: Sender<()>,
    gate: Receiver<()>,
    entered: Sender<()>,
    running: Receiver<()>,
}

impl Parked {
    fn new(place: Place) -> Self {
        let (release, gate) = channel();
        let (entered, running) = channel();
        Parked {
            place,
            release,
            gate,
            entered,
            running,
        }
    }
}

/// Runs the operation beside a load in flight that has one waiter. Returns what the operation, a waiter
/// from before, and a caller that came after it were given, and what is there at the end.
fn beside_a_load(row: &Row, windows: bool, later: bool) -> [String; 4] {
    let parked = Parked::new(Place::in_state(State::InFlight, windows));
    let Parked {
        place,
        release,
        gate,
        entered,
        running,
    } = parked;
    let place = &place;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            place.view.get_or_load_with(KEY, || {
                entered.send(()).expect("the test listens");
                gate.recv().expect("the test releases");
                Ok::<_, &str>(Loaded::new(LOADED).tag(TAG))
            })
        });
        running.recv().expect("the loader runs");
        let before = scope.spawn(|| place.view.get_or_load(KEY, || unreachable!("it waits")));
        eventually("the waiter joins", || place.root.stats().joined() == 1);
        // The operation may itself wait for the load; then it is released meanwhile.
        let operating = scope.spawn(|| (row.call)(place));
        eventually("the operation ends or waits", || {
            operating.is_finished() || place.root.stats().joined() == 2
        });
        let late = later.then(|| {
            let joined = place.root.stats().joined();
            let late = scope.spawn(|| word(place.view.get_or_load(KEY, || LATER)).to_owned());
            eventually("the later caller ends or waits", || {
                late.is_finished() || place.root.stats().joined() > joined
            });
            late
        });
        release.send(()).expect("the loader waits for it");
        let late = late.map_or(String::new(), |late| late.join().expect("no panic"));
        let answer = operating.join().expect("no panic");
        let before = word(before.join().expect("no panic")).to_owned();
        // All threads but the leader have ended; its value is published once no load is left.
        eventually("the load ends", || place.root.__flights().1 == 0);
        [answer, before, late, place.after().to_owned()]
    })
}

#[test]
fn every_operation_beside_a_load_in_flight() {
    for (row, windows) in with_and_without_windows() {
        let [answer, before, _, after] = beside_a_load(row, windows, false);
        let got = format!("{answer} → {after} | {before}");
        check(row, State::InFlight, &got, row.in_flight);
    }
}

/// Nothing loaded before an operation that revokes is served to a caller that comes after it.
#[test]
fn who_comes_after_a_revocation_is_never_given_the_revoked_value() {
    for (row, windows) in with_and_without_windows() {
        let [_, _, late, after] = beside_a_load(row, windows, true);
        let (_, then) = row.in_flight.split_once("→ ").expect("a cell");
        let want = match then.split_once(" |").expect("a cell of a flight").0 {
            "-" => "later",
            found => found,
        };
        check(
            row,
            State::InFlight,
            &format!("{late} {after}"),
            &format!("{want} {want}"),
        );
    }
}

/// Runs the operation while a computation that has lost a race has its turn with the key, which is live. Returns
/// the answer, what is there at the end, and how often the computation was asked again.
fn beside_a_turn(row: &Row, windows: bool) -> (String, String, u32) {
    let parked = Parked::new(Place::in_state(State::FreshInTurn, windows));
    let Parked {
        place,
        release,
        gate,
        entered,
        running,
    } = parked;
    let place = &place;
    std::thread::scope(|scope| {
        let computing = scope.spawn(move || {
            let mut asked = 0;
            place.view.compute(KEY, |_| {
                asked += 1;
                match asked {
                    // Lose the race, without leaving a trace but another version.
                    1 => place.store_again(),
                    2 => {
                        entered.send(()).expect("the test listens");
                        gate.recv().expect("the test releases");
                    }
                    _ => {}
                }
                Compute::Put(COMPUTED)
            });
            asked
        });
        running.recv().expect("the computation has its turn");
        assert_eq!(
            place.root.__flights(),
            (1, 0),
            "a turn is a flight, and no load"
        );
        // The operation may wait for the turn; then it is over meanwhile.
        let operating = scope.spawn(|| (row.call)(place));
        eventually("the operation ends or waits", || {
            operating.is_finished() || place.root.__waiting() > 0
        });
        release.send(()).expect("the computation waits for it");
        let asked: u32 = computing.join().expect("no panic");
        let answer = operating.join().expect("no panic");
        (answer, place.after().to_owned(), asked - 2)
    })
}

impl Place {
    /// Another version of the same old value.
    fn store_again(&self) {
        let options = EntryOptions::new().time_to_live(TTL).tag(TAG);
        let _ = self.view.insert_with("key", OLD, options);
    }
}

#[test]
fn every_operation_beside_a_computation_that_has_its_turn() {
    for (row, windows) in with_and_without_windows() {
        let (answer, after, again) = beside_a_turn(row, windows);
        let again = match again {
            0 => "kept",
            1 => "asked again",
            _ => "asked too often",
        };
        let got = format!("{answer} → {after} | {again}");
        check(row, State::FreshInTurn, &got, row.in_turn);
    }
}

/// The page that people read shows the very tables that are run, here and in `aging.rs`.
#[test]
fn the_printed_tables_are_those_that_are_run() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md");
    let page = std::fs::read_to_string(page).expect("ARCHITECTURE.md beside the manifest");
    let lines = TABLE.iter().map(|row| {
        let cells = [
            row.absent,
            row.fresh,
            row.past,
            row.negative,
            row.in_flight,
            row.in_turn,
        ];
        line(row.name, &cells)
    });
    for line in lines.chain(aging::lines()) {
        assert!(
            page.lines().any(|other| other == line),
            "ARCHITECTURE.md, \"Every operation in every state\", lacks this line:\n{line}"
        );
    }
}

/// A row as it is printed.
pub(crate) fn line(name: &str, cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {name} | {} |", cells.join(" | "))
}
