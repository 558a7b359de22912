//! What was sent over the current connection and is not answered yet.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::event::Effect;
use crate::util::clock::NEVER;

pub(super) struct InFlightRequest {
    pub(super) sent_at: u64,
    pub(super) kind: RequestKind,
    /// Pushes that came for the key of a fenced write.
    pub(super) deferred_push: bool,
}

pub(super) enum RequestKind {
    Handshake,
    Retry,
    Heartbeat,
    For(Effect),
}

/// By number. All operations take constant or logarithmic time, however many there are.
#[derive(Default)]
pub(super) struct InFlight {
    pending: BTreeMap<u64, InFlightRequest>,
    /// When each is overdue, in the order of sending: all may take as long. What has been answered since is dropped
    /// when it comes to the front.
    overdue: VecDeque<(u64, u64)>,
    /// The fenced writes under way for each key, in the order of sending.
    fenced: HashMap<Vec<u8>, VecDeque<u64>>,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whatever was sent before is overdue no later than this.
    pub(super) fn add(&mut self, id: u64, now: u64, overdue_at: u64, kind: RequestKind) {
        if let RequestKind::For(Effect::Fenced { key, .. }) = &kind {
            self.fenced.entry(key.clone()).or_default().push_back(id);
        }
        let pending = InFlightRequest {
            sent_at: now,
            kind,
            deferred_push: false,
        };
        self.pending.insert(id, pending);
        self.overdue.push_back((overdue_at, id));
    }

    pub(super) fn answered(&mut self, id: u64) -> Option<InFlightRequest> {
        let answered = self.pending.remove(&id)?;
        let is_answered = |(_, id): &(u64, u64)| !self.pending.contains_key(id);
        while self.overdue.front().is_some_and(is_answered) {
            self.overdue.pop_front();
        }
        if let RequestKind::For(Effect::Fenced { key, .. }) = &answered.kind {
            if let Some(ids) = self.fenced.get_mut(key) {
                ids.retain(|fenced| *fenced != id);
                if ids.is_empty() {
                    self.fenced.remove(key);
                }
            }
        }
        Some(answered)
    }

    /// When the first of them is overdue.
    pub(super) fn overdue_at(&self) -> u64 {
        self.overdue.front().map_or(NEVER, |(at, _)| *at)
    }

    /// The fenced write of this key that will be answered first.
    pub(super) fn fenced(&mut self, key: &[u8]) -> Option<&mut InFlightRequest> {
        let id = self.fenced.get(key)?.front()?;
        self.pending.get_mut(id)
    }

    /// The connection is lost: nothing that was sent over it will be answered.
    pub(super) fn take_all(&mut self) -> BTreeMap<u64, InFlightRequest> {
        self.overdue.clear();
        self.fenced.clear();
        std::mem::take(&mut self.pending)
    }
}
