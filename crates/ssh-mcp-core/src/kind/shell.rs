//! What an interactive shell is between its opening and its end: what is put into it, and what its exit means.

use bytes::Bytes;

use super::command::{Exit, signal_number};
use crate::{port::ssh::PtySize, reason::Reason};

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
            other => match signal_number(other) {
                Some(number) => format!("signal-{number}"),
                None => format!("signal-{other}"),
            },
        }),
        None if reason == Reason::ConnectionLost => Some("ssh-connection-failed".into()),
        None => None,
    }
}

/// One piece of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes for the program.
    Bytes(Bytes),
    /// The terminal's new size; it keeps its place between the bytes.
    Resize(PtySize),
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
}
