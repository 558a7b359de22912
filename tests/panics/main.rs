//! Promises 7, 8 and 9: user code that panics, in every callback of every method, at every call; that
//! calls the cache again; and that never runs under a lock it may not know of.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests keep time by themselves, and a failed unwrap is a failed test"
)]

mod ends;
mod flights;
mod instruments;
mod methods;
mod rig;
mod sweep;
mod watch;
