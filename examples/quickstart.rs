//! Larder in twenty lines: store, load once however many ask, invalidate what changed.

use larder::{Cache, Loaded};
use std::{error::Error, time::Duration};

fn main() -> Result<(), Box<dyn Error>> {
    let pages: Cache<String, String> = Cache::builder()
        .max_capacity(10_000)
        .time_to_live(Duration::from_secs(300))
        .build()?;

    // One caller renders; the others wait for it. The page names what it was made from.
    let render =
        || Ok::<_, String>(Loaded::new("<h1>Chair, 49.00</h1>".to_owned()).tag("product:7"));
    let page = pages.get_or_load_with("/product/7", render)?;
    assert_eq!(pages.get("/product/7"), Some(page));

    // The price changed: commit first, then invalidate. A render under way will not be stored either.
    pages.invalidate_tag("product:7");
    assert_eq!(pages.get("/product/7"), None);
    Ok(())
}
