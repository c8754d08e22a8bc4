//! A receiver that is sent any bytes; what must hold is written beside the crate's other tests.
#![no_main]

#[path = "../../../crates/rsync-wire/tests/any/receiver.rs"]
mod any;
#[path = "../../../crates/rsync-wire/tests/any/roles.rs"]
mod roles;

libfuzzer_sys::fuzz_target!(|input: &[u8]| any::check(input));
