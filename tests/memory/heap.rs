//! The allocator that counts: what is live in the whole process, and what a thread allocates and frees.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};

static BYTES: AtomicI64 = AtomicI64::new(0);
static BLOCKS: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
    static FREED: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn born(bytes: usize) {
    BYTES.fetch_add(bytes as i64, Ordering::Relaxed);
    BLOCKS.fetch_add(1, Ordering::Relaxed);
    ALLOCATED.with(|count| count.set(count.get() + 1));
}

fn died(bytes: usize) {
    BYTES.fetch_sub(bytes as i64, Ordering::Relaxed);
    BLOCKS.fetch_sub(1, Ordering::Relaxed);
    FREED.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes on to the system's allocator unchanged. The thread's counts are thread-locals
// without destructors and with constant starts, so touching them allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        born(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        died(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        died(layout.size());
        born(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that the process holds, as it asked for them: without the allocator's own rounding and heads.
pub(crate) fn bytes() -> i64 {
    BYTES.load(Ordering::Relaxed)
}

/// Blocks that the process holds.
pub(crate) fn blocks() -> i64 {
    BLOCKS.load(Ordering::Relaxed)
}

/// How many blocks this thread has allocated.
pub(crate) fn allocated() -> u64 {
    ALLOCATED.with(Cell::get)
}

/// How many blocks this thread has freed.
pub(crate) fn freed() -> u64 {
    FREED.with(Cell::get)
}

#[test]
fn the_counts_count() {
    let _alone = crate::alone();
    let (before, made) = (bytes(), allocated());
    let boxed = std::hint::black_box(Box::new([0_u8; 100_000]));
    assert_eq!(allocated() - made, 1);
    assert!((bytes() - before - 100_000).abs() < 20_000);
    let gone = freed();
    drop(boxed);
    assert_eq!(freed() - gone, 1);
    assert!((bytes() - before).abs() < 20_000);
}
