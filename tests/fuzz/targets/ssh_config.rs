//! Any bytes as an ssh_config file; what must hold is written beside the crate's other tests.
#![no_main]

#[path = "../../../crates/openssh-files/tests/it/config/any_file.rs"]
mod any_file;

libfuzzer_sys::fuzz_target!(|text: &[u8]| any_file::check(text));
