//! SFTP version 3 as bytes (draft-ietf-secsh-filexfer-02, and `PROTOCOL` of OpenSSH for the extensions): requests out,
//! answers in. Knows nothing of files or time.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ssh_mcp_core::port::fs::{Attributes, Entry};

/// The version asked for; every server speaks it.
pub(crate) const VERSION: u32 = 3;

/// A longer message than any server sends: OpenSSH's are at most 256 KiB.
const LONGEST: usize = 1 << 20;

/// Types of requests (section 3 of the draft).
pub(crate) mod request {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const FSTAT: u8 = 8;
    pub(crate) const SETSTAT: u8 = 9;
    pub(crate) const FSETSTAT: u8 = 10;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const REALPATH: u8 = 16;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const READLINK: u8 = 19;
    pub(crate) const SYMLINK: u8 = 20;
    pub(crate) const EXTENDED: u8 = 200;
}

/// Types of answers.
mod answer {
    pub(super) const VERSION: u8 = 2;
    pub(super) const STATUS: u8 = 101;
    pub(super) const HANDLE: u8 = 102;
    pub(super) const DATA: u8 = 103;
    pub(super) const NAME: u8 = 104;
    pub(super) const ATTRS: u8 = 105;
    pub(super) const EXTENDED: u8 = 201;
}

/// Bits of `pflags` (section 6.3).
pub(crate) mod open {
    pub(crate) const READ: u32 = 1;
    pub(crate) const WRITE: u32 = 2;
    pub(crate) const CREATE: u32 = 8;
    pub(crate) const TRUNCATE: u32 = 16;
}

/// Bits of the attributes that follow (section 5).
mod has {
    pub(super) const SIZE: u32 = 1;
    pub(super) const OWNER: u32 = 2;
    pub(super) const MODE: u32 = 4;
    pub(super) const TIMES: u32 = 8;
    pub(super) const EXTENDED: u32 = 0x8000_0000;
}

/// Status codes (section 7).
pub(crate) mod status {
    pub(crate) const OK: u32 = 0;
    pub(crate) const EOF: u32 = 1;
    pub(crate) const NO_SUCH_FILE: u32 = 2;
    pub(crate) const PERMISSION_DENIED: u32 = 3;
    pub(crate) const BAD_MESSAGE: u32 = 5;
    pub(crate) const NO_CONNECTION: u32 = 6;
    pub(crate) const CONNECTION_LOST: u32 = 7;
    pub(crate) const UNSUPPORTED: u32 = 8;
}

/// An answer, by its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Status {
        code: u32,
        words: String,
    },
    Handle(Bytes),
    /// As it came, so that nothing is copied.
    Data(Vec<Bytes>),
    Names(Vec<Entry>),
    Attributes(Attributes),
    Extended(Bytes),
}

/// What comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// The server's version and its extensions, each with its data.
    Version(u32, Vec<(Bytes, Bytes)>),
    Answer(u32, Answer),
}

/// What comes in is no SFTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// Login files that print something, most of the time.
    #[error("the server sent {0:?} instead of SFTP: does a login file print something?")]
    Text(String),
    #[error("the server sent a message of {0} bytes")]
    TooLong(usize),
    #[error("the server sent a message that cannot be read")]
    Malformed,
}

/// A request that is being written; the length comes first and is filled in at the end.
pub(crate) struct Request(BytesMut);

impl Request {
    pub(crate) fn new(kind: u8, id: u32) -> Self {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_u32(0);
        bytes.put_u8(kind);
        bytes.put_u32(id);
        Self(bytes)
    }

    /// The greeting, which has the version where others have their number.
    pub(crate) fn greeting() -> Bytes {
        Self::new(request::INIT, VERSION).finish(0)
    }

    pub(crate) fn string(mut self, text: &[u8]) -> Self {
        self.0.put_u32(len_u32(text.len()));
        self.0.put_slice(text);
        self
    }

    pub(crate) fn u32(mut self, number: u32) -> Self {
        self.0.put_u32(number);
        self
    }

    pub(crate) fn u64(mut self, number: u64) -> Self {
        self.0.put_u64(number);
        self
    }

    pub(crate) fn attributes(mut self, attributes: &Attributes) -> Self {
        let Attributes { size, owner, mode, times } = *attributes;
        let bit = |is_there: bool, bit: u32| if is_there { bit } else { 0 };
        let flags = bit(size.is_some(), has::SIZE)
            | bit(owner.is_some(), has::OWNER)
            | bit(mode.is_some(), has::MODE)
            | bit(times.is_some(), has::TIMES);
        self.0.put_u32(flags);
        size.into_iter().for_each(|size| self.0.put_u64(size));
        let owner = owner.into_iter().flat_map(|(user, group)| [user, group]);
        let times = times.into_iter().flat_map(|(access, change)| [access, change]);
        owner.chain(mode).chain(times).for_each(|number| self.0.put_u32(number));
        self
    }

    /// The bytes to send; so many more follow that are not copied into them.
    pub(crate) fn finish(mut self, follow: usize) -> Bytes {
        let length = len_u32(self.0.len().saturating_sub(4).saturating_add(follow));
        if let Some(place) = self.0.get_mut(..4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        self.0.freeze()
    }
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Cuts what comes in into messages, whatever pieces it comes in.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    held: VecDeque<Bytes>,
    len: usize,
    /// Whether a message has been read: before the first, text is told from SFTP.
    begun: bool,
}

impl Decoder {
    pub(crate) fn feed(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        if !bytes.is_empty() {
            self.held.push_back(bytes);
        }
    }

    /// The next message, once all of it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, WireError> {
        let mut head = [0; 5];
        if self.peek(&mut head) < head.len() {
            return Ok(None);
        }
        let [length @ .., kind] = head;
        let length = u32::from_be_bytes(length) as usize;
        if !self.begun && (kind != answer::VERSION || length > LONGEST) {
            return Err(WireError::Text(self.text()));
        }
        if length > LONGEST {
            return Err(WireError::TooLong(length));
        }
        if length < 5 {
            return Err(WireError::Malformed);
        }
        if self.len < 4 + length {
            return Ok(None);
        }
        self.begun = true;
        self.take(5);
        let number = u32::from_be_bytes(self.array()?);
        let rest = length - 5;
        let incoming = match kind {
            answer::VERSION => Incoming::Version(number, extensions(self.flat(rest))?),
            answer::DATA => Incoming::Answer(number, self.data(rest)?),
            answer::STATUS => Incoming::Answer(number, status_of(self.flat(rest))?),
            answer::HANDLE => Incoming::Answer(number, Answer::Handle(string(&mut self.flat(rest))?)),
            answer::NAME => Incoming::Answer(number, names(self.flat(rest))?),
            answer::ATTRS => Incoming::Answer(number, Answer::Attributes(attributes(&mut self.flat(rest))?)),
            answer::EXTENDED => Incoming::Answer(number, Answer::Extended(self.flat(rest))),
            _ => return Err(WireError::Malformed),
        };
        Ok(Some(incoming))
    }

    fn data(&mut self, rest: usize) -> Result<Answer, WireError> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        let Some(behind) = rest.checked_sub(4).and_then(|rest| rest.checked_sub(length)) else {
            return Err(WireError::Malformed);
        };
        let data = self.take(length);
        self.take(behind);
        Ok(Answer::Data(data))
    }

    /// Copies the first bytes; how many there were.
    fn peek(&self, into: &mut [u8]) -> usize {
        let first = self.held.iter().flat_map(|piece| piece.iter());
        into.iter_mut().zip(first).map(|(place, byte)| *place = *byte).count()
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.flat(N).as_ref().try_into().map_err(|_| WireError::Malformed)
    }

    /// Takes that many bytes, or all there are.
    fn take(&mut self, mut count: usize) -> Vec<Bytes> {
        let mut taken = Vec::new();
        while count > 0
            && let Some(first) = self.held.front_mut()
        {
            let piece = first.split_to(count.min(first.len()));
            if first.is_empty() {
                self.held.pop_front();
            }
            count -= piece.len();
            self.len -= piece.len();
            taken.push(piece);
        }
        taken
    }

    fn flat(&mut self, count: usize) -> Bytes {
        let mut pieces = self.take(count);
        match pieces.len() {
            1 => pieces.pop().unwrap_or_default(),
            _ => pieces.concat().into(),
        }
    }

    /// What came instead of SFTP, as far as it fits a sentence.
    fn text(&self) -> String {
        let first: Vec<u8> = self.held.iter().flat_map(|piece| piece.iter()).copied().take(80).collect();
        String::from_utf8_lossy(&first).trim().to_owned()
    }
}

fn u32_of(bytes: &mut Bytes) -> Result<u32, WireError> {
    bytes.try_get_u32().map_err(|_| WireError::Malformed)
}

fn string(bytes: &mut Bytes) -> Result<Bytes, WireError> {
    let length = u32_of(bytes)? as usize;
    if length > bytes.len() {
        return Err(WireError::Malformed);
    }
    Ok(bytes.split_to(length))
}

fn extensions(mut bytes: Bytes) -> Result<Vec<(Bytes, Bytes)>, WireError> {
    let mut extensions = Vec::new();
    while !bytes.is_empty() {
        extensions.push((string(&mut bytes)?, string(&mut bytes)?));
    }
    Ok(extensions)
}

fn status_of(mut bytes: Bytes) -> Result<Answer, WireError> {
    let code = u32_of(&mut bytes)?;
    // Old servers leave the words out.
    let words = string(&mut bytes).unwrap_or_default();
    Ok(Answer::Status { code, words: String::from_utf8_lossy(&words).into_owned() })
}

fn attributes(bytes: &mut Bytes) -> Result<Attributes, WireError> {
    let flags = u32_of(bytes)?;
    let is = |bit: u32| flags & bit != 0;
    let mut attributes = Attributes::default();
    if is(has::SIZE) {
        attributes.size = Some(bytes.try_get_u64().map_err(|_| WireError::Malformed)?);
    }
    if is(has::OWNER) {
        attributes.owner = Some((u32_of(bytes)?, u32_of(bytes)?));
    }
    if is(has::MODE) {
        attributes.mode = Some(u32_of(bytes)?);
    }
    if is(has::TIMES) {
        attributes.times = Some((u32_of(bytes)?, u32_of(bytes)?));
    }
    if is(has::EXTENDED) {
        for _ in 0..u32_of(bytes)? {
            string(bytes)?;
            string(bytes)?;
        }
    }
    Ok(attributes)
}

fn names(mut bytes: Bytes) -> Result<Answer, WireError> {
    let count = u32_of(&mut bytes)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let name = string(&mut bytes)?.to_vec();
        // A line as `ls -l` prints it.
        string(&mut bytes)?;
        entries.push(Entry { name, attributes: attributes(&mut bytes)? });
    }
    Ok(Answer::Names(entries))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = len_u32(body.len() + 1).to_be_bytes().to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(body);
        bytes
    }

    /// All messages of a stream that comes in pieces of these lengths, again and again.
    fn read(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Incoming>, WireError> {
        let mut decoder = Decoder::default();
        let (mut rest, mut cuts) = (bytes, cuts.iter().copied().cycle());
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(cuts.next().unwrap_or(1).clamp(1, rest.len()));
            decoder.feed(Bytes::copy_from_slice(piece));
            rest = behind;
            while let Some(incoming) = decoder.next()? {
                seen.push(match incoming {
                    // In how many pieces data comes is nobody's business here.
                    Incoming::Answer(id, Answer::Data(ref pieces)) => {
                        Incoming::Answer(id, Answer::Data(vec![pieces.concat().into()]))
                    }
                    Incoming::Version(..) | Incoming::Answer(..) => incoming,
                });
            }
        }
        Ok(seen)
    }

    fn conversation() -> Vec<u8> {
        let version = message(2, b"\0\0\0\x03\0\0\0\x01a\0\0\0\x01b");
        let status = message(101, b"\0\0\0\x07\0\0\0\x02\0\0\0\x04gone\0\0\0\0");
        let handle = message(102, b"\0\0\0\x08\0\0\0\x02\x80\xff");
        let data = message(103, b"\0\0\0\x09\0\0\0\x03abc");
        let mut attributes = b"\0\0\0\x0a\x80\0\0\x0f".to_vec();
        attributes
            .extend_from_slice(b"\0\0\0\0\0\0\x01\0\0\0\0\x03\0\0\0\x04\0\0\x81\xa4\0\0\0\x01\0\0\0\x02");
        attributes.extend_from_slice(b"\0\0\0\x01\0\0\0\x01x\0\0\0\x01y");
        let name = message(104, b"\0\0\0\x0b\0\0\0\x01\0\0\0\x02\xc3(\0\0\0\x04long\0\0\0\0");
        [version, status, handle, data, message(105, &attributes), name].concat()
    }

    fn meant() -> Vec<Incoming> {
        let attributes =
            Attributes { size: Some(256), owner: Some((3, 4)), mode: Some(0o100_644), times: Some((1, 2)) };
        let entry = Entry { name: b"\xc3(".to_vec(), attributes: Attributes::default() };
        vec![
            Incoming::Version(3, vec![("a".into(), "b".into())]),
            Incoming::Answer(7, Answer::Status { code: 2, words: "gone".into() }),
            Incoming::Answer(8, Answer::Handle(Bytes::from_static(b"\x80\xff"))),
            Incoming::Answer(9, Answer::Data(vec!["abc".into()])),
            Incoming::Answer(10, Answer::Attributes(attributes)),
            Incoming::Answer(11, Answer::Names(vec![entry])),
        ]
    }

    #[test]
    fn what_is_no_sftp_is_told_as_it_is() {
        let said = read(b"Welcome to this host!\n", &[64]).unwrap_err();
        assert!(said.to_string().contains("Welcome"), "{said}");
        let long = [message(2, b"\0\0\0\x03"), b"\xff\xff\xff\xff\x67".to_vec()].concat();
        assert_eq!(read(&long, &[64]), Err(WireError::TooLong(0xffff_ffff)));
        let more_data_than_message =
            [message(2, b"\0\0\0\x03"), message(103, b"\0\0\0\x01\0\0\0\x09abc")].concat();
        assert_eq!(read(&more_data_than_message, &[64]), Err(WireError::Malformed));
    }

    #[test]
    fn requests_carry_their_length() {
        let bytes = Request::new(request::WRITE, 5).string(b"h").u64(9).u32(3).finish(3);
        assert_eq!(&bytes[..], b"\0\0\0\x19\x06\0\0\0\x05\0\0\0\x01h\0\0\0\0\0\0\0\x09\0\0\0\x03");
        assert_eq!(&Request::greeting()[..], b"\0\0\0\x05\x01\0\0\0\x03");
        let mode = Attributes { mode: Some(0o644), ..Attributes::default() };
        let bytes = Request::new(request::MKDIR, 1).attributes(&mode).finish(0);
        assert_eq!(&bytes[9..], b"\0\0\0\x04\0\0\x01\xa4");
        let all = Attributes { size: Some(1), owner: Some((2, 3)), mode: Some(4), times: Some((5, 6)) };
        let bytes = Request::new(request::SETSTAT, 1).attributes(&all).finish(0);
        let numbers = b"\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05\0\0\0\x06";
        assert_eq!(&bytes[9..], [&b"\0\0\0\x0f"[..], numbers].concat());
    }

    proptest! {
        #[test]
        fn messages_are_read_whatever_pieces_they_come_in(cuts in prop::collection::vec(1_usize..40, 1..8)) {
            prop_assert_eq!(read(&conversation(), &cuts), Ok(meant()));
        }

        #[test]
        fn nothing_that_comes_in_does_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            at in 0_usize..200,
        ) {
            let mut stream = conversation();
            let at = at.min(stream.len());
            stream.splice(at..at, bytes);
            _ = read(&stream, &[7]);
        }
    }
}
