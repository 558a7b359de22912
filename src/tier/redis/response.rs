//! What a server says: answers, and messages that nobody asked for.

use std::sync::Arc;

use super::commands::Commands;
use crate::tier::contract::{Change, ServerErrorKind, TierError};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// There is nothing.
    Nil,
    /// A number.
    Int(i64),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A word of the protocol's, such as OK.
    Status(String),
    /// Several.
    List(Vec<Response>),
    /// An error, in the server's words.
    Error(Arc<str>),
    /// Something that no command of ours is answered with.
    Odd(String),
}

impl Response {
    pub(super) fn error_kind(&self) -> Option<ServerErrorKind> {
        match self {
            Response::Error(message) => Some(server_error_kind(message)),
            _ => None,
        }
    }

    pub(super) fn as_error(&self) -> Option<TierError> {
        match self {
            Response::Error(message) => Some(TierError::Refused {
                kind: server_error_kind(message),
                message: message.clone(),
            }),
            _ => None,
        }
    }

    /// Of ROLE's answer, what says which role it is.
    pub(super) fn role(self) -> Response {
        match self {
            Response::List(mut parts) if !parts.is_empty() => parts.swap_remove(0),
            other => other,
        }
    }

    pub(super) fn int(self) -> Result<i64, TierError> {
        match self {
            Response::Int(number) => Ok(number),
            other => Err(other.not("a number")),
        }
    }

    pub(super) fn bytes(self) -> Result<Option<Vec<u8>>, TierError> {
        match self {
            Response::Nil => Ok(None),
            Response::Bytes(bytes) => Ok(Some(bytes)),
            other => Err(other.not("bytes or nothing")),
        }
    }

    pub(super) fn list(self, length: usize) -> Result<Vec<Response>, TierError> {
        match self {
            Response::List(parts) if parts.len() == length => Ok(parts),
            other => Err(other.not(&format!("{length} answers"))),
        }
    }

    /// A version: digits, or nothing.
    pub(super) fn version(self) -> Result<Option<u64>, TierError> {
        match self {
            Response::Nil => Ok(None),
            Response::Int(number) if number >= 0 => Ok(Some(number.unsigned_abs())),
            Response::Bytes(digits) => {
                let number = std::str::from_utf8(&digits)
                    .ok()
                    .and_then(|digits| digits.parse().ok());
                number.map_or_else(
                    || Err(Response::Bytes(digits.clone()).not("a version")),
                    |number| Ok(Some(number)),
                )
            }
            other => Err(other.not("a version")),
        }
    }

    /// A number of the sequence, which always has one.
    pub(super) fn number(self) -> Result<u64, TierError> {
        self.version()?
            .ok_or_else(|| Response::Nil.not("a number of the sequence"))
    }

    /// The error of an answer that is not what was expected.
    fn not(&self, expected: &str) -> TierError {
        if let Some(error) = self.as_error() {
            return error;
        }
        // Never the bytes themselves: they may be somebody's secrets.
        let came = match self {
            Response::Nil => "nothing".to_owned(),
            Response::Int(_) => "a number".to_owned(),
            Response::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Response::Status(word) => format!("the word {word}"),
            Response::List(parts) => format!("{} answers", parts.len()),
            Response::Error(message) => message.to_string(),
            Response::Odd(what) => what.clone(),
        };
        TierError::Garbled {
            what: format!("{came} instead of {expected}").into(),
        }
    }
}

/// The kind of an error by its first word.
pub(super) fn server_error_kind(message: &str) -> ServerErrorKind {
    let word = message.split([' ', ':']).next().unwrap_or_default();
    match word {
        "NOAUTH" => ServerErrorKind::NoAuth,
        "WRONGPASS" => ServerErrorKind::WrongPass,
        "NOPERM" => ServerErrorKind::NoPermission,
        "OOM" => ServerErrorKind::OutOfMemory,
        "READONLY" => ServerErrorKind::ReadOnly,
        "MASTERDOWN" => ServerErrorKind::MasterDown,
        "LOADING" => ServerErrorKind::Loading,
        "WRONGTYPE" => ServerErrorKind::WrongType,
        // A script that meets such a command is told so in a sentence of its own.
        _ if message.contains("ACL failure") || message.contains("can't run this command") => {
            ServerErrorKind::NoPermission
        }
        _ => ServerErrorKind::Other,
    }
}

/// Why a connection cannot be used, by the answers to its handshake.
pub(super) fn handshake_error(responses: &[Response]) -> Option<TierError> {
    let error = responses.iter().find_map(Response::as_error);
    // A replica may lag behind, and nobody who invalidates there would be heard: it is no tier.
    let is_primary =
        responses.last().cloned().map(Response::role) == Some(Response::Bytes(b"master".to_vec()));
    let replica = || TierError::Refused {
        kind: ServerErrorKind::ReadOnly,
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
    pub fn read(kind: &str, data: &[Response], commands: &Commands) -> Push {
        match kind {
            "invalidate" => Push::invalidation(data, commands),
            // The server says that it could not tell us of a change.
            "tracking-redir-broken" => Push::Unreadable,
            _ => Push::Foreign,
        }
    }

    fn invalidation(data: &[Response], commands: &Commands) -> Push {
        let [what] = data else {
            return Push::Unreadable;
        };
        let keys = match what {
            Response::Nil => return Push::Everything,
            Response::List(keys) => keys,
            _ => return Push::Unreadable,
        };
        let mut changes = Vec::with_capacity(keys.len());
        for key in keys {
            let Response::Bytes(key) = key else {
                return Push::Unreadable;
            };
            // A key that is not ours, or whose changes nobody waits for, is nothing to tell.
            changes.extend(commands.change(key));
        }
        Push::Changed(changes)
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::{Commands, Push, Response, ServerErrorKind, server_error_kind};
    use crate::tier::contract::Change;

    #[test]
    fn errors_are_told_apart_by_their_first_word() {
        for (message, kind) in [
            ("NOAUTH Authentication required.", ServerErrorKind::NoAuth),
            (
                "WRONGPASS invalid username-password pair",
                ServerErrorKind::WrongPass,
            ),
            (
                "NOPERM this user has no permissions",
                ServerErrorKind::NoPermission,
            ),
            ("OOM command not allowed", ServerErrorKind::OutOfMemory),
            ("READONLY You can't write", ServerErrorKind::ReadOnly),
            (
                "MASTERDOWN Link with MASTER is down",
                ServerErrorKind::MasterDown,
            ),
            ("LOADING Redis is loading", ServerErrorKind::Loading),
            ("WRONGTYPE Operation against", ServerErrorKind::WrongType),
            ("ERR unknown command", ServerErrorKind::Other),
            ("OOMPH", ServerErrorKind::Other),
            ("", ServerErrorKind::Other),
        ] {
            assert_eq!(server_error_kind(message), kind, "{message}");
        }
    }

    #[test]
    fn pushes_are_read_or_called_unreadable() {
        let commands = Commands::new("p:");
        let bytes = |text: &str| Response::Bytes(text.into());
        let read = |data: &[Response]| Push::read("invalidate", data, &commands);
        assert_eq!(read(&[Response::Nil]), Push::Everything);
        let two = Response::List(vec![bytes("p:v:a"), bytes("p:t:b"), bytes("q:v:a")]);
        let changes = vec![Change::Key(b"a".to_vec()), Change::Version("b".into())];
        assert_eq!(read(&[two]), Push::Changed(changes));
        for odd in [
            vec![],
            vec![Response::Int(1)],
            vec![Response::Nil, Response::Nil],
            vec![Response::List(vec![bytes("p:v:a"), Response::Nil])],
        ] {
            assert_eq!(read(&odd), Push::Unreadable, "{odd:?}");
        }
        assert_eq!(
            Push::read("tracking-redir-broken", &[], &commands),
            Push::Unreadable
        );
        assert_eq!(Push::read("message", &[], &commands), Push::Foreign);
    }

    #[test]
    fn an_answer_of_the_wrong_kind_is_said_without_its_bytes() {
        let error = Response::Bytes(b"secret".to_vec()).int().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("6 bytes instead of a number"), "{text}");
        assert!(!text.contains("secret"));
    }
}
