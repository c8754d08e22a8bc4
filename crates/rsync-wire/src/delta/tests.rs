use proptest::prelude::*;

use super::*;
use crate::checksum::{Algorithm, SeedOrder};
use crate::sums::{DEFAULT_LIMIT, Strength, SumHead, SumReader, SumWriter};

const HASH: BlockHash = BlockHash { algorithm: Algorithm::Xxh128, seed: 1, order: SeedOrder::First };

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Literal(Vec<u8>),
    Match(u32),
}

fn sums(basis: &[u8], block: Option<u32>, strength: Strength) -> Sums {
    let head = SumHead::for_basis(basis.len() as u64, block, strength, HASH.algorithm).unwrap();
    let (mut wire, mut writer) = (Vec::new(), SumWriter::new(head, HASH));
    writer.push(basis, &mut wire).unwrap();
    writer.finish().unwrap();
    from_wire(head, &wire)
}

fn from_wire(head: SumHead, wire: &[u8]) -> Sums {
    let mut reader = SumReader::new(head, DEFAULT_LIMIT).unwrap();
    reader.push(wire);
    reader.finish().unwrap()
}

/// Sums that a peer made up: all blocks have one rolling sum and one strong sum.
fn made_up(count: i32, block: i32, rolling: u32, strong: [u8; 16]) -> Sums {
    let head: Vec<u8> = [count, block, 16, 0].into_iter().flat_map(i32::to_le_bytes).collect();
    let head = SumHead::decode(&head.try_into().unwrap(), HASH.algorithm).unwrap();
    let mut entry = rolling.to_le_bytes().to_vec();
    entry.extend(strong);
    from_wire(head, &entry.repeat(count as usize))
}

fn drain(search: &mut Search, steps: &mut Vec<Step>) {
    while let Some(op) = search.next_op() {
        match op {
            Op::Literal(bytes) => {
                assert!((1..=LITERAL_MAX).contains(&bytes.len()));
                match steps.last_mut() {
                    Some(Step::Literal(before)) => before.extend_from_slice(bytes),
                    Some(Step::Match(_)) | None => steps.push(Step::Literal(bytes.to_vec())),
                }
            }
            Op::Match(index) => steps.push(Step::Match(index)),
        }
    }
}

fn search(sums: Sums, basis: Basis, pieces: &[&[u8]]) -> (Vec<Step>, Work) {
    let (mut search, mut steps) = (Search::new(sums, HASH, basis), Vec::new());
    for piece in pieces {
        search.push(piece);
        drain(&mut search, &mut steps);
    }
    search.finish();
    drain(&mut search, &mut steps);
    (steps, search.work())
}

fn rebuild(basis: &[u8], head: SumHead, steps: &[Step]) -> Vec<u8> {
    let mut out = Vec::new();
    for step in steps {
        match step {
            Step::Literal(bytes) => out.extend_from_slice(bytes),
            Step::Match(index) => {
                let (from, len) = head.block(*index).unwrap();
                out.extend_from_slice(&basis[from as usize..][..len as usize]);
            }
        }
    }
    out
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
fn an_insertion_between_two_blocks() {
    let basis = [[b'A'; 700].as_slice(), &[b'B'; 700], &[b'C'; 100]].concat();
    let source = [[b'A'; 700].as_slice(), b"XY", &[b'B'; 700], &[b'C'; 100]].concat();
    let (steps, _) = search(sums(&basis, None, Strength::Sized), Basis::Kept, &[&source]);
    assert_eq!(steps, [Step::Match(0), Step::Literal(b"XY".to_vec()), Step::Match(1), Step::Match(2)]);
}

#[test]
fn without_a_basis_all_is_literal() {
    let source = noise(100_000, 3);
    let (steps, work) = search(Sums::none(), Basis::Kept, &[&source]);
    assert_eq!(steps, [Step::Literal(source)]);
    assert_eq!(work, Work { literal: 100_000, ..Work::default() });
    assert_eq!(search(Sums::none(), Basis::Kept, &[]).0, []);
}

#[test]
fn equal_files_have_no_literals_and_one_edit_few() {
    for len in [1, 699, 700, 701, 1400, 490_001, 3_000_000] {
        let basis = noise(len, 5);
        let sums = sums(&basis, None, Strength::Sized);
        let pieces: Vec<_> = basis.chunks(10_007).collect();
        let (steps, work) = search(sums.clone(), Basis::Kept, &pieces);
        assert_eq!((work.literal, work.matched), (0, len as u64));
        assert_eq!(work.strong_sums, u64::from(sums.head().count()));
        assert_eq!(rebuild(&basis, *sums.head(), &steps), basis);

        let mut edited = basis.clone();
        edited.insert(len / 2, 0xee);
        let (steps, work) = search(sums.clone(), Basis::Kept, &[&edited]);
        assert_eq!(rebuild(&basis, *sums.head(), &steps), edited);
        assert!(work.literal <= 2 * u64::from(sums.head().block_len()), "{len}: {work:?}");
    }
}

#[test]
fn the_block_behind_the_last_match_is_preferred() {
    let basis = [[1; 8], [2; 8], [1; 8], [1; 8], [3; 8]].concat();
    let source = [[2; 8], [1; 8], [1; 8], [1; 8]].concat();
    let (steps, _) = search(sums(&basis, Some(8), Strength::Sized), Basis::Kept, &[&source]);
    assert_eq!(steps, [1, 2, 3, 0].map(Step::Match));
}

#[test]
fn zeros_against_zeros_take_one_strong_sum_a_block() {
    let zeros = vec![0; 4 << 20];
    let sums = sums(&zeros, Some(700), Strength::Sized);
    let blocks = u64::from(sums.head().count());
    // Half a block later, twice as long: whatever follows the last block of full length begins anew.
    for source in [&zeros[..], &zeros[..zeros.len() - 350], &[&zeros[..], &zeros[..]].concat()] {
        let (_, work) = search(sums.clone(), Basis::Kept, &[source]);
        assert!(work.strong_sums <= 2 * blocks + 1 && work.candidates <= 2 * blocks + 1, "{work:?}");
        assert!(work.literal < 1400, "{work:?}");
    }
}

#[test]
fn sums_that_lie_do_not_make_the_search_quadratic() {
    let zeros = vec![0; 2 << 20];
    for (count, block) in [(1, 131_072), (6000, 700), (100_000, 1), (100_000, 16)] {
        let (steps, work) = search(made_up(count, block, 0, [7; 16]), Basis::Kept, &[&zeros]);
        assert_eq!(steps, [Step::Literal(zeros.clone())]);
        let allowed = WASTE_AT_ONCE + WASTE_PER_BYTE * zeros.len() as u64;
        assert!(work.strong_sums * block as u64 <= allowed + block as u64, "{work:?}");
        assert!(work.candidates * WASTE_PER_CANDIDATE <= allowed + (1 << 15), "{work:?}");
        assert!(work.given_up > 0);
    }
}

#[test]
fn what_does_not_match_is_seldom_looked_up() {
    let sums = sums(&noise(3 << 20, 7), None, Strength::Sized);
    let other = noise(1 << 20, 8);
    let (_, work) = search(sums.clone(), Basis::Kept, &[&other]);
    assert!(work.matched == 0 && work.lookups < 1 << 15, "{work:?}");
    for byte in 0..=255 {
        let (_, work) = search(sums.clone(), Basis::Kept, &[&[byte; 5000]]);
        assert!(work.matched == 0 && work.lookups <= 2, "{work:?}");
    }
}

#[test]
fn made_up_sums_of_any_kind_give_the_source() {
    let source = noise(5000, 11);
    for (count, block) in [(1, 1), (3, 5000), (2, 131_072), (70_000, 3)] {
        for strong in [[0; 16], *HASH.strong(&source[..1]).as_bytes()] {
            let (steps, _) = search(made_up(count, block, 0, strong), Basis::Overwritten, &[&source]);
            assert_eq!(steps, [Step::Literal(source.clone())]);
        }
    }
}

#[test]
fn pieces_do_not_pile_up() {
    let basis = noise(500_000, 21);
    let source = noise(2_000_000, 22);
    let mut search = Search::new(sums(&basis, None, Strength::Sized), HASH, Basis::Kept);
    for piece in source.chunks(1000) {
        search.push(piece);
        while search.next_op().is_some() {}
        assert!(search.buffer.capacity() < 4 * (LITERAL_MAX + 704 + 1000));
    }
}

/// What becomes of a basis: cuts, repeats and other bytes.
fn edits() -> impl Strategy<Value = Vec<(u8, prop::sample::Index, prop::sample::Index, Vec<u8>)>> {
    let other = prop::collection::vec(0u8..3, 0..20);
    prop::collection::vec((0u8..4, any::<prop::sample::Index>(), any::<prop::sample::Index>(), other), 0..6)
}

fn edit(basis: &[u8], edits: Vec<(u8, prop::sample::Index, prop::sample::Index, Vec<u8>)>) -> Vec<u8> {
    edits.into_iter().fold(basis.to_vec(), |mut now, (kind, a, b, other)| {
        let (a, b) = (a.index(now.len() + 1), b.index(now.len() + 1));
        let (a, b) = (a.min(b), a.max(b));
        match kind {
            0 => drop(now.drain(a..b)),
            1 => drop(now.splice(a..a, other)),
            2 => now.extend_from_within(a..b),
            _ => now = [&now[b..], &now[a..b], &now[..a]].concat(),
        }
        now
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn operations_make_the_source(
        // Three values only, and short blocks: equal blocks and equal rolling sums are common.
        basis in prop::collection::vec(0u8..3, 0..200),
        edits in edits(),
        block in 1u32..24,
        piece in 1usize..300,
        overwritten in any::<bool>(),
    ) {
        let source = edit(&basis, edits);
        let sums = sums(&basis, Some(block), Strength::Full);
        let head = *sums.head();
        let pieces: Vec<_> = source.chunks(piece).collect();
        let kind = if overwritten { Basis::Overwritten } else { Basis::Kept };
        let (steps, work) = search(sums.clone(), kind, &pieces);
        prop_assert_eq!(&rebuild(&basis, head, &steps), &source);
        prop_assert_eq!(work.literal + work.matched, source.len() as u64);
        prop_assert_eq!(&search(sums, kind, &[&source]).0, &steps);
        if source == basis {
            prop_assert_eq!(work.literal, 0);
        }

        if overwritten {
            // Writing into the basis, step by step, finds every block as it was.
            let (mut file, mut at) = (basis.clone(), 0usize);
            for step in &steps {
                let bytes = match step {
                    Step::Literal(bytes) => bytes.clone(),
                    Step::Match(index) => {
                        let (from, len) = head.block(*index).unwrap();
                        file[from as usize..][..len as usize].to_vec()
                    }
                };
                file.resize(file.len().max(at + bytes.len()), 0);
                file[at..at + bytes.len()].copy_from_slice(&bytes);
                at += bytes.len();
            }
            prop_assert_eq!(&file[..at], &source[..]);
        }
    }

    #[test]
    fn a_source_of_other_bytes_is_a_literal(
        source in prop::collection::vec(10u8..20, 0..300),
        block in 1u32..24,
        piece in 1usize..300,
    ) {
        let pieces: Vec<_> = source.chunks(piece).collect();
        let (_, work) = search(sums(&[0, 1, 2].repeat(50), Some(block), Strength::Full), Basis::Kept, &pieces);
        prop_assert_eq!((work.literal, work.matched), (source.len() as u64, 0));
    }
}
