//! A stampede: many visitors ask for one category page in the same moment, and the cache has not
//! got it. One of them loads it; the others have to wait for that load.

use std::{net::SocketAddr, sync::Arc};

use tokio::{sync::Barrier, task::JoinSet};

use crate::{drive::client::Client, error::StoreError, pages::Page, progress::Bar, shop::Shop};

/// The category that is stormed: the largest, as it would be in life.
const CATEGORY: u32 = 1;

/// What the stampede came to.
#[derive(Debug)]
pub struct Stampede {
    pub requests: u64,
    /// Requests that waited for the load of another.
    pub joined: u64,
    /// Calls of the page's loader, counted inside the loader.
    pub loader_calls: u64,
    /// Answers that were not the same bytes as the first.
    pub differing: u64,
}

/// Opens the connections first, so that nothing but the requests themselves is left to do when the
/// barrier opens. The page must be cold, and nothing else may be going on.
pub async fn storm(
    address: SocketAddr,
    shop: &Shop,
    requests: u32,
    bar: &Bar,
) -> Result<Stampede, StoreError> {
    let clients = Client::connect_many(address, requests as usize).await?;
    let barrier = Arc::new(Barrier::new(clients.len()));
    let joined_before = shop.stats().joined();
    let loads_before = shop.category_loads(CATEGORY);
    let mut visitors = JoinSet::new();
    for mut client in clients {
        let barrier = Arc::clone(&barrier);
        visitors.spawn(async move {
            barrier.wait().await;
            client.get(Page::Category(CATEGORY)).await
        });
    }
    let (mut first, mut differing) = (None, 0);
    while let Some(body) = visitors.join_next().await {
        let body = body??;
        if *first.get_or_insert_with(|| body.clone()) != body {
            differing += 1;
        }
        bar.step();
    }
    Ok(Stampede {
        requests: u64::from(requests),
        joined: shop.stats().joined() - joined_before,
        loader_calls: shop.category_loads(CATEGORY) - loads_before,
        differing,
    })
}
