//! Tokens out of any bytes: shared by the fuzz target `rsync_tokens` and the replay of its corpus.

use rsync_wire::negotiate::Compressor;
use rsync_wire::token::{ReadError, Reader, Token};

/// What is looked at of a stream that expands.
const MOST: usize = 1 << 20;

/// Panics if tokens depend on how the bytes are cut, or name a block that is not there. The first byte chooses the compressor,
/// the second the number of blocks, the third how the rest is cut.
pub(crate) fn check(input: &[u8]) {
    let [which, count, cut, bytes @ ..] = input else { return };
    let compressors = [None, Some(Compressor::Zlibx), Some(Compressor::Zstd), Some(Compressor::Lz4)];
    let compressor = compressors[usize::from(which & 3)];
    let whole = read(compressor, u32::from(*count), [bytes].into_iter());
    let pieces = read(compressor, u32::from(*count), bytes.chunks(usize::from(*cut) + 1));
    let (Some((whole, end)), Some((pieces, end_of_pieces))) = (whole, pieces) else { return };
    assert_eq!(end_of_pieces, end);
    // How much of a record comes out before it is complete, or found wrong, is the decompressor's business.
    assert!(whole.starts_with(&pieces) || pieces.starts_with(&whole));
    assert!(end.is_err() || whole.last() != Some(&Made::End) || pieces == whole);
}

/// Tokens, a byte of a literal each a token of its own; none if there are too many.
fn read<'a>(
    compressor: Option<Compressor>,
    count: u32,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Option<(Vec<Made>, Result<(), ReadError>)> {
    let (mut reader, mut made) = (Reader::new(compressor).unwrap(), Vec::new());
    reader.begin(count);
    for mut piece in pieces {
        loop {
            let step = match reader.next_token(piece) {
                Ok(step) => step,
                Err(error) => return Some((made, Err(error))),
            };
            piece = &piece[step.used..];
            let is_ended = match step.token {
                None => break,
                Some(Token::Literal(bytes)) => {
                    assert!(!bytes.is_empty());
                    made.extend(bytes.iter().map(|byte| Made::Byte(*byte)));
                    false
                }
                Some(Token::Match(index)) => {
                    assert!(index < count);
                    made.push(Made::Match(index));
                    false
                }
                Some(Token::End) => true,
            };
            if is_ended {
                made.push(Made::End);
                reader.begin(count);
            }
            if made.len() > MOST {
                return None;
            }
        }
        assert!(piece.is_empty());
    }
    Some((made, Ok(())))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Byte(u8),
    Match(u32),
    End,
}
