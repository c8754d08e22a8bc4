//! Trees to mirror, and what is compared of them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// What a test sees of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Directory { mode: u32, mtime: i64 },
    File { mode: u32, mtime: i64, content: Vec<u8> },
    Link(Vec<u8>),
    Other(u32),
}

/// All that is below a directory, which is there under an empty name.
pub(super) type Snapshot = BTreeMap<Vec<u8>, Node>;

pub(super) fn snapshot(root: &Path) -> Snapshot {
    let mut all = Snapshot::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let is = fs::symlink_metadata(&path).unwrap();
        let (mode, mtime) = (is.mode() & 0o7777, is.mtime());
        let node = if is.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Node::Directory { mode, mtime }
        } else if is.is_file() {
            Node::File { mode, mtime, content: fs::read(&path).unwrap() }
        } else if is.is_symlink() {
            Node::Link(fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
        } else {
            Node::Other(is.mode())
        };
        all.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), node);
    }
    all
}

/// Fails with the first difference.
#[track_caller]
pub(super) fn assert_same(expected: &Path, found: &Path) {
    let (expected, found) = (snapshot(expected), snapshot(found));
    for name in expected.keys().chain(found.keys()) {
        assert_eq!(expected.get(name), found.get(name), "{:?}", String::from_utf8_lossy(name));
    }
}

/// The names of all files, with those of temporary ones.
pub(super) fn names(root: &Path) -> Vec<String> {
    snapshot(root).keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

pub(super) fn at(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}

/// Writes a file with its directories, and gives it a mode and a time that depend on its content.
pub(super) fn file(root: &Path, path: &[u8], content: &[u8]) {
    let path = at(root, path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    set_time(&path, 1_000_000_000 + content.len() as i64);
}

pub(super) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(super) fn set_time(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Bytes that repeat nowhere soon.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Names that are no trouble on the far side either.
const NAMES: [&[u8]; 12] = [
    b"a",
    b"b",
    b"-rf",
    b"two\nlines",
    b"\xff\xfe",
    "é".as_bytes(),
    b"a b",
    b"it's",
    b"*",
    b"\\",
    b"a.c",
    &[b'n'; 255],
];

/// A tree that depends on the seed.
pub(super) fn random(root: &Path, seed: u64) {
    let mut dice = Dice(seed);
    fs::create_dir(root).unwrap();
    let mut directories = vec![PathBuf::new()];
    for _ in 0..25 {
        let folder = directories[dice.below(directories.len())].clone();
        let path = folder.join(OsStr::from_bytes(NAMES[dice.below(NAMES.len())]));
        let full = root.join(&path);
        if full.symlink_metadata().is_ok() {
            continue;
        }
        match dice.below(8) {
            0..3 if path.components().count() < 5 => {
                fs::create_dir(&full).unwrap();
                directories.push(path);
            }
            3 => symlink(OsStr::from_bytes(NAMES[dice.below(NAMES.len())]), &full).unwrap(),
            _ => {
                let len = [0, 1, 1000, 300_000][dice.below(4)] + dice.below(3);
                fs::write(&full, &pattern(len + 7)[dice.below(7)..][..len]).unwrap();
                // Who is not root cannot read the last.
                let modes = [0o644, 0o600, 0o755, 0o400, 0o000];
                set_mode(&full, modes[dice.below(if super::is_root() { 5 } else { 4 })]);
                let times = [0, 1, 1_234_567_890, 2_147_483_648, 4_000_000_000];
                // Other trees have other times: what has the same is taken for the same.
                set_time(&full, times[dice.below(times.len())] + seed as i64);
            }
        }
    }
    for path in directories.into_iter().rev() {
        set_mode(&root.join(&path), [0o755, 0o700, 0o750, 0o555][dice.below(4)]);
        set_time(&root.join(&path), 1_100_000_000 + dice.below(1000) as i64);
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}
