//! glob(7) for `Include`: `*`, `?`, `[a-z]`, `[!a-z]` and `\`, in byte order.
//!
//! Of its own because OpenSSH's patterns are not those of the usual crates: `**` is two stars, `^` negates nothing, a
//! backslash escapes.

use std::path::{Path, PathBuf};

/// The paths that match `pattern`, in byte order; none if nothing does, or nothing can be looked at.
pub(super) fn expand(pattern: &str) -> Vec<PathBuf> {
    let root = if pattern.starts_with('/') { "/" } else { "" };
    let mut found = vec![PathBuf::from(root)];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        found = found.iter().flat_map(|folder| matching(folder, part)).take(FOUND_MAX).collect();
    }
    found.sort_unstable_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    found
}

fn matching(folder: &Path, part: &str) -> Vec<PathBuf> {
    if !part.contains(['*', '?', '[']) {
        let path = folder.join(without_escapes(part));
        return if path.symlink_metadata().is_ok() { vec![path] } else { Vec::new() };
    }
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(entries) = here.read_dir() else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| {
            let name = name.as_encoded_bytes();
            let is_hidden = name.starts_with(b".");
            (!is_hidden || part.starts_with('.')) && matches(part.as_bytes(), name)
        })
        .map(|name| folder.join(name))
        .collect()
}

fn without_escapes(part: &str) -> String {
    let mut characters = part.chars();
    let mut plain = String::with_capacity(part.len());
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' { characters.next().unwrap_or(character) } else { character });
    }
    plain
}

/// True if `pattern` covers all of `name`.
fn matches(mut pattern: &[u8], mut name: &[u8]) -> bool {
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            retry = Some((rest, name));
            pattern = rest;
            continue;
        }
        match name.split_first().and_then(|(&byte, rest)| Some((one(pattern, byte)?, rest))) {
            Some(rests) => (pattern, name) = rests,
            None if pattern.is_empty() && name.is_empty() => return true,
            None => {
                // The last star has to take one byte more.
                let Some((after_star, tried)) = retry else { return false };
                let Some((_, shorter)) = tried.split_first() else { return false };
                retry = Some((after_star, shorter));
                (pattern, name) = (after_star, shorter);
            }
        }
    }
}

/// What is left of the pattern if its first element covers `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', set @ ..] => match class(set, byte) {
            Some((true, rest)) => Some(rest),
            Some((false, _)) => None,
            // No set without its end.
            None => (byte == b'[').then_some(set),
        },
        [b'\\', wanted, rest @ ..] | [wanted, rest @ ..] => (*wanted == byte).then_some(rest),
        [] => None,
    }
}

/// Whether the set covers `byte`, and what stands behind it; `None` if it has no end.
fn class(set: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match set {
        [b'!', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut covered = false;
    let mut is_first = true;
    loop {
        rest = match rest {
            [b']', behind @ ..] if !is_first => return Some((covered != negated, behind)),
            [from, b'-', to, behind @ ..] if *to != b']' => {
                covered |= (*from..=*to).contains(&byte);
                behind
            }
            [single, behind @ ..] => {
                covered |= *single == byte;
                behind
            }
            [] => return None,
        };
        is_first = false;
    }
}

/// More than any real pattern finds; keeps a pattern of stars from filling the memory.
const FOUND_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::{expand, matches};

    #[test]
    fn names() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.config", false),
            ("**", "ab", true),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a]", "a", true),
            ("[^a]", "b", false),
            ("[]a]", "]", true),
            ("[a-]", "-", true),
            ("[a", "[a", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            (r"*\?", "a?", true),
            ("{a,b}", "a", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn paths_come_in_byte_order_and_hidden_ones_when_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["x1", "x10", "x2", ".hidden", "sub/one", "other/one"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = |pattern: &str| -> Vec<String> {
            let paths = expand(&format!("{}/{pattern}", folder.path().display()));
            let names =
                paths.iter().map(|path| path.strip_prefix(folder.path()).unwrap().display().to_string());
            names.collect()
        };
        assert_eq!(found("x*"), ["x1", "x10", "x2"]);
        assert_eq!(found("*/one"), ["other/one", "sub/one"]);
        assert_eq!(found(".h*"), [".hidden"]);
        assert_eq!(found("*den"), [""; 0]);
        assert_eq!(found("x1"), ["x1"]);
        assert_eq!(found("missing"), [""; 0]);
        assert_eq!(found("x1/*"), [""; 0]);
    }
}
