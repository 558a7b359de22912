//! The tier's methods as requests. Whoever takes them (`Client`) runs the state machine.

use std::future::ready;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::commands::{Command, Commands};
use super::event::{Effect, Request};
use super::response::Response;
use crate::tier::contract::{AddReply, Change, Tier, TierError, TierFuture, TierListener};
use crate::tier::envelope::{self, ContentId};

/// Who is waiting for a request's answers.
pub type Answer = oneshot::Sender<Result<Vec<Response>, TierError>>;

/// Takes requests to where the state machine runs.
pub trait Client: Send + Sync + 'static {
    /// Hands a request over. If nobody takes it, the answer is dropped.
    fn submit(&self, request: Request, answer: Answer);
    /// Who hears of changes.
    fn listen(&self, listener: Weak<dyn TierListener>);
    /// The longest that a request may take.
    fn timeout(&self) -> Duration;
    /// A timer.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A [`Tier`] over a client.
pub struct RedisTier<P> {
    client: P,
    commands: Commands,
    next_id: AtomicU64,
}

impl<P: Client> RedisTier<P> {
    /// A tier that sends these commands.
    pub fn new(client: P, commands: Commands) -> Self {
        RedisTier {
            client,
            commands,
            next_id: AtomicU64::new(2),
        }
    }

    pub(super) fn client(&self) -> &P {
        &self.client
    }

    /// Sends commands, and reads their answers, of which there are as many.
    fn ask<T: Send + 'static>(
        &self,
        commands: Vec<Command>,
        effect: Effect,
        read: impl FnOnce(Vec<Response>) -> Result<T, TierError> + Send + 'static,
    ) -> TierFuture<T> {
        // Even numbers: the state machine's own requests have the odd ones. Relaxed: only uniqueness matters.
        let id = self.next_id.fetch_add(2, Ordering::Relaxed);
        let asked = commands.len();
        let (answer, answered) = oneshot::channel();
        let request = Request {
            id,
            commands,
            effect,
        };
        self.client.submit(request, answer);
        Box::pin(async move {
            let responses = answered.await.map_err(|_| TierError::Down)??;
            if responses.len() != asked {
                let what = format!("{} answers instead of {asked}", responses.len());
                return Err(TierError::Garbled { what: what.into() });
            }
            if let Some(error) = responses.iter().find_map(Response::as_error) {
                return Err(error);
            }
            read(responses)
        })
    }

    /// Sends one command, and reads its response.
    fn ask_one<T: Send + 'static>(
        &self,
        command: Command,
        effect: Effect,
        read: impl FnOnce(Response) -> Result<T, TierError> + Send + 'static,
    ) -> TierFuture<T> {
        self.ask(vec![command], effect, |responses| {
            read(responses.into_iter().next().unwrap_or(Response::Nil))
        })
    }

    /// Reads several keys: the answer of GET is one answer, that of MGET a list.
    fn read_all<T: Send + 'static>(
        &self,
        command: Command,
        count: usize,
        read: impl Fn(Response) -> Result<T, TierError> + Send + 'static,
    ) -> TierFuture<Vec<T>> {
        if count == 0 {
            return Box::pin(ready(Ok(Vec::new())));
        }
        self.ask_one(command, Effect::Read, move |response| {
            let responses = if count == 1 {
                vec![response]
            } else {
                response.list(count)?
            };
            responses.into_iter().map(read).collect()
        })
    }

    fn fenced<T: Send + 'static>(
        &self,
        key: Vec<u8>,
        content_id: ContentId,
        change: Command,
        read: impl FnOnce(Response, bool) -> Result<T, TierError> + Send + 'static,
    ) -> TierFuture<T> {
        let commands = vec![change, self.commands.content_id(&key)];
        self.ask(
            commands,
            Effect::Fenced { key, content_id },
            move |responses| {
                let mut responses = responses.into_iter();
                let (changed, seen) = (responses.next(), responses.next());
                let stands = matches!(seen, Some(Response::Bytes(seen)) if seen == content_id.0);
                read(changed.unwrap_or(Response::Nil), stands)
            },
        )
    }

    /// A write that the command in `on_loss` makes up for, should it be lost.
    fn write<T: Send + 'static>(
        &self,
        changes: Vec<Change>,
        command: Command,
        on_loss: Command,
        read: impl FnOnce(Response) -> Result<T, TierError> + Send + 'static,
    ) -> TierFuture<T> {
        let on_loss = vec![on_loss];
        self.ask_one(command, Effect::Write { changes, on_loss }, read)
    }
}

impl<P: Client> Tier for RedisTier<P> {
    fn get_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<Vec<Option<Vec<u8>>>> {
        self.read_all(self.commands.get_many(&keys), keys.len(), Response::bytes)
    }

    fn add(&self, key: Vec<u8>, content: Vec<u8>, time_to_live: Duration) -> TierFuture<AddReply> {
        let Some(content_id) = envelope::content_id_of(&content) else {
            return without_id();
        };
        let add = self.commands.add(&key, &content, time_to_live);
        self.fenced(key, content_id, add, |added, stands| {
            let mut parts = added.list(2)?.into_iter();
            let (stored, sequence) = (parts.next(), parts.next());
            let stored = stored.unwrap_or(Response::Nil).int()? == 1;
            let sequence = sequence.unwrap_or(Response::Nil).number()?;
            Ok(AddReply {
                stored: stored && stands,
                sequence,
            })
        })
    }

    fn set_placeholder(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        time_to_live: Duration,
    ) -> TierFuture<u64> {
        let set_placeholder = self.commands.set_placeholder(&key, &content, time_to_live);
        let on_loss = self.commands.remove(std::slice::from_ref(&key));
        self.write(
            vec![Change::Key(key)],
            set_placeholder,
            on_loss,
            Response::number,
        )
    }

    fn compare_and_set(
        &self,
        key: Vec<u8>,
        content: Vec<u8>,
        over: ContentId,
        time_to_live: Duration,
    ) -> TierFuture<bool> {
        let Some(own) = envelope::content_id_of(&content) else {
            return without_id();
        };
        let put = self
            .commands
            .compare_and_set(&key, &content, over, time_to_live);
        self.fenced(key, own, put, |put, stands| Ok(put.int()? == 1 && stands))
    }

    fn remove(&self, key: Vec<u8>, over: ContentId) -> TierFuture<bool> {
        let remove = self.commands.compare_and_delete(&key, over);
        let effect = Effect::Fenced {
            key,
            content_id: over,
        };
        // The script answers with the content id if it removed the content that has it.
        self.ask_one(remove, effect, move |response| {
            Ok(response.bytes()?.is_some_and(|removed| removed == over.0))
        })
    }

    fn remove_many(&self, keys: Vec<Vec<u8>>) -> TierFuture<u64> {
        if keys.is_empty() {
            return Box::pin(ready(Ok(0)));
        }
        let remove = self.commands.remove(&keys);
        let changes = keys.into_iter().map(Change::Key).collect();
        self.write(changes, remove.clone(), remove, |response| {
            Ok(response.int()?.unsigned_abs())
        })
    }

    fn versions(&self, names: Vec<Box<str>>) -> TierFuture<Vec<Option<u64>>> {
        self.read_all(
            self.commands.versions(&names),
            names.len(),
            Response::version,
        )
    }

    fn sequence(&self) -> TierFuture<u64> {
        self.ask_one(
            self.commands.read_sequence(),
            Effect::Read,
            Response::number,
        )
    }

    fn init_versions(&self, names: Vec<Box<str>>) -> TierFuture<()> {
        let commands: Vec<Command> = names
            .iter()
            .map(|name| self.commands.init_versions(name))
            .collect();
        if commands.is_empty() {
            return Box::pin(ready(Ok(())));
        }
        let changes = names.into_iter().map(Change::Version).collect();
        let on_loss = Vec::new();
        self.ask(commands, Effect::Write { changes, on_loss }, |_| Ok(()))
    }

    fn incr_version(&self, name: Box<str>) -> TierFuture<u64> {
        let incr_version = self.commands.incr_version(&name);
        let changes = vec![Change::Version(name)];
        self.write(
            changes,
            incr_version.clone(),
            incr_version,
            Response::number,
        )
    }

    fn listen(&self, listener: Weak<dyn TierListener>) {
        self.client.listen(listener);
    }

    fn timeout(&self) -> Duration {
        self.client.timeout()
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.client.sleep(time)
    }
}

/// The error for a content without an id.
fn without_id<T: Send + 'static>() -> TierFuture<T> {
    let what: Arc<str> = "a content of under 24 bytes, which has no id".into();
    Box::pin(ready(Err(TierError::Garbled { what })))
}
