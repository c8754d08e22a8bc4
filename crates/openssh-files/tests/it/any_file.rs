//! What holds for any bytes taken as a known_hosts file: shared by the fuzz target `known_hosts` and the replay of its corpus.

use openssh_files::known_hosts::{HostKey, HostName, KnownHosts, Location, Verdict};

/// Panics if the text makes the reader break one of its promises.
pub(crate) fn check(text: &[u8]) {
    let known = KnownHosts::parse("kh", text);
    let lines = text.split(|&byte| byte == b'\n').count();
    for name in names(text) {
        let types = known.known_key_types(&name);
        for key in [ed25519(1), ed25519(2), rsa()] {
            match known.verdict(&name, &key) {
                Verdict::Match(at) | Verdict::Revoked(at) => assert!((1..=lines).contains(&at.line)),
                Verdict::Changed { at, known } => {
                    assert!((1..=lines).contains(&at.line));
                    assert_ne!(known, key.fingerprint());
                }
                Verdict::OtherTypesKnown { types: others, at } => {
                    assert!((1..=lines).contains(&at.line));
                    assert!(!others.is_empty() && !others.contains(&key.algorithm()));
                    assert!(types.iter().all(|known| others.contains(known)), "{types:?} {others:?}");
                }
                Verdict::Unknown => assert_is_learnt_by_its_line(text, &name, &key, lines + 1),
            }
        }
    }
    if let Ok(key) = HostKey::parse(text) {
        assert_eq!(key.as_blob(), text);
        assert_eq!(key.fingerprint().len(), "SHA256:".len() + 43);
    }
}

/// What is unknown is known by one more line, whatever stands before it.
fn assert_is_learnt_by_its_line(text: &[u8], name: &HostName, key: &HostKey, line: usize) {
    let learnt = format!("\n{name} {} {}\n", key.algorithm(), base64(key.as_blob()));
    let verdict = KnownHosts::parse("kh", &[text, learnt.as_bytes()].concat()).verdict(name, key);
    assert_eq!(verdict, Verdict::Match(Location { file: "kh".into(), line }));
}

/// Fixed names, those hashed in the corpus among them, and whatever the text itself begins with.
fn names(text: &[u8]) -> Vec<HostName> {
    let first = text.split(|byte| byte.is_ascii_whitespace() || *byte == b',').next().unwrap_or_default();
    let own = String::from_utf8_lossy(first);
    [
        HostName::new("host.example", 22),
        HostName::new("host.example", 2222),
        HostName::alias("a"),
        HostName::alias(&own),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn ed25519(fill: u8) -> HostKey {
    parsed(&[b"ssh-ed25519", &[fill; 32]])
}

fn rsa() -> HostKey {
    parsed(&[b"ssh-rsa", &[3], &[0x7f; 129]])
}

fn parsed(fields: &[&[u8]]) -> HostKey {
    let mut blob = Vec::new();
    for field in fields {
        blob.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        blob.extend(*field);
    }
    HostKey::parse(&blob).unwrap()
}

/// RFC 4648, section 4, written out: the target depends on the crate under test alone.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let bits = chunk.iter().chain([&0; 2]).take(3).fold(0, |bits, &byte| bits << 8 | usize::from(byte));
        let digit = |index: usize| match index <= chunk.len() {
            true => char::from(DIGITS[bits >> (18 - 6 * index) & 63]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
