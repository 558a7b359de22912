//! Fetches pages from the cached and the uncached shop while nothing changes, and compares bytes.

use std::net::SocketAddr;

use crate::{drive::client::Client, error::StoreError, pages::Page, progress::Bar};

/// How many of the pages differ. The cached shop is asked twice: the page may be loaded for the
/// first answer, and comes from the cache for the second.
pub async fn differing(
    uncached: SocketAddr,
    cached: SocketAddr,
    pages: &[Page],
    bar: &Bar,
) -> Result<u64, StoreError> {
    let mut uncached = Client::connect(uncached).await?;
    let mut cached = Client::connect(cached).await?;
    let mut differing = 0;
    for page in pages {
        let rendered = uncached.get(page).await?;
        let (first, second) = (cached.get(page).await?, cached.get(page).await?);
        if first != rendered || second != rendered {
            differing += 1;
        }
        bar.step();
    }
    Ok(differing)
}
