//! What a break is, and all of them: for each promise, changes to the source that break it, and the test that must
//! fail.

/// Where the test of a break is.
pub(crate) enum Suite {
    /// An integration test of the crate.
    Test(&'static str),
    /// One of the shared tier's, with its features.
    Tier(&'static str),
    /// A unit test of the shared tier's.
    TierUnit,
    /// The models of `tests/race`.
    Race,
}

/// One way to break one promise.
pub(crate) struct Break {
    pub(crate) promise: u32,
    pub(crate) what: &'static str,
    pub(crate) file: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) suite: Suite,
    /// A part of the names of the tests to run.
    pub(crate) test: &'static str,
}

/// All breaks.
pub(crate) fn all() -> impl Iterator<Item = &'static Break> {
    let engine = crate::calls::BREAKS.iter().chain(crate::keeping::BREAKS);
    engine.chain(crate::tiers::BREAKS)
}
