//! This side written: what each entry of a list asks for, its data, its attributes, and what the list does not have.
//!
//! A run calls, in this order: [`Landing::consider`] for each active entry in the order of the list, and meanwhile, for each
//! file that needs data, [`Landing::receive`] and [`Incoming::commit`]; then [`Landing::link_followers`],
//! [`Landing::delete_extras`] and [`Landing::finish_directories`]. With `dry_run` nothing is changed, whatever is called.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rsync_wire::{
    checksum::Algorithm,
    file_list::{Content, Device, Entry, FileList, Id, Kind, Link, Time},
};
use rustix::{
    fs::{FileType, Mode},
    io::Errno,
    process::{getegid, geteuid, getgroups},
};
use ssh_mcp_core::port::mirror::{Devices, FileFault, Options, Skip};

use crate::{
    accounts::Accounts,
    effort::Effort,
    fault_of,
    local::{Attributes, Cursor, Root, Spot, Stat, Temporary, join},
    source::digest,
};

/// The directory in which interrupted files wait, beside where they belong.
pub const PARTIAL: &[u8] = b".rsync-partial";

/// Bytes that are collected before they are written; a multiple of [`HOLE`].
const BUFFER: usize = 256 * 1024;

/// Zeros that become a hole, at a multiple of their number.
const HOLE: usize = 4096;

/// Bits that let a file run as its owner or group.
const SET_ID: [u16; 2] = [0o4000, 0o2000];

/// A tree on this side that is made equal to a list. It may be used by any number of threads, each with its own cursor.
pub struct Landing {
    list: Arc<FileList>,
    settings: Settings,
    /// None is a tree that does not exist in a run that changes nothing, or that nothing is for.
    root: Option<Arc<Root>>,
    /// The name of the only file, if the destination is that file and no directory.
    renamed: Option<Vec<u8>>,
    /// The root was made.
    is_new: bool,
    rights: Rights,
    /// What the sender's numbers are here.
    users: HashMap<u32, u32>,
    groups: HashMap<u32, u32>,
    /// For each hard link that is made from another entry, that entry.
    heads: HashMap<u32, u32>,
    /// The entries that links can be made from.
    ready: Mutex<HashSet<u32>>,
    /// The directories that are there, in order, with the permissions they get in the end.
    directories: Mutex<Vec<(u32, u16)>>,
}

/// Whether a path of the list's tree, which may be a directory, is protected from deletion.
pub type Protected = dyn Fn(&[u8], bool) -> bool + Send + Sync;

/// How a list is landed.
pub struct Settings {
    /// What is done. `delete` must be off if nothing may be deleted in this run.
    pub options: Options,
    /// The algorithm of the list's digests.
    pub algorithm: Algorithm,
    /// What users are called at the sender.
    pub users: Vec<Id>,
    /// What groups are called at the sender.
    pub groups: Vec<Id>,
    /// What stays though the list does not have it.
    pub protected: Box<Protected>,
    /// Told that a file is read for its digest; ends that.
    pub effort: Arc<Effort>,
}

/// What an entry needs.
#[derive(Debug)]
pub enum Step {
    /// Nothing any more: a directory, symlink, device, fifo or socket is as listed.
    Done,
    /// Nothing: its kind is not asked for, or cannot be made here.
    LeftOut,
    /// Nothing any more: the data of a regular file is there, and the rest is as listed.
    UpToDate(Skip),
    /// Data.
    Needs {
        /// What may have a part of it.
        basis: Option<Basis>,
        /// Nothing is there.
        is_new: bool,
    },
    /// It is another name of an entry. From [`Landing::consider`]: it is going to be, its turn comes with
    /// [`Landing::link_followers`].
    Linked,
}

/// A file on this side that may have a part of the data.
#[derive(Debug)]
pub struct Basis {
    /// The file, open for reading.
    pub file: File,
    /// Its length, never 0.
    pub len: u64,
    /// It is what has arrived of an interrupted transfer.
    pub is_partial: bool,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// Its path in the list.
    pub path: Vec<u8>,
    /// In one word.
    pub word: FileFault,
    /// In one line.
    pub detail: String,
}

/// A file whose data arrives. Dropped without commit it is removed, or, if partial files are kept, laid aside.
pub struct Incoming {
    landing: Arc<Landing>,
    path: Vec<u8>,
    /// None is placed, or laid aside.
    temporary: Option<Temporary<File>>,
    /// What is behind the bytes that are written.
    buffer: Vec<u8>,
    /// How many bytes are written, holes included: a multiple of [`HOLE`].
    written: u64,
}

/// What this process may.
struct Rights {
    is_privileged: bool,
    groups: Vec<u32>,
    umask: u16,
}

impl Landing {
    /// Opens the tree of a list, and makes the last component of its path if it is missing.
    ///
    /// If the list has one entry and that is no directory, it may be the destination itself: when the destination is no
    /// directory and its path has no slash at the end. Otherwise the destination is the directory of all entries.
    ///
    /// # Errors
    /// The destination cannot be opened or made, or is no directory where one is needed.
    pub fn open(list: Arc<FileList>, settings: Settings, destination: &Path) -> io::Result<Arc<Self>> {
        let is_single = list.len() == 1 && list.entry(0).is_some_and(|entry| !entry.is_directory());
        let is_file =
            is_single && !destination.as_os_str().as_encoded_bytes().ends_with(b"/") && !destination.is_dir();
        let (root, is_new, renamed) = match (destination.parent(), destination.file_name()) {
            (Some(parent), Some(name)) if is_file => {
                (Some(Root::open(parent)?), false, Some(name.as_encoded_bytes().to_vec()))
            }
            (parent, _) if settings.options.dry_run || list.is_empty() => match Root::open(destination) {
                Ok(root) => (Some(root), false, None),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound && parent.is_some_and(Path::is_dir) => {
                    (None, true, None)
                }
                Err(cause) => return Err(cause),
            },
            (_, _) => {
                let (root, is_new) = Root::open_or_make(destination)?;
                (Some(root), is_new, None)
            }
        };
        let Options { owner, group, hard_links, .. } = settings.options;
        Ok(Arc::new(Self {
            root,
            is_new,
            renamed,
            rights: Rights::of_this_process(),
            users: if owner { Accounts::users().translate(&settings.users) } else { HashMap::new() },
            groups: if group { Accounts::groups().translate(&settings.groups) } else { HashMap::new() },
            heads: if hard_links { heads(&list) } else { HashMap::new() },
            ready: Mutex::default(),
            directories: Mutex::default(),
            list,
            settings,
        }))
    }

    /// The list.
    #[must_use]
    pub fn list(&self) -> &Arc<FileList> {
        &self.list
    }

    /// A cursor in the tree.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.root.as_ref().map_or_else(Cursor::nowhere, Cursor::new)
    }

    /// Finds out what an active entry needs, and does what needs no data. Entries come in the order of the list.
    ///
    /// # Errors
    /// The entry failed; the others go on.
    pub fn consider(&self, cursor: &mut Cursor, index: u32, entry: &Entry) -> Result<Step, Fault> {
        let path = self.path(entry);
        let step = self.step(cursor, index, entry, path).map_err(|cause| Fault::new(&entry.name, &cause))?;
        let is_there = match &step {
            Step::Done | Step::UpToDate(_) => true,
            // In such a run it is as if it were.
            Step::Needs { .. } => self.settings.options.dry_run,
            Step::LeftOut | Step::Linked => false,
        };
        if is_there && entry.link != Link::Single {
            lock(&self.ready).insert(index);
        }
        Ok(step)
    }

    /// What may have a part of an entry's data: what has arrived of it before, or else the file that is replaced.
    #[must_use]
    pub fn basis(&self, cursor: &mut Cursor, entry: &Entry) -> Option<Basis> {
        let path = self.path(entry);
        let partial = self.settings.options.partial.then(|| (partial_path(path), true));
        let candidates = partial.into_iter().chain([(path.to_vec(), false)]);
        let mut opened = candidates.filter_map(|(path, is_partial)| {
            // What cannot be read is no basis.
            let (file, there) = cursor.at(&path).and_then(|spot| spot.open()).ok()?;
            (there.size > 0).then_some(Basis { file, len: there.size, is_partial })
        });
        opened.next()
    }

    /// Begins the data of an entry.
    ///
    /// # Errors
    /// No temporary file can be made.
    pub fn receive(self: &Arc<Self>, cursor: &mut Cursor, entry: &Entry) -> Result<Incoming, Fault> {
        let path = self.path(entry);
        let temporary = match self.settings.options.dry_run {
            true => Err(io::Error::other("nothing is written in this run")),
            false => cursor.at(path).and_then(|spot| spot.temporary_file()),
        };
        let temporary = temporary.map_err(|cause| Fault::new(&entry.name, &cause))?;
        Ok(Incoming {
            landing: self.clone(),
            path: path.to_vec(),
            temporary: Some(temporary),
            buffer: Vec::new(),
            written: 0,
        })
    }

    /// Makes the hard links that [`consider`](Self::consider) put off, and tells of each whether it was made or was there.
    pub fn link_followers(&self, cursor: &mut Cursor, told: &mut dyn FnMut(u32, Result<Step, Fault>)) {
        for (index, entry) in self.list.active() {
            let head = self.heads.get(&index).and_then(|&head| Some((head, self.list.entry(head)?)));
            if let Some((head, of)) = head.filter(|_| !self.is_left_out(&entry)) {
                let is_ready = lock(&self.ready).contains(&head);
                let step = match is_ready {
                    true => self.link(cursor, &entry, &of),
                    false => Err(io::Error::other("the file that it is another name of has failed")),
                };
                told(index, step.map_err(|cause| Fault::new(&entry.name, &cause)));
            }
        }
    }

    /// Removes what is in directories whose content is listed, and in no entry. What is protected stays with the directories
    /// on the way to it, and so do files that wait for their next transfer. Each path that is gone is told; with `dry_run` it
    /// is only told. The answer is what could not be removed.
    pub fn delete_extras(&self, cursor: &mut Cursor, told: &mut dyn FnMut(&[u8])) -> Vec<Fault> {
        let mut faults = Vec::new();
        let directories: Vec<Entry> = self
            .list
            .active()
            .filter(|(_, entry)| matches!(entry.kind, Kind::Directory(Content::Top | Content::Listed)))
            .map(|(_, entry)| entry)
            .collect();
        for directory in directories.into_iter().rev() {
            let names = match self.names(cursor, &directory.name) {
                Ok(names) => names,
                Err(cause) => {
                    faults.push(Fault::new(&directory.name, &cause));
                    continue;
                }
            };
            let paths = names.iter().map(|name| join(&directory.name, name));
            for path in paths.filter(|path| self.list.find(path).is_none()) {
                if let Err(cause) = self.remove_tree(cursor, &path, told) {
                    faults.push(Fault::new(&path, &cause));
                }
            }
        }
        faults
    }

    /// Gives the directories their owners, permissions and times. The answer is what failed.
    pub fn finish_directories(&self, cursor: &mut Cursor) -> Vec<Fault> {
        let directories = std::mem::take(&mut *lock(&self.directories));
        let finish = |(index, permissions)| {
            let entry = self.list.entry(index)?;
            let finished = cursor.at(&entry.name).and_then(|spot| {
                self.settle(&spot, spot.stat()?, &entry, Some(permissions), Some(entry.mtime))
            });
            finished.err().map(|cause| Fault::new(&entry.name, &cause))
        };
        directories.into_iter().rev().filter_map(finish).collect()
    }
}

impl Landing {
    /// The path on this side.
    fn path<'a>(&'a self, entry: &'a Entry) -> &'a [u8] {
        self.renamed.as_deref().unwrap_or(&entry.name)
    }

    fn step(&self, cursor: &mut Cursor, index: u32, entry: &Entry, path: &[u8]) -> io::Result<Step> {
        if self.is_left_out(entry) {
            return Ok(Step::LeftOut);
        }
        if self.heads.contains_key(&index) {
            return Ok(Step::Linked);
        }
        match &entry.kind {
            Kind::Directory(_) => self.directory(cursor, index, entry, path),
            Kind::File { checksum } => self.file(cursor, entry, path, checksum.as_deref()),
            Kind::Symlink { target } => {
                let target = target.as_deref().unwrap_or_default();
                self.special(
                    cursor,
                    entry,
                    path,
                    &|there, spot| Ok(there.kind == FileType::Symlink && spot.read_link()? == target),
                    &|spot| spot.make_symlink(target),
                )
            }
            Kind::BlockDevice(number) => self.node(cursor, entry, path, FileType::BlockDevice, *number),
            Kind::CharDevice(number) => self.node(cursor, entry, path, FileType::CharacterDevice, *number),
            Kind::Fifo => self.node(cursor, entry, path, FileType::Fifo, None),
            Kind::Socket => self.node(cursor, entry, path, FileType::Socket, None),
        }
    }

    fn is_left_out(&self, entry: &Entry) -> bool {
        let devices = self.settings.options.devices;
        match &entry.kind {
            Kind::Directory(_) | Kind::File { .. } => false,
            Kind::Symlink { target } => !self.settings.options.links || target.is_none(),
            Kind::BlockDevice(number) | Kind::CharDevice(number) => match devices {
                Devices::No => true,
                Devices::Implied => number.is_none() || !self.rights.is_privileged,
                Devices::Asked => number.is_none(),
            },
            Kind::Fifo | Kind::Socket => match devices {
                Devices::No => true,
                // The system makes none in an open directory.
                Devices::Implied => cfg!(target_vendor = "apple"),
                Devices::Asked => false,
            },
        }
    }

    fn directory(&self, cursor: &mut Cursor, index: u32, entry: &Entry, path: &[u8]) -> io::Result<Step> {
        let Options { dry_run, perms, .. } = self.settings.options;
        let there = cursor.find(path)?;
        if dry_run {
            return Ok(Step::Done);
        }
        let spot = cursor.at(path)?;
        let mut is_new = self.is_new && path == b".";
        let mut permissions = entry.permissions;
        match there {
            Some(there) if there.kind == FileType::Directory => {
                permissions = there.permissions;
                if permissions & 0o700 != 0o700 && !self.rights.is_privileged {
                    // If this is not allowed, what is done in it may say so.
                    let _ = spot.set_permissions(permissions | 0o700);
                }
            }
            other => {
                if other.is_some() {
                    spot.remove()?;
                }
                spot.make_directory(permissions & 0o777 | 0o700)?;
                is_new = true;
            }
        }
        if perms {
            permissions = entry.permissions;
        } else if is_new {
            permissions = self.rights.for_new(entry);
        }
        lock(&self.directories).push((index, permissions));
        Ok(Step::Done)
    }

    fn file(
        &self,
        cursor: &mut Cursor,
        entry: &Entry,
        path: &[u8],
        checksum: Option<&[u8]>,
    ) -> io::Result<Step> {
        let Options { dry_run, partial, checksum: by_content, .. } = self.settings.options;
        let there = cursor.find(path)?;
        if let Some(there) =
            there.filter(|there| there.kind == FileType::RegularFile && there.size == entry.size)
        {
            let is_equal = match checksum.filter(|_| by_content) {
                Some(listed) => self.has_digest(cursor, path, listed),
                None => !by_content && is_same_time(there.mtime, entry.mtime),
            };
            if is_equal {
                if !dry_run {
                    self.adjust(&cursor.at(path)?, entry, there)?;
                }
                return Ok(Step::UpToDate(if by_content { Skip::Size } else { Skip::Mtime }));
            }
        }
        self.make_way(cursor, path, there)?;
        let has_basis = !dry_run && (partial || there.is_some());
        let basis = if has_basis { self.basis(cursor, entry) } else { None };
        Ok(Step::Needs { basis, is_new: there.is_none() })
    }

    /// Whether a file can be read and has this digest.
    fn has_digest(&self, cursor: &mut Cursor, path: &[u8], listed: &[u8]) -> bool {
        let (algorithm, effort) = (self.settings.algorithm, &self.settings.effort);
        let found = cursor.at(path).and_then(|spot| spot.open());
        let found = found.and_then(|(mut file, _)| digest(&mut file, algorithm, effort));
        found.is_ok_and(|digest| digest.as_bytes() == listed)
    }

    fn node(
        &self,
        cursor: &mut Cursor,
        entry: &Entry,
        path: &[u8],
        kind: FileType,
        number: Option<Device>,
    ) -> io::Result<Step> {
        self.special(
            cursor,
            entry,
            path,
            &|there, _| Ok(there.kind == kind && number.is_none_or(|number| there.device == number)),
            &|spot| spot.make_node(kind, number.unwrap_or_default()),
        )
    }

    /// What has no data: it is left as it is, or made beside its place and put there.
    fn special(
        &self,
        cursor: &mut Cursor,
        entry: &Entry,
        path: &[u8],
        is_equal: &dyn Fn(&Stat, &Spot<'_>) -> io::Result<bool>,
        make: &dyn Fn(&Spot<'_>) -> io::Result<()>,
    ) -> io::Result<Step> {
        let there = cursor.find(path)?;
        let is_dry = self.settings.options.dry_run;
        if let Some(there) = &there {
            let spot = cursor.at(path)?;
            if is_equal(there, &spot)? {
                if !is_dry {
                    self.adjust(&spot, entry, *there)?;
                }
                return Ok(Step::Done);
            }
        }
        self.make_way(cursor, path, there)?;
        if !is_dry {
            let spot = cursor.at(path)?;
            let mut temporary = spot.make_beside(make)?;
            let new = temporary.spot();
            let permissions = self.permissions(entry, there);
            self.settle(&new, new.stat()?, entry, Some(permissions), Some(entry.mtime))?;
            temporary.place(&spot)?;
        }
        Ok(Step::Done)
    }

    fn link(&self, cursor: &mut Cursor, entry: &Entry, head: &Entry) -> io::Result<Step> {
        let Options { dry_run, checksum, .. } = self.settings.options;
        let of = cursor.find(self.path(head))?;
        let there = cursor.find(&entry.name)?;
        if of.zip(there).is_some_and(|(of, there)| of.identity == there.identity) {
            return Ok(Step::UpToDate(if checksum { Skip::Size } else { Skip::Mtime }));
        }
        self.make_way(cursor, &entry.name, there)?;
        if !dry_run {
            let of = cursor.at(self.path(head))?;
            let spot = cursor.at(&entry.name)?;
            spot.make_beside(|new| of.link_to(new))?.place(&spot)?;
        }
        Ok(Step::Linked)
    }

    /// Removes a directory that is where something else belongs; what is no directory is replaced anyway.
    fn make_way(&self, cursor: &mut Cursor, path: &[u8], there: Option<Stat>) -> io::Result<()> {
        let Options { dry_run, delete, .. } = self.settings.options;
        if there.is_none_or(|there| there.kind != FileType::Directory) {
            return Ok(());
        }
        let is_gone = if delete {
            self.remove_tree(cursor, path, &mut |_| {})?
        } else {
            let spot = cursor.at(path)?;
            let is_empty = spot.names()?.is_empty();
            if is_empty && !dry_run {
                spot.remove_directory()?;
            }
            is_empty
        };
        if is_gone { Ok(()) } else { Err(io::Error::other("a directory that is not empty is in the way")) }
    }

    fn remove_tree(&self, cursor: &mut Cursor, path: &[u8], told: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let keeps = |path: &[u8], is_directory| {
            (self.settings.protected)(path, is_directory)
                || is_directory && path.rsplit(|&byte| byte == b'/').next() == Some(PARTIAL)
        };
        cursor.remove_tree(path, &keeps, self.settings.options.dry_run, told)
    }

    /// The names in a directory of the list; none, if it is not there.
    fn names(&self, cursor: &mut Cursor, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        match cursor.find(path)? {
            Some(there) if there.kind == FileType::Directory => cursor.at(path)?.names(),
            Some(_) | None => Ok(Vec::new()),
        }
    }

    /// The permissions of what takes the place of what is there.
    fn permissions(&self, entry: &Entry, there: Option<Stat>) -> u16 {
        match there.filter(|there| there.kind != FileType::Directory && there.kind != FileType::Symlink) {
            _ if self.settings.options.perms => entry.permissions,
            // Like a write by somebody else, new data takes these rights from a file.
            Some(there) => there.permissions & !SET_ID[0] & !SET_ID[1],
            None => self.rights.for_new(entry),
        }
    }

    /// Gives what is up to date the attributes that it does not have.
    fn adjust(&self, object: &dyn Attributes, entry: &Entry, there: Stat) -> io::Result<()> {
        let permissions = self.settings.options.perms.then_some(entry.permissions);
        let mtime = (!is_same_time(there.mtime, entry.mtime)).then_some(entry.mtime);
        self.settle(object, there, entry, permissions, mtime)
    }

    /// Sets the owner, then what permissions are given, then the time, where the run and the rights of this process say so.
    fn settle(
        &self,
        object: &dyn Attributes,
        mut there: Stat,
        entry: &Entry,
        permissions: Option<u16>,
        mtime: Option<Time>,
    ) -> io::Result<()> {
        let uid = entry.uid.map(|uid| self.users.get(&uid).copied().unwrap_or(uid));
        let gid = entry.gid.map(|gid| self.groups.get(&gid).copied().unwrap_or(gid));
        let Options { owner, group, mtime: has_times, .. } = self.settings.options;
        let may_own = |_: &u32| owner && self.rights.is_privileged;
        let may_join = |gid: &u32| group && (self.rights.is_privileged || self.rights.groups.contains(gid));
        // The highest number means none to the system.
        let new_uid = uid.filter(|&uid| uid != there.uid && uid != u32::MAX).filter(may_own);
        let new_gid = gid.filter(|&gid| gid != there.gid && gid != u32::MAX).filter(may_join);
        if new_uid.is_some() || new_gid.is_some() {
            match object.set_owner(new_uid, new_gid) {
                // The system takes such rights from a file that changes hands.
                Ok(()) => there = object.stat()?,
                // Root of a container may not give files to everybody.
                Err(cause) if is_refused(&cause) => {}
                Err(cause) => return Err(cause),
            }
        }
        if let Some(mut permissions) = permissions.filter(|_| there.kind != FileType::Symlink) {
            // On a directory they give no rights.
            if there.kind != FileType::Directory {
                for (bit, is_kept) in SET_ID.into_iter().zip([uid == Some(there.uid), gid == Some(there.gid)])
                {
                    permissions &= if is_kept { 0o7777 } else { !bit };
                }
            }
            if permissions != there.permissions {
                object.set_permissions(permissions)?;
            }
        }
        match mtime.filter(|&mtime| has_times && mtime != there.mtime) {
            Some(mtime) => object.set_mtime(mtime),
            None => Ok(()),
        }
    }
}

impl Incoming {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BUFFER - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == BUFFER {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Gives the file its attributes and puts it in its place.
    ///
    /// # Errors
    /// The file failed; what had arrived is kept or removed as by a drop.
    pub fn commit(mut self, index: u32, entry: &Entry) -> Result<(), Fault> {
        self.finish(entry).map_err(|cause| Fault::new(&entry.name, &cause))?;
        if entry.link != Link::Single {
            lock(&self.landing.ready).insert(index);
        }
        if self.landing.settings.options.partial {
            // They are there seldom, and what remains does no harm.
            let mut cursor = self.landing.cursor();
            let path = partial_path(&self.path);
            let _ = cursor
                .at(&path)
                .and_then(|spot| spot.remove())
                .and_then(|()| cursor.at(parent(&path))?.remove_directory());
        }
        Ok(())
    }

    fn finish(&mut self, entry: &Entry) -> io::Result<()> {
        self.flush()?;
        let Some(temporary) = &mut self.temporary else { return Ok(()) };
        if self.landing.settings.options.sparse {
            // It may end with a hole.
            temporary.made.set_len(self.written)?;
        }
        let target = temporary.spot().beside(file_name(&self.path));
        // With `perms` it does not matter what is replaced.
        let there = if self.landing.settings.options.perms { None } else { target.stat().ok() };
        let permissions = self.landing.permissions(entry, there);
        let new = &temporary.made;
        self.landing.settle(new, new.stat()?, entry, Some(permissions), Some(entry.mtime))?;
        temporary.place(&target)?;
        self.temporary = None;
        Ok(())
    }

    /// Writes what is collected; with holes for zeros, if that is wanted.
    fn flush(&mut self) -> io::Result<()> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let write = |from: usize, to: usize| match self.buffer.get(from..to) {
            Some(bytes) if !bytes.is_empty() => {
                temporary.made.write_all_at(bytes, self.written + from as u64)
            }
            Some(_) | None => Ok(()),
        };
        let mut from = 0;
        if self.landing.settings.options.sparse {
            for (to, block) in (0..).step_by(HOLE).zip(self.buffer.as_chunks::<HOLE>().0) {
                if block.iter().all(|&byte| byte == 0) {
                    write(from, to)?;
                    from = to + HOLE;
                }
            }
        }
        write(from, self.buffer.len())?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Keeps what has arrived for the next run.
    fn lay_aside(&mut self) -> io::Result<()> {
        // What is written already is worth keeping too.
        let _ = self.flush();
        let is_kept = self.landing.settings.options.partial && self.written > 0;
        let Some(mut temporary) = self.temporary.take().filter(|_| is_kept) else { return Ok(()) };
        temporary.made.set_len(self.written)?;
        match temporary.spot().beside(PARTIAL).make_directory(0o700) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(cause),
            Err(_) | Ok(()) => {}
        }
        let path = partial_path(&self.path);
        let place = self.landing.cursor().at(&path)?;
        temporary.place(&place)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Nobody is left to be told; the next run begins anew.
        let _ = self.lay_aside();
    }
}

impl Fault {
    pub(crate) fn new(path: &[u8], cause: &io::Error) -> Self {
        Self { path: path.to_vec(), word: fault_of(cause), detail: cause.to_string() }
    }
}

impl Rights {
    fn of_this_process() -> Self {
        let mut groups: Vec<u32> =
            getgroups().unwrap_or_default().into_iter().map(|gid| gid.as_raw()).collect();
        groups.push(getegid().as_raw());
        Self { is_privileged: geteuid().is_root(), groups, umask: umask() }
    }

    /// The permissions of something new, if the sender's are not taken over.
    fn for_new(&self, entry: &Entry) -> u16 {
        entry.permissions & 0o777 & !self.umask
    }
}

/// The umask. Where the system does not tell it, it is changed for a moment, to one that lets nobody in.
fn umask() -> u16 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u16::from_str_radix(mask.trim(), 8).ok()).unwrap_or_else(|| {
        let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
        rustix::process::umask(mask);
        (mask.bits() & 0o777) as u16
    })
}

/// For each active entry that is the same file as an earlier one, or as the leader, that one.
fn heads(list: &FileList) -> HashMap<u32, u32> {
    let group = |(index, entry): (u32, Entry)| match entry.link {
        Link::Single => None,
        Link::Leader => Some((index, index)),
        Link::Follower(place) => Some((list.index_of_sent(place)?, index)),
    };
    // The leader may not be active.
    let mut first: HashMap<u32, u32> = HashMap::new();
    let members: Vec<(u32, u32)> = list.active().filter_map(group).collect();
    for &(leader, index) in members.iter().filter(|(leader, index)| leader == index).chain(&members) {
        first.entry(leader).or_insert(index);
    }
    let head = |(leader, index)| first.get(&leader).filter(|&&head| head != index).map(|&head| (index, head));
    members.into_iter().filter_map(head).collect()
}

/// Times are compared by their nanoseconds only where both have some.
fn is_same_time(a: Time, b: Time) -> bool {
    let (x, y) = (a.nanoseconds, b.nanoseconds);
    a.seconds == b.seconds && (x == y || x == 0 || y == 0)
}

fn is_refused(cause: &io::Error) -> bool {
    Errno::from_io_error(cause).is_some_and(|cause| matches!(cause, Errno::PERM | Errno::INVAL))
}

/// Where an interrupted file waits.
fn partial_path(path: &[u8]) -> Vec<u8> {
    join(&join(parent(path), PARTIAL), file_name(path))
}

fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|&byte| byte == b'/');
    slash.and_then(|at| path.get(..at)).unwrap_or(b".")
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
