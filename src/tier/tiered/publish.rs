//! What a loader brought, on its way into the shared tier.

use std::hash::Hash;
use std::time::Duration;

use super::miss::{StorePermit, is_out_of_reach, kept_tags, unencodable};
use super::namespace::names;
use super::own_writes::{Leaders, Write};
use super::{L1Value, TieredCounters, TieredInner};
use crate::entry::{EntryOptions, Loaded, Ttl, What};
use crate::tier::contract::{TierError, TierFuture};
use crate::tier::envelope::{ContentId, Envelope, Kind};
use crate::tier::key::FromTierKey;
use crate::util::clock::nanos;

/// An answer for those who wait for it, which is not kept. It names its tags: who began to wait after one of them had
/// moved must not take it.
fn for_callers<V>(value: Option<V>, options: EntryOptions) -> Loaded<L1Value<V>> {
    Loaded::new(L1Value::without_id(value))
        .time_to_live(Duration::ZERO)
        .tags(options.tags)
}

/// The longest that anything is stored for: a hundred years.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A loader's answer on its way into the shared tier.
pub(super) enum Prepared<V> {
    /// It does not go there.
    Not(Loaded<L1Value<V>>),
    Store {
        value: Option<V>,
        options: EntryOptions,
        over: ContentId,
        content: EncodedContent,
    },
}

/// A content on its way, and how to know it again.
pub(super) type Sent<'a> = (TierFuture<bool>, Write<'a>);

/// Bytes for the shared tier, and what they say.
pub(super) struct EncodedContent {
    pub(super) bytes: Vec<u8>,
    pub(super) content_id: ContentId,
    created: u64,
    time_to_live: Duration,
    /// How long the content is kept: its time to live, and the time for which it may be served stale.
    pub(super) kept_for: Duration,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl<K, V> TieredInner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Makes a content of a value, valid for the versions of its tags as of `started_at`. `None`: they have moved.
    pub(super) async fn content_of(
        &self,
        key: &[u8],
        value: Option<&V>,
        options: &EntryOptions,
        started_at: u64,
    ) -> Result<Option<EncodedContent>, TierError> {
        let names = names(key, options.tags.iter().map(|tag| &**tag));
        let Some(versions) = self.versions_as_of(&names, started_at).await? else {
            return Ok(None);
        };
        let mut payload = Vec::new();
        if let Some(value) = value {
            self.codec
                .encode(value, &mut payload)
                .map_err(unencodable)?;
        }
        let time_to_live = match options.ttl {
            Ttl::Default => self.rules.time_to_live,
            Ttl::For(time) => time,
            Ttl::Forever => LONGEST,
        };
        let time_to_live = time_to_live.min(LONGEST);
        let kept_for = time_to_live
            .saturating_add(self.rules.stale)
            .min(LONGEST * 2);
        let created = self.clock.unix_millis();
        let content_id = self.content_ids.next();
        let load_time = options.load_time.unwrap_or_default().as_micros();
        let envelope = Envelope {
            kind: if value.is_some() {
                Kind::Value
            } else {
                Kind::Absent
            },
            codec: self.codec.id(),
            schema: self.rules.schema,
            content_id,
            created,
            expires: created.saturating_add(millis(time_to_live)),
            stale_until: created.saturating_add(millis(kept_for)),
            load_time: u32::try_from(load_time).unwrap_or(u32::MAX),
            tags: names.iter().map(|name| &**name).zip(versions).collect(),
            payload: &payload,
        };
        let bytes = envelope
            .encode(key, &self.rules.limits)
            .map_err(unencodable)?;
        Ok(Some(EncodedContent {
            bytes,
            content_id,
            created,
            time_to_live,
            kept_for,
        }))
    }

    /// A loader's answer; if that is that nothing has changed, what was known before, for another life.
    pub(super) fn renewed(&self, answer: Loaded<V>, previous: Option<L1Value<V>>) -> Loaded<V> {
        let (What::Unchanged, Some(previous)) = (&answer.what, previous) else {
            return answer;
        };
        let mut options = answer.options;
        for tag in previous.tags.iter().flat_map(|tags| tags.iter()) {
            options = options.tag(tag.clone());
        }
        Loaded {
            what: previous.value.map_or(What::Absent, What::Value),
            options,
        }
    }

    /// Stores what a loader brought, if it still may, and says how the L1 is to keep it.
    pub(super) async fn publish(
        &self,
        key: &[u8],
        permit: &mut StorePermit<'_, V>,
        answer: Loaded<V>,
        took: Duration,
        leaders: &Leaders,
    ) -> Loaded<L1Value<V>> {
        let prepared = self.prepare(key, permit, answer, took).await;
        if let Prepared::Not(answer) = prepared {
            if let Some(gone) = permit.give_back() {
                let _ = gone.await;
            }
            return answer;
        }
        let sent = self.send(key, &prepared, leaders);
        self.conclude(permit, prepared, sent).await
    }

    /// The first part: what to store.
    pub(super) async fn prepare(
        &self,
        key: &[u8],
        permit: &StorePermit<'_, V>,
        answer: Loaded<V>,
        took: Duration,
    ) -> Prepared<V> {
        let Loaded { what, mut options } = answer;
        options.load_time.get_or_insert(took);
        let value = match what {
            What::Value(value) => Some(value),
            What::Absent => None,
            What::Uncacheable(value) => {
                return Prepared::Not(Loaded::uncacheable(L1Value::without_id(Some(value))));
            }
            What::Unchanged => return Prepared::Not(Loaded::unchanged()),
        };
        let fence = match permit.fence {
            Some(_) if options.ttl == Ttl::For(Duration::ZERO) => {
                return Prepared::Not(for_callers(value, options));
            }
            Some(fence) => fence,
            None => return Prepared::Not(self.kept_alone(value, options, permit.out_of_reach)),
        };
        match self
            .content_of(key, value.as_ref(), &options, fence.started_at)
            .await
        {
            Ok(Some(content)) => Prepared::Store {
                value,
                options,
                over: fence.over,
                content,
            },
            Ok(None) => {
                TieredCounters::count(&self.counters.refused_publishes);
                Prepared::Not(for_callers(value, options))
            }
            Err(error) => {
                TieredCounters::count(&self.counters.l2_errors);
                Prepared::Not(self.kept_alone(value, options, is_out_of_reach(&error)))
            }
        }
    }

    /// The second: it is on its way.
    pub(super) fn send(
        &self,
        key: &[u8],
        prepared: &Prepared<V>,
        leaders: &Leaders,
    ) -> Option<Sent<'_>> {
        let Prepared::Store { over, content, .. } = prepared else {
            return None;
        };
        let write = self.writes.begin(content.content_id, leaders);
        let bytes = content.bytes.clone();
        let put = self
            .tier
            .compare_and_set(key.to_vec(), bytes, *over, content.kept_for);
        Some((put, write))
    }

    /// The third: it is there, or is not.
    pub(super) async fn conclude(
        &self,
        permit: &mut StorePermit<'_, V>,
        prepared: Prepared<V>,
        sent: Option<Sent<'_>>,
    ) -> Loaded<L1Value<V>> {
        let (value, mut options, content, put) = match (prepared, sent) {
            (
                Prepared::Store {
                    value,
                    options,
                    content,
                    ..
                },
                Some((put, _write)),
            ) => (value, options, content, put.await),
            (Prepared::Store { value, options, .. }, None) => return for_callers(value, options),
            (Prepared::Not(answer), _) => return answer,
        };
        match put {
            Ok(true) => {
                permit.set_used();
                let own = content.time_to_live.min(self.rules.l1_time_to_live);
                let held = L1Value {
                    value,
                    content_id: Some(content.content_id),
                    created: content.created,
                    fresh_until: self.clock.now().saturating_add(nanos(own)),
                    tags: kept_tags(&options),
                };
                let mut loaded = Loaded::new(held);
                options.ttl = Ttl::For(own);
                loaded.options = options;
                loaded
            }
            Ok(false) => {
                TieredCounters::count(&self.counters.refused_publishes);
                for_callers(value, options)
            }
            Err(error) => {
                TieredCounters::count(&self.counters.l2_errors);
                self.kept_alone(value, options, is_out_of_reach(&error))
            }
        }
    }

    /// How the L1 keeps what could not be stored in the tier: if that cannot be reached, for as long as was
    /// said; it is flushed when it can be again.
    fn kept_alone(
        &self,
        value: Option<V>,
        options: EntryOptions,
        out_of_reach: bool,
    ) -> Loaded<L1Value<V>> {
        if !out_of_reach {
            return for_callers(value, options);
        }
        let own = self.rules.serve_while_down.min(self.rules.l1_time_to_live);
        Loaded::new(L1Value::without_id(value))
            .time_to_live(own)
            .tags(options.tags)
    }
}
