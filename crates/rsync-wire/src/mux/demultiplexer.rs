//! The reading side: bytes in any pieces, data and messages out.

use super::{Deleted, HEADER, Message, TAG_BASE, Tag};
use crate::io_errors::IoErrors;

/// What comes out of a [`Demultiplexer`].
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Data, never empty, cut wherever frames or pieces of input end.
    Data(&'a [u8]),
    /// A message, whole.
    Message(Message),
}

/// Bounds of what messages a server may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// The longest text or name, in bytes.
    pub length: u32,
    /// The most messages.
    pub count: u64,
}

impl Default for MessageLimits {
    /// 64 KiB, where servers stay below 5 KiB, and four million messages, for each file of a large tree a few.
    fn default() -> Self {
        Self { length: 64 << 10, count: 4 << 20 }
    }
}

/// Why the stream of frames is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// The header's last byte is of no frame a server sends to a client.
    #[error("no frame begins with a header that ends in byte {0:#04x}")]
    Tag(u8),
    /// The length of a message does not fit its kind.
    #[error("message of tag {tag} with {length} bytes")]
    Length {
        /// The message's tag.
        tag: u8,
        /// The length its header says.
        length: u32,
    },
    /// The payload of a message has no meaning.
    #[error("message of tag {tag} says {value}")]
    Value {
        /// The message's tag.
        tag: u8,
        /// The number in it.
        value: i32,
    },
    /// There were more messages than [`MessageLimits::count`].
    #[error("more than {0} messages")]
    TooMany(u64),
}

/// Takes frames apart.
///
/// *Invariant:* holds at most one message, of at most [`MessageLimits::length`] bytes; data passes through uncopied.
#[derive(Debug)]
pub struct Demultiplexer {
    limits: MessageLimits,
    messages: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Header(Vec<u8>),
    Data { left: usize },
    Message { tag: Tag, length: usize, payload: Vec<u8> },
}

impl Demultiplexer {
    /// At the border of two frames.
    #[must_use]
    pub fn new(limits: MessageLimits) -> Self {
        Self { limits, messages: 0, state: State::Header(Vec::new()) }
    }

    /// The next event of `input`, which is shortened by what was read. `None` when all of it was.
    ///
    /// # Errors
    /// The server broke the protocol or a limit; nothing that follows has a meaning.
    pub fn next_event<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, MuxError> {
        loop {
            match &mut self.state {
                State::Header(header) => {
                    gather(header, HEADER, input);
                    let Some(&[a, b, c, tag]) = header.first_chunk() else { return Ok(None) };
                    self.state = self.begin(u32::from_le_bytes([a, b, c, 0]), tag)?;
                }
                State::Data { left } => {
                    let (data, rest) = input.split_at(input.len().min(*left));
                    *left -= data.len();
                    *input = rest;
                    if *left == 0 {
                        self.state = State::Header(Vec::new());
                    } else if data.is_empty() {
                        return Ok(None);
                    }
                    if !data.is_empty() {
                        return Ok(Some(Event::Data(data)));
                    }
                }
                State::Message { tag, length, payload } => {
                    gather(payload, *length, input);
                    if payload.len() < *length {
                        return Ok(None);
                    }
                    let message = parse(*tag, std::mem::take(payload))?;
                    self.state = State::Header(Vec::new());
                    return Ok(Some(Event::Message(message)));
                }
            }
        }
    }

    /// The last byte read was the last of a frame, so that the stream may end here.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        match &self.state {
            State::Header(header) => header.is_empty(),
            State::Data { left } => *left == 0,
            State::Message { .. } => false,
        }
    }

    fn begin(&mut self, length: u32, last: u8) -> Result<State, MuxError> {
        let tag = last.checked_sub(TAG_BASE).and_then(Tag::from_number).ok_or(MuxError::Tag(last))?;
        let fits = match tag {
            Tag::Data => return Ok(State::Data { left: length as usize }),
            Tag::Text(_) => length <= self.limits.length,
            Tag::Deleted => (1..=self.limits.length).contains(&length),
            Tag::IoErrors | Tag::IoTimeout | Tag::Success | Tag::NoSend => length == 4,
            Tag::ErrorExit => length == 0 || length == 4,
            Tag::Noop => length == 0,
        };
        if !fits {
            return Err(MuxError::Length { tag: tag.number(), length });
        }
        self.messages += 1;
        if self.messages > self.limits.count {
            return Err(MuxError::TooMany(self.limits.count));
        }
        Ok(State::Message { tag, length: length as usize, payload: Vec::new() })
    }
}

/// Moves bytes from `input` until `bytes` has `length`.
fn gather(bytes: &mut Vec<u8>, length: usize, input: &mut &[u8]) {
    let (taken, rest) = input.split_at(input.len().min(length.saturating_sub(bytes.len())));
    bytes.extend_from_slice(taken);
    *input = rest;
}

/// A message whose length was found to fit.
fn parse(tag: Tag, mut payload: Vec<u8>) -> Result<Message, MuxError> {
    let number = payload.first_chunk().map(|&bytes| i32::from_le_bytes(bytes));
    let value = number.unwrap_or_default();
    let wrong = |_| MuxError::Value { tag: tag.number(), value };
    Ok(match tag {
        Tag::Data => return Err(MuxError::Tag(TAG_BASE)),
        Tag::Text(severity) => Message::Text(severity, payload),
        Tag::IoErrors => Message::IoErrors(IoErrors::from_bits(value)),
        Tag::IoTimeout => Message::IoTimeout(value),
        Tag::Noop => Message::Noop,
        Tag::ErrorExit => Message::ErrorExit(number),
        Tag::Success => Message::Success(u32::try_from(value).map_err(wrong)?),
        Tag::NoSend => Message::NoSend(u32::try_from(value).map_err(wrong)?),
        Tag::Deleted if payload.last() == Some(&0) => {
            payload.pop();
            Message::Deleted(Deleted::Directory(payload))
        }
        Tag::Deleted => Message::Deleted(Deleted::Other(payload)),
    })
}
