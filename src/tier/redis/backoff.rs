//! How long to wait before the server is dialled again: decorrelated jitter, so that processes that lost it at one
//! moment do not return at one moment.

/// The waits between dials.
#[derive(Debug)]
pub(super) struct Backoff {
    least: u64,
    most: u64,
    last: u64,
}

impl Backoff {
    /// Between `least` and `most`, in nanoseconds.
    pub(super) fn new(least: u64, most: u64) -> Self {
        let least = least.max(1);
        Backoff {
            least,
            most: most.max(least),
            last: least,
        }
    }

    /// The next wait: between the least and three times the last one, by `draw` in `0.0..1.0`.
    pub(super) fn next(&mut self, draw: f64) -> u64 {
        let span = self.last.saturating_mul(3).saturating_sub(self.least);
        let wait = self.least.saturating_add((span as f64 * draw) as u64);
        self.last = wait.min(self.most);
        self.last
    }

    /// The longest wait: for an error that waiting does not mend, such as a wrong password.
    pub(super) fn longest(&mut self) -> u64 {
        self.last = self.most;
        self.most
    }

    /// A connection is up: the waits after the next loss start from the shortest.
    pub(super) fn reset(&mut self) {
        self.last = self.least;
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::Backoff;

    #[test]
    fn it_grows_stays_in_its_bounds_and_begins_anew() {
        let mut backoff = Backoff::new(10, 1_000);
        assert_eq!(backoff.next(0.0), 10);
        let mut last = 10;
        for _ in 0..20 {
            let wait = backoff.next(0.999);
            assert!((10..=1_000).contains(&wait) && wait <= last * 3, "{wait}");
            last = wait;
        }
        assert_eq!(backoff.next(0.999), 1_000);
        backoff.reset();
        assert!(backoff.next(0.999) <= 30);
        assert_eq!(backoff.longest(), 1_000);
    }
}
