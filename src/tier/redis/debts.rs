//! What is owed to the server: commands that make up for writes which were lost or refused.

use std::collections::VecDeque;

use super::event::Command;
use crate::tier::contract::Change;
use crate::tier::tiered::EVERYTHING;

/// Commands in the order in which they fell due, and what the listener is to be told once they are paid.
pub(super) struct Debts {
    owed: VecDeque<(Command, Vec<Change>)>,
    /// How many of these are being paid: they stand in front.
    paying: usize,
    words: usize,
    most_words: usize,
    /// What makes up for everything at once.
    all: Command,
}

impl Debts {
    /// With so many words in all, what else falls due is made up for by the command `all`.
    pub(super) fn new(most_words: usize, all: Command) -> Self {
        Debts {
            owed: VecDeque::new(),
            paying: 0,
            words: 0,
            most_words,
            all,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.owed.len()
    }

    pub(super) fn is_paying(&self) -> bool {
        self.paying > 0
    }

    pub(super) fn add(&mut self, command: Command, changes: Vec<Change>) {
        if self.words + command.len() <= self.most_words {
            self.push(command, changes);
            return;
        }
        // One that is being paid may have been carried out before the write that falls due now.
        let waiting = self.owed.range(self.paying..);
        if waiting.last().is_none_or(|(last, _)| *last != self.all) {
            let everything = Change::Version(EVERYTHING.into());
            self.push(self.all.clone(), vec![everything]);
        }
    }

    fn push(&mut self, command: Command, changes: Vec<Change>) {
        self.words += command.len();
        self.owed.push_back((command, changes));
    }

    /// What to send now.
    pub(super) fn pay(&mut self) -> Vec<Command> {
        self.paying = self.owed.len();
        let commands = self.owed.iter().map(|(command, _)| command.clone());
        commands.collect()
    }

    /// What was sent has been carried out: these have changed.
    pub(super) fn paid(&mut self) -> Vec<Change> {
        let paid = self.owed.drain(..std::mem::take(&mut self.paying));
        let mut changed = Vec::new();
        for (command, changes) in paid {
            self.words -= command.len();
            changed.extend(changes);
        }
        changed
    }

    /// It has not, or nobody knows.
    pub(super) fn unpaid(&mut self) {
        self.paying = 0;
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::{Change, Command, Debts, EVERYTHING};

    fn command(word: &str) -> Command {
        vec![word.into()]
    }

    fn key(name: &str) -> Vec<Change> {
        vec![Change::Key(name.into())]
    }

    #[test]
    fn what_falls_due_while_others_are_paid_stays() {
        let mut debts = Debts::new(9, command("all"));
        debts.add(command("a"), key("a"));
        assert_eq!(debts.pay(), [command("a")]);
        debts.add(command("b"), key("b"));
        assert_eq!(debts.paid(), key("a"));
        assert_eq!(debts.pay(), [command("b")]);
        debts.unpaid();
        assert_eq!((debts.len(), debts.is_paying()), (1, false));
        assert_eq!(debts.pay(), [command("b")]);
        assert_eq!(debts.paid(), key("b"));
        assert_eq!(debts.len(), 0);
    }

    #[test]
    fn more_than_is_remembered_is_everything_and_one_that_is_being_paid_covers_nothing_new() {
        let mut debts = Debts::new(1, command("all"));
        for name in ["a", "b", "c"] {
            debts.add(command(name), key(name));
        }
        assert_eq!(debts.pay(), [command("a"), command("all")]);
        debts.add(command("d"), key("d"));
        debts.add(command("e"), key("e"));
        let everything = Change::Version(EVERYTHING.into());
        assert_eq!(debts.paid(), [key("a"), vec![everything]].concat());
        assert_eq!(debts.pay(), [command("all")], "for what fell due meanwhile");
    }
}
