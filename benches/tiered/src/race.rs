//! The race: every contestant does the same work for a slice of each round, one after another.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::report::{Line, Rounds, micros, quantile};

/// The settings of a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub rounds: usize,
    pub slice: Duration,
}

/// How many calls are timed together: the clock takes a good part of what a hit does.
#[derive(Clone, Copy, Debug)]
pub struct Batch(pub usize);

/// A contestant that is called by a thread.
pub trait Call {
    /// What has to be so before a call. Not timed.
    fn prepare(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    /// One read; returns the value's length.
    fn call(&mut self) -> Result<usize, BenchError>;

    /// Whether all calls so far were answered from where the row says.
    fn check(&self) -> Result<(), BenchError>;
}

/// A contestant that is called by a task.
pub trait Ask: Send + 'static {
    fn prepare(&mut self) -> Result<(), BenchError> {
        Ok(())
    }

    fn ask(&mut self) -> impl Future<Output = Result<usize, BenchError>> + Send;

    fn check(&self) -> Result<(), BenchError>;
}

type Slice<'a> = Box<dyn FnMut(Duration) -> Result<Vec<Duration>, BenchError> + 'a>;

/// Who takes part: a name, and how it works for a slice.
pub struct Contestant<'a> {
    name: &'static str,
    /// Who it is held against: the one that is called in the same way.
    beside: Option<&'static str>,
    slice: Slice<'a>,
}

impl<'a> Contestant<'a> {
    pub fn beside(self, other: &'static str) -> Self {
        Contestant {
            beside: Some(other),
            ..self
        }
    }

    /// One that the bench's own thread calls.
    pub fn thread(name: &'static str, mut call: impl Call + 'a, size: usize, batch: Batch) -> Self {
        let slice = move |length| {
            let (begun, mut times) = (Instant::now(), Vec::new());
            while begun.elapsed() < length {
                call.prepare()?;
                let start = Instant::now();
                for _ in 0..batch.0 {
                    expect(name, std::hint::black_box(call.call()?), size)?;
                }
                times.push(start.elapsed());
            }
            call.check()?;
            Ok(times)
        };
        Contestant {
            name,
            beside: None,
            slice: Box::new(slice),
        }
    }

    /// One that a task calls on this runtime.
    pub fn task(
        name: &'static str,
        runtime: &'a Runtime,
        ask: impl Ask,
        size: usize,
        batch: Batch,
    ) -> Self {
        let mut idle = Some(ask);
        let slice = move |length| {
            let ask = idle.take().ok_or(BenchError::Work {
                who: name,
                what: "failed before".to_owned(),
            })?;
            let work = runtime.spawn(in_task(name, ask, size, batch, length));
            let (ask, times) = runtime.block_on(work)??;
            idle = Some(ask);
            Ok(times)
        };
        Contestant {
            name,
            beside: None,
            slice: Box::new(slice),
        }
    }
}

async fn in_task<A: Ask>(
    name: &'static str,
    mut ask: A,
    size: usize,
    batch: Batch,
    length: Duration,
) -> Result<(A, Vec<Duration>), BenchError> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < length {
        ask.prepare()?;
        let start = Instant::now();
        for _ in 0..batch.0 {
            expect(name, std::hint::black_box(ask.ask().await?), size)?;
        }
        times.push(start.elapsed());
    }
    ask.check()?;
    Ok((ask, times))
}

fn expect(who: &'static str, length: usize, size: usize) -> Result<(), BenchError> {
    if length == size {
        return Ok(());
    }
    let what = format!("read a value of {length} bytes instead of {size}");
    Err(BenchError::Work { who, what })
}

/// Runs one row.
pub fn run(
    row: &str,
    mut contestants: Vec<Contestant<'_>>,
    batch: Batch,
    settings: &Settings,
) -> Result<Vec<Line>, BenchError> {
    let mut rounds: Vec<Rounds> = contestants.iter().map(|_| Rounds::default()).collect();
    for round in 0..=settings.rounds {
        for turn in 0..contestants.len() {
            // Each round begins with another one; the first, unrecorded one warms up.
            let at = (turn + round) % contestants.len();
            let mut times = (contestants[at].slice)(settings.slice)?;
            if round == 0 {
                continue;
            }
            times.sort_unstable();
            let each = |share| Some(micros(quantile(&times, share)?) / batch.0 as f64);
            rounds[at].p50.extend(each(0.5));
            if batch.0 == 1 {
                rounds[at].p99.extend(each(0.99));
                let worst = each(1.0).unwrap_or(0.0);
                rounds[at].worst = rounds[at].worst.max(worst);
            }
            rounds[at].calls += times.len() * batch.0;
        }
    }
    let lines = contestants.iter().zip(&rounds).filter_map(|(who, own)| {
        let beside = who.beside.and_then(|name| {
            let place = contestants.iter().position(|other| other.name == name)?;
            Some((name, &rounds[place]))
        });
        Line::new(row, who.name, own, beside)
    });
    Ok(lines.collect())
}
