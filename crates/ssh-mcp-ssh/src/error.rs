//! russh's and the system's errors in the words of the port, one function per port error.
//!
//! What the far side or a library says is cut to one line here and nowhere else.

use std::io;

use ssh_mcp_core::port::ssh::{ConnectError, Transience};
use ssh_mcp_core::text::remote_words;

/// A failed TCP connection or name lookup.
pub(crate) fn from_io(doing: &str, error: &io::Error) -> ConnectError {
    failed(format!("{doing}: {error}"), io_transience(error))
}

/// A failure between the TCP connection and the last answer of authentication.
pub(crate) fn from_russh(error: &russh::Error) -> ConnectError {
    failed(words(error), transience(error))
}

/// A failure with these words.
pub(crate) fn failed(cause: impl AsRef<str>, transience: Transience) -> ConnectError {
    ConnectError::Failed { cause: remote_words(cause.as_ref()), transience }
}

/// What went wrong, in words that say more than the library's where those are bare.
pub(crate) fn words(error: &russh::Error) -> String {
    use russh::Error;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's own words serve for the rest")]
    let text = match error {
        Error::Disconnect | Error::HUP => "the server closed the connection".to_owned(),
        Error::KeepaliveTimeout => "no answer to keepalives".to_owned(),
        Error::SendError | Error::RecvError => "the connection is gone".to_owned(),
        Error::Version => "the far side does not speak SSH 2".to_owned(),
        Error::NoCommonAlgo { kind, theirs, .. } => {
            format!("no common {kind:?} algorithm; the server offers {}", theirs.join(", "))
        }
        Error::IO(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closed the connection".to_owned()
        }
        other => other.to_string(),
    };
    remote_words(&text)
}

fn transience(error: &russh::Error) -> Transience {
    use russh::Error;
    #[expect(clippy::wildcard_enum_match_arm, reason = "everything else is a disagreement that stays")]
    match error {
        // A server that is starting, full (`MaxStartups`) or restarting hangs up without a word.
        Error::Disconnect | Error::HUP | Error::SendError | Error::RecvError | Error::KeepaliveTimeout => {
            Transience::Transient
        }
        Error::IO(error) => io_transience(error),
        _ => Transience::Permanent,
    }
}

fn io_transience(error: &io::Error) -> Transience {
    use io::ErrorKind;
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows")]
    let is_transient = match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::TimedOut
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::Interrupted => true,
        _ => is_host_down(error) || is_temporary_lookup_failure(error),
    };
    if is_transient { Transience::Transient } else { Transience::Permanent }
}

/// `EHOSTDOWN`, which has no kind of its own.
fn is_host_down(error: &io::Error) -> bool {
    let host_down = if cfg!(target_os = "linux") { 112 } else { 64 };
    error.raw_os_error() == Some(host_down)
}

/// `EAI_AGAIN`: the standard library keeps the resolver's number to itself, so its words have to do (they are not
/// translated, because the program never sets a locale).
fn is_temporary_lookup_failure(error: &io::Error) -> bool {
    let text = error.to_string();
    error.raw_os_error().is_none()
        && (text.contains("Temporary failure in name resolution") || text.contains("Try again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: io::Error, expected: Transience) {
        let ConnectError::Failed { transience, cause } = from_io("10.0.0.1:22", &error) else {
            panic!("a failure is a failure")
        };
        assert_eq!(transience, expected, "{cause}");
    }

    #[test]
    fn what_may_pass_by_itself_is_transient() {
        check(io::ErrorKind::ConnectionRefused.into(), Transience::Transient);
        check(io::ErrorKind::HostUnreachable.into(), Transience::Transient);
        check(io::ErrorKind::BrokenPipe.into(), Transience::Transient);
        check(io::Error::from_raw_os_error(112), Transience::Transient);
        check(
            io::Error::other("failed to lookup address information: Temporary failure in name resolution"),
            Transience::Transient,
        );
    }

    #[test]
    fn what_stays_is_permanent() {
        check(
            io::Error::other("failed to lookup address information: Name or service not known"),
            Transience::Permanent,
        );
        check(io::ErrorKind::PermissionDenied.into(), Transience::Permanent);
        check(io::ErrorKind::InvalidInput.into(), Transience::Permanent);
    }

    #[test]
    fn a_server_that_hangs_up_may_take_us_later() {
        let hung_up = from_russh(&russh::Error::HUP);
        assert_eq!(hung_up, failed("the server closed the connection", Transience::Transient));
        let strange = from_russh(&russh::Error::Version);
        assert_eq!(strange, failed("the far side does not speak SSH 2", Transience::Permanent));
    }
}
