//! The checksums of the protocol: the rolling sum that finds a block, the strong sum that proves it, and the digest of a
//! whole file.
//!
//! Layouts and seed rules are in `docs/rsync-wire-delta.md`, *Checksums*. The algorithms are those that a client offers,
//! xxh128 and md5. Deliberately absent: the 8-byte hashes, because servers disagree about the length of their block sums.

use std::fmt;

use md5::{Digest as _, Md5};
use twox_hash::xxhash3_128;

/// The strong checksum that both sides have agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// XXH3 with 128 bits.
    Xxh128,
    /// MD5.
    Md5,
}

impl Algorithm {
    /// The algorithm of a name as it is negotiated; none for names this crate does not speak.
    pub fn parse(name: &[u8]) -> Option<Self> {
        match name {
            b"xxh128" => Some(Self::Xxh128),
            b"md5" => Some(Self::Md5),
            _ => None,
        }
    }

    /// The name used in the negotiation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xxh128 => "xxh128",
            Self::Md5 => "md5",
        }
    }

    /// Bytes of a digest.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Xxh128 | Self::Md5 => DIGEST_LEN,
        }
    }

    /// The unseeded digest of bytes that are at hand as a whole.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        match self {
            Self::Xxh128 => Digest::of_xxh128(xxhash3_128::Hasher::oneshot(bytes)),
            Self::Md5 => Digest(Md5::digest(bytes).into()),
        }
    }
}

/// A strong checksum as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; DIGEST_LEN]);

impl Digest {
    /// The digest whose wire bytes these are.
    pub const fn from_bytes(bytes: [u8; DIGEST_LEN]) -> Self {
        Self(bytes)
    }

    /// The wire bytes.
    pub const fn as_bytes(&self) -> &[u8; DIGEST_LEN] {
        &self.0
    }

    /// A digest certainly unequal to this one: all zero, or all ones where this is all zero. A sender whose source failed
    /// half-way ends the file with it, so that the other side throws the file away.
    pub fn spoilt(self) -> Self {
        if self.0 == [0; DIGEST_LEN] { Self([0xff; DIGEST_LEN]) } else { Self([0; DIGEST_LEN]) }
    }

    /// The first `len` bytes, or all of them.
    pub(crate) fn prefix(&self, len: usize) -> &[u8] {
        self.0.get(..len).unwrap_or(&self.0)
    }

    /// Low half first, each half little-endian, which is what little-endian over all 16 bytes amounts to.
    fn of_xxh128(hash: u128) -> Self {
        Self(hash.to_le_bytes())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest of a file while its bytes go by: what follows a token stream, and what `--checksum` lists. Neither is seeded.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Xxh128(Box<xxhash3_128::Hasher>),
    Md5(Md5),
}

impl Hasher {
    /// Begins with nothing hashed.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Xxh128 => State::Xxh128(Box::default()),
            Algorithm::Md5 => State::Md5(Md5::new()),
        })
    }

    /// Hashes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Xxh128(hasher) => hasher.write(bytes),
            State::Md5(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of all that went by.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Xxh128(hasher) => Digest::of_xxh128(hasher.finish_128()),
            State::Md5(hasher) => Digest(hasher.finalize().into()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = match self.0 {
            State::Xxh128(_) => Algorithm::Xxh128,
            State::Md5(_) => Algorithm::Md5,
        };
        f.debug_tuple("Hasher").field(&algorithm).finish()
    }
}

/// Where the seed stands in the md5 of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeedOrder {
    /// Before the block: the compat flag for it was set.
    First,
    /// Behind the block: the flag was not set, as by rsync 3.0.
    Last,
}

/// How the strong sum of a block is made on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHash {
    /// The transfer checksum.
    pub algorithm: Algorithm,
    /// The seed that the server sent.
    pub seed: i32,
    /// Where md5 has the seed. xxh128 takes it as its own seed.
    pub order: SeedOrder,
}

impl BlockHash {
    /// The whole strong sum of a block; a request carries its first bytes.
    pub fn strong(&self, block: &[u8]) -> Digest {
        match self.algorithm {
            Algorithm::Xxh128 => {
                Digest::of_xxh128(xxhash3_128::Hasher::oneshot_with_seed(i64::from(self.seed) as u64, block))
            }
            Algorithm::Md5 => {
                let seed = self.seed.to_le_bytes();
                let mut hasher = Md5::new();
                match (self.seed, self.order) {
                    (0, SeedOrder::First | SeedOrder::Last) => hasher.update(block),
                    (_, SeedOrder::First) => {
                        hasher.update(seed);
                        hasher.update(block);
                    }
                    (_, SeedOrder::Last) => {
                        hasher.update(block);
                        hasher.update(seed);
                    }
                }
                Digest(hasher.finalize().into())
            }
        }
    }
}

/// The rolling sum of a window of bytes.
///
/// Bytes count as signed. The low half is their sum, the high half the sum of all prefixes' sums, both modulo 2^16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rolling {
    sum: u32,
    weighted: u32,
}

impl Rolling {
    /// The sum of a window.
    pub fn of(window: &[u8]) -> Self {
        let mut rolling = Self::default();
        rolling.extend(window);
        rolling
    }

    /// Makes the window longer at its end.
    pub fn extend(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            let (sum, weighted) = sums_of(block);
            self.weighted =
                self.weighted.wrapping_add(self.sum.wrapping_mul(BLOCK as u32)).wrapping_add(weighted);
            self.sum = self.sum.wrapping_add(sum);
        }
        for &byte in rest {
            self.sum = self.sum.wrapping_add(signed(byte));
            self.weighted = self.weighted.wrapping_add(self.sum);
        }
    }

    /// Moves a window of `len` bytes by one byte: `leaves` was its first, `enters` becomes its last.
    #[inline]
    pub fn roll(&mut self, len: u32, leaves: u8, enters: u8) {
        let leaves = signed(leaves);
        self.sum = self.sum.wrapping_sub(leaves).wrapping_add(signed(enters));
        self.weighted = self.weighted.wrapping_sub(len.wrapping_mul(leaves)).wrapping_add(self.sum);
    }

    /// The number that goes over the wire, little-endian.
    #[inline]
    pub const fn value(self) -> u32 {
        (self.sum & 0xffff) | (self.weighted << 16)
    }
}

#[inline]
fn signed(byte: u8) -> u32 {
    i32::from(byte.cast_signed()).cast_unsigned()
}

/// Bytes of every digest this crate makes.
pub const DIGEST_LEN: usize = 16;

/// Bytes that are summed at once.
const BLOCK: usize = 128;

/// The two sums of a block, eight bytes at a time in the lanes of a word: a compiler that makes small code makes no vectors.
///
/// A byte counts as signed, which is what it is with its highest bit turned over, less 128. Of word `j` byte `k` has the weight
/// `128 - (8 j + k)`, which is `8 (16 - j) - k`: the first part comes from adding up the sums as the words go by.
fn sums_of(block: &[u8; BLOCK]) -> (u32, u32) {
    const LANES: u64 = 0x00ff_00ff_00ff_00ff;
    const OF_ALL: u32 = 128 * BLOCK as u32;
    const WEIGHTED_OF_ALL: u32 = 128 * (BLOCK * (BLOCK + 1) / 2) as u32;

    // Bytes 0, 2, 4, 6 of the words in one, 1, 3, 5, 7 in the other; no lane comes to 2^16.
    let [mut even, mut odd, mut even_sums, mut odd_sums] = [0_u64; 4];
    for word in block.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word) ^ 0x8080_8080_8080_8080;
        even += word & LANES;
        odd += (word >> 8) & LANES;
        even_sums += even;
        odd_sums += odd;
    }
    let (all_even, all_odd) = (lanes(even), lanes(odd));
    let by_word = lanes(even_sums) + lanes(odd_sums);
    let by_byte = 2 * (numbered_lanes(even) + numbered_lanes(odd)) + all_odd;
    let weighted = (8 * by_word).wrapping_sub(by_byte).wrapping_sub(WEIGHTED_OF_ALL);
    ((all_even + all_odd).wrapping_sub(OF_ALL), weighted)
}

/// The sum of the four lanes of 16 bits.
const fn lanes(word: u64) -> u32 {
    let pairs = (word & 0xffff_0000_ffff) + ((word >> 16) & 0xffff_0000_ffff);
    (pairs + (pairs >> 32)) as u32
}

/// The same, each lane multiplied by its number, from 0. They come to less than 2^16 together.
const fn numbered_lanes(word: u64) -> u32 {
    (word.wrapping_mul(0x0000_0001_0002_0003) >> 48) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strong(algorithm: Algorithm, seed: i32, order: SeedOrder, block: &[u8]) -> String {
        format!("{:?}", BlockHash { algorithm, seed, order }.strong(block))
    }

    #[test]
    fn strong_sums_of_blocks() {
        use Algorithm::{Md5, Xxh128};
        use SeedOrder::{First, Last};
        let block = [b'A'; 700];
        for (algorithm, seed, order, block, expected) in [
            (Xxh128, 1, First, &block[..], "386d83cbd557a1567d2ff921b5ccec9b"),
            (Xxh128, 1, Last, &block[..], "386d83cbd557a1567d2ff921b5ccec9b"),
            (Xxh128, -5, First, b"abc", "13f6986bc96570aae90cbb1bc59be02d"),
            (Md5, 1, First, &block[..], "23ee6117acc310a58f3f83a538e15da8"),
            (Md5, 1, Last, &block[..], "9d6dc59db5040a74a920cb1c20d3d606"),
            (Md5, 0, First, b"hello\n", "b1946ac92492d2347c6235b4d2611184"),
            (Md5, 0, Last, b"hello\n", "b1946ac92492d2347c6235b4d2611184"),
        ] {
            assert_eq!(strong(algorithm, seed, order, block), expected, "{algorithm:?} {seed} {order:?}");
        }
    }

    #[test]
    fn digests_of_files() {
        for (algorithm, text, expected) in [
            (Algorithm::Xxh128, "hello\n", "9ce4c8f135b4105a6df569e0c786ba6b"),
            (Algorithm::Xxh128, "sub\n", "cf852a5aef7aa31ad8a0c1e86c8f32e1"),
            (Algorithm::Md5, "hello\n", "b1946ac92492d2347c6235b4d2611184"),
        ] {
            assert_eq!(format!("{:?}", algorithm.digest(text.as_bytes())), expected);
            let mut hasher = Hasher::new(algorithm);
            text.bytes().for_each(|byte| hasher.update(&[byte]));
            assert_eq!(format!("{:?}", hasher.finish()), expected);
        }
    }

    #[test]
    fn names_are_read_back() {
        for algorithm in [Algorithm::Xxh128, Algorithm::Md5] {
            assert_eq!(Algorithm::parse(algorithm.name().as_bytes()), Some(algorithm));
        }
        assert_eq!(Algorithm::parse(b"xxh3"), None);
    }

    #[test]
    fn a_spoilt_digest_is_never_the_true_one() {
        let zero = Digest::from_bytes([0; 16]);
        assert_ne!(zero.spoilt(), zero);
        assert_eq!(Algorithm::Md5.digest(b"").spoilt(), zero);
    }

    #[test]
    fn rolling_sums() {
        for (window, expected) in [
            (vec![b'A'; 700], [0xbc, 0xb1, 0xe6, 0x57]),
            (vec![b'B'; 700], [0x78, 0xb4, 0x4c, 0x16]),
            (vec![b'C'; 100], [0x2c, 0x1a, 0xae, 0x29]),
            (vec![0x80, 0xff], [0x7f, 0xff, 0xff, 0xfe]),
            (vec![], [0; 4]),
        ] {
            assert_eq!(Rolling::of(&window).value().to_le_bytes(), expected);
        }
    }

    proptest! {
        #[test]
        fn rolling_equals_summing_anew(bytes in prop::collection::vec(any::<u8>(), 1..800), len in 1usize..600) {
            let len = len.min(bytes.len());
            let mut rolling = Rolling::of(&bytes[..len]);
            for at in 0..bytes.len() - len {
                rolling.roll(len as u32, bytes[at], bytes[at + len]);
                let plain = bytes[at + 1..at + 1 + len].iter().fold((0u16, 0u16), |(sum, weighted), &byte| {
                    let sum = sum.wrapping_add(byte as i8 as u16);
                    (sum, weighted.wrapping_add(sum))
                });
                prop_assert_eq!(rolling.value(), u32::from(plain.0) | u32::from(plain.1) << 16);
            }
        }

        #[test]
        fn pieces_make_the_same_sums(bytes in prop::collection::vec(any::<u8>(), 0..1000), at in 0usize..1000) {
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            let mut rolling = Rolling::of(first);
            rolling.extend(second);
            prop_assert_eq!(rolling.value(), Rolling::of(&bytes).value());
            for algorithm in [Algorithm::Xxh128, Algorithm::Md5] {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(first);
                hasher.update(second);
                prop_assert_eq!(hasher.finish(), algorithm.digest(&bytes));
            }
        }
    }
}
