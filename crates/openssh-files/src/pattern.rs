//! Host patterns as ssh_config(5) describes them under PATTERNS: `*`, `?`, comma lists and `!`.
//!
//! Works on bytes, because the files it serves promise no encoding. Where case does not count, both sides must be in lower
//! case already.
//! Not here: character classes and escapes, which OpenSSH does not have either.

/// True if some pattern of the comma-separated `list` matches `text` and no negated one does.
///
/// A pattern longer than OpenSSH's own limit spoils its whole list, as it does there.
pub(crate) fn list_matches(list: &[u8], text: &[u8]) -> bool {
    let mut found = false;
    for item in list.split(|&byte| byte == b',') {
        let (negated, pattern) = match item.strip_prefix(b"!") {
            Some(rest) => (true, rest),
            None => (false, item),
        };
        if pattern.len() > PATTERN_MAX {
            return false;
        }
        if matches(pattern, text) {
            if negated {
                return false;
            }
            found = true;
        }
    }
    found
}

/// True if `pattern` covers all of `text`; `*` stands for any run of bytes, `?` for one.
///
/// Keeps one point to come back to instead of recursing, so a row of stars costs at most the product of both lengths.
pub(crate) fn matches(mut pattern: &[u8], mut text: &[u8]) -> bool {
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (Some((b'*', rest)), _) => {
                retry = Some((rest, text));
                pattern = rest;
            }
            (Some((&wanted, pattern_rest)), Some((&byte, text_rest))) if wanted == b'?' || wanted == byte => {
                (pattern, text) = (pattern_rest, text_rest);
            }
            (None, None) => return true,
            (Some(_) | None, _) => {
                // The last star has to take one byte more.
                let Some((after_star, tried)) = retry else { return false };
                let Some((_, shorter)) = tried.split_first() else { return false };
                retry = Some((after_star, shorter));
                (pattern, text) = (after_star, shorter);
            }
        }
    }
}

/// OpenSSH copies each pattern into a buffer of 1,024 bytes and gives up on the list when one does not fit.
const PATTERN_MAX: usize = 1022;

#[cfg(test)]
mod tests {
    use super::list_matches;

    #[track_caller]
    fn check(list: &str, text: &str, expected: bool) {
        assert_eq!(list_matches(list.as_bytes(), text.as_bytes()), expected, "{list:?} against {text:?}");
    }

    #[test]
    fn single_patterns() {
        check("a", "a", true);
        check("a", "ab", false);
        check("ab", "a", false);
        check("", "", true);
        check("", "a", false);
        check("?", "", false);
        check("a?c", "abc", true);
        check("*", "", true);
        check("*", "anything", true);
        check("a*c", "abbbc", true);
        check("a*c", "abbbd", false);
        check("*.example", "a.b.example", true);
        check("*.example", ".example", true);
        check("*.example", "example", false);
        check("*a*b*", "xxaxxbxx", true);
        check("*a*b", "xaxbxbx", false);
        check("a**?", "ab", true);
        check("a**?", "a", false);
        check(r"\*", "*", false);
    }

    #[test]
    fn lists_and_negation() {
        check("a,b", "b", true);
        check("a,,b", "b", true);
        check("*,!b", "b", false);
        check("!b,*", "b", false);
        check("!b", "a", false);
        check("!*.x,*", "a.x", false);
        check("!*.x,*", "a.y", true);
        check("a!b", "a!b", true);
    }

    #[test]
    fn rows_of_stars_stay_cheap() {
        let stars = "*a".repeat(400);
        check(&stars, &"a".repeat(300), false);
        check(&stars, &"a".repeat(400), true);
    }

    #[test]
    fn a_pattern_beyond_the_limit_spoils_its_list() {
        let long = "*".repeat(super::PATTERN_MAX);
        check(&format!("{long},b"), "b", true);
        check(&format!("{long}*,b"), "b", false);
    }
}
