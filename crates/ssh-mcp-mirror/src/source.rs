//! This side read: what there is, as entries of a list in the order they are found, and the data of its files.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use rsync_wire::{
    checksum::{Algorithm, Digest, Hasher},
    file_list::{Content, Entry, Id, Kind, Link, Time},
    io_errors::IoErrors,
};
use rustix::{fs::FileType, io::Errno};
use ssh_mcp_core::port::mirror::{Devices, Options};

use crate::{
    accounts::Accounts,
    effort::Effort,
    local::{Attributes, Cursor, Root, Stat, join},
};

/// The longest path that a list can have, and the longest target of a symlink.
const PATH_LEN: usize = 4095;

/// A tree on this side that is sent.
#[derive(Debug, Clone)]
pub struct Source {
    root: Arc<Root>,
    /// The one name in the root that is sent; none is all of them, and `.`.
    top: Option<Vec<u8>>,
}

/// What is looked for.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Which kinds of files, with which of their fields. Without `recursive` only the top itself is.
    pub options: &'a Options,
    /// The digest of each file, if `options.checksum` asks for one.
    pub algorithm: Algorithm,
    /// Whether times have nanoseconds.
    pub nanoseconds: bool,
    /// The most entries.
    pub limit: u32,
    /// Whether a name of the list is taken, which may be a directory. The top is not asked about; what is below a directory
    /// that is not taken is not either.
    pub takes: &'a dyn Fn(&[u8], bool) -> bool,
    /// Told that the scan goes on; ends it.
    pub effort: &'a Effort,
}

/// What a scan comes upon.
#[derive(Debug)]
pub enum Found<'a> {
    /// The next entry.
    Entry(Entry),
    /// Something is left out, or the content of a directory is, because it cannot be read.
    Unread {
        /// The name it has in the list.
        path: &'a [u8],
        /// Why.
        cause: &'a io::Error,
    },
}

/// What is known at the end of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scanned {
    /// How many entries were found.
    pub entries: u32,
    /// What kinds of errors were met.
    pub errors: IoErrors,
    /// The owners that occur, as far as they have names here.
    pub users: Vec<Id>,
    /// The groups that occur, as far as they have names here.
    pub groups: Vec<Id>,
}

/// Why a scan came to no end.
#[derive(Debug, thiserror::Error)]
pub enum ScanError<E> {
    /// There are more entries than allowed.
    #[error("more than {0} entries")]
    TooLarge(u32),
    /// It was stopped.
    #[error("stopped")]
    Stopped,
    /// The top cannot be read.
    #[error("{0}")]
    Top(#[source] io::Error),
    /// The caller's.
    #[error("{0}")]
    Caller(E),
}

impl Source {
    /// Opens a tree for its content, or else for the file or directory itself.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, content: bool) -> io::Result<Self> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(top)) if !content => {
                Ok(Self { root: Root::open(parent)?, top: Some(top.as_encoded_bytes().to_vec()) })
            }
            (_, _) => Ok(Self { root: Root::open(path)?, top: None }),
        }
    }

    /// A cursor for [`read`](Self::read).
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor::new(&self.root)
    }

    /// Opens a regular file of the list for reading.
    ///
    /// # Errors
    /// It is none any more, or cannot be read.
    pub fn read(&self, cursor: &mut Cursor, name: &[u8]) -> io::Result<(File, Stat)> {
        let first = name.split(|&byte| byte == b'/').next();
        if self.top.as_deref().is_some_and(|top| first != Some(top)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        cursor.at(name)?.open()
    }

    /// Walks through the tree. What cannot be read or is gone meanwhile is left out and told.
    ///
    /// # Errors
    /// The scan came to no end.
    pub fn scan<E>(
        &self,
        wanted: &Wanted<'_>,
        found: &mut dyn FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<Scanned, ScanError<E>> {
        let mut scan = Scan {
            wanted,
            found,
            cursor: self.cursor(),
            entries: 0,
            errors: IoErrors::NONE,
            users: HashSet::new(),
            groups: HashSet::new(),
            leaders: HashMap::new(),
        };
        let top = self.top.as_deref().unwrap_or(b".");
        let there = scan.cursor.at(top).and_then(|spot| spot.stat()).map_err(ScanError::Top)?;
        let mut directories = Vec::new();
        if scan.visit(top, there, self.top.is_none())? && wanted.options.recursive {
            directories.push(top.to_vec());
        }
        while let Some(directory) = directories.pop() {
            let names = match scan.cursor.at(&directory).and_then(|spot| spot.names()) {
                Ok(names) => names,
                Err(cause) if directory == top => return Err(ScanError::Top(cause)),
                Err(cause) => {
                    scan.unread(&directory, &cause)?;
                    continue;
                }
            };
            let first = directories.len();
            for name in names {
                let path = join(&directory, &name);
                match scan.look(&path)? {
                    Some(there) if scan.visit(&path, there, false)? => directories.push(path),
                    Some(_) | None => {}
                }
            }
            if let Some(new) = directories.get_mut(first..) {
                new.reverse();
            }
        }
        Ok(Scanned {
            entries: scan.entries,
            errors: scan.errors,
            users: named(&scan.users, Accounts::users),
            groups: named(&scan.groups, Accounts::groups),
        })
    }
}

/// A scan under way.
struct Scan<'a, 'f, E> {
    wanted: &'a Wanted<'a>,
    found: &'f mut dyn FnMut(Found<'_>) -> Result<(), E>,
    cursor: Cursor,
    entries: u32,
    errors: IoErrors,
    users: HashSet<u32>,
    groups: HashSet<u32>,
    /// The place of the first name of each file with several.
    leaders: HashMap<(i128, u64), u32>,
}

impl<E> Scan<'_, '_, E> {
    /// What is at a path that is taken.
    fn look(&mut self, path: &[u8]) -> Result<Option<Stat>, ScanError<E>> {
        self.wanted.effort.beat();
        if self.wanted.effort.is_over() {
            return Err(ScanError::Stopped);
        }
        let there = match path.len() {
            ..=PATH_LEN => self.cursor.at(path).and_then(|spot| spot.stat()),
            _ => Err(Errno::NAMETOOLONG.into()),
        };
        match there {
            Ok(there) => Ok((self.wanted.takes)(path, there.kind == FileType::Directory).then_some(there)),
            Err(cause) => self.unread(path, &cause).map(|()| None),
        }
    }

    /// Tells the entry of a path. Whether it is a directory that was told is the answer.
    fn visit(&mut self, path: &[u8], there: Stat, is_content: bool) -> Result<bool, ScanError<E>> {
        let options = self.wanted.options;
        let has_devices = options.devices != Devices::No;
        let (mut there, mut size) = (there, 0);
        let kind = match there.kind {
            FileType::Directory => {
                size = there.size;
                Ok(Kind::Directory(match (options.recursive, is_content) {
                    (false, _) => Content::Unlisted,
                    (true, true) => Content::Top,
                    (true, false) => Content::Listed,
                }))
            }
            FileType::RegularFile => {
                let digest = self.digest(path, &mut there);
                size = there.size;
                digest.map(|digest| Kind::File { checksum: digest.map(|digest| digest.as_bytes().to_vec()) })
            }
            FileType::Symlink if options.links => {
                let target = self.cursor.at(path).and_then(|spot| spot.read_link());
                size = target.as_ref().map_or(0, |target| target.len() as u64);
                match target {
                    Ok(target) if target.len() > PATH_LEN => Err(Errno::NAMETOOLONG.into()),
                    target => target.map(|target| Kind::Symlink { target: Some(target) }),
                }
            }
            FileType::BlockDevice if has_devices => Ok(Kind::BlockDevice(Some(there.device))),
            FileType::CharacterDevice if has_devices => Ok(Kind::CharDevice(Some(there.device))),
            FileType::Fifo if has_devices => Ok(Kind::Fifo),
            FileType::Socket if has_devices => Ok(Kind::Socket),
            FileType::Symlink
            | FileType::BlockDevice
            | FileType::CharacterDevice
            | FileType::Fifo
            | FileType::Socket
            | FileType::Unknown => return Ok(false),
        };
        let kind = match kind {
            Ok(kind) => kind,
            Err(_) if self.wanted.effort.is_over() => return Err(ScanError::Stopped),
            Err(cause) => {
                self.unread(path, &cause)?;
                return Ok(false);
            }
        };
        if self.entries >= self.wanted.limit {
            return Err(ScanError::TooLarge(self.wanted.limit));
        }
        let is_directory = there.kind == FileType::Directory;
        let link = match options.hard_links && !is_directory && there.names > 1 {
            false => Link::Single,
            true => match self.leaders.get(&there.identity) {
                Some(&place) => Link::Follower(place),
                None => {
                    self.leaders.insert(there.identity, self.entries);
                    Link::Leader
                }
            },
        };
        if options.owner {
            self.users.insert(there.uid);
        }
        if options.group {
            self.groups.insert(there.gid);
        }
        let nanoseconds = if self.wanted.nanoseconds { there.mtime.nanoseconds } else { 0 };
        let entry = Entry {
            name: path.to_vec(),
            size,
            mtime: Time { nanoseconds, ..there.mtime },
            permissions: there.permissions,
            kind,
            atime: None,
            uid: options.owner.then_some(there.uid),
            gid: options.group.then_some(there.gid),
            link,
        };
        self.entries += 1;
        (self.found)(Found::Entry(entry)).map_err(ScanError::Caller)?;
        Ok(is_directory)
    }

    /// The digest of a file, if one is wanted, and what the file is that was read for it.
    fn digest(&mut self, path: &[u8], there: &mut Stat) -> io::Result<Option<Digest>> {
        if !self.wanted.options.checksum {
            return Ok(None);
        }
        let (mut file, opened) = self.cursor.at(path)?.open()?;
        *there = opened;
        digest(&mut file, self.wanted.algorithm, self.wanted.effort).map(Some)
    }

    fn unread(&mut self, path: &[u8], cause: &io::Error) -> Result<(), ScanError<E>> {
        let is_gone = cause.kind() == io::ErrorKind::NotFound;
        self.errors |= if is_gone { IoErrors::VANISHED } else { IoErrors::GENERAL };
        (self.found)(Found::Unread { path, cause }).map_err(ScanError::Caller)
    }
}

/// The digest of a whole file.
///
/// # Errors
/// It cannot be read, or the run is over.
pub(crate) fn digest(file: &mut File, algorithm: Algorithm, effort: &Effort) -> io::Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        effort.beat();
        if effort.is_over() {
            return Err(io::Error::other("stopped"));
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(len) => hasher.update(buffer.get(..len).unwrap_or_default()),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

fn named(used: &HashSet<u32>, accounts: fn() -> Accounts) -> Vec<Id> {
    if used.is_empty() { Vec::new() } else { accounts().named(|number| used.contains(&number)) }
}

#[cfg(test)]
mod tests;
