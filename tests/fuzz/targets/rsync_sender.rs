//! A sender that is asked by any bytes; what must hold is written beside the crate's other tests.
#![no_main]

#[path = "../../../crates/rsync-wire/tests/any/sender.rs"]
mod any;
#[path = "../../../crates/rsync-wire/tests/any/roles.rs"]
mod roles;

libfuzzer_sys::fuzz_target!(|input: &[u8]| any::check(input));
