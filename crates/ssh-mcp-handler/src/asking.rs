//! Asking the user whether an unknown host key is to be trusted (`docs/adr/0012-asking.md`).
//!
//! Nothing waits for an answer but the call itself: the attempt that met the key has ended, and with a yes another one is
//! made that accepts just that key. So there is one way for both eras. A client of the era with `initialize` is asked by a
//! request while its call waits; a client of the other one gets the question as the end of its call and repeats the call
//! with the answer, and what it was asked comes back with it, sealed.
//!
//! Where the question comes from and what an answer leads to is in [`crate::tools`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rmcp::{
    RoleServer,
    model::{
        ClientCapabilities, ClientResult, ElicitRequest, ElicitRequestParams, ElicitResult,
        ElicitationAction, ElicitationSchema, InputRequest, InputRequests, InputRequiredResult,
        InputResponses, JsonObject, RequestStateCodec, SealOptions, ServerRequest,
    },
    service::{Peer, PeerRequestOptions, ServiceError},
};
use serde::{Deserialize, Serialize};
use ssh_mcp_core::{
    code::{Code, Effect},
    owner::Owner,
    target::ShownKey,
};

use crate::{failure::Failure, idempotency};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// The key that the answer is about.
    pub(crate) key: ShownKey,
    /// Whose it is, in words.
    pub(crate) whose: String,
    /// What speaks against it.
    pub(crate) doubt: Option<String>,
}

/// What came of a question.
pub(crate) enum Answer {
    /// The key is to be trusted.
    Yes,
    /// It is not; in words.
    No(String),
    /// The call is to end with the question.
    Later(InputRequiredResult),
}

/// How the client of one call is asked, and what it has been asked before.
#[derive(Clone)]
pub(crate) struct Asking {
    way: Way,
    before: Result<Before, StateFault>,
    /// Whether the user is being asked at this moment.
    is_open: Arc<AtomicBool>,
}

#[derive(Clone)]
enum Way {
    /// It cannot be asked.
    None,
    /// By a request, while the call waits.
    Request(Peer<RoleServer>),
    /// By the end of the call.
    End(Seal),
}

/// What the questions of the calls before have come to.
#[derive(Debug, Clone, Default)]
struct Before {
    accepted: Vec<ShownKey>,
    refused: Option<(ShownKey, String)>,
}

/// Why the state of a repeated call does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateFault {
    /// Not of this server, this caller or this call.
    Foreign,
    /// Too late.
    Expired,
}

/// Makes states that only this process can have made.
#[derive(Clone)]
pub(crate) struct Sealer(Arc<RequestStateCodec>);

/// A sealer, and the call it seals for.
#[derive(Clone)]
pub(crate) struct Seal {
    sealer: Sealer,
    /// Whose call, of which tool, with which arguments.
    call: Vec<u8>,
    now: Duration,
}

/// What a repeated call brings back.
#[derive(Serialize, Deserialize)]
struct State {
    accepted: Vec<ShownKey>,
    asked: ShownKey,
    /// On the engine's clock.
    until_ms: u64,
}

impl Sealer {
    /// A sealer with a key of its own; `None` where the system has no random bytes.
    pub(crate) fn fresh() -> Option<Self> {
        let mut key = vec![0; 32];
        getrandom::fill(&mut key).ok()?;
        RequestStateCodec::try_new(key).ok().map(|codec| Self(Arc::new(codec)))
    }

    /// Seals for one call; `now` is the engine's clock.
    pub(crate) fn seal_for(&self, owner: &Owner, tool: &str, arguments: &JsonObject, now: Duration) -> Seal {
        let mut call = Vec::new();
        for part in [owner.as_str().as_bytes(), tool.as_bytes(), &idempotency::digest(arguments)] {
            // With its length, so that no two calls run together to the same bytes.
            call.extend_from_slice(&(part.len() as u64).to_be_bytes());
            call.extend_from_slice(part);
        }
        Seal { sealer: self.clone(), call, now }
    }
}

impl Seal {
    fn close(&self, accepted: &[ShownKey], asked: &ShownKey) -> Option<String> {
        let until = self.now.saturating_add(STATE_HOLDS);
        let state = State {
            accepted: accepted.to_vec(),
            asked: asked.clone(),
            until_ms: u64::try_from(until.as_millis()).unwrap_or(u64::MAX),
        };
        let options = SealOptions::new().associated_data(&self.call);
        self.sealer.0.seal_json_with(&state, &options).ok()
    }

    fn open(&self, sealed: &str) -> Result<State, StateFault> {
        let opened = self.sealer.0.open_json_with(sealed, &self.call);
        let state: State = opened.map_err(|_| StateFault::Foreign)?;
        match u128::from(state.until_ms) > self.now.as_millis() {
            true => Ok(state),
            false => Err(StateFault::Expired),
        }
    }
}

impl Asking {
    /// A client that cannot be asked.
    pub(crate) fn nobody() -> Self {
        Self { way: Way::None, before: Ok(Before::default()), is_open: Arc::default() }
    }

    /// A client that answers requests of ours.
    pub(crate) fn by_request(peer: &Peer<RoleServer>, declared: Option<&ClientCapabilities>) -> Self {
        match shows_forms(declared) {
            true => Self { way: Way::Request(peer.clone()), ..Self::nobody() },
            false => Self::nobody(),
        }
    }

    /// A client that repeats its call: with what this one brings of the calls before.
    pub(crate) fn by_end(
        seal: Seal,
        declared: Option<&ClientCapabilities>,
        state: Option<&str>,
        responses: Option<&InputResponses>,
    ) -> Self {
        let before = match state {
            None => Ok(Before::default()),
            Some(sealed) => {
                seal.open(sealed).map(|State { mut accepted, asked, .. }| match said(responses) {
                    Ok(()) => {
                        accepted.push(asked);
                        Before { accepted, refused: None }
                    }
                    Err(words) => Before { accepted, refused: Some((asked, words)) },
                })
            }
        };
        let way = if shows_forms(declared) { Way::End(seal) } else { Way::None };
        Self { way, before, is_open: Arc::default() }
    }

    /// Refuses a call whose state does not count.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let why = match self.before {
            Ok(_) => return Ok(()),
            Err(StateFault::Foreign) => "it is not what this server gave this caller for this very call",
            Err(StateFault::Expired) => "it has expired",
        };
        let reason = format!("requestState must be the one of the last answer, unchanged: {why}");
        Err(Failure::argument(reason).with_context("call again without requestState to be asked anew"))
    }

    /// Whether the user is being asked at this moment.
    pub(crate) fn is_open(&self) -> bool {
        // Relaxed: shown only.
        self.is_open.load(Ordering::Relaxed)
    }

    /// The keys accepted so far.
    ///
    /// # Errors
    /// `HOST_KEY_UNKNOWN` after a no.
    pub(crate) fn accepted(&self) -> Result<Vec<ShownKey>, Failure> {
        let Ok(Before { accepted, refused }) = &self.before else { return Ok(Vec::new()) };
        match refused {
            None => Ok(accepted.clone()),
            Some((key, words)) => {
                let reason = format!("host key of {} is not known", key.name);
                Err(Failure::new(Code::HostKeyUnknown, reason)
                    .with_context(format!("the host showed {} {}", key.algorithm, key.fingerprint))
                    .with_context(words.clone())
                    .with_effect(Effect::None))
            }
        }
    }

    /// Puts a question; `accepted` are the yeses before it.
    pub(crate) async fn ask(&self, question: &Question, accepted: &[ShownKey]) -> Answer {
        match &self.way {
            Way::None => Answer::No("the user cannot be asked: this client shows no forms".to_owned()),
            Way::Request(peer) => {
                let _open = Open::of(&self.is_open);
                match question.send(peer).await {
                    Ok(ClientResult::ElicitResult(result)) => {
                        verdict(&result).map_or_else(Answer::No, |()| Answer::Yes)
                    }
                    Ok(_) => Answer::No(UNREADABLE.to_owned()),
                    Err(ServiceError::Timeout { .. }) => Answer::No(format!(
                        "the user was asked and did not answer within {} s",
                        ANSWER_WITHIN.as_secs()
                    )),
                    Err(error) => {
                        let words = ssh_mcp_core::text::remote_words(&error.to_string());
                        Answer::No(format!("the user could not be asked: {words}"))
                    }
                }
            }
            Way::End(seal) => match seal.close(accepted, &question.key) {
                None => Answer::No("the user could not be asked".to_owned()),
                Some(state) => {
                    let request = InputRequest::Elicitation(ElicitRequest::new(question.params()));
                    let requests = InputRequests::from([(QUESTION.to_owned(), request)]);
                    Answer::Later(InputRequiredResult::new(Some(requests), Some(state)))
                }
            },
        }
    }
}

/// Marks a question as open for as long as it lives.
struct Open<'a>(&'a AtomicBool);

impl<'a> Open<'a> {
    fn of(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Question {
    /// Asks, and waits as long as a call waits for the user.
    async fn send(&self, peer: &Peer<RoleServer>) -> Result<ClientResult, ServiceError> {
        let request = ServerRequest::ElicitRequest(ElicitRequest::new(self.params()));
        let options = PeerRequestOptions::with_timeout(ANSWER_WITHIN);
        peer.send_request_with_option(request, options).await?.await_response().await
    }

    fn params(&self) -> ElicitRequestParams {
        let ShownKey { name, algorithm, fingerprint, .. } = &self.key;
        // Names in it are the host's own words: quoted and cut, they cannot pass for ours.
        let doubt = self.doubt.as_deref().map(|doubt| ssh_mcp_core::text::cut(doubt, 120));
        let doubt = doubt.map(|doubt| format!("\nIts certificate does not count: {doubt:?}."));
        let message = format!(
            "{} shows a host key that is not known here.\n\nHost: {name}\nKey type: {algorithm}\nFingerprint: \
             {fingerprint}\n{}\nTrust it only if the fingerprint is the one the host's owner gives. It is then kept in \
             the known hosts, and the connection goes on.",
            self.whose,
            doubt.unwrap_or_default(),
        );
        let schema = ElicitationSchema::builder()
            .required_bool_with(TRUST, |flag| {
                flag.title("Trust this key").description("Yes: this is the host's key.")
            })
            .build_unchecked();
        ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema: schema }
    }
}

/// What a client says to a question it was given at the end of a call.
fn said(responses: Option<&InputResponses>) -> Result<(), String> {
    let Some(response) = responses.and_then(|responses| responses.get(QUESTION)) else {
        return Err("the user was asked and no answer came with the call".to_owned());
    };
    match serde_json::from_value::<ElicitResult>(response.clone()) {
        Ok(result) => verdict(&result),
        Err(_) => Err(UNREADABLE.to_owned()),
    }
}

/// Whether an answer is a yes; else in words what it is.
fn verdict(result: &ElicitResult) -> Result<(), String> {
    let trusts = || result.content.as_ref()?.get(TRUST)?.as_bool();
    if result.action == ElicitationAction::Accept && trusts() == Some(true) {
        return Ok(());
    }
    let words = match result.action == ElicitationAction::Cancel {
        true => "the user was asked and gave no answer",
        false => "the user was asked and does not trust the key",
    };
    Err(words.to_owned())
}

/// A client that declares elicitation and no mode of it means forms.
fn shows_forms(declared: Option<&ClientCapabilities>) -> bool {
    declared
        .and_then(|declared| declared.elicitation.as_ref())
        .is_some_and(|modes| modes.form.is_some() || modes.url.is_none())
}

const UNREADABLE: &str = "the user was asked and the answer cannot be read";

/// The name of the question among the inputs of a call, and of the flag in its form.
const QUESTION: &str = "host_key";
const TRUST: &str = "trust";

/// How long a call waits for the user.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How long a state counts: nothing waits meanwhile, so the user may take the time to look a fingerprint up.
const STATE_HOLDS: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
