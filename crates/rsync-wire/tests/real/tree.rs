//! Trees on a disk: made, listed, and compared.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rsync_wire::command::Options;
use rsync_wire::file_list::{Content, Device, Entry, Kind, Link, Time};
use rsync_wire::negotiate::Protocol;

use crate::servers::Server;

/// A folder that goes when the test ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rsync-wire-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in the machine's folder for that.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where files come from and where they go to.
pub(crate) struct Sides {
    folder: Folder,
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
}

impl Sides {
    /// Two empty folders.
    pub(crate) fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let [source, target] = ["source", "target"].map(|side| folder.path().join(side));
        for side in [&source, &target] {
            fs::create_dir(side).unwrap();
        }
        Self { folder, source, target }
    }

    /// The lines, in order, that the real client says.
    pub(crate) fn said_by(&self, client: &Server, options: &[&str]) -> Vec<String> {
        let said = real_client(client, options, &self.source, &self.target);
        let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }

    /// What the real client makes of copies of both, in the target.
    pub(crate) fn reference(&self, client: &Server, options: &[&str]) -> Contents {
        let copy = self.folder.path().join("reference");
        fs::create_dir(&copy).unwrap();
        for side in [&self.source, &self.target] {
            let copied = std::process::Command::new("cp").arg("-a").args([side, &copy]).status().unwrap();
            assert!(copied.success());
        }
        real_client(client, options, &copy.join("source"), &copy.join("target"));
        let contents = contents(&copy.join("target"));
        fs::remove_dir_all(&copy).unwrap();
        contents
    }
}

/// Writes a file with its directories, and gives it a time that depends on its length and is long ago.
pub(crate) fn file(root: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, &content).unwrap();
    set_time(&path, 1_000_000_000 + content.as_ref().len() as u64);
    path
}

/// Sets the time of modification.
pub(crate) fn set_time(path: &Path, seconds: u64) {
    fs::File::open(path).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
}

/// Bytes in which no search finds anything twice.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let numbers = std::iter::repeat_with(|| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    });
    numbers.flat_map(u64::to_le_bytes).take(length).collect()
}

/// Names, and the contents of those that are files.
pub(crate) type Contents = BTreeMap<String, Option<Vec<u8>>>;

/// What is below a folder.
pub(crate) fn contents(root: &Path) -> Contents {
    let below = walk(root).into_iter().skip(1);
    below
        .map(|path| {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            (name, path.is_file().then(|| fs::read(&path).unwrap()))
        })
        .collect()
}

/// The names below a folder.
pub(crate) fn names(root: &Path) -> Vec<String> {
    contents(root).into_keys().collect()
}

/// The real client finds nothing to do but to set the times of folders, which our client here does not set.
#[track_caller]
pub(crate) fn assert_mirrored(client: &Server, source: &Path, target: &Path) {
    let would = real_client(client, &["-nicrtO", "--delete"], source, target);
    assert_eq!(would, "", "the real client would do more");
}

/// Runs the real client from a folder's content to a folder; what it said.
#[track_caller]
fn real_client(client: &Server, options: &[&str], from: &Path, to: &Path) -> String {
    let said = client.client().args(options).args([from.join(""), to.join("")]).output().unwrap();
    assert!(said.status.success(), "{options:?}: {said:?}");
    String::from_utf8(said.stdout).unwrap()
}

/// All paths below a folder, itself first, a directory before what is in it.
fn walk(root: &Path) -> Vec<PathBuf> {
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

/// Where an entry is below a root.
pub(crate) fn place(root: &Path, name: &[u8]) -> PathBuf {
    if name == b"." { root.to_owned() } else { root.join(OsStr::from_bytes(name)) }
}

/// What is in a folder as a list, in the order it is found and with the fields that `options` has.
pub(crate) fn list(root: &Path, options: &Options, protocol: Protocol) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut leaders = BTreeMap::new();
    for path in walk(root) {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let below = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        let (name, content) =
            if below.is_empty() { (&b"."[..], Content::Top) } else { (below, Content::Listed) };
        let place = entries.len() as u32;
        let link = if !options.hard_links || metadata.is_dir() || metadata.nlink() == 1 {
            Link::Single
        } else {
            let leader = *leaders.entry(metadata.ino()).or_insert(place);
            if leader == place { Link::Leader } else { Link::Follower(leader) }
        };
        let kind = match metadata.mode() & 0o170_000 {
            0o040_000 => Kind::Directory(content),
            0o120_000 => {
                let target = fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec();
                Kind::Symlink { target: options.links.then_some(target) }
            }
            0o010_000 => Kind::Fifo,
            0o020_000 => Kind::CharDevice(Some(Device::default())),
            _ => Kind::File { checksum: options.checksum.then(|| vec![0; 16]) },
        };
        let nanoseconds = if protocol == Protocol::V30 { 0 } else { metadata.mtime_nsec() as u32 };
        entries.push(Entry {
            name: name.to_vec(),
            size: if matches!(kind, Kind::Fifo) { 0 } else { metadata.len() },
            mtime: Time { seconds: metadata.mtime(), nanoseconds },
            permissions: (metadata.mode() & 0o7777) as u16,
            kind,
            atime: (options.atimes && !metadata.is_dir()).then(|| metadata.atime()),
            uid: options.owner.then(|| metadata.uid()),
            gid: options.group.then(|| metadata.gid()),
            link,
        });
    }
    entries
}
