//! The protocol of a miss: ask the shared tier; if it has nothing, put a placeholder, load, and store under its fence.

use std::hash::Hash;
use std::time::Duration;

use super::namespace;
use super::own_writes::{Leaders, Placeholder};
use super::versions::tag_of;
use super::{L1Value, TieredCounters, TieredInner};
use crate::entry::{EntryOptions, Loaded, What};
use crate::tier::async_util::with_timeout;
use crate::tier::contract::{AddReply, TierError, TierFuture};
use crate::tier::envelope::{ContentId, Envelope, Kind, content_id_of};
use crate::tier::key::FromTierKey;
use crate::util::clock::nanos;

/// What the shared tier has to say about a key.
pub(super) enum QueryResult<'a, V> {
    /// This.
    Found(Loaded<L1Value<V>>),
    /// Nothing that can be used: load it.
    Load(StorePermit<'a, V>),
}

/// What a loader's value may be stored over, and what to serve if there is none.
pub(super) struct StorePermit<'a, V> {
    /// `None`: it is for the callers alone.
    pub(super) fence: Option<Fence>,
    /// The tier cannot be reached: everything kept now goes when it can be again.
    pub(super) out_of_reach: bool,
    placeholder: Option<Placeholder<'a>>,
    stale: Option<Loaded<L1Value<V>>>,
}

#[derive(Clone, Copy)]
pub(super) struct Fence {
    /// The content that must still be stored.
    pub(super) over: ContentId,
    /// The sequence's number before the load began.
    pub(super) started_at: u64,
}

/// A content, as far as it could be read.
pub(super) enum ReadOutcome<V> {
    /// Another call, of this process or another, loads.
    Placeholder,
    Fresh(Loaded<L1Value<V>>),
    /// Past its date, of a time before its tags moved, or not readable.
    Dead {
        stale: Option<Loaded<L1Value<V>>>,
    },
}

/// How often a miss looks again because others were faster.
const MAX_TRIES: usize = 8;

impl<'a, V> StorePermit<'a, V> {
    const NONE: Self = StorePermit {
        fence: None,
        out_of_reach: false,
        placeholder: None,
        stale: None,
    };

    /// For when the tier did not say what is stored.
    pub(super) fn without(error: &TierError) -> Self {
        StorePermit {
            out_of_reach: is_out_of_reach(error),
            ..StorePermit::NONE
        }
    }

    fn over(over: ContentId, started_at: u64, stale: Option<Loaded<L1Value<V>>>) -> Self {
        StorePermit {
            fence: Some(Fence { over, started_at }),
            stale,
            ..StorePermit::NONE
        }
    }

    /// With a placeholder of ours, if it was put.
    fn by(
        mut placeholder: Placeholder<'a>,
        content_id: ContentId,
        add_placeholder: AddReply,
    ) -> Option<Self> {
        if !add_placeholder.stored {
            placeholder.set_gone();
            return None;
        }
        Some(StorePermit {
            placeholder: Some(placeholder),
            ..StorePermit::over(content_id, add_placeholder.sequence, None)
        })
    }

    pub(super) fn take_stale(&mut self) -> Option<Loaded<L1Value<V>>> {
        self.stale.take()
    }

    /// Something took the placeholder's place.
    pub(super) fn set_used(&mut self) {
        if let Some(placeholder) = &mut self.placeholder {
            placeholder.set_gone();
        }
    }

    /// Takes our placeholder away, that nothing will take the place of. To be waited for while this is kept.
    pub(super) fn give_back(&mut self) -> Option<TierFuture<bool>> {
        self.placeholder.as_mut().map(Placeholder::take_away)
    }
}

impl<K, V> TieredInner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// What the shared tier says about a key, for a call that will load if it says nothing. `previous` is what is to
    /// be replaced: the same content once more is nothing.
    pub(super) async fn query<'a>(
        &'a self,
        key: &'a [u8],
        previous: Option<&L1Value<V>>,
        leaders: &Leaders,
    ) -> QueryResult<'a, V> {
        let query = self.try_query(key, previous, leaders).await;
        query.unwrap_or_else(|error| {
            TieredCounters::count(&self.counters.l2_errors);
            QueryResult::Load(StorePermit::without(&error))
        })
    }

    /// What the shared tier has under a key, for a call without a loader: no placeholder is set.
    pub(super) async fn query_only(
        &self,
        key: &[u8],
    ) -> Result<Option<Loaded<L1Value<V>>>, TierError> {
        let read = self.read(key).await;
        if read.is_err() {
            TieredCounters::count(&self.counters.l2_errors);
        }
        let found = match read? {
            Some((_, ReadOutcome::Fresh(loaded))) => Some(loaded),
            _ => None,
        };
        self.count_query(found.is_some());
        Ok(found)
    }

    /// What the shared tier has under several keys, by one command, for a call without a loader.
    pub(super) async fn query_many_only(
        &self,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Loaded<L1Value<V>>>>, TierError> {
        let query = async {
            let contents = self.tier.get_many(keys.to_vec()).await?;
            let mut found = Vec::with_capacity(keys.len());
            for (key, content) in keys.iter().zip(contents) {
                let read = match content {
                    Some(content) => self.decode(key, &content).await?,
                    None => None,
                };
                found.push(match read {
                    Some((_, ReadOutcome::Fresh(loaded))) => Some(loaded),
                    _ => None,
                });
                self.count_query(found.last().is_some_and(Option::is_some));
            }
            Ok(found)
        };
        query
            .await
            .inspect_err(|_| TieredCounters::count(&self.counters.l2_errors))
    }

    fn count_query(&self, hit: bool) {
        TieredCounters::count(if hit {
            &self.counters.l2_hits
        } else {
            &self.counters.l2_misses
        });
    }

    async fn try_query<'a>(
        &'a self,
        key: &'a [u8],
        previous: Option<&L1Value<V>>,
        leaders: &Leaders,
    ) -> Result<QueryResult<'a, V>, TierError> {
        let until = self.clock.now().saturating_add(nanos(self.rules.max_wait));
        // Others may come and go between our reading and our writing: not for ever.
        let mut tries = MAX_TRIES;
        while tries > 0 {
            tries -= 1;
            let left = Duration::from_nanos(until.saturating_sub(self.clock.now()));
            let changed = (!left.is_zero()).then(|| self.waiters.wait_for(key));
            let Some((content_id, read)) = self.read(key).await? else {
                self.count_query(false);
                let (placeholder, content_id, added) = self.add_placeholder(key, leaders)?;
                match StorePermit::by(placeholder, content_id, added.await?) {
                    Some(permit) => return Ok(QueryResult::Load(permit)),
                    None => continue,
                }
            };
            let stale = match read {
                ReadOutcome::Fresh(loaded) if is_news(&loaded, previous, self.clock.now()) => {
                    self.count_query(true);
                    return Ok(QueryResult::Found(loaded));
                }
                ReadOutcome::Fresh(_) => None,
                ReadOutcome::Dead { stale } => stale,
                ReadOutcome::Placeholder => {
                    if let Some(changed) = changed {
                        TieredCounters::count(&self.counters.waits);
                        with_timeout(changed, self.tier.sleep(left)).await;
                        // Bounded by the time that is left.
                        tries += 1;
                        continue;
                    }
                    None
                }
            };
            self.count_query(false);
            // After what is stored was read and before the loader begins.
            let started_at = self.tier.sequence().await?;
            return Ok(QueryResult::Load(StorePermit::over(
                content_id, started_at, stale,
            )));
        }
        Ok(QueryResult::Load(StorePermit::NONE))
    }

    /// A placeholder on its way to where there is nothing.
    pub(super) fn add_placeholder<'a>(
        &'a self,
        key: &'a [u8],
        leaders: &Leaders,
    ) -> Result<(Placeholder<'a>, ContentId, TierFuture<AddReply>), TierError> {
        let (content_id, content) = self.placeholder(key)?;
        let write = self.writes.begin(content_id, leaders);
        let placeholder = Placeholder::new(&*self.tier, key, write);
        let added = self.tier.add(key.to_vec(), content, self.rules.lease);
        Ok((placeholder, content_id, added))
    }

    /// A placeholder's content.
    pub(super) fn placeholder(&self, key: &[u8]) -> Result<(ContentId, Vec<u8>), TierError> {
        let content_id = self.content_ids.next();
        let placeholder = Envelope {
            kind: Kind::Placeholder,
            codec: 0,
            schema: self.rules.schema,
            content_id,
            created: self.clock.unix_millis(),
            expires: u64::MAX,
            stale_until: u64::MAX,
            load_time: 0,
            tags: Vec::new(),
            payload: &[],
        };
        let content = placeholder
            .encode(key, &self.rules.limits)
            .map_err(unencodable)?;
        Ok((content_id, content))
    }

    /// What the shared tier says about several keys, by one command for all and one for each that it has not. Waits
    /// for nobody.
    pub(super) async fn query_many<'a>(
        &'a self,
        keys: &'a [Vec<u8>],
        leaders: &Leaders,
    ) -> Result<Vec<QueryResult<'a, V>>, TierError> {
        let found = self.tier.get_many(keys.to_vec()).await?;
        let mut looks: Vec<QueryResult<'a, V>> = keys
            .iter()
            .map(|_| QueryResult::Load(StorePermit::NONE))
            .collect();
        let (mut added, mut fenced) = (Vec::new(), Vec::new());
        for (position, (key, content)) in keys.iter().zip(found).enumerate() {
            let read = match content {
                Some(content) => self.decode(key, &content).await?,
                None => None,
            };
            let hit = matches!(read, Some((_, ReadOutcome::Fresh(_))));
            self.count_query(hit);
            match read {
                None => added.push((position, self.add_placeholder(key, leaders)?)),
                Some((_, ReadOutcome::Fresh(loaded))) => {
                    looks[position] = QueryResult::Found(loaded)
                }
                Some((content_id, ReadOutcome::Dead { stale })) => {
                    fenced.push((position, content_id, stale))
                }
                Some((content_id, ReadOutcome::Placeholder)) => {
                    fenced.push((position, content_id, None))
                }
            }
        }
        if !fenced.is_empty() {
            let started_at = self.tier.sequence().await?;
            for (position, content_id, stale) in fenced {
                looks[position] =
                    QueryResult::Load(StorePermit::over(content_id, started_at, stale));
            }
        }
        for (position, (placeholder, content_id, reply)) in added {
            // Somebody was faster: that one will store.
            let permit = StorePermit::by(placeholder, content_id, reply.await?);
            looks[position] = QueryResult::Load(permit.unwrap_or(StorePermit::NONE));
        }
        Ok(looks)
    }

    /// What is stored under a key, with its content id.
    pub(super) async fn read(
        &self,
        key: &[u8],
    ) -> Result<Option<(ContentId, ReadOutcome<V>)>, TierError> {
        let found = self.tier.get_many(vec![key.to_vec()]).await?;
        match found.into_iter().next().flatten() {
            Some(content) => self.decode(key, &content).await,
            None => Ok(None),
        }
    }

    /// Reads a content. One without an id cannot be fenced: it is removed, and counts as absent.
    pub(super) async fn decode(
        &self,
        key: &[u8],
        content: &[u8],
    ) -> Result<Option<(ContentId, ReadOutcome<V>)>, TierError> {
        let Some(content_id) = content_id_of(content) else {
            TieredCounters::count(&self.counters.bad_contents);
            self.tier.remove_many(vec![key.to_vec()]).await?;
            return Ok(None);
        };
        let Ok(envelope) = Envelope::decode(content, key, &self.rules.limits) else {
            TieredCounters::count(&self.counters.bad_contents);
            return Ok(Some((content_id, ReadOutcome::Dead { stale: None })));
        };
        Ok(Some((
            content_id,
            self.check_freshness(key, &envelope).await?,
        )))
    }

    async fn check_freshness(
        &self,
        key: &[u8],
        envelope: &Envelope<'_>,
    ) -> Result<ReadOutcome<V>, TierError> {
        if envelope.kind == Kind::Placeholder {
            return Ok(ReadOutcome::Placeholder);
        }
        let now = self.clock.unix_millis();
        let names: Vec<Box<str>> = envelope
            .tags
            .iter()
            .map(|(name, _)| (*name).into())
            .collect();
        let listed = envelope.tags.iter().map(|(_, version)| Some(*version));
        let needed = namespace::names(key, std::iter::empty());
        let is_valid = now < envelope.stale_until
            && needed.iter().all(|name| names.contains(name))
            && self.versions_of(&names).await?.into_iter().eq(listed);
        if !is_valid {
            return Ok(ReadOutcome::Dead { stale: None });
        }
        let Some(value) = self.value_of(envelope) else {
            TieredCounters::count(&self.counters.bad_contents);
            return Ok(ReadOutcome::Dead { stale: None });
        };
        let left = Duration::from_millis(envelope.expires.saturating_sub(now));
        let own = left.min(self.rules.l1_time_to_live);
        let tags = names.iter().filter_map(|name| tag_of(name));
        let options = EntryOptions::new().time_to_live(own).tags(tags);
        let held = L1Value {
            value,
            content_id: Some(envelope.content_id),
            created: envelope.created,
            fresh_until: self.clock.now().saturating_add(nanos(own)),
            tags: kept_tags(&options),
        };
        let mut loaded = Loaded::new(held);
        loaded.options = options;
        if left.is_zero() {
            return Ok(ReadOutcome::Dead {
                stale: Some(loaded),
            });
        }
        loaded.options.load_time = Some(Duration::from_micros(envelope.load_time.into()));
        Ok(ReadOutcome::Fresh(loaded))
    }

    /// `None` if it is of another schema or codec, or the codec cannot read it.
    fn value_of(&self, envelope: &Envelope<'_>) -> Option<Option<V>> {
        if envelope.schema != self.rules.schema {
            return None;
        }
        match envelope.kind {
            Kind::Absent => Some(None),
            _ if envelope.codec == self.codec.id() => {
                self.codec.decode(envelope.payload).ok().map(Some)
            }
            _ => None,
        }
    }
}

impl<V> L1Value<V> {
    /// What is in no shared tier.
    pub(super) fn without_id(value: Option<V>) -> Self {
        L1Value {
            value,
            content_id: None,
            created: 0,
            fresh_until: 0,
            tags: None,
        }
    }
}

/// Whether this is what a refresh is for: of a copy that is fresh still, something newer; of one whose time here is up,
/// whatever is fresh there. But nothing older (a server may have lost the latest).
fn is_news<V>(loaded: &Loaded<L1Value<V>>, previous: Option<&L1Value<V>>, now: u64) -> bool {
    let (What::Value(found), Some(previous)) = (&loaded.what, previous) else {
        return true;
    };
    let is_same = found.content_id == previous.content_id;
    let is_up = now >= previous.fresh_until;
    if is_same {
        return is_up;
    }
    found.created >= previous.created
}

/// The tags of an entry, as its copy remembers them.
pub(super) fn kept_tags(options: &EntryOptions) -> Option<std::sync::Arc<[Box<str>]>> {
    (!options.tags.is_empty()).then(|| options.tags.clone().into())
}

pub(super) fn unencodable<E: std::error::Error + Send + Sync + 'static>(error: E) -> TierError {
    TierError::Unencodable(std::sync::Arc::new(error))
}

/// Whether the connection is gone for this reason, so that everything is flushed before there is another.
pub(super) fn is_out_of_reach(error: &TierError) -> bool {
    matches!(
        error,
        TierError::Down | TierError::Lost { .. } | TierError::TimedOut { .. }
    )
}
