//! Identifiers: one newtype per kind, all UUIDs of version 7 (RFC 9562), so that they sort by age.
//!
//! Making one needs a clock and random bytes, which core has not: the engine does that.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};
use uuid::Uuid;

/// Text that is no UUID where an identifier was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct NotAnId;

/// What every identifier can do; lets generic code (registries, suggestions) treat the kinds alike.
pub trait Id: Copy + Eq + Ord + std::hash::Hash + fmt::Display + From<Uuid> + Send + Sync + 'static {
    /// The identifier as the UUID it is.
    fn as_uuid(&self) -> Uuid;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl Id for $name {
            fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                parse_uuid(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

ids! {
    /// Names an SSH session, which may be several connections to one host.
    SessionId;
    /// Names a command started on a session.
    CommandId;
    /// Names an interactive shell on a session.
    ShellId;
    /// Names a transfer of files on a session.
    TransferId;
    /// Names a sync of two trees on a session.
    RsyncId;
    /// Names a forward of TCP connections on a session.
    ForwardId;
    /// Names an open serial port.
    SerialId;
    /// Names one client connection; its automatic cursors belong to it.
    PeerId;
    /// Names one lane: a subscription of a client to one resource.
    SubId;
}

/// Only the hyphenated form is an identifier on the wire, in any letter case.
fn parse_uuid(text: &str) -> Result<Uuid, NotAnId> {
    match text.len() {
        36 => Uuid::try_parse(text).map_err(|_| NotAnId),
        _ => Err(NotAnId),
    }
}

/// The first eight characters of an identifier's random part, for labels a person reads.
///
/// The time prefix of two identifiers made in one moment is equal; their last group differs.
pub fn short(id: impl Id) -> String {
    let text = id.as_uuid().as_simple().to_string();
    text.chars().skip(24).collect()
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    #[test]
    fn identifiers_parse_in_any_case_and_print_in_lower_case() {
        let id: SessionId = "0190A1B2-C3D4-7E5F-8A9B-0C1D2E3F4A5B".parse().unwrap();
        assert_eq!(id.to_string(), "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b");
        assert_eq!(short(id), "2e3f4a5b");
    }

    #[test]
    fn other_spellings_of_a_uuid_are_no_identifiers() {
        for text in ["", "x", "0190a1b2c3d47e5f8a9b0c1d2e3f4a5b", "{0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b}"] {
            assert_eq!(text.parse::<SessionId>(), Err(NotAnId), "{text}");
        }
    }
}
