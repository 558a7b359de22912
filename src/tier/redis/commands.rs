//! Where things lie on the server, and the scripts that change them.
//!
//! Under the prefix: `v:` and a key, its content; `t:` and a name, its version; `s`, the sequence; `r`, which run of
//! the server all this was written under. Every script names the keys that it touches, and touches one key of the
//! user's and the sequence.

use std::time::Duration;

use crate::tier::contract::Change;
use crate::tier::envelope::{CONTENT_ID, ContentId};

/// One command: its words.
pub type Command = Vec<Vec<u8>>;

/// The names of keys on the server.
#[derive(Clone, Debug)]
pub struct Commands {
    prefix: Box<[u8]>,
}

/// Reads the sequence, after giving it its first number where it has none: the server's time in microseconds, so
/// that a sequence that was lost goes on above where it was (it grows by one a bump).
const SEQUENCE: &str = "local function sequence(key) \
     local at = redis.call('GET', key) \
     if at then return at end \
     local time = redis.call('TIME') \
     at = string.format('%d%06d', time[1], time[2]) \
     redis.call('SET', key, at) \
     return at end ";

const ADD: &str = "local stored = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) \
     return {stored and 1 or 0, sequence(KEYS[2])}";

const SET_PLACEHOLDER: &str =
    "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return sequence(KEYS[2])";

const COMPARE_AND_SET: &str = "if redis.call('GETRANGE', KEYS[1], ARGV[3], ARGV[4]) ~= ARGV[5] then return 0 end \
     redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1";

const COMPARE_AND_DELETE: &str = "if redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[2]) ~= ARGV[3] then return '' end \
     redis.call('DEL', KEYS[1]) return ARGV[3]";

const INCR_VERSION: &str = "sequence(KEYS[2]) local at = redis.call('INCR', KEYS[2]) \
     redis.call('SET', KEYS[1], string.format('%d', at)) return at";

/// The first number of a name: the sequence's. If that is still the one at which a load began, nothing has moved since;
/// otherwise it is a greater one, and that load's value is out of date.
const INIT_VERSION: &str = "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end \
     redis.call('SET', KEYS[1], sequence(KEYS[2])) return 1";

/// Numbers of the sequence stay below 2^53, which a script's numbers hold exactly: microseconds since 1970, and one
/// a bump, until the year 2255.
const READ_SEQUENCE: &str = "return sequence(KEYS[1])";

/// Which run of which history the server is in: it was started again, or took another's place, if that has changed.
const RUN: &str = "local info = redis.call('INFO', 'server') .. redis.call('INFO', 'replication') \
     local run = string.match(info, 'run_id:(%x+)') .. string.match(info, 'master_replid:(%x+)') ";

/// Sent before a connection is used: if this is not the server that wrote all this (it came back, perhaps with an older
/// copy of its data, or a replica that lacked the latest took its place), nothing that is there is valid any more. The
/// sequence may have been set back; so it goes on from the server's time. The first process that meets the new run does
/// so, for all.
const NEW_RUN: &str = "if redis.call('GET', KEYS[3]) == run then return 0 end \
     local time = redis.call('TIME') \
     local at = string.format('%d%06d', time[1], time[2]) \
     local was = redis.call('GET', KEYS[2]) \
     if not was or tonumber(was) < tonumber(at) then redis.call('SET', KEYS[2], at) end \
     redis.call('SET', KEYS[1], string.format('%d', redis.call('INCR', KEYS[2]))) \
     redis.call('SET', KEYS[3], run) return 1";

/// Sent with each heartbeat: a server that evicts what is not asked for shall keep the run, or have it again. (It is
/// the one of this connection's handshake: a change would have ended the connection.)
const KEEP_RUN: &str =
    "if redis.call('GET', KEYS[1]) then return 0 end redis.call('SET', KEYS[1], run) return 1";

fn words(words: &[&[u8]]) -> Command {
    words.iter().map(|word| word.to_vec()).collect()
}

fn text(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// Milliseconds, at least one: a time to live of none would be refused.
fn millis(time: Duration) -> Vec<u8> {
    // Redis adds them to the time of day in a signed word.
    let most = 1 << 53;
    text(
        u64::try_from(time.as_millis())
            .unwrap_or(most)
            .clamp(1, most),
    )
}

fn script(parts: &[&str], keys: &[&[u8]], arguments: &[&[u8]]) -> Command {
    let mut command = vec![
        b"EVAL".to_vec(),
        parts.concat().into_bytes(),
        text(keys.len()),
    ];
    command.extend(keys.iter().chain(arguments).map(|word| word.to_vec()));
    command
}

impl Commands {
    /// Under a prefix.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Commands {
            prefix: prefix.as_bytes().into(),
        }
    }

    fn at(&self, kind: &[u8], name: &[u8]) -> Vec<u8> {
        [&self.prefix, kind, name].concat()
    }

    fn content(&self, key: &[u8]) -> Vec<u8> {
        self.at(b"v:", key)
    }

    fn version(&self, name: &str) -> Vec<u8> {
        self.at(b"t:", name.as_bytes())
    }

    fn sequence(&self) -> Vec<u8> {
        self.at(b"s", b"")
    }

    /// What changed if this key on the server did.
    #[must_use]
    pub fn change(&self, key: &[u8]) -> Option<Change> {
        let rest = key.strip_prefix(&*self.prefix)?;
        if let Some(key) = rest.strip_prefix(b"v:") {
            return Some(Change::Key(key.to_vec()));
        }
        let name = std::str::from_utf8(rest.strip_prefix(b"t:")?).ok()?;
        Some(Change::Version(name.into()))
    }

    /// The handshake of a connection: tracking, whether all is of this server's run, and who the server is.
    #[must_use]
    pub fn handshake(&self, broadcast: bool) -> Vec<Command> {
        let tracking = if broadcast {
            // Here echoes would come after all answers of the server's turn, too late to be told apart; and what the
            // server evicts by itself is announced all the same.
            words(&[
                b"CLIENT",
                b"TRACKING",
                b"ON",
                b"BCAST",
                b"PREFIX",
                &self.prefix,
                b"NOLOOP",
            ])
        } else {
            words(&[b"CLIENT", b"TRACKING", b"ON"])
        };
        let everything = self.version(crate::tier::tiered::EVERYTHING);
        let keys: [&[u8]; 3] = [&everything, &self.sequence(), &self.at(b"r", b"")];
        vec![tracking, script(&[RUN, NEW_RUN], &keys, &[]), self.role()]
    }

    /// What is sent with each heartbeat.
    #[must_use]
    pub fn ping(&self) -> Vec<Command> {
        let keep = script(&[RUN, KEEP_RUN], &[&self.at(b"r", b"")], &[]);
        vec![keep, self.role()]
    }

    fn role(&self) -> Command {
        words(&[b"ROLE"])
    }

    pub(super) fn get_many(&self, keys: &[Vec<u8>]) -> Command {
        self.read_all(keys.iter().map(|key| self.content(key)).collect())
    }

    pub(super) fn versions(&self, names: &[Box<str>]) -> Command {
        self.read_all(names.iter().map(|name| self.version(name)).collect())
    }

    fn read_all(&self, mut keys: Vec<Vec<u8>>) -> Command {
        let command = if keys.len() == 1 { "GET" } else { "MGET" };
        keys.insert(0, command.into());
        keys
    }

    pub(super) fn add(&self, key: &[u8], content: &[u8], time: Duration) -> Command {
        let keys: [&[u8]; 2] = [&self.content(key), &self.sequence()];
        script(&[SEQUENCE, ADD], &keys, &[content, &millis(time)])
    }

    /// Reads the content id of what is stored under a key.
    pub(super) fn content_id(&self, key: &[u8]) -> Command {
        let (first, last) = content_id_bounds();
        words(&[b"GETRANGE", &self.content(key), &first, &last])
    }

    pub(super) fn set_placeholder(&self, key: &[u8], content: &[u8], time: Duration) -> Command {
        let keys: [&[u8]; 2] = [&self.content(key), &self.sequence()];
        script(
            &[SEQUENCE, SET_PLACEHOLDER],
            &keys,
            &[content, &millis(time)],
        )
    }

    pub(super) fn compare_and_set(
        &self,
        key: &[u8],
        content: &[u8],
        content_id: ContentId,
        time: Duration,
    ) -> Command {
        let (first, last) = content_id_bounds();
        let arguments: [&[u8]; 5] = [content, &millis(time), &first, &last, &content_id.0];
        script(&[COMPARE_AND_SET], &[&self.content(key)], &arguments)
    }

    pub(super) fn remove(&self, keys: &[Vec<u8>]) -> Command {
        let mut command = vec![b"DEL".to_vec()];
        command.extend(keys.iter().map(|key| self.content(key)));
        command
    }

    pub(super) fn compare_and_delete(&self, key: &[u8], content_id: ContentId) -> Command {
        let (first, last) = content_id_bounds();
        script(
            &[COMPARE_AND_DELETE],
            &[&self.content(key)],
            &[&first, &last, &content_id.0],
        )
    }

    pub(super) fn read_sequence(&self) -> Command {
        script(&[SEQUENCE, READ_SEQUENCE], &[&self.sequence()], &[])
    }

    pub(super) fn init_versions(&self, name: &str) -> Command {
        let keys: [&[u8]; 2] = [&self.version(name), &self.sequence()];
        script(&[SEQUENCE, INIT_VERSION], &keys, &[])
    }

    /// Moves the version of a name.
    #[must_use]
    pub fn incr_version(&self, name: &str) -> Command {
        let keys: [&[u8]; 2] = [&self.version(name), &self.sequence()];
        script(&[SEQUENCE, INCR_VERSION], &keys, &[])
    }
}

fn content_id_bounds() -> (Vec<u8>, Vec<u8>) {
    (text(CONTENT_ID.start), text(CONTENT_ID.end - 1))
}
