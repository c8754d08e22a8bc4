//! The writing side.

use super::entry::{NANOSECONDS, PERMISSIONS};
use super::name::{self, NameError, TARGET_MAX};
use super::previous::Previous;
use super::{Content, Device, DeviceFields, Entry, Id, Kind, Layout, Link, Time, flags};
use crate::io_errors::IoErrors;
use crate::varint::{Least, put_int32, put_varint, put_varlong};

/// Why an entry or the end cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The receiving side would refuse the name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// `.` is the root and a directory.
    #[error("the root is no directory")]
    Root,
    /// The layout has a field that the entry has not.
    #[error("entry without {0}")]
    Missing(&'static str),
    /// A field has a value the wire has no room for.
    #[error("{0} out of range")]
    Range(&'static str),
    /// A hard link's leader was not written as one.
    #[error("hard link to entry {0}, which leads none")]
    Leader(u32),
}

/// Writes a file list.
///
/// A failed call writes nothing, so the entry may be left out.
#[derive(Debug)]
pub struct ListEncoder {
    layout: Layout,
    previous: Previous,
}

impl ListEncoder {
    /// An encoder at the start of a list.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, previous: Previous::default() }
    }

    /// Appends an entry and says its place in the order of transmission, by which hard links name their leader. Of a
    /// follower only the name is used, all else is its leader's.
    ///
    /// # Errors
    /// The entry is none a receiving side would accept, or lacks a field of the layout.
    pub fn put_entry(&mut self, out: &mut Vec<u8>, entry: &Entry) -> Result<u32, EncodeError> {
        name::check(&entry.name)?;
        let place = self.previous.count;
        if place >= i32::MAX.cast_unsigned() {
            return Err(EncodeError::Range("number of entries"));
        }
        match entry.link {
            Link::Follower(leader) if self.layout.hard_links => {
                self.put_follower(out, &entry.name, leader)?
            }
            Link::Follower(_) | Link::Single | Link::Leader => self.put_whole(out, entry)?,
        }
        Ok(place)
    }

    /// Appends the end: the errors met, and the names of the ids that were used, if the layout has them. Ids without a name
    /// are left out. Without a place for errors, which only a classic list of protocol 30 lacks, they are told by
    /// [`Notice::IoErrors`](crate::mux::Notice::IoErrors).
    ///
    /// # Errors
    /// A name of an id is longer than 255 bytes.
    pub fn put_end(
        self,
        out: &mut Vec<u8>,
        errors: IoErrors,
        users: &[Id],
        groups: &[Id],
    ) -> Result<(), EncodeError> {
        let mut end = Vec::new();
        flags::put_end(&mut end, errors.bits(), &self.layout);
        for (is_sent, ids) in [(self.layout.owner, users), (self.layout.group, groups)] {
            if is_sent && !self.layout.numeric_ids {
                self.put_ids(&mut end, ids)?;
            }
        }
        out.append(&mut end);
        Ok(())
    }

    fn put_ids(&self, out: &mut Vec<u8>, ids: &[Id]) -> Result<(), EncodeError> {
        for id in ids.iter().filter(|id| id.number != 0) {
            put_varint(out, id.number.cast_signed());
            put_short(out, &id.name)?;
        }
        put_varint(out, 0);
        if self.layout.flags.has_names_of_id_0() {
            let root = ids.iter().find(|id| id.number == 0);
            put_short(out, root.map_or(&[], |id| &id.name))?;
        }
        Ok(())
    }

    fn put_follower(&mut self, out: &mut Vec<u8>, name: &[u8], leader: u32) -> Result<(), EncodeError> {
        let found = self.previous.leader(leader).ok_or(EncodeError::Leader(leader))?;
        let entry = found.follower(name.to_vec(), leader);
        // None of the other fields follows; a receiving side passes over what the flags say of them.
        self.put_head(out, name, self.same(&entry) | flags::HARD_LINKED, false);
        put_varint(out, leader.cast_signed());
        self.previous.advance(&entry);
        Ok(())
    }

    /// Flags of what the entry before had as well, or what the layout leaves out.
    fn same(&self, entry: &Entry) -> u32 {
        let (layout, previous) = (&self.layout, &self.previous);
        // The first entry carries its ids even if they are 0.
        let is_later = previous.count > 0;
        let mut bits = 0;
        for (is_same, flag) in [
            (entry.mode() == previous.mode, flags::SAME_MODE),
            (entry.mtime.seconds == previous.mtime, flags::SAME_MTIME),
            (!layout.owner || (is_later && entry.uid == Some(previous.uid)), flags::SAME_UID),
            (!layout.group || (is_later && entry.gid == Some(previous.gid)), flags::SAME_GID),
        ] {
            if is_same {
                bits |= flag;
            }
        }
        bits
    }

    fn put_whole(&mut self, out: &mut Vec<u8>, entry: &Entry) -> Result<(), EncodeError> {
        let (layout, previous) = (self.layout, &self.previous);
        let is_directory = entry.is_directory();
        if entry.name == b"." && !is_directory {
            return Err(EncodeError::Root);
        }
        let size = i64::try_from(entry.size).map_err(|_| EncodeError::Range("size"))?;
        let Time { seconds, nanoseconds } = entry.mtime;
        if nanoseconds >= NANOSECONDS {
            return Err(EncodeError::Range("nanoseconds"));
        }
        if entry.permissions & !PERMISSIONS != 0 {
            return Err(EncodeError::Range("permissions"));
        }
        let mut bits = self.same(entry);
        bits |= match entry.kind {
            Kind::Directory(Content::Top) => flags::TOP_DIRECTORY,
            Kind::Directory(Content::Listed) => 0,
            Kind::Directory(Content::Unlisted) => flags::NO_CONTENT,
            Kind::Directory(Content::Implied) => flags::TOP_DIRECTORY | flags::NO_CONTENT,
            Kind::File { .. }
            | Kind::Symlink { .. }
            | Kind::BlockDevice(_)
            | Kind::CharDevice(_)
            | Kind::Fifo
            | Kind::Socket => 0,
        };
        // The fields after the name, in their order, each with its flag.
        let mut fields = Vec::new();
        put_varlong(&mut fields, size, Least::Three);
        if bits & flags::SAME_MTIME == 0 {
            put_varlong(&mut fields, seconds, Least::Four);
        }
        if layout.has_nanoseconds() && nanoseconds != 0 {
            bits |= flags::NANOSECONDS;
            put_varint(&mut fields, nanoseconds.cast_signed());
        }
        if bits & flags::SAME_MODE == 0 {
            put_int32(&mut fields, entry.mode().cast_signed());
        }
        if layout.atimes && !is_directory {
            let atime = entry.atime.ok_or(EncodeError::Missing("atime"))?;
            if atime == previous.atime {
                bits |= flags::SAME_ATIME;
            } else {
                put_varlong(&mut fields, atime, Least::Four);
            }
        }
        for (is_sent, id, same, field) in [
            (layout.owner, entry.uid, flags::SAME_UID, "uid"),
            (layout.group, entry.gid, flags::SAME_GID, "gid"),
        ] {
            if is_sent {
                let id = id.ok_or(EncodeError::Missing(field))?;
                if bits & same == 0 {
                    put_varint(&mut fields, id.cast_signed());
                }
            }
        }
        match layout.device_fields(&entry.kind) {
            DeviceFields::None => {}
            DeviceFields::Number => {
                let (Kind::BlockDevice(Some(Device { major, minor }))
                | Kind::CharDevice(Some(Device { major, minor }))) = entry.kind
                else {
                    return Err(EncodeError::Missing("device number"));
                };
                if major == previous.major {
                    bits |= flags::SAME_MAJOR;
                } else {
                    put_varint(&mut fields, major.cast_signed());
                }
                put_varint(&mut fields, minor.cast_signed());
            }
            DeviceFields::Filler => {
                bits |= flags::SAME_MAJOR;
                put_varint(&mut fields, 0);
            }
        }
        if let (Kind::Symlink { target }, true) = (&entry.kind, layout.links) {
            let target = target.as_ref().ok_or(EncodeError::Missing("target"))?;
            if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
                return Err(EncodeError::Range("target"));
            }
            put_varint(&mut fields, target.len() as i32);
            fields.extend_from_slice(target);
        }
        if let (Kind::File { checksum }, Some(length)) = (&entry.kind, layout.checksum) {
            let checksum = checksum.as_ref().ok_or(EncodeError::Missing("checksum"))?;
            if checksum.len() != length {
                return Err(EncodeError::Range("checksum"));
            }
            fields.extend_from_slice(checksum);
        }
        if layout.hard_links && entry.link == Link::Leader {
            if is_directory {
                return Err(EncodeError::Range("hard links of a directory"));
            }
            bits |= flags::HARD_LINKED | flags::FIRST_LINK;
        }
        self.put_head(out, &entry.name, bits, is_directory);
        out.append(&mut fields);
        self.previous.advance(entry);
        Ok(())
    }

    /// Flags and name.
    fn put_head(&self, out: &mut Vec<u8>, name: &[u8], mut bits: u32, is_directory: bool) {
        let last = &self.previous.name;
        let alike = name.iter().zip(last).take_while(|(a, b)| a == b).count();
        let shared = u8::try_from(alike).unwrap_or(u8::MAX);
        let rest = name.get(usize::from(shared)..).unwrap_or_default();
        if shared > 0 {
            bits |= flags::SHARED_NAME;
        }
        let short = u8::try_from(rest.len());
        if short.is_err() {
            bits |= flags::LONG_NAME;
        }
        flags::put(out, bits, is_directory, &self.layout);
        if shared > 0 {
            out.push(shared);
        }
        match short {
            Ok(length) => out.push(length),
            Err(_) => put_varint(out, rest.len() as i32),
        }
        out.extend_from_slice(rest);
    }
}

/// A name with its length in one byte.
fn put_short(out: &mut Vec<u8>, name: &[u8]) -> Result<(), EncodeError> {
    out.push(u8::try_from(name.len()).map_err(|_| EncodeError::Range("name of an id"))?);
    out.extend_from_slice(name);
    Ok(())
}
