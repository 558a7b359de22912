//! What a price that a process shows has to be, when two processes share a tier.
//!
//! Every change raises its product's price, so "older" is "lower". A change is *answered* when its
//! invalidation has returned in the process that made it. From then on, by each process's own record:
//!
//! - The process that made it shows it.
//! - The other one may show the older price while the message is on its way, but only to reads that
//!   are sent within the bound: what a copy's age may come to while nothing is heard of the server.
//! - Once the other one has shown it, to a read that was sent after the answer, it shows nothing
//!   older any more.

use std::time::Duration;

/// For one product, the newest price that each process has to show from now on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Floors([i64; 2]);

/// What is wrong with a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// The process had shown a newer one, or had made it.
    WentBack,
    /// It is older than a change that was answered longer ago than the bound.
    BeyondBound,
}

impl Floors {
    /// A change to this price was made by a process, and has been answered.
    pub fn answered(&mut self, process: usize, price: i64) {
        self.0[process] = price;
    }

    /// Judges a read that was sent before the newest change was answered.
    pub fn before(&self, process: usize, shown: i64) -> Result<(), Stale> {
        if shown < self.0[process] {
            return Err(Stale::WentBack);
        }
        Ok(())
    }

    /// Judges a read that was sent so long after the change to `price` was answered; whether it
    /// shows that change.
    pub fn after(
        &mut self,
        process: usize,
        shown: i64,
        price: i64,
        since: Duration,
        bound: Duration,
    ) -> Result<bool, Stale> {
        self.before(process, shown)?;
        if shown >= price {
            self.0[process] = price;
            return Ok(true);
        }
        if since > bound {
            return Err(Stale::BeyondBound);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(1);
    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_millis(1_001);

    #[test]
    fn an_old_price_is_borne_within_the_bound_and_until_the_new_one_was_shown() {
        let mut floors = Floors::default();
        floors.answered(0, 7);
        assert_eq!(floors.after(1, 6, 7, SOON, BOUND), Ok(false));
        assert_eq!(floors.after(1, 6, 7, LATE, BOUND), Err(Stale::BeyondBound));
        assert_eq!(floors.after(1, 7, 7, LATE, BOUND), Ok(true));
        assert_eq!(floors.after(1, 6, 7, SOON, BOUND), Err(Stale::WentBack));
        assert_eq!(floors.before(1, 6), Err(Stale::WentBack));
        assert_eq!(floors.before(1, 8), Ok(()), "a change under way");
    }

    #[test]
    fn the_process_that_made_a_change_shows_it_at_once() {
        let mut floors = Floors::default();
        floors.answered(0, 7);
        assert_eq!(floors.after(0, 6, 7, SOON, BOUND), Err(Stale::WentBack));
        assert_eq!(floors.before(1, 6), Ok(()), "the other one need not yet");
    }
}
