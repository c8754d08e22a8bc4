//! Idempotency keys: of all calls with one key one runs, the others get its answer (`docs/tools.md`, "Idempotency").
//!
//! Keys belong to an owner and a tool. Answers with an error are not kept: a retry is meant to retry.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use rmcp::model::{CallToolResult, JsonObject};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use ssh_mcp_core::{
    code::Code,
    flight::{Claimed, Flights, KeyedRun, Wait},
    owner::Owner,
    settings::Settings,
};

use crate::failure::Failure;

/// The answers that are kept for replay.
pub(crate) struct Idempotency(Arc<Flights<Key, Digest, Arc<CallToolResult>>>);

/// Whose call of which tool under which name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    owner: Owner,
    tool: &'static str,
    key: String,
}

/// What a call with a key does.
pub(crate) enum Claim {
    /// Its work; the answer goes to [`Duty::complete`].
    Run(Duty),
    /// Wait for the first call with [`outcome`].
    Wait(Wait<Arc<CallToolResult>>),
    /// This answer, as it was.
    Replay(Arc<CallToolResult>),
    /// Nothing.
    Refuse(Failure),
}

/// The duty to run; dropping it forgets the key.
pub(crate) struct Duty(KeyedRun<Key, Digest, Arc<CallToolResult>>);

pub(crate) type Digest = [u8; 32];

/// Bytes of a key at most.
const LONGEST: usize = 256;

impl Idempotency {
    /// No answers yet.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self(Flights::new(settings.idempotency_ttl, settings.idempotency_entries))
    }

    /// What a call under `key` is to do. `now` is the engine's clock.
    pub(crate) fn claim(
        &self,
        owner: &Owner,
        tool: &'static str,
        key: &str,
        arguments: &JsonObject,
        now: Duration,
    ) -> Claim {
        if key.len() > LONGEST {
            let failure = Failure::new(Code::IdempotencyKeyTooLong, "the idempotency key is too long");
            return Claim::Refuse(failure.with_context(format!("bytes={}", key.len())));
        }
        let key = Key { owner: owner.clone(), tool, key: key.to_owned() };
        match self.0.claim(key, digest(arguments), now) {
            Claimed::Run(run) => Claim::Run(Duty(run)),
            Claimed::Wait(wait) => Claim::Wait(wait),
            Claimed::Replay(result) => Claim::Replay(result),
            Claimed::OtherDigest => Claim::Refuse(Failure::new(
                Code::IdempotencyKeyMismatch,
                "the idempotency key was used with other arguments",
            )),
        }
    }
}

impl Duty {
    /// Keeps a success for replay; an error is forgotten with its key.
    pub(crate) fn complete(self, result: &CallToolResult, now: Duration) {
        if result.is_error != Some(true) {
            self.0.complete(Arc::new(result.clone()), now);
        }
    }
}

/// The first call's answer, once it has one.
///
/// # Errors
/// `IDEMPOTENCY_IN_PROGRESS` where it ended without one that can be replayed.
pub(crate) async fn outcome(wait: &Wait<Arc<CallToolResult>>) -> Result<Arc<CallToolResult>, Failure> {
    wait.outcome().await.ok_or_else(|| {
        let reason = "the first call with this key ended without an answer that can be replayed";
        Failure::new(Code::IdempotencyInProgress, reason)
    })
}

/// A digest of the arguments in which neither the order of names nor white space counts.
pub(crate) fn digest(arguments: &JsonObject) -> Digest {
    let mut text = String::new();
    canonical_object(arguments, &mut text);
    Sha256::digest(text.as_bytes()).into()
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(object) => canonical_object(object, text),
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => _ = write!(text, "{value}"),
    }
}

fn canonical_object(object: &JsonObject, text: &mut String) {
    let mut fields: Vec<_> = object.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    text.push('{');
    for (name, value) in fields {
        _ = write!(text, "{}:", Value::from(name.as_str()));
        canonical(value, text);
        text.push(',');
    }
    text.push('}');
}

#[cfg(test)]
mod tests {
    use rmcp::model::ContentBlock;
    use serde_json::json;

    use super::*;

    fn arguments(value: Value) -> JsonObject {
        value.as_object().unwrap().clone()
    }

    fn done(text: &str) -> CallToolResult {
        CallToolResult::success(vec![ContentBlock::text(text)])
    }

    fn claim(keys: &Idempotency, key: &str, value: Value) -> Claim {
        keys.claim(&Owner::local(), "ssh_exec", key, &arguments(value), Duration::ZERO)
    }

    #[test]
    fn equal_arguments_have_one_digest_and_others_another() {
        let same =
            [json!({"a": 1, "b": {"c": [1, 2], "d": "x"}}), json!({"b": {"d": "x", "c": [1, 2]}, "a": 1})];
        assert_eq!(digest(&arguments(same[0].clone())), digest(&arguments(same[1].clone())));
        let others = [
            json!({}),
            json!({"a": "1"}),
            json!({"a": [1]}),
            json!({"a": 1, "b": null}),
            json!({"a": ",b:"}),
        ];
        let mut seen: Vec<Digest> = others.into_iter().map(|other| digest(&arguments(other))).collect();
        seen.push(digest(&arguments(same[0].clone())));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn a_success_is_replayed_and_another_use_of_the_key_refused() {
        let keys = Idempotency::new(&Settings::default());
        let Claim::Run(duty) = claim(&keys, "k", json!({"a": 1})) else { panic!("the first runs") };
        duty.complete(&done("once"), Duration::ZERO);
        let Claim::Replay(replayed) = claim(&keys, "k", json!({"a": 1})) else {
            panic!("the second is replayed")
        };
        assert_eq!(*replayed, done("once"));
        let Claim::Refuse(failure) = claim(&keys, "k", json!({"a": 2})) else { panic!("other arguments") };
        assert_eq!(failure.code, Code::IdempotencyKeyMismatch);
    }

    #[test]
    fn keys_of_other_owners_and_tools_are_other_keys() {
        let keys = Idempotency::new(&Settings::default());
        let Claim::Run(_first) = claim(&keys, "k", json!({})) else { panic!("the first runs") };
        let (owner, none) = (Owner::token("ann"), JsonObject::new());
        assert!(matches!(keys.claim(&owner, "ssh_exec", "k", &none, Duration::ZERO), Claim::Run(_)));
        assert!(matches!(keys.claim(&Owner::local(), "ssh_run", "k", &none, Duration::ZERO), Claim::Run(_)));
    }

    #[tokio::test]
    async fn an_error_is_not_kept_and_who_waits_is_told() {
        let keys = Idempotency::new(&Settings::default());
        let Claim::Run(duty) = claim(&keys, "k", json!({})) else { panic!("the first runs") };
        let Claim::Wait(wait) = claim(&keys, "k", json!({})) else { panic!("the second waits") };
        duty.complete(&CallToolResult::error(vec![]), Duration::ZERO);
        assert_eq!(outcome(&wait).await.unwrap_err().code, Code::IdempotencyInProgress);
        assert!(matches!(claim(&keys, "k", json!({})), Claim::Run(_)));
    }

    #[test]
    fn keys_have_an_end_of_life_and_a_longest() {
        let keys = Idempotency::new(&Settings::default());
        let Claim::Run(duty) = claim(&keys, "k", json!({})) else { panic!("the first runs") };
        duty.complete(&done("once"), Duration::ZERO);
        let later = Settings::default().idempotency_ttl;
        let again = keys.claim(&Owner::local(), "ssh_exec", "k", &JsonObject::new(), later);
        assert!(matches!(again, Claim::Run(_)));
        let Claim::Refuse(failure) = claim(&keys, &"k".repeat(257), json!({})) else { panic!("too long") };
        assert_eq!(failure.code, Code::IdempotencyKeyTooLong);
    }
}
