//! The SSH port: connect to a host, open channels, run things on them.
//!
//! One [`Link`] is one session. Behind it an adapter may keep several connections, because servers allow only
//! so many channels on each (`MaxSessions` of OpenSSH, 10 by default); which one a channel uses is its business.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;

use crate::{
    history::Origin,
    port::BoxFuture,
    port::forward::{Line, LineError},
    port::resolve::{ResolveError, Resolved, TargetAsk},
    target::{Hop, ShownKey, Target},
};

/// Makes links. Shared by all sessions; has no state of its own that a call could break.
pub trait Connector: Send + Sync {
    /// What a target stands for: the way there and what to show, read from the configuration of the SSH client.
    fn resolve<'a>(&'a self, ask: &'a TargetAsk) -> BoxFuture<'a, Result<Resolved, ResolveError>>;

    /// Connects and authenticates, once. The whole attempt ends within `request.timeout`.
    ///
    /// Dropping the future gives the attempt up and closes what it had opened.
    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, Result<Connected, ConnectError>>;
}

/// Everything one attempt needs.
#[derive(Debug, Clone)]
pub struct ConnectRequest {
    /// Hosts to jump over, the nearest first.
    pub via: Vec<Hop>,
    /// Where to.
    pub hop: Hop,
    /// TCP, key exchange and authentication of all hops together.
    pub timeout: Duration,
    /// Keys the user has accepted, for hops whose policy is to ask.
    pub accepted: Vec<ShownKey>,
}

/// A session that is ready for channels.
pub struct Connected {
    /// The session.
    pub link: Box<dyn Link>,
    /// The key the server showed.
    pub host_key: HostKeyReport,
    /// The method that let us in, in the words of RFC 4252 (`publickey`, `password`, `keyboard-interactive`).
    pub auth_method: &'static str,
    /// Whether zlib is in use.
    pub compressed: bool,
}

/// The key a server showed, and what was known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostKeyReport {
    /// Algorithm name as in `known_hosts`, e.g. `ssh-ed25519`.
    #[serde(rename = "type")]
    pub algorithm: String,
    /// `SHA256:` and the hash in unpadded base64, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// Whether it was known before.
    pub status: HostKeyStatus,
}

/// What was known of a host key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKeyStatus {
    /// It stands in `known_hosts`.
    Known,
    /// It was unknown and has been added.
    Learnt,
    /// Checking is switched off; nothing is known about it.
    Unchecked,
}

/// Why an attempt failed, by blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Name lookup, TCP or key exchange failed.
    #[error("cannot connect: {cause}")]
    Failed {
        /// The last cause, one line.
        cause: String,
        /// Whether another attempt may succeed.
        transience: Transience,
    },
    /// Not through within the time of the attempt.
    #[error("not connected within {} s", .after.as_secs_f32())]
    TimedOut {
        /// The time that was given.
        after: Duration,
    },
    /// Every method was rejected, or there was none to offer.
    #[error("authentication failed")]
    Rejected {
        /// What was tried, in order, e.g. `publickey (key file)`.
        tried: Vec<String>,
        /// What the server would take.
        offered: Vec<String>,
        /// Its last words, where it ended the login before everything was tried.
        cut_off: Option<String>,
    },
    /// The key file cannot be used.
    #[error("cannot use key file {path}: {cause}")]
    Key {
        /// The file as named in the call.
        path: String,
        /// Missing, unreadable, unknown format, or pass phrase missing or wrong.
        cause: String,
    },
    /// The host is not in `known_hosts` and unknown hosts are refused.
    #[error("host key of {host} is not known")]
    UnknownHostKey {
        /// Host as looked up.
        host: String,
        /// The key shown.
        shown: Box<ShownKey>,
        /// What became of it: refused, or to be put to the user.
        verdict: Unknown,
        /// Why a certificate that the host showed does not vouch for it.
        certificate: Option<String>,
    },
    /// The host is known by another key, or the key is revoked.
    #[error("host key of {host} has changed")]
    ChangedHostKey {
        /// Host as looked up.
        host: String,
        /// Algorithm of the key shown.
        algorithm: String,
        /// Fingerprint of the key shown.
        fingerprint: String,
        /// `file:line` of the entry it contradicts, and what that entry says.
        known: String,
        /// The command that takes the old key out, where there is one.
        forget: Option<String>,
    },
    /// One of the hosts on the way failed.
    #[error("jump host {host}: {error}")]
    Jump {
        /// The host that failed.
        host: Target,
        /// What went wrong there.
        error: Box<ConnectError>,
    },
    /// The known-hosts file cannot be read or written.
    #[error("cannot use {path}: {cause}")]
    KnownHosts {
        /// The file.
        path: String,
        /// The system's words.
        cause: String,
    },
}

/// What becomes of a key of a host that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It is refused.
    Refused,
    /// The user decides: an attempt whose [`ConnectRequest::accepted`] has it learns it.
    Undecided,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transience {
    /// Refused, reset, timed out, unreachable, temporary lookup failure, broken pipe.
    Transient,
    /// Anything another attempt cannot change.
    Permanent,
}

/// One session. Methods take `&self`: calls run side by side.
pub trait Link: Send + Sync {
    /// Opens a session channel; nothing runs on it before [`ChannelControl::start`].
    ///
    /// `patience` bounds the wait for a free place where a further connection cannot be opened. Dropping the
    /// future leaves no channel behind.
    fn open(&self, patience: Duration) -> BoxFuture<'_, Result<Channel, ChannelError>>;

    /// Opens a further connection for one forward: the same way and host key, and what let the first one in.
    fn line(&self) -> BoxFuture<'_, Result<Box<dyn Line>, LineError>>;

    /// One round trip of a keepalive on the first connection; runs nothing on the far side.
    fn ping(&self) -> BoxFuture<'_, Result<Duration, LinkLost>>;

    /// Resolves when the first connection is gone, with the cause; further connections come and go unseen.
    fn lost(&self) -> BoxFuture<'_, LinkLost>;

    /// Ends every connection. Channels still open end with [`ChannelEvent::Lost`].
    fn disconnect(&self) -> BoxFuture<'_, ()>;
}

/// The connection is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("connection lost: {cause}")]
pub struct LinkLost {
    /// One line.
    pub cause: String,
}

/// Why no channel could be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// The server refuses further channels and no way round is open.
    #[error("the server refused a channel: {cause}")]
    Refused {
        /// The server's words.
        cause: String,
    },
    /// Credentials work once, every place is taken, and none came free within the patience of the call.
    #[error("no channel came free within {} s", .waited.as_secs_f32())]
    NoPlace {
        /// How long was waited.
        waited: Duration,
    },
    /// The connection is gone.
    #[error(transparent)]
    Lost(#[from] LinkLost),
}

/// An open channel: its events for one reader, its control for anybody. Dropping both closes it.
pub struct Channel {
    /// What comes from the far side.
    pub events: Box<dyn ChannelEvents>,
    /// What can be asked of it.
    pub control: Arc<dyn ChannelControl>,
}

/// The reading half. Must be polled without pause: an unread channel stalls every channel of its connection.
pub trait ChannelEvents: Send {
    /// The next event; after [`ChannelEvent::Closed`] or [`ChannelEvent::Lost`] it stays pending.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent>;
}

/// What a channel reports. Order of end of file, exit and close varies between servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEvent {
    /// Output.
    Data(Origin, Bytes),
    /// The far side sends no more output.
    Eof,
    /// The request of [`ChannelControl::start`] was accepted.
    Started,
    /// The request was refused; nothing runs.
    Refused {
        /// Which request: `pty-req`, `exec`, `shell`, `subsystem`.
        request: &'static str,
    },
    /// The process ended by itself (RFC 4254, 6.10).
    ExitStatus(u32),
    /// The process was ended by a signal.
    ExitSignal {
        /// Name without `SIG`.
        name: String,
    },
    /// The far side closed the channel.
    Closed,
    /// The connection under the channel is gone.
    Lost(LinkLost),
}

/// What runs on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// A command line for the login shell.
    Exec {
        /// The command line.
        command: String,
        /// The terminal to run it on, if any.
        pty: Option<Pty>,
    },
    /// The login shell itself.
    Shell {
        /// Its terminal.
        pty: Pty,
    },
    /// A service of the server by name (RFC 4254, 6.5), such as `sftp`.
    Subsystem(&'static str),
}

/// A terminal as requested from the server (RFC 4254, 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pty {
    /// Value of `TERM`.
    pub term: String,
    /// Columns and rows.
    pub size: PtySize,
}

/// Width and height of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PtySize {
    /// Columns.
    pub cols: u32,
    /// Rows.
    pub rows: u32,
}

/// The asking half. No request but data has an answer, so only data can wait.
pub trait ChannelControl: Send + Sync {
    /// Asks for the terminal and the program; the outcome comes as an event. Asked once.
    fn start(&self, start: Start) -> BoxFuture<'static, Result<(), ChannelGone>>;

    /// Sends input; resolves when the far side's window has taken all of it.
    ///
    /// Calls are sent in the order they are polled; one at a time is the caller's duty.
    fn send(&self, bytes: Bytes) -> BoxFuture<'static, Result<(), ChannelGone>>;

    /// Says that no more input comes.
    fn finish_input(&self) -> BoxFuture<'static, Result<(), ChannelGone>>;

    /// Asks the server to send a signal to the process (RFC 4254, 6.9).
    fn signal(&self, signal: Signal) -> BoxFuture<'static, Result<(), ChannelGone>>;

    /// Tells the terminal's new size.
    fn resize(&self, size: PtySize) -> BoxFuture<'static, Result<(), ChannelGone>>;

    /// Closes the channel. The process is not told; its place on the server stays taken until it ends.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// The channel takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel is closed")]
pub struct ChannelGone;

/// The signals the product sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Hang-up.
    Hup,
    /// Polite end.
    Term,
    /// End without appeal.
    Kill,
}
