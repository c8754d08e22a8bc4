//! Lists no honest server sends, and entries no client should.

use super::*;
use crate::varint::Malformed;

fn check(layout: Layout, bytes: &str, expected: ListError) {
    let bytes = hex(bytes);
    assert_eq!(decode(layout, ListLimits::default(), [&bytes[..]]), Err(expected), "{bytes:x?}");
    assert_eq!(decode(layout, ListLimits::default(), bytes.chunks(1)), Err(expected), "{bytes:x?}");
}

fn varint() -> Layout {
    layout(Protocol::V32, 0x1fe)
}

#[test]
fn names_that_leave_the_tree_are_refused() {
    for (name, expected) in [
        (&b""[..], NameError::Empty),
        (b"/etc/passwd", NameError::Absolute),
        (b"/", NameError::Absolute),
        (b"..", NameError::Climbs),
        (b"../a", NameError::Climbs),
        (b"a/../b", NameError::Climbs),
        (b"a/..", NameError::Climbs),
        (b"a//b", NameError::NotPlain),
        (b"a/", NameError::NotPlain),
        (b"./a", NameError::NotPlain),
        (b"a/.", NameError::NotPlain),
        (b"a\0b", NameError::Nul),
        (&[b'x'; 256], NameError::TooLong),
    ] {
        let mut bytes = if name.len() < 256 { vec![0x18, name.len() as u8] } else { hex("58 81 00") };
        bytes.extend_from_slice(name);
        bytes.extend(hex("00 00 00 00 00 00 00 a4 81 00 00"));
        let found = decode(varint(), ListLimits::default(), [&bytes[..]]);
        assert_eq!(found, Err(ListError::Name(expected)), "{name:?}");
        let entry = Entry { name: name.to_vec(), ..entry("x", 0o100_644, 0, 0) };
        let refused = ListEncoder::new(varint()).put_entry(&mut Vec::new(), &entry);
        assert_eq!(refused, Err(EncodeError::Name(expected)));
    }
    for name in ["...", "..a", ".a", "a..", "-", "a\\b", "\x01"] {
        let entry = entry(name, 0o100_644, 0, 0);
        assert_eq!(ListEncoder::new(varint()).put_entry(&mut Vec::new(), &entry), Ok(0));
    }
}

#[test]
fn fields_out_of_range_are_refused() {
    let linked = Layout { links: true, hard_links: true, ..varint() };
    check(varint(), "58 90 00", ListError::Name(NameError::TooLong));
    check(varint(), "58 f0 ff ff ff ff", ListError::Name(NameError::TooLong));
    check(varint(), "38 01", ListError::Prefix { shared: 1, length: 0 });
    check(varint(), "18 01 61 fc ff ff ff ff ff ff ff ff", ListError::Range("size"));
    check(varint(), "a0 98 01 61 00 00 00 f0 00 ca 9a 3b", ListError::Range("nanoseconds"));
    check(varint(), "a0 98 01 61 00 00 00 f0 ff ff ff ff", ListError::Range("nanoseconds"));
    check(varint(), "80 9a 01 61 00 00 00", ListError::Mode(0));
    check(varint(), "80 98 01 61 00 00 00 a4 81 01 00", ListError::Mode(0o300_644));
    check(varint(), "80 98 01 2e 00 00 00 a4 81 00 00", ListError::Root);
    check(linked, "80 98 01 61 00 00 00 ff a1 00 00 00", ListError::Range("length of a symlink's target"));
    check(linked, "80 98 01 61 00 00 00 ff a1 00 00 90 00", ListError::Range("length of a symlink's target"));
    check(linked, "80 98 01 61 00 00 00 ff a1 00 00 02 61 00", ListError::Range("symlink's target"));
    check(varint(), "f8", ListError::Malformed(Malformed::Varint(0xf8)));
}

#[test]
fn hard_links_without_a_leader_are_refused() {
    let linked = Layout { hard_links: true, ..varint() };
    check(linked, "82 98 01 61 00", ListError::Leader(0));
    check(linked, "82 98 01 61 f0 ff ff ff ff", ListError::Leader(-1));
    let single = "80 98 01 61 00 00 00 a4 81 00 00";
    check(linked, &format!("{single} 82 98 01 62 00"), ListError::Leader(0));
    let leader = "92 98 01 61 00 00 00 a4 81 00 00";
    check(linked, &format!("{leader} 82 98 01 2e 00"), ListError::Root);
    check(linked, &format!("{leader} 82 98 02 2e 2e 00"), ListError::Name(NameError::Climbs));
    check(linked, "92 98 01 61 00 00 00 ed 41 00 00", ListError::LinkedDirectory);
}

#[test]
fn flags_of_fields_nobody_asked_for_are_refused() {
    check(varint(), "82 98", ListError::Flags(0x200));
    check(varint(), "84 98", ListError::Flags(0x400));
    check(varint(), "88 98", ListError::Flags(0x800));
    check(varint(), "c2 18 00", ListError::Flags(0x20000));
    check(layout(Protocol::V30, 0x80), "a0 18", ListError::Flags(0x2000));
    check(layout(Protocol::V30, 0), "04 20", ListError::Flags(0x2000));
}

#[test]
fn lists_beyond_a_limit_are_refused() {
    let bytes: Vec<u8> = std::iter::repeat_n(hex("80 98 01 61 00 00 00 a4 81 00 00"), 3).flatten().collect();
    let limited = |limits| decode(varint(), limits, [&bytes[..]]);
    let limits = ListLimits::default();
    assert!(limited(ListLimits { entries: 3, ..limits }).is_ok());
    assert_eq!(limited(ListLimits { entries: 2, ..limits }), Err(ListError::TooMany("entries")));
    let each = (size_of::<Entry>() + 1) as u64;
    assert!(limited(ListLimits { bytes: 3 * each, ..limits }).is_ok());
    assert_eq!(limited(ListLimits { bytes: 3 * each - 1, ..limits }), Err(ListError::TooMany("bytes")));

    let named = Layout { owner: true, group: true, ..varint() };
    let bytes = hex("00 00 01 01 61 00 00 01 01 61 00 01 62");
    let limited = |ids| decode(named, ListLimits { ids, ..limits }, [&bytes[..]]);
    assert!(limited(3).is_ok());
    assert_eq!(limited(2), Err(ListError::TooMany("names of ids")));
}

#[test]
fn entries_without_a_field_of_the_layout_are_not_written() {
    let all = Layout {
        owner: true,
        group: true,
        devices: true,
        links: true,
        atimes: true,
        checksum: Some(16),
        ..varint()
    };
    let check = |layout: Layout, entry: Entry, expected: EncodeError| {
        let (mut out, mut encoder) = (Vec::new(), ListEncoder::new(layout));
        assert_eq!(encoder.put_entry(&mut out, &entry), Err(expected));
        assert_eq!(out, [], "a failed call writes nothing");
    };
    let file = Entry { atime: Some(0), uid: Some(0), gid: Some(0), ..entry("a", 0o100_644, 0, 0) };
    check(all, Entry { uid: None, ..file.clone() }, EncodeError::Missing("uid"));
    check(all, Entry { gid: None, ..file.clone() }, EncodeError::Missing("gid"));
    check(all, Entry { atime: None, ..file.clone() }, EncodeError::Missing("atime"));
    check(all, file.clone(), EncodeError::Missing("checksum"));
    let short = Kind::File { checksum: Some(vec![0; 8]) };
    check(all, Entry { kind: short, ..file.clone() }, EncodeError::Range("checksum"));
    let device = Kind::BlockDevice(None);
    check(all, Entry { kind: device, ..file.clone() }, EncodeError::Missing("device number"));
    let symlink = |target: Option<&[u8]>| Kind::Symlink { target: target.map(<[u8]>::to_vec) };
    check(all, Entry { kind: symlink(None), ..file.clone() }, EncodeError::Missing("target"));
    check(all, Entry { kind: symlink(Some(b"")), ..file.clone() }, EncodeError::Range("target"));
    check(varint(), Entry { size: 1 << 63, ..file.clone() }, EncodeError::Range("size"));
    check(varint(), Entry { permissions: 0o10_000, ..file.clone() }, EncodeError::Range("permissions"));
    let mtime = Time { seconds: 0, nanoseconds: 1_000_000_000 };
    check(varint(), Entry { mtime, ..file.clone() }, EncodeError::Range("nanoseconds"));
    check(varint(), Entry { name: b".".to_vec(), ..file.clone() }, EncodeError::Root);
    let linked = Layout { hard_links: true, ..varint() };
    check(linked, Entry { link: Link::Follower(0), ..file }, EncodeError::Leader(0));
}
