//! Every method of the cache, on every kind of key, as one table.

use std::convert::Infallible;
use std::time::Duration;

use larder::{Added, Compute, EntryOptions, Loaded};

use crate::instruments::{Call, Failure, Key, Value};
use crate::rig::{ABSENT, DEAD, EXPIRED, LIVE, Rig, TAGGED, TestCache, yield_once};

/// A method with its arguments. It drops what the method returns.
#[derive(Clone, Copy)]
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Rig),
}

const fn method(name: &'static str, run: fn(&Rig)) -> Method {
    Method { name, run }
}

/// The kinds of key that a method can meet.
const KEYS: [u64; 5] = [LIVE, EXPIRED, TAGGED, DEAD, ABSENT];

fn each(rig: &Rig, call: impl Fn(&TestCache, u64)) {
    KEYS.into_iter().for_each(|id| call(&rig.cache, id));
    call(&rig.side, LIVE);
    call(&rig.side, ABSENT);
}

pub(crate) const METHODS: &[Method] = &[
    method("get", |rig| each(rig, |c, id| drop(c.get(&rig.key(id))))),
    method("peek", |rig| each(rig, |c, id| drop(c.peek(&rig.key(id))))),
    method("contains_key", |rig| {
        each(rig, |c, id| _ = c.contains_key(&rig.key(id)));
    }),
    method("get_many", |rig| {
        let keys = KEYS.map(|id| rig.key(id));
        drop(rig.cache.get_many(keys.iter().inspect(|_| closure(rig))));
    }),
    method("iter", |rig| {
        rig.cache.iter().for_each(|_| closure(rig));
        rig.side.iter().for_each(drop);
    }),
    method("insert", |rig| {
        each(rig, |c, id| drop(c.insert(rig.key(id), rig.world.value())));
    }),
    method("insert, evicting", |rig| {
        (0..12).for_each(|id| drop(rig.cache.insert(rig.key(200 + id), rig.world.value())));
    }),
    method("insert, evicting many at once", |rig| {
        drop(rig.cache.insert(rig.key(ABSENT), rig.world.heavy(15)));
    }),
    method("insert, growing a live value", |rig| {
        drop(rig.cache.insert(rig.key(LIVE), rig.world.heavy(15)));
    }),
    method("try_insert, too heavy", |rig| {
        each(rig, |c, id| {
            drop(c.try_insert(rig.key(id), rig.world.heavy(99)))
        });
    }),
    method("insert_with", |rig| {
        let options = || {
            EntryOptions::new()
                .tags(["live", "new"])
                .time_to_live(Duration::MAX)
        };
        each(rig, |c, id| {
            drop(c.insert_with(rig.key(id), rig.world.value(), options()))
        });
    }),
    method("insert_with, a time of zero", |rig| {
        let options = || EntryOptions::new().time_to_live(Duration::ZERO);
        each(rig, |c, id| {
            drop(c.insert_with(rig.key(id), rig.world.value(), options()))
        });
    }),
    method("insert_many", |rig| {
        let entry = |id| {
            closure(rig);
            (rig.key(id), rig.world.value())
        };
        rig.cache.insert_many(KEYS.into_iter().map(entry));
    }),
    method("add", |rig| {
        each(rig, |c, id| {
            if let Added::Present { present, value } = c.add(rig.key(id), rig.world.value()) {
                drop((present, value));
            }
        });
    }),
    method("add_with", |rig| {
        let options = || EntryOptions::new().tag("new");
        each(rig, |c, id| {
            drop(c.add_with(rig.key(id), rig.world.value(), options()))
        });
        drop(
            rig.cache
                .add_with(rig.key(300), rig.world.heavy(99), options()),
        );
    }),
    method("replace", |rig| {
        each(rig, |c, id| drop(c.replace(rig.key(id), rig.world.value())));
    }),
    method("touch", |rig| {
        let minute = Some(Duration::from_secs(60));
        each(rig, |c, id| _ = c.touch(&rig.key(id), minute));
        each(rig, |c, id| _ = c.touch(&rig.key(id), Some(Duration::ZERO)));
    }),
    method("remove", |rig| {
        each(rig, |c, id| drop(c.remove(&rig.key(id))))
    }),
    method("invalidate", |rig| {
        each(rig, |c, id| _ = c.invalidate(&rig.key(id)))
    }),
    method("remove_many", |rig| {
        let keys = KEYS.map(|id| rig.key(id));
        rig.cache.remove_many(keys.iter().inspect(|_| closure(rig)));
    }),
    method("clear", |rig| {
        rig.cache.clear();
        drop(rig.cache.insert(rig.key(LIVE), rig.world.value()));
    }),
    method("clear of a namespace", |rig| {
        rig.side.clear();
        drop(rig.side.insert(rig.key(LIVE), rig.world.value()));
    }),
    method("invalidate_tag", |rig| {
        rig.cache.invalidate_tag("live");
        drop(rig.cache.insert(rig.key(TAGGED), rig.world.value()));
    }),
    method("compute, putting", |rig| {
        each(rig, |c, id| {
            drop(c.compute(&rig.key(id), |_| {
                closure(rig);
                Compute::Put(rig.world.value())
            }));
        });
    }),
    method("compute, removing", |rig| {
        each(rig, |c, id| {
            drop(c.compute(&rig.key(id), |_| {
                closure(rig);
                Compute::Remove
            }));
        });
    }),
    method("compute, keeping", |rig| {
        each(rig, |c, id| {
            drop(c.compute(&rig.key(id), |_| {
                closure(rig);
                Compute::Keep
            }));
        });
    }),
    method("compute, queueing", queueing_compute),
    method("remove_if", |rig| {
        let condemned = |value: &Value| {
            closure(rig);
            value.id % 2 == 0
        };
        each(rig, |c, id| drop(c.remove_if(&rig.key(id), condemned)));
    }),
    method("retain", |rig| {
        rig.cache.retain(|key, _| {
            closure(rig);
            key.id % 2 == 0
        });
        rig.side.retain(|_, _| false);
    }),
    method("incr and decr", |rig| {
        for id in [LIVE, ABSENT] {
            rig.numbers.incr(&rig.key(id), 2);
            rig.numbers.decr(&rig.key(id), 1);
        }
    }),
    method("run_pending", |rig| _ = rig.cache.run_pending(3)),
    method("set_capacity", |rig| {
        rig.cache.set_capacity(3);
        rig.cache.set_capacity(0);
    }),
    method("a new namespace", |rig| {
        let view = rig.cache.namespace("new");
        drop(view.insert(rig.key(LIVE), rig.world.value()));
        drop(view.get(&rig.key(LIVE)));
    }),
    method("the reports", |rig| {
        _ = (
            rig.cache.inspect(),
            rig.cache.stats(),
            format!("{:?}", rig.cache),
        );
        _ = (
            rig.cache.weight(),
            rig.cache.max_entry_weight(),
            rig.cache.is_empty(),
        );
    }),
    method("get_or_load", |rig| {
        each(rig, |c, id| {
            drop(c.get_or_load(&rig.key(id), || loaded(rig)))
        });
    }),
    method("try_get_or_load", |rig| {
        each(rig, |c, id| {
            drop(c.try_get_or_load(&rig.key(id), || Ok::<_, Failure>(loaded(rig))))
        });
    }),
    method("try_get_or_load, failing", |rig| {
        each(rig, |c, id| {
            drop(c.try_get_or_load(&rig.key(id), || {
                rig.world.hook(Call::Loader);
                Err(Failure(rig.world))
            }));
        });
    }),
    method("get_or_load_with", |rig| {
        let load = || Ok::<_, Failure>(Loaded::new(loaded(rig)).tags(["live", "new"]));
        each(rig, |c, id| drop(c.get_or_load_with(&rig.key(id), load)));
    }),
    method("get_or_load_with, uncacheable", |rig| {
        let load = || Ok::<_, Failure>(Loaded::uncacheable(loaded(rig)));
        each(rig, |c, id| drop(c.get_or_load_with(&rig.key(id), load)));
        each(rig, |c, id| drop(c.get_or_load_with(&rig.key(id), load)));
        each(rig, |c, id| {
            drop(c.get_or_load(&rig.key(id), || loaded(rig)))
        });
    }),
    method("get_or_load_with, absent", |rig| {
        each(rig, |c, id| {
            let load = || {
                drop(loaded(rig));
                Ok::<_, Failure>(Loaded::absent().tag("new"))
            };
            drop(c.get_or_load_with(&rig.key(id), load))
        });
    }),
    method("get_or_load_with_previous", |rig| {
        each(rig, |c, id| {
            let load = |previous: Option<&Value>| {
                let new = loaded(rig);
                Ok::<_, Failure>(match previous {
                    Some(_) => Loaded::unchanged(),
                    None => Loaded::new(new),
                })
            };
            drop(c.get_or_load_with_previous(&rig.key(id), load))
        });
    }),
    method("get_or_load_with_previous_async", |rig| {
        each(rig, |c, id| {
            let key = rig.key(id);
            let load = |previous: Option<Value>| async {
                let new = later(rig).await;
                drop(previous);
                Ok::<_, Failure>(if id == LIVE {
                    Loaded::unchanged()
                } else {
                    Loaded::new(new)
                })
            };
            drop(pollster::block_on(
                c.get_or_load_with_previous_async(&key, load),
            ));
        });
    }),
    method("get_or_load_with, refused", |rig| {
        let load = || Ok::<_, Failure>(Loaded::new(heavy(rig)));
        each(rig, |c, id| drop(c.get_or_load_with(&rig.key(id), load)));
    }),
    method("get_or_load_optional", |rig| {
        each(rig, |c, id| {
            drop(c.get_or_load_optional(&rig.key(id), || {
                rig.world.hook(Call::Loader);
                None
            }));
            drop(c.get_or_load_optional(&rig.key(id), || Some(loaded(rig))));
        });
    }),
    method("load", |rig| each(rig, |c, id| drop(c.load(&rig.key(id))))),
    method("get_or_load_async", |rig| {
        each(rig, |c, id| {
            let key = rig.key(id);
            drop(pollster::block_on(c.get_or_load_async(&key, || later(rig))));
        });
    }),
    method("try_get_or_load_async", |rig| {
        each(rig, |c, id| {
            let key = rig.key(id);
            let load = || async { Ok::<_, Failure>(later(rig).await) };
            drop(pollster::block_on(c.try_get_or_load_async(&key, load)));
        });
    }),
    method("try_get_or_load_async, failing", |rig| {
        each(rig, |c, id| {
            let key = rig.key(id);
            let load = || async { Err::<Value, _>((later(rig).await, Failure(rig.world)).1) };
            drop(pollster::block_on(c.try_get_or_load_async(&key, load)));
        });
    }),
    method("get_or_load_with_async", |rig| {
        each(rig, |c, id| {
            let key = rig.key(id);
            let load = || async { Ok::<_, Failure>(Loaded::uncacheable(later(rig).await)) };
            drop(pollster::block_on(c.get_or_load_with_async(&key, load)));
            let load = || async { Ok::<_, Infallible>(Loaded::new(later(rig).await).tag("new")) };
            drop(pollster::block_on(c.get_or_load_with_async(&key, load)));
        });
    }),
    method("get_or_load_optional_async", |rig| {
        each(rig, |c, id| {
            let key = rig.key(id);
            let load = || async { Some(later(rig).await).filter(|_| id != LIVE) };
            drop(pollster::block_on(c.get_or_load_optional_async(&key, load)));
        });
    }),
    method("load_async", |rig| {
        each(rig, |c, id| {
            drop(pollster::block_on(c.load_async(&rig.key(id))))
        });
    }),
    method("lookup", |rig| {
        each(rig, |c, id| drop(c.get_with_freshness(&rig.key(id))))
    }),
    method("get_many_or_load", |rig| {
        let keys = KEYS.map(|id| rig.key(id));
        let load = |missing: &[Key]| {
            rig.world.hook(Call::Loader);
            let value = |key: &Key| Some(rig.world.value()).filter(|_| key.id != EXPIRED);
            Ok::<_, Failure>(missing.iter().map(value).collect())
        };
        drop(rig.cache.get_many_or_load(keys.iter(), load));
        drop(rig.side.get_many_or_load(keys.iter().chain(&keys), load));
    }),
    method("get_many_or_load, failing", |rig| {
        let keys = KEYS.map(|id| rig.key(id));
        drop(rig.cache.get_many_or_load(keys.iter(), |_: &[Key]| {
            rig.world.hook(Call::Loader);
            Err(Failure(rig.world))
        }));
        // This loader answers for one key too few.
        drop(rig.side.get_many_or_load(keys.iter(), |_: &[Key]| {
            Ok::<_, Failure>(vec![Some(loaded(rig))])
        }));
    }),
    method("get_many_or_load_async", |rig| {
        let keys = KEYS.map(|id| rig.key(id));
        let load = |missing: Vec<Key>| async move {
            drop(later(rig).await);
            let answers = missing.iter().map(|_| Some(rig.world.value())).collect();
            // Before they are returned: a panic on the way out would leak them.
            drop(missing);
            Ok::<_, Failure>(answers)
        };
        drop(pollster::block_on(
            rig.cache.get_many_or_load_async(keys.iter(), load),
        ));
    }),
    method("a second handle", |rig| {
        let second = rig.cache.clone();
        drop(second.insert(rig.key(LIVE), rig.world.value()));
    }),
];

/// A `compute` whose every snapshot is stale by the time it decides, until it has queued.
fn queueing_compute(rig: &Rig) {
    const LOST_RACES: u32 = 5;
    let mut races = 0;
    let done = rig.cache.compute(&rig.key(LIVE), |_| {
        closure(rig);
        races += 1;
        if races <= LOST_RACES {
            drop(rig.cache.insert(rig.key(LIVE), rig.world.value()));
        }
        Compute::Put(rig.world.value())
    });
    drop(done);
}

fn closure(rig: &Rig) {
    rig.world.hook(Call::Closure);
}

fn loaded(rig: &Rig) -> Value {
    rig.world.hook(Call::Loader);
    rig.world.value()
}

fn heavy(rig: &Rig) -> Value {
    rig.world.hook(Call::Loader);
    rig.world.heavy(99)
}

/// A loader for tasks: one call, two polls.
fn later(rig: &Rig) -> impl Future<Output = Value> + use<> {
    rig.world.hook(Call::Loader);
    let world = rig.world;
    async move {
        yield_once().await;
        world.hook(Call::Poll);
        world.value()
    }
}
