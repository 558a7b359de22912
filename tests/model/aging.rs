//! The second operation × state table of ARCHITECTURE.md, run: a value that is to be loaded again before its
//! time is up, and one that is kept after it, each with and without a load that is to take its place.
//!
//! The words are those of `table.rs`, and `stale`, which is `old` after its time is up. What there is
//! afterwards is what a `get_with_freshness` finds. After the `|`: what a loading call gets that comes after the
//! operation, while the load from before it still runs. Nobody waits for that load, unless an invalidated
//! tag says that nothing is left to be served; `later` is such a call's own value.

use std::sync::mpsc::channel;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use larder::{Freshness, Loaded};

use crate::cells::{Builder, line};
use crate::support::eventually;
use crate::table::{KEY, LATER, LOADED, OLD, Place, TABLE, TAG, TTL, WINDOW, word};

pub(crate) const LOAD_TIME: Duration = Duration::from_secs(1);
/// So large that inside its window a value is early at every draw.
const ALWAYS: f64 = 1e9;
/// For so long a source that failed is left alone.
const REST: Duration = Duration::from_secs(5);

/// The cells of one operation of `TABLE`.
struct Aged {
    name: &'static str,
    /// Its time is nearly up.
    early: &'static str,
    /// Its time is nearly up, and it is being loaded again.
    refreshed: &'static str,
    /// Its time is up, and it is kept.
    stale: &'static str,
    /// It is stale, and it is being loaded again.
    revalidated: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Age {
    Early,
    Stale,
}

pub(crate) fn with_windows(builder: Builder) -> Builder {
    builder
        .early_expiration(ALWAYS)
        .stale_while_revalidate(WINDOW)
        .stale_if_error(WINDOW, REST)
}

/// The table as it is printed, line by line.
pub(crate) fn lines() -> impl Iterator<Item = String> {
    AGED.iter().map(|row| {
        let cells = [row.early, row.refreshed, row.stale, row.revalidated];
        line(row.name, &cells)
    })
}

/// Each operation with its cells, in both tables.
fn operations() -> impl Iterator<Item = (fn(&Place) -> String, &'static Aged)> {
    assert_eq!(AGED.len(), TABLE.len(), "operations in the two tables");
    TABLE.iter().zip(AGED).map(|(row, aged)| {
        assert_eq!(row.name, aged.name);
        (row.call, aged)
    })
}

impl Place {
    fn aged(age: Age, set: impl FnOnce(Builder) -> Builder) -> Self {
        let place = Place::new(|builder| set(with_windows(builder)));
        place.store_old();
        place.time.advance(match age {
            // Half a life is the longest window.
            Age::Early => TTL * 3 / 4,
            Age::Stale => TTL + WINDOW / 2,
        });
        place
    }

    fn left(&self) -> &'static str {
        match self.view.get_with_freshness(KEY) {
            None => "-",
            Some((value, Freshness::Stale { .. })) if word(value) == "old" => "stale",
            Some((_, Freshness::Stale { .. })) => "?",
            Some((value, _)) => word(value),
        }
    }
}

/// Says of all cells at once which are not as they were written down.
#[track_caller]
fn compare(cells: impl Iterator<Item = (String, String, String)>) {
    let differ = cells.filter(|(_, got, want)| got != want);
    let differ: Vec<String> = differ
        .map(|(what, got, want)| format!("{what}: {got}, not {want}"))
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn every_operation_on_a_value_of_some_age() {
    let cells = operations().flat_map(|(call, row)| {
        [(Age::Early, row.early), (Age::Stale, row.stale)].map(|(age, want)| {
            let place = Place::aged(age, |builder| builder);
            let answer = call(&place);
            #[cfg(debug_assertions)]
            place.root.__validate();
            let got = format!("{answer} → {}", place.left());
            (
                format!("{} in state {age:?}", row.name),
                got,
                want.to_owned(),
            )
        })
    });
    compare(cells);
}

/// What came of an operation beside a load that is to replace a value.
struct Beside {
    answer: String,
    next: Option<String>,
    left: &'static str,
}

/// Runs `operation` while a call loads the value again, and then, if there is to be a `next`, a loading call.
fn beside_a_load_again(age: Age, operation: fn(&Place) -> String, next: bool) -> Beside {
    let place = &Place::aged(age, |builder| builder);
    std::thread::scope(|scope| {
        // Inside: should the test fail here, the loader hears of it, and the scope can end.
        let (release, gate) = channel::<()>();
        let (entered, running) = channel();
        let leader = scope.spawn(move || {
            place.view.get_or_load_with(KEY, || {
                entered.send(()).expect("the test listens");
                gate.recv().expect("the test releases");
                Ok::<_, &str>(Loaded::new(LOADED).tag(TAG))
            })
        });
        running.recv().expect("the loader runs");
        let operating = until_it_stops(scope, place, move || operation(place));
        assert_eq!(place.root.stats().joined(), 0, "the operation waits");
        let answer = operating.join().expect("no panic");
        let next = next.then(|| {
            let load = || word(place.view.get_or_load(KEY, || LATER)).to_owned();
            until_it_stops(scope, place, load)
        });
        release.send(()).expect("the loader waits for it");
        let next = next.map(|next| next.join().expect("no panic"));
        // Whoever ran the loader gets what it brought, whatever came between.
        assert_eq!(leader.join().expect("no panic").ok(), Some(LOADED));
        assert_eq!(place.root.__flights().1, 0, "loads still in flight");
        #[cfg(debug_assertions)]
        place.root.__validate();
        Beside {
            answer,
            next,
            left: place.left(),
        }
    })
}

/// Runs `call` elsewhere until it has ended or waits for the load.
fn until_it_stops<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    place: &Place,
    call: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    let running = scope.spawn(call);
    eventually("the call ends or waits", || {
        running.is_finished() || place.root.stats().joined() > 0
    });
    running
}

/// Calls `operation` while a load of the attached loader still waits for a thread.
fn beside_a_load_that_waits(age: Age, operation: fn(&Place) -> String, next: bool) -> Beside {
    let (queue, jobs) = channel();
    let place = Place::aged(age, |builder| {
        builder
            .loader(|_: &&str| Ok::<_, &str>(Loaded::new(LOADED).tag(TAG)))
            .executor(move |job| queue.send(job).expect("the test listens"))
    });
    assert_eq!(place.view.load(KEY).ok(), Some(OLD));
    let job = jobs.try_recv().expect("one call has had the value loaded");
    let answer = operation(&place);
    let next = next.then(|| word(place.view.get_or_load(KEY, || LATER)).to_owned());
    job();
    assert!(jobs.try_recv().is_err(), "one load at a time");
    assert_eq!(place.root.__flights().1, 0, "loads still in flight");
    let left = place.left();
    Beside { answer, next, left }
}

#[test]
fn every_operation_on_a_value_that_is_loaded_again() {
    type Run = fn(Age, fn(&Place) -> String, bool) -> Beside;
    // A load that runs is waited for where there is nothing to be served; one that does not is taken over.
    let runs: [(&str, Run, &str); 2] = [
        ("beside a load", beside_a_load_again, "| loaded"),
        ("before a load begins", beside_a_load_that_waits, "| later"),
    ];
    let cells = operations().flat_map(|(call, row)| {
        let ages = [(Age::Early, row.refreshed), (Age::Stale, row.revalidated)];
        let runs = runs.iter().flat_map(move |run| ages.map(|age| (run, age)));
        runs.map(move |((when, run, waits), (age, want))| {
            let (alone, followed) = (run(age, call, false), run(age, call, true));
            let next = followed.next.expect("there was a next call");
            let what = format!("{} {when}, {age:?}", row.name);
            // What is loaded after the operation stays; what is served changes nothing.
            let left = if next == "later" { "later" } else { alone.left };
            assert_eq!(followed.left, left, "{what}, and a load after it");
            let got = format!("{} → {} | {next}", alone.answer, alone.left);
            (what, got, want.replace("| loaded", waits))
        })
    });
    compare(cells);
}

const AGED: &[Aged] = &[
    Aged {
        name: "`get`",
        early: "Some(old) → old",
        refreshed: "Some(old) → loaded | old",
        stale: "None → stale",
        revalidated: "None → loaded | old",
    },
    Aged {
        name: "`get_with_freshness`",
        early: "Some(old, Early) → old",
        refreshed: "Some(old, Fresh) → loaded | old",
        stale: "Some(old, Stale) → stale",
        revalidated: "Some(old, Stale) → loaded | old",
    },
    Aged {
        name: "`peek`",
        early: "Some(old) → old",
        refreshed: "Some(old) → loaded | old",
        stale: "None → stale",
        revalidated: "None → loaded | old",
    },
    Aged {
        name: "`contains_key`",
        early: "true → old",
        refreshed: "true → loaded | old",
        stale: "false → stale",
        revalidated: "false → loaded | old",
    },
    Aged {
        name: "`iter`",
        early: "Some(old) → old",
        refreshed: "Some(old) → loaded | old",
        stale: "None → stale",
        revalidated: "None → loaded | old",
    },
    Aged {
        name: "`insert`",
        early: "Some(old) → new",
        refreshed: "Some(old) → new | new",
        stale: "None → new",
        revalidated: "None → new | new",
    },
    Aged {
        name: "`insert_with`, refused",
        early: "Rejected → -",
        refreshed: "Rejected → - | later",
        stale: "Rejected → -",
        revalidated: "Rejected → - | later",
    },
    Aged {
        name: "`add`",
        early: "Present(old) → old",
        refreshed: "Present(old) → loaded | old",
        stale: "Stored → new",
        revalidated: "Stored → new | new",
    },
    Aged {
        name: "`add_with`, refused",
        early: "Present(old) → old",
        refreshed: "Present(old) → loaded | old",
        stale: "Rejected → -",
        revalidated: "Rejected → - | later",
    },
    Aged {
        name: "`replace`",
        early: "Ok(old) → new",
        refreshed: "Ok(old) → new | new",
        stale: "Err(new) → stale",
        revalidated: "Err(new) → loaded | old",
    },
    Aged {
        name: "`compute`, `Keep`",
        early: "Some(old), Some(old) → old",
        refreshed: "Some(old), Some(old) → loaded | old",
        stale: "None, None → stale",
        revalidated: "None, None → loaded | old",
    },
    Aged {
        name: "`compute`, `Put`",
        early: "Some(old), Some(new) → new",
        refreshed: "Some(old), Some(new) → new | later",
        stale: "None, Some(new) → new",
        revalidated: "None, Some(new) → new | new",
    },
    Aged {
        name: "`compute`, `Remove`",
        early: "Some(old), None → -",
        refreshed: "Some(old), None → - | later",
        stale: "None, None → -",
        revalidated: "None, None → - | later",
    },
    Aged {
        name: "`incr`",
        early: "Some(old+100) → old+100",
        refreshed: "Some(old+100) → old+100 | later",
        stale: "None → stale",
        revalidated: "None → loaded | old",
    },
    Aged {
        name: "`touch`",
        early: "true → old",
        refreshed: "true → loaded | old",
        stale: "false → stale",
        revalidated: "false → loaded | old",
    },
    Aged {
        name: "`touch`, zero",
        early: "true → -",
        refreshed: "true → - | later",
        stale: "false → stale",
        revalidated: "false → loaded | old",
    },
    Aged {
        name: "`remove`",
        early: "Some(old) → -",
        refreshed: "Some(old) → - | later",
        stale: "None → -",
        revalidated: "None → - | later",
    },
    Aged {
        name: "`invalidate`",
        early: "true → -",
        refreshed: "true → - | later",
        stale: "false → -",
        revalidated: "false → - | later",
    },
    Aged {
        name: "`remove_if`, yes",
        early: "Some(old) → -",
        refreshed: "Some(old) → - | later",
        stale: "None → -",
        revalidated: "None → - | later",
    },
    Aged {
        name: "`remove_if`, no",
        early: "None → old",
        refreshed: "None → loaded | old",
        stale: "None → -",
        revalidated: "None → - | later",
    },
    Aged {
        name: "`retain`, none",
        early: "1 → -",
        refreshed: "1 → - | later",
        stale: "0 → -",
        revalidated: "0 → - | later",
    },
    Aged {
        name: "`retain`, all",
        early: "0 → old",
        refreshed: "0 → loaded | old",
        stale: "0 → stale",
        revalidated: "0 → loaded | old",
    },
    Aged {
        name: "`clear`",
        early: "- → -",
        refreshed: "- → - | later",
        stale: "- → -",
        revalidated: "- → - | later",
    },
    Aged {
        name: "`clear`, of the namespace",
        early: "- → -",
        refreshed: "- → - | later",
        stale: "- → -",
        revalidated: "- → - | later",
    },
    Aged {
        name: "`invalidate_tag`, of its tag",
        early: "- → -",
        refreshed: "- → - | later",
        stale: "- → -",
        revalidated: "- → - | later",
    },
    Aged {
        name: "`get_or_load`",
        early: "made → made",
        refreshed: "old → loaded | old",
        stale: "made → made",
        revalidated: "old → loaded | old",
    },
    Aged {
        name: "`get_or_load_optional`, nothing",
        early: "None → -",
        refreshed: "Some(old) → loaded | old",
        stale: "None → -",
        revalidated: "Some(old) → loaded | old",
    },
    Aged {
        name: "`try_get_or_load`, well",
        early: "Ok(made) → made",
        refreshed: "Ok(old) → loaded | old",
        stale: "Ok(made) → made",
        revalidated: "Ok(old) → loaded | old",
    },
    Aged {
        name: "`try_get_or_load`, in vain",
        early: "Ok(old) → old",
        refreshed: "Ok(old) → loaded | old",
        stale: "Ok(old) → stale",
        revalidated: "Ok(old) → loaded | old",
    },
];
