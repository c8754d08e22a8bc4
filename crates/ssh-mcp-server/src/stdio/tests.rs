use rmcp::{ErrorData as McpError, model::*, service::RequestContext};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::*;

/// A server whose one tool waits until its call is cancelled.
#[derive(Clone)]
struct Waits;

impl ServerHandler for Waits {
    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, McpError> {
        context.ct.cancelled().await;
        Ok(CallToolResult::default().into())
    }
}

struct Client {
    input: DuplexStream,
    output: tokio::io::Lines<BufReader<DuplexStream>>,
    server: tokio::task::JoinSet<()>,
}

impl Client {
    fn start() -> Self {
        let (input, reader) = tokio::io::duplex(1 << 20);
        let (writer, output) = tokio::io::duplex(1 << 20);
        let mut server = tokio::task::JoinSet::new();
        server.spawn(serve(Waits, reader, Output::new(writer), CancellationToken::new()));
        Self { input, output: BufReader::new(output).lines(), server }
    }

    async fn greeted() -> Self {
        let mut client = Self::start();
        client.send(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}));
        assert_eq!(client.answer().await["id"], 0);
        client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    fn send(&mut self, message: &Value) {
        self.line(&message.to_string());
    }

    /// Fits the pipe, so it is written at once; without a budget, because a test may send many lines in one go.
    fn line(&mut self, line: &str) {
        let mut write = std::pin::pin!(tokio::task::unconstrained(self.input.write_all(line.as_bytes())));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(write.as_mut().poll(&mut cx).is_ready());
        let mut write = std::pin::pin!(tokio::task::unconstrained(self.input.write_all(b"\n")));
        assert!(write.as_mut().poll(&mut cx).is_ready());
    }

    async fn answer(&mut self) -> Value {
        let line = self.output.next_line().await.unwrap().expect("an answer");
        serde_json::from_str(&line).unwrap()
    }
}

fn wait_call(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "wait", "arguments": {}}})
}

#[tokio::test]
async fn broken_lines_are_answered_and_the_server_goes_on() {
    let mut client = Client::greeted().await;
    for (line, code) in [("{not json", -32700), ("[1,2]", -32600), (r#"{"jsonrpc":"2.0","id":7}"#, -32600)] {
        client.line(line);
        assert_eq!(client.answer().await["error"]["code"], code, "{line}");
    }
    client.line("");
    client.send(&json!({"jsonrpc": "2.0", "id": 8, "method": "ping"}));
    assert_eq!(client.answer().await["id"], 8);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_answered_and_skipped() {
    let mut client = Client::greeted().await;
    let long = "x".repeat(1 << 16);
    for _ in 0..=(LONGEST_LINE >> 16) {
        client.input.write_all(long.as_bytes()).await.unwrap();
    }
    client.line("tail");
    assert_eq!(client.answer().await["error"]["code"], -32600);
    client.send(&json!({"jsonrpc": "2.0", "id": 8, "method": "ping"}));
    assert_eq!(client.answer().await["id"], 8);
}

#[tokio::test]
async fn stray_messages_before_the_first_request_do_no_harm() {
    let mut client = Client::start();
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}}));
    client.send(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}));
    assert_eq!(client.answer().await["result"]["protocolVersion"], "2025-11-25");
}

#[tokio::test]
async fn a_second_call_with_an_open_id_is_refused_and_the_first_lives() {
    let mut client = Client::greeted().await;
    client.send(&wait_call(5));
    client.send(&wait_call(5));
    let refused = client.answer().await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(5), &json!(-32600)));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_input_waits_two_seconds_for_a_call_that_waits() {
    let mut client = Client::greeted().await;
    client.send(&wait_call(5));
    client.send(&json!({"jsonrpc": "2.0", "id": 6, "method": "ping"}));
    assert_eq!(client.answer().await["id"], 6);
    let Client { input, output: _output, mut server } = client;
    let before = tokio::time::Instant::now();
    drop(input);
    server.join_next().await.unwrap().unwrap();
    assert_eq!(before.elapsed(), LAST_CALLS);
}

#[tokio::test]
async fn a_client_that_only_sends_is_read_no_further() {
    let mut client = Client::greeted().await;
    for id in 0..MOST_CALLS as u64 {
        client.send(&wait_call(id));
    }
    // One more line stays unread: an error for it would come at once.
    client.line("{not json");
    tokio::select! {
        biased;
        answer = client.answer() => panic!("answered: {answer}"),
        () = async { for _ in 0..1000 { tokio::task::yield_now().await } } => {}
    }
}

#[tokio::test]
async fn the_last_line_needs_no_end() {
    let mut client = Client::greeted().await;
    client.input.write_all(br#"{"jsonrpc": "2.0", "id": 9, "method": "ping"}"#).await.unwrap();
    client.input.shutdown().await.unwrap();
    assert_eq!(client.answer().await["id"], 9);
}

#[tokio::test]
async fn what_takes_the_shortcut_is_a_line_of_its_own_until_the_output_closes() {
    let (writer, reader) = tokio::io::duplex(64);
    let output = Output::new(writer);
    let shortcut: Arc<dyn Shortcut> = output.clone();
    let long = json!({"long": "x".repeat(1000)});
    let notifications = [long, json!({"long": "y"})].map(|params| {
        let notification = CustomNotification::new("notifications/ssh/output", Some(params));
        ServerNotification::CustomNotification(notification)
    });
    let [first, second] = notifications.map(|notification| shortcut.send(notification));
    let mut lines = BufReader::new(reader).lines();
    let read = async {
        let lines = [lines.next_line().await, lines.next_line().await];
        lines.map(|line| {
            serde_json::from_str::<Value>(&line.unwrap().unwrap()).unwrap()["params"]["long"].clone()
        })
    };
    let (first, second, read) = tokio::join!(first, second, read);
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(read, [json!("x".repeat(1000)), json!("y")]);
    output.close().await.unwrap();
    let late = CustomNotification::new("notifications/ssh/output", None);
    assert!(shortcut.send(ServerNotification::CustomNotification(late)).await.is_err());
}
