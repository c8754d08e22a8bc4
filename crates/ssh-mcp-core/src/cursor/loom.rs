//! Stories of cursors under every interleaving; the numbers are those of `docs/lifecycle.md` part 6.

use std::{ops::Range, sync::Arc};

use loom::thread;

use super::Cursor;
use crate::history::{ByteHistory, Origin};

/// One peer's cursor on one history.
struct Peer {
    cursor: Cursor,
    history: ByteHistory,
}

impl Peer {
    fn with(bytes: &[u8]) -> Arc<Self> {
        let history = ByteHistory::new(16);
        history.append(Origin::Stdout, bytes);
        Arc::new(Self { cursor: Cursor::new(), history })
    }

    /// An automatic read of at most `max` bytes.
    fn read_on(&self, max: usize) -> (Range<u64>, Vec<u8>) {
        let mut bytes = Vec::new();
        let (start, end) = self.cursor.claim(|from| {
            let window = self.history.read(from, max);
            bytes = window.bytes;
            (window.start, window.next)
        });
        (start..end, bytes)
    }

    /// An explicit read; the automatic cursor follows if it can.
    fn read_from(&self, from: u64, max: usize) -> Range<u64> {
        let window = self.history.read(from, max);
        self.cursor.advance_contiguous(from, window.next);
        window.start..window.next
    }
}

fn spawn<T: 'static>(peer: &Arc<Peer>, act: impl FnOnce(&Peer) -> T + 'static) -> thread::JoinHandle<T> {
    let peer = Arc::clone(peer);
    thread::spawn(move || act(&peer))
}

/// lifecycle 6.4
#[test]
fn two_automatic_reads_share_the_bytes_without_overlap_or_hole() {
    loom::model(|| {
        let peer = Peer::with(b"abcd");
        let other = spawn(&peer, |peer| peer.read_on(3));
        let appender = spawn(&peer, |peer| peer.history.append(Origin::Stderr, b"ef"));
        let mut reads = [peer.read_on(3), other.join().unwrap()];
        appender.join().unwrap();
        reads.sort_by_key(|(range, _)| range.start);
        let [(first, head), (second, tail)] = reads;
        assert_eq!((first.start, first.end), (0, second.start));
        assert_eq!(second.end, peer.cursor.value());
        let both = [head, tail].concat();
        assert_eq!(both, b"abcdef"[..both.len()]);
        assert_eq!(u64::try_from(both.len()).unwrap(), second.end);
    });
}

/// lifecycle 6.5
#[test]
fn the_automatic_cursor_passes_only_what_was_returned() {
    // Before, at and beyond what the automatic read takes.
    for from in [0, 1, 3] {
        loom::model(move || {
            let peer = Peer::with(b"abcdef");
            let explicit = spawn(&peer, move |peer| peer.read_from(from, 2));
            let looker = spawn(&peer, |peer| (peer.cursor.value(), peer.cursor.value()));
            let (automatic, bytes) = peer.read_on(2);
            let explicit = explicit.join().unwrap();
            let (earlier, later) = looker.join().unwrap();
            assert!(earlier <= later);
            assert_eq!(bytes, b"abcdef"[automatic.start as usize..automatic.end as usize]);
            let reached = peer.cursor.value();
            assert!(later <= reached && automatic.end <= reached);
            for at in 0..reached {
                assert!(automatic.contains(&at) || explicit.contains(&at), "byte {at} skipped");
            }
        });
    }
}

/// lifecycle 6.6
#[test]
fn of_two_advances_the_larger_stays() {
    loom::model(|| {
        let peer = Peer::with(b"");
        let far = spawn(&peer, |peer| peer.cursor.advance_contiguous(0, 5));
        let near = spawn(&peer, |peer| peer.cursor.advance_contiguous(0, 3));
        let (earlier, later) = (peer.cursor.value(), peer.cursor.value());
        assert!(earlier <= later);
        far.join().unwrap();
        near.join().unwrap();
        assert_eq!(peer.cursor.value(), 5);
    });
}
