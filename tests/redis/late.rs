//! A way to the server on which one word of the first link can be held back until that link has long been given up: as
//! TCP may do.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use crate::server::{Server, moment, until};

/// Passes bytes on, there and back.
pub(crate) struct Way {
    path: PathBuf,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    shut: AtomicBool,
    held: AtomicU64,
    /// Links of which the server has carried out everything and said so.
    over: AtomicU64,
}

impl Way {
    /// What is said over the first link is held back, while this is shut, from the first word of this kind on.
    pub(crate) fn new(server: &Server, word: &'static str) -> Self {
        let path = server.directory().join("way");
        let _ = std::fs::remove_file(&path);
        let links = UnixListener::bind(&path).unwrap();
        let state = Arc::new(State::default());
        let (shared, socket) = (state.clone(), server.directory().join("socket"));
        thread::spawn(move || {
            let mut word = Some(word);
            for here in links.incoming() {
                let (Ok(here), Ok(there)) = (here, UnixStream::connect(&socket)) else {
                    return;
                };
                let (back, ends) = (there.try_clone().unwrap(), here.try_clone().unwrap());
                let (word, state) = (word.take(), shared.clone());
                thread::spawn(move || pass_on(here, there, word, &state));
                let state = shared.clone();
                thread::spawn(move || pass_back(back, ends, &state));
            }
        });
        Way { path, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    pub(crate) fn shut(&self) {
        self.state.shut.store(true, SeqCst);
    }

    pub(crate) fn until_held(&self) {
        until("it is held back", || self.state.held.load(SeqCst) > 0);
    }

    /// Lets go what was held back, and waits until the server has carried it out.
    pub(crate) fn open(&self) {
        let before = self.state.over.load(SeqCst);
        self.state.shut.store(false, SeqCst);
        until("the late bytes have been carried out", || {
            self.state.over.load(SeqCst) > before
        });
    }
}

fn pass_on(mut here: UnixStream, mut there: UnixStream, word: Option<&str>, state: &State) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length) = here.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        if state.shut.load(SeqCst) && word.is_some_and(|word| text.contains(word)) {
            state.held.fetch_add(1, SeqCst);
            while state.shut.load(SeqCst) {
                moment(1);
            }
        }
        if length == 0 || there.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The server closes what it has read to its end.
    let _ = there.shutdown(Shutdown::Write);
}

fn pass_back(mut there: UnixStream, mut here: UnixStream, state: &State) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length) = there.read(&mut buffer) {
        if length == 0 {
            break;
        }
        // Whoever gave the link up does not hear it.
        let _ = here.write_all(&buffer[..length]);
    }
    let _ = here.shutdown(Shutdown::Both);
    state.over.fetch_add(1, SeqCst);
}
