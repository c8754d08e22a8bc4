//! One line of known_hosts: marker, host names, key type, key, comment.

use super::key::HostKey;
use super::name::{HashedName, HostName};
use crate::pattern;

/// What a line says.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) marker: Marker,
    pub(super) hosts: Hosts,
    pub(super) key: HostKey,
}

/// What a line says its key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    /// No marker: the key of the hosts named.
    HostKey,
    /// `@cert-authority`: signs host certificates, is no host's key.
    CertAuthority,
    /// `@revoked`: to be refused.
    Revoked,
}

/// Whom a line is about.
#[derive(Debug)]
pub(super) enum Hosts {
    /// A comma-separated list of patterns, in lower case.
    Patterns(Box<[u8]>),
    /// One name, hashed.
    Hashed(HashedName),
}

impl Hosts {
    pub(super) fn include(&self, host: &HostName) -> bool {
        self.include_any([host])
    }

    pub(super) fn include_any<'a>(&self, names: impl IntoIterator<Item = &'a HostName>) -> bool {
        match self {
            Hosts::Patterns(list) => {
                names.into_iter().any(|name| pattern::list_matches(list, name.as_str().as_bytes()))
            }
            Hosts::Hashed(hashed) => hashed.is_of_any(names),
        }
    }
}

/// A line of which the key is still to be read: most lines are about somebody else.
pub(super) struct Subject<'a> {
    pub(super) hosts: Hosts,
    marker: Marker,
    key: &'a [u8],
}

impl Subject<'_> {
    /// Reads one line without its newline; `None` for blank lines, comments, and whatever OpenSSH would skip.
    ///
    /// One thing is read more strictly than OpenSSH reads it: a tab behind `@revoked` or `@cert-authority` ends the marker
    /// as a space does. OpenSSH drops such a line, and with it a revocation that somebody meant.
    pub(super) fn parse(text: &[u8]) -> Option<Subject<'_>> {
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let (first, rest) = word(text);
        let (marker, hosts, rest) = match first {
            b"" => return None,
            [b'#', ..] => return None,
            b"@revoked" => with_marker(Marker::Revoked, rest)?,
            b"@cert-authority" => with_marker(Marker::CertAuthority, rest)?,
            [b'@', ..] => return None,
            hosts => (Marker::HostKey, hosts, rest),
        };
        let hosts = match hosts {
            [b'|', ..] => Hosts::Hashed(HashedName::parse(hosts)?),
            list => Hosts::Patterns(list.to_ascii_lowercase().into()),
        };
        Some(Subject { hosts, marker, key: rest })
    }

    /// The whole line; `None` if its key is none that OpenSSH would take.
    pub(super) fn into_line(self) -> Option<Line> {
        let (algorithm, rest) = word(self.key);
        let (base64, _comment) = word(rest);
        let key = HostKey::from_fields(algorithm, base64)?;
        Some(Line { marker: self.marker, hosts: self.hosts, key })
    }
}

/// The hosts behind a marker; a second marker makes the line void.
fn with_marker(marker: Marker, rest: &[u8]) -> Option<(Marker, &[u8], &[u8])> {
    match word(rest) {
        (b"" | [b'@', ..], _) => None,
        (hosts, rest) => Some((marker, hosts, rest)),
    }
}

/// Splits off the first word; spaces and tabs before it are dropped.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len());
    let (_, text) = text.split_at(start);
    let end = text.iter().position(is_blank).unwrap_or(text.len());
    text.split_at(end)
}
