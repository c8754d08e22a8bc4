//! What the tests of several modules use.

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
use ssh_mcp_core::port::mirror::{Devices, Options};

/// All that can be kept, and nothing else.
pub(crate) const ALL: Options = Options {
    recursive: true,
    delete: false,
    dry_run: false,
    compress: false,
    partial: false,
    checksum: false,
    perms: true,
    mtime: true,
    owner: true,
    group: true,
    links: true,
    hard_links: true,
    sparse: false,
    devices: Devices::Implied,
};

/// A path from bytes.
pub(crate) fn path(directory: &Path, name: &[u8]) -> PathBuf {
    directory.join(std::ffi::OsStr::from_bytes(name))
}

/// The tests run as root. What is told is a line for those that then, or else, show nothing.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a test that needs root can run; if not, says so.
pub(crate) fn needs_root(test: &str) -> bool {
    if !is_root() {
        println!("skipped, needs root: {test}");
    }
    is_root()
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Sets the time of modification of what is at a path, links not followed.
pub(crate) fn set_mtime(path: &Path, seconds: i64, nanoseconds: u32) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// All that is to be equal of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) what: What,
    pub(crate) mode: u32,
    pub(crate) mtime: (i64, i64),
    pub(crate) owner: (u32, u32),
    /// The first name of the same file, if it has several.
    pub(crate) link: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Node(fs::FileType, u64),
}

/// A tree with everything in it, by the paths below it.
pub(crate) fn snapshot(top: &Path) -> BTreeMap<Vec<u8>, Look> {
    let mut found = BTreeMap::new();
    let mut names: BTreeMap<(u64, u64), Vec<Vec<u8>>> = BTreeMap::new();
    let mut stack = vec![top.to_owned()];
    while let Some(at) = stack.pop() {
        let there = at.symlink_metadata().unwrap();
        let kind = there.file_type();
        let name = at.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
        let what = if kind.is_dir() {
            stack.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
            What::Directory
        } else if kind.is_symlink() {
            What::Symlink(fs::read_link(&at).unwrap().into_os_string().into_vec())
        } else if kind.is_file() {
            What::File(fs::read(&at).unwrap())
        } else {
            assert!(kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device());
            What::Node(kind, there.rdev())
        };
        if !kind.is_dir() && there.nlink() > 1 {
            names.entry((there.dev(), there.ino())).or_default().push(name.clone());
        }
        let (mode, mtime) = (there.mode() & 0o7777, (there.mtime(), there.mtime_nsec()));
        found.insert(name, Look { what, mode, mtime, owner: (there.uid(), there.gid()), link: None });
    }
    for group in names.values() {
        for name in group {
            found.get_mut(name).unwrap().link = group.iter().min().cloned();
        }
    }
    found
}

/// The bytes of a file that take room on the disk.
pub(crate) fn allocated(path: &Path) -> u64 {
    File::open(path).unwrap().metadata().unwrap().blocks() * 512
}
