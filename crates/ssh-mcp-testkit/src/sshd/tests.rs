//! The embedded server against OpenSSH's client, and against a russh client where order and timing matter.

use std::io;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelMsg, ChannelOpenFailure, Error, Sig};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Config, EmbeddedSshd, Login, Signals};

const LIMIT: Duration = Duration::from_secs(20);

/// OpenSSH's client, its files, and the server it talks to.
struct OpenSsh {
    server: EmbeddedSshd,
    dir: tempfile::TempDir,
}

impl OpenSsh {
    async fn with(config: Config) -> Option<Self> {
        if std::process::Command::new("ssh").arg("-V").stderr(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "ssh is not installed, and CI skips nothing");
            eprintln!("SKIPPED: ssh is not installed");
            return None;
        }
        let server = EmbeddedSshd::start(config).await.expect("loopback has a free port");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, content: &str| {
            use std::os::unix::fs::PermissionsExt;
            let path = dir.path().join(name);
            std::fs::write(&path, content).expect("a new file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("our own file");
        };
        write("key", &server.client_key_pem().expect("an encodable key"));
        write("known_hosts", &server.known_hosts_line());
        write("askpass", "#!/bin/sh\nprintf '%s\\n' \"$ANSWER\"\n");
        Some(Self { server, dir })
    }

    /// Runs `ssh` with options, then the command, with this on its standard input.
    async fn run(&self, method: &str, options: &[&str], command: &str, input: &str) -> Output {
        self.run_answering(self.server.password(), method, options, command, input).await
    }

    async fn run_answering(
        &self,
        answer: &str,
        method: &str,
        options: &[&str],
        command: &str,
        input: &str,
    ) -> Output {
        let dir = self.dir.path();
        let mut ssh = Command::new("ssh")
            .args(["-F", "/dev/null", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "NumberOfPasswordPrompts=1"])
            .args(["-o", &format!("PreferredAuthentications={method}")])
            .args(["-o", &format!("UserKnownHostsFile={}", dir.join("known_hosts").display())])
            .arg("-i")
            .arg(dir.join("key"))
            .args(["-p", &self.server.addr().port().to_string()])
            .args(options)
            .args([&format!("{}@127.0.0.1", self.server.user()), command])
            .env_remove("SSH_AUTH_SOCK")
            .env("SSH_ASKPASS", dir.join("askpass"))
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("ANSWER", answer)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("ssh starts");
        let mut stdin = ssh.stdin.take().expect("stdin is piped");
        // A command that reads nothing may have ended.
        stdin.write_all(input.as_bytes()).await.ok();
        drop(stdin);
        tokio::time::timeout(LIMIT, ssh.wait_with_output()).await.expect("ssh ends").expect("ssh runs")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_command_has_streams_a_status_and_an_environment() {
    let Some(ssh) = OpenSsh::with(Config::default()).await else { return };
    let environment = ["-o", "SetEnv=GREETING=hello"];
    let command = "cat; echo $GREETING $USER; pwd; echo oops >&2; exit 7";
    let output = ssh.run("publickey", &environment, command, "from stdin\n").await;
    let home = ssh.server.home().display();
    assert_eq!(text(&output.stdout), format!("from stdin\nhello demo\n{home}\n"), "{}", text(&output.stderr));
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), ("oops\n", Some(7)));
}

#[tokio::test]
async fn megabytes_arrive_whole_in_both_directions() {
    let Some(ssh) = OpenSsh::with(Config::default()).await else { return };
    // More than the channel's window, several times.
    let sent = "0123456789abcde\n".repeat(1 << 19);
    let output = ssh.run("publickey", &[], "cat", &sent).await;
    assert!(text(&output.stdout) == sent, "{} of {} bytes", output.stdout.len(), sent.len());
}

#[tokio::test]
async fn a_terminal_is_a_terminal() {
    let Some(ssh) = OpenSsh::with(Config::default()).await else { return };
    let output = ssh.run("publickey", &["-tt"], "test -t 0 && test -t 2 && echo $TERM && exit 3", "").await;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stdout));
    assert!(text(&output.stdout).ends_with("\r\n"));
    // Without a command: a login shell that reads what is typed.
    let output = ssh.run("publickey", &["-tt"], "", "echo $((6 * 7)); exit 4\n").await;
    assert!(text(&output.stdout).contains("42\r\n"), "{}", text(&output.stdout));
    assert_eq!(output.status.code(), Some(4));
}

#[tokio::test]
async fn every_login_method_works_and_refuses() {
    for (login, method) in [
        (Login::PublicKey, "publickey"),
        (Login::Password, "password"),
        (Login::KeyboardInteractive, "keyboard-interactive"),
    ] {
        let config =
            Config { logins: vec![login], users: vec!["ada".into(), "bob".into()], ..Config::default() };
        let Some(ssh) = OpenSsh::with(config).await else { return };
        let all = "publickey,password,keyboard-interactive";
        let output = ssh.run(all, &[], "echo in", "").await;
        assert_eq!(text(&output.stdout), "in\n", "{method}: {}", text(&output.stderr));
        let stranger = ssh.run(all, &["-l", "eve"], "echo in", "").await;
        assert_eq!(stranger.status.code(), Some(255), "{method}");
        if login != Login::PublicKey {
            let wrong = ssh.run_answering("wrong", all, &[], "echo in", "").await;
            assert_eq!((wrong.status.code(), text(&wrong.stdout).as_str()), (Some(255), ""), "{method}");
        }
        let refused = format!("Permission denied ({method}).");
        assert!(text(&stranger.stderr).contains(&refused), "{}", text(&stranger.stderr));
    }
}

#[tokio::test]
async fn each_server_has_keys_and_a_password_of_its_own() {
    let (one, two) =
        tokio::join!(EmbeddedSshd::start(Config::default()), EmbeddedSshd::start(Config::default()));
    let (one, two) = (one.expect("a free port"), two.expect("a free port"));
    assert!(one.host_key_fingerprint().starts_with("SHA256:"));
    assert_ne!(one.host_key_fingerprint(), two.host_key_fingerprint());
    assert_ne!(one.password(), two.password());
    assert_ne!(one.client_key_pem().expect("encodable"), two.client_key_pem().expect("encodable"));
    assert!(one.addr().ip().is_loopback());
    assert!(!one.known_hosts_line().contains(&two.addr().port().to_string()));
}

/// A client of russh's that trusts the server.
struct Client;

impl client::Handler for Client {
    type Error = Error;

    async fn check_server_key(&mut self, _key: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(true)
    }
}

async fn connect(server: &EmbeddedSshd) -> Handle<Client> {
    let config = Arc::new(client::Config { nodelay: true, ..client::Config::default() });
    let mut client = client::connect(config, server.addr(), Client).await.expect("the server greets");
    let result = client.authenticate_password(server.user(), server.password()).await.expect("an answer");
    assert!(matches!(result, AuthResult::Success));
    client
}

/// The next message that is wanted, within the limit.
async fn next<T>(channel: &mut russh::Channel<client::Msg>, wanted: impl Fn(ChannelMsg) -> Option<T>) -> T {
    let found = async {
        loop {
            let message = channel.wait().await.expect("the channel is open");
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("the message comes")
}

fn line(message: ChannelMsg) -> Option<String> {
    if let ChannelMsg::Data { data } = message { Some(text(&data)) } else { None }
}

/// What comes up to these words: a terminal may give a line in pieces.
async fn said(channel: &mut russh::Channel<client::Msg>, words: &str) -> String {
    let mut said = String::new();
    while !said.ends_with(words) {
        said += &next(channel, line).await;
    }
    said
}

fn status(message: ChannelMsg) -> Option<u32> {
    if let ChannelMsg::ExitStatus { exit_status } = message { Some(exit_status) } else { None }
}

/// Command lines of live processes with this in them.
fn alive(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| text(line).replace('\0', " ").contains(marker)).count()
}

/// Waits until that many are alive: processes start and die a moment after what announces it.
async fn until_alive(number: usize, marker: &str) {
    let reached = async {
        while alive(marker) != number {
            tokio::task::yield_now().await;
        }
    };
    let reached = tokio::time::timeout(LIMIT, reached).await;
    assert!(reached.is_ok(), "{} processes with {marker}, not {number}", alive(marker));
}

#[tokio::test]
async fn a_signal_reaches_the_whole_process_group_and_is_reported() {
    let server = EmbeddedSshd::start(Config::default()).await.expect("a free port");
    let client = connect(&server).await;
    let marker = format!("301.{}", server.addr().port());
    for signal in [Sig::TERM, Sig::KILL, Sig::Custom("USR2".into())] {
        let mut channel = client.channel_open_session().await.expect("a channel");
        channel.exec(true, format!("echo up; sleep {marker} | sleep {marker}")).await.expect("sent");
        assert_eq!(next(&mut channel, line).await, "up\n");
        channel.signal(signal.clone()).await.expect("sent");
        let name = next(&mut channel, |message| {
            if let ChannelMsg::ExitSignal { signal_name, .. } = message { Some(signal_name) } else { None }
        });
        assert_eq!(format!("{:?}", name.await), format!("{signal:?}"));
        until_alive(0, &format!("sleep {marker}")).await;
    }
}

#[tokio::test]
async fn signals_may_be_dropped() {
    let config = Config { signals: Signals::Dropped, ..Config::default() };
    let server = EmbeddedSshd::start(config).await.expect("a free port");
    let client = connect(&server).await;
    let mut channel = client.channel_open_session().await.expect("a channel");
    channel.exec(true, "echo up; read -r answer; echo $answer").await.expect("sent");
    assert_eq!(next(&mut channel, line).await, "up\n");
    channel.signal(Sig::KILL).await.expect("sent");
    channel.data_bytes("still here\n").await.expect("sent");
    assert_eq!(next(&mut channel, line).await, "still here\n");
}

#[tokio::test]
async fn the_status_does_not_wait_for_a_background_child() {
    let server = EmbeddedSshd::start(Config::default()).await.expect("a free port");
    let client = connect(&server).await;
    let marker = format!("302.{}", server.addr().port());
    let mut channel = client.channel_open_session().await.expect("a channel");
    channel.exec(true, format!("sleep {marker} & setsid sleep {marker} & exit 5")).await.expect("sent");
    assert_eq!(next(&mut channel, status).await, 5);
    // They hold the channel open, and end with the server, the daemon too.
    until_alive(2, &format!("sleep {marker}")).await;
    server.stop().await;
    until_alive(0, &format!("sleep {marker}")).await;
}

#[tokio::test]
async fn sessions_beyond_the_limit_are_refused_until_a_process_has_ended() {
    let config = Config { max_sessions: 2, ..Config::default() };
    let server = EmbeddedSshd::start(config).await.expect("a free port");
    let client = connect(&server).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut channel = client.channel_open_session().await.expect("a channel");
        channel.exec(true, "echo up; read -r line").await.expect("sent");
        assert_eq!(next(&mut channel, line).await, "up\n");
        held.push(channel);
    }
    let refusal = client.channel_open_session().await.map(drop).expect_err("the third is one too many");
    assert!(matches!(refusal, Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed)), "{refusal:?}");

    // A closed channel whose process lives on keeps its place; its standard input ends, and so does `read`.
    held.pop().expect("two are held").close().await.expect("sent");
    let freed = async {
        while client.channel_open_session().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, freed).await.expect("the place is free again");
}

#[tokio::test]
async fn a_terminal_has_the_size_and_modes_asked_for_and_hangs_up_with_its_channel() {
    let server = EmbeddedSshd::start(Config::default()).await.expect("a free port");
    let client = connect(&server).await;
    let mut channel = client.channel_open_session().await.expect("a channel");
    channel.request_pty(true, "dumb", 101, 37, 0, 0, &[(russh::Pty::ECHO, 0)]).await.expect("sent");
    let script = "stty size; read -r x; stty size; stty -a | grep -o -e '-echo '; exec sleep 303.$$; ";
    channel.exec(true, script).await.expect("sent");
    assert_eq!(said(&mut channel, "101\r\n").await, "37 101\r\n");
    channel.window_change(90, 41, 0, 0).await.expect("sent");
    channel.data_bytes("\n").await.expect("sent");
    assert_eq!(said(&mut channel, "-echo \r\n").await, "41 90\r\n-echo \r\n");
    channel.close().await.expect("sent");
    server.stop().await;
}

#[tokio::test]
async fn a_second_server_may_take_the_port_of_a_stopped_one() -> io::Result<()> {
    let first = EmbeddedSshd::start(Config::default()).await?;
    let (addr, key) = (first.addr(), first.host_key_fingerprint());
    let client = connect(&first).await;
    first.stop().await;
    assert!(client.channel_open_session().await.is_err(), "the connection is cut");
    let second = EmbeddedSshd::start(Config { port: addr.port(), ..Config::default() }).await?;
    assert_eq!(second.addr(), addr);
    assert_ne!(second.host_key_fingerprint(), key);
    Ok(())
}
