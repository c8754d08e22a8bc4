//! What holds for any bytes of a stream behind the filter of a lane, however they come, and the replay of the fuzzer's
//! stored inputs.
//!
//! The fuzz target `filter_lines` includes this file for `check`.
#![cfg(not(ssh_mcp_loom))]

use std::time::Duration;

use ssh_mcp_core::{
    history::{ByteHistory, History, Origin},
    lane::{
        Asks, Delivery, Filter, Form, Handed, LagPolicy, Lane, Lifetime, Options, Parting, Start, Subject,
        Timing,
    },
    text::strip_escapes,
};

/// A line is judged in pieces of this many bytes.
const LONGEST: usize = 4096;

/// Panics if a lane delivers anything but the lines that match. The first byte chooses the filter, the second how the rest
/// is cut.
pub(crate) fn check(input: &[u8]) {
    let [which, cut, bytes @ ..] = input else { return };
    let expressions = ["a", "^$", r"^[^a]*$", r"\x1b", r"\d+", "login: $", "(?i)Ä", "."];
    let Some(expression) = expressions.into_iter().cycle().nth(usize::from(*which)) else { return };
    let cut = usize::from(*cut) + 1;
    let filter = Filter::compile(expression, 100);
    let delivered = filter.as_ref().map(|filter| deliver(filter, bytes, cut));
    let expected = filter.as_ref().map(|filter| expected(filter, bytes));
    assert!(delivered.is_ok() && delivered == expected, "{expression} in pieces of {cut}: {delivered:?}");
}

/// What a lane with this filter delivers of a stream that comes in pieces of this size and ends.
fn deliver(filter: &Filter, bytes: &[u8], cut: usize) -> Vec<u8> {
    let history = ByteHistory::new(1 << 20);
    let subject =
        || Subject { history: History::Bytes(&history), body: &String::new, parting: Parting::Stay };
    let timing = Timing {
        debounce: Duration::from_millis(5),
        force: Duration::from_secs(1),
        bytes: None,
        keepalive: None,
    };
    let options = Options {
        form: Form::Payload { piece: 100 },
        start: Start::At(0),
        lifetime: Lifetime::Manual,
        linger: Duration::ZERO,
        policy: LagPolicy::Snapshot,
        filter: Some(filter.clone()),
        timing,
        queue: 16,
        window: 1 << 20,
        block_timeout: Duration::from_secs(5),
    };
    let now = Duration::ZERO;
    let lane = Lane::open(options, now, &subject());
    let mut delivered = Vec::new();
    let mut turns = || {
        // Lines that one look had no time for are left for the next one.
        let mut asks = lane.look(now, &subject()).asks;
        while asks == Asks::Now {
            match lane.take(now, &subject()) {
                Some(Delivery::Piece(piece)) => {
                    assert_eq!((piece.gap, piece.dropped), (0, 0));
                    delivered.extend(piece.bytes);
                }
                Some(Delivery::End { gap, .. }) => assert_eq!(gap, 0),
                Some(Delivery::Updated | Delivery::Closed { .. }) | None => {}
            }
            asks = lane.sent(now, &subject(), Handed::Accepted);
        }
    };
    for piece in bytes.chunks(cut) {
        history.append(Origin::Stdout, piece);
        turns();
    }
    history.finish();
    turns();
    delivered
}

/// The lines that match, found in the simplest way.
fn expected(filter: &Filter, bytes: &[u8]) -> Vec<u8> {
    let mut matching = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.iter().take(LONGEST).position(|byte| matches!(byte, b'\n' | b'\r'));
        let (text, behind) = rest.split_at(end.unwrap_or(rest.len().min(LONGEST)));
        let ending = match (end, behind) {
            (None, _) => 0,
            (Some(_), [b'\r', b'\n', ..]) => 2,
            (Some(_), _) => 1,
        };
        let (line, behind) = rest.split_at(text.len() + ending);
        if filter.matches(&strip_escapes(text)) {
            matching.extend_from_slice(line);
        }
        rest = behind;
    }
    matching
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    #[test]
    fn every_stored_input_keeps_the_promises() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/filter_lines");
        let mut replayed = 0;
        for entry in std::fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            eprintln!("replaying {}", path.display());
            super::check(&std::fs::read(&path).unwrap());
            replayed += 1;
        }
        assert!(replayed >= 8, "only {replayed} inputs in {}", corpus.display());
    }

    proptest! {
        #[test]
        fn any_bytes_keep_them(
            which in 0u8..8,
            cut in any::<u8>(),
            bytes in proptest::collection::vec(
                prop_oneof![3 => Just(b'a'), 2 => Just(b'\n'), 2 => Just(b'\r'), 1 => Just(0x1b), 3 => any::<u8>()], 0..300),
        ) {
            super::check(&[&[which, cut], bytes.as_slice()].concat());
        }
    }
}
