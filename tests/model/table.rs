//! The operation × state table of ARCHITECTURE.md, run.
//!
//! Each row is an operation, each column a state of the key (`aging.rs` has more of them). A cell says what the operation returns and,
//! after the `→`, what a `get` finds afterwards: at once, or, where a load or a computation was under
//! way, once that has ended.
//!
//! The words: `old` is the value that lives or lived there, `new` the operation's own, `loaded` that of
//! the load in flight, `made` that of a loader which the operation itself brings. `-` is nothing, and in
//! front of the arrow the answer of an operation that has none.

use std::time::Duration;

use larder::{
    Added, Cache, Compute, EntryOptions, Freshness, LoadError, ManualClock, TryLoadError,
};

pub(crate) type Subject = Cache<&'static str, i64>;

pub(crate) const KEY: &&str = &"key";
pub(crate) const TAG: &str = "tag";
pub(crate) const OLD: i64 = 1;
pub(crate) const NEW: i64 = 2;
pub(crate) const LOADED: i64 = 3;
pub(crate) const MADE: i64 = 4;
pub(crate) const LATER: i64 = 5;
pub(crate) const COMPUTED: i64 = 6;
/// Longer than what is stale stays.
pub(crate) const NEGATIVE: Duration = Duration::from_secs(600);
pub(crate) const TTL: Duration = Duration::from_secs(10);
/// For so long after its time a value is stale, where stale values are kept.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// One operation: its name, how to call it, and the cells.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) call: fn(&Place) -> String,
    pub(crate) absent: &'static str,
    pub(crate) fresh: &'static str,
    pub(crate) past: &'static str,
    /// With `!` at the end: the failure is forgotten.
    pub(crate) negative: &'static str,
    /// After the `|`, what those get who were waiting already.
    pub(crate) in_flight: &'static str,
    /// After the `|`: whether the computation was `kept` or `asked again`.
    pub(crate) in_turn: &'static str,
}

/// The cache of a cell, and the namespace that its key stands in.
pub(crate) struct Place {
    pub(crate) root: Subject,
    pub(crate) view: Subject,
    pub(crate) time: ManualClock,
}

pub(crate) fn word(value: i64) -> &'static str {
    match value {
        OLD => "old",
        NEW => "new",
        LOADED => "loaded",
        MADE => "made",
        LATER => "later",
        COMPUTED => "computed",
        101 => "old+100",
        106 => "computed+100",
        _ => "?",
    }
}

pub(crate) fn maybe(value: Option<i64>) -> String {
    value.map_or("None".to_owned(), |value| format!("Some({})", word(value)))
}

pub(crate) fn looked_up(found: Option<(i64, Freshness)>) -> String {
    let Some((value, freshness)) = found else {
        return "None".to_owned();
    };
    let freshness = match freshness {
        Freshness::Fresh => "Fresh",
        Freshness::Early => "Early",
        Freshness::Stale { .. } => "Stale",
        _ => "?",
    };
    format!("Some({}, {freshness})", word(value))
}

pub(crate) fn either<E>(answer: Result<i64, TryLoadError<E>>) -> String {
    match answer {
        Ok(value) => format!("Ok({})", word(value)),
        Err(TryLoadError::Own(_)) => "Err(Own)".to_owned(),
        Err(TryLoadError::Shared(LoadError::Failed(_))) => "Err(Shared)".to_owned(),
        Err(TryLoadError::Shared(other)) => format!("Err({other:?})"),
        Err(_) => "Err(?)".to_owned(),
    }
}

pub(crate) fn added(answer: Added<i64>) -> String {
    match answer {
        Added::Stored => "Stored".to_owned(),
        Added::Present { present, .. } => format!("Present({})", word(present)),
        _ => "?".to_owned(),
    }
}

pub(crate) fn done(call: impl FnOnce()) -> String {
    call();
    "-".to_owned()
}

/// The operations. Each works on the view; `clear` alone is also called on the root.
pub(crate) const TABLE: &[Row] = &[
    Row {
        name: "`get`",
        call: |at| maybe(at.view.get(KEY)),
        absent: "None → -",
        fresh: "Some(old) → old",
        past: "None → -",
        negative: "None → -",
        in_flight: "None → loaded | loaded",
        in_turn: "Some(old) → computed | kept",
    },
    Row {
        name: "`get_with_freshness`",
        call: |at| looked_up(at.view.get_with_freshness(KEY)),
        absent: "None → -",
        fresh: "Some(old, Fresh) → old",
        past: "None → -",
        negative: "None → -",
        in_flight: "None → loaded | loaded",
        in_turn: "Some(old, Fresh) → computed | kept",
    },
    Row {
        name: "`peek`",
        call: |at| maybe(at.view.peek(KEY)),
        absent: "None → -",
        fresh: "Some(old) → old",
        past: "None → -",
        negative: "None → -",
        in_flight: "None → loaded | loaded",
        in_turn: "Some(old) → computed | kept",
    },
    Row {
        name: "`contains_key`",
        call: |at| at.view.contains_key(KEY).to_string(),
        absent: "false → -",
        fresh: "true → old",
        past: "false → -",
        negative: "false → -",
        in_flight: "false → loaded | loaded",
        in_turn: "true → computed | kept",
    },
    Row {
        name: "`iter`",
        call: |at| maybe(at.view.iter().next().map(|(_, value)| value)),
        absent: "None → -",
        fresh: "Some(old) → old",
        past: "None → -",
        negative: "None → -",
        in_flight: "None → loaded | loaded",
        in_turn: "Some(old) → computed | kept",
    },
    Row {
        name: "`insert`",
        call: |at| maybe(at.view.insert("key", NEW)),
        absent: "None → new",
        fresh: "Some(old) → new",
        past: "None → new",
        negative: "None → new !",
        in_flight: "None → new | new",
        in_turn: "Some(old) → computed | asked again",
    },
    Row {
        name: "`insert_with`, refused",
        call: |at| refused(at.view.insert_with("key", NEW, no_life()).map(maybe)),
        absent: "Rejected → -",
        fresh: "Rejected → -",
        past: "Rejected → -",
        negative: "Rejected → - !",
        in_flight: "Rejected → - | loaded",
        in_turn: "Rejected → computed | asked again",
    },
    Row {
        name: "`add`",
        call: |at| added(at.view.add("key", NEW)),
        absent: "Stored → new",
        fresh: "Present(old) → old",
        past: "Stored → new",
        negative: "Stored → new !",
        in_flight: "Stored → new | new",
        in_turn: "Present(old) → computed | kept",
    },
    Row {
        name: "`add_with`, refused",
        call: |at| refused(at.view.add_with("key", NEW, no_life()).map(added)),
        absent: "Rejected → -",
        fresh: "Present(old) → old",
        past: "Rejected → -",
        negative: "Rejected → - !",
        in_flight: "Rejected → - | loaded",
        in_turn: "Present(old) → computed | kept",
    },
    Row {
        name: "`replace`",
        call: |at| match at.view.replace("key", NEW) {
            Ok(old) => format!("Ok({})", word(old)),
            Err(back) => format!("Err({})", word(back)),
        },
        absent: "Err(new) → -",
        fresh: "Ok(old) → new",
        past: "Err(new) → -",
        negative: "Err(new) → -",
        in_flight: "Err(new) → loaded | loaded",
        in_turn: "Ok(computed) → new | kept",
    },
    Row {
        name: "`compute`, `Keep`",
        call: |at| computed(at, Compute::Keep),
        absent: "None, None → -",
        fresh: "Some(old), Some(old) → old",
        past: "None, None → -",
        negative: "None, None → -",
        in_flight: "None, None → loaded | loaded",
        in_turn: "Some(computed), Some(computed) → computed | kept",
    },
    Row {
        name: "`compute`, `Put`",
        call: |at| computed(at, Compute::Put(NEW)),
        absent: "None, Some(new) → new",
        fresh: "Some(old), Some(new) → new",
        past: "None, Some(new) → new",
        negative: "None, Some(new) → new !",
        in_flight: "None, Some(new) → new | new",
        in_turn: "Some(computed), Some(new) → new | kept",
    },
    Row {
        name: "`compute`, `Remove`",
        call: |at| computed(at, Compute::Remove),
        absent: "None, None → -",
        fresh: "Some(old), None → -",
        past: "None, None → -",
        negative: "None, None → -",
        in_flight: "None, None → loaded | loaded",
        in_turn: "Some(computed), None → - | kept",
    },
    Row {
        name: "`incr`",
        call: |at| maybe(at.view.incr(KEY, 100)),
        absent: "None → -",
        fresh: "Some(old+100) → old+100",
        past: "None → -",
        negative: "None → -",
        in_flight: "None → loaded | loaded",
        in_turn: "Some(computed+100) → computed+100 | kept",
    },
    Row {
        name: "`touch`",
        call: |at| at.view.touch(KEY, Some(TTL)).to_string(),
        absent: "false → -",
        fresh: "true → old",
        past: "false → -",
        negative: "false → -",
        in_flight: "false → loaded | loaded",
        in_turn: "true → computed | kept",
    },
    Row {
        name: "`touch`, zero",
        call: |at| at.view.touch(KEY, Some(Duration::ZERO)).to_string(),
        absent: "false → -",
        fresh: "true → -",
        past: "false → -",
        negative: "false → -",
        in_flight: "false → loaded | loaded",
        in_turn: "true → computed | asked again",
    },
    Row {
        name: "`remove`",
        call: |at| maybe(at.view.remove(KEY)),
        absent: "None → -",
        fresh: "Some(old) → -",
        past: "None → -",
        negative: "None → - !",
        in_flight: "None → - | loaded",
        in_turn: "Some(old) → computed | asked again",
    },
    Row {
        name: "`invalidate`",
        call: |at| at.view.invalidate(KEY).to_string(),
        absent: "false → -",
        fresh: "true → -",
        past: "false → -",
        negative: "false → - !",
        in_flight: "false → - | loaded",
        in_turn: "true → computed | asked again",
    },
    Row {
        name: "`remove_if`, yes",
        call: |at| maybe(at.view.remove_if(KEY, |_| true)),
        absent: "None → -",
        fresh: "Some(old) → -",
        past: "None → -",
        negative: "None → - !",
        in_flight: "None → - | loaded",
        in_turn: "Some(computed) → - | kept",
    },
    Row {
        name: "`remove_if`, no",
        call: |at| maybe(at.view.remove_if(KEY, |_| false)),
        absent: "None → -",
        fresh: "None → old",
        past: "None → -",
        negative: "None → - !",
        in_flight: "None → - | loaded",
        in_turn: "None → computed | kept",
    },
    Row {
        name: "`retain`, none",
        call: |at| at.view.retain(|_, _| false).to_string(),
        absent: "0 → -",
        fresh: "1 → -",
        past: "0 → -",
        negative: "0 → - !",
        in_flight: "0 → - | loaded",
        in_turn: "1 → computed | asked again",
    },
    Row {
        name: "`retain`, all",
        call: |at| at.view.retain(|_, _| true).to_string(),
        absent: "0 → -",
        fresh: "0 → old",
        past: "0 → -",
        negative: "0 → - !",
        in_flight: "0 → - | loaded",
        in_turn: "0 → computed | kept",
    },
    Row {
        name: "`clear`",
        call: |at| done(|| at.root.clear()),
        absent: "- → -",
        fresh: "- → -",
        past: "- → -",
        negative: "- → - !",
        in_flight: "- → - | loaded",
        in_turn: "- → computed | asked again",
    },
    Row {
        name: "`clear`, of the namespace",
        call: |at| done(|| at.view.clear()),
        absent: "- → -",
        fresh: "- → -",
        past: "- → -",
        negative: "- → - !",
        in_flight: "- → - | loaded",
        in_turn: "- → computed | asked again",
    },
    Row {
        name: "`invalidate_tag`, of its tag",
        call: |at| done(|| at.root.invalidate_tag(TAG)),
        absent: "- → -",
        fresh: "- → -",
        past: "- → -",
        negative: "- → -",
        in_flight: "- → - | loaded",
        in_turn: "- → computed | asked again",
    },
    Row {
        name: "`get_or_load`",
        call: |at| word(at.view.get_or_load(KEY, || MADE)).to_owned(),
        absent: "made → made",
        fresh: "old → old",
        past: "made → made",
        negative: "made → made !",
        in_flight: "loaded → loaded | loaded",
        in_turn: "old → computed | kept",
    },
    Row {
        name: "`get_or_load_optional`, nothing",
        call: |at| maybe(at.view.get_or_load_optional(KEY, || None)),
        absent: "None → -",
        fresh: "Some(old) → old",
        past: "None → -",
        negative: "None → - !",
        in_flight: "Some(loaded) → loaded | loaded",
        in_turn: "Some(old) → computed | kept",
    },
    Row {
        name: "`try_get_or_load`, well",
        call: |at| either(at.view.try_get_or_load(KEY, || Ok::<_, &str>(MADE))),
        absent: "Ok(made) → made",
        fresh: "Ok(old) → old",
        past: "Ok(made) → made",
        negative: "Err(Shared) → -",
        in_flight: "Ok(loaded) → loaded | loaded",
        in_turn: "Ok(old) → computed | kept",
    },
    Row {
        name: "`try_get_or_load`, in vain",
        call: |at| either(at.view.try_get_or_load(KEY, || Err("no"))),
        absent: "Err(Own) → -",
        fresh: "Ok(old) → old",
        past: "Err(Own) → -",
        negative: "Err(Shared) → -",
        in_flight: "Ok(loaded) → loaded | loaded",
        in_turn: "Ok(old) → computed | kept",
    },
];

pub(crate) fn no_life() -> EntryOptions {
    EntryOptions::new().time_to_live(Duration::ZERO)
}

pub(crate) fn refused<E>(answer: Result<String, E>) -> String {
    answer.unwrap_or("Rejected".to_owned())
}

pub(crate) fn computed(at: &Place, decision: Compute<i64>) -> String {
    let done = at.view.compute(KEY, |_| decision);
    format!("{}, {}", maybe(done.old), maybe(done.new))
}
