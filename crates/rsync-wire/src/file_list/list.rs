//! A whole list, packed: a file of a large tree takes 34 bytes and its name without its directory.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::OnceLock;

use super::sort::{Path, compare};
use super::{Content, Entry, Kind, Link, Time};

/// A list in order. The place of an entry is its index.
///
/// Entries of one name all keep their index, but only one of them is active: the directory, or else the first. Entries are
/// packed, and unpacked one at a time.
#[derive(Debug)]
pub struct FileList {
    /// In the order of their indexes.
    entries: Packed,
    /// The index of each entry by its place in the order of transmission, once somebody has asked for one.
    indexes: OnceLock<Vec<u32>>,
    /// The entries that are not active, in order.
    inactive: Vec<u32>,
}

/// Gathers entries in the order of transmission.
#[derive(Debug, Default)]
pub struct ListBuilder {
    entries: Packed,
    directories: HashMap<Vec<u8>, u32>,
    plain: HashMap<Plain, u32>,
}

/// Why entries make no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// An entry is in a directory that is not in the list, or is no directory there.
    #[error("entry {0} of the file list is in no directory of the list")]
    Orphan(u32),
    /// There are 2^31 entries, their names have 4 GiB, or one has 64 KiB.
    #[error("file list that is too long")]
    TooLong,
}

/// Entries, at first in the order of transmission.
#[derive(Debug, Default)]
struct Packed {
    entries: Vec<PackedEntry>,
    /// The names of all entries in the order of transmission, without their directories, each behind its length.
    names: Vec<u8>,
    /// The paths of all directories that entries are in.
    directories: Vec<Box<[u8]>>,
    details: Vec<Detail>,
}

#[derive(Debug, Clone, Copy)]
struct PackedEntry {
    size: u64,
    seconds: i64,
    nanoseconds: u32,
    /// Where its name is. Names rise in the order of transmission.
    name: u32,
    /// Which directory it is in; the top is none.
    directory: u32,
    detail: u32,
}

/// What most entries have in common with others.
#[derive(Debug)]
struct Detail {
    kind: Kind,
    permissions: u16,
    atime: Option<i64>,
    uid: Option<u32>,
    gid: Option<u32>,
    link: Link,
}

/// A detail that many entries share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plain {
    /// A directory, by what is said about its content, or a file.
    content: Option<Content>,
    permissions: u16,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// The top is in no directory.
const TOP: u32 = u32::MAX;

impl ListBuilder {
    /// Adds the next entry.
    ///
    /// # Errors
    /// There are too many.
    pub fn push(&mut self, entry: &Entry) -> Result<(), TreeError> {
        let full = |_| TreeError::TooLong;
        i32::try_from(self.entries.entries.len()).map_err(full)?;
        let (directory, name) = split(&entry.name);
        let directory = match directory {
            [] => TOP,
            directory => self.directory(directory)?,
        };
        let begin = u32::try_from(self.entries.names.len()).map_err(full)?;
        let packed = PackedEntry {
            size: entry.size,
            seconds: entry.mtime.seconds,
            nanoseconds: entry.mtime.nanoseconds,
            name: begin,
            directory,
            detail: self.detail(entry)?,
        };
        let length = u16::try_from(name.len()).map_err(full)?;
        self.entries.names.extend_from_slice(&length.to_le_bytes());
        self.entries.names.extend_from_slice(name);
        self.entries.entries.push(packed);
        Ok(())
    }

    /// Orders what was gathered.
    #[must_use]
    pub fn build(self) -> FileList {
        let mut packed = self.entries;
        packed.names.shrink_to_fit();
        let mut entries = std::mem::take(&mut packed.entries);
        entries.shrink_to_fit();
        entries.sort_unstable_by(|a, b| match (packed.path(a), packed.path(b)) {
            (Some(one), Some(other)) => compare(&one, &other).then(a.name.cmp(&b.name)),
            (one, other) => one.is_some().cmp(&other.is_some()),
        });
        packed.entries = entries;
        let mut list = FileList { entries: packed, indexes: OnceLock::new(), inactive: Vec::new() };
        list.inactive = list.find_inactive();
        list
    }

    fn directory(&mut self, path: &[u8]) -> Result<u32, TreeError> {
        // Mostly it is that of the entry before.
        if let Some(last) = self.entries.entries.last()
            && self.entries.directory(last.directory) == path
        {
            return Ok(last.directory);
        }
        if let Some(&known) = self.directories.get(path) {
            return Ok(known);
        }
        let number = u32::try_from(self.entries.directories.len()).map_err(|_| TreeError::TooLong)?;
        self.entries.directories.push(path.into());
        self.directories.insert(path.to_vec(), number);
        Ok(number)
    }

    fn detail(&mut self, entry: &Entry) -> Result<u32, TreeError> {
        let Entry { ref kind, permissions, atime, uid, gid, link, .. } = *entry;
        let content = match kind {
            Kind::Directory(content) => Some(Some(*content)),
            Kind::File { checksum: None } => Some(None),
            Kind::File { checksum: Some(_) }
            | Kind::Symlink { .. }
            | Kind::BlockDevice(_)
            | Kind::CharDevice(_)
            | Kind::Fifo
            | Kind::Socket => None,
        };
        let plain = content.filter(|_| atime.is_none() && link == Link::Single);
        let plain = plain.map(|content| Plain { content, permissions, uid, gid });
        if let Some(&known) = plain.as_ref().and_then(|plain| self.plain.get(plain)) {
            return Ok(known);
        }
        let number = u32::try_from(self.entries.details.len()).map_err(|_| TreeError::TooLong)?;
        self.entries.details.push(Detail { kind: kind.clone(), permissions, atime, uid, gid, link });
        if let Some(plain) = plain {
            self.plain.insert(plain, number);
        }
        Ok(number)
    }
}

impl FileList {
    /// Orders entries, which are given as they were transmitted.
    ///
    /// # Errors
    /// There are too many.
    pub fn new<E: Borrow<Entry>>(entries: impl IntoIterator<Item = E>) -> Result<Self, TreeError> {
        let mut builder = ListBuilder::default();
        entries.into_iter().try_for_each(|entry| builder.push(entry.borrow()))?;
        Ok(builder.build())
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.entries.len()
    }

    /// There is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of an index, active or not.
    #[must_use]
    pub fn entry(&self, index: u32) -> Option<Entry> {
        self.entries.unpack(self.packed(index)?)
    }

    /// The entry of an index is a regular file.
    #[must_use]
    pub fn is_file(&self, index: u32) -> bool {
        let detail = self.packed(index).and_then(|entry| self.entries.detail(entry));
        detail.is_some_and(|detail| matches!(detail.kind, Kind::File { .. }))
    }

    /// The entry of an index is there and is the one of its name that is used.
    #[must_use]
    pub fn is_active(&self, index: u32) -> bool {
        (index as usize) < self.len() && self.inactive.binary_search(&index).is_err()
    }

    /// The active entries with their indexes, in order.
    pub fn active(&self) -> impl Iterator<Item = (u32, Entry)> {
        let indexes = (0..self.len() as u32).filter(|&index| self.is_active(index));
        indexes.filter_map(|index| Some((index, self.entry(index)?)))
    }

    /// The active entry of a name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Entry> {
        let index = self.index_of(&Path::of(name, true)).or_else(|| self.index_of(&Path::of(name, false)));
        self.entry(index?)
    }

    /// The index of the entry that was transmitted at this place, by which hard links name their leader.
    #[must_use]
    pub fn index_of_sent(&self, place: u32) -> Option<u32> {
        let indexes = self.indexes.get_or_init(|| {
            let mut indexes: Vec<u32> = (0..self.len() as u32).collect();
            indexes.sort_unstable_by_key(|&index| self.packed(index).map(|entry| entry.name));
            indexes
        });
        indexes.get(place as usize).copied()
    }

    /// Finds out whether every entry below another is in a directory of the list.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_tree(&self) -> Result<(), TreeError> {
        let is_there = |path: &[u8]| self.index_of(&Path::of(path, true)).is_some();
        let known: Vec<bool> = self.entries.directories.iter().map(|path| is_there(path)).collect();
        let is_orphan = |entry: &PackedEntry| known.get(entry.directory as usize) == Some(&false);
        match self.entries.entries.iter().position(is_orphan) {
            Some(index) => Err(TreeError::Orphan(index as u32)),
            None => Ok(()),
        }
    }

    fn packed(&self, index: u32) -> Option<&PackedEntry> {
        self.entries.entries.get(index as usize)
    }

    /// The first entry at a path.
    fn index_of(&self, path: &Path<'_>) -> Option<u32> {
        let is_before =
            |entry: &PackedEntry| self.entries.path(entry).is_some_and(|other| compare(&other, path).is_lt());
        let index = self.entries.entries.partition_point(is_before);
        let found = self.entries.entries.get(index).and_then(|entry| self.entries.path(entry));
        found.is_some_and(|found| compare(&found, path).is_eq()).then_some(index as u32)
    }

    fn find_inactive(&self) -> Vec<u32> {
        let mut inactive = Vec::new();
        let mut before: Option<Path<'_>> = None;
        for (index, entry) in (0..).zip(&self.entries.entries) {
            let Some(path) = self.entries.path(entry) else { continue };
            if before.is_some_and(|before| compare(&before, &path).is_eq()) {
                inactive.push(index);
            }
            // A directory's name may also be that of something else, which stands elsewhere.
            if path.is_directory {
                inactive.extend(self.index_of(&Path { is_directory: false, ..path }));
            }
            before = Some(path);
        }
        inactive.sort_unstable();
        inactive.dedup();
        inactive
    }
}

impl Packed {
    fn name(&self, entry: &PackedEntry) -> Option<&[u8]> {
        let (length, names) = self.names.get(entry.name as usize..)?.split_first_chunk()?;
        names.get(..u16::from_le_bytes(*length).into())
    }

    /// The path of a directory; that of the top is empty.
    fn directory(&self, number: u32) -> &[u8] {
        self.directories.get(number as usize).map_or(&[], |path| path)
    }

    fn detail(&self, entry: &PackedEntry) -> Option<&Detail> {
        self.details.get(entry.detail as usize)
    }

    fn path(&self, entry: &PackedEntry) -> Option<Path<'_>> {
        Some(Path {
            directory: self.directory(entry.directory),
            name: self.name(entry)?,
            is_directory: matches!(self.detail(entry)?.kind, Kind::Directory(_)),
        })
    }

    fn unpack(&self, entry: &PackedEntry) -> Option<Entry> {
        let (directory, name) = (self.directory(entry.directory), self.name(entry)?);
        let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
        path.extend_from_slice(directory);
        if !directory.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let &Detail { ref kind, permissions, atime, uid, gid, link } = self.detail(entry)?;
        Some(Entry {
            name: path,
            size: entry.size,
            mtime: Time { seconds: entry.seconds, nanoseconds: entry.nanoseconds },
            permissions,
            kind: kind.clone(),
            atime,
            uid,
            gid,
            link,
        })
    }
}

/// The path of the directory something is in, empty for the top, and its name there.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (&[], path),
    }
}
