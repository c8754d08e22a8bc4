//! The order that gives each entry its index.

use std::cmp::Ordering;

use super::list::split;

/// A path, in the two parts that are compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'a> {
    /// The directory it is in; empty for the top.
    pub(super) directory: &'a [u8],
    /// Its last component, or `.` for the root.
    pub(super) name: &'a [u8],
    pub(super) is_directory: bool,
}

impl<'a> Path<'a> {
    pub(super) fn of(path: &'a [u8], is_directory: bool) -> Self {
        let (directory, name) = split(path);
        Self { directory, name, is_directory }
    }

    fn is_root(&self) -> bool {
        self.is_directory && self.directory.is_empty() && self.name == b"."
    }

    fn last(&self) -> Component<'a> {
        if self.is_directory { Component::Directory(self.name) } else { Component::File(self.name) }
    }

    /// The components; the root has none.
    fn components(self) -> impl Iterator<Item = Component<'a>> {
        let above = (!self.directory.is_empty()).then(|| self.directory.split(|&byte| byte == b'/'));
        let last = (!self.is_root()).then(|| self.last());
        above.into_iter().flatten().map(Component::Directory).chain(last)
    }
}

/// Compares two paths by their place in a list: the root first; at each level files before directories; both by their
/// bytes, directories as if they ended with `/`; a directory before its content. Paths of one name and both directories or
/// both not are equal.
pub(super) fn compare(a: &Path<'_>, b: &Path<'_>) -> Ordering {
    // Most are in one directory with their neighbour.
    if a.directory == b.directory && !a.is_root() && !b.is_root() {
        return a.last().cmp(&b.last());
    }
    a.components().cmp(b.components())
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
