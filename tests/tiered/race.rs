//! The orders of the commands of two additions and an insertion, chosen as in `fence.rs`, with the real code on both
//! sides of the tier: each absence is filled by one of them, and what is filled is not filled again.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Waker};

use larder::tier::{ContentId, MemoryServer, Tier, Tiered};
use parking_lot::Mutex;

use crate::fence::{Order, Path};
use crate::l1::Node;
use crate::stepped::{Bug, Stepped, TASK, Turns};

/// Whose content id is stored under the key, if it is a value's.
fn value_there(server: &MemoryServer) -> Option<ContentId> {
    let found = pollster::block_on(server.tier().get_many(vec![b":k".to_vec()]));
    let content = found.unwrap().pop().unwrap()?;
    let content_id = content[8..24].try_into().unwrap();
    // Placeholders are of kind 0.
    (content[5] == 1).then_some(ContentId(content_id))
}

struct Run {
    server: MemoryServer,
    turns: Arc<Turns>,
    nodes: [Node; 2],
}

impl Run {
    fn new(bug: Bug) -> Self {
        let server = MemoryServer::new();
        let turns = Arc::new(Turns::default());
        turns.messages.lock().resize_with(2, Default::default);
        let nodes = [0, 1].map(|process| {
            let tier = Stepped {
                inner: Arc::new(server.tier()),
                turns: turns.clone(),
                process,
                bug,
                ear: Mutex::new(None),
            };
            Tiered::builder(tier).max_capacity(8).build().unwrap()
        });
        let run = Run {
            server,
            turns,
            nodes,
        };
        // The first value's versions, with nobody else about.
        for node in &run.nodes {
            let mut warm = Box::pin(node.get_or_load_async("warm", || async { 0 }));
            let mut context = Context::from_waker(Waker::noop());
            while warm.as_mut().poll(&mut context).is_pending() {
                run.turn(TASK.get());
            }
        }
        run
    }

    /// Lets a task's next command go; all messages come before it.
    fn turn(&self, task: usize) {
        let messages: Vec<_> = self
            .turns
            .messages
            .lock()
            .iter_mut()
            .flat_map(std::mem::take)
            .collect();
        for (listener, changes) in messages {
            listener.upgrade().unwrap().changed(&changes);
        }
        let mut waiting = self.turns.waiting.lock();
        let at = waiting.iter().position(|turn| turn.0 == task).unwrap();
        waiting.remove(at).1.store(true, Relaxed);
    }

    fn go(&self, path: &mut Path) -> Result<(), String> {
        let added = Mutex::new(Vec::new());
        let add = async |node: &Node, value: u64| {
            if node.add_async("k".to_owned(), value).await.unwrap() {
                added.lock().push(value);
            }
        };
        let insert = async { self.nodes[0].insert_async("k".to_owned(), 3).await.unwrap() };
        let mut tasks: [Option<crate::l1::Task<'_, ()>>; 3] = [
            Some(Box::pin(insert)),
            Some(Box::pin(add(&self.nodes[0], 1))),
            Some(Box::pin(add(&self.nodes[1], 2))),
        ];
        let (mut order, mut filled, mut stands) = (Order::new(), 0, None);
        loop {
            for (number, slot) in tasks.iter_mut().enumerate() {
                TASK.set(number);
                if slot
                    .as_mut()
                    .is_some_and(|task| crate::l1::poll(task).is_some())
                {
                    *slot = None;
                }
                let now = value_there(&self.server);
                match (stands, now) {
                    (Some(before), Some(now)) if before != now => {
                        return Err("a value was stored over a value".to_owned());
                    }
                    (None, Some(_)) => filled += 1,
                    _ => {}
                }
                stands = now;
            }
            let open: Vec<usize> = self
                .turns
                .waiting
                .lock()
                .iter()
                .map(|turn| turn.0)
                .collect();
            if open.is_empty() {
                break;
            }
            self.turn(order.choose(open, path));
        }
        assert!(tasks.iter().all(Option::is_none), "nobody can go on");
        let added = added.lock().clone();
        if filled != added.len() + 1 {
            return Err(format!(
                "{filled} absences were filled, and {added:?} was added"
            ));
        }
        let reader: Node = Tiered::builder(self.server.tier())
            .max_capacity(8)
            .build()
            .unwrap();
        match reader.get("k").unwrap() {
            Some(3) => Ok(()),
            found => Err(format!(
                "{found:?} stands after the insertion; {added:?} was added"
            )),
        }
    }
}

/// Runs all orders; how many there were, or the first that went wrong.
fn explore(bug: Bug) -> Result<u64, String> {
    let mut path = Path::new();
    let mut runs = 0;
    loop {
        runs += 1;
        Run::new(bug).go(&mut path)?;
        if !path.next() {
            return Ok(runs);
        }
    }
}

#[test]
fn each_absence_is_filled_by_one_in_every_order() {
    let runs = explore(Bug::None).unwrap();
    println!("counts: {runs} orders of two additions and an insertion");
    assert!(runs > 100);
}

#[test]
fn a_tier_without_fences_is_caught() {
    assert!(explore(Bug::NoFence).is_err());
}
