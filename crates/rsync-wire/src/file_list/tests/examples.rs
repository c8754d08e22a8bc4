//! Lists as real clients and servers wrote them.

use super::*;

/// The bytes are those entries, and those entries are the bytes.
fn check(layout: Layout, entries: &[Entry], end: &ListEnd, bytes: &str) {
    let bytes = hex(bytes);
    assert_eq!(encode(layout, entries, end), bytes);
    let followed = [&bytes[..], b"rest"].concat();
    let expected = Ok((items(entries, end.clone()), b"rest".to_vec()));
    assert_eq!(decode(layout, ListLimits::default(), [&followed[..]]), expected);
    assert_eq!(decode(layout, ListLimits::default(), followed.chunks(1)), expected);
}

fn tree() -> Vec<Entry> {
    let second = 1_704_164_645;
    let mut root = entry(".", 0o040_755, 4096, second + 2);
    root.kind = Kind::Directory(Content::Top);
    let mut link = entry("ln", 0o120_777, 5, second + 1);
    link.kind = Kind::Symlink { target: Some(b"a.txt".to_vec()) };
    let sub = entry("sub", 0o040_755, 4096, second + 2);
    let mut a = entry("a.txt", 0o100_644, 6, second);
    a.mtime.nanoseconds = 123_456_789;
    let c = entry("sub/c.txt", 0o100_644, 4, second + 1);
    vec![root, link, sub, a, c]
}

#[test]
fn a_tree_with_varint_flags() {
    let layout = Layout { links: true, ..layout(Protocol::V32, 0x1fe) };
    let bytes = "19 01 2e 00 00 10 65 27 7d 93 ed 41 00 00
        18 02 6c 6e 00 05 00 65 26 7d 93 ff a1 00 00 05 61 2e 74 78 74
        18 03 73 75 62 00 00 10 65 27 7d 93 ed 41 00 00
        a0 18 05 61 2e 74 78 74 00 06 00 65 25 7d 93 e7 15 cd 5b a4 81 00 00
        1a 09 73 75 62 2f 63 2e 74 78 74 00 04 00 65 26 7d 93
        00 00";
    check(layout, &tree(), &ListEnd::default(), bytes);
}

#[test]
fn a_tree_with_classic_flags() {
    let layout = Layout { links: true, ..layout(Protocol::V31, 0x3a) };
    let bytes = "19 01 2e 00 00 10 65 27 7d 93 ed 41 00 00
        18 02 6c 6e 00 05 00 65 26 7d 93 ff a1 00 00 05 61 2e 74 78 74
        18 03 73 75 62 00 00 10 65 27 7d 93 ed 41 00 00
        1c 20 05 61 2e 74 78 74 00 06 00 65 25 7d 93 e7 15 cd 5b a4 81 00 00
        1a 09 73 75 62 2f 63 2e 74 78 74 00 04 00 65 26 7d 93
        00";
    check(layout, &tree(), &ListEnd::default(), bytes);
}

#[test]
fn an_end_with_errors() {
    let end = ListEnd { errors: IoErrors::VANISHED, ..ListEnd::default() };
    check(layout(Protocol::V32, 0x1fe), &[], &end, "00 02");
    check(layout(Protocol::V31, 0x3a), &[], &end, "04 10 02");
    check(layout(Protocol::V30, 0x0a), &[], &end, "04 10 02");
    let none = encode(layout(Protocol::V30, 0), &[], &end);
    assert_eq!(none, [0], "a place for errors is missing");
}

fn links_and_devices() -> (Layout, Vec<Entry>, ListEnd) {
    let second = 1_704_164_646;
    let with = |mut entry: Entry, id: u32| {
        (entry.uid, entry.gid) = (Some(id), Some(id));
        entry
    };
    let mut root = with(entry(".", 0o040_755, 4096, second), 0);
    root.kind = Kind::Directory(Content::Top);
    let mut f1 = with(entry("f1", 0o100_644, 2, second), 33);
    f1.link = Link::Leader;
    let pipe = with(entry("p", 0o010_644, 0, second), 0);
    let f2 = Entry { name: b"f2".to_vec(), link: Link::Follower(1), ..f1.clone() };
    let mut null = with(entry("null", 0o020_644, 0, second), 0);
    null.kind = Kind::CharDevice(Some(Device { major: 1, minor: 3 }));
    let names = vec![Id { number: 33, name: b"www-data".to_vec() }, Id { number: 0, name: b"root".to_vec() }];
    let end = ListEnd { users: names.clone(), groups: names, ..ListEnd::default() };
    let layout = Layout {
        owner: true,
        group: true,
        devices: true,
        links: true,
        hard_links: true,
        ..layout(Protocol::V32, 0x1fe)
    };
    (layout, vec![root, f1, pipe, f2, null], end)
}

#[test]
fn ids_hard_links_and_devices() {
    let (layout, entries, end) = links_and_devices();
    let bytes = "01 01 2e 00 00 10 65 26 7d 93 ed 41 00 00 00 00
        92 80 02 66 31 00 02 00 a4 81 00 00 21 21
        80 80 01 70 00 00 00 a4 11 00 00 00 00
        82 80 02 66 32 01
        80 80 04 6e 75 6c 6c 00 00 00 a4 21 00 00 00 00 01 03
        00 00
        21 08 77 77 77 2d 64 61 74 61 00 04 72 6f 6f 74
        21 08 77 77 77 2d 64 61 74 61 00 04 72 6f 6f 74";
    check(layout, &entries, &end, bytes);
}

#[test]
fn a_fifo_has_a_filler_in_protocol_30() {
    let (layout, entries, _) = links_and_devices();
    let layout = Layout { protocol: Protocol::V30, flags: CompatFlags::from_bits(0x0a), ..layout };
    let bytes = "01 01 2e 00 00 10 65 26 7d 93 ed 41 00 00 00 00
        84 12 02 66 31 00 02 00 a4 81 00 00 21 21
        84 01 01 70 00 00 00 a4 11 00 00 00 00 00
        00 00 00";
    check(layout, &entries[..3], &ListEnd::default(), bytes);
}

#[test]
fn an_entry_with_no_flag_has_a_filler() {
    let with_ids = |name: &str, mode, id| {
        let (uid, gid) = (Some(id), Some(id));
        Entry { uid, gid, ..entry(name, mode, 0, i64::from(id)) }
    };
    let entries = [with_ids("d", 0o040_700, 1), with_ids("f", 0o100_600, 2)];
    let classic = Layout { owner: true, group: true, numeric_ids: true, ..layout(Protocol::V31, 0) };
    let bytes = "04 00 01 64 00 00 00 00 01 00 00 c0 41 00 00 01 01
        01 01 66 00 00 00 00 02 00 00 80 81 00 00 02 02
        00";
    check(classic, &entries, &ListEnd::default(), bytes);
    let varint = Layout { flags: CompatFlags::from_bits(0x80), ..classic };
    let bytes = "04 01 64 00 00 00 00 01 00 00 c0 41 00 00 01 01
        04 01 66 00 00 00 00 02 00 00 80 81 00 00 02 02
        00 00";
    check(varint, &entries, &ListEnd::default(), bytes);
}
