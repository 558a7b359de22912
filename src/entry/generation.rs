//! Invalidation by epoch instead of by search: one counter a cache, one epoch an entry.
//!
//! Every `clear`, namespace bump and tag bump takes the next epoch of the cache's [`EpochCounter`] and raises the
//! *minimum epoch* of its scope to it. An entry or a flight carries the epoch that was current when it began. It is
//! valid while its epoch is at least the minimum of each of its scopes: the cache, its namespace and its tags.
//!
//! # Invariants
//! * Epochs only grow, and so do minimum epochs. No epoch is given out twice, up to the last that an entry can carry
//!   (after 3.5 * 10^13 invalidations); from then on a cache stores nothing.
//! * A minimum rises before its epoch becomes current. A write reads the current epoch under its shard's lock, then the
//!   minimums by which it is judged; if one of them is above its epoch, it starts over. So a write has one place in the
//!   order of epochs: a bump up to its epoch has killed what it replaces, and a later bump kills what it stores.
//! * A load takes its epoch before its loader starts. So a value that was read before an invalidation began carries an
//!   epoch below the new minimum.
//! * A tag's minimum rises before `tag_epoch` counts the bump. A reader of the count and then of the minimums sees, for
//!   a count of n, the minimums of at least n bumps.
//! * The minimum of a tag that leaves the registry, and that a running load could be below, is written down in
//!   `forgotten` first, and a tag that is registered later starts there.
//! * `rising` is drawn before its minimum rises. So whoever has seen a minimum also sees, in `rising`, an epoch that is
//!   at least as high, and can wait until it is current.
//!
//! # Ordering
//! Bumps are SeqCst: they are rare, and an invalidation that has returned must be seen by every call that begins
//! afterwards, on whichever variable that call looks. Reads on the hit path are Acquire loads and pair with those
//! bumps.

use dashmap::DashMap;

use super::forgotten::ForgottenTags;
use super::header::MAX_EPOCH;
use crate::util::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::util::sync::{Arc, Mutex};

/// The current epoch of a cache, and the minimums that hold for all of it.
pub(crate) struct EpochCounter {
    last: AtomicU64,
    /// The epoch whose minimum is rising or has risen: ahead of `last` while a bump is in progress.
    rising: AtomicU64,
    /// Held while a minimum rises and its epoch is given out. A leaf lock.
    bumping: Mutex<()>,
    /// Raised by a `clear` of the whole cache.
    min_epoch: AtomicU64,
    /// Counts tag bumps, each after the minimum of its tag was raised.
    tag_epoch: AtomicU64,
}

impl EpochCounter {
    pub(crate) fn new() -> Self {
        EpochCounter {
            // Epochs start at one, so that a minimum of zero is below them all.
            last: AtomicU64::new(1),
            bumping: Mutex::new(()),
            min_epoch: AtomicU64::new(0),
            tag_epoch: AtomicU64::new(0),
            rising: AtomicU64::new(0),
        }
    }

    /// The epoch of a load that begins now: no minimum that this thread has seen is above it. A load that found a value
    /// dead by an invalidation in progress would otherwise carry the number from before, and be refused at its end.
    pub(crate) fn of_load(&self) -> u64 {
        let epoch = self.current();
        if self.rising.load(Ordering::SeqCst) <= epoch {
            return epoch;
        }
        self.wait_for_bump();
        self.current()
    }

    /// The epoch of an entry that is written now.
    #[inline]
    pub(crate) fn current(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }

    /// The minimum epoch of the whole cache.
    #[inline]
    pub(crate) fn min_epoch(&self) -> u64 {
        self.min_epoch.load(Ordering::Acquire)
    }

    /// How many tag bumps have finished.
    #[inline]
    pub(crate) fn tag_epoch(&self) -> u64 {
        self.tag_epoch.load(Ordering::Acquire)
    }

    /// Kills every entry and every load so far, and returns the new minimum.
    pub(crate) fn clear(&self) -> u64 {
        self.bump(&self.min_epoch, false)
    }

    /// Raises a minimum to the next epoch, and only then makes that epoch current: a reader that finds n as
    /// the current epoch finds every minimum up to n raised.
    fn bump(&self, min_epoch: &AtomicU64, of_tag: bool) -> u64 {
        let _alone = self.bumping.lock();
        let next = self.next();
        self.rising.store(next, Ordering::SeqCst);
        min_epoch.fetch_max(next, Ordering::SeqCst);
        if of_tag {
            // After the rise, so that a reader of the count sees the minimum, and before the epoch, so that
            // who sees the number sees both.
            self.tag_epoch.fetch_add(1, Ordering::SeqCst);
        }
        self.last.store(next, Ordering::SeqCst);
        next
    }

    /// Waits until a bump in progress is over: after that, the current epoch is at least every minimum seen before.
    pub(crate) fn wait_for_bump(&self) {
        drop(self.bumping.lock());
    }

    pub(crate) fn advance(&self) -> u64 {
        let _alone = self.bumping.lock();
        let next = self.next();
        self.last.store(next, Ordering::SeqCst);
        next
    }

    /// The number after the current one; called with `bumping` locked. The one after the last that an entry
    /// can carry is drawn again and again: it is above all entries, and nothing is stored under it.
    fn next(&self) -> u64 {
        (self.last.load(Ordering::SeqCst) + 1).min(MAX_EPOCH + 1)
    }
}

/// The minimum epoch of one tag. Entries that carry the tag point at it.
#[derive(Debug)]
pub(crate) struct Tag {
    min_epoch: AtomicU64,
}

/// The tags of one entry, with the count of tag moves at which they were last found valid, so that an
/// ordinary hit compares one number and walks nothing.
#[derive(Debug)]
pub(crate) struct TagSet {
    verified: AtomicU64,
    tags: Box<[Arc<Tag>]>,
}

impl TagSet {
    /// Whether something `epoch` under these tags is still valid.
    pub(crate) fn admits(&self, epoch: u64, epochs: &EpochCounter) -> bool {
        let moves = epochs.tag_epoch();
        // Relaxed: the value only says that a walk at that count found no minimum above `epoch`, and
        // minimums that had risen by then were seen by it; no other data depends on it.
        if self.verified.load(Ordering::Relaxed) == moves {
            return true;
        }
        if self.min_epochs().any(|min_epoch| min_epoch > epoch) {
            return false;
        }
        self.verified.store(moves, Ordering::Relaxed);
        true
    }

    /// The tags' minimum epochs, in the order in which the tags were named.
    pub(crate) fn min_epochs(&self) -> impl Iterator<Item = u64> + '_ {
        self.tags
            .iter()
            .map(|tag| tag.min_epoch.load(Ordering::Acquire))
    }
}

/// The tags that entries carry or that were invalidated lately, by name.
#[derive(Debug)]
pub(crate) struct Tags {
    by_name: DashMap<Box<str>, Arc<Tag>, ahash::RandomState>,
    forgotten: ForgottenTags,
    /// Once the registry is this large it is swept of tags that nobody carries.
    sweep_at: AtomicUsize,
}

impl Tags {
    const SMALLEST_SWEEP: usize = 1024;

    pub(crate) fn new() -> Self {
        Tags {
            by_name: DashMap::with_hasher(ahash::RandomState::new()),
            forgotten: ForgottenTags::new(),
            sweep_at: AtomicUsize::new(Self::SMALLEST_SWEEP),
        }
    }

    /// The set for an entry that names `names`; `None` if it names none.
    pub(crate) fn set(&self, names: &[Box<str>]) -> Option<Box<TagSet>> {
        if names.is_empty() {
            return None;
        }
        Some(Box::new(TagSet {
            // No count is this high: the first look walks.
            verified: AtomicU64::new(u64::MAX),
            tags: names.iter().map(|name| self.tag(name)).collect(),
        }))
    }

    /// Kills every entry so far that carries the tag, and every load so far that will answer with it.
    pub(crate) fn invalidate(&self, name: &str, epochs: &EpochCounter) {
        let tag = self.tag(name);
        epochs.bump(&tag.min_epoch, true);
    }

    /// How many names are registered.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// How many names are remembered, for the sake of running loads, though they are not registered.
    pub(crate) fn forgotten(&self) -> usize {
        self.forgotten.len()
    }

    /// Whether a tag of the set was given up (see [`ForgottenTags`]), and counts as invalidated after `epoch` for that
    /// reason, not because anybody has seen it invalidated.
    pub(crate) fn gave_up(&self, set: &TagSet, epoch: u64) -> bool {
        let above = set
            .min_epochs()
            .filter(|&min_epoch| min_epoch > epoch)
            .max();
        above.is_some_and(|min_epoch| min_epoch <= self.forgotten.given_up())
    }

    fn tag(&self, name: &str) -> Arc<Tag> {
        if let Some(tag) = self.by_name.get(name) {
            return Arc::clone(&tag);
        }
        let hash = self.by_name.hasher().hash_one(name);
        let entry = self.by_name.entry(name.into());
        let tag = entry.or_insert_with(|| {
            Arc::new(Tag {
                // Read while the name's place in the registry is locked: a sweep that took this very name out has
                // written its minimum down before it locked the place.
                min_epoch: AtomicU64::new(self.forgotten.min_epoch(hash)),
            })
        });
        Arc::clone(&tag)
    }

    /// Takes tags that no entry carries out of the registry, once there are twice as many as the last sweep left.
    /// `oldest` is the epoch of the oldest load that is running, or the current one: minimums up to it are forgotten,
    /// higher ones are written down.
    pub(crate) fn sweep_if_large(&self, oldest: impl FnOnce() -> u64) {
        let limit = self.sweep_at.load(Ordering::Relaxed);
        if self.by_name.len() < limit {
            return;
        }
        // Whoever moves the mark sweeps; the others go on.
        let claimed =
            self.sweep_at
                .compare_exchange(limit, usize::MAX, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_err() {
            return;
        }
        self.sweep(oldest());
        self.sweep_again_at_twice();
    }

    /// Forgets minimums that no load needs any more, as `oldest` says.
    pub(crate) fn forget_up_to(&self, oldest: impl FnOnce() -> u64) {
        if self.forgotten.is_empty() {
            return;
        }
        // Whoever takes the mark is alone; if it is gone, a sweep is under way, which forgets as much.
        if self.sweep_at.swap(usize::MAX, Ordering::Relaxed) != usize::MAX {
            self.forgotten.remember(Vec::new(), oldest());
            self.sweep_again_at_twice();
        }
    }

    fn sweep_again_at_twice(&self) {
        let next = (2 * self.by_name.len()).max(Self::SMALLEST_SWEEP);
        self.sweep_at.store(next, Ordering::Relaxed);
    }

    /// First writes down, then takes out: a name is at any time in one of the two places.
    fn sweep(&self, oldest: u64) {
        let unused = self.by_name.iter().filter_map(|place| {
            let min_epoch = place.value().min_epoch.load(Ordering::SeqCst);
            let written_down = Arc::strong_count(place.value()) == 1 && min_epoch > oldest;
            written_down.then(|| (self.by_name.hasher().hash_one(&**place.key()), min_epoch))
        });
        self.forgotten.remember(unused.collect(), oldest);
        self.by_name.retain(|name, tag| {
            // `retain` holds this place's lock, so nobody clones the tag out of it meanwhile.
            let carried = Arc::strong_count(tag) > 1;
            let min_epoch = tag.min_epoch.load(Ordering::SeqCst);
            // One that was let go, or invalidated, since it was looked at stays until the next sweep.
            let known = || {
                self.forgotten
                    .min_epoch(self.by_name.hasher().hash_one(&**name))
            };
            carried || (min_epoch > oldest && min_epoch > known())
        });
    }
}

/// One namespace: the id that its keys carry, and its minimum epoch.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) id: u32,
    min_epoch: AtomicU64,
    /// Entries in the shards, alive or dead. A namespace with none and no handle can be forgotten.
    entries: AtomicUsize,
}

impl Namespace {
    /// The namespace of a cache's own handle.
    pub(crate) const ROOT: u32 = 0;

    fn new(id: u32, min_epoch: u64) -> Arc<Self> {
        Arc::new(Namespace {
            id,
            min_epoch: AtomicU64::new(min_epoch),
            entries: AtomicUsize::new(0),
        })
    }

    pub(crate) fn root() -> Arc<Self> {
        Namespace::new(Self::ROOT, 0)
    }

    #[inline]
    pub(crate) fn min_epoch(&self) -> u64 {
        self.min_epoch.load(Ordering::Acquire)
    }

    /// Kills every entry and every load of this namespace so far.
    pub(crate) fn clear(&self, epochs: &EpochCounter) {
        epochs.bump(&self.min_epoch, false);
    }

    /// One more entry. Called before the entry can be seen, so that the count is never too low.
    pub(crate) fn entry_added(&self) {
        // The root is never forgotten, so nobody asks for its count.
        if self.id == Self::ROOT {
            return;
        }
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn entry_removed(&self) {
        if self.id == Self::ROOT {
            return;
        }
        self.entries.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The namespaces in use, by name and by id.
#[derive(Debug)]
pub(crate) struct Namespaces {
    by_name: DashMap<Box<str>, Arc<Namespace>, ahash::RandomState>,
    by_id: DashMap<u32, Arc<Namespace>, ahash::RandomState>,
    next_id: AtomicU32,
    sweep_at: AtomicUsize,
}

impl Namespaces {
    const SMALLEST_SWEEP: usize = 256;

    pub(crate) fn new() -> Self {
        Namespaces {
            by_name: DashMap::with_hasher(ahash::RandomState::new()),
            by_id: DashMap::with_hasher(ahash::RandomState::new()),
            next_id: AtomicU32::new(Namespace::ROOT + 1),
            sweep_at: AtomicUsize::new(Self::SMALLEST_SWEEP),
        }
    }

    pub(crate) fn open(&self, name: &str, epochs: &EpochCounter) -> Arc<Namespace> {
        if let Some(namespace) = self.by_name.get(name) {
            return Arc::clone(&namespace);
        }
        self.sweep_if_large();
        let entry = self.by_name.entry(name.into());
        let namespace = entry.or_insert_with(|| {
            // A new namespace starts above every epoch so far. Should the ids ever wrap, what an
            // id's former namespace left behind is dead.
            let min_epoch = epochs.advance();
            loop {
                let id = self.next_id.fetch_add(1, Ordering::Relaxed);
                if id == Namespace::ROOT {
                    continue;
                }
                let fresh = self.by_id.entry(id);
                if let dashmap::Entry::Vacant(place) = fresh {
                    let namespace = Namespace::new(id, min_epoch);
                    place.insert(Arc::clone(&namespace));
                    return namespace;
                }
            }
        });
        Arc::clone(&namespace)
    }

    /// Calls `with` on the namespace of an entry that left.
    #[inline]
    pub(crate) fn with<T>(&self, id: u32, with: impl FnOnce(&Namespace) -> T) -> Option<T> {
        if id == Namespace::ROOT {
            return None;
        }
        self.with_other(id, with)
    }

    #[inline(never)]
    fn with_other<T>(&self, id: u32, with: impl FnOnce(&Namespace) -> T) -> Option<T> {
        self.by_id.get(&id).map(|namespace| with(&namespace))
    }

    /// How many names are registered.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Forgets namespaces that have neither an entry nor a handle. Only the two registries point at
    /// such a one, and none can be handed out while `retain` holds its place's lock.
    fn sweep_if_large(&self) {
        let limit = self.sweep_at.load(Ordering::Relaxed);
        if self.by_name.len() < limit {
            return;
        }
        let claimed =
            self.sweep_at
                .compare_exchange(limit, usize::MAX, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_err() {
            return;
        }
        self.by_name.retain(|_, namespace| {
            let idle =
                Arc::strong_count(namespace) == 2 && namespace.entries.load(Ordering::SeqCst) == 0;
            if idle {
                self.by_id.remove(&namespace.id);
            }
            !idle
        });
        let next = (2 * self.by_name.len()).max(Self::SMALLEST_SWEEP);
        self.sweep_at.store(next, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<Box<str>> {
        (0..count).map(|n| n.to_string().into()).collect()
    }

    #[test]
    fn a_bump_kills_what_was_born_before_it_and_nothing_else() {
        let epochs = EpochCounter::new();
        let tags = Tags::new();
        let set = tags.set(&names(2)).expect("two names");
        let before = epochs.current();
        assert!(set.admits(before, &epochs));
        tags.invalidate("7", &epochs);
        assert!(set.admits(before, &epochs), "another tag was bumped");
        tags.invalidate("1", &epochs);
        assert!(!set.admits(before, &epochs));
        assert!(set.admits(epochs.current(), &epochs));
    }

    #[test]
    fn the_last_number_kills_and_is_never_an_entrys() {
        let epochs = EpochCounter::new();
        epochs.last.store(MAX_EPOCH - 1, Ordering::SeqCst);
        assert_eq!(epochs.clear(), MAX_EPOCH);
        assert_eq!(epochs.current(), MAX_EPOCH);
        assert_eq!(epochs.clear(), MAX_EPOCH + 1);
        assert_eq!(
            (epochs.advance(), epochs.clear()),
            (MAX_EPOCH + 1, MAX_EPOCH + 1)
        );
        assert!(MAX_EPOCH < epochs.min_epoch());
    }

    #[test]
    fn a_forgotten_tag_keeps_its_floor() {
        let epochs = EpochCounter::new();
        let tags = Tags::new();
        let before = epochs.current();
        tags.invalidate("gone", &epochs);
        // Enough names that nobody carries to have the registry swept.
        for n in 0..10_000 {
            tags.invalidate(&format!("churn {n}"), &epochs);
            // A load is running since before the first.
            tags.sweep_if_large(|| before);
        }
        assert!(tags.forgotten() > 8_000, "{}", tags.forgotten());
        assert!(
            tags.len() <= 2 * Tags::SMALLEST_SWEEP,
            "{} names",
            tags.len()
        );
        let set = tags.set(&["gone".into()]).expect("one name");
        assert!(!set.admits(before, &epochs));
        assert!(set.admits(epochs.current(), &epochs));
        let unrelated = tags.set(&["unrelated".into()]).expect("one name");
        assert!(unrelated.admits(before, &epochs), "nobody invalidated it");
        // The load is over.
        tags.forget_up_to(|| epochs.current());
        assert_eq!(tags.forgotten(), 0);
    }

    #[test]
    fn namespaces_come_back_only_above_their_past() {
        let epochs = EpochCounter::new();
        let namespaces = Namespaces::new();
        let first = namespaces.open("a", &epochs);
        assert_eq!(namespaces.open("a", &epochs).id, first.id);
        let epoch = epochs.current();
        assert!(epoch >= first.min_epoch());
        first.clear(&epochs);
        assert!(epoch < first.min_epoch() && epochs.current() >= first.min_epoch());
        drop(first);
        for n in 0..10_000 {
            namespaces.open(&n.to_string(), &epochs);
        }
        assert!(namespaces.len() <= 2 * Namespaces::SMALLEST_SWEEP);
        assert!(namespaces.open("a", &epochs).min_epoch() > epoch);
    }
}
