//! What a program sees of its caches: the `metrics` facade and `tracing` spans, each with its feature.

#![cfg(all(feature = "metrics", feature = "tracing"))]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_types,
    reason = "where a test unwraps, the failure is the message; locks of std"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{Cache, Loaded, ManualClock};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

/// One at a time: a span that is first met while another thread installs a subscriber may be missed by `tracing`.
static ALONE: Mutex<()> = Mutex::new(());

/// A recorder that keeps everything by name and label.
#[derive(Default)]
struct Recorded(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Recorded {
    fn handle(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|label| label.value()).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    fn value(&self, name: &str) -> u64 {
        let all = self.0.lock().unwrap();
        let found = all
            .iter()
            .find(|(other, _)| other.starts_with(&format!("{name} ")));
        found
            .unwrap_or_else(|| panic!("no {name} in {all:?}"))
            .1
            .load(Ordering::SeqCst)
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.handle(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.handle(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        unreachable!("there is none")
    }
}

#[test]
fn every_counter_is_recorded_under_its_name_and_the_caches() {
    let _alone = ALONE.lock().unwrap();
    let cache: Cache<u64, u64> = Cache::builder()
        .name("prices")
        .max_capacity(100)
        .negative_time_to_live(Duration::from_secs(9))
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(cache.get_or_load(&1, || 1), 1);
        assert_eq!(cache.get_or_load_optional(&2, || None), None);
    }
    let recorded = Recorded::default();
    metrics::with_local_recorder(&recorded, || {
        cache.record_metrics();
        cache.record_metrics();
    });
    let stats = cache.stats();
    assert_eq!(
        (stats.hits(), stats.misses(), stats.negative_hits()),
        (2, 4, 2)
    );
    for (name, value) in [
        ("larder_hits", stats.hits()),
        ("larder_misses", stats.misses()),
        ("larder_loads", 2),
        ("larder_negative_hits", 2),
        ("larder_detached", 0),
        ("larder_len", 1.0_f64.to_bits()),
        ("larder_capacity", 100.0_f64.to_bits()),
        ("larder_loads_in_flight", 0.0_f64.to_bits()),
    ] {
        assert_eq!(recorded.value(name), value, "{name}");
    }
    let all = recorded.0.lock().unwrap();
    assert!(all.len() > 20, "{all:?}");
    assert!(all.keys().all(|name| name.contains("prices")), "{all:?}");
}

/// A subscriber that writes down spans as they are made, and how often they are entered.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(String, u64)>>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl Subscriber for Seen {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = span.metadata().name().to_owned();
        span.record(&mut Fields(&mut text));
        let mut all = self.0.lock().unwrap();
        all.push((text, 0));
        Id::from_u64(all.len() as u64)
    }

    fn enter(&self, span: &Id) {
        self.0.lock().unwrap()[span.into_u64() as usize - 1].1 += 1;
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn each_run_of_a_loader_has_a_span_and_nothing_else_has() {
    let _alone = ALONE.lock().unwrap();
    let time = ManualClock::new();
    let cache: Cache<u64, u64> = Cache::builder()
        .name("prices")
        .max_capacity(100)
        .time_to_live(Duration::from_secs(9))
        .refresh_after(Duration::from_millis(1))
        .clock(time.clock())
        .async_loader(|n| async move { Ok::<_, Infallible>(Loaded::new(n)) })
        .build()
        .unwrap();
    let seen = Seen::default();
    tracing::subscriber::with_default(seen.clone(), || {
        cache.get_or_load(&1, || 1);
        cache.get(&1);
        time.advance(Duration::from_millis(1));
        cache.get_or_load(&1, || 1);
        pollster::block_on(cache.load_async(&2)).unwrap();
        cache
            .get_many_or_load(&[3, 4], |keys| {
                Ok::<_, String>(keys.iter().map(|key| Some(*key)).collect())
            })
            .unwrap();
    });
    let span = |why: &str| (format!("larder.load cache=\"prices\" why=\"{why}\""), 1);
    let spans = seen.0.lock().unwrap();
    assert_eq!(
        *spans,
        [span("miss"), span("refresh"), span("miss"), span("bulk")]
    );
}
