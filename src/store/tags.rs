//! Tags: looking their names up, invalidating them, and what running loads need remembered of them.

use super::Store;
use crate::entry::generation::TagSet;

impl<K, V> Store<K, V> {
    /// The tags of these names, for an entry or for the end of a load; `None` if there are none. No stripe is locked.
    pub(crate) fn tag_set(&self, names: &[Box<str>]) -> Option<Box<TagSet>> {
        let set = self.tags.set(names)?;
        self.tags.sweep_if_large(|| self.oldest_load());
        Some(set)
    }

    /// Kills every entry so far that carries the tag, and every load so far that will answer with it.
    pub(crate) fn invalidate_tag(&self, name: &str) {
        self.tags.invalidate(name, &self.epochs);
        self.tags.sweep_if_large(|| self.oldest_load());
    }

    /// Forgets the tags that no running load needs any more.
    pub(super) fn forget_old_tags(&self) {
        self.tags.forget_up_to(|| self.oldest_load());
    }

    /// The epoch of the oldest load whose value somebody may be given, or the current one.
    ///
    /// A load that begins while this runs has the epoch that is read first, or a later one: it takes its epoch under
    /// the lock of its stripe, after this has been there.
    fn oldest_load(&self) -> u64 {
        let current = self.epochs.current();
        self.stripes
            .iter()
            .filter_map(|stripe| stripe.read().flights.oldest_epoch())
            .fold(current, u64::min)
    }
}
