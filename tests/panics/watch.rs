//! What keeps a test from hanging and its injected panics from filling the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Once};
use std::time::Duration;

use larder::ManualClock;
use parking_lot::Mutex;

use crate::instruments::Injected;

/// The start of what a debug build says when `Eq` or `Clone` call the cache.
pub(crate) const CALLED_FROM_INSIDE: &str = "larder was called from inside";

/// Silences the panics that the tests mean to raise. All others are printed as ever.
fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let meant = info.payload().is::<Injected>()
                || info
                    .payload()
                    .downcast_ref::<&str>()
                    .is_some_and(|text| text.contains(CALLED_FROM_INSIDE));
            if !meant && !COLLECTING.get() {
                loud(info);
            }
        }));
    });
}

thread_local! {
    /// Failures of this thread are collected and reported together.
    static COLLECTING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Collects failures while on: their panics are not printed one by one.
pub(crate) fn collect_failures(on: bool) {
    COLLECTING.set(on);
}

/// Where a test is, for the message if it hangs.
pub(crate) type Place = Arc<Mutex<String>>;

/// Runs a test on a thread of its own, and ends the process if it neither moves on nor comes back: a
/// thread that is stuck on a lock cannot be failed in any other way.
pub(crate) fn watched(test: impl FnOnce(&Place) + Send + 'static) {
    const LONGEST: Duration = Duration::from_secs(30);
    quieten();
    let place = Place::default();
    let (done, finished) = mpsc::channel();
    let at = Arc::clone(&place);
    let thread = std::thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| test(&at)));
        let _ = done.send(());
        result
    });
    let mut before = place.lock().clone();
    while finished.recv_timeout(LONGEST).is_err() {
        let now = place.lock().clone();
        if now == before {
            // Not `eprintln`, which the test harness captures and would never show.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "stuck: {now}");
            std::process::abort();
        }
        before = now;
    }
    if let Err(payload) = thread.join().and_then(|result| result) {
        std::panic::resume_unwind(payload);
    }
}

/// Runs `scene` in a process of its own, for what may end the process where it goes wrong. `test` is
/// the name of the calling test, which the child runs alone.
pub(crate) fn in_child(test: &str, scene: impl FnOnce()) {
    const CHILD: &str = "LARDER_PANICS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        quieten();
        return scene();
    }
    let child = Command::new(std::env::current_exe().expect("this program's path"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .expect("a child process");
    assert!(
        child.status.success(),
        "the process ended with {}:\n{}",
        child.status,
        String::from_utf8_lossy(&child.stderr),
    );
}

/// Lets callers go that wait for themselves. On a clock that stands still their deadlines never come,
/// so when nothing has happened for a while, this turns the clock beyond them, and remembers that.
pub(crate) struct Rescue {
    clock: Arc<Mutex<Option<ManualClock>>>,
    rescued: Arc<AtomicU64>,
    steps: Arc<AtomicU64>,
}

impl Rescue {
    pub(crate) fn new() -> Rescue {
        const PATIENCE: Duration = Duration::from_secs(2);
        let rescue = Rescue {
            clock: Arc::default(),
            rescued: Arc::default(),
            steps: Arc::default(),
        };
        let (clock, rescued) = (Arc::clone(&rescue.clock), Arc::clone(&rescue.rescued));
        let steps = Arc::clone(&rescue.steps);
        std::thread::spawn(move || {
            // Ends with the rescue itself: one owner is left then.
            while Arc::strong_count(&clock) > 1 {
                let before = steps.load(SeqCst);
                std::thread::sleep(PATIENCE);
                if let (true, Some(clock)) = (steps.load(SeqCst) == before, &*clock.lock()) {
                    rescued.fetch_add(1, SeqCst);
                    clock.advance(Duration::from_secs(31));
                }
            }
        });
        rescue
    }

    /// Watches `scene`, and returns what it does, and whether it had to be rescued.
    pub(crate) fn over<T>(&self, clock: &ManualClock, scene: impl FnOnce() -> T) -> (T, bool) {
        let before = self.rescued.load(SeqCst);
        self.steps.fetch_add(1, SeqCst);
        *self.clock.lock() = Some(clock.clone());
        let done = scene();
        *self.clock.lock() = None;
        (done, self.rescued.load(SeqCst) > before)
    }
}
