//! The product over HTTP against a real OpenSSH server: whose is what, and how it stops.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use serde_json::{Value, json};

use crate::client::binary;
use crate::sshd::{ClientKey, OpenSshd, Options, User, processes};

/// `ssh-mcp` as a child, on a port of its own.
pub(crate) struct Product {
    child: Child,
    address: String,
    /// Reads what it logs to the end, because it waits for whoever reads that; the answer is all of it.
    log: Option<JoinHandle<String>>,
    _home: tempfile::TempDir,
}

impl Product {
    /// Starts it on a free port of loopback.
    pub(crate) fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut child = Command::new(binary("ssh-mcp"))
            .args(["--bind", "127.0.0.1:0"])
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(" listening ") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
        }
        let address = line.split("addr=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        let log = std::thread::spawn(move || {
            let mut rest = String::new();
            _ = log.read_to_string(&mut rest);
            rest
        });
        Self { child, address, log: Some(log), _home: home }
    }

    /// One request without a session; the status, and the JSON of the body if it is any.
    fn post(&self, token: Option<&str>, message: &Value) -> (u16, Value) {
        let body = message.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let authorization =
            token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: {}\r\n{authorization}connection: close\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let json = answer.find('{').and_then(|from| {
            let to = answer.rfind('}')? + 1;
            serde_json::from_str(answer.get(from..to)?).ok()
        });
        (status, json.unwrap_or_default())
    }

    fn request(&self, token: Option<&str>, method: &str, params: Value) -> Value {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let (status, answer) = self.post(token, &message);
        assert_eq!(status, 200, "{method}: {answer}");
        answer
    }

    /// A tool's structured answer.
    fn call(&self, token: Option<&str>, tool: &str, arguments: Value) -> Value {
        let answer = self.request(token, "tools/call", json!({"name": tool, "arguments": arguments}));
        answer["result"]["structuredContent"].clone()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // It may have ended in the test.
        _ = self.child.kill();
        _ = self.child.wait();
        if std::thread::panicking()
            && let Some(Ok(log)) = self.log.take().map(JoinHandle::join)
        {
            eprintln!("--- the server said:\n{log}\n---");
        }
    }
}

fn login(server: &OpenSshd) -> Value {
    json!({"address": server.addr().to_string(), "username": User::Tester.name(),
        "key_path": server.client_key(ClientKey::Ed25519).to_str().unwrap()})
}

#[test]
fn a_caller_from_elsewhere_is_not_lent_the_agent_and_no_core_is_dumped() {
    let token = "0123456789abcdef-token";
    // The agent that is named need not be there.
    let env = [("MCP_AUTH_TOKEN", token), ("SSH_AUTH_SOCK", "/nonexistent/agent")];
    let product = Product::start(&[], &env);
    let ask = |token, call| product.call(token, "ssh_connect", call)["code"].clone();
    let lend = json!({"target": "u@127.0.0.1:1", "forward_agent": true, "max_retries": 0});
    let by_flag = json!({"target": "u@127.0.0.1:1", "extra_ssh_args": ["-A"], "max_retries": 0});
    for call in [lend, by_flag] {
        assert_eq!(ask(Some(token), call.clone()), "INVALID_ARGUMENT", "{call}");
        assert_eq!(ask(None, call.clone()), "CONNECTION_FAILED", "{call}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", product.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}

#[test]
fn what_belongs_to_one_token_does_not_exist_for_another() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "alice:0123456789abcdef-alice\nbob:0123456789abcdef-bob\n").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&tokens, private).unwrap();
    let key = server.client_key(ClientKey::Ed25519);
    let keys = key.parent().unwrap().to_str().unwrap().to_owned();
    let args = ["--require-token", "--auth-token-file", tokens.to_str().unwrap()];
    let product = Product::start(&args, &[("SSH_MCP_ALLOW_LOCAL_PATHS", &keys)]);
    let (alice, bob) = (Some("0123456789abcdef-alice"), Some("0123456789abcdef-bob"));

    let nobody = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    assert_eq!(product.post(None, &nobody).0, 401);

    let connected = product.call(alice, "ssh_connect", login(&server));
    assert_eq!(connected["status"], "ok", "{connected}");
    let session = &connected["session_id"];
    let started = product.call(alice, "ssh_exec", json!({"session_id": session, "command": "sleep 100"}));
    let command = &started["command_id"];
    let opened = product.call(alice, "ssh_shell_open", json!({"session_id": session}));
    let shell = &opened["shell_id"];

    assert_eq!(product.call(bob, "ssh_sessions", json!({}))["count"], 0);
    assert_eq!(product.call(bob, "ssh_commands", json!({}))["count"], 0);
    assert_eq!(product.call(bob, "ssh_resources", json!({"include_ended": true}))["count"], 0);
    let listed = product.request(bob, "resources/list", json!({}));
    assert_eq!(listed["result"]["resources"], json!([]));
    let refusals = [
        ("ssh_exec", json!({"session_id": session, "command": "true"}), "SESSION_NOT_FOUND"),
        ("ssh_disconnect", json!({"session_id": session}), "SESSION_NOT_FOUND"),
        ("ssh_exec_output", json!({"command_id": command}), "COMMAND_NOT_FOUND"),
        ("ssh_exec_cancel", json!({"command_id": command}), "COMMAND_NOT_FOUND"),
        ("ssh_shell_read", json!({"shell_id": shell}), "SHELL_NOT_FOUND"),
        ("ssh_shell_write", json!({"shell_id": shell, "input": "x"}), "SHELL_NOT_FOUND"),
        ("ssh_shell_close", json!({"shell_id": shell}), "SHELL_NOT_FOUND"),
    ];
    for (tool, arguments, code) in refusals {
        let refused = product.call(bob, tool, arguments);
        assert_eq!(refused["code"], code, "{tool}: {refused}");
        assert!(!refused.to_string().contains("closest"), "{tool} names what is not bob's: {refused}");
    }
    let read = json!({"uri": format!("command://{}/output", command.as_str().unwrap())});
    assert_eq!(product.request(bob, "resources/read", read)["error"]["data"]["code"], "RESOURCE_NOT_FOUND");
    // Bob's own session to the same place is another one, and alice's is still there.
    let mut own = login(&server);
    own["reuse"] = "auto".into();
    assert_eq!(product.call(bob, "ssh_connect", own)["status"], "ok");
    assert_eq!(product.call(alice, "ssh_sessions", json!({}))["count"], 1);

    // Files of the server's machine are named only below what the operator opened.
    let mut foreign = login(&server);
    foreign["key_path"] = "/etc/passwd".into();
    let refused = product.call(alice, "ssh_connect", foreign);
    assert_eq!(refused["code"], "INVALID_ARGUMENT", "{refused}");
}

#[test]
fn a_signal_ends_everything_in_order() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    for signal in ["TERM", "INT", "HUP"] {
        let mut product = Product::start(&[], &[]);
        let connected = product.call(None, "ssh_connect", login(&server));
        let mark = format!("298.{}{}", std::process::id(), signal.len());
        let sleep =
            json!({"session_id": connected["session_id"], "command": format!("sleep {mark}; true {signal}")});
        assert_eq!(product.call(None, "ssh_exec", sleep)["status"], "started");
        product.signal(signal);
        let status = product.wait();
        assert_eq!(status.code(), Some(0), "{signal}");
        let gone =
            processes::wait_until(Duration::from_secs(5), || processes::processes_matching(&mark).is_empty());
        assert!(gone, "{signal}");
    }
}

#[test]
fn a_client_that_vanishes_leaves_its_command_and_no_waiting_call() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let product = Product::start(&[], &[]);
    let connected = product.call(None, "ssh_connect", login(&server));
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "ssh_exec", "arguments":
        {"session_id": connected["session_id"], "command": "sleep 3; echo done", "wait": true, "wait_timeout_secs": 300}}});
    let body = call.to_string();
    let mut stream = TcpStream::connect(&product.address).unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        product.address,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let running = || product.call(None, "ssh_commands", json!({"status": "running"}))["commands"].clone();
    assert!(processes::wait_until(Duration::from_secs(10), || running()
        .as_array()
        .is_some_and(|all| all.len() == 1)));
    let command = running()[0]["command_id"].clone();
    drop(stream);
    let wait = json!({"command_id": command, "wait": true});
    let ended = product.call(None, "ssh_exec_output", wait);
    assert_eq!((&ended["status"], &ended["stdout"]), (&json!("completed"), &json!("done\n")), "{ended}");
    // Nothing waits any more: the resource is unobserved.
    let listed = product.call(None, "ssh_resources", json!({"kind": "command", "include_ended": true}));
    assert_eq!(listed["resources"][0]["observers"], 0, "{listed}");
}
