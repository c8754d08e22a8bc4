//! Case 89: requests of an upload.

use rsync_wire::varint::{Index, put_varint};

use super::server::Script;
use super::words::{NO_SUMS, Talk, WANTED, WANTED_NEW, data, frame, frame_of, good_upload, greeting};
use super::{Encounter, Ground, SECRET};

/// An upload whose server asks for this. What it is sent has nothing in it of what lies outside.
async fn asked(bytes: Vec<u8>) -> Encounter {
    let ground = Ground::upload();
    let met = ground.meets(Script::new().send(greeting()).send(bytes).exit(0)).await;
    ground.assert_untouched();
    let said = met.heard.bytes();
    assert!(!said.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
    met
}

async fn said(words: impl FnOnce(Talk) -> Talk) -> Encounter {
    asked(Talk::default().say(words)).await
}

/// The entries: `.`, `new`, `old`, the links `out` and `secret`, `sub`.
const AFTER_THE_LAST: u32 = 6;

#[tokio::test]
async fn a_good_upload_and_what_it_sends() {
    let ground = Ground::upload();
    let met = ground.meets(good_upload()).await;
    met.assert_done();
    assert!(met.told.contains(&"Completed new".to_owned()) && met.told.contains(&"Completed old".to_owned()));
    let said = met.heard.bytes();
    assert!(said.windows(11).any(|window| window == b"what is new"));
    assert!(!said.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
}

#[tokio::test]
async fn case_89_requests_for_what_is_no_file() {
    for index in [AFTER_THE_LAST, 1000, i32::MAX as u32] {
        for flags in [WANTED, 0x2000] {
            let met = said(|talk| talk.record(index, flags).head(NO_SUMS)).await;
            met.assert_refused(&format!("unexpected file index File({index})"));
        }
    }
    for index in [0, 3, 4, 5] {
        let met = said(|talk| talk.record(index, WANTED).head(NO_SUMS)).await;
        met.assert_refused(&format!("request for entry {index}, which is no file"));
    }
    said(|talk| talk.index(Index::ListsEnd)).await.assert_refused("unexpected file index ListsEnd");
    said(|talk| talk.index(Index::Directory(0))).await.assert_refused("unexpected file index Directory(0)");
}

#[tokio::test]
async fn case_89_requests_out_of_turn() {
    let want = |talk: Talk| talk.record(1, WANTED_NEW).head(NO_SUMS);
    said(|talk| want(want(talk))).await.assert_refused("request for entry 1 out of turn");
    said(|talk| want(talk).done().bytes([0xfe, 0, 0, 0, 0xa0, 0]).head(NO_SUMS).bytes([0xfe, 0, 0, 0, 0xa0]))
        .await
        .assert_refused("request for entry 1 out of turn");
    said(|talk| want(talk.done().done())).await.assert_refused("request for entry 1 out of turn");
    said(|talk| talk.done().done().done().record(1, 0x2000))
        .await
        .assert_refused("unexpected file index File(1)");
    said(|talk| talk.done().done().done().done().record(1, 0x2000))
        .await
        .assert_refused("unexpected file index");
}

#[tokio::test]
async fn case_89_sums_that_cannot_be() {
    for (head, words) in [
        ([i32::MAX, 700, 16, 0], "list of block sums has 42949672940 bytes"),
        ([i32::MAX, 131_072, 0, 0], "list of block sums has"),
        ([1 << 27, 1, 1, 0], "list of block sums has"),
        ([1, 0, 2, 0], "sum head has block length 0"),
        ([-1, 700, 2, 0], "sum head has count -1"),
        ([1, -1, 2, 0], "sum head has block length -1"),
        ([1, 131_073, 2, 0], "sum head has block length 131073"),
        ([1, i32::MAX, 2, 0], "sum head has block length"),
        ([1, 700, 64, 0], "sum head has strong length 64"),
        ([1, 700, 17, 0], "sum head has strong length 17"),
        ([1, 700, -1, 0], "sum head has strong length -1"),
        ([1, 700, 2, 701], "sum head has remainder 701"),
        ([1, 700, 2, -1], "sum head has remainder -1"),
        ([0, 0, 0, 1], "sum head has remainder 1"),
        ([i32::MIN; 4], "sum head has count"),
    ] {
        said(|talk| talk.record(2, WANTED).head(head)).await.assert_refused(words);
    }
}

#[tokio::test]
async fn sums_of_odd_blocks_are_borne() {
    // Sums of which no byte is strong, or all are alike, or the last block is as long as all others.
    for head in [
        [3, 1, 0, 0],
        [1, 131_072, 0, 0],
        [3, 700, 0, 700],
        [2, 700, 16, 699],
        [1, 1, 16, 1],
        [0, 700, 16, 700],
    ] {
        let [count, _, strong, _] = head;
        let sums = vec![0; (count * (4 + strong)) as usize];
        let met =
            said(|talk| talk.record(2, WANTED).head(head).bytes(sums).done().done().done().done().done())
                .await;
        met.assert_done();
    }
}

#[tokio::test]
async fn case_89_numbers_that_cannot_be() {
    for number in [-1, (1 << 28) + 1, i32::MAX] {
        let mut counts = Vec::new();
        put_varint(&mut counts, number);
        let met = said(|talk| talk.index(Index::Statistics).bytes(counts).bytes([0; 4])).await;
        met.assert_refused(&format!("statistics say {number}"));
    }
    said(|talk| talk.index(Index::Statistics).bytes([0xf8; 9])).await.assert_refused("malformed record");
    said(|talk| talk.record(1, 0x1000).bytes([0xff; 5000])).await.assert_refused("malformed record");
    said(|talk| talk.done().done().done().done().done().bytes("more")).await.assert_done();
    asked([Talk::default().say(|talk| talk.bytes([0; 5])), data("more")].concat())
        .await
        .assert_refused("data behind the last word");
}

#[tokio::test]
async fn case_89_records_are_repeated_as_they_are() {
    // A name as long as names get, which is used for nothing.
    let name = [b'n'; 4095];
    let mut talk = Talk::default();
    let record = talk.say(|talk| talk.record(2, 0x1800).bytes([0x83, 0x80 | 0x0f, 0xff]).bytes(name));
    let script = Script::new().send(greeting()).send(record).hear([&[0x83, 0x8f, 0xff][..], &name].concat());
    let met = Ground::upload().meets(script.send(talk.say(|talk| talk.bytes([0; 5]))).exit(0)).await;
    met.assert_done();
}

#[tokio::test]
async fn case_83_messages_to_a_sender() {
    let number = |number: i32| number.to_le_bytes();
    for message in [
        frame(2, b"\x1b[2J"),
        frame(33, &number(1)),
        frame(42, b""),
        frame(100, &number(i32::MAX)),
        frame(101, b"../../\x1b[2J\n\0"),
        frame(101, b"\0"),
    ] {
        let met = asked([message, Talk::default().say(|talk| talk.bytes([0; 5]))].concat()).await;
        assert!(met.result.is_ok(), "{:?}", met.result);
    }
    for (message, words) in [
        (frame(86, &number(2)), "gave up"),
        (frame(9, &number(1)), "no frame begins"),
        (frame(10, &[0; 8]), "no frame begins"),
        (frame(102, &number(-1)), "says -1"),
        (frame_of(3, 0xff_ffff, b""), "with 16777215 bytes"),
    ] {
        let met = asked([message, Talk::default().say(|talk| talk.bytes([0; 5]))].concat()).await;
        met.assert_refused(words);
    }
}
