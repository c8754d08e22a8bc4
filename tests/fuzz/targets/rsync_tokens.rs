//! Tokens out of any bytes; what must hold is written beside the crate's other tests.
#![no_main]

#[path = "../../../crates/rsync-wire/tests/any/tokens.rs"]
mod any;

libfuzzer_sys::fuzz_target!(|input: &[u8]| any::check(input));
