//! A few threads that run jobs from a short queue: for caches whose attached loader loads values again while they
//! may still be served. Nothing waits for them.
//!
//! A thread is started when a job comes and fewer than allowed run, and ends when none has come for a while, or
//! when the cache has gone. Threads hold the queue and nothing else; a job holds its cache weakly.

use std::pin::Pin;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::entry::removal::drop_catching;
use crate::util::sync::{Arc, Mutex};

/// The future of a refresh.
pub(super) type LoadTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs refreshes, and loads for calls with a timeout, with the attached loader for threads.
pub(super) enum Executor {
    Threads(Pool),
    Given(Box<dyn Fn(Job) + Send + Sync>),
}

/// Runs refreshes, and loads for calls with a timeout, with the attached loader for tasks.
pub(super) type Spawn = Box<dyn Fn(LoadTask) + Send + Sync>;

pub(super) type Job = Box<dyn FnOnce() + Send>;

/// How many jobs that nobody waits for are in the queue at most, for each thread.
const QUEUED: usize = 64;
/// How long a thread waits for a job before it ends.
const IDLE: Duration = Duration::from_secs(10);

pub(super) struct Pool {
    queue: Sender<Job>,
    /// For threads to come; and the jobs are its as long as there is none.
    jobs: Receiver<Job>,
    most: usize,
    /// A leaf lock. A job is sent, and a thread ends, only under it: so none is left to no thread.
    running: Arc<Mutex<usize>>,
}

impl Pool {
    /// A pool of at most so many threads, of which it starts none yet.
    pub(super) fn new(most: usize) -> Self {
        let (queue, jobs) = unbounded();
        Pool {
            queue,
            jobs,
            most,
            running: Arc::new(Mutex::new(0)),
        }
    }

    /// Whether the queue takes no more of the jobs that nobody waits for.
    pub(super) fn is_long(&self) -> bool {
        self.queue.len() >= QUEUED * self.most.max(1)
    }

    /// Has a thread run the job, soon. It comes back, to be dropped or run, if no thread can be had; or if the queue is
    /// long, and nobody is `awaited`. A job that a call waits for is always taken. Once the
    /// queue is long, one whose call has left ends as soon as a thread looks at it.
    pub(super) fn run(&self, job: Job, awaited: bool) -> Result<(), Job> {
        let mut running = self.running.lock();
        if !awaited && self.is_long() {
            return Err(job);
        }
        self.queue.send(job).map_err(|refused| refused.0)?;
        if *running == self.most {
            return Ok(());
        }
        let (jobs, count) = (self.jobs.clone(), Arc::clone(&self.running));
        let thread = std::thread::Builder::new().name("larder-refresh".to_owned());
        match thread.spawn(move || work(&jobs, &count)) {
            Ok(_) => *running += 1,
            // Only this one can be in the queue: the lock is held, and nobody else takes any out.
            Err(_) if *running == 0 => return self.jobs.try_recv().map_or(Ok(()), Err),
            Err(_) => {}
        }
        Ok(())
    }
}

/// What a thread does.
fn work(jobs: &Receiver<Job>, running: &Mutex<usize>) {
    loop {
        match jobs.recv_timeout(IDLE) {
            Ok(job) => run_catching(job),
            Err(RecvTimeoutError::Timeout) => {
                let mut running = running.lock();
                if jobs.is_empty() {
                    *running -= 1;
                    return;
                }
            }
            // The cache has gone, and with it whoever counts.
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Runs a job; if it panics, the panic ends here and the thread goes on.
pub(super) fn run_catching(job: Job) {
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)) {
        drop_catching(panic);
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn runs_every_job_it_took_on_no_more_threads_than_allowed() {
        let pool = Pool::new(2);
        let (done, at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut taken = 0;
        for _ in 0..10_000 {
            let (done, at_once) = (Arc::clone(&done), Arc::clone(&at_once));
            let job = Box::new(move || {
                assert!(at_once.fetch_add(1, Ordering::SeqCst) < 2);
                std::thread::yield_now();
                at_once.fetch_sub(1, Ordering::SeqCst);
                if done.fetch_add(1, Ordering::SeqCst) % 100 == 0 {
                    panic!("a job may");
                }
            });
            taken += usize::from(pool.run(job, false).is_ok());
        }
        assert!(taken >= 2 * QUEUED, "{taken}");
        while done.load(Ordering::SeqCst) < taken {
            std::thread::yield_now();
        }
        assert!(*pool.running.lock() <= 2);
    }

    #[test]
    fn a_full_queue_hands_the_job_back() {
        let (pool, gate) = (Pool::new(1), Arc::new(Mutex::new(())));
        let shut = gate.lock();
        let job = || -> Job {
            let gate = Arc::clone(&gate);
            Box::new(move || drop(gate.lock()))
        };
        let taken = (0..3 * QUEUED)
            .filter(|_| pool.run(job(), false).is_ok())
            .count();
        // One is being run, or not yet.
        assert!(taken == QUEUED || taken == QUEUED + 1, "{taken}");
        // What a call waits for finds its place all the same.
        assert!((0..3 * QUEUED).all(|_| pool.run(job(), true).is_ok()));
        drop(shut);
    }

    #[test]
    fn what_waits_when_the_pool_goes_is_run_or_dropped() {
        let dropped = Arc::new(());
        let pool = Pool::new(1);
        for _ in 0..QUEUED {
            let held = Arc::clone(&dropped);
            assert!(pool.run(Box::new(move || drop(held)), false).is_ok());
        }
        drop(pool);
        while Arc::strong_count(&dropped) > 1 {
            std::thread::yield_now();
        }
    }
}
