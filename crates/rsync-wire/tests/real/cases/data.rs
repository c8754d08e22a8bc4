//! Cases 34, 36 and 37: how data comes, and where it is put.

use std::fs;

use rsync_wire::command::{Direction, InPlace, Options, Recursion};

use crate::driver::{Download, Framing, Setup, Upload};
use crate::servers::Server;
use crate::tree::{Sides, assert_mirrored, file, noise, set_time};

fn tree() -> Options {
    Options { recursion: Recursion::Recursive, times: true, ..Options::default() }
}

/// Each way of a transfer.
fn directions() -> [Direction; 2] {
    [Direction::Download, Direction::Upload(Box::default())]
}

#[test]
fn case_34_frames_of_all_lengths() {
    let Some(client) = Server::newest_or_skip() else { return };
    for server in Server::all() {
        for (direction, framing) in directions()
            .into_iter()
            .flat_map(|way| [3, 400_000].map(|length| (way.clone(), Framing::Of(length))))
        {
            let sides = Sides::new("frames");
            let old = noise(34, 1_000_000);
            file(&sides.target, "changed", &old);
            file(&sides.source, "changed", [&old[..500_000], b"more", &old[500_000..]].concat());
            file(&sides.source, "new/file", noise(35, 1_000_000));
            file(&sides.source, "new/empty", "");
            let options = Options { direction: direction.clone(), ..tree() };
            let (literal, matched) = match direction {
                Direction::Download => {
                    let setup = Setup { framing, ..Setup::new(&server, options, &sides.source) };
                    let got = Download::new(setup, &sides.target).go();
                    got.ended.assert_clean();
                    (got.literal, got.matched)
                }
                Direction::Upload(_) => {
                    let setup = Setup { framing, ..Setup::new(&server, options, &sides.target) };
                    let sent = Upload::new(setup, &sides.source).go();
                    sent.ended.assert_clean();
                    (sent.literal, sent.matched)
                }
            };
            assert_eq!(literal + matched, 2_000_004);
            assert!(matched > 990_000, "{matched} matched");
            assert_mirrored(&client, &sides.source, &sides.target);
        }
    }
}

#[test]
fn case_36_files_that_are_written_in_their_place() {
    let Some(client) = Server::newest_or_skip() else { return };
    for server in Server::all() {
        let sides = Sides::new("in-place");
        let old = noise(36, 1_500_000);
        let new = [&old[1_000_000..], &old[..300_000], &old[300_000..1_000_000]].concat();
        let there = file(&sides.target, "moved", &old);
        set_time(&there, 1_100_000_000);
        file(&sides.source, "moved", &new);
        let options = Options { in_place: Some(InPlace::Update), ..tree() };
        let got = Download::new(Setup::new(&server, options, &sides.source), &sides.target).go();
        got.ended.assert_clean();
        assert_eq!(got.redone, <[&str; 0]>::default());
        // What was moved back is overwritten before it is wanted.
        assert!(got.literal > 900_000 && got.matched > 450_000, "{got:?}");
        assert_eq!(fs::read(there).unwrap(), new);
        assert_mirrored(&client, &sides.source, &sides.target);
    }
}

#[test]
fn case_37_what_lies_behind_a_prefix() {
    const PREFIX: usize = 123_457;
    for server in Server::all() {
        for (in_place, option) in [(InPlace::Append, "--append"), (InPlace::AppendVerify, "--append-verify")]
        {
            for is_prefix in [true, false] {
                let sides = Sides::new("append");
                let content = noise(37, 500_000);
                file(&sides.source, "file", &content);
                file(&sides.source, "new", "new");
                let mut there = content[..PREFIX].to_vec();
                there[100] ^= u8::from(!is_prefix);
                file(&sides.target, "file", &there);
                let reference = sides.reference(&server, &["-rt", option]);
                let options = Options { in_place: Some(in_place), ..tree() };
                let got = Download::new(Setup::new(&server, options, &sides.source), &sides.target).go();
                got.ended.assert_clean();
                assert_eq!(crate::tree::contents(&sides.target), reference);
                let is_repaired = !is_prefix && in_place == InPlace::AppendVerify;
                assert_eq!(got.redone, if is_repaired { &["file"][..] } else { &[] });
                let rest = content.len() - PREFIX + "new".len();
                assert_eq!(got.literal, (rest + if is_repaired { content.len() } else { 0 }) as u64);
            }
        }
    }
}
