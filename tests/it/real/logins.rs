//! Who gets in, and who is told what.

use super::*;
use crate::sshd::{Agent, HostKey, KeyboardInteractive, PASSPHRASE, PasswordLogin};

async fn product() -> McpClient {
    McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &[]).await
}

/// The code of a refusal.
fn code(answer: &ToolAnswer) -> &str {
    assert!(answer.is_error, "{}", answer.text);
    answer.structured["code"].as_str().unwrap()
}

async fn runs(client: &McpClient, answer: &ToolAnswer, user: User) {
    assert!(!answer.is_error, "{}", answer.text);
    let call = json!({"session_id": field(answer, "session_id"), "command": "id -un", "wait": true});
    let answer = client.call("ssh_exec", call).await;
    assert_eq!(answer.structured["stdout"].as_str().unwrap().trim(), user.name(), "{}", answer.text);
}

#[tokio::test]
async fn every_kind_of_key_file_logs_in() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = product().await;
    for user in User::BOTH {
        for key in ClientKey::ADMITTED {
            let mut call = login(&server, user, key);
            call["reuse"] = "force_new".into();
            call["key_passphrase"] = PASSPHRASE.into();
            let answer = client.call("ssh_connect", call).await;
            runs(&client, &answer, user).await;
        }
    }
}

#[tokio::test]
async fn an_encrypted_key_wants_its_pass_phrase() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = product().await;
    let mut call = login(&server, User::Tester, ClientKey::Ed25519Encrypted);
    assert_eq!(code(&client.call("ssh_connect", call.clone()).await), "AUTH_KEY_PARSE");
    call["key_passphrase"] = "not the pass phrase".into();
    let refused = client.call("ssh_connect", call.clone()).await;
    assert_eq!(code(&refused), "AUTH_KEY_PARSE");
    assert!(!refused.text.contains("not the pass phrase") && !client.log().contains("not the pass phrase"));
    call["key_passphrase"] = PASSPHRASE.into();
    runs(&client, &client.call("ssh_connect", call).await, User::Tester).await;
}

#[tokio::test]
async fn a_password_logs_in_by_either_method_and_is_never_shown() {
    let password_only = Options::default();
    let asked = Options {
        password: PasswordLogin::Off,
        keyboard_interactive: KeyboardInteractive::ByPam,
        ..Options::default()
    };
    for options in [password_only, asked] {
        let Some(server) = OpenSshd::start_or_skip(options) else { return };
        let client = McpClient::spawn(
            Era::LEGACY_2025_11,
            &binary("ssh-mcp-stdio"),
            &[],
            &[("RUST_LOG", "trace,russh=trace,rmcp=trace")],
        )
        .await;
        let call = json!({"address": server.addr().to_string(), "username": "tester", "password": server.password()});
        let answer = client.call("ssh_connect", call).await;
        runs(&client, &answer, User::Tester).await;
        assert!(!answer.text.contains(server.password()));
        assert!(!client.log().contains(server.password()), "the log shows the password");
    }
}

#[tokio::test]
async fn the_agent_logs_in() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let agent = Agent::start();
    agent.add(&server.client_key(ClientKey::Stranger), None);
    agent.add(&server.client_key(ClientKey::Ed25519), None);
    let socket = agent.socket();
    let env = [("SSH_AUTH_SOCK", socket.to_str().unwrap())];
    let client = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &env).await;
    let call = json!({"address": server.addr().to_string(), "username": "tester"});
    runs(&client, &client.call("ssh_connect", call).await, User::Tester).await;
}

#[tokio::test]
async fn a_stranger_is_refused_at_once_and_told_what_was_tried() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = product().await;
    let refused = client.call("ssh_connect", login(&server, User::Tester, ClientKey::Stranger)).await;
    assert_eq!(code(&refused), "AUTH_FAILED");
    assert!(refused.text.contains("publickey"), "{}", refused.text);
    let listed = client.call("ssh_resources", json!({"include_ended": true})).await;
    assert_eq!(listed.structured["count"], 0, "{}", listed.text);
}

#[tokio::test]
async fn an_unknown_host_is_learnt_and_known_the_next_time() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = product().await;
    let mut call = login(&server, User::Tester, ClientKey::Ed25519);
    call["reuse"] = "force_new".into();
    for status in ["learnt", "known"] {
        let answer = client.call("ssh_connect", call.clone()).await;
        let key = &answer.structured["host_key"];
        assert_eq!(key["status"], status, "{}", answer.text);
        assert_eq!(key["type"], "ssh-ed25519");
        assert_eq!(key["fingerprint"], server.host_key_fingerprint(HostKey::Ed25519));
    }
    // What was learnt is what OpenSSH's own client believes.
    let file = client.home().join(".ssh/known_hosts");
    let mut ssh = std::process::Command::new("ssh");
    ssh.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o"]);
    ssh.arg(format!("UserKnownHostsFile={}", file.display())).args([
        "-o",
        "GlobalKnownHostsFile=/dev/null",
        "-i",
    ]);
    ssh.arg(server.client_key(ClientKey::Ed25519)).args([
        "-p",
        &server.port().to_string(),
        "tester@127.0.0.1",
        "true",
    ]);
    assert!(ssh.status().unwrap().success());
}

#[tokio::test]
async fn a_strict_check_refuses_an_unknown_host() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let env = [("SSH_STRICT_HOST_KEY_CHECKING", "yes")];
    let client = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &env).await;
    let refused = client.call("ssh_connect", login(&server, User::Tester, ClientKey::Ed25519)).await;
    assert_eq!(code(&refused), "HOST_KEY_UNKNOWN");
    assert!(refused.text.contains(&server.host_key_fingerprint(HostKey::Ed25519)), "{}", refused.text);
}

#[tokio::test]
async fn a_changed_host_key_is_refused() {
    let Some(mut stage) = Stage::set(Options::default(), User::Tester).await else { return };
    stage.server.restart_with_new_host_key();
    let mut call = login(&stage.server, User::Tester, ClientKey::Ed25519);
    call["reuse"] = "force_new".into();
    let refused = stage.client.call("ssh_connect", call).await;
    assert_eq!(code(&refused), "HOST_KEY_MISMATCH");
    assert!(refused.text.contains("known_hosts:1"), "{}", refused.text);
}

#[tokio::test]
async fn nothing_listens_or_nothing_answers() {
    let Some(mut server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = product().await;
    let mut call = login(&server, User::Tester, ClientKey::Ed25519);
    call["max_retries"] = 1.into();
    call["retry_delay_ms"] = 10.into();
    server.stop();
    let refused = client.call("ssh_connect", call.clone()).await;
    assert_eq!(code(&refused), "CONNECTION_FAILED");
    assert_eq!(refused.structured["retry"], "backoff");

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    call["address"] = silent.local_addr().unwrap().to_string().into();
    call["timeout_secs"] = 1.into();
    assert_eq!(code(&client.call("ssh_connect", call).await), "CONNECTION_TIMEOUT");
}

#[tokio::test]
async fn sessions_are_suggested_reused_and_ended_by_their_agent() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = product().await;
    let mut call = login(&server, User::Tester, ClientKey::Ed25519);
    call["agent_id"] = "builder".into();
    let first = client.call("ssh_connect", call.clone()).await;
    let suggested = client.call("ssh_connect", call.clone()).await;
    assert_eq!(suggested.structured["status"], "suggested", "{}", suggested.text);
    call["reuse"] = "auto".into();
    let reused = client.call("ssh_connect", call.clone()).await;
    assert_eq!(reused.structured["status"], "reused");
    assert_eq!(field(&reused, "session_id"), field(&first, "session_id"));
    let ended = client.call("ssh_disconnect_agent", json!({"agent_id": "builder"})).await;
    assert_eq!(ended.structured["sessions_closed"], 1);
    assert!(server.wait_for_log("Disconnected from user tester", std::time::Duration::from_secs(10)));
    let gone =
        client.call("ssh_exec", json!({"session_id": field(&first, "session_id"), "command": "true"})).await;
    assert_eq!(code(&gone), "SESSION_NOT_FOUND");
}
