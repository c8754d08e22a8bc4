mod examples;
mod order;
mod properties;
mod refusals;

use super::*;
use crate::io_errors::IoErrors;

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn layout(protocol: Protocol, flags: i32) -> Layout {
    Layout::new(protocol, CompatFlags::from_bits(flags))
}

fn entry(name: &str, mode: u32, size: u64, seconds: i64) -> Entry {
    Entry {
        name: name.into(),
        size,
        mtime: Time { seconds, nanoseconds: 0 },
        permissions: (mode & 0o7777) as u16,
        kind: Kind::from_mode(mode).unwrap(),
        atime: None,
        uid: None,
        gid: None,
        link: Link::Single,
    }
}

/// All items of `pieces`, and what was left after the end.
fn decode<'a>(
    layout: Layout,
    limits: ListLimits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Vec<Item>, Vec<u8>), ListError> {
    let mut decoder = ListDecoder::new(layout, limits);
    let (mut items, mut left) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        while let Some(item) = decoder.next_item(&mut piece)? {
            items.push(item);
        }
        assert!(piece.is_empty() || decoder.is_ended());
        left.extend_from_slice(piece);
    }
    Ok((items, left))
}

fn items(entries: &[Entry], end: ListEnd) -> Vec<Item> {
    entries.iter().cloned().map(Item::Entry).chain([Item::End(end)]).collect()
}

fn encode(layout: Layout, entries: &[Entry], end: &ListEnd) -> Vec<u8> {
    let (mut out, mut encoder) = (Vec::new(), ListEncoder::new(layout));
    for (place, entry) in (0..).zip(entries) {
        assert_eq!(encoder.put_entry(&mut out, entry), Ok(place), "{entry:?}");
    }
    encoder.put_end(&mut out, end.errors, &end.users, &end.groups).unwrap();
    out
}
