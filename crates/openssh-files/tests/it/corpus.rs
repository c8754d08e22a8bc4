//! The fuzzer's stored inputs, replayed: what it once found stays found without a fuzzer.

use std::path::Path;

use crate::{any_file, config};

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("replaying {}", path.display());
        check(&std::fs::read(&path).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 10, "only {replayed} inputs in {}", corpus.display());
}

#[test]
fn every_stored_known_hosts_file_keeps_the_promises() {
    replay("known_hosts", any_file::check);
}

#[test]
fn every_stored_configuration_keeps_the_promises() {
    replay("ssh_config", config::any_file::check);
}
