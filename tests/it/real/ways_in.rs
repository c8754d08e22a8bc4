//! Ways in as users of OpenSSH have them: certificates, agents, several steps, programs in place of connections; and what
//! programs over there are lent.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::targets::{block, code, copy_key, product, refusal, user_at};
use super::*;
use crate::sshd::processes::{processes_matching, wait_until};
use crate::sshd::{Agent, Authority, KeyboardInteractive, PASSPHRASE, PasswordLogin, SecurityKey};

const LIMIT: Duration = Duration::from_secs(20);

/// A `Host` block without keys.
fn bare(alias: &str, server: &OpenSshd, more: &str) -> String {
    let port = server.port();
    format!("Host {alias}\n HostName 127.0.0.1\n Port {port}\n User tester\n {more}\n")
}

/// How the server says it let somebody in, for each login.
fn accepted(server: &OpenSshd) -> Vec<String> {
    server.logs().into_iter().filter(|line| line.starts_with("Accepted ") && line.contains(" for ")).collect()
}

fn words(path: &Path) -> String {
    path.display().to_string()
}

/// A server that believes an authority and admits no key by itself.
fn certified(authority: &Authority, options: Options) -> Option<OpenSshd> {
    let mut options = options;
    options.extra.push(format!("TrustedUserCAKeys {}", authority.public_key().display()));
    OpenSshd::start_or_skip(options)
}

#[tokio::test]
async fn a_certificate_opens_what_its_key_alone_does_not() {
    let authority = Authority::new();
    let Some(server) = certified(&authority, Options { max_sessions: Some(1), ..Options::default() }) else {
        return;
    };
    let ed25519 = authority.key("beside", "ed25519");
    let rsa = authority.key("rsa", "rsa");
    let apart = authority.key("apart", "ecdsa");
    let plain = authority.key("plain", "ed25519");
    for key in [&ed25519, &rsa, &apart] {
        authority.certify(key, "tester,ops", "-1h:+1h");
    }
    // Under another name it is not found unless it is named.
    let moved = authority.folder().join("moved.pub");
    fs::rename(authority.folder().join("apart-cert.pub"), &moved).unwrap();
    let agent = Agent::start();
    agent.add(&apart, None);
    let only = "IdentitiesOnly yes\n IdentityFile";
    let config = bare("beside", &server, &format!("{only} {}", words(&ed25519)))
        + &bare("rsa", &server, &format!("{only} {}", words(&rsa)))
        + &bare("named", &server, &format!("{only} {}\n CertificateFile {}", words(&apart), words(&moved)))
        + &bare("unnamed", &server, &format!("IdentityAgent none\n {only} {}", words(&apart)))
        + &bare("held", &server, &format!("{only} {}\n CertificateFile {}", words(&plain), words(&moved)))
        + &bare("plain", &server, &format!("{only} {}", words(&plain)));
    let socket = words(&agent.socket());
    let client = product(&config, &[("SSH_AUTH_SOCK", &socket)]).await;
    for (alias, kind) in
        [("beside", "ED25519-CERT"), ("rsa", "RSA-CERT"), ("named", "ECDSA-CERT"), ("held", "ECDSA-CERT")]
    {
        assert_eq!(user_at(&client, json!({"target": alias})).await, "tester", "{alias}");
        let by = accepted(&server).pop().unwrap();
        assert!(by.contains(kind), "{alias}: {by}");
    }
    for alias in ["unnamed", "plain"] {
        assert_eq!(refusal(&client, json!({"target": alias})).await.0, "AUTH_FAILED", "{alias}");
    }
    // Further connections show it as well.
    let connected = client.call("ssh_connect", json!({"target": "rsa", "reuse": "force_new"})).await;
    let session = field(&connected, "session_id");
    for _ in 0..2 {
        let shell = client.call("ssh_shell_open", json!({"session_id": session})).await;
        assert!(!shell.is_error, "{}", shell.text);
    }
}

#[tokio::test]
async fn an_agent_shows_the_certificates_it_holds() {
    let authority = Authority::new();
    let Some(server) = certified(&authority, Options::default()) else { return };
    let key = authority.key("id", "ed25519");
    authority.certify(&key, "tester", "-1h:+1h");
    let agent = Agent::start();
    // ssh-add takes the certificate beside the key along.
    agent.add(&key, None);
    let socket = words(&agent.socket());
    let client = product(&bare("box", &server, ""), &[("SSH_AUTH_SOCK", &socket)]).await;
    assert_eq!(user_at(&client, json!({"target": "box"})).await, "tester");
    assert!(accepted(&server)[0].contains("ED25519-CERT"), "{:?}", accepted(&server));
}

#[tokio::test]
async fn a_certificate_that_does_not_serve_says_why() {
    let authority = Authority::new();
    let Some(server) = certified(&authority, Options::default()) else { return };
    let mut config = String::new();
    for (name, principals, validity) in
        [("other", "ops,admins", "-1h:+1h"), ("old", "tester", "-2h:-1h"), ("new", "tester", "+1h:+2h")]
    {
        let key = authority.key(name, "ed25519");
        authority.certify(&key, principals, validity);
        config += &bare(name, &server, &format!("IdentityFile {}", words(&key)));
    }
    let client = product(&config, &[]).await;
    for (alias, why) in [
        ("other", "certificate: it is for the principals ops admins, not for tester"),
        ("old", "certificate: it has expired"),
        ("new", "certificate: it is not valid yet"),
    ] {
        let (code, text) = refusal(&client, json!({"target": alias})).await;
        assert_eq!(code, "AUTH_FAILED", "{text}");
        assert!(text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn the_key_that_a_file_names_comes_before_the_others_of_an_agent() {
    let options = Options { extra: vec!["MaxAuthTries 2".into()], ..Options::default() };
    let Some(server) = OpenSshd::start_or_skip(options) else { return };
    let strangers = Authority::new();
    let agent = Agent::start();
    for name in ["a", "b", "c", "d"] {
        agent.add(&strangers.key(name, "ed25519"), None);
    }
    agent.add(&server.client_key(ClientKey::Ed25519Encrypted), Some(PASSPHRASE));
    let right = words(&server.client_key(ClientKey::Ed25519Encrypted));
    let config = bare("named", &server, &format!("IdentityFile {right}"))
        + &bare("public", &server, &format!("IdentityFile {right}.pub"))
        + &bare("any", &server, "");
    let socket = words(&agent.socket());
    let client = product(&config, &[("SSH_AUTH_SOCK", &socket)]).await;
    // Encrypted, and no pass phrase is needed: the agent has been given it.
    assert_eq!(user_at(&client, json!({"target": "named"})).await, "tester");
    assert_eq!(user_at(&client, json!({"target": "public"})).await, "tester");
    assert_eq!(user_at(&client, json!({"target": "any", "identity_file": right})).await, "tester");
    let (code, text) = refusal(&client, json!({"target": "any"})).await;
    assert_eq!(code, "AUTH_FAILED");
    assert!(text.contains("MaxAuthTries") && text.contains("IdentitiesOnly"), "{text}");
}

#[tokio::test]
async fn an_agent_that_says_nothing_is_left_alone() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("silent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let config = block("box", &server, "") + &bare("bare", &server, "");
    let client = product(&config, &[("SSH_AUTH_SOCK", &words(&socket))]).await;
    assert_eq!(user_at(&client, json!({"target": "box"})).await, "tester");
    let (code, text) = refusal(&client, json!({"target": "bare"})).await;
    assert_eq!(code, "AUTH_FAILED", "{text}");
    assert!(text.contains("agent, which does not answer"), "{text}");
}

#[tokio::test]
async fn a_security_key_that_an_agent_holds_logs_in() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let key = SecurityKey::start();
    let admitted = server.home(User::Tester).join(".ssh/authorized_keys");
    let mut file = fs::OpenOptions::new().append(true).open(admitted).unwrap();
    writeln!(file, "{}", key.public_line()).unwrap();
    let socket = words(&key.socket());
    let client = product(&bare("box", &server, ""), &[("SSH_AUTH_SOCK", &socket)]).await;
    assert_eq!(user_at(&client, json!({"target": "box"})).await, "tester");
    assert!(accepted(&server)[0].contains("ED25519-SK"), "{:?}", accepted(&server));
}

#[tokio::test]
async fn several_steps_are_taken_in_whatever_order_the_server_wants() {
    for (methods, last) in [
        ("publickey,keyboard-interactive", "keyboard-interactive/pam"),
        ("publickey,password", "password"),
        ("password,publickey", "publickey"),
        ("publickey,publickey", "publickey"),
    ] {
        let options = Options {
            authentication_methods: Some(methods.into()),
            keyboard_interactive: KeyboardInteractive::ByPam,
            ..Options::default()
        };
        let Some(server) = OpenSshd::start_or_skip(options) else { return };
        let second = format!("IdentityFile {}", words(&server.client_key(ClientKey::EcdsaPkcs8)));
        let client = product(&block("box", &server, &second), &[]).await;
        let call = json!({"target": "box", "password": server.password()});
        assert_eq!(user_at(&client, call).await, "tester", "{methods}");
        let by = accepted(&server);
        assert!(by.iter().any(|line| line.starts_with(&format!("Accepted {last}"))), "{methods}: {by:?}");
        if methods != "publickey,publickey" {
            let (code, text) = refusal(&client, json!({"target": "box", "password": "wrong"})).await;
            assert_eq!(code, "AUTH_FAILED", "{text}");
        }
    }
}

#[tokio::test]
async fn a_password_that_is_asked_for_twice_is_given_twice() {
    let options = Options {
        password: PasswordLogin::Off,
        keyboard_interactive: KeyboardInteractive::TwiceByPam,
        ..Options::default()
    };
    let Some(server) = OpenSshd::start_or_skip(options) else { return };
    let client = product(&bare("box", &server, ""), &[]).await;
    assert_eq!(user_at(&client, json!({"target": "box", "password": server.password()})).await, "tester");
}

#[tokio::test]
async fn methods_come_in_the_order_of_the_configuration() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let config = block("usual", &server, "")
        + &block("turned", &server, "PreferredAuthentications password,publickey")
        + &block("without", &server, "PreferredAuthentications keyboard-interactive,publickey");
    let client = product(&config, &[]).await;
    for (alias, first) in [("usual", "publickey"), ("turned", "password"), ("without", "publickey")] {
        let call = json!({"target": alias, "password": server.password()});
        assert_eq!(user_at(&client, call).await, "tester", "{alias}");
        let by = accepted(&server).pop().unwrap();
        assert!(by.starts_with(&format!("Accepted {first}")), "{alias}: {by}");
    }
}

#[tokio::test]
async fn keys_sign_by_what_the_configuration_accepts_and_by_sha1_only_when_asked() {
    let only = |algorithms: &str| Options {
        extra: vec![format!("PubkeyAcceptedAlgorithms {algorithms}")],
        ..Options::default()
    };
    // What sshd says it takes (RFC 8308) is what it knows, whatever these lines say.
    let Some(server) = OpenSshd::start_or_skip(only("rsa-sha2-256,ssh-ed25519")) else { return };
    let Some(old) = OpenSshd::start_or_skip(only("ssh-rsa")) else { return };
    let rsa = |alias: &str, server: &OpenSshd, more: &str| {
        bare(
            alias,
            server,
            &format!("IdentityFile {}\n {more}", words(&server.client_key(ClientKey::RsaPem))),
        )
    };
    let config = rsa("weaker", &server, "PubkeyAcceptedAlgorithms rsa-sha2-256,ssh-ed25519")
        + &rsa("stronger", &server, "PubkeyAcceptedAlgorithms rsa-sha2-512")
        + &block("none", &server, "PubkeyAcceptedAlgorithms -ssh-ed25519")
        + &rsa("old", &old, "")
        + &rsa("asked", &old, "PubkeyAcceptedAlgorithms ssh-rsa");
    let client = product(&config, &[]).await;
    for alias in ["weaker", "asked"] {
        assert_eq!(user_at(&client, json!({"target": alias})).await, "tester", "{alias}");
    }
    for (alias, why) in [
        ("stronger", "tried: publickey (key file)"),
        ("none", "ssh-ed25519, which PubkeyAcceptedAlgorithms leaves out"),
        ("old", "tried: publickey (key file)"),
    ] {
        let (code, text) = refusal(&client, json!({"target": alias})).await;
        assert_eq!(code, "AUTH_FAILED", "{text}");
        assert!(text.contains(why), "{alias}: {text}");
    }
}

#[tokio::test]
async fn the_agent_is_the_one_the_configuration_names() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let (right, empty) = (Agent::start(), Agent::start());
    right.add(&server.client_key(ClientKey::Ed25519), None);
    let config = bare("usual", &server, "")
        + &bare("same", &server, "IdentityAgent SSH_AUTH_SOCK")
        + &bare("variable", &server, "IdentityAgent $BOX_AGENT")
        + &bare("path", &server, &format!("IdentityAgent {}", words(&right.socket())))
        + &bare("none", &server, "IdentityAgent none");
    let (right, empty) = (words(&right.socket()), words(&empty.socket()));
    let client = product(&config, &[("SSH_AUTH_SOCK", &empty), ("BOX_AGENT", &right)]).await;
    for alias in ["variable", "path"] {
        assert_eq!(user_at(&client, json!({"target": alias})).await, "tester", "{alias}");
    }
    for alias in ["usual", "same"] {
        let (_, text) = refusal(&client, json!({"target": alias})).await;
        assert!(text.contains("agent, which holds no key"), "{alias}: {text}");
    }
    let (_, text) = refusal(&client, json!({"target": "none"})).await;
    assert!(!text.contains("agent, which"), "{text}");
}

/// What a command prints there, by a call that connects for itself.
async fn printed(client: &McpClient, mut call: Value, command: &str) -> String {
    call["command"] = command.into();
    let answer = client.call("ssh_run", call).await;
    assert!(!answer.is_error, "{}", answer.text);
    answer.structured["stdout"].as_str().unwrap_or_default().trim().to_owned()
}

#[tokio::test]
async fn the_agent_is_lent_when_somebody_says_so() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let agent = Agent::start();
    agent.add(&server.client_key(ClientKey::RsaPem), None);
    let socket = words(&agent.socket());
    let config = block("box", &server, "")
        + &block("open", &server, "ForwardAgent yes")
        + &block("variable", &server, "IdentityAgent none\n ForwardAgent $BOX_AGENT");
    let client = product(&config, &[("SSH_AUTH_SOCK", &socket), ("BOX_AGENT", &socket)]).await;
    // Sessions that lend and sessions that do not are not each other's.
    user_at(&client, json!({"target": "box"})).await;
    let list = "ssh-add -l 2>&1; true";
    let is_lent = |said: &str| said.contains("(RSA)");
    for (call, expected) in [
        (json!({"target": "box"}), false),
        (json!({"target": "box", "forward_agent": true}), true),
        (json!({"target": "box"}), false),
        (json!({"target": "box", "extra_ssh_args": ["-A"]}), true),
        (json!({"target": "open"}), true),
        (json!({"target": "open", "forward_agent": false}), false),
        (json!({"target": "open", "extra_ssh_args": ["-a"]}), false),
        (json!({"target": "variable"}), true),
    ] {
        let said = printed(&client, call.clone(), list).await;
        assert_eq!(is_lent(&said), expected, "{call}: {said}");
    }
    // Many at once: each gets its turn or is told no, and the session stays.
    let many = "for i in 1 2 3 4 5 6 7 8; do ssh-add -l >/dev/null 2>&1 & done; wait; ssh-add -l";
    assert!(is_lent(&printed(&client, json!({"target": "open"}), many).await));
    // A shell is lent it too.
    let opened = client.call("ssh_shell_open", json!({"target": "open"})).await;
    assert!(!opened.is_error, "{}", opened.text);
    let shell = field(&opened, "shell_id");
    let typed = json!({"shell_id": shell, "input": "ssh-add -l; echo do''ne\n"});
    assert!(!client.call("ssh_shell_write", typed).await.is_error);
    let wait = json!({"shell_id": shell, "patterns": ["done"], "timeout_secs": 20});
    let seen = client.call("ssh_shell_wait_for", wait).await;
    assert!(seen.text.contains("(RSA)"), "{}", seen.text);

    let nobody = product(&config, &[]).await;
    let (code, text) = refusal(&nobody, json!({"target": "box", "forward_agent": true})).await;
    assert_eq!(code, "INVALID_ARGUMENT", "{text}");
    let plain = json!({"address": server.addr().to_string(), "username": "tester", "forward_agent": true});
    assert_eq!(refusal(&nobody, plain).await.0, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn variables_reach_the_programs_there() {
    let options = Options { extra: vec!["AcceptEnv BOX_* LC_*".into()], ..Options::default() };
    let Some(server) = OpenSshd::start_or_skip(options) else { return };
    let config = block("box", &server, "SendEnv BOX_S* OTHER\n SetEnv BOX_SET=\"two words\" BOX_BOTH=set");
    let env = [("BOX_SENT", "from here"), ("BOX_KEPT", "kept"), ("OTHER", "not taken")];
    let client = product(&config, &env).await;
    let show = "echo \"$BOX_SENT|$BOX_SET|$BOX_BOTH|$BOX_KEPT|$OTHER\"";
    let target = json!({"target": "box"});
    assert_eq!(printed(&client, target, show).await, "from here|two words|set||");
    let call = json!({"target": "box", "env": {"BOX_BOTH": "called"}});
    assert_eq!(printed(&client, call, show).await, "from here|two words|called||");
    let opened = client.call("ssh_shell_open", json!({"target": "box"})).await;
    let shell = field(&opened, "shell_id");
    let typed = json!({"shell_id": shell, "input": "echo \"<$BOX_SENT>\"; echo do''ne\n"});
    assert!(!client.call("ssh_shell_write", typed).await.is_error);
    let wait = json!({"shell_id": shell, "patterns": ["done"], "timeout_secs": 20});
    let seen = client.call("ssh_shell_wait_for", wait).await;
    assert!(seen.text.contains("<from here>"), "{}", seen.text);
}

/// A command line that carries bytes to `%h` and `%p`, with a mark by which its processes are found.
fn carrier(folder: &Path) -> (PathBuf, String) {
    let script = folder.join(format!("carrier-{}", std::process::id()));
    let text = "#!/bin/bash\nexec 3<>/dev/tcp/$1/$2\ncat <&3 &\ncat >&3\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let mark = words(&script);
    (script, mark)
}

#[tokio::test]
async fn a_program_leads_to_the_host() {
    let Some(server) = OpenSshd::start_or_skip(Options { max_sessions: Some(1), ..Options::default() })
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (script, mark) = carrier(folder.path());
    let by_ssh = format!(
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {} -p {} \
         tester@127.0.0.1 -W %h:%p",
        words(&server.client_key(ClientKey::Ed25519)),
        server.port()
    );
    let config = block("carried", &server, &format!("ProxyCommand {} %h %p", words(&script)))
        + &block("relayed", &server, &format!("ProxyCommand {by_ssh}"))
        + &block("behind", &server, "ProxyJump carried");
    let client = product(&config, &[]).await;
    for alias in ["carried", "relayed", "behind"] {
        assert_eq!(user_at(&client, json!({"target": alias})).await, "tester", "{alias}");
    }
    // A second channel needs a further connection, and so a second program.
    let connected = client.call("ssh_connect", json!({"target": "carried", "reuse": "force_new"})).await;
    let session = field(&connected, "session_id");
    let before = processes_matching(&mark).len();
    for _ in 0..2 {
        let shell = client.call("ssh_shell_open", json!({"session_id": session})).await;
        assert!(!shell.is_error, "{}", shell.text);
    }
    assert!(processes_matching(&mark).len() > before);
    let sessions = client.call("ssh_sessions", json!({})).await;
    let sessions = sessions.structured["sessions"].as_array().unwrap().clone();
    let ids: Vec<&Value> = sessions.iter().map(|session| &session["session_id"]).collect();
    let ended = client.call("ssh_disconnect_many", json!({"session_ids": ids})).await;
    assert!(!ended.is_error, "{}", ended.text);
    assert!(wait_until(LIMIT, || processes_matching(&mark).is_empty()), "a program is left");
    let relay = format!("-W 127.0.0.1:{}", server.port());
    assert!(wait_until(LIMIT, || processes_matching(&relay).is_empty()), "ssh is left");
    // Nor does one stay when the whole product goes.
    assert_eq!(user_at(&client, json!({"target": "carried"})).await, "tester");
    assert!(!processes_matching(&mark).is_empty());
    client.close().await;
    assert!(wait_until(LIMIT, || processes_matching(&mark).is_empty()), "a program outlives the product");
}

#[tokio::test]
async fn a_program_that_fails_or_says_nothing_is_an_error_and_leaves_nothing_behind() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let pause = format!("300.{}", std::process::id());
    let config = block("fails", &server, "ProxyCommand sh -c 'echo no way there >&2; exit 1'")
        + &block("missing", &server, "ProxyCommand no-such-program-here")
        + &block("silent", &server, &format!("ProxyCommand sh -c 'sleep {pause}; true'"))
        + &block("talks", &server, "ProxyCommand sh -c 'echo hello; cat'");
    let client = product(&config, &[]).await;
    let call = |alias: &str| json!({"target": alias, "max_retries": 0, "timeout_secs": 5});
    let (code, text) = refusal(&client, call("fails")).await;
    assert_eq!(code, "CONNECTION_FAILED");
    assert!(text.contains("ProxyCommand ended with exit status 1: no way there"), "{text}");
    let (code, text) = refusal(&client, call("missing")).await;
    assert_eq!(code, "CONNECTION_FAILED");
    assert!(text.contains("exit status 127"), "{text}");
    let mut silent = call("silent");
    silent["timeout_secs"] = 1.into();
    assert_eq!(refusal(&client, silent).await.0, "CONNECTION_TIMEOUT");
    assert!(wait_until(LIMIT, || processes_matching(&pause).is_empty()), "the silent program is left");
    let (code, text) = refusal(&client, call("talks")).await;
    assert!(["CONNECTION_FAILED", "CONNECTION_TIMEOUT"].contains(&code.as_str()), "{text}");
    // A file that a call names runs nothing.
    let chosen = client.home().join("chosen");
    fs::write(&chosen, &config).unwrap();
    let mut by_call = call("fails");
    by_call["ssh_config_file"] = words(&chosen).into();
    let (code, text) = refusal(&client, by_call).await;
    assert_eq!(code, "INVALID_ARGUMENT", "{text}");
}

#[tokio::test]
async fn the_product_leaves_no_core_dumps() {
    let client = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &[]).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", client.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}

#[tokio::test]
async fn copied_keys_serve_by_their_own_certificates() {
    let authority = Authority::new();
    let Some(server) = certified(&authority, Options::default()) else { return };
    let key = authority.key("id", "ed25519");
    authority.certify(&key, "tester", "-1h:+1h");
    let client = product(&bare("box", &server, ""), &[]).await;
    // Where nothing is named, the default keys have certificates as well.
    copy_key(&key, &client.home().join(".ssh/id_ed25519"));
    copy_key(&authority.folder().join("id-cert.pub"), &client.home().join(".ssh/id_ed25519-cert.pub"));
    assert_eq!(user_at(&client, json!({"target": "box"})).await, "tester");
    let refused = client.call("ssh_connect", json!({"target": "root@box", "reuse": "force_new"})).await;
    assert_eq!(code(&refused), "AUTH_FAILED");
}
