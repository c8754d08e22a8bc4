//! Interactive shells, and the programs people really use in them.

use super::*;
use crate::sshd::Proxy;

mod transcripts;

async fn open(stage: &Stage, mut arguments: Value) -> String {
    arguments["session_id"] = stage.session.as_str().into();
    let answer = stage.client.call("ssh_shell_open", arguments).await;
    assert!(!answer.is_error, "{}", answer.text);
    field(&answer, "shell_id")
}

async fn write(stage: &Stage, shell: &str, input: &str) {
    let answer = stage.client.call("ssh_shell_write", json!({"shell_id": shell, "input": input})).await;
    assert!(!answer.is_error, "{}", answer.text);
}

async fn press(stage: &Stage, shell: &str, key: &str) {
    let answer = stage.client.call("ssh_shell_press", json!({"shell_id": shell, "key": key})).await;
    assert!(!answer.is_error, "{}", answer.text);
}

async fn wait_for(stage: &Stage, shell: &str, pattern: &str) -> String {
    let call = json!({"shell_id": shell, "patterns": [pattern], "timeout_secs": 30});
    let answer = stage.client.call("ssh_shell_wait_for", call).await;
    assert_eq!(answer.structured["status"], "matched", "{pattern}: {}", answer.text);
    answer.structured["stdout"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_shell_remembers_what_was_done_in_it() {
    for user in User::BOTH {
        let Some(stage) = Stage::set(Options::default(), user).await else { return };
        let shell = open(&stage, json!({"env": {"PS1": "ready> "}, "shell": "/bin/sh"})).await;
        wait_for(&stage, &shell, "ready> ").await;
        write(&stage, &shell, "cd /usr; X=42\n").await;
        write(&stage, &shell, "echo in:$PWD:$X\n").await;
        wait_for(&stage, &shell, "in:/usr:42").await;
        // A key that comes before the program has the terminal would be the shell's.
        write(&stage, &shell, "sh -c 'echo up; exec sleep 100'\n").await;
        wait_for(&stage, &shell, "up\r").await;
        press(&stage, &shell, "ctrl_c").await;
        write(&stage, &shell, "echo again:$?\n").await;
        wait_for(&stage, &shell, "again:130").await;
        write(&stage, &shell, "exit 7\n").await;
        let closed = stage
            .client
            .call("ssh_shell_wait_for", json!({"shell_id": shell, "patterns": ["never there"]}))
            .await;
        assert_eq!(closed.structured["status"], "closed", "{}", closed.text);
        let read = stage.client.call("ssh_shell_read", json!({"shell_id": shell})).await;
        assert_eq!(
            (&read.structured["status"], &read.structured["exit_code"]),
            (&json!("closed"), &json!(7)),
            "{}",
            read.text
        );
        assert_eq!(read.structured["exit_reason"], "exit-7");
    }
}

#[tokio::test]
async fn vi_edits_and_saves_a_file() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let shell =
        open(&stage, json!({"env": {"PS1": "ready> "}, "shell": "/bin/sh", "cols": 100, "rows": 30})).await;
    wait_for(&stage, &shell, "ready> ").await;
    write(&stage, &shell, "vi ~/note.txt\n").await;
    wait_for(&stage, &shell, "note.txt").await;
    write(&stage, &shell, "ihello from vi").await;
    press(&stage, &shell, "escape").await;
    write(&stage, &shell, ":wq\n").await;
    wait_for(&stage, &shell, "ready> ").await;
    let saved = std::fs::read_to_string(stage.server.home(User::Tester).join("note.txt")).unwrap();
    assert_eq!(saved, "hello from vi\n");
}

#[tokio::test]
async fn less_pages_through_a_file() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let shell =
        open(&stage, json!({"env": {"PS1": "ready> "}, "shell": "/bin/sh", "cols": 80, "rows": 10})).await;
    wait_for(&stage, &shell, "ready> ").await;
    write(&stage, &shell, "seq -f 'line %g.' 1 100 | less\n").await;
    let first = wait_for(&stage, &shell, "line 9.").await;
    assert!(!first.contains("line 10."), "{first}");
    press(&stage, &shell, "page_down").await;
    wait_for(&stage, &shell, "line 18.").await;
    write(&stage, &shell, "q").await;
    wait_for(&stage, &shell, "ready> ").await;
}

#[tokio::test]
async fn the_terminal_takes_a_new_size() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let shell = open(&stage, json!({"env": {"PS1": "ready> "}, "shell": "/bin/sh"})).await;
    wait_for(&stage, &shell, "ready> ").await;
    let resize = json!({"shell_id": shell, "input": "", "cols": 132, "rows": 43});
    assert!(!stage.client.call("ssh_shell_write", resize).await.is_error);
    write(&stage, &shell, "stty size\n").await;
    wait_for(&stage, &shell, "43 132").await;
}

#[tokio::test]
async fn closing_a_shell_ends_what_runs_in_it() {
    for user in User::BOTH {
        for force in [false, true] {
            let Some(stage) = Stage::set(Options::default(), user).await else { return };
            let shell = open(&stage, json!({"env": {"PS1": "ready> "}, "shell": "/bin/sh"})).await;
            wait_for(&stage, &shell, "ready> ").await;
            let mark =
                format!("299.{}{}{}", std::process::id(), u8::from(force), u8::from(user == User::Root));
            write(&stage, &shell, &format!("sleep {mark}\n")).await;
            let closed =
                stage.client.call("ssh_shell_close", json!({"shell_id": shell, "force": force})).await;
            assert!(!closed.is_error, "{}", closed.text);
            let limit = std::time::Duration::from_secs(5);
            let gone = tokio::task::spawn_blocking(move || {
                crate::sshd::processes::wait_until(limit, || {
                    crate::sshd::processes::processes_matching(&mark).is_empty()
                })
            });
            assert!(gone.await.unwrap(), "{user:?} force={force}");
            let again = stage.client.call("ssh_shell_close", json!({"shell_id": shell})).await;
            assert_eq!(again.structured["status"], "noop", "{}", again.text);
        }
    }
}

#[tokio::test]
async fn a_named_shell_is_found_again() {
    let Some(stage) = Stage::set(Options::default(), User::Tester).await else { return };
    let shell = open(&stage, json!({"name": "build"})).await;
    let taken = json!({"session_id": stage.session, "name": "build"});
    let refused = stage.client.call("ssh_shell_open", taken.clone()).await;
    assert_eq!(refused.structured["code"], "NAME_IN_USE", "{}", refused.text);
    let mut ensure = taken;
    ensure["ensure"] = true.into();
    let found = stage.client.call("ssh_shell_open", ensure).await;
    assert_eq!(found.structured["status"], "reused", "{}", found.text);
    assert_eq!(field(&found, "shell_id"), shell);
}

#[tokio::test]
async fn what_a_shell_printed_before_its_exit_comes_through_a_narrow_line() {
    const PRINTED: u64 = 8_000_000;
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    // The sockets hold up to 4 MB. The rest waits in the server, which has told of the exit before it is sent.
    let proxy = Proxy::narrow(server.addr(), 1e6);
    let client = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &[]).await;
    let mut call = login(&server, User::Tester, ClientKey::Ed25519);
    call["address"] = proxy.addr().to_string().into();
    let session = field(&client.call("ssh_connect", call).await, "session_id");
    let stage = Stage { server, client, session };
    let shell = open(&stage, json!({"env": {"PS1": "ready> "}, "shell": "/bin/sh"})).await;
    wait_for(&stage, &shell, "ready> ").await;
    // The echo of this line has no tilde.
    write(&stage, &shell, &format!("head -c {PRINTED} /dev/zero | tr '\\0' '\\176'; exit 7\n")).await;
    let end = json!({"shell_id": shell, "patterns": ["never there"], "timeout_secs": 60});
    let closed = stage.client.call("ssh_shell_wait_for", end).await;
    assert_eq!(closed.structured["status"], "closed", "{}", closed.text.get(..300).unwrap_or_default());
    assert_eq!(tildes(&stage, &shell).await, PRINTED);
}

/// How many bytes lie from the first tilde a shell printed to the last one.
async fn tildes(stage: &Stage, shell: &str) -> u64 {
    let read = async |cursor: u64| {
        let uri = format!("shell://{shell}/output?cursor={cursor}&max_bytes=1000");
        stage.client.read_resource(&uri).await.unwrap()[0].clone()
    };
    let head = read(0).await;
    let number = |name: &str| head["_meta"][name].as_u64().unwrap();
    let tail_from = number("base") + number("buffer_size") - 1000;
    let tail = read(tail_from).await;
    let first = head["text"].as_str().unwrap().find('~').unwrap();
    let last = tail["text"].as_str().unwrap().rfind('~').unwrap();
    tail_from + last as u64 + 1 - first as u64
}
