//! What answers say of a shell's transcript and of who can watch it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_mcp_core::{
    code::Warning,
    registry::{Entry as _, Observer, Shell},
};

use crate::{
    cx::Cx,
    reply::{Text, Warned},
};

/// How a person is to watch a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ObserverMode {
    Transcript,
    Tmux,
}

/// What is asked for; whoever wants to watch needs the file.
pub(super) fn wanted(transcript: bool, mode: Option<ObserverMode>) -> Option<Observer> {
    match (mode, transcript) {
        (Some(ObserverMode::Tmux), _) => Some(Observer::Tmux),
        (Some(ObserverMode::Transcript), _) | (None, true) => Some(Observer::Transcript),
        (None, false) => None,
    }
}

/// Where a transcript is and how a person watches it; the answer of an opening tells it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Watching {
    transcript_path: String,
    observer_mode: &'static str,
    observer_command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tmux_session_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observer_warning: Option<String>,
}

impl Watching {
    /// Of a shell whose transcript is watchable.
    pub(super) fn of(shell: &Shell) -> Option<Self> {
        let recording = shell.recording.as_ref()?;
        let (mode, observer_command) = recording.observer();
        let (tmux_session_name, observer_warning) = match recording.window() {
            Some(Ok(window)) => (Some(window.name.clone()), None),
            Some(Err(cause)) => (None, Some(cause.clone())),
            None => (None, None),
        };
        Some(Self {
            transcript_path: recording.path.display().to_string(),
            observer_mode: mode.as_str(),
            observer_command,
            tmux_session_name,
            observer_warning,
        })
    }

    pub(super) fn write(&self, text: &mut Text) {
        text.key("TRANSCRIPT_PATH", &self.transcript_path);
        text.key("OBSERVER_MODE", self.observer_mode);
        text.key("OBSERVER_COMMAND", &self.observer_command);
        text.maybe("TMUX_SESSION_NAME", self.tmux_session_name.as_ref());
        text.maybe("OBSERVER_WARNING", self.observer_warning.as_ref());
    }

    /// The same as a warning, if there is something to warn of.
    pub(super) fn warning(&self) -> Option<Warned> {
        let cause = self.observer_warning.as_ref()?;
        let msg = format!("{cause}; the transcript is written all the same");
        Some(Warned::new(Warning::ObserverUnavailable, msg))
    }
}

/// What an answer about a shell warns of: once, that its transcript could not be written on.
pub(super) fn broken(shell: &Shell) -> Option<Warned> {
    let fault = shell.recording.as_ref()?.take_fault()?;
    let msg = format!("the transcript ends here: {fault}; the shell goes on");
    Some(Warned::new(Warning::TranscriptBroken, msg).with_resource(Cx::uri(Shell::SCHEME, shell.spec.id)))
}
