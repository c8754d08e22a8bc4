//! The sums of a basis: how it is cut into blocks, what of each block goes over the wire, and the list as it arrives.
//!
//! Layouts and the choice of lengths are in `docs/rsync-wire-delta.md`, *Block sums*. [`SumHead`] is the four numbers that
//! say how a basis is cut; [`SumWriter`] makes the list from the basis; [`SumReader`] collects it on the other side into
//! [`Sums`].

use crate::checksum::{Algorithm, BlockHash, Rolling};

/// How a basis is cut into blocks, as it stands before the sums and again before the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SumHead {
    count: u32,
    block_len: u32,
    strong_len: u32,
    remainder: u32,
}

/// How sure block sums are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strength {
    /// As many bytes as the size of the basis asks for: two to four.
    Sized,
    /// The whole strong sum, for a file whose digest was wrong the first time.
    Full,
}

/// Why a basis cannot be described, or a received description is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SumHeadError {
    /// The peer sent a number that is negative or beyond its limit.
    #[error("sum head has {name} {value}")]
    OutOfRange {
        /// Which of the four numbers.
        name: &'static str,
        /// Its value.
        value: i32,
    },
    /// The caller asked for blocks of no length or of more than [`MAX_BLOCK_LEN`] bytes.
    #[error("no blocks have {0} bytes")]
    BlockLength(u32),
    /// The basis has more than 2^31 - 1 blocks.
    #[error("basis of {0} bytes has too many blocks")]
    TooManyBlocks(u64),
}

impl SumHead {
    /// What is sent where there is no basis: four zeros.
    pub const NONE: Self = Self { count: 0, block_len: 0, strong_len: 0, remainder: 0 };

    /// Bytes of a head on the wire.
    pub const WIRE_LEN: usize = 16;

    /// Cuts a basis of `len` bytes the way servers do; an empty one is none. A `block_len` overrides the choice of it.
    ///
    /// # Errors
    /// The given block length is 0 or above [`MAX_BLOCK_LEN`], or there would be too many blocks.
    pub fn for_basis(
        len: u64,
        block_len: Option<u32>,
        strength: Strength,
        algorithm: Algorithm,
    ) -> Result<Self, SumHeadError> {
        let block_len = match block_len {
            Some(own @ 1..=MAX_BLOCK_LEN) => own,
            Some(own) => return Err(SumHeadError::BlockLength(own)),
            None => block_len_for(len),
        };
        if len == 0 {
            return Ok(Self::NONE);
        }
        let count = i32::try_from(len.div_ceil(u64::from(block_len)))
            .map_err(|_| SumHeadError::TooManyBlocks(len))?
            .cast_unsigned();
        let full = algorithm.digest_len() as u32;
        let strong_len = match strength {
            Strength::Sized => {
                let bits = (10 + 2 * len.ilog2()).saturating_sub(block_len.ilog2());
                (bits.saturating_sub(24) / 8).clamp(2, full)
            }
            Strength::Full => full,
        };
        Ok(Self { count, block_len, strong_len, remainder: (len % u64::from(block_len)) as u32 })
    }

    /// Reads a head.
    ///
    /// # Errors
    /// A number is none that an honest peer sends.
    pub fn decode(bytes: &[u8; Self::WIRE_LEN], algorithm: Algorithm) -> Result<Self, SumHeadError> {
        let (words, _) = bytes.as_chunks::<4>();
        let mut words = words.iter().map(|word| i32::from_le_bytes(*word));
        let mut next = |name, limit: u32| {
            let value = words.next().unwrap_or_default();
            match u32::try_from(value) {
                Ok(number) if number <= limit => Ok(number),
                Ok(_) | Err(_) => Err(SumHeadError::OutOfRange { name, value }),
            }
        };
        let count = next("count", i32::MAX.cast_unsigned())?;
        let block_len = next("block length", MAX_BLOCK_LEN)?;
        let strong_len = next("strong length", algorithm.digest_len() as u32)?;
        let remainder = next("remainder", block_len)?;
        if count > 0 && block_len == 0 {
            return Err(SumHeadError::OutOfRange { name: "block length", value: 0 });
        }
        Ok(Self { count, block_len, strong_len, remainder })
    }

    /// The head as it goes over the wire.
    pub fn encode(&self) -> [u8; Self::WIRE_LEN] {
        let mut bytes = [0; Self::WIRE_LEN];
        let words = [self.count, self.block_len, self.strong_len, self.remainder];
        for (to, from) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = from.to_le_bytes();
        }
        bytes
    }

    /// Number of blocks.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Length of every block but perhaps the last.
    pub const fn block_len(&self) -> u32 {
        self.block_len
    }

    /// Bytes of the strong sum that go over the wire.
    pub const fn strong_len(&self) -> u32 {
        self.strong_len
    }

    /// Length of the last block where it is shorter, else 0.
    pub const fn remainder(&self) -> u32 {
        if self.remainder == self.block_len { 0 } else { self.remainder }
    }

    /// Length of the basis, which is also where append mode goes on.
    pub fn basis_len(&self) -> u64 {
        let whole = u64::from(self.count) * u64::from(self.block_len);
        match self.remainder() {
            0 => whole,
            // Without blocks a remainder means nothing.
            short => whole.saturating_sub(u64::from(self.block_len - short)),
        }
    }

    /// Where a block lies in the basis: offset and length. None where there is no such block.
    pub fn block(&self, index: u32) -> Option<(u64, u32)> {
        let len = match (index.checked_add(1)?.cmp(&self.count), self.remainder()) {
            (std::cmp::Ordering::Greater, _) => return None,
            (std::cmp::Ordering::Less, _) | (std::cmp::Ordering::Equal, 0) => self.block_len,
            (std::cmp::Ordering::Equal, short) => short,
        };
        Some((u64::from(index) * u64::from(self.block_len), len))
    }

    /// Bytes of the list that follows the head.
    pub fn list_len(&self) -> u64 {
        u64::from(self.count) * u64::from(ROLLING_LEN + self.strong_len)
    }
}

/// Makes the list of sums from a basis that is fed in pieces of any size.
#[derive(Debug)]
pub struct SumWriter {
    head: SumHead,
    hash: BlockHash,
    next: u32,
    /// The begun block, shorter than a block.
    partial: Vec<u8>,
}

/// The basis turned out longer or shorter than its head says; it was changed in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("basis is not {expected} bytes long any more")]
pub struct BasisChanged {
    /// The length that the head was made for.
    pub expected: u64,
}

impl SumWriter {
    /// Begins with the first block. The head itself is for the caller to send.
    pub fn new(head: SumHead, hash: BlockHash) -> Self {
        Self { head, hash, next: 0, partial: Vec::new() }
    }

    /// Takes the next piece of the basis and appends the sums of all blocks that it completes.
    ///
    /// # Errors
    /// The basis is longer than its head says.
    pub fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), BasisChanged> {
        while !piece.is_empty() {
            let (_, len) = self.head.block(self.next).ok_or_else(|| self.changed())?;
            let missing = (len as usize).saturating_sub(self.partial.len());
            let Some((now, later)) = piece.split_at_checked(missing) else {
                self.partial.extend_from_slice(piece);
                return Ok(());
            };
            if self.partial.is_empty() {
                self.block(now, out);
            } else {
                let mut block = std::mem::take(&mut self.partial);
                block.extend_from_slice(now);
                self.block(&block, out);
                block.clear();
                self.partial = block;
            }
            piece = later;
        }
        Ok(())
    }

    /// Ends the list.
    ///
    /// # Errors
    /// The basis is shorter than its head says.
    pub fn finish(self) -> Result<(), BasisChanged> {
        if self.next == self.head.count && self.partial.is_empty() { Ok(()) } else { Err(self.changed()) }
    }

    fn block(&mut self, block: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&Rolling::of(block).value().to_le_bytes());
        out.extend_from_slice(self.hash.strong(block).prefix(self.head.strong_len as usize));
        self.next += 1;
    }

    fn changed(&self) -> BasisChanged {
        BasisChanged { expected: self.head.basis_len() }
    }
}

/// The sums of a basis, in two flat arrays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    head: SumHead,
    rolling: Vec<u32>,
    strong: Vec<u8>,
}

impl Sums {
    /// The sums of no basis.
    pub const fn none() -> Self {
        Self { head: SumHead::NONE, rolling: Vec::new(), strong: Vec::new() }
    }

    /// The head they came with.
    pub const fn head(&self) -> &SumHead {
        &self.head
    }

    /// The rolling sums, one a block.
    pub fn rolling(&self) -> &[u32] {
        &self.rolling
    }

    /// The sent bytes of a block's strong sum.
    pub fn strong(&self, index: u32) -> Option<&[u8]> {
        let len = self.head.strong_len as usize;
        let from = (index as usize).checked_mul(len)?;
        self.strong.get(from..from.checked_add(len)?)
    }
}

/// Collects a received list of sums from pieces of any size. Memory grows with what arrives, not with what is announced.
#[derive(Debug)]
pub struct SumReader {
    sums: Sums,
    /// The begun entry.
    entry: [u8; MAX_ENTRY],
    have: usize,
}

/// The peer announced more sums than the caller is ready to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("list of block sums has {len} bytes, more than {limit}")]
pub struct TooManySums {
    /// Bytes of the announced list.
    pub len: u64,
    /// The caller's limit.
    pub limit: u64,
}

impl SumReader {
    /// Begins with the list behind `head`, if it is not longer than `limit` bytes; [`DEFAULT_LIMIT`] is a sane one.
    ///
    /// # Errors
    /// It is longer.
    pub fn new(head: SumHead, limit: u64) -> Result<Self, TooManySums> {
        let len = head.list_len();
        if len > limit {
            return Err(TooManySums { len, limit });
        }
        Ok(Self { sums: Sums { head, ..Sums::none() }, entry: [0; MAX_ENTRY], have: 0 })
    }

    /// Takes bytes and says how many of them belong to the list; fewer than given means that the list is complete.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let size = (ROLLING_LEN + self.sums.head.strong_len) as usize;
        let mut rest = bytes;
        while !self.is_complete() {
            let missing = size.saturating_sub(self.have);
            let (now, later) = rest.split_at(missing.min(rest.len()));
            rest = later;
            if let Some(to) = self.entry.get_mut(self.have..self.have + now.len()) {
                to.copy_from_slice(now);
            }
            self.have += now.len();
            if self.have < size {
                break;
            }
            self.have = 0;
            if let Some((rolling, strong)) = self.entry.get(..size).and_then(<[u8]>::split_first_chunk) {
                self.sums.rolling.push(u32::from_le_bytes(*rolling));
                self.sums.strong.extend_from_slice(strong);
            }
        }
        bytes.len() - rest.len()
    }

    /// Whether the last sum has arrived.
    pub fn is_complete(&self) -> bool {
        self.sums.rolling.len() >= self.sums.head.count as usize
    }

    /// The list.
    ///
    /// # Errors
    /// It is not complete; the reader is given back.
    pub fn finish(self) -> Result<Sums, Self> {
        if self.is_complete() { Ok(self.sums) } else { Err(self) }
    }
}

/// About the square root, in steps of eight bytes.
fn block_len_for(len: u64) -> u32 {
    if len <= u64::from(MIN_BLOCK_LEN * MIN_BLOCK_LEN) {
        return MIN_BLOCK_LEN;
    }
    (len.isqrt() & !7).clamp(u64::from(MIN_BLOCK_LEN), u64::from(MAX_BLOCK_LEN)) as u32
}

/// The longest block of the protocol, in bytes.
pub const MAX_BLOCK_LEN: u32 = 131_072;

/// Bytes of a sum list that a sender is ready to take, unless it knows better. The sums and the index of a search take up to
/// four times as much; the list of a file of 1 TiB has 80 MiB.
pub const DEFAULT_LIMIT: u64 = 512 << 20;

const MIN_BLOCK_LEN: u32 = 700;

const ROLLING_LEN: u32 = 4;

const MAX_ENTRY: usize = ROLLING_LEN as usize + crate::checksum::DIGEST_LEN;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checksum::SeedOrder;

    const HASH: BlockHash = BlockHash { algorithm: Algorithm::Xxh128, seed: 1, order: SeedOrder::First };

    fn head(len: u64) -> SumHead {
        SumHead::for_basis(len, None, Strength::Sized, Algorithm::Xxh128).unwrap()
    }

    fn decode(words: [i32; 4]) -> Result<SumHead, SumHeadError> {
        let bytes: Vec<u8> = words.into_iter().flat_map(i32::to_le_bytes).collect();
        SumHead::decode(&bytes.try_into().unwrap(), Algorithm::Xxh128)
    }

    #[test]
    fn lengths_as_servers_choose_them() {
        for (len, expected) in [
            (1, (1, 700, 2, 1)),
            (700, (1, 700, 2, 0)),
            (490_001, (701, 700, 2, 1)),
            (500_000, (711, 704, 2, 160)),
            (1_000_000, (1000, 1000, 2, 0)),
            (5_000_000, (2241, 2232, 2, 320)),
            (30_000_000, (5483, 5472, 2, 2496)),
            (100_000_000, (10_000, 10_000, 3, 0)),
            (1_073_741_824, (32_768, 32_768, 3, 0)),
            (3_000_000_001, (54_777, 54_768, 4, 28_033)),
            (17_179_869_183, (131_081, 131_064, 4, 63)),
            (20_000_000_000, (152_588, 131_072, 4, 116_736)),
        ] {
            let head = head(len);
            assert_eq!(
                (head.count(), head.block_len(), head.strong_len(), head.remainder()),
                expected,
                "{len}"
            );
            assert_eq!(head.basis_len(), len);
            assert_eq!(SumHead::decode(&head.encode(), Algorithm::Xxh128), Ok(head));
        }
        assert_eq!(head(0), SumHead::NONE);
    }

    #[test]
    fn a_redo_sends_whole_sums() {
        let head = SumHead::for_basis(1000, Some(8), Strength::Full, Algorithm::Md5).unwrap();
        assert_eq!((head.count(), head.block_len(), head.strong_len()), (125, 8, 16));
    }

    #[test]
    fn lengths_no_basis_can_have() {
        let own = |len, block| SumHead::for_basis(len, Some(block), Strength::Sized, Algorithm::Md5);
        assert_eq!(own(1, 0), Err(SumHeadError::BlockLength(0)));
        assert_eq!(own(1, MAX_BLOCK_LEN + 1), Err(SumHeadError::BlockLength(MAX_BLOCK_LEN + 1)));
        assert_eq!(own(1 << 31, 1), Err(SumHeadError::TooManyBlocks(1 << 31)));
        assert_eq!(
            SumHead::for_basis(u64::MAX, None, Strength::Sized, Algorithm::Md5),
            Err(SumHeadError::TooManyBlocks(u64::MAX))
        );
    }

    #[test]
    fn heads_that_are_refused() {
        let refused = |name, value| Err(SumHeadError::OutOfRange { name, value });
        for (words, expected) in [
            ([-1, 700, 2, 0], refused("count", -1)),
            ([1, 0, 2, 0], refused("block length", 0)),
            ([1, -700, 2, 0], refused("block length", -700)),
            ([1, 131_073, 2, 0], refused("block length", 131_073)),
            ([1, 700, 17, 0], refused("strong length", 17)),
            ([1, 700, -2, 0], refused("strong length", -2)),
            ([1, 700, 2, 701], refused("remainder", 701)),
            ([1, 700, 2, -1], refused("remainder", -1)),
        ] {
            assert_eq!(decode(words), expected);
        }
    }

    #[test]
    fn heads_at_the_edge() {
        assert_eq!(decode([0; 4]), Ok(SumHead::NONE));
        let full = decode([2, 700, 2, 700]).unwrap();
        assert_eq!((full.basis_len(), full.block(1), full.block(2)), (1400, Some((700, 700)), None));
        assert_eq!(decode([0, 700, 2, 5]).unwrap().basis_len(), 0);
        assert_eq!(decode([i32::MAX, 131_072, 16, 1]).unwrap().block(u32::MAX), None);
    }

    #[test]
    fn the_list_of_a_small_file() {
        let basis = [[b'A'; 700].as_slice(), &[b'B'; 700], &[b'C'; 100]].concat();
        let head = head(basis.len() as u64);
        let mut wire = head.encode().to_vec();
        let mut writer = SumWriter::new(head, HASH);
        writer.push(&basis, &mut wire).unwrap();
        writer.finish().unwrap();
        let expected = [
            &[3, 0, 0, 0, 0xbc, 2, 0, 0, 2, 0, 0, 0, 0x64, 0, 0, 0][..],
            &[0xbc, 0xb1, 0xe6, 0x57, 0x38, 0x6d],
            &[0x78, 0xb4, 0x4c, 0x16, 0x9e, 0xd6],
            &[0x2c, 0x1a, 0xae, 0x29, 0x7b, 0x79],
        ];
        assert_eq!(wire, expected.concat());
    }

    #[test]
    fn a_basis_that_changed_is_noticed() {
        let mut out = Vec::new();
        let mut longer = SumWriter::new(head(701), HASH);
        assert_eq!(longer.push(&[0; 702], &mut out), Err(BasisChanged { expected: 701 }));
        let mut shorter = SumWriter::new(head(701), HASH);
        shorter.push(&[0; 700], &mut out).unwrap();
        assert_eq!(shorter.finish(), Err(BasisChanged { expected: 701 }));
    }

    #[test]
    fn a_list_beyond_the_limit_is_refused() {
        let head = decode([i32::MAX, 1, 16, 0]).unwrap();
        assert_eq!(SumReader::new(head, DEFAULT_LIMIT).unwrap_err().len, 20 * 0x7fff_ffff);
        assert!(SumReader::new(head, u64::MAX).unwrap().sums.rolling.capacity() == 0);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_list(
            basis in prop::collection::vec(any::<u8>(), 0..300),
            block in 1u32..40,
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let head = SumHead::for_basis(basis.len() as u64, Some(block), Strength::Sized, Algorithm::Md5).unwrap();
            let hash = BlockHash { algorithm: Algorithm::Md5, ..HASH };
            let (mut wire, mut writer) = (Vec::new(), SumWriter::new(head, hash));
            let (mut rest, mut sizes) = (&basis[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                writer.push(now, &mut wire).unwrap();
                rest = later;
            }
            prop_assert_eq!(writer.finish(), Ok(()));
            prop_assert_eq!(wire.len() as u64, head.list_len());

            wire.extend(*b"more");
            let mut reader = SumReader::new(head, DEFAULT_LIMIT).unwrap();
            let mut rest = &wire[..];
            while !reader.is_complete() {
                let now = &rest[..rest.len().min(*sizes.next().unwrap())];
                rest = &rest[reader.push(now)..];
            }
            prop_assert_eq!(rest, b"more");
            prop_assert_eq!(reader.push(rest), 0);
            let sums = reader.finish().unwrap();
            for (index, block) in basis.chunks(block as usize).enumerate() {
                prop_assert_eq!(sums.rolling()[index], Rolling::of(block).value());
                prop_assert!(hash.strong(block).as_bytes().starts_with(sums.strong(index as u32).unwrap()));
            }
        }
    }
}
