//! What holds for all lists.

use proptest::prelude::*;

use super::*;

fn any_layout() -> impl Strategy<Value = Layout> {
    let protocol = prop::sample::select(&[Protocol::V30, Protocol::V31, Protocol::V32][..]);
    let checksum = prop::sample::select(&[None, Some(16), Some(20)][..]);
    (protocol, 0..8_usize, any::<[bool; 7]>(), checksum).prop_map(|(protocol, flags, letters, checksum)| {
        let flags = [0, 0x80, 0x08, 0x88, 0x100, 0x180, 0x108, 0x188][flags];
        let [owner, group, devices, links, hard_links, atimes, numeric_ids] = letters;
        let plain = layout(protocol, flags);
        Layout { owner, group, devices, links, hard_links, atimes, checksum, numeric_ids, ..plain }
    })
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(&b"abc.\x01\xff"[..]);
    let component = prop_oneof![
        8 => prop::collection::vec(byte.clone(), 1..4),
        1 => prop::collection::vec(byte, 200..256),
    ];
    let names = prop_oneof![
        8 => prop::collection::vec(component, 1..4).prop_map(|parts| parts.join(&b'/')),
        1 => Just(vec![b"x".repeat(255); 15].join(&b'/')),
        1 => Just(b".".to_vec()),
    ];
    names.prop_filter("plain", |name| name::check(name).is_ok())
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let device = (prop::sample::select(&[0, 1, 8, u32::MAX][..]), any::<u32>())
        .prop_map(|(major, minor)| Some(Device { major, minor }));
    let content =
        prop::sample::select(&[Content::Top, Content::Listed, Content::Unlisted, Content::Implied][..]);
    prop_oneof![
        content.prop_map(Kind::Directory),
        prop::collection::vec(any::<u8>(), 20).prop_map(|digest| Kind::File { checksum: Some(digest) }),
        prop::collection::vec(1..=0xff_u8, 1..300).prop_map(|target| Kind::Symlink { target: Some(target) }),
        device.clone().prop_map(Kind::BlockDevice),
        device.prop_map(Kind::CharDevice),
        Just(Kind::Fifo),
        Just(Kind::Socket),
    ]
}

fn any_seconds() -> impl Strategy<Value = i64> {
    prop_oneof![0..3_i64, Just(-5_000_000_000), Just((1 << 32) + 12345), any::<i64>()]
}

/// An entry with all fields; it may follow the leader at this place among the leaders before it.
fn any_entry() -> impl Strategy<Value = (Entry, Option<prop::sample::Index>)> {
    let ids = || prop_oneof![0..3_u32, any::<u32>()].prop_map(Some);
    let nanoseconds = prop_oneof![Just(0), 0..1_000_000_000_u32];
    let size = prop_oneof![0..5000_u64, 0..1_u64 << 63];
    let link = prop::sample::select(&[Link::Single, Link::Leader][..]);
    let values = (any_name(), size, any_seconds(), nanoseconds, any_kind());
    let permissions = prop_oneof![Just(0o644_u16), 0..0o10_000_u16];
    let rest = (permissions, any_seconds().prop_map(Some), ids(), ids(), link);
    (values, rest, any::<Option<prop::sample::Index>>()).prop_map(|(values, rest, follows)| {
        let (name, size, seconds, nanoseconds, kind) = values;
        let (permissions, atime, uid, gid, link) = rest;
        let mtime = Time { seconds, nanoseconds };
        (Entry { name, size, mtime, permissions, kind, atime, uid, gid, link }, follows)
    })
}

/// The entries as a layout can express them.
fn expressible(layout: &Layout, entries: Vec<(Entry, Option<prop::sample::Index>)>) -> Vec<Entry> {
    let mut known: Vec<Entry> = Vec::new();
    for (mut entry, follows) in entries {
        if entry.name == b"." && !entry.is_directory() {
            entry.name = b"root".to_vec();
        }
        let is_leader = |&place: &u32| known[place as usize].link == Link::Leader;
        let leaders: Vec<u32> = (0..known.len() as u32).filter(is_leader).collect();
        if let (Some(follows), false) = (follows, leaders.is_empty()) {
            let leader = leaders[follows.index(leaders.len())];
            let name = if entry.name == b"." { b"root".to_vec() } else { entry.name };
            known.push(Entry { name, link: Link::Follower(leader), ..known[leader as usize].clone() });
            continue;
        }
        if !layout.hard_links || entry.is_directory() {
            entry.link = Link::Single;
        }
        if layout.protocol == Protocol::V30 {
            entry.mtime.nanoseconds = 0;
        }
        if !layout.atimes || entry.is_directory() {
            entry.atime = None;
        }
        entry.uid = entry.uid.filter(|_| layout.owner);
        entry.gid = entry.gid.filter(|_| layout.group);
        match &mut entry.kind {
            Kind::File { checksum } => {
                *checksum =
                    checksum.take().zip(layout.checksum).map(|(digest, length)| digest[..length].to_vec());
            }
            Kind::Symlink { target } if !layout.links => *target = None,
            Kind::BlockDevice(device) | Kind::CharDevice(device) if !layout.devices => *device = None,
            Kind::Symlink { .. } | Kind::BlockDevice(_) | Kind::CharDevice(_) => {}
            Kind::Directory(_) | Kind::Fifo | Kind::Socket => {}
        }
        known.push(entry);
    }
    known
}

fn any_ids() -> impl Strategy<Value = Vec<Id>> {
    let id = (1..=u32::MAX, prop::collection::vec(any::<u8>(), 0..256));
    let root = prop::option::of(prop::collection::vec(any::<u8>(), 1..256));
    (prop::collection::vec(id, 0..4), root).prop_map(|(ids, root)| {
        ids.into_iter().chain(root.map(|name| (0, name))).map(|(number, name)| Id { number, name }).collect()
    })
}

fn any_end() -> impl Strategy<Value = ListEnd> {
    (0..8, any_ids(), any_ids()).prop_map(|(errors, users, groups)| ListEnd {
        errors: IoErrors::from_bits(errors),
        users,
        groups,
    })
}

/// The end as a layout can express it.
fn expressible_end(layout: &Layout, mut end: ListEnd) -> ListEnd {
    if !layout.flags.has_varint_flags() && !layout.has_safe_end() {
        end.errors = IoErrors::NONE;
    }
    for (is_sent, ids) in [(layout.owner, &mut end.users), (layout.group, &mut end.groups)] {
        let (is_sent, has_root) = (is_sent && !layout.numeric_ids, layout.flags.has_names_of_id_0());
        ids.retain(|id| is_sent && (id.number != 0 || has_root));
    }
    end
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn lists_come_back_however_they_are_cut(
        layout in any_layout(),
        entries in prop::collection::vec(any_entry(), 0..12),
        end in any_end(),
        length in 1..40_usize,
    ) {
        let entries = expressible(&layout, entries);
        let end = expressible_end(&layout, end);
        let bytes = encode(layout, &entries, &end);
        let followed = [&bytes[..], b"rest"].concat();
        let expected = Ok((items(&entries, end), b"rest".to_vec()));
        let limits = ListLimits::default();
        prop_assert_eq!(&decode(layout, limits, [&followed[..]]), &expected);
        prop_assert_eq!(&decode(layout, limits, followed.chunks(length)), &expected);
        prop_assert_eq!(&decode(layout, limits, followed.chunks(1)), &expected);
    }

    #[test]
    fn a_cut_list_is_not_ended(
        layout in any_layout(),
        entries in prop::collection::vec(any_entry(), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let entries = expressible(&layout, entries);
        let bytes = encode(layout, &entries, &ListEnd::default());
        let mut decoder = ListDecoder::new(layout, ListLimits::default());
        let mut input = &bytes[..cut.index(bytes.len())];
        let mut at = 0;
        while let Some(item) = decoder.next_item(&mut input).unwrap() {
            prop_assert_eq!(item, Item::Entry(entries[at].clone()));
            at += 1;
        }
        prop_assert!(!decoder.is_ended());
    }

    #[test]
    fn garbage_ends_the_same_however_it_is_cut(
        layout in any_layout(),
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0..4_u8, Just(0x41), Just(0x81)], 0..400),
        length in 1..40_usize,
    ) {
        let limits = ListLimits { entries: 5, bytes: 4000, ids: 3 };
        let whole = decode(layout, limits, [&bytes[..]]);
        prop_assert_eq!(&decode(layout, limits, bytes.chunks(length)), &whole);
        if let Ok((items, _)) = whole {
            prop_assert!(items.len() <= 6);
        }
    }

    #[test]
    fn a_spoiled_list_ends_the_same_however_it_is_cut(
        layout in any_layout(),
        entries in prop::collection::vec(any_entry(), 1..5),
        spoil in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        length in 1..40_usize,
    ) {
        let entries = expressible(&layout, entries);
        let mut bytes = encode(layout, &entries, &ListEnd::default());
        for (at, byte) in spoil {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let limits = ListLimits::default();
        prop_assert_eq!(decode(layout, limits, [&bytes[..]]), decode(layout, limits, bytes.chunks(length)));
    }
}
