//! The single-threaded parts of a shard.
//!
//! Plain integers and safe code: no locks, no clocks, no calls into user
//! code other than the closures a method is handed. An *id* is a `u32` slot
//! number given out by the shard's slab; it is dense and is reused.
//!
//! The modules have a total order, the order of this list: each one uses
//! only those before it.
//!
//! # Invariants
//!
//! No call copies, allocates or frees an amount of memory that grows with the
//! number of entries, apart from directories of pointers (at most 16 bytes for
//! 128 elements) and from zeroed pages the kernel hands out untouched.
//!
//! # Cost
//!
//! Stated by each module.

// Vectors growing and shrinking chunk by chunk.
pub(crate) mod chunked_vec;

// Hash to id: the shard's lookup table.
pub(crate) mod index;

// Doubly linked lists of ids over shared links.
pub(crate) mod list;

// Hashes of the entries evicted last.
pub(crate) mod ghost;

// Ids ordered by the time they are due.
pub(crate) mod timer_wheel;
