//! The fuzzer's stored inputs, replayed: what it once found stays found without a fuzzer.

use std::path::Path;

use crate::any_file;

#[test]
fn every_stored_input_keeps_the_promises() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/known_hosts");
    let mut replayed = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("replaying {}", path.display());
        any_file::check(&std::fs::read(&path).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 10, "only {replayed} inputs in {}", corpus.display());
}
