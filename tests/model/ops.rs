//! The operations, and how one is drawn.

use std::time::Duration;

use crate::reference::{Reference, Slot, Ttl, nanos};
use crate::support::Rng;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Get(Slot),
    Lookup(Slot),
    Peek(Slot),
    Contains(Slot),
    Insert(Slot, i64),
    InsertWith(Slot, i64, Ttl, Vec<u8>),
    /// More tags than an entry can carry.
    InsertOverTagged(Slot, i64),
    Add(Slot, i64),
    AddWith(Slot, i64, Ttl, Vec<u8>),
    Replace(Slot, i64),
    ComputeKeep(Slot),
    ComputePut(Slot, i64),
    ComputeRemove(Slot),
    Incr(Slot, i64),
    Decr(Slot, i64),
    Touch(Slot, Option<Duration>),
    Remove(Slot),
    Invalidate(Slot),
    /// Removes values of the given remainder by three.
    RemoveIf(Slot, i64),
    /// Keeps values of another remainder by three.
    Retain(u8, i64),
    /// The namespace's clear; the root's clears all.
    Clear(u8),
    InvalidateTag(u8),
    Load(Slot, Load),
    Advance(u64),
    RunPending(u32),
    SetCapacity(u64),
    Iterate(u8),
}

/// A load, by the method that is called and what its loader answers.
#[derive(Clone, Debug)]
pub(crate) enum Load {
    Plain(i64),
    Optional(Option<i64>),
    Try(Result<i64, ()>),
    With(i64, Ttl, Vec<u8>),
    Uncacheable(i64),
}

pub(crate) const SPACES: u64 = 3;
pub(crate) const TAGS: u64 = 4;

/// What operations are drawn from.
pub(crate) struct Source {
    pub(crate) rng: Rng,
    next_value: i64,
    keys: u64,
    capacities: &'static [u64],
}

impl Source {
    pub(crate) fn new(seed: u64, shards: u64) -> Self {
        // Capacities that a few dozen keys fill, all multiples of the shards.
        let (keys, capacities): (_, &[u64]) = if shards == 1 {
            (12, &[8, 24, 3, 16, 24, 1, 0])
        } else {
            (30, &[24, 64, 16, 48, 8, 0])
        };
        Source {
            rng: Rng::new(seed),
            next_value: 0,
            keys,
            capacities,
        }
    }

    pub(crate) fn capacity(&mut self) -> u64 {
        let two = &self.capacities[..2];
        self.rng.pick(two)
    }

    /// Often one of those that are about to change by themselves: there are few, and they do not stay.
    fn slot(&mut self, reference: &Reference) -> Slot {
        let passing = reference.passing();
        if !passing.is_empty() && self.rng.percent(30) {
            return self.rng.pick(&passing);
        }
        let space = self.rng.below(SPACES) as u8;
        (space, self.rng.below(self.keys) as u32)
    }

    /// Never the same number twice, so that no stale value passes for a fresh one.
    fn value(&mut self) -> i64 {
        self.next_value += 1 + self.rng.below(3) as i64;
        self.next_value
    }

    fn ttl(&mut self) -> Ttl {
        let milli = Duration::from_millis(1);
        match self.rng.below(8) {
            0..3 => Ttl::Default,
            3 => Ttl::Forever,
            4 => Ttl::For(milli),
            5 => Ttl::For(Duration::MAX),
            6 => Ttl::For(milli * self.rng.below(300) as u32),
            _ => Ttl::For(Duration::from_nanos(1 + self.rng.below(1000))),
        }
    }

    fn tags(&mut self) -> Vec<u8> {
        let count = self.rng.below(3);
        let mut tags: Vec<u8> = (0..count).map(|_| self.rng.below(TAGS) as u8).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    fn load(&mut self) -> Load {
        let value = self.value();
        match self.rng.below(12) {
            0..4 => Load::Plain(value),
            4 | 5 => Load::Optional(self.rng.percent(60).then_some(value)),
            6..9 => Load::Try(if self.rng.percent(40) {
                Ok(value)
            } else {
                Err(())
            }),
            9 | 10 => Load::With(value, self.ttl(), self.tags()),
            _ => Load::Uncacheable(value),
        }
    }

    /// Somewhere from no time at all to an hour, and often to the very edge of a deadline.
    fn step_of_time(&mut self, reference: &Reference) -> u64 {
        let edge = reference.next_deadline().map(|at| at - reference.now);
        match (self.rng.below(10), edge) {
            (0..2, Some(edge)) => edge,
            (2..4, Some(edge)) => edge - 1,
            (4, _) => nanos(Duration::from_secs(3600)),
            (5..7, _) => self.rng.below(2_000_000),
            _ => self.rng.below(60_000_000),
        }
    }

    pub(crate) fn draw(&mut self, reference: &Reference) -> Op {
        let slot = self.slot(reference);
        let remainder = self.rng.below(3) as i64;
        match self.rng.below(100) {
            0..8 => Op::Get(slot),
            8..12 => Op::Lookup(slot),
            12..14 => Op::Peek(slot),
            14..16 => Op::Contains(slot),
            16..30 => Op::Insert(slot, self.value()),
            30..37 => Op::InsertWith(slot, self.value(), self.ttl(), self.tags()),
            37 => Op::InsertOverTagged(slot, self.value()),
            38..42 => Op::Add(slot, self.value()),
            42..44 => Op::AddWith(slot, self.value(), self.ttl(), self.tags()),
            44..48 => Op::Replace(slot, self.value()),
            48 => Op::ComputeKeep(slot),
            49..52 => Op::ComputePut(slot, self.value()),
            52 => Op::ComputeRemove(slot),
            53..56 => Op::Incr(slot, 1000),
            56 => Op::Decr(slot, 1000),
            57..60 => {
                let time = match self.ttl() {
                    Ttl::For(time) => Some(time),
                    _ => None,
                };
                Op::Touch(slot, time)
            }
            60..63 => Op::Remove(slot),
            63 => Op::Invalidate(slot),
            64..66 => Op::RemoveIf(slot, remainder),
            66 => Op::Retain(slot.0, remainder),
            67 => Op::Clear(slot.0),
            68 => Op::InvalidateTag(self.rng.below(TAGS) as u8),
            69..83 => Op::Load(slot, self.load()),
            83..94 => Op::Advance(self.step_of_time(reference)),
            94..96 => Op::RunPending(self.rng.pick(&[0, 1, 5, 10_000])),
            96..98 => Op::SetCapacity(self.rng.pick(self.capacities)),
            _ => Op::Iterate(slot.0),
        }
    }
}
