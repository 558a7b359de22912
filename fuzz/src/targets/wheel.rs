//! The timer wheel against a map, with re-entrant use.
//!
//! The owner's side is as unruly as its contract allows: dues move later without a word to the wheel, or
//! to never; between two pops of one call ids are re-scheduled (the popped one as well, even overdue),
//! given up and scheduled anew; time jumps, stands still and runs backwards.
//!
//! What is held against it: an id comes out once, only when it is due, and a call that had steps left
//! leaves none that is due. A time before `next_due` finds nothing and costs nothing. With one step a
//! call everything still comes out, in a number of calls bounded by the ids.

use std::collections::BTreeMap;

use super::{Bug, Counts, Input, Story, Target};
use crate::ds::timer_wheel::TimerWheel;

pub const TARGET: Target = Target {
    name: "wheel",
    drive,
    bugs: &["wheel-late", "wheel-early", "wheel-lost", "wheel-keeps"],
    needs: &[
        "operations",
        "popped",
        "reentrant",
        "postponed",
        "never",
        "given up",
        "out of steps",
        "quiet",
    ],
};

const NEVER: u64 = u64::MAX;
const TICK: u64 = 1 << 23;

pub fn run(data: &[u8]) {
    drive(data, Bug::from_environment(TARGET.bugs));
}

#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "a story prints all of it")]
enum Op {
    Start(u64),
    Schedule(u32, u64),
    /// The owner has no more use for it, and does not say so.
    GiveUp(u32),
    /// The owner's due moves, and the wheel is not told.
    Postpone(u32, u64),
    Advance(u64),
    Pop {
        back: u64,
        steps: u32,
    },
    /// The next operation comes between two pops of the call before.
    Between,
    Quiet,
    Clear,
}

struct Run {
    wheel: TimerWheel,
    /// The dues of the ids that are to come out.
    held: BTreeMap<u32, u64>,
    /// The latest time the wheel was told.
    now: u64,
    bug: Bug,
    counts: Counts,
    story: Story<Op>,
}

/// Performs the operations in `data`.
pub fn drive(data: &[u8], bug: Bug) -> Counts {
    let mut input = Input::new(data);
    // From the start of time, from just before a wrap of some level, and from near the end.
    let now = match input.below(4) {
        0 => 0,
        1 => (TICK << (6 * (1 + input.below(5)))) - input.span(24),
        2 => input.span(62),
        _ => NEVER - 1 - input.span(40),
    };
    let mut run = Run {
        wheel: TimerWheel::new(now),
        held: BTreeMap::new(),
        now,
        bug,
        counts: Counts::default(),
        story: Story::new(),
    };
    run.story.then(Op::Start(now));
    while !input.is_empty() {
        run.step(&mut input);
        run.check();
    }
    run.drain_by_single_steps();
    std::mem::take(&mut run.counts)
}

impl Run {
    fn step(&mut self, input: &mut Input<'_>) {
        self.counts.add("operations", 1);
        match input.below(16) {
            0..=4 => {
                let op = self.draw_schedule(input);
                self.change(op);
            }
            5 => {
                let id = self.draw_id(input);
                self.change(Op::GiveUp(id));
            }
            6 | 7 => {
                let op = self.draw_postpone(input);
                self.change(op);
            }
            8..=10 => {
                // Often to the very edge of what comes next.
                let by = match (input.below(4), self.wheel.next_due()) {
                    (0, Some(due)) => due.saturating_sub(self.now),
                    (1, Some(due)) => due.saturating_sub(self.now).saturating_sub(1),
                    (2, _) => u64::from(input.byte()) << 16,
                    _ => input.span(44),
                };
                self.story.then(Op::Advance(by));
                self.now = self.now.saturating_add(by).min(NEVER - 1);
                // The wheel hears of it by the next pop alone.
                self.pop(input, 0, 0);
            }
            11..=13 => {
                let steps = input.pick(&[0, 1, 2, 3, 8, 64, 100_000]);
                self.pop(input, 0, steps);
            }
            // Time that runs backwards is time that stands still.
            14 => {
                let back = input.span(40);
                self.pop(input, back, 100_000);
            }
            _ if input.flag() => self.quiet(),
            _ if input.below(4) == 0 => self.clear(),
            _ => {}
        }
    }

    /// Few ids, so that they meet again, and some far apart.
    fn draw_id(&self, input: &mut Input<'_>) -> u32 {
        match input.below(8) {
            0 => 255 + u32::from(input.byte() % 4),
            1 => 4_000 + u32::from(input.byte()),
            _ => u32::from(input.byte() % 24),
        }
    }

    fn draw_due(&self, input: &mut Input<'_>) -> u64 {
        match input.below(8) {
            0 => self.now,
            1 => self.now.saturating_sub(input.span(30)),
            2 => self.now.saturating_add(u64::from(input.byte()) << 15),
            3 => NEVER - u64::from(input.byte() % 3),
            // The last and the first moment of a tick, near and far.
            4 => (self.now.saturating_add(input.span(50)) & !(TICK - 1)).saturating_sub(1),
            5 => self.now.saturating_add(input.span(50)) & !(TICK - 1),
            _ => self.now.saturating_add(input.span(48)),
        }
    }

    fn draw_schedule(&self, input: &mut Input<'_>) -> Op {
        let id = self.draw_id(input);
        Op::Schedule(id, self.draw_due(input))
    }

    fn draw_postpone(&self, input: &mut Input<'_>) -> Op {
        let id = self.draw_id(input);
        let due = self.held.get(&id).copied().unwrap_or(0);
        let later = match input.below(4) {
            0 => NEVER,
            1 => due.saturating_add(u64::from(input.byte()) << 14),
            _ => due.saturating_add(input.span(46)),
        };
        Op::Postpone(id, later)
    }

    /// One of the owner's changes, to both.
    fn change(&mut self, op: Op) {
        self.story.then(op);
        match op {
            Op::Schedule(id, due) => {
                let late = self.bug.is("wheel-late") && due % 5 == 0 && due < NEVER - TICK;
                self.wheel.schedule(id, if late { due + TICK } else { due });
                self.hold(id, due);
            }
            Op::GiveUp(id) => {
                self.held.remove(&id);
                self.counts.add("given up", 1);
            }
            Op::Postpone(id, later) => {
                if self.held.contains_key(&id) {
                    self.hold(id, later);
                    let what = if later == NEVER { "never" } else { "postponed" };
                    self.counts.add(what, 1);
                }
            }
            _ => unreachable!("not a change"),
        }
    }

    fn hold(&mut self, id: u32, due: u64) {
        if due == NEVER {
            self.held.remove(&id);
        } else {
            self.held.insert(id, due);
        }
    }

    fn pop_once(&mut self, now: u64, steps: &mut u32) -> Option<u32> {
        let keeps = self.bug.is("wheel-keeps");
        let (held, early) = (&self.held, self.bug.is("wheel-early"));
        self.wheel.pop_expired(now, steps, |id| {
            let due = match held.get(&id) {
                Some(due) => *due,
                None if keeps && id % 3 == 1 => now,
                None => NEVER,
            };
            if early && due < NEVER {
                due - due % TICK
            } else {
                due
            }
        })
    }

    /// Pops until there is nothing more, with the owner's own calls in between.
    fn pop(&mut self, input: &mut Input<'_>, back: u64, steps: u32) {
        self.story.then(Op::Pop { back, steps });
        let (mut left, mut between) = (steps, 0);
        while let Some(id) = self.pop_once(self.now.saturating_sub(back), &mut left) {
            self.counts.add("popped", 1);
            let lost = self.bug.is("wheel-lost") && id % 7 == 3;
            let held = if lost { None } else { self.held.remove(&id) };
            let due = held.unwrap_or_else(|| panic!("{id} came out and was not scheduled"));
            assert!(due <= self.now, "{id} came out before its due");
            between += 1;
            if between < 8 && input.flag() {
                self.between(input, id);
            }
        }
        assert!(left <= steps, "more steps than there were");
        if left == 0 {
            self.counts.add("out of steps", u64::from(steps > 0));
            return;
        }
        for (id, due) in &self.held {
            assert!(*due > self.now, "{id} was due and did not come out");
        }
    }

    fn between(&mut self, input: &mut Input<'_>, popped: u32) {
        self.counts.add("reentrant", 1);
        let op = match input.below(4) {
            0 => Op::Schedule(popped, self.draw_due(input)),
            1 => self.draw_schedule(input),
            2 => Op::GiveUp(self.draw_id(input)),
            _ => self.draw_postpone(input),
        };
        self.story.then(Op::Between);
        self.change(op);
        self.check();
    }

    /// Up to the moment before `next_due`, there is nothing to do.
    fn quiet(&mut self) {
        let Some(due) = self.wheel.next_due() else {
            return;
        };
        if due <= self.now {
            return;
        }
        self.story.then(Op::Quiet);
        self.counts.add("quiet", 1);
        self.now = due - 1;
        let mut steps = 100;
        assert_eq!(self.pop_once(due - 1, &mut steps), None, "before next_due");
        assert_eq!(steps, 100, "a step was taken before next_due");
    }

    fn clear(&mut self) {
        self.story.then(Op::Clear);
        self.held.clear();
        self.wheel.clear();
        assert_eq!((self.wheel.len(), self.wheel.next_due()), (0, None));
    }

    fn check(&self) {
        let held = &self.held;
        self.wheel
            .validate(|id| held.get(&id).copied().unwrap_or(NEVER));
        assert!(self.wheel.len() as usize >= held.len(), "ids on the wheel");
        for id in held.keys() {
            assert!(self.wheel.is_scheduled(*id), "{id} is not on the wheel");
        }
        if let Some(first) = held.values().min() {
            let next = self.wheel.next_due().expect("something is on the wheel");
            assert!(next <= (*first).max(self.now), "next_due is after a due");
        }
    }

    /// At the end of time, with one step a call.
    fn drain_by_single_steps(&mut self) {
        self.now = NEVER - 1;
        // One step at each of seven levels, one bucket at each, and a look at those that waited.
        let most = 40 + 20 * self.wheel.len();
        for _ in 0..most {
            if let Some(id) = self.pop_once(self.now, &mut 1) {
                assert!(self.held.remove(&id).is_some(), "{id} came out twice");
            }
            if self.wheel.len() == 0 {
                break;
            }
        }
        assert!(
            self.held.is_empty(),
            "{} ids never come out",
            self.held.len()
        );
        assert_eq!(self.wheel.len(), 0, "what was given up stays");
        self.check();
    }
}
