use std::sync::Mutex;

use proptest::prelude::*;
use ssh_mcp_core::history::Origin;

use super::*;

/// More than any history in here ever gets.
const ROOM: usize = 1 << 20;

fn history(limit: usize, bytes: &[u8]) -> ByteHistory {
    let history = ByteHistory::new(limit);
    history.append(Origin::Stdout, bytes);
    history
}

fn head(history: &ByteHistory, cursor: &Cursor, max: usize) -> Piece {
    take(cursor, Drain::Shown, |at| Piece::oldest(history, at, max))
}

fn tail(history: &ByteHistory, cursor: &Cursor, max: usize) -> Piece {
    take(cursor, Drain::Shown, |at| Piece::newest(history, at, u64::MAX, max))
}

fn text(piece: &Piece) -> String {
    text::lossy(&piece.bytes).into_owned()
}

#[test]
fn a_character_is_shown_when_all_of_it_has_come() {
    let (history, cursor) = (history(ROOM, b"a\xe2\x82"), Cursor::new());
    assert_eq!(text(&tail(&history, &cursor, 10)), "a");
    assert_eq!((cursor.value(), available(&history, 1)), (1, (0, 2)));
    history.append(Origin::Stdout, b"\xac");
    assert_eq!(available(&history, 1), (3, 3));
    assert_eq!(text(&head(&history, &cursor, 10)), "€");
    assert_eq!(cursor.value(), 4);
}

#[test]
fn what_never_becomes_a_character_is_shown_at_the_end() {
    let (history, cursor) = (history(ROOM, b"a\xe2\x82"), Cursor::new());
    assert_eq!(text(&head(&history, &cursor, 10)), "a");
    history.finish();
    assert_eq!(available(&history, 1), (2, 2));
    assert_eq!(text(&head(&history, &cursor, 10)), "\u{fffd}");
    assert!(head(&history, &cursor, 10).is_empty());
}

#[test]
fn a_budget_below_one_character_gives_one_from_the_head() {
    let (history, cursor) = (history(ROOM, "€ä😀x".as_bytes()), Cursor::new());
    let read: Vec<String> = std::iter::repeat_with(|| text(&head(&history, &cursor, 1))).take(5).collect();
    assert_eq!(read, ["€", "ä", "😀", "x", ""]);
}

#[test]
fn the_tail_passes_over_what_does_not_fit_and_says_how_much() {
    let (history, cursor) = (history(ROOM, b"0123456789"), Cursor::new());
    let piece = tail(&history, &cursor, 4);
    assert_eq!(
        (text(&piece).as_str(), piece.skipped, piece.unread, piece.cut),
        ("6789", 6, 10, Cut::Truncated)
    );
    assert_eq!((piece.start, cursor.value()), (6, 10));
    let none = tail(&history, &cursor, 4);
    assert_eq!((none.is_empty(), none.skipped, none.unread, none.cut), (true, 0, 0, Cut::Nothing));
}

#[test]
fn a_look_drains_nothing() {
    let (history, cursor) = (history(ROOM, b"0123456789"), Cursor::new());
    for _ in 0..2 {
        let piece = take(&cursor, Drain::Nothing, |at| Piece::newest(&history, at, u64::MAX, 4));
        assert_eq!(text(&piece), "6789");
    }
    assert_eq!(cursor.value(), 0);
}

#[test]
fn a_piece_up_to_a_place_leaves_what_stands_behind_it() {
    let (history, cursor) = (history(ROOM, b"login: ann\npassword: "), Cursor::new());
    let until = |until| take(&cursor, Drain::Shown, |at| Piece::newest(&history, at, until, 100));
    assert_eq!(text(&until(7)), "login: ");
    // Another call was further already.
    let none = until(5);
    assert_eq!((none.is_empty(), none.start, none.end, none.skipped), (true, 7, 7, 0));
    assert_eq!(text(&tail(&history, &cursor, 100)), "ann\npassword: ");
}

#[test]
fn what_fell_out_unread_is_counted_once() {
    let (history, cursor) = (history(8, b"0123456789ab"), Cursor::new());
    let piece = head(&history, &cursor, 3);
    assert_eq!((text(&piece).as_str(), piece.lost, piece.unread), ("456", 4, 8));
    let piece = tail(&history, &cursor, 2);
    assert_eq!((text(&piece).as_str(), piece.lost, piece.skipped), ("ab", 0, 3));
}

#[test]
fn a_character_whose_beginning_fell_out_is_lost_with_it() {
    let (history, cursor) = (history(4, "€uro".as_bytes()), Cursor::new());
    let piece = Piece::newest(&history, 0, u64::MAX, 10);
    assert_eq!((text(&piece).as_str(), piece.lost, piece.skipped), ("uro", 3, 0));
    let piece = head(&history, &cursor, 10);
    assert_eq!((text(&piece).as_str(), piece.lost, cursor.value()), ("uro", 3, 6));
}

#[tokio::test]
async fn pending_characters_are_counted_behind_the_cursor() {
    let history = history(ROOM, "€ä😀x".as_bytes());
    let cursor = Cursor::new();
    assert_eq!(characters(&history, &cursor).await, 4);
    _ = head(&history, &cursor, 5);
    assert_eq!(characters(&history, &cursor).await, 2);
    history.append(Origin::Stdout, &b"y".repeat(CHUNK * 2));
    assert_eq!(characters(&history, &cursor).await, 2 + CHUNK as u64 * 2);
    _ = tail(&history, &cursor, 1);
    assert_eq!(characters(&history, &cursor).await, 0);
}

/// Output in pieces that fall anywhere, and a budget for a read after each.
fn stream() -> impl Strategy<Value = (Vec<u8>, Vec<(usize, usize)>)> {
    let part = prop_oneof![
        3 => "[a-zäß€😀\u{1b}\\[\r\n]{0,12}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
    ];
    let bytes = proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat());
    (bytes, proptest::collection::vec((0..9_usize, 1..9_usize), 0..40))
}

proptest! {
    #[test]
    fn repeated_head_reads_are_the_history((bytes, steps) in stream()) {
        let (history, cursor) = (ByteHistory::new(ROOM), Cursor::new());
        let (mut rest, mut raw, mut shown) = (bytes.as_slice(), Vec::new(), String::new());
        let mut read = |max| {
            let piece = head(&history, &cursor, max);
            raw.extend_from_slice(&piece.bytes);
            shown.push_str(&text(&piece));
            piece
        };
        for (length, max) in steps {
            let (now, later) = rest.split_at(length.min(rest.len()));
            history.append(Origin::Stdout, now);
            rest = later;
            let piece = read(max);
            prop_assert!(piece.bytes.len() <= max.max(4));
            prop_assert_eq!(piece.lost, 0);
        }
        history.append(Origin::Stdout, rest);
        history.finish();
        while !read(5).is_empty() {}
        prop_assert_eq!(&raw, &bytes);
        prop_assert_eq!(shown, text::lossy(&bytes));
    }

    #[test]
    fn what_is_shown_skipped_and_lost_is_all_there_was(
        (bytes, steps) in stream(),
        limit in 4..40_usize,
        heads in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let (history, cursor) = (ByteHistory::new(limit), Cursor::new());
        let mut rest = bytes.as_slice();
        let mut at = 0;
        for ((length, max), is_head) in steps.into_iter().zip(heads) {
            let (now, later) = rest.split_at(length.min(rest.len()));
            history.append(Origin::Stdout, now);
            rest = later;
            let piece = if is_head { head(&history, &cursor, max) } else { tail(&history, &cursor, max) };
            if piece.end > at {
                prop_assert_eq!(piece.start, at + piece.lost + piece.skipped);
                prop_assert_eq!(piece.end, piece.start + piece.bytes.len() as u64);
                at = piece.end;
            }
            prop_assert_eq!(cursor.value(), at);
            let place = usize::try_from(piece.start).unwrap();
            prop_assert_eq!(&bytes[place..place + piece.bytes.len()], &piece.bytes[..]);
        }
    }

    #[test]
    fn text_stays_text_wherever_it_is_cut(
        text_of_shell in "[a-zäß€😀]{0,30}",
        steps in proptest::collection::vec((0..9_usize, 1..9_usize, any::<bool>()), 0..40),
    ) {
        let (history, cursor) = (ByteHistory::new(ROOM), Cursor::new());
        let mut rest = text_of_shell.as_bytes();
        for (length, max, is_head) in steps {
            let (now, later) = rest.split_at(length.min(rest.len()));
            history.append(Origin::Stdout, now);
            rest = later;
            let piece = if is_head { head(&history, &cursor, max) } else { tail(&history, &cursor, max) };
            prop_assert!(!text(&piece).contains('\u{fffd}'), "{piece:?}");
        }
    }
}

#[test]
fn readers_at_once_get_windows_that_do_not_overlap_and_leave_nothing_out() {
    let history = ByteHistory::new(ROOM);
    let cursor = Cursor::new();
    let taken = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..20_000_u32 {
                history.append(Origin::Stdout, format!("{n:05}\n").as_bytes());
            }
            history.finish();
        });
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let over = history.mark().ended;
                    let piece = head(&history, &cursor, 100);
                    if over && piece.is_empty() {
                        break;
                    }
                    if !piece.is_empty() {
                        taken.lock().unwrap().push(piece);
                    }
                    std::thread::yield_now();
                }
            });
        }
    });
    let mut pieces = taken.into_inner().unwrap();
    pieces.sort_by_key(|piece| piece.start);
    let mut at = 0;
    for piece in &pieces {
        assert_eq!(piece.start, at);
        at = piece.end;
    }
    assert_eq!(at, 120_000);
    let all: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.bytes).collect();
    let expected: String = (0..20_000).map(|n| format!("{n:05}\n")).collect();
    assert_eq!(String::from_utf8(all).unwrap(), expected);
}
