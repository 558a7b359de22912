//! The retry queue: commands that make up for writes that were lost or refused.

use std::collections::VecDeque;

use super::commands::Command;
use crate::tier::contract::Change;
use crate::tier::tiered::EVERYTHING;

/// Commands in the order in which they were queued, and the changes to report once they are acknowledged.
pub(super) struct RetryQueue {
    queued: VecDeque<(Command, Vec<Change>)>,
    /// How many of these are being sent: they are at the front.
    sending: usize,
    words: usize,
    most_words: usize,
    /// What makes up for everything at once.
    all: Command,
}

/// How many commands are sent at a time.
const RETRY_BATCH: usize = 256;

impl RetryQueue {
    /// Holds at most so many words; what does not fit is made up for by the command `all`.
    pub(super) fn new(most_words: usize, all: Command) -> Self {
        RetryQueue {
            queued: VecDeque::new(),
            sending: 0,
            words: 0,
            most_words,
            all,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queued.len()
    }

    pub(super) fn is_sending(&self) -> bool {
        self.sending > 0
    }

    pub(super) fn add(&mut self, command: Command, changes: Vec<Change>) {
        // An equal command that still waits is sent with it.
        let mut waiting = self.queued.range(self.sending..);
        if waiting.any(|(other, _)| *other == command) {
            return;
        }
        if self.words + command.len() <= self.most_words {
            self.push(command, changes);
            return;
        }
        // One that is being sent may have been carried out before the write that is queued now.
        let waiting = self.queued.range(self.sending..);
        if waiting.last().is_none_or(|(last, _)| *last != self.all) {
            let everything = Change::Version(EVERYTHING.into());
            self.push(self.all.clone(), vec![everything]);
        }
    }

    fn push(&mut self, command: Command, changes: Vec<Change>) {
        self.words += command.len();
        self.queued.push_back((command, changes));
    }

    /// What to send now: as much as is surely answered in time.
    pub(super) fn send(&mut self) -> Vec<Command> {
        self.sending = self.queued.len().min(RETRY_BATCH);
        let commands = self.queued.range(..self.sending);
        commands.map(|(command, _)| command.clone()).collect()
    }

    /// Takes the answers to what was sent: commands that were carried out leave the queue. Returns what they changed.
    pub(super) fn ack(&mut self, carried_out: impl Fn(usize) -> bool) -> Vec<Change> {
        let mut changed = Vec::new();
        let mut refused = Vec::new();
        let answered = self.queued.drain(..std::mem::take(&mut self.sending));
        for (place, (command, changes)) in answered.enumerate() {
            if carried_out(place) {
                self.words -= command.len();
                changed.extend(changes);
            } else {
                refused.push((command, changes));
            }
        }
        for queued in refused.into_iter().rev() {
            self.queued.push_front(queued);
        }
        changed
    }

    /// The connection was lost: whether what was sent was carried out is not known, so it is to be sent again.
    pub(super) fn requeue(&mut self) {
        self.sending = 0;
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::{Change, Command, EVERYTHING, RetryQueue};

    fn command(word: &str) -> Command {
        vec![word.into()]
    }

    fn key(name: &str) -> Vec<Change> {
        vec![Change::Key(name.into())]
    }

    #[test]
    fn what_falls_due_while_others_are_paid_stays() {
        let mut retry_queue = RetryQueue::new(9, command("all"));
        retry_queue.add(command("a"), key("a"));
        assert_eq!(retry_queue.send(), [command("a")]);
        retry_queue.add(command("b"), key("b"));
        assert_eq!(retry_queue.ack(|_| true), key("a"));
        assert_eq!(retry_queue.send(), [command("b")]);
        assert_eq!(retry_queue.ack(|_| false), [], "refused, it stays");
        retry_queue.send();
        retry_queue.requeue();
        assert_eq!((retry_queue.len(), retry_queue.is_sending()), (1, false));
        assert_eq!(retry_queue.send(), [command("b")]);
        assert_eq!(retry_queue.ack(|_| true), key("b"));
        assert_eq!(retry_queue.len(), 0);
    }

    #[test]
    fn many_are_paid_in_portions_and_the_same_once() {
        let mut retry_queue = RetryQueue::new(10_000, command("all"));
        for name in 0..600 {
            retry_queue.add(command(&name.to_string()), Vec::new());
            retry_queue.add(command(&name.to_string()), Vec::new());
        }
        assert_eq!(retry_queue.len(), 600);
        for portion in [256, 256, 88] {
            assert_eq!(retry_queue.send().len(), portion);
            retry_queue.ack(|_| true);
        }
        assert_eq!(retry_queue.len(), 0);
    }

    #[test]
    fn more_than_is_remembered_is_everything_and_one_that_is_being_paid_covers_nothing_new() {
        let mut retry_queue = RetryQueue::new(1, command("all"));
        for name in ["a", "b", "c"] {
            retry_queue.add(command(name), key(name));
        }
        assert_eq!(retry_queue.send(), [command("a"), command("all")]);
        retry_queue.add(command("d"), key("d"));
        retry_queue.add(command("e"), key("e"));
        let everything = Change::Version(EVERYTHING.into());
        assert_eq!(
            retry_queue.ack(|_| true),
            [key("a"), vec![everything]].concat()
        );
        assert_eq!(
            retry_queue.send(),
            [command("all")],
            "for what was queued meanwhile"
        );
    }
}
