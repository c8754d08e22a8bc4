//! Quoting for a remote shell.

/// A word so that a POSIX shell yields exactly its bytes, wildcards included.
///
/// Backslashes do it rather than quotes, because restricted servers understand nothing else. A newline, before which a
/// backslash has another meaning, and an empty word are the exceptions.
#[must_use]
pub fn quote(word: &[u8]) -> Vec<u8> {
    if word.is_empty() {
        return b"''".to_vec();
    }
    let mut quoted = Vec::with_capacity(word.len());
    for &byte in word {
        match byte {
            b'\n' => quoted.extend_from_slice(b"'\n'"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | 0x80.. => quoted.push(byte),
            b'_' | b'-' | b'.' | b'/' | b'=' | b',' | b':' | b'@' | b'%' | b'+' => quoted.push(byte),
            _ => quoted.extend_from_slice(&[b'\\', byte]),
        }
    }
    quoted
}
