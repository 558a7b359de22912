//! Answers that are none: of the wrong kind, cut, endless, unasked, another's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Waker};

use larder::tier::{ServerErrorKind, TierError};

use crate::wire::{Fake, Say, encode, until};
use larder::tier::redis::internals::Response;

/// Knows the most that was ever asked for at once.
struct Counting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator as it came; the counter is no part of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Answers of every kind, each whole.
const KINDS: [&[u8]; 18] = [
    b"_\r\n",
    b":5\r\n",
    b"+OK\r\n",
    b"+WHAT\r\n",
    b"$0\r\n\r\n",
    b"$3\r\nabc\r\n",
    b"*0\r\n",
    b"*1\r\n:1\r\n",
    b"*3\r\n:1\r\n_\r\n$1\r\nx\r\n",
    b"%0\r\n",
    b"%1\r\n+a\r\n:1\r\n",
    b"~1\r\n:1\r\n",
    b"#t\r\n",
    b",1.5\r\n",
    b"(12345678901234567890\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"-ERR some error\r\n",
    b"!10\r\nERR broken\r\n",
];

#[test]
fn an_answer_of_any_kind_to_any_command_is_an_error_or_a_miss() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    let dials = watch.stats().dials;
    let mut n = 0;
    for command in ["GET", "MGET", "EVAL", "GETRANGE", "DEL", "SET"] {
        for kind in KINDS {
            n += 1;
            let key = format!("k{n}");
            fake.hook(move |words| {
                if words[0] == command {
                    Say::Instead(kind.to_vec())
                } else {
                    Say::Right
                }
            });
            // Whatever it is, nothing panics, and a loading call has its value. (Zero or one is what 'DEL' may
            // truly say.)
            assert_eq!(node.get_or_load(&key, || n).unwrap(), n);
            let _ = node.get(&key);
            let _ = node.insert(key.clone(), n);
            let _ = node.add(key.clone(), n);
            let _ = node.invalidate(&key);
            let _ = node.invalidate_tag(&key);
            let many = node.get_many_or_load([&*key, "other"], |missing: &[String]| {
                Ok::<_, String>(missing.iter().map(|_| Some(n)).collect())
            });
            assert_eq!(many.unwrap()[0], Some(n));
        }
    }
    // Each was an answer, if an odd one: nothing got out of step.
    assert_eq!(watch.stats().dials, dials);
    fake.honest();
    until("all is well again", || {
        node.insert("again".to_owned(), 1).is_ok()
            && node.get("again").is_ok_and(|it| it == Some(1))
    });
}

#[test]
fn what_came_is_said_and_not_shown() {
    let fake = Fake::start();
    let (node, _) = fake.warm();
    fake.hook(|words| match &*words[0] {
        "GET" => Say::Instead(b"*1\r\n$6\r\nsecret\r\n".to_vec()),
        _ => Say::Right,
    });
    let error = node.get("k").unwrap_err();
    assert!(matches!(error, TierError::Garbled { .. }));
    let text = format!("{error} {error:?}");
    assert!(
        !text.contains("secret") && text.contains("1 answers"),
        "{text}"
    );
}

#[test]
fn another_keys_content_is_not_served() {
    let fake = Fake::start();
    let (node, _) = fake.warm();
    node.insert("mine".to_owned(), 1).unwrap();
    node.insert("theirs".to_owned(), 2).unwrap();
    let theirs = encode(&Response::Bytes(fake.content("theirs")));
    fake.hook(move |words| match &*words[0] {
        "GET" if words[1].ends_with(":mine") => Say::Instead(theirs.clone()),
        _ => Say::Right,
    });
    assert_eq!(node.get("mine").unwrap(), None);
    assert_eq!(node.get_or_load("mine", || 3).unwrap(), 3);
    assert!(node.tiered_stats().bad_contents >= 2);
}

#[test]
fn headers_that_promise_the_moon_cost_nothing() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    let nested = b"*1\r\n".repeat(20_000);
    let pushes = b">2\r\n$10\r\ninvalidate\r\n*4294967295\r\n$1\r\nx\r\n";
    let giants: [&[u8]; 20] = [
        b"$4294967295\r\n",
        b"$4294967295\r\nabc",
        b"$9223372036854775807\r\n",
        b"$99999999999999999999\r\n",
        b"$-9223372036854775808\r\n$-2\r\n",
        b"*4294967295\r\n",
        b"*4294967295\r\n:1\r\n:1\r\n",
        b"*9223372036854775807\r\n:1\r\n",
        b"*1\r\n*4294967295\r\n*4294967295\r\n*4294967295\r\n:1\r\n",
        b"%4611686018427387904\r\n:1\r\n:1\r\n",
        b"%9223372036854775807\r\n:1\r\n",
        b"%-1\r\n",
        b"~4294967295\r\n:1\r\n",
        b"|4294967295\r\n:1\r\n:1\r\n",
        b">4294967295\r\n$10\r\ninvalidate\r\n",
        b"=9223372036854775807\r\ntxt:",
        b"!-1\r\nERR\r\n",
        b"?what is this\r\n",
        pushes,
        &nested,
    ];
    LARGEST.store(0, Relaxed);
    for giant in giants {
        let said = giant.to_vec();
        let mut once = true;
        fake.hook(move |words| {
            if words[0] == "GET" && std::mem::take(&mut once) {
                Say::Instead(said.clone())
            } else {
                Say::Right
            }
        });
        let shown = String::from_utf8_lossy(&giant[..giant.len().min(30)]).into_owned();
        let key = format!("giant {shown}");
        assert_eq!(node.get_or_load(&key, || 1).unwrap(), 1);
        until(&format!("a link again after {shown:?}"), || {
            node.is_connected() && node.get("warm").is_ok()
        });
    }
    fake.honest();
    let largest = LARGEST.load(Relaxed);
    println!(
        "counts: {} giants, the largest allocation {largest} bytes, {} dials",
        giants.len(),
        watch.stats().dials
    );
    assert!(largest < 16 << 20, "{largest} bytes at once");
    assert!(
        watch.stats().dials > 5,
        "those that make no sense end the link"
    );
}

#[test]
fn an_answer_that_is_cut_off_anywhere_loses_the_link_and_nothing_else() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    node.insert("k".to_owned(), 1).unwrap();
    let length = encode(&Response::Bytes(fake.content("k"))).len();
    for at in (0..length).step_by(3) {
        let mut once = true;
        fake.hook(move |words| {
            if words[0] == "GET" && words[1].ends_with(":k") && std::mem::take(&mut once) {
                Say::Cut(at)
            } else {
                Say::Right
            }
        });
        until("there is a link", || node.is_connected());
        assert!(
            matches!(node.get("k"), Err(TierError::Lost { .. })),
            "cut at {at}"
        );
    }
    until("it is read again", || {
        node.get("k").is_ok_and(|found| found == Some(1))
    });
    assert!(watch.stats().dials > 20);
}

#[test]
fn an_answer_that_nobody_asked_for_ends_the_link() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    fake.shout(b"+OK\r\n");
    until("dialled again", || {
        watch.stats().dials == 2 && node.is_connected()
    });
    let text = watch.stats().last_error.unwrap();
    assert!(text.contains("nobody had asked"), "{text}");
}

#[test]
fn a_server_that_does_not_know_the_protocol_is_no_link() {
    for (said, kind) in [
        (
            &b"-ERR unknown command 'HELLO'\r\n"[..],
            ServerErrorKind::Other,
        ),
        (
            b"-NOPROTO unsupported protocol version\r\n",
            ServerErrorKind::Other,
        ),
        (
            b"-NOAUTH HELLO must be called with the client already authenticated\r\n",
            ServerErrorKind::NoAuth,
        ),
        (
            b"-LOADING Redis is loading the dataset in memory\r\n",
            ServerErrorKind::Loading,
        ),
    ] {
        let fake = Fake::start();
        fake.hook(move |words| match &*words[0] {
            "HELLO" => Say::Instead(said.to_vec()),
            _ => Say::Right,
        });
        let (node, watch) = fake.node();
        until("it was refused", || {
            watch
                .stats()
                .server_errors
                .iter()
                .any(|(counted, count)| *counted == kind && *count > 0)
        });
        assert!(!node.is_connected());
        assert_eq!(node.get_or_load("k", || 1).unwrap(), 1);
        assert!(node.is_empty());
        fake.honest();
        until("it is linked once the server has learned it", || {
            node.is_connected()
        });
    }
}

#[test]
fn calls_that_are_given_up_leave_every_answer_to_its_own_question() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    for n in 0..20 {
        node.insert(format!("k{n}"), n).unwrap();
    }
    let slow = Arc::new(AtomicU64::new(0));
    let counted = slow.clone();
    fake.hook(move |_| Say::Split(counted.fetch_add(1, Relaxed) as usize % 40));
    let mut context = Context::from_waker(Waker::noop());
    let mut unfinished = 0;
    for round in 0..200u64 {
        let (given_up, asked) = (
            format!("k{}", round % 20),
            format!("k{}", (round * 7 + 3) % 20),
        );
        let scope = node.with_scope(larder::tier::Scope::Local);
        scope.invalidate(&given_up).unwrap();
        scope.invalidate(&asked).unwrap();
        {
            let mut call = pin!(node.get_async(&given_up));
            // On a busy machine the answer may come before the call is given up.
            let pending = (0..=round % 3).all(|_| call.as_mut().poll(&mut context).is_pending());
            unfinished += u64::from(pending);
        }
        assert_eq!(node.get(&asked).unwrap(), Some((round * 7 + 3) % 20));
    }
    assert!(unfinished > 0, "no call was given up before its answer");
    assert_eq!(node.tiered_stats().bad_contents, 0);
    assert_eq!(watch.stats().dials, 1);
}

#[test]
fn a_server_that_answers_nothing_well_is_left_alone_and_asked_by_one_probe() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    fake.hook(move |words| {
        if words[0] == "ROLE" {
            return Say::Right;
        }
        counted.fetch_add(1, Relaxed);
        Say::Instead(b"-BUSY Redis is busy running a script\r\n".to_vec())
    });
    let mut calls = 0u64;
    until("the breaker has opened, and again after its rest", || {
        let _ = node.get("k");
        watch.stats().breaker_openings > 2
    });
    for n in 0..1_000 {
        calls += 1;
        assert_eq!(node.get_or_load(&format!("k{n}"), || n).unwrap(), n);
    }
    assert!(watch.stats().breaker_open);
    let asked = asked.load(Relaxed);
    println!("counts: {calls} calls, of which {asked} went to a server that answers nothing well");
    assert!(asked < 50, "{asked} of {calls}");
    assert_eq!(watch.stats().dials, 1);
    fake.honest();
    until("the breaker has closed", || {
        let _ = node.get("k");
        !watch.stats().breaker_open
    });
}
