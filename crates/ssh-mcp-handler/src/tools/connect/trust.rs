//! Connecting where the user may have to decide about a host key.

use ssh_mcp_core::port::ssh::{ConnectError, Unknown};
use ssh_mcp_engine::{Connect, ConnectAnswer, ConnectFailure, Progress};

use crate::{
    asking::{Answer, Question},
    cx::Cx,
    failure::Failure,
};

/// Connects; for each key that the policy leaves to the user, asks and connects anew with the answer. While the user
/// thinks, nothing is connected and no session's place is taken.
///
/// # Errors
/// Those of the engine; `HOST_KEY_UNKNOWN` for a key that the user was not asked about or does not trust.
pub(super) async fn connect(
    cx: &Cx,
    mut ask: Connect,
    progress: Progress<'_>,
) -> Result<ConnectAnswer, Failure> {
    ask.accepted = cx.asking.accepted()?;
    // Ends: each hop is asked about once, and a hop that then shows yet another key is refused.
    loop {
        let failed = match cx.engine.connect(&cx.owner, ask.clone(), progress).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        let Some(question) = question(&failed) else { return Err(failed.into()) };
        match cx.asking.ask(&question, &ask.accepted).await {
            Answer::Yes => ask.accepted.push(question.key),
            Answer::No(words) => return Err(Failure::from(failed).with_context(words)),
            Answer::Later(end) => return Err(Failure::from(failed).with_question(end)),
        }
    }
}

/// What the user is to be asked, if that can help.
fn question(failed: &ConnectFailure) -> Option<Question> {
    let ConnectFailure::Failed { error, target, .. } = failed else { return None };
    let (whose, error) = match error {
        ConnectError::Jump { host, error } => (format!("The jump host {host}"), &**error),
        ConnectError::UnknownHostKey { .. } => (format!("The host of {target}"), error),
        ConnectError::Failed { .. }
        | ConnectError::TimedOut { .. }
        | ConnectError::Rejected { .. }
        | ConnectError::Key { .. }
        | ConnectError::ChangedHostKey { .. }
        | ConnectError::KnownHosts { .. } => return None,
    };
    let ConnectError::UnknownHostKey { shown, verdict: Unknown::Undecided, certificate, .. } = error else {
        return None;
    };
    Some(Question { key: (**shown).clone(), whose, doubt: certificate.clone() })
}

/// What a call that connects is doing, for its progress.
pub(super) fn doing(cx: &Cx) -> &'static str {
    match cx.asking.is_open() {
        true => "waiting for the user's word on a host key",
        false => "connecting",
    }
}
