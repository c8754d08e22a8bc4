//! Any bytes of a stream behind a lane's filter; what must hold is written beside the core's other tests.
#![no_main]

#[path = "../../../crates/ssh-mcp-core/tests/any_lines.rs"]
mod any_lines;

libfuzzer_sys::fuzz_target!(|input: &[u8]| any_lines::check(input));
