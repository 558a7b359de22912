//! Which server, and how to treat it.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo};

use super::client::{Client, RedisTier};
use super::coherence::Coherence;
use super::commands::{Command, Commands};
use super::connection::{self, Address, ConnectionClient};
use super::counters::{ConnectionCounters, RedisStats};
use super::event::ConnectionRules;
use crate::tier::contract::{AddReply, Tier, TierFuture, TierListener};
use crate::tier::envelope::ContentId;

/// A [`Tier`] on a Redis server (6.2 or newer), over one connection, kept by a thread of its own.
///
/// The server tells of changes by `CLIENT TRACKING` over the same connection. What it needs of an ACL: `HELLO`, `AUTH`,
/// `SELECT`, `CLIENT TRACKING`, `ROLE`, `INFO`, `TIME`, and on keys with the prefix `GET`, `MGET`, `SET`, `DEL`,
/// `GETRANGE`, `EXISTS`, `INCR` and `EVAL`.
///
/// It is made without waiting for the server: calls fail with [`TierError::Down`](crate::tier::TierError::Down) until
/// the connection is up. A connection that is lost is dialled again by itself.
///
/// ```no_run
/// use larder::tier::Tiered;
/// use larder::tier::redis::Redis;
///
/// let redis = Redis::connect("redis://127.0.0.1/0")?; // or "unix:///run/redis.sock?db=0"
/// let cache: Tiered<String, u64> = Tiered::builder(redis).max_capacity(10_000).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Redis {
    tier: Arc<RedisTier<ConnectionClient>>,
    counters: Arc<ConnectionCounters>,
}

/// Settings of a [`Redis`]; made by [`Redis::builder`].
#[derive(Clone)]
#[must_use]
pub struct RedisBuilder {
    url: String,
    prefix: String,
    broadcast: bool,
    timeout: Duration,
    heartbeat: Duration,
    backoff: (Duration, Duration),
    trips_at: u32,
    rest: Duration,
    max_retry_words: usize,
}

/// Why there is no tier.
#[derive(Debug)]
#[non_exhaustive]
pub enum RedisError {
    /// The URL cannot be read.
    Url {
        /// What is wrong with it.
        why: String,
    },
    /// The URL asks for something that this version cannot do.
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// The timeout, the heartbeat or a wait is zero.
    Zero {
        /// Which.
        what: &'static str,
    },
    /// The thread was not started.
    Thread(std::io::Error),
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisError::Url { why } => write!(
                f,
                "the URL cannot be read ({why}): it is to look like redis://user:password@host:6379/0 or \
                 unix:///path/to/socket?db=0"
            ),
            RedisError::Unsupported { what } => {
                write!(f, "{what} is not supported yet: use redis:// or unix://")
            }
            RedisError::Zero { what } => {
                write!(f, "{what} is zero: give it a few milliseconds at least")
            }
            RedisError::Thread(error) => write!(
                f,
                "the tier's thread was not started ({error}): free some threads"
            ),
        }
    }
}

impl Error for RedisError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            RedisError::Thread(error) => Some(error),
            _ => None,
        }
    }
}

/// Prints no URL: there may be a password in it.
impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl Redis {
    /// A tier on the server at this URL, with the settings that [`builder`](Self::builder) begins with.
    ///
    /// # Errors
    /// What is wrong with the URL. That the server cannot be reached is no error.
    pub fn connect(url: &str) -> Result<Self, RedisError> {
        Redis::builder(url).build()
    }

    /// Starts the configuration. `redis://[[user]:[password]@]host[:port][/database]`, or
    /// `unix:///path[?db=…][&user=…][&pass=…]`.
    ///
    /// ```
    /// use larder::tier::redis::Redis;
    ///
    /// assert!(Redis::builder("http://localhost").build().is_err());
    /// ```
    pub fn builder(url: &str) -> RedisBuilder {
        RedisBuilder {
            url: url.to_owned(),
            prefix: "larder:".to_owned(),
            broadcast: false,
            timeout: Duration::from_millis(250),
            heartbeat: Duration::from_secs(1),
            backoff: (Duration::from_millis(20), Duration::from_secs(5)),
            trips_at: 5,
            rest: Duration::from_secs(1),
            max_retry_words: 16_384,
        }
    }

    /// What the connection has seen.
    ///
    /// ```
    /// use larder::tier::redis::Redis;
    ///
    /// let redis = Redis::connect("redis://127.0.0.1:1")?;
    /// assert_eq!(redis.stats().pushes, 0);
    /// # Ok::<(), larder::tier::redis::RedisError>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> RedisStats {
        self.counters.snapshot()
    }

    /// Another handle of the same connection, to ask for its [`stats`](Self::stats) after this one went into a cache. A
    /// cache needs a connection of its own.
    #[must_use]
    pub fn stats_handle(&self) -> StatsHandle {
        StatsHandle(self.counters.clone())
    }
}

/// Tells what a [`Redis`] has seen, wherever that is.
#[derive(Clone, Debug)]
pub struct StatsHandle(Arc<ConnectionCounters>);

impl StatsHandle {
    /// What the connection has seen.
    #[must_use]
    pub fn stats(&self) -> RedisStats {
        self.0.snapshot()
    }
}

impl RedisBuilder {
    /// What all keys on the server begin with. Caches with different contents need different ones. `larder:` unless
    /// set.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Has the server announce every change under the prefix instead of those of what this process has read: less for
    /// the server to remember, more messages. Better where many processes read most of a keyspace that changes
    /// seldom.
    pub fn broadcast(mut self) -> Self {
        self.broadcast = true;
        self
    }

    /// The longest that a call to the server may take, and that a connection may take to be made. One that takes longer
    /// closes the connection. 250 ms unless set.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }

    /// How often the server is asked whether it is there. A server that fell silent is noticed after this and the
    /// timeout: together the bound on staleness while nothing is heard. 1 s unless set.
    pub fn heartbeat(mut self, time: Duration) -> Self {
        self.heartbeat = time;
        self
    }

    /// The shortest and the longest wait before a lost server is dialled again; in between, it grows with a random
    /// part. 20 ms and 5 s unless set.
    pub fn backoff(mut self, shortest: Duration, longest: Duration) -> Self {
        self.backoff = (shortest, longest);
        self
    }

    /// After so many errors of the server in a row, calls fail at once for this long; then one call probes. 5 errors
    /// and 1 s unless set.
    pub fn breaker(mut self, errors: u32, rest: Duration) -> Self {
        (self.trips_at, self.rest) = (errors, rest);
        self
    }

    /// Makes the tier, and begins to dial.
    ///
    /// # Errors
    /// What is wrong with the settings. That the server cannot be reached is no error.
    pub fn build(self) -> Result<Redis, RedisError> {
        for (what, time) in [
            ("the timeout", self.timeout),
            ("the heartbeat", self.heartbeat),
            ("the shortest wait before dialling", self.backoff.0),
        ] {
            if time.is_zero() {
                return Err(RedisError::Zero { what });
            }
        }
        let (address, hello) = read_url(&self.url)?;
        let commands = Commands::new(&self.prefix);
        let mut handshake = hello;
        handshake.extend(commands.handshake(self.broadcast));
        let rules = ConnectionRules {
            timeout: self.timeout,
            heartbeat: self.heartbeat,
            backoff: self.backoff,
            trips_at: self.trips_at,
            rest: self.rest,
            handshake,
            ping: commands.ping(),
            invalidate_all: commands.incr_version(crate::tier::tiered::EVERYTHING),
            max_retry_words: self.max_retry_words,
        };
        let silence = self.heartbeat.saturating_add(self.timeout);
        let counters = Arc::new(ConnectionCounters::new(self.broadcast, silence));
        let coherence = Coherence::new(rules, counters.clone(), Box::new(crate::util::rng::unit));
        let client = connection::start(address, commands.clone(), coherence, self.timeout)
            .map_err(RedisError::Thread)?;
        Ok(Redis {
            tier: Arc::new(RedisTier::new(client, commands)),
            counters,
        })
    }
}

/// The address, and what is said first: the protocol, who we are, and which database.
fn read_url(url: &str) -> Result<(Address, Vec<Command>), RedisError> {
    let info = url
        .into_connection_info()
        .map_err(|error| RedisError::Url {
            why: error.to_string(),
        })?;
    let address = match info.addr() {
        ConnectionAddr::Tcp(host, port) => Address::Tcp(host.clone(), *port),
        ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
        ConnectionAddr::TcpTls { .. } => return Err(RedisError::Unsupported { what: "TLS" }),
        _ => {
            return Err(RedisError::Unsupported {
                what: "this kind of address",
            });
        }
    };
    let settings = info.redis_settings();
    let mut hello: Command = vec![b"HELLO".to_vec(), b"3".to_vec()];
    if settings.password().is_none() && settings.username().is_some() {
        let why = "a user without a password".to_owned();
        return Err(RedisError::Url { why });
    }
    if let Some(password) = settings.password() {
        let user = settings.username().unwrap_or("default");
        hello.extend([b"AUTH".to_vec(), user.into(), password.into()]);
    }
    let mut commands = vec![hello];
    if settings.db() != 0 {
        let database = settings.db().to_string();
        commands.push(vec![b"SELECT".to_vec(), database.into_bytes()]);
    }
    Ok((address, commands))
}

impl Tier for Redis {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<Vec<Option<Vec<u8>>>> {
        self.tier.get_many(keys)
    }

    fn add(&self, key: Vec<u8>, content: Vec<u8>, time_to_live: Duration) -> TierFuture<AddReply> {
        self.tier.add(key, content, time_to_live)
    }

    fn set_placeholder(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        time_to_live: Duration,
    ) -> TierFuture<u64> {
        self.tier.set_placeholder(key, content, time_to_live)
    }

    fn compare_and_set(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        over: ContentId,
        time_to_live: Duration,
    ) -> TierFuture<bool> {
        self.tier.compare_and_set(key, content, over, time_to_live)
    }

    fn remove(&self, key: Vec<u8>, over: ContentId) -> TierFuture<bool> {
        self.tier.remove(key, over)
    }

    fn remove_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<u64> {
        self.tier.remove_many(keys)
    }

    fn versions(&self, names: Vec<Box<str>>) -> TierFuture<Vec<Option<u64>>> {
        self.tier.versions(names)
    }

    fn sequence(&self) -> TierFuture<u64> {
        self.tier.sequence()
    }

    fn init_versions(&self, names: Vec<Box<str>>) -> TierFuture<()> {
        self.tier.init_versions(names)
    }

    fn incr_version(&self, name: Box<str>) -> TierFuture<u64> {
        self.tier.incr_version(name)
    }

    fn listen(&self, listener: Weak<dyn TierListener>) {
        self.tier.listen(listener);
    }

    fn timeout(&self) -> Duration {
        self.tier.timeout()
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.tier.client().sleep(time)
    }
}
