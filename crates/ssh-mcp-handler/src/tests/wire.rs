//! Both protocol eras on the wire: JSON-RPC lines through a pipe, as over standard input and output.

use std::{sync::Arc, time::Duration};

use rmcp::{ServiceExt, model::Extensions};
use serde_json::{Value, json};
use ssh_mcp_core::owner::Owner;
use ssh_mcp_testkit::host::ScriptedHost;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf},
    task::JoinSet,
};

use super::rig::{Rig, settings};
use crate::{Handler, Transport};

pub(crate) const LIST: &str = "notifications/resources/list_changed";

/// A client that writes and reads lines.
pub(crate) struct Client {
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    input: WriteHalf<DuplexStream>,
    /// Ends with the client.
    _server: JoinSet<()>,
    next: u64,
    /// What came besides answers and [`LIST`].
    pub(crate) notifications: Vec<Value>,
    pub(crate) lists: Vec<Value>,
    /// What the client declares of itself.
    capabilities: Value,
    /// `_meta` that each request carries.
    meta: Value,
}

impl Client {
    fn connect(rig: &Rig) -> Self {
        Self::over(rig, Transport::Stdio)
    }

    /// The handler does not see what carries its lines, only what it is told of it.
    fn over(rig: &Rig, transport: Transport) -> Self {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let handler = Handler::new(Arc::clone(&rig.shared), transport);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let service = handler.serve(theirs).await.unwrap();
            _ = service.waiting().await;
        });
        let (output, input) = tokio::io::split(ours);
        let lines = BufReader::new(output).lines();
        Self {
            lines,
            input,
            _server: server,
            next: 0,
            notifications: Vec::new(),
            lists: Vec::new(),
            capabilities: json!({}),
            meta: json!({}),
        }
    }

    /// A client of the era with `initialize`.
    pub(crate) async fn legacy(rig: &Rig, version: &str) -> (Self, Value) {
        Self::connect(rig).initialized(version).await
    }

    async fn initialized(self, version: &str) -> (Self, Value) {
        let mut client = self;
        let params = json!({
            "protocolVersion": version, "capabilities": client.capabilities, "clientInfo": { "name": "t", "version": "1" },
        });
        let answer = client.ask("initialize", params).await;
        client.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        (client, answer["result"].clone())
    }

    /// The same, declaring these capabilities.
    pub(crate) async fn legacy_declaring(rig: &Rig, capabilities: Value) -> Self {
        let mut client = Self::connect(rig);
        client.capabilities = capabilities;
        client.initialized("2025-11-25").await.0
    }

    /// A client of the era without.
    pub(crate) fn modern(rig: &Rig) -> Self {
        Self::connect(rig).without_handshake()
    }

    fn without_handshake(self) -> Self {
        let mut client = self;
        client.meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": client.capabilities,
        });
        client
    }

    /// A client whose requests stand alone.
    pub(crate) fn over_http_alone(rig: &Rig) -> Self {
        Self::over(rig, Transport::HttpStateless).without_handshake()
    }

    /// Clients that take bytes in notifications.
    pub(crate) async fn legacy_inline(rig: &Rig) -> Self {
        Self::legacy_declaring(rig, inline()).await
    }

    pub(crate) fn modern_inline(rig: &Rig) -> Self {
        let mut client = Self::connect(rig);
        client.capabilities = inline();
        client.without_handshake()
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    pub(crate) async fn request(&mut self, method: &str, mut params: Value) -> u64 {
        self.next += 1;
        let meta = params["_meta"].as_object().cloned().unwrap_or_default();
        let mut all = self.meta.as_object().unwrap().clone();
        all.extend(meta);
        if !all.is_empty() {
            params["_meta"] = Value::Object(all);
        }
        let id = self.next;
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        id
    }

    pub(crate) async fn answer(&mut self, id: u64) -> Value {
        loop {
            let line = self.lines.next_line().await.unwrap().expect("the server hung up");
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["id"] == id {
                return message;
            }
            self.note(message);
        }
    }

    /// That a list has changed is told between anything, so it is kept apart.
    fn note(&mut self, message: Value) {
        match message["method"] == LIST {
            true => self.lists.push(message),
            false => self.notifications.push(message),
        }
    }

    /// The next notification of a method; others that come before it are kept.
    pub(crate) async fn notification(&mut self, method: &str) -> Value {
        loop {
            let kept = if method == LIST { &mut self.lists } else { &mut self.notifications };
            if let Some(at) = kept.iter().position(|message| message["method"] == method) {
                return kept.remove(at);
            }
            let line = self.lines.next_line().await.unwrap().expect("the server hung up");
            self.note(serde_json::from_str(&line).unwrap());
        }
    }

    /// Whatever comes within so long.
    pub(crate) async fn listen_for(&mut self, time: Duration) {
        while let Ok(line) = tokio::time::timeout(time, self.lines.next_line()).await {
            self.note(serde_json::from_str(&line.unwrap().expect("the server hung up")).unwrap());
        }
    }

    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params).await;
        self.answer(id).await
    }

    pub(crate) async fn call(&mut self, tool: &str, arguments: Value, meta: Value) -> Value {
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments, "_meta": meta })).await["result"]
            .clone()
    }
}

fn inline() -> Value {
    json!({ "experimental": { "ssh_inline_push": { "version": "1", "encodings": ["base64", "utf8"] } } })
}

fn to_example() -> Value {
    json!({ "address": "h", "username": "u", "reuse": "force_new" })
}

fn capabilities() -> Value {
    let inline =
        json!({ "version": "1", "max_bytes_per_notify": 32768, "schemes": ["shell", "command", "serial"] });
    json!({ "tools": {}, "resources": { "subscribe": true, "listChanged": true }, "prompts": {}, "completions": {},
        "experimental": { "ssh_inline_push": inline } })
}

#[tokio::test]
async fn an_old_client_is_served_in_its_own_words() {
    let rig = Rig::new();
    for version in ["2025-06-18", "2025-11-25"] {
        let (mut client, hello) = Client::legacy(&rig, version).await;
        assert_eq!(hello["protocolVersion"], version);
        assert_eq!(hello["capabilities"], capabilities());
        let info = &hello["serverInfo"];
        assert_eq!((&info["name"], &info["icons"][0]["sizes"]), (&json!("ssh-mcp"), &json!(["any"])));
        assert!(!info["icons"][0]["src"].as_str().unwrap().contains([' ', '"', '<', '>']), "no URI: {info}");
        for field in ["version", "title", "description"] {
            assert!(info[field].is_string(), "{field}");
        }
        assert!(hello["instructions"].as_str().unwrap().len() <= 2048);

        assert_eq!(client.ask("ping", json!({})).await["result"], json!({}));
        assert_eq!(client.ask("logging/setLevel", json!({ "level": "debug" })).await["result"], json!({}));
        let listed = client.ask("tools/list", json!({})).await["result"].clone();
        assert_eq!(listed["tools"].as_array().unwrap().len(), crate::tools::rows().count());
        assert_eq!(listed["tools"][0]["name"], "ssh_connect");
        let connected = client.call("ssh_connect", to_example(), json!({})).await;
        assert_eq!((&connected["isError"], connected.get("resultType")), (&json!(false), None));
        let resources = client.ask("resources/list", json!({})).await["result"].clone();
        let uri = resources["resources"][0]["uri"].clone();
        let read = client.ask("resources/read", json!({ "uri": uri })).await["result"].clone();
        assert_eq!(read["contents"][0]["_meta"]["status"], "healthy");
        let missing = client.ask("resources/read", json!({ "uri": "shell://x/output" })).await;
        assert_eq!(missing["error"]["code"], -32002);
        let templates = client.ask("resources/templates/list", json!({})).await["result"].clone();
        assert!(!templates["resourceTemplates"].as_array().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_new_client_needs_no_handshake() {
    let rig = Rig::new();
    let mut client = Client::modern(&rig);
    let hello = client.ask("server/discover", json!({})).await["result"].clone();
    assert!(hello["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")), "{hello}");
    assert_eq!(hello["capabilities"], capabilities());
    assert_eq!(hello["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "ssh-mcp");
    assert_eq!(client.ask("logging/setLevel", json!({ "level": "debug" })).await["error"]["code"], -32601);
    for gone in ["initialize", "resources/subscribe", "resources/unsubscribe"] {
        assert_eq!(client.ask(gone, json!({})).await["error"]["code"], -32601, "{gone}");
    }

    let listed = client.ask("tools/list", json!({})).await["result"].clone();
    assert_eq!((&listed["resultType"], &listed["cacheScope"]), (&json!("complete"), &json!("public")));
    let connected = client.call("ssh_connect", to_example(), json!({})).await;
    assert_eq!(connected["structuredContent"]["status"], "ok", "{connected}");
    let missing = client.ask("resources/read", json!({ "uri": "shell://x/output" })).await;
    assert_eq!(
        (&missing["error"]["code"], &missing["error"]["data"]["code"]),
        (&json!(-32602), &json!("RESOURCE_NOT_FOUND"))
    );
}

#[tokio::test]
async fn what_cannot_be_routed_is_a_protocol_error() {
    let rig = Rig::new();
    let (mut client, _) = Client::legacy(&rig, "2025-11-25").await;
    let unknown = client.ask("tools/call", json!({ "name": "nope", "arguments": {} })).await;
    assert_eq!((&unknown["error"]["code"], unknown.get("result")), (&json!(-32602), None));
    for unknown in ["no/such/method", "subscriptions/listen"] {
        assert_eq!(client.ask(unknown, json!({})).await["error"]["code"], -32601, "{unknown}");
    }
    for list in ["tools/list", "resources/templates/list", "resources/list", "prompts/list"] {
        let answer = client.ask(list, json!({ "cursor": "nonsense" })).await;
        assert_eq!(
            (&answer["error"]["code"], &answer["error"]["data"]["field"]),
            (&json!(-32602), &json!("cursor")),
            "{list}"
        );
    }
    for (method, params, field) in [
        ("tools/call", json!({ "name": 5 }), "name"),
        ("tools/call", json!({}), "name"),
        ("tools/call", json!({ "name": "ssh_sessions", "arguments": [1] }), "arguments"),
        ("resources/read", json!({ "uri": 5 }), "uri"),
        ("resources/read", json!({}), "uri"),
        ("prompts/get", json!({ "name": 5 }), "name"),
        ("prompts/get", json!({}), "name"),
        ("prompts/get", json!({ "name": "cleanup_agent", "arguments": "a" }), "arguments"),
        ("prompts/get", json!({ "name": "nope" }), "name"),
        ("prompts/get", json!({ "name": "cleanup_agent" }), "agent_id"),
        ("completion/complete", json!({}), "ref"),
        ("completion/complete", json!({ "ref": { "type": "ref/tool", "name": "a" } }), "ref"),
        ("completion/complete", json!({ "ref": prompt() }), "argument"),
        ("completion/complete", json!({ "ref": prompt(), "argument": { "name": "agent_id" } }), "argument"),
        ("completion/complete", about_agents(json!(5)), "context"),
    ] {
        let answer = client.ask(method, params.clone()).await;
        let error = &answer["error"];
        assert_eq!(
            (&error["code"], &error["data"]["field"]),
            (&json!(-32602), &json!(field)),
            "{method} {params}"
        );
    }
    // Bad arguments are for the model to see.
    assert_eq!(client.call("ssh_connect", json!({ "address": 5 }), json!({})).await["isError"], true);
}

fn prompt() -> Value {
    json!({ "type": "ref/prompt", "name": "cleanup_agent" })
}

fn about_agents(context: Value) -> Value {
    json!({ "ref": prompt(), "argument": { "name": "agent_id", "value": "" }, "context": context })
}

#[tokio::test]
async fn prompts_and_completion_are_the_same_in_both_eras() {
    let rig = Rig::new();
    rig.ok("ssh_connect", json!({ "address": "h", "username": "u", "agent_id": "mine" })).await;
    let bob = rig.as_owner("bob");
    bob.ok("ssh_connect", json!({ "address": "h", "username": "u", "agent_id": "foreign" })).await;
    let (old, _) = Client::legacy(&rig, "2025-11-25").await;
    for mut client in [old, Client::modern(&rig)] {
        let listed = client.ask("prompts/list", json!({})).await["result"].clone();
        assert_eq!((&listed["ttlMs"], &listed["cacheScope"]), (&json!(3_600_000), &json!("public")));
        let shown = listed["prompts"].as_array().unwrap();
        let row = shown.iter().find(|row| row["name"] == "cleanup_agent").unwrap();
        assert_eq!(
            (&row["arguments"][0]["name"], &row["arguments"][0]["required"]),
            (&json!("agent_id"), &json!(true))
        );

        let filled = json!({ "name": "cleanup_agent", "arguments": { "agent_id": "mine" } });
        let got = client.ask("prompts/get", filled).await["result"].clone();
        assert_eq!((&got["description"], &got["messages"][0]["role"]), (&row["description"], &json!("user")));
        let text = got["messages"][0]["content"]["text"].as_str().unwrap();
        assert!(text.contains(r#"ssh_disconnect_agent(agent_id="mine")"#), "{text}");

        let offered = client.ask("completion/complete", about_agents(json!({ "arguments": {} }))).await;
        assert_eq!(
            offered["result"]["completion"],
            json!({ "values": ["mine"], "total": 1, "hasMore": false }),
            "{offered}"
        );
    }
}

#[tokio::test]
async fn a_key_in_the_meta_is_honoured_in_both_eras() {
    let rig = Rig::new();
    let (mut old, _) = Client::legacy(&rig, "2025-11-25").await;
    let mut new = Client::modern(&rig);
    let key = json!({ "idempotency_key": "k1" });
    let first = old.call("ssh_connect", to_example(), key.clone()).await;
    let again = old.call("ssh_connect", to_example(), key.clone()).await;
    assert_eq!(first, again);
    let elsewhere = new.call("ssh_connect", to_example(), key).await;
    assert_eq!(first["structuredContent"], elsewhere["structuredContent"]);
    assert_eq!(rig.host.connects(), 1);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_to_who_asks_and_never_falls() {
    let host = ScriptedHost::new().with_connect_time(Duration::from_secs(22));
    let rig = Rig::with(host, settings());
    let (mut client, _) = Client::legacy(&rig, "2025-11-25").await;
    client.call("ssh_connect", to_example(), json!({ "progressToken": "p1" })).await;
    let of_progress = |client: &Client| -> Vec<Value> {
        let all = client.notifications.iter();
        all.filter(|message| message["method"] == "notifications/progress")
            .map(|message| message["params"].clone())
            .collect()
    };
    let told = of_progress(&client);
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(
        told.iter().all(|params| params["progressToken"] == "p1" && params["message"] == "connecting"),
        "{told:?}"
    );
    let progress: Vec<f64> = told.iter().map(|params| params["progress"].as_f64().unwrap()).collect();
    assert!(progress.is_sorted(), "{progress:?}");

    client.notifications.clear();
    client.call("ssh_connect", to_example(), json!({})).await;
    assert_eq!(of_progress(&client), [json!(null); 0]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_connect_stops_and_the_connection_goes_on() {
    let host = ScriptedHost::new().with_connect_time(Duration::from_secs(20));
    let rig = Rig::with(host, settings());
    let (mut client, _) = Client::legacy(&rig, "2025-11-25").await;
    let id = client.request("tools/call", json!({ "name": "ssh_connect", "arguments": to_example() })).await;
    client.ask("ping", json!({})).await;
    let params = json!({ "requestId": id, "reason": "enough" });
    client.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params })).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(rig.shared.engine.registries().sessions.is_empty());
    assert_eq!(client.ask("ping", json!({})).await["result"], json!({}));
    assert_eq!(rig.host.connects(), 1);
}

#[tokio::test]
async fn automatic_cursors_live_as_long_as_the_connection_and_no_request_has_one() {
    let rig = Rig::new();
    let session = rig.session().await.parse().unwrap();
    let shell = super::reading::shell_on(&rig, session).await;
    let engine = &rig.shared.engine;
    _ = engine.await_shell_bytes(&shell, 0, 2, Duration::from_secs(5)).await;
    let uri = format!("shell://{}/output?cursor=auto", shell.spec.id);
    let read_twice = async |client: &mut Client| {
        let mut texts = Vec::new();
        for _ in 0..2 {
            let answer = client.ask("resources/read", json!({ "uri": uri })).await;
            let contents = answer["result"]["contents"][0].clone();
            texts.push((contents["text"].clone(), contents["_meta"]["cursor_scope"].clone()));
        }
        texts
    };
    let remembered = [(json!("$ "), Value::Null), (json!(""), Value::Null)];
    let alone = [(json!("$ "), json!("none")), (json!("$ "), json!("none"))];

    for transport in [Transport::Stdio, Transport::HttpSession] {
        let (mut old, _) = Client::over(&rig, transport).initialized("2025-11-25").await;
        assert_eq!(read_twice(&mut old).await, remembered, "{transport:?}");
    }
    assert_eq!(read_twice(&mut Client::modern(&rig)).await, remembered);
    let (mut old, _) = Client::over(&rig, Transport::HttpStateless).initialized("2025-11-25").await;
    assert_eq!(read_twice(&mut old).await, alone);
    for transport in [Transport::HttpSession, Transport::HttpStateless] {
        let mut new = Client::over(&rig, transport).without_handshake();
        assert_eq!(read_twice(&mut new).await, alone, "{transport:?}");
    }
}

#[test]
fn a_request_belongs_to_whom_the_front_found_out() {
    let mut parts = http::Request::new(()).into_parts().0;
    parts.extensions.insert(Owner::token("ann"));
    let mut request = Extensions::new();
    assert_eq!(crate::owner(&request), Owner::local());
    request.insert(parts);
    assert_eq!(crate::owner(&request), Owner::token("ann"));
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_its_sessions() {
    let rig = Rig::new();
    let (mut client, _) = Client::legacy(&rig, "2025-11-25").await;
    client.call("ssh_connect", to_example(), json!({})).await;
    drop(client);
    assert_eq!(rig.ok("ssh_sessions", json!({})).await.facts["total"], 1);
}
