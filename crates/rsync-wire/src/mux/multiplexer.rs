//! The writing side: data and notices in, frames out.

use super::{HEADER, TAG_BASE, Tag};
use crate::io_errors::IoErrors;

/// What a client may say beside its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Errors met while sending.
    IoErrors(IoErrors),
    /// As sender: the file of this index cannot be sent.
    NoSend(u32),
    /// As receiver, if sources are to be removed: the file of this index is safely installed.
    Success(u32),
    /// The client dies with this exit code; without a code it acknowledges that the server does.
    ErrorExit(Option<i32>),
}

/// The most bytes of data in one frame that is written.
pub const FRAME_LIMIT: usize = 32 << 10;

/// Puts data and notices into frames.
///
/// Data is gathered in an open frame until [`FRAME_LIMIT`], a notice or [`take`](Self::take) ends it, so that many small
/// values cost one header. Whoever writes bounds what is gathered by taking it.
#[derive(Debug, Default)]
pub struct Multiplexer {
    out: Vec<u8>,
    /// Where the header of the open frame stands.
    open: Option<usize>,
}

impl Multiplexer {
    /// Adds data.
    pub fn put_data(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let start = *self.open.get_or_insert_with(|| {
                let start = self.out.len();
                self.out.extend_from_slice(&header(Tag::Data, 0));
                start
            });
            let room = FRAME_LIMIT.saturating_sub(self.out.len() - start - HEADER);
            if room == 0 {
                self.close();
                continue;
            }
            let (piece, rest) = data.split_at(data.len().min(room));
            self.out.extend_from_slice(piece);
            data = rest;
        }
    }

    /// Adds a notice after the data so far.
    pub fn put_notice(&mut self, notice: Notice) {
        self.close();
        let (tag, value) = match notice {
            Notice::IoErrors(errors) => (Tag::IoErrors, Some(errors.bits())),
            Notice::NoSend(index) => (Tag::NoSend, Some(index.cast_signed())),
            Notice::Success(index) => (Tag::Success, Some(index.cast_signed())),
            Notice::ErrorExit(code) => (Tag::ErrorExit, code),
        };
        let payload = value.map(i32::to_le_bytes);
        let payload = payload.as_ref().map_or(&[][..], |bytes| bytes);
        self.out.extend_from_slice(&header(tag, payload.len()));
        self.out.extend_from_slice(payload);
    }

    /// Adds an empty data frame, which says nothing but that we are alive.
    pub fn put_keep_alive(&mut self) {
        self.close();
        self.out.extend_from_slice(&header(Tag::Data, 0));
    }

    /// Adds bytes as they are, behind the frames so far.
    pub(crate) fn put_unframed(&mut self, bytes: &[u8]) {
        self.close();
        self.out.extend_from_slice(bytes);
    }

    /// How many bytes [`take`](Self::take) would hand out.
    #[must_use]
    pub fn length(&self) -> usize {
        self.out.len()
    }

    /// Everything so far, ready to be written.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        self.close();
        std::mem::take(&mut self.out)
    }

    fn close(&mut self) {
        let Some(start) = self.open.take() else { return };
        let length = self.out.len() - start - HEADER;
        if let Some(place) = self.out.get_mut(start..start + HEADER) {
            place.copy_from_slice(&header(Tag::Data, length));
        }
    }
}

/// Lengths are at most [`FRAME_LIMIT`], which fits the three bytes there are.
fn header(tag: Tag, length: usize) -> [u8; HEADER] {
    let [a, b, c, ..] = (length as u32).to_le_bytes();
    [a, b, c, TAG_BASE + tag.number()]
}
