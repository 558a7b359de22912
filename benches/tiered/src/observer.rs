//! Reads the server's own account of what others send it.
//!
//! MONITOR names each command, and tells those that a client sent from those that a script ran; the statistics of
//! commands have to come to the same sums. A round trip is a read of the server's from a socket: whoever is counted
//! waits for each answer before it sends again, and sends what fits into one read.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error, ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

use redis::{Connection, InfoDict, cmd};

use crate::error::BenchError;
use crate::server::{Link, Server};

/// How long the server may take to say what it has seen.
const PATIENCE: Duration = Duration::from_secs(10);
/// larder's, by which it asks whether the server is there. Left out of every count.
const HEARTBEAT: &str = "ROLE";

/// How often which command.
pub type Names = BTreeMap<String, u64>;

/// What the server saw.
pub struct Seen {
    pub sent: Names,
    pub in_scripts: Names,
    pub round_trips: u64,
}

/// Reads the server's counters. It speaks over TCP, and those who are counted over the unix socket.
pub struct Observer {
    connection: Connection,
    monitor: BufReader<TcpStream>,
}

impl Observer {
    pub fn new(server: &Server) -> Result<Self, BenchError> {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"MONITOR\r\n")?;
        Ok(Observer {
            connection: server.connect(Link::Tcp)?,
            monitor: BufReader::new(stream),
        })
    }

    /// What the server sees while this goes on.
    pub fn watch(
        &mut self,
        mut work: impl FnMut() -> Result<(), BenchError>,
    ) -> Result<Seen, BenchError> {
        self.say("begin")?;
        self.read_until("begin", |_, _| {})?;
        cmd("CONFIG").arg("RESETSTAT").exec(&mut self.connection)?;
        work()?;
        self.say("end")?;
        let info: InfoDict = cmd("INFO").arg("ALL").query(&mut self.connection)?;
        let (mut sent, mut in_scripts) = (Names::new(), Names::new());
        self.read_until("end", |origin, name| {
            let names = match origin {
                "lua" => &mut in_scripts,
                origin if origin.starts_with("unix:") => &mut sent,
                _ => return,
            };
            *names.entry(name.to_owned()).or_default() += 1;
        })?;
        for name in sent.keys().chain(in_scripts.keys()) {
            let seen = [&sent, &in_scripts].map(|names| names.get(name).unwrap_or(&0));
            agree(&info, name, seen.into_iter().sum())?;
        }
        let heartbeats = sent.remove(HEARTBEAT).unwrap_or(0);
        let reads: u64 = info.get("total_reads_processed").unwrap_or(0);
        // Two of them were of this connection: "end", and the question for the statistics.
        let round_trips = reads.saturating_sub(2 + heartbeats);
        Ok(Seen {
            sent,
            in_scripts,
            round_trips,
        })
    }

    fn say(&mut self, what: &str) -> Result<(), BenchError> {
        Ok(cmd("ECHO").arg(what).exec(&mut self.connection)?)
    }

    /// Tells the origin and the name of each command, until this connection says so.
    fn read_until(&mut self, what: &str, mut tell: impl FnMut(&str, &str)) -> std::io::Result<()> {
        let end = format!("\"ECHO\" \"{what}\"");
        let mut line = String::new();
        loop {
            line.clear();
            if self.monitor.read_line(&mut line)? == 0 {
                let what = "the server ended its MONITOR";
                return Err(Error::new(ErrorKind::UnexpectedEof, what));
            }
            if line.trim_end().ends_with(&end) {
                return Ok(());
            }
            if let Some((origin, name)) = read_line(&line) {
                tell(origin, &name);
            }
        }
    }
}

/// `+1700000000.123456 [0 unix:/path] "GET" "key"`
fn read_line(line: &str) -> Option<(&str, String)> {
    let (_, rest) = line.split_once('[')?;
    let (origin, command) = rest.split_once("] \"")?;
    let (_, origin) = origin.split_once(' ')?;
    let (name, _) = command.split_once('"')?;
    Some((origin, name.to_uppercase()))
}

/// The statistics of commands do not tell who ran them, but have to come to the same sum.
fn agree(info: &InfoDict, name: &str, seen: u64) -> Result<(), BenchError> {
    let line: Option<String> = info.get(&format!("cmdstat_{}", name.to_lowercase()));
    let calls = line.as_deref().and_then(|line| {
        let (calls, _) = line.strip_prefix("calls=")?.split_once(',')?;
        calls.parse::<u64>().ok()
    });
    if calls == Some(seen) {
        return Ok(());
    }
    let what = format!("MONITOR has seen {seen} {name}, the statistics say {calls:?}");
    Err(BenchError::Work {
        who: "the server",
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::read_line;

    #[test]
    fn a_command_is_told_from_a_scripts() {
        let read = |line| read_line(line).map(|(origin, name)| format!("{origin} {name}"));
        assert_eq!(
            read("+1700.5 [0 unix:/a b/redis.sock] \"get\" \"[0 lua] \\\"x\"\r\n").as_deref(),
            Some("unix:/a b/redis.sock GET")
        );
        assert_eq!(
            read("+1700.5 [0 lua] \"SET\" \"k\" \"v\"\r\n").as_deref(),
            Some("lua SET")
        );
        assert_eq!(read("+OK\r\n"), None);
    }
}
