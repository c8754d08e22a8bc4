//! Bytes that the server has sent and nobody has taken.
//!
//! A server that receives asks for file after file while the first of them are still sent, some twenty bytes each. They have to
//! be read all the same: what lets us send on stands behind them (`docs/adr/0015-mirror.md`, 3). One request is much like
//! another, so those that wait are packed.

use std::collections::VecDeque;

use bytes::Bytes;
use lz4_flex::block;
use ssh_mcp_core::registry::Direction;

/// Smaller pieces than this are put together: a server may send one for each byte.
const CHUNK: usize = 16 << 10;

/// Bytes of memory that what waits may take before the channel is read no further. In an upload that must never come to pass, but it
/// has to have an end.
const LIMIT: (usize, usize) = (64 << 20, 4 << 20);

/// And bytes that wait, however small they pack: the requests for ten million files.
const MOST: usize = 256 << 20;

/// What waits, in order.
#[derive(Debug)]
pub(super) struct Backlog {
    is_packed: bool,
    limit: usize,
    chunks: VecDeque<Chunk>,
    /// The newest bytes, too few for a chunk.
    last: Vec<u8>,
    /// Bytes of memory that all that takes.
    held: usize,
    /// Bytes that all that is.
    waiting: usize,
}

#[derive(Debug)]
enum Chunk {
    Plain(Bytes),
    Packed { block: Box<[u8]>, length: usize },
}

impl Backlog {
    pub(super) fn new(direction: Direction) -> Self {
        let (is_packed, limit) = match direction {
            Direction::Upload => (true, LIMIT.0),
            Direction::Download => (false, LIMIT.1),
        };
        Self { is_packed, limit, chunks: VecDeque::new(), last: Vec::new(), held: 0, waiting: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(super) fn has_room(&self) -> bool {
        self.held < self.limit && self.waiting < MOST
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        self.held += bytes.len();
        self.waiting += bytes.len();
        if bytes.len() >= CHUNK && !self.is_packed {
            self.end_chunk();
            self.chunks.push_back(Chunk::Plain(bytes));
        } else {
            self.last.extend_from_slice(&bytes);
            if self.last.len() >= CHUNK {
                self.end_chunk();
            }
        }
    }

    /// The oldest bytes, some of them.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let bytes = match self.chunks.pop_front() {
            Some(Chunk::Plain(bytes)) => bytes,
            Some(Chunk::Packed { block, length }) => {
                self.held = self.held.saturating_sub(block.len());
                self.waiting = self.waiting.saturating_sub(length);
                // What was packed here can be unpacked.
                return block::decompress(&block, length).ok().map(Bytes::from);
            }
            None => Bytes::from(std::mem::take(&mut self.last)),
        };
        self.held = self.held.saturating_sub(bytes.len());
        self.waiting = self.waiting.saturating_sub(bytes.len());
        (!bytes.is_empty()).then_some(bytes)
    }

    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.last.clear();
        (self.held, self.waiting) = (0, 0);
    }

    fn end_chunk(&mut self) {
        if self.last.is_empty() {
            return;
        }
        let plain = Bytes::from(std::mem::take(&mut self.last));
        let length = plain.len();
        // The oldest chunk is taken next.
        let is_worth_it = self.is_packed && !self.chunks.is_empty();
        let block = is_worth_it.then(|| block::compress(&plain)).filter(|block| block.len() < length / 2);
        self.chunks.push_back(match block {
            Some(block) => {
                self.held -= length - block.len();
                Chunk::Packed { block: block.into(), length }
            }
            None => Chunk::Plain(plain),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request for a whole file, thousands of times.
    const REQUEST: [u8; 19] = [1, 0, 0x80, 0, 0, 0, 0, 0xbc, 2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];

    fn drained(backlog: &mut Backlog) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(bytes) = backlog.pop() {
            assert!(!bytes.is_empty());
            all.extend_from_slice(&bytes);
        }
        assert!(backlog.is_empty());
        all
    }

    #[test]
    fn what_waits_comes_out_in_order_whatever_its_pieces_are() {
        let noise: Vec<u8> =
            (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for direction in [Direction::Upload, Direction::Download] {
            for piece in [1, 100, CHUNK - 1, CHUNK, 40_000] {
                let mut backlog = Backlog::new(direction);
                let (mut sent, mut taken) = (Vec::new(), Vec::new());
                for (at, bytes) in noise.chunks(piece).enumerate() {
                    backlog.push(Bytes::copy_from_slice(bytes));
                    backlog.push(Bytes::copy_from_slice(&REQUEST));
                    sent.extend_from_slice(bytes);
                    sent.extend_from_slice(&REQUEST);
                    if at % 7 == 3 {
                        taken.extend_from_slice(&backlog.pop().unwrap());
                    }
                }
                taken.extend(drained(&mut backlog));
                assert!(taken == sent, "{direction:?}, {piece}");
            }
        }
    }

    #[test]
    fn a_million_requests_take_little_room() {
        let mut backlog = Backlog::new(Direction::Upload);
        for _ in 0..1_000_000 {
            backlog.push(Bytes::from_static(&REQUEST));
        }
        assert!(backlog.has_room());
        assert!(backlog.held < 1 << 20, "{}", backlog.held);
        let all = drained(&mut backlog);
        assert!(all.len() == 19_000_000 && all.chunks(19).all(|request| request == REQUEST));
    }

    #[test]
    fn what_cannot_be_packed_fills_it() {
        let mut backlog = Backlog::new(Direction::Download);
        while backlog.has_room() {
            backlog.push(Bytes::from(vec![0; 32 << 10]));
        }
        assert_eq!(backlog.held, 4 << 20);
        backlog.pop().unwrap();
        assert!(backlog.has_room());
    }

    #[test]
    fn what_packs_to_nothing_fills_it_too() {
        let mut backlog = Backlog::new(Direction::Upload);
        while backlog.has_room() {
            backlog.push(Bytes::from_static(&[0; CHUNK]));
        }
        assert_eq!(backlog.waiting, MOST);
        assert!(backlog.held < 4 << 20, "{}", backlog.held);
        backlog.pop().unwrap();
        assert!(backlog.has_room());
    }
}
