//! The optional thread that reclaims in a cache which nobody uses.

use std::time::Duration;

use crate::store::Store;
use crate::util::error::BuildError;
use crate::util::sync::{Arc, Weak};

/// How much one round reclaims before it looks whether the cache is still wanted.
const ROUND: u32 = 65_536;

/// Starts the thread. It holds the store weakly, and ends when the last handle is gone, at the latest
/// one interval later; nobody waits for it.
pub(super) fn start<K, V>(store: &Arc<Store<K, V>>, every: Duration) -> Result<(), BuildError>
where
    K: Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    let store = Arc::downgrade(store);
    std::thread::Builder::new()
        .name("larder-maintenance".to_owned())
        .spawn(move || run(&store, every))
        .map(drop)
        .map_err(|error| BuildError::Thread {
            reason: error.to_string(),
        })
}

fn run<K, V>(store: &Weak<Store<K, V>>, every: Duration) {
    loop {
        #[allow(
            clippy::disallowed_methods,
            reason = "this thread has nothing else to do"
        )]
        std::thread::sleep(every);
        while let Some(store) = store.upgrade() {
            if store.run_pending(ROUND) < ROUND {
                break;
            }
        }
        if store.strong_count() == 0 {
            return;
        }
    }
}
