//! The environment file: `NAME=value` lines, comments, quotes, `export`.

use std::collections::HashMap;

/// Variables from a file.
#[derive(Debug, Default)]
pub(super) struct EnvFile {
    variables: HashMap<String, String>,
}

impl EnvFile {
    /// Reads a file; the second part are the numbers of lines that make no sense. The last line of a name counts.
    pub(super) fn parse(text: &str) -> (Self, Vec<usize>) {
        let mut file = Self::default();
        let mut bad = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            match parse_line(line) {
                Line::Variable(name, value) => {
                    file.variables.insert(name.to_owned(), value);
                }
                Line::Nothing => {}
                Line::Bad => bad.push(number + 1),
            }
        }
        (file, bad)
    }

    /// What the file says about a name.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

enum Line<'a> {
    Variable(&'a str, String),
    Nothing,
    Bad,
}

fn parse_line(line: &str) -> Line<'_> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Line::Nothing;
    }
    let exported = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
    let Some((name, value)) = exported.unwrap_or(line).split_once('=') else { return Line::Bad };
    let name = name.trim();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match parse_value(value.trim()) {
        Some(value) if is_name => Line::Variable(name, value),
        Some(_) | None => Line::Bad,
    }
}

/// Single quotes keep everything, double quotes know `\"`, `\\`, `\n` and `\t`; without quotes a `#` after white space begins a comment.
fn parse_value(text: &str) -> Option<String> {
    let (value, rest) = match text.chars().next() {
        Some('\'') => {
            let (value, rest) = text.get(1..)?.split_once('\'')?;
            (value.to_owned(), rest)
        }
        Some('"') => unquote(text.get(1..)?)?,
        Some('#') => return Some(String::new()),
        Some(_) | None => {
            let comment = text.match_indices('#').find(|(at, _)| text[..*at].ends_with([' ', '\t']));
            let value = comment.map_or(text, |(at, _)| &text[..at]);
            return Some(value.trim_end().to_owned());
        }
    };
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some(value)
}

fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                c @ ('"' | '\\' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}
