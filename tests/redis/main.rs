//! The shared tier on a real `redis-server`, which each test starts for itself on a unix socket: the suite of
//! `tests/tiered`, the server's every way to fail, and storms in which it fails while everybody works.
//!
//! `LARDER_REDIS_SERVER` names another binary. Without a server the tests say so and pass, unless `CI` is set.
#![cfg(all(feature = "redis", unix))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "counts are what the run shows")]

mod contract;
mod found;
mod journal;
mod late;
#[path = "../support/mini_redis.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod mini_redis;
mod server;
mod states;
mod storm;
#[path = "../support/tier_suite/mod.rs"]
mod suite;
mod watched;

use larder::tier::redis::Redis;

use server::Server;

/// One server, and links to it that track what they read.
struct Tracking(Server);

/// One server, and links to it to which it announces every change under the prefix.
struct Broadcast(Server);

impl suite::World for Tracking {
    type Tier = Redis;

    fn exists() -> bool {
        Server::is_installed()
    }

    fn new() -> Self {
        Tracking(Server::start().unwrap())
    }

    fn tier(&self) -> Redis {
        self.0.link().build().unwrap()
    }

    fn until(&self, heard: impl Fn() -> bool) {
        server::until("everybody has heard of it", heard);
    }
}

impl suite::World for Broadcast {
    type Tier = Redis;

    fn exists() -> bool {
        Server::is_installed()
    }

    fn new() -> Self {
        Broadcast(Server::start().unwrap())
    }

    fn tier(&self) -> Redis {
        self.0.link().broadcast().build().unwrap()
    }

    fn until(&self, heard: impl Fn() -> bool) {
        server::until("everybody has heard of it", heard);
    }
}

mod tracking {
    crate::suite::suite!(crate::Tracking);
}

mod broadcast {
    crate::suite::suite!(crate::Broadcast);
}
