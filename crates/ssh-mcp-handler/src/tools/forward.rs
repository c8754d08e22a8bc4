//! The forward tools: open one, close one. What a forward does is read from its resource, what there is from
//! `ssh_resources`.

mod close;
mod open;
#[cfg(test)]
mod tests;

use super::{Effect, Key, Reach, Repeat, Row, Set, call};

/// The forward tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] = &[open::ROW, close::ROW];
