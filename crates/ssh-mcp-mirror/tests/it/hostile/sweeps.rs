//! Cases 87 and 88: a good dialogue, cut at each byte, silent from each byte on, and in single bytes.

use ssh_mcp_core::port::mirror::BrokenKind;
use ssh_mcp_core::registry::Direction;

use super::Ground;
use super::server::{Cut, Script};
use super::words::{good_download, good_upload};
use crate::snapshot::{Kind, Snapshot, snapshot};

/// A folder, and a server that does nothing wrong.
fn good(direction: Direction) -> (Ground, Script) {
    match direction {
        Direction::Upload => (Ground::upload(), good_upload()),
        Direction::Download => {
            let ground = Ground::download();
            ground.here().file("old", "x".repeat(2000));
            (ground, good_download())
        }
    }
}

/// What is in the folder, but for times that nobody has set.
fn kinds(ground: &Ground) -> std::collections::BTreeMap<Vec<u8>, Kind> {
    let here: Snapshot = snapshot(&ground.here);
    here.into_iter().map(|(name, node)| (name, node.kind)).collect()
}

#[tokio::test]
async fn case_88_a_good_dialogue_byte_by_byte() {
    for direction in [Direction::Download, Direction::Upload] {
        let (whole, script) = good(direction);
        let met = whole.meets(script.clone()).await;
        met.assert_done();
        let (pieces, script) = good(direction);
        let met_in_pieces = pieces.meets(script.fragmented()).await;
        met_in_pieces.assert_done();
        assert_eq!(kinds(&pieces), kinds(&whole));
        if direction == Direction::Upload {
            assert_eq!(met_in_pieces.told, met.told);
            pieces.assert_untouched();
        } else {
            assert_eq!(pieces.content("d/x").as_deref(), Some(&b"data"[..]));
            let old = [&[b'x'; 700][..], b"yy", &[b'x'; 700]].concat();
            assert_eq!(pieces.content("old"), Some(old));
        }
    }
}

#[tokio::test]
async fn case_87_a_good_dialogue_cut_at_every_byte() {
    for direction in [Direction::Download, Direction::Upload] {
        let length = good(direction).1.length();
        for cut in 0..length {
            let (ground, script) = good(direction);
            let met = ground.meets(script.cut(cut, Cut::Close)).await;
            let kind = met.result.as_ref().expect_err("the end is missing").kind;
            let is_begun = met.result.as_ref().is_err_and(|broken| broken.touched);
            assert_eq!(kind, if is_begun { BrokenKind::Partial } else { BrokenKind::Protocol }, "{cut}");
            let words = if (1..4).contains(&cut) { "is your shell clean?" } else { "the stream ended early" };
            met.assert_broken(kind, words);
            assert_whole(&ground);
        }
    }
}

#[tokio::test]
async fn a_good_dialogue_that_falls_silent_at_any_byte_is_stopped() {
    for direction in [Direction::Download, Direction::Upload] {
        let length = good(direction).1.length();
        for cut in 0..=length {
            let (ground, script) = good(direction);
            let script = script.cut(cut, Cut::Silence);
            let met = ground.meets_until(ground.job(), script, |heard| heard.silence()).await;
            met.assert_broken(BrokenKind::Stopped, "stopped");
            assert!(met.heard.is_closed());
            assert_whole(&ground);
        }
    }
}

#[tokio::test]
async fn a_good_dialogue_with_any_byte_changed_does_no_harm() {
    for direction in [Direction::Download, Direction::Upload] {
        let length = good(direction).1.length();
        for at in 0..length {
            for flip in [0x01, 0x80, 0xff] {
                let (ground, script) = good(direction);
                ground.meets(script.changed(at, flip)).await;
                assert_known(&ground);
            }
        }
    }
}

/// Whatever the names are, no file has any other content than those of the dialogue.
fn assert_known(ground: &Ground) {
    if ground.direction == Direction::Upload {
        return ground.assert_untouched();
    }
    let old = [&[b'x'; 700][..], b"yy", &[b'x'; 700]].concat();
    let known = [&b"new"[..], b"data", b"", &[b'x'; 2000], &old];
    for (name, kind) in kinds(ground) {
        if let Kind::File(..) = kind {
            let content = std::fs::read(ground.here().at(&name)).unwrap();
            assert!(known.contains(&&content[..]), "{}: {}", name.escape_ascii(), content.escape_ascii());
        }
    }
}

/// No file is there in part.
fn assert_whole(ground: &Ground) {
    if ground.direction == Direction::Upload {
        return ground.assert_untouched();
    }
    assert!(ground.content("new").is_none_or(|content| content == b"new"));
    assert!(ground.content("d/x").is_none_or(|content| content == b"data"));
    assert!([2000, 1402].contains(&ground.content("old").unwrap().len()));
}
