//! Stored inputs of the fuzzer.
