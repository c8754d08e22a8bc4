//! The adapter against a real OpenSSH: logins, host keys, many channels, servers that refuse and networks that break.

use std::fs;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use ssh_mcp_core::port::resolve::Defaults;
use ssh_mcp_core::port::ssh::{
    Channel, ChannelEvent, ConnectError, ConnectRequest, Connected, Connector, HostKeyStatus, Link, Start,
    Transience, Unknown,
};
use ssh_mcp_core::target::{
    Address, Compression, Credentials, HostKeyPolicy, Keepalive, Need, Secret, Target,
};
use ssh_mcp_ssh::RusshConnector;
use ssh_mcp_testkit::host::defaults;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::sshd::{
    Agent, ClientKey, HostKey, KeyboardInteractive, OpenSshd, Options, PASSPHRASE, PasswordLogin, Proxy, User,
};

/// A server, and a folder for the client's own files.
struct Bench {
    server: OpenSshd,
    folder: TempDir,
}

impl Bench {
    fn start_or_skip(options: Options) -> Option<Self> {
        Some(Self { server: OpenSshd::start_or_skip(options)?, folder: tempfile::tempdir().unwrap() })
    }

    fn known_hosts(&self) -> PathBuf {
        self.folder.path().join("known_hosts")
    }

    fn request(&self, user: User, credentials: Credentials) -> ConnectRequest {
        let target = Target {
            address: Address { host: "127.0.0.1".to_owned(), port: self.server.port() },
            username: user.name().to_owned(),
        };
        let defaults =
            Defaults { known_hosts: self.known_hosts(), compression: Compression::Auto, ..defaults() };
        let hop = defaults.hop(target, credentials);
        ConnectRequest { via: Vec::new(), hop, timeout: Duration::from_secs(30), accepted: Vec::new() }
    }

    fn by_key(&self, user: User, key: ClientKey) -> ConnectRequest {
        self.request(user, Credentials::by_key(self.server.client_key(key)))
    }

    fn by_password(&self, user: User) -> ConnectRequest {
        self.request(user, Credentials { password: Some(self.password()), ..Credentials::default() })
    }

    fn password(&self) -> Secret {
        secret(self.server.password())
    }

    fn logins(&self) -> usize {
        let is_login = |line: &&String| line.starts_with("Accepted ") && line.contains(" for ");
        self.server.logs().iter().filter(is_login).count()
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

async fn connect(request: &ConnectRequest) -> Result<Connected, ConnectError> {
    RusshConnector::new().with_global_known_hosts(Vec::new()).connect(request).await
}

async fn fails(request: &ConnectRequest) -> ConnectError {
    match connect(request).await {
        Ok(_) => panic!("we were let in"),
        Err(error) => error,
    }
}

async fn start(link: &dyn Link, command: &str) -> Channel {
    let channel = link.open(PATIENCE).await.unwrap();
    channel.control.start(Start::Exec { command: command.to_owned(), pty: None }).await.unwrap();
    channel
}

async fn next(channel: &mut Channel) -> ChannelEvent {
    timeout(LIMIT, poll_fn(|cx| channel.events.poll_event(cx))).await.expect("something happens")
}

/// Runs until the end; the output and the exit status.
async fn run(link: &dyn Link, command: &str) -> (Vec<u8>, Option<u32>) {
    let mut channel = start(link, command).await;
    let (mut output, mut status) = (Vec::new(), None);
    loop {
        match next(&mut channel).await {
            ChannelEvent::Data(_, bytes) => output.extend_from_slice(&bytes),
            ChannelEvent::ExitStatus(code) => status = Some(code),
            ChannelEvent::Closed => return (output, status),
            ChannelEvent::Lost(lost) => panic!("{lost}"),
            ChannelEvent::Eof
            | ChannelEvent::Started
            | ChannelEvent::Refused { .. }
            | ChannelEvent::ExitSignal { .. } => {}
        }
    }
}

async fn whoami(link: &dyn Link) -> String {
    String::from_utf8(run(link, "id -un").await.0).unwrap().trim().to_owned()
}

#[tokio::test]
async fn every_kind_of_key_logs_in_as_both_users() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    for user in User::BOTH {
        for key in ClientKey::ADMITTED {
            let mut request = bench.by_key(user, key);
            if key == ClientKey::Ed25519Encrypted {
                request.hop.credentials.key_passphrase = Some(secret(PASSPHRASE));
            }
            let connected = connect(&request).await.unwrap_or_else(|error| panic!("{key:?}: {error:?}"));
            assert_eq!(connected.auth_method, "publickey");
            assert_eq!(whoami(&*connected.link).await, user.name(), "{key:?}");
        }
    }
}

#[tokio::test]
async fn an_rsa_key_signs_with_sha2() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    connect(&bench.by_key(User::Tester, ClientKey::RsaPem)).await.unwrap();
    // A server of today takes no SHA-1 at all, so being let in shows it; OpenSSH would log `RSA SHA1:` otherwise.
    assert!(
        bench
            .server
            .logs()
            .iter()
            .any(|line| line.contains("Accepted publickey") && line.contains("RSA SHA256"))
    );
}

#[tokio::test]
async fn a_password_logs_in_and_a_wrong_one_names_what_was_tried() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let connected = connect(&bench.by_password(User::Tester)).await.unwrap();
    assert_eq!(connected.auth_method, "password");
    let mut request = bench.by_password(User::Tester);
    request.hop.credentials.password = Some(secret("wrong"));
    let expected = ConnectError::Rejected {
        tried: vec!["password".to_owned()],
        offered: vec!["publickey".to_owned(), "password".to_owned()],
        cut_off: None,
    };
    assert_eq!(fails(&request).await, expected);
}

#[tokio::test]
async fn keyboard_interactive_is_answered_by_the_password() {
    let options = Options {
        password: PasswordLogin::Off,
        keyboard_interactive: KeyboardInteractive::ByPam,
        ..Options::default()
    };
    let Some(bench) = Bench::start_or_skip(options) else { return };
    let connected = connect(&bench.by_password(User::Tester)).await.unwrap();
    assert_eq!(connected.auth_method, "keyboard-interactive");
    // The password was what was asked for, so it opens further connections too.
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(start(&*connected.link, "exec sleep 60").await);
    }
    assert_eq!(bench.logins(), 2);
    let mut request = bench.by_password(User::Tester);
    request.hop.credentials.password = Some(secret("wrong"));
    let ConnectError::Rejected { tried, .. } = fails(&request).await else { panic!("not a rejection") };
    assert_eq!(tried[..2], ["password", "keyboard-interactive"]);
}

#[tokio::test]
async fn a_server_that_wants_two_methods_gets_both_on_every_connection() {
    let options =
        Options { authentication_methods: Some("publickey,password".to_owned()), ..Options::default() };
    let Some(bench) = Bench::start_or_skip(options) else { return };
    let mut request = bench.by_key(User::Tester, ClientKey::Ed25519);
    let ConnectError::Rejected { tried, offered, .. } = fails(&request).await else {
        panic!("not a rejection")
    };
    assert_eq!((tried, offered), (vec!["publickey (key file)".to_owned()], vec!["password".to_owned()]));
    request.hop.credentials.password = Some(bench.password());
    let connected = connect(&request).await.unwrap();
    assert_eq!(connected.auth_method, "password");
    // Further connections go through both doors as well.
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(start(&*connected.link, "exec sleep 60").await);
    }
}

#[tokio::test]
async fn an_agent_logs_in_by_any_of_its_keys() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let agent = Agent::start();
    let request = bench
        .request(User::Tester, Credentials { agent_socket: Some(agent.socket()), ..Credentials::default() });
    let ConnectError::Rejected { tried, offered, .. } = fails(&request).await else {
        panic!("not a rejection")
    };
    assert_eq!(tried[0], "publickey (agent, which holds no key)");
    assert_eq!(offered, ["publickey", "password"]);
    agent.add(&bench.server.client_key(ClientKey::Stranger), None);
    agent.add(&bench.server.client_key(ClientKey::RsaPem), None);
    let connected = connect(&request).await.unwrap();
    assert_eq!(connected.auth_method, "publickey");
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(start(&*connected.link, "exec sleep 60").await);
    }
    assert_eq!(bench.logins(), 2);
}

#[tokio::test]
async fn a_missing_agent_is_no_reason_to_fail() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let mut request = bench.by_key(User::Tester, ClientKey::Stranger);
    request.hop.credentials.agent_socket = Some(bench.folder.path().join("nobody"));
    let ConnectError::Rejected { tried, .. } = fails(&request).await else { panic!("not a rejection") };
    assert_eq!(tried, ["publickey (key file)", "publickey (agent, which cannot be reached)"]);
}

#[tokio::test]
async fn a_server_that_has_had_enough_is_a_rejection_not_a_broken_line() {
    let options = Options { extra: vec!["MaxAuthTries 1".to_owned()], ..Options::default() };
    let Some(bench) = Bench::start_or_skip(options) else { return };
    let mut request = bench.by_key(User::Tester, ClientKey::Stranger);
    request.hop.credentials.password = Some(secret("wrong"));
    let error = fails(&request).await;
    assert!(
        matches!(&error, ConnectError::Rejected { tried, .. } if tried[0] == "publickey (key file)"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_private_key_that_others_may_read_is_refused_in_the_words_of_openssh() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let key = bench.folder.path().join("key");
    fs::copy(bench.server.client_key(ClientKey::Ed25519), &key).unwrap();
    for mode in [0o644, 0o640, 0o602] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let mut request = bench.request(User::Tester, Credentials::by_key(&key));
        let ConnectError::Key { cause, .. } = fails(&request).await else { panic!("not about the key") };
        let mut client = bench.server.client(User::Tester, ClientKey::Stranger);
        let said = client.arg("-i").arg(&key).arg("true").output().unwrap();
        let said = String::from_utf8_lossy(&said.stderr).replace("\r", "");
        for sentence in cause.split_inclusive(". ").map(str::trim) {
            assert!(said.contains(sentence), "{sentence}: {said}");
        }
        // One that a configuration or a default names is passed over.
        request.hop.credentials.key_files[0].need = Need::IfUsable;
        let ConnectError::Rejected { tried, .. } = fails(&request).await else { panic!("not a rejection") };
        assert!(tried[0].contains(&cause), "{tried:?}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    connect(&bench.request(User::Tester, Credentials::by_key(&key))).await.unwrap();
}

#[tokio::test]
async fn keys_that_cannot_be_used_say_why() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let encrypted = bench.server.client_key(ClientKey::Ed25519Encrypted);
    let public = bench.server.client_key(ClientKey::Ed25519).with_extension("pub");
    let noise = bench.folder.path().join("noise");
    fs::write(&noise, [0xff; 64]).unwrap();
    let table = [
        (encrypted.clone(), None, "it is encrypted and no pass phrase was given"),
        (encrypted, Some("wrong"), "the pass phrase is wrong"),
        (public, None, "it is a public key; the private one is needed"),
        (noise, None, "it is not a private key"),
        (bench.folder.path().join("missing"), None, "No such file"),
    ];
    for (key_path, passphrase, expected) in table {
        let credentials =
            Credentials { key_passphrase: passphrase.map(secret), ..Credentials::by_key(key_path) };
        let error = fails(&bench.request(User::Tester, credentials)).await;
        let ConnectError::Key { cause, .. } = &error else { panic!("{error:?}") };
        assert!(cause.starts_with(expected), "{cause}");
    }
    assert_eq!(bench.logins(), 0);
}

#[tokio::test]
async fn an_unknown_key_is_learnt_so_that_openssh_reads_it() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let mut request = bench.by_key(User::Tester, ClientKey::Ed25519);
    request.hop.host_keys.policy = HostKeyPolicy::Strict;
    let fingerprint = bench.server.host_key_fingerprint(HostKey::Ed25519);
    let error = fails(&request).await;
    let ConnectError::UnknownHostKey { shown, verdict: Unknown::Refused, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((shown.algorithm.as_str(), &shown.fingerprint), ("ssh-ed25519", &fingerprint));
    assert!(!bench.known_hosts().exists());

    request.hop.host_keys.policy = HostKeyPolicy::AcceptNew;
    let learnt = connect(&request).await.unwrap().host_key;
    assert_eq!((learnt.status, &learnt.fingerprint), (HostKeyStatus::Learnt, &fingerprint));
    assert_eq!(fs::read_to_string(bench.known_hosts()).unwrap(), bench.server.known_hosts());
    request.hop.host_keys.policy = HostKeyPolicy::Strict;
    assert_eq!(connect(&request).await.unwrap().host_key.status, HostKeyStatus::Known);

    let mut client = bench.server.client(User::Tester, ClientKey::Ed25519);
    client.arg("-o").arg(format!("UserKnownHostsFile={}", bench.known_hosts().display())).arg("true");
    assert!(client.status().unwrap().success(), "OpenSSH does not read what was learnt");
}

#[tokio::test]
async fn a_changed_key_is_refused_unless_any_is_taken() {
    let Some(mut bench) = Bench::start_or_skip(Options::default()) else { return };
    let mut request = bench.by_key(User::Tester, ClientKey::Ed25519);
    connect(&request).await.unwrap();
    let old = bench.server.host_key_fingerprint(HostKey::Ed25519);
    bench.server.restart_with_new_host_key();
    let error = fails(&request).await;
    let ConnectError::ChangedHostKey { known, fingerprint, forget, .. } = &error else { panic!("{error:?}") };
    assert_eq!(fingerprint, &bench.server.host_key_fingerprint(HostKey::Ed25519));
    assert_eq!(known, &format!("{}:1 has {old}", bench.known_hosts().display()));
    // The command it names does what it says, also for a name with a port.
    let forget = forget.as_ref().unwrap();
    assert!(forget.ends_with(&format!("-R '[127.0.0.1]:{}'", bench.server.port())), "{forget}");
    let before = fs::read(bench.known_hosts()).unwrap();
    assert!(Command::new("sh").args(["-c", forget]).status().unwrap().success());
    assert_eq!(fs::read(bench.known_hosts()).unwrap(), b"");
    fs::write(bench.known_hosts(), before).unwrap();

    request.hop.host_keys.policy = HostKeyPolicy::DangerAcceptAny;
    assert_eq!(connect(&request).await.unwrap().host_key.status, HostKeyStatus::Unchecked);
}

#[tokio::test]
async fn a_revoked_key_is_refused_under_every_policy() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let line = bench.server.known_hosts();
    fs::write(bench.known_hosts(), format!("{line}@revoked {line}")).unwrap();
    for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew, HostKeyPolicy::DangerAcceptAny] {
        let mut request = bench.by_key(User::Tester, ClientKey::Ed25519);
        request.hop.host_keys.policy = policy;
        let error = fails(&request).await;
        assert!(
            matches!(&error, ConnectError::ChangedHostKey { known, .. } if known.contains("revokes")),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn the_known_key_type_is_asked_for_and_another_type_is_no_way_round() {
    let options = Options { host_keys: HostKey::ALL.to_vec(), ..Options::default() };
    let Some(bench) = Bench::start_or_skip(options) else { return };
    let lines = bench.server.known_hosts();
    let rsa = lines.lines().find(|line| line.contains("ssh-rsa")).unwrap();
    fs::write(bench.known_hosts(), format!("{rsa}\n")).unwrap();
    let request = bench.by_key(User::Tester, ClientKey::Ed25519);
    let shown = connect(&request).await.unwrap().host_key;
    assert_eq!((shown.algorithm.as_str(), shown.status), ("ssh-rsa", HostKeyStatus::Known));
    assert_eq!(shown.fingerprint, bench.server.host_key_fingerprint(HostKey::Rsa));

    let options = Options { host_keys: vec![HostKey::Ed25519], ..Options::default() };
    let Some(other) = Bench::start_or_skip(options) else { return };
    let here = format!("[127.0.0.1]:{}", other.server.port());
    let elsewhere = format!("[127.0.0.1]:{}", bench.server.port());
    fs::write(other.known_hosts(), format!("{}\n", rsa.replace(&elsewhere, &here))).unwrap();
    let error = fails(&other.by_key(User::Tester, ClientKey::Ed25519)).await;
    assert!(
        matches!(&error, ConnectError::ChangedHostKey { known, .. } if known.ends_with("ssh-rsa only")),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_unreadable_known_hosts_is_an_error_not_an_unknown_host() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    fs::create_dir(bench.known_hosts()).unwrap();
    let error = fails(&bench.by_key(User::Tester, ClientKey::Ed25519)).await;
    assert!(matches!(error, ConnectError::KnownHosts { .. }), "{error:?}");
}

#[tokio::test]
async fn zlib_is_used_where_it_is_asked_for() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let mut request = bench.by_key(User::Tester, ClientKey::Ed25519);
    request.hop.wire.compression = Compression::On;
    let connected = connect(&request).await.unwrap();
    assert!(connected.compressed);
    let (output, status) = run(&*connected.link, "head -c 5000000 /dev/zero").await;
    assert_eq!((output.len(), status), (5_000_000, Some(0)));
    request.hop.wire.compression = Compression::Off;
    assert!(!connect(&request).await.unwrap().compressed);
}

/// The proxy itself answers at once: the way is as long as that of the server's first words.
#[tokio::test]
async fn a_server_may_send_the_more_ahead_the_longer_the_way_is() {
    let options = Options { extra: vec!["LogLevel DEBUG".to_owned()], ..Options::default() };
    let Some(bench) = Bench::start_or_skip(options) else { return };
    let proxy = Proxy::start(bench.server.addr(), Duration::from_millis(25));
    let mut request = bench.by_key(User::Tester, ClientKey::Ed25519);
    for (port, most) in [(bench.server.port(), 2..=16), (proxy.addr().port(), 16..=16)] {
        request.hop.target.address.port = port;
        let before = bench.server.logs().len();
        let connected = connect(&request).await.unwrap();
        assert_eq!(run(&*connected.link, "echo here").await, (b"here\n".to_vec(), Some(0)));
        let logs = bench.server.logs();
        let opened =
            logs[before..].iter().find_map(|line| line.split_once("ctype session ")?.1.split_once(" win "));
        let (_, facts) = opened.expect("sshd tells of the channel");
        let window: u32 = facts.split_whitespace().next().unwrap().parse().unwrap();
        assert!(most.contains(&(window >> 20)), "{window}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_channels_live_side_by_side_on_a_stock_server() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    for (round, user) in (1..).zip(User::BOTH) {
        let connected = connect(&bench.by_key(user, ClientKey::Ed25519)).await.unwrap();
        let opening: Vec<_> = (0..30).map(|_| start(&*connected.link, "exec cat")).collect();
        let mut channels = together(opening).await;
        for channel in &mut channels {
            channel.control.send(Bytes::from_static(b"x")).await.unwrap();
            channel.control.finish_input().await.unwrap();
            let mut seen = Vec::new();
            while seen.last() != Some(&ChannelEvent::Closed) {
                seen.push(next(channel).await);
            }
            assert!(seen.contains(&ChannelEvent::ExitStatus(0)), "{seen:?}");
        }
        // The first connection and two further ones.
        assert_eq!(bench.logins(), round * 3);
        connected.link.disconnect().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_commands_with_nine_channels_held_need_no_further_connection() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let connected = connect(&bench.by_key(User::Tester, ClientKey::Ed25519)).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..9 {
        held.push(start(&*connected.link, "exec sleep 600").await);
    }
    for _ in 0..500 {
        assert_eq!(run(&*connected.link, "exit 7").await.1, Some(7));
    }
    assert_eq!(bench.logins(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_of_processes_nobody_sees_are_gone_round() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let connected = connect(&bench.by_key(User::Tester, ClientKey::Ed25519)).await.unwrap();
    for _ in 0..10 {
        let mut channel = start(&*connected.link, "exec sleep 600").await;
        assert_eq!(next(&mut channel).await, ChannelEvent::Started);
        channel.control.close().await;
    }
    // Ten processes hold the places of ten channels that are closed.
    assert_eq!(run(&*connected.link, "exit 7").await.1, Some(7));
    assert_eq!(bench.logins(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_further_connection_is_waited_for() {
    let options = Options {
        max_sessions: Some(2),
        max_startups: Some("2:100:2".to_owned()),
        extra: vec!["LoginGraceTime 600".to_owned()],
        ..Options::default()
    };
    let Some(bench) = Bench::start_or_skip(options) else { return };
    let connected = connect(&bench.by_key(User::Tester, ClientKey::Ed25519)).await.unwrap();
    let first = start(&*connected.link, "exec sleep 600").await;
    let second = start(&*connected.link, "exec sleep 600").await;
    // Strangers who do not log in fill the server's waiting room, so every further connection is dropped.
    let strangers: Vec<TcpStream> = (0..2).map(|_| greeted(bench.server.addr())).collect();
    let refused = connected.link.open(Duration::from_millis(700)).await;
    let words = refused.err().expect("there is no place").to_string();
    assert!(words.contains("a further connection failed"), "{words}");

    // A place that comes free serves who waits …
    let waiting = connected.link.open(PATIENCE);
    let freeing = async {
        first.control.signal(ssh_mcp_core::port::ssh::Signal::Term).await.unwrap();
        drop(first);
    };
    let (opened, ()) = tokio::join!(waiting, freeing);
    let third = opened.unwrap();
    assert_eq!(bench.logins(), 1);
    // … and so does a further connection, once it is let in.
    drop(strangers);
    let fourth = connected.link.open(PATIENCE).await.unwrap();
    assert_eq!(bench.logins(), 2);
    drop((second, third, fourth));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_goes_silent_is_noticed_while_idle_and_while_sending() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    for command in ["exec sleep 600", "exec cat >/dev/null"] {
        let proxy = Proxy::start(bench.server.addr(), Duration::ZERO);
        let mut request = bench.by_key(User::Tester, ClientKey::Ed25519);
        request.hop.target.address.port = proxy.addr().port();
        request.hop.wire.keepalive = Keepalive { interval: Duration::from_millis(300), max: 2 };
        let connected = connect(&request).await.unwrap();
        let mut channel = start(&*connected.link, command).await;
        assert_eq!(next(&mut channel).await, ChannelEvent::Started);
        proxy.freeze();
        // A sender keeps russh busy with a socket that takes nothing, where it does not look at its keepalives.
        let control = channel.control.clone();
        let sending = async {
            while control.send(Bytes::from(vec![0; 1 << 20])).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let lost = async {
            tokio::select! {
                lost = connected.link.lost() => lost,
                () = sending, if command.contains("cat") => unreachable!("it pends when it is over"),
            }
        };
        let lost = timeout(LIMIT, lost).await.expect("the loss is noticed");
        assert!(!lost.cause.is_empty());
        assert!(matches!(next(&mut channel).await, ChannelEvent::Lost(_)));
    }
}

#[tokio::test]
async fn sends_that_are_given_up_leave_the_channel_usable() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let connected = connect(&bench.by_key(User::Root, ClientKey::Ed25519)).await.unwrap();
    let signal = bench.folder.path().join("read now");
    let command = format!("until [ -e '{}' ]; do sleep 0.05; done; exec wc -c", signal.display());
    let mut channel = start(&*connected.link, &command).await;
    let piece = Bytes::from(vec![b'x'; 3 << 20]);
    for _ in 0..20 {
        // Nobody reads, so what is beyond the window is still here when we give up.
        let given_up = timeout(Duration::from_millis(10), channel.control.send(piece.clone())).await;
        assert!(given_up.is_err(), "a send to a program that does not read came back");
    }
    fs::write(signal, "").unwrap();
    timeout(LIMIT, channel.control.send(piece.clone())).await.expect("the window opens again").unwrap();
    channel.control.finish_input().await.unwrap();
    let mut counted = Vec::new();
    loop {
        match next(&mut channel).await {
            ChannelEvent::Data(_, bytes) => counted.extend_from_slice(&bytes),
            ChannelEvent::Closed => break,
            ChannelEvent::Lost(lost) => panic!("{lost}"),
            ChannelEvent::Eof
            | ChannelEvent::Started
            | ChannelEvent::Refused { .. }
            | ChannelEvent::ExitStatus(_)
            | ChannelEvent::ExitSignal { .. } => {}
        }
    }
    let counted: usize = String::from_utf8(counted).unwrap().trim().parse().unwrap();
    // The window was filled once before somebody read; all of the last piece follows.
    assert!((piece.len() + (1 << 20)..piece.len() * 2).contains(&counted), "{counted} bytes arrived");
}

#[tokio::test]
async fn servers_that_are_none_fail_in_time() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut request = bench.by_key(User::Tester, ClientKey::Ed25519);
    request.hop.target.address.port = listener.local_addr().unwrap().port();
    request.timeout = Duration::from_millis(300);
    assert_eq!(fails(&request).await, ConnectError::TimedOut { after: request.timeout });

    request.timeout = Duration::from_secs(30);
    let hang_up = std::thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            drop(socket)
        }
    });
    let error = fails(&request).await;
    assert!(matches!(error, ConnectError::Failed { transience: Transience::Transient, .. }), "{error:?}");
    drop(hang_up);
}

#[tokio::test]
async fn a_dropped_link_leaves_nothing_on_the_server() {
    let Some(bench) = Bench::start_or_skip(Options::default()) else { return };
    let connected = connect(&bench.by_key(User::Tester, ClientKey::Ed25519)).await.unwrap();
    let mut channel = start(&*connected.link, "exec cat").await;
    assert_eq!(next(&mut channel).await, ChannelEvent::Started);
    drop(connected);
    let gone = tokio::task::spawn_blocking(move || bench.server.wait_for_log("Connection closed by", LIMIT));
    assert!(gone.await.unwrap());
    assert!(matches!(next(&mut channel).await, ChannelEvent::Lost(_)));
}

#[tokio::test]
async fn a_refused_terminal_is_named() {
    let options = Options { extra: vec!["PermitTTY no".to_owned()], ..Options::default() };
    let Some(bench) = Bench::start_or_skip(options) else { return };
    let connected = connect(&bench.by_key(User::Tester, ClientKey::Ed25519)).await.unwrap();
    let mut channel = connected.link.open(PATIENCE).await.unwrap();
    let size = ssh_mcp_core::port::ssh::PtySize { cols: 80, rows: 24 };
    let pty = ssh_mcp_core::port::ssh::Pty { term: "xterm".to_owned(), size };
    channel.control.start(Start::Exec { command: "true".to_owned(), pty: Some(pty) }).await.unwrap();
    assert_eq!(next(&mut channel).await, ChannelEvent::Refused { request: "pty-req" });
}

/// A connection that got the server's greeting and says nothing.
fn greeted(addr: SocketAddr) -> TcpStream {
    use std::io::Read;
    let mut socket = TcpStream::connect(addr).unwrap();
    let mut greeting = [0; 4];
    socket.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"SSH-");
    socket
}

/// All of them at once, in the order they were given.
async fn together<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|cx| {
        for (future, outcome) in &mut futures {
            if outcome.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *outcome = Some(value);
            }
        }
        match futures.iter().all(|(_, outcome)| outcome.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, outcome)| outcome).collect()
}

const PATIENCE: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(60);
