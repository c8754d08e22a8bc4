//! How a run ended, from what the client saw and what the server's process says.

use crate::io_errors::IoErrors;
use crate::mux::{Message, Severity};

/// The exit code of a run, in rsync's numbers (rsync(1), *EXIT VALUES*).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExitCode(pub u32);

impl ExitCode {
    /// Everything was done.
    pub const OK: Self = Self(0);
    /// The two sides do not understand each other.
    pub const PROTOCOL: Self = Self(2);
    /// The stream ended early.
    pub const STREAM: Self = Self(12);
    /// Somebody stopped the run.
    pub const STOPPED: Self = Self(20);
    /// Some files were not transferred.
    pub const PARTIAL: Self = Self(23);
    /// Some source files were gone.
    pub const VANISHED: Self = Self(24);
    /// The limit of deletions was reached.
    pub const DELETE_LIMIT: Self = Self(25);
    /// Nothing came for too long.
    pub const TIMEOUT: Self = Self(30);

    /// The run came to its end; files may have failed.
    #[must_use]
    pub fn is_complete(self) -> bool {
        self == Self::OK || (Self::PARTIAL..=Self::DELETE_LIMIT).contains(&self)
    }
}

/// What the client saw of failures.
///
/// A server's exit code alone does not tell: rsync 3.0 and 3.1 end an upload with 0 although files failed, and a message in the
/// stream is the only sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    has_failed: bool,
    has_refused: bool,
    errors: IoErrors,
}

impl Verdict {
    /// Notes what a message says of failures.
    pub fn on_message(&mut self, message: &Message) {
        match message {
            Message::Text(Severity::TransferError, _) => self.has_failed = true,
            Message::IoErrors(errors) => self.errors |= *errors,
            Message::NoSend(_) => self.has_refused = true,
            Message::Text(Severity::Error | Severity::Warning | Severity::Info, _)
            | Message::IoTimeout(_)
            | Message::Noop
            | Message::ErrorExit(_)
            | Message::Success(_)
            | Message::Deleted(_) => {}
        }
    }

    /// Notes errors of the sender: those at the end of a list, or, in an upload, those the client meets itself.
    pub fn on_errors(&mut self, errors: IoErrors) {
        self.errors |= errors;
    }

    /// Notes that a file could not be written, or arrived wrong twice.
    pub fn on_failure(&mut self) {
        self.has_failed = true;
    }

    /// The errors of the sender so far. With [`IoErrors::GENERAL`] among them nothing is to be deleted.
    #[must_use]
    pub fn errors(&self) -> IoErrors {
        self.errors
    }

    /// The exit code of the run: the higher of what was noted here and `remote`, the exit code of the server's process.
    #[must_use]
    pub fn code(&self, remote: ExitCode) -> ExitCode {
        let only_vanished = self.errors == IoErrors::VANISHED && !self.has_failed;
        let own = if self.has_failed
            || self.errors.contains(IoErrors::GENERAL)
            || self.has_refused && !only_vanished
        {
            ExitCode::PARTIAL
        } else if self.errors.contains(IoErrors::VANISHED) {
            ExitCode::VANISHED
        } else if self.errors.contains(IoErrors::DELETE_LIMIT) {
            ExitCode::DELETE_LIMIT
        } else {
            ExitCode::OK
        };
        own.max(remote)
    }
}
