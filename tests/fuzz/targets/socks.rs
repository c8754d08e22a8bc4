//! Whatever a client of a dynamic forward sends; what must hold is written beside the core's other tests.
#![no_main]

#[path = "../../../crates/ssh-mcp-core/tests/any_socks.rs"]
mod any_socks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| any_socks::check(input));
