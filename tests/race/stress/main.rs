//! Threads and tasks that do everything at once to caches of several shapes, for the sanitizers to
//! watch: `tests/sanitize address` and `tests/sanitize thread` build and run this.
//!
//! ```text
//! cd tests/race && cargo test --release --test stress                 without a sanitizer
//! LARDER_STRESS_CALLS=100000 LARDER_STRESS_SEED=3 cargo test --release --test stress
//! ```
//!
//! By itself it checks that a value is served under its own key only, that every value that was made is
//! dropped, that the shards are whole (`__validate`) and that no flight is left. What it is for is what
//! the sanitizers see meanwhile.
//!
//! A main of its own, threads that meet at atomics, no `std::sync::Mutex` and no channel: std is not
//! instrumented, so ThreadSanitizer would report those falsely.
//!
//! `--cfg larder_plant="race"` and `="leak"` plant what the sanitizers must report.

#[cfg(not(larder_shuttle))]
mod calls;
#[cfg(not(larder_shuttle))]
mod payload;
#[cfg(not(larder_shuttle))]
mod shapes;
#[cfg(not(larder_shuttle))]
mod tasks;

/// Under shuttle there is nothing to do: the models are the library's tests.
#[cfg(larder_shuttle)]
fn main() {}

#[cfg(not(larder_shuttle))]
fn main() {
    let calls = number("LARDER_STRESS_CALLS", 20_000);
    let seed = number("LARDER_STRESS_SEED", 1);
    for shape in shapes::SHAPES {
        let done = shape.run(calls, seed);
        println!("counts {}: {done}", shape.name);
    }
    println!("test result: ok. {} passed; 0 failed", shapes::SHAPES.len());
}

/// A setting from the environment.
#[cfg(not(larder_shuttle))]
fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is to be a number, not '{text}'")),
        Err(_) => otherwise,
    }
}
