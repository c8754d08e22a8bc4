//! What holds for any text taken as a resource URI, and the replay of the fuzzer's stored inputs.
//!
//! The fuzz target `uri` includes this file for `check`.
#![cfg(not(ssh_mcp_loom))]

use ssh_mcp_core::uri::{Class, Query, parse};

/// Panics if the text makes the parser break one of its promises.
pub(crate) fn check(text: &str) {
    let uri = match parse(text) {
        Ok(uri) => uri,
        Err(error) => {
            assert!(error.value.chars().count() <= 200, "an answer does not repeat a text of any length");
            assert!(!error.field.is_empty() && !error.expected.is_empty(), "{error:?}");
            return;
        }
    };
    let row = uri.scheme.row();
    assert!((1..=128).contains(&uri.id.len()) && uri.id == uri.id.to_ascii_lowercase(), "{uri:?}");
    assert_ne!(uri.query.max_bytes, Some(0));
    if row.class == Class::State {
        assert_eq!(uri.query, Query::default());
    }
    // The plain form of what was read is read as the same, and letter case of the scheme does not matter.
    let plain = parse(&format!("{}://{}/{}", row.name, uri.id, row.channel));
    assert!(plain.is_ok_and(|plain| plain.id == uri.id && plain.query == Query::default()), "{uri:?}");
    let (scheme, rest) = text.split_at(row.name.len());
    assert_eq!(parse(&[&scheme.to_ascii_uppercase(), rest].concat()).as_ref(), Ok(&uri));
    // What names a resource prints as the form that names it again.
    if let Some(resource) = uri.resource() {
        let printed = parse(&resource.to_string());
        assert!(printed.is_ok_and(|printed| printed.resource() == Some(resource)), "{uri:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn every_stored_input_keeps_the_promises() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/uri");
        let mut replayed = 0;
        for entry in std::fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            eprintln!("replaying {}", path.display());
            super::check(&String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
            replayed += 1;
        }
        assert!(replayed >= 10, "only {replayed} inputs in {}", corpus.display());
    }
}
