//! Placeholder table of the connection tools, filled by the tools themselves.

use super::Row;

/// The connection tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] = &[];
