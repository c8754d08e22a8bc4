//! The file list: entries, their form on the wire, their order.
//!
//! A [`ListEncoder`] writes entries in the order they are found, a [`ListDecoder`] reads them from bytes in any pieces, and a
//! [`FileList`] puts them into the order that gives each its index. The decoder refuses what a hostile server could hurt
//! with: names that leave the tree, numbers out of range, lists beyond [`ListLimits`]. What it cannot know is left to its
//! caller: whether a name was asked for, and whether a symlink's target is wanted. The layout is in `docs/rsync-wire.md`,
//! *File list*.

mod decoder;
mod encoder;
mod entry;
mod flags;
mod list;
mod name;
mod previous;
mod sort;

pub use decoder::{Item, ListDecoder, ListEnd, ListError, ListLimits};
pub use encoder::{EncodeError, ListEncoder};
pub use entry::{Content, Device, Entry, Id, Kind, Link, Time};
pub use list::{FileList, ListBuilder, TreeError};
pub use name::NameError;

use crate::negotiate::{CompatFlags, Protocol};

/// Which fields the entries have, and in which form: what the handshake and the option letters decided. Both sides must have
/// the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The protocol both sides speak.
    pub protocol: Protocol,
    /// What the server said.
    pub flags: CompatFlags,
    /// Letter `o`: uids, and their names unless `numeric_ids`.
    pub owner: bool,
    /// Letter `g`: gids, and their names unless `numeric_ids`.
    pub group: bool,
    /// Letter `D`: numbers of devices.
    pub devices: bool,
    /// Letter `l`: targets of symlinks.
    pub links: bool,
    /// Letter `H`: which entries are one file.
    pub hard_links: bool,
    /// Letter `U`: times of access.
    pub atimes: bool,
    /// Letter `c`: digests of files, of this many bytes.
    pub checksum: Option<usize>,
    /// Option `--numeric-ids`: no names of ids.
    pub numeric_ids: bool,
}

impl Layout {
    /// The layout without an option.
    #[must_use]
    pub fn new(protocol: Protocol, flags: CompatFlags) -> Self {
        Self {
            protocol,
            flags,
            owner: false,
            group: false,
            devices: false,
            links: false,
            hard_links: false,
            atimes: false,
            checksum: None,
            numeric_ids: false,
        }
    }

    /// Times have a part below the second.
    fn has_nanoseconds(&self) -> bool {
        self.protocol >= Protocol::V31
    }

    /// The classic form of the flags may end a list with errors.
    fn has_safe_end(&self) -> bool {
        self.protocol >= Protocol::V31 || self.flags.has_safe_list_end()
    }

    /// What of a device number stands in an entry of this kind.
    fn device_fields(&self, kind: &Kind) -> DeviceFields {
        match kind {
            Kind::BlockDevice(_) | Kind::CharDevice(_) if self.devices => DeviceFields::Number,
            Kind::Fifo | Kind::Socket if self.devices && self.protocol < Protocol::V31 => {
                DeviceFields::Filler
            }
            Kind::BlockDevice(_)
            | Kind::CharDevice(_)
            | Kind::Fifo
            | Kind::Socket
            | Kind::Directory(_)
            | Kind::File { .. }
            | Kind::Symlink { .. } => DeviceFields::None,
        }
    }
}

/// The device fields of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceFields {
    None,
    /// The number of a device.
    Number,
    /// A number without a meaning, which protocol 30 has for fifos and sockets.
    Filler,
}

#[cfg(test)]
mod tests;
