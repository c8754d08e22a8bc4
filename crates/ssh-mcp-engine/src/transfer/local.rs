//! The files of this machine, as far as they are open to a transfer (`docs/transfers.md`, "Local paths").
//!
//! Where only some directories are open, every path is resolved first, links and `..` included, and then opened again
//! from its open directory downwards without following a link: what is swapped for a link in between leads nowhere.

use std::{
    ffi::{CStr, OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode};
use ssh_mcp_core::port::fs::{Attributes, Kind};

use super::file::{Refusal, keep};

/// What of this machine's files a transfer may use.
#[derive(Debug, Clone)]
pub struct Local {
    /// Directories that are open; none is all of them.
    open: Option<Arc<[PathBuf]>>,
}

/// What a local path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What kind of file.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Last change, since 1970.
    pub modified: Duration,
    /// Device and number, the same for every path to one file.
    pub identity: (i128, u64),
}

/// A place in a directory: what is done to it is done there, wherever its path leads by then.
struct Spot {
    /// The open directory; none is wherever the path says.
    directory: Option<OwnedFd>,
    name: PathBuf,
    path: PathBuf,
}

impl Local {
    /// Everything that the user of this process may use.
    pub fn unrestricted() -> Self {
        Self { open: None }
    }

    /// Only what is below one of these.
    pub fn below(directories: &[PathBuf]) -> Self {
        Self { open: Some(directories.into()) }
    }

    /// Whether a path may be used at all, whether or not something is there.
    ///
    /// # Errors
    /// [`Refusal::Outside`].
    pub fn check(&self, path: &Path) -> Result<(), Refusal> {
        if self.open.is_none() {
            return Ok(());
        }
        // What does not exist is judged by the nearest directory above it that does.
        let existing = path.ancestors().find_map(|path| path.canonicalize().ok());
        match existing.is_some_and(|path| self.root_of(&path).is_some()) {
            true => Ok(()),
            false => Err(Refusal::Outside(path.to_owned())),
        }
    }

    /// What is at a path, links followed.
    pub(crate) fn look(&self, path: &Path) -> Result<Look, Refusal> {
        let spot = self.spot(path)?;
        let flags = if spot.directory.is_some() { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::empty() };
        let there = rustix::fs::statat(spot.at(), &spot.name, flags).map_err(|cause| spot.refuse(cause))?;
        Ok(Look::from(there))
    }

    /// The same; nothing, if nothing is there.
    pub(super) fn find(&self, path: &Path) -> Result<Option<Look>, Refusal> {
        match self.look(path) {
            Ok(there) => Ok(Some(there)),
            Err(Refusal::Local { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// A regular file, for reading.
    pub(super) fn open(&self, path: &Path) -> Result<(File, Look), Refusal> {
        // Opening a pipe would wait for its other end.
        if self.look(path)?.kind != Kind::File {
            return Err(Refusal::LocalNotFile(path.to_owned()));
        }
        let spot = self.spot(path)?;
        let file = spot.open(OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        let there = Look::of(&file).map_err(|cause| refusal(path, cause))?;
        match there.kind {
            Kind::File => Ok((file, there)),
            Kind::Directory | Kind::Link | Kind::Other => Err(Refusal::LocalNotFile(path.to_owned())),
        }
    }

    /// A file for writing, made with these permission bits less the umask if it is missing.
    pub(super) fn write(&self, path: &Path, truncate: bool, mode: u32) -> Result<File, Refusal> {
        let spot = self.spot(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK;
        let file = spot.open(flags, permissions(mode))?;
        // What is no file was put there since it was looked at.
        match file.metadata().map_err(|cause| refusal(path, cause))? {
            there if !there.is_file() => return Err(Refusal::LocalNotFile(path.to_owned())),
            _ if truncate => file.set_len(0).map_err(|cause| refusal(path, cause))?,
            _ => {}
        }
        Ok(file)
    }

    /// Puts one file in another's place, at once.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), Refusal> {
        let (old, new) = (self.spot(from)?, self.spot(to)?);
        rustix::fs::renameat(old.at(), &old.name, new.at(), &new.name).map_err(|cause| new.refuse(cause))
    }

    /// Makes a directory; one that is there is as good.
    pub(super) fn make_dir(&self, path: &Path, mode: u32) -> Result<Made, Refusal> {
        let spot = self.spot(path)?;
        match rustix::fs::mkdirat(spot.at(), &spot.name, permissions(mode)) {
            Ok(()) => Ok(Made::New),
            Err(cause) => match self.find(path)? {
                Some(there) if there.kind == Kind::Directory => Ok(Made::Before),
                Some(_) | None => Err(spot.refuse(cause)),
            },
        }
    }

    /// The names in a directory, sorted, and whether each is a link.
    pub(super) fn list(&self, path: &Path) -> Result<Vec<(OsString, bool)>, Refusal> {
        let spot = self.spot(path)?;
        let directory = spot.open(OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(|cause| spot.refuse(cause))? {
            let entry = entry.map_err(|cause| spot.refuse(cause))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                // Not every file system says in the listing what an entry is.
                let is_link = entry.file_type() == FileType::Symlink
                    || entry.file_type() == FileType::Unknown && is_link(&directory, entry.file_name());
                names.push((OsString::from_vec(name.to_vec()), is_link));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Permissions and times as a source has them, for a directory.
    pub(super) fn keep(&self, path: &Path, source: &Attributes) -> Result<(), Refusal> {
        let directory = self.spot(path)?.open(OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        keep(&directory, source).map_err(|cause| refusal(path, cause))
    }

    /// Puts what was written to the file system of a directory onto its disk.
    pub(super) fn flush(&self, path: &Path) -> Result<(), Refusal> {
        let directory = self.spot(path)?.open(OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(&directory).map_err(|cause| refusal(path, cause.into()))?;
        #[cfg(not(target_os = "linux"))]
        directory.sync_all().map_err(|cause| refusal(path, cause))?;
        Ok(())
    }

    /// The path that names a destination in no other way: two transfers onto it are found out.
    pub(super) fn identity(&self, path: &Path) -> PathBuf {
        let resolved = || match (path.canonicalize(), path.parent(), path.file_name()) {
            (Ok(path), _, _) => Some(path),
            (Err(_), Some(parent), Some(name)) => Some(parent.canonicalize().ok()?.join(name)),
            (Err(_), _, _) => None,
        };
        resolved().unwrap_or_else(|| path.to_owned())
    }

    fn root_of(&self, real: &Path) -> Option<PathBuf> {
        let open = self.open.as_deref().unwrap_or_default();
        open.iter().filter_map(|root| root.canonicalize().ok()).find(|root| real.starts_with(root))
    }

    fn spot(&self, path: &Path) -> Result<Spot, Refusal> {
        if self.open.is_none() {
            return Ok(Spot { directory: None, name: path.to_owned(), path: path.to_owned() });
        }
        self.check(path)?;
        // A link at the end is resolved as well, so that what is opened is what it leads to.
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(_) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new(".")).canonicalize();
                let parent = parent.map_err(|cause| refusal(path, cause))?;
                match path.components().next_back() {
                    Some(Component::Normal(name)) => parent.join(name),
                    Some(_) | None => return Err(refusal(path, io::ErrorKind::NotFound.into())),
                }
            }
        };
        let root = self.root_of(&real).ok_or_else(|| Refusal::Outside(path.to_owned()))?;
        let below = real.strip_prefix(&root).unwrap_or(Path::new(""));
        let name = below.file_name().unwrap_or(OsStr::new("."));
        let enter = OFlags::DIRECTORY | OFlags::CLOEXEC | SEARCH;
        let mut directory =
            rustix::fs::open(&root, enter, Mode::empty()).map_err(|cause| refusal(path, cause.into()))?;
        for part in below.parent().into_iter().flat_map(Path::components) {
            directory =
                rustix::fs::openat(&directory, part.as_os_str(), enter | OFlags::NOFOLLOW, Mode::empty())
                    .map_err(|cause| refusal(path, cause.into()))?;
        }
        Ok(Spot { directory: Some(directory), name: name.into(), path: path.to_owned() })
    }
}

/// A directory is opened to go through it; that needs no right to list it where the system can say so.
#[cfg(target_os = "linux")]
const SEARCH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const SEARCH: OFlags = OFlags::RDONLY;

/// Whether a directory was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// It was, and is empty.
    New,
    /// It was there.
    Before,
}

impl Spot {
    fn at(&self) -> BorrowedFd<'_> {
        self.directory.as_ref().map_or(CWD, AsFd::as_fd)
    }

    fn open(&self, flags: OFlags, mode: Mode) -> Result<File, Refusal> {
        let follow = if self.directory.is_some() { OFlags::NOFOLLOW } else { OFlags::empty() };
        let flags = flags | follow | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(self.at(), &self.name, flags, mode);
        opened.map(File::from).map_err(|cause| self.refuse(cause))
    }

    fn refuse(&self, cause: rustix::io::Errno) -> Refusal {
        refusal(&self.path, cause.into())
    }
}

/// Permission bits, whose width is that of the system.
fn permissions(bits: u32) -> Mode {
    Mode::from_raw_mode((bits & 0o7777) as RawMode)
}

fn is_link(directory: &File, name: &CStr) -> bool {
    let there = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    there.is_ok_and(|there| Look::from(there).kind == Kind::Link)
}

fn refusal(path: &Path, cause: io::Error) -> Refusal {
    Refusal::Local { path: path.to_owned(), cause }
}

impl Look {
    /// What an open file is.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(rustix::fs::fstat(file)?.into())
    }
}

impl From<rustix::fs::Stat> for Look {
    #[expect(clippy::useless_conversion, reason = "the widths differ between systems")]
    fn from(there: rustix::fs::Stat) -> Self {
        let kind = match FileType::from_raw_mode(there.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Link,
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Kind::Other,
        };
        let seconds = u64::try_from(there.st_mtime).unwrap_or(0);
        let nanos = u32::try_from(there.st_mtime_nsec).unwrap_or(0);
        Self {
            kind,
            size: u64::try_from(there.st_size).unwrap_or(0),
            mode: u32::from(there.st_mode) & 0o7777,
            modified: Duration::new(seconds, nanos),
            identity: (i128::from(there.st_dev), u64::from(there.st_ino)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Read,
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    /// Looks that are raced: without opening step by step one in a few hundred got through.
    const LOOKS: usize = 20_000;

    /// Ends the race also where an assertion fails.
    struct Over<'a>(&'a AtomicBool);

    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Between a look at a path and its opening somebody swaps a directory on the way for a link that leads outside.
    #[test]
    fn a_link_that_is_swapped_in_leads_nowhere() {
        let (open, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = open.path().canonicalize().unwrap();
        let (door, aside, link) = (root.join("door"), root.join("aside"), root.join("link"));
        fs::create_dir(&door).unwrap();
        fs::write(door.join("file"), "inside").unwrap();
        fs::write(outside.path().join("file"), "outside").unwrap();
        symlink(outside.path(), &link).unwrap();
        let local = Local::below(std::slice::from_ref(&root));
        let over = AtomicBool::new(false);
        let (mut read, mut refused) = (0, 0);
        std::thread::scope(|threads| {
            let _over = Over(&over);
            threads.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // The directory, nothing, the link, nothing.
                    fs::rename(&door, &aside).unwrap();
                    fs::rename(&link, &door).unwrap();
                    fs::rename(&door, &link).unwrap();
                    fs::rename(&aside, &door).unwrap();
                }
            });
            for _ in 0..LOOKS {
                match local.open(&door.join("file")) {
                    Ok((mut file, _)) => {
                        let mut content = String::new();
                        file.read_to_string(&mut content).unwrap();
                        assert_eq!(content, "inside");
                        read += 1;
                    }
                    Err(_) => refused += 1,
                }
                // What is written goes nowhere else either.
                if let Ok(file) = local.write(&door.join("new"), true, 0o600) {
                    drop(file);
                }
            }
        });
        assert!(read > 0 && refused > 0, "nothing was raced: {read} read, {refused} refused");
        assert!(!outside.path().join("new").exists());
    }
}
