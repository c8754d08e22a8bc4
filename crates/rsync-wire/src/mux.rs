//! Frames: the data of a direction and the messages beside it, in one stream of bytes.
//!
//! After the handshake both directions are framed. The data of all data frames, put together, is one stream whose values
//! may be cut anywhere; a message stands between two frames. Layout and tags are in `docs/rsync-wire.md`, *Frames*.

mod demultiplexer;
mod multiplexer;

pub use demultiplexer::{Demultiplexer, Event, MessageLimits, MuxError};
pub use multiplexer::{FRAME_LIMIT, Multiplexer, Notice};

use crate::io_errors::IoErrors;

/// What a server says beside its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Text for the user. It may hold any bytes, among them control characters, and is never to be interpreted.
    Text(Severity, Vec<u8>),
    /// Errors the sender met since it last said so.
    IoErrors(IoErrors),
    /// The server gives up after so many seconds of silence. Only daemons say so.
    IoTimeout(i32),
    /// The keep-alive of protocol 30; a sender answers with an empty data frame.
    Noop,
    /// The server dies with this exit code; without a code it acknowledges that we do.
    ErrorExit(Option<i32>),
    /// The file of this index arrived and its source may be removed.
    Success(u32),
    /// The server deleted this name.
    Deleted(Deleted),
    /// The server cannot send the file of this index; neither an answer nor data will come for it.
    NoSend(u32),
}

/// What a text is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// A file was not transferred: the run ends with code 23 at least.
    TransferError,
    /// An error that is not about one file.
    Error,
    /// A warning.
    Warning,
    /// Anything else.
    Info,
}

/// A name the server deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// A directory, by its name without the mark that tells it apart.
    Directory(Vec<u8>),
    /// Anything else.
    Other(Vec<u8>),
}

/// The kinds of frames a client meets, by what stands in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Data,
    Text(Severity),
    IoErrors,
    IoTimeout,
    Noop,
    ErrorExit,
    Success,
    Deleted,
    NoSend,
}

impl Tag {
    fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Data),
            1 => Some(Self::Text(Severity::TransferError)),
            2 => Some(Self::Text(Severity::Info)),
            3 => Some(Self::Text(Severity::Error)),
            4 => Some(Self::Text(Severity::Warning)),
            22 => Some(Self::IoErrors),
            33 => Some(Self::IoTimeout),
            42 => Some(Self::Noop),
            86 => Some(Self::ErrorExit),
            100 => Some(Self::Success),
            101 => Some(Self::Deleted),
            102 => Some(Self::NoSend),
            _ => None,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Text(Severity::TransferError) => 1,
            Self::Text(Severity::Info) => 2,
            Self::Text(Severity::Error) => 3,
            Self::Text(Severity::Warning) => 4,
            Self::IoErrors => 22,
            Self::IoTimeout => 33,
            Self::Noop => 42,
            Self::ErrorExit => 86,
            Self::Success => 100,
            Self::Deleted => 101,
            Self::NoSend => 102,
        }
    }
}

/// The number of tag 0 in the header's last byte.
const TAG_BASE: u8 = 7;
const HEADER: usize = 4;

#[cfg(test)]
mod tests;
