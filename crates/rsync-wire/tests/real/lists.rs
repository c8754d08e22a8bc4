//! Lists that a real server writes and reads, in every version and form of flags.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rsync_wire::command::{Direction, Options, Recursion};
use rsync_wire::file_list::{Entry, FileList, Kind, Link};
use rsync_wire::mux::{Message, Severity};

use crate::driver::{Download, Ended, Sent, Setup, Upload};
use crate::servers::{Age, Server};
use crate::tree::{Folder, list};

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
    let Some(server) = Server::newest_or_skip() else { return };
    let folder = Folder::new("down");
    make_tree(folder.path());
    for age in Age::all() {
        for options in variants() {
            let options = Options { dry_run: true, ..options };
            let expected = list(folder.path(), &options, age.protocol);
            let setup = Setup { age, ..Setup::new(&server, options, folder.path()) };
            // Nothing is written there.
            let got = Download::new(setup, &folder.path().join("nowhere")).go();
            assert_only_words(&got.ended);
            let files = got.list.active().filter(|(_, entry)| matches!(entry.kind, Kind::File { .. }));
            assert_eq!(got.asked.len(), files.count());
            assert_eq!(comparable(&got.list), comparable(&FileList::new(expected).unwrap()));
        }
    }
}

#[test]
fn a_real_server_asks_for_the_files_of_our_list() {
    let Some(server) = Server::newest_or_skip() else { return };
    let (folder, empty) = (Folder::new("up"), Folder::new("to"));
    make_tree(folder.path());
    for age in Age::all() {
        for options in variants() {
            let options = Options { dry_run: true, direction: Direction::Upload(Box::default()), ..options };
            let setup = Setup { age, ..Setup::new(&server, options, empty.path()) };
            let Sent { ended, list, asked, .. } = Upload::new(setup, folder.path()).go();
            assert_only_words(&ended);
            // Of a group of hard links the server asks for one, rsync 3.5 for the last in order.
            let group_of = |index: &u32| match list.entry(*index).unwrap().link {
                Link::Single | Link::Leader => *index,
                Link::Follower(place) => list.index_of_sent(place).unwrap(),
            };
            let mut asked: Vec<u32> = asked.iter().map(|(_, index)| group_of(index)).collect();
            asked.sort_unstable();
            let files = list.active().filter(|(_, entry)| matches!(entry.kind, Kind::File { .. }));
            let mut expected: Vec<u32> = files.map(|(index, _)| group_of(&index)).collect();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(asked, expected);
        }
    }
}

/// The server had something to say about what the options leave out, and nothing else.
fn assert_only_words(ended: &Ended) {
    ended.assert_clean();
    let is_info = |message: &Message| matches!(message, Message::Text(Severity::Info, _));
    assert!(ended.messages.iter().all(is_info), "{:?}", ended.messages);
}
