//! Lists that a real server writes and reads, in every version and form of flags.
//!
//! The program is the one `SSH_MCP_RSYNC` names (`scripts/test` fetches it), else that of the machine.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test: helpers are not known to be one"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rsync_wire::checksum::Algorithm;
use rsync_wire::command::{Direction, Options, Recursion};
use rsync_wire::file_list::{
    Content, Device, Entry, FileList, Item, Kind, Link, ListDecoder, ListEncoder, ListLimits, Time,
};
use rsync_wire::filter::{Excluded, ServerRole, put_filter_list};
use rsync_wire::io_errors::IoErrors;
use rsync_wire::mux::{Demultiplexer, Event, Message, MessageLimits, Multiplexer, Severity};
use rsync_wire::negotiate::{Agreed, Handshake, Protocol};
use rsync_wire::varint::{Index, IndexReader, ReadError, Reader};

const CAPABILITIES: [&str; 3] = ["e.LsfxCIvu", "e.LsfxC", "e.Lf"];
const PROTOCOLS: [Protocol; 3] = [Protocol::V30, Protocol::V31, Protocol::V32];

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rsync-wire-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server behind the same shell string that would go over SSH.
struct Server {
    child: Child,
    options: Options,
    frames: Demultiplexer,
    agreed: Agreed,
    /// Bytes that were read after the handshake.
    rest: Vec<u8>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shell that finds rsync; none after saying why there is none.
fn shell_or_skip() -> Option<Command> {
    let mut shell = Command::new("sh");
    if let Some(program) = std::env::var_os("SSH_MCP_RSYNC") {
        // Unpacked and not installed: what it is linked to lies beside it.
        let folder = Path::new(&program).parent().unwrap();
        let libraries = fs::read_dir(folder.with_file_name("lib")).into_iter().flatten();
        let libraries = libraries.map(|folder| folder.unwrap().path());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
        shell.env("PATH", std::env::join_paths(path).unwrap());
        shell.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
    }
    let said = shell.args(["-c", "rsync --version"]).output().unwrap();
    if said.status.success() {
        let mut again = Command::new("sh");
        again.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
        return Some(again);
    }
    assert!(std::env::var_os("CI").is_none(), "in CI there must be an rsync: {said:?}");
    eprintln!("SKIPPED: this machine has no rsync");
    if let Some(path) = std::env::var_os("SSH_MCP_SKIPS") {
        let mut skips = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        skips.write_all(b"rsync_wire::real_server: this machine has no rsync\n").unwrap();
    }
    None
}

impl Server {
    fn start(
        mut shell: Command,
        options: Options,
        path: &Path,
        newest: Protocol,
        capabilities: &str,
    ) -> Self {
        let path = [path.as_os_str().as_bytes(), b"/"].concat();
        let command = String::from_utf8(options.to_shell(&[&path]).unwrap()).unwrap();
        let command = command.replace(CAPABILITIES[0], capabilities);
        shell.args(["-c", &command]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut out = Vec::new();
        let offer = options.to_offer(newest, &[Algorithm::Xxh128, Algorithm::Md5], &[]);
        let mut handshake = Handshake::start(offer, &mut out);
        let mut buffer = [0; 4096];
        loop {
            child.stdin.as_mut().unwrap().write_all(&std::mem::take(&mut out)).unwrap();
            let length = child.stdout.as_mut().unwrap().read(&mut buffer).unwrap();
            assert_ne!(length, 0, "the server ended: {command}");
            let mut input = &buffer[..length];
            let Some(agreed) = handshake.on_bytes(&mut input, &mut out).unwrap() else { continue };
            child.stdin.as_mut().unwrap().write_all(&out).unwrap();
            assert_eq!(agreed.protocol, newest);
            let (frames, rest) = (Demultiplexer::new(MessageLimits::default()), input.to_vec());
            return Self { child, options, frames, agreed, rest };
        }
    }

    fn write(&mut self, data: &[u8]) {
        let mut multiplexer = Multiplexer::default();
        multiplexer.put_data(data);
        self.child.stdin.as_mut().unwrap().write_all(&multiplexer.take()).unwrap();
    }

    /// The next data, however it comes; nothing at the end of the stream.
    fn read(&mut self) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            let bytes = std::mem::take(&mut self.rest);
            let mut input = &bytes[..];
            while let Some(event) = self.frames.next_event(&mut input).unwrap() {
                match event {
                    Event::Data(piece) => data.extend_from_slice(piece),
                    // About what the options leave out.
                    Event::Message(message) => assert!(matches!(message, Message::Text(Severity::Info, _))),
                }
            }
            if !data.is_empty() {
                return data;
            }
            let mut buffer = [0; 512];
            let length = self.child.stdout.as_mut().unwrap().read(&mut buffer).unwrap();
            if length == 0 {
                return data;
            }
            self.rest = buffer[..length].to_vec();
        }
    }
}

/// Files of many kinds and names.
fn make_tree(root: &Path) {
    for directory in ["foo!", "foo-bar", "foo.d", "foo0/sub", "empty"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (name, length) in [
        ("foo", 0),
        ("zz", 1),
        ("foo!/x", 300_000),
        ("foo-bar/x y", 3),
        ("foo.d/-x", 4),
        ("foo0/y\n", 5),
        ("foo0/sub/z*", 6),
    ] {
        fs::write(root.join(name), vec![b'x'; length]).unwrap();
    }
    fs::write(root.join("n".repeat(255)), "long").unwrap();
    for (from, to) in [("zz", "foo.d/zz2"), ("zz", "empty/zz3"), ("foo", "foo-link")] {
        fs::hard_link(root.join(from), root.join(to)).unwrap();
    }
    symlink("t".repeat(4000), root.join("long-target")).unwrap();
    symlink("../..", root.join("foo0/up")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
    let old = fs::File::options().write(true).open(root.join("foo")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH - std::time::Duration::from_secs(5_000_000)).unwrap();
}

/// What is in a folder, in the order it is found, as a list with the fields of `options` has it.
fn found(root: &Path, options: &Options, protocol: Protocol) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut leaders = BTreeMap::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
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

fn variants() -> [Options; 4] {
    let plain = Options { recursion: Recursion::Recursive, links: true, times: true, ..Options::default() };
    let archive = Options { permissions: true, owner: true, group: true, devices: true, ..plain.clone() };
    let all = Options { hard_links: true, checksum: true, ..archive.clone() };
    let numeric = Options { atimes: true, numeric_ids: true, ..archive.clone() };
    [plain, archive, all, numeric]
}

/// Without what cannot be foreseen: digests, times of access, and which of a group of hard links was sent first.
fn comparable(list: &FileList) -> Vec<Entry> {
    let entries = list.active().map(|(_, mut entry)| {
        entry.atime = entry.atime.map(|_| 0);
        entry.link = match entry.link {
            Link::Single => Link::Single,
            Link::Leader | Link::Follower(_) => Link::Leader,
        };
        if let Kind::File { checksum: Some(digest) } = &mut entry.kind {
            digest.fill(0);
        }
        entry
    });
    entries.collect()
}

#[test]
fn a_real_server_sends_the_list_of_its_tree() {
    let folder = Folder::new("down");
    make_tree(&folder.0);
    for (protocol, capabilities) in PROTOCOLS.iter().flat_map(|one| CAPABILITIES.map(|word| (*one, word))) {
        for options in variants() {
            let Some(shell) = shell_or_skip() else { return };
            let mut server = Server::start(shell, options, &folder.0, protocol, capabilities);
            let mut filter = Vec::new();
            put_filter_list(&mut filter, &[], ServerRole::Sender, Excluded::Kept).unwrap();
            server.write(&filter);
            let layout = server.options.to_layout(&server.agreed);
            let mut decoder = ListDecoder::new(layout, ListLimits::default());
            let mut entries = Vec::new();
            while !decoder.is_ended() {
                let data = server.read();
                assert!(!data.is_empty(), "the list is cut: {:?} {capabilities}", server.options);
                let mut data = &data[..];
                while let Some(item) = decoder.next_item(&mut data).unwrap() {
                    match item {
                        Item::Entry(entry) => entries.push(entry),
                        Item::End(end) => assert!(end.errors.is_empty()),
                    }
                }
                assert!(data.is_empty(), "the server waits for requests");
            }
            let list = FileList::new(&entries).unwrap();
            list.check_tree().unwrap();
            let expected = FileList::new(found(&folder.0, &server.options, protocol)).unwrap();
            assert_eq!(comparable(&list), comparable(&expected), "{protocol:?} {capabilities}");
        }
    }
}

#[test]
fn a_real_server_asks_for_the_files_of_our_list() {
    let folder = Folder::new("up");
    let empty = Folder::new("to");
    make_tree(&folder.0);
    for (protocol, capabilities) in PROTOCOLS.iter().flat_map(|one| CAPABILITIES.map(|word| (*one, word))) {
        for options in variants() {
            let Some(shell) = shell_or_skip() else { return };
            let direction = Direction::Upload(Box::default());
            let options = Options { dry_run: true, direction, ..options };
            let mut server = Server::start(shell, options, &empty.0, protocol, capabilities);
            let layout = server.options.to_layout(&server.agreed);
            let entries = found(&folder.0, &server.options, protocol);
            let (mut out, mut encoder) = (Vec::new(), ListEncoder::new(layout));
            for entry in &entries {
                encoder.put_entry(&mut out, entry).unwrap();
            }
            encoder.put_end(&mut out, IoErrors::NONE, &[], &[]).unwrap();
            server.write(&out);
            let list = FileList::new(&entries).unwrap();
            // Of a group of hard links the server asks for one, rsync 3.5 for the last in order.
            let group_of = |index: &u32| match list.entry(*index).unwrap().link {
                Link::Single | Link::Leader => *index,
                Link::Follower(place) => list.index_of_sent(place).unwrap(),
            };
            let mut asked: Vec<u32> = requests(&mut server).iter().map(group_of).collect();
            asked.sort_unstable();
            let files = list.active().filter(|(_, entry)| matches!(entry.kind, Kind::File { .. }));
            let mut expected: Vec<u32> = files.map(|(index, _)| group_of(&index)).collect();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(asked, expected, "{protocol:?} {capabilities}");
        }
    }
}

/// The indexes of the files a server wants, up to the end of the first phase.
fn requests(server: &mut Server) -> Vec<u32> {
    let (mut indexes, mut asked, mut pending) = (IndexReader::default(), Vec::new(), Vec::new());
    loop {
        let mut input = Reader::new(&pending);
        let mut after = indexes;
        match record(&mut after, &mut input) {
            Ok((Index::File(index), flags)) => {
                if flags & 0x8000 != 0 {
                    asked.push(index);
                }
            }
            Ok(_) => return asked,
            Err(ReadError::Incomplete) => {
                let data = server.read();
                assert!(!data.is_empty(), "the server ended");
                pending.extend(data);
                continue;
            }
            Err(ReadError::Wrong(wrong)) => unreachable!("{wrong}"),
        }
        indexes = after;
        pending.drain(..input.consumed());
    }
}

fn record(indexes: &mut IndexReader, input: &mut Reader<'_>) -> Result<(Index, u16), ReadError> {
    let index = indexes.read(input)?;
    if index == Index::Done {
        return Ok((index, 0));
    }
    let flags = input.u16()?;
    if flags & 0x0800 != 0 {
        input.byte()?;
    }
    if flags & 0x1000 != 0 {
        input.vstring()?;
    }
    Ok((index, flags))
}
