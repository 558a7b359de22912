//! What a program sees of its cache from outside: counters for a metrics recorder, spans for a tracing subscriber.

#[cfg(feature = "metrics")]
mod metrics;
pub(super) mod span;
