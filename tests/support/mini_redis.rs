//! A Redis in a page, as far as larder asks for it: the commands and scripts of `commands.rs`, expiry, and who is told
//! of what. No socket and no clock: `tests/resp/` puts it behind a wire, `tests/simulation/` behind a network that
//! misbehaves, and `tests/redis/` holds it against the real server.

use std::collections::{BTreeMap, BTreeSet};

use larder::tier::redis::internals::Response;

/// A message about changes: to which connection, and the keys; `None` for everything.
pub(crate) type Told = (u64, Option<Vec<Vec<u8>>>);

#[derive(Default)]
pub(crate) struct MiniRedis {
    pub(crate) contents: BTreeMap<Vec<u8>, Content>,
    connections: BTreeMap<u64, Connection>,
    /// Milliseconds since 1970.
    pub(crate) now: u64,
    /// Which run of the server this is.
    pub(crate) run: u64,
    pub(crate) is_replica: bool,
    pub(crate) is_full: bool,
    /// Tells nobody of anything.
    pub(crate) is_mute: bool,
    told: Vec<Told>,
}

#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    expires: u64,
}

#[derive(Default)]
struct Connection {
    is_tracking: bool,
    has_read: BTreeSet<Vec<u8>>,
    /// With a prefix, it is told of everything under it that others do.
    prefix: Option<Vec<u8>>,
}

fn number(word: &[u8]) -> u64 {
    std::str::from_utf8(word).unwrap().parse().unwrap()
}

fn error(message: &str) -> Response {
    Response::Error(message.into())
}

impl MiniRedis {
    /// An empty one, at this time.
    pub(crate) fn at(now: u64) -> Self {
        MiniRedis {
            now,
            ..MiniRedis::default()
        }
    }

    /// Runs a command of a connection. What is to be told because of it comes after its answer.
    pub(crate) fn run(&mut self, connection: u64, words: &[Vec<u8>]) -> (Response, Vec<Told>) {
        self.connections.entry(connection).or_default();
        let name = String::from_utf8_lossy(&words[0]).to_uppercase();
        let writes = matches!(&*name, "SET" | "DEL" | "EVAL");
        let response = if self.is_replica && writes {
            error("READONLY You can't write against a read only replica.")
        } else if self.is_full && matches!(&*name, "SET" | "EVAL") {
            error("OOM command not allowed when used memory > 'maxmemory'.")
        } else {
            self.answer(connection, &name, &words[1..])
        };
        (response, std::mem::take(&mut self.told))
    }

    fn answer(&mut self, connection: u64, name: &str, words: &[Vec<u8>]) -> Response {
        match name {
            "HELLO" => Response::Odd("a map".into()),
            "SELECT" => Response::Status("OK".into()),
            "CLIENT" => {
                let at = words.iter().position(|word| word == b"PREFIX");
                let connection = self.connections.entry(connection).or_default();
                connection.is_tracking = true;
                connection.prefix = at.map(|at| words[at + 1].clone());
                Response::Status("OK".into())
            }
            "ROLE" => {
                let role = if self.is_replica { "slave" } else { "master" };
                Response::List(vec![Response::Bytes(role.into()), Response::Int(0)])
            }
            "GET" => self.get(connection, &words[0]),
            "MGET" => Response::List(words.iter().map(|key| self.get(connection, key)).collect()),
            "GETRANGE" => {
                let (first, last) = (number(&words[1]), number(&words[2]));
                Response::Bytes(self.range(connection, &words[0], first, last))
            }
            "SET" => {
                assert_eq!(words[2], b"PX");
                self.set(connection, &words[0], &words[1], number(&words[3]));
                Response::Status("OK".into())
            }
            "DEL" => {
                let gone = words.iter().filter(|key| self.remove(connection, key));
                Response::Int(gone.count() as i64)
            }
            "EVAL" => {
                let keys = number(&words[1]) as usize;
                let (keys, arguments) = words[2..].split_at(keys);
                self.script(
                    connection,
                    &String::from_utf8_lossy(&words[0]),
                    keys,
                    arguments,
                )
            }
            other => panic!("larder does not ask for {other}"),
        }
    }

    fn script(&mut self, by: u64, text: &str, keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Response {
        // Each known by a phrase of its own.
        if text.contains("run_id") && keys.len() == 1 {
            let run = self.run.to_string().into_bytes();
            if self.get(by, &keys[0]) == Response::Nil {
                self.set(by, &keys[0], &run, u64::MAX);
            }
            return Response::Int(0);
        }
        if text.contains("run_id") {
            return self.new_run(by, keys);
        }
        if text.contains("'NX'") {
            let is_free = self.live(by, &keys[0]).is_none();
            if is_free {
                self.set(by, &keys[0], &arguments[0], number(&arguments[1]));
            }
            let sequence = self.sequence(by, &keys[1]);
            return Response::List(vec![Response::Int(is_free.into()), digits(sequence)]);
        }
        if text.contains("return sequence(KEYS[2])") {
            self.set(by, &keys[0], &arguments[0], number(&arguments[1]));
            return digits(self.sequence(by, &keys[1]));
        }
        if text.contains("~= ARGV[5]") {
            let (first, last) = (number(&arguments[2]), number(&arguments[3]));
            if self.range(by, &keys[0], first, last) != arguments[4] {
                return Response::Int(0);
            }
            self.set(by, &keys[0], &arguments[0], number(&arguments[1]));
            return Response::Int(1);
        }
        if text.contains("~= ARGV[3]") {
            let (first, last) = (number(&arguments[0]), number(&arguments[1]));
            if self.range(by, &keys[0], first, last) != arguments[2] {
                return Response::Bytes(Vec::new());
            }
            self.remove(by, &keys[0]);
            return Response::Bytes(arguments[2].clone());
        }
        if text.contains("'EXISTS'") {
            if self.live(by, &keys[0]).is_some() {
                return Response::Int(0);
            }
            let at = self.sequence(by, &keys[1]);
            self.set(by, &keys[0], at.to_string().as_bytes(), u64::MAX);
            return Response::Int(1);
        }
        if text.contains("'INCR'") {
            self.sequence(by, &keys[1]);
            let at = self.increment(by, &keys[1]);
            self.set(by, &keys[0], at.to_string().as_bytes(), u64::MAX);
            return Response::Int(at as i64);
        }
        assert!(
            text.contains("return sequence(KEYS[1])"),
            "an unknown script"
        );
        digits(self.sequence(by, &keys[0]))
    }

    fn new_run(&mut self, by: u64, keys: &[Vec<u8>]) -> Response {
        let run = self.run.to_string().into_bytes();
        if self.get(by, &keys[2]) == Response::Bytes(run.clone()) {
            return Response::Int(0);
        }
        let time = self.now * 1_000;
        if self.sequence(by, &keys[1]) < time {
            self.set(by, &keys[1], time.to_string().as_bytes(), u64::MAX);
        }
        let at = self.increment(by, &keys[1]);
        self.set(by, &keys[0], at.to_string().as_bytes(), u64::MAX);
        self.set(by, &keys[2], &run, u64::MAX);
        Response::Int(1)
    }

    fn sequence(&mut self, by: u64, key: &[u8]) -> u64 {
        if self.live(by, key).is_none() {
            let micros = (self.now * 1_000).to_string();
            self.set(by, key, micros.as_bytes(), u64::MAX);
        }
        self.remember(by, key);
        number(&self.contents[key].bytes)
    }

    fn increment(&mut self, by: u64, key: &[u8]) -> u64 {
        let next = number(&self.contents[key].bytes) + 1;
        self.set(by, key, next.to_string().as_bytes(), u64::MAX);
        next
    }

    /// What lives there; what has expired goes, and that is told.
    fn live(&mut self, by: u64, key: &[u8]) -> Option<&Content> {
        if self.contents.get(key)?.expires <= self.now {
            self.remove(by, key);
        }
        self.contents.get(key)
    }

    fn remember(&mut self, by: u64, key: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&by) {
            if connection.is_tracking && connection.prefix.is_none() {
                connection.has_read.insert(key.to_vec());
            }
        }
    }

    fn get(&mut self, by: u64, key: &[u8]) -> Response {
        let found = self.live(by, key).map(|content| content.bytes.clone());
        self.remember(by, key);
        found.map_or(Response::Nil, Response::Bytes)
    }

    fn range(&mut self, by: u64, key: &[u8], first: u64, last: u64) -> Vec<u8> {
        let Response::Bytes(bytes) = self.get(by, key) else {
            return Vec::new();
        };
        let end = bytes.len().min(last as usize + 1);
        bytes.get(first as usize..end).unwrap_or_default().to_vec()
    }

    fn set(&mut self, by: u64, key: &[u8], bytes: &[u8], time: u64) {
        let content = Content {
            bytes: bytes.to_vec(),
            expires: self.now.saturating_add(time),
        };
        self.contents.insert(key.to_vec(), content);
        self.tell(by, key);
    }

    fn remove(&mut self, by: u64, key: &[u8]) -> bool {
        let Some(content) = self.contents.remove(key) else {
            return false;
        };
        self.tell(by, key);
        content.expires > self.now
    }

    fn tell(&mut self, by: u64, key: &[u8]) {
        if self.is_mute {
            return;
        }
        for (number, connection) in &mut self.connections {
            let concerned = match &connection.prefix {
                Some(prefix) => *number != by && key.starts_with(prefix),
                None => connection.has_read.remove(key),
            };
            if concerned {
                self.told.push((*number, Some(vec![key.to_vec()])));
            }
        }
    }

    /// FLUSHALL.
    pub(crate) fn delete_everything(&mut self) -> Vec<Told> {
        self.contents.clear();
        for (number, connection) in &mut self.connections {
            connection.has_read.clear();
            if connection.is_tracking && !self.is_mute {
                self.told.push((*number, None));
            }
        }
        std::mem::take(&mut self.told)
    }

    /// Evicts this key.
    pub(crate) fn evict(&mut self, key: &[u8]) -> Vec<Told> {
        self.remove(u64::MAX, key);
        std::mem::take(&mut self.told)
    }

    /// The connection is gone.
    pub(crate) fn forget(&mut self, connection: u64) {
        self.connections.remove(&connection);
    }
}

fn digits(number: u64) -> Response {
    Response::Bytes(number.to_string().into_bytes())
}
