//! The counters, handed to whatever recorder the program has installed for the `metrics` facade.

use std::hash::{BuildHasher, Hash};

use metrics::{counter, gauge};

use crate::cache::Cache;

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Hands everything in [`stats`](Self::stats) to the recorder of the `metrics` crate:
    /// `larder_hits` and the other counters under their getters' names, the gauges `larder_len`, `larder_weight`,
    /// `larder_capacity` and `larder_loads_in_flight`, and `larder_load_nanoseconds`, the time of all loads together.
    /// Each has the label `cache`, with the [`name`](crate::CacheBuilder::name) that the builder was given, or
    /// `unnamed`.
    ///
    /// Call it as often as the figures are looked at, once in ten seconds, say: nothing is recorded otherwise, so
    /// that no hit pays for it. O(shards). Needs the feature `metrics`.
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().name("prices").max_capacity(10).build()?;
    /// cache.record_metrics();
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn record_metrics(&self) {
        let label = self.label().to_owned();
        let stats = self.stats();
        for (name, value) in stats.named() {
            match name {
                // What goes up and down.
                "larder_len" | "larder_weight" => {
                    gauge!(name, "cache" => label.clone()).set(value as f64);
                }
                _ => counter!(name, "cache" => label.clone()).absolute(value),
            }
        }
        let nanos = u64::try_from(stats.load_time().as_nanos()).unwrap_or(u64::MAX);
        counter!("larder_load_nanoseconds", "cache" => label.clone()).absolute(nanos);
        gauge!("larder_capacity", "cache" => label.clone()).set(self.capacity() as f64);
        let loading = self.inner.store.loads_in_flight();
        gauge!("larder_loads_in_flight", "cache" => label).set(loading as f64);
    }
}
