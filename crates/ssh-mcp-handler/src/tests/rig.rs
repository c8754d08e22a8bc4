//! One engine, one scripted host, and calls to the tools as a client makes them.
//!
//! Every success is checked against the tool's own output schema, and for saying the same in both forms.

use std::sync::Arc;

use rmcp::model::{CallToolResponse, CallToolResult, ErrorData};
use serde_json::{Value, json};
use ssh_mcp_core::{owner::Owner, port::ssh::Connector, settings::Settings, text};
use ssh_mcp_engine::{Engine, Peer, Ports};
use ssh_mcp_testkit::{
    files::Shelf, host::ScriptedHost, mirror::ScriptedMirror, outlet::RecordedOutlet, serial::ScriptedBus,
    transcripts::ScriptedDisk,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Shared,
    asking::Asking,
    call::{self, Request},
    cx::Cx,
    outlet::Encodings,
    progress::Progress,
    push::{Push, Taker},
    resources::{self, Reader},
};

/// A server and what it talks to.
pub(crate) struct Rig {
    pub(crate) host: ScriptedHost,
    pub(crate) files: Shelf,
    pub(crate) mirror: ScriptedMirror,
    pub(crate) bus: ScriptedBus,
    pub(crate) shared: Arc<Shared>,
    pub(crate) owner: Owner,
    pub(crate) peer: Arc<Peer>,
    pub(crate) outlet: RecordedOutlet,
}

/// What a tool answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) text: String,
    pub(crate) facts: Value,
}

impl Rig {
    /// A host on which nothing exists, and default settings.
    pub(crate) fn new() -> Self {
        Self::with(ScriptedHost::new(), settings())
    }

    /// This host and these settings.
    pub(crate) fn with(host: ScriptedHost, settings: Settings) -> Self {
        Self::over(Arc::new(host.clone()), host, settings)
    }

    /// This way to hosts.
    pub(crate) fn over(connector: Arc<dyn Connector>, host: ScriptedHost, settings: Settings) -> Self {
        Self::keeping(ScriptedDisk::new(), connector, host, settings)
    }

    /// This disk.
    pub(crate) fn keeping(
        disk: ScriptedDisk,
        connector: Arc<dyn Connector>,
        host: ScriptedHost,
        settings: Settings,
    ) -> Self {
        let files = Shelf::new();
        let mirror = ScriptedMirror::new();
        let bus = ScriptedBus::new();
        let ports = Ports {
            connector,
            files: Arc::new(files.clone()),
            mirror: Arc::new(mirror.clone()),
            serial: Arc::new(bus.clone()),
            transcripts: Arc::new(disk),
        };
        let engine = Engine::start(Arc::new(settings), ports, 1);
        Self {
            host,
            files,
            mirror,
            bus,
            shared: Shared::new(engine),
            owner: Owner::local(),
            peer: Peer::new(),
            outlet: RecordedOutlet::new(),
        }
    }

    /// The same server as another owner sees it, over a connection of its own.
    pub(crate) fn as_owner(&self, name: &str) -> Self {
        Self {
            host: self.host.clone(),
            files: self.files.clone(),
            mirror: self.mirror.clone(),
            bus: self.bus.clone(),
            shared: Arc::clone(&self.shared),
            owner: Owner::token(name),
            peer: Peer::new(),
            outlet: RecordedOutlet::new(),
        }
    }

    pub(crate) fn cx(&self, cancelled: CancellationToken) -> Cx {
        Cx {
            engine: Arc::clone(&self.shared.engine),
            catalogue: Arc::clone(&self.shared.catalogue),
            owner: self.owner.clone(),
            push: Some(self.push()),
            progress: Progress::new(None, cancelled),
            asking: Asking::nobody(),
        }
    }

    /// How its client hears of its lanes.
    pub(crate) fn push(&self) -> Push {
        let encodings = Some(Encodings::Utf8);
        Push {
            peer: Arc::clone(&self.peer),
            outlet: Arc::new(self.outlet.clone()),
            encodings,
            taker: Taker::Client,
        }
    }

    /// The raw answer of a call.
    pub(crate) async fn raw(
        &self,
        tool: &str,
        arguments: Value,
        key: Option<Value>,
    ) -> Result<CallToolResult, ErrorData> {
        let arguments = arguments.as_object().unwrap().clone();
        let request = Request { tool, arguments, key: key.as_ref(), peer: "test" };
        call::call(&self.cx(CancellationToken::new()), &self.shared.keys, request).await.map(completed)
    }

    /// A call that works.
    pub(crate) async fn ok(&self, tool: &str, arguments: Value) -> Answered {
        let result = self.raw(tool, arguments, None).await.unwrap();
        assert_eq!(result.is_error, Some(false), "{tool}: {result:?}");
        let answered = Answered::of(&result);
        let entry = self.shared.catalogue.entries().iter().find(|entry| entry.row.name == tool).unwrap();
        let schema = Value::Object((entry.row.call.output)(entry.row.name));
        if let Err(fault) = conforms(&schema, &answered.facts, "answer") {
            panic!("{tool}: {fault}\n{:#}", answered.facts);
        }
        if let Some(fault) = only_in_facts(&answered) {
            panic!("{tool}: {fault} is not in the text\n{}", answered.text);
        }
        answered
    }

    /// A call that works, of a tool whose text is shorter than its structure.
    pub(crate) async fn loosely(&self, tool: &str, arguments: Value) -> Answered {
        let result = self.raw(tool, arguments, None).await.unwrap();
        assert_eq!(result.is_error, Some(false), "{tool}: {result:?}");
        Answered::of(&result)
    }

    /// A call that fails, and its code.
    pub(crate) async fn fails(&self, tool: &str, arguments: Value) -> Answered {
        let result = self.raw(tool, arguments, None).await.unwrap();
        assert_eq!(result.is_error, Some(true), "{tool}: {result:?}");
        let answered = Answered::of(&result);
        // A tool that is left out has no entry, and nobody knows its schema.
        if let Some(entry) = self.shared.catalogue.entries().iter().find(|entry| entry.row.name == tool) {
            let tool = self.shared.catalogue.shown(entry);
            let schema = &tool.output_schema.as_deref().unwrap()["anyOf"][1];
            for name in schema["required"].as_array().unwrap().iter().filter_map(Value::as_str) {
                conforms(&schema["properties"][name], &answered.facts[name], name).unwrap();
            }
        }
        let (code, reason) = (answered.fact("code"), answered.fact("reason"));
        assert!(answered.text.contains(&format!("REASON: [{code}] {reason}\n")), "{}", answered.text);
        assert!(answered.text.contains(&format!("DETAIL: {}", answered.fact("detail"))), "{}", answered.text);
        answered
    }

    /// A session to `ann@example.org`.
    pub(crate) async fn session(&self) -> String {
        let asked = json!({ "address": "example.org", "username": "ann", "reuse": "force_new" });
        self.ok("ssh_connect", asked).await.fact("session_id")
    }

    /// `resources/read`; the text, or the blob, and `_meta`.
    pub(crate) fn read(&self, uri: &str) -> Result<(String, Value), ErrorData> {
        let reader = Reader { engine: &self.shared.engine, owner: &self.owner, peer: Some(&self.peer) };
        let result = resources::read(&reader, uri)?;
        let [contents] = result.contents.as_slice() else { panic!("one item: {result:?}") };
        let contents = serde_json::to_value(contents).unwrap();
        let body = contents.get("text").or(contents.get("blob")).unwrap();
        assert_eq!(contents["uri"], uri);
        Ok((body.as_str().unwrap().to_owned(), contents["_meta"].clone()))
    }
}

impl Answered {
    pub(crate) fn of(result: &CallToolResult) -> Self {
        let text = result.content[0].as_text().unwrap().text.clone();
        Self { text, facts: result.structured_content.clone().unwrap() }
    }

    /// A structured fact that is a text.
    #[track_caller]
    pub(crate) fn fact(&self, name: &str) -> String {
        self.facts[name].as_str().unwrap_or_else(|| panic!("no {name} in {:#}", self.facts)).to_owned()
    }

    /// The header of the text.
    pub(crate) fn header(&self) -> &str {
        self.text.lines().next().unwrap()
    }
}

/// The answer of a call that asks nothing.
#[track_caller]
pub(crate) fn completed(response: CallToolResponse) -> CallToolResult {
    let CallToolResponse::Complete(result) = response else { panic!("no answer: {response:?}") };
    result
}

/// Settings with files that exist nowhere, so that no test reads the machine's own.
pub(crate) fn settings() -> Settings {
    Settings {
        known_hosts: Some("/nonexistent/known_hosts".into()),
        auth_sock: None,
        home: Some("/nonexistent".into()),
        ..Settings::default()
    }
}

/// Whether a value is what a schema of the forms we publish promises.
pub(crate) fn conforms(schema: &Value, value: &Value, path: &str) -> Result<(), String> {
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        other => return Err(format!("{path}: the schema has type {other:?}")),
    };
    if !fits {
        return Err(format!("{path}: {value} is no {}", schema["type"]));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!("{path}: {value} is not {}", schema["const"]));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Err(format!("{path}: {value} is none of {}", schema["enum"]));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            return Err(format!("{path}: {name} is missing"));
        }
    }
    if let (Some(properties), Some(fields)) = (schema["properties"].as_object(), value.as_object()) {
        for (name, field) in fields {
            let Some(property) = properties.get(name) else {
                return Err(format!("{path}: the schema has no {name}"));
            };
            conforms(property, field, &format!("{path}.{name}"))?;
        }
    }
    let items = value.as_array().into_iter().flatten();
    items.enumerate().try_for_each(|(at, item)| conforms(&schema["items"], item, &format!("{path}[{at}]")))
}

/// A structured fact whose value the text does not show; flags are shown as words of their own.
fn only_in_facts(answered: &Answered) -> Option<String> {
    fn missing(value: &Value, shown: &str) -> Option<String> {
        match value {
            Value::Null | Value::Bool(_) => None,
            Value::Number(number) => (!shown.contains(&number.to_string())).then(|| number.to_string()),
            Value::String(text) => {
                let one_line = text::one_line(text);
                let inside = shown.contains(&*one_line) || shown.contains(text.trim_end_matches('\n'));
                let cut = shown.to_lowercase().contains(&one_line.to_lowercase());
                (!inside && !cut).then(|| text.clone())
            }
            Value::Array(items) => items.iter().find_map(|item| missing(item, shown)),
            Value::Object(fields) => fields.values().find_map(|field| missing(field, shown)),
        }
    }
    let facts = answered.facts.as_object().unwrap();
    let told = facts.iter().filter(|(name, _)| !["warnings", "hint"].contains(&name.as_str()));
    let mut values = told.map(|(_, value)| value);
    values.find_map(|value| missing(value, &answered.text))
}
