//! A file goes over: sums of the basis, search, tokens, and put together again, all in pieces.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;
use rsync_wire::apply::{Applied, Apply};
use rsync_wire::checksum::{Algorithm, BlockHash, Digest, Hasher, SeedOrder};
use rsync_wire::delta::{Basis, Op, Search};
use rsync_wire::negotiate::Compressor;
use rsync_wire::sums::{DEFAULT_LIMIT, Strength, SumHead, SumReader, SumWriter, Sums};
use rsync_wire::token::{Reader, Token, Writer};

const COMPRESSORS: [Option<Compressor>; 4] =
    [None, Some(Compressor::Zlibx), Some(Compressor::Zstd), Some(Compressor::Lz4)];

/// How a file goes over.
#[derive(Debug, Clone, Copy)]
struct Way {
    hash: BlockHash,
    block_len: Option<u32>,
    piece: usize,
}

impl Way {
    /// The receiving side's request, all of it on the wire.
    fn request(&self, basis: &[u8]) -> Vec<u8> {
        let len = basis.len() as u64;
        let head = SumHead::for_basis(len, self.block_len, Strength::Full, self.hash.algorithm).unwrap();
        let (mut wire, mut writer) = (head.encode().to_vec(), SumWriter::new(head, self.hash));
        for piece in basis.chunks(self.piece) {
            writer.push(piece, &mut wire).unwrap();
        }
        writer.finish().unwrap();
        wire
    }

    /// The sender's side: reads the request, writes tokens and digest. Also gives the number of literal bytes.
    fn answer(&self, request: &[u8], source: &[u8], writer: &mut Writer) -> (SumHead, Vec<u8>, u64) {
        let sums = self.read_request(request);
        let head = *sums.head();
        let mut search = Search::new(sums, self.hash, Basis::Kept);
        let (mut hasher, mut wire) = (Hasher::new(self.hash.algorithm), Vec::new());
        let mut pieces = source.chunks(self.piece);
        loop {
            let piece = pieces.next();
            match piece {
                Some(piece) => {
                    hasher.update(piece);
                    search.push(piece);
                }
                None => search.finish(),
            }
            while let Some(op) = search.next_op() {
                match op {
                    Op::Literal(bytes) => writer.literal(bytes, &mut wire).unwrap(),
                    Op::Match(index) => writer.matched(index, &mut wire).unwrap(),
                }
            }
            if piece.is_none() {
                break;
            }
        }
        writer.end(&mut wire).unwrap();
        wire.extend(hasher.finish().as_bytes());
        (head, wire, search.work().literal)
    }

    fn read_request(&self, request: &[u8]) -> Sums {
        let (head, list) = request.split_first_chunk().unwrap();
        let head = SumHead::decode(head, self.hash.algorithm).unwrap();
        let mut reader = SumReader::new(head, DEFAULT_LIMIT).unwrap();
        for piece in list.chunks(self.piece) {
            assert_eq!(reader.push(piece), piece.len());
        }
        reader.finish().unwrap()
    }

    /// The receiving side: tokens to the file, and the digest that came with them.
    fn receive(
        &self,
        head: SumHead,
        basis: &[u8],
        wire: &[u8],
        reader: &mut Reader,
    ) -> (Vec<u8>, Applied, Digest) {
        let (tokens, digest) = wire.split_last_chunk().unwrap();
        let (mut apply, mut file) = (Apply::new(head, self.hash.algorithm, 64 << 20), Vec::new());
        let mut ended = false;
        reader.begin(head.count());
        for mut input in tokens.chunks(self.piece) {
            loop {
                let step = reader.next_token(input).unwrap();
                input = &input[step.used..];
                let Some(token) = step.token else { break };
                ended |= token == Token::End;
                let read_at = |offset: u64, block: &mut [u8]| -> Result<(), ()> {
                    block.copy_from_slice(&basis[offset as usize..][..block.len()]);
                    Ok(())
                };
                let write = |bytes: &[u8]| {
                    file.extend_from_slice(bytes);
                    Ok(())
                };
                apply.token(token, read_at, write).unwrap();
            }
            assert!(input.is_empty());
        }
        assert!(ended);
        (file, apply.finish(), Digest::from_bytes(*digest))
    }

    /// Sends all files over one connection; gives the number of literal bytes of each.
    fn check(&self, compressor: Option<Compressor>, files: &[(&[u8], &[u8])]) -> Vec<u64> {
        let mut writer = Writer::new(compressor, Some(1)).unwrap();
        let mut reader = Reader::new(compressor).unwrap();
        let go = |(basis, source): &(&[u8], &[u8])| {
            let (head, wire, literal) = self.answer(&self.request(basis), source, &mut writer);
            let (file, applied, digest) = self.receive(head, basis, &wire, &mut reader);
            assert!(file == *source, "{compressor:?} {self:?}");
            assert_eq!(applied.digest, digest);
            assert_eq!((applied.len, applied.copied), (source.len() as u64, source.len() as u64 - literal));
            literal
        };
        files.iter().map(go).collect()
    }
}

fn way(piece: usize, block_len: Option<u32>) -> Way {
    Way {
        hash: BlockHash { algorithm: Algorithm::Xxh128, seed: -7, order: SeedOrder::First },
        block_len,
        piece,
    }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn sizes_around_the_borders_of_blocks() {
    let all = noise(5000, 1);
    for compressor in COMPRESSORS {
        for len in [0, 1, 699, 700, 701, 1399, 1400, 1401, 2100] {
            let basis = &all[..len];
            for (source, literals) in [
                (basis.to_vec(), 0),
                ([basis, b"+"].concat(), 1 + (len % 700) as u64),
                (basis[len.min(1)..].to_vec(), 700),
            ] {
                let found = way(333, None).check(compressor, &[(basis, &source)]);
                assert!(found[0] <= literals, "{len}: {found:?} above {literals}");
            }
        }
    }
}

#[test]
fn many_files_share_a_connection() {
    let basis = noise(300_000, 5);
    let mut edited = basis.clone();
    edited.splice(100_000..100_010, *b"other bytes, and more of them");
    let unrelated = noise(200_000, 6);
    let text = b"some text that comes again and again; ".repeat(4000);
    for compressor in COMPRESSORS {
        let literal = way(65_536, None).check(
            compressor,
            &[
                (&basis, &edited),
                (&[], &text),
                (&basis, &unrelated),
                (&text, &text),
                (&basis, &[]),
                (&basis, &basis),
            ],
        );
        assert!(literal[0] < 1500, "{literal:?}");
        assert_eq!(literal[1..], [text.len() as u64, 200_000, 0, 0, 0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn any_file_goes_over_in_any_pieces(
        basis in prop::collection::vec(0u8..3, 0..400),
        cut in any::<(prop::sample::Index, prop::sample::Index)>(),
        other in prop::collection::vec(any::<u8>(), 0..40),
        block in 1u32..50,
        piece in 1usize..100,
        algorithm in prop_oneof![Just(Algorithm::Xxh128), Just(Algorithm::Md5)],
        order in prop_oneof![Just(SeedOrder::First), Just(SeedOrder::Last)],
        seed in any::<i32>(),
    ) {
        let (a, b) = (cut.0.index(basis.len() + 1), cut.1.index(basis.len() + 1));
        let moved = [&basis[a..], &other, &basis[..b]].concat();
        let way = Way { hash: BlockHash { algorithm, seed, order }, block_len: Some(block), piece };
        for compressor in COMPRESSORS {
            let literal = way.check(compressor, &[(&basis, &moved), (&basis, &basis), (&other, &basis)]);
            prop_assert_eq!(literal[1], 0);
        }
    }
}
