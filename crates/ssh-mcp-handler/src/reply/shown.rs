//! Output as an answer shows it: bytes cut to a budget at a character boundary, and what to say about the cut.

use ssh_mcp_core::{
    history::{ByteHistory, View},
    text,
};

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The piece as text; what is not UTF-8 became U+FFFD.
    pub(crate) text: String,
    /// Whether more may come, or was lost with the connection.
    pub(crate) completeness: Completeness,
    /// Bytes of the piece.
    bytes: u64,
    /// Bytes there were in all.
    total: u64,
    cut: Cut,
}

/// Whether what is shown was all there ever will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// It ended by itself.
    Whole,
    /// It still runs, or was ended before it was done.
    Partial,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Nothing,
    Truncated,
}

impl Shown {
    /// The newest `max` bytes of a view.
    pub(crate) fn newest(history: &ByteHistory, view: View, max: usize, completeness: Completeness) -> Self {
        let tail = history.tail(view, max);
        let cut = if (tail.bytes.len() as u64) < tail.total { Cut::Truncated } else { Cut::Nothing };
        let start = if cut == Cut::Truncated { text::orphaned_prefix(&tail.bytes) } else { 0 };
        // A character whose rest is still on its way is shown when it is whole.
        let end = match tail.mark.ended {
            true => tail.bytes.len(),
            false => tail.bytes.len().saturating_sub(text::incomplete_suffix(&tail.bytes)),
        };
        let bytes = tail.bytes.get(start..end).unwrap_or_default();
        Self {
            text: text::lossy(bytes).into_owned(),
            completeness,
            bytes: bytes.len() as u64,
            total: tail.total,
            cut,
        }
    }

    /// The first `max` bytes of what came.
    pub(crate) fn oldest(bytes: &[u8], max: usize, completeness: Completeness) -> Self {
        let total = bytes.len() as u64;
        let cut = if bytes.len() > max { Cut::Truncated } else { Cut::Nothing };
        let head = bytes.get(..max).unwrap_or(bytes);
        let head = head.get(..head.len() - text::incomplete_suffix(head)).unwrap_or(head);
        let text = text::lossy(head).into_owned();
        Self { text, completeness, bytes: head.len() as u64, total, cut }
    }

    /// A piece cut out elsewhere, of `total` bytes there were.
    pub(crate) fn piece(bytes: &[u8], total: u64, completeness: Completeness) -> Self {
        let cut = if (bytes.len() as u64) < total { Cut::Truncated } else { Cut::Nothing };
        Self { text: text::lossy(bytes).into_owned(), completeness, bytes: bytes.len() as u64, total, cut }
    }

    /// A piece put together elsewhere, all of what there is.
    pub(crate) fn whole(text: String) -> Self {
        let bytes = text.len() as u64;
        Self { text, completeness: Completeness::Whole, bytes, total: bytes, cut: Cut::Nothing }
    }

    /// Whether something was left out.
    pub(crate) fn is_truncated(&self) -> bool {
        self.cut == Cut::Truncated
    }

    /// What stands in the parenthesis of the opening line; empty without remarks.
    pub(crate) fn annotations(&self) -> String {
        let state = (self.completeness == Completeness::Partial).then(|| "partial".to_owned());
        let size = match self.cut {
            Cut::Truncated => {
                let (shown, total) = (text::human_size(self.bytes), text::human_size(self.total));
                Some(format!("truncated: showing {shown} of {total}"))
            }
            Cut::Nothing => self.text.is_empty().then(|| "empty".to_owned()),
        };
        state.into_iter().chain(size).collect::<Vec<_>>().join(", ")
    }
}
