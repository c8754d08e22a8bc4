//! The words of a line.
//!
//! Three grammars share a file, as they do in OpenSSH: the keyword with its optional `=`, arguments with quotations and
//! comments, and the older words of `Match`, whose quotations know no escapes.

use super::Problem;

/// Longest line that is read. OpenSSH has no limit; nobody writes such lines by hand.
pub(super) const LINE_MAX: usize = 64 << 10;

/// A line without what surrounds it; `None` for blank lines and comments.
pub(super) fn content(line: &[u8]) -> Option<Result<&str, Problem>> {
    let line = line.trim_ascii_end();
    let start = line.iter().position(|byte| !is_blank(*byte))?;
    let line = line.get(start..)?;
    if line.first() == Some(&b'#') {
        return None;
    }
    Some(match std::str::from_utf8(line) {
        _ if line.len() > LINE_MAX => Err(Problem::TooLong),
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) | Err(_) => Err(Problem::NotText),
    })
}

/// Splits off the keyword, in lower case, and what separates it from the rest: blanks and at most one `=`.
///
/// What could not be a keyword of any version is refused instead of ignored: a `Host` line that an editor spoilt with a
/// byte order mark would else give its lines to every host.
pub(super) fn keyword(line: &str) -> Result<(String, &str), Problem> {
    let (keyword, rest) = match line.strip_prefix('"').and_then(|quoted| quoted.split_once('"')) {
        Some((keyword, rest)) => (keyword, rest.trim_start_matches(BLANKS)),
        None => {
            let end = line.find(|c: char| c == '=' || BLANKS.contains(&c)).unwrap_or(line.len());
            let (keyword, rest) = line.split_at_checked(end).unwrap_or((line, ""));
            (keyword, without_separator(rest))
        }
    };
    if keyword.is_empty() || !keyword.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Problem::NotAKeyword(line.split(BLANKS).next().unwrap_or_default().to_owned()));
    }
    Ok((keyword.to_ascii_lowercase(), rest))
}

/// The arguments behind a keyword; `None` if a quotation has no end.
///
/// Quotations of either kind may begin anywhere in a word. A backslash takes away the meaning of a quote, of another
/// backslash, and outside quotations of a space. A word that begins with `#` ends the line.
pub(super) fn arguments(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t']);
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, behind) = argument(rest)?;
        words.push(word);
        rest = behind.trim_start_matches([' ', '\t']);
    }
    Some(words)
}

fn argument(text: &str) -> Option<(String, &str)> {
    // Most words are nothing but letters.
    let plain = text.bytes().position(|byte| matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b'\\'));
    let (start, rest) = text.split_at_checked(plain.unwrap_or(text.len()))?;
    if !rest.starts_with(['"', '\'', '\\']) {
        return Some((start.to_owned(), rest));
    }
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    loop {
        let rest = characters.as_str();
        match (characters.next(), quote) {
            (Some('\\'), _) => {
                let mut ahead = characters.clone();
                match ahead.next() {
                    Some(escaped @ ('"' | '\'' | '\\')) => {
                        word.push(escaped);
                        characters = ahead;
                    }
                    Some(' ') if quote.is_none() => {
                        word.push(' ');
                        characters = ahead;
                    }
                    Some(_) | None => word.push('\\'),
                }
            }
            (Some(' ' | '\t') | None, None) => return Some((word, rest)),
            (None, Some(_)) => return None,
            (Some(opening @ ('"' | '\'')), None) => quote = Some(opening),
            (Some(closing), Some(opening)) if closing == opening => quote = None,
            (Some(character), _) => word.push(character),
        }
    }
}

/// The words behind `Match`, one at a time.
pub(super) struct MatchWords<'a> {
    rest: &'a str,
}

impl<'a> MatchWords<'a> {
    pub(super) fn new(rest: &'a str) -> MatchWords<'a> {
        MatchWords { rest }
    }

    /// True if nothing stands here but perhaps a comment.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with('#')
    }

    /// The next word; `None` at the end, before a comment, and where a quotation has no end.
    ///
    /// A quotation reaches to the next `"`; in the middle of a word it ends the word with it. Words are separated by blanks
    /// and at most one `=`, which is why `host=name` works.
    pub(super) fn next_word(&mut self) -> Option<String> {
        let text = self.rest;
        if let Some(quoted) = text.strip_prefix('"') {
            let (word, rest) = quoted.split_once('"')?;
            self.rest = rest.trim_start_matches(BLANKS);
            return as_word(word.to_owned());
        }
        let end = text.find(|c: char| c == '"' || c == '=' || BLANKS.contains(&c)).unwrap_or(text.len());
        let (word, rest) = text.split_at_checked(end)?;
        if let Some(quoted) = rest.strip_prefix('"') {
            let (quoted, rest) = quoted.split_once('"')?;
            self.rest = rest.trim_start_matches(BLANKS);
            return as_word(format!("{word}{quoted}"));
        }
        self.rest = without_separator(rest);
        as_word(word.to_owned())
    }
}

fn as_word(word: String) -> Option<String> {
    (!word.is_empty() && !word.starts_with('#')).then_some(word)
}

/// Drops blanks and at most one `=`.
fn without_separator(text: &str) -> &str {
    let text = text.trim_start_matches(BLANKS);
    text.strip_prefix('=').unwrap_or(text).trim_start_matches(BLANKS)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

pub(super) const BLANKS: [char; 3] = [' ', '\t', '\r'];

#[cfg(test)]
mod tests {
    use super::{MatchWords, arguments, content, keyword};

    #[test]
    fn arguments_are_cut_as_openssh_cuts_them() {
        for (text, words) in [
            ("a b\tc", &["a", "b", "c"][..]),
            ("\"a b\" 'c d'", &["a b", "c d"]),
            ("a\"b c\"d", &["ab cd"]),
            (r#""a\"b""#, &["a\"b"]),
            (r"a\ b", &["a b"]),
            (r#""a\ b""#, &[r"a\ b"]),
            (r"a\b a\\b", &[r"a\b", r"a\b"]),
            (r"a\", &[r"a\"]),
            ("a # b", &["a"]),
            ("a#b \"#c\"", &["a#b", "#c"]),
            ("'' a", &["", "a"]),
            ("a\rb", &["a\rb"]),
            ("", &[]),
        ] {
            assert_eq!(arguments(text).unwrap(), words, "{text:?}");
        }
        for text in ["\"a", "'a", "a\"b", "\"a'"] {
            assert_eq!(arguments(text), None, "{text:?}");
        }
    }

    #[test]
    fn keywords_take_blanks_and_one_equals_sign() {
        for (line, rest) in [
            ("User a", "a"),
            ("USER=a", "a"),
            ("user \t=\t a", "a"),
            ("User== a", "= a"),
            ("\"User\" a", "a"),
            ("\"User\"=a", "=a"),
            ("User", ""),
        ] {
            assert_eq!(keyword(line).unwrap(), ("user".to_owned(), rest), "{line:?}");
        }
        for line in ["\u{feff}Host a", "=", "'User' a", "\"User", "\u{c}User a", "User\"a\"", "User\\"] {
            assert!(keyword(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn words_behind_match() {
        fn words(text: &str) -> Vec<String> {
            let mut words = MatchWords::new(text);
            std::iter::from_fn(|| words.next_word()).collect()
        }
        for (text, expected) in [
            ("host a user b", &["host", "a", "user", "b"][..]),
            ("host=a  user = b", &["host", "a", "user", "b"]),
            ("exec \"a b\" all", &["exec", "a b", "all"]),
            ("user\"root\"", &["userroot"]),
            ("\"user\"\"root\"host", &["user", "root", "host"]),
            ("user 'a b'", &["user", "'a", "b'"]),
            ("all # c", &["all"]),
            ("user \"\" a", &["user"]),
            ("user = = a", &["user"]),
            (r#"\"a"#, &[]),
        ] {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_content() {
        for line in ["", "  \t", "# a", " \r # a", "\r", "\u{c}"] {
            assert!(content(line.as_bytes()).is_none(), "{line:?}");
        }
        assert_eq!(content(b" User a \r"), Some(Ok("User a")));
        assert!(matches!(content(b"User a\0b"), Some(Err(_))));
        assert!(matches!(content(b"User \xff"), Some(Err(_))));
    }
}
