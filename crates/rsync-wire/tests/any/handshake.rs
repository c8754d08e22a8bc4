//! A handshake with any bytes: shared by the fuzz target `rsync_handshake` and the replay of its corpus.

use rsync_wire::checksum::Algorithm;
use rsync_wire::negotiate::{Agreed, Choice, Compressor, Handshake, HandshakeError, Offer, Protocol};

/// Panics if what is agreed on depends on how the bytes are cut, or was not offered. The first byte chooses the offer, the
/// second how the rest is cut.
pub(crate) fn check(input: &[u8]) {
    let [which, cut, bytes @ ..] = input else { return };
    let offer = offer(*which);
    let whole = shake(&offer, [bytes].into_iter());
    assert_eq!(shake(&offer, bytes.chunks(usize::from(*cut) + 1)), whole);
    let (result, _, answers) = whole;
    assert!(answers.len() <= 4 + 2 * 8, "{answers:?}");
    if let Ok(Some(agreed)) = result {
        assert!(agreed.protocol <= offer.newest);
        assert!(!agreed.flags.has_incremental_recursion());
        assert_eq!(agreed.compressor.is_some(), offer.compressor.is_some());
    }
}

fn offer(which: u8) -> Offer {
    let has = |bit: u8| which & bit != 0;
    Offer {
        newest: [Protocol::V30, Protocol::V31, Protocol::V32, Protocol::V32][usize::from(which & 3)],
        checksum: match has(4) {
            true => Choice::Passed(Algorithm::Md5),
            false => Choice::Negotiated(vec![Algorithm::Xxh128, Algorithm::Md5]),
        },
        compressor: has(8).then(|| match has(16) {
            true => Choice::Passed(Compressor::Lz4),
            false => Choice::Negotiated(vec![Compressor::Zstd, Compressor::Lz4, Compressor::Zlibx]),
        }),
    }
}

type Shaken = (Result<Option<Agreed>, HandshakeError>, usize, Vec<u8>);

/// What came of it, after how many bytes, and what was answered.
fn shake<'a>(offer: &Offer, pieces: impl Iterator<Item = &'a [u8]>) -> Shaken {
    let (mut out, mut used) = (Vec::new(), 0);
    let mut handshake = Handshake::start(offer.clone(), &mut out);
    for piece in pieces {
        let mut rest = piece;
        let result = handshake.on_bytes(&mut rest, &mut out);
        used += piece.len() - rest.len();
        match result {
            Ok(None) => assert!(rest.is_empty()),
            // How many of the first bytes are shown depends on how many had come.
            Err(HandshakeError::NotRsync { mut first }) => {
                first.truncate(4);
                return (Err(HandshakeError::NotRsync { first }), used, out);
            }
            end @ (Ok(Some(_)) | Err(_)) => return (end, used, out),
        }
    }
    (Ok(None), used, out)
}
