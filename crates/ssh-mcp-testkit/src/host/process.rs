//! One process on a scripted host: a script that has begun, with its timetable in absolute time.
//!
//! A plain machine: time comes in as `now`, events and the next moment go out. Who polls it is `channel.rs`.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use ssh_mcp_core::history::Origin;
use ssh_mcp_core::port::ssh::{ChannelEvent, Signal};
use tokio::time::Instant;

use super::script::{Admission, Held, Input, Interrupt, Script, Signals, Step};

/// A script under way.
#[derive(Debug)]
pub(super) struct Process {
    /// What `kill` calls it.
    pub(super) pid: u32,
    /// The command line, empty for a login shell.
    pub(super) line: String,
    script: Script,
    terminal: Terminal,
    ends_at: Option<Instant>,
    pending: VecDeque<(Instant, Happening)>,
    typed: BytesMut,
}

/// Whether the process runs on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminal {
    Pty,
    Pipes,
}

/// What a poll finds.
#[derive(Debug)]
pub(super) enum Happening {
    Event(ChannelEvent),
    LoseConnection,
}

/// What is due, or when to look again.
#[derive(Debug)]
pub(super) enum Next {
    Now(Happening),
    At(Instant),
    Never,
}

impl Process {
    /// Begins `script`; `greeting` is what the login shell writes to standard error before the command.
    pub(super) fn start(
        script: Script,
        line: String,
        pid: u32,
        terminal: Terminal,
        greeting: Option<Bytes>,
        now: Instant,
    ) -> Self {
        let mut process = Self {
            pid,
            line,
            terminal,
            ends_at: None,
            pending: VecDeque::new(),
            typed: BytesMut::new(),
            script,
        };
        match process.script.start {
            Admission::Accepted => process.push(now, ChannelEvent::Started),
            Admission::Refused(request) => {
                process.ends_at = Some(now);
                process.push(now, ChannelEvent::Refused { request });
                return process;
            }
            Admission::Silent => {
                process.ends_at = Some(now);
                return process;
            }
        }
        if let Some(greeting) = greeting {
            process.output(now, Origin::Stderr, greeting);
        }
        for (offset, step) in process.script.steps.clone() {
            let at = now + offset;
            match step {
                Step::Output(origin, bytes) => process.output(at, origin, bytes),
                Step::Eof => process.push(at, ChannelEvent::Eof),
                Step::Exit(code) => process.end(at, ChannelEvent::ExitStatus(code)),
                Step::ExitSignal(name) => {
                    process.end(at, ChannelEvent::ExitSignal { name: name.to_owned() });
                }
                Step::LoseConnection => process.insert(at, Happening::LoseConnection),
            }
        }
        process
    }

    /// Whether the process lives, however much of its output is still to be read.
    pub(super) fn is_running(&self, now: Instant) -> bool {
        self.ends_at.is_none_or(|end| end > now)
    }

    /// When it will have ended, if that is known.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.ends_at
    }

    /// Whether input is never taken: its window stays shut until the channel closes, also behind a process that ended.
    pub(super) fn takes_no_input(&self) -> bool {
        matches!(self.script.input, Input::Blocked)
    }

    /// A signal requested by the client.
    pub(super) fn on_signal(&mut self, signal: Signal, now: Instant) {
        if self.script.signals == Signals::Delivered {
            self.on_kill(signal, now);
        }
    }

    /// A signal sent on the host itself.
    pub(super) fn on_kill(&mut self, signal: Signal, now: Instant) {
        if self.is_running(now) && !self.script.ignored.contains(&signal) {
            self.cut_short(now, ChannelEvent::ExitSignal { name: name(signal).to_owned() });
        }
    }

    /// Bytes from the client. `lookup` says what a line typed into a shell does.
    pub(super) fn on_input(&mut self, bytes: &[u8], now: Instant, lookup: impl Fn(&str) -> Option<Script>) {
        if !self.is_running(now) {
            return;
        }
        if let Input::Prompt(prompt) = &self.script.input {
            let prompt = prompt.clone();
            return self.on_typing(bytes, &prompt, now, lookup);
        }
        if self.terminal == Terminal::Pty
            && bytes.contains(&CTRL_C)
            && self.script.interrupt == Interrupt::Ends
        {
            return self.cut_short(now, ChannelEvent::ExitSignal { name: "INT".to_owned() });
        }
        if matches!(self.script.input, Input::Cat) {
            self.output(now, Origin::Stdout, Bytes::copy_from_slice(bytes));
        }
    }

    /// No more input comes.
    pub(super) fn on_input_end(&mut self, now: Instant) {
        if self.is_running(now) && matches!(self.script.input, Input::Cat | Input::Prompt(_)) {
            self.cut_short(now, ChannelEvent::ExitStatus(0));
        }
    }

    /// What is due at `now`.
    pub(super) fn poll(&mut self, now: Instant) -> Next {
        match self.pending.front() {
            Some((at, _)) if *at <= now => match self.pending.pop_front() {
                Some((_, happening)) => Next::Now(happening),
                None => Next::Never,
            },
            Some((at, _)) => Next::At(*at),
            None => Next::Never,
        }
    }

    fn on_typing(
        &mut self,
        bytes: &[u8],
        prompt: &Bytes,
        now: Instant,
        lookup: impl Fn(&str) -> Option<Script>,
    ) {
        let mut shown = BytesMut::new();
        for &byte in bytes {
            match byte {
                CTRL_C => {
                    self.typed.clear();
                    shown.put_slice(b"^C\r\n");
                    shown.put_slice(prompt);
                }
                CTRL_D if self.typed.is_empty() => {
                    self.output(now, Origin::Stdout, shown.freeze());
                    return self.cut_short(now, ChannelEvent::ExitStatus(0));
                }
                b'\r' | b'\n' => {
                    shown.put_slice(b"\r\n");
                    let line = String::from_utf8_lossy(&self.typed.split()).into_owned();
                    self.output(now, Origin::Stdout, shown.split().freeze());
                    if line.trim() == "exit" {
                        return self.cut_short(now, ChannelEvent::ExitStatus(0));
                    }
                    let script = lookup(&line).unwrap_or_default();
                    for (offset, step) in &script.steps {
                        if let Step::Output(_, bytes) = step {
                            self.output(now + *offset, Origin::Stdout, bytes.clone());
                        }
                    }
                    self.output(now + script.at, Origin::Stdout, prompt.clone());
                }
                byte => {
                    self.typed.put_u8(byte);
                    shown.put_u8(byte);
                }
            }
        }
        self.output(now, Origin::Stdout, shown.freeze());
    }

    /// The process ends now, whatever was still to come.
    fn cut_short(&mut self, now: Instant, last: ChannelEvent) {
        self.pending.retain(|(at, _)| *at <= now);
        self.ends_at = None;
        self.end(now, last);
    }

    /// The process ends at `at`; end of file and close follow when nobody holds the output any more.
    fn end(&mut self, at: Instant, last: ChannelEvent) {
        self.ends_at = Some(self.ends_at.map_or(at, |earlier| earlier.min(at)));
        self.push(at, last);
        let closed = match self.script.held {
            Held::Not => at,
            Held::For(time) => at + time,
            Held::ForEver => return,
        };
        if !self.script.steps.iter().any(|(_, step)| matches!(step, Step::Eof)) {
            self.push(closed, ChannelEvent::Eof);
        }
        self.push(closed, ChannelEvent::Closed);
    }

    fn output(&mut self, at: Instant, origin: Origin, bytes: Bytes) {
        let origin = match self.terminal {
            Terminal::Pty => Origin::Stdout,
            Terminal::Pipes => origin,
        };
        if !bytes.is_empty() {
            self.push(at, ChannelEvent::Data(origin, bytes));
        }
    }

    fn push(&mut self, at: Instant, event: ChannelEvent) {
        self.insert(at, Happening::Event(event));
    }

    /// Keeps the timetable in order; what happens at the same moment stays in the order it was written.
    fn insert(&mut self, at: Instant, happening: Happening) {
        let place = self.pending.partition_point(|(other, _)| *other <= at);
        self.pending.insert(place, (at, happening));
    }
}

fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::Hup => "HUP",
        Signal::Term => "TERM",
        Signal::Kill => "KILL",
    }
}

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
