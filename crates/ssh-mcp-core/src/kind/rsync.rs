//! The rules of a sync that need no disk: which side is which, by what way it goes, what is told of it (`docs/mirror.md`).

mod course;
mod probe;
mod sides;

#[cfg(test)]
#[cfg(ssh_mcp_loom)]
mod loom;
#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests;

use serde::Serialize;

pub use course::{Course, Event, KEPT, Logged, Stats};
pub use probe::{Probe, probe};
pub use sides::{Sides, SidesError, sides};

use crate::port::mirror::{BrokenKind, Devices, Options};

/// A way between two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// rsync's protocol, with the rsync of the far side.
    Wire,
    /// The file service.
    Sftp,
}

impl Transport {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Sftp => "sftp",
        }
    }
}

/// The way a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// The better of the two that can be had.
    Auto,
    /// This one and no other.
    Only(Transport),
}

/// Why a way cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// The far side has no rsync; its words.
    #[error("the host runs no rsync: {0}")]
    Unavailable(String),
    /// It has one that does not speak the protocol; what it said of itself.
    #[error("the host's rsync cannot be used: {0}")]
    TooOld(String),
    /// The file service cannot do what was asked for.
    #[error("{option} cannot be done over the file service{}", .because.as_deref().map(|words| format!(" ({words})")).unwrap_or_default())]
    FeatureMissing {
        /// The option.
        option: &'static str,
        /// Why rsync was not taken, where a caller left the choice.
        because: Option<String>,
    },
}

/// The way a sync goes; `probe` is what the host said of its rsync, and is not looked at where there is no choice.
///
/// # Errors
/// [`NoWay`]; nothing was touched.
pub fn choose(way: Way, probe: &Probe, options: &Options) -> Result<Transport, NoWay> {
    let because = match (way, probe) {
        (Way::Only(Transport::Sftp), _) => None,
        (Way::Auto | Way::Only(Transport::Wire), Probe::Usable { .. }) => return Ok(Transport::Wire),
        (Way::Only(Transport::Wire), Probe::TooOld { found } | Probe::Other { found }) => {
            return Err(NoWay::TooOld(found.clone()));
        }
        (Way::Only(Transport::Wire), Probe::Missing { words }) => {
            return Err(NoWay::Unavailable(words.clone()));
        }
        (Way::Auto, Probe::TooOld { found } | Probe::Other { found }) => {
            Some(format!("the host's rsync cannot be used: {found}"))
        }
        (Way::Auto, Probe::Missing { words }) => Some(format!("the host runs no rsync: {words}")),
    };
    match wire_only(options) {
        Some(option) => Err(NoWay::FeatureMissing { option, because }),
        None => Ok(Transport::Sftp),
    }
}

/// The first option that only rsync's protocol can do.
pub fn wire_only(options: &Options) -> Option<&'static str> {
    if options.hard_links {
        Some("preserve.hardlinks")
    } else if options.checksum {
        Some("verify_checksum")
    } else if options.devices == Devices::Asked {
        Some("preserve.devices")
    } else {
        None
    }
}

/// What a sync is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It has been taken on.
    Pending,
    /// Both sides are looked at; what there is to do is not known yet.
    Probing,
    /// Files are compared and moved.
    Running,
    /// It has come to its end; files may have failed.
    Completed,
    /// It came to no end.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl Status {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Probing => "probing",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it is over.
    pub fn has_ended(self) -> bool {
        match self {
            Self::Pending | Self::Probing | Self::Running => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// Why a sync came to no end, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The dialogue broke before data moved.
    Protocol,
    /// It was interrupted part-way.
    Partial,
    /// There are more entries than the operator allows.
    ListTooLarge,
    /// The way cannot do what was asked for.
    FeatureMissing,
    /// What was asked for makes no sense with what is there.
    Refused,
    /// The connection ended.
    ConnectionLost,
    /// It took longer than it may.
    Timeout,
    /// Somebody ended it.
    Cancelled,
}

impl Failure {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protocol => "RSYNC_PROTOCOL_ERROR",
            Self::Partial => "RSYNC_PARTIAL_TRANSFER",
            Self::ListTooLarge => "RSYNC_FILE_LIST_TOO_LARGE",
            Self::FeatureMissing => "SFTP_FEATURE_MISSING",
            Self::Refused => "INVALID_ARGUMENT",
            Self::ConnectionLost => "CONNECTION_LOST",
            Self::Timeout => "TIMEOUT",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl From<BrokenKind> for Failure {
    fn from(kind: BrokenKind) -> Self {
        match kind {
            BrokenKind::Protocol => Self::Protocol,
            // One that stopped though nobody stopped it was interrupted.
            BrokenKind::Partial | BrokenKind::Stopped => Self::Partial,
            BrokenKind::ListTooLarge => Self::ListTooLarge,
            BrokenKind::FeatureMissing => Self::FeatureMissing,
            BrokenKind::Refused => Self::Refused,
            BrokenKind::Lost => Self::ConnectionLost,
        }
    }
}

/// Why a sync came to no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// In one word.
    pub failure: Failure,
    /// What a user is told, the far side's words in it.
    pub detail: String,
}

impl Fault {
    /// A fault; of long words the beginning is kept, which is where the cause stands.
    pub fn new(failure: Failure, mut detail: String) -> Self {
        /// Bytes of what is told of an end.
        const MOST: usize = 1024;
        detail.truncate(detail.floor_char_boundary(MOST));
        Self { failure, detail }
    }
}
