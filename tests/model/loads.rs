//! Loads: what a loader answers, who is given it, and what is stored of it.

use larder::{LoadError, Loaded, TryLoadError};

use crate::config::{NEGATIVE, UNCACHEABLE};
use crate::ops::Load;
use crate::reference::{Effect, Failure, Life, Reference, Slot, Ttl, nanos};
use crate::run::Run;
use crate::steps::tag_name;

/// What a load came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    Value(Option<i64>),
    /// This call's loader failed.
    Own,
    /// A remembered failure.
    Shared,
}

impl Failure {
    /// Of a load that fails now.
    fn now(reference: &Reference, slot: Slot) -> Failure {
        let (config, now) = (reference.config, reference.now);
        let served = reference.instead_of_error(slot).is_some();
        let rest = if served {
            nanos(config.windows.rest)
        } else {
            0
        };
        let negative = if config.negative { nanos(NEGATIVE) } else { 0 };
        Failure {
            by_all: now + negative,
            by_served: now + rest,
        }
    }
}

impl Run {
    pub(crate) fn load(&mut self, slot: Slot, load: &Load) {
        let (found, ended) = self.reference.read(slot);
        self.count_read(found.is_some());
        let (got, ran) = self.call_load(slot, load);
        if found.is_some() {
            assert_eq!((got, ran), (Got::Value(found), false));
            self.settle(&Effect {
                ended,
                ..Effect::default()
            });
            return;
        }
        let now = self.reference.now;
        let instead = self.reference.instead_of_error(slot);
        let failure = self.reference.failures.get(&slot).copied();
        let fallible = !matches!(load, Load::Plain(_) | Load::Optional(_));
        let rests = |failure: Failure| now < failure.by_served || fallible && now < failure.by_all;
        if instead.is_some() && failure.is_some_and(rests) {
            // The source rests, or its error is remembered, for those that could be given it.
            assert_eq!((got, ran), (Got::Value(instead), false));
            self.tally.stale_on_error += 1;
            self.settle(&Effect::default());
            return;
        }
        let alone = self
            .reference
            .uncacheable
            .get(&slot)
            .is_some_and(|&at| now < at);
        if !alone && fallible && failure.is_some_and(|failure| now < failure.by_all) {
            assert_eq!((got, ran), (Got::Shared, false));
            self.settle(&Effect::default());
            return;
        }
        assert!(ran, "the loader did not run: {got:?}");
        self.tally.loads += 1;
        let (answer, ttl, tags): (_, _, &[u8]) = match load {
            Load::Plain(value) | Load::Try(Ok(value)) => {
                (Got::Value(Some(*value)), Ttl::Default, &[])
            }
            Load::Uncacheable(value) => (Got::Value(Some(*value)), Ttl::Default, &[]),
            Load::With(value, ttl, tags) => (Got::Value(Some(*value)), *ttl, tags),
            Load::Optional(value) => (Got::Value(*value), Ttl::Default, &[]),
            Load::Try(Err(())) => (Got::Own, Ttl::Default, &[]),
        };
        let failed = answer == Got::Own;
        self.tally.load_failures += u64::from(failed);
        let served = instead.filter(|_| failed);
        self.tally.stale_on_error += u64::from(served.is_some());
        assert_eq!(got, served.map_or(answer, |value| Got::Value(Some(value))));
        let cacheable = !matches!(load, Load::Uncacheable(_));
        let effect = if alone {
            if cacheable && matches!(answer, Got::Value(Some(_))) {
                self.reference.uncacheable.remove(&slot);
            }
            Effect::default()
        } else {
            self.publish(slot, answer, ttl, tags, cacheable)
        };
        self.settle(&effect);
    }

    /// What a load that led leaves behind.
    fn publish(
        &mut self,
        slot: Slot,
        answer: Got,
        ttl: Ttl,
        tags: &[u8],
        cacheable: bool,
    ) -> Effect {
        let reference = &mut self.reference;
        let failure = Failure::now(reference, slot);
        reference.failures.remove(&slot);
        let mut effect = Effect::default();
        match answer {
            Got::Value(Some(value)) if cacheable => {
                let life = reference.life_of_new(ttl, value);
                match (reference.refusal(value, life, tags.len()), life) {
                    (None, Life::Until(at)) => {
                        self.tally.inserts += 1;
                        effect.stored = Some((slot, reference.new_entry(value, at, tags)));
                        effect.own_ttl(ttl);
                    }
                    _ => {
                        self.tally.unpublished += 1;
                        effect.met.push(slot);
                    }
                }
            }
            Got::Value(Some(_)) => {
                self.tally.unpublished += 1;
                // An older value goes, whoever the new one is for.
                effect.met.push(slot);
                let until = reference.now + nanos(UNCACHEABLE);
                reference.uncacheable.insert(slot, until);
            }
            // The news that there is nothing ends what is stale.
            Got::Value(None) => effect.met.push(slot),
            Got::Own if failure.until() > reference.now => {
                reference.failures.insert(slot, failure);
            }
            _ => {}
        }
        effect
    }

    /// Calls the method; says what came back and whether the loader ran.
    fn call_load(&self, slot: Slot, load: &Load) -> (Got, bool) {
        let (cache, key) = self.at(slot);
        let mut ran = false;
        let mut run = |answer| {
            ran = true;
            answer
        };
        let fallible = |answer: Result<i64, TryLoadError<&'static str>>| match answer {
            Ok(value) => Got::Value(Some(value)),
            Err(TryLoadError::Own(_)) => Got::Own,
            Err(TryLoadError::Shared(LoadError::Failed(_))) => Got::Shared,
            Err(other) => panic!("{other:?}"),
        };
        let got = match load {
            Load::Plain(value) => {
                let mut loader = || run(Ok(*value)).expect("just given");
                let value: Result<i64, ()> = Ok(cache.get_or_load(&key, &mut loader));
                Got::Value(value.ok())
            }
            Load::Optional(answer) => Got::Value(cache.get_or_load_optional(&key, || {
                run(Ok(0)).expect("just given");
                *answer
            })),
            Load::Try(answer) => fallible(
                cache.try_get_or_load(&key, || run(*answer).map_err(|()| "the loader says no")),
            ),
            Load::With(value, ttl, tags) => fallible(cache.get_or_load_with(&key, || {
                run(Ok(0)).expect("just given");
                let loaded = Loaded::new(*value).tags(tags.iter().map(|&tag| tag_name(tag)));
                Ok(match ttl {
                    Ttl::Default => loaded,
                    Ttl::For(time) => loaded.time_to_live(*time),
                    Ttl::Forever => loaded.no_expiry(),
                })
            })),
            Load::Uncacheable(value) => fallible(cache.get_or_load_with(&key, || {
                run(Ok(0)).expect("just given");
                Ok(Loaded::uncacheable(*value))
            })),
        };
        (got, ran)
    }
}
