//! The terminal of a command: a PTY with the size and modes the client asked for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pty_process::{OwnedReadPty, OwnedWritePty, Size};
use russh::Pty as Mode;
use rustix::termios::{InputModes, LocalModes, OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};
use tokio::io::AsyncWrite;
use tokio::process::{Child, Command};

/// A `pty-req` (RFC 4254 section 6.2), as far as it is honoured: sizes in characters, and flags.
pub(super) struct TerminalRequest {
    pub(super) columns: u32,
    pub(super) rows: u32,
    pub(super) modes: Vec<(Mode, u32)>,
}

/// The near end of a PTY, with a process at its far end.
pub(super) struct Terminal(pty_process::Pty);

impl Terminal {
    /// Opens a PTY and starts the command on it, as leader of a session of its own.
    pub(super) fn start(request: &TerminalRequest, command: Command) -> io::Result<(Self, Child)> {
        let (pty, far_end) = pty_process::open().map_err(io::Error::other)?;
        pty.resize(size(request.columns, request.rows)).map_err(io::Error::other)?;
        let mut attributes = tcgetattr(&pty)?;
        for (mode, value) in &request.modes {
            set_mode(&mut attributes, *mode, *value != 0);
        }
        tcsetattr(&pty, OptionalActions::Now, &attributes)?;
        let child = pty_process::Command::from(command).spawn(far_end).map_err(io::Error::other)?;
        Ok((Self(pty), child))
    }

    /// Both directions; the terminal hangs up when both are dropped.
    pub(super) fn into_split(self) -> (OwnedReadPty, TerminalWriter) {
        let (reader, writer) = self.0.into_split();
        (reader, TerminalWriter(writer))
    }
}

/// What is typed, and the size of the window it is typed in.
pub(super) struct TerminalWriter(OwnedWritePty);

impl TerminalWriter {
    /// Changes the size; the kernel tells the foreground process (SIGWINCH).
    pub(super) fn resize(&self, columns: u32, rows: u32) -> io::Result<()> {
        self.0.resize(size(columns, rows)).map_err(io::Error::other)
    }
}

impl AsyncWrite for TerminalWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn size(columns: u32, rows: u32) -> Size {
    let clamp = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    Size::new(clamp(rows), clamp(columns))
}

/// The modes that change what a program sees or prints; the others keep the kernel's values.
#[expect(clippy::wildcard_enum_match_arm, reason = "russh's enum, with a variant for every mode of RFC 4254")]
fn set_mode(attributes: &mut Termios, mode: Mode, is_on: bool) {
    match mode {
        Mode::ISIG => attributes.local_modes.set(LocalModes::ISIG, is_on),
        Mode::ICANON => attributes.local_modes.set(LocalModes::ICANON, is_on),
        Mode::ECHO => attributes.local_modes.set(LocalModes::ECHO, is_on),
        Mode::ECHOE => attributes.local_modes.set(LocalModes::ECHOE, is_on),
        Mode::ECHOK => attributes.local_modes.set(LocalModes::ECHOK, is_on),
        Mode::ECHONL => attributes.local_modes.set(LocalModes::ECHONL, is_on),
        Mode::INLCR => attributes.input_modes.set(InputModes::INLCR, is_on),
        Mode::IGNCR => attributes.input_modes.set(InputModes::IGNCR, is_on),
        Mode::ICRNL => attributes.input_modes.set(InputModes::ICRNL, is_on),
        Mode::IXON => attributes.input_modes.set(InputModes::IXON, is_on),
        Mode::OPOST => attributes.output_modes.set(OutputModes::OPOST, is_on),
        Mode::ONLCR => attributes.output_modes.set(OutputModes::ONLCR, is_on),
        _ => {}
    }
}
