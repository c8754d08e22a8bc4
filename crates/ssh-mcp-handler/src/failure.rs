//! What goes wrong, as a caller sees it: engine errors become tool errors or JSON-RPC errors here and only here
//! (`docs/errors.md`).
//!
//! A code is chosen by an exhaustive match over the error, never from its text.

#[cfg(feature = "port_forward")]
mod forward;

use std::{fmt::Write as _, time::Duration};

use rmcp::model::{CallToolResult, ContentBlock, ErrorData, InputRequiredResult, JsonObject};
use serde_json::{Value, json};
use ssh_mcp_core::{
    code::{Category, Code, Effect, Retry},
    kind::{
        rsync::{self, NoWay},
        transfer::Overshoot,
    },
    port::{
        fs::FsErrorKind,
        resolve::ResolveError,
        ssh::{ChannelError, ConnectError},
    },
    registry::Direction,
    target::ShownKey,
    text,
    uri::{Scheme, UriError, UriFault},
};
use ssh_mcp_engine::{
    ConnectFailure, Missing, StartError, SyncError, TransferError, WriteError, transfer::file::Refusal,
};

use crate::reply::{Form, Warned};

/// A tool error.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) code: Code,
    /// What happened and to what, one line.
    pub(crate) reason: String,
    /// What is particular about it: `limit=10`, the far side's own words.
    pub(crate) context: Vec<String>,
    /// Identifiers the caller may have meant.
    pub(crate) suggestions: Vec<String>,
    /// Whether work may have begun; only for calls that change something.
    pub(crate) effect: Option<Effect>,
    /// Warnings about the arguments.
    pub(crate) warnings: Vec<Warned>,
    /// Structured facts besides: results before the failure, a correlation id. Boxed, so that results stay small.
    pub(crate) facts: Box<JsonObject>,
    /// What the user is to be asked before the call can be repeated; the failure is what stands if nobody asks.
    pub(crate) question: Option<Box<InputRequiredResult>>,
}

impl Failure {
    /// A failure without particulars.
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            context: Vec::new(),
            suggestions: Vec::new(),
            effect: None,
            warnings: Vec::new(),
            facts: Box::default(),
            question: None,
        }
    }

    /// An argument that breaks a rule; the reason names field, rule and value.
    pub(crate) fn argument(reason: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, reason)
    }

    /// A bug; the correlation id also stands in the log.
    pub(crate) fn internal(correlation: &str) -> Self {
        Self::new(Code::InternalError, "the call failed unexpectedly")
            .with_context(format!("correlation={correlation}"))
            .with_fact("correlation", correlation)
    }

    /// An identifier that leads nowhere.
    pub(crate) fn missing(scheme: Scheme, id: &str, missing: Missing) -> Self {
        let code = match scheme {
            Scheme::Session => Code::SessionNotFound,
            Scheme::Shell => Code::ShellNotFound,
            Scheme::Command => Code::CommandNotFound,
            Scheme::Transfer => Code::TransferNotFound,
            Scheme::Rsync => Code::RsyncNotFound,
            Scheme::Forward => Code::ForwardNotFound,
            Scheme::Serial => Code::SerialNotFound,
        };
        let shown = text::cut(&text::one_line(id), 80).into_owned();
        let word = scheme.as_str();
        match missing {
            Missing::Unknown { nearest } => {
                Self::new(code, format!("no {word} {shown}")).with_suggestions(nearest)
            }
            Missing::Gone { reason, nearest, .. } => Self::new(code, format!("{word} {shown} has ended"))
                .with_context(format!("reason={reason}"))
                .with_suggestions(nearest),
        }
    }

    /// A URI in an argument of a tool that cannot be understood; `place` says where it stands, `got` what stands there.
    pub(crate) fn uri(place: &str, got: &str, error: &UriError) -> Self {
        let reason = format!("{place}: {} must be {}; got {got}", error.field, error.expected);
        match error.kind {
            UriFault::FeatureDisabled => {
                Self::new(Code::FeatureDisabled, reason).with_context("feature=port_forward")
            }
            UriFault::BadScheme
            | UriFault::MissingId
            | UriFault::BadSubPath
            | UriFault::BadCursor
            | UriFault::BadQuery => Self::argument(reason),
        }
    }

    /// A resource that leads nowhere, named by its URI.
    pub(crate) fn no_resource(missing: Missing) -> Self {
        match missing {
            Missing::Unknown { nearest } => {
                Self::new(Code::ResourceNotFound, "no such resource").with_suggestions(nearest)
            }
            Missing::Gone { reason, nearest, .. } => Self::new(Code::ResourceGone, "the resource has ended")
                .with_context(format!("reason={reason}"))
                .with_suggestions(nearest),
        }
    }

    /// With one more particular.
    pub(crate) fn with_context(mut self, context: impl Into<String>) -> Self {
        self.context.push(context.into());
        self
    }

    /// With identifiers the caller may have meant.
    pub(crate) fn with_suggestions(mut self, suggestions: Vec<String>) -> Self {
        self.suggestions = suggestions;
        self
    }

    /// With the answer to whether work may have begun.
    pub(crate) fn with_effect(mut self, effect: Effect) -> Self {
        self.effect = Some(effect);
        self
    }

    /// With warnings about the arguments, before those it has.
    pub(crate) fn with_warnings(mut self, warnings: Vec<Warned>) -> Self {
        self.warnings.splice(0..0, warnings);
        self
    }

    /// With a question that the call ends with in its place.
    pub(crate) fn with_question(mut self, question: InputRequiredResult) -> Self {
        self.question = Some(Box::new(question));
        self
    }

    /// With a structured fact besides.
    pub(crate) fn with_fact(mut self, name: &str, fact: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), fact.into());
        self
    }

    /// Whether calling again can help. Work that may have begun is not repeated blindly.
    fn retry(&self) -> Retry {
        match (self.code.retry(), self.effect) {
            (Retry::Backoff, Some(Effect::Unknown)) => Retry::Judge,
            (retry, Some(Effect::None | Effect::Unknown) | None) => retry,
        }
    }

    /// Whether work may have begun; said of broken connections only, elsewhere nothing was started.
    fn effect_word(&self) -> Option<&'static str> {
        self.effect.filter(|_| self.code.category() == Category::Transport).map(|effect| match effect {
            Effect::None => "none",
            Effect::Unknown => "unknown",
        })
    }

    /// Cure, particulars, suggestions.
    pub(crate) fn detail(&self) -> String {
        let mut detail = self.code.cure().to_owned();
        let effect = self.effect_word().map(|effect| format!("effect={effect}"));
        let suggestions = (!self.suggestions.is_empty())
            .then(|| format!("closest matches: {}", self.suggestions.join(", ")));
        for part in self.context.iter().chain(&effect).chain(&suggestions) {
            detail.truncate(detail.trim_end_matches('.').len());
            _ = write!(detail, "; {}", text::one_line(part));
        }
        detail
    }

    /// The tool error as MCP carries it.
    pub(crate) fn into_result(self, tool: &str, form: Form) -> CallToolResult {
        let (code, retry, effect, detail) = (self.code, self.retry(), self.effect_word(), self.detail());
        let reason = text::one_line(&self.reason).into_owned();
        let mut block =
            format!("{}: ERROR\nREASON: [{code}] {reason}\nDETAIL: {detail}\n", tool.to_ascii_uppercase());
        self.warnings.iter().for_each(|warning| block.push_str(&warning.to_line()));
        block.truncate(block.trim_end_matches('\n').len());

        let mut facts = self.facts;
        let common = json!({
            "tool": tool, "status": "error", "code": code, "reason": reason, "detail": detail,
            "category": code.category(), "retry": retry,
        });
        facts.extend(common.as_object().cloned().unwrap_or_default());
        if let Some(effect) = effect {
            facts.insert("effect".into(), effect.into());
        }
        if !self.warnings.is_empty() {
            facts.insert("warnings".into(), self.warnings.iter().map(Warned::to_value).collect());
        }
        let mut result = CallToolResult::error(vec![ContentBlock::text(block)]);
        result.structured_content = (form == Form::Both).then_some(Value::Object(*facts));
        result
    }
}

impl From<ConnectFailure> for Failure {
    fn from(failure: ConnectFailure) -> Self {
        match failure {
            ConnectFailure::TooManySessions { limit } => {
                Self::new(Code::MaxSessionsExceeded, format!("{limit} sessions are open"))
                    .with_context(format!("limit={limit}"))
            }
            ConnectFailure::Draining => draining(),
            ConnectFailure::NoTarget => Self::new(
                Code::SessionNotFound,
                "the session is gone, and no address was given to connect anew",
            ),
            ConnectFailure::Unresolved(error) => {
                let code = match &error {
                    ResolveError::Call(_) | ResolveError::Config(_) => Code::InvalidArgument,
                    ResolveError::Blocked(_) => Code::SshOptionBlocked,
                };
                Self::new(code, text::remote_words(&error.to_string()))
            }
            ConnectFailure::Failed { error, attempts, target } => {
                connect_error(error, &target.to_string()).with_context(format!("attempts={attempts}"))
            }
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Session(missing) => {
                let nearest = match &missing {
                    Missing::Unknown { nearest } | Missing::Gone { nearest, .. } => nearest.clone(),
                };
                Self::new(Code::SessionNotFound, "the session takes no calls any more")
                    .with_suggestions(nearest)
            }
            StartError::TooManyCommands { limit } => {
                Self::new(Code::MaxCommandsExceeded, format!("the session runs {limit} commands"))
                    .with_context(format!("limit={limit}"))
            }
            StartError::TooManyShells { limit } => {
                Self::new(Code::MaxShellsExceeded, format!("the session holds {limit} shells"))
                    .with_context(format!("limit={limit}"))
            }
            StartError::TooManyTransfers { limit } => {
                Self::new(Code::MaxTransfersExceeded, format!("the session has {limit} transfers under way"))
                    .with_context(format!("limit={limit}"))
            }
            StartError::TooManyForwards { limit } => {
                Self::new(Code::MaxForwardsExceeded, format!("the session has {limit} forwards"))
                    .with_context(format!("limit={limit}"))
            }
            StartError::Channel(error) => channel_error(error),
            StartError::Transcript(error) => Self::new(Code::LocalFileError, error.to_string()),
            StartError::NameInUse { name, shell } => {
                Self::new(Code::NameInUse, format!("a shell named {name} is open on this target"))
                    .with_context(format!("shell_id={shell}"))
                    .with_fact("shell_id", shell.to_string())
            }
            StartError::Draining => draining(),
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        let (reason, accepted) = match error {
            WriteError::Closed { accepted } => ("the shell has ended and takes no input", accepted),
            WriteError::Stuck { accepted } => ("the shell took nothing for 5 s", accepted),
        };
        Self::new(Code::WriteFailed, reason)
            .with_context(format!("accepted={accepted}"))
            .with_effect(if accepted == 0 { Effect::None } else { Effect::Unknown })
    }
}

/// A transfer that was not started.
pub(crate) fn transfer(error: TransferError, direction: Direction) -> Failure {
    let refusal = match error {
        TransferError::Start(error) => return error.into(),
        TransferError::NoService(cause) => {
            return Failure::new(Code::SftpOpenFailed, text::remote_words(&cause));
        }
        TransferError::Refused(refusal) => refusal,
    };
    let reason = text::remote_words(&refusal.to_string());
    match refusal {
        Refusal::Local { .. } => Failure::new(Code::LocalFileError, reason),
        Refusal::LocalNotFile(_) => Failure::new(Code::LocalNotFile, reason),
        Refusal::Outside(_) => Failure::argument(format!("local path: {reason}")),
        Refusal::Busy(_) | Refusal::Twins(_) | Refusal::NoDirectory(_) | Refusal::TooMany { .. } => {
            Failure::argument(reason)
        }
        Refusal::RemoteNotFile(_) => Failure::new(Code::SftpError, reason),
        Refusal::Remote { error, .. } if error.kind == FsErrorKind::TimedOut => {
            Failure::new(Code::Timeout, reason).with_effect(Effect::None)
        }
        Refusal::Remote { .. } => match direction {
            Direction::Upload => Failure::new(Code::SftpError, reason),
            Direction::Download => Failure::new(Code::RemoteMetadataError, reason),
        },
        Refusal::Overshoot(Overshoot { destination, source_len }) => {
            Failure::new(Code::ResumeOvershoot, reason)
                .with_context(format!("destination={destination} source={source_len}"))
        }
        Refusal::ResumeMismatch(bytes) => {
            Failure::new(Code::ResumeMismatch, reason).with_context(format!("compared={bytes}"))
        }
    }
}

/// A sync that was not started, or ended before anything was done.
pub(crate) fn sync(error: SyncError, direction: Direction) -> Failure {
    let reason = text::remote_words(&error.to_string());
    match error {
        SyncError::Start(error) => error.into(),
        SyncError::NoService(cause) => transfer(TransferError::NoService(cause), direction),
        SyncError::Refused(refusal) => transfer(TransferError::Refused(refusal), direction),
        SyncError::Argument(_) => Failure::argument(reason),
        SyncError::NoWay(NoWay::Unavailable(_)) => Failure::new(Code::RsyncUnavailable, reason),
        SyncError::NoWay(NoWay::TooOld(_)) => Failure::new(Code::RsyncVersionTooOld, reason),
        SyncError::NoWay(NoWay::FeatureMissing { option, .. }) => {
            Failure::new(Code::SftpFeatureMissing, reason).with_context(format!("option={option}"))
        }
        SyncError::Broken(fault) => {
            let failure = |code| Failure::new(code, fault.detail.clone());
            match fault.failure {
                rsync::Failure::Protocol => failure(Code::RsyncProtocolError).with_effect(Effect::None),
                rsync::Failure::Partial => failure(Code::RsyncPartialTransfer),
                rsync::Failure::ListTooLarge => failure(Code::RsyncFileListTooLarge),
                rsync::Failure::FeatureMissing => failure(Code::SftpFeatureMissing),
                rsync::Failure::Refused => failure(Code::InvalidArgument),
                rsync::Failure::ConnectionLost => failure(Code::TransportError).with_effect(Effect::Unknown),
                rsync::Failure::Timeout => failure(Code::Timeout),
                rsync::Failure::Cancelled => failure(Code::TransportError).with_effect(Effect::Unknown),
            }
        }
    }
}

/// A URI or query that cannot be understood (JSON-RPC invalid params).
pub(crate) fn bad_uri(uri: &str, error: &UriError) -> ErrorData {
    let UriError { kind, field, value, expected } = error;
    let data = json!({ "kind": kind, "field": field, "value": value, "expected": expected, "uri": uri });
    ErrorData::invalid_params(format!("{field} must be {expected}"), Some(data))
}

/// A well-formed URI that leads nowhere; the SDK changes the number for 2026-07-28.
///
/// `shown` writes a time of the engine.
pub(crate) fn no_resource(uri: &str, missing: Missing, shown: impl Fn(Duration) -> String) -> ErrorData {
    let ended = match &missing {
        Missing::Gone { ended, .. } => Some(format!("ended={}", shown(*ended))),
        Missing::Unknown { .. } => None,
    };
    let mut failure = Failure::no_resource(missing);
    failure.context.extend(ended);
    let code = failure.code;
    let data = json!({
        "code": code, "category": code.category(), "retry": code.retry(), "detail": failure.detail(), "uri": uri,
    });
    ErrorData::resource_not_found(failure.reason, Some(data))
}

/// A lane that is refused outside a tool call (JSON-RPC invalid params).
pub(crate) fn refused(uri: &str, failure: &Failure) -> ErrorData {
    let code = failure.code;
    let data = json!({
        "code": code, "category": code.category(), "retry": code.retry(), "detail": failure.detail(), "uri": uri,
    });
    ErrorData::invalid_params(failure.reason.clone(), Some(data))
}

/// Parameters of the wrong shape.
pub(crate) fn bad_params(field: &str, expected: &str) -> ErrorData {
    let data = json!({ "field": field, "expected": expected });
    ErrorData::invalid_params(format!("{field} must be {expected}"), Some(data))
}

/// A bug outside a tool call.
pub(crate) fn internal(correlation: &str) -> ErrorData {
    let data = json!({ "code": Code::InternalError, "correlation": correlation });
    ErrorData::internal_error("the request failed unexpectedly", Some(data))
}

fn draining() -> Failure {
    Failure::new(Code::TransportError, "the server is shutting down").with_effect(Effect::None)
}

fn connect_error(error: ConnectError, target: &str) -> Failure {
    let reason = format!("{target}: {error}");
    let failure = |code| Failure::new(code, text::remote_words(&reason)).with_effect(Effect::None);
    match error {
        ConnectError::Jump { error, host } => {
            let mut failed = connect_error(*error, &host.to_string());
            failed.reason = text::remote_words(&reason);
            failed
        }
        ConnectError::Failed { .. } => failure(Code::ConnectionFailed),
        ConnectError::TimedOut { .. } => failure(Code::ConnectionTimeout),
        ConnectError::Rejected { tried, offered, cut_off } => {
            let list = |words: Vec<String>| match words.is_empty() {
                true => "nothing".to_owned(),
                false => text::remote_words(&words.join(", ")),
            };
            let failed = failure(Code::AuthFailed)
                .with_context(format!("tried: {}", list(tried)))
                .with_context(format!("the server takes: {}", list(offered)));
            match cut_off {
                None => failed,
                Some(words) if words.to_lowercase().contains("too many") => failed.with_context(format!(
                    "the server takes no further try (its MaxAuthTries): {words}; name the right key with identity_file, \
                     and keep others back with IdentitiesOnly yes"
                )),
                Some(words) => failed.with_context(format!("the server ended the login: {words}")),
            }
        }
        ConnectError::Key { .. } => failure(Code::AuthKeyParse),
        ConnectError::UnknownHostKey { shown, certificate, .. } => {
            let ShownKey { algorithm, fingerprint, .. } = *shown;
            let mut failed = failure(Code::HostKeyUnknown)
                .with_context(format!("the host shows {algorithm} {fingerprint}"));
            failed.context.extend(certificate.map(|why| format!("its certificate does not count: {why}")));
            failed
        }
        ConnectError::ChangedHostKey { algorithm, fingerprint, known, forget, .. } => {
            let mut failed = failure(Code::HostKeyMismatch)
                .with_context(format!("the host shows {algorithm} {fingerprint}"))
                .with_context(format!("known: {known}"));
            failed.context.extend(forget.map(|command| format!("to take the old key out: {command}")));
            failed
        }
        // The key was not judged: to the caller that is a key nobody vouches for.
        ConnectError::KnownHosts { .. } => failure(Code::HostKeyUnknown),
    }
}

fn channel_error(error: ChannelError) -> Failure {
    let reason = text::remote_words(&error.to_string());
    let code = match error {
        ChannelError::Refused { .. } | ChannelError::NoPlace { .. } => Code::ChannelFailed,
        ChannelError::Lost(_) => Code::TransportError,
    };
    Failure::new(code, reason).with_effect(Effect::None)
}

#[cfg(test)]
mod tests;
