//! A sender that is asked by any bytes: shared by the fuzz target `rsync_sender` and the replay of its corpus.

use rsync_wire::checksum::Hasher;
use rsync_wire::delta::{Op, Search};
use rsync_wire::file_list::{Content, Entry, FileList, Kind, Link, Time};
use rsync_wire::io_errors::IoErrors;
use rsync_wire::mux::Multiplexer;
use rsync_wire::role::{Ask, Request, RoleError, Sender};

use super::roles::terms;

/// Panics if what is sent depends on how the bytes are cut, or if a file is asked for that is none or more than twice. The first
/// byte chooses the terms, the second how the rest is cut.
pub(crate) fn check(input: &[u8]) {
    let [which, cut, bytes @ ..] = input else { return };
    let whole = serve(*which, [bytes].into_iter());
    assert_eq!(serve(*which, bytes.chunks(usize::from(*cut) + 1)), whole);
    for index in 0..ENTRIES {
        let asked = whole.asks.iter().filter(|ask| **ask == format!("file {index}")).count();
        assert!(asked <= if FILES.contains(&index) { 2 } else { 0 });
    }
}

/// `.`, `a`, `b`, a link, and a directory.
const ENTRIES: u32 = 5;
const FILES: [u32; 2] = [1, 2];

fn list() -> FileList {
    let entry = |name: &str, kind| Entry {
        name: name.into(),
        size: 3000,
        mtime: Time::default(),
        permissions: 0o644,
        kind,
        atime: None,
        uid: None,
        gid: None,
        link: Link::Single,
    };
    FileList::new([
        entry(".", Kind::Directory(Content::Top)),
        entry("a", Kind::File { checksum: None }),
        entry("b", Kind::File { checksum: None }),
        entry("c", Kind::Symlink { target: Some(b"a".to_vec()) }),
        entry("d", Kind::Directory(Content::Listed)),
    ])
    .unwrap()
}

#[derive(Debug, PartialEq, Eq, Default)]
struct Served {
    asks: Vec<String>,
    sent: Vec<u8>,
    error: Option<RoleError>,
}

fn serve<'a>(which: u8, pieces: impl Iterator<Item = &'a [u8]>) -> Served {
    let (list, mut out, mut served) = (list(), Multiplexer::default(), Served::default());
    let mut sender = Sender::new(terms(which), &list, None).unwrap();
    'all: for mut piece in pieces {
        loop {
            match sender.next_ask(&mut piece, &mut out) {
                Ok(None) => break,
                Ok(Some(Ask::File(request))) => {
                    served.asks.push(format!("file {}", request.index));
                    send(&mut sender, *request, &mut out);
                }
                Ok(Some(ask)) => served.asks.push(format!("{ask:?}")),
                Err(error) => {
                    served.error = Some(error);
                    break 'all;
                }
            }
        }
        assert!(piece.is_empty() || sender.is_finished());
    }
    served.sent = out.take();
    served
}

/// The first file is sent, of the second every other time it is said that it cannot be.
fn send(sender: &mut Sender, request: Request, out: &mut Multiplexer) {
    if request.index == 2 && request.append_from % 2 == 1 {
        return sender.refuse(&request, IoErrors::VANISHED, out);
    }
    let file: Vec<u8> = (0..3000_u32).map(|at| (at / 100) as u8).collect();
    let file = &file[(request.append_from as usize).min(file.len())..];
    sender.begin(&request, out).unwrap();
    let hash = sender.block_hash();
    let mut hasher = Hasher::new(hash.algorithm);
    hasher.update(file);
    let mut search = Search::new(request.sums, hash, request.basis);
    search.push(file);
    search.finish();
    while let Some(op) = search.next_op() {
        match op {
            Op::Literal(bytes) => sender.literal(bytes, out).unwrap(),
            Op::Match(block) => sender.matched(block, out).unwrap(),
        }
    }
    sender.end(hasher.finish(), out).unwrap();
}
