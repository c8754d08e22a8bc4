//! The ground under the product's tests, itself tested with the system's own `ssh`: if one of these fails,
//! no other failure against a real server means anything.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::sshd::processes::{command_line, kill, processes_matching, wait_until};
use crate::sshd::{
    Agent, ClientKey, HostKey, KeyboardInteractive, OpenSshd, Options, PASSPHRASE, PasswordLogin, Proxy,
    User, askpass,
};

const LIMIT: Duration = Duration::from_secs(20);

fn run(mut command: Command) -> (String, Output) {
    let output = command.output().expect("ssh starts");
    (String::from_utf8_lossy(&output.stdout).trim().to_owned(), output)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `ssh` that may try these methods only and answers every question with this secret.
fn by_secret(sshd: &OpenSshd, methods: &str, secret: &str) -> (Command, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut ssh = Command::new("ssh");
    // The first value of an option counts, so these go before the fixture's own.
    ssh.args(["-o", &format!("PreferredAuthentications={methods}"), "-o", "NumberOfPasswordPrompts=1"]);
    ssh.args(["-o", "BatchMode=no"]).args(sshd.client(User::Tester, ClientKey::Ed25519).get_args());
    ssh.envs(askpass(dir.path(), secret)).env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
    (ssh, dir)
}

#[test]
fn both_users_log_in_by_key_and_their_shell_reads_no_login_file() {
    let Some(sshd) = OpenSshd::start_or_skip(Options::default()) else { return };
    for user in User::BOTH {
        for file in [".bashrc", ".profile", ".bash_profile"] {
            fs::write(sshd.home(user).join(file), "echo LOGIN FILE READ\n").expect("a home of ours");
        }
        let mut ssh = sshd.client(user, ClientKey::Ed25519);
        ssh.arg("id -un; echo $SHLVL; pwd; ls -d /run/sshd");
        let (said, output) = run(ssh);
        // bash counts its own level on top of the 1 it is given.
        let home = sshd.home(user);
        assert_eq!(said, format!("{}\n2\n{}\n/run/sshd", user.name(), home.display()), "{}", stderr(&output));
    }
    // sshd gives the terminal to the user, and to the group `tty` of its own /etc/group.
    let mut ssh = sshd.client(User::Tester, ClientKey::Ed25519);
    ssh.arg("-tt").arg("stat -c %U:%G $(tty)");
    assert_eq!(run(ssh).0, "tester:tty");
    let passwd = fs::read_to_string("/etc/passwd").expect("every machine has one");
    assert!(!passwd.contains("ssh-mcp-sshd-"), "the machine's own users are untouched");
}

#[test]
fn every_client_key_is_admitted_but_the_strangers() {
    let Some(sshd) = OpenSshd::start_or_skip(Options::default()) else { return };
    let agent = Agent::start();
    for key in ClientKey::ADMITTED {
        let passphrase = (key == ClientKey::Ed25519Encrypted).then_some(PASSPHRASE);
        agent.add(&sshd.client_key(key), passphrase);
    }
    let listed = Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", agent.socket()).output();
    assert_eq!(String::from_utf8_lossy(&listed.expect("ssh-add starts").stdout).lines().count(), 4);

    for key in ClientKey::ADMITTED.into_iter().chain([ClientKey::Stranger]) {
        let mut ssh = sshd.client(User::Tester, key);
        ssh.env("SSH_AUTH_SOCK", agent.socket()).arg("echo in");
        let (said, output) = run(ssh);
        let expected = if key == ClientKey::Stranger { "" } else { "in" };
        assert_eq!(said, expected, "{key:?}: {}", stderr(&output));
    }
}

#[test]
fn the_password_logs_in_and_a_wrong_one_does_not() {
    let Some(sshd) = OpenSshd::start_or_skip(Options::default()) else { return };
    for (secret, expected) in [(sshd.password(), "in"), ("wrong", "")] {
        let (mut ssh, _dir) = by_secret(&sshd, "password", secret);
        ssh.arg("echo in");
        let (said, output) = run(ssh);
        assert_eq!(said, expected, "{}", stderr(&output));
    }
    assert!(sshd.wait_for_log("Failed password for tester", LIMIT));
}

#[test]
fn keyboard_interactive_asks_for_the_password_when_pam_is_behind_it() {
    let by_pam = Options {
        keyboard_interactive: KeyboardInteractive::ByPam,
        password: PasswordLogin::Off,
        ..Options::default()
    };
    // Without PAM sshd has nothing that could ask: see `KeyboardInteractive`.
    let without_pam =
        Options { extra: vec!["KbdInteractiveAuthentication yes".into()], ..Options::default() };
    for (options, expected) in [(by_pam, "in"), (without_pam, "")] {
        let Some(sshd) = OpenSshd::start_or_skip(options) else { return };
        let (mut ssh, _dir) = by_secret(&sshd, "keyboard-interactive", sshd.password());
        ssh.arg("echo in");
        let (said, output) = run(ssh);
        assert_eq!(said, expected, "{}", stderr(&output));
    }
}

#[test]
fn options_reach_the_server() {
    let options = Options {
        max_sessions: Some(1),
        max_startups: Some("1:100:1".into()),
        force_command: Some("echo forced".into()),
        authentication_methods: Some("publickey,password".into()),
        host_keys: HostKey::ALL.to_vec(),
        login_shell: "/bin/sh".into(),
        extra: vec!["ClientAliveInterval 7".into()],
        ..Options::default()
    };
    let Some(sshd) = OpenSshd::start_or_skip(options) else { return };
    let known = sshd.known_hosts();
    let types: Vec<_> = known.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(types, ["ssh-rsa", "ecdsa-sha2-nistp256", "ssh-ed25519"]);
    assert!(HostKey::ALL.iter().all(|key| sshd.host_key_fingerprint(*key).starts_with("SHA256:")));

    let (mut ssh, _dir) = by_secret(&sshd, "publickey,password", sshd.password());
    ssh.arg("echo asked for");
    let (said, output) = run(ssh);
    assert_eq!(said, "forced", "{}", stderr(&output));

    // MaxStartups 1: while one connection has not logged in, the next is turned away before its greeting.
    let mut first = BufReader::new(TcpStream::connect(sshd.addr()).expect("the port is open"));
    let mut greeting = String::new();
    first.read_line(&mut greeting).expect("the first is greeted");
    assert!(greeting.starts_with("SSH-2.0-OpenSSH"));
    let mut second = String::new();
    TcpStream::connect(sshd.addr()).expect("the port is open").read_to_string(&mut second).expect("an end");
    assert!(!second.starts_with("SSH-2.0"), "{second}");
}

#[test]
fn stopping_takes_everything_along_and_restarting_keeps_the_port() {
    let Some(mut sshd) = OpenSshd::start_or_skip(Options::default()) else { return };
    let (addr, key) = (sshd.addr(), sshd.host_key_fingerprint(HostKey::Ed25519));
    let marker = format!("300.{}", std::process::id());
    let mut ssh = sshd.client(User::Tester, ClientKey::Ed25519);
    ssh.arg(format!("setsid sleep {marker} >/dev/null 2>&1 & sleep {marker} >/dev/null 2>&1 & echo $$ $!"));
    let (said, output) = run(ssh);
    let inner: u32 = said
        .split(' ')
        .next_back()
        .and_then(|pid| pid.parse().ok())
        .unwrap_or_else(|| panic!("{}", stderr(&output)));
    let alive = processes_matching(&marker);
    assert_eq!(alive.len(), 2, "the daemon and the background job outlive their connection");
    assert!(sshd.host_pid(inner).is_some_and(|pid| alive.contains(&pid)));

    sshd.stop();
    assert_eq!(processes_matching(&marker), [0_u32; 0]);
    assert!(TcpStream::connect(addr).is_err(), "the port is closed");

    sshd.restart();
    assert_eq!((sshd.addr(), sshd.host_key_fingerprint(HostKey::Ed25519)), (addr, key.clone()));
    let before = sshd.known_hosts();
    sshd.restart_with_new_host_key();
    assert_eq!(sshd.port(), addr.port());
    assert_ne!(sshd.host_key_fingerprint(HostKey::Ed25519), key);
    assert_ne!(sshd.known_hosts(), before);
    let mut ssh = sshd.client(User::Root, ClientKey::Ed25519);
    ssh.arg("echo in");
    assert_eq!(run(ssh).0, "in");
}

#[test]
fn a_killed_supervisor_takes_its_server_along() {
    let Some(sshd) = OpenSshd::start_or_skip(Options::default()) else { return };
    // The server's configuration and its supervisor both name the server's directory.
    let home = sshd.home(User::Root);
    let marker = home.ancestors().nth(2).expect("home/root in a directory").display().to_string();
    let all = processes_matching(&marker);
    let supervisor: Vec<u32> =
        all.iter().copied().filter(|pid| command_line(*pid).starts_with("sh ")).collect();
    assert!(supervisor.len() == 1 && all.len() > 1, "{all:?}");
    kill(&supervisor);
    assert!(wait_until(LIMIT, || processes_matching(&marker).is_empty()));
}

#[test]
fn connections_are_killed_from_the_servers_side() {
    let Some(sshd) = OpenSshd::start_or_skip(Options::default()) else { return };
    for user in User::BOTH {
        let mut ssh = sshd
            .client(user, ClientKey::Ed25519)
            .arg("echo up; exec sleep 300")
            .stdout(Stdio::piped())
            .spawn()
            .expect("ssh");
        let mut up = String::new();
        BufReader::new(ssh.stdout.take().expect("piped")).read_line(&mut up).expect("the command runs");
        sshd.kill_connections();
        assert_eq!(ssh.wait().expect("our child").code(), Some(255));
    }
}

#[test]
fn the_proxy_delays_freezes_and_cuts() {
    let Some(sshd) = OpenSshd::start_or_skip(Options::default()) else { return };
    let delay = Duration::from_millis(25);
    let proxy = Proxy::start(sshd.addr(), delay);
    let connect = || {
        let socket = TcpStream::connect(proxy.addr()).expect("the proxy listens");
        socket.set_read_timeout(Some(LIMIT)).expect("a socket of ours");
        BufReader::new(socket)
    };
    let mut greeting = String::new();
    let start = Instant::now();
    let mut first = connect();
    first.read_line(&mut greeting).expect("the server greets");
    assert!(greeting.starts_with("SSH-2.0-") && start.elapsed() >= delay);
    assert_eq!(proxy.accepted(), 1);

    proxy.freeze();
    let mut second = connect();
    second.get_ref().set_read_timeout(Some(delay * 8)).expect("a socket of ours");
    let silent = second.read_line(&mut greeting).expect_err("nothing comes through");
    assert_eq!(silent.kind(), std::io::ErrorKind::WouldBlock);
    proxy.thaw();
    second.get_ref().set_read_timeout(Some(LIMIT)).expect("a socket of ours");
    assert!(second.read_line(&mut greeting).is_ok_and(|size| size > 0));

    proxy.cut();
    for mut socket in [first, second] {
        // An end or a reset, as the sockets' buffers have it.
        assert_eq!(socket.read_line(&mut greeting).unwrap_or(0), 0);
    }
    assert!(connect().read_line(&mut greeting).is_ok_and(|size| size > 0), "new connections are served");
}

#[test]
fn waiting_for_what_does_not_come_ends() {
    assert!(!wait_until(Duration::from_millis(20), || false));
}
