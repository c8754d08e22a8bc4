//! Frames out of any bytes: shared by the fuzz target `rsync_mux` and the replay of its corpus.

use rsync_wire::mux::{Demultiplexer, Event, Message, MessageLimits, MuxError};

const LIMITS: MessageLimits = MessageLimits { length: 100, count: 20 };

/// Panics if frames depend on how the bytes are cut, or data appears that was not sent. The first byte is how they are cut.
pub(crate) fn check(input: &[u8]) {
    let [cut, bytes @ ..] = input else { return };
    let whole = read([bytes].into_iter());
    assert_eq!(read(bytes.chunks(usize::from(*cut) + 1)), whole);
    let (events, _) = whole;
    let data: usize = events.iter().map(|event| event.as_ref().map_or(0, Vec::len)).sum();
    assert!(data <= bytes.len());
    for message in events.iter().filter_map(|event| event.as_ref().err()) {
        if let Message::Text(_, text) = message {
            assert!(text.len() <= LIMITS.length as usize);
        }
    }
    assert!(events.iter().filter(|event| event.is_err()).count() as u64 <= LIMITS.count);
}

/// Data, put together as far as no message is in between, and messages; and why it ended, if it did.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Result<Vec<u8>, Message>>, Option<MuxError>) {
    let mut frames = Demultiplexer::new(LIMITS);
    let mut events: Vec<Result<Vec<u8>, Message>> = Vec::new();
    for mut piece in pieces {
        loop {
            match frames.next_event(&mut piece) {
                Ok(None) => break,
                Ok(Some(Event::Message(message))) => events.push(Err(message)),
                Ok(Some(Event::Data(data))) => {
                    assert!(!data.is_empty());
                    match events.last_mut() {
                        Some(Ok(last)) => last.extend_from_slice(data),
                        Some(Err(_)) | None => events.push(Ok(data.to_vec())),
                    }
                }
                Err(error) => return (events, Some(error)),
            }
        }
        assert!(piece.is_empty());
    }
    (events, None)
}
