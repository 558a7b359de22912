//! The server, the wires to it, and what is on them.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use larder::tier::TierError;
use larder::tier::redis::internals::{
    Action, Command, Commands, ConnectionId, Event, Push, Response,
};

use crate::faults::{Dice, Fault};
use crate::mini_redis::{Content, MiniRedis, Told};
use crate::oracle::{KEYS, MILLI, Oracle, tag};
use crate::process::{Process, Wire};

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bug {
    None,
    /// What is stored is stored whatever stands there.
    FenceSkipped,
    /// The message that everything is gone is passed over.
    NullIgnored,
    /// What was read over a link that is gone is kept.
    FlushIgnored,
    /// The L1 is filled from an own write.
    FilledFromOwnWrite,
    /// Writes that were lost are forgotten.
    DebtsForgotten,
    /// A server that was started again is believed what it says.
    OldRunBelieved,
}

impl Bug {
    pub(crate) const PLANTED: [Bug; 6] = [
        Bug::FenceSkipped,
        Bug::NullIgnored,
        Bug::FlushIgnored,
        Bug::FilledFromOwnWrite,
        Bug::DebtsForgotten,
        Bug::OldRunBelieved,
    ];
}

/// Something under way.
enum Parcel {
    ToServer {
        from: usize,
        link: ConnectionId,
        id: u64,
        commands: Vec<Command>,
        /// The answers to those before these.
        responses: Vec<Response>,
    },
    ToProcess {
        to: usize,
        event: Event,
    },
}

/// When the simulation begins, in milliseconds since 1970: where the manual clocks begin.
const BEGIN: u64 = 1_577_836_800_000 + 1_000;

pub(crate) struct Network {
    pub(crate) now: u64,
    pub(crate) redis: MiniRedis,
    pub(crate) saved: BTreeMap<Vec<u8>, Content>,
    pub(crate) processes: Vec<Process>,
    pub(crate) dice: Dice,
    pub(crate) met: BTreeMap<Fault, u64>,
    pub(crate) oracle: Rc<RefCell<Oracle>>,
    pub(crate) bug: Bug,
    /// Until when each holds.
    pub(crate) hangs: u64,
    pub(crate) unreachable: u64,
    pub(crate) slow: u64,
    pub(crate) corrupts: u64,
    under_way: BinaryHeap<Reverse<(u64, u64)>>,
    parcels: BTreeMap<u64, Parcel>,
    sent: u64,
    traces: bool,
}

fn connection(process: usize, link: ConnectionId) -> u64 {
    process as u64 * 1_000_000 + link
}

impl Network {
    pub(crate) fn new(dice: Dice, oracle: Rc<RefCell<Oracle>>, bug: Bug) -> Self {
        Network {
            now: 0,
            redis: MiniRedis::at(BEGIN),
            saved: BTreeMap::new(),
            processes: Vec::new(),
            dice,
            met: BTreeMap::new(),
            oracle,
            bug,
            hangs: 0,
            unreachable: 0,
            slow: 0,
            corrupts: 0,
            under_way: BinaryHeap::new(),
            parcels: BTreeMap::new(),
            sent: 0,
            traces: std::env::var_os("LARDER_TRACE").is_some(),
        }
    }

    pub(crate) fn meets(&mut self, fault: Fault) {
        *self.met.entry(fault).or_default() += 1;
    }

    /// Tells a step, for whoever looks at one seed by hand.
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.traces {
            println!("{:>9.3} {}", self.now as f64 / MILLI as f64, what());
        }
    }

    fn post(&mut self, at: u64, parcel: Parcel) {
        self.sent += 1;
        self.under_way.push(Reverse((at, self.sent)));
        self.parcels.insert(self.sent, parcel);
    }

    fn delay(&mut self) -> u64 {
        let most = if self.slow > self.now {
            70 * MILLI
        } else {
            2 * MILLI
        };
        MILLI / 20 + self.dice.draw(most)
    }

    /// When something happens next.
    pub(crate) fn next(&self) -> u64 {
        let ticks = self.processes.iter().map(|process| {
            let due = process.coherence.next_tick();
            self.now + due.saturating_sub(process.now())
        });
        let parcel = self
            .under_way
            .peek()
            .map_or(u64::MAX, |Reverse((at, _))| *at);
        ticks.min().unwrap_or(u64::MAX).min(parcel)
    }

    pub(crate) fn pass(&mut self, until: u64) {
        let nanos = until.saturating_sub(self.now);
        self.now = self.now.max(until);
        self.redis.now = BEGIN + self.now / MILLI;
        self.processes
            .iter()
            .for_each(|process| process.pass(nanos));
    }

    /// Everything that is due: parcels, ticks, and what the callers have asked for.
    pub(crate) fn deliver(&mut self) {
        while let Some(&Reverse((at, number))) = self.under_way.peek() {
            if at > self.now {
                break;
            }
            self.under_way.pop();
            match self.parcels.remove(&number).unwrap() {
                Parcel::ToServer {
                    from,
                    link,
                    id,
                    commands,
                    responses,
                } => self.serve(from, link, id, commands, responses),
                Parcel::ToProcess { to, event } => self.feed(to, event),
            }
        }
        for number in 0..self.processes.len() {
            let process = &self.processes[number];
            if process.coherence.next_tick() <= process.now() {
                self.feed(number, Event::Tick);
            }
            loop {
                let asked = std::mem::take(&mut *self.processes[number].desk.requests.lock());
                if asked.is_empty() {
                    break;
                }
                for (request, answer) in asked {
                    self.processes[number].answers.insert(request.id, answer);
                    self.feed(number, Event::Request(request));
                }
            }
        }
    }

    pub(crate) fn feed(&mut self, number: usize, event: Event) {
        let mut actions = Vec::new();
        self.trace(|| format!("{number} hears {event:?}"));
        let process = &mut self.processes[number];
        process.coherence.handle(process.now(), event, &mut actions);
        for action in actions {
            self.trace(|| format!("{number} does {action:?}"));
            self.perform(number, action);
        }
    }

    fn perform(&mut self, number: usize, action: Action) {
        match action {
            Action::Dial(link) => {
                let at = self.now + self.delay();
                let event = if self.unreachable > self.now {
                    Event::DialFailed(link, TierError::Down)
                } else {
                    self.processes[number].wire = Some(Wire {
                        link,
                        is_silent: false,
                        to_server: 0,
                        to_process: 0,
                    });
                    Event::Dialed(link)
                };
                self.post(at, Parcel::ToProcess { to: number, event });
            }
            Action::Send(link, id, commands) => self.send(number, link, id, commands),
            Action::Close(link) => self.close(number, link),
            Action::Tell(changes) => self.processes[number].tell(&changes),
            Action::Flush(cause) => self.processes[number].flush(cause),
            Action::ConnectionChanged(up) => self.processes[number].connection_changed(up),
            Action::Answer(id, answer) => {
                if let Some(waiting) = self.processes[number].answers.remove(&id) {
                    let _ = waiting.send(answer);
                }
            }
        }
    }

    /// A connection over which anything arrives.
    fn wire(&mut self, number: usize, link: ConnectionId) -> Option<&mut Wire> {
        let wire = self.processes[number].wire.as_mut()?;
        (wire.link == link && !wire.is_silent).then_some(wire)
    }

    fn send(&mut self, number: usize, link: ConnectionId, id: u64, commands: Vec<Command>) {
        let at = self.now + self.delay();
        let Some(wire) = self.wire(number, link) else {
            return;
        };
        wire.to_server = wire.to_server.max(at);
        let at = wire.to_server;
        let parcel = Parcel::ToServer {
            from: number,
            link,
            id,
            commands,
            responses: Vec::new(),
        };
        self.post(at, parcel);
    }

    /// The process has given the link up. What it had sent may be lost, or arrive, at once or much later.
    fn close(&mut self, number: usize, link: ConnectionId) {
        if self.processes[number]
            .wire
            .as_ref()
            .is_some_and(|wire| wire.link == link)
        {
            self.processes[number].wire = None;
        }
        self.redis.forget(connection(number, link));
        let lateness = self.dice.draw(400) * MILLI;
        let fate = self.dice.draw(3);
        let ours = self
            .parcels
            .iter()
            .filter_map(|(place, parcel)| match parcel {
                Parcel::ToServer {
                    from, link: over, ..
                } if *from == number && *over == link => Some(*place),
                _ => None,
            });
        let ours: Vec<u64> = ours.collect();
        for place in ours {
            match fate {
                0 => drop(self.parcels.remove(&place)),
                1 => {}
                _ => {
                    let parcel = self.parcels.remove(&place).unwrap();
                    self.meets(Fault::Late);
                    self.post(self.now + lateness, parcel);
                }
            }
        }
        let due = std::mem::take(&mut self.under_way);
        self.under_way = due
            .into_iter()
            .filter(|Reverse((_, place))| self.parcels.contains_key(place))
            .collect();
    }

    /// A connection ends: the process is told, unless it goes silent.
    pub(crate) fn cut(&mut self, number: usize) {
        let Some(wire) = self.processes[number].wire.take() else {
            return;
        };
        self.redis.forget(connection(number, wire.link));
        let event = Event::Lost(wire.link, "cut".into());
        // What was on its way to the process comes first, if it comes at all.
        let at = wire.to_process.max(self.now) + self.delay();
        self.post(at, Parcel::ToProcess { to: number, event });
    }

    /// One command after the other: others' may come between them.
    fn serve(
        &mut self,
        from: usize,
        link: ConnectionId,
        id: u64,
        mut commands: Vec<Command>,
        mut responses: Vec<Response>,
    ) {
        if self.hangs > self.now {
            let parcel = Parcel::ToServer {
                from,
                link,
                id,
                commands,
                responses,
            };
            return self.post(self.hangs, parcel);
        }
        let (response, told) = self.execute(connection(from, link), &commands.remove(0));
        responses.push(self.garble(response));
        // What a command's own connection is told comes after its answer.
        let own = connection(from, link);
        let (own, others): (Vec<_>, Vec<_>) = told.into_iter().partition(|told| told.0 == own);
        self.tell(others);
        if commands.is_empty() {
            self.answer(from, link, Event::Replied(link, id, Ok(responses)));
            return self.tell(own);
        }
        self.tell(own);
        let gap = match self.dice.draw(4) {
            0 => self.dice.draw(MILLI),
            _ => 0,
        };
        let parcel = Parcel::ToServer {
            from,
            link,
            id,
            commands,
            responses,
        };
        self.post(self.now + gap, parcel);
    }

    fn garble(&mut self, response: Response) -> Response {
        match response {
            Response::Bytes(mut bytes) if self.corrupts > self.now && bytes.len() > 40 => {
                self.meets(Fault::Corruption);
                let bit = self.dice.draw(bytes.len() as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
                Response::Bytes(bytes)
            }
            other => other,
        }
    }

    fn execute(&mut self, by: u64, command: &Command) -> (Response, Vec<Told>) {
        let text = command
            .get(1)
            .map(|word| String::from_utf8_lossy(word).into_owned());
        let text = text.unwrap_or_default();
        if self.bug == Bug::FenceSkipped && text.contains("~= ARGV[5]") {
            let key = command[3].clone();
            let set = vec![
                b"SET".to_vec(),
                key,
                command[4].clone(),
                b"PX".to_vec(),
                command[5].clone(),
            ];
            let (_, told) = self.redis.run(by, &set);
            return (Response::Int(1), told);
        }
        let (response, told) = self.redis.run(by, command);
        // A run that is known already changes nothing.
        let is_done = !text.contains("run_id") || response == Response::Int(1);
        if is_done && !matches!(response, Response::Error(_)) {
            self.note(command, &text);
        }
        (response, told)
    }

    /// What a command that was carried out makes invalid.
    fn note(&mut self, command: &Command, text: &str) {
        let names: &[Vec<u8>] = match &*command[0] {
            b"DEL" => &command[1..],
            b"EVAL" if text.contains("return sequence(KEYS[2])") => &command[3..4],
            b"EVAL" if text.contains("'INCR'") && !text.contains("'EXISTS'") => &command[3..4],
            _ => return,
        };
        for key in 0..KEYS {
            let covered = names.iter().any(|name| {
                **name == *format!("v::k{key}").as_bytes()
                    || **name == *format!("t:#{}", tag(key)).as_bytes()
                    || **name == *b"t:*"
            });
            if covered {
                self.oracle.borrow_mut().invalidates(key, self.now);
            }
        }
    }

    pub(crate) fn tell(&mut self, told: Vec<Told>) {
        for (to, keys) in told {
            let (number, link) = ((to / 1_000_000) as usize, to % 1_000_000);
            let layout = Commands::new("");
            let what = match keys {
                None if self.bug == Bug::NullIgnored => continue,
                None => Response::Nil,
                Some(keys) => Response::List(keys.into_iter().map(Response::Bytes).collect()),
            };
            let mut push = Push::read("invalidate", &[what], &layout);
            if self.corrupts > self.now {
                self.meets(Fault::UnreadablePush);
                push = Push::Unreadable;
            }
            self.answer(number, link, Event::Pushed(link, push));
        }
    }

    fn answer(&mut self, number: usize, link: ConnectionId, event: Event) {
        let at = self.now + self.delay();
        let Some(wire) = self.wire(number, link) else {
            return;
        };
        wire.to_process = wire.to_process.max(at);
        let at = wire.to_process;
        self.post(at, Parcel::ToProcess { to: number, event });
    }
}
