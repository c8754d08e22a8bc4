use super::*;
use crate::checksum::{Algorithm, Digest};
use crate::delta::{Op, Search};
use crate::file_list::{Content, Entry, FileList, Kind, Link, Time};
use crate::io_errors::IoErrors;
use crate::mux::{Demultiplexer, Event, Message, MessageLimits, Multiplexer, Notice, Severity};
use crate::negotiate::{Agreed, CompatFlags, Protocol};
use crate::sums::SumHead;
use crate::token::Token;

fn terms(protocol: Protocol) -> Terms {
    let agreed = Agreed {
        protocol,
        flags: CompatFlags::from_bits(0x1fe),
        checksum: Algorithm::Xxh128,
        compressor: None,
        seed: 1,
    };
    Terms { agreed, dry_run: false, in_place: None }
}

fn list(names: &[(&str, Kind)]) -> FileList {
    let entry = |(name, kind): &(&str, Kind)| Entry {
        name: name.as_bytes().to_vec(),
        size: 0,
        mtime: Time::default(),
        permissions: 0o644,
        kind: kind.clone(),
        atime: None,
        uid: None,
        gid: None,
        link: Link::Single,
    };
    FileList::new(names.iter().map(entry)).unwrap()
}

fn one_file() -> FileList {
    list(&[(".", Kind::Directory(Content::Top)), ("a", Kind::File { checksum: None })])
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// The data and the messages of what was framed.
fn unframed(out: &mut Multiplexer) -> (Vec<u8>, Vec<Message>) {
    let bytes = out.take();
    let (mut input, mut data, mut messages) = (&bytes[..], Vec::new(), Vec::new());
    let mut frames = Demultiplexer::new(MessageLimits::default());
    while let Some(event) = frames.next_event(&mut input).unwrap() {
        match event {
            Event::Data(piece) => data.extend_from_slice(piece),
            Event::Message(message) => messages.push(message),
        }
    }
    (data, messages)
}

/// What was asked, and the data and messages that were written.
type Said = (Vec<String>, Vec<u8>, Vec<Message>);

/// What a sender says to a dialogue, with every file answered by `new`, and what it wrote.
fn upload(
    terms: Terms,
    list: &FileList,
    dialogue: &[u8],
    piece: usize,
    new: &[u8],
) -> Result<Said, RoleError> {
    let mut sender = Sender::new(terms, list, None)?;
    let (mut out, mut asked) = (Multiplexer::default(), Vec::new());
    for mut input in dialogue.chunks(piece) {
        while let Some(ask) = sender.next_ask(&mut input, &mut out)? {
            match ask {
                Ask::File(request) => {
                    asked.push(format!("file {}", request.index));
                    sender.begin(&request, &mut out)?;
                    let mut search = Search::new(request.sums, sender.block_hash(), request.basis);
                    search.push(new);
                    search.finish();
                    while let Some(op) = search.next_op() {
                        match op {
                            Op::Literal(bytes) => sender.literal(bytes, &mut out)?,
                            Op::Match(block) => sender.matched(block, &mut out)?,
                        }
                    }
                    sender.end(terms.agreed.checksum.digest(new), &mut out)?;
                }
                Ask::Item { index, record } => {
                    asked.push(format!("item {index} {:04x}", record.flags.bits()))
                }
                Ask::PhaseEnded(phase) => asked.push(format!("phase {phase}")),
                Ask::Finished => asked.push("finished".to_owned()),
            }
        }
    }
    let (data, messages) = unframed(&mut out);
    Ok((asked, data, messages))
}

/// The upload of `docs/rsync-wire-dialogue.md`, with all phases to the goodbye.
#[test]
fn a_sender_answers_a_request_with_what_has_changed() {
    let old = "01 08 00 01 0c 80 03 00 00 00 bc 02 00 00 02 00 00 00 64 00 00 00 \
               bc b1 e6 57 38 6d 78 b4 4c 16 9e d6 2c 1a ae 29 7b 79 00 00 00 \
               ff 02 02 02 00 00 00 00 00";
    let new = [vec![b'A'; 700], b"XY".to_vec(), vec![b'B'; 700], vec![b'C'; 100]].concat();
    let expected = unhex(
        "01 08 00 01 0c 80 03 00 00 00 bc 02 00 00 02 00 00 00 64 00 00 00 \
         ff ff ff ff 02 00 00 00 58 59 fe ff ff ff fd ff ff ff 00 00 00 00 \
         c8 6d 8b 3a 88 f8 7f 0a 62 0c 6f c1 56 db 4f bb 00 00 00 00",
    );
    for piece in [1, 7, 1000] {
        let (asked, data, messages) =
            upload(terms(Protocol::V32), &one_file(), &unhex(old), piece, &new).unwrap();
        assert_eq!(asked, ["item 0 0008", "file 1", "phase 1", "phase 2", "phase 3", "phase 4", "finished"]);
        assert_eq!(data, expected, "pieces of {piece}");
        assert_eq!(messages, []);
    }
}

#[test]
fn protocol_30_has_a_phase_less() {
    let (asked, data, _) = upload(terms(Protocol::V30), &one_file(), &[0; 4], 1, b"").unwrap();
    assert_eq!(asked, ["phase 1", "phase 2", "phase 3", "finished"]);
    assert_eq!(data, [0; 3]);
}

#[test]
fn a_dry_run_has_records_alone() {
    let terms = Terms { dry_run: true, ..terms(Protocol::V32) };
    let (asked, data, _) = upload(terms, &one_file(), &unhex("02 00 a0 00"), 1, b"").unwrap();
    assert_eq!(asked, ["item 1 a000", "phase 1"]);
    assert_eq!(data, unhex("02 00 a0 00"));
}

#[test]
fn basis_type_and_name_are_echoed() {
    // A file of the partial directory, updated in place by a server that says so; then a fuzzy basis with its name.
    let (list, terms) = (one_file(), terms(Protocol::V32));
    let mut sender = Sender::new(terms, &list, None).unwrap();
    let mut out = Multiplexer::default();
    let dialogue =
        [unhex("02 00 88 81"), vec![0; 16], unhex("00 fe 00 00 00 98 83 02 66 32"), vec![0; 16]].concat();
    let mut input = &dialogue[..];
    let mut basis = Vec::new();
    while let Some(ask) = sender.next_ask(&mut input, &mut out).unwrap() {
        if let Ask::File(request) = ask {
            basis.push((request.basis, request.record.name.clone()));
            sender.begin(&request, &mut out).unwrap();
            sender.end(Algorithm::Xxh128.digest(b""), &mut out).unwrap();
        }
    }
    use crate::delta::Basis::{Kept, Overwritten};
    assert_eq!(basis, [(Overwritten, None), (Kept, Some(b"f2".to_vec()))]);
    let (data, _) = unframed(&mut out);
    assert!(data.starts_with(&unhex("02 00 88 81")));
    let second = unhex("00 fe 00 00 00 98 83 02 66 32");
    assert!(data.windows(second.len()).any(|window| window == second), "{data:02x?}");
}

#[test]
fn what_cannot_be_sent_is_said_and_told_again_at_the_end() {
    let (list, terms) = (one_file(), terms(Protocol::V32));
    let mut sender = Sender::new(terms, &list, None).unwrap();
    let mut out = Multiplexer::default();
    let dialogue = [unhex("02 00 a0"), vec![0; 16], vec![0; 3]].concat();
    let mut input = &dialogue[..];
    while let Some(ask) = sender.next_ask(&mut input, &mut out).unwrap() {
        if let Ask::File(request) = ask {
            sender.refuse(&request, IoErrors::VANISHED, &mut out);
        }
    }
    let (data, messages) = unframed(&mut out);
    assert_eq!(data, [0; 3], "there is no echo of what is refused");
    assert_eq!(messages, [Message::NoSend(1), Message::IoErrors(IoErrors::VANISHED)]);
    assert!(!sender.is_finished());
}

#[test]
fn a_server_that_asks_for_what_it_may_not() {
    let head = |count: &str, length: &str, strong: &str| {
        unhex(&format!("02 00 a0 {count} {length} {strong} 00 00 00 00"))
    };
    let zeros = "00 00 00 00";
    let wrong =
        |bytes: Vec<u8>| upload(terms(Protocol::V32), &one_file(), &bytes, 1, b"").map(|_| ()).unwrap_err();
    let request = [unhex("02 00 a0"), vec![0; 16]].concat();
    assert_eq!(wrong(unhex("03")), RoleError::Index(Index::File(2)));
    assert_eq!(wrong(unhex("01 00 a0")), RoleError::NoFile(0));
    assert_eq!(wrong([request.clone(), unhex("fe 00 00 00 a0")].concat()), RoleError::OutOfTurn(1));
    assert_eq!(wrong([vec![0; 2], request].concat()), RoleError::OutOfTurn(1));
    assert_eq!(wrong([vec![0; 3], unhex("01")].concat()), RoleError::Index(Index::File(0)));
    assert_eq!(wrong(unhex("ff 01")), RoleError::Index(Index::ListsEnd));
    assert!(matches!(wrong(unhex("ff 02 f0 ff ff ff ff")), RoleError::Statistics(-1)));
    assert!(matches!(wrong(head("01 00 00 00", zeros, "02 00 00 00")), RoleError::Head(_)));
    assert!(matches!(wrong(head("01 00 00 00", "bc 02 00 00", "40 00 00 00")), RoleError::Head(_)));
    assert!(matches!(wrong(head("ff ff ff 7f", "bc 02 00 00", "10 00 00 00")), RoleError::Sums(_)));
}

/// What a receiver makes of a dialogue whose requests were answered as `expected`.
fn download(
    terms: Terms,
    expected: &[(u32, Expected)],
    dialogue: &[u8],
    piece: usize,
) -> Result<Vec<String>, RoleError> {
    let mut receiver = Receiver::new(terms)?;
    let (mut arrived, mut left) = (Vec::new(), expected.to_vec());
    for mut input in dialogue.chunks(piece) {
        loop {
            let mut take = |index| {
                let at = left.iter().position(|(asked, _)| *asked == index)?;
                Some(left.remove(at).1)
            };
            let Taken { used, arrival } = receiver.next_arrival(input, &mut take)?;
            input = &input[used..];
            let Some(arrival) = arrival else { break };
            match arrival {
                Arrival::Begin { index, .. } => arrived.push(format!("begin {index} ")),
                Arrival::Token(Token::Literal(bytes)) => {
                    arrived.last_mut().unwrap().push_str(std::str::from_utf8(bytes).unwrap());
                }
                Arrival::Token(Token::Match(block)) => arrived.push(format!("block {block}")),
                Arrival::Token(Token::End) => {}
                Arrival::End { index, digest } => arrived.push(format!("end {index} {digest:?}")),
                Arrival::PhaseEnded(phase) => arrived.push(format!("phase {phase}")),
                Arrival::Finished(counted) => {
                    arrived.push(format!("finished {} {}", counted.read, counted.size))
                }
            }
        }
    }
    Ok(arrived)
}

fn requested(generator: &mut Generator, index: u32, out: &mut Vec<u8>) -> (u32, Expected) {
    (index, generator.request(index, ItemFlags::NEW, SumHead::NONE, out).unwrap())
}

/// The download of `docs/rsync-wire-dialogue.md`, behind its list: two new files.
#[test]
fn a_download_of_two_files_from_both_ends() {
    let mut generator = Generator::new(terms(Protocol::V32));
    let mut said = Vec::new();
    let expected = [requested(&mut generator, 1, &mut said), requested(&mut generator, 4, &mut said)];
    generator.end_phase(&mut said);
    generator.end_requests(&mut said);
    generator.goodbye(&mut said);
    assert_eq!(said, unhex(&format!("02 00 a0 {z} 03 00 a0 {z} 00 00 00 00 00", z = "00 ".repeat(16))));
    let dialogue = unhex(&format!(
        "02 00 a0 {z} 06 00 00 00 68 65 6c 6c 6f 0a 00 00 00 00 9c e4 c8 f1 35 b4 10 5a 6d f5 69 e0 c7 86 ba 6b \
         03 00 a0 {z} 04 00 00 00 73 75 62 0a 00 00 00 00 cf 85 2a 5a ef 7a a3 1a d8 a0 c1 e8 6c 8f 32 e1 \
         00 00 00 00 3a 00 00 cd 00 00 0f 00 00 01 00 00 00 00 00",
        z = "00 ".repeat(16)
    ));
    for piece in [1, 5, 1000] {
        let arrived = download(terms(Protocol::V32), &expected, &dialogue, piece).unwrap();
        assert_eq!(
            arrived,
            [
                "begin 1 hello\n",
                "end 1 9ce4c8f135b4105a6df569e0c786ba6b",
                "begin 4 sub\n",
                "end 4 cf852a5aef7aa31ad8a0c1e86c8f32e1",
                "phase 1",
                "phase 2",
                "phase 3",
                "finished 58 15"
            ],
            "pieces of {piece}"
        );
    }
    assert_eq!(
        Algorithm::Xxh128.digest(b"sub\n"),
        Digest::from_bytes(*unhex("cf 85 2a 5a ef 7a a3 1a d8 a0 c1 e8 6c 8f 32 e1").first_chunk().unwrap())
    );
}

#[test]
fn a_receiver_takes_only_answers() {
    let mut generator = Generator::new(terms(Protocol::V32));
    let expected = [requested(&mut generator, 1, &mut Vec::new())];
    let wrong = |text: &str| download(terms(Protocol::V32), &expected, &unhex(text), 1).unwrap_err();
    assert_eq!(wrong("03 00 a0"), RoleError::Index(Index::File(2)), "nobody asked");
    assert_eq!(wrong("02 08 a0"), RoleError::Answer(1), "other flags");
    assert_eq!(wrong("02 00 88 81"), RoleError::Answer(1), "a basis type");
    assert_eq!(wrong(&format!("02 00 a0 01 {}", "00 ".repeat(15))), RoleError::Answer(1), "another head");
    let z = "00 ".repeat(36);
    assert_eq!(wrong(&format!("02 00 a0 {z} fe 00 00 00 a0")), RoleError::Index(Index::File(1)), "twice");
    assert_eq!(wrong("ff 02"), RoleError::Index(Index::Statistics));
    assert_eq!(wrong("ff 01"), RoleError::Index(Index::ListsEnd));
    assert_eq!(wrong("00 00 00 ff 00 00 00 00 00 00 00 80"), RoleError::Statistics(i64::MIN));
    assert!(matches!(wrong(&format!("02 00 a0 {} ff ff ff ff", "00 ".repeat(16))), RoleError::Token(_)));
}

#[test]
fn exit_codes() {
    let code = |messages: &[Message], remote: u32| {
        let mut verdict = Verdict::default();
        messages.iter().for_each(|message| verdict.on_message(message));
        verdict.code(ExitCode(remote))
    };
    let failed = Message::Text(Severity::TransferError, b"x".to_vec());
    let vanished = Message::IoErrors(IoErrors::VANISHED);
    assert_eq!(code(&[], 0), ExitCode::OK);
    assert_eq!(code(&[Message::Text(Severity::Error, b"x".to_vec())], 0), ExitCode::OK);
    assert_eq!(code(std::slice::from_ref(&failed), 0), ExitCode::PARTIAL, "old servers say 0");
    assert_eq!(code(&[Message::NoSend(1)], 0), ExitCode::PARTIAL);
    assert_eq!(code(&[Message::NoSend(1), vanished.clone()], 0), ExitCode::VANISHED);
    assert_eq!(code(&[failed, vanished], 0), ExitCode::PARTIAL);
    assert_eq!(code(&[Message::IoErrors(IoErrors::GENERAL)], 0), ExitCode::PARTIAL);
    assert_eq!(code(&[Message::IoErrors(IoErrors::DELETE_LIMIT)], 0), ExitCode::DELETE_LIMIT);
    assert_eq!(code(&[Message::NoSend(1)], 12), ExitCode::PARTIAL.max(ExitCode(12)));
    assert!(code(&[], 25).is_complete() && !code(&[], 12).is_complete());
}

#[test]
fn a_notice_of_death_says_its_code() {
    let mut out = Multiplexer::default();
    out.put_notice(Notice::ErrorExit(Some(2)));
    assert_eq!(unframed(&mut out).1, [Message::ErrorExit(Some(2))]);
}
