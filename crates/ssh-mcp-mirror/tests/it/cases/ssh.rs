//! Cases that are about SSH itself, 1, 9, 47 and 72, with a real OpenSSH server; and what only a connection does.

use std::fs;
use std::time::Duration;

use ssh_mcp_core::port::mirror::{Broken, BrokenKind, Done};
use ssh_mcp_core::port::resolve::Defaults;
use ssh_mcp_core::port::ssh::{ConnectRequest, Connector as _, Link};
use ssh_mcp_core::registry::Direction;
use ssh_mcp_core::target::{Address, Credentials, Target};
use ssh_mcp_ssh::RusshConnector;
use ssh_mcp_testkit::host::defaults;

use crate::bench::{Bench, Run, Told};
use crate::servers::Server;
use crate::sshd::{ClientKey, OpenSshd, Options, User};
use crate::tree::{Dice, base, settle};

/// An OpenSSH server whose users find an rsync.
fn sshd_or_skip(rsync: &Server) -> Option<OpenSshd> {
    let extra = rsync.rsync.for_sshd();
    OpenSshd::start_or_skip(Options { extra, ..Options::default() })
}

async fn link(server: &OpenSshd) -> Box<dyn Link> {
    let target = Target {
        address: Address { host: "127.0.0.1".to_owned(), port: server.port() },
        username: User::Root.name().to_owned(),
    };
    let known_hosts = server.home(User::Root).join("unused");
    let hop = Defaults { known_hosts, ..defaults() }
        .hop(target, Credentials::by_key(server.client_key(ClientKey::Ed25519)));
    let request =
        ConnectRequest { via: Vec::new(), hop, accepted: Vec::new(), timeout: Duration::from_secs(30) };
    RusshConnector::new().with_global_known_hosts(Vec::new()).connect(&request).await.unwrap().link
}

/// The run on a channel of its own.
async fn go(link: &dyn Link, run: Run) -> (Result<Done, Broken>, Told) {
    run.go_on(link.open(Duration::from_secs(5)).await.unwrap()).await
}

async fn succeeds(link: &dyn Link, run: Run) {
    let (result, told) = go(link, run).await;
    assert_eq!(result, Ok(Done::default()));
    assert!(told.failed.is_empty(), "{:?}", told.failed);
}

#[tokio::test]
async fn case_01_09_and_72_over_ssh() {
    for server in Server::all() {
        let Some(sshd) = sshd_or_skip(&server) else { return };
        let link = link(&sshd).await;
        for direction in [Direction::Download, Direction::Upload] {
            let bench = Bench::new(direction);
            base(bench.source().0);
            succeeds(&*link, bench.run(&server, "rlt")).await;
            bench.assert_mirrored("rlt");

            let bench = Bench::new(direction);
            let file = bench.source().file("a file", "content");
            settle(bench.source().0);
            succeeds(&*link, bench.run(&server, "t").between(&file, bench.target().0)).await;
            settle(bench.target().0);
            bench.assert_mirrored("r");

            let bench = Bench::new(direction);
            let odd: Vec<u8> = (1..=127).filter(|byte| *byte != b'/').collect();
            let odd = bench.source().directory(odd);
            bench.source().file("a file", "content");
            fs::rename(bench.source().at("a file"), odd.join("a file")).unwrap();
            settle(bench.source().0);
            succeeds(&*link, bench.run(&server, "rt").between(&odd, bench.target().0)).await;
            settle(bench.target().0);
            bench.assert_mirrored("r");
        }
    }
}

#[tokio::test]
async fn case_47_over_ssh() {
    let Some(server) = Server::newest_or_skip() else { return };
    let nowhere = Options { extra: vec!["SetEnv PATH=/nowhere".to_owned()], ..Options::default() };
    let greeting = "echo Welcome to this host; eval \"$SSH_ORIGINAL_COMMAND\"".to_owned();
    let talking = Options { force_command: Some(greeting), ..Options::default() };
    for (options, words) in [(nowhere, "code 127"), (talking, "Welcome to this host")] {
        let Some(sshd) = OpenSshd::start_or_skip(options) else { return };
        let link = link(&sshd).await;
        let bench = Bench::new(Direction::Download);
        let (result, _) = go(&*link, bench.run(&server, "rt")).await;
        let broken = result.unwrap_err();
        assert_eq!((broken.kind, broken.touched), (BrokenKind::Protocol, false), "{broken}");
        assert!(broken.detail.contains(words), "{broken}");
    }
}

/// On a connection what opens the window for our data comes behind what the server sends: while it asks for more than fits
/// into every buffer between, it has to be read.
#[tokio::test]
async fn a_server_asks_far_ahead_over_ssh() {
    const FILES: u64 = 24;
    const LENGTH: usize = 2 << 20;
    /// So much is asked for each file: a sum of six bytes for sixteen.
    const BLOCK: u32 = 16;
    let Some(server) = Server::newest_or_skip() else { return };
    let Some(sshd) = sshd_or_skip(&server) else { return };
    let link = link(&sshd).await;
    let bench = Bench::new(Direction::Upload);
    let mut dice = Dice::new(1);
    for file in 0..FILES {
        bench.source().file(format!("file-{file}"), dice.bytes(LENGTH));
        bench.target().file(format!("file-{file}"), dice.bytes(LENGTH));
        bench.target().time(format!("file-{file}"), 1_000_000_000, 0);
    }
    let run = bench.run(&server, "rt").with_job(|job| job.block_len = Some(BLOCK));
    let synced = tokio::time::timeout(Duration::from_secs(100), succeeds(&*link, run));
    synced.await.expect("neither side waits for the other");
    bench.assert_mirrored("rt");
}
