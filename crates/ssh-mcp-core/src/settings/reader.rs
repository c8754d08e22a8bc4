//! Resolving one setting after the other along the chain flag, environment, file, default.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::Settings;
use super::form::{Context, Form, MASK, Read, Reject};
use super::row::{Alias, Binary, Row, Spec};

/// The place a value comes from, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Command line.
    Flag,
    /// Environment of the process.
    Environment,
    /// Environment file.
    File,
    /// Built in.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// One setting as it was resolved.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Its row in the table.
    #[serde(flatten)]
    pub row: Row,
    /// The value in use, a secret masked.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
    /// The text it was read from, a secret masked.
    pub raw: Option<String>,
}

/// What was found out about one setting that somebody should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The text cannot be read; the next place of the chain was asked.
    Unreadable {
        /// Variable or flag.
        name: &'static str,
        /// The text, a secret masked.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
        /// The value used in its place.
        used: String,
        /// Where the text stood.
        origin: Origin,
    },
    /// The value lies outside its range; the nearest bound is used.
    OutOfRange {
        /// Variable or flag.
        name: &'static str,
        /// The text, a secret masked.
        text: String,
        /// What is accepted.
        range: String,
        /// The value used in its place.
        used: String,
        /// Where the text stood.
        origin: Origin,
    },
    /// The value makes sense and is never allowed.
    Forbidden {
        /// Variable or flag.
        name: &'static str,
        /// The text, a secret masked.
        text: String,
        /// Why not.
        reason: &'static str,
    },
    /// An old name was used.
    Deprecated {
        /// The old name.
        name: &'static str,
        /// The name to use.
        instead: &'static str,
    },
    /// The setting is accepted, and nothing reads it.
    Unused {
        /// Variable.
        name: &'static str,
        /// Why nothing reads it.
        reason: &'static str,
    },
}

/// How much a [`Problem`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a line in the log.
    Notice,
    /// Worth a warning; refuses the start under strict configuration.
    Warning,
    /// Refuses the start.
    Error,
}

impl Problem {
    /// How much it matters; a bad flag always refuses the start.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Unreadable { origin: Origin::Flag, .. }
            | Self::OutOfRange { origin: Origin::Flag, .. }
            | Self::Forbidden { .. } => Severity::Error,
            Self::Unreadable { .. } | Self::OutOfRange { .. } => Severity::Warning,
            Self::Deprecated { .. } | Self::Unused { .. } => Severity::Notice,
        }
    }
}

impl Problem {
    /// What is used in place of the text, where something is.
    pub fn used(&self) -> Option<&str> {
        match self {
            Self::Unreadable { used, .. } | Self::OutOfRange { used, .. } => {
                Some(if used.is_empty() { "nothing" } else { used })
            }
            Self::Forbidden { .. } | Self::Deprecated { .. } | Self::Unused { .. } => None,
        }
    }
}

/// What is wrong, in one line without secrets.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { name, text, reason, .. } | Self::Forbidden { name, text, reason } => {
                write!(f, "{name}={text}: {reason}")
            }
            Self::OutOfRange { name, text, range, .. } => write!(f, "{name}={text}: outside {range}"),
            Self::Deprecated { name, instead } => write!(f, "{name} is an old name of {instead}"),
            Self::Unused { name, reason } => write!(f, "{name} has no effect: {reason}"),
        }
    }
}

/// All settings of a process, with what led to them.
pub struct Outcome {
    /// The values.
    pub settings: Settings,
    /// Each setting that the program reads, in the order of the table.
    pub entries: Vec<Entry>,
    /// What somebody should know, in the order of the table.
    pub problems: Vec<Problem>,
}

pub(super) struct Reader<'a> {
    binary: Binary,
    sources: &'a dyn Fn(Origin, &str) -> Option<String>,
    home: Option<PathBuf>,
    numbers: Vec<(&'static str, u64)>,
    entries: Vec<Entry>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        binary: Binary,
        sources: &'a dyn Fn(Origin, &str) -> Option<String>,
        home: Option<PathBuf>,
    ) -> Self {
        // Paths in every row may need it, so it is looked up before the row that shows it.
        let set = [Origin::Environment, Origin::File].into_iter().find_map(|origin| {
            ["HOME", "USERPROFILE"].into_iter().find_map(|name| look_up(sources, origin, name))
        });
        let home = set.map(PathBuf::from).or(home);
        Self { binary, sources, home, numbers: Vec::new(), entries: Vec::new(), problems: Vec::new() }
    }

    /// Resolves one row: the first place with a usable value wins.
    pub(super) fn take<F: Form>(&mut self, spec: Spec<F>) -> F::Value {
        let Spec { row, form } = spec;
        let context = Context { home: self.home.as_deref(), numbers: &self.numbers };
        let mut problems = Vec::new();
        let mut found = None;
        if row.binaries.contains(&self.binary) {
            for (origin, name, alias, text) in places(&row, self.sources) {
                let shown = || if form.is_secret() { MASK.to_owned() } else { text.clone() };
                if let Some(Alias::Deprecated(name)) = alias {
                    problems.push(Problem::Deprecated { name, instead: row.name });
                }
                let bare =
                    matches!(alias, Some(Alias::WithUnit(_))) && text.ends_with(|c: char| c.is_ascii_digit());
                let read = if bare { Err(Reject::Unreadable(NO_UNIT)) } else { form.read(&text, &context) };
                match read {
                    Ok(Read::Exact(value)) => found = Some((value, origin, shown())),
                    Ok(Read::Clamped(value)) => {
                        let (range, used) = (form.range(), form.show(&value));
                        problems.push(Problem::OutOfRange { name, text: shown(), range, used, origin });
                        found = Some((value, origin, shown()));
                    }
                    Err(Reject::Unreadable(reason)) => {
                        let used = String::new();
                        problems.push(Problem::Unreadable { name, text: shown(), reason, used, origin });
                    }
                    Err(Reject::Forbidden(reason)) => {
                        problems.push(Problem::Forbidden { name, text: shown(), reason });
                    }
                }
                if found.is_some() {
                    break;
                }
            }
        }
        let (value, origin, raw) = match found {
            Some((value, origin, raw)) => (value, origin, Some(raw)),
            None => (form.default_value(&context), Origin::Default, None),
        };
        let in_use = form.show(&value);
        for problem in &mut problems {
            if let Problem::Unreadable { used, .. } = problem {
                used.clone_from(&in_use);
            }
        }
        if let (Some(reason), true) = (row.effect.why_unused(), raw.is_some()) {
            problems.push(Problem::Unused { name: row.name, reason });
        }
        if let Some(number) = form.number(&value) {
            self.numbers.push((row.name, number));
        }
        self.problems.append(&mut problems);
        self.entries.push(Entry { row, value: in_use, origin, raw });
        value
    }

    pub(super) fn finish(self, settings: Settings) -> Outcome {
        let Self { binary, mut entries, problems, .. } = self;
        entries.retain(|entry| entry.row.binaries.contains(&binary));
        Outcome { settings, entries, problems }
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        self.entries.into_iter().map(|entry| entry.row).collect()
    }
}

/// What is wrong with a bare number under a name that wants a unit.
const NO_UNIT: &str = "a number with its unit, such as 200ms or 1s";

/// Every place where the row has a text, the strongest first; within one place the main name comes first.
fn places(
    row: &Row,
    sources: &dyn Fn(Origin, &str) -> Option<String>,
) -> Vec<(Origin, &'static str, Option<Alias>, String)> {
    let mut places = Vec::new();
    if let Some(flag) = row.flag {
        places.extend(look_up(sources, Origin::Flag, flag).map(|text| (Origin::Flag, flag, None, text)));
    }
    for origin in [Origin::Environment, Origin::File] {
        let variable = (!row.name.starts_with('-')).then_some((row.name, None));
        let aliases = row.aliases.iter().map(|alias| (alias.name(), Some(*alias)));
        for (name, alias) in variable.into_iter().chain(aliases) {
            places.extend(look_up(sources, origin, name).map(|text| (origin, name, alias, text)));
        }
    }
    places
}

/// A text without white space around it; an empty one counts as not set.
fn look_up(sources: &dyn Fn(Origin, &str) -> Option<String>, origin: Origin, name: &str) -> Option<String> {
    let text = sources(origin, name)?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
