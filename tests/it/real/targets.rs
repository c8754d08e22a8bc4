//! Targets as `ssh TARGET` reads them: aliases, what a call may add, and hosts behind other hosts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::client::LIMIT;
use crate::sshd::{Agent, HostKey, Proxy};

/// The product with this configuration in its user's home.
pub(super) async fn product(config: &str, env: &[(&str, &str)]) -> McpClient {
    let client = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], env).await;
    fs::create_dir_all(client.home().join(".ssh")).unwrap();
    fs::write(client.home().join(".ssh/config"), config).unwrap();
    client
}

/// The code of a refusal.
pub(super) fn code(answer: &ToolAnswer) -> &str {
    assert!(answer.is_error, "{}", answer.text);
    answer.structured["code"].as_str().unwrap()
}

/// Connects anew and says who it is there.
pub(super) async fn user_at(client: &McpClient, mut call: Value) -> String {
    call["reuse"] = "force_new".into();
    let answer = client.call("ssh_connect", call).await;
    assert!(!answer.is_error, "{}", answer.text);
    let call = json!({"session_id": field(&answer, "session_id"), "command": "id -un", "wait": true});
    let answer = client.call("ssh_exec", call).await;
    answer.structured["stdout"].as_str().unwrap().trim().to_owned()
}

pub(super) async fn refusal(client: &McpClient, mut call: Value) -> (String, String) {
    call["reuse"] = "force_new".into();
    let answer = client.call("ssh_connect", call).await;
    (code(&answer).to_owned(), answer.text.clone())
}

/// A `Host` block that leads to the server with its usual key.
pub(super) fn block(alias: &str, server: &OpenSshd, more: &str) -> String {
    let key = server.client_key(ClientKey::Ed25519);
    format!(
        "Host {alias}\n HostName 127.0.0.1\n Port {}\n User tester\n IdentityFile {}\n {more}\n",
        server.port(),
        key.display()
    )
}

pub(super) fn copy_key(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn an_alias_needs_nothing_else_in_the_call() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = product(&block("box", &server, ""), &[]).await;
    assert_eq!(user_at(&client, json!({"target": "box"})).await, "tester");
    assert_eq!(user_at(&client, json!({"target": "root@box"})).await, "root");
    assert_eq!(user_at(&client, json!({"target": "box", "username": "root"})).await, "root");
    assert_eq!(user_at(&client, json!({"target": "box", "extra_ssh_args": ["-l", "root"]})).await, "root");
    assert_eq!(user_at(&client, json!({"target": "box", "ssh_options": {"User": "root"}})).await, "root");
    // Without the file there is nobody of that name.
    let (code, _) = refusal(&client, json!({"target": "box.invalid", "ssh_config_file": "none"})).await;
    assert_eq!(code, "CONNECTION_FAILED");

    let run = json!({"target": "box", "command": "id -un"});
    let ran = client.call("ssh_run", run).await;
    assert_eq!(ran.structured["stdout"].as_str().map(str::trim), Some("tester"), "{}", ran.text);
    let shell = client.call("ssh_shell_open", json!({"target": "box"})).await;
    assert!(!shell.is_error, "{}", shell.text);
}

#[tokio::test]
async fn the_first_value_holds_and_tokens_name_the_right_key() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let config = format!(
        "Host box boy\n User tester\nHost *\n HostName 127.0.0.1\n Port {}\n User nobody\n \
         IdentitiesOnly yes\n IdentityFile %d/keys/%r-%n\n",
        server.port()
    );
    let client = product(&config, &[]).await;
    copy_key(&server.client_key(ClientKey::Ed25519), &client.home().join("keys/tester-box"));
    copy_key(&server.client_key(ClientKey::Stranger), &client.home().join("keys/tester-boy"));
    assert_eq!(user_at(&client, json!({"target": "box"})).await, "tester");
    for alias in ["boy", "bob"] {
        assert_eq!(refusal(&client, json!({"target": alias})).await.0, "AUTH_FAILED", "{alias}");
    }
    // A key the call names comes first.
    let key = server.client_key(ClientKey::Ed25519);
    let call = json!({"target": "boy", "identity_file": [key.to_str().unwrap()]});
    assert_eq!(user_at(&client, call).await, "tester");
    let (code, text) = refusal(&client, json!({"target": "box", "identity_file": "/missing"})).await;
    assert_eq!(code, "AUTH_KEY_PARSE", "{text}");
}

#[tokio::test]
async fn identities_only_leaves_the_other_keys_of_the_agent_alone() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let agent = Agent::start();
    agent.add(&server.client_key(ClientKey::Ed25519), None);
    let socket = agent.socket();
    let key = server.client_key(ClientKey::Ed25519);
    let head = format!("HostName 127.0.0.1\n Port {}\n User tester", server.port());
    let config = format!(
        "Host all\n {head}\nHost stranger\n {head}\n IdentitiesOnly yes\n IdentityFile {}\n\
         Host none\n {head}\n IdentityAgent none\nHost public\n {head}\n IdentitiesOnly yes\n IdentityFile {}.pub\n",
        server.client_key(ClientKey::Stranger).display(),
        key.display()
    );
    let client = product(&config, &[("SSH_AUTH_SOCK", socket.to_str().unwrap())]).await;
    for alias in ["all", "public"] {
        assert_eq!(user_at(&client, json!({"target": alias})).await, "tester", "{alias}");
    }
    for alias in ["stranger", "none"] {
        assert_eq!(refusal(&client, json!({"target": alias})).await.0, "AUTH_FAILED", "{alias}");
    }
}

#[tokio::test]
async fn a_host_is_known_by_its_alias_and_a_call_may_not_weaken_the_check() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let config = block("work", &server, "HostKeyAlias work.example\n StrictHostKeyChecking yes")
        + &block("play", &server, "HostKeyAlias play.example\n StrictHostKeyChecking yes")
        + &block("new", &server, "HostKeyAlias play.example");
    let client = product(&config, &[]).await;
    let line = server.known_hosts();
    let (_, key) = line.trim().split_once(' ').unwrap();
    let known = client.home().join(".ssh/known_hosts");
    fs::write(&known, format!("work.example {key}\n")).unwrap();
    assert_eq!(user_at(&client, json!({"target": "work"})).await, "tester");
    assert_eq!(refusal(&client, json!({"target": "play"})).await.0, "HOST_KEY_UNKNOWN");
    // Asking for less does not help.
    for less in [json!(false), json!("off"), json!("accept-new")] {
        let call = json!({"target": "play", "strict_host_key_checking": less});
        assert_eq!(refusal(&client, call).await.0, "HOST_KEY_UNKNOWN");
    }
    let option = json!({"target": "play", "ssh_options": {"StrictHostKeyChecking": "no"}});
    assert_eq!(refusal(&client, option).await.0, "HOST_KEY_UNKNOWN");
    // Asking for more does.
    let strict = json!({"target": "new", "strict_host_key_checking": true});
    assert_eq!(refusal(&client, strict).await.0, "HOST_KEY_UNKNOWN");
    // A file the call chose is the call's word.
    let chosen = client.home().join("lax");
    fs::write(&chosen, block("work", &server, "HostKeyAlias bad.example\n StrictHostKeyChecking no"))
        .unwrap();
    fs::write(&known, format!("bad.example {}\n", stranger(&server))).unwrap();
    let call = json!({"target": "work", "ssh_config_file": chosen.to_str().unwrap()});
    let (code, text) = refusal(&client, call).await;
    assert_eq!(code, "HOST_KEY_MISMATCH");
    assert!(text.contains("known_hosts:1"), "{text}");
    // What is learnt is learnt under the alias, in the file the call names.
    let other = client.home().join("other_known");
    let call = json!({"target": "new", "known_hosts_file": other.to_str().unwrap()});
    assert_eq!(user_at(&client, call.clone()).await, "tester");
    let mut strict = call;
    strict["strict_host_key_checking"] = "yes".into();
    assert_eq!(user_at(&client, strict).await, "tester");
}

/// A host key that is not the server's: that of a client.
fn stranger(server: &OpenSshd) -> String {
    let public = server.client_key(ClientKey::Stranger).with_extension("pub");
    let text = fs::read_to_string(public).unwrap();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn what_a_call_may_not_say() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = product(&block("box", &server, ""), &[]).await;
    let trace = client.home().join("trace");
    let touch = format!("touch {}", trace.display());
    for option in ["ProxyCommand", "LocalCommand", "localforward", "PermitLocalCommand"] {
        let call = json!({"target": "box", "ssh_options": {option: touch.as_str()}});
        assert_eq!(refusal(&client, call).await.0, "SSH_OPTION_BLOCKED", "{option}");
    }
    let joined = format!("-oProxyCommand={touch}");
    for argument in ["-L8080:localhost:80", "-D", "-R", "-4W", joined.as_str()] {
        let call = json!({"target": "box", "extra_ssh_args": [argument]});
        assert_eq!(refusal(&client, call).await.0, "SSH_OPTION_BLOCKED", "{argument}");
    }
    for call in [
        json!({"target": "box", "address": "127.0.0.1"}),
        json!({"target": "box", "extra_ssh_args": ["-N"]}),
        json!({"target": "box", "strict_host_key_checking": "maybe"}),
        json!({"target": "box", "identity_file": 7}),
        json!({"target": "root@box", "username": "tester"}),
        json!({"target": "-oProxyCommand=x"}),
        json!({"address": "127.0.0.1", "username": "u", "proxy_jump": "box"}),
        json!({"target": "box", "ssh_config_file": "/missing"}),
    ] {
        assert_eq!(refusal(&client, call.clone()).await.0, "INVALID_ARGUMENT", "{call}");
    }
    assert!(!trace.exists());
}

#[tokio::test]
async fn a_configuration_that_cannot_be_honoured_is_refused_with_file_and_line() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let client = product(&block("box", &server, "Port http"), &[]).await;
    let (code, text) = refusal(&client, json!({"target": "box"})).await;
    assert_eq!(code, "INVALID_ARGUMENT");
    assert!(text.contains(".ssh/config:6"), "{text}");
    let file = client.home().join(".ssh/config");
    fs::write(&file, block("box", &server, "")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let (_, text) = refusal(&client, json!({"target": "box"})).await;
    assert!(text.contains("Bad owner or permissions on"), "{text}");
}

#[tokio::test]
async fn secrets_are_fetched_from_where_the_call_says() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let config = format!("Host box\n HostName 127.0.0.1\n Port {}\n User tester\n", server.port());
    let env = [("BOX_PASSWORD", server.password()), ("BOX_PHRASE", crate::sshd::PASSPHRASE)];
    let client = product(&config, &env).await;
    assert_eq!(user_at(&client, json!({"target": "box", "password_env": "BOX_PASSWORD"})).await, "tester");
    let file = client.home().join("password");
    fs::write(&file, format!("{}\n", server.password())).unwrap();
    let call = json!({"target": "box", "password_file": file.to_str().unwrap()});
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, text) = refusal(&client, call.clone()).await;
    assert_eq!(code, "INVALID_ARGUMENT");
    assert!(text.contains("are too open") && !text.contains(server.password()), "{text}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(user_at(&client, call).await, "tester");
    let key = server.client_key(ClientKey::Ed25519Encrypted);
    let call =
        json!({"target": "box", "key_path": key.to_str().unwrap(), "key_passphrase_env": "BOX_PHRASE"});
    assert_eq!(user_at(&client, call).await, "tester");
    assert!(!client.log().contains(server.password()));
}

/// Two bastions and a host behind them; `c` knows its way.
struct Chain {
    servers: [OpenSshd; 3],
    config: String,
}

impl Chain {
    fn start_or_skip(last: Options) -> Option<Self> {
        let servers = [
            OpenSshd::start_or_skip(Options::default())?,
            OpenSshd::start_or_skip(Options::default())?,
            OpenSshd::start_or_skip(last)?,
        ];
        let [a, b, c] = &servers;
        let config = block("a", a, "") + &block("b", b, "ProxyJump a") + &block("c", c, "ProxyJump b");
        Some(Self { servers, config })
    }
}

fn logins(server: &OpenSshd) -> usize {
    server.logs().iter().filter(|line| line.contains("Accepted publickey")).count()
}

#[tokio::test]
async fn a_chain_of_jump_hosts_leads_to_the_host_behind_them() {
    let Some(chain) = Chain::start_or_skip(Options { max_sessions: Some(1), ..Options::default() }) else {
        return;
    };
    let client = product(&chain.config, &[]).await;
    let connected = client.call("ssh_connect", json!({"target": "c", "timeout_secs": 60})).await;
    assert!(!connected.is_error, "{}", connected.text);
    let session = field(&connected, "session_id");
    assert_eq!(chain.servers.each_ref().map(logins), [1, 1, 1]);
    // A second channel needs a further connection, which takes the same hosts and logs in only at the last.
    for _ in 0..2 {
        let shell = client.call("ssh_shell_open", json!({"session_id": session})).await;
        assert!(!shell.is_error, "{}", shell.text);
    }
    assert_eq!(chain.servers.each_ref().map(logins), [1, 1, 2]);

    // The same address, reached straight, is another place.
    let straight = json!({"target": "c", "proxy_jump": "none", "reuse": "auto"});
    let answer = client.call("ssh_connect", straight).await;
    assert_eq!(answer.structured["status"], "ok", "{}", answer.text);
    let again = client.call("ssh_connect", json!({"target": "c", "reuse": "auto"})).await;
    assert_eq!(field(&again, "session_id"), session, "{}", again.text);
    let listed = json!({"target": "c", "proxy_jump": ["b"], "ssh_options": {"HostName": "127.0.0.1"}, "reuse": "auto"});
    assert_eq!(field(&client.call("ssh_connect", listed).await, "session_id"), session);

    let ended = client.call("ssh_disconnect", json!({"session_id": session})).await;
    assert!(!ended.is_error, "{}", ended.text);
    for server in &chain.servers {
        assert!(server.wait_for_log("Disconnected from user tester", Duration::from_secs(10)));
    }
}

#[tokio::test]
async fn a_session_ends_with_a_host_on_its_way() {
    let Some(chain) = Chain::start_or_skip(Options::default()) else { return };
    let client = product(&chain.config, &[]).await;
    let connected = client.call("ssh_connect", json!({"target": "c"})).await;
    let session = field(&connected, "session_id");
    chain.servers[0].kill_connections();
    let ran =
        client.call("ssh_exec", json!({"session_id": session, "command": "sleep 60", "wait": true})).await;
    assert!(ran.is_error || ran.structured["status"] != "completed", "{}", ran.text);
    let again = client.call("ssh_connect", json!({"target": "c", "reuse": "auto"})).await;
    assert_ne!(field(&again, "session_id"), session);
}

#[tokio::test]
async fn a_host_on_the_way_that_fails_is_named() {
    let Some(chain) = Chain::start_or_skip(Options::default()) else { return };
    let [a, b, c] = &chain.servers;
    let client = product(&chain.config, &[]).await;
    let jump = format!("jump host tester@127.0.0.1:{}", b.port());

    // Its key is not the one that is known.
    let known = client.home().join(".ssh/known_hosts");
    fs::write(&known, format!("[127.0.0.1]:{} {}\n", b.port(), stranger(b))).unwrap();
    let (code, text) = refusal(&client, json!({"target": "c"})).await;
    assert_eq!(code, "HOST_KEY_MISMATCH", "{text}");
    assert!(text.contains(&jump) && text.contains(&b.host_key_fingerprint(HostKey::Ed25519)), "{text}");
    assert_eq!(logins(c), 0);

    // It does not let us in; what the call shows to the last host is not shown to it.
    fs::write(&known, "").unwrap();
    let strangers = block("a", a, "")
        + &format!(
            "Host b\n HostName 127.0.0.1\n Port {}\n User tester\n ProxyJump a\n IdentityFile {}\n",
            b.port(),
            b.client_key(ClientKey::Stranger).display()
        )
        + &block("c", c, "ProxyJump b");
    fs::write(client.home().join(".ssh/config"), strangers).unwrap();
    let call = json!({"target": "c", "password": b.password()});
    let (code, text) = refusal(&client, call).await;
    assert_eq!(code, "AUTH_FAILED", "{text}");
    assert!(text.contains(&jump), "{text}");
    assert!(
        !b.logs().iter().any(|line| line.contains("password")),
        "the password was shown to the jump host"
    );

    // Nothing listens behind it.
    let gone = block("a", a, "") + "Host gone\n HostName 127.0.0.1\n Port 1\n User u\n ProxyJump a\n";
    fs::write(client.home().join(".ssh/config"), gone).unwrap();
    let (code, text) = refusal(&client, json!({"target": "gone", "max_retries": 0})).await;
    assert_eq!(code, "CONNECTION_FAILED", "{text}");
    assert!(text.contains("127.0.0.1:1, from the last jump host"), "{text}");
}

#[tokio::test]
async fn what_the_configuration_says_of_the_line_holds() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let config = [
        block("bound", &server, "BindAddress 127.0.0.9"),
        block(
            "narrow",
            &server,
            "Ciphers aes256-ctr\n MACs hmac-sha2-512\n KexAlgorithms ecdh-sha2-nistp384",
        ),
        block("small", &server, "Compression yes"),
        block("large", &server, "Compression no"),
        // The server listens on IPv4 alone; the first HostName of a host would hold, so the block is its own.
        format!("Host six\n HostName ::1\n AddressFamily inet6\n Port {}\n User tester\n", server.port()),
        format!("Host four\n HostName ::1\n AddressFamily inet\n Port {}\n User tester\n", server.port()),
    ];
    let client =
        product(&config.concat(), &[("RUST_LOG", "ssh_mcp::ssh=debug"), ("SSH_MAX_RETRIES", "0")]).await;
    let connect = async |alias: &str| {
        let answer = client.call("ssh_connect", json!({"target": alias, "reuse": "force_new"})).await;
        assert!(!answer.is_error, "{}", answer.text);
        answer.structured
    };
    connect("bound").await;
    assert!(server.wait_for_log("Connection from 127.0.0.9", LIMIT), "{:?}", server.logs());
    connect("narrow").await;
    let log = client.log();
    let agreed = log.lines().rfind(|line| line.contains("keys exchanged")).unwrap();
    assert!(agreed.contains("kex=ecdh-sha2-nistp384 cipher=aes256-ctr"), "{agreed}");
    for (alias, compressed) in [("small", true), ("large", false)] {
        assert_eq!(connect(alias).await["compression_enabled"], compressed, "{alias}");
    }
    for (alias, words) in [("six", "refused"), ("four", "address")] {
        let (code, text) = refusal(&client, json!({"target": alias})).await;
        assert_eq!(code, "CONNECTION_FAILED", "{text}");
        assert!(text.contains(words), "{alias}: {text}");
    }
}

#[tokio::test]
async fn times_of_the_configuration_hold() {
    let Some(server) = OpenSshd::start_or_skip(Options::default()) else { return };
    let proxy = Proxy::start(server.addr(), Duration::ZERO);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let key = server.client_key(ClientKey::Ed25519);
    let config = format!(
        "Host silent\n HostName 127.0.0.1\n Port {}\n User tester\n ConnectTimeout 1\n\
         Host frozen\n HostName 127.0.0.1\n Port {}\n User tester\n IdentityFile {}\n ServerAliveInterval 1\n \
         ServerAliveCountMax 2\n",
        silent.local_addr().unwrap().port(),
        proxy.addr().port(),
        key.display()
    );
    let client = product(&config, &[("SSH_MAX_RETRIES", "0")]).await;
    assert_eq!(refusal(&client, json!({"target": "silent"})).await.0, "CONNECTION_TIMEOUT");

    let connected = client.call("ssh_connect", json!({"target": "frozen"})).await;
    let session = field(&connected, "session_id");
    let start = json!({"session_id": session, "command": "echo before; exec sleep 1000"});
    let command = field(&client.call("ssh_exec", start).await, "command_id");
    let seen =
        json!({"uris": [format!("command://{command}/output")], "until": "match", "patterns": ["before"]});
    let seen = client.call("sub_wait", seen).await;
    assert_eq!(seen.structured["status"], "matched", "{}", seen.text);
    proxy.freeze();
    // Found out by what is not answered within two seconds, long before the wait's own end.
    let wait = json!({"command_id": command, "wait": true, "wait_timeout_secs": 60});
    let ended = client.call("ssh_exec_output", wait).await;
    assert_eq!(ended.structured["stdout"], "before\n", "{}", ended.text);
    assert!(ended.text.contains("connection"), "{}", ended.text);
    // The next call brings a new session over the same alias.
    proxy.thaw();
    let again = client.call("ssh_connect", json!({"target": "frozen", "reuse": "auto"})).await;
    assert!(!again.is_error, "{}", again.text);
    assert_ne!(field(&again, "session_id"), session);
}
