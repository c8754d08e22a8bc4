//! What is on a disk, how two trees differ, and what the real client says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::servers::Server;
use crate::tree::walk;

/// What is on a disk under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// What it is, and what is in it.
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// The last change, seconds and nanoseconds.
    pub(crate) time: (i64, i64),
    /// User and group.
    pub(crate) owner: (u32, u32),
    /// The first name of the same file, if it has several in the tree.
    pub(crate) group: Option<Vec<u8>>,
}

/// What something on a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file: its length and a digest of its content.
    File(u64, u64),
    /// A directory.
    Directory,
    /// A symlink and its target.
    Symlink(Vec<u8>),
    /// A device, fifo or socket: the bits of its type, and its number.
    Other(u32, u64),
}

/// A tree as it is on the disk, by path.
pub(crate) type Snapshot = BTreeMap<Vec<u8>, Node>;

/// What is there, the root as the empty path.
pub(crate) fn snapshot(root: &Path) -> Snapshot {
    let mut nodes = Snapshot::new();
    let mut files: BTreeMap<(u64, u64), Vec<Vec<u8>>> = BTreeMap::new();
    for path in walk(root) {
        let facts = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let format = facts.mode() & 0o170_000;
        let kind = if facts.is_file() {
            Kind::File(facts.len(), digest(&path))
        } else if facts.is_dir() {
            Kind::Directory
        } else if facts.is_symlink() {
            Kind::Symlink(fs::read_link(&path).unwrap().into_os_string().into_vec())
        } else if matches!(format, 0o020_000 | 0o060_000) {
            Kind::Other(format, facts.rdev())
        } else {
            Kind::Other(format, 0)
        };
        if !facts.is_dir() && facts.nlink() > 1 {
            files.entry((facts.dev(), facts.ino())).or_default().push(name.clone());
        }
        let node = Node {
            kind,
            mode: facts.mode() & 0o7777,
            time: (facts.mtime(), facts.mtime_nsec()),
            owner: (facts.uid(), facts.gid()),
            group: None,
        };
        nodes.insert(name, node);
    }
    for names in files.values().filter(|names| names.len() > 1) {
        let first = names.iter().min().cloned();
        for name in names {
            nodes.get_mut(name).unwrap().group.clone_from(&first);
        }
    }
    nodes
}

fn digest(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Root reads what nobody may read.
    let mut file = fs::File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let length = file.read(&mut buffer).unwrap();
        if length == 0 {
            return hasher.finish();
        }
        hasher.write(&buffer[..length]);
    }
}

/// Which properties of two trees are compared, apart from names and contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct What {
    /// Permission bits.
    pub(crate) modes: bool,
    /// Times.
    pub(crate) times: Times,
    /// Users and groups.
    pub(crate) owners: bool,
    /// Symlinks; otherwise they are passed over.
    pub(crate) links: bool,
    /// Devices, fifos and sockets; otherwise they are passed over.
    pub(crate) others: bool,
    /// Which names are one file.
    pub(crate) groups: bool,
}

/// How exactly times are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// Not.
    Ignored,
    /// To the second, as protocol 30 has them.
    Seconds,
    /// To the nanosecond.
    Exact,
}

impl What {
    /// All of it.
    pub(crate) const ALL: Self =
        Self { modes: true, times: Times::Exact, owners: true, links: true, others: true, groups: true };

    fn applied_to(self, node: &Node) -> Option<Node> {
        match node.kind {
            Kind::Symlink(_) if !self.links => return None,
            Kind::Other(..) if !self.others => return None,
            Kind::File(..) | Kind::Directory | Kind::Symlink(_) | Kind::Other(..) => {}
        }
        let mut node = node.clone();
        // Linux has one mode for all symlinks.
        if !self.modes || matches!(node.kind, Kind::Symlink(_)) {
            node.mode = 0;
        }
        node.time = match self.times {
            Times::Ignored => (0, 0),
            Times::Seconds => (node.time.0, 0),
            Times::Exact => node.time,
        };
        if !self.owners {
            node.owner = (0, 0);
        }
        if !self.groups {
            node.group = None;
        }
        Some(node)
    }
}

/// Two trees have the same.
#[track_caller]
pub(crate) fn assert_same(expected: &Snapshot, found: &Snapshot, what: What) {
    let said = differences(expected, found, what);
    assert!(said.is_empty(), "the trees differ:\n{said}");
}

/// One line for each name that is not the same, up to a number.
pub(crate) fn differences(expected: &Snapshot, found: &Snapshot, what: What) -> String {
    let mut said = String::new();
    let names: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let node_of = |tree: &Snapshot, name: &[u8]| tree.get(name).and_then(|node| what.applied_to(node));
    let differ = |name: &&Vec<u8>| node_of(expected, name) != node_of(found, name);
    let differing: Vec<_> = names.into_iter().filter(differ).collect();
    for name in differing.iter().take(20) {
        let shown = name.escape_ascii();
        match (node_of(expected, name), node_of(found, name)) {
            (Some(expected), Some(found)) => writeln!(said, "{shown}:\n  {expected:?}\n  {found:?}"),
            (Some(expected), None) => writeln!(said, "{shown} is missing: {expected:?}"),
            (None, found) => writeln!(said, "{shown} is too much: {found:?}"),
        }
        .unwrap();
    }
    if differing.len() > 20 {
        writeln!(said, "and {} more", differing.len() - 20).unwrap();
    }
    said
}

/// The real client finds nothing to do; `letters` are those of the transfer.
#[track_caller]
pub(crate) fn assert_real_client_agrees(client: &Server, letters: &str, from: &Path, to: &Path) {
    let said = real_client(client, &[&format!("-nic{letters}"), "--delete", "--numeric-ids"], from, to);
    let does = |line: &&str| !line.starts_with("skipping non-regular file");
    let would: Vec<_> = said.lines().filter(does).collect();
    assert!(would.is_empty(), "the real client would do more: {would:#?}");
}

/// Runs the real client from a folder's content to a folder; what it said.
#[track_caller]
pub(crate) fn real_client(client: &Server, options: &[&str], from: &Path, to: &Path) -> String {
    let slash = |path: &Path| {
        let mut path = path.as_os_str().to_owned();
        path.push("/");
        path
    };
    let said = client.rsync.client().args(options).arg(slash(from)).arg(slash(to)).output().unwrap();
    assert!(said.status.success(), "{options:?}: {said:?}");
    String::from_utf8(said.stdout).unwrap()
}
