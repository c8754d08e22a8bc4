//! Any text as a resource URI; what must hold is written beside the core's other tests.
#![no_main]

#[path = "../../../crates/ssh-mcp-core/tests/any_uri.rs"]
mod any_uri;

libfuzzer_sys::fuzz_target!(|text: &str| any_uri::check(text));
