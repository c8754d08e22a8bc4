//! Bytes and sizes as people read them: lossy text, escape sequences, one-line values.

use std::borrow::Cow;

/// Bytes as text; what is not UTF-8 becomes U+FFFD.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Appends bytes as a string of JSON (RFC 8259, section 7); what is not UTF-8 becomes U+FFFD, as in [`lossy`].
///
/// There may be gigabytes of them: blocks that stand for themselves are copied, the others go through a table.
pub fn push_json_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let mut left = bytes;
    while !left.is_empty() {
        let (blocks, _) = left.as_chunks::<BLOCK>();
        let plain = BLOCK * blocks.iter().take_while(|block| is_plain(block)).count();
        let (run, rest) = left.split_at(plain);
        out.extend_from_slice(run);
        left = push_block(out, rest);
    }
    out.push(b'"');
}

/// Bytes that are looked at together.
const BLOCK: usize = 16;

/// Whether bytes stand for themselves in a string of JSON: no control characters, quotation marks or backslashes, and nothing
/// but ASCII.
fn is_plain(block: &[u8; BLOCK]) -> bool {
    const LOW: u64 = u64::MAX / 0xff;
    const HIGH: u64 = LOW << 7;
    let below = |word: u64, limit: u64| word.wrapping_sub(LOW * limit) & !word & HIGH;
    let is = |word: u64, byte: u8| below(word ^ (LOW * u64::from(byte)), 1);
    let (words, _) = block.as_chunks::<8>();
    let special = words.iter().map(|word| {
        let word = u64::from_le_bytes(*word);
        below(word, 0x20) | is(word, b'"') | is(word, b'\\') | word & HIGH
    });
    special.fold(0, |all, one| all | one) == 0
}

/// Writes the next block byte by byte, and what belongs to its last character; the answer is what is left.
fn push_block<'a>(out: &mut Vec<u8>, bytes: &'a [u8]) -> &'a [u8] {
    let mut said = [0; 6 * BLOCK + 8];
    let (mut used, mut at) = (0, 0);
    while at < BLOCK
        && let Some(byte) = bytes.get(at)
        && let Some(place) = said.get_mut(used..).and_then(<[u8]>::first_chunk_mut::<8>)
    {
        let one = SAID.get(usize::from(*byte)).copied().unwrap_or_default();
        let [.., length] = one;
        *place = one;
        used += usize::from(length);
        at += 1;
        if length > 0 {
            continue;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let (follow, is_whole) = continuation(*byte, rest);
        let character = bytes.get(at - 1..at + follow).filter(|_| is_whole);
        let character = character.unwrap_or("\u{fffd}".as_bytes());
        place.iter_mut().zip(character).for_each(|(place, byte)| *place = *byte);
        used += character.len();
        at += follow;
    }
    out.extend_from_slice(said.get(..used).unwrap_or_default());
    bytes.get(at..).unwrap_or_default()
}

/// What each byte is in a string of JSON, and in the last place how long that is; 0 where it depends on what follows.
#[expect(clippy::indexing_slicing, reason = "a mistake would not compile")]
static SAID: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut number = 0;
    while number < table.len() {
        let byte = number as u8;
        table[number] = match byte {
            b'"' | b'\\' => [b'\\', byte, 0, 0, 0, 0, 0, 2],
            b'\n' => [b'\\', b'n', 0, 0, 0, 0, 0, 2],
            b'\r' => [b'\\', b'r', 0, 0, 0, 0, 0, 2],
            b'\t' => [b'\\', b't', 0, 0, 0, 0, 0, 2],
            0..0x20 => {
                let low = byte & 0xf;
                let low = if low < 10 { b'0' + low } else { b'a' + low - 10 };
                [b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low, 0, 6]
            }
            0x20..0x80 => [byte, 0, 0, 0, 0, 0, 0, 1],
            // No character begins with these: U+FFFD.
            0x80..0xc2 | 0xf5.. => [0xef, 0xbf, 0xbd, 0, 0, 0, 0, 3],
            0xc2..0xf5 => [0; 8],
        };
        number += 1;
    }
    table
};

/// How many of the bytes behind `first` belong to the character it begins, and whether that is whole; where it is not, they
/// and `first` are one U+FFFD (Unicode 16.0, table 3-7 and section 3.9, "maximal subpart").
fn continuation(first: u8, rest: &[u8]) -> (usize, bool) {
    let (count, second) = match first {
        0xc2..=0xdf => (1, 0x80..=0xbf),
        0xe0 => (2, 0xa0..=0xbf),
        0xed => (2, 0x80..=0x9f),
        0xe1..=0xef => (2, 0x80..=0xbf),
        0xf0 => (3, 0x90..=0xbf),
        0xf1..=0xf3 => (3, 0x80..=0xbf),
        0xf4 => (3, 0x80..=0x8f),
        _ => return (0, false),
    };
    let fits =
        |(at, byte): (usize, &u8)| if at == 0 { second.contains(byte) } else { (0x80..=0xbf).contains(byte) };
    let follow = rest.iter().take(count).enumerate().take_while(|next| fits(*next)).count();
    (follow, follow == count)
}

/// How many bytes at the end are the beginning of a character that is not complete yet, at most 3.
pub fn incomplete_suffix(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let Some(byte) = bytes.len().checked_sub(back).and_then(|at| bytes.get(at)) else { break };
        let wanted = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if wanted > back { back } else { 0 };
    }
    0
}

/// How many bytes at the beginning are the rest of a character that began before, at most 3.
pub fn orphaned_prefix(bytes: &[u8]) -> usize {
    bytes.iter().take(3).take_while(|byte| matches!(byte, 0x80..=0xbf)).count()
}

/// The bytes without terminal escape sequences (ECMA-48: CSI, OSC and other strings, two-byte escapes).
///
/// A sequence that is not finished at the end is left out as well.
pub fn strip_escapes(bytes: &[u8]) -> Vec<u8> {
    let mut escapes = Escapes::default();
    bytes.iter().copied().filter(|byte| escapes.is_text(*byte)).collect()
}

/// What of a stream is text and what belongs to an escape sequence, byte by byte, however the stream is cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct Escapes {
    state: Escape,
}

impl Escapes {
    /// Takes the next byte and says whether it is text.
    pub fn is_text(&mut self, byte: u8) -> bool {
        let is_text = matches!(self.state, Escape::None) && byte != 0x1b;
        self.state = match (self.state, byte) {
            (Escape::None, 0x1b) => Escape::Started,
            (Escape::None, _) => Escape::None,
            (Escape::Started, b'[') => Escape::Csi,
            (Escape::Started, b']' | b'P' | b'X' | b'^' | b'_') => Escape::Text,
            (Escape::Started, 0x20..=0x2f) => Escape::Started,
            (Escape::Started | Escape::Terminator, 0x1b) => Escape::Started,
            (Escape::Started, _) => Escape::None,
            (Escape::Csi, 0x40..=0x7e) => Escape::None,
            (Escape::Csi, 0x1b) => Escape::Started,
            (Escape::Csi, _) => Escape::Csi,
            (Escape::Text, 0x07) => Escape::None,
            (Escape::Text, 0x1b) => Escape::Terminator,
            (Escape::Text, _) => Escape::Text,
            // The string terminator is ESC backslash; anything else behind the escape ends the string too.
            (Escape::Terminator, _) => Escape::None,
        };
        is_text
    }
}

#[derive(Debug, Clone, Copy, Default)]
enum Escape {
    #[default]
    None,
    Started,
    Csi,
    Text,
    Terminator,
}

/// A size with one decimal and a 1024-based unit (`1.0MB`); plain bytes below 1 KB.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 3] = ["KB", "MB", "GB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = "KB";
    for next in UNITS.into_iter().skip(1) {
        // What would print as 1024.0 belongs to the next unit.
        if size < 1023.95 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    format!("{size:.1}{unit}")
}

/// The text on one line: LF, CR and TAB as two-character escapes, other control characters as `\u{..}`.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c.is_control() => line.extend(c.escape_unicode()),
            c => line.push(c),
        }
    }
    Cow::Owned(line)
}

/// At most `max` characters of the text, with an ellipsis where something was cut.
pub fn cut(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let keep = text.char_indices().nth(max.saturating_sub(1)).map_or(0, |(at, _)| at);
            Cow::Owned(format!("{}…", text.get(..keep).unwrap_or_default()))
        }
    }
}

/// What a far side said, fit for an error: one line of at most 300 characters.
pub fn remote_words(text: &str) -> String {
    cut(&one_line(text.trim()), 300).into_owned()
}

/// The edit distance of two texts (Levenshtein), for "closest matches".
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cb, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// The candidates nearest to `text`, at most `most`, ties in alphabetical order.
pub fn nearest<S: AsRef<str> + Ord>(
    text: &str,
    candidates: impl IntoIterator<Item = S>,
    most: usize,
) -> Vec<S> {
    let mut ranked: Vec<(usize, S)> =
        candidates.into_iter().map(|candidate| (distance(text, candidate.as_ref()), candidate)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(most).map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        let table = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KB"),
            (1536, "1.5KB"),
            (1024 * 1024 - 1, "1.0MB"),
            (1024 * 1024, "1.0MB"),
            (10 * 1024 * 1024 * 1024, "10.0GB"),
        ];
        for (bytes, text) in table {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn escapes_leave_and_text_stays() {
        let table: [(&[u8], &[u8]); 7] = [
            (b"\x1b[1;31mred\x1b[0m", b"red"),
            (b"\x1b]0;title\x07prompt", b"prompt"),
            (b"\x1b]0;title\x1b\\prompt", b"prompt"),
            (b"\x1b(Bx\x1b=y", b"xy"),
            (b"a\r\nb\tc", b"a\r\nb\tc"),
            (b"cut\x1b[3", b"cut"),
            (b"\x1b[?2004hlogin: ", b"login: "),
        ];
        for (raw, plain) in table {
            assert_eq!(strip_escapes(raw), plain, "{raw:?}");
        }
    }

    #[test]
    fn values_stay_on_one_line() {
        assert_eq!(one_line("a\nb\r\tc\x1b"), "a\\nb\\r\\tc\\u{1b}");
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("äöü", 3), "äöü");
    }

    #[test]
    fn strings_of_json_are_escaped_and_lossy() {
        let table: [(&[u8], &str); 5] = [
            (b"", "\"\""),
            (b"plain text of more than a word", "\"plain text of more than a word\""),
            (b"say \"a\\b\"\r\n\t\x00\x1f\x7f", "\"say \\\"a\\\\b\\\"\\r\\n\\t\\u0000\\u001f\x7f\""),
            ("ä€😀 12345678\n".as_bytes(), "\"ä€😀 12345678\\n\""),
            (b"a\xff\xc3b\xe2\x82", "\"a\u{fffd}\u{fffd}b\u{fffd}\""),
        ];
        for (bytes, json) in table {
            let mut out = Vec::new();
            push_json_string(&mut out, bytes);
            assert_eq!(String::from_utf8_lossy(&out), json);
        }
    }

    #[test]
    fn nearest_by_edits_then_by_alphabet() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(nearest("ab", ["zz", "ac", "aa", "ab"], 3), ["ab", "aa", "ac"]);
    }

    proptest! {
        #[test]
        fn a_cut_character_is_found_at_any_place(text in "\\PC{0,12}", cut in 0usize..40) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let window = &bytes[..cut];
            let whole = cut - incomplete_suffix(window);
            prop_assert!(std::str::from_utf8(&window[..whole]).is_ok());
            let rest = &bytes[cut..];
            prop_assert!(std::str::from_utf8(&rest[orphaned_prefix(rest)..]).is_ok());
        }

        #[test]
        fn strings_of_json_are_lossy_as_everything_else(
            bytes in proptest::collection::vec(proptest::sample::select(&b"a\x80\x9f\xa0\xbf\xc2\xdf\xe0\xe1\xed\xef\xf0\xf3\xf4\xf5\xff"[..]), 0..24)
        ) {
            let mut out = Vec::new();
            push_json_string(&mut out, &bytes);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("\"{}\"", lossy(&bytes)));
        }

        #[test]
        fn stripping_never_grows_and_keeps_plain_text(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let stripped = strip_escapes(&bytes);
            prop_assert!(stripped.len() <= bytes.len());
            if !bytes.contains(&0x1b) {
                prop_assert_eq!(stripped, bytes);
            }
        }
    }
}
