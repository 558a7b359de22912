//! Messages about changes: of every form, before and after answers, unreadable, and none at all.

use std::time::Duration;

use larder::tier::redis::StatsHandle;
use larder::tier::{FlushCause, Tiered};

use crate::wire::{Fake, Say, is_kept, push, push_of, until};

fn flushed(watch: &StatsHandle, cause: FlushCause) -> u64 {
    let flushes = watch.stats().flushes;
    flushes
        .iter()
        .find(|(kind, _)| *kind == cause)
        .map_or(0, |(_, count)| *count)
}

#[test]
fn a_null_flushes_everything() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    for key in ["a", "b"] {
        node.get_or_load(key, || 1).unwrap();
        assert!(is_kept(&node, key));
    }
    for (round, null) in [
        &b">2\r\n$10\r\ninvalidate\r\n_\r\n"[..],
        b">2\r\n+invalidate\r\n$-1\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        fake.shout(null);
        until("it was flushed", || {
            flushed(&watch, FlushCause::ServerFlush) == round as u64 + 1
        });
        until("nothing is kept", || node.is_empty());
        assert_eq!(node.get("a").unwrap(), Some(1), "the server has it still");
    }
}

#[test]
fn every_key_of_a_message_counts() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    for key in &keys {
        node.get_or_load(key, || 1).unwrap();
    }
    let told: Vec<&str> = keys.iter().skip(1).map(String::as_str).collect();
    fake.shout(&push_of(&told));
    until("it came", || watch.stats().pushes > 0 && node.len() == 2);
    assert!(is_kept(&node, "k0"), "and nothing else goes");
    assert!(node.tiered_stats().useful_pushes >= 49);
    assert_eq!(flushed(&watch, FlushCause::Unreadable), 0);
}

#[test]
fn a_message_before_the_answer_keeps_the_answer_out() {
    let fake = Fake::start();
    let (node, _) = fake.warm();
    node.insert("k".to_owned(), 1).unwrap();
    fake.mute();
    fake.hook(|words| match &*words[0] {
        "GET" if words[1] == "larder:v::k" => Say::Before(push_of(&["k"])),
        _ => Say::Right,
    });
    for _ in 0..50 {
        assert_eq!(node.get("k").unwrap(), Some(1), "who waits gets it");
        assert!(!is_kept(&node, "k"), "it may be older than the change");
    }
    fake.honest();
    node.get("k").unwrap();
    assert!(is_kept(&node, "k"));
}

#[test]
fn a_message_after_the_answer_takes_it_out() {
    let fake = Fake::start();
    let (node, _) = fake.warm();
    node.insert("k".to_owned(), 1).unwrap();
    fake.mute();
    fake.hook(|words| match &*words[0] {
        "GET" if words[1] == "larder:v::k" => Say::After(push_of(&["k"])),
        _ => Say::Right,
    });
    for round in 1..50 {
        assert_eq!(node.get("k").unwrap(), Some(1));
        until("it was taken out", || node.len() == 1);
        assert!(node.tiered_stats().l2_hits >= round);
    }
}

#[test]
fn one_that_cannot_be_read_flushes_everything() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    let odd: [&[u8]; 6] = [
        b">2\r\n$10\r\ninvalidate\r\n:5\r\n",
        b">1\r\n$10\r\ninvalidate\r\n",
        b">3\r\n$10\r\ninvalidate\r\n_\r\n_\r\n",
        b">2\r\n$10\r\ninvalidate\r\n*1\r\n:7\r\n",
        b">2\r\n$10\r\ninvalidate\r\n*2\r\n$11\r\nlarder:v::k\r\n_\r\n",
        b">1\r\n$21\r\ntracking-redir-broken\r\n",
    ];
    for (round, odd) in odd.into_iter().enumerate() {
        node.get_or_load("k", || 1).unwrap();
        fake.shout(odd);
        until("it was flushed", || {
            flushed(&watch, FlushCause::Unreadable) == round as u64 + 1
        });
        until("nothing is kept", || node.is_empty());
    }
    assert_eq!(watch.stats().dials, 1, "the link stands");
}

#[test]
fn one_about_something_else_is_passed_over() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    node.get_or_load("k", || 1).unwrap();
    assert!(is_kept(&node, "k"));
    let others: [&[u8]; 4] = [
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
        b">2\r\n$7\r\nunknown\r\n%1\r\n+a\r\n*2\r\n:1\r\n_\r\n",
        b">0\r\n",
        b">2\r\n$10\r\ninvalidate\r\n*1\r\n$11\r\nsomebody's:\r\n",
    ];
    for other in others {
        let before = watch.stats().pushes;
        fake.shout(other);
        until("it came", || watch.stats().pushes > before);
    }
    assert!(is_kept(&node, "k"));
    assert_eq!(
        (watch.stats().dials, flushed(&watch, FlushCause::Unreadable)),
        (1, 0)
    );
}

#[test]
fn one_whose_kind_is_no_text_ends_the_link() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    node.get_or_load("k", || 1).unwrap();
    fake.shout(b">2\r\n:1\r\n:2\r\n");
    until("it was flushed", || {
        flushed(&watch, FlushCause::Disconnected) == 1
    });
    until("there is a link again", || node.is_connected());
    assert_eq!(node.get("k").unwrap(), Some(1));
}

/// If a message never comes, though the link stands, the own time to live is the bound.
#[test]
fn one_that_never_comes_is_made_up_for_by_the_own_time_to_live() {
    let fake = Fake::start();
    let (writer, _) = fake.warm();
    let (link, _) = fake.link();
    let own = Duration::from_millis(300);
    let reader: Tiered<String, u64> = Tiered::builder(link)
        .max_capacity(100)
        .l1_time_to_live(own)
        .build()
        .unwrap();
    until("there is a link", || reader.is_connected());
    writer.insert("k".to_owned(), 1).unwrap();
    assert_eq!(reader.get("k").unwrap(), Some(1));
    fake.mute();
    writer.insert("k".to_owned(), 2).unwrap();
    until("its time is up", || reader.get("k").unwrap() == Some(2));
}

#[test]
fn a_half_open_link_is_noticed_flushed_and_closed() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    node.get_or_load("k", || 1).unwrap();
    let closed = fake.closed();
    let mut first = true;
    fake.hook(move |_| {
        if std::mem::take(&mut first) {
            Say::Silence
        } else {
            Say::Right
        }
    });
    // Nobody asks for anything: the heartbeat finds out.
    until("it was flushed", || {
        flushed(&watch, FlushCause::TimedOut) == 1
    });
    until("the link was closed, not only given up", || {
        fake.closed() > closed
    });
    until("there is another", || node.is_connected());
    assert!(!is_kept(&node, "k"));
    assert!(is_kept(&node, "k"));
}

#[test]
fn everything_may_come_in_two_parts_split_at_any_byte() {
    let fake = Fake::start();
    let (node, watch) = fake.warm();
    node.insert("k".to_owned(), 1).unwrap();
    let message = push_of(&["other", "k"]);
    let length = message.len() + 140;
    for at in 0..length {
        let message = message.clone();
        // The message and the answer as one stretch of bytes.
        let content = fake.content("k");
        let whole = [
            message,
            format!("${}\r\n", content.len()).into_bytes(),
            content,
            b"\r\n".to_vec(),
        ]
        .concat();
        assert!(whole.len() <= length);
        let at = at.min(whole.len());
        fake.hook(move |words| {
            if words[0] != "GET" || words[1] != "larder:v::k" {
                return Say::Right;
            }
            let (first, rest) = (whole[..at].to_vec(), whole[at..].to_vec());
            Say::Parts(first, rest)
        });
        assert_eq!(node.get("k").unwrap(), Some(1), "split at {at}");
    }
    assert_eq!(watch.stats().dials, 1, "the link stood all the time");
    assert!(watch.stats().pushes >= length as u64);
    fake.honest();
    fake.shout(&push(None));
}
