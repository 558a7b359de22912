//! The protocol of a miss: ask the shared tier; if it has nothing, put a placeholder, load, and store under its fence.

use std::hash::Hash;
use std::time::Duration;

use super::namespace;
use super::own_writes::{Leaders, Placeholder};
use super::versions::tag_of;
use super::{Held, Inner, TieredCounters};
use crate::entry::{EntryOptions, Loaded, What};
use crate::tier::async_util::unless;
use crate::tier::contract::{Pledge, TierError, TierFuture};
use crate::tier::envelope::{Envelope, Kind, Seal, seal_of};
use crate::tier::key::FromTierKey;
use crate::util::clock::nanos;

/// What the shared tier has to say about a key.
pub(super) enum Look<'a, V> {
    /// This.
    Found(Loaded<Held<V>>),
    /// Nothing that can be used: load it.
    Load(Pass<'a, V>),
}

/// What a loader's value may be stored over, and what to serve if there is none.
pub(super) struct Pass<'a, V> {
    /// `None`: it is for the callers alone.
    pub(super) right: Option<Right>,
    /// The tier cannot be reached: everything kept now goes when it can be again.
    pub(super) out_of_reach: bool,
    placeholder: Option<Placeholder<'a>>,
    stale: Option<Loaded<Held<V>>>,
}

#[derive(Clone, Copy)]
pub(super) struct Right {
    /// The content that has to stand there still.
    pub(super) over: Seal,
    /// The sequence's number before the load began.
    pub(super) born: u64,
}

/// A content, as far as it could be read.
pub(super) enum Read<V> {
    /// Another call, of this process or another, loads.
    Placeholder,
    Fresh(Loaded<Held<V>>),
    /// Past its date, of a time before its tags moved, or not readable.
    Dead {
        stale: Option<Loaded<Held<V>>>,
    },
}

/// How often a miss looks again because others were faster.
const TURNS: usize = 8;

impl<'a, V> Pass<'a, V> {
    const NONE: Self = Pass {
        right: None,
        out_of_reach: false,
        placeholder: None,
        stale: None,
    };

    /// When the tier did not say what stands there.
    pub(super) fn without(error: &TierError) -> Self {
        Pass {
            out_of_reach: is_out_of_reach(error),
            ..Pass::NONE
        }
    }

    fn over(over: Seal, born: u64, stale: Option<Loaded<Held<V>>>) -> Self {
        Pass {
            right: Some(Right { over, born }),
            stale,
            ..Pass::NONE
        }
    }

    /// With a placeholder of ours, if it was put.
    fn by(mut placeholder: Placeholder<'a>, seal: Seal, pledge: Pledge) -> Option<Self> {
        if !pledge.stored {
            placeholder.is_gone();
            return None;
        }
        Some(Pass {
            placeholder: Some(placeholder),
            ..Pass::over(seal, pledge.sequence, None)
        })
    }

    pub(super) fn take_stale(&mut self) -> Option<Loaded<Held<V>>> {
        self.stale.take()
    }

    /// Something took the placeholder's place.
    pub(super) fn is_used(&mut self) {
        if let Some(placeholder) = &mut self.placeholder {
            placeholder.is_gone();
        }
    }

    /// Takes our placeholder away, that nothing will take the place of. To be waited for while this is kept.
    pub(super) fn give_back(&mut self) -> Option<TierFuture<bool>> {
        self.placeholder.as_mut().map(Placeholder::take_away)
    }
}

impl<K, V> Inner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// What the shared tier says about a key, for a call that will load if it says nothing. `previous` is what is to
    /// be replaced: the same content once more is nothing.
    pub(super) async fn look<'a>(
        &'a self,
        key: &'a [u8],
        previous: Option<&Held<V>>,
        leaders: &Leaders,
    ) -> Look<'a, V> {
        let look = self.try_look(key, previous, leaders).await;
        look.unwrap_or_else(|error| {
            TieredCounters::count(&self.counters.l2_errors);
            Look::Load(Pass::without(&error))
        })
    }

    /// The same for a call that has no loader: nothing is put there.
    pub(super) async fn look_only(&self, key: &[u8]) -> Result<Option<Loaded<Held<V>>>, TierError> {
        let read = self.read(key).await;
        if read.is_err() {
            TieredCounters::count(&self.counters.l2_errors);
        }
        let found = match read? {
            Some((_, Read::Fresh(loaded))) => Some(loaded),
            _ => None,
        };
        self.count_look(found.is_some());
        Ok(found)
    }

    /// The same for several keys, by one command.
    pub(super) async fn look_many_only(
        &self,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Loaded<Held<V>>>>, TierError> {
        let look = async {
            let contents = self.tier.get_many(keys.to_vec()).await?;
            let mut found = Vec::with_capacity(keys.len());
            for (key, content) in keys.iter().zip(contents) {
                let read = match content {
                    Some(content) => self.decode(key, &content).await?,
                    None => None,
                };
                found.push(match read {
                    Some((_, Read::Fresh(loaded))) => Some(loaded),
                    _ => None,
                });
                self.count_look(found.last().is_some_and(Option::is_some));
            }
            Ok(found)
        };
        look.await
            .inspect_err(|_| TieredCounters::count(&self.counters.l2_errors))
    }

    fn count_look(&self, hit: bool) {
        TieredCounters::count(if hit {
            &self.counters.l2_hits
        } else {
            &self.counters.l2_misses
        });
    }

    async fn try_look<'a>(
        &'a self,
        key: &'a [u8],
        previous: Option<&Held<V>>,
        leaders: &Leaders,
    ) -> Result<Look<'a, V>, TierError> {
        let until = self.clock.now().saturating_add(nanos(self.rules.patience));
        // Others may come and go between our reading and our writing: not for ever.
        let mut turns = TURNS;
        while turns > 0 {
            turns -= 1;
            let left = Duration::from_nanos(until.saturating_sub(self.clock.now()));
            let changed = (!left.is_zero()).then(|| self.waiters.wait_for(key));
            let Some((seal, read)) = self.read(key).await? else {
                self.count_look(false);
                let (placeholder, seal, added) = self.pledge(key, leaders)?;
                match Pass::by(placeholder, seal, added.await?) {
                    Some(pass) => return Ok(Look::Load(pass)),
                    None => continue,
                }
            };
            let stale = match read {
                Read::Fresh(loaded) if is_news(&loaded, previous, self.clock.now()) => {
                    self.count_look(true);
                    return Ok(Look::Found(loaded));
                }
                Read::Fresh(_) => None,
                Read::Dead { stale } => stale,
                Read::Placeholder => {
                    if let Some(changed) = changed {
                        TieredCounters::count(&self.counters.waits);
                        unless(changed, self.tier.sleep(left)).await;
                        // Bounded by the time that is left.
                        turns += 1;
                        continue;
                    }
                    None
                }
            };
            self.count_look(false);
            // After what stands there was read and before the loader begins.
            let born = self.tier.sequence().await?;
            return Ok(Look::Load(Pass::over(seal, born, stale)));
        }
        Ok(Look::Load(Pass::NONE))
    }

    /// A placeholder on its way to where there is nothing.
    pub(super) fn pledge<'a>(
        &'a self,
        key: &'a [u8],
        leaders: &Leaders,
    ) -> Result<(Placeholder<'a>, Seal, TierFuture<Pledge>), TierError> {
        let (seal, content) = self.placeholder(key)?;
        let write = self.writes.begin(seal, leaders);
        let placeholder = Placeholder::new(&*self.tier, key, write);
        let added = self.tier.add(key.to_vec(), content, self.rules.lease);
        Ok((placeholder, seal, added))
    }

    /// A placeholder's content.
    pub(super) fn placeholder(&self, key: &[u8]) -> Result<(Seal, Vec<u8>), TierError> {
        let seal = self.seals.next();
        let placeholder = Envelope {
            kind: Kind::Placeholder,
            codec: 0,
            schema: self.rules.schema,
            seal,
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
        Ok((seal, content))
    }

    /// What the shared tier says about several keys, by one command for all and one for each that it has not. Waits
    /// for nobody.
    pub(super) async fn look_many<'a>(
        &'a self,
        keys: &'a [Vec<u8>],
        leaders: &Leaders,
    ) -> Result<Vec<Look<'a, V>>, TierError> {
        let found = self.tier.get_many(keys.to_vec()).await?;
        let mut looks: Vec<Look<'a, V>> = keys.iter().map(|_| Look::Load(Pass::NONE)).collect();
        let (mut pledges, mut fenced) = (Vec::new(), Vec::new());
        for (place, (key, content)) in keys.iter().zip(found).enumerate() {
            let read = match content {
                Some(content) => self.decode(key, &content).await?,
                None => None,
            };
            let hit = matches!(read, Some((_, Read::Fresh(_))));
            self.count_look(hit);
            match read {
                None => pledges.push((place, self.pledge(key, leaders)?)),
                Some((_, Read::Fresh(loaded))) => looks[place] = Look::Found(loaded),
                Some((seal, Read::Dead { stale })) => fenced.push((place, seal, stale)),
                Some((seal, Read::Placeholder)) => fenced.push((place, seal, None)),
            }
        }
        if !fenced.is_empty() {
            let born = self.tier.sequence().await?;
            for (place, seal, stale) in fenced {
                looks[place] = Look::Load(Pass::over(seal, born, stale));
            }
        }
        for (place, (placeholder, seal, added)) in pledges {
            // Somebody was faster: that one will store.
            let pass = Pass::by(placeholder, seal, added.await?);
            looks[place] = Look::Load(pass.unwrap_or(Pass::NONE));
        }
        Ok(looks)
    }

    /// What stands under a key, with its seal.
    pub(super) async fn read(&self, key: &[u8]) -> Result<Option<(Seal, Read<V>)>, TierError> {
        let found = self.tier.get_many(vec![key.to_vec()]).await?;
        match found.into_iter().next().flatten() {
            Some(content) => self.decode(key, &content).await,
            None => Ok(None),
        }
    }

    /// Reads a content. One without a seal cannot be fenced: it is removed, and is nothing.
    pub(super) async fn decode(
        &self,
        key: &[u8],
        content: &[u8],
    ) -> Result<Option<(Seal, Read<V>)>, TierError> {
        let Some(seal) = seal_of(content) else {
            TieredCounters::count(&self.counters.bad_contents);
            self.tier.remove_many(vec![key.to_vec()]).await?;
            return Ok(None);
        };
        let Ok(envelope) = Envelope::decode(content, key, &self.rules.limits) else {
            TieredCounters::count(&self.counters.bad_contents);
            return Ok(Some((seal, Read::Dead { stale: None })));
        };
        Ok(Some((seal, self.judge(key, &envelope).await?)))
    }

    async fn judge(&self, key: &[u8], envelope: &Envelope<'_>) -> Result<Read<V>, TierError> {
        if envelope.kind == Kind::Placeholder {
            return Ok(Read::Placeholder);
        }
        let now = self.clock.unix_millis();
        let names: Vec<Box<str>> = envelope
            .tags
            .iter()
            .map(|(name, _)| (*name).into())
            .collect();
        let listed = envelope.tags.iter().map(|(_, version)| Some(*version));
        let needed = namespace::names(key, std::iter::empty());
        let stands = now < envelope.stale_until
            && needed.iter().all(|name| names.contains(name))
            && self.versions_of(&names).await?.into_iter().eq(listed);
        if !stands {
            return Ok(Read::Dead { stale: None });
        }
        let Some(value) = self.value_of(envelope) else {
            TieredCounters::count(&self.counters.bad_contents);
            return Ok(Read::Dead { stale: None });
        };
        let left = Duration::from_millis(envelope.expires.saturating_sub(now));
        let own = left.min(self.rules.own_time_to_live);
        let tags = names.iter().filter_map(|name| tag_of(name));
        let options = EntryOptions::new().time_to_live(own).tags(tags);
        let held = Held {
            value,
            seal: Some(envelope.seal),
            created: envelope.created,
            fresh_until: self.clock.now().saturating_add(nanos(own)),
            tags: kept_tags(&options),
        };
        let mut loaded = Loaded::new(held);
        loaded.options = options;
        if left.is_zero() {
            return Ok(Read::Dead {
                stale: Some(loaded),
            });
        }
        loaded.options.load_time = Some(Duration::from_micros(envelope.load_time.into()));
        Ok(Read::Fresh(loaded))
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

impl<V> Held<V> {
    /// What is in no shared tier.
    pub(super) fn unsealed(value: Option<V>) -> Self {
        Held {
            value,
            seal: None,
            created: 0,
            fresh_until: 0,
            tags: None,
        }
    }
}

/// Whether this is what a refresh is for: of a copy that is fresh still, something newer; of one whose time here is up,
/// whatever is fresh there. But nothing older (a server may have lost the latest).
fn is_news<V>(loaded: &Loaded<Held<V>>, previous: Option<&Held<V>>, now: u64) -> bool {
    let (What::Value(found), Some(previous)) = (&loaded.what, previous) else {
        return true;
    };
    let is_same = found.seal == previous.seal;
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

/// Whether the link is gone for this reason, so that everything is flushed before there is another.
pub(super) fn is_out_of_reach(error: &TierError) -> bool {
    matches!(
        error,
        TierError::Down | TierError::Lost { .. } | TierError::TimedOut { .. }
    )
}
