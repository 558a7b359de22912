//! Asking the processor for memory that will be needed soon.
//!
//! A write touches a few cache lines that nothing else keeps near: the key's bucket in the index, its
//! bucket among the ghosts, and the same two of the entry that will have to go. Each is known some hundred
//! instructions before it is needed. Asked for then, they arrive together instead of one after the other.

/// Asks for the cache line in which `place` begins. Changes nothing but the time that a later access takes.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(crate) fn prefetch<T>(place: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86-64 processor has the instruction. It is a hint: it reads nothing that the program
    // could see, and faults for no address (and this one belongs to a live reference).
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) }
}

/// Elsewhere stable Rust has no such instruction.
#[inline(always)]
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) fn prefetch<T>(_place: &T) {}
