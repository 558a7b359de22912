//! What this process writes itself, as far as it has to know its own writes again.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::flight::wait_graph;
use crate::tier::contract::{Tier, TierFuture};
use crate::tier::envelope::ContentId;
use crate::util::sync::{Arc, Mutex};

/// The leaders of one load: of one flight, or of all those that one call for many keys leads.
pub(super) type Leaders = Arc<HashSet<u64>>;

/// Those of the load that runs on this thread now.
pub(super) fn leaders_here() -> Leaders {
    Arc::new(wait_graph::leaders_here().into_iter().collect())
}

/// Which load makes which write, while it is under way: what the tier tells of the write spares that load alone.
#[derive(Default)]
pub(super) struct Writes(Mutex<HashMap<ContentId, Leaders>>);

/// A write under way.
pub(super) struct Write<'a> {
    writes: &'a Writes,
    content_id: ContentId,
}

impl Writes {
    /// To be called before the write is sent.
    pub(super) fn begin(&self, content_id: ContentId, leaders: &Leaders) -> Write<'_> {
        self.0.lock().insert(content_id, leaders.clone());
        Write {
            writes: self,
            content_id,
        }
    }

    /// The leaders of the load that makes the write with this content id; none, if no load makes it.
    pub(super) fn leaders_of(&self, content_id: ContentId) -> Leaders {
        self.0.lock().get(&content_id).cloned().unwrap_or_default()
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.writes.0.lock().remove(&self.content_id);
    }
}

/// A placeholder that this process has put, or is putting. It goes when this is dropped, by whatever way (a loader may
/// panic, a call be given up), unless something has taken its place.
pub(super) struct Placeholder<'a> {
    tier: &'a dyn Tier,
    key: &'a [u8],
    is_set: bool,
    write: Write<'a>,
}

impl<'a> Placeholder<'a> {
    pub(super) fn new(tier: &'a dyn Tier, key: &'a [u8], write: Write<'a>) -> Self {
        Placeholder {
            tier,
            key,
            is_set: true,
            write,
        }
    }

    /// There is nothing to take away.
    pub(super) fn set_gone(&mut self) {
        self.is_set = false;
    }

    /// Takes it away, so that nobody waits for it. If that fails, its time ends it. To be kept until the answer has
    /// come.
    pub(super) fn take_away(&mut self) -> TierFuture<bool> {
        self.is_set = false;
        self.tier.remove(self.key.to_vec(), self.write.content_id)
    }
}

impl Drop for Placeholder<'_> {
    fn drop(&mut self) {
        if self.is_set {
            // It is on its way from the call on; nobody waits.
            drop(self.take_away());
        }
    }
}

/// Keys for which calls that bring a loader found that they had waited for a call without one: calls without one
/// leave those to them.
#[derive(Default)]
pub(super) struct LoaderDemand {
    keys: Mutex<HashMap<Vec<u8>, usize>>,
    /// How many: nearly always none, and then no key is looked for.
    count: AtomicUsize,
}

/// A key that is wanted, for as long as this lives.
pub(super) struct Demand<'a>(&'a LoaderDemand, Vec<u8>);

impl LoaderDemand {
    pub(super) fn begin(&self, key: &[u8]) -> Demand<'_> {
        *self.keys.lock().entry(key.to_vec()).or_default() += 1;
        // Relaxed, like all of it: who reads too few waits once more for a call without a loader.
        self.count.fetch_add(1, Ordering::Relaxed);
        Demand(self, key.to_vec())
    }

    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.keys.lock().contains_key(key)
    }
}

impl Drop for Demand<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        let mut keys = self.0.keys.lock();
        if let Some(count) = keys.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                keys.remove(&self.1);
            }
        }
    }
}
