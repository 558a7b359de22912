//! What a server says: answers, and messages that nobody asked for.

use std::sync::Arc;

use super::commands::Layout;
use crate::tier::contract::{Change, Refusal, TierError};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// There is nothing.
    Nil,
    /// A number.
    Int(i64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A word of the protocol's, such as OK.
    Status(String),
    /// Several.
    List(Vec<Reply>),
    /// An error, in the server's words.
    Error(Arc<str>),
    /// Something that no command of ours is answered with.
    Odd(String),
}

impl Reply {
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Reply::Error(message) => Some(refusal_of(message)),
            _ => None,
        }
    }

    pub(super) fn as_error(&self) -> Option<TierError> {
        match self {
            Reply::Error(message) => Some(TierError::Refused {
                refusal: refusal_of(message),
                message: message.clone(),
            }),
            _ => None,
        }
    }

    /// Of ROLE's answer, what says which role it is.
    pub(super) fn role(self) -> Reply {
        match self {
            Reply::List(mut parts) if !parts.is_empty() => parts.swap_remove(0),
            other => other,
        }
    }

    pub(super) fn int(self) -> Result<i64, TierError> {
        match self {
            Reply::Int(number) => Ok(number),
            other => Err(other.not("a number")),
        }
    }

    pub(super) fn bytes(self) -> Result<Option<Vec<u8>>, TierError> {
        match self {
            Reply::Nil => Ok(None),
            Reply::Bytes(bytes) => Ok(Some(bytes)),
            other => Err(other.not("bytes or nothing")),
        }
    }

    pub(super) fn list(self, length: usize) -> Result<Vec<Reply>, TierError> {
        match self {
            Reply::List(parts) if parts.len() == length => Ok(parts),
            other => Err(other.not(&format!("{length} answers"))),
        }
    }

    /// A version: digits, or nothing.
    pub(super) fn version(self) -> Result<Option<u64>, TierError> {
        match self {
            Reply::Nil => Ok(None),
            Reply::Int(number) if number >= 0 => Ok(Some(number.unsigned_abs())),
            Reply::Bytes(digits) => {
                let number = std::str::from_utf8(&digits)
                    .ok()
                    .and_then(|digits| digits.parse().ok());
                number.map_or_else(
                    || Err(Reply::Bytes(digits.clone()).not("a version")),
                    |number| Ok(Some(number)),
                )
            }
            other => Err(other.not("a version")),
        }
    }

    /// A number of the sequence, which always has one.
    pub(super) fn number(self) -> Result<u64, TierError> {
        self.version()?
            .ok_or_else(|| Reply::Nil.not("a number of the sequence"))
    }

    /// The error of an answer that is not what was expected.
    fn not(&self, expected: &str) -> TierError {
        if let Some(error) = self.as_error() {
            return error;
        }
        // Never the bytes themselves: they may be somebody's secrets.
        let came = match self {
            Reply::Nil => "nothing".to_owned(),
            Reply::Int(_) => "a number".to_owned(),
            Reply::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Reply::Status(word) => format!("the word {word}"),
            Reply::List(parts) => format!("{} answers", parts.len()),
            Reply::Error(message) => message.to_string(),
            Reply::Odd(what) => what.clone(),
        };
        TierError::Garbled {
            what: format!("{came} instead of {expected}").into(),
        }
    }
}

/// The kind of an error by its first word.
pub(super) fn refusal_of(message: &str) -> Refusal {
    let word = message.split([' ', ':']).next().unwrap_or_default();
    match word {
        "NOAUTH" => Refusal::NoAuth,
        "WRONGPASS" => Refusal::WrongPass,
        "NOPERM" => Refusal::NoPermission,
        "OOM" => Refusal::OutOfMemory,
        "READONLY" => Refusal::ReadOnly,
        "MASTERDOWN" => Refusal::MasterDown,
        "LOADING" => Refusal::Loading,
        "WRONGTYPE" => Refusal::WrongType,
        // A script that meets such a command is told so in a sentence of its own.
        _ if message.contains("ACL failure") || message.contains("can't run this command") => {
            Refusal::NoPermission
        }
        _ => Refusal::Other,
    }
}

/// Why a link cannot be used, by the answers to what is sent first over it.
pub(super) fn refusal_to_arm(replies: &[Reply]) -> Option<TierError> {
    let error = replies.iter().find_map(Reply::as_error);
    // A replica may lag behind, and nobody who invalidates there would be heard: it is no tier.
    let is_primary =
        replies.last().cloned().map(Reply::role) == Some(Reply::Bytes(b"master".to_vec()));
    let replica = || TierError::Refused {
        refusal: Refusal::ReadOnly,
        message: "the server is a replica".into(),
    };
    error.or_else(|| (!is_primary).then(replica))
}

/// A message that nobody asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// These have changed.
    Changed(Vec<Change>),
    /// Everything has.
    Everything,
    /// It is about changes, and cannot be read.
    Unreadable,
    /// The connection is over.
    Closed,
    /// It is about something else.
    Foreign,
}

impl Push {
    /// Reads a push message: its kind, and what follows.
    #[must_use]
    pub fn read(kind: &str, data: &[Reply], layout: &Layout) -> Push {
        match kind {
            "invalidate" => Push::invalidation(data, layout),
            // The server says that it could not tell us of a change.
            "tracking-redir-broken" => Push::Unreadable,
            _ => Push::Foreign,
        }
    }

    fn invalidation(data: &[Reply], layout: &Layout) -> Push {
        let [what] = data else {
            return Push::Unreadable;
        };
        let keys = match what {
            Reply::Nil => return Push::Everything,
            Reply::List(keys) => keys,
            _ => return Push::Unreadable,
        };
        let mut changes = Vec::with_capacity(keys.len());
        for key in keys {
            let Reply::Bytes(key) = key else {
                return Push::Unreadable;
            };
            // A key that is not ours, or whose changes nobody waits for, is nothing to tell.
            changes.extend(layout.change(key));
        }
        Push::Changed(changes)
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::{Layout, Push, Refusal, Reply, refusal_of};
    use crate::tier::contract::Change;

    #[test]
    fn errors_are_told_apart_by_their_first_word() {
        for (message, refusal) in [
            ("NOAUTH Authentication required.", Refusal::NoAuth),
            (
                "WRONGPASS invalid username-password pair",
                Refusal::WrongPass,
            ),
            ("NOPERM this user has no permissions", Refusal::NoPermission),
            ("OOM command not allowed", Refusal::OutOfMemory),
            ("READONLY You can't write", Refusal::ReadOnly),
            ("MASTERDOWN Link with MASTER is down", Refusal::MasterDown),
            ("LOADING Redis is loading", Refusal::Loading),
            ("WRONGTYPE Operation against", Refusal::WrongType),
            ("ERR unknown command", Refusal::Other),
            ("OOMPH", Refusal::Other),
            ("", Refusal::Other),
        ] {
            assert_eq!(refusal_of(message), refusal, "{message}");
        }
    }

    #[test]
    fn pushes_are_read_or_called_unreadable() {
        let layout = Layout::new("p:");
        let bytes = |text: &str| Reply::Bytes(text.into());
        let read = |data: &[Reply]| Push::read("invalidate", data, &layout);
        assert_eq!(read(&[Reply::Nil]), Push::Everything);
        let two = Reply::List(vec![bytes("p:v:a"), bytes("p:t:b"), bytes("q:v:a")]);
        let changes = vec![Change::Key(b"a".to_vec()), Change::Version("b".into())];
        assert_eq!(read(&[two]), Push::Changed(changes));
        for odd in [
            vec![],
            vec![Reply::Int(1)],
            vec![Reply::Nil, Reply::Nil],
            vec![Reply::List(vec![bytes("p:v:a"), Reply::Nil])],
        ] {
            assert_eq!(read(&odd), Push::Unreadable, "{odd:?}");
        }
        assert_eq!(
            Push::read("tracking-redir-broken", &[], &layout),
            Push::Unreadable
        );
        assert_eq!(Push::read("message", &[], &layout), Push::Foreign);
    }

    #[test]
    fn an_answer_of_the_wrong_kind_is_said_without_its_bytes() {
        let error = Reply::Bytes(b"secret".to_vec()).int().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("6 bytes instead of a number"), "{text}");
        assert!(!text.contains("secret"));
    }
}
