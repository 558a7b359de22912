//! A few pages that live for a second, asked for all the time: while they expire, and while the database is down.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use larder::Stats;
use serde::Serialize;
use tokio::time::sleep;

use crate::{drive::client::Client, error::StoreError, pages::Page, progress::Bar, shop::Shop};

/// The longest that a page of this shop lives.
pub const LIFE: Duration = Duration::from_secs(1);
/// So many lives the pages are watched for, and again while the database is down.
const LIVES: u32 = 3;
/// Between two requests.
const GAP: Duration = Duration::from_millis(1);

const PAGES: [Page; 4] = [
    Page::Featured,
    Page::Sidebar,
    Page::Category(1),
    Page::Product(1),
];

/// What the shoppers noticed.
#[derive(Debug, Serialize)]
pub struct Outage {
    /// Requests while pages expired.
    pub expiry_requests: u64,
    /// Those that had to wait for a page to be loaded.
    pub expiry_waits: u64,
    /// Pages that were loaded again meanwhile.
    pub expiry_refreshes: u64,
    /// Requests while the database was down.
    pub outage_requests: u64,
    /// Those that were not answered with their page.
    pub outage_errors: u64,
    /// Those that were answered with a page whose time was up.
    pub outage_stale: u64,
}

/// Shops for some time, then turns the database off and shops on, and turns it on again.
pub async fn play(address: SocketAddr, shop: &Shop, bar: &Bar) -> Result<Outage, StoreError> {
    let mut client = Client::connect(address).await?;
    for page in PAGES {
        client.get(page).await?;
    }
    let before = shop.stats();
    let (expiry_requests, errors) = shop_on(&mut client).await?;
    bar.step();
    let during = shop.stats().since(&before);
    shop.database.set_down(true);
    let before = shop.stats();
    let down = shop_on(&mut client).await;
    bar.step();
    shop.database.set_down(false);
    let (outage_requests, outage_errors) = down?;
    let outage = shop.stats().since(&before);
    let served = |stats: &Stats| stats.stale_while_loading() + stats.stale_on_error();
    Ok(Outage {
        expiry_requests,
        // A miss that was served nothing stale has waited.
        expiry_waits: errors + during.misses().saturating_sub(served(&during)),
        expiry_refreshes: during.refreshes(),
        outage_requests,
        outage_errors,
        outage_stale: served(&outage),
    })
}

/// Asks for one page after the other; how often, and how often in vain.
async fn shop_on(client: &mut Client) -> Result<(u64, u64), StoreError> {
    let begun = Instant::now();
    let (mut requests, mut errors) = (0, 0);
    while begun.elapsed() < LIFE * LIVES {
        for page in PAGES {
            requests += 1;
            match client.get(page).await {
                Ok(_) => {}
                Err(StoreError::Status { .. }) => errors += 1,
                Err(error) => return Err(error),
            }
        }
        sleep(GAP).await;
    }
    Ok((requests, errors))
}
