//! What is told of transcripts and of windows on them.

use std::{path::PathBuf, sync::Arc};

use ssh_mcp_core::port::transcript::{TranscriptError, WindowError};
use ssh_mcp_testkit::transcripts::ScriptedDisk;

use super::*;

/// A server over this disk, and a session to the host.
async fn server(disk: &ScriptedDisk, host: ScriptedHost) -> (Rig, String) {
    let rig = Rig::keeping(disk.clone(), Arc::new(host.clone()), host, settings());
    let session = rig.session().await;
    (rig, session)
}

/// A shell with a prompt.
async fn open(disk: &ScriptedDisk, arguments: Value) -> Opened {
    let host = ScriptedHost::new().on("greet", Script::prints("hello\r\n"));
    open_on(disk, host, arguments).await
}

async fn open_on(disk: &ScriptedDisk, host: ScriptedHost, arguments: Value) -> Opened {
    let (rig, session) = server(disk, host).await;
    let opened = rig.ok("ssh_shell_open", join(json!({ "session_id": session }), arguments)).await;
    Opened { id: opened.fact("shell_id"), rig, session, opened }
}

fn path(shell: &Opened) -> String {
    ScriptedDisk::path(shell.id.parse().unwrap()).display().to_string()
}

#[tokio::test(start_paused = true)]
async fn a_transcript_is_named_and_its_growth_told() {
    for arguments in [json!({ "transcript": true }), json!({ "observer_mode": "transcript" })] {
        let disk = ScriptedDisk::new();
        let shell = open(&disk, arguments).await;
        let path = path(&shell);
        for line in [
            format!("TRANSCRIPT_PATH: {path}"),
            format!("OBSERVER_COMMAND: tail -F -n +1 {path}"),
            "OBSERVER_MODE: transcript".into(),
            "TRANSCRIPT_SIZE_BYTES: 2".into(),
        ] {
            has_line(&shell.opened, &line);
        }
        let facts = &shell.opened.facts;
        assert_eq!((&facts["transcript_path"], &facts["transcript_size_bytes"]), (&json!(path), &json!(2)));
        assert!(
            ["tmux_session_name", "observer_warning", "warnings"]
                .iter()
                .all(|name| facts.get(name).is_none())
        );

        let written = shell.ok("ssh_shell_write", json!({ "input": "greet\n", "wait_secs": 2 })).await;
        assert_eq!(written.facts["transcript_size_bytes"], 18);
        let read = shell.ok("ssh_shell_read", json!({})).await;
        has_line(&read, "TRANSCRIPT_SIZE_BYTES: 18");
        assert_eq!(read.facts["transcript_size_bytes"], 18);
        let closed = shell.ok("ssh_shell_close", json!({})).await;
        assert_eq!(closed.facts["transcript_size_bytes"], 18);
        assert_eq!(disk.content(path.as_ref()).unwrap(), b"$ greet\r\nhello\r\n$ ");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shell_that_nobody_wants_to_keep_says_nothing_of_it() {
    let shell = open(&ScriptedDisk::new(), json!({ "transcript": false })).await;
    assert!(!shell.opened.text.contains("TRANSCRIPT") && !shell.opened.text.contains("OBSERVER"));
}

#[tokio::test(start_paused = true)]
async fn a_window_is_named_with_the_command_that_shows_it() {
    let disk = ScriptedDisk::new();
    let asked = json!({ "observer_mode": "tmux", "transcript": false, "name": "build", "ensure": true });
    let shell = open(&disk, asked.clone()).await;
    let name = "ssh-mcp-ann@example.org:22-build";
    for line in [
        "OBSERVER_MODE: tmux".to_owned(),
        format!("OBSERVER_COMMAND: look at {name}"),
        format!("TMUX_SESSION_NAME: {name}"),
        format!("TRANSCRIPT_PATH: {}", path(&shell)),
    ] {
        has_line(&shell.opened, &line);
    }
    // Whoever finds the shell finds what its opener chose, whatever he asks for.
    for wish in [asked, json!({ "name": "build", "ensure": true })] {
        let found = shell.rig.ok("ssh_shell_open", join(json!({ "session_id": shell.session }), wish)).await;
        assert_eq!(found.fact("status"), "reused");
        for fact in ["transcript_path", "observer_mode", "observer_command", "tmux_session_name"] {
            assert_eq!(found.fact(fact), shell.opened.fact(fact));
        }
    }
    assert_eq!(disk.windows(), [name]);
    shell.ok("ssh_shell_close", json!({})).await;
    assert!(disk.windows().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_tmux_there_is_a_warning_and_a_transcript() {
    let error = WindowError::NoProgram { program: "tmux".into(), cause: "not found".into() };
    let disk = ScriptedDisk::new().without_windows(error);
    let shell = open(&disk, json!({ "observer_mode": "tmux" })).await;
    for line in [
        "OBSERVER_MODE: transcript".to_owned(),
        "OBSERVER_WARNING: cannot start tmux: not found".to_owned(),
        "WARN: OBSERVER_UNAVAILABLE cannot start tmux: not found; the transcript is written all the same"
            .to_owned(),
        format!("OBSERVER_COMMAND: tail -F -n +1 {}", path(&shell)),
    ] {
        has_line(&shell.opened, &line);
    }
    assert_eq!(shell.opened.facts["warnings"][0]["code"], "OBSERVER_UNAVAILABLE");
    assert_eq!(shell.opened.facts.get("tmux_session_name"), None);
    assert_eq!(disk.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_is_warned_of_once_and_marked_for_good() {
    let disk = ScriptedDisk::new().with_room(5);
    let chatty = Script::new().out("$ ").after(SECOND).out("more than there is room for");
    let shell = open_on(&disk, ScriptedHost::new().on_shell(chatty), json!({ "transcript": true })).await;
    assert!(!shell.opened.text.contains("WARN"));
    pass(SECOND * 2).await;
    let first = shell.ok("ssh_shell_read", json!({})).await;
    let warning = &first.facts["warnings"][0];
    assert_eq!(
        (&warning["code"], &warning["resource"]),
        (&json!("TRANSCRIPT_BROKEN"), &json!(format!("shell://{}/output", shell.id)))
    );
    assert!(first.text.contains("WARN: TRANSCRIPT_BROKEN shell://"), "{}", first.text);
    assert_eq!(first.fact("stdout"), "$ more than there is room for", "the shell goes on");
    let second = shell.ok("ssh_shell_read", json!({})).await;
    assert_eq!(second.facts.get("warnings"), None);
    for read in [first, second] {
        has_line(&read, "TRANSCRIPT_ERROR: cannot write: no space left on the disk");
        has_line(&read, "TRANSCRIPT_SIZE_BYTES: 5");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transcript_that_cannot_be_made_refuses_the_shell() {
    let path = PathBuf::from("/var/lib/ssh-mcp");
    let error = TranscriptError::Failed { path, cause: "Read-only file system (os error 30)".into() };
    let (rig, session) = server(&ScriptedDisk::new().refusing(error), ScriptedHost::new()).await;
    let refused = rig.fails("ssh_shell_open", json!({ "session_id": session, "transcript": true })).await;
    assert_eq!(refused.fact("code"), "LOCAL_FILE_ERROR");
    assert_eq!(refused.fact("reason"), "cannot make /var/lib/ssh-mcp: Read-only file system (os error 30)");
    assert_eq!(rig.host.open_channels(), 0);
    rig.ok("ssh_shell_open", json!({ "session_id": session })).await;
}
