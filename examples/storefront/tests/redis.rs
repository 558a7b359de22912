//! Runs the program on a Redis that the test starts, kills and starts again: two processes over one
//! database have to stay coherent, and the checks have to catch a planted bug.

#![cfg(unix)]

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

const SMALL: [&str; 8] = [
    "--products=1500",
    "--requests=2000",
    "--uncached-requests=40",
    "--connections=2",
    "--price-changes=40",
    "--stampede=40",
    "--json",
    "--port=0",
];

/// For so long a condition is waited for before the test fails; far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server on a socket in a directory of its own.
struct Server {
    socket: PathBuf,
    process: Option<Child>,
    directory: TempDir,
}

impl Server {
    /// `None`, said on standard output, if there is no such program; with `CI` set there has to be.
    fn start() -> Option<Self> {
        let found = Command::new("redis-server").arg("--version").output();
        if found.is_err() {
            assert!(
                env::var_os("CI").is_none(),
                "CI is set: install redis-server"
            );
            println!("skipped: no redis-server");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self {
            socket: directory.path().join("redis.sock"),
            process: None,
            directory,
        };
        server.run();
        Some(server)
    }

    /// Starts it, empty, and returns when it answers.
    fn run(&mut self) {
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(&self.socket)
            .arg("--dir")
            .arg(self.directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.process = Some(process);
        let begun = Instant::now();
        while !self.answers() {
            assert!(begun.elapsed() < PATIENCE, "redis-server does not answer");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(&self.socket) else {
            return false;
        };
        let mut answer = [0; 5];
        stream.write_all(b"PING\r\n").is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && answer == *b"+PONG"
    }

    /// Kills it as nothing can be refused: SIGKILL.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server can be killed");
            process.wait().expect("the server ends");
        }
    }

    fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn storefront(redis_url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_storefront"));
    command.args(SMALL).args(args).env("REDIS_URL", redis_url);
    command
}

/// A run whose lines on standard error are followed; ended if the test gives up.
struct Run {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Run {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let errors = child.stderr.take().expect("its standard error");
        let (said, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let seen = Vec::new();
        Self { child, lines, seen }
    }

    /// Waits until lines with each of these in them have been said, from now on.
    fn wait_for(&mut self, wanted: &[&str]) {
        let mut wanted = wanted.to_vec();
        while !wanted.is_empty() {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    wanted.retain(|part| !line.contains(part));
                    self.seen.push(line);
                }
                Err(_) => panic!("never said: {wanted:?}; said: {:#?}", self.seen),
            }
        }
    }

    /// Waits for its end; its report, and whether it says that all is well.
    fn report(mut self) -> (Value, Option<i32>, String) {
        // The lines end when the program does.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("no end; said: {:#?}", self.seen),
            }
        }
        let said = self.seen.join("\n");
        let mut out = String::new();
        let stdout = self.child.stdout.as_mut().expect("its standard output");
        stdout.read_to_string(&mut out).expect("text");
        let code = self.child.wait().expect("the program ends").code();
        let report = serde_json::from_str(&out)
            .unwrap_or_else(|error| panic!("not one JSON object: {error}; {said}"));
        (report, code, said)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Has ended by itself, if all is well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn each_at_least(counts: &Value, least: u64) -> bool {
    counts
        .as_array()
        .is_some_and(|counts| counts.iter().all(|count| count.as_u64() >= Some(least)))
}

#[test]
fn two_processes_stay_coherent_while_redis_is_killed_and_started_again() {
    let Some(mut server) = Server::start() else {
        return;
    };
    let mut run = Run::start(storefront(&server.url(), &["--process-changes=5000"]));
    run.wait_for(&["half of the changes are under way"]);
    server.kill();
    run.wait_for(&[
        "the first has lost its link",
        "the second has lost its link",
    ]);
    server.run();
    let (report, code, said) = run.report();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(report["stale_prices"], 0);
    assert_eq!(report["pages_differing"], 0);
    let found = &report["two_processes"];
    println!("figures {found}");
    assert_eq!(found["changes"], 5000);
    assert_eq!(found["stale"], 0, "{found}");
    assert!(found["checks"].as_u64() >= Some(10_000), "{found}");
    assert!(found["push_p50_ms"].as_f64() > Some(0.0), "{found}");
    assert!(each_at_least(&found["link_losses"], 1), "{found}");
    // When the link was lost, and when it was there again.
    assert!(each_at_least(&found["flushes"], 2), "{found}");
    assert!(each_at_least(&found["dials"], 1), "{found}");
    let failed = found["failed_calls"].as_array().into_iter().flatten();
    assert!(failed.filter_map(Value::as_u64).sum::<u64>() > 0, "{found}");
    let keys_left = Command::new("redis-cli")
        .arg("-s")
        .arg(&server.socket)
        .arg("dbsize")
        .output();
    if let Ok(Output { stdout, .. }) = keys_left {
        assert_eq!(String::from_utf8_lossy(&stdout).trim(), "0");
    }
}

#[test]
fn a_process_that_is_told_of_nothing_is_found_stale() {
    let Some(server) = Server::start() else {
        return;
    };
    let args = ["--break-invalidation", "--process-changes=20"];
    let (report, code, said) = Run::start(storefront(&server.url(), &args)).report();
    assert_eq!(code, Some(1));
    assert!(
        report["two_processes"]["stale"].as_u64() > Some(0),
        "{report}"
    );
    assert!(
        said.contains("prices were stale in the two processes; first: the "),
        "{said}"
    );
}

#[test]
fn a_redis_that_cannot_be_used_is_answered_with_what_to_do() {
    let refused = |url: &str| {
        let output = storefront(url, &[]).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused("http://user:secret@localhost");
    assert!(said.contains("it is to look like redis://"), "{said}");
    assert!(said.contains("unset it to run without Redis"), "{said}");
    assert!(!said.contains("secret"), "{said}");

    let directory = tempfile::tempdir().expect("a temporary directory");
    let nobody = directory.path().join("nobody.sock");
    let said = refused(&format!("unix://{}?pass=secret", nobody.display()));
    assert!(said.contains("no link to the Redis"), "{said}");
    assert!(said.contains("Start it, correct REDIS_URL"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}
