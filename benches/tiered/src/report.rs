//! What came out of the race: medians and ranges, and ratios within a round.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

/// A middle, and how far it went to both sides.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        Some(Spread {
            median: *values.get(values.len() / 2)?,
            least: *values.first()?,
            most: *values.last()?,
        })
    }

    pub fn range(&self, decimals: usize) -> String {
        format!("{:.decimals$}–{:.decimals$}", self.least, self.most)
    }
}

/// Of sorted values, the one below which this share of them lies.
pub fn quantile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().checked_sub(1)?)).copied()
}

pub fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// One contestant's rounds: what a call took, in microseconds.
#[derive(Debug, Default)]
pub struct Rounds {
    pub p50: Vec<f64>,
    /// Empty where calls are too short to be timed one by one.
    pub p99: Vec<f64>,
    pub worst: f64,
    pub calls: usize,
}

/// One line of the table. Times in microseconds.
#[derive(Debug, Serialize)]
pub struct Line {
    pub row: String,
    pub who: &'static str,
    pub calls: usize,
    /// Of each round the median call.
    pub p50: Spread,
    /// Of each round the call than which one in a hundred took longer.
    pub p99: Option<Spread>,
    /// Of all calls that were timed one by one.
    pub worst: Option<f64>,
    pub beside: &'static str,
    /// How many times the other's median call of the same round.
    pub ratio: Option<Spread>,
}

impl Line {
    pub fn new(
        row: &str,
        who: &'static str,
        rounds: &Rounds,
        beside: Option<(&'static str, &Rounds)>,
    ) -> Option<Line> {
        let ratio = beside.map(|(_, other)| {
            let pairs = rounds.p50.iter().zip(&other.p50);
            pairs.map(|(mine, theirs)| mine / theirs).collect()
        });
        Some(Line {
            row: row.to_owned(),
            who,
            calls: rounds.calls,
            p50: Spread::of(rounds.p50.clone())?,
            p99: Spread::of(rounds.p99.clone()),
            worst: (!rounds.p99.is_empty()).then_some(rounds.worst),
            beside: beside.map_or("", |(name, _)| name),
            ratio: ratio.and_then(Spread::of),
        })
    }
}

/// A table with these headings, all but the first `left` of them over numbers.
pub fn table_of<const N: usize>(headings: [&str; N], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(headings);
    for column in left..N {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

pub fn table(lines: &[Line]) -> Table {
    let headings = [
        "row",
        "who",
        "beside",
        "p50 µs",
        "range",
        "p99 µs",
        "worst µs",
        "× beside",
        "range",
        "calls",
    ];
    let mut table = table_of(headings, 3);
    let of = |value: Option<f64>, decimals: usize| {
        value.map_or(String::new(), |value| format!("{value:.decimals$}"))
    };
    for line in lines {
        // Hits take fractions of a microsecond.
        let decimals = if line.p50.median < 10.0 { 3 } else { 1 };
        table.add_row([
            line.row.clone(),
            line.who.to_owned(),
            line.beside.to_owned(),
            format!("{:.decimals$}", line.p50.median),
            line.p50.range(decimals),
            of(line.p99.map(|p99| p99.median), 1),
            of(line.worst, 1),
            of(line.ratio.map(|ratio| ratio.median), 2),
            line.ratio.map_or(String::new(), |ratio| ratio.range(2)),
            line.calls.to_string(),
        ]);
    }
    table
}
