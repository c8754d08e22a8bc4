//! The command line that starts the server.
//!
//! A restricted server accepts words only in a certain order and understands no quotes but backslashes, so the words are built
//! in that order and quoted in that way. Words and letters are in `docs/rsync-wire.md`, *Command line*.

mod names;
mod options;
mod quote;

pub use names::{NamesError, put_names};
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
    /// A server that receives has no way to take a wildcard in a destination literally, if it reads it from the client.
    #[error("a destination with a wildcard among secluded words")]
    Wildcard,
    /// An option takes a word of its own and was given none.
    #[error("option {0} without a value")]
    EmptyValue(&'static str),
}

/// A command line whose words stay out of the shell's sight (`-s`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secluded {
    /// What the shell gets. It has neither options nor paths.
    pub shell: Vec<u8>,
    /// All words, which the client writes before everything else, the handshake included.
    pub words: Vec<u8>,
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
        let mut words = self.first_words("");
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

    /// The command line in two parts: what the shell gets, and the words the server then reads from the client. Restricted servers
    /// may refuse it.
    ///
    /// A server expands wildcards in paths that it reads. Those of sources are escaped; a destination may have none, because one
    /// that is not there yet would get the escapes into its name.
    ///
    /// # Errors
    /// As [`to_words`](Self::to_words), and for such a destination.
    pub fn to_secluded(&self, paths: &[&[u8]]) -> Result<Secluded, CommandError> {
        if matches!(self.direction, Direction::Upload(_)) && paths.iter().any(|path| has_wildcard(path)) {
            return Err(CommandError::Wildcard);
        }
        let escaped: Vec<_> = paths.iter().map(|path| escape_wildcards(path)).collect();
        let words = self.to_words(&escaped.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let mut ended: Vec<u8> = words.iter().flat_map(|word| word.iter().chain(&[0])).copied().collect();
        ended.push(0);
        Ok(Secluded { shell: self.first_words("s").join(&b' '), words: ended })
    }

    /// The words before the long options.
    fn first_words(&self, first_letter: &str) -> Vec<Vec<u8>> {
        let mut words: Vec<Vec<u8>> = vec![b"rsync".to_vec(), b"--server".to_vec()];
        if matches!(self.direction, Direction::Download) {
            words.push(b"--sender".to_vec());
        }
        words.push(format!("-{first_letter}{}{CAPABILITIES}", self.letters()).into_bytes());
        words
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

fn has_wildcard(path: &[u8]) -> bool {
    path.iter().any(|byte| b"*?[".contains(byte))
}

/// A path that stands for itself where wildcards are expanded. Without one a backslash is a backslash there.
fn escape_wildcards(path: &[u8]) -> Vec<u8> {
    let has_wildcard = has_wildcard(path);
    let is_escaped = |byte| has_wildcard && b"*?[\\".contains(&byte);
    let bytes = path.iter().flat_map(|&byte| is_escaped(byte).then_some(b'\\').into_iter().chain([byte]));
    bytes.collect()
}

#[cfg(test)]
mod tests;
