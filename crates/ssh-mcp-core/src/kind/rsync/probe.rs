//! What a host says about its rsync.

use crate::text;

/// What `rsync --version` was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// An rsync that speaks a protocol of ours.
    Usable {
        /// Its version.
        version: String,
        /// The newest protocol it speaks.
        protocol: u32,
    },
    /// An rsync that is too old.
    TooOld {
        /// What it said of itself.
        found: String,
    },
    /// Another program of that name.
    Other {
        /// What it said of itself.
        found: String,
    },
    /// None, or nothing may be run there.
    Missing {
        /// The host's words.
        words: String,
    },
}

/// Older ones know neither the checksums nor the compressions that are asked for.
const OLDEST: (u32, u32) = (3, 2);
const OLDEST_PROTOCOL: u32 = 31;

/// Reads the answer to `rsync --version`. What login files print before it is passed over.
pub fn probe(output: &[u8], errors: &[u8]) -> Probe {
    let (output, errors) = (text::lossy(output), text::lossy(errors));
    if let Some((version, protocol, line)) = output.lines().find_map(read_line) {
        let new_enough = numbers(version).is_some_and(|found| found >= OLDEST) && protocol >= OLDEST_PROTOCOL;
        return match new_enough {
            true => Probe::Usable { version: version.to_owned(), protocol },
            false => Probe::TooOld { found: text::remote_words(line) },
        };
    }
    let names_itself = |line: &&str| line.contains("rsync") && line.contains("version");
    if let Some(line) = output.lines().find(names_itself) {
        return Probe::Other { found: text::remote_words(line) };
    }
    let said = errors.lines().chain(output.lines()).find(|line| !line.trim().is_empty());
    Probe::Missing { words: said.map_or_else(|| "it says nothing".to_owned(), text::remote_words) }
}

/// The first line of an rsync: `rsync  version 3.2.7  protocol version 31`.
fn read_line(line: &str) -> Option<(&str, u32, &str)> {
    let mut words = line.split_whitespace();
    let mut is = |expected: &str| words.next() == Some(expected);
    if !(is("rsync") && is("version")) {
        return None;
    }
    let version = words.next()?;
    let mut is = |expected: &str| words.next() == Some(expected);
    if !(is("protocol") && is("version")) {
        return None;
    }
    Some((version, words.next()?.parse().ok()?, line))
}

/// The first two numbers of a version such as `3.2.7` or `v3.4.0dev`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
