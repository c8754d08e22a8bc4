//! What a file list says about one file.

/// An entry of a file list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The path below the root of the transfer, with `/` between components, or `.` for the root itself.
    pub name: Vec<u8>,
    /// The length of a file or a target, without a meaning for others.
    pub size: u64,
    /// The time of modification.
    pub mtime: Time,
    /// The low twelve bits of the mode.
    pub permissions: u16,
    /// What it is.
    pub kind: Kind,
    /// The time of access in seconds, if the layout has it. Directories have none.
    pub atime: Option<i64>,
    /// The owner's id, if the layout has it.
    pub uid: Option<u32>,
    /// The group's id, if the layout has it.
    pub gid: Option<u32>,
    /// Whether other entries are the same file.
    pub link: Link,
}

/// A time of modification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Up to 999,999,999 nanoseconds after that. Protocol 30 has none.
    pub nanoseconds: u32,
}

/// What an entry is, with what only such entries have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory(Content),
    /// A regular file.
    File {
        /// The digest, if the layout has it.
        checksum: Option<Vec<u8>>,
    },
    /// A symlink.
    Symlink {
        /// Where it leads, if the layout has it.
        target: Option<Vec<u8>>,
    },
    /// A block device, with its number if the layout has it.
    BlockDevice(Option<Device>),
    /// A character device, with its number if the layout has it.
    CharDevice(Option<Device>),
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
}

/// What a list says about a directory's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// A top directory of the transfer, whose content is in the list.
    Top,
    /// The content is in the list.
    Listed,
    /// The content is not in the list, at least not all of it: nothing may be deleted there.
    Unlisted,
    /// The directory is there only because something below it is, which exists with the letter `R` only.
    Implied,
}

/// The number of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Device {
    /// Its driver.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
}

/// What a list says about hard links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// No other entry is known to be this file.
    Single,
    /// Others may be this file, and this is the first of them.
    Leader,
    /// This is the same file as the leader, given by its place in the order of *transmission*, which is not its index.
    Follower(u32),
}

/// An id with the name it has at the sender. Id 0 appears only if the list says what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    /// The number.
    pub number: u32,
    /// The name, up to 255 bytes.
    pub name: Vec<u8>,
}

impl Entry {
    /// The entry is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    /// The mode, type bits included.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.kind.type_bits() | u32::from(self.permissions & PERMISSIONS)
    }
}

impl Kind {
    /// The bits of a mode that say what an entry is.
    #[must_use]
    pub fn type_bits(&self) -> u32 {
        match self {
            Self::Socket => 0o140_000,
            Self::Symlink { .. } => 0o120_000,
            Self::File { .. } => 0o100_000,
            Self::BlockDevice(_) => 0o060_000,
            Self::Directory(_) => 0o040_000,
            Self::CharDevice(_) => 0o020_000,
            Self::Fifo => 0o010_000,
        }
    }

    /// A kind of its own for each of the seven types, its fields yet to be filled in; `None` for any other mode.
    pub(super) fn from_mode(mode: u32) -> Option<Self> {
        match mode & !u32::from(PERMISSIONS) {
            0o140_000 => Some(Self::Socket),
            0o120_000 => Some(Self::Symlink { target: None }),
            0o100_000 => Some(Self::File { checksum: None }),
            0o060_000 => Some(Self::BlockDevice(None)),
            0o040_000 => Some(Self::Directory(Content::Listed)),
            0o020_000 => Some(Self::CharDevice(None)),
            0o010_000 => Some(Self::Fifo),
            _ => None,
        }
    }
}

pub(super) const PERMISSIONS: u16 = 0o7777;
pub(super) const NANOSECONDS: u32 = 1_000_000_000;
