use super::*;

fn cut(history: &ByteHistory, view: View, max: usize, escapes: Escapes) -> Cut<'_> {
    Cut { history, view, max, encoding: Encoding::Text, escapes }
}

fn history(chunks: &[(Origin, &str)]) -> ByteHistory {
    let history = ByteHistory::new(1 << 20);
    chunks.iter().for_each(|(origin, chunk)| history.append(*origin, chunk.as_bytes()));
    history
}

const OUT: Origin = Origin::Stdout;
const ERR: Origin = Origin::Stderr;

/// All windows of a view, each read from where the one before ended.
fn windows(cut: &Cut<'_>) -> Vec<String> {
    let mut at = 0;
    let mut texts = Vec::new();
    loop {
        let window = cut.from(at).window;
        if window.next == at {
            return texts;
        }
        at = window.next;
        texts.push(shown(&window.bytes, cut.escapes));
    }
}

#[test]
fn windows_end_at_characters() {
    let open = history(&[(OUT, "aäöü€x")]);
    for max in 1..12 {
        let cut = cut(&open, View::Merged, max, Escapes::Keep);
        assert_eq!(windows(&cut).concat(), "aäöü€x", "{max}");
    }
}

#[test]
fn half_a_character_waits_until_the_end() {
    let open = ByteHistory::new(1 << 20);
    open.append(OUT, b"a\xc3");
    assert_eq!(windows(&cut(&open, View::Merged, 100, Escapes::Keep)), ["a"]);
    open.finish();
    assert_eq!(windows(&cut(&open, View::Merged, 100, Escapes::Keep)), ["a\u{fffd}"]);
}

#[test]
fn sequences_cut_by_a_window_leave_no_rest() {
    let text = "\x1b[1;31mred\x1b[0m \x1b]0;title\x07plain";
    let open = history(&[(OUT, text)]);
    for max in 8..40 {
        let cut = cut(&open, View::Merged, max, Escapes::Strip);
        assert_eq!(windows(&cut).concat(), "red plain", "{max}");
    }
}

#[test]
fn a_view_that_ends_behind_other_bytes_is_not_cut_back() {
    let open = ByteHistory::new(1 << 20);
    open.append(OUT, b"a\xc3");
    open.append(ERR, b"e");
    assert_eq!(windows(&cut(&open, View::Stdout, 100, Escapes::Keep)), ["a\u{fffd}"]);
    assert_eq!(windows(&cut(&open, View::Stderr, 100, Escapes::Keep)), ["e"]);
}

#[test]
fn both_streams_stand_in_blocks() {
    let open = history(&[(OUT, "one\n"), (ERR, "bad\n"), (OUT, "two\n")]);
    let window = cut(&open, View::Merged, 100, Escapes::Keep).from(0).window;
    let text = two_blocks(&window, Escapes::Keep);
    let lines: Vec<&str> = text.lines().collect();
    let nonce = lines[0].trim_start_matches("--- stdout [").trim_end_matches("] ---");
    let stderr = format!("--- stderr [{nonce}] ---");
    assert_eq!(lines, [&format!("--- stdout [{nonce}] ---"), "one", "two", &stderr, "bad"]);

    let window = cut(&open, View::Merged, 4, Escapes::Keep).from(0).window;
    assert!(two_blocks(&window, Escapes::Keep).ends_with("(empty) ---\n"));
}

#[test]
fn a_window_that_only_waits_for_a_character_has_no_more() {
    let open = ByteHistory::new(1 << 20);
    open.append(OUT, b"a\xc3");
    assert!(!cut(&open, View::Merged, 100, Escapes::Keep).from(0).more);
    assert!(cut(&open, View::Merged, 1, Escapes::Keep).from(0).more);
}
