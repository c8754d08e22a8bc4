//! The asking half of the receiving side.

use super::sender::block_hash;
use super::{Expected, ItemFlags, Record, RoleError, Terms};
use crate::checksum::BlockHash;
use crate::negotiate::Protocol;
use crate::sums::SumHead;
use crate::varint::{Index, IndexWriter};

/// The client of a download as it asks for files, in the order of the list.
///
/// It asks for what differs, says [`end_phase`](Self::end_phase), waits until the [`Receiver`](super::Receiver) has met the end
/// of that phase, asks again for what arrived wrong, and says the rest.
#[derive(Debug)]
pub struct Generator {
    terms: Terms,
    indexes: IndexWriter,
}

impl Generator {
    /// Begins behind the filter list and the file list.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self { terms, indexes: IndexWriter::default() }
    }

    /// What block sums are made with.
    #[must_use]
    pub fn block_hash(&self) -> BlockHash {
        block_hash(&self.terms)
    }

    /// Appends a request for a file to `out`. The result says what the answer has to be; the receiver must know it before
    /// `out` is written. Behind this the caller appends the sums of the basis, if `head` has blocks, but none in append mode or
    /// in a dry run. In append mode what arrived wrong is asked for with [`SumHead::NONE`].
    ///
    /// # Errors
    /// The index is beyond those of a list.
    pub fn request(
        &mut self,
        index: u32,
        flags: ItemFlags,
        head: SumHead,
        out: &mut Vec<u8>,
    ) -> Result<Expected, RoleError> {
        let record = Record::of(flags | ItemFlags::TRANSFER);
        self.indexes.put(out, Index::File(index))?;
        record.put(out);
        if !self.terms.dry_run {
            out.extend_from_slice(&head.encode());
        }
        Ok(Expected { record, head })
    }

    /// Says that there are no more requests in this phase.
    pub fn end_phase(&mut self, out: &mut Vec<u8>) {
        out.push(0);
    }

    /// Says what is left when the requests of the second phase are written: its end and that of all later ones. The very last
    /// word is [`goodbye`](Self::goodbye).
    pub fn end_requests(&mut self, out: &mut Vec<u8>) {
        let ends = if self.terms.agreed.protocol >= Protocol::V31 { 3 } else { 2 };
        out.resize(out.len() + ends, 0);
    }

    /// The last word, when the receiver has everything.
    pub fn goodbye(&mut self, out: &mut Vec<u8>) {
        out.push(0);
    }
}
