//! Settings that are one of a few words.

use crate::{
    lane::LagPolicy,
    target::{Compression, HostKeyPolicy},
};

/// A closed set of words, each with the value it stands for.
pub trait Words: Sized + Copy + PartialEq + 'static {
    /// Spellings in lower case with `-`; the first one of a value is how it is shown.
    const WORDS: &'static [(&'static str, Self)];

    /// How the value is written.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }

    /// Reads a word in any case, `-` and `_` alike.
    fn from_word(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase().replace('_', "-");
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }
}

impl Words for bool {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("true", true),
        ("1", true),
        ("yes", true),
        ("on", true),
        ("false", false),
        ("0", false),
        ("no", false),
        ("off", false),
    ];
}

impl Words for Compression {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("true", Self::On),
        ("1", Self::On),
        ("yes", Self::On),
        ("on", Self::On),
        ("false", Self::Off),
        ("0", Self::Off),
        ("no", Self::Off),
        ("off", Self::Off),
    ];
}

/// What the operator wants done with a host key that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyChecking {
    /// Refuse it.
    Yes,
    /// Learn it.
    AcceptNew,
    /// Ask the client; refuse it where the client cannot be asked.
    Ask,
    /// Take any key, a changed one too.
    DangerAcceptAny,
}

impl HostKeyChecking {
    /// What a connection does.
    pub fn policy(self) -> HostKeyPolicy {
        match self {
            Self::Yes => HostKeyPolicy::Strict,
            Self::Ask => HostKeyPolicy::Ask,
            Self::AcceptNew => HostKeyPolicy::AcceptNew,
            Self::DangerAcceptAny => HostKeyPolicy::DangerAcceptAny,
        }
    }
}

impl Words for HostKeyChecking {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("yes", Self::Yes),
        ("accept-new", Self::AcceptNew),
        ("ask", Self::Ask),
        ("no", Self::DangerAcceptAny),
        ("off", Self::DangerAcceptAny),
    ];
}

/// Whose tool names and fields clients are shown in place of this version's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacyTools {
    /// Nobody's.
    Off,
    /// Those of 001.
    V001,
    /// Those of 002.
    V002,
    /// Those of 003.
    V003,
}

impl Words for LegacyTools {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("001", Self::V001), ("002", Self::V002), ("003", Self::V003)];
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Words for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

impl Words for LagPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("block-slow", Self::BlockSlow),
        ("drop-oldest", Self::DropOldest),
        ("drop-newest", Self::DropNewest),
        ("snapshot", Self::Snapshot),
    ];
}
