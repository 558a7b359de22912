//! Which entry to evict: the policies behind one type.
//!
//! # Invariants
//!
//! - Those of [`Policy`], for the policy chosen.
//!
//! # Cost
//!
//! A predictable branch on top of the policy's call.

use crate::ds::list::Links;
use crate::policy::lru::Lru;
use crate::policy::s3fifo::S3Fifo;
use crate::policy::usage::Usage;
use crate::policy::{EntryView, Policy, PrefetchHint, QueueLens, Slots};

/// The policy of a shard.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one per shard: the size is no matter, a pointer more to follow is"
)]
pub(crate) enum AnyPolicy {
    /// See [`S3Fifo`].
    S3Fifo(S3Fifo),
    /// See [`Lru`].
    Lru(Lru),
}

/// Calls the same method of the policy at hand.
macro_rules! dispatch {
    ($self:ident, $policy:ident => $call:expr) => {
        match $self {
            AnyPolicy::S3Fifo($policy) => $call,
            AnyPolicy::Lru($policy) => $call,
        }
    };
}

impl Policy for AnyPolicy {
    #[inline]
    fn admit(&mut self, hash: u32) -> u8 {
        dispatch!(self, policy => policy.admit(hash))
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, queue: u8, weight: u64, slots: &mut impl Slots) {
        dispatch!(self, policy => policy.insert(id, queue, weight, slots));
    }

    #[inline]
    fn remove(&mut self, id: u32, slots: &impl Slots) {
        dispatch!(self, policy => policy.remove(id, slots));
    }

    #[inline]
    fn hit(&mut self, id: u32) {
        dispatch!(self, policy => policy.hit(id));
    }

    #[inline]
    fn prefetch(&self, hash: u32) {
        dispatch!(self, policy => policy.prefetch(hash));
    }

    #[inline]
    fn prefetch_hint(&self) -> PrefetchHint {
        dispatch!(self, policy => policy.prefetch_hint())
    }

    #[inline(always)]
    fn victim(&mut self, slots: &mut impl Slots) -> Option<(u32, EntryView)> {
        dispatch!(self, policy => policy.victim(slots))
    }

    #[inline]
    fn reweigh(&mut self, id: u32, old: u64, new: u64, slots: &impl Slots) {
        dispatch!(self, policy => policy.reweigh(id, old, new, slots));
    }

    fn relocate(&mut self, from: u32, to: u32, slots: &impl Slots) {
        dispatch!(self, policy => policy.relocate(from, to, slots));
    }

    fn clear_all(&mut self) {
        dispatch!(self, policy => policy.clear_all());
    }

    fn pop_cleared(&mut self) -> Option<u32> {
        dispatch!(self, policy => policy.pop_cleared())
    }

    fn remove_cleared(&mut self, id: u32) {
        dispatch!(self, policy => policy.remove_cleared(id));
    }

    fn resize(&mut self, max_entries: u64, max_weight: u64) {
        dispatch!(self, policy => policy.resize(max_entries, max_weight));
    }

    #[inline]
    fn is_small(&self) -> bool {
        dispatch!(self, policy => policy.is_small())
    }

    fn truncate(&mut self, len: u32, budget: &mut u32) {
        dispatch!(self, policy => policy.truncate(len, budget));
    }

    fn take_links(&mut self) -> Links {
        dispatch!(self, policy => policy.take_links())
    }

    #[inline]
    fn live(&self) -> Usage {
        dispatch!(self, policy => policy.live())
    }

    fn queue_lens(&self) -> QueueLens {
        dispatch!(self, policy => policy.queue_lens())
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots, live: impl Iterator<Item = u32>) {
        dispatch!(self, policy => policy.validate(slots, live));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::MAX_HITS;
    use crate::policy::settings::Settings;
    use crate::policy::usage::UNLIMITED;
    use std::collections::{BTreeSet, HashMap};

    struct Rand(u64);

    impl Rand {
        fn next(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % n
        }
    }

    #[derive(Clone, Copy, Default)]
    struct TestSlot {
        key: u32,
        hits: u8,
        queue: u8,
        weight: u64,
    }

    fn hash_of(key: u32) -> u32 {
        (u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24) as u32
    }

    /// Puts a new entry into a free slot, as an owner does.
    fn insert(policy: &mut AnyPolicy, slots: &mut Vec<TestSlot>, id: u32, key: u32, weight: u64) {
        let queue = policy.admit(hash_of(key));
        slots[id as usize] = TestSlot {
            key,
            hits: 0,
            queue,
            weight,
        };
        policy.insert(id, queue, weight, slots);
    }

    impl Slots for Vec<TestSlot> {
        fn view(&self, id: u32) -> EntryView {
            let slot = self[id as usize];
            EntryView {
                hits: slot.hits,
                weight: slot.weight,
                hash: hash_of(slot.key),
            }
        }

        fn queue(&self, id: u32) -> u8 {
            self[id as usize].queue
        }

        fn set_queue(&mut self, id: u32, queue: u8, hits: u8) {
            let slot = &mut self[id as usize];
            (slot.queue, slot.hits) = (queue, hits);
        }

        fn weight(&self, id: u32) -> u64 {
            self[id as usize].weight
        }
    }

    /// A toy cache of entries of weight 1.
    struct TestCache {
        policy: AnyPolicy,
        slots: Vec<TestSlot>,
        map: HashMap<u32, u32>,
        capacity: usize,
    }

    impl TestCache {
        fn new(policy: AnyPolicy, capacity: usize) -> Self {
            Self {
                policy,
                slots: Vec::new(),
                map: HashMap::new(),
                capacity,
            }
        }

        /// Reads a key, loading it if absent; whether it was present.
        fn get(&mut self, key: u32) -> bool {
            if let Some(&id) = self.map.get(&key) {
                let hits = &mut self.slots[id as usize].hits;
                *hits = (*hits + 1).min(MAX_HITS);
                self.policy.hit(id);
                return true;
            }
            let id = if self.map.len() >= self.capacity {
                let (id, _) = self.policy.victim(&mut self.slots).unwrap();
                self.map.remove(&self.slots[id as usize].key);
                id
            } else {
                self.slots.push(TestSlot::default());
                self.slots.len() as u32 - 1
            };
            self.map.insert(key, id);
            insert(&mut self.policy, &mut self.slots, id, key, 1);
            false
        }
    }

    fn both(capacity: u64) -> [TestCache; 2] {
        let s3 = S3Fifo::new(Settings::DEFAULT, capacity, UNLIMITED);
        [AnyPolicy::S3Fifo(s3), AnyPolicy::Lru(Lru::new())]
            .map(|policy| TestCache::new(policy, capacity as usize))
    }

    /// Keys, the k-th in proportion to 1 / k^0.9.
    struct Zipf(Vec<f64>);

    impl Zipf {
        fn new(keys: u32) -> Self {
            let mut sum = 0.0;
            Self(
                (1..=keys)
                    .map(|key| {
                        sum += f64::from(key).powf(-0.9);
                        sum
                    })
                    .collect(),
            )
        }

        fn next(&self, rand: &mut Rand) -> u32 {
            let point = rand.next(1 << 40) as f64 / (1_u64 << 40) as f64;
            let point = point * self.0.last().unwrap();
            self.0.partition_point(|&sum| sum <= point) as u32
        }
    }

    #[test]
    fn hits_more_than_lru() {
        let zipf = Zipf::new(10_000);
        for (capacity, margin) in [
            (30, 1.15),
            (100, 1.1),
            (150, 1.1),
            (300, 1.1),
            (1_000, 1.08),
        ] {
            let ratios = both(capacity).map(|mut cache| {
                let mut rand = Rand(0x1357_9bdf_0246_8ace);
                let hits = (0..300_000)
                    .filter(|_| cache.get(zipf.next(&mut rand)))
                    .count();
                let live = cache.map.values().copied();
                cache.policy.validate(&cache.slots, live);
                hits as f64 / 300_000.0
            });
            assert!(ratios[0] > ratios[1] * margin, "{capacity}: {ratios:?}");
        }
    }

    #[test]
    fn withstands_a_scan() {
        let kept = both(1_000).map(|mut cache| {
            // A working set read often, then a scan of keys read twice at once.
            for _ in 0..20 {
                (0..600).for_each(|key| _ = cache.get(key));
            }
            for key in 10_000..20_000 {
                cache.get(key);
                cache.get(key);
            }
            (0..600).filter(|key| cache.map.contains_key(key)).count()
        });
        assert!(kept[0] > 550 && kept[1] == 0, "{kept:?}");
    }

    #[test]
    fn probation_is_as_long_as_it_helps() {
        let on_probation = |cache: &TestCache| {
            let lens = cache.policy.queue_lens();
            lens.fresh + lens.small
        };
        // What was evicted comes back at any time alike.
        let [mut cache, _] = both(4_000);
        let (zipf, mut rand) = (Zipf::new(40_000), Rand(0x1357_9bdf_0246_8ace));
        (0..300_000).for_each(|_| _ = cache.get(zipf.next(&mut rand)));
        let calm = on_probation(&cache);
        assert!(calm < 4_000 * 45 / 1_000, "{calm}");
        // It comes back when it has just been evicted.
        for key in 100_000..120_000 {
            cache.get(key);
            cache.get(key - 400);
        }
        let hasty = on_probation(&cache);
        assert!((4_000 * 65 / 1_000..=281).contains(&hasty), "{hasty}");
    }

    #[test]
    fn a_loop_wider_than_the_cache_still_hits() {
        let [mut cache, _] = both(1_000);
        let hits = (0..50)
            .map(|_| (0..1_500).filter(|&key| cache.get(key)).count())
            .sum::<usize>();
        assert!(hits > 7_500, "{hits}");
    }

    #[test]
    fn keeps_account_of_every_entry() {
        let mut rand = Rand(0xfeed_5eed_0bad_cafe);
        for round in 0..24 {
            let limits = [(UNLIMITED, 5_000), (300, UNLIMITED), (300, 5_000), (1, 1)][round % 4];
            let mut policy = if round % 3 == 0 {
                AnyPolicy::Lru(Lru::new())
            } else {
                AnyPolicy::S3Fifo(S3Fifo::new(Settings::DEFAULT, limits.0, limits.1))
            };
            let mut slots = vec![TestSlot::default(); 1_000];
            let (mut live, mut cleared) = (BTreeSet::new(), BTreeSet::new());
            for _ in 0..6_000 {
                let id = rand.next(1_000) as u32;
                let weight = [0, 1, rand.next(50), rand.next(6_000)][rand.next(4) as usize];
                match rand.next(24) {
                    0..=9 if !live.contains(&id) && !cleared.contains(&id) => {
                        let key = rand.next(5_000) as u32;
                        insert(&mut policy, &mut slots, id, key, weight);
                        live.insert(id);
                    }
                    0..=13 if live.contains(&id) => {
                        slots[id as usize].hits = rand.next(4) as u8;
                        policy.hit(id);
                    }
                    14..=15 if live.contains(&id) => {
                        policy.reweigh(id, slots[id as usize].weight, weight, &slots);
                        slots[id as usize].weight = weight;
                    }
                    16 if live.remove(&id) => policy.remove(id, &slots),
                    16 if cleared.remove(&id) => policy.remove_cleared(id),
                    17..=20 => match policy.victim(&mut slots) {
                        Some((id, seen)) => {
                            assert!(live.remove(&id));
                            assert_eq!(seen.hash, hash_of(slots[id as usize].key));
                            assert_eq!(seen.weight, slots[id as usize].weight);
                        }
                        None => assert!(live.is_empty()),
                    },
                    21 => match policy.pop_cleared() {
                        Some(id) => assert!(cleared.remove(&id)),
                        None => assert!(cleared.is_empty()),
                    },
                    22 if rand.next(40) == 0 => {
                        policy.clear_all();
                        cleared.append(&mut live);
                    }
                    23 if rand.next(40) == 0 => policy.resize(rand.next(500), rand.next(9_000)),
                    _ => {}
                }
                let lens = policy.queue_lens();
                let queued = lens.fresh + lens.small + lens.main;
                assert_eq!(
                    (queued as usize, lens.cleared as usize),
                    (live.len(), cleared.len())
                );
                if rand.next(30) == 0 {
                    policy.validate(&slots, live.iter().copied());
                }
            }
            while let Some((id, _)) = policy.victim(&mut slots) {
                assert!(live.remove(&id));
            }
            while let Some(id) = policy.pop_cleared() {
                assert!(cleared.remove(&id));
            }
            let links = policy.take_links();
            links.validate();
            policy.validate(&slots, std::iter::empty());
        }
    }

    /// One step instead of three chooses the same victims, and leaves the same behind.
    #[test]
    fn an_exchange_is_a_victim_and_an_insertion() {
        for (round, capacity) in [1_u32, 2, 7, 60, 300, 3_000].into_iter().enumerate() {
            let new = || S3Fifo::new(Settings::DEFAULT, u64::from(capacity), u64::from(capacity));
            let (mut one, mut other) = (new(), AnyPolicy::S3Fifo(new()));
            let mut slots = [vec![TestSlot::default(); capacity as usize], Vec::new()];
            slots[1] = slots[0].clone();
            for id in 0..capacity {
                for slot in &mut slots {
                    slot[id as usize] = TestSlot {
                        key: id,
                        hits: 0,
                        queue: 1,
                        weight: 1,
                    };
                }
                let queue = one.admit(hash_of(id));
                one.insert(id, queue, 1, &mut slots[0]);
                insert(&mut other, &mut slots[1], id, id, 1);
            }
            let mut rand = Rand(0x1357_9bdf_0246_8ace + round as u64);
            let mut promoted = 0;
            for step in 0..20_000_u32 {
                // Keys that were there, not so long ago, are among the new ones.
                let back = rand.next(u64::from(capacity) * 3) as u32;
                let key = if step % 3 == 0 {
                    step.saturating_sub(back)
                } else {
                    capacity + step
                };
                for _ in 0..rand.next(4) {
                    let id = rand.next(u64::from(capacity)) as usize;
                    for slot in &mut slots {
                        slot[id].hits = (slot[id].hits + 1).min(MAX_HITS);
                    }
                }
                let (id, seen, queue) = one.evict_and_admit(hash_of(key), &mut slots[0]).unwrap();
                slots[0][id as usize] = TestSlot {
                    key,
                    hits: 0,
                    queue,
                    weight: 1,
                };
                one.demote_fresh_of_equal_weight(&mut slots[0]);
                promoted += u32::from(queue == 3);
                let (victim, view) = other.victim(&mut slots[1]).unwrap();
                assert_eq!((id, seen.hash, seen.hits), (victim, view.hash, view.hits));
                insert(&mut other, &mut slots[1], victim, key, 1);
                assert_eq!(one.queue_lens(), other.queue_lens());
                if step % 512 == 0 {
                    assert!(
                        slots[0]
                            .iter()
                            .map(|slot| (slot.key, slot.hits, slot.queue))
                            .eq(slots[1]
                                .iter()
                                .map(|slot| (slot.key, slot.hits, slot.queue)))
                    );
                    one.validate(&slots[0], 0..capacity);
                    other.validate(&slots[1], 0..capacity);
                }
            }
            assert!(
                promoted > 500,
                "ghosts that came back at {capacity}: {promoted}"
            );
        }
    }

    #[test]
    fn ghosts_are_a_share_of_the_entries() {
        let [mut cache, _] = both(1_000);
        (0..3_000).for_each(|key| _ = cache.get(key));
        assert_eq!(cache.policy.queue_lens().ghosts, 770);
        cache.policy.resize(1, UNLIMITED);
        assert_eq!(cache.policy.queue_lens().ghosts, 1);
        cache.policy.resize(0, UNLIMITED);
        assert_eq!(cache.policy.queue_lens().ghosts, 0);
    }

    #[test]
    fn nothing_to_evict() {
        let mut slots: Vec<TestSlot> = Vec::new();
        for [mut cache, mut lru] in [both(0), both(10)] {
            assert!(cache.policy.victim(&mut slots).is_none());
            assert!(lru.policy.victim(&mut slots).is_none());
        }
    }
}
