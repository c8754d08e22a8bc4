//! The handshake of a client: versions, what the server can do, checksum, compressor, seed.
//!
//! The server writes its lists of names before it reads ours, and versions of rsync differ in whose preference wins. The
//! client therefore reads first, chooses, and answers with exactly one name, so that both sides come to the same choice
//! whatever their rule is. The bytes are in `docs/rsync-wire.md`, *Handshake*.

mod names;

pub use names::Compressor;

use crate::checksum::Algorithm;
use crate::varint::{Malformed, ReadError, Reader, put_int32, put_vstring};

/// A version of the protocol. 32 differs from 31 by nothing on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// 30, from rsync 3.0.0 on.
    V30,
    /// 31, from rsync 3.1.0 on.
    V31,
    /// 32, which says that a server has certain fixes.
    V32,
}

impl Protocol {
    /// The version as a number.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::V30 => 30,
            Self::V31 => 31,
            Self::V32 => 32,
        }
    }
}

/// What the server says about how both sides will speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct CompatFlags(u32);

impl CompatFlags {
    /// The flags in a received number; bits without a meaning are ignored.
    #[must_use]
    pub fn from_bits(bits: i32) -> Self {
        Self(bits.cast_unsigned())
    }

    /// File lists come in pieces.
    #[must_use]
    pub fn has_incremental_recursion(self) -> bool {
        self.0 & 0x001 != 0
    }

    /// The server can set the times of symlinks.
    #[must_use]
    pub fn has_symlink_times(self) -> bool {
        self.0 & 0x002 != 0
    }

    /// The end of a file list may carry errors, in protocol 30 too.
    #[must_use]
    pub fn has_safe_list_end(self) -> bool {
        self.0 & 0x008 != 0
    }

    /// The seed goes before the data in MD5 sums of blocks.
    #[must_use]
    pub fn has_seed_first(self) -> bool {
        self.0 & 0x020 != 0
    }

    /// Files in a partial directory are updated in place.
    #[must_use]
    pub fn has_inplace_partial(self) -> bool {
        self.0 & 0x040 != 0
    }

    /// Flags of file list entries are varints, and names of checksums and compressors are negotiated.
    #[must_use]
    pub fn has_varint_flags(self) -> bool {
        self.0 & 0x080 != 0
    }

    /// Id lists end with the name of id 0.
    #[must_use]
    pub fn has_names_of_id_0(self) -> bool {
        self.0 & 0x100 != 0
    }
}

/// How a checksum or a compressor is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<T> {
    /// By the server's list: the first of these that occurs in it.
    Negotiated(Vec<T>),
    /// By an option on the server's command line.
    Passed(T),
}

/// What a client brings to the handshake. It must agree with the command line the server was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The newest version to speak.
    pub newest: Protocol,
    /// The checksum, best first.
    pub checksum: Choice<Algorithm>,
    /// The compressor, best first, if the letter `z` was passed; without it nothing is compressed.
    pub compressor: Option<Choice<Compressor>>,
}

impl Default for Offer {
    /// Protocol 32, xxh128 before md5, nothing compressed.
    fn default() -> Self {
        Self {
            newest: Protocol::V32,
            checksum: Choice::Negotiated(vec![Algorithm::Xxh128, Algorithm::Md5]),
            compressor: None,
        }
    }
}

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The version both speak.
    pub protocol: Protocol,
    /// What the server said.
    pub flags: CompatFlags,
    /// The checksum of blocks and files.
    pub checksum: Algorithm,
    /// The compressor of literal data.
    pub compressor: Option<Compressor>,
    /// The seed of the sums of blocks.
    pub seed: i32,
}

/// What names are chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Checksums.
    Checksum,
    /// Compressors.
    Compressor,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The first bytes are not a version, but perhaps what a login script prints.
    #[error("the server's first bytes are not rsync's: {:?}", String::from_utf8_lossy(.first))]
    NotRsync {
        /// The first bytes, at most [`FIRST_BYTES`], as far as they had come.
        first: Vec<u8>,
    },
    /// The server's newest protocol is older than 30.
    #[error("the server speaks protocol {0} and no newer one")]
    TooOld(i32),
    /// Incremental recursion is on, which the client does not offer.
    #[error("the server sends file lists in pieces though that was not offered")]
    IncrementalRecursion,
    /// An item of the handshake has no meaning.
    #[error("malformed handshake")]
    Malformed(#[from] Malformed),
    /// Nothing the client accepts is among what the server can do.
    #[error("no common {}; the server has {:?}", match .subject {
        Subject::Checksum => "checksum",
        Subject::Compressor => "compressor",
    }, String::from_utf8_lossy(.offered))]
    NoCommon {
        /// What the names are for.
        subject: Subject,
        /// The server's names.
        offered: Vec<u8>,
    },
}

/// The most bytes [`HandshakeError::NotRsync`] keeps.
pub const FIRST_BYTES: usize = 256;

/// The handshake of a client.
///
/// ```text
/// Version -> Flags -> [Checksums] -> [Compressors] -> Seed -> agreed
/// ```
#[derive(Debug)]
pub struct Handshake {
    offer: Offer,
    step: Step,
    /// The bytes of the item the step waits for.
    pending: Vec<u8>,
}

/// Each step holds what was agreed so far.
#[derive(Debug, Clone, Copy)]
enum Step {
    Version,
    Flags { protocol: Protocol },
    Checksums { protocol: Protocol, flags: CompatFlags },
    Compressors { protocol: Protocol, flags: CompatFlags, checksum: Algorithm },
    Seed { protocol: Protocol, flags: CompatFlags, checksum: Algorithm, compressor: Option<Compressor> },
}

impl Handshake {
    /// A handshake at its start. The client's version is appended to `out`.
    #[must_use]
    pub fn start(offer: Offer, out: &mut Vec<u8>) -> Self {
        put_int32(out, offer.newest.number());
        Self { offer, step: Step::Version, pending: Vec::new() }
    }

    /// Reads from `input`, which is shortened by the bytes of the handshake and by no more, and appends answers to `out`.
    /// `None` when more bytes are needed. What follows in `input` after the agreement is framed, and so is what the client
    /// writes.
    ///
    /// # Errors
    /// The server is none, is too old, has nothing in common with the offer, or breaks the protocol.
    pub fn on_bytes(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Agreed>, HandshakeError> {
        // Byte by byte: items are short, there are five of them, and none is read beyond its end.
        while let Some((&byte, rest)) = input.split_first() {
            self.pending.push(byte);
            *input = rest;
            match self.advance(input, out) {
                Ok(Next::Step(step)) => {
                    self.step = step;
                    self.pending.clear();
                }
                Ok(Next::Agreed(agreed)) => return Ok(Some(agreed)),
                Err(Stop::Incomplete) => {}
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// What was received when the stream ended before a version was complete: a server that did not start writes nothing,
    /// one behind a login script at times a few bytes.
    #[must_use]
    pub fn first_bytes(&self) -> Option<&[u8]> {
        matches!(self.step, Step::Version).then_some(&self.pending)
    }

    /// Reads the item the step waits for.
    fn advance(&self, following: &[u8], out: &mut Vec<u8>) -> Result<Next, Stop> {
        let mut item = Reader::new(&self.pending);
        match self.step {
            Step::Version => {
                let version = item.int32()?;
                let theirs = match version {
                    20..30 => return Err(HandshakeError::TooOld(version).into()),
                    30 => Protocol::V30,
                    31 => Protocol::V31,
                    32..=40 => Protocol::V32,
                    ..20 | 41.. => {
                        let first = self.pending.iter().chain(following).take(FIRST_BYTES).copied().collect();
                        return Err(HandshakeError::NotRsync { first }.into());
                    }
                };
                Ok(Next::Step(Step::Flags { protocol: theirs.min(self.offer.newest) }))
            }
            Step::Flags { protocol } => {
                let flags = CompatFlags::from_bits(item.varint()?);
                if flags.has_incremental_recursion() {
                    return Err(HandshakeError::IncrementalRecursion.into());
                }
                match &self.offer.checksum {
                    Choice::Passed(checksum) => self.after_checksum(protocol, flags, *checksum),
                    Choice::Negotiated(_) if flags.has_varint_flags() => {
                        Ok(Next::Step(Step::Checksums { protocol, flags }))
                    }
                    Choice::Negotiated(ours) => {
                        let checksum = choose(ours, Algorithm::name, Subject::Checksum, b"md5")?;
                        self.after_checksum(protocol, flags, checksum)
                    }
                }
            }
            Step::Checksums { protocol, flags } => {
                let names = item.vstring()?;
                let Choice::Negotiated(ours) = &self.offer.checksum else { return Err(Stop::Incomplete) };
                let checksum = choose(ours, Algorithm::name, Subject::Checksum, names)?;
                answer(out, checksum.name())?;
                self.after_checksum(protocol, flags, checksum)
            }
            Step::Compressors { protocol, flags, checksum } => {
                let names = item.vstring()?;
                let Some(Choice::Negotiated(ours)) = &self.offer.compressor else {
                    return Err(Stop::Incomplete);
                };
                let compressor = choose(ours, Compressor::name, Subject::Compressor, names)?;
                answer(out, compressor.name())?;
                Ok(Next::Step(Step::Seed { protocol, flags, checksum, compressor: Some(compressor) }))
            }
            Step::Seed { protocol, flags, checksum, compressor } => {
                let seed = item.int32()?;
                Ok(Next::Agreed(Agreed { protocol, flags, checksum, compressor, seed }))
            }
        }
    }

    fn after_checksum(
        &self,
        protocol: Protocol,
        flags: CompatFlags,
        checksum: Algorithm,
    ) -> Result<Next, Stop> {
        let compressor = match &self.offer.compressor {
            None => None,
            Some(Choice::Passed(compressor)) => Some(*compressor),
            Some(Choice::Negotiated(_)) if flags.has_varint_flags() => {
                return Ok(Next::Step(Step::Compressors { protocol, flags, checksum }));
            }
            Some(Choice::Negotiated(ours)) => {
                Some(choose(ours, Compressor::name, Subject::Compressor, b"zlib")?)
            }
        };
        Ok(Next::Step(Step::Seed { protocol, flags, checksum, compressor }))
    }
}

enum Next {
    Step(Step),
    Agreed(Agreed),
}

/// Why a step did not come to its end.
enum Stop {
    Incomplete,
    Failed(HandshakeError),
}

impl From<HandshakeError> for Stop {
    fn from(error: HandshakeError) -> Self {
        Self::Failed(error)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Incomplete => Self::Incomplete,
            ReadError::Wrong(wrong) => Self::Failed(wrong.into()),
        }
    }
}

/// The first of ours among the server's names.
fn choose<T: Copy>(
    ours: &[T],
    name: impl Fn(T) -> &'static str,
    subject: Subject,
    theirs: &[u8],
) -> Result<T, HandshakeError> {
    let is_theirs = |&&one: &&T| theirs.split(|&byte| byte == b' ').any(|word| word == name(one).as_bytes());
    let found = ours.iter().find(is_theirs).copied();
    found.ok_or_else(|| HandshakeError::NoCommon { subject, offered: theirs.to_vec() })
}

fn answer(out: &mut Vec<u8>, name: &str) -> Result<(), Stop> {
    put_vstring(out, name.as_bytes())
        .map_err(|long| HandshakeError::Malformed(Malformed::Vstring(long.0)).into())
}

#[cfg(test)]
mod tests;
