//! What a server may say, as bytes: also what no encoder writes.

use rsync_wire::checksum::Algorithm;
use rsync_wire::varint::{Index, IndexWriter, Least, put_int32, put_varint, put_varlong, put_vstring};

use super::server::Script;

/// The handshake of a server of today, which knows these names.
pub(crate) fn hello(names: &[&str]) -> Vec<u8> {
    let mut out = hello_until_names();
    for names in names {
        put_vstring(&mut out, names.as_bytes()).unwrap();
    }
    put_int32(&mut out, 1);
    out
}

/// The same, up to the lists of names.
pub(crate) fn hello_until_names() -> Vec<u8> {
    let mut out = Vec::new();
    put_int32(&mut out, 32);
    put_varint(&mut out, 0x1fe);
    out
}

/// The handshake for most tests.
pub(crate) fn greeting() -> Vec<u8> {
    hello(&["xxh128 md5"])
}

/// A frame of any tag and any length it says.
pub(crate) fn frame_of(tag: u8, length: u32, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = length.to_le_bytes();
    [&[a, b, c, 7 + tag], payload].concat()
}

/// A frame.
pub(crate) fn frame(tag: u8, payload: &[u8]) -> Vec<u8> {
    frame_of(tag, payload.len() as u32, payload)
}

/// A frame of data.
pub(crate) fn data(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(0, payload.as_ref())
}

/// An entry of a list with the letters `rlt`, and what can be wrong with it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// Flags besides those of the fields below.
    pub(crate) flags: i32,
    /// Bytes of the name before.
    pub(crate) shared: Option<u8>,
    /// The rest of the name.
    pub(crate) name: Vec<u8>,
    /// Its length, if that is not the truth.
    pub(crate) length: Option<i32>,
    /// The leader of a hard link.
    pub(crate) leader: Option<i32>,
    pub(crate) size: i64,
    pub(crate) mtime: i64,
    pub(crate) nanoseconds: Option<i32>,
    pub(crate) mode: i32,
    pub(crate) target: Option<Vec<u8>>,
}

/// A file.
pub(crate) fn file(name: impl AsRef<[u8]>, size: i64) -> Listed {
    let name = name.as_ref().to_vec();
    Listed {
        flags: 0x18,
        shared: None,
        name,
        length: None,
        leader: None,
        size,
        mtime: 1_700_000_000,
        nanoseconds: None,
        mode: 0o100_644,
        target: None,
    }
}

/// A directory whose content is listed.
pub(crate) fn directory(name: impl AsRef<[u8]>) -> Listed {
    Listed { mode: 0o040_755, ..file(name, 4096) }
}

/// A symlink.
pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Listed {
    let target = target.as_ref().to_vec();
    Listed { mode: 0o120_777, target: Some(target.clone()), ..file(name, target.len() as i64) }
}

/// Another name of the entry that was sent at this place. Such a list has the letter `H`.
pub(crate) fn hard_link(name: impl AsRef<[u8]>, leader: i32) -> Listed {
    Listed { flags: 0x218, leader: Some(leader), ..file(name, 0) }
}

impl Listed {
    /// The entry as it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let length = self.length.unwrap_or(self.name.len() as i32);
        let short = u8::try_from(length).ok();
        let mut flags = self.flags;
        flags |= if self.shared.is_some() { 0x20 } else { 0 };
        flags |= if short.is_none() { 0x40 } else { 0 };
        flags |= if self.nanoseconds.is_some() { 0x2000 } else { 0 };
        put_varint(&mut out, flags);
        out.extend(self.shared);
        match short {
            Some(length) => out.push(length),
            None => put_varint(&mut out, length),
        }
        out.extend_from_slice(&self.name);
        if let Some(leader) = self.leader {
            put_varint(&mut out, leader);
            return out;
        }
        put_varlong(&mut out, self.size, Least::Three);
        put_varlong(&mut out, self.mtime, Least::Four);
        if let Some(nanoseconds) = self.nanoseconds {
            put_varint(&mut out, nanoseconds);
        }
        put_int32(&mut out, self.mode);
        if let Some(target) = &self.target {
            put_varint(&mut out, target.len() as i32);
            out.extend_from_slice(target);
        }
        out
    }
}

/// The root of what is asked for by its content.
pub(crate) fn root() -> Listed {
    Listed { flags: 0x19, ..directory(".") }
}

/// A whole list in one frame.
pub(crate) fn list(entries: &[Listed]) -> Vec<u8> {
    let entries: Vec<u8> = entries.iter().flat_map(Listed::bytes).collect();
    data([&entries[..], &[0, 0]].concat())
}

/// Data behind the list, in one direction.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    indexes: IndexWriter,
    out: Vec<u8>,
}

/// A head without blocks.
pub(crate) const NO_SUMS: [i32; 4] = [0; 4];

/// What a client asks for that has nothing of a file.
pub(crate) const WANTED_NEW: u16 = 0xa000;

/// The same of a file that it has something of.
pub(crate) const WANTED: u16 = 0x8000;

impl Talk {
    /// A record: index and flags.
    pub(crate) fn record(self, index: u32, flags: u16) -> Self {
        self.index(Index::File(index)).bytes(flags.to_le_bytes())
    }

    /// An index of any kind.
    pub(crate) fn index(mut self, index: Index) -> Self {
        self.indexes.put(&mut self.out, index).unwrap();
        self
    }

    /// A sum head.
    pub(crate) fn head(self, head: [i32; 4]) -> Self {
        head.into_iter().fold(self, Self::number)
    }

    /// A plain token, or any number of four bytes.
    pub(crate) fn number(self, number: i32) -> Self {
        self.bytes(number.to_le_bytes())
    }

    /// A plain literal.
    pub(crate) fn literal(self, bytes: &[u8]) -> Self {
        self.number(bytes.len() as i32).bytes(bytes)
    }

    /// The end of a file that is this.
    pub(crate) fn end(self, content: &[u8]) -> Self {
        self.number(0).bytes(Algorithm::Xxh128.digest(content).as_bytes())
    }

    /// A whole file that is new, or, if it is empty, nothing but its digest.
    pub(crate) fn whole(self, index: u32, content: &[u8]) -> Self {
        let begun = self.record(index, WANTED_NEW).head(NO_SUMS);
        if content.is_empty() { begun.end(content) } else { begun.literal(content).end(content) }
    }

    /// The end of a phase.
    pub(crate) fn done(self) -> Self {
        self.bytes([0])
    }

    /// Anything.
    pub(crate) fn bytes(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.out.extend_from_slice(bytes.as_ref());
        self
    }

    /// What is said now, in one frame.
    pub(crate) fn say(&mut self, words: impl FnOnce(Self) -> Self) -> Vec<u8> {
        let said = words(Self { indexes: self.indexes, out: Vec::new() });
        self.indexes = said.indexes;
        data(said.out)
    }
}

/// A download of these entries by the usual job. The client asks with so many bytes; `answers` are those to the first phase,
/// without its end. To the rest of the dialogue the server keeps.
pub(crate) fn download(entries: &[Listed], asked: usize, answers: impl FnOnce(Talk) -> Talk) -> Script {
    let mut talk = Talk::default();
    let asked = FILTERS + asked;
    let script = Script::new().send(greeting()).send(list(entries)).until(asked + 1);
    let script = script.send(talk.say(|talk| answers(talk).done())).until(asked + 4);
    let script = script.send(talk.say(|talk| talk.done().done().bytes(STATISTICS).done()));
    script.until(asked + 5).exit(0)
}

/// An empty list of filters.
pub(crate) const FILTERS: usize = 4;

/// A request for a file without a basis, the first or the one behind the last.
pub(crate) const REQUEST: usize = 19;

/// Five numbers of three bytes.
pub(crate) const STATISTICS: [u8; 15] = [0; 15];

/// A good download of `new`, of `old`, of which the client has twice 700 times the same byte and 600 more, and of `d/x`.
pub(crate) fn good_download() -> Script {
    let entries =
        [root(), file("new", 3), file("old", 1402), directory("d"), symlink("link", "new"), file("d/x", 4)];
    let sums_of_old = 3 * (4 + 2);
    download(&entries, 3 * REQUEST + sums_of_old, |talk| {
        // The order is that of the sorted list: new, old behind link, and what is in the directory.
        let talk = talk.whole(2, b"new").record(3, WANTED).head([3, 700, 2, 600]);
        let talk =
            talk.number(-2).literal(b"yy").number(-1).end(&[&[b'x'; 700][..], b"yy", &[b'x'; 700]].concat());
        talk.whole(5, b"data")
    })
}

/// A good upload of the files of [`Ground::upload`](super::Ground::upload).
pub(crate) fn good_upload() -> Script {
    let mut talk = Talk::default();
    let requests = talk.say(|talk| {
        let talk = talk.record(0, 0x0008).record(1, WANTED_NEW).head(NO_SUMS);
        let talk =
            talk.record(2, 0x800c).head([2, 700, 2, 1]).number(1).bytes([1, 2]).number(2).bytes([3, 4]);
        talk.record(3, 0x6002).record(5, 0x7000).bytes(b"\x03old").done()
    });
    let script = Script::new().send(greeting()).send(requests);
    let script = script.send(frame(101, b"gone\0")).send(talk.say(|talk| talk.done().done().done().done()));
    script.hear(b"\x03old\0\0\0\0").exit(0)
}
