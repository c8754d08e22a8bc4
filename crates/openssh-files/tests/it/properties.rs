//! What holds for any file and any name.

use std::fs;
use std::path::Path;

use openssh_files::known_hosts::{Hashing, HostKey, HostName, KnownHosts, Learnt, Verdict, append};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::keys::{ed25519, fields, rsa};

/// The same cases in every run: what fails once fails again.
fn repeatable(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(2),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Few names, so that files speak of the hosts asked for.
fn name() -> impl Strategy<Value = HostName> {
    let host = prop::sample::select(vec!["a", "b", "ab", "a.b", "A.B", "::1"]);
    (host, prop::sample::select(vec![22, 2222])).prop_map(|(host, port)| HostName::new(host, port).unwrap())
}

fn key() -> impl Strategy<Value = HostKey> {
    prop_oneof![(1_u8..4).prop_map(ed25519), (1_u8..3).prop_map(rsa)]
}

/// Text made of what a reader of known_hosts reacts to.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "a",
        "b",
        ",",
        "!",
        "*",
        "?",
        ".",
        "[",
        "]:2222",
        "|1|",
        "|",
        "=",
        "#",
        "@",
        "@revoked",
        "@cert-authority",
        "ssh-ed25519",
        "ssh-rsa",
        "rsa-sha2-512",
        "AAAA",
        "AAAAC3NzaC1lZDI1NTE5AAAAI",
    ]);
    let line = (prop::sample::select(vec!["", "@revoked ", "@cert-authority ", " "]), name(), key())
        .prop_map(|(marker, name, key)| format!("{marker}{name} {}", fields(&key)).into_bytes());
    let blank = prop::sample::select(vec![" ", "\t", "\n", "\r\n", "\n\n", "\0"]);
    let piece = prop_oneof![
        3 => word.prop_map(|word| word.as_bytes().to_vec()),
        3 => blank.prop_map(|blank| blank.as_bytes().to_vec()),
        2 => line,
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn line_of(verdict: &Verdict) -> Option<usize> {
    match verdict {
        Verdict::Match(at)
        | Verdict::Revoked(at)
        | Verdict::Changed { at, .. }
        | Verdict::OtherTypesKnown { at, .. } => Some(at.line),
        Verdict::Unknown => None,
    }
}

proptest! {
    #![proptest_config(repeatable(1000))]

    #[test]
    fn any_bytes_are_read_and_locations_lie_in_the_file(
        text in prop_oneof![soup(), prop::collection::vec(any::<u8>(), 0..400)],
        name in name(),
        key in key(),
    ) {
        let known = KnownHosts::parse("kh", &text);
        let lines = text.split(|&byte| byte == b'\n').count();
        let verdict = known.verdict(&name, &key);
        prop_assert!(line_of(&verdict).is_none_or(|line| (1..=lines).contains(&line)), "{verdict:?}");
        if let Verdict::Match(_) | Verdict::Changed { .. } = verdict {
            let is_pinned_elsewhere = known.known_key_types(&name).contains(&key.algorithm());
            let is_revoked = text.windows(8).any(|window| window == b"@revoked");
            prop_assert!(is_pinned_elsewhere || is_revoked, "{verdict:?}");
        }
        let _ = HostKey::parse(&text);
    }

    #[test]
    fn patterns_match_as_their_definition_says(list in "[ab*?!,]{0,10}", text in "[ab]{1,5}") {
        let line = format!("{list} {}", fields(&ed25519(1)));
        // An empty field cannot stand in a file: the type would take its place.
        let expected = !list.is_empty() && by_definition(&list, &text);
        let verdict = KnownHosts::parse("kh", line.as_bytes()).verdict(&HostName::new(&text, 22).unwrap(), &ed25519(1));
        prop_assert_eq!(matches!(verdict, Verdict::Match(_)), expected, "{:?} against {:?}", list, text);
    }
}

proptest! {
    #![proptest_config(repeatable(300))]

    #[test]
    fn what_is_learnt_is_found_and_nothing_else_changes(
        before in soup(),
        name in name(),
        key in key(),
        hashing in prop::sample::select(vec![Hashing::Plain, Hashing::Hashed, Hashing::AsFile]),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known_hosts");
        fs::write(&path, &before).unwrap();
        let said_before = KnownHosts::read(&path).unwrap().verdict(&name, &key);
        let learnt = append(&path, &name, &key, hashing).unwrap();
        let after = fs::read(&path).unwrap();
        match learnt {
            Learnt::Added(at) => {
                prop_assert_eq!(said_before, Verdict::Unknown);
                prop_assert_eq!(KnownHosts::read(&path).unwrap().verdict(&name, &key), Verdict::Match(at));
                prop_assert!(after.starts_with(&before));
                let stranger = HostName::new("stranger", 22).unwrap();
                let says_of_stranger = |text: &[u8]| KnownHosts::parse("kh", text).verdict(&stranger, &key);
                prop_assert_eq!(says_of_stranger(&before), says_of_stranger(&after));
            }
            Learnt::Present(at) => {
                prop_assert_eq!((said_before, after), (Verdict::Match(at), before));
            }
            Learnt::Refused(verdict) => {
                prop_assert!(!matches!(verdict, Verdict::Match(_) | Verdict::Unknown));
                prop_assert_eq!((said_before, after), (verdict, before));
            }
        }
    }

    #[test]
    fn a_hashed_file_says_what_the_plain_one_says(
        lessons in prop::collection::vec((name(), key()), 0..8),
        name in name(),
        key in key(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let said = [Hashing::Plain, Hashing::Hashed].map(|hashing| {
            let path = directory.path().join(format!("{hashing:?}"));
            let learnt: Vec<_> = lessons
                .iter()
                .map(|(name, key)| format!("{:?}", append(&path, name, key, hashing).unwrap()))
                .map(|learnt| learnt.replace(&format!("{hashing:?}"), "file"))
                .collect();
            let known = KnownHosts::parse(Path::new("kh"), &fs::read(&path).unwrap_or_default());
            (learnt, known.verdict(&name, &key), known.known_key_types(&name))
        });
        prop_assert_eq!(&said[0], &said[1]);
    }
}

/// ssh_config(5), PATTERNS, word for word.
fn by_definition(list: &str, text: &str) -> bool {
    fn covers(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|taken| covers(rest, &text[taken..])),
            ([b'?', rest @ ..], [_, left @ ..]) => covers(rest, left),
            ([wanted, rest @ ..], [byte, left @ ..]) => wanted == byte && covers(rest, left),
            ([], [_, ..]) | ([_, ..], []) => false,
        }
    }
    let is_covered = |pattern: &str| covers(pattern.as_bytes(), text.as_bytes());
    let (negated, plain): (Vec<&str>, Vec<&str>) = list.split(',').partition(|item| item.starts_with('!'));
    plain.into_iter().any(is_covered) && !negated.into_iter().any(|item| is_covered(&item[1..]))
}
