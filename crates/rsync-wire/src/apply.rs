//! A file put together from tokens and its basis.
//!
//! [`Apply`] hashes what it gives, so that the digest behind the tokens can be compared, and stops a file that grows beyond
//! what the caller allows. Reading and writing are the caller's, by closures.

use crate::checksum::{Algorithm, Digest, Hasher};
use crate::sums::SumHead;
use crate::token::Token;

/// The file that is being put together.
#[derive(Debug)]
pub struct Apply {
    head: SumHead,
    hasher: Hasher,
    len: u64,
    limit: u64,
    copied: u64,
    block: Vec<u8>,
}

/// A file that was put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Digest of all bytes given and hashed, to be compared with the one behind the tokens.
    pub digest: Digest,
    /// Length of the file.
    pub len: u64,
    /// Bytes of it that came from the basis.
    pub copied: u64,
}

/// Why a file cannot be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError<E> {
    /// The peer names a block that the basis does not have.
    #[error("file needs block {index} of {count}")]
    NoSuchBlock {
        /// The named block.
        index: u32,
        /// Number of blocks.
        count: u32,
    },
    /// The peer sends more than the file may have.
    #[error("file becomes longer than {0} bytes")]
    TooLong(u64),
    /// The basis cannot be read.
    #[error("basis cannot be read")]
    Read(#[source] E),
    /// The file cannot be written.
    #[error("file cannot be written")]
    Write(#[source] E),
}

impl Apply {
    /// Begins a file of at most `limit` bytes, from a basis that is cut as `head` says. `algorithm` makes the digest.
    pub fn new(head: SumHead, algorithm: Algorithm, limit: u64) -> Self {
        Self { head, hasher: Hasher::new(algorithm), len: 0, limit, copied: 0, block: Vec::new() }
    }

    /// Begins a file of which the bytes before `len` are there and stay. They count for the limit; whether they count for the
    /// digest is for the caller to decide, who hands over the hasher.
    pub fn append(len: u64, hasher: Hasher, limit: u64) -> Self {
        Self { head: SumHead::NONE, hasher, len, limit, copied: 0, block: Vec::new() }
    }

    /// Takes a token. `read_at` fills a buffer from an offset of the basis, in full or not at all; `write` takes the next bytes
    /// of the file. [`Token::End`] does nothing; [`Self::finish`] ends the file.
    ///
    /// # Errors
    /// The peer named a block that is not there or went beyond the limit, or one of the closures failed.
    pub fn token<E>(
        &mut self,
        token: Token<'_>,
        read_at: impl FnOnce(u64, &mut [u8]) -> Result<(), E>,
        write: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<(), ApplyError<E>> {
        let bytes = match token {
            Token::Literal(bytes) => {
                self.grow(bytes.len())?;
                bytes
            }
            Token::Match(index) => {
                let (offset, len) = self
                    .head
                    .block(index)
                    .ok_or(ApplyError::NoSuchBlock { index, count: self.head.count() })?;
                self.grow(len as usize)?;
                self.block.resize(len as usize, 0);
                read_at(offset, &mut self.block).map_err(ApplyError::Read)?;
                self.copied += u64::from(len);
                &self.block
            }
            Token::End => return Ok(()),
        };
        self.hasher.update(bytes);
        write(bytes).map_err(ApplyError::Write)
    }

    /// Ends the file.
    pub fn finish(self) -> Applied {
        Applied { digest: self.hasher.finish(), len: self.len, copied: self.copied }
    }

    fn grow<E>(&mut self, by: usize) -> Result<(), ApplyError<E>> {
        match self.len.checked_add(by as u64) {
            Some(len) if len <= self.limit => {
                self.len = len;
                Ok(())
            }
            Some(_) | None => Err(ApplyError::TooLong(self.limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sums::Strength;

    const BASIS: &[u8] = b"abcdefgh12345";

    fn apply(limit: u64, tokens: &[Token<'_>]) -> Result<(Vec<u8>, Applied), ApplyError<&'static str>> {
        let head = SumHead::for_basis(13, Some(4), Strength::Sized, Algorithm::Md5).unwrap();
        let (mut apply, mut file) = (Apply::new(head, Algorithm::Md5, limit), Vec::new());
        for token in tokens {
            apply.token(
                *token,
                |offset, block| {
                    let from = BASIS.get(offset as usize..).and_then(|rest| rest.get(..block.len()));
                    block.copy_from_slice(from.ok_or("short")?);
                    Ok(())
                },
                |bytes| {
                    file.extend_from_slice(bytes);
                    if bytes == b"full" { Err("full") } else { Ok(()) }
                },
            )?;
        }
        Ok((file, apply.finish()))
    }

    #[test]
    fn literals_and_blocks() {
        let tokens = [Token::Match(3), Token::Literal(b"-"), Token::Match(0), Token::End];
        let (file, applied) = apply(6, &tokens).unwrap();
        assert_eq!(file, b"5-abcd");
        assert_eq!(applied, Applied { digest: Algorithm::Md5.digest(b"5-abcd"), len: 6, copied: 5 });
        assert_eq!(apply(0, &[Token::End]).unwrap().1.digest, Algorithm::Md5.digest(b""));
    }

    #[test]
    fn what_cannot_be() {
        for (limit, token, expected) in [
            (99, Token::Match(4), ApplyError::NoSuchBlock { index: 4, count: 4 }),
            (3, Token::Match(0), ApplyError::TooLong(3)),
            (3, Token::Literal(b"1234"), ApplyError::TooLong(3)),
            (99, Token::Literal(b"full"), ApplyError::Write("full")),
        ] {
            assert_eq!(apply(limit, &[token]).unwrap_err(), expected);
        }
    }

    #[test]
    fn an_appended_file_counts_what_was_there() {
        let mut apply = Apply::append(10, Hasher::new(Algorithm::Md5), 12);
        let mut token = |bytes| apply.token(Token::Literal(bytes), |_, _| Err(()), |_| Ok(()));
        assert_eq!(token(b"ab"), Ok(()));
        assert_eq!(token(b"c"), Err(ApplyError::TooLong(12)));
        assert_eq!(apply.finish(), Applied { digest: Algorithm::Md5.digest(b"ab"), len: 12, copied: 0 });
    }
}
