//! A file by way of sums, search, tokens and back, and a search by any sums: shared by the fuzz target `rsync_delta` and the
//! replay of its corpus.

use rsync_wire::apply::Apply;
use rsync_wire::checksum::{Algorithm, BlockHash, SeedOrder};
use rsync_wire::delta::{Basis, Op, Search};
use rsync_wire::negotiate::Compressor;
use rsync_wire::sums::{Strength, SumHead, SumReader, SumWriter, Sums};
use rsync_wire::token::{Reader, Token, Writer};

/// Panics if a file is not what it was, or a search loses some of it. The first four bytes choose how it goes, the rest is the
/// basis, or sums of one, and the file.
pub(crate) fn check(input: &[u8]) {
    let [which, block, cut, middle, bytes @ ..] = input else { return };
    let (which, cut) = (*which, usize::from(*cut) + 1);
    let (basis, file) = bytes.split_at(bytes.len() * usize::from(*middle) / 256);
    let algorithm = if which & 1 == 0 { Algorithm::Xxh128 } else { Algorithm::Md5 };
    let order = if which & 2 == 0 { SeedOrder::First } else { SeedOrder::Last };
    let hash = BlockHash { algorithm, seed: i32::from(which) - 100, order };
    let kept = if which & 4 == 0 { Basis::Kept } else { Basis::Overwritten };
    if which & 8 != 0 {
        return search_by_any_sums(basis, file, hash, kept, cut);
    }
    let strength = if which & 16 == 0 { Strength::Full } else { Strength::Sized };
    let head = SumHead::for_basis(basis.len() as u64, Some(u32::from(*block) % 64 + 1), strength, algorithm)
        .unwrap();
    assert_eq!(head.basis_len(), basis.len() as u64);
    let sums = sums_of(basis, head, hash, cut);
    let compressor = [None, Some(Compressor::Zlibx), Some(Compressor::Zstd), Some(Compressor::Lz4)]
        [usize::from(which >> 6)];
    let tokens = tokens_of(file, Search::new(sums, hash, kept), compressor, cut);
    let (made, digest) = put_together(basis, head, algorithm, &tokens, compressor, cut);
    // Short sums may be those of another block by chance, and the digest tells.
    let is_right = digest == algorithm.digest(file);
    assert_eq!(made == file, is_right);
    assert!(is_right || strength == Strength::Sized, "{made:?} is not {file:?}");
}

/// The sums of a basis, written and read in pieces.
fn sums_of(basis: &[u8], head: SumHead, hash: BlockHash, cut: usize) -> Sums {
    let (mut writer, mut list) = (SumWriter::new(head, hash), Vec::new());
    basis.chunks(cut).for_each(|piece| writer.push(piece, &mut list).unwrap());
    writer.finish().unwrap();
    assert_eq!(list.len() as u64, head.list_len());
    let mut reader = SumReader::new(head, 1 << 20).unwrap();
    list.chunks(cut).for_each(|piece| assert_eq!(reader.push(piece), piece.len()));
    reader.finish().unwrap()
}

/// A file as tokens.
fn tokens_of(file: &[u8], mut search: Search, compressor: Option<Compressor>, cut: usize) -> Vec<u8> {
    let (mut writer, mut tokens) = (Writer::new(compressor, None).unwrap(), Vec::new());
    each_op(file, &mut search, cut, |op| match op {
        Op::Literal(bytes) => writer.literal(bytes, &mut tokens).unwrap(),
        Op::Match(index) => writer.matched(index, &mut tokens).unwrap(),
    });
    writer.end(&mut tokens).unwrap();
    tokens
}

fn each_op(file: &[u8], search: &mut Search, cut: usize, mut take: impl FnMut(Op<'_>)) {
    for piece in file.chunks(cut).map(Some).chain([None]) {
        match piece {
            Some(piece) => search.push(piece),
            None => search.finish(),
        }
        while let Some(op) = search.next_op() {
            take(op);
        }
    }
}

/// What tokens make of a basis, and its digest.
fn put_together(
    basis: &[u8],
    head: SumHead,
    algorithm: Algorithm,
    tokens: &[u8],
    compressor: Option<Compressor>,
    cut: usize,
) -> (Vec<u8>, rsync_wire::checksum::Digest) {
    let (mut reader, mut made) = (Reader::new(compressor).unwrap(), Vec::new());
    let mut apply = Apply::new(head, algorithm, 1 << 20);
    reader.begin(head.count());
    let mut is_ended = false;
    for mut piece in tokens.chunks(cut) {
        loop {
            let step = reader.next_token(piece).unwrap();
            piece = &piece[step.used..];
            let Some(token) = step.token else { break };
            is_ended |= token == Token::End;
            let read_at = |offset: u64, block: &mut [u8]| {
                block.copy_from_slice(&basis[offset as usize..][..block.len()]);
                Ok::<(), ()>(())
            };
            let write = |bytes: &[u8]| {
                made.extend_from_slice(bytes);
                Ok(())
            };
            apply.token(token, read_at, write).unwrap();
        }
        assert!(piece.is_empty());
    }
    assert!(is_ended);
    (made, apply.finish().digest)
}

/// Whatever a server says of its basis: literals and matches make up the length of the file, and literals are its own bytes.
fn search_by_any_sums(said: &[u8], file: &[u8], hash: BlockHash, kept: Basis, cut: usize) {
    let Some((head, list)) = said.split_first_chunk::<{ SumHead::WIRE_LEN }>() else { return };
    let Ok(head) = SumHead::decode(head, hash.algorithm) else { return };
    let Ok(mut reader) = SumReader::new(head, 1 << 16) else { return };
    reader.push(list);
    let Ok(sums) = reader.finish() else { return };
    let mut at = 0;
    each_op(file, &mut Search::new(sums, hash, kept), cut, |op| match op {
        Op::Literal(bytes) => {
            assert_eq!(bytes, &file[at..][..bytes.len()]);
            at += bytes.len();
        }
        Op::Match(index) => {
            let (offset, len) = head.block(index).expect("a block that there is");
            assert!(kept == Basis::Kept || offset >= at as u64, "a block that is overwritten");
            at += len as usize;
        }
    });
    assert_eq!(at, file.len());
}
