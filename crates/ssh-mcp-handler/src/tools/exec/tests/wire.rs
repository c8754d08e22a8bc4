//! Progress and cancellation as a client of MCP sees them.

use ssh_mcp_testkit::host::Script;

use super::*;
use crate::tests::wire::Client;

async fn client(world: &World) -> Client {
    Client::legacy(world, "2025-11-25").await.0
}

/// What was told of progress.
fn told(client: &Client) -> Vec<&Value> {
    let notifications = client.notifications.iter();
    notifications
        .inspect(|told| assert_eq!(told["method"], "notifications/progress"))
        .map(|told| &told["params"])
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_wait_tells_every_five_seconds_how_much_was_printed() {
    let script = Script::new().out("0123").after(SECOND * 7).out("45").after(SECOND * 5).exit(0);
    let world = World::new(ScriptedHost::new().on("slow", script));
    let session = world.session().await;
    let command = world.started(&session, "slow").await;
    let mut client = client(&world).await;
    let arguments = json!({ "command_id": command, "wait": true });
    let answer = client.call("ssh_exec_output", arguments, json!({ "progressToken": "t" })).await;
    assert_eq!(answer["structuredContent"]["status"], "completed");
    let told = told(&client);
    for (params, (bytes, human)) in told.iter().zip([(4.0, "4B"), (6.0, "6B")]) {
        assert_eq!((&params["progressToken"], params["progress"].as_f64()), (&json!("t"), Some(bytes)));
        assert_eq!(params["message"], format!("command still running, {human} on stdout"));
        assert!(params.get("total").is_none());
    }
    assert_eq!(told.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_tells_which_command_runs() {
    let world = World::new(ScriptedHost::new().on("slow", Script::runs_for(SECOND * 6)));
    let session = world.session().await;
    let mut client = client(&world).await;
    let arguments = json!({ "session_id": session, "commands": ["slow", "slow"] });
    client.call("ssh_exec_batch", arguments, json!({ "progressToken": 1 })).await;
    let told: Vec<_> = told(&client)
        .iter()
        .map(|params| (params["progress"].as_f64(), params["total"].as_f64(), params["message"].as_str()))
        .collect();
    let expected = |at, message| (Some(at), Some(2.0), Some(message));
    assert_eq!(told, [expected(0.0, "command 1 of 2 runs"), expected(1.0, "command 2 of 2 runs")]);
}

#[tokio::test(start_paused = true)]
async fn a_run_tells_what_it_is_at() {
    let script = Script::new().out("12").after(SECOND * 9).exit(0);
    let world = World::new(ScriptedHost::new().with_connect_time(SECOND * 7).on("slow", script));
    let mut client = client(&world).await;
    let arguments = json!({ "address": "example.org", "username": "ann", "command": "slow" });
    client.call("ssh_run", arguments, json!({ "progressToken": 1 })).await;
    let told: Vec<_> = told(&client)
        .iter()
        .map(|params| (params["progress"].as_f64(), params["message"].as_str()))
        .collect();
    let running = "command still running, 2B on stdout";
    assert_eq!(told, [(Some(0.0), Some("connecting")), (Some(2.0), Some(running))]);
}

#[tokio::test(start_paused = true)]
async fn without_a_token_nothing_is_told() {
    let world = World::new(ScriptedHost::new().on("slow", Script::runs_for(SECOND * 20)));
    let mut client = client(&world).await;
    let arguments = json!({ "address": "example.org", "username": "ann", "command": "slow" });
    client.call("ssh_run", arguments, json!({})).await;
    assert!(client.notifications.is_empty(), "{:?}", client.notifications);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_ends_a_run_but_not_a_command_that_is_waited_for() {
    let world = World::new(ScriptedHost::new().on("mine", Script::new()).on("yours", Script::new()));
    let session = world.session().await;
    let mut client = client(&world).await;
    let wait = json!({ "session_id": session, "command": "mine", "wait": true, "timeout_secs": 0 });
    let run = json!({ "address": "other", "username": "ann", "command": "yours", "timeout_secs": 300 });
    let mut ids = Vec::new();
    for (tool, arguments) in [("ssh_exec", wait), ("ssh_run", run)] {
        ids.push(client.request("tools/call", json!({ "name": tool, "arguments": arguments })).await);
    }
    tokio::time::sleep(SECOND * 2).await;
    assert_eq!((world.host.running("mine"), world.host.running("yours")), (1, 1));
    for id in ids {
        let params = json!({ "requestId": id });
        client.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params })).await;
    }
    tokio::time::sleep(SECOND * 10).await;
    assert_eq!((world.host.running("mine"), world.host.running("yours")), (1, 0));
    assert_eq!(world.call("ssh_sessions", json!({})).await.facts["count"], 1);
}
