//! What came out: medians and ranges, and ratios within a round.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

/// The cache that the others are held against.
const BESIDE: &str = "quick_cache";

/// One cache in one row.
#[derive(Debug, Serialize)]
pub struct Cell {
    pub name: &'static str,
    /// Million calls a second, a round each.
    pub speeds: Vec<f64>,
    pub hit_ratio: Option<f64>,
}

/// A middle, and how far it went to both sides.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        Some(Spread {
            median: *values.get(values.len() / 2)?,
            least: *values.first()?,
            most: *values.last()?,
        })
    }
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub struct Line {
    pub work: &'static str,
    pub kind: &'static str,
    pub threads: usize,
    pub engine: &'static str,
    pub million_calls_a_second: Spread,
    /// Against quick_cache in the same round.
    pub ratio: Option<Spread>,
    pub hit_ratio: Option<f64>,
}

/// One kind of work, with all the caches that did it.
#[derive(Debug)]
pub struct Row {
    pub lines: Vec<Line>,
}

impl Row {
    pub fn new(work: &'static str, kind: &'static str, threads: usize, cells: Vec<Cell>) -> Self {
        let beside = cells.iter().find(|cell| cell.name == BESIDE);
        let lines = cells.iter().filter_map(|cell| {
            let ratios = beside.map(|beside| {
                let pairs = cell.speeds.iter().zip(&beside.speeds);
                pairs.map(|(mine, theirs)| mine / theirs).collect()
            });
            Some(Line {
                work,
                kind,
                threads,
                engine: cell.name,
                million_calls_a_second: Spread::of(cell.speeds.clone())?,
                ratio: ratios.and_then(Spread::of),
                hit_ratio: cell.hit_ratio,
            })
        });
        Row {
            lines: lines.collect(),
        }
    }

    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header([
            "work",
            "cache",
            "M calls/s",
            "range",
            "to quick_cache",
            "range",
            "hit ratio",
        ]);
        for line in &self.lines {
            let speed = line.million_calls_a_second;
            let spread = |spread: Spread| format!("{:.2}–{:.2}", spread.least, spread.most);
            table.add_row([
                format!("{} {} ×{}", line.work, line.kind, line.threads),
                line.engine.to_owned(),
                format!("{:.2}", speed.median),
                spread(speed),
                line.ratio
                    .map_or(String::new(), |ratio| format!("{:.2}", ratio.median)),
                line.ratio.map_or(String::new(), spread),
                line.hit_ratio
                    .map_or(String::new(), |ratio| format!("{:.4}", ratio)),
            ]);
        }
        for column in 2..7 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }
}
