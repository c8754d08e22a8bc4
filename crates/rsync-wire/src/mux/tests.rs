use proptest::prelude::*;

use super::*;

/// The data in one piece, and the messages with the place in the data where each stood.
type Sorted = (Vec<u8>, Vec<(usize, Message)>);

fn demultiplex<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Sorted, MuxError> {
    let mut demultiplexer = Demultiplexer::new(MessageLimits::default());
    let (mut data, mut messages) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        while let Some(event) = demultiplexer.next_event(&mut piece)? {
            match event {
                Event::Data(bytes) => {
                    assert!(!bytes.is_empty());
                    data.extend_from_slice(bytes);
                }
                Event::Message(message) => messages.push((data.len(), message)),
            }
        }
        assert!(piece.is_empty());
    }
    Ok((data, messages))
}

fn check(bytes: &[u8], expected: Message) {
    assert_eq!(demultiplex([bytes]).unwrap(), (Vec::new(), vec![(0, expected)]));
    for end in 0..bytes.len() {
        assert_eq!(demultiplex([&bytes[..end]]).unwrap(), (Vec::new(), Vec::new()));
    }
}

#[test]
fn messages_are_those_of_the_examples() {
    check(&[4, 0, 0, 0x6d, 1, 0, 0, 0], Message::NoSend(1));
    check(&[4, 0, 0, 0x1d, 2, 0, 0, 0], Message::IoErrors(IoErrors::VANISHED));
    check(b"\x05\0\0\x6cd/e/z", Message::Deleted(Deleted::Other(b"d/e/z".to_vec())));
    check(b"\x04\0\0\x6cd/e\0", Message::Deleted(Deleted::Directory(b"d/e".to_vec())));
    check(&[4, 0, 0, 0x5d, 2, 0, 0, 0], Message::ErrorExit(Some(2)));
    check(&[0, 0, 0, 0x5d], Message::ErrorExit(None));
    check(&[0, 0, 0, 0x31], Message::Noop);
    check(&[4, 0, 0, 0x28, 60, 0, 0, 0], Message::IoTimeout(60));
    check(&[4, 0, 0, 0x6b, 5, 0, 0, 0], Message::Success(5));
    check(b"\x01\0\0\x08x", Message::Text(Severity::TransferError, b"x".to_vec()));
    check(b"\x02\0\0\x09\xff\n", Message::Text(Severity::Info, b"\xff\n".to_vec()));
    check(b"\0\0\0\x0a", Message::Text(Severity::Error, Vec::new()));
    check(b"\x01\0\0\x0bx", Message::Text(Severity::Warning, b"x".to_vec()));
}

#[test]
fn frames_no_server_sends_are_refused() {
    let known = [7, 8, 9, 10, 11, 0x1d, 0x28, 0x31, 0x5d, 0x6b, 0x6c, 0x6d];
    for tag in (0..=0xff).filter(|tag| !known.contains(tag)) {
        assert_eq!(demultiplex([&[0, 0, 0, tag][..]]), Err(MuxError::Tag(tag)));
    }
    for (tag, lengths) in [
        (0x1d, &[0, 3, 5][..]),
        (0x28, &[0, 8]),
        (0x31, &[1]),
        (0x5d, &[1, 5]),
        (0x6b, &[0, 5]),
        (0x6c, &[0]),
        (0x6d, &[0, 3]),
    ] {
        for &length in lengths {
            let wrong = MuxError::Length { tag: tag - 7, length: u32::from(length) };
            assert_eq!(demultiplex([&[length, 0, 0, tag][..]]), Err(wrong));
        }
    }
    assert_eq!(
        demultiplex([&[0, 0, 2, 9][..]]),
        Err(MuxError::Length { tag: 2, length: 0x20000 }),
        "a text beyond the limit is refused by its header"
    );
    assert_eq!(
        demultiplex([&[4, 0, 0, 0x6d, 0xff, 0xff, 0xff, 0xff][..]]),
        Err(MuxError::Value { tag: 102, value: -1 })
    );
}

#[test]
fn messages_are_counted() {
    let mut demultiplexer = Demultiplexer::new(MessageLimits { length: 10, count: 2 });
    let mut input = &[0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 9][..];
    assert!(demultiplexer.next_event(&mut input).unwrap().is_some());
    assert!(demultiplexer.next_event(&mut input).unwrap().is_some());
    assert!(demultiplexer.is_between_frames());
    assert_eq!(demultiplexer.next_event(&mut input), Err(MuxError::TooMany(2)));
}

#[test]
fn a_stream_may_end_only_between_frames() {
    let mut demultiplexer = Demultiplexer::new(MessageLimits::default());
    for (mut piece, between) in
        [(&[1][..], false), (&[0, 0, 7], false), (&[9], true), (&[1, 0, 0, 9], false), (&[9], true)]
    {
        while demultiplexer.next_event(&mut piece).unwrap().is_some() {}
        assert_eq!(demultiplexer.is_between_frames(), between);
    }
}

#[test]
fn small_values_share_a_frame_and_large_ones_are_cut() {
    let mut multiplexer = Multiplexer::default();
    multiplexer.put_data(&[1]);
    multiplexer.put_data(&[2, 3]);
    multiplexer.put_notice(Notice::NoSend(1));
    multiplexer.put_data(&[]);
    multiplexer.put_data(&[4]);
    multiplexer.put_keep_alive();
    multiplexer.put_notice(Notice::ErrorExit(None));
    let expected = [3, 0, 0, 7, 1, 2, 3, 4, 0, 0, 0x6d, 1, 0, 0, 0, 1, 0, 0, 7, 4, 0, 0, 0, 7, 0, 0, 0, 0x5d];
    assert_eq!(multiplexer.length(), expected.len());
    assert_eq!(multiplexer.take(), expected);
    assert_eq!(multiplexer.take(), []);

    multiplexer.put_data(&vec![9; FRAME_LIMIT + 1]);
    let out = multiplexer.take();
    assert_eq!(out.len(), FRAME_LIMIT + 1 + 8);
    assert_eq!(out[..4], [0, 0x80, 0, 7]);
    assert_eq!(out[FRAME_LIMIT + 4..], [1, 0, 0, 7, 9]);
}

#[derive(Debug, Clone)]
enum Put {
    Data(Vec<u8>),
    Notice(Notice),
    KeepAlive,
}

fn any_put() -> impl Strategy<Value = Put> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Put::Data),
        (0..8).prop_map(|bits| Put::Notice(Notice::IoErrors(IoErrors::from_bits(bits)))),
        (0..0x8000_0000_u32).prop_map(|index| Put::Notice(Notice::NoSend(index))),
        (0..0x8000_0000_u32).prop_map(|index| Put::Notice(Notice::Success(index))),
        any::<Option<i32>>().prop_map(|code| Put::Notice(Notice::ErrorExit(code))),
        Just(Put::KeepAlive),
    ]
}

/// `bytes` in pieces of these lengths, again and again.
fn pieces<'a>(mut bytes: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    lengths.iter().cycle().map_while(move |&length| {
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

proptest! {
    #[test]
    fn what_is_put_comes_out_however_it_is_cut(
        puts in prop::collection::vec(any_put(), 0..20),
        lengths in prop::collection::vec(1..70_usize, 1..10),
    ) {
        let mut multiplexer = Multiplexer::default();
        let (mut data, mut messages) = (Vec::new(), Vec::new());
        for put in puts {
            match put {
                Put::Data(bytes) => {
                    multiplexer.put_data(&bytes);
                    data.extend(bytes);
                }
                Put::Notice(notice) => {
                    multiplexer.put_notice(notice);
                    messages.push((data.len(), match notice {
                        Notice::IoErrors(errors) => Message::IoErrors(errors),
                        Notice::NoSend(index) => Message::NoSend(index),
                        Notice::Success(index) => Message::Success(index),
                        Notice::ErrorExit(code) => Message::ErrorExit(code),
                    }));
                }
                Put::KeepAlive => multiplexer.put_keep_alive(),
            }
        }
        let out = multiplexer.take();
        let expected = Ok((data, messages));
        prop_assert_eq!(&demultiplex([&out[..]]), &expected);
        prop_assert_eq!(&demultiplex(pieces(&out, &lengths)), &expected);
        prop_assert_eq!(&demultiplex(pieces(&out, &[1])), &expected);
    }

    #[test]
    fn garbage_gives_the_same_however_it_is_cut(
        frames in prop::collection::vec((0..6_u8, prop::sample::select(&[7, 8, 9, 0x1d, 0x31, 0x5d, 0x6c, 0x6d, 99][..]), any::<[u8; 5]>()), 0..20),
        lengths in prop::collection::vec(1..9_usize, 1..6),
    ) {
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|(length, tag, payload)| {
                [&[*length, 0, 0, *tag][..], &payload[..usize::from(*length).min(5)]].concat()
            })
            .collect();
        prop_assert_eq!(demultiplex([&bytes[..]]), demultiplex(pieces(&bytes, &lengths)));
    }
}
