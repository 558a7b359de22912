//! The progress bar on standard error: one bar per phase, and a line when the phase is done.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whether progress is shown.
#[derive(Debug)]
pub struct Progress {
    quiet: bool,
}

/// The bar of one running phase. On a standard error that is no terminal it draws nothing.
#[derive(Debug, Clone)]
pub struct Bar {
    bar: ProgressBar,
    name: &'static str,
    quiet: bool,
    started: Instant,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    pub fn phase(&self, name: &'static str, steps: u64) -> Bar {
        let target = if self.quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        // The template is a constant; were it ever wrong, the plain bar is good enough.
        if let Ok(style) = ProgressStyle::with_template("{msg:<22} {bar:32} {pos}/{len} {elapsed}")
        {
            bar.set_style(style);
        }
        bar.set_message(name);
        Bar {
            bar,
            name,
            quiet: self.quiet,
            started: Instant::now(),
        }
    }

    pub fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }
}

impl Bar {
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// Says a line beside the bar.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    /// Takes the bar away, says how long the phase took, and returns that in seconds.
    pub fn done(self) -> f64 {
        let took = self.started.elapsed().as_secs_f64();
        self.bar.finish_and_clear();
        if !self.quiet {
            eprintln!("{:<22} {took:>6.1} s", self.name);
        }
        // Hundredths are as exact as a phase can be repeated.
        (took * 100.0).round() / 100.0
    }
}
