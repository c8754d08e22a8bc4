use proptest::prelude::*;

use super::*;

const LIST: &[u8] = b"\x23xxh128 xxh3 xxh64 md5 md4 sha1 none";
const COMPRESSORS: &[u8] = b"\x19zstd lz4 zlibx zlib none ";
const SEED: &[u8] = &[1, 0, 0, 0];

type Outcome = Result<Option<Agreed>, HandshakeError>;

/// The outcome, what the client wrote and what it left.
fn run(offer: &Offer, pieces: &[&[u8]]) -> (Outcome, Vec<u8>, Vec<u8>) {
    let mut out = Vec::new();
    let mut handshake = Handshake::start(offer.clone(), &mut out);
    for (at, mut piece) in pieces.iter().copied().enumerate() {
        match handshake.on_bytes(&mut piece, &mut out) {
            Ok(None) => assert!(piece.is_empty()),
            end => return (end, out, [&[piece], &pieces[at + 1..]].concat().concat()),
        }
    }
    (Ok(None), out, Vec::new())
}

fn check(offer: &Offer, bytes: &[u8], agreed: Agreed, answer: &[u8]) {
    let followed = [bytes, b"rest"].concat();
    let expected = (Ok(Some(agreed)), answer.to_vec(), b"rest".to_vec());
    assert_eq!(run(offer, &[&followed]), expected);
    assert_eq!(run(offer, &followed.chunks(1).collect::<Vec<_>>()), expected);
    for end in 0..bytes.len() {
        assert_eq!(run(offer, &[&bytes[..end]]).0, Ok(None));
    }
}

fn agreed(protocol: Protocol, flags: i32) -> Agreed {
    let flags = CompatFlags::from_bits(flags);
    Agreed { protocol, flags, checksum: Algorithm::Xxh128, compressor: None, seed: 1 }
}

fn compressed() -> Offer {
    let compressor = Some(Choice::Negotiated(vec![Compressor::Zlibx, Compressor::Zlib]));
    Offer { compressor, ..Offer::default() }
}

#[test]
fn a_new_server_is_answered_with_one_name() {
    let bytes = [&[0x20, 0, 0, 0, 0x81, 0xfe], LIST, SEED].concat();
    check(&Offer::default(), &bytes, agreed(Protocol::V32, 0x1fe), b"\x20\0\0\0\x06xxh128");

    let bytes = [&[0x20, 0, 0, 0, 0x81, 0xfe], LIST, COMPRESSORS, SEED].concat();
    let both = Agreed { compressor: Some(Compressor::Zlibx), ..agreed(Protocol::V32, 0x1fe) };
    check(&compressed(), &bytes, both, b"\x20\0\0\0\x06xxh128\x05zlibx");
}

#[test]
fn an_old_server_has_its_defaults() {
    let old = Agreed { checksum: Algorithm::Md5, seed: -2, ..agreed(Protocol::V30, 0x0a) };
    let bytes = [30, 0, 0, 0, 0x0a, 0xfe, 0xff, 0xff, 0xff];
    check(&Offer::default(), &bytes, old, b"\x20\0\0\0");
    check(&compressed(), &bytes, Agreed { compressor: Some(Compressor::Zlib), ..old }, b"\x20\0\0\0");

    let offer = Offer { checksum: Choice::Negotiated(vec![Algorithm::Xxh128]), ..Offer::default() };
    let none = HandshakeError::NoCommon { subject: Subject::Checksum, offered: b"md5".to_vec() };
    assert_eq!(run(&offer, &[&bytes]).0, Err(none));
}

#[test]
fn the_older_version_is_spoken() {
    let offer = Offer { newest: Protocol::V31, ..Offer::default() };
    let bytes = [&[40, 0, 0, 0, 0x81, 0xfe], LIST, SEED].concat();
    check(&offer, &bytes, agreed(Protocol::V31, 0x1fe), b"\x1f\0\0\0\x06xxh128");
}

#[test]
fn what_the_command_line_says_is_not_negotiated() {
    let offer = Offer {
        checksum: Choice::Passed(Algorithm::Md5),
        compressor: Some(Choice::Passed(Compressor::Zstd)),
        ..Offer::default()
    };
    let expected = Agreed {
        checksum: Algorithm::Md5,
        compressor: Some(Compressor::Zstd),
        ..agreed(Protocol::V32, 0x1fe)
    };
    let bytes = [&[0x20, 0, 0, 0, 0x81, 0xfe], SEED].concat();
    check(&offer, &bytes, expected, b"\x20\0\0\0");
}

#[test]
fn servers_that_are_refused() {
    let check = |bytes: &[u8], expected: HandshakeError| {
        assert_eq!(run(&Offer::default(), &[bytes]).0, Err(expected));
    };
    check(b"Welcome to host\n", HandshakeError::NotRsync { first: b"Welcome to host\n".to_vec() });
    check(&[b'x'; 400], HandshakeError::NotRsync { first: vec![b'x'; FIRST_BYTES] });
    check(&[19, 0, 0, 0], HandshakeError::NotRsync { first: vec![19, 0, 0, 0] });
    check(&[41, 0, 0, 0], HandshakeError::NotRsync { first: vec![41, 0, 0, 0] });
    check(&[29, 0, 0, 0], HandshakeError::TooOld(29));
    check(&[0x20, 0, 0, 0, 0x81, 0xff], HandshakeError::IncrementalRecursion);
    check(&[0x20, 0, 0, 0, 0xf8], HandshakeError::Malformed(Malformed::Varint(0xf8)));
    check(&[0x20, 0, 0, 0, 0x81, 0xfe, 0x81, 0], HandshakeError::Malformed(Malformed::Vstring(256)));
    let offered = b"md4 xxh1289".to_vec();
    let bytes = [&[0x20, 0, 0, 0, 0x81, 0xfe, 11], &offered[..]].concat();
    check(&bytes, HandshakeError::NoCommon { subject: Subject::Checksum, offered });
}

#[test]
fn what_came_before_the_end_is_kept() {
    let mut handshake = Handshake::start(Offer::default(), &mut Vec::new());
    assert_eq!(handshake.first_bytes(), Some(&b""[..]));
    handshake.on_bytes(&mut &b"sh:"[..], &mut Vec::new()).unwrap();
    assert_eq!(handshake.first_bytes(), Some(&b"sh:"[..]));
}

#[test]
fn errors_are_fit_for_people() {
    let error = HandshakeError::NoCommon { subject: Subject::Checksum, offered: b"md4".to_vec() };
    assert_eq!(error.to_string(), "no common checksum; the server has \"md4\"");
    let error = HandshakeError::NotRsync { first: b"hi\x1b".to_vec() };
    assert_eq!(error.to_string(), "the server's first bytes are not rsync's: \"hi\\u{1b}\"");
}

proptest! {
    #[test]
    fn garbage_ends_the_same_however_it_is_cut(
        flags: u8,
        tail in prop::collection::vec(any::<u8>(), 0..600),
        length in 1..20_usize,
    ) {
        let bytes = [&[0x20, 0, 0, 0, flags], &tail[..]].concat();
        let pieces: Vec<_> = bytes.chunks(length).collect();
        prop_assert_eq!(run(&compressed(), &[&bytes]), run(&compressed(), &pieces));
    }
}
