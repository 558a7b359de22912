//! The slab, the lists over its ids, and the stepped array beside it, each against std's own.
//!
//! They are driven as a shard drives them: an id that the slab gives out gets links and a place in a
//! list, and loses both before the slab takes it back and gives it out again. The stepped array has ids
//! of its own, far apart, so that its holes are met.
//!
//! What is held against them: an address belongs to one entry at a time, the lowest number of blocks is
//! used, every value is dropped once; lists are deques; the array keeps what was written and gives back
//! whole chunks.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use super::{Bug, Counts, Input, Story, Target};
use crate::ds::chunked_vec::ChunkedVec;
use crate::ds::list::{Links, List};
use crate::entry::Entry;
use crate::entry::header::EntryHeader;
use crate::shard::slab::Slab;

pub const TARGET: Target = Target {
    name: "slab",
    drive,
    bugs: &[
        "slab-keeps",
        "slab-leaks",
        "list-front",
        "list-stays",
        "steps-neighbour",
        "steps-keeps",
    ],
    needs: &[
        "operations",
        "inserted",
        "removed",
        "moved",
        "appended",
        "written",
        "truncated",
        "block freed",
    ],
};

const LISTS: usize = 3;
/// Slots in a block: the values are so large that a block is as many as a chunk.
const BLOCK: u32 = Slab::<u64, Counted>::BLOCK as u32;
const CHUNK: u32 = 256;

pub fn run(data: &[u8]) {
    drive(data, Bug::from_environment(TARGET.bugs));
}

#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "a story prints all of it")]
enum Op {
    Insert {
        count: u32,
        list: usize,
    },
    Remove(u32),
    /// So many from this one on.
    RemoveRun(u32, u32),
    Change(u32),
    Move(u32, usize, bool),
    PopBack(usize),
    Append(usize, usize),
    TruncateLinks,
    Write(u32, u64),
    Read(u32),
    TruncateSteps(u32),
}

/// A value that counts itself, and takes room.
struct Counted {
    number: u64,
    alive: Rc<Cell<i64>>,
    _large: [u64; 24],
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

struct Run {
    slab: Slab<u64, Counted>,
    links: Links,
    lists: [List; LISTS],
    steps: ChunkedVec<u64>,
    /// What the slab holds, by address.
    held: BTreeMap<u32, u64>,
    deques: [VecDeque<u32>; LISTS],
    /// The list that each id is in.
    listed: HashMap<u32, usize>,
    written: BTreeMap<u32, u64>,
    chunks: BTreeSet<u32>,
    alive: Rc<Cell<i64>>,
    /// The most entries there were.
    peak: u32,
    next: u64,
    bug: Bug,
    counts: Counts,
    story: Story<Op>,
}

/// Performs the operations in `data`.
pub fn drive(data: &[u8], bug: Bug) -> Counts {
    let mut input = Input::new(data);
    let alive = Rc::new(Cell::new(0));
    let mut run = Run {
        slab: Slab::new(),
        links: Links::new(),
        lists: [List::new(); LISTS],
        steps: ChunkedVec::new(),
        held: BTreeMap::new(),
        deques: Default::default(),
        listed: HashMap::new(),
        written: BTreeMap::new(),
        chunks: BTreeSet::new(),
        alive: Rc::clone(&alive),
        peak: 0,
        next: 0,
        bug,
        counts: Counts::default(),
        story: Story::new(),
    };
    while !input.is_empty() {
        run.step(&mut input);
        run.check();
    }
    let counts = std::mem::take(&mut run.counts);
    drop(run);
    assert_eq!(alive.get(), 0, "values neither dropped nor dropped once");
    counts
}

impl Run {
    fn step(&mut self, input: &mut Input<'_>) {
        self.counts.add("operations", 1);
        let op = self.draw(input);
        self.story.then(op);
        match op {
            Op::Insert { count, list } => (0..count).for_each(|_| self.insert(list)),
            Op::Remove(id) => self.remove(id),
            Op::RemoveRun(from, count) => {
                let run: Vec<u32> = self.held.range(from..).map(|(id, _)| *id).collect();
                run.into_iter()
                    .take(count as usize)
                    .for_each(|id| self.remove(id));
            }
            Op::Change(id) => self.change(id),
            Op::Move(id, list, front) => self.relist(id, list, front),
            Op::PopBack(list) => {
                let id = self.lists[list].pop_back(&mut self.links);
                assert_eq!(id, self.deques[list].pop_back(), "pop_back");
                if let Some(id) = id {
                    self.link(id, list, true);
                }
            }
            Op::Append(to, from) => self.append(to, from),
            Op::TruncateLinks => self.truncate_links(),
            Op::Write(id, value) => self.write(id, value),
            Op::Read(id) => self.read(id),
            Op::TruncateSteps(len) => self.truncate_steps(len),
        }
    }

    /// Where a run of removals begins: mostly at a block's first slot, so that whole blocks are emptied.
    fn draw_run(&self, input: &mut Input<'_>) -> u32 {
        let id = self.draw_id(input);
        if input.below(4) == 0 {
            id
        } else {
            id / BLOCK * BLOCK
        }
    }

    fn draw(&self, input: &mut Input<'_>) -> Op {
        let list = input.below(LISTS as u32) as usize;
        match input.below(18) {
            0..=3 => Op::Insert {
                count: input.pick(&[1, 1, 1, 200, 255, 256, 257, 5]),
                list,
            },
            4 | 5 => Op::Remove(self.draw_id(input)),
            6 | 7 => Op::RemoveRun(self.draw_run(input), input.pick(&[2, 256, 512, 2_000])),
            8 => Op::Change(self.draw_id(input)),
            9 | 10 => Op::Move(self.draw_id(input), list, input.flag()),
            11 => Op::PopBack(list),
            12 => Op::Append(list, (list + 1 + input.below(2) as usize) % LISTS),
            13 => Op::TruncateLinks,
            14 | 15 => Op::Write(draw_far(input), u64::from(input.byte()) + 1),
            16 => Op::Read(draw_far(input)),
            _ => Op::TruncateSteps(input.pick(&[0, 1, 255, 256, 257, 3_000, 100_000])),
        }
    }

    /// An address in use, mostly; else any, or one out of range.
    fn draw_id(&self, input: &mut Input<'_>) -> u32 {
        let any = input.below(self.slab.end() + 8);
        match self.held.range(any..).next() {
            Some((id, _)) if input.below(8) > 0 => *id,
            _ => any,
        }
    }

    fn insert(&mut self, list: usize) {
        // Several blocks, and short enough lists to walk after each step.
        if self.held.len() >= 200 {
            return;
        }
        self.next += 1;
        self.counts.add("inserted", 1);
        self.alive.set(self.alive.get() + 1);
        let value = Counted {
            number: self.next,
            alive: Rc::clone(&self.alive),
            _large: [0; 24],
        };
        let id = self.slab.insert(entry(self.next, value));
        let id = id.unwrap_or_else(|_| panic!("the slab is full"));
        let before = self.held.insert(id, self.next);
        assert_eq!(before, None, "address {id} was given out twice");
        self.peak = self.peak.max(self.held.len() as u32);
        self.links.reserve_for(id);
        self.link(id, list, false);
    }

    /// Puts an id that is in no list into one.
    fn link(&mut self, id: u32, list: usize, front: bool) {
        let swapped = self.bug.is("list-front") && self.next % 9 == 4;
        if front != swapped {
            self.lists[list].push_front(&mut self.links, id);
        } else {
            self.lists[list].push_back(&mut self.links, id);
        }
        if front {
            self.deques[list].push_front(id);
        } else {
            self.deques[list].push_back(id);
        }
        self.listed.insert(id, list);
    }

    fn unlink(&mut self, id: u32) -> usize {
        let list = self.listed[&id];
        if self.bug.is("list-stays") && id % 11 == 5 {
            self.deques[list].retain(|other| *other != id);
            return list;
        }
        self.lists[list].unlink(&mut self.links, id);
        self.deques[list].retain(|other| *other != id);
        list
    }

    fn remove(&mut self, id: u32) {
        let Some(number) = self.held.remove(&id) else {
            assert!(self.slab.remove(id).is_none(), "removed what was not there");
            return;
        };
        self.counts.add("removed", 1);
        self.counts
            .add("block freed", u64::from(self.is_block_empty(id)));
        self.unlink(id);
        self.listed.remove(&id);
        if self.bug.is("slab-keeps") && number % 13 == 6 {
            return;
        }
        let entry = self.slab.remove(id);
        let entry = entry.unwrap_or_else(|| panic!("{id} was there and is not"));
        assert_eq!((entry.key, entry.value.number), (number, number), "at {id}");
        if self.bug.is("slab-leaks") && number % 13 == 6 {
            std::mem::forget(entry);
        }
    }

    fn is_block_empty(&self, id: u32) -> bool {
        let start = id / BLOCK * BLOCK;
        self.held.range(start..start + BLOCK).next().is_none()
    }

    fn change(&mut self, id: u32) {
        self.next += 1;
        let entry = self.slab.get_mut(id);
        assert_eq!(entry.is_some(), self.held.contains_key(&id), "at {id}");
        if let Some(entry) = entry {
            entry.key = self.next;
            entry.value.number = self.next;
            self.held.insert(id, self.next);
        }
    }

    fn relist(&mut self, id: u32, list: usize, front: bool) {
        if self.held.contains_key(&id) {
            self.counts.add("moved", 1);
            self.unlink(id);
            self.link(id, list, front);
        }
    }

    fn append(&mut self, to: usize, from: usize) {
        let mut moved = self.lists[from];
        self.lists[to].append(&mut self.links, &mut moved);
        self.lists[from] = moved;
        let ids = std::mem::take(&mut self.deques[from]);
        self.counts.add("appended", ids.len() as u64);
        for id in ids {
            self.listed.insert(id, to);
            self.deques[to].push_back(id);
        }
    }

    fn truncate_links(&mut self) {
        let end = self.held.keys().last().map_or(0, |id| id + 1);
        let mut chunks = u32::MAX;
        self.links.truncate(end, &mut chunks);
    }

    fn write(&mut self, id: u32, value: u64) {
        self.counts.add("written", 1);
        self.steps.reserve_for(id);
        self.chunks.insert(id / CHUNK);
        let neighbour = self.bug.is("steps-neighbour") && value % 16 == 7;
        *self.steps.get_mut(if neighbour { id ^ 1 } else { id }) = value;
        self.written.insert(id, value);
    }

    fn read(&self, id: u32) {
        let want = self.chunks.contains(&(id / CHUNK));
        let want = want.then(|| self.written.get(&id).copied().unwrap_or(0));
        assert_eq!(self.steps.try_get(id).copied(), want, "element {id}");
        if let Some(want) = want {
            assert_eq!(*self.steps.get(id), want, "element {id}");
        }
    }

    fn truncate_steps(&mut self, len: u32) {
        let gone = self.chunks.split_off(&len.div_ceil(CHUNK));
        self.counts.add("truncated", gone.len() as u64);
        self.written.retain(|id, _| !gone.contains(&(id / CHUNK)));
        if !self.bug.is("steps-keeps") {
            let mut chunks = u32::MAX;
            self.steps.truncate(len, &mut chunks);
        }
    }

    fn check(&self) {
        self.slab.validate();
        self.links.validate();
        self.steps.validate();
        assert_eq!(self.slab.len() as usize, self.held.len(), "entries");
        assert_eq!(self.alive.get(), self.held.len() as i64, "values alive");
        let all = self.slab.iter().map(|(id, entry)| (id, entry.value.number));
        assert!(
            all.eq(self.held.iter().map(|(id, number)| (*id, *number))),
            "the slab's entries"
        );
        for (id, number) in &self.held {
            let key = self.slab.get(*id).map(|entry| entry.key);
            assert_eq!(key, Some(*number), "the key at {id}");
        }
        // A new block only once all others are full.
        assert_eq!(self.slab.end(), self.peak.div_ceil(BLOCK) * BLOCK, "end");
        assert!(
            self.slab.get(self.slab.end()).is_none(),
            "an entry beyond the end"
        );
        for (list, deque) in self.lists.iter().zip(&self.deques) {
            list.validate(&self.links);
            assert_eq!(list.len() as usize, deque.len(), "length of a list");
            assert_eq!(
                (list.front(), list.back()),
                (deque.front().copied(), deque.back().copied())
            );
            assert!(
                list.iter(&self.links).eq(deque.iter().copied()),
                "order of a list"
            );
        }
        let end = self.chunks.last().map_or(0, |chunk| (chunk + 1) * CHUNK);
        assert!(self.steps.try_get(end).is_none(), "end of the array");
        assert!(
            end == 0 || self.steps.try_get(end - 1).is_some(),
            "end of the array"
        );
        for id in self.written.keys() {
            self.read(*id);
            self.read(id ^ 1);
        }
    }
}

/// Ids of a dozen chunks, some of them far up.
fn draw_far(input: &mut Input<'_>) -> u32 {
    let near = u32::from(input.byte()) * 5;
    match input.below(6) {
        0 => 100_000 + near,
        1 => (1 << 20) - 1 - near,
        2 => 254 + near % 4,
        _ => near,
    }
}

fn entry(key: u64, value: Counted) -> Entry<u64, Counted> {
    Entry {
        key,
        value,
        header: EntryHeader::new(1, 0, 0, false),
    }
}
