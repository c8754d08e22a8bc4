//! Who does what when: the dialogue about single files, from the first request to the last goodbye.
//!
//! One side is the *sender*, the other the receiving side, which has two halves that work at the same time: a *generator*
//! that asks and a *receiver* that takes what comes. In an upload the client is the [`Sender`]; in a download it is a
//! [`Generator`] and a [`Receiver`], best on two threads, because the server sends while it still has requests to read.
//!
//! Each machine takes the data of its direction in pieces of any size and writes into a buffer. None of them touches a
//! file. Records, phases and the goodbye are in `docs/rsync-wire-dialogue.md`.

mod generator;
mod receiver;
mod record;
mod sender;
mod verdict;

pub use generator::Generator;
pub use receiver::{Arrival, Expected, Receiver, Statistics, Taken};
pub use record::{ItemFlags, Record};
pub use sender::{Ask, Request, Sender};
pub use verdict::{ExitCode, Verdict};

use crate::delta;
use crate::sums::{SumHeadError, TooManySums};
use crate::token::{ReadError as TokenReadError, SetUpError, WriteError};
use crate::varint::{Index, Malformed};

/// Why a dialogue cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// An item of the stream has no meaning.
    #[error("malformed record")]
    Malformed(#[from] Malformed),
    /// An index is not one of a list, or not one that may stand here.
    #[error("unexpected file index {0:?}")]
    Index(Index),
    /// The server asks for an entry that is no regular file.
    #[error("request for entry {0}, which is no file")]
    NoFile(u32),
    /// The server asks for a file once more in one phase, or after the last.
    #[error("request for entry {0} out of turn")]
    OutOfTurn(u32),
    /// The answer is not to what was asked.
    #[error("answer for entry {0} differs from the request")]
    Answer(u32),
    /// A number of the statistics is out of range.
    #[error("statistics say {0}")]
    Statistics(i64),
    /// A sum head has no meaning.
    #[error(transparent)]
    Head(#[from] SumHeadError),
    /// There are more sums than [`DEFAULT_LIMIT`](crate::sums::DEFAULT_LIMIT).
    #[error(transparent)]
    Sums(#[from] TooManySums),
    /// A token has no meaning.
    #[error(transparent)]
    Token(#[from] TokenReadError),
    /// A token cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The compressor or decompressor cannot be set up.
    #[error(transparent)]
    SetUp(#[from] SetUpError),
}

/// What both sides of a dialogue have agreed on, beyond the layout of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What the handshake came to.
    pub agreed: crate::negotiate::Agreed,
    /// Letter `n`: neither sums nor data.
    pub dry_run: bool,
    /// `--inplace` or `--append`, which the server was told as well.
    pub in_place: Option<crate::command::InPlace>,
}

impl Terms {
    /// A request is for what lies behind a prefix, and has no sums.
    fn appends(&self) -> bool {
        match self.in_place {
            Some(crate::command::InPlace::Append | crate::command::InPlace::AppendVerify) => true,
            Some(crate::command::InPlace::Update) | None => false,
        }
    }

    /// Whether the blocks of the basis of such a request are overwritten as the file is written.
    fn basis_of(&self, record: &Record) -> delta::Basis {
        let in_place = self.in_place == Some(crate::command::InPlace::Update);
        match record.basis_type {
            None | Some(record::TARGET) if in_place => delta::Basis::Overwritten,
            Some(record::PARTIAL) if self.agreed.flags.has_inplace_partial() => delta::Basis::Overwritten,
            Some(_) | None => delta::Basis::Kept,
        }
    }
}

#[cfg(test)]
mod tests;
