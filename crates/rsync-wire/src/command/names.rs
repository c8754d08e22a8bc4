//! The names of the files that are wanted, which a server reads from the client (`--files-from`).

use crate::mux::Multiplexer;
use crate::negotiate::Protocol;

/// Why a name cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// The name has no byte, which would end the names.
    #[error("empty name among the wanted files")]
    Empty,
    /// The name has a NUL byte.
    #[error("name with a NUL byte among the wanted files")]
    Nul,
}

/// Says which files are wanted, as paths below the one that is named on the command line. This comes behind the filter list,
/// if [`Options::files_from`](super::Options::files_from) is set.
///
/// # Errors
/// A name cannot be sent; nothing was written.
pub fn put_names(out: &mut Multiplexer, protocol: Protocol, names: &[&[u8]]) -> Result<(), NamesError> {
    let mut text = Vec::new();
    for name in names {
        match name {
            [] => return Err(NamesError::Empty),
            name if name.contains(&0) => return Err(NamesError::Nul),
            name => text.extend_from_slice(name),
        }
        text.push(0);
    }
    text.push(0);
    if protocol >= Protocol::V31 {
        out.put_data(&text);
    } else {
        out.put_unframed(&text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_with_nul_and_stand_outside_of_frames_in_protocol_30() {
        let check = |protocol, expected: &[u8]| {
            let mut out = Multiplexer::default();
            out.put_data(&[0; 4]);
            put_names(&mut out, protocol, &[b"a/b", b"c"]).unwrap();
            out.put_data(b"x");
            assert_eq!(out.take(), expected);
        };
        check(Protocol::V32, b"\x0c\0\0\x07\0\0\0\0a/b\0c\0\0x");
        check(Protocol::V31, b"\x0c\0\0\x07\0\0\0\0a/b\0c\0\0x");
        check(Protocol::V30, b"\x04\0\0\x07\0\0\0\0a/b\0c\0\0\x01\0\0\x07x");
    }

    #[test]
    fn names_that_cannot_be_sent() {
        for (name, expected) in [(&b""[..], NamesError::Empty), (b"a\0", NamesError::Nul)] {
            let mut out = Multiplexer::default();
            assert_eq!(put_names(&mut out, Protocol::V32, &[b"a", name]), Err(expected));
            assert_eq!(out.length(), 0, "a failed call writes nothing");
        }
    }
}
