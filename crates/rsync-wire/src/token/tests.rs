use proptest::prelude::*;

use super::*;

const ALL: [Option<Compressor>; 4] =
    [None, Some(Compressor::Zlibx), Some(Compressor::Zstd), Some(Compressor::Lz4)];

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Literal(Vec<u8>),
    Match(u32),
}

fn write(writer: &mut Writer, parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        match part {
            Part::Literal(bytes) => writer.literal(bytes, &mut out).unwrap(),
            Part::Match(index) => writer.matched(*index, &mut out).unwrap(),
        }
    }
    writer.end(&mut out).unwrap();
    out
}

/// Reads a file in pieces; literals that follow each other become one.
fn read(reader: &mut Reader, count: u32, wire: &[u8], piece: usize) -> Result<Option<Vec<Part>>, ReadError> {
    let mut parts = Vec::new();
    reader.begin(count);
    for mut input in wire.chunks(piece) {
        loop {
            let step = reader.next_token(input)?;
            input = &input[step.used..];
            match step.token {
                Some(Token::Literal(bytes)) => {
                    assert!(!bytes.is_empty());
                    match parts.last_mut() {
                        Some(Part::Literal(before)) => before.extend_from_slice(bytes),
                        Some(Part::Match(_)) | None => parts.push(Part::Literal(bytes.to_vec())),
                    }
                }
                Some(Token::Match(index)) => parts.push(Part::Match(index)),
                Some(Token::End) => return Ok(Some(parts)),
                None => {
                    assert!(input.is_empty());
                    break;
                }
            }
        }
    }
    Ok(None)
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn example() -> Vec<Part> {
    vec![Part::Match(0), Part::Literal(b"XY".to_vec()), Part::Match(1), Part::Match(2)]
}

#[test]
fn the_example_is_read_with_every_compressor() {
    for (compressor, wire) in [
        (None, "ff ff ff ff 02 00 00 00 58 59 fe ff ff ff fd ff ff ff 00 00 00 00"),
        (Some(Compressor::Zlibx), "80 40 04 8a 88 04 00 c1 01 00 00"),
        (Some(Compressor::Zstd), "80 40 0b 28 b5 2f fd 00 58 10 00 00 58 59 c1 01 00 00"),
        (Some(Compressor::Lz4), "80 40 03 20 58 59 c1 01 00 00"),
    ] {
        let wire = unhex(wire);
        for piece in 1..=wire.len() {
            let mut reader = Reader::new(compressor).unwrap();
            assert_eq!(read(&mut reader, 3, &wire, piece), Ok(Some(example())), "{compressor:?} {piece}");
        }
        let mut writer = Writer::new(compressor, None).unwrap();
        assert_eq!(write(&mut writer, &example()), wire, "{compressor:?}");
    }
}

#[test]
fn an_empty_file_is_its_end() {
    for compressor in ALL {
        let wire = write(&mut Writer::new(compressor, None).unwrap(), &[]);
        assert_eq!(wire, vec![0; if compressor.is_none() { 4 } else { 1 }]);
    }
}

#[test]
fn runs_and_distances() {
    let matches = |blocks: &[u32]| blocks.iter().map(|&block| Part::Match(block)).collect::<Vec<_>>();
    for (blocks, expected) in [
        (&[63][..], "bf 00"),
        (&[64], "20 40 00 00 00 00"),
        (&[64, 65], "21 40 00 00 00 01 00 00"),
        (&[5, 5, 4, 68], "85 80 20 04 00 00 00 20 44 00 00 00 00"),
        (&[1, 2, 3, 10], "c1 02 00 87 00"),
    ] {
        let parts = matches(blocks);
        let wire = write(&mut Writer::new(Some(Compressor::Lz4), None).unwrap(), &parts);
        assert_eq!(wire, unhex(expected), "{blocks:?}");
        assert_eq!(read(&mut Reader::new(Some(Compressor::Lz4)).unwrap(), 69, &wire, 1), Ok(Some(parts)));
    }
    let long = matches(&(0..65_537).collect::<Vec<_>>());
    let wire = write(&mut Writer::new(Some(Compressor::Lz4), None).unwrap(), &long);
    assert_eq!(wire, unhex("c0 ff ff 81 00"));
    assert_eq!(read(&mut Reader::new(Some(Compressor::Lz4)).unwrap(), 65_537, &wire, 3), Ok(Some(long)));
}

#[test]
fn literals_are_cut_for_servers_that_insist() {
    let mut writer = Writer::new(None, None).unwrap();
    let wire = write(&mut writer, &[Part::Literal(vec![1; 70_000])]);
    assert_eq!(wire.len(), 70_000 + 3 * 4 + 4);
    assert_eq!(wire[..4], 32_768i32.to_le_bytes());
    assert_eq!(
        writer.matched(i32::MAX as u32, &mut Vec::new()),
        Err(WriteError::BlockIndex(i32::MAX as u32))
    );
}

#[test]
fn a_literal_of_any_announced_length_is_streamed() {
    let mut reader = Reader::new(None).unwrap();
    reader.begin(0);
    let step = reader.next_token(&[0xff, 0xff, 0xff, 0x7f, 1, 2]).unwrap();
    assert_eq!(step, Step { used: 6, token: Some(Token::Literal(&[1, 2])) });
    assert_eq!(reader.next_token(&[]).unwrap(), Step { used: 0, token: None });
    assert_eq!(reader.next_token(&[3]).unwrap().token, Some(Token::Literal(&[3])));
}

#[test]
fn streams_that_are_refused() {
    use Compressor::{Lz4, Zlibx, Zstd};
    let none = |index, count| ReadError::NoSuchBlock { index, count };
    for (compressor, count, wire, expected) in [
        (None, 3, "fc ff ff ff", none(3, 3)),
        (None, 0, "ff ff ff ff", none(0, 0)),
        (None, 3, "00 00 00 80", none(0x7fff_ffff, 3)),
        (Some(Lz4), 3, "20 03 00 00 00", none(3, 3)),
        (Some(Lz4), 3, "20 ff ff ff ff", none(-1, 3)),
        (Some(Lz4), 3, "21 01 00 00 00 02 00", none(3, 3)),
        (Some(Lz4), 3, "c0 ff ff", none(0xffff, 3)),
        (Some(Lz4), 3, "83", none(3, 3)),
        (Some(Lz4), 3, "22", ReadError::UnknownFlag(0x22)),
        (Some(Zlibx), 3, "01", ReadError::UnknownFlag(0x01)),
        (Some(Lz4), 3, "40 00", ReadError::BadRecord(Lz4)),
        (Some(Lz4), 3, "40 01 00", ReadError::BadRecord(Lz4)),
        (Some(Lz4), 3, "40 03 f0 58 59", ReadError::BadRecord(Lz4)),
        (Some(Zstd), 3, "40 04 58 59 58 59", ReadError::BadRecord(Zstd)),
        (Some(Zlibx), 3, "40 02 ff ff", ReadError::BadRecord(Zlibx)),
        // A deflate stream that ends, and then something else.
        (Some(Zlibx), 3, "40 02 03 00 40 02 03 00", ReadError::BadRecord(Zlibx)),
    ] {
        for piece in [1, 100] {
            let mut reader = Reader::new(compressor).unwrap();
            assert_eq!(read(&mut reader, count, &unhex(wire), piece), Err(expected), "{wire}");
        }
    }
}

#[test]
fn a_run_of_one_more_than_none_is_a_match() {
    let wire = unhex("c2 00 00 00");
    assert_eq!(
        read(&mut Reader::new(Some(Compressor::Lz4)).unwrap(), 3, &wire, 1),
        Ok(Some(vec![Part::Match(2)]))
    );
}

#[test]
fn what_expands_without_end_comes_in_small_pieces() {
    for compressor in [Some(Compressor::Zlibx), Some(Compressor::Zstd), Some(Compressor::Lz4)] {
        let wire = write(&mut Writer::new(compressor, None).unwrap(), &[Part::Literal(vec![0; 8 << 20])]);
        let (mut reader, mut rest, mut total) = (Reader::new(compressor).unwrap(), &wire[..], 0);
        reader.begin(0);
        loop {
            let step = reader.next_token(rest).unwrap();
            rest = &rest[step.used..];
            match step.token.unwrap() {
                Token::Literal(bytes) => {
                    assert!(bytes.len() <= 33 << 10);
                    total += bytes.len();
                }
                Token::Match(_) => unreachable!("nothing matches"),
                Token::End => break,
            }
        }
        assert_eq!(total, 8 << 20);
    }
}

#[test]
fn zstd_takes_a_whole_frame_for_each_literal() {
    let (first, second) = (b"one one one one".to_vec(), vec![7; 100_000]);
    let mut wire = Vec::new();
    for (literal, index) in [(&first, 0), (&second, 1)] {
        let frame = zstd::bulk::compress(literal, 1).unwrap();
        wire.extend([0x40 | (frame.len() >> 8) as u8, frame.len() as u8]);
        wire.extend(frame);
        wire.push(0x80 | index);
    }
    wire.push(0);
    let expected = vec![Part::Literal(first), Part::Match(0), Part::Literal(second), Part::Match(1)];
    for piece in [1, 7, wire.len()] {
        let mut reader = Reader::new(Some(Compressor::Zstd)).unwrap();
        assert_eq!(read(&mut reader, 2, &wire, piece), Ok(Some(expected.clone())));
    }
}

#[test]
fn the_old_zlib_is_not_spoken() {
    assert_eq!(Reader::new(Some(Compressor::Zlib)).err(), Some(SetUpError(Compressor::Zlib)));
    assert_eq!(Writer::new(Some(Compressor::Zlib), None).err(), Some(SetUpError(Compressor::Zlib)));
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let text = prop::collection::vec(0u8..4, 1..200).prop_map(Part::Literal);
    let noise = (1usize..70_000, any::<u64>()).prop_map(|(len, seed)| {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        Part::Literal((0..len).map(|_| next()).collect())
    });
    let matched = (0u32..200).prop_map(Part::Match);
    let near = (0u32..4).prop_map(Part::Match);
    prop::collection::vec(prop_oneof![3 => text, 1 => noise, 2 => matched, 4 => near], 0..12)
}

/// Literals that follow each other become one.
fn joined(parts: &[Part]) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(Part::Literal(before)), Part::Literal(bytes)) => before.extend_from_slice(bytes),
            (_, part) => joined.push(part.clone()),
        }
    }
    joined
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn files_come_out_as_they_went_in(
        files in prop::collection::vec(parts(), 1..4),
        piece in prop_oneof![1usize..40, Just(5000), Just(1 << 20)],
        level in prop::option::of(-3i32..12),
    ) {
        for compressor in ALL {
            let mut writer = Writer::new(compressor, level).unwrap();
            let mut reader = Reader::new(compressor).unwrap();
            for file in &files {
                let wire = write(&mut writer, file);
                prop_assert_eq!(read(&mut reader, 200, &wire, piece), Ok(Some(joined(file))));
            }
        }
    }

    #[test]
    fn garbage_is_an_answer_or_an_error(
        wire in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x40), Just(0), Just(0x80)], 0..400),
        piece in 1usize..100,
        damage in any::<prop::sample::Index>(),
        file in parts(),
    ) {
        for compressor in ALL {
            let mut reader = Reader::new(compressor).unwrap();
            let _ = read(&mut reader, 5, &wire, piece);
            let mut wire = write(&mut Writer::new(compressor, None).unwrap(), &file);
            let at = damage.index(wire.len());
            wire[at] ^= 0x55;
            let _ = read(&mut Reader::new(compressor).unwrap(), 200, &wire, piece);
        }
    }
}
