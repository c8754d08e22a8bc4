//! Frames of other lengths than those that were made.

/// How data is cut into frames, both ours and, before we read them, the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As it was made.
    AsMade,
    /// Frames of so many bytes, as far as data stands together, with empty ones between them.
    Of(usize),
}

impl Framing {
    /// The same in other frames. What is not made of whole frames, as nothing is before the first of them, cannot be given.
    pub(crate) fn reframe(self, mut frames: Vec<u8>) -> Vec<u8> {
        let reframed = self.reframe_whole(&mut frames);
        assert!(frames.is_empty(), "a frame is cut");
        reframed
    }

    /// The same with all whole frames, which are taken off the beginning.
    pub(crate) fn reframe_whole(self, bytes: &mut Vec<u8>) -> Vec<u8> {
        let Self::Of(length) = self else { return std::mem::take(bytes) };
        let (mut out, mut data) = (Vec::new(), Vec::new());
        let mut rest = &bytes[..];
        while let Some((&[a, b, c, tag], after)) = rest.split_first_chunk() {
            let Some((payload, after)) = after.split_at_checked(u32::from_le_bytes([a, b, c, 0]) as usize)
            else {
                break;
            };
            if tag == DATA {
                data.extend_from_slice(payload);
            } else {
                put_data(&mut out, &std::mem::take(&mut data), length);
                out.extend_from_slice(&[a, b, c, tag]);
                out.extend_from_slice(payload);
            }
            rest = after;
        }
        put_data(&mut out, &data, length);
        *bytes = rest.to_vec();
        out
    }
}

fn put_data(out: &mut Vec<u8>, data: &[u8], length: usize) {
    for piece in data.chunks(length) {
        let [a, b, c, ..] = (piece.len() as u32).to_le_bytes();
        out.extend_from_slice(&[a, b, c, DATA]);
        out.extend_from_slice(piece);
        out.extend_from_slice(&[0, 0, 0, DATA]);
    }
}

const DATA: u8 = 7;
