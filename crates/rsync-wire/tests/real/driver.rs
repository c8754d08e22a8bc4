//! A client over the pipes of a child process, by the public API alone.
//!
//! A [`Session`] starts a server and shakes hands; [`Upload`] and [`Download`] are what is done in one. All is done by one thread;
//! two others only take in what the server writes to its output and to its standard error, so that it never waits for us.

mod download;
mod framing;
mod upload;

use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rsync_wire::checksum::Algorithm;
use rsync_wire::command::Options;
use rsync_wire::mux::{Demultiplexer, Event, Message, MessageLimits, Multiplexer};
use rsync_wire::negotiate::{Agreed, Handshake};
use rsync_wire::role::{ExitCode, Terms, Verdict};

pub(crate) use download::{Confirmed, Download};
pub(crate) use framing::Framing;
pub(crate) use upload::{Answer, Sent, Upload};

use crate::servers::{Age, Server};

/// How a server is started.
#[derive(Debug, Clone)]
pub(crate) struct Setup<'a> {
    pub(crate) server: &'a Server,
    pub(crate) options: Options,
    /// Of the command line.
    pub(crate) paths: Vec<Vec<u8>>,
    pub(crate) age: Age,
    pub(crate) framing: Framing,
    /// How the words reach the server.
    pub(crate) words: Words,
}

/// How the words of the command line reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// By the shell.
    InShell,
    /// By the stream (`-s`).
    Secluded,
}

impl<'a> Setup<'a> {
    /// Nothing special, for the content of a folder.
    pub(crate) fn new(server: &'a Server, options: Options, folder: &Path) -> Self {
        let path = [folder.as_os_str().as_bytes(), b"/"].concat();
        Self {
            server,
            options,
            paths: vec![path],
            age: Age::TODAY,
            framing: Framing::AsMade,
            words: Words::InShell,
        }
    }
}

/// A server behind the same shell string that would go over SSH, after the handshake.
pub(crate) struct Session {
    child: Child,
    input: Option<ChildStdin>,
    pieces: Receiver<Vec<u8>>,
    stdout: Option<JoinHandle<()>>,
    stderr: Option<JoinHandle<String>>,
    /// What is said, up to the next look at what has come.
    pub(crate) out: Multiplexer,
    pub(crate) agreed: Agreed,
    pub(crate) options: Options,
    framing: Framing,
    frames: Demultiplexer,
    /// What has come and is not taken apart.
    waiting: Vec<u8>,
    /// What the server said beside its data.
    pub(crate) messages: Vec<Message>,
    pub(crate) verdict: Verdict,
}

impl Drop for Session {
    fn drop(&mut self) {
        // It has ended, or the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Session {
    /// Starts a server and shakes hands.
    pub(crate) fn start(setup: Setup<'_>) -> Self {
        // Shown when the test fails.
        println!("{} {:?} {:?}", setup.server.name, setup.age, setup.framing);
        let Setup { server, options, paths, age, framing, words } = setup;
        let paths: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        let line = match words {
            Words::InShell => options.to_shell(&paths).unwrap(),
            Words::Secluded => {
                let secluded = options.to_secluded(&paths).unwrap();
                out = age.applied_to(&secluded.words);
                secluded.shell
            }
        };
        let mut shell = server.shell(OsString::from_vec(age.applied_to(&line)));
        let shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let (send, pieces) = sync_channel(PIECES);
        let mut stdout = child.stdout.take().unwrap();
        let stdout = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            // The test, or the server, may have ended.
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                if send.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut said = Vec::new();
            stderr.read_to_end(&mut said).unwrap();
            String::from_utf8_lossy(&said).into_owned()
        });

        let offer = options.to_offer(age.protocol, &[Algorithm::Xxh128, Algorithm::Md5], &[]);
        let mut handshake = Handshake::start(offer, &mut out);
        loop {
            input.write_all(&std::mem::take(&mut out)).unwrap();
            let Ok(piece) = pieces.recv_timeout(PATIENCE) else {
                panic!("the server ended: {}", stderr.join().unwrap());
            };
            let mut rest = &piece[..];
            let Some(agreed) = handshake.on_bytes(&mut rest, &mut out).unwrap() else { continue };
            assert_eq!(agreed.protocol, age.protocol.min(server.newest));
            input.write_all(&out).unwrap();
            return Self {
                waiting: rest.to_vec(),
                child,
                input: Some(input),
                pieces,
                stdout: Some(stdout),
                stderr: Some(stderr),
                out: Multiplexer::default(),
                agreed,
                options,
                framing,
                frames: Demultiplexer::new(MessageLimits::default()),
                messages: Vec::new(),
                verdict: Verdict::default(),
            };
        }
    }

    /// What both sides agreed on.
    pub(crate) fn terms(&self) -> Terms {
        Terms { agreed: self.agreed, dry_run: self.options.dry_run, in_place: self.options.in_place }
    }

    /// Writes what is to be said.
    pub(crate) fn flush(&mut self) {
        let said = self.framing.reframe(self.out.take());
        self.input.as_mut().expect("the session is open").write_all(&said).unwrap();
    }

    /// The next data, none at the end of the stream. What is to be said is written before; messages are kept.
    pub(crate) fn read(&mut self) -> Option<Vec<u8>> {
        loop {
            let bytes = self.framing.reframe_whole(&mut self.waiting);
            let (mut input, mut data) = (&bytes[..], Vec::new());
            while let Some(event) = self.frames.next_event(&mut input).unwrap() {
                match event {
                    Event::Data(piece) => data.extend_from_slice(piece),
                    Event::Message(message) => {
                        self.verdict.on_message(&message);
                        self.messages.push(message);
                    }
                }
            }
            if !data.is_empty() {
                return Some(data);
            }
            if self.input.is_some() {
                self.flush();
            }
            match self.pieces.recv_timeout(PATIENCE) {
                Ok(piece) => self.waiting.extend(piece),
                Err(RecvTimeoutError::Disconnected) => {
                    let is_whole = self.waiting.is_empty() && self.frames.is_between_frames();
                    assert!(is_whole, "the server ended in a frame: {}", self.take_stderr());
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => panic!("the server says nothing"),
            }
        }
    }

    /// The next data, where there must be some.
    pub(crate) fn read_more(&mut self) -> Vec<u8> {
        self.read().unwrap_or_else(|| panic!("the server ended: {} {:?}", self.take_stderr(), self.messages))
    }

    /// What the server, which has ended, wrote to its standard error.
    fn take_stderr(&mut self) -> String {
        self.stderr.take().expect("asked once").join().unwrap()
    }

    /// Takes in all that a server still writes that was told everything and ends by itself, so that the next data is in frames of
    /// the session's own making to the end.
    pub(crate) fn read_to_end(&mut self) {
        self.flush();
        while let Ok(piece) = self.pieces.recv_timeout(PATIENCE) {
            self.waiting.extend(piece);
        }
    }

    /// Only listens, or says no more than that it lives. Gives how often the server did the same.
    ///
    /// The one place where time is waited for: silence is what is tried.
    pub(crate) fn idle(&mut self, time: Duration, keep_alive: Option<Duration>) -> usize {
        assert!(self.waiting.is_empty(), "the server has said something");
        self.flush();
        let end = Instant::now() + time;
        let mut next = keep_alive.map_or(end, |pause| Instant::now() + pause);
        let mut heard = Vec::new();
        loop {
            let until = next.min(end);
            match self.pieces.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(piece) => heard.extend(piece),
                Err(RecvTimeoutError::Disconnected) => panic!("the server gave up"),
                Err(RecvTimeoutError::Timeout) if until == end => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.out.put_keep_alive();
                    self.flush();
                    next += keep_alive.unwrap_or_default();
                }
            }
        }
        assert!(heard.chunks(4).all(|frame| frame == EMPTY_FRAME), "{heard:?}");
        heard.len() / 4
    }

    /// Says nothing more, and takes the server's end.
    pub(crate) fn end(mut self) -> Ended {
        assert_eq!(self.out.length(), 0, "something is not said");
        self.input = None;
        let mut unread = 0;
        while let Some(data) = self.read() {
            unread += data.len();
        }
        self.stdout.take().unwrap().join().unwrap();
        let status = self.child.wait().unwrap();
        let remote = ExitCode(status.code().expect("the server was not killed").cast_unsigned());
        let stderr = self.take_stderr();
        let messages = std::mem::take(&mut self.messages);
        Ended { remote, code: self.verdict.code(remote), stderr, unread, messages }
    }
}

/// How a session ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The server's exit code.
    pub(crate) remote: ExitCode,
    /// That of the run.
    pub(crate) code: ExitCode,
    pub(crate) stderr: String,
    /// Bytes that came behind the last that means something.
    pub(crate) unread: usize,
    pub(crate) messages: Vec<Message>,
}

impl Ended {
    /// Nothing failed, nobody complained, nothing is left.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert_eq!((self.remote, self.code), (ExitCode::OK, ExitCode::OK), "{self:?}");
        assert_eq!((self.stderr.as_str(), self.unread), ("", 0));
    }

    /// The indexes that were told to have arrived.
    pub(crate) fn arrived(&self) -> impl Iterator<Item = u32> {
        self.messages.iter().filter_map(|message| match message {
            Message::Success(index) => Some(*index),
            Message::Text(..)
            | Message::IoErrors(_)
            | Message::IoTimeout(_)
            | Message::Noop
            | Message::ErrorExit(_)
            | Message::Deleted(_)
            | Message::NoSend(_) => None,
        })
    }
}

/// How long a server may take to say something.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pieces of what a server said that may wait: more than any test has, so that a server never waits for us.
const PIECES: usize = 1 << 16;
const EMPTY_FRAME: [u8; 4] = [0, 0, 0, 7];
