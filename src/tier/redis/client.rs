//! The tier's methods as requests. Whoever takes them (`Port`) runs the state machine.

use std::future::ready;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::commands::{Command, Layout};
use super::event::{Effect, Request};
use super::response::Reply;
use crate::tier::contract::{Change, Pledge, Tier, TierError, TierFuture, TierListener};
use crate::tier::envelope::{self, Seal};

/// Who is waiting for a request's answers.
pub type Answer = oneshot::Sender<Result<Vec<Reply>, TierError>>;

/// Takes requests to where the state machine runs.
pub trait Port: Send + Sync + 'static {
    /// Hands a request over. If nobody takes it, the answer is dropped.
    fn submit(&self, request: Request, answer: Answer);
    /// Who hears of changes.
    fn listen(&self, listener: Weak<dyn TierListener>);
    /// The longest that a request may take.
    fn timeout(&self) -> Duration;
    /// A timer.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A [`Tier`] over a port.
pub struct RedisTier<P> {
    port: P,
    layout: Layout,
    next_id: AtomicU64,
}

impl<P: Port> RedisTier<P> {
    /// Under a layout.
    pub fn new(port: P, layout: Layout) -> Self {
        RedisTier {
            port,
            layout,
            next_id: AtomicU64::new(2),
        }
    }

    pub(super) fn port(&self) -> &P {
        &self.port
    }

    /// Sends commands, and reads their answers, of which there are as many.
    fn ask<T: Send + 'static>(
        &self,
        commands: Vec<Command>,
        effect: Effect,
        read: impl FnOnce(Vec<Reply>) -> Result<T, TierError> + Send + 'static,
    ) -> TierFuture<T> {
        // Even numbers: the state machine's own errands have the odd ones. Relaxed: only uniqueness matters.
        let id = self.next_id.fetch_add(2, Ordering::Relaxed);
        let asked = commands.len();
        let (answer, answered) = oneshot::channel();
        let request = Request {
            id,
            commands,
            effect,
        };
        self.port.submit(request, answer);
        Box::pin(async move {
            let replies = answered.await.map_err(|_| TierError::Down)??;
            if replies.len() != asked {
                let what = format!("{} answers instead of {asked}", replies.len());
                return Err(TierError::Garbled { what: what.into() });
            }
            if let Some(error) = replies.iter().find_map(Reply::as_error) {
                return Err(error);
            }
            read(replies)
        })
    }

    /// The same for one command.
    fn ask_one<T: Send + 'static>(
        &self,
        command: Command,
        effect: Effect,
        read: impl FnOnce(Reply) -> Result<T, TierError> + Send + 'static,
    ) -> TierFuture<T> {
        self.ask(vec![command], effect, |replies| {
            read(replies.into_iter().next().unwrap_or(Reply::Nil))
        })
    }

    /// Reads several keys: the answer of GET is one answer, that of MGET a list.
    fn read_all<T: Send + 'static>(
        &self,
        command: Command,
        count: usize,
        read: impl Fn(Reply) -> Result<T, TierError> + Send + 'static,
    ) -> TierFuture<Vec<T>> {
        if count == 0 {
            return Box::pin(ready(Ok(Vec::new())));
        }
        self.ask_one(command, Effect::Read, move |reply| {
            let replies = if count == 1 {
                vec![reply]
            } else {
                reply.list(count)?
            };
            replies.into_iter().map(read).collect()
        })
    }

    fn fenced<T: Send + 'static>(
        &self,
        key: Vec<u8>,
        seal: Seal,
        change: Command,
        read: impl FnOnce(Reply, bool) -> Result<T, TierError> + Send + 'static,
    ) -> TierFuture<T> {
        let commands = vec![change, self.layout.seal(&key)];
        self.ask(commands, Effect::Fenced { key, seal }, move |replies| {
            let mut replies = replies.into_iter();
            let (changed, seen) = (replies.next(), replies.next());
            let stands = matches!(seen, Some(Reply::Bytes(seen)) if seen == seal.0);
            read(changed.unwrap_or(Reply::Nil), stands)
        })
    }

    /// A write that the command in `owed` makes up for, should it be lost.
    fn write<T: Send + 'static>(
        &self,
        changes: Vec<Change>,
        command: Command,
        owed: Command,
        read: impl FnOnce(Reply) -> Result<T, TierError> + Send + 'static,
    ) -> TierFuture<T> {
        let owed = vec![owed];
        self.ask_one(command, Effect::Write { changes, owed }, read)
    }
}

impl<P: Port> Tier for RedisTier<P> {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<Vec<Option<Vec<u8>>>> {
        self.read_all(self.layout.get_many(&keys), keys.len(), Reply::bytes)
    }

    fn add(&self, key: Vec<u8>, content: Vec<u8>, time_to_live: Duration) -> TierFuture<Pledge> {
        let Some(seal) = envelope::seal_of(&content) else {
            return unsealed();
        };
        let add = self.layout.add(&key, &content, time_to_live);
        self.fenced(key, seal, add, |added, stands| {
            let mut parts = added.list(2)?.into_iter();
            let (stored, sequence) = (parts.next(), parts.next());
            let stored = stored.unwrap_or(Reply::Nil).int()? == 1;
            let sequence = sequence.unwrap_or(Reply::Nil).number()?;
            Ok(Pledge {
                stored: stored && stands,
                sequence,
            })
        })
    }

    fn seize(&self, key: Vec<u8>, content: Vec<u8>, time_to_live: Duration) -> TierFuture<u64> {
        let seize = self.layout.seize(&key, &content, time_to_live);
        let owed = self.layout.remove(std::slice::from_ref(&key));
        self.write(vec![Change::Key(key)], seize, owed, Reply::number)
    }

    fn put(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        over: Seal,
        time_to_live: Duration,
    ) -> TierFuture<bool> {
        let Some(own) = envelope::seal_of(&content) else {
            return unsealed();
        };
        let put = self.layout.put_over(&key, &content, over, time_to_live);
        self.fenced(key, own, put, |put, stands| Ok(put.int()? == 1 && stands))
    }

    fn remove(&self, key: Vec<u8>, over: Seal) -> TierFuture<bool> {
        let remove = self.layout.remove_over(&key, over);
        let effect = Effect::Fenced { key, seal: over };
        // The script answers with the seal if it removed what bore it.
        self.ask_one(remove, effect, move |reply| {
            Ok(reply.bytes()?.is_some_and(|removed| removed == over.0))
        })
    }

    fn remove_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<u64> {
        if keys.is_empty() {
            return Box::pin(ready(Ok(0)));
        }
        let remove = self.layout.remove(&keys);
        let changes = keys.into_iter().map(Change::Key).collect();
        self.write(changes, remove.clone(), remove, |reply| {
            Ok(reply.int()?.unsigned_abs())
        })
    }

    fn versions(&self, names: Vec<Box<str>>) -> TierFuture<Vec<Option<u64>>> {
        self.read_all(self.layout.versions(&names), names.len(), Reply::version)
    }

    fn sequence(&self) -> TierFuture<u64> {
        self.ask_one(self.layout.read_sequence(), Effect::Read, Reply::number)
    }

    fn settle(&self, names: Vec<Box<str>>) -> TierFuture<()> {
        let commands: Vec<Command> = names.iter().map(|name| self.layout.settle(name)).collect();
        if commands.is_empty() {
            return Box::pin(ready(Ok(())));
        }
        let changes = names.into_iter().map(Change::Version).collect();
        let owed = Vec::new();
        self.ask(commands, Effect::Write { changes, owed }, |_| Ok(()))
    }

    fn bump(&self, name: Box<str>) -> TierFuture<u64> {
        let bump = self.layout.bump(&name);
        let changes = vec![Change::Version(name)];
        self.write(changes, bump.clone(), bump, Reply::number)
    }

    fn listen(&self, listener: Weak<dyn TierListener>) {
        self.port.listen(listener);
    }

    fn timeout(&self) -> Duration {
        self.port.timeout()
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.port.sleep(time)
    }
}

/// The error for a content that bears no seal.
fn unsealed<T: Send + 'static>() -> TierFuture<T> {
    let what: Arc<str> = "a content of under 24 bytes, which bears no seal".into();
    Box::pin(ready(Err(TierError::Garbled { what })))
}
