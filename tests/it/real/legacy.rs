//! The tools of older systems, as their clients call them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use super::*;
use crate::{http::Product, sshd::Rsync, web::Web};

const LEGACY: &str = "SSH_MCP_LEGACY_TOOLS";

async fn client(system: &str) -> McpClient {
    McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &[(LEGACY, system)]).await
}

/// A call that works, whose text is the same object.
async fn ok(client: &McpClient, tool: &str, arguments: Value) -> Value {
    let answer = client.call(tool, arguments).await;
    assert!(!answer.is_error, "{tool}: {}", answer.text);
    assert_eq!(serde_json::from_str::<Value>(&answer.text).unwrap(), answer.structured, "{tool}");
    answer.structured
}

fn asked(server: &OpenSshd) -> Value {
    login(server, User::Tester, ClientKey::Ed25519)
}

fn names(listed: &Value) -> Vec<String> {
    listed["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_legacy_client_of_001_does_its_whole_job() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = client("001").await;
    let listed = names(&client.request("tools/list", json!({})).await.unwrap());
    assert!(
        listed.contains(&"ssh_execute_async".to_owned()) && !listed.contains(&"ssh_exec".to_owned()),
        "{listed:?}"
    );

    let connected = ok(&client, "ssh_connect", asked(&server)).await;
    assert_eq!((&connected["authenticated"], &connected["retry_attempts"]), (&json!(true), &json!(0)));
    let session = &connected["session_id"];
    let run = json!({"session_id": session, "command": "echo out; echo err >&2; exit 4"});
    let ran = ok(&client, "ssh_execute", run).await;
    assert_eq!(
        (&ran["stdout"], &ran["stderr"], &ran["exit_code"]),
        (&json!("out\n"), &json!("err\n"), &json!(4))
    );

    let start = async |command: &str| {
        let start = json!({"session_id": session, "command": command});
        ok(&client, "ssh_execute_async", start).await["command_id"].clone()
    };
    let (short, long) = (start("seq 3").await, start("echo up; sleep 300").await);
    let read = json!({"command_id": short, "wait": true, "wait_timeout_secs": 60});
    let read = ok(&client, "ssh_get_command_output", read).await;
    assert_eq!(
        (&read["status"], &read["stdout"], &read["exit_code"]),
        (&json!("completed"), &json!("1\n2\n3\n"), &json!(0))
    );
    let running = ok(&client, "ssh_list_commands", json!({"session_id": session, "status": "running"})).await;
    assert_eq!((&running["count"], &running["commands"][0]["command_id"]), (&json!(1), &long));
    let cancelled = ok(&client, "ssh_cancel_command", json!({"command_id": long})).await;
    assert_eq!(cancelled["cancelled"], true);

    let sessions = ok(&client, "ssh_list_sessions", json!({})).await;
    assert_eq!((&sessions["count"], &sessions["sessions"][0]["session_id"]), (&json!(1), session));
    assert_eq!(sessions["sessions"][0]["host"], server.addr().to_string());
    let left = client.call("ssh_disconnect", json!({"session_id": session})).await;
    assert_eq!(left.text, format!("Session {} disconnected successfully", session.as_str().unwrap()));
    let gone = client.call("ssh_execute", json!({"session_id": session, "command": "true"})).await;
    assert!(gone.is_error && gone.structured["error"].is_string(), "{}", gone.text);
    assert_eq!(gone.structured["code"], "SESSION_NOT_FOUND");
}

#[tokio::test]
async fn a_legacy_call_of_001_is_a_plain_post() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let product = Product::start(&[], &[(LEGACY, "001")]);
    let web = Web::plain(&product);
    let connected = web.call("ssh_connect", asked(&server)).await;
    assert!(!connected.is_error, "{}", connected.text);
    let run = json!({"session_id": connected.structured["session_id"], "command": "echo here"});
    let ran = web.call("ssh_execute", run).await;
    assert_eq!(
        (&ran.structured["stdout"], &ran.structured["exit_code"]),
        (&json!("here\n"), &json!(0)),
        "{}",
        ran.text
    );
    let sessions = web.call("ssh_list_sessions", json!({})).await;
    assert_eq!(sessions.structured["count"], 1);
}

#[tokio::test]
async fn a_legacy_client_of_002_lists_ids() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = client("002").await;
    let session = ok(&client, "ssh_connect", asked(&server)).await["session_id"].clone();
    let run = json!({"session_id": session, "command": "echo one", "timeout_secs": 30});
    assert_eq!(ok(&client, "ssh_execute", run).await["stdout"], "one\n");
    let listed = client.call("ssh_list_sessions", json!({})).await;
    assert_eq!(serde_json::from_str::<Value>(&listed.text).unwrap(), json!([session]));
    assert_eq!(listed.structured, json!({"sessions": [session]}));
}

#[tokio::test]
async fn a_legacy_client_of_003_does_its_whole_job() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = client("003").await;
    let key = server.client_key(ClientKey::Ed25519);
    let known = client.home().join("known");
    let host = |more: Value| {
        let mut all = json!({"target": "tester@127.0.0.1", "port": server.port(), "identity_file": key,
            "known_hosts_file": known, "strict_host_key_checking": "accept-new", "extra_ssh_args": ["-4"]});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let run =
        json!({"command": "echo $WORD; pwd; exit 3", "cwd": "/", "env": {"WORD": "said"}, "timeout": 60.5});
    let ran = ok(&client, "ssh_exec", host(run)).await;
    assert_eq!(
        (&ran["ok"], &ran["stdout"], &ran["exit_code"], &ran["timed_out"]),
        (&json!(true), &json!("said\n/\n"), &json!(3), &json!(false))
    );

    let start = json!({"session_name": "work", "observer_mode": "transcript"});
    let started = ok(&client, "ssh_start_session", host(start.clone())).await;
    let path = started["observer"]["transcript_path"].as_str().unwrap().to_owned();
    let taken = client.call("ssh_start_session", host(start.clone())).await;
    assert_eq!(taken.structured["error_type"], "NAME_IN_USE", "{}", taken.text);
    let ensured = ok(&client, "ssh_ensure_session", host(start)).await;
    assert_eq!(
        (&ensured["reused"], &ensured["matched_by"], &ensured["session_id"]),
        (&json!(true), &json!("session_name"), &started["session_id"])
    );
    let shell = &started["session_id"];
    let typed = json!({"session_id": shell, "input": "echo $((40 + 2))\n", "wait_seconds": 0.2});
    let mut seen = ok(&client, "ssh_write_session", typed).await["output"].as_str().unwrap().to_owned();
    while !seen.contains("42") {
        let more = ok(&client, "ssh_read_session", json!({"session_id": shell})).await;
        seen += more["output"].as_str().unwrap();
    }
    let stopped = ok(&client, "ssh_stop_session", json!({"session_id": shell, "force": true})).await;
    assert_eq!((&stopped["was_running"], &stopped["running"]), (&json!(true), &json!(false)));
    assert!(fs::read_to_string(path).unwrap().contains("42"));
}

#[tokio::test]
async fn a_legacy_client_of_003_copies_files_both_ways() {
    let options = Options { extra: vec!["Subsystem sftp internal-sftp".into()], ..Options::default() };
    let Some(server) = OpenSshd::start_or_skip(options) else { return };
    let client = client("003").await;
    let (here, there) = (client.home().to_owned(), server.home(User::Tester));
    let scp = |direction: &str, sources: &[&Path], destination: &Path, more: Value| {
        let mut all = json!({"target": "tester@127.0.0.1", "port": server.port(),
            "identity_file": server.client_key(ClientKey::Ed25519), "known_hosts_file": here.join("known"),
            "strict_host_key_checking": "accept-new", "direction": direction, "sources": sources,
            "destination": destination, "timeout": 60});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    let (tree, file) = (here.join("tree"), here.join("tree/below/file"));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, &content).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    fs::write(here.join("second"), "two").unwrap();

    // Up: a tree and a file beside it, into a directory that is made.
    let up = scp(
        "upload",
        &[&tree, &here.join("second")],
        Path::new("made"),
        json!({"recursive": true, "preserve_times": true}),
    );
    let copied = ok(&client, "ssh_scp", up.clone()).await;
    assert_eq!(
        (&copied["ok"], &copied["exit_code"], &copied["stdout"], &copied["stderr"]),
        (&json!(true), &json!(0), &json!(""), &json!("")),
        "{copied}"
    );
    assert_eq!(
        (&copied["direction"], &copied["sources"], &copied["destination"]),
        (&json!("upload"), &up["sources"], &json!("made"))
    );
    let arrived = there.join("made/tree/below/file");
    assert!(fs::read(&arrived).unwrap() == content);
    assert_eq!(fs::metadata(&arrived).unwrap().modified().unwrap(), old);
    assert_eq!(fs::read(there.join("made/second")).unwrap(), b"two");

    // Down: one file under a new name, over the same connection.
    let back = here.join("back");
    let down = scp("download", &[Path::new("made/tree/below/file")], &back, json!({}));
    let copied = ok(&client, "ssh_scp", down).await;
    assert_eq!((&copied["exit_code"], &copied["stderr"]), (&json!(0), &json!("")), "{copied}");
    assert!(fs::read(&back).unwrap() == content);

    // What the server refuses is complained of as scp does; what cannot begin is an error.
    let refused = scp("upload", &[&file], Path::new("/etc/ssh-mcp-refused"), json!({}));
    let refused = ok(&client, "ssh_scp", refused).await;
    let stderr = refused["stderr"].as_str().unwrap();
    assert_eq!((&refused["exit_code"], stderr.lines().count()), (&json!(1), 1), "{refused}");
    assert!(stderr.starts_with("scp: /etc/ssh-mcp-refused: "), "{refused}");
    let missing = client.call("ssh_scp", scp("download", &[Path::new("none")], &back, json!({}))).await;
    assert!(missing.is_error, "{}", missing.text);
    assert_eq!(
        (&missing.structured["ok"], &missing.structured["error_type"]),
        (&json!(false), &json!("REMOTE_METADATA_ERROR"))
    );
    assert!(fs::read(&back).unwrap() == content);
}

#[tokio::test]
async fn a_legacy_client_of_003_syncs_trees_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let Some(rsync) = Rsync::copied_or_skip(folder.path()) else { return };
    let options = Options { extra: rsync.for_sshd(), ..Options::default() };
    let Some(server) = OpenSshd::start_or_skip(options) else { return };
    let client = client("003").await;
    let (here, there) = (client.home().to_owned(), server.home(User::Tester));
    let sync = |direction: &str, source: &str, destination: &str, more: Value| {
        let mut all = json!({"target": "tester@127.0.0.1", "port": server.port(),
            "identity_file": server.client_key(ClientKey::Ed25519), "known_hosts_file": here.join("known"),
            "strict_host_key_checking": "accept-new", "direction": direction, "source": source,
            "destination": destination, "timeout": 60});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let tree = here.join("tree");
    fs::create_dir_all(tree.join("below")).unwrap();
    fs::write(tree.join("below/file"), "content").unwrap();
    fs::write(tree.join("scratch.tmp"), "left out").unwrap();
    let content = format!("{}/", tree.display());
    let up = sync("upload", &content, "made", json!({"exclude": ["*.tmp"]}));
    let synced = ok(&client, "ssh_sync", up).await;
    assert_eq!(
        (&synced["ok"], &synced["exit_code"], &synced["stdout"], &synced["stderr"]),
        (&json!(true), &json!(0), &json!(""), &json!("")),
        "{synced}"
    );
    assert_eq!(fs::read(there.join("made/below/file")).unwrap(), b"content");
    assert!(!there.join("made/scratch.tmp").exists());

    let back = here.join("back");
    let down = |more: Value| sync("download", "made/", back.to_str().unwrap(), more);
    let synced = ok(&client, "ssh_sync", down(json!({}))).await;
    assert_eq!(synced["exit_code"], 0, "{synced}");
    assert_eq!(fs::read(back.join("below/file")).unwrap(), b"content");
    fs::write(back.join("extra"), "x").unwrap();
    let synced = ok(&client, "ssh_sync", down(json!({"delete": true, "dry_run": true}))).await;
    assert_eq!((&synced["exit_code"], back.join("extra").exists()), (&json!(0), true), "{synced}");
    let synced = ok(&client, "ssh_sync", down(json!({"delete": true}))).await;
    assert_eq!((&synced["exit_code"], back.join("extra").exists()), (&json!(0), false), "{synced}");

    let refused = client.call("ssh_sync", down(json!({"extra_rsync_args": ["--inplace"]}))).await;
    assert!(refused.is_error, "{}", refused.text);
}

#[tokio::test]
async fn a_legacy_client_of_003_is_answered_in_its_words() {
    let client = client("003").await;
    let listed = ok(&client, "ssh_list_sessions", json!({"include_exited": true})).await;
    assert_eq!(listed, json!({"ok": true, "sessions": [], "count": 0}));
    for (tool, arguments) in [
        ("ssh_read_session", json!({"session_id": "s", "wait_seconds": 0.5})),
        ("ssh_write_session", json!({"session_id": "s", "input": "x\n"})),
        ("ssh_stop_session", json!({"session_id": "s", "force": true})),
    ] {
        let answer = client.call(tool, arguments).await;
        assert!(answer.is_error, "{tool}");
        assert_eq!(
            (&answer.structured["ok"], &answer.structured["error_type"]),
            (&json!(false), &json!("SHELL_NOT_FOUND"))
        );
    }
}
