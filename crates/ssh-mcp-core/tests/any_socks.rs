//! What holds for whatever a client of a dynamic forward sends, however it comes, and the replay of the fuzzer's stored
//! inputs.
//!
//! The fuzz target `socks` includes this file for `check`.
#![cfg(not(ssh_mcp_loom))]

use ssh_mcp_core::{
    kind::forward::socks::{Dialect, Handshake, Step},
    target::Address,
};

/// As much as an undecided handshake holds at most: a request of version 4a whose two texts are as long as they may be.
const MOST: usize = 8 + 256 + 255;

/// Panics if a handshake breaks one of its promises. The first byte chooses how the rest is cut.
pub(crate) fn check(input: &[u8]) {
    let [cut, bytes @ ..] = input else { return };
    let (steps, rest) = shake(bytes, bytes.len().max(1));
    assert_eq!(shake(bytes, usize::from(*cut) + 1), (steps.clone(), rest.clone()), "a cut changes it");
    assert!(bytes.ends_with(&rest), "what is left is what came last");
    let (dialect, end) = match steps.as_slice() {
        [Step::Answer(hello), end @ ..] => {
            assert_eq!(hello, &[5, 0]);
            (Dialect::Five, end)
        }
        end => (Dialect::Four, end),
    };
    match end {
        [] => assert!(rest.len() <= MOST, "{} bytes are held", rest.len()),
        [Step::Wanted(address, told)] => {
            assert_eq!(*told, dialect);
            assert!(!address.host.is_empty() && address.host.len() <= 255, "{address:?}");
            assert!(!address.host.contains(|c: char| c.is_control() || c.is_whitespace()), "{address:?}");
            // Asked for by its name it is the same.
            let (again, rest) = shake(&asking_for(address, dialect), 1);
            assert_eq!((again.last(), rest.as_slice()), (end.last(), &[][..]));
        }
        _ => assert!(matches!(end, [Step::Refused(answer, _)] if answer.len() <= 10), "{end:?}"),
    }
}

/// Every step of a handshake whose bytes come in pieces of this size, and what is left behind it.
fn shake(bytes: &[u8], cut: usize) -> (Vec<Step>, Vec<u8>) {
    let mut handshake = Handshake::default();
    let mut steps = Vec::new();
    for piece in bytes.chunks(cut) {
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

/// The request of a client that gives the host as a name.
fn asking_for(Address { host, port }: &Address, dialect: Dialect) -> Vec<u8> {
    let (name, port) = (host.as_bytes(), &port.to_be_bytes()[..]);
    match dialect {
        Dialect::Four => [&[4, 1][..], port, &[0, 0, 0, 1], b"user\0", name, b"\0"].concat(),
        Dialect::Five => [&[5, 1, 0, 5, 1, 0, 3, name.len() as u8][..], name, port].concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    #[test]
    fn every_stored_input_keeps_the_promises() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/socks");
        let mut replayed = 0;
        for entry in std::fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            eprintln!("replaying {}", path.display());
            super::check(&std::fs::read(&path).unwrap());
            replayed += 1;
        }
        assert!(replayed >= 10, "only {replayed} inputs in {}", corpus.display());
    }

    proptest! {
        #[test]
        fn any_bytes_keep_them(
            cut in any::<u8>(),
            bytes in proptest::collection::vec(
                prop_oneof![4 => 0u8..6, 2 => Just(b'a'), 1 => any::<u8>()], 0..700),
        ) {
            super::check(&[&[cut], bytes.as_slice()].concat());
        }
    }
}
