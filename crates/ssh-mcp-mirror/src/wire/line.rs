//! The stream as the thread of a run sees it.

use std::time::Duration;

use bytes::Bytes;
use rsync_wire::{
    file_list::ListError,
    mux::{Demultiplexer, Event, Message, MessageLimits, Multiplexer, MuxError, Notice, Severity},
    negotiate::{Agreed, Handshake, HandshakeError, Offer, Protocol},
    role::{ExitCode, RoleError, Verdict},
};
use ssh_mcp_core::port::mirror::Done;
use ssh_mcp_core::text::one_line;
use tokio::sync::mpsc;

use super::Flags;

/// Bytes of output that are sent at once.
pub(super) const PIECE: usize = 64 << 10;

/// A limited rate is kept over so long.
const SMOOTH: Duration = Duration::from_millis(60);

/// A run that came to the end of its dialogue.
pub(super) struct Finished {
    pub(super) done: Done,
    pub(super) verdict: Verdict,
    /// Files that the server could not send.
    pub(super) refused: Vec<Vec<u8>>,
    /// The list had no entry.
    pub(super) is_empty: bool,
}

impl Finished {
    pub(super) fn new(verdict: Verdict) -> Self {
        Self { done: Done::default(), verdict, refused: Vec::new(), is_empty: false }
    }
}

/// Why a run came to no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The stream ended early; the far side's words say why.
    Ended,
    /// The server sent nothing that rsync sends.
    Protocol(String),
    /// The server says that it ends here.
    GaveUp,
    /// What was asked for cannot be, and nothing was done.
    Refused(String),
    /// A list has too many entries.
    TooLarge(String),
    /// Nothing moved for too long.
    Silence,
    /// Somebody stopped it.
    Stopped,
    /// The thread died.
    Crashed,
}

/// A piece takes so long at a rate.
pub(super) fn time_for(len: usize, rate: u64) -> Duration {
    Duration::from_secs_f64(len as f64 / rate as f64)
}

/// Both directions of the stream, before they are framed.
pub(super) struct Line {
    input: mpsc::Receiver<Bytes>,
    output: Output,
    flags: Flags,
}

/// What is sent.
#[derive(Clone)]
pub(super) struct Output {
    pieces: mpsc::Sender<Bytes>,
    /// Bytes of a piece.
    piece: usize,
}

/// What is done with a message.
pub(super) type OnMessage<'a> = dyn FnMut(Message) -> Result<(), Failure> + 'a;

/// What is received, framed.
pub(super) struct Input {
    pieces: mpsc::Receiver<Bytes>,
    frames: Demultiplexer,
    rest: Bytes,
    flags: Flags,
    /// What the messages say of failures.
    pub(super) verdict: Verdict,
}

impl Line {
    pub(super) fn new(
        input: mpsc::Receiver<Bytes>,
        pieces: mpsc::Sender<Bytes>,
        rate: Option<u64>,
        flags: Flags,
    ) -> Self {
        let smooth = rate.map(|rate| (rate as f64 * SMOOTH.as_secs_f64()) as usize);
        let piece = smooth.map_or(PIECE, |smooth| smooth.clamp(1024, PIECE));
        Self { input, output: Output { pieces, piece }, flags }
    }

    /// Agrees with the server on how to speak. From then on both directions are framed.
    pub(super) fn agree(mut self, offer: Offer) -> Result<(Agreed, Input, Output, Flags), Failure> {
        let mut out = Vec::new();
        let mut handshake = Handshake::start(offer, &mut out);
        loop {
            self.output.send(&mut out)?;
            let Some(piece) = self.input.blocking_recv() else {
                // A login script's words may be shorter than a version is.
                return Err(match handshake.first_bytes() {
                    None | Some([]) => Failure::Ended,
                    Some(first) => unclean(first),
                });
            };
            let mut rest = &piece[..];
            let agreed = handshake.on_bytes(&mut rest, &mut out).map_err(|error| match &error {
                HandshakeError::NotRsync { first } => unclean(first),
                HandshakeError::TooOld(_)
                | HandshakeError::IncrementalRecursion
                | HandshakeError::Malformed(_)
                | HandshakeError::NoCommon { .. } => Failure::Protocol(error.to_string()),
            })?;
            if let Some(agreed) = agreed {
                self.output.send(&mut out)?;
                let input = Input {
                    pieces: self.input,
                    frames: Demultiplexer::new(MessageLimits::default()),
                    rest: piece.slice_ref(rest),
                    flags: self.flags.clone(),
                    verdict: Verdict::default(),
                };
                return Ok((agreed, input, self.output, self.flags));
            }
        }
    }
}

fn unclean(first: &[u8]) -> Failure {
    let words = String::from_utf8_lossy(first);
    let words = one_line(&words);
    Failure::Protocol(format!("is your shell clean? Before rsync there came: {words}"))
}

impl Output {
    /// Sends all of `bytes`.
    pub(super) fn send(&self, bytes: &mut Vec<u8>) -> Result<(), Failure> {
        let mut bytes = Bytes::from(std::mem::take(bytes));
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(self.piece));
            // Nobody takes it: the server is gone, or the run was stopped.
            self.pieces.blocking_send(piece).map_err(|_| Failure::Ended)?;
        }
        Ok(())
    }

    /// Sends what was gathered if it is a piece.
    pub(super) fn send_full(&self, gathered: &mut Multiplexer) -> Result<(), Failure> {
        if gathered.length() >= self.piece { self.send_all(gathered) } else { Ok(()) }
    }

    /// Sends what was gathered.
    pub(super) fn send_all(&self, gathered: &mut Multiplexer) -> Result<(), Failure> {
        self.send(&mut gathered.take())
    }

    /// Tells the server that we give up, if it understands that and there is room to say so.
    pub(super) fn give_up(&self, protocol: Protocol) {
        if protocol < Protocol::V31 {
            return;
        }
        let mut last = Multiplexer::default();
        last.put_notice(Notice::ErrorExit(Some(ExitCode::PROTOCOL.0.cast_signed())));
        _ = self.pieces.try_send(Bytes::from(last.take()));
    }
}

impl Input {
    /// Whether data can be had without waiting. Messages among it are not data.
    pub(super) fn is_waiting(&self) -> bool {
        !self.rest.is_empty() || !self.pieces.is_empty()
    }

    /// The next data, however it comes. Messages are noted, and given to `on_message` as they come: there may be many before
    /// data does.
    pub(super) fn next_data(&mut self, on_message: &mut OnMessage<'_>) -> Result<Bytes, Failure> {
        loop {
            if self.rest.is_empty() {
                self.rest = self.pieces.blocking_recv().ok_or(Failure::Ended)?;
            }
            let mut rest = &self.rest[..];
            let event = self.frames.next_event(&mut rest)?;
            let data = match event {
                None => None,
                Some(Event::Data(data)) => Some(self.rest.slice_ref(data)),
                Some(Event::Message(Message::ErrorExit(_))) => return Err(Failure::GaveUp),
                Some(Event::Message(message)) => {
                    self.verdict.on_message(&message);
                    if let Message::Text(severity, text) = &message
                        && *severity != Severity::Info
                    {
                        self.flags.words().add(text);
                    }
                    on_message(message)?;
                    None
                }
            };
            self.rest = self.rest.slice_ref(rest);
            if let Some(data) = data {
                return Ok(data);
            }
        }
    }

    /// Reads until the end of the stream.
    pub(super) fn drain(&mut self, on_message: &mut OnMessage<'_>) -> Result<(), Failure> {
        match self.next_data(on_message) {
            Ok(_) => Err(Failure::Protocol("data behind the last word".to_owned())),
            Err(Failure::Ended) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

impl From<MuxError> for Failure {
    fn from(error: MuxError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<RoleError> for Failure {
    fn from(error: RoleError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<ListError> for Failure {
    fn from(error: ListError) -> Self {
        let words = error.to_string();
        if let ListError::TooMany(_) = error { Self::TooLarge(words) } else { Self::Protocol(words) }
    }
}
