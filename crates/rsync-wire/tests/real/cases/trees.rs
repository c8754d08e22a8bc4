//! Cases 12, 20, 59, 68, 69 and 70: which files are meant, and how that is said.

use std::fs;
use std::os::unix::ffi::OsStringExt as _;

use rsync_wire::command::{Delete, Direction, Options, Recursion, UploadOptions};
use rsync_wire::file_list::{Content, Kind};
use rsync_wire::io_errors::IoErrors;

use crate::driver::{Answer, Confirmed, Download, Setup, Upload, Words};
use crate::servers::{Age, Server};
use crate::tree::{Sides, assert_mirrored, contents, file, names};

#[test]
fn case_12_a_folder_and_a_file_by_their_names() {
    for server in Server::all() {
        let sides = Sides::new("two");
        for name in ["folder/file", "folder/below/deep", "single", "other", "other folder/file"] {
            file(&sides.source, name, name);
        }
        let options = Options { recursion: Recursion::Recursive, ..Options::default() };
        let mut setup = Setup::new(&server, options, &sides.source);
        setup.paths =
            ["folder", "single"].map(|name| sides.source.join(name).into_os_string().into_vec()).into();
        let got = Download::new(setup, &sides.target).go();
        got.ended.assert_clean();
        let expected = ["folder", "folder/below", "folder/below/deep", "folder/file", "single"];
        assert_eq!(names(&sides.target), expected);
        assert_eq!(fs::read(sides.target.join("single")).unwrap(), b"single");
    }
}

#[test]
fn case_20_nothing_at_all() {
    for server in Server::all() {
        let sides = Sides::new("nothing");
        let options = Options {
            direction: Direction::Upload(Box::default()),
            recursion: Recursion::Recursive,
            ..Options::default()
        };
        // Without a slash behind it: with one the server makes it all the same.
        let destination = sides.target.join("new").into_os_string().into_vec();
        let setup = Setup { paths: vec![destination], ..Setup::new(&server, options, &sides.target) };
        let mut upload = Upload::new(setup, &sides.source);
        upload.entries.clear();
        let sent = upload.go();
        sent.ended.assert_clean();
        assert!(sent.list.is_empty() && sent.asked.is_empty());
        assert_eq!(names(&sides.target), <[&str; 0]>::default());
    }
}

#[test]
fn case_59_a_part_of_a_tree_whose_folders_are_listed_without_content() {
    for server in Server::all() {
        let go = |content: fn(&[u8]) -> Content| {
            let sides = Sides::new("part");
            for name in ["a/b/wanted", "a/b/unwanted", "a/c/unwanted"] {
                file(&sides.source, name, name);
            }
            for name in ["a/b/there", "a/there", "there", "d/there"] {
                file(&sides.target, name, name);
            }
            let upload = UploadOptions { delete: Some(Delete::default()), ..UploadOptions::default() };
            let options = Options {
                direction: Direction::Upload(Box::new(upload)),
                recursion: Recursion::Recursive,
                times: true,
                ..Options::default()
            };
            let mut upload = Upload::new(Setup::new(&server, options, &sides.target), &sides.source);
            upload
                .entries
                .retain(|entry| [&b"."[..], b"a", b"a/b", b"a/b/wanted"].contains(&&entry.name[..]));
            for entry in &mut upload.entries {
                if matches!(entry.kind, Kind::Directory(_)) {
                    entry.kind = Kind::Directory(content(&entry.name));
                }
            }
            let sent = upload.go();
            sent.ended.assert_clean();
            assert_eq!(sent.asked_in(0), ["a/b/wanted"]);
            names(&sides.target)
        };
        let kept = ["a", "a/b", "a/b/there", "a/b/wanted", "a/there", "d", "d/there", "there"];
        assert_eq!(go(|_| Content::Unlisted), kept);
        // Of one that is listed with its content the rest goes.
        let expected = ["a", "a/b", "a/b/wanted", "a/there", "d", "d/there", "there"];
        let one = |name: &[u8]| if name == b"a/b" { Content::Listed } else { Content::Unlisted };
        assert_eq!(go(one), expected);
    }
}

/// Options of a run after which the sources of what arrived are gone.
fn removing(direction: Direction) -> Options {
    Options {
        direction,
        recursion: Recursion::Recursive,
        times: true,
        remove_source_files: true,
        ..Options::default()
    }
}

#[test]
fn case_68_what_was_sent_goes() {
    for server in Server::all() {
        let sides = Sides::new("moved-up");
        for name in ["a/moved", "a/refused", "a/failing", "changed", "there"] {
            file(&sides.source, name, name.repeat(1000));
        }
        fs::copy(sides.source.join("there"), sides.target.join("there")).unwrap();
        let is = fs::metadata(sides.source.join("there")).unwrap();
        fs::File::open(sides.target.join("there")).unwrap().set_modified(is.modified().unwrap()).unwrap();
        let before = contents(&sides.source);
        let setup = Setup::new(&server, removing(Direction::Upload(Box::default())), &sides.target);
        let mut upload = Upload::new(setup, &sides.source);
        upload.answer = Box::new(|name| match name {
            "a/refused" => Answer::Refused(IoErrors::GENERAL),
            "a/failing" => Answer::Failing(100),
            _ => Answer::File,
        });
        let sent = upload.go();
        sent.assert_partial();
        assert_eq!(contents(&sides.source), before, "it is for the client to remove them");
        file(&sides.source, "changed", "meanwhile");
        sent.remove_arrived(&sides.source);
        assert_eq!(names(&sides.source), ["a", "a/failing", "a/refused", "changed"]);
        assert_eq!(names(&sides.target), ["a", "a/moved", "changed", "there"]);
        for name in ["a/moved", "changed", "there"] {
            assert_eq!(fs::read(sides.target.join(name)).unwrap(), before[name].clone().unwrap());
        }
    }
}

#[test]
fn case_68_what_was_received_goes() {
    let Some(client) = Server::newest_or_skip() else { return };
    for server in Server::all() {
        let sides = Sides::new("moved-down");
        for name in ["a/moved", "a/kept", "moved"] {
            file(&sides.source, name, name);
        }
        let go = |confirm: fn(&str) -> Confirmed| {
            let setup = Setup::new(&server, removing(Direction::Download), &sides.source);
            let mut download = Download::new(setup, &sides.target);
            download.confirm = Box::new(confirm);
            let got = download.go();
            got.ended.assert_clean();
        };
        go(|_| Confirmed::No);
        assert_mirrored(&client, &sides.source, &sides.target);
        for name in ["a/moved", "a/kept", "moved"] {
            fs::remove_file(sides.target.join(name)).unwrap();
        }
        go(|name| if name == "a/kept" { Confirmed::No } else { Confirmed::Yes });
        assert_eq!(names(&sides.source), ["a", "a/kept"]);
        assert_eq!(names(&sides.target), ["a", "a/kept", "a/moved", "moved"]);
    }
}

#[test]
fn case_69_files_by_a_list_of_names() {
    let wanted: [&[u8]; 2] = [b"a/one", b"b/c/two"];
    for server in Server::all() {
        for age in Age::of(&server) {
            for (relative, expected) in [
                (true, &["a", "a/one", "b", "b/c", "b/c/two"][..]),
                // Their folders are left out.
                (false, &["one", "two"]),
            ] {
                let sides = Sides::new("names");
                for name in ["a/one", "a/other", "b/c/two", "b/other", "other"] {
                    file(&sides.source, name, name);
                }
                let options = Options {
                    recursion: Recursion::Recursive,
                    times: true,
                    relative,
                    files_from: true,
                    ..Options::default()
                };
                let mut download = Download::new(
                    Setup { age, ..Setup::new(&server, options, &sides.source) },
                    &sides.target,
                );
                download.names = wanted.to_vec();
                let got = download.go();
                got.ended.assert_clean();
                assert_eq!(names(&sides.target), expected);
                let folders = got.list.active().filter(|(_, entry)| entry.is_directory());
                let kinds: Vec<_> = folders.map(|(_, entry)| entry.kind).collect();
                assert!(kinds.iter().all(|kind| *kind == Kind::Directory(Content::Implied)), "{kinds:?}");
                let two = expected.last().unwrap();
                assert_eq!(fs::read(sides.target.join(two)).unwrap(), b"b/c/two");
            }
        }
    }
}

#[test]
fn case_70_words_that_go_round_the_shell() {
    let Some(client) = Server::newest_or_skip() else { return };
    for server in Server::all() {
        for name in [
            "with blanks and 'quotes' \"of both kinds\"",
            "$HOME `id` ; & \n",
            "wild*?[a]",
            "back\\slash",
            "back\\slash*",
            "-x",
        ] {
            let sides = Sides::new("secluded");
            let source = sides.source.join(name);
            file(&source, "below/file", name);
            // What a wildcard would find.
            for other in ["wildcarda", "back\\slash and more"] {
                file(&sides.source.join(other), "another", other);
            }
            let tree = Options { recursion: Recursion::Recursive, times: true, ..Options::default() };
            let setup = Setup { words: Words::Secluded, ..Setup::new(&server, tree.clone(), &source) };
            Download::new(setup, &sides.target).go().ended.assert_clean();
            assert_eq!(names(&sides.target), ["below", "below/file"], "{name}");
            assert_mirrored(&client, &source, &sides.target);

            if !name.contains('*') {
                let target = sides.target.join(name);
                let options = Options { direction: Direction::Upload(Box::default()), ..tree };
                let setup = Setup { words: Words::Secluded, ..Setup::new(&server, options, &target) };
                Upload::new(setup, &source).go().ended.assert_clean();
                assert_mirrored(&client, &source, &target);
            }
        }
    }
}
