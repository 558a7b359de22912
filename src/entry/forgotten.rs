//! The minimum epochs of tags that left the registry, for loads that began before they were invalidated.
//!
//! A load names its tags when it ends. If one of them was invalidated while the load ran, and no entry carried it, the
//! registry may have forgotten it by then; what is written down here says so all the same. Only invalidations that are
//! later than the beginning of the oldest running load matter, so a cache in which nothing loads writes nothing down.
//!
//! # Layout
//! Sorted runs of `(hash of the name, minimum epoch)`, 16 bytes a name. Each sweep of the registry adds a run, and runs
//! of like size are merged, so that there are few: a look-up is a binary search in each. Names with equal hashes share
//! the higher minimum, which can keep a load from being stored and never stores one that is out of date.
//!
//! # Bound
//! Above [`ForgottenTags::LIMIT`] names the older half is given up, and every name that is not registered counts as
//! invalidated at the latest of those.
//!
//! # Locks
//! One read-write lock guards the list of runs: a leaf, held for a look-up or to exchange the list. It is a real one,
//! also under shuttle, as it is taken under a registry's real lock.

use std::sync::Arc;
// Of std, also under shuttle: read under a registry's real lock.
use std::sync::atomic::{AtomicU64, Ordering};

/// A name, by its hash, and its minimum epoch.
pub(crate) type ForgottenTag = (u64, u64);

/// Sorted by hash, each hash once.
type Run = Arc<[ForgottenTag]>;

/// What is remembered of tags that are not registered.
#[derive(Debug)]
pub(crate) struct ForgottenTags {
    runs: parking_lot::RwLock<Vec<Run>>,
    /// The minimum epoch of every name that was given up is this or lower.
    given_up: AtomicU64,
    limit: usize,
}

impl ForgottenTags {
    /// How many names are remembered: 16 MiB of them.
    pub(crate) const LIMIT: usize = 1 << 20;

    pub(crate) fn new() -> Self {
        ForgottenTags::with_limit(Self::LIMIT)
    }

    fn with_limit(limit: usize) -> Self {
        ForgottenTags {
            runs: parking_lot::RwLock::new(Vec::new()),
            given_up: AtomicU64::new(0),
            limit,
        }
    }

    /// How many names are remembered.
    pub(crate) fn len(&self) -> usize {
        self.runs.read().iter().map(|run| run.len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.read().is_empty()
    }

    /// The minimum epoch of a name that is not registered.
    pub(crate) fn min_epoch(&self, hash: u64) -> u64 {
        let runs = self.runs.read();
        let known = runs.iter().filter_map(|run| find(run, hash)).max();
        // Read after the runs: a name is given up before it leaves them.
        known.unwrap_or(0).max(self.given_up())
    }

    /// What the minimum epochs of all names that were given up are not above.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::SeqCst)
    }

    /// Remembers these names, and no others that are at `oldest` or below. Only one caller at a time: the runs are
    /// merged without the lock.
    pub(crate) fn remember(&self, mut names: Vec<ForgottenTag>, oldest: u64) {
        names.sort_unstable();
        // Equal hashes lie side by side, the highest minimum last.
        names.reverse();
        names.dedup_by_key(|(hash, _)| *hash);
        names.reverse();
        let mut runs = self.runs.read().clone();
        runs.retain(|run| run.iter().any(|(_, min_epoch)| *min_epoch > oldest));
        let mut newest = names;
        while runs.last().is_some_and(|run| run.len() <= 2 * newest.len()) {
            let last = runs.pop();
            newest = merged(last.as_deref().unwrap_or(&[]), &newest);
            newest.retain(|(_, min_epoch)| *min_epoch > oldest);
        }
        if !newest.is_empty() {
            runs.push(newest.into());
        }
        if runs.iter().map(|run| run.len()).sum::<usize>() > self.limit {
            runs = self.give_up_half(&runs);
        }
        *self.runs.write() = runs;
    }

    /// One run of the names with the latest minimums, at most half of the limit.
    fn give_up_half(&self, runs: &[Run]) -> Vec<Run> {
        let all = runs.iter().fold(Vec::new(), |all, run| merged(run, &all));
        let mut epochs: Vec<u64> = all.iter().map(|(_, min_epoch)| *min_epoch).collect();
        let keeps = (self.limit / 2).min(epochs.len() - 1);
        let at = epochs.len() - 1 - keeps;
        let (_, &mut latest, _) = epochs.select_nth_unstable(at);
        self.given_up.fetch_max(latest, Ordering::SeqCst);
        let kept = all.into_iter().filter(|(_, min_epoch)| *min_epoch > latest);
        vec![kept.collect()]
    }
}

fn find(run: &[ForgottenTag], hash: u64) -> Option<u64> {
    let at = run.binary_search_by_key(&hash, |(hash, _)| *hash).ok()?;
    Some(run[at].1)
}

/// Both runs in one, with the higher minimum of a hash that is in both.
fn merged(one: &[ForgottenTag], other: &[ForgottenTag]) -> Vec<ForgottenTag> {
    let mut all = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (
        one.iter().copied().peekable(),
        other.iter().copied().peekable(),
    );
    while let (Some(&(left, low)), Some(&(right, high))) = (one.peek(), other.peek()) {
        match left.cmp(&right) {
            std::cmp::Ordering::Less => all.extend(one.next()),
            std::cmp::Ordering::Greater => all.extend(other.next()),
            std::cmp::Ordering::Equal => {
                all.push((left, low.max(high)));
                one.next();
                other.next();
            }
        }
    }
    all.extend(one);
    all.extend(other);
    all
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Numbers that look random, the same in each run.
    fn numbers() -> impl FnMut() -> u64 {
        let mut state = 7u64;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        }
    }

    #[test]
    fn no_minimum_is_lost_that_a_running_load_could_be_below() {
        let (forgotten, mut number) = (ForgottenTags::new(), numbers());
        let mut model: HashMap<u64, u64> = HashMap::new();
        let mut oldest = 0;
        for sweep in 1..300u64 {
            let names: Vec<_> = (0..number() % 200)
                .map(|n| (number() % 5_000, sweep * 1_000 + n))
                .collect();
            for &(hash, min_epoch) in &names {
                let known = model.entry(hash).or_default();
                *known = min_epoch.max(*known);
            }
            if number() % 8 == 0 {
                oldest = oldest.max((sweep - number() % sweep.min(10)) * 1_000);
            }
            forgotten.remember(names, oldest);
            for (hash, min_epoch) in &model {
                let found = forgotten.min_epoch(*hash);
                assert!(found == *min_epoch || (found < *min_epoch && *min_epoch <= oldest));
            }
        }
        assert!(forgotten.runs.read().len() < 20);
        forgotten.remember(Vec::new(), u64::MAX);
        assert_eq!(forgotten.len(), 0);
    }

    #[test]
    fn above_the_limit_the_older_half_counts_as_invalidated() {
        let forgotten = ForgottenTags::with_limit(1_000);
        for n in 0..100u64 {
            let names = (0..100)
                .map(|name| (n * 100 + name, n * 100 + name + 1))
                .collect();
            forgotten.remember(names, 0);
            assert!(forgotten.len() <= 1_000);
        }
        let given_up = forgotten.given_up();
        assert!((9_000..9_600).contains(&given_up), "{given_up}");
        for name in 0..10_000u64 {
            assert_eq!(forgotten.min_epoch(name), given_up.max(name + 1));
        }
    }
}
