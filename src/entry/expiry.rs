//! From durations to deadlines: the cache's time to live and to idle, a caller's options, a per-entry
//! [`Expiry`] policy, and jitter.

use std::time::Duration;

use crate::entry::Ttl;
use crate::util::clock::{NEVER, Now, nanos};
use crate::util::rng;

/// Decides how long each entry lives, from the entry itself.
///
/// The methods are called outside every lock and may use the cache. A duration of zero means that
/// the entry is past its date at once; `None` means that it does not expire by age. A call that
/// names its own time to live ([`EntryOptions`](crate::EntryOptions)) overrides the policy.
///
/// ```
/// use larder::{Cache, Expiry, ManualClock};
/// use std::time::Duration;
///
/// /// Sessions live as long as they say.
/// struct BySession;
/// impl Expiry<&'static str, u64> for BySession {
///     fn after_create(&self, _key: &&'static str, seconds: &u64) -> Option<Duration> {
///         Some(Duration::from_secs(*seconds))
///     }
/// }
///
/// let time = ManualClock::new();
/// let cache = Cache::builder().max_capacity(10).expiry(BySession).clock(time.clock()).build()?;
/// cache.insert("short", 1);
/// cache.insert("long", 10);
/// time.advance(Duration::from_secs(5));
/// assert_eq!((cache.get("short"), cache.get("long")), (None, Some(10)));
/// # Ok::<(), larder::BuildError>(())
/// ```
pub trait Expiry<K, V>: Send + Sync + 'static {
    /// How long a new entry lives.
    fn after_create(&self, key: &K, value: &V) -> Option<Duration>;

    /// How long an entry lives from now on, once its value was replaced. `remaining` is what the
    /// replaced value had left (`None`: it did not expire). Unless overridden, as after a creation.
    fn after_update(&self, key: &K, value: &V, remaining: Option<Duration>) -> Option<Duration> {
        let _ = remaining;
        self.after_create(key, value)
    }

    /// How long an entry lives from now on, once it was read. Unless overridden, as long as before.
    /// It is asked only if [`reads`](Self::reads) says so.
    fn after_read(&self, value: &V, remaining: Option<Duration>) -> Option<Duration> {
        let _ = value;
        remaining
    }

    /// Whether reads change lifetimes. If so, a `get` asks [`after_read`](Self::after_read) and takes
    /// its shard's lock a second time, exclusively, to write the answer down.
    fn reads(&self) -> bool {
        false
    }
}

/// The time to live of one write in nanoseconds, with the cache's jitter taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime(u64);

impl Lifetime {
    /// Past its date at once: never stored.
    pub(crate) const NOTHING: Lifetime = Lifetime(0);
    /// For ever.
    pub(crate) const FOREVER: Lifetime = Lifetime(NEVER);

    /// Resolves what a call said (`ttl`) against the cache's time to live.
    #[inline]
    pub(crate) fn resolve(ttl: Ttl, time_to_live: Option<Lifetime>, jitter: f64) -> Lifetime {
        match (ttl, time_to_live) {
            (Ttl::Forever, _) | (Ttl::Default, None) => Lifetime::FOREVER,
            (Ttl::For(time), _) => Lifetime::from(time).shortened(jitter),
            (Ttl::Default, Some(lifetime)) => lifetime.shortened(jitter),
        }
    }

    /// Resolves a policy's answer.
    pub(crate) fn from_policy(answer: Option<Duration>, jitter: f64) -> Lifetime {
        answer.map_or(Lifetime::FOREVER, |time| {
            Lifetime::from(time).shortened(jitter)
        })
    }

    #[inline]
    fn shortened(self, jitter: f64) -> Lifetime {
        if jitter > 0.0 && self != Lifetime::NOTHING && self != Lifetime::FOREVER {
            // Jitter only shortens: nothing is served past the time that was asked for. A life cut
            // to nothing would never be stored, so a nanosecond of it stays.
            let kept = self.0 as f64 * (1.0 - jitter * rng::unit());
            Lifetime((kept.max(1.0) as u64).min(self.0))
        } else {
            self
        }
    }

    /// In nanoseconds; `None` for ever.
    pub(crate) fn nanos(self) -> Option<u64> {
        (self != Lifetime::FOREVER).then_some(self.0)
    }

    /// The deadline of a value written `now`.
    #[inline]
    pub(crate) fn deadline(self, now: &mut Now<'_>) -> u64 {
        match self {
            Lifetime::NOTHING => 0,
            Lifetime::FOREVER => NEVER,
            Lifetime(nanos) => now.deadline(nanos),
        }
    }
}

impl From<Duration> for Lifetime {
    fn from(time: Duration) -> Lifetime {
        Lifetime(nanos(time))
    }
}

/// What a deadline leaves at `now`, `None` for one that never comes.
pub(crate) fn remaining(deadline: u64, now: u64) -> Option<Duration> {
    (deadline != NEVER).then(|| Duration::from_nanos(deadline.saturating_sub(now)))
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_says_goes_before_what_the_cache_says() {
        let minute = Duration::from_secs(60);
        let a_minute = Some(Lifetime::from(minute));
        let table = [
            (Ttl::Default, None, Lifetime::FOREVER),
            (Ttl::Default, a_minute, Lifetime::from(minute)),
            (Ttl::Forever, a_minute, Lifetime::FOREVER),
            (Ttl::For(Duration::ZERO), a_minute, Lifetime::NOTHING),
            (Ttl::For(Duration::MAX), None, Lifetime::FOREVER),
        ];
        for (ttl, default, lifetime) in table {
            assert_eq!(
                Lifetime::resolve(ttl, default, 0.0),
                lifetime,
                "{ttl:?} over {default:?}"
            );
        }
    }

    #[test]
    fn jitter_only_shortens_and_never_to_nothing() {
        let second = Duration::from_secs(1);
        for _ in 0..1000 {
            let Lifetime(time) = Lifetime::resolve(Ttl::For(second), None, 0.25);
            assert!((749_999_999..=1_000_000_000).contains(&time), "{time}");
        }
        let tiny = Duration::from_nanos(1);
        assert_eq!(
            Lifetime::resolve(Ttl::For(tiny), None, 1.0),
            Lifetime::from(tiny)
        );
    }
}
