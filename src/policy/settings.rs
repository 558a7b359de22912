//! The ratios of S3-FIFO, and why they are what they are.

/// The ratios of the policy, in thousandths where a share is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Share of the capacity for `fresh` and `small` together: the least and the most.
    pub(crate) probation: (u64, u64),
    /// But at least this many entries' worth of it: a short queue would evict
    /// before a second read can come.
    pub(crate) probation_min: u64,
    /// At this return rate of ghosts or less `probation` is the least, at this or more the
    /// most.
    pub(crate) return_rate: (u32, u32),
    /// Caches below this many entries are tiny...
    pub(crate) tiny: u64,
    /// ...and have this share for `fresh` and `small`.
    pub(crate) probation_tiny: u64,
    /// Share of those two for `fresh`.
    pub(crate) skipped: u64,
    /// Hits in `small` that earn a place in `main`.
    pub(crate) promote_at: u8,
    /// Ghosts, as a share of the entries.
    pub(crate) ghosts: u64,
}

impl Settings {
    /// `probation`, `return_rate` and `ghosts`, together with `MAX_HITS`, were tuned on six real
    /// traces and on a Zipf stream: a database's needs the longer queue, the stream the
    /// shorter one. The rest is chosen for small caches.
    pub(crate) const DEFAULT: Self = Self {
        probation: (30, 70),
        probation_min: 77,
        return_rate: (1_150, 1_450),
        tiny: 128,
        probation_tiny: 600,
        skipped: 300,
        promote_at: 1,
        ghosts: 770,
    };
}
