//! Chance by a seed, and what can go wrong.

/// Numbers by a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// Below this.
    pub(crate) fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.draw(times) == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A connection ends, and both sides are told.
    Cut,
    /// A connection goes silent, and nobody is told.
    Silence,
    /// What is sent takes long.
    Delay,
    /// What was sent over a connection that has been given up arrives all the same.
    Late,
    /// The server does nothing for a while.
    Hang,
    /// The server dies, and comes back with its data.
    Restart,
    /// The server comes back with nothing.
    RestartEmpty,
    /// The server comes back with an older state of its data.
    RestartOlder,
    /// Nobody can dial for a while.
    Unreachable,
    /// The server becomes a replica, and is promoted again.
    Replica,
    /// The server's memory is full for a while.
    Full,
    /// Everything is deleted.
    FlushAll,
    /// Something is evicted: a content, a version or the sequence.
    Eviction,
    /// Bits of an answer are turned.
    Corruption,
    /// A message about changes cannot be read.
    UnreadablePush,
    /// A loader takes long.
    SlowLoader,
    /// A call is given up.
    Cancelled,
    /// A process's clock jumps ahead.
    ClockJump,
}

impl Fault {
    pub(crate) const ALL: [Fault; 18] = [
        Fault::Cut,
        Fault::Silence,
        Fault::Delay,
        Fault::Late,
        Fault::Hang,
        Fault::Restart,
        Fault::RestartEmpty,
        Fault::RestartOlder,
        Fault::Unreachable,
        Fault::Replica,
        Fault::Full,
        Fault::FlushAll,
        Fault::Eviction,
        Fault::Corruption,
        Fault::UnreadablePush,
        Fault::SlowLoader,
        Fault::Cancelled,
        Fault::ClockJump,
    ];
}
