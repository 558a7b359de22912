//! What a shared tier must do: the [`Tier`] trait, and the words it is written in.
//!
//! The trait is small so that another server can be put behind it in a page. What makes a tier *coherent* is not
//! its methods but the four promises in the trait's own documentation; `tests/tiered` holds any tier to them.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::envelope::ContentId;

/// What a tier's methods return. The work begins at the call, not at the first poll, so that several calls in a row
/// are on their way together; it goes on if the future is dropped. Needs no particular runtime.
pub type TierFuture<T> = Pin<Box<dyn Future<Output = Result<T, TierError>> + Send>>;

/// A shared cache behind the cache of this process: the L2.
///
/// Keys and contents are bytes. A content's bytes 8 to 24 are its [`ContentId`], which no two contents share; a fenced
/// call names the id of the content that must still be stored. No value is ever stored but under a fence, so a command
/// that arrives late, from a connection that has been given up, cannot bring back what was removed meanwhile.
/// *Versions* are numbers under names (tags, namespaces, and the whole), drawn from one *sequence*, so that a version
/// that moved later is the greater one. They only grow and do not expire.
///
/// # What makes it coherent
/// 1. After a [`get_many`](Self::get_many) or [`versions`](Self::versions) has answered, the
///    [`listener`](Self::listen) hears of the next change of each of those keys and names, absent ones too, or of a
///    [`flush`](TierListener::flushed); expiry may go unheard.
/// 2. A write through this handle is answered only after the listener has heard of it: of one by `add`, or under a
///    fence, as [`Change::Own`], of any other as of anybody's.
/// 3. `add` and `compare_and_set` say that they have stored only if the content has been read back, so that 1. holds
///    from then on.
/// 4. No call that begins after `flushed` has returned is answered from before it.
/// 5. What an unanswered or refused `set_placeholder`, `remove_many` or `incr_version` was to do is made up for: before
///    the next connection is used, or soon.
///
/// Every call ends within [`timeout`](Self::timeout).
pub trait Tier: Send + Sync + 'static {
    /// What is stored under each of the keys, in their order.
    fn get_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<Vec<Option<Vec<u8>>>>;

    /// Stores where there is nothing, and says whether it did, with the sequence's number at that moment.
    fn add(&self, key: Vec<u8>, content: Vec<u8>, time_to_live: Duration) -> TierFuture<AddReply>;

    /// Stores a placeholder over whatever is stored, and says which number the sequence has at that moment.
    fn set_placeholder(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        time_to_live: Duration,
    ) -> TierFuture<u64>;

    /// Stores over the content with this id, and says whether that was there. Atomic.
    fn compare_and_set(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        over: ContentId,
        time_to_live: Duration,
    ) -> TierFuture<bool>;

    /// Removes the content with this id, and says whether that was there. Atomic.
    fn remove(&self, key: Vec<u8>, over: ContentId) -> TierFuture<bool>;

    /// Removes whatever is stored under these keys, and says how many there were. Not atomic.
    fn remove_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<u64>;

    /// The version under each of the names, in their order; `None` where there is none (yet, or any more).
    fn versions(&self, names: Vec<Box<str>>) -> TierFuture<Vec<Option<u64>>>;

    /// The sequence's number: no version is greater.
    fn sequence(&self) -> TierFuture<u64>;

    /// Gives each name that has no version one: the sequence's number. Atomic for each name.
    fn init_versions(&self, names: Vec<Box<str>>) -> TierFuture<()>;

    /// Moves the version of a name to the sequence's next number, and returns that.
    fn incr_version(&self, name: Box<str>) -> TierFuture<u64>;

    /// Who hears of changes from now on. Called once, before anything else. Held weakly.
    fn listen(&self, listener: std::sync::Weak<dyn TierListener>);

    /// The longest that any other call may take.
    fn timeout(&self) -> Duration;

    /// A timer that needs no runtime of the caller's.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Who hears of the changes in a [`Tier`].
pub trait TierListener: Send + Sync {
    /// These keys and versions have changed, or may have.
    fn changed(&self, changes: &[Change]);

    /// Anything may have changed.
    fn flushed(&self, cause: FlushCause);

    /// Changes will be heard of (`true`); or will not be, until it is said again (`false`, after a flush). While they
    /// are not, calls fail.
    fn connection_changed(&self, up: bool);
}

/// One thing that changed, or may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// What is stored under a key.
    Key(Vec<u8>),
    /// What is stored under a key, by a write of this handle's own with this content id, which has been read back (or,
    /// by a fenced [`remove`](Tier::remove), the content with this id is gone): older copies are stale, and whoever
    /// made that write knows what is stored now.
    Own(Vec<u8>, ContentId),
    /// The version of a name.
    Version(Box<str>),
}

/// Why nothing that was read before may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum FlushCause {
    /// A connection was opened: what is cached was read over another, or over none.
    Connected,
    /// The connection was lost.
    Disconnected,
    /// A request, or the heartbeat, was not answered in time; the connection was closed.
    TimedOut,
    /// The server said that everything is gone (FLUSHALL, FLUSHDB, a resynchronisation).
    ServerFlush,
    /// A message about changes could not be read.
    Unreadable,
    /// The server changed its role.
    ServerChange,
}

impl FlushCause {
    /// All of them.
    pub const ALL: [FlushCause; 6] = [
        FlushCause::Connected,
        FlushCause::Disconnected,
        FlushCause::TimedOut,
        FlushCause::ServerFlush,
        FlushCause::Unreadable,
        FlushCause::ServerChange,
    ];
}

/// What [`Tier::add`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddReply {
    /// Whether it was stored: nothing was there.
    pub stored: bool,
    /// The sequence's number at that moment.
    pub sequence: u64,
}

/// Why a tier did not answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TierError {
    /// There is no connection to the server. It is being looked for.
    Down,
    /// So many calls failed lately that the circuit breaker is open: no call is made for a while.
    BreakerOpen,
    /// The answer did not come in time. Whether the server did as it was told is not known.
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The connection was lost before the answer came. Whether the server did as it was told is not known.
    Lost {
        /// What was seen of it.
        why: Arc<str>,
    },
    /// The server answered with an error.
    Refused {
        /// Which kind of error.
        kind: ServerErrorKind,
        /// The server's own words.
        message: Arc<str>,
    },
    /// The server's answer is not one that the request can have.
    Garbled {
        /// What came.
        what: Arc<str>,
    },
    /// A blocking call was made from the tier's own thread (from a removal listener, say), where waiting would never
    /// end.
    OwnThread,
    /// The value could not be turned into bytes.
    Unencodable(Arc<dyn Error + Send + Sync>),
    /// The wait for another call's load was given up.
    NotWaited {
        /// Why, in that error's words.
        why: Arc<str>,
    },
    /// So many others change the same thing that this change did not come to pass.
    Contended,
}

/// The kinds of errors that a server answers with, as far as they ask for different actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ServerErrorKind {
    /// NOAUTH: a password is needed.
    NoAuth,
    /// WRONGPASS: the password, or the user, is wrong.
    WrongPass,
    /// NOPERM: the user may not do this.
    NoPermission,
    /// OOM: the server's memory is full, and it may not evict.
    OutOfMemory,
    /// READONLY: the server is a replica.
    ReadOnly,
    /// MASTERDOWN: the server is a replica that has lost its primary.
    MasterDown,
    /// LOADING: the server reads its data from disk.
    Loading,
    /// WRONGTYPE: under the key is something that larder did not put there.
    WrongType,
    /// Anything else.
    Other,
}

impl ServerErrorKind {
    /// All of them.
    pub const ALL: [ServerErrorKind; 9] = [
        ServerErrorKind::NoAuth,
        ServerErrorKind::WrongPass,
        ServerErrorKind::NoPermission,
        ServerErrorKind::OutOfMemory,
        ServerErrorKind::ReadOnly,
        ServerErrorKind::MasterDown,
        ServerErrorKind::Loading,
        ServerErrorKind::WrongType,
        ServerErrorKind::Other,
    ];

    /// What to do about it.
    fn advice(self) -> &'static str {
        match self {
            ServerErrorKind::NoAuth => "give the URL a password",
            ServerErrorKind::WrongPass => "check the URL's user and password",
            ServerErrorKind::NoPermission => {
                "allow the user the commands and the key prefix that larder's documentation lists"
            }
            ServerErrorKind::OutOfMemory => {
                "raise the server's maxmemory, or let it evict (maxmemory-policy allkeys-lru)"
            }
            ServerErrorKind::ReadOnly => "point the URL at the primary",
            ServerErrorKind::MasterDown => {
                "bring the server's primary back, or point the URL at it"
            }
            ServerErrorKind::Loading => "wait: the server reads its data",
            ServerErrorKind::WrongType => "give larder a prefix of its own",
            ServerErrorKind::Other => "see the server's log",
        }
    }
}

impl fmt::Display for TierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TierError::Down => f.write_str(
                "there is no connection to the shared tier: it is dialled again by itself; see the tier's stats for why",
            ),
            TierError::BreakerOpen => f.write_str(
                "the shared tier failed so often that it is left alone for a while: see the tier's stats for why",
            ),
            TierError::TimedOut { after } => write!(
                f,
                "the shared tier did not answer within {after:?}: what was asked for may have been done or not"
            ),
            TierError::Lost { why } => write!(
                f,
                "the connection to the shared tier was lost ({why}): what was asked for may have been done or not"
            ),
            TierError::Refused { kind, message } => {
                write!(
                    f,
                    "the shared tier refused ({message}): {}",
                    kind.advice()
                )
            }
            TierError::Garbled { what } => write!(
                f,
                "the shared tier's answer cannot be read ({what}): is it the server that the URL names?"
            ),
            TierError::OwnThread => f.write_str(
                "a blocking call from the tier's own thread would wait for itself: hand the work to another thread",
            ),
            TierError::Unencodable(error) => {
                write!(f, "the value could not be encoded: {error}")
            }
            TierError::NotWaited { why } => write!(f, "another call's load was not waited for: {why}"),
            TierError::Contended => f.write_str(
                "others change the same key, or versions, so often that this change did not come to pass: try again",
            ),
        }
    }
}

impl Error for TierError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            TierError::Unencodable(error) => Some(&**error),
            _ => None,
        }
    }
}
