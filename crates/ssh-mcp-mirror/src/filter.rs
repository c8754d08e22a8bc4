//! Which names of a tree are meant: patterns in the spelling of gitignore, over bytes.
//!
//! A pattern without a slash inside names things at any depth; one with a slash at its start or inside is anchored at the
//! root of the sync; one that ends with a slash is about directories. `*`, `?` and `[…]` stay within a name, `**` as a name of
//! its own stands for any number of them, a backslash quotes. A `!` or `#` at the start means nothing.
//!
//! All includes come first, then all excludes; the first that matches decides, and what none matches is taken. What is below
//! a directory that is left out is left out with it, unless an include names it with nothing but plain names on the way: then
//! the directories on that way are taken, and of what is in them only what an include names.
//!
//! The root of the sync is the directory whose content is mirrored, also where the directory itself goes below the
//! destination: `/a` is `src/a` in the list of such a `src`. The root is always taken.
//!
//! A matcher of our own, because those of the crates read `{a,b}` as a choice and do not take single bytes in `[…]`; and
//! the rules of rsync are written from the same parsed form.

use std::collections::BTreeSet;

use rsync_wire::filter::{Action, Rule};

/// The patterns of a job, parsed.
#[derive(Debug)]
pub(crate) struct Filter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    /// Directories on the way to what an include names literally.
    ways: BTreeSet<Vec<u8>>,
}

/// A filter as rules of rsync.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// In the order in which they are asked. They leave out nothing that the filter takes.
    pub(crate) rules: Vec<Rule>,
    /// They leave out all that the filter leaves out.
    pub(crate) exact: bool,
}

/// What becomes of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is taken, and what is in it is asked for on its own.
    Taken,
    /// It is there only because of what an include names below it.
    OnTheWay,
    Left,
}

#[derive(Debug)]
struct Pattern {
    /// From the root on. The last is a name.
    parts: Vec<Part>,
    /// It is about directories only.
    directories: bool,
}

#[derive(Debug)]
enum Part {
    /// Any number of names.
    Any,
    Name(Vec<Token>),
}

#[derive(Debug)]
enum Token {
    /// Any number of bytes.
    Any,
    One,
    Byte(u8),
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

impl Filter {
    /// Parses patterns.
    ///
    /// # Errors
    /// The first that is no pattern, and why.
    pub(crate) fn new(include: &[String], exclude: &[String]) -> Result<Self, String> {
        let parse = |patterns: &[String]| -> Result<Vec<Pattern>, String> {
            let parse =
                |text: &String| Pattern::parse(text).map_err(|why| format!("pattern {text:?}: {why}"));
            patterns.iter().map(parse).collect()
        };
        let (include, exclude) = (parse(include)?, parse(exclude)?);
        let ways = include.iter().flat_map(Pattern::ways).collect();
        Ok(Self { include, exclude, ways })
    }

    /// Nothing is left out.
    pub(crate) fn takes_all(&self) -> bool {
        self.exclude.is_empty()
    }

    /// Whether a path below the root is taken. All directories that it is in are.
    pub(crate) fn takes(&self, path: &[u8], is_directory: bool) -> bool {
        self.verdict(path, is_directory) != Verdict::Left
    }

    /// The same for a server that makes the list; `top` is what the root is called there, if it is in the list by name.
    ///
    /// A pattern that rsync cannot say makes the rules less than exact: what it leaves out has to be left out here.
    pub(crate) fn to_rules(&self, top: Option<&[u8]>) -> Rules {
        let mut rules = Vec::new();
        let mut exact = true;
        if self.exclude.is_empty() {
            return Rules { rules, exact };
        }
        let top: Vec<Part> = top.map(Part::literal).into_iter().collect();
        let mut add = |action, patterns: Vec<Vec<u8>>| {
            let some: Vec<_> = patterns.into_iter().map(|pattern| Rule::new(action, pattern)).collect();
            let can_be_sent = !some.is_empty() && some.iter().all(|rule| rule.to_text().is_ok());
            if can_be_sent {
                rules.extend(some);
            }
            can_be_sent
        };
        let root: Vec<&Part> = top.iter().collect();
        let mut is_said = root.is_empty() || add(Action::Include, vec![spell(&root, Start::Anchored, false)]);
        for pattern in &self.include {
            is_said &= add(Action::Include, pattern.spellings(&top));
        }
        for way in &self.ways {
            let names: Vec<Part> = split(way).map(Part::literal).collect();
            let names: Vec<&Part> = top.iter().chain(&names).collect();
            is_said &= add(Action::Include, vec![spell(&names, Start::Anchored, true)]);
        }
        if !is_said {
            // What is excluded behind an include that is not said might be what it includes.
            return Rules { rules: Vec::new(), exact: false };
        }
        for way in self.ways.iter().filter(|way| self.verdict(way, true) == Verdict::OnTheWay) {
            let everything = Part::Name(vec![Token::Any]);
            let names: Vec<Part> = split(way).map(Part::literal).collect();
            let names: Vec<&Part> = top.iter().chain(&names).chain([&everything]).collect();
            exact &= add(Action::Exclude, vec![spell(&names, Start::Anchored, false)]);
        }
        for pattern in &self.exclude {
            exact &= add(Action::Exclude, pattern.spellings(&top));
        }
        Rules { rules, exact }
    }

    fn verdict(&self, path: &[u8], is_directory: bool) -> Verdict {
        let mut inside = Verdict::Taken;
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let directory = path.get(..at).unwrap_or(path);
            if !self.ways.contains(directory) {
                // It is taken for its own sake, and so is what is in it.
                inside = Verdict::Taken;
                break;
            }
            inside = self.verdict_in(inside, directory, true);
        }
        self.verdict_in(inside, path, is_directory)
    }

    /// The verdict on what is in a directory with that verdict.
    fn verdict_in(&self, inside: Verdict, path: &[u8], is_directory: bool) -> Verdict {
        let names: Vec<&[u8]> = split(path).collect();
        let has = |patterns: &[Pattern]| patterns.iter().any(|one| one.matches(&names, is_directory));
        if has(&self.include) || (inside == Verdict::Taken && !has(&self.exclude)) {
            return Verdict::Taken;
        }
        if is_directory && self.ways.contains(path) { Verdict::OnTheWay } else { Verdict::Left }
    }
}

/// More spellings of one pattern than this are not sent.
const SPELLINGS: usize = 8;

impl Pattern {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains('\0') {
            return Err("no name has a NUL byte");
        }
        let (body, directories) = match text.strip_suffix('/') {
            Some(body) => (body, true),
            None => (text, false),
        };
        let mut parts = if body.contains('/') { Vec::new() } else { vec![Part::Any] };
        for name in body.strip_prefix('/').unwrap_or(body).split('/') {
            match name {
                "" => return Err("there is an empty name in it"),
                "." | ".." => return Err("`.` and `..` are in no list"),
                "**" if matches!(parts.last(), Some(Part::Any)) => {}
                "**" => parts.push(Part::Any),
                name => parts.push(Part::Name(tokens(name)?)),
            }
        }
        if matches!(parts.last(), Some(Part::Any)) {
            // What is below, and not the directory itself.
            parts.push(Part::Name(vec![Token::Any]));
        }
        Ok(Self { parts, directories })
    }

    fn matches(&self, names: &[&[u8]], is_directory: bool) -> bool {
        let is_any = |part: &Part| matches!(part, Part::Any);
        let has_name = |part: &Part, name: &&[u8]| match part {
            Part::Any => false,
            Part::Name(tokens) => {
                matches(tokens, name, |token| matches!(token, Token::Any), |token, byte| token.matches(*byte))
            }
        };
        (is_directory || !self.directories) && matches(&self.parts, names, is_any, has_name)
    }

    /// The directories above what it names, as long as their names are plain.
    fn ways(&self) -> Vec<Vec<u8>> {
        let mut ways: Vec<Vec<u8>> = Vec::new();
        let above = self.parts.split_last().map(|(_, above)| above).unwrap_or_default();
        for name in above.iter().map_while(Part::as_literal) {
            ways.push(match ways.last() {
                Some(parent) => [parent.as_slice(), b"/", &name].concat(),
                None => name,
            });
        }
        ways
    }

    /// What rsync calls it: patterns that together match the same below `top`. None if there are too many.
    fn spellings(&self, top: &[Part]) -> Vec<Vec<u8>> {
        if let [Part::Any, name @ Part::Name(_)] = self.parts.as_slice() {
            return vec![spell(&[name], Start::Anywhere, self.directories)];
        }
        let mut forms: Vec<Vec<&Part>> = vec![top.iter().collect()];
        for part in &self.parts {
            if matches!(part, Part::Any) {
                // With slashes on both sides rsync's `**` stands for one name at least.
                forms.extend_from_within(..);
                let half = forms.len() / 2;
                forms.iter_mut().take(half).for_each(|form| form.push(part));
            } else {
                forms.iter_mut().for_each(|form| form.push(part));
            }
            if forms.len() > SPELLINGS {
                return Vec::new();
            }
        }
        forms.iter().map(|form| spell(form, Start::Anchored, self.directories)).collect()
    }
}

impl Part {
    fn literal(name: &[u8]) -> Self {
        Self::Name(name.iter().copied().map(Token::Byte).collect())
    }

    fn as_literal(&self) -> Option<Vec<u8>> {
        let Self::Name(tokens) = self else { return None };
        let byte = |token: &Token| match token {
            Token::Byte(byte) => Some(*byte),
            Token::Any | Token::One | Token::Class { .. } => None,
        };
        tokens.iter().map(byte).collect()
    }
}

impl Token {
    fn matches(&self, byte: u8) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Byte(this) => *this == byte,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&byte)) != *negated
            }
        }
    }
}

/// Whether a pattern matches all of a sequence; of its parts, some stand for any number of elements, others for one.
fn matches<P, E>(
    pattern: &[P],
    sequence: &[E],
    is_any: impl Fn(&P) -> bool,
    is_one: impl Fn(&P, &E) -> bool,
) -> bool {
    let (mut part, mut element) = (0, 0);
    // Behind the last part that stands for any number, and where what it stands for ends. An earlier one need not stand for
    // more once a later one is reached.
    let mut again: Option<(usize, usize)> = None;
    while let Some(this) = sequence.get(element) {
        match (pattern.get(part), &mut again) {
            (Some(any), _) if is_any(any) => {
                part += 1;
                again = Some((part, element));
            }
            (Some(one), _) if is_one(one, this) => {
                part += 1;
                element += 1;
            }
            (_, Some((behind, end))) => {
                *end += 1;
                (part, element) = (*behind, *end);
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(part).all(is_any)
}

fn split(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

/// A name of a pattern.
fn tokens(name: &str) -> Result<Vec<Token>, &'static str> {
    let mut bytes = name.as_bytes();
    let mut tokens = Vec::new();
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        tokens.push(match byte {
            b'*' if matches!(tokens.last(), Some(Token::Any)) => continue,
            b'*' => Token::Any,
            b'?' => Token::One,
            b'[' => class(&mut bytes)?,
            byte => Token::Byte(plain(byte, &mut bytes)?),
        });
    }
    Ok(tokens)
}

/// A class, whose bracket has been read.
fn class(bytes: &mut &[u8]) -> Result<Token, &'static str> {
    let negated = matches!(bytes.first(), Some(b'!' | b'^'));
    if negated {
        next(bytes);
    }
    let mut ranges = Vec::new();
    loop {
        let byte = next(bytes).ok_or("a `[` has no `]` behind it")?;
        match byte {
            b']' if !ranges.is_empty() => return Ok(Token::Class { negated, ranges }),
            b'[' if bytes.starts_with(b":") => ranges.extend_from_slice(named(bytes)?),
            byte => {
                let first = plain(byte, bytes)?;
                let last = match *bytes {
                    [b'-', end, ..] if *end != b']' => {
                        next(bytes);
                        let end = next(bytes).unwrap_or(first);
                        plain(end, bytes)?
                    }
                    _ => first,
                };
                if last < first {
                    return Err("a range in it is backwards");
                }
                ranges.push((first, last));
            }
        }
    }
}

/// What a name such as `[:digit:]` stands for, whose bracket has been read.
fn named(bytes: &mut &[u8]) -> Result<&'static [(u8, u8)], &'static str> {
    const NAMES: [(&str, &[(u8, u8)]); 12] = [
        (":alnum:]", &[(b'0', b'9'), (b'A', b'Z'), (b'a', b'z')]),
        (":alpha:]", &[(b'A', b'Z'), (b'a', b'z')]),
        (":blank:]", &[(b' ', b' '), (b'\t', b'\t')]),
        (":cntrl:]", &[(0, 31), (127, 127)]),
        (":digit:]", &[(b'0', b'9')]),
        (":graph:]", &[(33, 126)]),
        (":lower:]", &[(b'a', b'z')]),
        (":print:]", &[(32, 126)]),
        (":punct:]", &[(33, 47), (58, 64), (91, 96), (123, 126)]),
        (":space:]", &[(b' ', b' '), (9, 13)]),
        (":upper:]", &[(b'A', b'Z')]),
        (":xdigit:]", &[(b'0', b'9'), (b'A', b'F'), (b'a', b'f')]),
    ];
    for (name, ranges) in NAMES {
        if let Some(rest) = bytes.strip_prefix(name.as_bytes()) {
            *bytes = rest;
            return Ok(ranges);
        }
    }
    Err("it names a class of bytes that is unknown")
}

/// A byte, or the one that it quotes.
fn plain(byte: u8, bytes: &mut &[u8]) -> Result<u8, &'static str> {
    if byte == b'\\' { next(bytes).ok_or("a backslash has nothing behind it") } else { Ok(byte) }
}

fn next(bytes: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(byte)
}

/// Where a pattern of rsync begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Anchored,
    Anywhere,
}

/// A pattern as rsync writes it.
fn spell(parts: &[&Part], start: Start, directories: bool) -> Vec<u8> {
    // Without any of these a backslash quotes nothing.
    let is_wild = |token: &Token| !matches!(token, Token::Byte(byte) if !b"*?[".contains(byte));
    let quotes = parts.iter().any(|part| match part {
        Part::Any => true,
        Part::Name(tokens) => tokens.iter().any(is_wild),
    });
    let mut text = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 || start == Start::Anchored {
            text.push(b'/');
        }
        match part {
            Part::Any => text.extend_from_slice(b"**"),
            Part::Name(tokens) => tokens.iter().for_each(|token| match token {
                Token::Any => text.push(b'*'),
                Token::One => text.push(b'?'),
                Token::Byte(byte) => {
                    if quotes && b"*?[\\".contains(byte) {
                        text.push(b'\\');
                    }
                    text.push(*byte);
                }
                Token::Class { negated, ranges } => {
                    text.extend_from_slice(if *negated { b"[^" } else { b"[" });
                    for (first, last) in ranges {
                        text.extend_from_slice(&[b'\\', *first, b'-', b'\\', *last]);
                    }
                    text.push(b']');
                }
            }),
        }
    }
    if directories {
        text.push(b'/');
    }
    text
}

#[cfg(test)]
mod tests;
