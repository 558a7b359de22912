//! A single-threaded executor with a queue of ready tasks, and the small futures that tests need to
//! hold a loader still. Larder depends on no runtime, and so do its tests.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};

/// Runs tasks on the calling thread. Dropped, it drops its tasks where they stand.
pub(crate) struct Executor {
    tasks: Vec<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    ready: Receiver<usize>,
    queue: Sender<usize>,
}

/// Puts a task into the queue when it is woken.
struct Place {
    task: usize,
    queue: Sender<usize>,
    queued: AtomicBool,
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            // Nobody listens once the executor has gone.
            let _ = self.queue.send(self.task);
        }
    }
}

impl Executor {
    pub(crate) fn new() -> Self {
        let (queue, ready) = channel();
        Executor {
            tasks: Vec::new(),
            ready,
            queue,
        }
    }

    /// Takes a task on; its result goes where the handle points.
    pub(crate) fn spawn<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
    ) -> Rc<Cell<Option<T>>> {
        let result = Rc::new(Cell::new(None));
        let place = Rc::clone(&result);
        let task = self.tasks.len();
        self.tasks.push(Some(Box::pin(async move {
            place.set(Some(future.await));
        })));
        // The executor holds a receiver, so this cannot fail.
        let _ = self.queue.send(task);
        result
    }

    /// Polls whatever is ready until nothing is; returns how many tasks are left.
    pub(crate) fn run(&mut self) -> usize {
        while let Ok(task) = self.ready.try_recv() {
            let Some(future) = &mut self.tasks[task] else {
                continue;
            };
            let waker = Waker::from(Arc::new(Place {
                task,
                queue: self.queue.clone(),
                queued: AtomicBool::new(false),
            }));
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                self.tasks[task] = None;
            }
        }
        self.tasks.iter().flatten().count()
    }

    /// Runs until no task is left, for wakes that come from other threads.
    pub(crate) fn finish(&mut self) {
        while self.run() > 0 {
            std::thread::yield_now();
        }
    }
}

/// A waker that counts its calls.
#[derive(Default)]
pub(crate) struct Calls(AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future that is polled by hand.
pub(crate) struct Hand<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    calls: Arc<Calls>,
}

impl<'a, T> Hand<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + 'a) -> Self {
        Hand {
            future: Box::pin(future),
            calls: Arc::default(),
        }
    }

    /// Polled once, and found pending.
    pub(crate) fn pending(future: impl Future<Output = T> + 'a) -> Self {
        let mut hand = Hand::new(future);
        assert!(hand.poll().is_pending(), "it was expected to wait");
        hand
    }

    pub(crate) fn poll(&mut self) -> Poll<T> {
        let waker = Waker::from(Arc::clone(&self.calls));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// From now on polled with another waker.
    pub(crate) fn change_waker(&mut self) -> Arc<Calls> {
        std::mem::take(&mut self.calls)
    }

    pub(crate) fn wakes(&self) -> usize {
        self.calls.count()
    }

    /// What it came to, if one poll brings it there.
    #[track_caller]
    pub(crate) fn ready(&mut self) -> T {
        match self.poll() {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it was expected to be ready"),
        }
    }
}

impl Calls {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A future that is pending so many times, each time waking itself.
pub(crate) struct Steps(pub(crate) u32);

impl Future for Steps {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A door that tasks wait at, and threads too. Whoever waits as a task polls again by itself.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// For tasks that are polled by hand, or are woken by nobody: registers no waker.
    pub(crate) async fn opened(&self) {
        std::future::poll_fn(|_| match self.is_open() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    pub(crate) fn block(&self) {
        while !self.is_open() {
            std::thread::yield_now();
        }
    }
}
