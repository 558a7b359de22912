//! A Redis server of the bench's own, on a unix socket and on a TCP port of the loopback, in a folder that goes with
//! it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::BenchError;

/// How long it may take until it answers.
const PATIENCE: Duration = Duration::from_secs(10);
/// Another process may take the free port before the server does.
const TRIES: usize = 5;
/// How much of its log an error shows.
const LOG_LINES: usize = 5;

/// Killed when it is dropped.
pub struct Server {
    process: Child,
    folder: TempDir,
    port: u16,
}

/// How a client reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Unix,
    Tcp,
}

impl Link {
    pub const ALL: [Link; 2] = [Link::Unix, Link::Tcp];

    pub fn name(self) -> &'static str {
        match self {
            Link::Unix => "unix",
            Link::Tcp => "TCP",
        }
    }
}

impl Server {
    /// Starts it, and waits until it answers.
    pub fn start(program: &Path) -> Result<Self, BenchError> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            let mut server = Server::launch(program)?;
            match server.wait() {
                Err(BenchError::Server { .. }) if tries > 0 && server.has_ended()? => {}
                waited => return waited.map(|()| server),
            }
        }
    }

    fn launch(program: &Path) -> Result<Self, BenchError> {
        let folder = tempfile::Builder::new()
            .prefix("larder-tiered-")
            .tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let process = Command::new(program)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .arg("--unixsocket")
            .arg(folder.path().join("redis.sock"))
            .arg("--dir")
            .arg(folder.path())
            .arg("--logfile")
            .arg(folder.path().join("redis.log"))
            // Nothing is kept: a fork to write a snapshot would be in the figures.
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|why| BenchError::NoServer {
                program: program.to_owned(),
                why,
            })?;
        Ok(Server {
            process,
            folder,
            port,
        })
    }

    fn has_ended(&mut self) -> Result<bool, BenchError> {
        Ok(self.process.try_wait()?.is_some())
    }

    fn wait(&mut self) -> Result<(), BenchError> {
        let begun = Instant::now();
        loop {
            if self.has_ended()? {
                return Err(self.failure("ended by itself"));
            }
            if let Ok(mut connection) = self.connect(Link::Unix) {
                redis::cmd("PING").exec(&mut connection)?;
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(self.failure("did not answer"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn failure(&self, what: &'static str) -> BenchError {
        let log = std::fs::read_to_string(self.folder.path().join("redis.log"));
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        BenchError::Server { what, log }
    }

    /// Its address, as larder and the redis crate both read it.
    pub fn url(&self, link: Link) -> String {
        match link {
            Link::Unix => format!("unix://{}/redis.sock", self.folder.path().display()),
            Link::Tcp => format!("redis://127.0.0.1:{}/", self.port),
        }
    }

    /// Its address for a connection over which the server may tell of changes.
    pub fn resp3_url(&self, link: Link) -> String {
        format!("{}?protocol=resp3", self.url(link))
    }

    /// The port of the loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A plain connection of the redis crate's.
    pub fn connect(&self, link: Link) -> Result<redis::Connection, BenchError> {
        Ok(redis::Client::open(self.url(link))?.get_connection()?)
    }

    pub fn version(&self) -> Result<String, BenchError> {
        let mut connection = self.connect(Link::Unix)?;
        let info: redis::InfoDict = redis::cmd("INFO").arg("server").query(&mut connection)?;
        Ok(info.get("redis_version").unwrap_or_else(|| "?".to_owned()))
    }

    /// Forgets everything, so that no row finds what another has left.
    pub fn clear(&self) -> Result<(), BenchError> {
        Ok(redis::cmd("FLUSHALL").exec(&mut self.connect(Link::Unix)?)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
