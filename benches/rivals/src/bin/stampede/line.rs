//! What came out: a line for each cache in each row.

use std::time::Duration;

use comfy_table::Table;
use serde::Serialize;

/// One cache in one row. Times in microseconds.
#[derive(Debug, Serialize)]
pub struct Line {
    pub row: String,
    pub cache: &'static str,
    pub calls: usize,
    pub loader_calls: u64,
    /// For what the row has rounds or expiries.
    pub loader_calls_each: f64,
    pub waited_over_1_ms: usize,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub worst: f64,
    /// By how much the sleep of a cold key's loader lasted too long, in the middle round.
    pub loader_late: Option<f64>,
    /// What a cache must not do, and did.
    #[serde(skip)]
    pub faults: Vec<String>,
}

impl Line {
    pub fn new(
        row: &str,
        cache: &'static str,
        mut waits: Vec<Duration>,
        loads: u64,
        each: f64,
    ) -> Self {
        waits.sort_unstable();
        let at = |share: f64| {
            let place = (waits.len() as f64 * share) as usize;
            let wait = waits.get(place.min(waits.len().saturating_sub(1)));
            wait.copied().map_or(0.0, micros)
        };
        Line {
            row: row.to_owned(),
            cache,
            calls: waits.len(),
            loader_calls: loads,
            loader_calls_each: loads as f64 / each,
            waited_over_1_ms: waits.iter().filter(|wait| wait.as_millis() >= 1).count(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            worst: at(1.0),
            loader_late: None,
            faults: Vec::new(),
        }
    }

    pub fn cold(self, late: Option<Duration>, faults: Vec<String>) -> Self {
        Line {
            loader_late: late.map(micros),
            faults,
            ..self
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

pub fn table(lines: &[Line]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "row",
        "cache",
        "calls",
        "loads",
        "loads each",
        "over 1 ms",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "worst µs",
        "loader late µs",
    ]);
    for line in lines {
        table.add_row([
            line.row.clone(),
            line.cache.to_owned(),
            line.calls.to_string(),
            line.loader_calls.to_string(),
            format!("{:.2}", line.loader_calls_each),
            line.waited_over_1_ms.to_string(),
            format!("{:.1}", line.p50),
            format!("{:.1}", line.p99),
            format!("{:.1}", line.p999),
            format!("{:.1}", line.worst),
            line.loader_late
                .map_or(String::new(), |late| format!("{late:.1}")),
        ]);
    }
    table
}
