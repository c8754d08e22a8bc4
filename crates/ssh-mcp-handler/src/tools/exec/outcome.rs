//! A command as an answer shows it at one moment: how it stands, what it printed, what to beware of.

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use ssh_mcp_core::{
    code::{Code, Effect, Retry, Warning},
    history::View,
    kind::command::{EndedBy, Facts, Fault, Output, Status},
    registry::Command,
    text,
};

use crate::{
    failure::Failure,
    reply::{Completeness, Shown, Text, Warned},
};

/// The status of a command in the words of answers.
pub(super) fn word(status: Status) -> &'static str {
    match status {
        Status::TimedOut => "timeout",
        Status::Running | Status::Completed | Status::Failed | Status::Cancelled => status.as_str(),
    }
}

/// What is known of a command, and the newest part of its output.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Outcome {
    #[serde(skip)]
    pub(super) status: Status,
    /// Of a command that ended by itself; -1 if the server told none, absent after death by a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i64>,
    /// The signal that ended it, without SIG.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_signal: Option<String>,
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    stdout: Shown,
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    stderr: Shown,
    stdout_truncated: bool,
    stderr_truncated: bool,
    timed_out: bool,
    /// What ended it after a time limit or a cancel: interrupt, signal, kill or close.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ended_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Trouble>,
}

/// Why a command has no exit status, as a tool error would say it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Trouble {
    pub(super) code: String,
    pub(super) category: String,
    pub(super) retry: String,
    pub(super) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

impl Outcome {
    /// A command at this moment, each stream cut to its newest `max` bytes.
    pub(super) fn of(command: &Command, max: usize) -> Self {
        // The end before the output: all output of an ended command is there.
        let facts = command.ending.get().map(|end| &end.facts);
        let status = facts.map_or(Status::Running, |facts| facts.status);
        let completeness = match status {
            Status::Completed => Completeness::Whole,
            Status::Running | Status::Failed | Status::Cancelled | Status::TimedOut => Completeness::Partial,
        };
        let shown = |view| Shown::newest(&command.history, view, max, completeness);
        Self::new(status, facts, shown(View::Stdout), shown(View::Stderr))
    }

    /// A command that was never started.
    pub(super) fn nothing() -> Self {
        Self::new(Status::Cancelled, None, Shown::whole(String::new()), Shown::whole(String::new()))
    }

    fn new(status: Status, facts: Option<&Facts>, stdout: Shown, stderr: Shown) -> Self {
        Self {
            status,
            exit_code: facts.filter(|_| status == Status::Completed).and_then(Facts::exit_code),
            exit_signal: facts.and_then(Facts::exit_signal).map(str::to_owned),
            stdout_truncated: stdout.is_truncated(),
            stderr_truncated: stderr.is_truncated(),
            stdout,
            stderr,
            timed_out: status == Status::TimedOut,
            ended_by: facts.and_then(|facts| facts.ended_by).map(ended_by),
            error: facts.and_then(Trouble::of),
        }
    }

    /// The keys of the text form.
    pub(super) fn write_keys(&self, text: &mut Text) {
        text.maybe("EXIT", self.exit_code);
        text.maybe("EXIT_SIGNAL", self.exit_signal.as_ref());
        text.maybe("ENDED_BY", self.ended_by);
        if let Some(Trouble { code, reason, detail, .. }) = &self.error {
            text.key("REASON", format_args!("[{code}] {reason}"));
            text.maybe("DETAIL", detail.as_ref());
        }
    }

    /// The output of the text form; `tag` follows the names of the streams.
    pub(super) fn write_blocks(&self, text: &mut Text, tag: &str) {
        text.block(&format!("stdout{tag}"), &self.stdout);
        text.block(&format!("stderr{tag}"), &self.stderr);
    }
}

impl Trouble {
    /// The label of a command that ended by itself, but not well (`docs/errors.md`, "Codes inside successful answers").
    pub(super) fn of_exit(code: Option<i64>, signal: Option<&str>) -> Self {
        let reason = match (code, signal) {
            (Some(code), _) => format!("it exited with {code}"),
            (None, Some(signal)) => format!("signal {signal} ended it"),
            (None, None) => "it told no status".to_owned(),
        };
        Self {
            code: "REMOTE_CMD_FAILED".to_owned(),
            category: "REMOTE".to_owned(),
            retry: wire_word(Retry::Judge),
            reason,
            detail: None,
        }
    }

    /// What a command that should have told its end says instead.
    fn of(facts: &Facts) -> Option<Self> {
        let failure = match (&facts.fault, facts.status) {
            (Some(fault @ Fault::Refused { .. }), _) => {
                Failure::new(Code::ChannelFailed, text::remote_words(&fault.to_string()))
                    .with_effect(Effect::None)
            }
            (Some(fault @ Fault::Lost { .. }), _) => {
                Failure::new(Code::CommandFailed, text::remote_words(&fault.to_string()))
                    .with_effect(Effect::Unknown)
            }
            (None, Status::Failed) => {
                Failure::new(Code::CommandFailed, "connection lost").with_effect(Effect::Unknown)
            }
            (None, Status::Running | Status::Completed | Status::Cancelled | Status::TimedOut) => {
                return None;
            }
        };
        Some(Self {
            code: failure.code.to_string(),
            category: wire_word(failure.code.category()),
            retry: wire_word(failure.code.retry()),
            detail: Some(failure.detail()),
            reason: failure.reason,
        })
    }
}

/// What an answer about this command has to warn of.
pub(super) fn warnings(command: &Command) -> Option<Warned> {
    let facts = &command.ending.get()?.facts;
    let uri = ssh_mcp_core::uri::Resource::from(command.spec.id);
    let warned = if facts.output == Output::StillOpen {
        let msg = "something it started still held its output when it ended; later bytes arrive there too";
        Warned::new(Warning::OutputStillOpen, msg)
    } else if facts.ended_by == Some(EndedBy::Close) {
        let msg = match facts.pid {
            Some(pid) => format!(
                "nothing showed that it ended, so its channel was closed; pid {pid}: look with ps -fp {pid}, end it with \
                 kill -KILL -- -{pid}"
            ),
            None => "nothing showed that it ended, so its channel was closed; its pid is not known: look with ps -ef"
                .to_owned(),
        };
        Warned::new(Warning::MayStillRun, msg)
    } else {
        return None;
    };
    Some(warned.with_resource(uri))
}

fn ended_by(by: EndedBy) -> &'static str {
    match by {
        EndedBy::Interrupt => "interrupt",
        EndedBy::Signal => "signal",
        EndedBy::Kill => "kill",
        EndedBy::Close => "close",
    }
}

/// The word a value has on the wire.
fn wire_word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|word| Some(word.as_str()?.to_owned())).unwrap_or_default()
}

fn as_text<S: Serializer>(shown: &Shown, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown.text)
}
