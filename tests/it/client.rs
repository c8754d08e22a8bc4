//! A small MCP client that drives a binary over its standard streams: one JSON-RPC message per line.
//!
//! Not an SDK on purpose: tests see every field as it was on the wire, can send what no SDK would, and speak
//! both eras ([`Era`]). One value owns one child process; dropping it kills the child.
//!
//! Other people's clients drive the same binaries elsewhere; HTTP has its own test client.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

/// Which of MCP's two eras the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// `initialize` with this revision, then bare requests.
    Legacy(&'static str),
    /// No handshake: revision, client and capabilities ride in each request's `_meta`.
    Modern(&'static str),
}

impl Era {
    /// The revision most hosts speak.
    pub(crate) const LEGACY_2025_06: Self = Self::Legacy("2025-06-18");
    /// The last revision with a handshake.
    pub(crate) const LEGACY_2025_11: Self = Self::Legacy("2025-11-25");
    /// The first revision without one.
    pub(crate) const MODERN: Self = Self::Modern("2026-07-28");
    /// One of each kind, for tests that hold in both.
    pub(crate) const BOTH: [Self; 2] = [Self::LEGACY_2025_11, Self::MODERN];
}

/// The answer of a tool: `text` is what a model reads, `structured` what a program reads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolAnswer {
    /// The tool reports a failure.
    pub(crate) is_error: bool,
    /// All text blocks, joined by line ends.
    pub(crate) text: String,
    /// `structuredContent`, or null where there is none.
    pub(crate) structured: Value,
}

/// A JSON-RPC error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RpcError {
    /// The number, for example -32602.
    pub(crate) code: i64,
    /// The sentence.
    pub(crate) message: String,
    /// `data`, or null.
    pub(crate) data: Value,
}

/// One child process and the conversation with it; calls may be made at the same time.
pub(crate) struct McpClient {
    era: Era,
    child: Child,
    /// Dropping it closes the child's standard input, after what is queued.
    input: Option<mpsc::Sender<String>>,
    next_id: AtomicI64,
    heard: Arc<Heard>,
    /// Whether standard output is being read.
    reads: watch::Sender<bool>,
    reader: AbortHandle,
    /// What the client declares of itself.
    capabilities: Value,
    server: Value,
    home: TempDir,
    tasks: JoinSet<()>,
}

impl McpClient {
    /// Starts `program` in an environment of `PATH`, a fresh `HOME` and `env`, and shakes hands if the era does.
    pub(crate) async fn spawn(era: Era, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::spawn_declaring(json!({}), era, program, args, env).await
    }

    /// As [`spawn`](Self::spawn), for a client with these capabilities.
    pub(crate) async fn spawn_declaring(
        capabilities: Value,
        era: Era,
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let mut client = Self::spawn_silent(era, program, args, env);
        client.capabilities = capabilities;
        if let Era::Legacy(revision) = era {
            let hello = json!({"protocolVersion": revision, "capabilities": client.capabilities,
                "clientInfo": client_info()});
            client.server = client.request("initialize", hello).await.expect("the server shakes hands");
            client.notify("notifications/initialized", json!({})).await;
        }
        client
    }

    /// As [`spawn`](Self::spawn), without a handshake: for tests of the handshake itself.
    pub(crate) fn spawn_silent(era: Era, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut child = Command::new(program)
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home.path())
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let (input, queue) = mpsc::channel(64);
        let heard = Arc::new(Heard::default());
        let (reads, may_read) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(write(child.stdin.take().expect("stdin is piped"), queue));
        let reader = tasks.spawn(read(
            child.stdout.take().expect("stdout is piped"),
            Arc::clone(&heard),
            input.downgrade(),
            may_read,
        ));
        tasks.spawn(read_log(child.stderr.take().expect("stderr is piped"), Arc::clone(&heard)));
        let (input, next_id) = (Some(input), AtomicI64::new(1));
        let capabilities = json!({});
        let server = Value::Null;
        Self { era, child, input, next_id, heard, reads, reader, capabilities, server, home, tasks }
    }

    /// Calls a tool; a JSON-RPC error instead of an answer is a failed test.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> ToolAnswer {
        let result = self.try_call(tool, arguments.clone()).await;
        result.unwrap_or_else(|error| panic!("{tool} {arguments}: {error:?}"))
    }

    /// Calls a tool.
    pub(crate) async fn try_call(&self, tool: &str, arguments: Value) -> Result<ToolAnswer, RpcError> {
        let result = self.request("tools/call", json!({"name": tool, "arguments": arguments})).await?;
        Ok(ToolAnswer::parse(&result))
    }

    /// Reads a resource and returns its contents, one object each with `uri`, `mimeType`, `text` or `blob`.
    pub(crate) async fn read_resource(&self, uri: &str) -> Result<Vec<Value>, RpcError> {
        let result = self.request("resources/read", json!({"uri": uri})).await?;
        Ok(result["contents"].as_array().cloned().unwrap_or_default())
    }

    /// Sends a request and waits for its result; in the modern era `_meta` is added to `params`.
    pub(crate) async fn request(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.begin(method, params).await.result().await
    }

    /// Sends a request and returns before it is answered, for tests that cancel or overtake.
    pub(crate) async fn begin(&self, method: &str, params: Value) -> Pending {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.heard.expect(id, answer);
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": self.with_meta(params)});
        self.send_line(request.to_string()).await;
        Pending { id, method: method.to_owned(), answered, heard: Arc::clone(&self.heard) }
    }

    /// Sends a notification as it is.
    pub(crate) async fn notify(&self, method: &str, params: Value) {
        self.send_line(json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()).await;
    }

    /// Sends one line as it is, be it JSON or not.
    pub(crate) async fn send_line(&self, line: String) {
        let input = self.input.as_ref().expect("standard input is open");
        // A child that has ended reads no more; the test sees that by what it waits for.
        input.send(line).await.ok();
    }

    /// The notifications so far, in order, each with `method` and `params`.
    pub(crate) fn notifications(&self) -> Vec<Value> {
        self.heard.state().notifications.clone()
    }

    /// Waits for a notification that `is_wanted`, among those heard already and those to come.
    pub(crate) async fn notification(&self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        self.heard.find(|state| state.notifications.iter().find(|note| is_wanted(note)).cloned()).await
    }

    /// Waits until `look` finds in all notifications so far what it looks for.
    pub(crate) async fn hear<T>(&self, look: impl Fn(&[Value]) -> Option<T>) -> T {
        self.heard.find(|state| look(&state.notifications)).await
    }

    /// From now on the user says this to every question (`elicitation/create`), or nothing; before, the client answers no
    /// requests at all.
    pub(crate) fn answer_questions(&self, answer: UserSays) {
        self.heard.state().user = Some(answer);
    }

    /// Waits for the `nth` question (from 0), a whole request.
    pub(crate) async fn question(&self, nth: usize) -> Value {
        self.heard.find(|state| state.questions.get(nth).cloned()).await
    }

    /// How often the user was asked.
    pub(crate) fn questions(&self) -> usize {
        self.heard.state().questions.len()
    }

    /// Stops reading the child's standard output, after one more line at most.
    pub(crate) fn stop_reading(&self) {
        self.reads.send_replace(false);
    }

    /// Reads on.
    pub(crate) fn read_on(&self) {
        self.reads.send_replace(true);
    }

    /// Closes the reading end of the child's standard output, wherever it is; nothing is heard from then on.
    pub(crate) fn hang_up(&self) {
        self.reader.abort();
    }

    /// Waits for the `nth` message (from 0) that answers no request of ours: errors without an id, mostly.
    pub(crate) async fn stray(&self, nth: usize) -> Value {
        self.heard.find(|state| state.strays.get(nth).cloned()).await
    }

    /// The `initialize` result; null in the modern era.
    pub(crate) fn server(&self) -> &Value {
        &self.server
    }

    /// The child's `HOME`, empty at first.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The child's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the child has not been waited for")
    }

    /// What the child has written to standard error so far.
    pub(crate) fn log(&self) -> String {
        self.heard.state().log.join("\n")
    }

    /// Closes the child's standard input and waits for its end.
    pub(crate) async fn close(mut self) -> ExitStatus {
        self.close_input();
        self.ended().await
    }

    /// Closes the child's standard input; nothing can be sent from then on.
    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits for the child's end, however it comes, and for the last of its log.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let end = tokio::time::timeout(LIMIT, self.child.wait()).await;
        let status =
            end.unwrap_or_else(|_| panic!("the server did not end:\n{}", self.log())).expect("our own child");
        // What it wrote last may still be in the pipes; the task that writes ends with the queue.
        self.close_input();
        while tokio::time::timeout(LIMIT, self.tasks.join_next()).await.is_ok_and(|task| task.is_some()) {}
        status
    }

    fn with_meta(&self, mut params: Value) -> Value {
        match self.era {
            Era::Legacy(_) => {}
            Era::Modern(revision) => {
                let params = params.as_object_mut().expect("params are an object");
                let meta = params.entry("_meta").or_insert_with(|| Value::Object(Map::new()));
                meta["io.modelcontextprotocol/protocolVersion"] = revision.into();
                meta["io.modelcontextprotocol/clientInfo"] = client_info();
                meta["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
            }
        }
        params
    }
}

impl Drop for McpClient {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server said on standard error:\n{}\n---", self.log());
        }
    }
}

impl ToolAnswer {
    pub(crate) fn parse(result: &Value) -> Self {
        let blocks = result["content"].as_array().cloned().unwrap_or_default();
        let texts: Vec<_> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
        Self {
            is_error: result["isError"].as_bool().unwrap_or(false),
            text: texts.join("\n"),
            structured: result["structuredContent"].clone(),
        }
    }
}

/// What the user of a client says to a question.
#[derive(Debug, Clone)]
pub(crate) enum UserSays {
    /// This result.
    This(Value),
    /// Nothing, for now.
    Nothing,
}

/// A request on its way.
pub(crate) struct Pending {
    id: i64,
    method: String,
    answered: oneshot::Receiver<Result<Value, RpcError>>,
    heard: Arc<Heard>,
}

impl Pending {
    /// The request's id, for `notifications/cancelled`.
    pub(crate) fn id(&self) -> i64 {
        self.id
    }

    /// Waits for the answer; a server that ends or stays silent is a failed test.
    pub(crate) async fn result(self) -> Result<Value, RpcError> {
        let (method, heard) = (self.method.clone(), Arc::clone(&self.heard));
        self.result_or_end().await.unwrap_or_else(|| {
            panic!("the server ended before it answered {method}:\n{}", heard.state().log.join("\n"))
        })
    }

    /// Waits for the answer, or for the server's end: then `None`.
    pub(crate) async fn result_or_end(self) -> Option<Result<Value, RpcError>> {
        match tokio::time::timeout(LIMIT, self.answered).await {
            Ok(answered) => answered.ok(),
            Err(_) => {
                panic!(
                    "no answer to {} within {LIMIT:?}:\n{}",
                    self.method,
                    self.heard.state().log.join("\n")
                )
            }
        }
    }

    /// Whether the answer is still to come.
    pub(crate) fn is_open(&self) -> bool {
        self.heard.state().pending.contains_key(&self.id)
    }
}

/// The path of one of the product's binaries, built if it is missing or older than this test.
pub(crate) fn binary(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    // target/PROFILE/deps/it-HASH
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.ancestors().nth(2).expect("the profile's folder");
    BUILT.call_once(|| {
        // Cargo leaves a fresh binary's time stamp alone, so a stamp of our own says when it was looked at.
        let stamp = folder.join(".ssh-mcp-binaries");
        let modified = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
        if modified(&stamp) < modified(&test) || !folder.join(name).exists() {
            build(folder);
            std::fs::write(&stamp, "").expect("the target folder is writable");
        }
    });
    folder.join(name)
}

fn build(folder: &Path) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(["build", "--quiet", "--package", "ssh-mcp-server", "--bins", "--profile", profile])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(folder.parent().expect("a profile's folder lies in the target folder"))
        .stdin(Stdio::null())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "cargo build: {}", String::from_utf8_lossy(&output.stderr));
}

/// What has come from the child, and who waits for more of it.
#[derive(Default)]
struct Heard {
    state: Mutex<HeardState>,
    news: Notify,
}

#[derive(Default)]
struct HeardState {
    pending: HashMap<i64, oneshot::Sender<Result<Value, RpcError>>>,
    notifications: Vec<Value>,
    strays: Vec<Value>,
    questions: Vec<Value>,
    user: Option<UserSays>,
    log: Vec<String>,
    /// Standard output has ended: nothing will be answered any more.
    ended: bool,
}

impl Heard {
    fn state(&self) -> std::sync::MutexGuard<'_, HeardState> {
        self.state.lock().expect("no holder panics")
    }

    fn expect(&self, id: i64, answer: oneshot::Sender<Result<Value, RpcError>>) {
        let mut state = self.state();
        if !state.ended {
            state.pending.insert(id, answer);
        }
    }

    async fn find<T>(&self, look: impl Fn(&HeardState) -> Option<T>) -> T {
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                let mut news = std::pin::pin!(self.news.notified());
                news.as_mut().enable();
                if let Some(found) = look(&self.state()) {
                    return found;
                }
                news.await;
            }
        });
        found
            .await
            .unwrap_or_else(|_| panic!("nothing of the kind came; log:\n{}", self.state().log.join("\n")))
    }

    /// Takes one message in; a request of the server is answered, with an error unless it is a ping or a question.
    fn take(&self, message: Value) -> Option<Value> {
        let mut state = self.state();
        let id = message["id"].as_i64();
        let answer = match (message["method"].as_str(), id) {
            (Some("ping"), Some(id)) => Some(json!({"jsonrpc": "2.0", "id": id, "result": {}})),
            (Some("elicitation/create"), Some(id)) if state.user.is_some() => {
                state.questions.push(message);
                match &state.user {
                    Some(UserSays::This(result)) => {
                        Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
                    }
                    Some(UserSays::Nothing) | None => None,
                }
            }
            (Some(_), Some(id)) => {
                let error = json!({"code": -32601, "message": "this client answers no requests"});
                Some(json!({"jsonrpc": "2.0", "id": id, "error": error}))
            }
            (Some(_), None) => {
                state.notifications.push(message);
                None
            }
            (None, id) => {
                match id.and_then(|id| state.pending.remove(&id)) {
                    // The test may have stopped waiting.
                    Some(waiting) => drop(waiting.send(result_of(&message))),
                    None => state.strays.push(message),
                }
                None
            }
        };
        drop(state);
        self.news.notify_waiters();
        answer
    }
}

/// The result of an answer, or its error.
pub(crate) fn result_of(message: &Value) -> Result<Value, RpcError> {
    match message.get("error") {
        None => Ok(message["result"].clone()),
        Some(error) => Err(RpcError {
            code: error["code"].as_i64().unwrap_or(0),
            message: error["message"].as_str().unwrap_or_default().to_owned(),
            data: error["data"].clone(),
        }),
    }
}

async fn write(mut stdin: ChildStdin, mut queue: mpsc::Receiver<String>) {
    while let Some(line) = queue.recv().await {
        if stdin.write_all(format!("{line}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(
    stdout: ChildStdout,
    heard: Arc<Heard>,
    input: mpsc::WeakSender<String>,
    mut may_read: watch::Receiver<bool>,
) {
    let mut lines = BufReader::new(stdout).lines();
    // A client that is gone no longer says whether to read.
    while may_read.wait_for(|reads| *reads).await.is_ok()
        && let Ok(Some(line)) = lines.next_line().await
    {
        let Ok(message) = serde_json::from_str(&line) else {
            heard.state().log.push(format!("STANDARD OUTPUT CARRIES PROTOCOL ONLY, BUT CAME: {line}"));
            break;
        };
        if let (Some(answer), Some(input)) = (heard.take(message), input.upgrade()) {
            input.send(answer.to_string()).await.ok();
        }
    }
    // Whoever still waits learns that there is nothing to wait for.
    let mut state = heard.state();
    state.ended = true;
    state.pending.clear();
}

async fn read_log(stderr: ChildStderr, heard: Arc<Heard>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        heard.state().log.push(line);
    }
}

/// Who the tests say they are.
pub(crate) fn client_info() -> Value {
    json!({"name": "ssh-mcp-tests", "version": "1.0"})
}

/// Longer than any answer the contract allows to take; reached only when something is wrong.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
