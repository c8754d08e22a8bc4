//! The command line that starts the server.
//!
//! A restricted server accepts words only in a certain order and understands no quotes but backslashes, so the words are built
//! in that order and quoted in that way. Words and letters are in `docs/rsync-wire.md`, *Command line*.

mod options;
mod quote;

pub use options::{
    BasisDir, BasisKind, Delete, DeleteWhen, Direction, InPlace, Options, Partial, Recursion, UploadOptions,
};
pub use quote::quote;

use crate::checksum::Algorithm;
use crate::file_list::Layout;
use crate::negotiate::{Agreed, Choice, Compressor, Offer, Protocol};

/// Why no command line can be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A download names at least one path, an upload exactly one.
    #[error("{0} paths for a transfer in this direction")]
    Paths(usize),
    /// A word holds a NUL byte.
    #[error("a path or a value of an option holds a NUL byte")]
    Nul,
    /// An option takes a word of its own and was given none.
    #[error("option {0} without a value")]
    EmptyValue(&'static str),
}

/// What the client is able to do: letters that a server answers with compat flags. Incremental recursion is not among them.
const CAPABILITIES: &str = "e.LsfxCIvu";

impl Options {
    /// The command line as words, the bytes a server is to see.
    ///
    /// # Errors
    /// The paths are too few or too many, or a word is none.
    pub fn to_words(&self, paths: &[&[u8]]) -> Result<Vec<Vec<u8>>, CommandError> {
        let is_fit = match self.direction {
            Direction::Download => !paths.is_empty(),
            Direction::Upload(_) => paths.len() == 1,
        };
        if !is_fit {
            return Err(CommandError::Paths(paths.len()));
        }
        let mut words: Vec<Vec<u8>> = vec![b"rsync".to_vec(), b"--server".to_vec()];
        if matches!(self.direction, Direction::Download) {
            words.push(b"--sender".to_vec());
        }
        words.push(format!("-{}{CAPABILITIES}", self.letters()).into_bytes());
        self.put_long(&mut words)?;
        words.push(b".".to_vec());
        words.extend(paths.iter().map(|path| match path {
            // An empty path means where the server starts, but an empty word is lost on the way.
            [] => b".".to_vec(),
            [b'-', ..] => [b"./", *path].concat(),
            path => path.to_vec(),
        }));
        if words.iter().any(|word| word.contains(&0)) {
            return Err(CommandError::Nul);
        }
        Ok(words)
    }

    /// The command line as one string for the shell the server's host starts.
    ///
    /// # Errors
    /// As [`to_words`](Self::to_words).
    pub fn to_shell(&self, paths: &[&[u8]]) -> Result<Vec<u8>, CommandError> {
        let words = self.to_words(paths)?;
        Ok(words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(&b' '))
    }

    /// The handshake that goes with this command line: what is passed here is not negotiated there.
    #[must_use]
    pub fn to_offer(&self, newest: Protocol, checksums: &[Algorithm], compressors: &[Compressor]) -> Offer {
        let negotiated = || Choice::Negotiated(compressors.to_vec());
        let compressor = self.compress_choice.map_or_else(negotiated, Choice::Passed);
        let checksum = self.checksum_choice;
        Offer {
            newest,
            checksum: checksum.map_or_else(|| Choice::Negotiated(checksums.to_vec()), Choice::Passed),
            compressor: self.compress.then_some(compressor),
        }
    }

    /// The layout of the file list that goes with this command line and what was agreed on.
    #[must_use]
    pub fn to_layout(&self, agreed: &Agreed) -> Layout {
        Layout {
            protocol: agreed.protocol,
            flags: agreed.flags,
            owner: self.owner,
            group: self.group,
            devices: self.devices,
            links: self.links,
            hard_links: self.hard_links,
            atimes: self.atimes,
            checksum: self.checksum.then(|| agreed.checksum.digest_len()),
            numeric_ids: self.numeric_ids,
        }
    }
}

#[cfg(test)]
mod tests;
