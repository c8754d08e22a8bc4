//! The reading side: bytes in any pieces, entries out.

use super::entry::{NANOSECONDS, PERMISSIONS};
use super::name::{self, NAME_MAX, NameError, TARGET_MAX};
use super::previous::Previous;
use super::{Content, Device, DeviceFields, Entry, Id, Kind, Layout, Link, Time, flags};
use crate::io_errors::IoErrors;
use crate::varint::{Least, Malformed, ReadError, Reader};

/// What comes out of a [`ListDecoder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The next entry.
    Entry(Entry),
    /// The end of the list, once.
    End(ListEnd),
}

/// What stands behind the entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListEnd {
    /// The errors the sender met. With [`IoErrors::GENERAL`] among them nothing is to be deleted.
    pub errors: IoErrors,
    /// The names of owners.
    pub users: Vec<Id>,
    /// The names of groups.
    pub groups: Vec<Id>,
}

/// Bounds of what a server may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLimits {
    /// The most entries.
    pub entries: u32,
    /// The most memory the entries take, in bytes.
    pub bytes: u64,
    /// The most names of ids, owners and groups together.
    pub ids: u32,
}

impl Default for ListLimits {
    /// A million entries, 1 GiB, 65,536 names of ids.
    fn default() -> Self {
        Self { entries: 1_000_000, bytes: 1 << 30, ids: 1 << 16 }
    }
}

/// Why a list is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// An item of the stream has no meaning.
    #[error("malformed file list")]
    Malformed(#[from] Malformed),
    /// The flags of an entry announce fields nobody asked for.
    #[error("file list entry with unexpected flags {0:#x}")]
    Flags(u32),
    /// An entry shares more of the name before than there is.
    #[error("file list entry shares {shared} bytes of a name of {length}")]
    Prefix {
        /// The bytes it says it shares.
        shared: usize,
        /// The bytes there are.
        length: usize,
    },
    /// A name may not stand in a list.
    #[error(transparent)]
    Name(#[from] NameError),
    /// `.` is no directory.
    #[error("the root is no directory")]
    Root,
    /// A mode is of no type of file.
    #[error("mode {0:o} of no type of file")]
    Mode(u32),
    /// A number is outside of what it can be.
    #[error("{0} out of range")]
    Range(&'static str),
    /// A hard link's leader is not there, or leads none.
    #[error("hard link to entry {0}, which leads none")]
    Leader(i32),
    /// A directory says it is a hard link.
    #[error("directory that is a hard link")]
    LinkedDirectory,
    /// The list goes beyond a limit.
    #[error("file list with too many {0}")]
    TooMany(&'static str),
}

/// Reads a file list.
///
/// *Invariant:* holds less than one entry, besides what later entries may refer to; both are within [`ListLimits`].
#[derive(Debug)]
pub struct ListDecoder {
    layout: Layout,
    limits: ListLimits,
    previous: Previous,
    bytes: u64,
    end: ListEnd,
    phase: Phase,
    /// The beginning of an item.
    pending: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Entries,
    Users,
    Groups,
    Ended,
}

impl ListDecoder {
    /// A decoder at the start of a list.
    #[must_use]
    pub fn new(layout: Layout, limits: ListLimits) -> Self {
        Self {
            layout,
            limits,
            previous: Previous::default(),
            bytes: 0,
            end: ListEnd::default(),
            phase: Phase::Entries,
            pending: Vec::new(),
        }
    }

    /// The next item of `input`, which is shortened by what was read. `None` when more bytes are needed, and after the end,
    /// from where on `input` is left alone.
    ///
    /// # Errors
    /// The list has no meaning, is dangerous, or is beyond the limits; nothing that follows has a meaning.
    pub fn next_item(&mut self, input: &mut &[u8]) -> Result<Option<Item>, ListError> {
        while self.phase != Phase::Ended && !input.is_empty() {
            let Some(parsed) = self.next_parsed(input)? else { continue };
            match parsed {
                Parsed::Entry(entry) => {
                    self.admit(&entry)?;
                    self.previous.advance(&entry);
                    return Ok(Some(Item::Entry(entry)));
                }
                Parsed::EndOfEntries(errors) => {
                    self.end.errors = errors;
                    self.phase = self.phase_after(Phase::Entries);
                }
                Parsed::Id(id) => self.add_id(id)?,
                Parsed::EndOfIds(root) => {
                    if let Some(name) = root {
                        self.add_id(Id { number: 0, name })?;
                    }
                    self.phase = self.phase_after(self.phase);
                }
            }
            if self.phase == Phase::Ended {
                return Ok(Some(Item::End(std::mem::take(&mut self.end))));
            }
        }
        Ok(None)
    }

    /// The end was read.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Parses out of `input`, or out of what is pending and `input`. `None` if that is only the beginning of an item.
    fn next_parsed(&mut self, input: &mut &[u8]) -> Result<Option<Parsed>, ListError> {
        let known = self.pending.len();
        let parsed = if known == 0 {
            self.parse(input)
        } else {
            self.pending.extend(input.iter().take(GATHERED_AT_ONCE));
            self.parse(&self.pending)
        };
        match parsed {
            Ok((parsed, length)) => {
                *input = input.get(length.saturating_sub(known)..).unwrap_or_default();
                self.pending.clear();
                Ok(Some(parsed))
            }
            Err(Stop::Incomplete) => {
                if known == 0 {
                    self.pending.extend_from_slice(input);
                }
                *input = input.get(self.pending.len() - known..).unwrap_or_default();
                Ok(None)
            }
            Err(Stop::Wrong(error)) => Err(error),
        }
    }

    /// One item and its length.
    fn parse(&self, bytes: &[u8]) -> Result<(Parsed, usize), Stop> {
        let mut input = Reader::new(bytes);
        let parsed = match self.phase {
            Phase::Entries => match flags::read(&mut input, &self.layout)? {
                flags::Head::Entry(bits) => Parsed::Entry(self.parse_entry(bits, &mut input)?),
                flags::Head::End(errors) => Parsed::EndOfEntries(IoErrors::from_bits(errors)),
            },
            Phase::Users | Phase::Groups | Phase::Ended => match input.varint()?.cast_unsigned() {
                0 if self.layout.flags.has_names_of_id_0() => {
                    let name = short(&mut input)?;
                    Parsed::EndOfIds((!name.is_empty()).then_some(name))
                }
                0 => Parsed::EndOfIds(None),
                number => Parsed::Id(Id { number, name: short(&mut input)? }),
            },
        };
        Ok((parsed, input.consumed()))
    }

    fn parse_entry(&self, bits: u32, input: &mut Reader<'_>) -> Result<Entry, Stop> {
        let (layout, previous) = (&self.layout, &self.previous);
        let has = |flag: u32| bits & flag != 0;
        let unexpected = flags::unexpected(bits, layout);
        if unexpected != 0 {
            return Err(ListError::Flags(unexpected).into());
        }
        let name = self.parse_name(bits, input)?;
        if has(flags::HARD_LINKED) && !has(flags::FIRST_LINK) {
            let place = input.varint()?;
            let leader = u32::try_from(place).ok().and_then(|place| Some((previous.leader(place)?, place)));
            let (leader, place) = leader.ok_or(ListError::Leader(place))?;
            name::check(&name).map_err(ListError::from)?;
            if name == b"." {
                return Err(ListError::Root.into());
            }
            return Ok(leader.follower(name, place));
        }

        let size = u64::try_from(input.varlong(Least::Three)?).map_err(|_| ListError::Range("size"))?;
        let seconds = if has(flags::SAME_MTIME) { previous.mtime } else { input.varlong(Least::Four)? };
        let nanoseconds = if has(flags::NANOSECONDS) { input.varint()?.cast_unsigned() } else { 0 };
        if nanoseconds >= NANOSECONDS {
            return Err(ListError::Range("nanoseconds").into());
        }
        let mode = if has(flags::SAME_MODE) { previous.mode } else { input.int32()?.cast_unsigned() };
        let mut kind = Kind::from_mode(mode).ok_or(ListError::Mode(mode))?;
        let is_directory = matches!(kind, Kind::Directory(_));
        if is_directory && has(flags::HARD_LINKED) {
            return Err(ListError::LinkedDirectory.into());
        }
        let atime = match (layout.atimes && !is_directory, has(flags::SAME_ATIME)) {
            (true, true) => Some(previous.atime),
            (true, false) => Some(input.varlong(Least::Four)?),
            (false, _) => None,
        };
        let uid = parse_id(layout.owner, has(flags::SAME_UID), previous.uid, input)?;
        let gid = parse_id(layout.group, has(flags::SAME_GID), previous.gid, input)?;
        let device = match layout.device_fields(&kind) {
            DeviceFields::None => None,
            DeviceFields::Number | DeviceFields::Filler => {
                let major =
                    if has(flags::SAME_MAJOR) { previous.major } else { input.varint()?.cast_unsigned() };
                Some(Device { major, minor: input.varint()?.cast_unsigned() })
            }
        };
        match &mut kind {
            Kind::Directory(content) => {
                *content = match (has(flags::TOP_DIRECTORY), has(flags::NO_CONTENT)) {
                    (true, false) => Content::Top,
                    (false, false) => Content::Listed,
                    (false, true) => Content::Unlisted,
                    (true, true) => Content::Implied,
                }
            }
            Kind::Symlink { target } if layout.links => *target = Some(parse_target(input)?),
            Kind::File { checksum } => {
                *checksum = layout.checksum.map(|length| input.take(length)).transpose()?.map(<[u8]>::to_vec);
            }
            Kind::BlockDevice(number) | Kind::CharDevice(number) => *number = device,
            Kind::Symlink { .. } | Kind::Fifo | Kind::Socket => {}
        }
        name::check(&name).map_err(ListError::from)?;
        if name == b"." && !is_directory {
            return Err(ListError::Root.into());
        }
        let link = if has(flags::HARD_LINKED) { Link::Leader } else { Link::Single };
        let (mtime, permissions) = (Time { seconds, nanoseconds }, mode as u16 & PERMISSIONS);
        Ok(Entry { name, size, mtime, permissions, kind, atime, uid, gid, link })
    }

    fn parse_name(&self, bits: u32, input: &mut Reader<'_>) -> Result<Vec<u8>, Stop> {
        let last = &self.previous.name;
        let shared = if bits & flags::SHARED_NAME == 0 { 0 } else { usize::from(input.byte()?) };
        let prefix = last.get(..shared).ok_or(ListError::Prefix { shared, length: last.len() })?;
        let length = if bits & flags::LONG_NAME == 0 { i32::from(input.byte()?) } else { input.varint()? };
        let length = usize::try_from(length).ok().filter(|length| shared + length <= NAME_MAX);
        let rest = input.take(length.ok_or(ListError::Name(NameError::TooLong))?)?;
        Ok([prefix, rest].concat())
    }

    /// Counts an entry, and what is kept of a leader, against the limits.
    fn admit(&mut self, entry: &Entry) -> Result<(), ListError> {
        if self.previous.count >= self.limits.entries {
            return Err(ListError::TooMany("entries"));
        }
        let beside = match &entry.kind {
            Kind::File { checksum } => checksum.as_ref().map_or(0, Vec::len),
            Kind::Symlink { target } => target.as_ref().map_or(0, Vec::len),
            Kind::Directory(_) | Kind::BlockDevice(_) | Kind::CharDevice(_) | Kind::Fifo | Kind::Socket => 0,
        };
        let copies = if entry.link == Link::Leader { 2 } else { 1 };
        let taken = entry.name.len() + copies * (size_of::<Entry>() + beside);
        self.bytes = self.bytes.saturating_add(taken as u64);
        if self.bytes > self.limits.bytes { Err(ListError::TooMany("bytes")) } else { Ok(()) }
    }

    fn add_id(&mut self, id: Id) -> Result<(), ListError> {
        let known = self.end.users.len() + self.end.groups.len();
        if known >= self.limits.ids as usize {
            return Err(ListError::TooMany("names of ids"));
        }
        if self.phase == Phase::Users {
            self.end.users.push(id);
        } else {
            self.end.groups.push(id);
        }
        Ok(())
    }

    fn phase_after(&self, phase: Phase) -> Phase {
        let (users, groups) = (self.layout.owner, self.layout.group);
        match phase {
            Phase::Entries if users && !self.layout.numeric_ids => Phase::Users,
            Phase::Entries | Phase::Users if groups && !self.layout.numeric_ids => Phase::Groups,
            Phase::Entries | Phase::Users | Phase::Groups | Phase::Ended => Phase::Ended,
        }
    }
}

enum Parsed {
    Entry(Entry),
    EndOfEntries(IoErrors),
    Id(Id),
    /// With the name of id 0, if it is told.
    EndOfIds(Option<Vec<u8>>),
}

/// Why no item came out.
enum Stop {
    Incomplete,
    Wrong(ListError),
}

impl From<ListError> for Stop {
    fn from(error: ListError) -> Self {
        Self::Wrong(error)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Incomplete => Self::Incomplete,
            ReadError::Wrong(wrong) => Self::Wrong(wrong.into()),
        }
    }
}

fn parse_id(
    is_sent: bool,
    is_same: bool,
    last: u32,
    input: &mut Reader<'_>,
) -> Result<Option<u32>, ReadError> {
    Ok(match (is_sent, is_same) {
        (true, true) => Some(last),
        (true, false) => Some(input.varint()?.cast_unsigned()),
        (false, _) => None,
    })
}

fn parse_target(input: &mut Reader<'_>) -> Result<Vec<u8>, Stop> {
    let length = usize::try_from(input.varint()?).ok().filter(|length| (1..=TARGET_MAX).contains(length));
    let target = input.take(length.ok_or(ListError::Range("length of a symlink's target"))?)?;
    if target.contains(&0) {
        return Err(ListError::Range("symlink's target").into());
    }
    Ok(target.to_vec())
}

/// A name with its length in one byte.
fn short(input: &mut Reader<'_>) -> Result<Vec<u8>, ReadError> {
    let length = input.byte()?;
    Ok(input.take(usize::from(length))?.to_vec())
}

/// More than the longest entry with any digest takes, so that two rounds end every item.
const GATHERED_AT_ONCE: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::negotiate::{CompatFlags, Protocol};

    /// The longest entry there is, but for its last byte: what is kept of it is all that can be pending.
    const PENDING_MAX: usize = 5 + 1 + 3 + 4095 + 9 + 9 + 5 + 4 + 9 + 5 + 5 + 3 + 4095;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn what_is_kept_of_garbage_is_bounded(
            bits in prop_oneof![Just(0x58_u32), 0..0x8000_u32],
            lengths in prop::collection::vec(prop_oneof![Just(0x8f_u8), any::<u8>()], 2..6),
            filler in 1..=0xff_u8,
            piece in 1..30_000_usize,
        ) {
            let flags = CompatFlags::from_bits(0x80);
            let layout =
                Layout { links: true, hard_links: true, atimes: true, ..Layout::new(Protocol::V32, flags) };
            let limits = ListLimits { entries: 100, bytes: 1 << 20, ids: 10 };
            let mut decoder = ListDecoder::new(layout, limits);
            let mut bytes = Vec::new();
            crate::varint::put_varint(&mut bytes, bits.cast_signed());
            bytes.extend(lengths);
            bytes.extend(std::iter::repeat_n(filler, 30_000));
            for mut piece in bytes.chunks(piece) {
                while let Ok(Some(_)) = decoder.next_item(&mut piece) {}
                prop_assert!(decoder.pending.len() <= PENDING_MAX + GATHERED_AT_ONCE);
                if !piece.is_empty() {
                    break;
                }
                prop_assert!(decoder.pending.len() < PENDING_MAX);
            }
        }
    }
}
