//! How a command ends: by itself, or by the ladder that ends it.
//!
//! The machine takes what a channel reports and what is asked of the command, and says what to do next. It never
//! believes in a signal it sent: requests have no reply (RFC 4254, 6.9), so only an exit or a close that is seen
//! counts. The ladder and its times are described in `docs/lifecycle.md`, "How a command is ended".

use std::time::Duration;

use serde::Serialize;

use super::tail::{self, Tail};
use crate::{port::ssh::Signal, reason::Reason};

/// What the far side said about the end of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It ended with this status.
    Status(u32),
    /// This signal ended it; the name is without `SIG`.
    Signal(String),
}

/// The number Linux gives a signal that RFC 4254, 6.10 names.
pub fn signal_number(name: &str) -> Option<u8> {
    Some(match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "ABRT" => 6,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        _ => return None,
    })
}

/// What ended a command that was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The interrupt character of its terminal.
    Interrupt,
    /// A signal it could have handled.
    Signal,
    /// A signal it could not.
    Kill,
    /// Nothing that was seen: its channel was closed.
    Close,
}

/// What a command is doing, in the words of the tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has not ended.
    Running,
    /// It ended by itself.
    Completed,
    /// The connection broke, or the server refused to run it.
    Failed,
    /// It was asked to end.
    Cancelled,
    /// Its time limit ended it.
    TimedOut,
}

impl Status {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }
}

/// Why a command ended without a status of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The server would not run it.
    #[error("the server refused the {request} request")]
    Refused {
        /// The request.
        request: &'static str,
    },
    /// The connection broke.
    #[error("connection lost: {cause}")]
    Lost {
        /// One line.
        cause: String,
    },
}

/// What is known of an ended command besides its reason and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its last status.
    pub status: Status,
    /// What the far side said.
    pub exit: Option<Exit>,
    /// What ended it, if it was asked to.
    pub ended_by: Option<EndedBy>,
    /// Why there is no exit.
    pub fault: Option<Fault>,
    /// Whether something it started still held its output.
    pub output: Output,
    /// The process group, if the login shell told it.
    pub pid: Option<u32>,
}

impl Facts {
    /// The exit code as tools show it: absent after death by signal, -1 when the server closed without a status.
    pub fn exit_code(&self) -> Option<i64> {
        match (&self.exit, self.status) {
            (Some(Exit::Status(status)), _) => Some(i64::from(*status)),
            (None, Status::Completed) => Some(-1),
            (Some(Exit::Signal(_)) | None, _) => None,
        }
    }

    /// The signal that ended it.
    pub fn exit_signal(&self) -> Option<&str> {
        match &self.exit {
            Some(Exit::Signal(name)) => Some(name),
            Some(Exit::Status(_)) | None => None,
        }
    }
}

/// Whether a command's output was at its end when the command was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// It was.
    Ended,
    /// Something the command started holds it; later bytes still arrive.
    StillOpen,
}

/// Whether a command runs on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// Plain pipes.
    None,
    /// A terminal, whose interrupt character can be used.
    Pty,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The process ended.
    Exit(Exit),
    /// The far side closed the channel.
    Closed,
    /// The far side refused to start it.
    Refused(&'static str),
    /// The connection broke.
    Lost(String),
    /// Somebody won the right to end it.
    Stop,
    /// The process group is not known, so it cannot be killed.
    NoGroup,
    /// A deadline has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Claim the end for the command itself; if somebody else has it, nothing changes.
    Claim,
    /// Claim the end for the time limit.
    Expire,
    /// Send the terminal's interrupt character.
    Interrupt,
    /// Ask the server to send this signal.
    Signal(Signal),
    /// Kill the process group by a command of its own, if the group is known.
    KillGroup,
    /// Close the channel.
    Close,
    /// The command is over; these are its facts.
    Settle(Outcome),
    /// Nothing more comes; the channel can be dropped.
    Leave,
}

/// What the machine knows of an ended command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What the far side said.
    pub exit: Option<Exit>,
    /// The rung that was in force when it ended.
    pub ended_by: Option<EndedBy>,
    /// Why there is no exit.
    pub fault: Option<Fault>,
    /// Whether output may still come.
    pub output: Output,
}

/// The life of one command on its channel.
///
/// ```text
/// Running --exit--> Exited --no more output--> (settled) Draining --close, limit, stop--> Over
///    |                 | stop
///    |                 v
///    +--stop--> Ending(rung) --exit--> Dying --close, or the sweep and no more output--> (settled) Over
///    +--close, refusal, loss--> (settled) Over
/// ```
#[derive(Debug)]
pub struct Machine {
    terminal: Terminal,
    phase: Phase,
    limit: Option<Duration>,
}

#[derive(Debug)]
enum Phase {
    Running,
    Exited {
        exit: Exit,
        tail: Tail,
    },
    /// `stop` is when it was asked to end.
    Ending {
        rung: Rung,
        until: Duration,
        stop: Duration,
    },
    Dying(Dying),
    Draining,
    Over,
}

/// The leader of a command that was asked to end is gone.
#[derive(Debug)]
struct Dying {
    exit: Exit,
    by: Option<EndedBy>,
    tail: Tail,
    sweep: Sweep,
}

/// How whoever of the group still holds the output is dealt with, beside the wait for what was printed before.
#[derive(Debug, Clone, Copy)]
enum Sweep {
    /// It may go by itself until then.
    Due(Duration),
    /// It has been killed, which may take until then to be seen.
    Done(Duration),
}

impl Dying {
    fn new(now: Duration, exit: Exit, by: Option<EndedBy>, tail: Tail) -> Self {
        Self { exit, by, tail, sweep: Sweep::Due(tail.until().min(now + tail::GRACE)) }
    }

    fn until(&self) -> Duration {
        match self.sweep {
            Sweep::Due(at) => at,
            Sweep::Done(at) => at.max(self.tail.until()),
        }
    }
}

/// The rungs of the ladder, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rung {
    Interrupt,
    Term,
    Kill,
    KillGroup,
}

impl Rung {
    /// How long what this rung did may take to be seen.
    fn patience(self) -> Duration {
        match self {
            Self::Interrupt => Duration::from_millis(250),
            Self::Term => Duration::from_secs(2),
            Self::Kill | Self::KillGroup => Duration::from_secs(1),
        }
    }

    fn step(self) -> Step {
        match self {
            Self::Interrupt => Step::Interrupt,
            Self::Term => Step::Signal(Signal::Term),
            Self::Kill => Step::Signal(Signal::Kill),
            Self::KillGroup => Step::KillGroup,
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Self::Interrupt => Some(Self::Term),
            Self::Term => Some(Self::Kill),
            Self::Kill => Some(Self::KillGroup),
            Self::KillGroup => None,
        }
    }

    fn ended_by(self) -> EndedBy {
        match self {
            Self::Interrupt => EndedBy::Interrupt,
            Self::Term => EndedBy::Signal,
            Self::Kill | Self::KillGroup => EndedBy::Kill,
        }
    }
}

impl Machine {
    /// A command that has just been started; `limit` is the moment its run time is over.
    pub fn new(terminal: Terminal, limit: Option<Duration>) -> Self {
        Self { terminal, phase: Phase::Running, limit }
    }

    /// The next moment `Input::Tick` is wanted.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Running | Phase::Draining => self.limit,
            Phase::Exited { tail, .. } => Some(tail.until()),
            Phase::Ending { until, .. } => Some(*until),
            Phase::Dying(dying) => Some(dying.until()),
            Phase::Over => None,
        }
    }

    /// The moment its run time is over, while it runs.
    pub fn limit(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Running => self.limit,
            Phase::Exited { .. } | Phase::Ending { .. } | Phase::Dying(_) | Phase::Draining | Phase::Over => {
                None
            }
        }
    }

    /// Nobody has looked at the channel for so long.
    pub fn on_pause(&mut self, lasted: Duration) {
        if let Phase::Exited { tail, .. } | Phase::Dying(Dying { tail, .. }) = &mut self.phase {
            tail.on_pause(lasted);
        }
    }

    /// Whether output may come that was printed before the exit; it goes before a deadline that has passed.
    pub fn expects_output(&self) -> bool {
        match &self.phase {
            Phase::Exited { tail, .. } | Phase::Dying(Dying { tail, .. }) => tail.is_expecting(),
            Phase::Running | Phase::Ending { .. } | Phase::Draining | Phase::Over => false,
        }
    }

    /// Output has come. While the far side hands over what it held at the exit, the command is not over.
    pub fn on_output(&mut self, now: Duration, size: usize) {
        if let Phase::Exited { tail, .. } | Phase::Dying(Dying { tail, .. }) = &mut self.phase {
            tail.on_output(now, size);
        }
    }

    /// Takes what happened at `now` and says what to do, in order.
    pub fn on(&mut self, now: Duration, input: Input) -> Vec<Step> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Running => self.running(now, input),
            Phase::Exited { exit, tail } => self.exited(now, input, exit, tail),
            Phase::Ending { rung, until, stop } => self.ending(now, input, rung, until, stop),
            Phase::Dying(dying) => self.dying(now, input, dying),
            Phase::Draining => self.draining(now, input),
            Phase::Over => Vec::new(),
        }
    }

    fn running(&mut self, now: Duration, input: Input) -> Vec<Step> {
        match input {
            Input::Exit(exit) => {
                self.phase = Phase::Exited { exit, tail: Tail::begin(now) };
                vec![Step::Claim]
            }
            Input::Closed => vec![Step::Claim, settle(None, None, None), Step::Leave],
            Input::Refused(request) => {
                vec![
                    Step::Claim,
                    settle(None, None, Some(Fault::Refused { request })),
                    Step::Close,
                    Step::Leave,
                ]
            }
            Input::Lost(cause) => {
                vec![Step::Claim, settle(None, None, Some(Fault::Lost { cause })), Step::Leave]
            }
            Input::Stop => match self.terminal {
                Terminal::Pty => self.climb(now, Rung::Interrupt, now),
                Terminal::None => self.climb(now, Rung::Term, now),
            },
            Input::NoGroup => {
                self.phase = Phase::Running;
                Vec::new()
            }
            Input::Tick => {
                self.phase = Phase::Running;
                // Asked once: whoever claims the end, a stop follows.
                match self.limit.take_if(|limit| *limit <= now) {
                    Some(_) => vec![Step::Expire],
                    None => Vec::new(),
                }
            }
        }
    }

    fn exited(&mut self, now: Duration, input: Input, exit: Exit, tail: Tail) -> Vec<Step> {
        match input {
            Input::Closed | Input::Lost(_) => vec![settle(Some(exit), None, None), Step::Leave],
            Input::Tick if now >= tail.until() => {
                self.phase = Phase::Draining;
                vec![settle_open(exit)]
            }
            // A stop that won the race: the leader ended by itself, but what it left behind is to end too.
            Input::Stop => {
                self.phase = Phase::Dying(Dying::new(now, exit, None, tail.stopped(now)));
                Vec::new()
            }
            Input::NoGroup | Input::Tick | Input::Exit(_) | Input::Refused(_) => {
                self.phase = Phase::Exited { exit, tail };
                Vec::new()
            }
        }
    }

    fn ending(
        &mut self,
        now: Duration,
        input: Input,
        rung: Rung,
        until: Duration,
        stop: Duration,
    ) -> Vec<Step> {
        let by = rung.ended_by();
        match input {
            Input::Exit(exit) => {
                let tail = Tail::begin(now).stopped(stop);
                self.phase = Phase::Dying(Dying::new(now, exit, Some(by), tail));
                Vec::new()
            }
            Input::Closed => vec![settle(None, Some(by), None), Step::Leave],
            Input::Refused(request) => {
                vec![settle(None, None, Some(Fault::Refused { request })), Step::Close, Step::Leave]
            }
            Input::Lost(cause) => vec![settle(None, None, Some(Fault::Lost { cause })), Step::Leave],
            Input::Tick if now >= until => match rung.next() {
                Some(next) => self.climb(now, next, stop),
                None => give_up(),
            },
            Input::NoGroup if rung == Rung::KillGroup => give_up(),
            Input::Tick | Input::NoGroup | Input::Stop => {
                self.phase = Phase::Ending { rung, until, stop };
                Vec::new()
            }
        }
    }

    /// The leader is gone. Whoever of its group still holds the output is swept by the group's number.
    fn dying(&mut self, now: Duration, input: Input, mut dying: Dying) -> Vec<Step> {
        match (input, dying.sweep) {
            (Input::Closed | Input::Lost(_), _) => {
                return vec![settle(Some(dying.exit), dying.by, None), Step::Leave];
            }
            (Input::Tick, Sweep::Due(at)) if now >= at => {
                dying.sweep = Sweep::Done(now + Rung::KillGroup.patience());
                self.phase = Phase::Dying(dying);
                return vec![Step::KillGroup];
            }
            (Input::NoGroup, Sweep::Done(_)) => dying.sweep = Sweep::Done(now),
            (Input::Tick | Input::NoGroup | Input::Stop | Input::Exit(_) | Input::Refused(_), _) => {}
        }
        if matches!(dying.sweep, Sweep::Done(_)) && now >= dying.until() {
            return abandon(dying.exit, dying.by);
        }
        self.phase = Phase::Dying(dying);
        Vec::new()
    }

    fn draining(&mut self, now: Duration, input: Input) -> Vec<Step> {
        match input {
            Input::Closed | Input::Lost(_) => vec![Step::Leave],
            Input::Stop => vec![Step::Close, Step::Leave],
            Input::Tick if self.limit.is_some_and(|limit| limit <= now) => vec![Step::Close, Step::Leave],
            Input::Tick | Input::NoGroup | Input::Exit(_) | Input::Refused(_) => {
                self.phase = Phase::Draining;
                Vec::new()
            }
        }
    }

    fn climb(&mut self, now: Duration, rung: Rung, stop: Duration) -> Vec<Step> {
        self.phase = Phase::Ending { rung, until: now + rung.patience(), stop };
        vec![rung.step()]
    }
}

fn settle(exit: Option<Exit>, ended_by: Option<EndedBy>, fault: Option<Fault>) -> Step {
    Step::Settle(Outcome { exit, ended_by, fault, output: Output::Ended })
}

fn settle_open(exit: Exit) -> Step {
    Step::Settle(Outcome { exit: Some(exit), ended_by: None, fault: None, output: Output::StillOpen })
}

/// Nothing worked, or nothing was seen to work.
fn give_up() -> Vec<Step> {
    vec![Step::Close, settle(None, Some(EndedBy::Close), None), Step::Leave]
}

/// The leader is dead; whoever still holds the output has left its group or cannot be reached.
fn abandon(exit: Exit, by: Option<EndedBy>) -> Vec<Step> {
    vec![Step::Close, settle(Some(exit), by, None), Step::Leave]
}

/// The status and reason of a command that ended by itself.
pub fn natural(outcome: &Outcome) -> (Status, Reason) {
    match (&outcome.exit, &outcome.fault) {
        (Some(_), _) => (Status::Completed, Reason::Completed),
        (None, None) => (Status::Completed, Reason::RemoteClosed),
        (None, Some(Fault::Refused { .. })) => (Status::Failed, Reason::Failed),
        (None, Some(Fault::Lost { .. })) => (Status::Failed, Reason::ConnectionLost),
    }
}

/// The status of a command that was ended for `reason`.
pub fn stopped(reason: Reason) -> Status {
    match reason {
        Reason::TimedOut => Status::TimedOut,
        Reason::ConnectionLost => Status::Failed,
        Reason::Completed
        | Reason::Failed
        | Reason::Cancelled
        | Reason::RemoteClosed
        | Reason::ManualClose
        | Reason::CascadeDisconnect
        | Reason::UnsubscribeGraceElapsed
        | Reason::NeverObserved
        | Reason::InactivityTtlFired
        | Reason::LeakKill
        | Reason::ServerShutdown
        | Reason::PeerGone
        | Reason::LifetimeLeaseExpired
        | Reason::AutoClose
        | Reason::RetentionOver => Status::Cancelled,
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests;
