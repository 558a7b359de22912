//! What a call costs in commands and round trips, as the server counts them. What is stated of larder's calls here is
//! asserted: a call that takes more, or less, is a fault. larder's own counter has to say the same.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use comfy_table::Table;
use larder::tier::redis::StatsHandle;
use larder::tier::{RawBytes, Scope, Tiered};
use larder::{EntryOptions, Loaded};
use redis::cmd;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::error::BenchError;
use crate::observer::{Names, Observer, Seen};
use crate::server::{Link, Server};
use crate::{larders, redises, report};

/// Calls of each kind.
const CALLS: u64 = 100;
/// Keys of one bulk read.
const BULK: u64 = 100;
/// So long that no heartbeat falls into a count; if one does, it is left out by its name.
const HEARTBEAT: Duration = Duration::from_secs(3600);

/// What one kind of call came to, for each call.
#[derive(Debug, Serialize)]
pub struct Line {
    pub call: &'static str,
    pub commands: f64,
    pub round_trips: f64,
    pub sent: BTreeMap<String, f64>,
    /// What the server's scripts ran on top of that.
    pub in_scripts: BTreeMap<String, f64>,
    /// Whether it is what is stated here; nothing is stated of others.
    pub as_stated: Option<bool>,
}

/// What is stated of one call of larder.
struct Stated {
    sent: &'static [(&'static str, u64)],
    round_trips: u64,
}

const fn stated(sent: &'static [(&'static str, u64)], round_trips: u64) -> Option<Stated> {
    Some(Stated { sent, round_trips })
}

/// One kind of call.
struct Case<'a> {
    name: &'static str,
    stated: Option<Stated>,
    watch: Option<StatsHandle>,
    call: Box<dyn FnMut(u64) -> Result<(), BenchError> + 'a>,
}

/// Counts, and says what was not as stated.
pub fn run(
    server: &Server,
    wanted: impl Fn(&str) -> bool,
) -> Result<(Vec<Line>, Vec<String>), BenchError> {
    let (mut lines, mut faults) = (Vec::new(), Vec::new());
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let cases = cases(server, &runtime)?;
    let mut observer = Observer::new(server)?;
    for mut case in cases {
        if !wanted(case.name) {
            continue;
        }
        let before = case.watch.as_ref().map(|watch| watch.stats().commands);
        let seen = observer.watch(|| (0..CALLS).try_for_each(&mut case.call))?;
        let after = case.watch.as_ref().map(|watch| watch.stats().commands);
        let own = before.zip(after).map(|(before, after)| after - before);
        let fault = case
            .stated
            .as_ref()
            .and_then(|stated| fault(case.name, stated, &seen, own));
        let as_stated = case.stated.as_ref().map(|_| fault.is_none());
        faults.extend(fault);
        let each = |count: u64| count as f64 / CALLS as f64;
        let all_each = |names: Names| names.into_iter().map(|(name, n)| (name, each(n))).collect();
        lines.push(Line {
            call: case.name,
            commands: each(seen.sent.values().sum()),
            round_trips: each(seen.round_trips),
            sent: all_each(seen.sent),
            in_scripts: all_each(seen.in_scripts),
            as_stated,
        });
    }
    Ok((lines, faults))
}

fn fault(call: &str, stated: &Stated, seen: &Seen, own: Option<u64>) -> Option<String> {
    let sent = stated
        .sent
        .iter()
        .map(|(name, each)| ((*name).to_owned(), each * CALLS));
    let sent: Names = sent.collect();
    let round_trips = stated.round_trips * CALLS;
    let commands = sent.values().sum();
    (seen.sent != sent || seen.round_trips != round_trips || own != Some(commands)).then(|| {
        format!(
            "{call}: {CALLS} calls sent {:?} in {} round trips, and larder counted {own:?} commands; stated are \
             {sent:?} in {round_trips}",
            seen.sent, seen.round_trips
        )
    })
}

type Cache = Tiered<String, Vec<u8>>;

/// All kinds of calls, with all that they need on the server.
fn cases<'a>(server: &Server, runtime: &'a Runtime) -> Result<Vec<Case<'a>>, BenchError> {
    let url = server.url(Link::Unix);
    let open = || larders::open_watched(&url, "counts", HEARTBEAT, RawBytes);
    let ((here, watch), (there, _)) = (open()?, open()?);
    for n in 0..CALLS {
        there.insert(key("plain", n), VALUE.to_vec())?;
        for kind in ["known", "new", "gone"] {
            let tag = if kind == "new" {
                key("tag", n)
            } else {
                "known".to_owned()
            };
            let options = EntryOptions::new().tag(tag);
            there.insert_with(key(kind, n), VALUE.to_vec(), options)?;
        }
    }
    // From here on the versions of everything, and of one tag, are known.
    here.get(key("known", 0).as_str())?;
    let mut cases = reads(&here, &watch);
    cases.extend(misses(&here, &watch));
    cases.extend(changes(&here, &watch));
    cases.extend(others(server, runtime)?);
    // The order is that of a report; the last of larder's moves the tag that others use.
    Ok(cases)
}

const VALUE: [u8; 100] = [b'x'; 100];

fn key(kind: &str, n: u64) -> String {
    format!("{kind}:{n}")
}

fn larder<'a>(
    name: &'static str,
    stated: Option<Stated>,
    watch: &StatsHandle,
    call: impl FnMut(u64) -> Result<(), BenchError> + 'a,
) -> Case<'a> {
    Case {
        name,
        stated,
        watch: Some(watch.clone()),
        call: Box::new(call),
    }
}

/// Reads that the shared tier answers.
fn reads<'a>(here: &Cache, watch: &StatsHandle) -> Vec<Case<'a>> {
    let read = |kind: &'static str| {
        let cache = here.clone();
        move |n| {
            cache
                .with_scope(Scope::Local)
                .invalidate(key(kind, n).as_str())?;
            let found = cache.get(key(kind, n).as_str())?;
            found.map(|_| ()).ok_or_else(|| missing(kind, n))
        }
    };
    let (bulk, own) = (here.clone(), here.with_scope(Scope::Local));
    let bulk = move |_| {
        let keys: Vec<String> = (0..BULK).map(|n| key("plain", n)).collect();
        own.invalidate_many(keys.iter().map(String::as_str))?;
        let none = |missing: &[String]| Err(format!("{} are missing", missing.len()));
        bulk.get_many_or_load(&keys, none)
            .map(|_| ())
            .map_err(|error| BenchError::Work {
                who: "larder",
                what: error.to_string(),
            })
    };
    let (get, two) = (stated(&[("GET", 1)], 1), stated(&[("GET", 2)], 2));
    vec![
        larder("count: L2 hit", get, watch, read("plain")),
        larder(
            "count: L2 hit of a known tag",
            stated(&[("GET", 1)], 1),
            watch,
            read("known"),
        ),
        larder("count: L2 hit of an unknown tag", two, watch, read("new")),
        larder(
            "count: L2 hits of 100 keys in one call",
            stated(&[("MGET", 1)], 1),
            watch,
            bulk,
        ),
    ]
}

fn missing(kind: &str, n: u64) -> BenchError {
    BenchError::Work {
        who: "larder",
        what: format!("there is nothing under {}", key(kind, n)),
    }
}

/// Reads that nobody answers but a loader.
fn misses<'a>(here: &Cache, watch: &StatsHandle) -> Vec<Case<'a>> {
    let load = |kind: &'static str, tag: fn(u64) -> Option<String>| {
        let cache = here.clone();
        move |n| {
            let load = || {
                let value = Loaded::new(VALUE.to_vec()).tags(tag(n));
                Ok::<_, Infallible>(value)
            };
            cache.get_or_load_with(key(kind, n).as_str(), load)?;
            Ok(())
        }
    };
    let cache = here.clone();
    let nothing = move |n| {
        cache.get(key("nowhere", n).as_str())?;
        Ok(())
    };
    // The look; the placeholder, and its seal read back; the value under the placeholder's fence, and its seal.
    let miss = || stated(&[("EVAL", 2), ("GET", 1), ("GETRANGE", 2)], 3);
    // Between those, the version that is not there is asked for, made, and asked for again.
    let nameless = stated(&[("EVAL", 3), ("GET", 3), ("GETRANGE", 2)], 6);
    vec![
        larder("count: full miss", miss(), watch, load("miss", |_| None)),
        larder(
            "count: full miss of a known tag",
            miss(),
            watch,
            load("miss-known", |_| Some("known".to_owned())),
        ),
        larder(
            "count: full miss of a tag nobody has named",
            nameless,
            watch,
            load("miss-new", |n| Some(key("new-tag", n))),
        ),
        larder(
            "count: full miss without a loader",
            stated(&[("GET", 1)], 1),
            watch,
            nothing,
        ),
    ]
}

/// What changes things.
fn changes<'a>(here: &Cache, watch: &StatsHandle) -> Vec<Case<'a>> {
    let (one, two, three) = (here.clone(), here.clone(), here.clone());
    let insert = move |n| Ok(one.insert(key("inserted", n), VALUE.to_vec())?);
    let invalidate = move |n| match two.invalidate(key("gone", n).as_str())? {
        true => Ok(()),
        false => Err(missing("gone", n)),
    };
    let tag = move |_| Ok(three.invalidate_tag("known")?);
    vec![
        larder(
            "count: insert",
            stated(&[("EVAL", 2), ("GETRANGE", 1)], 2),
            watch,
            insert,
        ),
        larder(
            "count: invalidate",
            stated(&[("DEL", 1)], 1),
            watch,
            invalidate,
        ),
        larder(
            "count: invalidate_tag",
            stated(&[("EVAL", 1)], 1),
            watch,
            tag,
        ),
    ]
}

/// What redis-rs does for the same; nothing is stated of it.
fn others<'a>(server: &Server, runtime: &'a Runtime) -> Result<Vec<Case<'a>>, BenchError> {
    let mut plain = server.connect(Link::Unix)?;
    for n in 0..CALLS {
        cmd("SET")
            .arg(key("other", n))
            .arg(&VALUE[..])
            .exec(&mut plain)?;
    }
    let mut cached = redises::cached(server, Link::Unix, runtime, std::num::NonZeroUsize::MIN)?;
    let by_hand = move |n| {
        let found: Option<Vec<u8>> = cmd("GET").arg(key("by-hand", n)).query(&mut plain)?;
        let value = found.unwrap_or(VALUE.to_vec());
        Ok(cmd("SET")
            .arg(key("by-hand", n))
            .arg(value)
            .arg("EX")
            .arg(60)
            .exec(&mut plain)?)
    };
    let cache_miss = move |n| {
        let mut get = cmd("GET");
        get.arg(key("other", n));
        Ok(runtime.block_on(get.exec_async(&mut cached))?)
    };
    let other = |name, call| Case {
        name,
        stated: None,
        watch: None,
        call,
    };
    Ok(vec![
        other("count: redis-rs GET then SET", Box::new(by_hand)),
        other("count: redis-rs cache miss", Box::new(cache_miss)),
    ])
}

pub fn table(lines: &[Line]) -> Table {
    let headings = [
        "a call",
        "sends",
        "and its scripts run",
        "as stated",
        "commands",
        "round trips",
    ];
    let mut table = report::table_of(headings, 4);
    let list = |names: &BTreeMap<String, f64>| {
        let names: Vec<String> = names
            .iter()
            .map(|(name, each)| format!("{each} {name}"))
            .collect();
        names.join(", ")
    };
    for line in lines {
        let as_stated = match line.as_stated {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        table.add_row([
            line.call.to_owned(),
            list(&line.sent),
            list(&line.in_scripts),
            as_stated.to_owned(),
            line.commands.to_string(),
            line.round_trips.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{CALLS, Names, Seen, fault, stated};

    #[test]
    fn a_command_or_a_round_trip_too_many_is_a_fault() {
        let stated = stated(&[("GET", 1)], 1).unwrap();
        let find = |gets: u64, round_trips: u64, own: u64| {
            let seen = Seen {
                sent: Names::from([("GET".to_owned(), gets)]),
                in_scripts: Names::new(),
                round_trips,
            };
            fault("a call", &stated, &seen, Some(own)).is_some()
        };
        assert!(!find(CALLS, CALLS, CALLS));
        assert!(find(CALLS + 1, CALLS, CALLS));
        assert!(find(CALLS, CALLS + 1, CALLS));
        assert!(find(CALLS, CALLS, CALLS + 1));
    }
}
