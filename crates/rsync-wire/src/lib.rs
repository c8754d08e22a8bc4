//! The rsync wire protocol, versions 30 to 32, as pure machines: bytes in, bytes out.
//!
//! rsync makes a tree of files equal to another one, on another machine. A client starts `rsync --server` there, mostly over
//! SSH, and talks to its standard input and output. One side is the *sender*, which has the source; it lists its files. The
//! other one asks for those that differ and describes what it has of each by checksums of blocks. The sender answers with
//! what is missing between blocks that are there already. This crate is the client's part, in either role.
//!
//! # Modules
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`varint`] | numbers, short strings and file indexes |
//! | [`mux`] | frames, and the messages between them |
//! | [`command`], [`negotiate`] | how a server is started, and what both sides agree on |
//! | [`filter`] | which files are meant |
//! | [`file_list`], [`io_errors`] | what files there are, in which order, and what of them could not be read |
//! | [`checksum`], [`sums`] | hashes of blocks and of whole files |
//! | [`delta`], [`token`], [`apply`] | which blocks a file shares with an older one, how that is sent, and the file put together |
//! | [`role`] | who does what when |
//!
//! # The order of calls
//!
//! | | Upload: the client sends | Download: the client receives |
//! | --- | --- | --- |
//! | 1 | [`Options::to_shell`] is the command that starts the server; or [`Options::to_secluded`], of which a part is written first | the same |
//! | 2 | [`Handshake`], with [`Options::to_offer`]; from here on [`Multiplexer`] writes and [`Demultiplexer`] reads | the same |
//! | 3 | [`put_filter_list`], if [`Options::is_filter_list_sent`] | [`put_filter_list`]; [`put_names`], if [`Options::files_from`] |
//! | 4 | [`ListEncoder`] for each entry as it is found, then its end | [`ListDecoder`] to its end; an empty list ends the run |
//! | 5 | [`FileList`] of the same entries gives the indexes | [`FileList`], [`check_tree`] |
//! | 6 | [`Sender::next_ask`] until [`Ask::Finished`] | [`Generator::request`] for each file that differs, with the sums of [`SumWriter`]; [`end_phase`] |
//! | 7 | for each [`Ask::File`]: [`begin`], what [`Search`] finds, [`end`]; or [`refuse`] | meanwhile [`Receiver::next_arrival`]: [`Apply`] puts each file together |
//! | 8 | | when phase 1 has ended: requests for what arrived wrong, [`end_requests`]; when all has: [`goodbye`] |
//! | 9 | to the end of the stream, then [`Verdict::code`] with the exit code of the server's process | the same |
//!
//! [`Verdict::on_message`] is told every message. In a download steps 6 and 7 go on at the same time, best on two threads: a
//! server sends while it still has requests to read. Whoever cannot write must go on reading, in both directions.
//!
//! # A download
//!
//! From the first byte to the last, over what a server once wrote; `docs/rsync-wire-dialogue.md` explains the bytes.
//!
//! ```
//! use std::{collections::HashMap, io};
//!
//! use rsync_wire::{
//!     apply::Apply,
//!     checksum::Algorithm,
//!     command::{Options, Recursion},
//!     file_list::{FileList, Item, Kind, ListDecoder, ListLimits},
//!     filter::{Excluded, ServerRole, put_filter_list},
//!     mux::{Demultiplexer, Event, MessageLimits, Multiplexer},
//!     negotiate::{Handshake, Protocol},
//!     role::{Arrival, ExitCode, Generator, ItemFlags, Receiver, Terms, Verdict},
//!     sums::SumHead,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // All of it at once. From a channel it comes in pieces, and each machine is called again with the next.
//! let mut input: &[u8] = b"\x20\0\0\0\x81\xfe\x23xxh128 xxh3 xxh64 md5 md4 sha1 none\x01\0\0\0\
//!     \x5e\0\0\x07\x19\x01.\0\0\x10\x65\x27\x7d\x93\xed\x41\0\0\
//!     \x18\x02ln\0\x05\0\x65\x26\x7d\x93\xff\xa1\0\0\x05a.txt\
//!     \x18\x03sub\0\0\x10\x65\x27\x7d\x93\xed\x41\0\0\
//!     \xa0\x18\x05a.txt\0\x06\0\x65\x25\x7d\x93\xe7\x15\xcd\x5b\xa4\x81\0\0\
//!     \x1a\x09sub/c.txt\0\x04\0\x65\x26\x7d\x93\0\0\
//!     \x61\0\0\x07\x02\0\xa0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x06\0\0\0hello\n\0\0\0\0\
//!     \x9c\xe4\xc8\xf1\x35\xb4\x10\x5a\x6d\xf5\x69\xe0\xc7\x86\xba\x6b\
//!     \x03\0\xa0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0sub\n\0\0\0\0\
//!     \xcf\x85\x2a\x5a\xef\x7a\xa3\x1a\xd8\xa0\xc1\xe8\x6c\x8f\x32\xe1\0\
//!     \x02\0\0\x07\0\0\x10\0\0\x07\0\x3a\0\0\xcd\0\0\x0f\0\0\x01\0\0\0\0\0";
//! let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
//!
//! let options = Options { recursion: Recursion::Recursive, links: true, times: true, ..Options::default() };
//! assert_eq!(options.to_shell(&[b"src/"])?, b"rsync --server --sender -ltre.LsfxCIvu . src/");
//!
//! // What is in `out` goes to the server; here it stays, to be compared at the end.
//! let mut out = Vec::new();
//! let offer = options.to_offer(Protocol::V32, &[Algorithm::Xxh128], &[]);
//! let mut handshake = Handshake::start(offer, &mut out);
//! let agreed = handshake.on_bytes(&mut input, &mut out)?.ok_or_else(short)?;
//!
//! let (mut verdict, mut data) = (Verdict::default(), Vec::new());
//! let mut frames = Demultiplexer::new(MessageLimits::default());
//! while let Some(event) = frames.next_event(&mut input)? {
//!     match event {
//!         Event::Data(piece) => data.extend_from_slice(piece),
//!         Event::Message(message) => verdict.on_message(&message),
//!     }
//! }
//! let mut data = &data[..];
//!
//! let mut said = Vec::new();
//! put_filter_list(&mut said, &[], ServerRole::Sender, Excluded::Kept)?;
//! let mut decoder = ListDecoder::new(options.to_layout(&agreed), ListLimits::default());
//! let mut entries = Vec::new();
//! let end = loop {
//!     match decoder.next_item(&mut data)?.ok_or_else(short)? {
//!         Item::Entry(entry) => entries.push(entry),
//!         Item::End(end) => break end,
//!     }
//! };
//! verdict.on_errors(end.errors);
//! let list = FileList::new(entries)?;
//! list.check_tree()?;
//!
//! // Nothing is here yet, so every file is asked for, and none has a basis.
//! let terms = Terms { agreed, dry_run: false, in_place: None };
//! let (mut generator, mut asked) = (Generator::new(terms), HashMap::new());
//! for (index, entry) in list.active().filter(|(_, entry)| matches!(entry.kind, Kind::File { .. })) {
//!     asked.insert(index, generator.request(index, ItemFlags::NEW, SumHead::NONE, &mut said)?);
//! }
//! generator.end_phase(&mut said);
//!
//! let mut receiver = Receiver::new(terms)?;
//! let (mut files, mut file) = (Vec::new(), None);
//! loop {
//!     let taken = receiver.next_arrival(data, &mut |index| asked.remove(&index))?;
//!     data = &data[taken.used..];
//!     match taken.arrival.ok_or_else(short)? {
//!         Arrival::Begin { head, .. } => {
//!             file = Some((Apply::new(head, agreed.checksum, 1 << 20), Vec::new()));
//!         }
//!         Arrival::Token(token) => {
//!             let (apply, content) = file.as_mut().ok_or_else(short)?;
//!             let read_at = |_, _: &mut [u8]| Err(io::Error::other("there is no basis"));
//!             apply.token(token, read_at, |bytes| {
//!                 content.extend_from_slice(bytes);
//!                 Ok(())
//!             })?;
//!         }
//!         Arrival::End { index, digest } => {
//!             let (apply, content) = file.take().ok_or_else(short)?;
//!             // If they differ, the file is asked for again in the second phase.
//!             assert_eq!(apply.finish().digest, digest);
//!             files.push((list.entry(index).ok_or_else(short)?.name, content));
//!         }
//!         Arrival::PhaseEnded(1) => generator.end_requests(&mut said),
//!         Arrival::PhaseEnded(_) => {}
//!         Arrival::Finished(_) => break,
//!     }
//! }
//! generator.goodbye(&mut said);
//! let mut framed = Multiplexer::default();
//! framed.put_data(&said);
//! out.append(&mut framed.take());
//!
//! assert_eq!(files, [(b"a.txt".to_vec(), b"hello\n".to_vec()), (b"sub/c.txt".to_vec(), b"sub\n".to_vec())]);
//! assert_eq!(verdict.code(ExitCode(0)), ExitCode::OK);
//! let none = [0; 16];
//! let expected: [&[u8]; 8] = [
//!     b"\x20\0\0\0\x06xxh128\x2f\0\0\x07", // version, checksum; one frame of
//!     b"\0\0\0\0",                          // no filter rules,
//!     b"\x02\0\xa0", &none, b"\x03\0\xa0", &none, // two requests,
//!     b"\0", b"\0\0\0\0",                    // the end of the phase, of all others, and the goodbye
//! ];
//! assert_eq!(out, expected.concat());
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! - It reads and writes no file and no channel, starts nothing, knows no clock and no thread. Callers give bytes and take bytes.
//! - It is no server, and no daemon's client (`rsync://`).
//! - Incremental recursion is not offered: a list is one list. Servers do without it.
//! - ACLs, extended attributes, times of creation and charset conversion are left out.
//! - Checksums are xxh128 and md5, compressors zstd, lz4 and zlibx. The old zlib can be named and is refused.
//! - Which names a filter's pattern matches is not decided here, and whether a file is up to date neither.
//!
//! # Limits
//!
//! | What | At most | Where it is set |
//! | --- | --- | --- |
//! | entries of a list; their memory; names of ids | 1,000,000; 1 GiB; 65,536 | [`ListLimits`](file_list::ListLimits) |
//! | a message; all messages | 64 KiB; 4,194,304 | [`MessageLimits`](mux::MessageLimits) |
//! | a name, a symlink's target | 4095 bytes, 255 in a component of a name | |
//! | a list of block sums | 512 MiB | [`DEFAULT_LIMIT`](sums::DEFAULT_LIMIT), and the limit of [`SumReader`](sums::SumReader) |
//! | a block | 131,072 bytes | [`MAX_BLOCK_LEN`](sums::MAX_BLOCK_LEN) |
//! | a received file | the caller says | [`Apply`] |
//!
//! Memory grows with what has arrived, never with what was announced. An error of a machine means that the peer broke the
//! protocol, or a limit: nothing that follows in the stream has a meaning, and the run is over.
//!
//! The layouts are in `docs/rsync-wire.md`, `docs/rsync-wire-dialogue.md` and `docs/rsync-wire-delta.md`; the dialogue's page
//! has a list of what a client must check, and of what is left to the caller of this crate.
//!
//! [`Apply`]: apply::Apply
//! [`Ask::File`]: role::Ask::File
//! [`Ask::Finished`]: role::Ask::Finished
//! [`Demultiplexer`]: mux::Demultiplexer
//! [`FileList`]: file_list::FileList
//! [`Generator::request`]: role::Generator::request
//! [`Handshake`]: negotiate::Handshake
//! [`ListDecoder`]: file_list::ListDecoder
//! [`ListEncoder`]: file_list::ListEncoder
//! [`Multiplexer`]: mux::Multiplexer
//! [`Options::files_from`]: command::Options::files_from
//! [`Options::is_filter_list_sent`]: command::Options::is_filter_list_sent
//! [`Options::to_offer`]: command::Options::to_offer
//! [`Options::to_secluded`]: command::Options::to_secluded
//! [`Options::to_shell`]: command::Options::to_shell
//! [`Receiver::next_arrival`]: role::Receiver::next_arrival
//! [`Search`]: delta::Search
//! [`Sender::next_ask`]: role::Sender::next_ask
//! [`SumWriter`]: sums::SumWriter
//! [`Verdict::code`]: role::Verdict::code
//! [`Verdict::on_message`]: role::Verdict::on_message
//! [`begin`]: role::Sender::begin
//! [`check_tree`]: file_list::FileList::check_tree
//! [`end`]: role::Sender::end
//! [`end_phase`]: role::Generator::end_phase
//! [`end_requests`]: role::Generator::end_requests
//! [`goodbye`]: role::Generator::goodbye
//! [`put_filter_list`]: filter::put_filter_list
//! [`put_names`]: command::put_names
//! [`refuse`]: role::Sender::refuse

pub mod apply;
pub mod checksum;
pub mod command;
pub mod delta;
pub mod file_list;
pub mod filter;
pub mod io_errors;
pub mod mux;
pub mod negotiate;
pub mod role;
pub mod sums;
pub mod token;
pub mod varint;
