//! The second process of a run: this program once more, over the same database and the same Redis.
//!
//! It tells its address by the first line of its standard output, and serves until its standard
//! input is closed, which also happens if the first process is killed.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::Arc,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::oneshot,
};

use crate::{
    args::Args, database::Database, error::StoreError, redis_server::RedisServer, server,
    shop::Shop,
};

/// A running second process; dropped, it is ended.
pub struct Peer {
    pub address: SocketAddr,
    _child: Child,
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Peer { doing, source }
}

impl Peer {
    /// Starts it, and returns when it serves and has its link. The URL of the server goes by the
    /// environment, which both have.
    pub async fn start(args: &Args, path: &Path, redis: &RedisServer) -> Result<Self, StoreError> {
        let program = std::env::current_exe().map_err(failed("cannot be found"))?;
        let mut command = Command::new(program);
        command.arg("--peer").arg(redis.prefix());
        command.arg("--database").arg(path);
        if args.break_invalidation {
            command.arg("--break-invalidation");
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("cannot be started"))?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            let mut output = BufReader::new(output);
            let read = output.read_line(&mut line).await;
            read.map_err(failed("cannot be listened to"))?;
        }
        let address = line.trim_end().parse().map_err(|_| {
            let source = io::Error::other("it ended, and has said why if it could");
            failed("tells no address")(source)
        })?;
        Ok(Self {
            address,
            _child: child,
        })
    }
}

/// Is the second process.
pub async fn serve(args: &Args, path: &Path, redis: &RedisServer) -> Result<bool, StoreError> {
    let shop = Shop::shared(Database::open(path)?, redis.link()?).await?;
    let shop = Arc::new(shop.broken_if(args.break_invalidation));
    let (listener, address) = server::listen(0).await?;
    let mut out = io::stdout();
    writeln!(out, "{address}")?;
    out.flush()?;
    tokio::select! {
        stopped = server::serve(listener, shop) => stopped.map(|()| false),
        _ = standard_input_closed() => Ok(true),
    }
}

/// On a thread of its own, for which the end of the program does not wait.
fn standard_input_closed() -> oneshot::Receiver<()> {
    let (closed, told) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        // Nobody listens any more if the shop has stopped by itself.
        let _ = closed.send(());
    });
    told
}
