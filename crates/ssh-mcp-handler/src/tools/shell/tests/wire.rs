//! Progress and repeated calls as a client of MCP sees them.

use super::*;
use crate::tests::wire::Client;

/// What a call tells on its way: progress, total, message.
async fn told(shell: &Opened, tool: &str, arguments: Value) -> Vec<(f64, Option<f64>, String)> {
    let (mut client, _) = Client::legacy(&shell.rig, "2025-11-25").await;
    let answer = client.call(tool, shell.args(arguments), json!({ "progressToken": "t" })).await;
    assert_eq!(answer["isError"], false, "{answer}");
    let params = client.notifications.iter().map(|message| &message["params"]);
    params
        .inspect(|params| assert_eq!(params["progressToken"], "t"))
        .map(|params| {
            let message = params["message"].as_str().unwrap().to_owned();
            (params["progress"].as_f64().unwrap(), params["total"].as_f64(), message)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_text_tells_every_second_how_long_it_has_waited() {
    let shell = Opened::on(Script::new().after(SECOND * 7 / 2).out("ready")).await;
    let arguments = json!({ "patterns": ["ready"], "timeout_secs": 20 });
    let expected = |at| (at, Some(20.0), "waiting for the shell to print one of the texts".to_owned());
    let told = told(&shell, "ssh_shell_wait_for", arguments).await;
    // The shell was opened a moment before the wait.
    assert_eq!(told, [expected(1.0), expected(2.0), expected(3.0)]);
}

#[tokio::test(start_paused = true)]
async fn other_waits_tell_every_five_seconds_how_much_was_printed() {
    let script =
        || Script::new().after(SECOND * 4).out("abc").after(SECOND * 4).out("de").after(SECOND * 4).out("f");
    let shell = Opened::on(script()).await;
    let read = told(&shell, "ssh_shell_read", json!({ "wait": true, "min_bytes": 6 })).await;
    assert_eq!(read.iter().map(|(progress, ..)| *progress).collect::<Vec<_>>(), [3.0, 5.0]);
    assert!(
        read.iter().all(|(_, total, message)| total.is_none() && message == "waiting for the shell's output")
    );

    let shell = Opened::on(Script::new()).await;
    let written = told(&shell, "ssh_shell_write", json!({ "input": "x", "wait_secs": 11 })).await;
    assert_eq!(written.iter().map(|(progress, ..)| *progress).collect::<Vec<_>>(), [0.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_call_with_a_key_types_and_closes_once() {
    let shell = Opened::on(Script::cat()).await;
    let key = || Some(json!("k"));
    for (tool, arguments) in [
        ("ssh_shell_write", json!({ "input": "x" })),
        ("ssh_shell_press", json!({ "key": "space" })),
        ("ssh_shell_close", json!({})),
    ] {
        let first = shell.rig.raw(tool, shell.args(arguments.clone()), key()).await.unwrap();
        let again = shell.rig.raw(tool, shell.args(arguments), key()).await.unwrap();
        assert_eq!((first.is_error, &first), (Some(false), &again), "{tool}");
    }
    assert_eq!(shell.rig.host.input(""), b"x ");
}
