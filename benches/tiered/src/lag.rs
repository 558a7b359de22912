//! The lag: from one process's `invalidate` until another's cache has let go of the value.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use comfy_table::Table;
use larder::tier::Tiered;
use serde::Serialize;

use crate::error::BenchError;
use crate::larders;
use crate::peer::{self, KEY, Witness, Witnesses};
use crate::report::{self, Spread, quantile};
use crate::server::{Link, Server};

/// Samples before those that are recorded.
const WARM_UP: usize = 100;

/// One row, in microseconds. From the call's return it may be negative: the other process may have been told before.
#[derive(Debug, Serialize)]
pub struct Line {
    pub row: &'static str,
    pub samples: usize,
    pub from_begin: Lag,
    pub from_return: Lag,
    /// What the call itself took.
    pub call: Lag,
}

/// A distribution.
#[derive(Debug, Serialize)]
pub struct Lag {
    /// Of all samples.
    pub p50: f64,
    pub p99: f64,
    pub worst: f64,
    /// Each round's median.
    pub p50_by_round: Spread,
}

/// In nanoseconds.
#[derive(Clone, Copy)]
struct Sample {
    begun: i64,
    returned: i64,
    gone: i64,
}

/// A row under way: this process, and the other.
struct Pair {
    row: &'static str,
    cache: Tiered<String, Witness>,
    witnesses: Witnesses,
    other: Other,
    number: u64,
    rounds: Vec<Vec<Sample>>,
}

/// The second process. Killed when it is dropped.
struct Other {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Other {
    fn start(url: &str, prefix: &str) -> Result<Self, BenchError> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--peer", url, prefix])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (to, from) = pipes.ok_or_else(|| failed("has no pipes"))?;
        let mut other = Other {
            process,
            to,
            from: BufReader::new(from),
        };
        let up = other.line()?;
        if up == "up" {
            Ok(other)
        } else {
            Err(failed(format!("said '{up}'")))
        }
    }

    fn line(&mut self) -> Result<String, BenchError> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err(failed("has ended"));
        }
        Ok(line.trim_end().to_owned())
    }

    /// Has it read.
    fn read(&mut self) -> Result<String, BenchError> {
        self.to.write_all(b"read\n")?;
        self.line()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn failed(what: impl Into<String>) -> BenchError {
    BenchError::Peer { what: what.into() }
}

const ROWS: [(&str, Link); 2] = [("lag unix", Link::Unix), ("lag TCP", Link::Tcp)];

/// Measures all rows in turns, and says where something stale was served.
pub fn run(
    server: &Server,
    rounds: usize,
    samples: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<(Vec<Line>, Vec<String>), BenchError> {
    let mut pairs = Vec::new();
    for (row, link) in ROWS.into_iter().filter(|(row, _)| wanted(row)) {
        pairs.push(Pair::new(row, &server.url(link))?);
    }
    let mut faults = Vec::new();
    let each = samples.div_ceil(rounds);
    for round in 0..=rounds {
        for turn in 0..pairs.len() {
            // Each round begins with another row; the first, unrecorded one warms up.
            let at = (turn + round) % pairs.len();
            let count = if round == 0 { WARM_UP } else { each };
            let samples = pairs[at].round(count, &mut faults)?;
            if round > 0 {
                pairs[at].rounds.push(samples);
            }
        }
    }
    let lines = pairs.iter().filter_map(Pair::line).collect();
    Ok((lines, faults))
}

impl Pair {
    fn new(row: &'static str, url: &str) -> Result<Self, BenchError> {
        // A prefix each: what one row changes is not told to another.
        Ok(Pair {
            row,
            cache: larders::open(url, row, Witnesses::new().0)?,
            witnesses: Witnesses::new().0,
            other: Other::start(url, row)?,
            number: 0,
            rounds: Vec::new(),
        })
    }

    fn round(&mut self, count: usize, faults: &mut Vec<String>) -> Result<Vec<Sample>, BenchError> {
        let mut samples = Vec::with_capacity(count);
        while samples.len() < count {
            match self.sample()? {
                Ok(sample) => samples.push(sample),
                Err(fault) => {
                    faults.push(format!("{}: {fault}", self.row));
                    return Ok(samples);
                }
            }
        }
        Ok(samples)
    }

    /// One value: written here, read there, invalidated here, let go there.
    fn sample(&mut self) -> Result<Result<Sample, String>, BenchError> {
        self.number += 1;
        let value = self.witnesses.make(self.number);
        self.cache.insert(KEY.to_owned(), value)?;
        let have = self.other.read()?;
        if have != format!("have {}", self.number) {
            return Ok(Err(format!(
                "after value {} was written: '{have}'",
                self.number
            )));
        }
        let begun = peer::now();
        self.cache.invalidate(KEY)?;
        let returned = peer::now();
        let told = self.other.line()?;
        let gone = told.strip_prefix("gone ").and_then(|at| at.parse().ok());
        Ok(match gone {
            Some(gone) => Ok(Sample {
                begun,
                returned,
                gone,
            }),
            None => Err(format!(
                "after value {} was invalidated: '{told}'",
                self.number
            )),
        })
    }

    fn line(&self) -> Option<Line> {
        Some(Line {
            row: self.row,
            samples: self.rounds.iter().map(Vec::len).sum(),
            from_begin: self.lag(|sample| sample.gone - sample.begun)?,
            from_return: self.lag(|sample| sample.gone - sample.returned)?,
            call: self.lag(|sample| sample.returned - sample.begun)?,
        })
    }

    fn lag(&self, of: impl Fn(&Sample) -> i64) -> Option<Lag> {
        let sorted = |samples: &mut dyn Iterator<Item = &Sample>| {
            let mut times: Vec<i64> = samples.map(&of).collect();
            times.sort_unstable();
            times
        };
        let all = sorted(&mut self.rounds.iter().flatten());
        let at = |times: &[i64], share| Some(quantile(times, share)? as f64 / 1e3);
        let medians = self
            .rounds
            .iter()
            .filter_map(|round| at(&sorted(&mut round.iter()), 0.5));
        Some(Lag {
            p50: at(&all, 0.5)?,
            p99: at(&all, 0.99)?,
            worst: at(&all, 1.0)?,
            p50_by_round: Spread::of(medians.collect())?,
        })
    }
}

pub fn table(lines: &[Line]) -> Table {
    let headings = [
        "row",
        "from",
        "p50 µs",
        "p50s of the rounds",
        "p99 µs",
        "worst µs",
        "samples",
    ];
    let mut table = report::table_of(headings, 2);
    for line in lines {
        for (from, lag) in [
            ("the call's beginning", &line.from_begin),
            ("the call's return", &line.from_return),
            ("(the call itself)", &line.call),
        ] {
            table.add_row([
                line.row.to_owned(),
                from.to_owned(),
                format!("{:.1}", lag.p50),
                lag.p50_by_round.range(1),
                format!("{:.1}", lag.p99),
                format!("{:.1}", lag.worst),
                line.samples.to_string(),
            ]);
        }
    }
    table
}
