//! What an interactive shell is between its opening and its end: input that waits, and what its exit means.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::command::Exit;
use crate::{
    port::ssh::PtySize,
    reason::Reason,
    sync::{AtomicU64, Mutex, Notify, Ordering},
    watch::{Watch, Watchers},
};

/// One word for how a shell ended: `clean-exit`, `exit-<n>`, `killed`, `terminated`, `broken-pipe`, `signal-<n>`,
/// `ssh-connection-failed`; none where the server told nothing.
pub fn exit_reason(reason: Reason, exit: Option<&Exit>) -> Option<String> {
    match exit {
        Some(Exit::Status(0)) => Some("clean-exit".into()),
        Some(Exit::Status(status)) => Some(format!("exit-{status}")),
        Some(Exit::Signal(name)) => Some(match name.as_str() {
            "KILL" => "killed".into(),
            "TERM" => "terminated".into(),
            "PIPE" => "broken-pipe".into(),
            other => match SIGNALS.iter().find(|(name, _)| *name == other) {
                Some((_, number)) => format!("signal-{number}"),
                None => format!("signal-{other}"),
            },
        }),
        None if reason == Reason::ConnectionLost => Some("ssh-connection-failed".into()),
        None => None,
    }
}

/// The numbers Linux gives the signals RFC 4254, 6.10 names.
const SIGNALS: &[(&str, u8)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("ABRT", 6),
    ("FPE", 8),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("ALRM", 14),
];

/// What waits to be sent to a shell: at most [`InputQueue::FRAMES`] pieces, taken in order by one writer.
///
/// Each piece has a ticket; whoever put it in waits until that many pieces have been sent.
#[derive(Debug)]
pub struct InputQueue {
    waiting: Mutex<Waiting>,
    sent: AtomicU64,
    /// Rung for the writer when a piece came.
    pub filled: Notify,
    senders: Arc<Watchers>,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    tickets: u64,
}

/// One piece of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes for the program.
    Bytes(Bytes),
    /// The terminal's new size; it keeps its place between the bytes.
    Resize(PtySize),
}

/// The queue has no room; the piece comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full(pub Frame);

impl InputQueue {
    /// Pieces that can wait.
    pub const FRAMES: usize = 64;

    /// An empty queue.
    pub fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            sent: AtomicU64::new(0),
            filled: Notify::new(),
            senders: Watchers::new(),
        }
    }

    /// Puts a piece at the end; the answer is its ticket.
    ///
    /// # Errors
    /// If as many wait as may.
    pub fn push(&self, frame: Frame) -> Result<u64, Full> {
        let mut waiting = self.waiting.lock();
        if waiting.frames.len() >= Self::FRAMES {
            return Err(Full(frame));
        }
        waiting.frames.push_back(frame);
        waiting.tickets += 1;
        let ticket = waiting.tickets;
        drop(waiting);
        self.filled.notify_one();
        Ok(ticket)
    }

    /// Takes the piece that has waited longest.
    pub fn pop(&self) -> Option<Frame> {
        self.waiting.lock().frames.pop_front()
    }

    /// Notes that the piece taken last has been sent.
    pub fn note_sent(&self) {
        self.sent.fetch_add(1, Ordering::AcqRel);
        self.senders.wake();
    }

    /// How many pieces have been sent: the ticket of the last one.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// A waiter that is woken by each piece that is sent.
    pub fn watch(&self) -> Watch {
        self.senders.watch()
    }
}

impl Default for InputQueue {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use super::*;

    fn word(reason: Reason, exit: Option<Exit>) -> Option<String> {
        exit_reason(reason, exit.as_ref())
    }

    #[test]
    fn ends_in_one_word() {
        let signal = |name: &str| Some(Exit::Signal(name.into()));
        assert_eq!(word(Reason::RemoteClosed, Some(Exit::Status(0))).as_deref(), Some("clean-exit"));
        assert_eq!(word(Reason::RemoteClosed, Some(Exit::Status(130))).as_deref(), Some("exit-130"));
        assert_eq!(word(Reason::ManualClose, signal("KILL")).as_deref(), Some("killed"));
        assert_eq!(word(Reason::ManualClose, signal("TERM")).as_deref(), Some("terminated"));
        assert_eq!(word(Reason::RemoteClosed, signal("PIPE")).as_deref(), Some("broken-pipe"));
        assert_eq!(word(Reason::ManualClose, signal("HUP")).as_deref(), Some("signal-1"));
        assert_eq!(word(Reason::RemoteClosed, signal("XYZ@example")).as_deref(), Some("signal-XYZ@example"));
        assert_eq!(word(Reason::ConnectionLost, None).as_deref(), Some("ssh-connection-failed"));
        assert_eq!(word(Reason::ManualClose, None), None);
    }

    #[test]
    fn input_keeps_its_order_and_its_bound() {
        let queue = InputQueue::new();
        for n in 0..InputQueue::FRAMES {
            assert_eq!(queue.push(Frame::Bytes(vec![n as u8].into())), Ok(n as u64 + 1));
        }
        let resize = Frame::Resize(PtySize { cols: 1, rows: 1 });
        assert_eq!(queue.push(resize.clone()), Err(Full(resize.clone())));
        assert_eq!(queue.pop(), Some(Frame::Bytes(vec![0].into())));
        queue.note_sent();
        assert_eq!(queue.sent(), 1);
        assert_eq!(queue.push(resize), Ok(65));
    }
}
