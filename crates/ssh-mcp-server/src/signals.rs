//! The signals that ask the process to stop, as one stream.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// A request to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `SIGTERM`, what supervisors send.
    Terminate,
    /// `SIGINT`, what Ctrl-C sends.
    Interrupt,
    /// `SIGHUP`, what a terminal sends when it goes away.
    HangUp,
}

impl Signal {
    /// Exit code of a process that leaves at once because of it: 128 and its number, as shells count.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::HangUp => 129,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Listens for stop requests from its making on, so that none is lost.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    /// Starts listening; inside a runtime only.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hang_up: unix::signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next request. The first one starts an orderly stop; at the second the process leaves at once.
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.hang_up.recv() => Signal::HangUp,
        }
    }
}
