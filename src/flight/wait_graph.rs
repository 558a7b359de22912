//! The wait graph: finds loads that wait for themselves.
//!
//! Each leader has a [`LoadId`] while its loader runs. An edge leads from a load to each load that its loader waits
//! for. Before a loader joins a flight, the search follows the edges from that flight's leader; if they arrive at a
//! load that the joining loader is part of, waiting would never end.
//!
//! Which loads a loader is part of is known by thread: the id of a blocking leader is on its thread's stack for as
//! long as the loader runs, that of an asynchronous leader for as long as its future is being polled. A loader that
//! hands its work to another thread or a spawned task is not followed there; a circle through such a hand-over ends by
//! the deadlines.
//!
//! # Locks
//! One process-wide mutex guards the edges. It is taken only by loaders that load in turn, and
//! nothing is locked and nobody called under it.
//!
//! The search adds its own edges before it looks, under that mutex: of the callers that close a
//! circle, the last one finds it.

use std::cell::RefCell;
use std::collections::BTreeMap;
// Of std, also under shuttle: read while `EDGES` is held, where nobody else may be scheduled.
use std::sync::atomic::{AtomicU64, Ordering};

use crate::util::sync::Arc;

/// The leader id of a flight that nobody leads.
pub(crate) const NO_LOAD: u64 = 0;

/// For each waiting load, where the leader ids of the flights that it waits for are kept.
type Edges = BTreeMap<u64, Vec<Arc<AtomicU64>>>;

// Real primitives, also under shuttle: these critical sections have no point at which others run.
static EDGES: parking_lot::Mutex<Edges> = parking_lot::Mutex::new(BTreeMap::new());

crate::util::sync::thread_local! {
    /// The ids of the loads whose loaders run on this thread now, outermost first.
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Whether a loader runs on this thread.
pub(crate) fn is_loading() -> bool {
    STACK.try_with(|stack| !stack.borrow().is_empty()) == Ok(true)
}

/// Whether the loader (or the closure) of this load runs on this thread.
pub(crate) fn is_loading_as(load_id: u64) -> bool {
    STACK.try_with(|stack| stack.borrow().contains(&load_id)) == Ok(true)
}

/// The ids of the loads whose loaders run on this thread now.
#[cfg(any(test, feature = "tiered"))]
pub(crate) fn leaders_here() -> Vec<u64> {
    STACK
        .try_with(|stack| stack.borrow().clone())
        .unwrap_or_default()
}

/// The id of a load, held by its leader for as long as it leads.
#[derive(Debug)]
pub(crate) struct LoadId(u64);

impl LoadId {
    pub(crate) fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(NO_LOAD + 1);
        // Relaxed: only uniqueness matters.
        LoadId(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }

    pub(crate) fn id(&self) -> u64 {
        self.0
    }

    /// Puts the id on this thread's stack while its loader runs or is polled.
    pub(crate) fn enter(&self) -> RunningLoad {
        // A thread that is ending has no stack any more; its loads are not followed.
        let _ = STACK.try_with(|stack| stack.borrow_mut().push(self.0));
        RunningLoad(self.0)
    }
}

/// Takes its id off the stack when dropped, also by a panic of the loader.
pub(crate) struct RunningLoad(u64);

impl Drop for RunningLoad {
    fn drop(&mut self) {
        let _ = STACK.try_with(|stack| {
            let mut stack = stack.borrow_mut();
            if let Some(at) = stack.iter().rposition(|&load_id| load_id == self.0) {
                stack.remove(at);
            }
        });
    }
}

/// The edges of one loader's wait, for as long as it waits.
#[derive(Default)]
pub(crate) struct WaitEdge(Vec<(u64, Arc<AtomicU64>)>);

impl WaitEdge {
    /// Registers that the loaders on this thread's stack wait for the flight whose leader is at `leader`.
    /// `None` if that would close a circle.
    pub(crate) fn begin(leader: &Arc<AtomicU64>) -> Option<WaitEdge> {
        let stack: Vec<u64> = STACK
            .try_with(|stack| stack.borrow().clone())
            .unwrap_or_default();
        if stack.is_empty() {
            return Some(WaitEdge::default());
        }
        let mut wait_edge = WaitEdge::default();
        let mut edges = EDGES.lock();
        for &load_id in &stack {
            edges.entry(load_id).or_default().push(Arc::clone(leader));
            wait_edge.0.push((load_id, Arc::clone(leader)));
        }
        let circle = leads_to(&edges, leader, &stack);
        drop(edges);
        // `wait_edge` removes the edges when it is dropped.
        (!circle).then_some(wait_edge)
    }
}

impl Drop for WaitEdge {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let mut edges = EDGES.lock();
        for (load_id, leader) in self.0.drain(..) {
            if let Some(targets) = edges.get_mut(&load_id) {
                if let Some(at) = targets.iter().position(|other| Arc::ptr_eq(other, &leader)) {
                    targets.swap_remove(at);
                }
                if targets.is_empty() {
                    edges.remove(&load_id);
                }
            }
        }
    }
}

/// Whether the leader at `from` waits, directly or not, for one of `goals`.
fn leads_to(edges: &Edges, from: &Arc<AtomicU64>, goals: &[u64]) -> bool {
    let mut seen = Vec::new();
    let mut open = vec![from.load(Ordering::Relaxed)];
    while let Some(load_id) = open.pop() {
        if goals.contains(&load_id) {
            return true;
        }
        if load_id == NO_LOAD || seen.contains(&load_id) {
            continue;
        }
        seen.push(load_id);
        if let Some(targets) = edges.get(&load_id) {
            open.extend(targets.iter().map(|target| target.load(Ordering::Relaxed)));
        }
    }
    false
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;

    fn led_by(load_id: &LoadId) -> Arc<AtomicU64> {
        Arc::new(AtomicU64::new(load_id.id()))
    }

    #[test]
    fn a_loader_that_waits_for_itself_is_found() {
        let load_id = LoadId::new();
        let own = led_by(&load_id);
        let _running = load_id.enter();
        assert!(WaitEdge::begin(&own).is_none());
    }

    #[test]
    fn a_circle_over_two_threads_is_found_by_whoever_closes_it() {
        let (first, second) = (LoadId::new(), LoadId::new());
        let (first_flight, second_flight) = (led_by(&first), led_by(&second));
        let _running = first.enter();
        let _waiting = WaitEdge::begin(&second_flight).expect("no circle yet");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _running = second.enter();
                assert!(WaitEdge::begin(&first_flight).is_none());
            });
        });
    }

    #[test]
    fn a_wait_that_ended_leaves_no_pointer() {
        let (first, second) = (LoadId::new(), LoadId::new());
        let (first_flight, second_flight) = (led_by(&first), led_by(&second));
        {
            let _running = first.enter();
            drop(WaitEdge::begin(&second_flight));
        }
        let _running = second.enter();
        assert!(WaitEdge::begin(&first_flight).is_some());
    }
}
