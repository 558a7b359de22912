//! A cache built of instruments, filled so that whatever is called on it expires, evicts, sweeps and
//! collides; and what must be true of it whenever a call has ended, well or not.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use larder::{Cache, EntryOptions, EvictionPolicy, Expiry, Loaded, ManualClock, RemovalCause};

use crate::instruments::{Call, Failure, Hashing, Injected, Key, Value, World};

/// A live value without a deadline.
pub(crate) const LIVE: u64 = 0;
/// A value past its deadline that still has its slot.
pub(crate) const EXPIRED: u64 = 6;
/// A live value with the tag `live`.
pub(crate) const TAGGED: u64 = 10;
/// A value whose tag was invalidated and that still has its slot.
pub(crate) const DEAD: u64 = 13;
pub(crate) const ABSENT: u64 = 100;

const CAPACITY: u64 = 17;
const SECOND: Duration = Duration::from_secs(1);

/// The paths through the store that depend on the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Plain,
    /// Hits reorder, under the exclusive lock.
    Lru,
    /// An expiry policy that hears of everything.
    Policy,
    /// All within a namespace, which must be forgotten in the end.
    Named,
    /// What is live is due for an early load, and what is expired is stale. Jobs run where they are given.
    Refreshed,
    /// Full of live entries with nothing beside them: a new key takes the place of a victim, and nothing else is
    /// looked at.
    Turnover,
}

pub(crate) type TestCache = Cache<Key, Value, Hashing>;

pub(crate) struct Rig {
    variant: Variant,
    pub(crate) world: &'static World,
    pub(crate) time: ManualClock,
    /// The cache under test; with [`Variant::Named`], a view of it.
    pub(crate) cache: TestCache,
    root: TestCache,
    /// Another view.
    pub(crate) side: TestCache,
    pub(crate) numbers: Cache<Key, u64, Hashing>,
}

struct Policy(&'static World);

impl Expiry<Key, Value> for Policy {
    fn after_create(&self, _key: &Key, _value: &Value) -> Option<Duration> {
        self.0.hook(Call::AfterCreate);
        Some(100 * SECOND)
    }

    fn after_update(
        &self,
        _key: &Key,
        _value: &Value,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        self.0.hook(Call::AfterUpdate);
        Some(100 * SECOND)
    }

    fn after_read(&self, _value: &Value, _left: Option<Duration>) -> Option<Duration> {
        self.0.hook(Call::AfterRead);
        Some(100 * SECOND)
    }

    fn reads(&self) -> bool {
        true
    }
}

impl Rig {
    pub(crate) fn new(variant: Variant) -> Rig {
        let world = World::new();
        let time = ManualClock::new();
        let mut builder = Cache::builder()
            .max_capacity(CAPACITY)
            .shards(1)
            .clock(time.clock())
            .removal_listener(move |_, value: &Value, cause| {
                world.events.lock().push((value.id, cause));
                world.hook(Call::Listener);
            })
            .loader(move |_: &Key| {
                world.hook(Call::Loader);
                Ok::<_, Failure>(Loaded::new(world.value()))
            })
            .async_loader(move |_: Key| {
                world.hook(Call::Loader);
                async move {
                    yield_once().await;
                    world.hook(Call::Poll);
                    Ok::<_, Failure>(Loaded::new(world.value()))
                }
            })
            .timer(move |_| {
                world.hook(Call::Timer);
                std::future::pending()
            });
        if variant != Variant::Turnover {
            builder = builder.weigher(move |_: &Key, value: &Value| {
                world.hook(Call::Weigher);
                value.weight
            });
        }
        match variant {
            Variant::Plain | Variant::Named | Variant::Turnover => {}
            Variant::Lru => builder = builder.eviction_policy(EvictionPolicy::Lru),
            Variant::Policy => builder = builder.expiry(Policy(world)),
            Variant::Refreshed => {
                builder = builder
                    .early_expiration(1e9)
                    .stale_while_revalidate(100 * SECOND)
                    .stale_if_error(100 * SECOND, Duration::ZERO)
                    .executor(|job| job())
                    .spawner(pollster::block_on);
            }
        }
        let root = builder.hasher(Hashing(world)).build().expect("the rig");
        let cache = match variant {
            Variant::Named => root.namespace("main"),
            _ => root.clone(),
        };
        let numbers = Cache::builder()
            .max_capacity(4)
            .shards(1)
            .hasher(Hashing(world));
        let rig = Rig {
            variant,
            world,
            time,
            side: root.namespace("side"),
            numbers: numbers.build().expect("the numbers"),
            cache,
            root,
        };
        rig.fill();
        rig
    }

    /// Seventeen entries: live, expired, tagged, dead, and those of the namespace.
    fn fill(&self) {
        let put = |id, options| {
            drop(
                self.cache
                    .insert_with(self.key(id), self.world.value(), options),
            );
        };
        if self.variant == Variant::Turnover {
            self.numbers.insert(self.key(LIVE), 7);
            for id in 0..CAPACITY {
                drop(self.cache.insert(self.key(id), self.world.value()));
            }
            return;
        }
        let live = || match self.variant {
            // Late in a life that a load would take long to renew.
            Variant::Refreshed => EntryOptions::new()
                .time_to_live(3 * SECOND)
                .load_time(SECOND),
            _ => EntryOptions::new(),
        };
        (LIVE..EXPIRED).for_each(|id| put(id, live()));
        (EXPIRED..TAGGED).for_each(|id| put(id, EntryOptions::new().time_to_live(SECOND)));
        (TAGGED..DEAD).for_each(|id| put(id, EntryOptions::new().tag("live")));
        (DEAD..DEAD + 2).for_each(|id| put(id, EntryOptions::new().tag("dead")));
        drop(self.side.insert(self.key(LIVE), self.world.value()));
        drop(self.side.insert(self.key(1), self.world.value()));
        self.numbers.insert(self.key(LIVE), 7);
        self.cache.invalidate_tag("dead");
        self.time.advance(2 * SECOND);
    }

    pub(crate) fn key(&self, id: u64) -> Key {
        self.world.key(id)
    }

    /// Everything that must hold once a call has ended, however it ended. Panics where something does
    /// not, and uses the rig up.
    pub(crate) fn check(self) {
        let world = self.world;
        world.disarm();
        assert_eq!(larder::__lock_depth(), 0, "a lock is still held");
        self.audit("at once");
        self.exercise();
        self.audit("after use");
        let Rig {
            cache, side, root, ..
        } = self;
        drop((cache, side));
        if self.variant == Variant::Named {
            assert_eq!(names_left(&root), 0, "namespaces that nobody uses");
        }
        for id in 0..3 {
            drop(root.insert(world.key(id), world.value()));
        }
        let events = world.events.lock().len();
        drop((root, self.numbers));
        assert_eq!(world.events.lock().len(), events, "dropping the cache told");
        let left = (world.keys.living(), world.values.living());
        assert_eq!(left, (0, 0), "keys and values left after the cache");
        let locked = world.locked();
        assert!(locked.is_empty(), "ran under a lock: {locked:?}");
    }

    /// The books: every count agrees with every other.
    fn audit(&self, when: &str) {
        #[cfg(debug_assertions)]
        {
            self.cache.__validate();
            self.numbers.__validate();
        }
        assert_eq!(self.cache.__flights(), (0, 0), "flights, loads {when}");
        self.cache.run_pending(u32::MAX);
        self.numbers.run_pending(u32::MAX);
        let stats = self.cache.stats();
        let told = |cause| {
            let events = self.world.events.lock();
            events.iter().filter(|event| event.1 == cause).count() as u64
        };
        let mut removals = 0;
        for (cause, counted) in [
            (RemovalCause::Explicit, stats.explicit()),
            (RemovalCause::Replaced, stats.replaced()),
            (RemovalCause::Expired, stats.expired()),
            (RemovalCause::Size, stats.evicted()),
            (RemovalCause::Invalidated, stats.invalidated()),
        ] {
            assert_eq!(told(cause), counted, "told of {cause:?}, counted {when}");
            removals += counted;
        }
        let len = stats.inserts() - removals;
        assert_eq!(self.cache.len(), len, "len, inserts - removals {when}");
        let mut ids: Vec<u64> = self
            .world
            .events
            .lock()
            .iter()
            .map(|event| event.0)
            .collect();
        ids.sort_unstable();
        assert!(
            ids.windows(2).all(|pair| pair[0] != pair[1]),
            "told twice {when}"
        );
        let values = u64::try_from(self.world.values.living());
        assert_eq!(values, Ok(len), "values alive, entries {when}");
        let keys = u64::try_from(self.world.keys.living());
        assert_eq!(
            keys,
            Ok(len + self.numbers.len()),
            "keys alive, entries {when}"
        );
        assert!(
            self.cache.weight() <= self.cache.capacity().max(CAPACITY),
            "weight {when}"
        );
    }

    /// The cache still does everything.
    fn exercise(&self) {
        self.cache.set_capacity(CAPACITY);
        // One other kind of key each time: over a sweep every kind has its turn.
        let kinds = [EXPIRED, TAGGED, DEAD, ABSENT];
        let other = kinds[self.world.calls(Call::Hash) as usize % kinds.len()];
        for (view, ids) in [(&self.cache, &[LIVE, other][..]), (&self.side, &[LIVE])] {
            for &id in ids {
                let key = self.key(id);
                // A write, for a key that was declared uncacheable is not loaded into the cache.
                drop(view.insert(key.clone(), self.world.value()));
                drop(view.remove(&key));
                let loaded = view.get_or_load(&key, || self.world.value());
                assert_eq!(view.get(&key).map(|value| value.id), Some(loaded.id));
                let new = self.world.value();
                let number = new.id;
                let old = view.insert(key.clone(), new);
                assert_eq!(old.map(|value| value.id), Some(loaded.id));
                assert_eq!(view.remove(&key).map(|value| value.id), Some(number));
                let load = pollster::block_on(view.load_async(&key)).expect("a load");
                assert_eq!(view.peek(&key).map(|value| value.id), Some(load.id));
            }
        }
        let key = self.key(LIVE);
        self.numbers.insert(key.clone(), 1);
        assert_eq!(self.numbers.incr(&key, 1), Some(2));
    }
}

/// How many namespaces are left, of those that `cache` has had, once the unused were forgotten.
fn names_left(cache: &TestCache) -> usize {
    // A namespace is kept while it has an entry: a count that leaked keeps it for ever. The registry
    // forgets when it has grown to this size.
    const SWEPT: usize = 256;
    cache.clear();
    cache.run_pending(u32::MAX);
    for n in 0.. {
        if cache.__names().1 >= SWEPT {
            break;
        }
        drop(cache.namespace(&n.to_string()));
    }
    drop(cache.namespace("the newest"));
    cache.__names().1 - 1
}

/// Pends once.
pub(crate) async fn yield_once() {
    let mut pended = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut pended, true) {
            std::task::Poll::Ready(())
        } else {
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        }
    })
    .await;
}

/// Runs `check`; what it has to say against the rig comes back as text.
pub(crate) fn complaint(check: impl FnOnce()) -> Option<String> {
    let caught = catch_unwind(AssertUnwindSafe(check)).err()?;
    Some(text_of(&*caught))
}

/// A panic's message.
pub(crate) fn text_of(payload: &(dyn Any + Send)) -> String {
    if payload.is::<Injected>() {
        "an injected panic got out".to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        (*payload.downcast_ref::<&str>().unwrap_or(&"no text")).to_owned()
    }
}
