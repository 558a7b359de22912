//! The state machine's socket: a thread with a runtime of its own, which outlives the runtimes of those who call.
//!
//! Of the redis crate this uses the parser and the packing of commands, and not its connections: they hand answers
//! over through one channel and pushes through another, and the argument in `coherence/` needs to know which came
//! first. Here one task reads, and everything it reads goes through one channel in the order of the wire.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use redis::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};

use super::client::{Answer, Client};
use super::coherence::Coherence;
use super::commands::{Command, Commands};
use super::event::{Action, ConnectionId, Event, Request};
use super::response::{Push, Response};
use crate::tier::contract::{FlushCause, TierError, TierListener};
use crate::util::clock::{Clock, nanos};
use crate::util::sync::Mutex;

/// Where the server is.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// The most bytes of one message of the server's. What claims to be longer closes the connection.
const LONGEST_MESSAGE: usize = 512 << 20;

/// Bytes that are worth a write of their own.
const PACKET: usize = 64 << 10;

enum Message {
    Request(Request, Answer),
    Listen(Weak<dyn TierListener>),
    Event(Event),
}

/// The way to the thread; when it is dropped, the thread ends.
pub(super) struct ConnectionClient {
    messages: UnboundedSender<Message>,
    runtime: Handle,
    timeout: Duration,
}

impl Client for ConnectionClient {
    fn submit(&self, request: Request, answer: Answer) {
        // If the thread is gone, the answer is dropped, and whoever waits for it is told so by that.
        let _ = self.messages.send(Message::Request(request, answer));
    }

    fn listen(&self, listener: Weak<dyn TierListener>) {
        let _ = self.messages.send(Message::Listen(listener));
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // Made inside the task: a timer asks which runtime it is of.
        let sleeping = self.runtime.spawn(async move { sleep(time).await });
        Box::pin(async move {
            let _ = Sleeping(sleeping).await;
        })
    }
}

/// A sleep that nobody waits for any more is not slept.
struct Sleeping(JoinHandle<()>);

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context).map(|_| ())
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the thread.
pub(super) fn start(
    address: Address,
    commands: Commands,
    coherence: Coherence,
    timeout: Duration,
) -> io::Result<ConnectionClient> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (messages, received) = unbounded_channel();
    let driver = Driver {
        coherence,
        address,
        commands,
        clock: Clock::system(),
        // Weak: when the last client goes, the thread ends.
        messages: messages.downgrade(),
        answers: std::collections::HashMap::new(),
        connection: None,
        listener: None,
    };
    std::thread::Builder::new()
        .name("larder-redis".to_owned())
        .spawn(move || {
            crate::tier::async_util::this_thread_runs_a_tier();
            runtime.block_on(driver.run(received));
        })?;
    Ok(ConnectionClient {
        messages,
        runtime: handle,
        timeout,
    })
}

/// The driver's one timer. It is moved as seldom as can be, since to move it ahead costs the runtime a turn; so it may
/// ring before its time, and is set again then.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    rings_at: u64,
    /// One moment, by the runtime's clock and by ours.
    origin: (Instant, u64),
}

impl Alarm {
    fn new(clock: &Clock) -> Self {
        let sleep = Box::pin(sleep(Duration::ZERO));
        let now = clock.now();
        Alarm {
            origin: (sleep.deadline(), now),
            rings_at: now,
            sleep,
        }
    }

    /// Until our clock shows this.
    async fn wait(&mut self, clock: &Clock, due: u64) {
        loop {
            let now = clock.now();
            if now >= due {
                return;
            }
            if self.rings_at <= now || self.rings_at > due {
                self.rings_at = due.min(now.saturating_add(nanos(FARTHEST)));
                let after = Duration::from_nanos(self.rings_at.saturating_sub(self.origin.1));
                self.sleep.as_mut().reset(self.origin.0 + after);
            }
            self.sleep.as_mut().await;
        }
    }
}

/// Nobody asks for a time that is farther away.
const FARTHEST: Duration = Duration::from_secs(3600);

struct Driver {
    coherence: Coherence,
    address: Address,
    commands: Commands,
    clock: Clock,
    messages: tokio::sync::mpsc::WeakUnboundedSender<Message>,
    answers: std::collections::HashMap<u64, Answer>,
    connection: Option<Connection>,
    listener: Option<Weak<dyn TierListener>>,
}

/// A task that ends when nobody holds it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Dropped, it is closed: its tasks own the socket.
struct Connection {
    number: ConnectionId,
    outgoing: UnboundedSender<Vec<u8>>,
    expected: Arc<Mutex<VecDeque<(u64, usize)>>>,
    _reader: AbortOnDrop,
    _writer: AbortOnDrop,
}

impl Driver {
    async fn run(mut self, mut received: UnboundedReceiver<Message>) {
        let mut actions = Vec::new();
        // Messages that had come before a tick was due.
        let mut before_tick = None;
        let mut alarm = Alarm::new(&self.clock);
        loop {
            let next = self.next(&mut received, &mut before_tick, &mut alarm);
            let event = match next.await {
                Some(Message::Event(event)) => event,
                Some(Message::Request(request, answer)) => {
                    self.answers.insert(request.id, answer);
                    Event::Request(request)
                }
                Some(Message::Listen(listener)) => {
                    self.listener = Some(listener);
                    let up = self.coherence.is_up();
                    self.tell(|listener| listener.connection_changed(up));
                    continue;
                }
                None => return,
            };
            let now = self.clock.now();
            self.coherence.handle(now, event, &mut actions);
            for action in actions.drain(..) {
                self.perform(action);
            }
        }
    }

    /// The next message, or the tick if it is due before. `None`: everybody has gone.
    async fn next(
        &self,
        received: &mut UnboundedReceiver<Message>,
        before_tick: &mut Option<usize>,
        alarm: &mut Alarm,
    ) -> Option<Message> {
        let due = self.coherence.next_tick();
        let left = due.saturating_sub(self.clock.now());
        if left == 0 {
            // An answer that has come is not overdue because this thread has not got to it; but what comes from now on
            // does not put the tick off.
            let waiting = before_tick.get_or_insert(received.len());
            if let Some(fewer) = waiting.checked_sub(1) {
                *waiting = fewer;
                return received.recv().await;
            }
            *before_tick = None;
            return Some(Message::Event(Event::Tick));
        }
        *before_tick = None;
        let tick = async {
            alarm.wait(&self.clock, due).await;
            Some(Message::Event(Event::Tick))
        };
        crate::tier::async_util::first(received.recv(), tick).await
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dial(connection) => self.dial(connection),
            Action::Send(connection, id, commands) => self.send(connection, id, &commands),
            Action::Close(connection) => {
                if self
                    .connection
                    .as_ref()
                    .is_some_and(|open| open.number == connection)
                {
                    self.connection = None;
                }
            }
            Action::Tell(changes) => self.tell(|listener| listener.changed(&changes)),
            Action::Flush(cause) => self.tell(|listener| listener.flushed(cause)),
            Action::ConnectionChanged(up) => self.tell(|listener| listener.connection_changed(up)),
            Action::Answer(id, answer) => {
                if let Some(waiting) = self.answers.remove(&id) {
                    // Nobody may wait any more.
                    let _ = waiting.send(answer);
                }
            }
        }
    }

    /// Calls the listener. Code of the user's may run in it (values are dropped); were its panic to end this thread,
    /// nobody would hear of anything any more.
    fn tell(&self, what: impl FnOnce(&dyn TierListener)) {
        let Some(listener) = self.listener.as_ref().and_then(Weak::upgrade) else {
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| what(&*listener))).is_err() {
            let again = AssertUnwindSafe(|| listener.flushed(FlushCause::Unreadable));
            let _ = catch_unwind(again);
        }
    }

    fn dial(&mut self, connection: ConnectionId) {
        let Some(messages) = self.messages.upgrade() else {
            return;
        };
        self.connection = None;
        let expected = Arc::new(Mutex::new(VecDeque::new()));
        let (outgoing, to_write) = unbounded_channel();
        let address = self.address.clone();
        let (weak, commands) = (self.messages.clone(), self.commands.clone());
        drop(messages);
        let reader_expects = expected.clone();
        let (start_writer, writes) = tokio::sync::oneshot::channel();
        let reader = tokio::spawn(async move {
            let told = weak.clone();
            let tell = move |event| {
                if let Some(messages) = told.upgrade() {
                    let _ = messages.send(Message::Event(event));
                }
            };
            match connect(&address).await {
                Ok((read, write)) => {
                    let _ = start_writer.send(write);
                    tell(Event::Dialed(connection));
                    let why = read_all(read, connection, &commands, &reader_expects, &tell).await;
                    tell(Event::Lost(connection, why));
                }
                Err(error) => {
                    let why = error.to_string().into();
                    tell(Event::DialFailed(connection, TierError::Lost { why }));
                }
            }
        });
        let writer = tokio::spawn(async move {
            if let Ok(write) = writes.await {
                write_all(write, to_write).await;
            }
        });
        self.connection = Some(Connection {
            number: connection,
            outgoing,
            expected,
            _reader: AbortOnDrop(reader),
            _writer: AbortOnDrop(writer),
        });
    }

    fn send(&mut self, connection: ConnectionId, id: u64, commands: &[Command]) {
        let Some(open) = self
            .connection
            .as_ref()
            .filter(|open| open.number == connection)
        else {
            return;
        };
        let mut bytes = Vec::new();
        for command in commands {
            bytes.extend(redis::pack_command(command));
        }
        open.expected.lock().push_back((id, commands.len()));
        // If the writer has ended, the reader will say why.
        let _ = open.outgoing.send(bytes);
    }
}

type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

async fn connect(address: &Address) -> io::Result<(ReadHalf, WriteHalf)> {
    match address {
        Address::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            Ok((Box::new(read), Box::new(write)))
        }
        Address::Unix(path) => {
            let (read, write) = split(UnixStream::connect(path).await?);
            Ok((Box::new(read), Box::new(write)))
        }
    }
}

async fn write_all(mut write: WriteHalf, mut outgoing: UnboundedReceiver<Vec<u8>>) {
    while let Some(mut bytes) = outgoing.recv().await {
        // What is waiting goes with it.
        while bytes.len() < PACKET {
            let Ok(more) = outgoing.try_recv() else { break };
            bytes.extend(more);
        }
        if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
            return;
        }
    }
}

/// Reads until the connection ends, and says why it did.
async fn read_all(
    read: ReadHalf,
    connection: ConnectionId,
    commands: &Commands,
    expected: &Mutex<VecDeque<(u64, usize)>>,
    tell: &impl Fn(Event),
) -> Arc<str> {
    let mut read = Bounded { read, left: 0 };
    let mut decoder = Default::default();
    let mut responses = Vec::new();
    loop {
        read.left = LONGEST_MESSAGE;
        let value = match redis::parse_redis_value_async(&mut decoder, &mut read).await {
            Ok(value) => value,
            Err(error) => return error.to_string().into(),
        };
        if let Value::Push { kind, data } = value {
            let data: Vec<Response> = data.into_iter().map(response_of).collect();
            tell(Event::Pushed(
                connection,
                Push::read(&kind.to_string(), &data, commands),
            ));
            continue;
        }
        let Some((id, wanted)) = expected.lock().front().copied() else {
            return "the server answered what nobody had asked".into();
        };
        responses.push(response_of(value));
        if responses.len() == wanted {
            expected.lock().pop_front();
            tell(Event::Replied(
                connection,
                id,
                Ok(std::mem::take(&mut responses)),
            ));
        }
    }
}

/// The parser keeps what it has of a message until it has all of it: this bounds that.
struct Bounded {
    read: ReadHalf,
    left: usize,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("a message of the server is too long")));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.read).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        self.left = self.left.saturating_sub(read);
        polled
    }
}

fn response_of(value: Value) -> Response {
    match value {
        Value::Nil => Response::Nil,
        Value::Int(number) => Response::Int(number),
        Value::BulkString(bytes) => Response::Bytes(bytes),
        Value::Okay => Response::Status("OK".to_owned()),
        Value::SimpleString(word) => Response::Status(word),
        Value::Array(parts) | Value::Set(parts) => {
            Response::List(parts.into_iter().map(response_of).collect())
        }
        Value::Attribute { data, .. } => response_of(*data),
        Value::ServerError(error) => {
            let details = error.details().unwrap_or_default();
            Response::Error(format!("{} {details}", error.code()).into())
        }
        Value::Map(_) => Response::Odd("a map".to_owned()),
        Value::Push { .. } => Response::Odd("a push".to_owned()),
        _ => Response::Odd("something odd".to_owned()),
    }
}
