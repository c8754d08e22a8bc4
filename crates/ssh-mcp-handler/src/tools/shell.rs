//! Placeholder table of the shell tools, filled by the tools themselves.

use super::Row;

/// The shell tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] = &[];
