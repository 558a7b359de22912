//! The sweeps: every callback of every method, panicking at its n-th call; and the same with calls
//! back into the cache in place of panics.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use larder::{Compute, Loaded};

use crate::instruments::{Call, Failure, Injected, World};
use crate::methods::{METHODS, Method};
use crate::rig::{ABSENT, EXPIRED, LIVE, Rig, TestCache, Variant, complaint, text_of};
use crate::watch::{CALLED_FROM_INSIDE, Place, Rescue, collect_failures, watched};

/// How many calls of one kind are made to panic, one after the other.
const MOST_CALLS: i64 = 12;

/// What a sweep did and found.
#[derive(Default)]
struct Tally {
    pairs: u64,
    injections: u64,
    contained: u64,
    /// By method and callback, and by what was wrong: at which calls.
    complaints: BTreeMap<(String, String), Vec<String>>,
}

impl Tally {
    fn complain(&mut self, pair: String, place: String, wrong: Option<String>) {
        if let Some(wrong) = wrong {
            let places = self.complaints.entry((pair, wrong)).or_default();
            places.push(place);
        }
    }

    fn report(self, test: &str) {
        collect_failures(false);
        println!(
            "{test}: {} pairs of method and callback, {} injections, of which {} reached no caller",
            self.pairs, self.injections, self.contained
        );
        assert!(self.pairs > 0, "the sweep met nothing");
        let count: usize = self.complaints.values().map(Vec::len).sum();
        let mut text = String::new();
        for ((pair, wrong), places) in self.complaints {
            text += &format!("{pair} {places:?}: {}\n", wrong.replace('\n', ","));
        }
        assert!(count == 0, "{count} complaints:\n{text}");
    }
}

/// Makes the n-th call panic, for each n until the method makes no such call.
fn panic_in(variant: Variant, method: Method, call: Call, place: &Place, tally: &mut Tally) {
    let pair = format!("{variant:?}, {}, {call:?}", method.name);
    for n in 1..=MOST_CALLS {
        *place.lock() = format!("{pair} {n}");
        let rig = Rig::new(variant);
        rig.world.arm(call, n);
        let result = catch_unwind(AssertUnwindSafe(|| (method.run)(&rig)));
        let fired = rig.world.disarm() > 0;
        tally.injections += u64::from(fired);
        tally.pairs += u64::from(fired && n == 1);
        tally.contained += u64::from(fired && result.is_ok());
        let got_out = match result {
            Ok(()) => None,
            Err(payload) if payload.is::<Injected>() && call != Call::Listener => None,
            Err(payload) => Some(text_of(&*payload)),
        };
        let wrong = got_out.or_else(|| complaint(|| rig.check()));
        tally.complain(pair.clone(), n.to_string(), wrong);
        if !fired {
            break;
        }
    }
}

/// The calls that a method makes.
fn calls_of(variant: Variant, method: Method) -> Vec<Call> {
    let rig = Rig::new(variant);
    let before = Call::ALL.map(|call| rig.world.calls(call));
    (method.run)(&rig);
    let made = |&(call, before): &(Call, u64)| rig.world.calls(call) > before;
    let calls = Call::ALL.into_iter().zip(before).filter(made);
    calls.map(|(call, _)| call).collect()
}

fn panic_sweep(variant: Variant) {
    watched(move |place| {
        collect_failures(true);
        let mut tally = Tally::default();
        for &method in METHODS {
            for call in calls_of(variant, method) {
                panic_in(variant, method, call, place, &mut tally);
            }
        }
        tally.report(&format!("panics, {variant:?}"));
    });
}

#[test]
fn every_callback_of_every_method_may_panic_at_any_call() {
    panic_sweep(Variant::Plain);
}

#[test]
fn every_callback_may_panic_where_hits_reorder() {
    panic_sweep(Variant::Lru);
}

#[test]
fn every_callback_may_panic_where_a_policy_hears_of_everything() {
    panic_sweep(Variant::Policy);
}

#[test]
fn every_callback_may_panic_within_a_namespace() {
    panic_sweep(Variant::Named);
}

#[test]
fn every_callback_of_every_method_may_panic_at_any_call_while_values_are_loaded_again() {
    panic_sweep(Variant::Refreshed);
}

#[test]
fn every_callback_may_panic_where_a_new_key_takes_the_place_of_a_victim() {
    panic_sweep(Variant::Turnover);
}

/// A call that a callback makes back into the cache.
type Errand = (&'static str, fn(&TestCache, &'static World, u64));

const ERRANDS: &[Errand] = &[
    ("get", |c, w, id| drop(c.get(&w.key(id)))),
    ("insert", |c, w, id| drop(c.insert(w.key(id), w.value()))),
    ("add", |c, w, id| _ = c.add(w.key(id), w.value())),
    ("remove", |c, w, id| drop(c.remove(&w.key(id)))),
    ("clear", |c, _, _| c.clear()),
    ("retain", |c, _, id| _ = c.retain(|key, _| key.id != id)),
    ("iter", |c, _, _| c.iter().for_each(drop)),
    ("compute", |c, w, id| {
        drop(c.compute(&w.key(id), |_| Compute::Put(w.value())));
    }),
    ("get_or_load", |c, w, id| {
        drop(c.get_or_load(&w.key(id), || w.value()));
    }),
    ("get_or_load_with", |c, w, id| {
        let load = || Ok::<_, Failure>(Loaded::new(w.value()));
        drop(c.get_or_load_with(&w.key(id), load));
    }),
    ("load_async", |c, w, id| {
        drop(pollster::block_on(c.load_async(&w.key(id))));
    }),
    ("run_pending", |c, _, _| _ = c.run_pending(9)),
    ("namespace", |c, w, id| {
        drop(c.namespace("side").insert(w.key(id), w.value()));
    }),
];

/// More than once, so that events are raised inside events; few enough that a closure whose key is
/// written at each of its calls comes to an end.
const ERRANDS_A_CALL: u32 = 3;

/// Sends each errand, on the key that the method uses first and on others, from inside `call`.
fn call_back_from(
    variant: Variant,
    method: Method,
    call: Call,
    (place, rescue): (&Place, &Rescue),
    tally: &mut Tally,
) {
    let pair = format!("{variant:?}, {}, {call:?}", method.name);
    for &(name, errand) in ERRANDS {
        let ids: &[u64] = match name {
            "get" | "insert" | "remove" | "compute" => &[LIVE, ABSENT],
            "get_or_load" => &[LIVE, EXPIRED, ABSENT],
            _ => &[LIVE],
        };
        for &id in ids {
            *place.lock() = format!("{pair} calls {name} {id}");
            let rig = Rig::new(variant);
            let (cache, world) = (rig.cache.clone(), rig.world);
            world.send(call, ERRANDS_A_CALL, move || errand(&cache, world, id));
            let run = || catch_unwind(AssertUnwindSafe(|| (method.run)(&rig)));
            let (result, rescued) = rescue.over(&rig.time, run);
            tally.pairs += u64::from(name == ERRANDS[0].0 && id == LIVE);
            tally.injections += world.disarm();
            let refused =
                |text: &String| call.may_run_locked() && text.contains(CALLED_FROM_INSIDE);
            let got_out = result.err().map(|payload| text_of(&*payload));
            tally.contained += u64::from(got_out.is_none());
            let wrong = got_out
                .filter(|text| !refused(text))
                .or_else(|| rescued.then(|| "waited for itself".to_owned()))
                .or_else(|| complaint(|| rig.check()));
            tally.complain(pair.clone(), format!("{name} {id}"), wrong);
        }
    }
}

fn call_back_sweep(variant: Variant) {
    watched(move |place| {
        collect_failures(true);
        let mut tally = Tally::default();
        let rescue = Rescue::new();
        for &method in METHODS {
            for call in calls_of(variant, method) {
                if call.may_run_locked() && !cfg!(debug_assertions) {
                    // A release build does not look; it waits for its own lock.
                    continue;
                }
                call_back_from(variant, method, call, (place, &rescue), &mut tally);
            }
        }
        tally.report(&format!("calls back, {variant:?}"));
    });
}

#[test]
fn every_callback_of_every_method_may_call_the_cache_again() {
    // The variant that makes every kind of call.
    call_back_sweep(Variant::Policy);
}

#[test]
fn every_callback_may_call_the_cache_again_where_a_new_key_takes_the_place_of_a_victim() {
    call_back_sweep(Variant::Turnover);
}

#[test]
fn every_callback_may_call_the_cache_again_while_values_are_loaded_again() {
    call_back_sweep(Variant::Refreshed);
}
