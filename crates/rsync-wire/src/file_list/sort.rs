//! The order that gives each entry its index.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use super::Entry;

/// Compares two entries by their place in a list: the root first; at each level files before directories; both by their
/// bytes, directories as if they ended with `/`; a directory before its content. Entries of one name and both directories or
/// both not are equal.
#[must_use]
pub fn compare(a: &Entry, b: &Entry) -> Ordering {
    components(a).cmp(components(b))
}

/// A list in order. The place of an entry is its index.
///
/// Entries of one name all keep their index, but only one of them is active: the directory, or else the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileList {
    entries: Vec<Entry>,
    is_active: Vec<bool>,
    /// The index of each entry by its place in the order of transmission.
    sent: Vec<u32>,
}

/// Why entries make no tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// An entry is in a directory that is not in the list, or is no directory there.
    #[error("entry {0} of the file list is in no directory of the list")]
    Orphan(u32),
}

impl FileList {
    /// Orders entries, which are given as they were transmitted.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut numbered: Vec<(u32, Entry)> = (0..).zip(entries).collect();
        numbered.sort_by(|(_, a), (_, b)| compare(a, b));
        let mut places: Vec<(u32, u32)> = numbered.iter().map(|&(place, _)| place).zip(0..).collect();
        places.sort_unstable();
        let entries: Vec<Entry> = numbered.into_iter().map(|(_, entry)| entry).collect();
        let is_active = active(&entries);
        Self { entries, is_active, sent: places.into_iter().map(|(_, index)| index).collect() }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// There is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of an index, active or not.
    #[must_use]
    pub fn entry(&self, index: u32) -> Option<&Entry> {
        self.entries.get(index as usize)
    }

    /// The entry of an index is there and is the one of its name that is used.
    #[must_use]
    pub fn is_active(&self, index: u32) -> bool {
        self.is_active.get(index as usize).is_some_and(|&is_active| is_active)
    }

    /// The active entries with their indexes, in order.
    pub fn active(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (0..)
            .zip(&self.entries)
            .zip(&self.is_active)
            .filter_map(|(numbered, &active)| active.then_some(numbered))
    }

    /// The index of the entry that was transmitted at this place, by which hard links name their leader.
    #[must_use]
    pub fn index_of_sent(&self, place: u32) -> Option<u32> {
        self.sent.get(place as usize).copied()
    }

    /// Finds out whether every entry below another is in a directory of the list.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_tree(&self) -> Result<(), TreeError> {
        let directories = self.entries.iter().filter(|entry| entry.is_directory());
        let directories: HashSet<&[u8]> = directories.map(|entry| entry.name.as_slice()).collect();
        for (index, entry) in (0..).zip(&self.entries) {
            let parent =
                entry.name.iter().rposition(|&byte| byte == b'/').and_then(|end| entry.name.get(..end));
            if parent.is_some_and(|parent| !directories.contains(parent)) {
                return Err(TreeError::Orphan(index));
            }
        }
        Ok(())
    }
}

/// Which of the ordered entries are active.
fn active(entries: &[Entry]) -> Vec<bool> {
    let mut is_active = vec![true; entries.len()];
    let mut by_name: HashMap<&[u8], usize> = HashMap::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        let Some(&earlier) = by_name.get(entry.name.as_slice()) else {
            by_name.insert(&entry.name, at);
            continue;
        };
        let is_replaced = entry.is_directory() && entries.get(earlier).is_some_and(|one| !one.is_directory());
        let dropped = if is_replaced { earlier } else { at };
        if is_replaced {
            by_name.insert(&entry.name, at);
        }
        if let Some(is_active) = is_active.get_mut(dropped) {
            *is_active = false;
        }
    }
    is_active
}

/// A component of a path: files sort before directories. A directory's bytes end with a slash.
#[derive(PartialEq, Eq)]
enum Component<'a> {
    File(&'a [u8]),
    Directory(&'a [u8]),
}

impl Ord for Component<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a.cmp(b),
            (Self::Directory(a), Self::Directory(b)) => a.iter().chain(b"/").cmp(b.iter().chain(b"/")),
            (Self::File(_), Self::Directory(_)) => Ordering::Less,
            (Self::Directory(_), Self::File(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Component<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The components of an entry's path; the root has none.
fn components(entry: &Entry) -> impl Iterator<Item = Component<'_>> {
    let name = if entry.name == b"." { None } else { Some(entry.name.as_slice()) };
    let is_directory = entry.is_directory();
    let mut parts = name.into_iter().flat_map(|name| name.split(|&byte| byte == b'/')).peekable();
    std::iter::from_fn(move || {
        let part = parts.next()?;
        let is_last = parts.peek().is_none();
        Some(if is_last && !is_directory { Component::File(part) } else { Component::Directory(part) })
    })
}
