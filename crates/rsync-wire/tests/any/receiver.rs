//! A receiver that is sent any bytes: shared by the fuzz target `rsync_receiver` and the replay of its corpus.

use std::collections::BTreeMap;

use rsync_wire::apply::{Apply, ApplyError};
use rsync_wire::role::{Arrival, Expected, Generator, ItemFlags, Receiver, RoleError, Taken};
use rsync_wire::sums::{Strength, SumHead};
use rsync_wire::token::Token;

use super::roles::terms;

/// The longest a file may become here.
const MOST: u64 = 1 << 16;

/// The length of what there is of every other file.
const BASIS: usize = 2000;

/// Panics if what is received depends on how the bytes are cut, or if something arrives that was not asked for. The first byte
/// chooses the terms, the second how the rest is cut.
pub(crate) fn check(input: &[u8]) {
    let [which, cut, bytes @ ..] = input else { return };
    let whole = receive(*which, [bytes].into_iter());
    let pieces = receive(*which, bytes.chunks(usize::from(*cut) + 1));
    // Pieces may bring out more of a record before what is wrong with it, and that may be too long.
    let is_too_long = pieces.end == Err(Failure::TooLong) && whole.end.is_err();
    assert!(is_too_long || pieces.end == whole.end, "{:?} is not {:?}", pieces.end, whole.end);
    assert!(pieces.files.starts_with(&whole.files), "{:?} is not {:?}", pieces.files, whole.files);
    assert!(whole.end.is_err() || pieces.files == whole.files);
}

#[derive(Debug)]
struct Received {
    /// Each with its digest, if that came, as it is not wrong.
    files: Vec<(u32, Option<bool>)>,
    /// The last phase that ended.
    end: Result<u8, Failure>,
}

#[derive(Debug, PartialEq, Eq)]
enum Failure {
    Role(RoleError),
    TooLong,
}

fn receive<'a>(which: u8, pieces: impl Iterator<Item = &'a [u8]>) -> Received {
    let terms = terms(which);
    let algorithm = terms.agreed.checksum;
    let head = SumHead::for_basis(BASIS as u64, None, Strength::Sized, algorithm).unwrap();
    let mut generator = Generator::new(terms);
    let request = |index: u32| -> (u32, Expected) {
        let head = if index % 2 == 1 { head } else { SumHead::NONE };
        (index, generator.request(index, ItemFlags::default(), head, &mut Vec::new()).unwrap())
    };
    let mut requests: BTreeMap<u32, Expected> = (1..7).map(request).collect();
    let mut receiver = Receiver::new(terms).unwrap();
    let mut received = Received { files: Vec::new(), end: Ok(0) };
    let mut apply = None;
    for mut piece in pieces {
        loop {
            let taken = receiver.next_arrival(piece, &mut |index| requests.remove(&index));
            let Taken { used, arrival } = match taken {
                Ok(taken) => taken,
                Err(error) => return Received { end: Err(Failure::Role(error)), ..received },
            };
            piece = &piece[used..];
            match arrival {
                None => break,
                Some(Arrival::Begin { index, head }) => {
                    assert!((1..7).contains(&index));
                    received.files.push((index, None));
                    apply = Some(Apply::new(head, algorithm, MOST));
                }
                Some(Arrival::Token(Token::End)) => {}
                Some(Arrival::Token(token)) => {
                    let read_at = |offset: u64, block: &mut [u8]| {
                        assert!(offset as usize + block.len() <= BASIS);
                        block.fill(b'x');
                        Ok::<(), ()>(())
                    };
                    match apply.as_mut().expect("a file has begun").token(token, read_at, |_| Ok(())) {
                        Ok(()) => {}
                        Err(ApplyError::TooLong(_)) => {
                            return Received { end: Err(Failure::TooLong), ..received };
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                }
                Some(Arrival::End { index, digest }) => {
                    let last = received.files.last_mut().expect("a file has begun");
                    assert_eq!(last.0, index);
                    last.1 = Some(apply.take().unwrap().finish().digest == digest);
                }
                Some(Arrival::PhaseEnded(phase)) => received.end = Ok(phase),
                Some(Arrival::Finished(_)) => return Received { end: Ok(u8::MAX), ..received },
            }
        }
        assert!(piece.is_empty());
    }
    received
}
