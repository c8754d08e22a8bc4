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
        match self {
            Hosts::Patterns(list) => pattern::list_matches(list, host.as_str().as_bytes()),
            Hosts::Hashed(hashed) => hashed.is_of(host),
        }
    }
}

impl Line {
    /// Reads one line without its newline; `None` for blank lines, comments, and whatever OpenSSH would skip.
    ///
    /// One thing is read more strictly than OpenSSH reads it: a tab behind `@revoked` or `@cert-authority` ends the marker
    /// as a space does. OpenSSH drops such a line, and with it a revocation that somebody meant.
    pub(super) fn parse(text: &[u8]) -> Option<Line> {
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
        let (algorithm, rest) = word(rest);
        let (base64, _comment) = word(rest);
        Some(Line { marker, hosts, key: HostKey::from_fields(algorithm, base64)? })
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
