//! A `redis-server` of the test's own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use larder::tier::Tiered;
use larder::tier::redis::{Redis, RedisBuilder};
use parking_lot::Mutex;

/// The longest that anything which has to happen may take, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Killed when dropped.
pub(crate) struct Server {
    directory: PathBuf,
    process: Mutex<Option<Child>>,
    settings: Vec<String>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "another program's time is real time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets a moment pass.
pub(crate) fn moment(milliseconds: u64) {
    let end = now() + Duration::from_millis(milliseconds);
    while now() < end {
        thread::park_timeout(end.saturating_duration_since(now()));
    }
}

/// Waits until something is so that has to become so.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = now() + PATIENCE;
    while !is_so() {
        assert!(now() < end, "never: {what}");
        moment(1);
    }
}

fn binary() -> OsString {
    std::env::var_os("LARDER_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

impl Server {
    /// Whether there is a server to test with. Where `CI` is set there has to be one.
    pub(crate) fn is_installed() -> bool {
        let is_there = Command::new(binary())
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !is_there {
            assert!(
                std::env::var_os("CI").is_none(),
                "with CI set there has to be a redis-server (Debian: apt-get install redis-server)"
            );
            println!("skipped: no redis-server");
        }
        is_there
    }

    /// A fresh, empty one; `None` if there is none to be had.
    pub(crate) fn start() -> Option<Self> {
        Server::start_with(&[])
    }

    /// With settings as on its command line.
    pub(crate) fn start_with(settings: &[&str]) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if !Server::is_installed() {
            return None;
        }
        let name = format!(
            "larder-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let server = Server {
            directory,
            process: Mutex::new(None),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
        };
        server.run(&[]);
        Some(server)
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts it again, with further settings.
    pub(crate) fn run(&self, more: &[&str]) {
        self.launch(more);
        until("the server answers", || self.cli(&["PING"]) == "PONG");
    }

    /// Starts the server again, without waiting until it answers.
    pub(crate) fn launch(&self, more: &[&str]) {
        let _ = std::fs::remove_file(self.socket());
        let process = Command::new(binary())
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "yes", "--loglevel", "warning"])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(&self.directory)
            .args(&self.settings)
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        *self.process.lock() = Some(process);
        until("there is a socket", || self.socket().exists());
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&self) {
        if let Some(mut process) = self.process.lock().take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Sends it a signal by name: STOP, CONT.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.lock().as_ref().map(Child::id).unwrap();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &id.to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// What the server answers to a command of ours, over a connection of its own.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        self.cli_as(&[], command)
    }

    /// What the server answers to a command of ours that is sent with these credentials.
    pub(crate) fn cli_as(&self, credentials: &[&str], command: &[&str]) -> String {
        let said = Command::new("redis-cli")
            .arg("-s")
            .arg(self.socket())
            .args(credentials)
            .args(command)
            .stderr(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }

    /// A number out of INFO.
    pub(crate) fn info(&self, name: &str) -> u64 {
        let info = self.cli(&["INFO", "everything"]);
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or("0").trim().parse().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A link that notices soon.
    pub(crate) fn link(&self) -> RedisBuilder {
        Redis::builder(&self.url())
            .heartbeat(Duration::from_millis(50))
            .backoff(Duration::from_millis(5), Duration::from_millis(100))
            .breaker(5, Duration::from_millis(50))
    }

    /// A process with a cache of its own, past its first value.
    pub(crate) fn node(&self, link: Redis) -> Tiered<String, u64> {
        let node = Tiered::builder(link).max_capacity(10_000).build().unwrap();
        until("there is a link", || node.is_connected());
        node.get_or_load("warm", || 0).unwrap();
        node
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
