use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Writes, compares with the table, reads back, and finds every prefix incomplete.
fn check<T: PartialEq + std::fmt::Debug>(
    value: T,
    expected: Option<&str>,
    put: impl Fn(&mut Vec<u8>),
    read: impl Fn(&mut Reader<'_>) -> Result<T, ReadError>,
) {
    let mut out = Vec::new();
    put(&mut out);
    if let Some(expected) = expected {
        assert_eq!(out, hex(expected), "{value:?}");
    }
    for end in 0..out.len() {
        assert_eq!(read(&mut Reader::new(&out[..end])), Err(ReadError::Incomplete), "{value:?} {end}");
    }
    let length = out.len();
    out.push(0xaa);
    let mut reader = Reader::new(&out);
    assert_eq!(read(&mut reader).as_ref(), Ok(&value));
    assert_eq!((reader.consumed(), reader.rest()), (length, &[0xaa][..]));
}

fn check_varint(value: i32, expected: Option<&str>) {
    check(value, expected, |out| put_varint(out, value), |reader| reader.varint());
}

fn check_varlong(least: Least, value: i64, expected: Option<&str>) {
    check(value, expected, |out| put_varlong(out, value, least), |reader| reader.varlong(least));
}

#[test]
fn varints_are_those_of_the_table() {
    let table = [
        (0, "00"),
        (127, "7f"),
        (128, "80 80"),
        (129, "80 81"),
        (255, "80 ff"),
        (256, "81 00"),
        (0x1fe, "81 fe"),
        (0x1280, "92 80"),
        (16383, "bf ff"),
        (16384, "c0 00 40"),
        (2_097_151, "df ff ff"),
        (2_097_152, "e0 00 00 20"),
        (123_456_789, "e7 15 cd 5b"),
        (268_435_456, "f0 00 00 00 10"),
        (2_147_483_647, "f0 ff ff ff 7f"),
        (-1, "f0 ff ff ff ff"),
    ];
    for (value, expected) in table {
        check_varint(value, Some(expected));
    }
}

#[test]
fn varlongs_are_those_of_the_table() {
    let table = [
        (Least::Three, 0, "00 00 00"),
        (Least::Three, 4096, "00 00 10"),
        (Least::Three, 65536, "01 00 00"),
        (Least::Three, 8_388_607, "7f ff ff"),
        (Least::Three, 8_388_608, "80 00 00 80"),
        (Least::Three, 16_777_216, "81 00 00 00"),
        (Least::Three, 5_368_709_127, "c1 07 00 00 40"),
        (Least::Three, -1, "fc ff ff ff ff ff ff ff ff"),
        (Least::Four, 1_704_164_647, "65 27 7d 93"),
        (Least::Four, 2_147_483_648, "80 00 00 00 80"),
        (Least::Four, 4_294_967_301, "81 05 00 00 00"),
        (Least::Four, -1, "f8 ff ff ff ff ff ff ff ff"),
        (Least::Four, -5_000_000_000, "f8 00 0e fa d5 fe ff ff ff"),
    ];
    for (least, value, expected) in table {
        check_varlong(least, value, Some(expected));
    }
}

#[test]
fn first_bytes_without_a_meaning_are_refused() {
    let tail = [0_u8; 16];
    for first in 0..=0xff_u8 {
        let bytes: Vec<u8> = std::iter::once(first).chain(tail).collect();
        let varint = Reader::new(&bytes).varint();
        let four = Reader::new(&bytes).varlong(Least::Four);
        assert_eq!(varint.err(), (first >= 0xf8).then_some(Malformed::Varint(first).into()), "{first:x}");
        assert_eq!(four.err(), (first >= 0xfc).then_some(Malformed::Varlong(first).into()), "{first:x}");
        assert!(Reader::new(&bytes).varlong(Least::Three).is_ok(), "{first:x}");
    }
}

#[test]
fn strings_have_one_or_two_bytes_of_length() {
    for (length, head) in [(0, "00"), (35, "23"), (127, "7f"), (128, "80 80"), (255, "80 ff")] {
        let text = vec![b'x'; length];
        let mut out = Vec::new();
        put_vstring(&mut out, &text).unwrap();
        assert_eq!(out, [hex(head), text.clone()].concat());
        assert_eq!(Reader::new(&out).vstring(), Ok(&text[..]));
        for end in 0..out.len() {
            assert_eq!(Reader::new(&out[..end]).vstring(), Err(ReadError::Incomplete));
        }
    }
    assert_eq!(put_vstring(&mut Vec::new(), &[0; 256]), Err(TooLong(256)));
    assert_eq!(Reader::new(&hex("81 00")).vstring(), Err(Malformed::Vstring(256).into()));
}

fn check_indexes(indexes: &[Index], expected: &str) {
    let (mut out, mut writer) = (Vec::new(), IndexWriter::default());
    for &index in indexes {
        writer.put(&mut out, index).unwrap();
    }
    assert_eq!(out, hex(expected), "{indexes:?}");
}

#[test]
fn indexes_are_those_of_the_examples() {
    use Index::{Directory, Done, File, ListsEnd, Statistics};
    check_indexes(&[File(0), File(1), Done, File(2)], "01 01 00 01");
    check_indexes(&[Done, Statistics, Done], "00 ff 02 00");
    check_indexes(&[File(3), File(1)], "04 fe 80 01 00 00");
    check_indexes(&[File(252), File(506), File(506)], "fd fe 00 fe fe 00 00");
    check_indexes(&[File(0), File(0x7fff), File(0xffff)], "01 fe 7f ff fe 80 ff ff 00");
    check_indexes(&[File(0x7fff_ffff)], "fe ff ff ff ff");
    check_indexes(&[Directory(0), File(0), ListsEnd], "ff 64 01 ff fe 80 02 00 00");
}

#[test]
fn numbers_that_are_no_index_are_refused() {
    let check = |bytes: &str, wrong: Malformed| {
        let mut reader = IndexReader::default();
        assert_eq!(reader.read(&mut Reader::new(&hex(bytes))), Err(wrong.into()), "{bytes}");
        assert_eq!(reader, IndexReader::default(), "a failed read changes nothing");
    };
    check("ff 00", Malformed::IndexByte(0));
    check("ff ff", Malformed::IndexByte(0xff));
    check("fe 00 00", Malformed::Index(-1));
    check("ff fe 00 00", Malformed::Index(-1));
    check("ff fe 80 00 00 00", Malformed::Index(0));
    check("ff 03", Malformed::Index(-4));
    check("ff 63", Malformed::Index(-100));

    let (mut out, mut reader) = (Vec::new(), IndexReader::default());
    IndexWriter::default().put(&mut out, Index::File(0x7fff_ffff)).unwrap();
    reader.read(&mut Reader::new(&out)).unwrap();
    assert_eq!(reader.read(&mut Reader::new(&[1])), Err(Malformed::Index(0x8000_0000).into()));
    assert!(IndexWriter::default().put(&mut out, Index::File(0x8000_0000)).is_err());
}

fn any_index() -> impl Strategy<Value = Index> {
    prop_oneof![
        6 => (0..0x8000_0000_u32).prop_map(Index::File),
        6 => (0..70_000_u32).prop_map(Index::File),
        1 => Just(Index::Done),
        1 => Just(Index::ListsEnd),
        1 => Just(Index::Statistics),
        1 => (0..0x7fff_ff9b_u32).prop_map(Index::Directory),
    ]
}

proptest! {
    #[test]
    fn numbers_come_back(small: i32, large: i64, shift in 0..63_u32) {
        check_varint(small, None);
        check_varint(small >> (shift / 2), None);
        for least in [Least::Three, Least::Four] {
            check_varlong(least, large, None);
            check_varlong(least, large >> shift, None);
        }
        check(small, None, |out| put_int32(out, small), |reader| reader.int32());
        check(small as u16, None, |out| put_u16(out, small as u16), |reader| reader.u16());
    }

    #[test]
    fn indexes_come_back(indexes in prop::collection::vec(any_index(), 0..40)) {
        let (mut writer, mut reader) = (IndexWriter::default(), IndexReader::default());
        for index in indexes {
            let mut out = Vec::new();
            writer.put(&mut out, index).unwrap();
            for end in 0..out.len() {
                prop_assert_eq!(reader.read(&mut Reader::new(&out[..end])), Err(ReadError::Incomplete));
            }
            prop_assert_eq!(reader.read(&mut Reader::new(&out)), Ok(index));
        }
    }

    #[test]
    fn garbage_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let (mut input, mut reader) = (Reader::new(&bytes), IndexReader::default());
        while reader.read(&mut input).is_ok() {}
        let mut input = Reader::new(&bytes);
        while input.varint().is_ok() && input.varlong(Least::Three).is_ok() && input.vstring().is_ok() {}
    }
}
