//! What the driver knows about prices, and the staleness check.
//!
//! A price is stale if it is older than the newest change whose request was answered before the
//! read was sent. Every change raises its product's price, so "older" is "lower".

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The price changes that have been answered, in the order of their answers.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    answered: u64,
    /// For each changed product, its prices with the number of the answer that confirmed them.
    prices: HashMap<u32, Vec<(u64, i64)>>,
    checks: u64,
    stale: u64,
    first_stale: Option<String>,
}

/// A point in the order of answers; taken before a read is sent.
#[derive(Debug, Clone, Copy)]
pub struct Mark(u64);

/// What all checks together found.
#[derive(Debug)]
pub struct Verdict {
    pub checks: u64,
    pub stale: u64,
    /// The first stale price, in words.
    pub first_stale: Option<String>,
}

impl Ledger {
    /// Notes that a change of `product` to `price_cents` has been answered.
    pub fn answered(&self, product: u32, price_cents: i64) {
        let mut state = self.state();
        state.answered += 1;
        let number = state.answered;
        state
            .prices
            .entry(product)
            .or_default()
            .push((number, price_cents));
    }

    /// The answers so far. To be called before the read is sent.
    pub fn mark(&self) -> Mark {
        Mark(self.state().answered)
    }

    /// Checks every price a page shows against the changes answered before `mark`.
    pub fn check(&self, page: &str, shown: &[(u32, i64)], mark: Mark) {
        let mut state = self.state();
        let State {
            prices,
            checks,
            stale,
            first_stale,
            ..
        } = &mut *state;
        for &(product, price) in shown {
            let Some(changes) = prices.get(&product) else {
                continue;
            };
            let before = changes.partition_point(|&(number, _)| number <= mark.0);
            let Some(&(_, expected)) = before.checked_sub(1).and_then(|last| changes.get(last))
            else {
                continue;
            };
            *checks += 1;
            if price < expected {
                *stale += 1;
                first_stale.get_or_insert_with(|| {
                    format!("{page} showed product {product} at {price} cents after {expected} had been answered")
                });
            }
        }
    }

    pub fn verdict(&self) -> Verdict {
        let state = self.state();
        Verdict {
            checks: state.checks,
            stale: state.stale,
            first_stale: state.first_stale.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The products and prices a page shows, read from its markup.
pub fn prices_in(body: &[u8]) -> Vec<(u32, i64)> {
    let text = String::from_utf8_lossy(body);
    text.split("data-product=\"")
        .skip(1)
        .filter_map(|item| {
            let (product, rest) = item.split_once('"')?;
            let (_, rest) = rest.split_once("data-price-cents=\"")?;
            let (price, _) = rest.split_once('"')?;
            Some((product.parse().ok()?, price.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_stale_only_if_the_change_was_answered_before_the_read() {
        let ledger = Ledger::default();
        let before = ledger.mark();
        ledger.answered(7, 120);
        let after = ledger.mark();
        ledger.answered(7, 150);

        ledger.check("/", &[(7, 100)], before);
        assert_eq!((ledger.verdict().checks, ledger.verdict().stale), (0, 0));
        ledger.check("/", &[(7, 120), (8, 1)], after);
        assert_eq!((ledger.verdict().checks, ledger.verdict().stale), (1, 0));
        ledger.check("/", &[(7, 119)], after);
        assert_eq!((ledger.verdict().checks, ledger.verdict().stale), (2, 1));
        ledger.check("/", &[(7, 120)], ledger.mark());
        assert_eq!(ledger.verdict().stale, 2);
    }

    #[test]
    fn prices_are_read_from_the_markup() {
        let body = b"<li data-product=\"3\" data-price-cents=\"250\">x</li><li data-product=\"9\" data-price-cents=\"1\">";
        assert_eq!(prices_in(body), [(3, 250), (9, 1)]);
        assert_eq!(prices_in(b"<p>nothing</p>"), []);
    }
}
