//! One cold key, asked for by tasks.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;
use tokio::runtime::Runtime;
use tokio::sync::{Barrier, mpsc};

use crate::line::Line;
use crate::rounds::{self, CAPACITY, Call, Loader};

const WORKERS: usize = 2;

/// A way to get a key's value or load it. Nothing happens before the future is polled.
type Get = Box<dyn Fn(u64, Arc<Loader>) -> Pin<Box<dyn Future<Output = u64> + Send>>>;

fn caches() -> Vec<(&'static str, Get)> {
    let larder = larder::Cache::builder()
        .max_capacity(CAPACITY)
        .hasher(RandomState::new())
        .build()
        .expect("a valid configuration");
    let moka = moka::future::Cache::builder()
        .max_capacity(CAPACITY)
        .build_with_hasher(RandomState::new());
    let quick = Arc::new(quick_cache::sync::Cache::<u64, u64>::new(CAPACITY as usize));
    vec![
        (
            "larder",
            Box::new(move |key, loader| {
                let larder = larder.clone();
                Box::pin(async move { larder.get_or_load_async(&key, || loader.in_a_task()).await })
            }),
        ),
        (
            "moka",
            Box::new(move |key, loader| {
                let moka = moka.clone();
                Box::pin(async move { moka.get_with(key, loader.in_a_task()).await })
            }),
        ),
        (
            "quick_cache",
            Box::new(move |key, loader| {
                let quick = Arc::clone(&quick);
                Box::pin(async move {
                    let load = async { Ok::<_, Infallible>(loader.in_a_task().await) };
                    match quick.get_or_insert_async(&key, load).await {
                        Ok(value) => value,
                        Err(never) => match never {},
                    }
                })
            }),
        ),
    ]
}

pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_time()
        .build()
}

pub fn cold(runtime: &Runtime, tasks: usize, sleep: Duration, rounds: usize) -> Vec<Line> {
    let who = format!("{tasks} tasks");
    rounds::run(&who, &caches(), sleep, rounds, |get, key, loader| {
        runtime.block_on(together(get, key, tasks, loader))
    })
}

/// All tasks ask for the key at once, or as soon after each other as the workers get to them.
async fn together(get: &Get, key: u64, tasks: usize, loader: &Arc<Loader>) -> Vec<Call> {
    let start = Arc::new(Barrier::new(tasks));
    let (running, mut over) = mpsc::channel::<()>(1);
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let (start, running) = (Arc::clone(&start), running.clone());
            let get = get(key, Arc::clone(loader));
            tokio::spawn(async move {
                start.wait().await;
                let asked = Instant::now();
                get.await;
                let call = (asked, Instant::now());
                drop(running);
                call
            })
        })
        .collect();
    drop(running);
    // Wakes this thread once, after the last task, and not for each of them: the workers need the cores.
    over.recv().await;
    let mut calls = Vec::with_capacity(tasks.len());
    for task in tasks {
        calls.push(task.await.expect("no panic"));
    }
    calls
}
