//! Placeholder table of the command tools, filled by the tools themselves.

use super::Row;

/// The command tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] = &[];
