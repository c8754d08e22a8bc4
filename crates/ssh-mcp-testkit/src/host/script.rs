//! What a command does on a scripted host: a timetable, and how it takes signals and input.
//!
//! A script is data and has no state; each start makes a process of its own from it (`process.rs`).

use std::time::Duration;

use bytes::Bytes;
use ssh_mcp_core::history::Origin;
use ssh_mcp_core::port::ssh::Signal;

/// The behaviour of one command, read from left to right: `Script::new().out("a").after(SECOND).exit(0)`.
///
/// Without an end it runs until a signal or the end of its input ends it.
#[derive(Debug, Clone, Default)]
pub struct Script {
    pub(super) steps: Vec<(Duration, Step)>,
    pub(super) at: Duration,
    pub(super) input: Input,
    pub(super) ignored: Vec<Signal>,
    pub(super) signals: Signals,
    pub(super) interrupt: Interrupt,
    pub(super) held: Held,
    pub(super) start: Admission,
}

/// One moment of a timetable.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Output(Origin, Bytes),
    Eof,
    Exit(u32),
    ExitSignal(&'static str),
    LoseConnection,
}

/// What becomes of input.
#[derive(Debug, Clone, Default)]
pub(super) enum Input {
    /// Taken and forgotten.
    #[default]
    Forgotten,
    /// Not taken: sending waits for ever.
    Blocked,
    /// Written to standard output; its end is the end of the program.
    Cat,
    /// A line editor: echoes, and prompts after each line; `exit` or Ctrl-D ends it.
    Prompt(Bytes),
}

/// What the server does with signal requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Signals {
    #[default]
    Delivered,
    /// As OpenSSH up to 9.7 does for root: dropped without a word.
    Dropped,
}

/// What Ctrl-C does on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Interrupt {
    #[default]
    Ends,
    Ignored,
}

/// How long something keeps the output open after the end of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Held {
    #[default]
    Not,
    For(Duration),
    ForEver,
}

/// What the server answers to the request itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Admission {
    #[default]
    Accepted,
    Refused(&'static str),
    /// No answer at all.
    Silent,
}

impl Script {
    /// Starts at once, writes nothing, runs until something ends it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends at once with this status.
    pub fn exits(code: u32) -> Self {
        Self::new().exit(code)
    }

    /// Writes this and ends with status 0, as `echo` does.
    pub fn prints(text: impl Into<Bytes>) -> Self {
        Self::new().out(text).exit(0)
    }

    /// Runs this long and ends with status 0, as `sleep` does.
    pub fn runs_for(time: Duration) -> Self {
        Self::new().after(time).exit(0)
    }

    /// Copies its input to its output and ends with it, as `cat` does.
    pub fn cat() -> Self {
        Self { input: Input::Cat, ..Self::default() }
    }

    /// A login shell on a terminal: shows `prompt`, echoes each line, shows `prompt` again.
    pub fn shell(prompt: impl Into<Bytes>) -> Self {
        let prompt = prompt.into();
        Self { input: Input::Prompt(prompt.clone()), ..Self::default() }.out(prompt)
    }

    /// Lets time pass before the next step.
    pub fn after(mut self, time: Duration) -> Self {
        self.at += time;
        self
    }

    /// Writes to standard output.
    pub fn out(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Output(Origin::Stdout, bytes.into()))
    }

    /// Writes to standard error.
    pub fn err(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Output(Origin::Stderr, bytes.into()))
    }

    /// Closes the output and runs on.
    pub fn eof(self) -> Self {
        self.step(Step::Eof)
    }

    /// Ends with this status.
    pub fn exit(self, code: u32) -> Self {
        self.step(Step::Exit(code))
    }

    /// Ends by a signal of its own making, named without `SIG`.
    pub fn exit_signal(self, name: &'static str) -> Self {
        self.step(Step::ExitSignal(name))
    }

    /// Takes the whole connection down.
    pub fn lose_connection(self) -> Self {
        self.step(Step::LoseConnection)
    }

    /// Is not ended by these signals.
    pub fn ignoring(mut self, signals: &[Signal]) -> Self {
        self.ignored.extend_from_slice(signals);
        self
    }

    /// Is not ended by Ctrl-C.
    pub fn ignoring_interrupt(mut self) -> Self {
        self.interrupt = Interrupt::Ignored;
        self
    }

    /// No signal request reaches it, as on OpenSSH up to 9.7 for root; `kill` as a command does.
    pub fn unreached_by_signals(mut self) -> Self {
        self.signals = Signals::Dropped;
        self
    }

    /// A background child keeps the output open this long after the end: no end of file and no close before.
    pub fn holding_output(mut self, time: Duration) -> Self {
        self.held = Held::For(time);
        self
    }

    /// The channel is never closed by the server, even when the process has ended.
    pub fn never_closing(mut self) -> Self {
        self.held = Held::ForEver;
        self
    }

    /// Does not read: sending input to it waits for ever.
    pub fn not_reading(mut self) -> Self {
        self.input = Input::Blocked;
        self
    }

    /// The server refuses the request of this name (`exec`, `pty-req`, `shell`).
    pub fn refusing(mut self, request: &'static str) -> Self {
        self.start = Admission::Refused(request);
        self
    }

    /// The server never answers the request, and nothing runs.
    pub fn never_starting(mut self) -> Self {
        self.start = Admission::Silent;
        self
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push((self.at, step));
        self
    }
}
