//! The circuit breaker: after so many failures in a row nothing is asked for a while, then one call probes.

/// Closed, open, or half open with at most one probe.
#[derive(Debug)]
pub(super) struct Breaker {
    /// So many failures in a row open it.
    trips_at: u32,
    /// Nanoseconds.
    rest: u64,
    failures: u32,
    state: BreakerState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerState {
    Closed,
    Open { until: u64 },
    Probing,
}

impl Breaker {
    pub(super) fn new(trips_at: u32, rest: u64) -> Self {
        Breaker {
            trips_at: trips_at.max(1),
            rest,
            failures: 0,
            state: BreakerState::Closed,
        }
    }

    /// Whether a call may be made; if so, and the breaker is open, it is the probe.
    pub(super) fn admits(&mut self, now: u64) -> bool {
        match self.state {
            BreakerState::Closed => true,
            BreakerState::Open { until } if now >= until => {
                self.state = BreakerState::Probing;
                true
            }
            BreakerState::Open { .. } | BreakerState::Probing => false,
        }
    }

    /// A call was answered well.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.state = BreakerState::Closed;
    }

    /// A call failed. `true` if the breaker opened by it.
    pub(super) fn failed(&mut self, now: u64) -> bool {
        self.failures = self.failures.saturating_add(1);
        let opens = self.state == BreakerState::Probing
            || self.state == BreakerState::Closed && self.failures >= self.trips_at;
        if opens {
            self.state = BreakerState::Open {
                until: now.saturating_add(self.rest),
            };
        }
        opens
    }

    pub(super) fn is_open(&self) -> bool {
        self.state != BreakerState::Closed
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::Breaker;

    #[test]
    fn it_opens_rests_probes_once_and_closes() {
        let mut breaker = Breaker::new(3, 100);
        assert!(!breaker.failed(0) && !breaker.failed(0));
        breaker.succeeded();
        assert!(!breaker.failed(0) && !breaker.failed(0), "not in a row");
        assert!(breaker.failed(10), "three in a row");
        assert!(!breaker.admits(109));
        assert!(breaker.admits(110), "the probe");
        assert!(!breaker.admits(110), "one only");
        assert!(breaker.failed(120), "the probe failed");
        assert!(!breaker.admits(219) && breaker.admits(220));
        breaker.succeeded();
        assert!(breaker.admits(221) && breaker.admits(221) && !breaker.is_open());
    }
}
