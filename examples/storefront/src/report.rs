//! The result of a run: one table for people, one JSON object for programs, and the verdict.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use crate::drive::{
    outage::Outage,
    prices::Changes,
    processes::Processes,
    stampede::Stampede,
    traffic::{Measured, percentile_ms},
};

/// The figures of a run. `p50` and `p99` without more words are those of category pages, asked for
/// in the same mix in both phases: the uncached requests are the first of the cached ones.
/// `hit_ratio` is the cache's own, over its whole life: the stampede, the traffic and the price
/// changes; `traffic_hit_ratio` is that of the traffic alone, which began with an empty cache but
/// for the stampede's page. The queries are those of the traffic.
#[derive(Debug, Serialize)]
pub struct Report {
    pub products: u32,
    pub connections: usize,
    pub uncached_requests: usize,
    pub cached_requests: usize,
    pub uncached_p50_ms: f64,
    pub cached_p50_ms: f64,
    pub uncached_p99_ms: f64,
    pub cached_p99_ms: f64,
    pub uncached_all_pages_p50_ms: f64,
    pub cached_all_pages_p50_ms: f64,
    pub uncached_all_pages_p99_ms: f64,
    pub cached_all_pages_p99_ms: f64,
    pub uncached_requests_per_second: f64,
    pub cached_requests_per_second: f64,
    pub uncached_queries: u64,
    pub cached_queries: u64,
    pub uncached_queries_per_request: f64,
    pub cached_queries_per_request: f64,
    pub hit_ratio: f64,
    pub traffic_hit_ratio: f64,
    pub stampede_requests: u64,
    pub stampede_joined: u64,
    pub stampede_loader_calls: u64,
    pub price_changes: u64,
    pub price_changes_during_loads: u64,
    pub stale_checks: u64,
    pub stale_prices: u64,
    #[serde(flatten)]
    pub outage: Outage,
    pub pages_compared: u64,
    pub pages_differing: u64,
    pub seconds: Seconds,
    /// Only of a run with a Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub two_processes: Option<Processes>,
    #[serde(skip)]
    pub first_stale: Option<String>,
}

/// How long each phase took.
#[derive(Debug, Default, Serialize)]
pub struct Seconds {
    pub database: f64,
    pub uncached_traffic: f64,
    pub stampede: f64,
    pub cached_traffic: f64,
    pub price_changes: f64,
    pub comparison: f64,
    pub outage: f64,
}

/// All that was measured, before it is put into figures.
#[derive(Debug)]
pub struct Findings {
    pub products: u32,
    pub connections: usize,
    pub uncached: Measured,
    pub uncached_queries: u64,
    pub cached: Measured,
    pub cached_queries: u64,
    pub stampede: Stampede,
    pub changes: Changes,
    pub outage: Outage,
    pub traffic_hit_ratio: f64,
    pub hit_ratio: f64,
    pub pages_compared: u64,
    pub pages_differing: u64,
    pub seconds: Seconds,
}

impl Report {
    pub fn new(found: Findings) -> Self {
        let Findings {
            uncached,
            cached,
            stampede,
            changes,
            outage,
            ..
        } = found;
        Self {
            products: found.products,
            connections: found.connections,
            uncached_requests: uncached.all.len(),
            cached_requests: cached.all.len(),
            uncached_p50_ms: ms(&uncached.categories, 50.0),
            cached_p50_ms: ms(&cached.categories, 50.0),
            uncached_p99_ms: ms(&uncached.categories, 99.0),
            cached_p99_ms: ms(&cached.categories, 99.0),
            uncached_all_pages_p50_ms: ms(&uncached.all, 50.0),
            cached_all_pages_p50_ms: ms(&cached.all, 50.0),
            uncached_all_pages_p99_ms: ms(&uncached.all, 99.0),
            cached_all_pages_p99_ms: ms(&cached.all, 99.0),
            uncached_requests_per_second: rounded(uncached.requests_per_second(), 1),
            cached_requests_per_second: rounded(cached.requests_per_second(), 1),
            uncached_queries: found.uncached_queries,
            cached_queries: found.cached_queries,
            uncached_queries_per_request: per_request(found.uncached_queries, &uncached),
            cached_queries_per_request: per_request(found.cached_queries, &cached),
            hit_ratio: rounded(found.hit_ratio, 4),
            traffic_hit_ratio: rounded(found.traffic_hit_ratio, 4),
            stampede_requests: stampede.requests,
            stampede_joined: stampede.joined,
            stampede_loader_calls: stampede.loader_calls,
            price_changes: changes.changes,
            price_changes_during_loads: changes.during_loads,
            stale_checks: changes.verdict.checks,
            stale_prices: changes.verdict.stale,
            outage,
            pages_compared: found.pages_compared,
            pages_differing: found.pages_differing,
            seconds: found.seconds,
            two_processes: None,
            first_stale: changes.verdict.first_stale,
        }
    }

    /// What the run found wrong with the cache, in words; empty if nothing.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.stale_prices > 0 {
            let first = self.first_stale.as_deref().unwrap_or_default();
            failures.push(format!(
                "{} of {} checked prices were stale; first: {first}",
                self.stale_prices, self.stale_checks
            ));
        }
        if self.pages_differing > 0 {
            failures.push(format!(
                "{} answers of the cached shop differ from the uncached shop's",
                self.pages_differing
            ));
        }
        if self.stampede_loader_calls != 1 {
            failures.push(format!(
                "the stampede called the loader {} times, not once",
                self.stampede_loader_calls
            ));
        }
        if self.outage.expiry_waits > 0 {
            failures.push(format!(
                "{} of {} requests waited for a page that had been there and only expired",
                self.outage.expiry_waits, self.outage.expiry_requests
            ));
        }
        if self.outage.outage_errors > 0 {
            failures.push(format!(
                "{} of {} requests failed while the database was down, for pages that were there before",
                self.outage.outage_errors, self.outage.outage_requests
            ));
        }
        if self.outage.outage_stale == 0 {
            failures.push("the database was down and nothing was served stale".to_owned());
        }
        failures.extend(self.two_processes.iter().flat_map(Processes::failures));
        failures
    }

    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["", "uncached", "cached"]);
        table.add_rows(self.traffic_rows());
        table.add_rows(self.check_rows());
        table.add_rows(self.two_processes.iter().flat_map(Processes::rows));
        for column in 1..3 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    /// What was measured of both shops.
    fn traffic_rows(&self) -> [[String; 3]; 8] {
        let row = |name: &str, unit: &str, uncached: f64, cached: f64, digits: usize| {
            [
                name.to_owned(),
                format!("{uncached:.digits$}{unit}"),
                format!("{cached:.digits$}{unit}"),
            ]
        };
        let time = |name, uncached, cached| row(name, " ms", uncached, cached, 3);
        [
            row(
                "requests",
                "",
                self.uncached_requests as f64,
                self.cached_requests as f64,
                0,
            ),
            time(
                "category pages, p50",
                self.uncached_p50_ms,
                self.cached_p50_ms,
            ),
            time(
                "category pages, p99",
                self.uncached_p99_ms,
                self.cached_p99_ms,
            ),
            time(
                "all pages, p50",
                self.uncached_all_pages_p50_ms,
                self.cached_all_pages_p50_ms,
            ),
            time(
                "all pages, p99",
                self.uncached_all_pages_p99_ms,
                self.cached_all_pages_p99_ms,
            ),
            row(
                "requests per second",
                "",
                self.uncached_requests_per_second,
                self.cached_requests_per_second,
                0,
            ),
            row(
                "SQL queries",
                "",
                self.uncached_queries as f64,
                self.cached_queries as f64,
                0,
            ),
            row(
                "SQL queries per request",
                "",
                self.uncached_queries_per_request,
                self.cached_queries_per_request,
                3,
            ),
        ]
    }

    /// What was found out about the cached shop.
    fn check_rows(&self) -> [[String; 3]; 6] {
        let row = |name: String, cached| [name, String::new(), cached];
        let Self {
            stampede_requests,
            stampede_joined,
            stampede_loader_calls: calls,
            ..
        } = self;
        let Self {
            stale_prices,
            stale_checks,
            pages_differing,
            pages_compared,
            ..
        } = self;
        let loads = if *calls == 1 { "load" } else { "loads" };
        [
            row(
                "hit ratio".to_owned(),
                format!("{:.1} %, price changes included", self.hit_ratio * 100.0),
            ),
            row(
                "stampede on a cold page".to_owned(),
                format!("{stampede_requests} requests, {stampede_joined} joined, {calls} {loads}"),
            ),
            row(
                format!("staleness, {} price changes", self.price_changes),
                format!("{stale_prices} stale of {stale_checks} prices read"),
            ),
            row(
                "answers, cached and uncached".to_owned(),
                format!("{pages_differing} differ of {pages_compared} compared"),
            ),
            row(
                "pages that live a second".to_owned(),
                format!(
                    "{} of {} requests waited, {} loaded early",
                    self.outage.expiry_waits,
                    self.outage.expiry_requests,
                    self.outage.expiry_refreshes
                ),
            ),
            row(
                "database down for three seconds".to_owned(),
                format!(
                    "{} of {} requests failed, {} served stale",
                    self.outage.outage_errors,
                    self.outage.outage_requests,
                    self.outage.outage_stale
                ),
            ),
        ]
    }
}

fn ms(sorted: &[Duration], percent: f64) -> f64 {
    rounded(percentile_ms(sorted, percent), 3)
}

fn per_request(queries: u64, measured: &Measured) -> f64 {
    rounded(queries as f64 / measured.all.len().max(1) as f64, 3)
}

/// Rounded to what was measured: more digits would only look exact.
fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
