//! Transcripts and windows of tmux, with files, a terminal and a tmux that are real.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;

use super::*;
use crate::real::tmux::Tmux;
use crate::sshd::processes::wait_until;

async fn watched(env: &[(&str, &str)]) -> Option<Stage> {
    Stage::set_in(Era::LEGACY_2025_11, Options::default(), User::Tester, env).await
}

async fn open_with(stage: &Stage, mut arguments: Value) -> ToolAnswer {
    arguments["session_id"] = stage.session.as_str().into();
    arguments["env"] = json!({"PS1": "ready> "});
    arguments["shell"] = "/bin/sh".into();
    let answer = stage.client.call("ssh_shell_open", arguments).await;
    assert!(!answer.is_error, "{}", answer.text);
    answer
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// Everything a shell printed, as the history has it.
async fn printed(stage: &Stage, shell: &str) -> Vec<u8> {
    // What vi says to the terminal is not all text.
    let uri = format!("shell://{shell}/output?cursor=0&max_bytes=1000000&encoding=base64");
    let contents = stage.client.read_resource(&uri).await.unwrap();
    base64::engine::general_purpose::STANDARD.decode(contents[0]["blob"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_transcript_is_exactly_what_the_terminal_printed() {
    let Some(stage) = watched(&[]).await else { return };
    let opened = open_with(&stage, json!({"transcript": true})).await;
    let (shell, path) = (field(&opened, "shell_id"), PathBuf::from(field(&opened, "transcript_path")));
    let state = stage.client.home().join(".local/state/ssh-mcp");
    assert_eq!(path, state.join(&shell).join("transcript.log"));
    assert_eq!((mode(&path), mode(path.parent().unwrap()), mode(&state)), (0o600, 0o700, 0o700));
    // Colours, a full-screen program, a byte that is no text, and the echo of it all.
    write(&stage, &shell, "printf '\\033[31mred\\033[0m\\n'; printf 'a\\rb\\007'; seq 1 2000\n").await;
    wait_for(&stage, &shell, "2000\r").await;
    write(&stage, &shell, "vi ~/note.txt\n").await;
    wait_for(&stage, &shell, "[New]").await;
    write(&stage, &shell, ":q!\n").await;
    wait_for(&stage, &shell, "ready> ").await;
    write(&stage, &shell, "exit 3\n").await;
    let closed = stage.client.call("ssh_shell_close", json!({"shell_id": shell, "wait_secs": 10})).await;
    assert_eq!(closed.structured["running"], false, "{}", closed.text);
    let kept = std::fs::read(&path).unwrap();
    assert!(kept == printed(&stage, &shell).await, "{}", String::from_utf8_lossy(&kept));
    assert_eq!(closed.structured["transcript_size_bytes"], kept.len());
    assert!(String::from_utf8_lossy(&kept).contains("\u{1b}[31mred\u{1b}[0m\r\n"));
    // It outlives the server.
    assert_eq!(stage.client.close().await.code(), Some(0));
}

#[tokio::test]
async fn twenty_megabytes_are_all_there_or_the_gap_is_marked() {
    const PRINTED: usize = 20_000_000;
    let Some(stage) = watched(&[]).await else { return };
    let opened = open_with(&stage, json!({"transcript": true})).await;
    let (shell, path) = (field(&opened, "shell_id"), field(&opened, "transcript_path"));
    write(&stage, &shell, &format!("stty -echo; head -c {PRINTED} /dev/zero | tr '\\0' '\\176'; exit 7\n"))
        .await;
    let end = json!({"shell_id": shell, "patterns": ["never there"], "timeout_secs": 60});
    let ended = stage.client.call("ssh_shell_wait_for", end).await;
    assert_eq!(ended.structured["status"], "closed", "{}", ended.text.get(..300).unwrap_or_default());
    // Its answer waits for the transcript too.
    let closed = stage.client.call("ssh_shell_close", json!({"shell_id": shell, "wait_secs": 60})).await;
    let kept = std::fs::read(&path).unwrap();
    assert_eq!(closed.structured["transcript_size_bytes"], kept.len());
    let text = String::from_utf8(kept).unwrap();
    let gaps = text.split("[ssh-mcp: ").skip(1);
    let missing: usize = gaps.map(|gap| gap.split_once(' ').unwrap().0.parse::<usize>().unwrap()).sum();
    let there = text.bytes().filter(|byte| *byte == b'~').count();
    assert_eq!(there + missing, PRINTED, "{missing} bytes are marked as missing");
}

#[tokio::test]
async fn where_nothing_can_be_written_no_shell_is_opened() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let Some(stage) = watched(&[("SSH_MCP_STATE_DIR", file.path().to_str().unwrap())]).await else { return };
    let call = json!({"session_id": stage.session, "transcript": true});
    let refused = stage.client.call("ssh_shell_open", call).await;
    assert_eq!(refused.structured["code"], "LOCAL_FILE_ERROR", "{}", refused.text);
    assert!(refused.text.contains(file.path().to_str().unwrap()), "{}", refused.text);
    let listed = stage.client.call("ssh_resources", json!({"kind": "shell", "include_ended": true})).await;
    assert_eq!(listed.structured["count"], 0, "{}", listed.text);
}

#[tokio::test]
async fn a_window_of_tmux_lives_as_long_as_its_shell() {
    let Some(tmux) = Tmux::or_skip() else { return };
    let state = tempfile::tempdir().unwrap();
    let dir = |dir: &tempfile::TempDir| dir.path().to_str().unwrap().to_owned();
    let (state_dir, tmux_dir) = (dir(&state), dir(tmux.dir()));
    let env = [("SSH_MCP_STATE_DIR", state_dir.as_str()), ("TMUX_TMPDIR", tmux_dir.as_str())];
    let Some(mut stage) = watched(&env).await else { return };
    // What the user has in tmux is not touched.
    tmux.ask(&["new-session", "-d", "-s", "mine"]);

    let wanted = format!("ssh-mcp-tester@127_0_0_1_{}-build", stage.server.port());
    let opened = open_with(&stage, json!({"observer_mode": "tmux", "name": "build"})).await;
    assert_eq!(
        (field(&opened, "observer_mode"), field(&opened, "tmux_session_name")),
        ("tmux".to_owned(), wanted.clone()),
        "{}",
        opened.text
    );
    assert_eq!(
        field(&opened, "observer_command"),
        format!("TMUX_TMPDIR={tmux_dir} tmux attach -r -t {wanted}")
    );
    assert_eq!(tmux.sessions(), format!("mine\n{wanted}"));
    let shell = field(&opened, "shell_id");
    write(&stage, &shell, "echo sh''own\n").await;
    wait_for(&stage, &shell, "shown").await;
    let seen = wait_until(Duration::from_secs(10), || {
        tmux.ask(&["capture-pane", "-p", "-t", &format!("={wanted}:")]).contains("shown")
    });
    assert!(seen, "{}", tmux.ask(&["capture-pane", "-p", "-t", &format!("={wanted}:")]));

    stage.client.call("ssh_shell_close", json!({"shell_id": shell})).await;
    assert!(tmux.has("mine").await, "closed: {}", tmux.sessions());

    let shell =
        field(&open_with(&stage, json!({"observer_mode": "tmux", "name": "build"})).await, "shell_id");
    assert!(tmux.has(&format!("mine\n{wanted}")).await, "{}", tmux.sessions());
    write(&stage, &shell, "exit\n").await;
    assert!(tmux.has("mine").await, "exited: {}", tmux.sessions());

    let opened = open_with(&stage, json!({"observer_mode": "tmux", "name": "build"})).await;
    assert!(tmux.has(&format!("mine\n{wanted}")).await, "{}", tmux.sessions());
    write(&stage, &field(&opened, "shell_id"), "echo la''st\n").await;
    wait_for(&stage, &field(&opened, "shell_id"), "last").await;
    let sent = Command::new("kill").args(["-s", "TERM", &stage.client.pid().to_string()]).status();
    assert!(sent.unwrap().success());
    assert_eq!(stage.client.ended().await.code(), Some(0));
    assert_eq!(tmux.sessions(), "mine", "gone before the server is");
    let kept = std::fs::read_to_string(field(&opened, "transcript_path")).unwrap();
    assert!(kept.contains("last"), "{kept}");
}

#[tokio::test]
async fn without_tmux_the_transcript_is_kept_and_the_answer_says_why() {
    let Some(stage) = watched(&[("SSH_MCP_TMUX_BIN", "/nonexistent/tmux")]).await else { return };
    let opened = open_with(&stage, json!({"observer_mode": "tmux"})).await;
    assert_eq!(field(&opened, "observer_mode"), "transcript", "{}", opened.text);
    assert!(
        field(&opened, "observer_warning").starts_with("cannot start /nonexistent/tmux"),
        "{}",
        opened.text
    );
    assert!(opened.text.contains("WARN: OBSERVER_UNAVAILABLE "), "{}", opened.text);
    let path = field(&opened, "transcript_path");
    assert_eq!(field(&opened, "observer_command"), format!("tail -F -n +1 {path}"));
    assert!(Path::new(&path).is_file());
}
