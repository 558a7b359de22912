//! The small Redis behind a socket, with a hook that may have it say something else.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use larder::tier::Tiered;
use larder::tier::redis::internals::Response;
use larder::tier::redis::{Redis, StatsHandle};
use parking_lot::Mutex;

use crate::mini_redis::{MiniRedis, Told};

/// What is said to a command.
pub(crate) enum Say {
    /// What is right.
    Right,
    /// This instead.
    Instead(Vec<u8>),
    /// This, and then what is right.
    Before(Vec<u8>),
    /// What is right, and then this.
    After(Vec<u8>),
    /// What is right, with a pause behind so many bytes.
    Split(usize),
    /// This instead, with a pause between the two.
    Parts(Vec<u8>, Vec<u8>),
    /// Nothing any more, on this connection.
    Silence,
    /// The first so many bytes of what is right, and then the end.
    Cut(usize),
}

type Hook = Box<dyn FnMut(&[String]) -> Say + Send>;

struct State {
    redis: MiniRedis,
    hook: Hook,
    writers: HashMap<u64, Arc<Mutex<TcpStream>>>,
    /// Connections that the other side has closed.
    closed: u64,
}

/// A server on loopback. Its threads end with the connections.
#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    port: u16,
}

#[allow(clippy::disallowed_methods, reason = "a socket's time is real time")]
fn now() -> Instant {
    Instant::now()
}

pub(crate) fn moment() {
    let end = now() + Duration::from_millis(1);
    while now() < end {
        thread::park_timeout(Duration::from_millis(1));
    }
}

pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = now() + Duration::from_secs(60);
    while !is_so() {
        assert!(now() < end, "never: {what}");
        moment();
    }
}

impl Fake {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            redis: MiniRedis::at(1_700_000_000_000),
            hook: Box::new(|_| Say::Right),
            writers: HashMap::new(),
            closed: 0,
        }));
        let fake = Fake { state, port };
        let accepting = fake.clone();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (serving, stream) = (accepting.clone(), stream.unwrap());
                thread::spawn(move || serving.serve(number as u64, &stream));
            }
        });
        fake
    }

    /// From now on the hook is asked what to say.
    pub(crate) fn hook(&self, hook: impl FnMut(&[String]) -> Say + Send + 'static) {
        self.state.lock().hook = Box::new(hook);
    }

    /// From now on what is right is said.
    pub(crate) fn honest(&self) {
        self.hook(|_| Say::Right);
    }

    /// No messages about changes but those that the test says.
    pub(crate) fn mute(&self) {
        self.state.lock().redis.is_mute = true;
    }

    pub(crate) fn content(&self, key: &str) -> Vec<u8> {
        let key = format!("larder:v::{key}").into_bytes();
        self.state.lock().redis.contents[&key].bytes.clone()
    }

    /// Says this to everybody, unasked.
    pub(crate) fn shout(&self, bytes: &[u8]) {
        let writers: Vec<_> = self.state.lock().writers.values().cloned().collect();
        for writer in writers {
            let _ = writer.lock().write_all(bytes);
        }
    }

    pub(crate) fn closed(&self) -> u64 {
        self.state.lock().closed
    }

    fn serve(&self, number: u64, stream: &TcpStream) {
        stream.set_nodelay(true).unwrap();
        let writer = Arc::new(Mutex::new(stream.try_clone().unwrap()));
        self.state.lock().writers.insert(number, writer.clone());
        let mut reader = BufReader::new(stream);
        while let Some(words) = read_command(&mut reader) {
            let lossy: Vec<String> = words
                .iter()
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            // Answers of one connection keep their order; what is told is sent before anything else is done.
            let mut state = self.state.lock();
            let say = (state.hook)(&lossy);
            if matches!(say, Say::Silence) {
                drop(state);
                // Whatever is still asked is not answered.
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
                break;
            }
            let (response, told) = state.redis.run(number, &words);
            let mut out = writer.lock();
            let ends = speak(&mut out, say, &encode(&response)).is_none();
            drop(out);
            state.tell(told);
            drop(state);
            if ends {
                break;
            }
        }
        let mut state = self.state.lock();
        state.writers.remove(&number);
        state.redis.forget(number);
        state.closed += 1;
    }
}

impl State {
    fn tell(&self, told: Vec<Told>) {
        for (to, keys) in told {
            if let Some(writer) = self.writers.get(&to) {
                let _ = writer.lock().write_all(&push(keys.as_deref()));
            }
        }
    }
}

/// `None` if the connection is to end.
fn speak(out: &mut TcpStream, say: Say, right: &[u8]) -> Option<()> {
    let mut write = |bytes: &[u8]| out.write_all(bytes).ok();
    match say {
        Say::Right => write(right),
        Say::Instead(bytes) => write(&bytes),
        Say::Before(bytes) => write(&[&bytes, right].concat()),
        Say::After(bytes) => write(&[right, &bytes].concat()),
        Say::Split(at) => {
            let (first, rest) = right.split_at(at.min(right.len()));
            write(first)?;
            moment();
            write(rest)
        }
        Say::Parts(first, rest) => {
            write(&first)?;
            moment();
            write(&rest)
        }
        Say::Cut(at) => {
            write(&right[..at.min(right.len())])?;
            None
        }
        Say::Silence => None,
    }
}

fn read_command(reader: &mut BufReader<&TcpStream>) -> Option<Vec<Vec<u8>>> {
    let mut header = |sign: &str| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let number = line.strip_prefix(sign)?.trim_end().parse::<usize>().ok()?;
        Some(number)
    };
    let count = header("*")?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length: usize = line.strip_prefix('$')?.trim_end().parse().ok()?;
        let mut word = vec![0; length + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(length);
        words.push(word);
    }
    Some(words)
}

/// An answer on the wire.
pub(crate) fn encode(response: &Response) -> Vec<u8> {
    match response {
        Response::Nil => b"_\r\n".to_vec(),
        Response::Int(number) => format!(":{number}\r\n").into_bytes(),
        Response::Bytes(bytes) => {
            [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
        }
        Response::Status(word) => format!("+{word}\r\n").into_bytes(),
        Response::List(parts) => {
            let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
            parts.iter().for_each(|part| bytes.extend(encode(part)));
            bytes
        }
        Response::Error(message) => format!("-{message}\r\n").into_bytes(),
        // HELLO's.
        Response::Odd(_) => b"%1\r\n+proto\r\n:3\r\n".to_vec(),
    }
}

/// A message about changes, with the server's own names of the keys.
pub(crate) fn push(keys: Option<&[Vec<u8>]>) -> Vec<u8> {
    let what = match keys {
        None => Response::Nil,
        Some(keys) => Response::List(keys.iter().cloned().map(Response::Bytes).collect()),
    };
    [&b">2\r\n$10\r\ninvalidate\r\n"[..], &encode(&what)].concat()
}

/// A message about changes of the keys that the users name so.
pub(crate) fn push_of(keys: &[&str]) -> Vec<u8> {
    let keys: Vec<Vec<u8>> = keys
        .iter()
        .map(|key| format!("larder:v::{key}").into_bytes())
        .collect();
    push(Some(&keys))
}

pub(crate) type Node = Tiered<String, u64>;

impl Fake {
    /// A link to it, that notices soon.
    pub(crate) fn link(&self) -> (Redis, StatsHandle) {
        let link = Redis::builder(&format!("redis://127.0.0.1:{}", self.port))
            .timeout(Duration::from_millis(400))
            .heartbeat(Duration::from_millis(100))
            .backoff(Duration::from_millis(5), Duration::from_millis(50))
            .build()
            .unwrap();
        let watch = link.stats_handle();
        (link, watch)
    }

    /// A process over it.
    pub(crate) fn node(&self) -> (Node, StatsHandle) {
        let (link, watch) = self.link();
        let node = Tiered::builder(link).max_capacity(1_000).build().unwrap();
        (node, watch)
    }

    /// A process over it that is past its first value.
    pub(crate) fn warm(&self) -> (Node, StatsHandle) {
        let (node, watch) = self.node();
        until("there is a link", || node.is_connected());
        until("the first value is stored", || {
            node.get_or_load("warm", || 0).unwrap();
            node.get("warm").is_ok_and(|found| found.is_some())
        });
        (node, watch)
    }
}

/// Whether a read is answered by the node's own copy.
pub(crate) fn is_kept(node: &Node, key: &str) -> bool {
    let before = node.tiered_stats();
    let found = node.get(key).unwrap();
    found.is_some() && node.tiered_stats() == before
}
