//! A file list out of any bytes: shared by the fuzz target `rsync_list` and the replay of its corpus.

use std::collections::HashSet;

use rsync_wire::file_list::{
    Entry, FileList, Item, Layout, ListDecoder, ListEncoder, ListEnd, ListError, ListLimits,
};
use rsync_wire::negotiate::{CompatFlags, Protocol};

const LIMITS: ListLimits = ListLimits { entries: 40, bytes: 1 << 16, ids: 10 };

/// Panics if a list depends on how the bytes are cut, holds what could hurt, or does not come back when it is written again.
/// The first two bytes choose the layout, the third how the rest is cut.
pub(crate) fn check(input: &[u8]) {
    let [fields, age, cut, bytes @ ..] = input else { return };
    let layout = layout(*fields, *age);
    let whole = read(layout, [bytes].into_iter());
    assert_eq!(read(layout, bytes.chunks(usize::from(*cut) + 1)), whole);
    let (entries, end) = whole;
    assert!(entries.len() <= LIMITS.entries as usize);
    for Entry { name, .. } in &entries {
        let is_plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && part.len() <= 255;
        assert!(name == b"." || name.split(|&byte| byte == b'/').all(is_plain), "{}", name.escape_ascii());
        assert!(name.len() <= 4095 && !name.contains(&0));
    }
    if let Ok(Some(end)) = &end {
        let mut out = Vec::new();
        let mut encoder = ListEncoder::new(layout);
        for (place, entry) in (0..).zip(&entries) {
            assert_eq!(encoder.put_entry(&mut out, entry), Ok(place), "{entry:?}");
        }
        encoder.put_end(&mut out, end.errors, &end.users, &end.groups).unwrap();
        assert_eq!(read(layout, [&out[..]].into_iter()), (entries.clone(), Ok(Some(end.clone()))));
    }
    assert_ordered(&FileList::new(entries).unwrap());
}

fn layout(fields: u8, age: u8) -> Layout {
    let has = |bit: u8| fields & bit != 0;
    let protocol = [Protocol::V30, Protocol::V31, Protocol::V32, Protocol::V32][usize::from(age & 3)];
    // Safe end, varint flags, names of id 0.
    let flags = i32::from(age & 4) << 1 | i32::from(age & 8) << 4 | i32::from(age & 16) << 4;
    Layout {
        owner: has(1),
        group: has(2),
        devices: has(4),
        links: has(8),
        hard_links: has(16),
        atimes: has(32),
        checksum: has(64).then_some(16),
        numeric_ids: has(128),
        ..Layout::new(protocol, CompatFlags::from_bits(flags))
    }
}

/// The entries, and how they end.
fn read<'a>(
    layout: Layout,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Entry>, Result<Option<ListEnd>, ListError>) {
    let (mut decoder, mut entries) = (ListDecoder::new(layout, LIMITS), Vec::new());
    for mut piece in pieces {
        loop {
            match decoder.next_item(&mut piece) {
                Ok(Some(Item::Entry(entry))) => entries.push(entry),
                Ok(Some(Item::End(end))) => return (entries, Ok(Some(end))),
                Ok(None) => break,
                Err(error) => return (entries, Err(error)),
            }
        }
        assert!(piece.is_empty());
    }
    (entries, Ok(None))
}

/// Entries are in order, of each name one is active, and in a tree it is in an active directory.
fn assert_ordered(list: &FileList) {
    let all: Vec<Entry> = (0..).map_while(|index| list.entry(index)).collect();
    assert!(all.is_sorted_by_key(key));
    let names: HashSet<&[u8]> = all.iter().map(|entry| &entry.name[..]).collect();
    let active: Vec<Entry> = list.active().map(|(_, entry)| entry).collect();
    assert_eq!(active.len(), names.len());
    assert_eq!(active.iter().map(|entry| &entry.name[..]).collect::<HashSet<_>>(), names);
    if list.check_tree().is_ok() {
        let mut directories = HashSet::new();
        for entry in &active {
            if let Some(slash) = entry.name.iter().rposition(|&byte| byte == b'/') {
                assert!(directories.contains(&entry.name[..slash]), "a directory comes before its content");
            }
            if entry.is_directory() {
                directories.insert(&entry.name[..]);
            }
        }
    }
}

/// What entries are ordered by: at each level files before directories, which end with a slash.
fn key(entry: &Entry) -> Vec<(bool, Vec<u8>)> {
    if entry.name == b"." {
        return Vec::new();
    }
    let mut parts: Vec<_> =
        entry.name.split(|&byte| byte == b'/').map(|part| (true, [part, b"/"].concat())).collect();
    if let Some((is_directory, name)) = parts.last_mut().filter(|_| !entry.is_directory()) {
        *is_directory = false;
        name.pop();
    }
    parts
}
