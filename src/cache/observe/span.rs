//! A `tracing` span around each run of a loader, with the feature of that name; without it, nothing.

#[cfg(feature = "tracing")]
pub(in crate::cache) struct LoadSpan(tracing::Span);

#[cfg(not(feature = "tracing"))]
pub(in crate::cache) struct LoadSpan;

/// The guard of an entered span, without the feature.
#[cfg(not(feature = "tracing"))]
pub(in crate::cache) struct Entered;

#[cfg(feature = "tracing")]
impl LoadSpan {
    /// Of a load for a cache of this name. `why`: `miss`, `refresh` or `bulk`.
    pub(in crate::cache) fn new(cache: &str, why: &'static str) -> Self {
        LoadSpan(tracing::debug_span!("larder.load", cache, why))
    }

    /// While the loader runs, or is polled, on this thread.
    pub(in crate::cache) fn enter(&self) -> tracing::span::Entered<'_> {
        self.0.enter()
    }
}

#[cfg(not(feature = "tracing"))]
impl LoadSpan {
    #[inline(always)]
    pub(in crate::cache) fn new(_: &str, _: &'static str) -> Self {
        LoadSpan
    }

    #[inline(always)]
    pub(in crate::cache) fn enter(&self) -> Entered {
        Entered
    }
}
