//! The results as one JSON object, or as one table.

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use crate::replay::{Outcome, Policy};

/// All traces of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub traces: Vec<TraceReport>,
}

/// One trace at all its capacities.
#[derive(Debug, Serialize)]
pub struct TraceReport {
    pub name: String,
    pub requests: u64,
    pub distinct: u32,
    pub runs: Vec<Run>,
}

/// One trace at one capacity.
#[derive(Debug, Serialize)]
pub struct Run {
    /// As it was asked for.
    pub capacity: String,
    pub entries: u64,
    pub results: Vec<Outcome>,
}

impl Report {
    /// One row a trace and capacity, one column a policy; `policies` is what every run has.
    #[must_use]
    pub fn table(&self, policies: &[Policy]) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let head = ["trace", "requests", "keys", "capacity"];
        let titles = policies.iter().map(|policy| policy.title());
        table.set_header(head.into_iter().chain(titles));
        for trace in &self.traces {
            for run in &trace.runs {
                let capacity = if run.capacity == run.entries.to_string() {
                    run.capacity.clone()
                } else {
                    format!("{}\n{}", run.entries, run.capacity)
                };
                let head = [
                    trace.name.clone(),
                    trace.requests.to_string(),
                    trace.distinct.to_string(),
                    capacity,
                ];
                let results = run.results.iter().map(|result| {
                    let (ratio, speed) =
                        (result.hit_ratio * 100.0, result.requests_per_second / 1e6);
                    format!("{ratio:.2} %\n{speed:.1} M/s")
                });
                table.add_row(
                    head.into_iter()
                        .chain(results)
                        .enumerate()
                        .map(|(at, text)| {
                            let side = if at == 0 {
                                CellAlignment::Left
                            } else {
                                CellAlignment::Right
                            };
                            Cell::new(text).set_alignment(side)
                        }),
                );
            }
        }
        format!(
            "{table}\nhit ratio, and million requests a second on one thread; all but larder keep keys alone"
        )
    }
}
