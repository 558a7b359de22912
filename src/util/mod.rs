//! Ground: what every layer above uses, and what knows nothing of caches.

#[allow(
    unsafe_code,
    reason = "the kernel's coarse clock is a foreign function"
)]
pub(crate) mod clock;
pub(crate) mod counter;
#[allow(
    unsafe_code,
    reason = "what the processor can do is reached by intrinsics"
)]
pub(crate) mod cpu;
pub(crate) mod error;
pub(crate) mod rng;
pub(crate) mod sync;
