use std::time::Duration;

use proptest::prelude::*;

use super::{
    socks::{Dialect, Handshake, Outcome, Step, Unfit},
    *,
};
use crate::reason::Reason;

const SECOND: Duration = Duration::from_secs(1);

fn address(host: &str, port: u16) -> Address {
    Address { host: host.into(), port }
}

/// Every step of a handshake whose bytes come in these pieces, and what is left behind it.
fn steps<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Step>, Vec<u8>) {
    let mut handshake = Handshake::default();
    let mut steps = Vec::new();
    for piece in pieces {
        handshake.on_bytes(piece);
        loop {
            match handshake.next_step() {
                Step::More => break,
                step @ (Step::Answer(_) | Step::Wanted(..) | Step::Refused(..)) => steps.push(step),
            }
        }
    }
    (steps, handshake.into_rest())
}

fn five(request: &[u8]) -> Vec<u8> {
    [&[5, 2, 2, 0], request].concat()
}

fn hello() -> Step {
    Step::Answer(vec![5, 0])
}

/// Bytes of a client, what is answered, and what is left.
fn dialogues() -> Vec<(Vec<u8>, Vec<Step>, &'static [u8])> {
    let wanted = |host, port, dialect| Step::Wanted(address(host, port), dialect);
    let refused = |bytes: &[u8], why| Step::Refused(bytes.to_vec(), why);
    let no_five = |code, why| Step::Refused(vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0], why);
    let no_four = |why| Step::Refused(vec![0, 0x5b, 0, 0, 0, 0, 0, 0], why);
    let v6 = [&[5, 1, 0, 4][..], &[0; 15], &[1, 0x1f, 0x90]].concat();
    vec![
        (
            five(&[5, 1, 0, 1, 127, 0, 0, 1, 0, 80]),
            vec![hello(), wanted("127.0.0.1", 80, Dialect::Five)],
            b"",
        ),
        (five(&v6), vec![hello(), wanted("::1", 8080, Dialect::Five)], b""),
        (
            five(b"\x05\x01\x00\x03\x07db.test\x00\x50GET /"),
            vec![hello(), wanted("db.test", 80, Dialect::Five)],
            b"GET /",
        ),
        (
            b"\x04\x01\x00\x50\x7f\x00\x00\x01me\x00more".to_vec(),
            vec![wanted("127.0.0.1", 80, Dialect::Four)],
            b"more",
        ),
        (
            b"\x04\x01\x00\x50\x00\x00\x00\x09\x00db.test\x00".to_vec(),
            vec![wanted("db.test", 80, Dialect::Four)],
            b"",
        ),
        // Refusals, each with its own code.
        (vec![5, 1, 2], vec![refused(&[5, 0xff], Unfit::Methods)], b""),
        (vec![5, 0], vec![refused(&[5, 0xff], Unfit::Methods)], b""),
        (five(&[5, 2, 0, 1, 127, 0, 0, 1, 0, 80]), vec![hello(), no_five(7, Unfit::Command)], b""),
        (five(&[5, 3, 0, 1, 127, 0, 0, 1, 0, 80]), vec![hello(), no_five(7, Unfit::Command)], b""),
        (five(&[5, 1, 0, 9]), vec![hello(), no_five(8, Unfit::AddressForm)], &[5, 1, 0, 9]),
        (five(b"\x05\x01\x00\x03\x00\x00\x50"), vec![hello(), no_five(1, Unfit::Name)], b""),
        (five(b"\x05\x01\x00\x03\x03a b\x00\x50"), vec![hello(), no_five(1, Unfit::Name)], b""),
        (b"\x04\x02\x00\x50\x7f\x00\x00\x01\x00".to_vec(), vec![no_four(Unfit::Command)], b""),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00".to_vec(), vec![no_four(Unfit::Name)], b""),
        (b"GET / HTTP/1.1".to_vec(), vec![refused(&[], Unfit::NotSocks)], b"GET / HTTP/1.1"),
        (five(b"\x04"), vec![hello(), refused(&[], Unfit::NotSocks)], b"\x04"),
    ]
}

#[test]
fn every_request_is_served_or_refused_in_its_own_words() {
    for (bytes, expected, rest) in dialogues() {
        assert_eq!(steps([&bytes[..]]), (expected, rest.to_vec()), "{bytes:?}");
    }
}

#[test]
fn where_the_bytes_are_cut_changes_nothing() {
    for (bytes, expected, rest) in dialogues() {
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(steps([head, tail]), (expected.clone(), rest.to_vec()), "{bytes:?} at {cut}");
        }
        assert_eq!(steps(bytes.chunks(1)), (expected, rest.to_vec()), "{bytes:?} byte by byte");
    }
}

#[test]
fn a_user_name_without_an_end_is_not_collected_for_ever() {
    let mut bytes = b"\x04\x01\x00\x50\x7f\x00\x00\x01".to_vec();
    bytes.extend([b'x'; 256]);
    let refused = Step::Refused(Dialect::Four.refused(Outcome::Failed), Unfit::TooLong);
    assert_eq!(steps([&bytes[..]]).0, [refused]);
}

#[test]
fn what_came_of_it_is_told_in_the_clients_dialect() {
    let code = |outcome| Dialect::Five.refused(outcome)[1];
    let codes = [
        Outcome::Failed,
        Outcome::Prohibited,
        Outcome::NetworkUnreachable,
        Outcome::HostUnreachable,
        Outcome::ConnectionRefused,
    ];
    assert_eq!(codes.map(code), [1, 2, 3, 4, 5]);
    assert_eq!((Dialect::Five.granted()[1], Dialect::Four.granted()[1]), (0, 0x5a));
    assert_eq!((Dialect::Five.granted().len(), Dialect::Four.granted().len()), (10, 8));
}

proptest! {
    #[test]
    fn a_handshake_takes_anything_and_ends_once(pieces in prop::collection::vec(
        prop::collection::vec(prop_oneof![Just(4_u8), Just(5_u8), Just(0_u8), Just(1_u8), Just(3_u8), any::<u8>()], 0..40), 0..12,
    )) {
        let whole: Vec<u8> = pieces.concat();
        let (found, rest) = steps(pieces.iter().map(Vec::as_slice));
        prop_assert_eq!((&found, &rest), (&steps([&whole[..]]).0, &steps([&whole[..]]).1));
        let ends = found.iter().filter(|step| matches!(step, Step::Wanted(..) | Step::Refused(..))).count();
        prop_assert!(ends <= 1 && found.len() <= 2, "{:?}", found);
        prop_assert!(whole.ends_with(&rest));
    }

    #[test]
    fn what_came_in_has_ended_or_is_there(turns in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 0..200)) {
        let traffic = Traffic::default();
        let mut open: Vec<u64> = Vec::new();
        for (turn, at) in turns {
            let taken = (!open.is_empty()).then(|| at.index(open.len()));
            match (turn, taken) {
                (0, _) | (_, None) => open.push(traffic.accepted(SECOND, "peer".into())),
                (1, Some(at)) => traffic.connected(SECOND, open[at], "target".into()),
                (2, Some(at)) => traffic.closed(SECOND, open.swap_remove(at), carried()),
                (_, Some(at)) => traffic.failed(SECOND, open.swap_remove(at), why()),
            }
            let counts = traffic.counts();
            prop_assert_eq!(counts.accepted, counts.closed + counts.failed + counts.open);
            prop_assert_eq!(counts.open as usize, open.len());
        }
    }
}

fn carried() -> Carried {
    Carried { bytes_to_remote: 1, bytes_from_remote: 2, duration_ms: 3, reason: Parting::Finished }
}

fn why() -> Why {
    Why { code: Trouble::TargetUnreachable, message: "refused".into(), target: Some("db:1".into()) }
}

#[test]
fn the_log_holds_the_newest_events_and_ends_with_the_stop() {
    let traffic = Traffic::default();
    for _ in 0..KEPT {
        let conn = traffic.accepted(SECOND, "127.0.0.1:9".into());
        traffic.closed(SECOND, conn, carried());
    }
    traffic.stop(SECOND, Reason::ManualClose, None);
    traffic.stop(SECOND, Reason::ConnectionLost, None);
    traffic.accepted(SECOND, "late".into());
    let window = traffic.log.read(0, usize::MAX);
    assert_eq!((window.base, window.end, window.events.len()), (1025, 2049, KEPT));
    let (number, last) = window.events.last().unwrap();
    let stopped = Event::Stopped { detail: Stop { reason: Reason::ManualClose, message: None } };
    assert_eq!((*number, &last.event, window.ended), (2048, &stopped, true));
}

#[test]
fn only_who_holds_others_up_is_hurried() {
    let full = allowance(1, false);
    let mut patience = Patience::default();
    // Alone, or beside others that want nothing, or with room left: for ever.
    for (held, siblings, waiting) in [(full * 9, 0, 0), (full, 3, 0), (full - 1, 3, 3)] {
        assert_eq!(patience.on_look(SECOND, held, siblings, waiting), None);
        assert!(!patience.is_over(1000 * SECOND));
    }
    assert_eq!(patience.on_look(SECOND, full, 1, 1), Some(6 * SECOND));
    assert_eq!(patience.on_look(4 * SECOND, full, 1, 1), Some(6 * SECOND));
    assert!(!patience.is_over(6 * SECOND - Duration::from_nanos(1)));
    assert!(patience.is_over(6 * SECOND));
    // The line moved after all, or it took something.
    assert_eq!(patience.on_line_moved(5 * SECOND), Some(10 * SECOND));
    assert_eq!(patience.on_look(6 * SECOND, full - 1, 1, 1), None);
    assert_eq!(patience.on_look(7 * SECOND, full, 1, 1), Some(12 * SECOND));
}

#[test]
fn exposed_is_what_others_reach() {
    for host in ["127.0.0.1", "127.8.0.1", "::1", "localhost", "LOCALHOST"] {
        assert!(!is_exposed(host), "{host}");
    }
    for host in ["0.0.0.0", "::", "192.0.2.7", "*", "", "example.org"] {
        assert!(is_exposed(host), "{host}");
    }
}

#[test]
fn a_passage_says_which_side_listens() {
    let to = address("db", 5432);
    let local = Passage::Local { listen: address("127.0.0.1", 0), to: to.clone() }.on_port(8080);
    assert_eq!((local.to_string().as_str(), local.local_port()), ("127.0.0.1:8080 to db:5432", 8080));
    let remote = Passage::Remote { listen: address("::1", 0), to }.on_port(9);
    assert_eq!(
        (remote.to_string().as_str(), remote.local_port()),
        ("[::1]:9 on the server to db:5432 here", 5432)
    );
    let dynamic = Passage::Dynamic { listen: address("127.0.0.1", 1080) };
    assert_eq!((dynamic.to(), dynamic.facing().as_str(), dynamic.local_port()), (None, "dynamic", 1080));
}
