//! Trees that are hard to mirror.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};
use tempfile::TempDir;

/// A folder of a test's own, open to all users, where times are kept as they are set if the machine has such a place.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    /// An empty folder.
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Self::below(&folder)
    }

    /// An empty folder on a disk, for what is too long for memory.
    pub(crate) fn on_disk() -> Self {
        Self::below(&std::env::temp_dir())
    }

    fn below(folder: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("ssh-mcp-mirror-").tempdir_in(folder).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A new folder in it.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    /// A copy of a folder, all attributes included.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> PathBuf {
        let path = self.path().join(name);
        let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(&path).status().unwrap();
        assert!(copied.success());
        path
    }
}

/// Whether the test may make devices and give files away.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Numbers that are the same in each run.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Another seed, other numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }

    /// So many bytes that no compressor and no search finds anything in.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&(self.below(usize::MAX) as u64).to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    /// A name of 1 to `longest` bytes out of an alphabet.
    pub(crate) fn name(&mut self, alphabet: &[u8], longest: usize) -> Vec<u8> {
        loop {
            let length = 1 + self.below(longest);
            let name: Vec<u8> = (0..length).map(|_| alphabet[self.below(alphabet.len())]).collect();
            if name != b"." && name != b".." {
                return name;
            }
        }
    }
}

/// A tree under construction. Paths are bytes, relative to its root; parents are made when they are needed.
pub(crate) struct Plot<'a>(pub(crate) &'a Path);

impl Plot<'_> {
    /// Where a path is.
    pub(crate) fn at(&self, path: impl AsRef<[u8]>) -> PathBuf {
        self.0.join(OsStr::from_bytes(path.as_ref()))
    }

    /// Makes a directory.
    pub(crate) fn directory(&self, path: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes a file.
    pub(crate) fn file(&self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Makes a file of nothing but a hole, with something at its end.
    pub(crate) fn sparse(&self, path: impl AsRef<[u8]>, length: u64, end: &[u8]) -> PathBuf {
        let path = self.file(path, b"");
        let mut file = fs::File::options().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(length - end.len() as u64)).unwrap();
        file.write_all(end).unwrap();
        path
    }

    /// Makes a symlink.
    pub(crate) fn link(&self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) {
        symlink(OsStr::from_bytes(target.as_ref()), self.at(path)).unwrap();
    }

    /// Sets permission bits.
    pub(crate) fn mode(&self, path: impl AsRef<[u8]>, mode: u32) {
        fs::set_permissions(self.at(path), Permissions::from_mode(mode)).unwrap();
    }

    /// Makes a fifo, a socket or a device.
    pub(crate) fn node(&self, path: &str, kind: FileType, major: u32, minor: u32) {
        let device = makedev(major, minor);
        mknodat(CWD, self.at(path), kind, Mode::from_raw_mode(0o640), device).unwrap();
    }

    /// Gives a file, or a link itself, away.
    pub(crate) fn own(&self, path: &str, uid: u32, gid: u32) {
        lchown(self.at(path), Some(uid), Some(gid)).unwrap();
    }

    /// Sets the time of the last change, of a link itself too.
    pub(crate) fn time(&self, path: impl AsRef<[u8]>, seconds: i64, nanoseconds: i64) {
        set_time(&self.at(path), seconds, nanoseconds);
    }
}

/// Sets the time of the last change, of a link itself too.
pub(crate) fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// The tree that most cases are about: every kind of name, content, mode, time and link, and as root every kind of file and owner.
pub(crate) fn base(root: &Path) {
    let tree = Plot(root);
    let mut dice = Dice::new(1);
    tree.file("empty", "");
    tree.file("one byte", "x");
    tree.file("random", dice.bytes(300_000));
    tree.file("zeros", vec![0; 200_000]);
    tree.file("repetitive", b"all work and no play makes jack a dull boy\n".repeat(4_000));
    tree.file("read only", "0444");
    tree.mode("read only", 0o444);
    for (place, name) in NAMES.iter().enumerate() {
        tree.file([b"names/", *name].concat(), place.to_string());
    }
    tree.file([&b"names/"[..], &[b'n'; 255]].concat(), "a long name");
    let long = [[b'a'; 250], [b'b'; 250], [b'c'; 250]].join(&b'/');
    tree.file(long, "a long path");
    tree.file([&b"down/".repeat(40)[..], b"bottom"].concat(), "a deep path");
    for directory in ["nothing in it", "private", "for everybody"] {
        tree.directory(directory);
    }
    tree.file("private/file", "0700");
    tree.mode("private", 0o700);
    tree.mode("for everybody", 0o1777);
    // In the order of bytes a directory is `foo/`.
    for name in ["foo", "foo!/x", "foo-bar/x", "foo.d/x", "foo0/x"] {
        tree.file(name, name);
    }
    tree.link("links to file", "one byte");
    tree.link("links to directory", "foo.d");
    tree.link("links absolutely", "/nowhere/in/particular");
    tree.link("links to nothing", "no such file");
    tree.link("links far", [b't'; 4_000]);
    for (first, others) in [("foo.d/group", ["foo0/second", "third"]), ("group", ["foo!/b", "foo-bar/c"])] {
        tree.file(first, first.repeat(200));
        for other in others {
            fs::hard_link(tree.at(first), tree.at(other)).unwrap();
        }
    }
    let mut names = BTreeSet::new();
    while names.len() < 300 {
        names.insert(dice.name(b"ab.-! ~0", 6));
    }
    for name in &names {
        tree.file([b"small alphabet/", &name[..]].concat(), name);
    }
    tree.directory("times");
    for (name, seconds, nanoseconds) in [
        ("times/long ago", -5_000_000_000, 0),
        ("times/before 32 bits", i64::from(i32::MIN) - 5, 0),
        ("times/zero", 0, 0),
        ("times/far off", (1 << 32) + 12_345, 999_999_999),
    ] {
        tree.file(name, name);
        tree.time(name, seconds, nanoseconds);
    }
    if is_root() {
        for_root(&tree);
    }
    settle(root);
}

/// What only root can make or read, or may keep.
fn for_root(tree: &Plot<'_>) {
    tree.file("set-id", "4755");
    tree.mode("set-id", 0o4755);
    tree.file("no permissions", "0000");
    tree.mode("no permissions", 0);
    tree.directory("nodes");
    tree.node("nodes/fifo", FileType::Fifo, 0, 0);
    tree.node("nodes/socket", FileType::Socket, 0, 0);
    tree.node("nodes/char 1", FileType::CharacterDevice, 1, 3);
    tree.node("nodes/char 8", FileType::CharacterDevice, 8, 70_000);
    tree.node("nodes/block 8", FileType::BlockDevice, 8, 1);
    tree.node("nodes/block 259", FileType::BlockDevice, 259, 70_000);
    tree.directory("owners");
    for (name, uid, gid) in [
        ("owners/1", 1, 1),
        ("owners/2", 2, 2),
        ("owners/33", 33, 33),
        ("owners/without name", 12_345, 54_321),
        ("owners/nobody", 65_534, 65_534),
    ] {
        tree.file(name, name);
        tree.own(name, uid, gid);
    }
    tree.link("owners/link", "33");
    tree.own("owners/link", 33, 12_345);
    tree.own("owners", 2, 33);
}

/// Gives each entry whose time is that of its making one that a copy does not get by chance, directories included.
pub(crate) fn settle(root: &Path) {
    let now = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for (place, path) in walk(root).iter().rev().enumerate() {
        if fs::symlink_metadata(path).unwrap().modified().unwrap() > now {
            let place = i64::try_from(place).unwrap();
            set_time(path, 1_500_000_000 + place * 3_601, (place * 7_654_321) % 1_000_000_000);
        }
    }
}

/// Names that a shell, a list or an order may trip over.
const NAMES: [&[u8]; 23] = [
    b"in between",
    b" leading",
    b"trailing ",
    b"tab\t",
    b"new\nline",
    b"single'quote",
    b"double\"quote",
    b"$HOME",
    b"`id`",
    b"back\\slash",
    b"*",
    b"?",
    b"[x]",
    b"#",
    b"~",
    b"-rf",
    b"--delete",
    b"\xff\xfe\x80",
    "\u{e4}\u{20ac}\u{1f600}".as_bytes(),
    b"{a,b}",
    b"a;b&c|d",
    b"(x)!^",
    b"...",
];

/// All paths below a folder, itself first, a directory before what is in it.
pub(crate) fn walk(root: &Path) -> Vec<PathBuf> {
    let mut paths = vec![root.to_owned()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        next += 1;
    }
    paths
}

/// So many empty files, named by their number.
pub(crate) fn many(root: &Path, count: usize) {
    for place in 0..count {
        fs::write(root.join(format!("{place:05}")), "").unwrap();
        set_time(&root.join(format!("{place:05}")), 1_600_000_000, 0);
    }
}

/// Files with names of all bytes and of those around `/`, each with its name as content.
pub(crate) fn odd_names(root: &Path, count: usize, seed: u64) {
    let (tree, mut dice) = (Plot(root), Dice::new(seed));
    let all: Vec<u8> = (1..=u8::MAX).filter(|byte| *byte != b'/').collect();
    let mut made = 0;
    while made < count {
        let alphabet = if dice.below(2) == 0 { &all[..] } else { &b"!-.0~"[..] };
        let mut name = dice.name(alphabet, 8);
        if dice.below(4) == 0 {
            name = [&dice.name(alphabet, 3)[..], b"/", &name].concat();
        }
        // A name may be taken, by a file where a directory is wanted, too.
        let path = tree.at(&name);
        let parent = path.parent().unwrap();
        let is_free = !path.exists() && (!parent.exists() || parent.is_dir());
        if is_free {
            tree.file(&name, &name);
            made += 1;
        }
    }
}

/// Files of random names, lengths, depths, modes and times, some of them links, as a seed has it. Trees of two seeds have no time
/// in common.
pub(crate) fn random(root: &Path, seed: u64) {
    let (tree, mut dice) = (Plot(root), Dice::new(seed));
    tree.directory("");
    let mut folders = vec![Vec::new()];
    for _ in 0..100 {
        let folder = folders[dice.below(folders.len())].clone();
        let name = match dice.below(4) {
            0 => NAMES[dice.below(NAMES.len())].to_vec(),
            1 => vec![b'n'; 255],
            _ => dice.name(b"abc-. ", 5),
        };
        let path = [&folder[..], &name].concat();
        // Longer paths are no trouble of random trees.
        if path.len() > 1000 || fs::symlink_metadata(tree.at(&path)).is_ok() {
            continue;
        }
        let time = [0, 1, 1_234_567_890, 2_147_483_648, 4_000_000_000][dice.below(5)];
        let time = time + i64::try_from(seed).unwrap();
        match dice.below(8) {
            0 | 1 => {
                tree.directory(&path);
                folders.push([&path[..], b"/"].concat());
                continue;
            }
            2 => tree.link(&path, dice.name(b"abc-. /", 9)),
            _ => {
                let digits = u32::try_from(dice.below(5)).unwrap();
                let length = dice.below(10_usize.pow(digits) * 30);
                tree.file(&path, dice.bytes(length));
                // Who is not root cannot read the last.
                let modes = [0o644, 0o600, 0o755, 0o400, 0o000];
                tree.mode(&path, modes[dice.below(if is_root() { 5 } else { 4 })]);
            }
        }
        tree.time(&path, time, 0);
    }
    for path in folders.iter().rev() {
        tree.mode(path, [0o755, 0o700, 0o750, 0o555][dice.below(4)]);
        tree.time(path, 1_100_000_000 + i64::try_from(dice.below(1000)).unwrap(), 0);
    }
}

/// Each name with a newer and an older content, which share much, little or nothing, and the share that should be found of
/// the newer one in the older, in percent.
pub(crate) fn pairs() -> Vec<(&'static str, Vec<u8>, Vec<u8>, u64)> {
    let mut dice = Dice::new(21);
    let old = dice.bytes(500_000);
    let extra = dice.bytes(100);
    let other = dice.bytes(40_000);
    let whole = dice.bytes(700 * 100);
    let parts = |parts: &[&[u8]]| parts.concat();
    vec![
        ("inserted at the start", parts(&[&extra, &old]), old.clone(), 90),
        ("inserted in the middle", parts(&[&old[..250_000], &extra, &old[250_000..]]), old.clone(), 90),
        ("inserted at the end", parts(&[&old, &extra]), old.clone(), 90),
        ("deleted from", parts(&[&old[..200_000], &old[200_777..]]), old.clone(), 90),
        ("replaced in part", parts(&[&old[..100_000], &other, &old[140_000..]]), old.clone(), 85),
        ("moved", parts(&[&old[300_000..], &old[..100_000], &old[100_000..300_000]]), old.clone(), 90),
        ("truncated", old[..123_456].to_vec(), old.clone(), 90),
        ("longer by a byte", parts(&[&old, b"x"]), old.clone(), 90),
        ("from nothing", old.clone(), Vec::new(), 0),
        ("to nothing", Vec::new(), old.clone(), 0),
        ("whole blocks", parts(&[&whole, &whole[..700]]), whole.clone(), 90),
        ("fewer whole blocks", whole[..700 * 50].to_vec(), whole, 90),
        ("equal but for its time", old.clone(), old, 90),
        ("nothing in common", dice.bytes(100_000), dice.bytes(100_000), 0),
        ("short", b"new".to_vec(), b"old one".to_vec(), 0),
    ]
}

/// Both trees of [`pairs`].
pub(crate) fn make_pairs(newer: &Path, older: &Path) {
    for (name, new, old, _) in pairs() {
        set_time(&Plot(newer).file(name, new), 1_700_000_000, 0);
        set_time(&Plot(older).file(name, old), 1_600_000_000, 0);
    }
}
