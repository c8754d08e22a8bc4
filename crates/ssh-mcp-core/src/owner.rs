//! Who sessions and resources belong to (`docs/architecture.md`, "Owners").
//!
//! Over stdio there is one owner; over HTTP it is the token a request showed, or `local` for a request from this
//! machine without one. What belongs to another owner does not exist for a caller.

use std::{fmt, sync::Arc};

/// The name an owner's sessions, resources and idempotency keys are kept under.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// The owner of everything that is asked for on this machine without a token.
    pub fn local() -> Self {
        Self(Arc::from(LOCAL))
    }

    /// The owner a named token stands for.
    pub fn token(name: &str) -> Self {
        Self(format!("token:{name}").into())
    }

    /// Whether files and variables of this machine may be named without the operator's leave.
    pub fn is_local(&self) -> bool {
        &*self.0 == LOCAL
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({})", self.0)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const LOCAL: &str = "local";
