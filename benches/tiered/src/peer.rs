//! The second process: it reads, and says when its own cache let go of a value.
//!
//! No loop asks whether the value is still there: it would take a core from those who bring the message. The value
//! itself tells when the last of its copies is dropped, which is when the cache has lost it; a read after that has to
//! find nothing.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use larder::tier::{Codec, CodecError, Tiered};
use rustix::time::{ClockId, clock_gettime};

use crate::error::BenchError;
use crate::larders;

/// The key that is read.
pub const KEY: &str = "price:7";
/// How long a message may take before it counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often a value is read until it stays.
const READS: usize = 100;

/// Nanoseconds on the clock that all processes of a machine share.
pub fn now() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// A number that tells when it is dropped.
#[derive(Clone)]
pub struct Witness(Arc<Told>);

struct Told {
    number: u64,
    copy: u64,
    dropped: Sender<Dropped>,
}

/// Which witness was dropped, and when.
#[derive(Debug)]
pub struct Dropped {
    copy: u64,
    at: i64,
}

impl Drop for Told {
    fn drop(&mut self) {
        // Nobody may listen any more.
        let (copy, at) = (self.copy, now());
        let _ = self.dropped.send(Dropped { copy, at });
    }
}

/// Makes witnesses out of bytes, each with a number of its own: what is read twice is two of them.
pub struct Witnesses {
    made: AtomicU64,
    dropped: Sender<Dropped>,
}

impl Witnesses {
    pub fn new() -> (Self, Receiver<Dropped>) {
        let (dropped, told) = channel();
        let made = AtomicU64::new(0);
        (Witnesses { made, dropped }, told)
    }

    pub fn make(&self, number: u64) -> Witness {
        Witness(Arc::new(Told {
            number,
            // Relaxed: only uniqueness matters.
            copy: self.made.fetch_add(1, Ordering::Relaxed),
            dropped: self.dropped.clone(),
        }))
    }
}

impl Codec<Witness> for Witnesses {
    fn id(&self) -> u8 {
        128
    }

    fn encode(&self, value: &Witness, into: &mut Vec<u8>) -> Result<(), CodecError> {
        into.extend_from_slice(&value.0.number.to_be_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Witness, CodecError> {
        let number = bytes.try_into().map_err(CodecError::new)?;
        Ok(self.make(u64::from_be_bytes(number)))
    }
}

/// Answers each line with one or two, until there are no more: with the number that was read, and when it was let go.
pub fn run(url: &str, prefix: &str) -> Result<(), BenchError> {
    let (witnesses, dropped) = Witnesses::new();
    let cache = larders::open(url, prefix, witnesses)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "up")?;
    for line in std::io::stdin().lock().lines() {
        line?;
        let (number, copy) = read(&cache)?;
        writeln!(out, "have {number}")?;
        out.flush()?;
        let told = match wait_for(copy, &dropped) {
            Some(at) => match cache.get(KEY)? {
                None => format!("gone {at}"),
                Some(after) => format!("stale {}", after.0.number),
            },
            None => "lost".to_owned(),
        };
        writeln!(out, "{told}")?;
        out.flush()?;
    }
    Ok(())
}

/// When this copy was dropped. Those that were returned, and not kept, have told of their ends too.
fn wait_for(copy: u64, dropped: &Receiver<Dropped>) -> Option<i64> {
    loop {
        let told = dropped.recv_timeout(PATIENCE).ok()?;
        if told.copy == copy {
            return Some(told.at);
        }
    }
}

/// Reads until the value stays, and says which it is. A message about its having been written may still be on its
/// way: what is asked for before it has come is returned, and not kept.
fn read(cache: &Tiered<String, Witness>) -> Result<(u64, u64), BenchError> {
    for _ in 0..READS {
        let found = cache.get(KEY)?;
        let found = found.ok_or_else(|| failed("found nothing to read"))?;
        // One is here. Another is the cache's.
        if Arc::strong_count(&found.0) > 1 {
            return Ok((found.0.number, found.0.copy));
        }
    }
    Err(failed("read a value again and again that was never kept"))
}

fn failed(what: &str) -> BenchError {
    BenchError::Peer {
        what: what.to_owned(),
    }
}
