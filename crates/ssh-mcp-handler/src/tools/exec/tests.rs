//! The command tools against a scripted host, in virtual time, through the path every `tools/call` takes.
//!
//! [`World::call`] holds each answer to its tool's output schema and compares its two channels where they say the same.

mod arguments;
mod batch;
mod cancel;
mod list;
mod output;
mod run;
mod start;
mod wire;

use std::{future::Future, ops::Deref, time::Duration};

use serde_json::{Value, json};
use ssh_mcp_core::{owner::Owner, settings::Settings};
use ssh_mcp_testkit::host::ScriptedHost;
use tokio_util::sync::CancellationToken;

use crate::{
    call::{self, Request},
    cx::Cx,
    tests::rig::{Rig, completed, conforms, settings},
};

const SECOND: Duration = Duration::from_secs(1);

/// A server in front of one host.
struct World(Rig);

impl Deref for World {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.0
    }
}

/// What a tool said.
struct Said {
    text: String,
    facts: Value,
    is_error: bool,
}

impl World {
    fn new(host: ScriptedHost) -> Self {
        Self::with(host, |_| {})
    }

    fn with(host: ScriptedHost, adapt: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        adapt(&mut settings);
        Self(Rig::with(host, settings))
    }

    /// Starts a command and gives its id.
    async fn started(&self, session: &str, command: &str) -> String {
        self.call("ssh_exec", json!({ "session_id": session, "command": command })).await.fact("command_id")
    }

    async fn call(&self, tool: &str, arguments: Value) -> Said {
        self.ask(Call { tool, arguments, ..Call::default() }).await
    }

    async fn ask(&self, call: Call<'_>) -> Said {
        let Call { tool, arguments, key, owner, cancelled } = call;
        let cx = Cx { owner, ..self.cx(cancelled) };
        let key = key.map(Value::from);
        let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
        let request = Request { tool, arguments, key: key.as_ref(), peer: "test" };
        let result = completed(call::call(&cx, &self.shared.keys, request).await.expect("a known tool"));
        let said = Said {
            text: result.content[0].as_text().unwrap().text.clone(),
            facts: result.structured_content.unwrap_or_default(),
            is_error: result.is_error.unwrap_or_default(),
        };
        self.check(tool, &said);
        said
    }

    /// What holds of every answer.
    fn check(&self, tool: &str, said: &Said) {
        if said.facts.is_null() {
            return;
        }
        let header = said.text.lines().next().unwrap_or_default();
        let status = said.facts["status"].as_str().unwrap().to_ascii_uppercase();
        assert_eq!(header, format!("{}: {status}", tool.to_ascii_uppercase()));
        assert_eq!(said.is_error, status == "ERROR");
        if said.is_error {
            return;
        }
        for key in ["session_id", "command_id", "agent_id", "ends_at", "exit_code", "ended_by", "exit_signal"]
        {
            if let Some(value) = said.facts.get(key) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let name = if key == "exit_code" { "EXIT".to_owned() } else { key.to_ascii_uppercase() };
                assert!(said.text.contains(&format!("\n{name}: {value}\n")), "{key} in {}", said.text);
            }
        }
        let Ok(entry) = self.shared.catalogue.find(tool) else { panic!("{tool} is listed") };
        let schema = Value::Object((entry.row.call.output)(entry.row.name));
        conforms(&schema, &said.facts, tool).unwrap();
    }
}

struct Call<'a> {
    tool: &'a str,
    arguments: Value,
    key: Option<&'a str>,
    owner: Owner,
    cancelled: CancellationToken,
}

impl Default for Call<'_> {
    fn default() -> Self {
        Self {
            tool: "",
            arguments: json!({}),
            key: None,
            owner: Owner::local(),
            cancelled: CancellationToken::new(),
        }
    }
}

impl Said {
    /// A structured field that is a text.
    fn fact(&self, name: &str) -> String {
        self.facts[name].as_str().unwrap_or_else(|| panic!("{name} in {}", self.facts)).to_owned()
    }

    fn status(&self) -> &str {
        self.facts["status"].as_str().unwrap()
    }

    /// The text with what differs from run to run replaced by its name.
    fn plain(&self) -> String {
        let mut text = self.text.clone();
        for name in ["session_id", "command_id", "started_at", "ends_at"] {
            if let Some(value) = self.facts[name].as_str() {
                text = text.replace(value, name);
            }
        }
        let nonce = text.lines().find(|line| line.starts_with("--- ")).and_then(|line| {
            let (_, rest) = line.split_once('[')?;
            Some(format!("[{}]", rest.split_once(']')?.0))
        });
        nonce.map_or(text.clone(), |nonce| text.replace(&nonce, "[nonce]"))
    }
}

/// Lets a call run until it waits for something, then does what is to come meanwhile.
async fn meanwhile<T>(call: impl Future<Output = T>, then: impl Future<Output = ()>) -> T {
    tokio::join!(call, async {
        // Virtual time moves on only when everything waits.
        tokio::time::sleep(Duration::from_millis(10)).await;
        then.await;
    })
    .0
}
