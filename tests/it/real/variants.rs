//! OpenSSH servers that are set up otherwise than most: narrow algorithms, few sessions, forced commands, no terminals.

use std::fs;

use super::*;
use crate::sshd::HostKey;

fn with(extra: &[&str]) -> Options {
    Options { extra: extra.iter().map(|line| (*line).to_owned()).collect(), ..Options::default() }
}

#[tokio::test]
async fn one_algorithm_of_each_kind_is_enough() {
    for line in [
        "Ciphers chacha20-poly1305@openssh.com",
        "Ciphers aes128-gcm@openssh.com",
        "Ciphers aes256-gcm@openssh.com",
        "Ciphers aes128-ctr",
        "KexAlgorithms curve25519-sha256",
        "KexAlgorithms ecdh-sha2-nistp256",
        "KexAlgorithms diffie-hellman-group14-sha256",
        "KexAlgorithms diffie-hellman-group-exchange-sha256",
    ] {
        let Some(stage) = Stage::set(with(&[line]), User::Tester).await else { return };
        let answer = stage.run("echo in; exit 3").await;
        assert_eq!(answer.structured["stdout"], "in\n", "{line}");
        assert_eq!(answer.structured["exit_code"], 3, "{line}");
    }
    // Message authentication of its own, the older way round as well.
    for mac in ["hmac-sha2-256", "hmac-sha2-512-etm@openssh.com"] {
        let lines = ["Ciphers aes256-ctr", &format!("MACs {mac}")];
        let Some(stage) = Stage::set(with(&lines), User::Tester).await else { return };
        assert_eq!(stage.run("echo in").await.structured["stdout"], "in\n", "{mac}");
    }
}

#[tokio::test]
async fn a_server_without_a_common_algorithm_is_told_what_it_lacks() {
    let rsa = Options { host_keys: vec![HostKey::Rsa], ..with(&["HostKeyAlgorithms ssh-rsa"]) };
    for (options, theirs) in [
        (with(&["KexAlgorithms diffie-hellman-group1-sha1"]), "diffie-hellman-group1-sha1"),
        (with(&["Ciphers aes256-cbc"]), "aes256-cbc"),
        (rsa, "ssh-rsa"),
    ] {
        let Some(server) = OpenSshd::start_or_skip(options) else { return };
        let client = McpClient::spawn(Era::MODERN, &binary("ssh-mcp-stdio"), &[], &[]).await;
        let mut call = login(&server, User::Tester, ClientKey::Ed25519);
        let refused = client.call("ssh_connect", call.clone()).await;
        assert_eq!(refused.structured["code"], "CONNECTION_FAILED", "{}", refused.text);
        assert!(refused.text.contains(theirs), "{theirs}: {}", refused.text);
        // As `ssh` does, it takes old signatures from who asks for them.
        if theirs == "ssh-rsa" {
            call["ssh_options"] = json!({"HostKeyAlgorithms": "+ssh-rsa"});
            call["target"] = call["address"].take();
            call.as_object_mut().unwrap().remove("address");
            let answer = client.call("ssh_connect", call).await;
            assert!(!answer.is_error, "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn keys_are_exchanged_anew_in_the_midst_of_output() {
    let env = [("SSH_COMMAND_MAX_BUFFER_SIZE", "16m"), ("RUST_LOG", "ssh_mcp::ssh=debug")];
    let options = with(&["RekeyLimit 1M"]);
    let Some(stage) = Stage::set_in(Era::LEGACY_2025_11, options, User::Tester, &env).await else { return };
    let answer = stage.run("seq 900000").await;
    assert_eq!(answer.structured["exit_code"], 0, "{}", answer.text);
    let stdout = answer.structured["stdout"].as_str().unwrap();
    assert!(stdout.ends_with("\n899999\n900000\n"), "{}", answer.text);
    let log = stage.client.log();
    let exchanges = log.lines().filter(|line| line.contains("keys exchanged")).count();
    assert!(exchanges > 3, "{exchanges} key exchanges for 6 MB");
}

#[tokio::test]
async fn one_session_a_connection_is_enough_for_five_commands() {
    let options = Options { max_sessions: Some(1), ..Options::default() };
    let Some(stage) = Stage::set(options, User::Tester).await else { return };
    let gate = stage.server.home(User::Tester).join("gate");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done; echo through", gate.display());
    let mut commands = Vec::new();
    for _ in 0..5 {
        commands.push(stage.start(json!({"command": wait})).await);
    }
    let shell = stage.client.call("ssh_shell_open", json!({"session_id": stage.session})).await;
    assert!(!shell.is_error, "{}", shell.text);
    fs::write(gate, "").unwrap();
    for command in commands {
        assert_eq!(stage.ended(&command).await.structured["stdout"], "through\n");
    }
}

#[tokio::test]
async fn a_server_that_grants_no_session_says_so() {
    let options = Options { max_sessions: Some(0), ..Options::default() };
    let Some(stage) = Stage::set(options, User::Tester).await else { return };
    let answer = stage.exec(json!({"command": "true", "wait": true})).await;
    assert!(answer.is_error, "{}", answer.text);
    assert_eq!(answer.structured["code"], "CHANNEL_FAILED", "{}", answer.text);
}

#[tokio::test]
async fn a_forced_command_runs_instead_of_ours() {
    let options = Options { force_command: Some("echo forced; exit 5".into()), ..Options::default() };
    let Some(stage) = Stage::set(options, User::Tester).await else { return };
    let answer = stage.run("echo ours").await;
    assert_eq!(answer.structured["stdout"], "forced\n");
    assert_eq!(answer.structured["exit_code"], 5);

    // A gate that looks at what was asked for and runs it.
    let force = r#"printf 'asked\n'; eval "$SSH_ORIGINAL_COMMAND""#;
    let options = Options { force_command: Some(force.into()), ..Options::default() };
    let Some(stage) = Stage::set(options, User::Tester).await else { return };
    let answer = stage.run("echo ours").await;
    assert_eq!(answer.structured["stdout"], "asked\nours\n");
}

#[tokio::test]
async fn without_terminals_commands_run_and_a_shell_is_refused_plainly() {
    let Some(stage) = Stage::set(with(&["PermitTTY no"]), User::Tester).await else { return };
    assert_eq!(stage.run("echo in").await.structured["stdout"], "in\n");
    let refused = stage.client.call("ssh_shell_open", json!({"session_id": stage.session})).await;
    assert!(refused.is_error, "{}", refused.text);
    assert!(refused.text.to_lowercase().contains("terminal"), "{}", refused.text);
}

#[tokio::test]
async fn two_tries_are_enough_for_the_key_that_is_named() {
    let Some(stage) = Stage::set(with(&["MaxAuthTries 2"]), User::Tester).await else { return };
    assert_eq!(stage.run("echo in").await.structured["stdout"], "in\n");
}

#[tokio::test]
async fn a_long_banner_is_no_output() {
    let dir = tempfile::tempdir().unwrap();
    let banner = dir.path().join("banner");
    fs::write(&banner, "Authorised use only.\n".repeat(2000)).unwrap();
    let line = format!("Banner {}", banner.display());
    let Some(stage) = Stage::set(with(&[&line]), User::Tester).await else { return };
    let answer = stage.run("echo in").await;
    assert_eq!(answer.structured["stdout"], "in\n");
    assert!(!answer.text.contains("Authorised"), "{}", answer.text);
}
