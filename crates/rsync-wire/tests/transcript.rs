//! The beginning of a transfer as a real client and server wrote it, through all machines in turn.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test: helpers are not known to be one")]

use rsync_wire::checksum::Algorithm;
use rsync_wire::command::{Options, Recursion};
use rsync_wire::file_list::{FileList, Item, Kind, ListDecoder, ListLimits};
use rsync_wire::filter::{Excluded, ServerRole, put_filter_list};
use rsync_wire::mux::{Demultiplexer, Event, MessageLimits, Multiplexer};
use rsync_wire::negotiate::{Handshake, Protocol};
use rsync_wire::varint::{Index, IndexReader, IndexWriter, Reader};

/// From the version to the echo of the first request.
const FROM_SERVER: &str = "20 00 00 00 81 fe
    23 78 78 68 31 32 38 20 78 78 68 33 20 78 78 68 36 34 20 6d 64 35 20 6d 64 34 20 73 68 61 31 20 6e 6f 6e 65
    01 00 00 00
    5e 00 00 07
    19 01 2e 00 00 10 65 27 7d 93 ed 41 00 00
    18 02 6c 6e 00 05 00 65 26 7d 93 ff a1 00 00 05 61 2e 74 78 74
    18 03 73 75 62 00 00 10 65 27 7d 93 ed 41 00 00
    a0 18 05 61 2e 74 78 74 00 06 00 65 25 7d 93 e7 15 cd 5b a4 81 00 00
    1a 09 73 75 62 2f 63 2e 74 78 74 00 04 00 65 26 7d 93
    00 00
    03 00 00 07 01 00 60";

/// Version, checksum, empty filter list, first request.
const FROM_CLIENT: &str = "20 00 00 00 06 78 78 68 31 32 38
    07 00 00 07 00 00 00 00 01 00 60";

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn check(length: usize) {
    let options = Options { recursion: Recursion::Recursive, links: true, times: true, ..Options::default() };
    let mut out = Vec::new();
    let mut handshake =
        Handshake::start(options.to_offer(Protocol::V32, &[Algorithm::Xxh128], &[]), &mut out);
    let mut frames = Demultiplexer::new(MessageLimits::default());
    let mut agreed = None;
    let mut decoder = None;
    let (mut entries, mut end, mut after) = (Vec::new(), None, Vec::new());

    for mut piece in hex(FROM_SERVER).chunks(length) {
        if agreed.is_none() {
            agreed = handshake.on_bytes(&mut piece, &mut out).unwrap();
        }
        let Some(agreed) = agreed else { continue };
        let decoder = decoder
            .get_or_insert_with(|| ListDecoder::new(options.to_layout(&agreed), ListLimits::default()));
        while let Some(event) = frames.next_event(&mut piece).unwrap() {
            let Event::Data(mut data) = event else { panic!("no message was sent") };
            while let Some(item) = decoder.next_item(&mut data).unwrap() {
                match item {
                    Item::Entry(entry) => entries.push(entry),
                    Item::End(found) => end = Some(found),
                }
            }
            after.extend_from_slice(data);
        }
    }

    assert_eq!(agreed.map(|agreed| (agreed.protocol, agreed.seed)), Some((Protocol::V32, 1)));
    assert!(end.unwrap().errors.is_empty());
    let list = FileList::new(&entries).unwrap();
    list.check_tree().unwrap();
    let names: Vec<Vec<u8>> = list.active().map(|(_, entry)| entry.name).collect();
    assert_eq!(names, [&b"."[..], b"a.txt", b"ln", b"sub", b"sub/c.txt"]);
    assert_eq!(list.entry(2).unwrap().kind, Kind::Symlink { target: Some(b"a.txt".to_vec()) });
    let mut record = Reader::new(&after);
    assert_eq!(IndexReader::default().read(&mut record), Ok(Index::File(0)));
    assert_eq!(record.u16(), Ok(0x6000));

    let mut data = Vec::new();
    put_filter_list(&mut data, &[], ServerRole::Sender, Excluded::Kept).unwrap();
    IndexWriter::default().put(&mut data, Index::File(0)).unwrap();
    data.extend([0, 0x60]);
    let mut multiplexer = Multiplexer::default();
    multiplexer.put_data(&data);
    out.append(&mut multiplexer.take());
    assert_eq!(out, hex(FROM_CLIENT));
}

#[test]
fn a_download_begins_as_it_does_with_a_real_server() {
    for length in [1, 2, 3, 7, 50, 1000] {
        check(length);
    }
}
