//! Whom a block is for: `Host` and `Match`.

use super::problem::Problem;
use super::setting;
use super::tokens::{self, Known};
use super::words::MatchWords;
use crate::pattern;

/// What stands on a `Host` or `Match` line.
#[derive(Debug)]
pub(super) enum Condition {
    /// At least one pattern matches and no negated one does.
    Host(Vec<HostPattern>),
    /// Every criterion holds.
    Match(Vec<Criterion>),
}

#[derive(Debug)]
pub(super) struct HostPattern {
    negated: bool,
    pattern: String,
}

/// One criterion of a `Match` line.
#[derive(Debug)]
pub(super) struct Criterion {
    pub(super) negated: bool,
    pub(super) test: Test,
}

#[derive(Debug)]
pub(super) enum Test {
    All,
    /// `final` and `canonical`: both hold in the second pass, whatever asked for it.
    SecondPass,
    /// Patterns in lower case.
    Host(String),
    /// Patterns in lower case.
    OriginalHost(String),
    User(String),
    LocalUser(String),
    /// A command line, its tokens not expanded.
    Exec(String),
}

impl Condition {
    pub(super) fn parse_host(rest: &str) -> Result<Condition, Problem> {
        // `Host #` has words for OpenSSH, if none that match: it is a block for nobody.
        let patterns = match rest.starts_with('#') {
            true => Vec::new(),
            false => setting::many("Host", rest)?,
        };
        let pattern = |word: String| match word.strip_prefix('!') {
            Some(pattern) => HostPattern { negated: true, pattern: pattern.to_owned() },
            None => HostPattern { negated: false, pattern: word },
        };
        Ok(Condition::Host(patterns.into_iter().map(pattern).collect()))
    }

    /// Reads a `Match` line; the second value is true if it names `final`.
    pub(super) fn parse_match(rest: &str) -> Result<(Condition, bool), Problem> {
        if super::words::arguments(rest).is_none() {
            return Err(Problem::Quotes("Match"));
        }
        let mut words = MatchWords::new(rest);
        let mut criteria: Vec<Criterion> = Vec::new();
        let mut mentions_final = false;
        while let Some(word) = words.next_word() {
            let (negated, name) = match word.strip_prefix('!') {
                Some(name) => (true, name),
                None => (false, word.as_str()),
            };
            let test = match name.to_ascii_lowercase().as_str() {
                "all" if criteria.len() > 1 || !words.is_at_end() => return Err(Problem::MatchAll),
                "all" => Test::All,
                "canonical" => Test::SecondPass,
                "final" => {
                    mentions_final = true;
                    Test::SecondPass
                }
                "host" => Test::Host(argument(&mut words, "host")?.to_ascii_lowercase()),
                "originalhost" => {
                    Test::OriginalHost(argument(&mut words, "originalhost")?.to_ascii_lowercase())
                }
                "user" => Test::User(argument(&mut words, "user")?),
                "localuser" => Test::LocalUser(argument(&mut words, "localuser")?),
                "exec" => {
                    let command = argument(&mut words, "exec")?;
                    tokens::check(&command, Known::All)
                        .map_err(|error| Problem::Expand { keyword: "Match exec", error })?;
                    Test::Exec(command)
                }
                _ => return Err(Problem::Criterion(name.to_owned())),
            };
            criteria.push(Criterion { negated, test });
        }
        match criteria.is_empty() {
            true => Err(Problem::NoCriterion),
            false => Ok((Condition::Match(criteria), mentions_final)),
        }
    }
}

fn argument(words: &mut MatchWords<'_>, criterion: &'static str) -> Result<String, Problem> {
    words.next_word().ok_or(Problem::CriterionArgument(criterion))
}

/// True if the patterns of a `Host` line are for `host`; its case counts.
pub(super) fn is_for(patterns: &[HostPattern], host: &str) -> bool {
    let mut found = false;
    for HostPattern { negated, pattern } in patterns {
        if pattern::matches(pattern.as_bytes(), host.as_bytes()) {
            if *negated {
                return false;
            }
            found = true;
        }
    }
    found
}
