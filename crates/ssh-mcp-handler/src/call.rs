//! One `tools/call` from name to answer: look-up, idempotency key, the tool itself, its panic, the audit line.
//!
//! What a tool does is in [`crate::tools`]; what MCP wraps around a call is in the crate root.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use rmcp::model::{CallToolResponse, CallToolResult, ErrorData, JsonObject};
use ssh_mcp_core::target_names;

use crate::{
    audit::Audit,
    catalogue::{Entry, Face, NoTool},
    cx::Cx,
    failure::Failure,
    idempotency::{self, Claim, Idempotency},
    legacy,
    progress::{Beat, EVERY_5_S, Waiting},
    reply::{Nonce, Reply},
    tools::{Key, Row},
};

/// What a client asks for.
pub(crate) struct Request<'a> {
    /// The tool.
    pub(crate) tool: &'a str,
    /// Its arguments.
    pub(crate) arguments: JsonObject,
    /// `_meta.idempotency_key`, whatever it is.
    pub(crate) key: Option<&'a serde_json::Value>,
    /// Who asks, for the log.
    pub(crate) peer: &'a str,
}

/// Runs a call.
///
/// # Errors
/// JSON-RPC invalid params for a tool this build does not have; everything else is an answer.
pub(crate) async fn call(
    cx: &Cx,
    keys: &Idempotency,
    request: Request<'_>,
) -> Result<CallToolResponse, ErrorData> {
    let entry = match cx.catalogue.find(request.tool) {
        Ok(entry) => entry,
        Err(NoTool::LeftOut(face, failure)) => return Ok(face.error(*failure, cx.catalogue.form()).into()),
        Err(NoTool::Absent(failure)) => {
            return Ok(failure.into_result(request.tool, cx.catalogue.form()).into());
        }
        Err(NoTool::Unknown) => {
            let name = ssh_mcp_core::text::cut(request.tool, 80).into_owned();
            return Err(ErrorData::invalid_params(format!("unknown tool: {name}"), None));
        }
    };
    let tool = entry.face.name();
    let refused = |failure: Failure| CallToolResponse::from(entry.face.error(failure, cx.catalogue.form()));
    if let Err(failure) = cx.asking.check() {
        return Ok(refused(failure));
    }
    let key = match (entry.row.key, request.key) {
        (Key::Ignored, _) | (Key::Honoured, None) => None,
        (Key::Honoured, Some(value)) => match value.as_str() {
            Some("") => None,
            Some(key) => Some(key),
            None => {
                let shown = crate::args::shown("idempotency_key", value);
                let reason = format!("_meta.idempotency_key must be a text of 1 to 256 bytes; got {shown}");
                return Ok(refused(Failure::argument(reason)));
            }
        },
    };
    let Some(key) = key else {
        return Ok(run(cx, entry, request).await);
    };
    match keys.claim(&cx.owner, tool, key, &request.arguments, cx.engine.clock().now()) {
        Claim::Refuse(failure) => Ok(refused(failure)),
        Claim::Replay(result) => Ok(CallToolResult::clone(&result).into()),
        Claim::Run(duty) => {
            let response = run(cx, entry, request).await;
            // A question is no answer: the key is free for the call that brings the user's.
            if let CallToolResponse::Complete(result) = &response {
                duty.complete(result, cx.engine.clock().now());
            }
            Ok(response)
        }
        Claim::Wait(wait) => {
            let beat = || Beat {
                progress: 0,
                total: None,
                message: "the first call with this key still runs".into(),
            };
            let waited = cx.progress.while_waiting(EVERY_5_S, idempotency::outcome(&wait), beat).await;
            Ok(match waited {
                Waiting::Done(Ok(result)) => CallToolResult::clone(&result).into(),
                Waiting::Done(Err(failure)) => refused(failure),
                Waiting::Cancelled => refused(Failure::new(
                    ssh_mcp_core::code::Code::IdempotencyInProgress,
                    "the first call with this key still runs",
                )),
            })
        }
    }
}

/// Runs the tool behind the face the client sees.
async fn run(cx: &Cx, entry: &Entry, request: Request<'_>) -> CallToolResponse {
    let Request { arguments, peer, .. } = request;
    let form = cx.catalogue.form();
    let outcome = match entry.face {
        Face::New(row) => perform(cx, row, &entry.input, arguments, peer)
            .await
            .map(|reply| reply.into_result(row.name, form)),
        Face::Old(old) => {
            legacy::run(cx, old, &entry.input, arguments, peer).await.map(|shown| shown.into_result(form))
        }
    };
    match outcome {
        Ok(result) => result.into(),
        Err(Failure { question: Some(question), .. }) => CallToolResponse::InputRequired(*question),
        Err(failure) => entry.face.error(failure, form).into(),
    }
}

/// Runs a tool, and logs what it did to whom.
///
/// # Errors
/// Those of the tool, and `INTERNAL_ERROR` for its panic.
pub(crate) async fn perform(
    cx: &Cx,
    row: &'static Row,
    input: &JsonObject,
    arguments: JsonObject,
    peer: &str,
) -> Result<Reply, Failure> {
    let started = cx.engine.clock().now();
    let audit = Audit::of(row, &arguments, peer);
    let ran = unwinding((row.call.run)(cx, input, arguments)).await;
    let outcome = ran.unwrap_or_else(|Panicked| {
        let correlation = Nonce::fresh().to_string();
        tracing::error!(target: target_names::MAIN, tool = row.name, correlation, "a tool call panicked");
        Err(Failure::internal(&correlation))
    });
    if let Some(audit) = audit {
        let duration: Duration = cx.engine.clock().now().saturating_sub(started);
        audit.log(cx, &outcome, duration);
    }
    outcome
}

/// The work panicked; where is logged by the panic itself.
pub(crate) struct Panicked;

/// Runs `work` to its end or its panic. Its own guards have put things right on the way out; nothing it shared is held
/// across an await by a lock, so what others see is whole.
pub(crate) async fn unwinding<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}
