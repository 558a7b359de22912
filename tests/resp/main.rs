//! A server that says what no server should: on the wire, byte by byte, through the real link.
#![cfg(all(feature = "redis", unix))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "counts are what the run shows")]
#![allow(dead_code, reason = "what is shared serves other tests, too")]

mod answers;
#[path = "../support/mini_redis.rs"]
mod mini_redis;
mod pushes;
mod wire;
