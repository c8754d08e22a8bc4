//! Cases 83 to 85: frames, answers and data of a download.

use rsync_wire::varint::Index;
use ssh_mcp_core::port::mirror::BrokenKind;
use ssh_mcp_core::port::ssh::ChannelEvent;

use super::server::Script;
use super::words::{
    FILTERS, Listed, NO_SUMS, REQUEST, STATISTICS, Talk, WANTED, WANTED_NEW, data, directory, download, file,
    frame, frame_of, greeting, hello, list, root,
};
use super::{Encounter, Ground};

/// One new file, as entry 1.
fn one() -> [Listed; 2] {
    [root(), file("a", 4)]
}

/// A download of `one` whose answer begins well, with something in the middle of the file.
fn interrupted(bytes: &[u8]) -> Script {
    let mut talk = Talk::default();
    let asked = FILTERS + REQUEST;
    let script = Script::new().send(greeting()).send(list(&one())).until(asked + 1);
    let script = script.send(talk.say(|talk| talk.record(1, WANTED_NEW).head(NO_SUMS).number(4).bytes("go")));
    let script = script.send(bytes).send(talk.say(|talk| talk.bytes("od").end(b"good").done()));
    let script = script.until(asked + 4).send(talk.say(|talk| talk.done().done().bytes(STATISTICS).done()));
    script.until(asked + 5).exit(0)
}

/// Something behind the handshake, before the list, in the middle of a file, and behind the last word.
fn places(bytes: &[u8]) -> [Script; 4] {
    [
        Script::new().send(greeting()).send(bytes).send(list(&one())).exit(0),
        Script::new().send([greeting(), data(root().bytes()), bytes.to_vec()].concat()).exit(0),
        interrupted(bytes),
        download(&[root()], 0, |talk| talk).before_the_end(bytes),
    ]
}

#[tokio::test]
async fn case_83_frames_that_are_none() {
    let known = [0, 1, 2, 3, 4, 22, 33, 42, 86, 100, 101, 102];
    let unknown =
        (0..=248).filter(|tag| !known.contains(tag)).map(|tag| (frame(tag, b""), "no frame begins with"));
    let below = (0..7).map(|last| (vec![0, 0, 0, last], "no frame begins with"));
    let short = [(22, 3), (22, 5), (22, 0), (33, 8), (42, 1), (86, 1), (86, 5), (100, 0), (101, 0), (102, 3)];
    let short = short.map(|(tag, length)| (frame(tag, &vec![0; length]), "with"));
    let long = [1, 2, 3, 4, 101].map(|tag| (frame_of(tag, 0xff_ffff, b"long"), "with 16777215 bytes"));
    let negative = [100, 102].map(|tag| (frame(tag, &(-1_i32).to_le_bytes()), "says -1"));
    for (bytes, words) in unknown.chain(below).chain(short).chain(long).chain(negative) {
        for script in places(&bytes) {
            let ground = Ground::download();
            ground.meets(script).await.assert_refused(words);
            assert!(ground.content("a").is_none_or(|content| content == b"good"));
        }
    }
}

#[tokio::test]
async fn case_83_messages_at_odd_places_change_nothing() {
    let number = |number: i32| number.to_le_bytes().to_vec();
    for message in [
        frame(2, b"\x1b]0;title\x07 text \xff\n"),
        frame(4, b"a warning"),
        frame(33, &number(-5)),
        frame(33, &number(i32::MAX)),
        frame(42, b""),
        frame(0, b""),
        frame(100, &number(1)),
        frame(100, &number(i32::MAX)),
        frame(101, b"../../etc\0"),
        frame(101, b"\0"),
    ] {
        let ground = Ground::download();
        ground.meets(interrupted(&message)).await.assert_done();
        assert_eq!(ground.content("a").as_deref(), Some(&b"good"[..]));
    }
}

#[tokio::test]
async fn case_83_messages_without_end() {
    let ground = Ground::download();
    let many = frame(42, b"").repeat(16_384);
    let met = ground.meets(Script::new().send(greeting()).repeat(many, 1000)).await;
    met.assert_refused("more than 4194304 messages");
}

#[tokio::test]
async fn a_server_that_gives_up() {
    let code = 3_i32.to_le_bytes();
    for (script, kind) in [
        (Script::new().send(greeting()).send(frame(86, &code)).exit(3), BrokenKind::Protocol),
        (interrupted(&frame(86, b"")), BrokenKind::Partial),
        (interrupted(&frame(86, &code)), BrokenKind::Partial),
    ] {
        Ground::download().meets(script).await.assert_broken(kind, "rsync on the far side gave up");
    }
}

#[tokio::test]
async fn words_of_a_server_stay_on_one_line() {
    let words = b"\x1b[2J\x1b]0;title\x07rsync: \"\xff\r\n\" failed: \x08\x00\n".repeat(50_000);
    let ended = ChannelEvent::ExitSignal { name: "KILL\n\x1b[1mroot# ".to_owned() + &"x".repeat(1 << 20) };
    for words in [
        Script::new().complain(words.clone()),
        Script::new().send(greeting()).send(frame(3, &words[..60_000])),
    ] {
        let script = words.send([]).event(ended.clone()).event(ChannelEvent::Closed);
        Ground::download().meets(script).await.assert_broken(BrokenKind::Protocol, "failed");
    }
}

/// Answers to requests for `a` and `d/b`, which are entries 1 and 3.
async fn answered(answers: impl FnOnce(Talk) -> Talk) -> (Ground, Encounter) {
    let ground = Ground::download();
    let entries = [root(), file("a", 4), directory("d"), file("d/b", 4)];
    let met = ground.meets(download(&entries, 2 * REQUEST, answers)).await;
    (ground, met)
}

#[tokio::test]
async fn case_84_answers_to_what_was_not_asked() {
    type Answers = fn(Talk) -> Talk;
    let cases: [(Answers, &str); 18] = [
        (|talk| talk.whole(2, b"harm"), "unexpected file index File(2)"),
        (|talk| talk.whole(0, b"harm"), "unexpected file index File(0)"),
        (|talk| talk.whole(4, b"harm"), "unexpected file index File(4)"),
        (|talk| talk.whole(1, b"good").whole(1, b"harm"), "unexpected file index File(1)"),
        (|talk| talk.record(1, 0x2000), "answer for entry 1 differs"),
        (|talk| talk.record(1, WANTED), "answer for entry 1 differs"),
        (|talk| talk.record(1, WANTED_NEW | 0x800).bytes([0x81]), "answer for entry 1 differs"),
        (|talk| talk.record(1, WANTED_NEW | 0x1000).bytes(b"\x07../evil"), "answer for entry 1 differs"),
        (|talk| talk.record(1, WANTED_NEW | 0x1000).bytes([0xff; 5000]), "malformed record"),
        (|talk| talk.record(1, WANTED_NEW).head([1, 700, 2, 0]), "answer for entry 1 differs"),
        (|talk| talk.record(1, WANTED_NEW).head([i32::MAX; 4]), "answer for entry 1 differs"),
        (|talk| talk.record(1, WANTED_NEW).head([-1; 4]), "answer for entry 1 differs"),
        (|talk| talk, "requests without an answer"),
        (|talk| talk.whole(1, b"good"), "requests without an answer"),
        (
            |talk| talk.whole(1, b"good").whole(3, b"good").done().whole(1, b"harm"),
            "unexpected file index File(1)",
        ),
        (|talk| talk.index(Index::Statistics), "unexpected file index Statistics"),
        (|talk| talk.index(Index::ListsEnd), "unexpected file index ListsEnd"),
        (|talk| talk.index(Index::Directory(0)), "unexpected file index Directory(0)"),
    ];
    for (answers, words) in cases {
        let (ground, met) = answered(answers).await;
        met.assert_refused(words);
        assert!(ground.content("a").is_none_or(|content| content == b"good"));
    }
    let (ground, met) = answered(|talk| talk.whole(1, b"good").whole(3, b"good")).await;
    met.assert_done();
    assert_eq!(ground.content("d/b").as_deref(), Some(&b"good"[..]));
}

#[tokio::test]
async fn case_84_phases_that_end_before_they_are_over() {
    // Many files, so that requests are still made when the server says that it has answered all.
    let names: Vec<Listed> = (0..900).map(|number| file(format!("{number:03}"), 1)).collect();
    let entries = [&[root()], &names[..]].concat();
    for phases in 1..=3 {
        let ends = Talk::default().say(|talk| talk.bytes(vec![0; phases]).bytes(STATISTICS).done());
        let ground = Ground::download();
        let met = ground.meets(Script::new().send(greeting()).send(list(&entries)).send(ends).exit(0)).await;
        met.assert_refused("requests without an answer");
    }
}

#[tokio::test]
async fn case_78_data_for_the_dropped_of_two_entries() {
    for (index, is_used) in [(1, true), (2, false)] {
        let ground = Ground::download();
        let entries = [root(), file("a", 4), file("a", 4)];
        let met = ground.meets(download(&entries, REQUEST, |talk| talk.whole(index, b"good"))).await;
        if is_used {
            met.assert_done();
            assert_eq!(ground.content("a").as_deref(), Some(&b"good"[..]));
        } else {
            met.assert_refused("unexpected file index File(2)");
            assert_eq!(ground.content("a"), None);
        }
    }
}

#[tokio::test]
async fn case_84_files_that_cannot_be_sent_and_were_not_asked_for() {
    let no_send = |index: i32| frame(102, &index.to_le_bytes());
    for (script, words) in [
        (interrupted(&no_send(1)), "no request for entry 1"),
        (interrupted(&no_send(0)), "no request for entry 0"),
        (interrupted(&no_send(i32::MAX)), "no request for entry 2147483647"),
    ] {
        Ground::download().meets(script).await.assert_refused(words);
    }
    let ground = Ground::download();
    let twice = no_send(1).repeat(2);
    let script =
        Script::new().send(greeting()).send(list(&one())).until(FILTERS + REQUEST + 1).send(twice).exit(0);
    ground.meets(script).await.assert_refused("no request for entry 1");
}

/// More files than are asked for at a time, of which none can be sent, and no data between the messages that say so.
#[tokio::test]
async fn many_files_that_cannot_be_sent() {
    const FILES: usize = 20_000;
    const KNOWN: usize = 10_000;
    let names: Vec<Listed> = (0..FILES).map(|number| file(format!("{number:05}"), 1)).collect();
    let refused = |indexes: std::ops::RangeInclusive<usize>| -> Vec<u8> {
        indexes.flat_map(|index| frame(102, &(index as i32).to_le_bytes())).collect()
    };
    let asked = FILTERS + FILES * REQUEST;
    let mut talk = Talk::default();
    let entries: Vec<u8> = names.iter().flat_map(Listed::bytes).collect();
    let script = Script::new().send(greeting()).send(data([&root().bytes()[..], &entries, &[0, 0]].concat()));
    let script = script.until(FILTERS + KNOWN * REQUEST).send(refused(1..=KNOWN));
    let script = script.until(asked + 1).send(refused(KNOWN + 1..=FILES)).send(talk.say(Talk::done));
    let script = script.until(asked + 4).send(talk.say(|talk| talk.done().done().bytes(STATISTICS).done()));
    let ground = Ground::download();
    let mut job = ground.job();
    job.list_limit = 30_000;
    let met = ground.meets_with(job, script.until(asked + 5).exit(23)).await;
    assert!(met.result.is_ok(), "{:?}", met.result);
    assert_eq!(met.told.iter().filter(|told| told.starts_with("Failed")).count(), FILES);
}

#[tokio::test]
async fn case_85_blocks_that_are_not_there() {
    for number in [-1, -2, i32::MIN] {
        let (_, met) = answered(|talk| talk.record(1, WANTED_NEW).head(NO_SUMS).number(number)).await;
        met.assert_refused("token names block");
    }
    for (number, words) in [(-4, Some("token names block 3 of 3")), (i32::MIN, Some("of 3")), (-3, None)] {
        let ground = Ground::download();
        ground.here().file("old", "x".repeat(2000));
        let asked = 2 + 1 + 16 + 3 * (4 + 2);
        let answer = |talk: Talk| {
            let begun = talk.record(1, WANTED).head([3, 700, 2, 600]).number(number);
            begun.end(&[b'x'; 600])
        };
        let met = ground.meets(download(&[root(), file("old", 600)], asked, answer)).await;
        match words {
            Some(words) => met.assert_refused(words),
            None => met.assert_done(),
        }
        let length = if words.is_some() { 2000 } else { 600 };
        assert_eq!(ground.content("old").map(|content| content.len()), Some(length));
    }
}

#[tokio::test]
async fn case_85_digests_that_are_wrong_twice() {
    let ground = Ground::download();
    let mut talk = Talk::default();
    let asked = FILTERS + REQUEST;
    let script = Script::new().send(greeting()).send(list(&one())).until(asked + 1);
    let harm = |talk: Talk, flags| talk.record(1, flags).head(NO_SUMS).literal(b"harm").end(b"good").done();
    let script = script.send(talk.say(|talk| harm(talk, WANTED_NEW))).until(asked + 1 + REQUEST + 2 + 3);
    let script = script.send(talk.say(|talk| harm(talk, WANTED).done().bytes(STATISTICS).done()));
    let met = ground.meets(script.until(asked + 1 + REQUEST + 2 + 4).exit(0)).await;
    assert!(met.result.is_ok(), "{:?}", met.result);
    assert!(
        met.told.contains(&"Failed a: what arrived is not what was sent, twice".to_owned()),
        "{:?}",
        met.told
    );
    assert_eq!(ground.content("a"), None);
}

#[tokio::test]
async fn case_85_literals_without_end() {
    let ground = Ground::download();
    let begun = Talk::default().say(|talk| talk.record(1, WANTED_NEW).head(NO_SUMS));
    let literal = data([&(1_i32 << 20).to_le_bytes()[..], &[0; 1 << 20]].concat());
    let script = Script::new().send(greeting()).send(list(&one())).until(FILTERS + REQUEST + 1);
    ground
        .meets(script.send(begun).repeat(literal, 1 << 20))
        .await
        .assert_refused("file becomes longer than");
    assert_eq!(ground.content("a"), None);
}

#[tokio::test]
async fn case_85_a_bomb() {
    // A frame of 4000 blocks, each of which is one byte 128 Ki times, in one record: 512 MiB. Record follows on record.
    let block = |is_last: u32| [&(128_u32 << 13 | 1 << 1 | is_last).to_le_bytes()[..3], &[0]].concat();
    let bomb = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58][..], &block(0).repeat(3999), &block(1)].concat();
    let [.., high, low] = bomb.len().to_be_bytes();
    let bomb = data([&[0x40 | high, low], &bomb[..]].concat());
    // It is stopped as well if what it is sent as a change of is gone, so that nothing of it is kept.
    let mut ground = Ground::download();
    ground.emptied = Some(ground.here().file("old", "x".repeat(2000)));
    let mut job = ground.job();
    job.options.compress = true;
    let begun = Talk::default().say(|talk| talk.record(1, WANTED).head([3, 700, 2, 600]).bytes([0x80]));
    let script =
        Script::new().compressed().send(hello(&["xxh128", "zstd"])).send(list(&[root(), file("old", 4)]));
    let script = script.until(FILTERS + REQUEST + 3 * (4 + 2) + 1).send(begun).repeat(bomb, 1 << 20);
    ground.meets_with(job, script).await.assert_refused("file becomes longer than");
    assert_eq!(ground.content("old").as_deref(), Some(&b""[..]));
}

#[tokio::test]
async fn case_85_records_that_cannot_be_decompressed() {
    for (name, records, words) in [
        ("zstd", &[0x40, 4, 1, 2, 3, 4][..], "zstd record"),
        ("lz4", &[0x40, 2, 0xff, 0xff], "lz4 record"),
        ("lz4", &[0x40, 0], "lz4 record"),
        ("zlibx", &[0x40, 2, 0xff, 0xff, 0], "zlibx record"),
        // A stream that has ended, and more of it.
        ("zlibx", &[0x40, 3, 0x03, 0x00, 0x00, 0x40, 1, 0, 0], "zlibx record"),
        ("zlibx", &[0x01], "unknown flag 0x01"),
        ("zstd", &[0x20, 0, 0, 0, 0], "token names block 0 of 0"),
        ("zstd", &[0x21, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "token names block"),
        ("zstd", &[0x80], "token names block 0 of 0"),
        ("zstd", &[0xff, 0xff, 0xff], "token names block"),
    ] {
        let ground = Ground::download();
        let mut job = ground.job();
        job.options.compress = true;
        let answer = Talk::default().say(|talk| talk.record(1, WANTED_NEW).head(NO_SUMS).bytes(records));
        let script = Script::new().compressed().send(hello(&["xxh128", name])).send(list(&one()));
        let met = ground.meets_with(job, script.until(FILTERS + REQUEST + 1).send(answer).exit(0)).await;
        met.assert_refused(words);
    }
}

#[tokio::test]
async fn numbers_of_the_last_words_that_cannot_be() {
    let mut talk = Talk::default();
    let script =
        Script::new().send(greeting()).send(list(&[root()])).until(FILTERS + 1).send(talk.say(Talk::done));
    let negative = [0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let script = script.until(FILTERS + 4).send(talk.say(|talk| talk.done().done().bytes(negative)));
    Ground::download().meets(script.exit(0)).await.assert_refused("statistics say -1");
    let script = download(&[root()], 0, |talk| talk).before_the_end(&data(b"more"));
    Ground::download().meets(script).await.assert_refused("data behind the last word");
}
