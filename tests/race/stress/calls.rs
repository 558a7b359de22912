//! One thread's calls, drawn at random.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use larder::{Cache, Compute, EntryOptions, LoadError, Loaded};

use crate::payload::Payload;
use crate::tasks;

pub(crate) type Strings = Cache<String, Arc<Payload>>;

/// Xorshift64*: small, seeded, and the same on every machine.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % n
    }
}

/// A thread at work.
pub(crate) struct Caller<'a> {
    /// The root or a namespace of it; they share their keys' names and none of their entries.
    pub(crate) cache: &'a Strings,
    pub(crate) chance: Chance,
    pub(crate) keys: u64,
    pub(crate) capacity: u64,
    pub(crate) tagged: bool,
}

impl Caller<'_> {
    /// A key; the first few are asked for half the time.
    pub(crate) fn key(&mut self) -> String {
        let range = if self.chance.below(2) == 0 {
            4
        } else {
            self.keys
        };
        format!("key {} of some length", self.chance.below(range))
    }

    fn tag(&mut self) -> Option<String> {
        let number = self.chance.below(8);
        self.tagged.then(|| format!("tag {number}"))
    }

    fn payload(&mut self, key: &str) -> Arc<Payload> {
        Payload::new(key, 1 + self.chance.below(100) as usize)
    }

    fn options(&mut self) -> EntryOptions {
        let options = EntryOptions::new().tags(self.tag());
        match self.chance.below(3) {
            0 => options.time_to_live(Duration::from_micros(self.chance.below(20_000))),
            1 => options.no_expiry().tags(self.tag()),
            _ => options,
        }
    }

    /// Stores under any key.
    pub(crate) fn fill(&mut self) {
        let key = format!("key {} of some length", self.chance.below(self.keys));
        self.cache.insert(key.clone(), self.payload(&key));
    }

    pub(crate) fn call(&mut self) {
        match self.chance.below(100) {
            0..50 => self.read(),
            50..75 => self.write(),
            75..90 => self.load(),
            90..94 => tasks::run(self),
            // One call in two hundred: a clear now and then must leave time to grow full.
            94 if self.chance.below(2) == 0 => self.sweep(),
            _ => self.decide(),
        }
    }

    fn read(&mut self) {
        let key = self.key();
        let found = match self.chance.below(8) {
            0 => self.cache.peek(&key),
            1 => {
                let keys = [key.clone(), self.key()];
                let mut values = self.cache.get_many(keys.iter().map(String::as_str));
                values.swap_remove(0)
            }
            2 => {
                self.cache.contains_key(&key);
                self.cache.touch(&key, Some(Duration::from_millis(5)));
                None
            }
            _ => self.cache.get(&key),
        };
        if let Some(value) = found {
            value.check(&key);
        }
    }

    fn write(&mut self) {
        let key = self.key();
        let value = self.payload(&key);
        let left = match self.chance.below(9) {
            0..3 => self.cache.insert(key.clone(), value),
            3 => {
                let _ = self.cache.add(key.clone(), value);
                None
            }
            4 => {
                let options = self.options();
                let _ = self.cache.add_with(key.clone(), value, options);
                None
            }
            5 => {
                let options = self.options();
                self.cache
                    .insert_with(key.clone(), value, options)
                    .unwrap_or(None)
            }
            6 => self.cache.replace(key.clone(), value).ok(),
            7 => self.cache.remove(&key),
            _ => {
                self.cache.invalidate(&key);
                None
            }
        };
        if let Some(left) = left {
            left.check(&key);
            // The planted leak: what a call handed back is forgotten.
            #[cfg(larder_plant = "leak")]
            std::mem::forget(left);
        }
    }

    fn load(&mut self) {
        let (key, len) = (self.key(), 1 + self.chance.below(100) as usize);
        match self.chance.below(7) {
            // Of no use where there is no such loader.
            6 => match self.cache.load(&key) {
                Ok(value) => value.check(&key),
                Err(error) => assert!(!matches!(error, LoadError::Recursive), "{error}"),
            },
            0 => {
                let tag = self.tag();
                let loader = || Ok::<_, String>(Loaded::new(Payload::new(&key, len)).tags(tag));
                if let Ok(value) = self.cache.get_or_load_with(&key, loader) {
                    value.check(&key);
                }
            }
            1 => {
                let loaded = self.cache.try_get_or_load(&key, || Err("planned"));
                if let Ok(value) = loaded {
                    value.check(&key);
                }
            }
            2 => {
                if let Some(value) = self.cache.get_or_load_optional(&key, || None) {
                    value.check(&key);
                }
            }
            3 => {
                // A loader that panics, past the hook, which would print.
                let panics = AssertUnwindSafe(|| {
                    self.cache.get_or_load(&key, || resume_unwind(Box::new(())))
                });
                if let Ok(value) = catch_unwind(panics) {
                    value.check(&key);
                }
            }
            _ => {
                let loader = || {
                    std::thread::yield_now();
                    Payload::new(&key, len)
                };
                self.cache.get_or_load(&key, loader).check(&key);
            }
        }
    }

    fn decide(&mut self) {
        let key = self.key();
        let new = self.payload(&key);
        match self.chance.below(4) {
            0 => {
                self.cache.remove_if(&key, |value| value.weight() > 50);
            }
            1 => {
                self.cache.compute(&key, |_| Compute::Remove);
            }
            2 => {
                self.cache.compute(&key, |_| Compute::Keep);
            }
            _ => {
                self.cache.compute(&key, |old| {
                    if let Some(old) = old {
                        old.check(&key);
                    }
                    Compute::Put(Arc::clone(&new))
                });
            }
        }
    }

    /// What touches more than one key.
    fn sweep(&mut self) {
        match self.chance.below(16) {
            0..4 => {
                let tag = self.tag().unwrap_or_default();
                self.cache.invalidate_tag(&tag);
            }
            4..6 => self.cache.clear(),
            6 => {
                let name = format!("passing {}", self.chance.below(20));
                let view = self.cache.namespace(&name);
                let key = self.key();
                view.insert(key.clone(), self.payload(&key));
                if self.chance.below(2) == 0 {
                    view.clear();
                }
            }
            7..9 => {
                let share = 1 + self.chance.below(4);
                self.cache.set_capacity(self.capacity * share / 4);
            }
            9 => {
                self.cache.retain(|key, value| {
                    value.check(key);
                    value.weight() > 10
                });
            }
            10 => {
                for (key, value) in self.cache.iter().take(50) {
                    value.check(&key);
                }
            }
            11 => {
                let key = self.key();
                let entries: Vec<_> = (0..4).map(|_| (key.clone(), self.payload(&key))).collect();
                self.cache.insert_many(entries);
            }
            12 => {
                let stats = self.cache.stats();
                assert!(stats.hit_ratio() <= 1.0);
                assert!(!self.cache.inspect().is_empty());
            }
            _ => {
                self.cache.run_pending(self.chance.below(500) as u32);
            }
        }
    }
}
