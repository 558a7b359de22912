//! What queues hold, and how much of it they may hold.
//!
//! # Invariants
//!
//! - A `Usage` is the count of its queue's entries and the sum of their weights.

/// A limit that does not bind.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// How many entries, and what they weigh together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) entries: u64,
    pub(crate) weight: u64,
}

impl Usage {
    #[inline]
    pub(crate) fn add(&mut self, weight: u64) {
        self.entries += 1;
        self.weight += weight;
    }

    #[inline]
    pub(crate) fn take(&mut self, weight: u64) {
        self.entries -= 1;
        self.weight -= weight;
    }
}

/// How much some queues may hold; either bound may be [`UNLIMITED`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) entries: u64,
    pub(super) weight: u64,
}

impl Bound {
    #[inline]
    pub(super) fn is_exceeded(self, load: Usage) -> bool {
        load.entries > self.entries || load.weight > self.weight
    }

    /// Whether so many entries, each of weight 1, are more than this.
    #[inline]
    pub(super) fn is_exceeded_by(self, entries: u64) -> bool {
        entries > self.entries.min(self.weight)
    }

    pub(super) fn share(self, thousandths: u64) -> Self {
        let part = |limit: u64| {
            if limit == UNLIMITED {
                UNLIMITED
            } else {
                (u128::from(limit) * u128::from(thousandths) / 1_000) as u64
            }
        };
        Self {
            entries: part(self.entries),
            weight: part(self.weight),
        }
    }
}
