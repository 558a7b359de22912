//! The operations, each as the store would perform it, and compared with the reference.

use std::time::Duration;

use super::{FILL, Held, Op, Run, Slot, TAGS, Wide};
use crate::entry::Entry;
use crate::entry::freshness::{Early, OwnWindows, RefreshPlan};
use crate::entry::generation::{EpochCounter, Namespace};
use crate::entry::header::EntryHeader;
use crate::entry::removal::{RemovalCause, RemovedBatch, RemovedEntry};
use crate::shard::{Found, LookupScope, MAINTENANCE_BATCH, NewEntry, Outcome, ShardCapacity};
use crate::targets::{GRAIN, kept};
use crate::util::clock::{NEVER, Now};

/// Some keys' values are loaded again before their time is up, which must move no deadline. (Not those that live
/// so long that a deadline is kept in coarser units than a window.)
fn early(slot: Slot, lifetime: u64) -> Early {
    let delta = u64::from(slot.1 % 4) * 50_000;
    Early::new(delta, 1.0, None, (lifetime < 1 << 40).then_some(lifetime))
}

/// Some keys' values are kept for a while past their deadlines, which must move none either.
pub(super) fn windows(slot: Slot) -> OwnWindows {
    match slot.1 % 5 {
        0 => OwnWindows::NONE.if_error(Duration::from_millis(3)),
        _ => OwnWindows::NONE,
    }
}

impl Run {
    pub(super) fn step(&mut self, op: Op) {
        match op {
            Op::Setup(_) => {}
            Op::Store {
                slot,
                weight,
                lifetime,
                tags,
                add,
            } => self.store(slot, weight, lifetime, tags, add),
            Op::Look(slot) => self.read(slot),
            Op::Remove(slot) => self.remove(slot),
            Op::Touch(slot, lifetime) => self.touch(slot, lifetime),
            Op::Update(slot) => self.update(slot),
            Op::Tend(budget) => {
                self.enter();
                self.run_maintenance(budget, RemovedBatch::new());
            }
            Op::Sweep => self.sweep(),
            Op::Fill(lifetime) => FILL.for_each(|key| self.store((0, key), 1, lifetime, 0, false)),
            Op::Clear(at_once) => {
                if !self.bug.is("shard-clear") {
                    self.epochs.clear();
                }
                self.held.values_mut().for_each(|held| held.cleared = true);
                if at_once {
                    self.enter();
                    self.run_maintenance(MAINTENANCE_BATCH, RemovedBatch::new());
                }
            }
            Op::ClearSpace(space) => {
                self.spaces[space].clear(&self.epochs);
                let all = self.held.values_mut().filter(|held| held.slot.0 == space);
                all.for_each(|held| held.dead = true);
            }
            Op::InvalidateTag(tag) => {
                if !self.bug.is("shard-tag") {
                    self.tags.invalidate(&tag.to_string(), &self.epochs);
                }
                let all = self
                    .held
                    .values_mut()
                    .filter(|held| held.tags >> tag & 1 != 0);
                all.for_each(|held| held.dead = true);
            }
            Op::Limit(capacity) => {
                self.capacity = capacity;
                let over = u64::from(self.bug.is("shard-bound"));
                let entries = capacity.entries + over;
                self.shard.set_capacity(ShardCapacity {
                    entries,
                    weight: capacity.weight + over,
                });
                self.counts.add("trimming", u64::from(self.is_over()));
            }
            Op::Advance(by) => {
                self.time.advance(Duration::from_nanos(by));
                self.now = self.clock.now();
            }
        }
        self.ordered = None;
    }

    fn enter(&mut self) {
        self.shard.notice_clear(&self.epochs);
    }

    /// The end of a critical section; returns what is left of the budget.
    fn run_maintenance(&mut self, budget: u32, mut out: RemovedBatch<u32, Wide>) -> u32 {
        let mut now = Now::new(&self.clock);
        let left = self
            .shard
            .run_maintenance(budget, &self.epochs, &mut now, &mut out);
        assert!(left <= budget);
        if left > 0 && self.shard.is_fragmented() {
            let end = self.shard.end();
            let moved = self.shard.compact();
            self.counts.add("relocated", u64::from(moved));
            self.counts.add("packed", u64::from(self.shard.end() < end));
        }
        let first = out.take_first();
        let rest = out.take_rest().unwrap_or_default();
        for (number, gone) in first.into_iter().chain(rest).enumerate() {
            if self.bug.is("shard-lost") && number == 1 {
                continue;
            }
            self.gone(&gone);
        }
        left
    }

    /// Looks, and compares the verdict.
    fn look(&mut self, slot: Slot, cleared: u64) -> Found {
        let scope = scope(&self.epochs, &self.spaces[slot.0], cleared);
        let mut now = Now::new(&self.clock);
        let found = self.shard.lookup(self.hash(slot), &slot.1, scope, &mut now);
        let want = self.holder(slot).map(|(value, held)| (value, held.clone()));
        let what = match (found, want) {
            (Found::Absent, None) => "absent",
            (Found::Live(id), Some((value, held))) => {
                let dead = held.dead || held.cleared || self.now >= self.expires_at(&held);
                assert!(!dead, "served {held:?} at {}", self.now);
                let entry = self.shard.entry(id);
                let entry = entry.map(|entry| (entry.key, entry.value.number));
                assert_eq!(entry, Some((slot.1, value)), "what is at {slot:?}");
                "live"
            }
            (Found::Dead(id, cause), Some((value, held))) => {
                let dead = held.dead || held.cleared;
                let true_cause = match cause {
                    RemovalCause::Invalidated => dead,
                    _ => {
                        cause == RemovalCause::Expired
                            && !dead
                            && self.now >= self.expires_at(&held)
                    }
                };
                assert!(
                    true_cause,
                    "{cause:?} is no verdict for {held:?} at {}",
                    self.now
                );
                let entry = self.shard.entry(id);
                assert_eq!(entry.map(|entry| entry.value.number), Some(value));
                "past"
            }
            (found, want) => panic!("found {found:?} where {want:?} is"),
        };
        self.counts.add(what, 1);
        found
    }

    fn read(&mut self, slot: Slot) {
        let Found::Live(id) = self.look(slot, self.epochs.min_epoch()) else {
            return;
        };
        let mut now = Now::new(&self.clock);
        if let Some(entry) = self.shard.entry(id) {
            self.shard.note_hit(id, entry, &mut now);
        }
        // The last noted access moves by a hundredth of the time to idle, or not at all.
        let (at, idle) = (self.now, self.setup.idle.unwrap_or(0));
        if let Some(held) = self.held.values_mut().find(|held| held.slot == slot) {
            if at - held.accessed >= idle / 100 {
                held.accessed = at;
            }
        }
        if self.setup.lru {
            self.enter();
            self.shard.reorder(id);
            self.run_maintenance(MAINTENANCE_BATCH, RemovedBatch::new());
        }
    }

    fn store(&mut self, slot: Slot, weight: u64, lifetime: u64, tags: u8, add: bool) {
        let names: Vec<Box<str>> = (0..TAGS)
            .filter(|tag| tags >> tag & 1 != 0)
            .map(|tag| tag.to_string().into())
            .collect();
        let set = self.tags.set(&names);
        self.enter();
        let epoch = self.epochs.current();
        let found = self.look(slot, 0);
        if add && matches!(found, Found::Live(_)) {
            self.run_maintenance(MAINTENANCE_BATCH, RemovedBatch::new());
            return;
        }
        let mut out = RemovedBatch::new();
        let before = self.holder(slot).map(|(value, _)| value);
        // The store refuses these before the shard hears of them.
        if self.capacity.entries == 0 || weight > self.capacity.weight {
            if let Found::Live(id) | Found::Dead(id, _) = found {
                let cause = match found {
                    Found::Dead(_, cause) => cause,
                    _ => RemovalCause::Explicit,
                };
                self.ordered = before;
                self.shard.remove_into(id, cause, &mut out);
            }
            self.run_maintenance(MAINTENANCE_BATCH, out);
            return;
        }
        self.next += 1;
        let held = Held {
            slot,
            weight,
            expires_at: kept(self.now.saturating_add(lifetime)),
            accessed: self.now,
            tags,
            dead: false,
            cleared: false,
        };
        let late = self.bug.is("shard-late") && lifetime < NEVER;
        let expires_at = held.expires_at + if late { GRAIN } else { 0 };
        let early = early(slot, lifetime);
        let new_entry = NewEntry {
            entry: Entry {
                key: slot.1,
                value: Wide::new(self.next),
                header: EntryHeader::new(
                    self.hash(slot),
                    epoch,
                    early.check_at(expires_at),
                    set.is_some(),
                ),
            },
            weight: weight + u64::from(self.bug.is("shard-weight") && weight == 7),
            tags: set,
            plan: RefreshPlan {
                early,
                windows: windows(slot),
            },
        };
        let scope = scope(&self.epochs, &self.spaces[slot.0], 0);
        let mut now = Now::new(&self.clock);
        let outcome = self
            .shard
            .store(new_entry, found, scope, &mut now, &mut out);
        let Outcome::Stored { replaced } = outcome else {
            panic!("the slab is full");
        };
        self.settle_store(replaced, before, matches!(found, Found::Live(_)), held);
        self.run_maintenance(MAINTENANCE_BATCH, out);
    }

    fn settle_store(
        &mut self,
        replaced: Option<(u32, Wide, u64)>,
        before: Option<u64>,
        live: bool,
        new: Held,
    ) {
        let want = before.filter(|_| live);
        assert_eq!(
            replaced.as_ref().map(|(_, value, _)| value.number),
            want,
            "what was replaced"
        );
        if let Some((key, value, weight)) = replaced {
            self.counts.add("overwritten", 1);
            self.ordered = Some(value.number);
            let (namespace, epoch, cause) = (0, 0, RemovalCause::Replaced);
            self.gone(&RemovedEntry {
                key,
                value,
                cause,
                weight,
                namespace,
                epoch,
            });
        }
        self.counts.add("stored", 1);
        self.held.insert(self.next, new);
    }

    fn remove(&mut self, slot: Slot) {
        self.enter();
        let mut out = RemovedBatch::new();
        match self.look(slot, 0) {
            Found::Live(id) => {
                self.ordered = self.holder(slot).map(|(value, _)| value);
                let gone = self.shard.remove(id, RemovalCause::Explicit);
                self.gone(&gone.expect("it was found"));
            }
            Found::Dead(id, cause) => self.shard.remove_into(id, cause, &mut out),
            Found::Absent => {}
        }
        self.run_maintenance(MAINTENANCE_BATCH, out);
    }

    fn touch(&mut self, slot: Slot, lifetime: u64) {
        self.enter();
        if let Found::Live(id) = self.look(slot, 0) {
            let (at, until) = (self.now, self.now.saturating_add(lifetime));
            self.shard
                .reschedule(id, until, early(slot, lifetime), &mut Now::new(&self.clock));
            let held = self.held.values_mut().find(|held| held.slot == slot);
            let held = held.expect("it was found");
            (held.expires_at, held.accessed) = (kept(until), at);
            self.counts.add("touched", 1);
        }
        self.run_maintenance(MAINTENANCE_BATCH, RemovedBatch::new());
    }

    fn update(&mut self, slot: Slot) {
        self.enter();
        if let Found::Live(id) = self.look(slot, 0) {
            self.next += 1;
            let next = self.next;
            self.shard
                .update(id, &mut Now::new(&self.clock), |value| value.number = next);
            let value = self.holder(slot).map(|(value, _)| value);
            let mut held = value
                .and_then(|value| self.held.remove(&value))
                .expect("it was found");
            held.accessed = self.now;
            self.held.insert(next, held);
            self.counts.add("updated", 1);
        }
        self.run_maintenance(MAINTENANCE_BATCH, RemovedBatch::new());
    }

    /// With budget enough, nothing is left that is past, cleared or over a limit.
    pub(super) fn sweep(&mut self) {
        self.enter();
        let left = self.run_maintenance(10_000, RemovedBatch::new());
        assert!(left > 0, "a sweep without an end");
        for visit in 0.. {
            if !self.shard.is_fragmented() && !self.shard.has_work(self.now, &self.epochs) {
                break;
            }
            assert!(visit < 100, "a sweep leaves work");
            self.run_maintenance(1, RemovedBatch::new());
        }
        let fitting = self.held.len() as u32 * 4 / 3 + 2 * 64;
        let end = self.shard.end();
        assert!(end <= fitting, "{} in {end} slots", self.held.len());
        for held in self.held.values() {
            assert!(!held.cleared, "a sweep left {held:?}");
            assert!(
                self.now < self.reclaim_at(held),
                "a sweep left {held:?} at {}",
                self.now
            );
        }
        assert!(!self.is_over(), "a sweep left the shard over its limits");
        self.counts.add("swept", 1);
    }
}

fn scope<'a>(epochs: &'a EpochCounter, space: &Namespace, cleared: u64) -> LookupScope<'a> {
    LookupScope {
        namespace: space.id,
        min_epoch: space.min_epoch(),
        cache_min_epoch: cleared,
        epochs,
    }
}
