//! The tree on this side.
//!
//! A path is relative, in bytes, as in a file list; `.` is the root. Below the root no link is followed: what is swapped for
//! a link leads nowhere.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rsync_wire::file_list::{Device, Time};
use rustix::{
    fs::{AtFlags, Dir, FileType, Gid, Mode, Nsecs, OFlags, RawMode, Timespec, Timestamps, UTIME_OMIT, Uid},
    io::Errno,
};

/// The longest name that every file system takes.
const NAME_LEN: usize = 255;

/// How often another name is tried for a temporary file.
const ATTEMPTS: u32 = 100;

/// A directory is opened to go through it; that needs no right to list it where the system can say so.
#[cfg(target_os = "linux")]
const SEARCH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const SEARCH: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The open root of a tree, for any number of [`Cursor`]s on any threads.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    /// Counts directories that were removed: what was opened before may not be what its path says.
    removed: AtomicU64,
}

/// A way through a tree, for one thread. It keeps the last directory open, as paths come sorted.
#[derive(Debug, Clone)]
pub struct Cursor {
    root: Option<Arc<Root>>,
    last: Option<Last>,
}

/// The last directory.
#[derive(Debug, Clone)]
struct Last {
    path: Vec<u8>,
    removed: u64,
    directory: Arc<Directory>,
}

/// An open directory of a tree.
#[derive(Debug)]
struct Directory {
    root: Arc<Root>,
    /// None is the root itself.
    open: Option<OwnedFd>,
}

/// A name in an open directory. What is done there is done in that directory and to no link's target.
#[derive(Debug, Clone)]
pub struct Spot<'a> {
    directory: Arc<Directory>,
    name: &'a [u8],
}

/// Something new beside its final place, under a name of its own; removed when dropped.
#[derive(Debug)]
pub struct Temporary<T> {
    directory: Arc<Directory>,
    name: Vec<u8>,
    is_placed: bool,
    /// What was made: the open file, if it is one.
    pub made: T,
}

/// What is known of a file without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileType,
    /// The low twelve bits of the mode.
    pub permissions: u16,
    /// Its length.
    pub size: u64,
    /// The time of modification.
    pub mtime: Time,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Device and number, the same for every path to one file.
    pub identity: (i128, u64),
    /// How many names it has.
    pub names: u64,
    /// The number of a device.
    pub device: Device,
}

/// What a file is, and what of that can be set. A symlink is itself, never what it leads to.
pub trait Attributes {
    /// What is there.
    ///
    /// # Errors
    /// There is nothing, or it cannot be looked at.
    fn stat(&self) -> io::Result<Stat>;

    /// Sets the owner and the group, where given.
    ///
    /// # Errors
    /// The system's.
    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()>;

    /// Sets the low twelve bits of the mode of what is no symlink.
    ///
    /// # Errors
    /// The system's.
    fn set_permissions(&self, permissions: u16) -> io::Result<()>;

    /// Sets the time of modification.
    ///
    /// # Errors
    /// The system's.
    fn set_mtime(&self, mtime: Time) -> io::Result<()>;
}

impl Root {
    /// Opens a directory. Links on the way to it are followed.
    ///
    /// # Errors
    /// It is not there, or is no directory.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        let directory = rustix::fs::open(path, SEARCH, Mode::empty())?;
        Ok(Arc::new(Self { directory, removed: AtomicU64::new(0) }))
    }

    /// Opens a directory whose last component is made if it is missing; whether it was.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and a parent that is missing.
    pub fn open_or_make(path: &Path) -> io::Result<(Arc<Self>, bool)> {
        let is_new = match rustix::fs::mkdir(path, mode(0o777)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            // What is there is as good, whyever nothing can be made.
            Err(cause) => return Self::open(path).map(|root| (root, false)).map_err(|_| cause.into()),
        };
        Ok((Self::open(path)?, is_new))
    }

    /// Opens a directory below for going through it.
    #[cfg(target_os = "linux")]
    fn enter(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        use rustix::fs::ResolveFlags;

        let only = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.directory, path, SEARCH, Mode::empty(), only) {
            // Old kernels do not have it, and some sandboxes refuse what they do not know.
            Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => self.enter_by_steps(path),
            entered => entered,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn enter(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.enter_by_steps(path)
    }

    fn enter_by_steps(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = SEARCH | OFlags::NOFOLLOW;
        let mut parts = path.split(|&byte| byte == b'/');
        let first = parts.next().unwrap_or(b".");
        let first = rustix::fs::openat(&self.directory, first, flags, Mode::empty())?;
        parts.try_fold(first, |directory, part| rustix::fs::openat(directory, part, flags, Mode::empty()))
    }
}

impl Cursor {
    /// A cursor in a tree.
    #[must_use]
    pub fn new(root: &Arc<Root>) -> Self {
        Self { root: Some(root.clone()), last: None }
    }

    /// A cursor in a tree that does not exist: nothing is found in it.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { root: None, last: None }
    }

    /// A place in the tree, whether or not something is there.
    ///
    /// # Errors
    /// The directory cannot be entered, or the path is none of a file list.
    pub fn at<'a>(&mut self, path: &'a [u8]) -> io::Result<Spot<'a>> {
        let root = self.root.as_ref().ok_or(io::ErrorKind::NotFound)?;
        if !is_inside(path) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let slash = path.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = slash.and_then(|at| path.split_at_checked(at)).unwrap_or((b"", path));
        let name = name.strip_prefix(b"/").unwrap_or(name);
        let removed = root.removed.load(Ordering::Acquire);
        if let Some(last) = self.last.as_ref().filter(|last| last.removed == removed && last.path == parent) {
            return Ok(Spot { directory: last.directory.clone(), name });
        }
        let open = if parent.is_empty() { None } else { Some(root.enter(parent)?) };
        let directory = Arc::new(Directory { root: root.clone(), open });
        self.last = Some(Last { path: parent.to_vec(), removed, directory: directory.clone() });
        Ok(Spot { directory, name })
    }

    /// What is at a path; nothing, if there is nothing or no way to it.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn find(&mut self, path: &[u8]) -> io::Result<Option<Stat>> {
        match self.at(path).and_then(|spot| spot.stat()) {
            Ok(there) => Ok(Some(there)),
            Err(cause) if is_nothing(&cause) => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// Removes what is at a path with all that is below it, deepest first, and tells each path once it is gone. What `keeps`
    /// says of a path, and whether that is a directory, stays, and so do the directories on the way to it. Whether nothing
    /// stayed is the answer. With `dry_run` nothing is removed, but told.
    ///
    /// # Errors
    /// Something cannot be removed; what has been is gone.
    pub fn remove_tree(
        &mut self,
        path: &[u8],
        keeps: &dyn Fn(&[u8], bool) -> bool,
        dry_run: bool,
        told: &mut dyn FnMut(&[u8]),
    ) -> io::Result<bool> {
        enum Next {
            Look(Vec<u8>),
            /// The directory, and how many paths stayed before it was entered.
            Leave(Vec<u8>, usize),
        }

        let mut stayed = 0;
        let mut stack = vec![Next::Look(path.to_vec())];
        while let Some(next) = stack.pop() {
            match next {
                Next::Look(path) => {
                    let Some(there) = self.find(&path)? else { continue };
                    let is_directory = there.kind == FileType::Directory;
                    if keeps(&path, is_directory) {
                        stayed += 1;
                    } else if is_directory {
                        let spot = self.at(&path)?;
                        if !dry_run && there.permissions & 0o700 != 0o700 {
                            // If this is not allowed, the removal will say so.
                            let _ = spot.set_permissions(there.permissions | 0o700);
                        }
                        let names = spot.names()?;
                        stack.push(Next::Leave(path.clone(), stayed));
                        stack.extend(names.iter().map(|name| Next::Look(join(&path, name))));
                    } else {
                        if !dry_run {
                            self.at(&path)?.remove()?;
                        }
                        told(&path);
                    }
                }
                Next::Leave(path, before) if before == stayed => {
                    if !dry_run {
                        self.at(&path)?.remove_directory()?;
                    }
                    told(&path);
                }
                Next::Leave(..) => {}
            }
        }
        Ok(stayed == 0)
    }
}

impl Directory {
    fn fd(&self) -> BorrowedFd<'_> {
        self.open.as_ref().unwrap_or(&self.root.directory).as_fd()
    }

    fn at<'a>(self: &Arc<Self>, name: &'a [u8]) -> Spot<'a> {
        Spot { directory: self.clone(), name }
    }
}

impl<'a> Spot<'a> {
    /// Another name in the same directory.
    #[must_use]
    pub fn beside<'b>(&self, name: &'b [u8]) -> Spot<'b> {
        self.directory.at(name)
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// It is none, or cannot be opened.
    pub fn open(&self) -> io::Result<(File, Stat)> {
        // Opening a fifo would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = File::from(rustix::fs::openat(self.fd(), self.name, flags, Mode::empty())?);
        let there = file.stat()?;
        match there.kind {
            FileType::RegularFile => Ok((file, there)),
            FileType::Directory
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Err(io::Error::other("it is no regular file")),
        }
    }

    /// Where a symlink leads.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn read_link(&self) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(self.fd(), self.name, Vec::new())?.into_bytes())
    }

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(self.fd(), self.name, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::new(directory)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes a directory with these permissions less the umask.
    ///
    /// # Errors
    /// Something is there, or it cannot be made.
    pub fn make_directory(&self, permissions: u16) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(self.fd(), self.name, mode(permissions))?)
    }

    /// Makes a symlink.
    ///
    /// # Errors
    /// Something is there, or it cannot be made.
    pub fn make_symlink(&self, target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, self.fd(), self.name)?)
    }

    /// Makes a fifo, socket or device that only its owner may use. The number is that of a device.
    ///
    /// # Errors
    /// Something is there, or it cannot be made.
    #[cfg(not(target_vendor = "apple"))]
    pub fn make_node(&self, kind: FileType, device: Device) -> io::Result<()> {
        let number = match kind {
            FileType::CharacterDevice | FileType::BlockDevice => {
                rustix::fs::makedev(device.major, device.minor)
            }
            FileType::Fifo | FileType::Socket => 0,
            FileType::RegularFile | FileType::Directory | FileType::Symlink | FileType::Unknown => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        };
        Ok(rustix::fs::mknodat(self.fd(), self.name, kind, mode(0o600), number)?)
    }

    /// Fails: this system makes nodes by paths only.
    ///
    /// # Errors
    /// Always.
    #[cfg(target_vendor = "apple")]
    pub fn make_node(&self, _kind: FileType, _device: Device) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives what is here another name.
    ///
    /// # Errors
    /// Something is there, or the system cannot.
    pub fn link_to(&self, new: &Spot<'_>) -> io::Result<()> {
        Ok(rustix::fs::linkat(self.fd(), self.name, new.fd(), new.name, AtFlags::empty())?)
    }

    /// Removes what is no directory.
    ///
    /// # Errors
    /// It is one, or cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(self.fd(), self.name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// It is none, or is not empty, or cannot be removed.
    pub fn remove_directory(&self) -> io::Result<()> {
        rustix::fs::unlinkat(self.fd(), self.name, AtFlags::REMOVEDIR)?;
        // Every cursor of the tree opens its directory anew.
        self.directory.root.removed.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Makes something beside this name, under a temporary one that is tried until it is free.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_beside<T>(&self, make: impl Fn(&Spot<'_>) -> io::Result<T>) -> io::Result<Temporary<T>> {
        let mut attempts = 0;
        loop {
            let name = temporary_name(self.name)?;
            match make(&self.beside(&name)) {
                Ok(made) => {
                    return Ok(Temporary { directory: self.directory.clone(), name, is_placed: false, made });
                }
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && attempts < ATTEMPTS => {
                    attempts += 1;
                }
                Err(cause) => return Err(cause),
            }
        }
    }

    /// Makes an empty file beside this name that only its owner may use, open for reading and writing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn temporary_file(&self) -> io::Result<Temporary<File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.make_beside(|spot| Ok(File::from(rustix::fs::openat(spot.fd(), spot.name, flags, mode(0o600))?)))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.directory.fd()
    }
}

impl<T> Temporary<T> {
    /// The place it is at.
    #[must_use]
    pub fn spot(&self) -> Spot<'_> {
        self.directory.at(&self.name)
    }

    /// Moves it to its final place, in the place of what is there.
    ///
    /// # Errors
    /// The system's.
    pub fn place(&mut self, place: &Spot<'_>) -> io::Result<()> {
        rustix::fs::renameat(self.directory.fd(), &self.name, place.fd(), place.name)?;
        self.is_placed = true;
        Ok(())
    }
}

impl<T> Drop for Temporary<T> {
    fn drop(&mut self) {
        if !self.is_placed {
            // Nobody is left to be told.
            let _ = self.spot().remove();
        }
    }
}

impl Attributes for Spot<'_> {
    fn stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::statat(self.fd(), self.name, AtFlags::SYMLINK_NOFOLLOW)?.into())
    }

    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        Ok(rustix::fs::chownat(self.fd(), self.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    #[cfg(target_os = "linux")]
    fn set_permissions(&self, permissions: u16) -> io::Result<()> {
        use std::os::fd::AsRawFd;

        // The system call that follows no link is too new for many kernels. What a handle is of stays the same.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(self.fd(), self.name, flags, Mode::empty())?;
        if Stat::from(rustix::fs::fstat(&handle)?).kind == FileType::Symlink {
            return Err(Errno::LOOP.into());
        }
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        Ok(rustix::fs::chmod(path, mode(permissions))?)
    }

    #[cfg(not(target_os = "linux"))]
    fn set_permissions(&self, permissions: u16) -> io::Result<()> {
        Ok(rustix::fs::chmodat(self.fd(), self.name, mode(permissions), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn set_mtime(&self, mtime: Time) -> io::Result<()> {
        let times = timestamps(mtime);
        Ok(rustix::fs::utimensat(self.fd(), self.name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

impl Attributes for File {
    fn stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(self)?.into())
    }

    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        Ok(rustix::fs::fchown(self, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?)
    }

    fn set_permissions(&self, permissions: u16) -> io::Result<()> {
        Ok(rustix::fs::fchmod(self, mode(permissions))?)
    }

    fn set_mtime(&self, mtime: Time) -> io::Result<()> {
        Ok(rustix::fs::futimens(self, &timestamps(mtime))?)
    }
}

impl From<rustix::fs::Stat> for Stat {
    #[expect(clippy::useless_conversion, reason = "the widths differ between systems")]
    fn from(there: rustix::fs::Stat) -> Self {
        let device =
            Device { major: rustix::fs::major(there.st_rdev), minor: rustix::fs::minor(there.st_rdev) };
        Self {
            kind: FileType::from_raw_mode(there.st_mode),
            permissions: (there.st_mode & 0o7777) as u16,
            size: u64::try_from(there.st_size).unwrap_or(0),
            mtime: Time {
                seconds: i64::from(there.st_mtime),
                nanoseconds: u32::try_from(there.st_mtime_nsec).unwrap_or(0),
            },
            uid: there.st_uid,
            gid: there.st_gid,
            identity: (i128::from(there.st_dev), u64::from(there.st_ino)),
            names: u64::from(there.st_nlink),
            device,
        }
    }
}

/// A path of a name in a directory.
#[must_use]
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory == b"." { name.to_vec() } else { [directory, name].join(&b'/') }
}

/// Whether an error says that nothing is there, or that there is no way to it: a file or a link is where a directory would be.
fn is_nothing(cause: &io::Error) -> bool {
    let number = Errno::from_io_error(cause);
    cause.kind() == io::ErrorKind::NotFound || matches!(number, Some(Errno::NOTDIR | Errno::LOOP))
}

/// Whether a path is one of a file list.
fn is_inside(path: &[u8]) -> bool {
    path == b"."
        || path
            .split(|&byte| byte == b'/')
            .all(|part| !matches!(part, b"" | b"." | b"..") && !part.contains(&0))
}

/// A name for something beside a name, shortened so that file systems take it.
pub(crate) fn temporary_name(name: &[u8]) -> io::Result<Vec<u8>> {
    const SUFFIX: &[u8] = b".ssh-mcp";

    let random = getrandom::u32().map_err(io::Error::other)?;
    let random = format!("{random:08x}");
    let room = NAME_LEN - SUFFIX.len() - random.len() - 2;
    let mut end = name.len().min(room);
    // Some file systems take whole characters only.
    while name.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) && end > room - 4 {
        end -= 1;
    }
    let (shortened, _) = name.split_at_checked(end).unwrap_or((name, b""));
    Ok([b".", shortened, b".", random.as_bytes(), SUFFIX].concat())
}

/// Permission bits, whose width is that of the system.
fn mode(permissions: u16) -> Mode {
    Mode::from_raw_mode(RawMode::from(permissions & 0o7777))
}

/// Times that leave the time of access as it is.
fn timestamps(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds as Nsecs },
    }
}

#[cfg(test)]
mod tests;
