//! Two processes, as it were, with a cache each: over Redis (REDIS_URL), or over a stand-in in memory.
#![allow(clippy::print_stdout, reason = "it is there to be read")]

use larder::{Loaded, tier::*};
use std::{env, error::Error, thread::park_timeout, time::Duration};

fn process(tier: impl Tier) -> Result<Tiered<String, u64>, Box<dyn Error>> {
    Ok(Tiered::builder(tier).max_capacity(10_000).build()?)
}

/// Messages take their time, but not more than two seconds.
fn wait_until(came: impl Fn() -> bool) -> Result<(), &'static str> {
    let pause = || park_timeout(Duration::from_millis(1));
    let came = (0..2_000).any(|_| (pause(), came()).1);
    came.then_some(())
        .ok_or("no message for two seconds: does the server run?")
}

fn main() -> Result<(), Box<dyn Error>> {
    let (here, there) = if let Ok(url) = env::var("REDIS_URL") {
        let redis = || redis::Redis::builder(&url).prefix("example:").build();
        (process(redis()?)?, process(redis()?)?)
    } else {
        let server = MemoryServer::new();
        (process(server.tier())?, process(server.tier())?)
    };
    wait_until(|| here.is_connected() && there.is_connected())?;
    here.clear()?; // what an earlier run has left
    let load = |price| move || Ok::<_, String>(Loaded::new(price).tag("product:7"));
    let price = here.get_or_load_with("price:7", load(49))?;
    println!("here:  {price:?}, loaded, kept here, and shared");
    let price = there.get("price:7")?;
    println!("there: {price:?}, from the shared tier, without a load");
    here.invalidate_tag("product:7")?; // the price has changed
    println!("here:  invalidated all that bears the tag product:7");
    wait_until(|| matches!(there.get("price:7"), Ok(None)))?;
    let price = there.get_or_load_with("price:7", load(45))?;
    println!("there: the old price is gone; loaded: {price:?}");
    Ok(())
}
