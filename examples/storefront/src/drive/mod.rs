//! The driver: it knows the shop only by its HTTP answers, apart from the counters it reports.

pub mod client;
pub mod judge;
pub mod ledger;
pub mod outage;
pub mod pages_match;
pub mod prices;
pub mod processes;
pub mod stampede;
pub mod traffic;
