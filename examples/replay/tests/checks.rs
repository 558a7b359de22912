//! What must hold of any trace: the optimum is one, LRU nests, and the fast simulators do what slow
//! ones do. Each check is also run on planted bugs, and has to find them.

#![allow(
    clippy::unwrap_used,
    reason = "a test that meets `None` has failed, and says where"
)]

mod support;

use larder_replay::{
    replay::{Policy, replay},
    sim::{self, Belady, Fifo, Lru, Simulator},
    trace::{Keys, Trace},
};
use support::{Random, mixed};

const CAPACITIES: [u64; 6] = [1, 2, 3, 7, 20, 64];

/// Small traces of every kind, for checks that are slow.
fn small_traces() -> Vec<Vec<u32>> {
    let mut random = Random(11);
    (0..300)
        .map(|round| {
            let keys = 2 + round % 6;
            (0..11).map(|_| random.below(keys) as u32).collect()
        })
        .collect()
}

/// A trace of numbers below `distinct`, which are its ids.
fn trace_of(ids: Vec<u32>, distinct: u32) -> Trace {
    Trace {
        name: "made here".to_owned(),
        keys: Keys::U64(ids.iter().map(|&id| u64::from(id)).collect()),
        ids,
        distinct,
    }
}

/// The most hits that any choice of entries gets, found by trying them all.
fn most_hits(ids: &[u32], present: u32, capacity: u32) -> u64 {
    let Some((&id, rest)) = ids.split_first() else {
        return 0;
    };
    let bit = 1 << id;
    if present & bit != 0 {
        return 1 + most_hits(rest, present, capacity);
    }
    let bypassed = most_hits(rest, present, capacity);
    if present.count_ones() < capacity {
        return bypassed.max(most_hits(rest, present | bit, capacity));
    }
    (0..8)
        .filter(|victim| present & (1 << victim) != 0)
        .map(|victim| most_hits(rest, present & !(1 << victim) | bit, capacity))
        .fold(bypassed, u64::max)
}

/// Whether an optimum is as good as the best of all choices, and no better.
fn is_optimal(optimum: impl Fn(&[u32], u64) -> u64) -> Result<(), String> {
    for ids in small_traces() {
        for capacity in 1..=3 {
            let (got, most) = (optimum(&ids, capacity), most_hits(&ids, 0, capacity as u32));
            if got != most {
                return Err(format!(
                    "{ids:?} at {capacity}: {got} hits, the most is {most}"
                ));
            }
        }
    }
    Ok(())
}

/// Whether no other policy, larder's included, has more hits than an optimum.
fn is_never_beaten(optimum: impl Fn(&[u32], u32, u64) -> u64) -> Result<(), String> {
    for seed in 1..=3 {
        let (ids, distinct) = mixed(seed, 6_000);
        let trace = trace_of(ids, distinct);
        for capacity in CAPACITIES {
            let bound = optimum(&trace.ids, distinct, capacity);
            for policy in [Policy::Larder, Policy::LarderLru, Policy::Lru, Policy::Fifo] {
                let hits = replay(&trace, policy, capacity)
                    .map_err(|error| error.to_string())?
                    .hits;
                if hits > bound {
                    return Err(format!(
                        "{policy:?} at {capacity}: {hits} hits, the optimum {bound}"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Whether what a cache holds is held by every larger one, after every request.
fn nests<S: Simulator>(new: impl Fn(u32, u64) -> S) -> Result<(), String> {
    let (ids, distinct) = mixed(5, 3_000);
    for pair in CAPACITIES.windows(2) {
        let (mut less, mut more) = (new(distinct, pair[0]), new(distinct, pair[1]));
        for (at, &id) in ids.iter().enumerate() {
            less.request(id);
            more.request(id);
            if let Some(lost) = (0..distinct).find(|&id| less.contains(id) && !more.contains(id)) {
                return Err(format!(
                    "request {at}: {lost} is held at {}, not at {}",
                    pair[0], pair[1]
                ));
            }
        }
    }
    Ok(())
}

/// A list in order of eviction, searched from the front: slow, and plainly right.
struct Slow {
    list: Vec<u32>,
    capacity: u64,
    /// Whether a hit moves to the back, as in LRU.
    moves: bool,
}

impl Simulator for Slow {
    fn request(&mut self, id: u32) -> bool {
        let found = self.list.iter().position(|&held| held == id);
        match found {
            Some(at) if self.moves => {
                self.list.remove(at);
                self.list.push(id);
            }
            Some(_) => {}
            None => {
                if self.list.len() as u64 == self.capacity {
                    self.list.remove(0);
                }
                self.list.push(id);
            }
        }
        found.is_some()
    }

    fn contains(&self, id: u32) -> bool {
        self.list.contains(&id)
    }
}

/// Whether two simulators answer each request alike.
fn agree<A: Simulator, B: Simulator>(
    one: impl Fn(u32, u64) -> A,
    other: impl Fn(u32, u64) -> B,
) -> Result<(), String> {
    let (ids, distinct) = mixed(9, 6_000);
    for capacity in CAPACITIES {
        let (mut one, mut other) = (one(distinct, capacity), other(distinct, capacity));
        for (at, &id) in ids.iter().enumerate() {
            if one.request(id) != other.request(id) {
                return Err(format!("request {at} of key {id} at {capacity}"));
            }
        }
    }
    Ok(())
}

fn slow(moves: bool) -> impl Fn(u32, u64) -> Slow {
    move |_, capacity| Slow {
        list: Vec::new(),
        capacity,
        moves,
    }
}

fn belady(ids: &[u32], distinct: u32, capacity: u64) -> u64 {
    sim::hits(&mut Belady::new(ids, distinct, capacity), ids)
}

/// Planted bugs of the optimum, as far from it as a slip of the pen.
#[derive(Clone, Copy, PartialEq)]
enum Bug {
    None,
    /// Stores every newcomer.
    NoBypass,
    /// Evicts what is used again first.
    Nearest,
    /// Takes the last request for a key for its next one.
    LooksBack,
    /// Holds one entry more than it may.
    OneMore,
}

/// The optimum again, searched for without any order kept, with a bug.
fn planted(bug: Bug, ids: &[u32], capacity: u64) -> u64 {
    let next = |from: usize, id: u32| {
        let later = if bug == Bug::LooksBack {
            ids[..from - 1].iter().rev().position(|&other| other == id)
        } else {
            ids[from..].iter().position(|&other| other == id)
        };
        later.unwrap_or(usize::MAX)
    };
    let capacity = capacity + u64::from(bug == Bug::OneMore);
    let (mut present, mut hits) = (Vec::<u32>::new(), 0);
    for (at, &id) in ids.iter().enumerate() {
        if present.contains(&id) {
            hits += 1;
            continue;
        }
        present.push(id);
        if present.len() as u64 > capacity {
            let held = if bug == Bug::NoBypass {
                present.len() - 1
            } else {
                present.len()
            };
            let uses = (0..held).map(|place| (next(at + 1, present[place]), place));
            let out = if bug == Bug::Nearest {
                uses.min()
            } else {
                uses.max()
            };
            present.remove(out.map_or(0, |(_, place)| place));
        }
    }
    hits
}

#[test]
fn the_optimum_is_the_best_of_all_choices() {
    is_optimal(|ids, capacity| belady(ids, 8, capacity)).unwrap();
    is_optimal(|ids, capacity| planted(Bug::None, ids, capacity)).unwrap();
}

#[test]
fn planted_bugs_of_the_optimum_are_found() {
    for bug in [Bug::NoBypass, Bug::Nearest, Bug::LooksBack, Bug::OneMore] {
        is_optimal(|ids, capacity| planted(bug, ids, capacity)).unwrap_err();
    }
}

#[test]
fn no_policy_beats_the_optimum() {
    is_never_beaten(belady).unwrap();
}

#[test]
fn a_bound_that_some_policy_beats_is_found() {
    is_never_beaten(|ids, distinct, capacity| sim::hits(&mut Lru::new(distinct, capacity), ids))
        .unwrap_err();
    is_never_beaten(|ids, _, capacity| planted(Bug::Nearest, ids, capacity)).unwrap_err();
}

#[test]
fn a_larger_lru_holds_all_that_a_smaller_one_does() {
    nests(Lru::new).unwrap();
}

#[test]
fn fifo_does_not_nest_and_that_is_found() {
    nests(Fifo::new).unwrap_err();
}

#[test]
fn the_fast_simulators_do_what_slow_ones_do() {
    agree(Lru::new, slow(true)).unwrap();
    agree(Fifo::new, slow(false)).unwrap();
}

#[test]
fn a_simulator_that_does_something_else_is_found() {
    agree(Lru::new, slow(false)).unwrap_err();
    agree(Fifo::new, slow(true)).unwrap_err();
    // A capacity that is off by one.
    agree(
        |distinct, capacity| Lru::new(distinct, capacity + 1),
        slow(true),
    )
    .unwrap_err();
}

#[test]
fn larder_with_one_shard_and_lru_is_exact() {
    // Below 2,048 entries there is one shard, and its LRU is to be LRU to the last request.
    let (ids, distinct) = mixed(9, 6_000);
    let trace = trace_of(ids, distinct);
    for capacity in CAPACITIES {
        let hits = |policy| replay(&trace, policy, capacity).unwrap().hits;
        assert_eq!(hits(Policy::LarderLru), hits(Policy::Lru), "{capacity}");
    }
}
