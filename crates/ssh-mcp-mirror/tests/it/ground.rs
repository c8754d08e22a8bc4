//! The ground the cases stand on holds: channels behave, trees are told apart, and all three rsyncs answer.

use std::future::poll_fn;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use ssh_mcp_core::history::Origin;
use ssh_mcp_core::port::ssh::{Channel, ChannelEvent, ChannelGone, Start};
use ssh_mcp_core::registry::Direction;
use tokio::time::timeout;

use crate::bench::{Bench, files, what};
use crate::child::{Cut, Delivery, Process, Setup};
use crate::servers::{Age, Server};
use crate::snapshot::{
    Times, What, assert_real_client_agrees, assert_same, differences, real_client, snapshot,
};
use crate::tree::{Plot, Scratch, base, is_root, random, set_time, settle};

async fn start(setup: Setup, command: &str) -> (Channel, Process) {
    let (channel, process) = setup.open();
    channel.control.start(Start::Exec { command: command.to_owned(), pty: None }).await.unwrap();
    (channel, process)
}

async fn next(channel: &mut Channel) -> ChannelEvent {
    timeout(LIMIT, poll_fn(|cx| channel.events.poll_event(cx))).await.expect("something happens")
}

/// All events up to the last.
async fn events(channel: &mut Channel) -> Vec<ChannelEvent> {
    let mut events = Vec::new();
    loop {
        events.push(next(channel).await);
        if matches!(events.last(), Some(ChannelEvent::Closed | ChannelEvent::Lost(_))) {
            return events;
        }
    }
}

fn data(events: &[ChannelEvent], wanted: Origin) -> Vec<u8> {
    let pieces = events.iter().filter_map(|event| match event {
        ChannelEvent::Data(origin, bytes) if *origin == wanted => Some(&bytes[..]),
        ChannelEvent::Data(..)
        | ChannelEvent::Eof
        | ChannelEvent::Started
        | ChannelEvent::Refused { .. }
        | ChannelEvent::ExitStatus(_)
        | ChannelEvent::ExitSignal { .. }
        | ChannelEvent::Closed
        | ChannelEvent::Lost(_) => None,
    });
    pieces.collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn a_channel_tells_what_a_command_does() {
    let Some(server) = Server::newest_or_skip() else { return };
    let (mut channel, process) = start(Setup::new(&server), "cat; echo sorry >&2; exit 3").await;
    channel.control.send(Bytes::from_static(b"hello")).await.unwrap();
    channel.control.finish_input().await.unwrap();
    let events = events(&mut channel).await;
    assert_eq!(events.first(), Some(&ChannelEvent::Started));
    assert_eq!(data(&events, Origin::Stdout), b"hello");
    assert_eq!(data(&events, Origin::Stderr), b"sorry\n");
    assert!(events.contains(&ChannelEvent::Eof) && events.contains(&ChannelEvent::ExitStatus(3)));
    assert_eq!(events.last(), Some(&ChannelEvent::Closed));
    assert_eq!(process.ended().await.code(), Some(3));
    assert_eq!((process.stderr().as_str(), process.is_drained()), ("sorry\n", true));
    assert_eq!((process.sent(), process.received()), (5, 11));
}

#[tokio::test]
async fn output_may_come_byte_by_byte_and_end_early() {
    let Some(server) = Server::newest_or_skip() else { return };
    let setup = Setup::new(&server);
    let bytes = Setup { delivery: Delivery::ByteByByte, ..setup.clone() };
    let (mut channel, _process) = start(bytes, "printf abc").await;
    let told = events(&mut channel).await;
    for byte in [&b"a"[..], b"b", b"c"] {
        assert!(told.contains(&ChannelEvent::Data(Origin::Stdout, Bytes::from_static(byte))));
    }
    let killed = Setup { cut: Some(Cut::Killed(2)), ..setup.clone() };
    let (mut channel, process) = start(killed, "printf abc; exec sleep 1000").await;
    let told = events(&mut channel).await;
    assert_eq!(data(&told, Origin::Stdout), b"ab");
    assert!(told.contains(&ChannelEvent::ExitSignal { name: "KILL".to_owned() }));
    assert_eq!(process.ended().await.signal(), Some(9));
    let lost = Setup { cut: Some(Cut::Lost(2)), ..setup };
    let (mut channel, _process) = start(lost, "printf abc; exec sleep 1000").await;
    let told = events(&mut channel).await;
    assert_eq!(data(&told, Origin::Stdout), b"ab");
    assert!(matches!(told.last(), Some(ChannelEvent::Lost(_))));
    let gone = timeout(LIMIT, channel.control.send(vec![0; 1 << 20].into())).await;
    assert_eq!(gone, Ok(Err(ChannelGone)));
}

#[tokio::test]
async fn input_waits_for_its_reader_and_ends_with_the_channel() {
    let Some(server) = Server::newest_or_skip() else { return };
    let (channel, process) = start(Setup::new(&server), "exec sleep 1000").await;
    let mut sending = channel.control.send(vec![0; 1 << 20].into());
    let waited = timeout(Duration::from_millis(50), &mut sending).await;
    assert!(waited.is_err(), "a pipe takes no mebibyte");
    channel.control.close().await;
    assert_eq!(sending.await, Err(ChannelGone));
    // It does not notice that its pipes are closed.
    assert_eq!(process.ended().await.signal(), Some(9));
}

#[tokio::test]
async fn a_dropped_channel_ends_what_reads_its_pipe() {
    let Some(server) = Server::newest_or_skip() else { return };
    let (channel, process) = start(Setup::new(&server), "cat; exit 4").await;
    drop(channel);
    assert_eq!(process.ended().await.code(), Some(4));
    assert!(!process.is_drained());
}

#[tokio::test]
async fn a_frozen_process_says_nothing_and_a_killed_one_ends() {
    let Some(server) = Server::newest_or_skip() else { return };
    let (mut channel, process) = start(Setup::new(&server), "echo; cat").await;
    assert_eq!(next(&mut channel).await, ChannelEvent::Started);
    assert!(matches!(next(&mut channel).await, ChannelEvent::Data(..)));
    process.freeze();
    channel.control.send(Bytes::from_static(b"hello")).await.unwrap();
    let silence = timeout(Duration::from_millis(50), poll_fn(|cx| channel.events.poll_event(cx))).await;
    assert!(silence.is_err());
    process.kill();
    assert_eq!(process.ended().await.signal(), Some(9));
}

#[tokio::test]
async fn a_command_runs_as_another_user_with_variables_and_other_words() {
    let Some(server) = Server::newest_or_skip() else { return };
    let scratch = Scratch::new();
    let age = Age { capabilities: Some("e.Lf"), ..Age::TODAY };
    let variables = vec![("SAID", "so".to_owned())];
    let mut setup = Setup { age, variables, home: scratch.path().to_owned(), ..Setup::new(&server) };
    if is_root() {
        setup.server = server.copied_to(scratch.path());
        setup.run_as = Some((12_345, 54_321));
    }
    let user = if is_root() { "12345:54321" } else { &real_user() };
    let command =
        "echo $SAID -ltre.LsfxCIvu; pwd; echo $(id -u):$(id -g); rsync --version | grep -c protocol";
    let (mut channel, process) = start(setup, command).await;
    let said = String::from_utf8(data(&events(&mut channel).await, Origin::Stdout)).unwrap();
    assert_eq!(said, format!("so -ltre.Lf\n{}\n{user}\n1\n", scratch.path().display()));
    assert!(process.ended().await.success(), "{}", process.stderr());
}

fn real_user() -> String {
    format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

#[test]
fn a_client_without_words_says_nothing_of_itself() {
    let age = Age { capabilities: None, ..Age::TODAY };
    assert_eq!(age.applied_to("rsync --server -ltre.LsfxCIvu . x"), "rsync --server -ltr . x");
    assert_eq!(Age::all().count(), 12);
}

/// Both checks find a copy equal, and each change in it.
#[test]
fn two_trees_are_told_apart() {
    let Some(client) = Server::newest_or_skip() else { return };
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    base(&tree);
    let letters = if is_root() { "aH" } else { "rlptDH" };
    let original = snapshot(&tree);
    assert!(original.len() > 400, "{} entries", original.len());
    let copy = scratch.copy(&tree, "copy");
    assert_same(&original, &snapshot(&copy), What::ALL);
    assert_real_client_agrees(&client, letters, &tree, &copy);
    let plot = Plot(&copy);
    type Change = fn(&Plot<'_>);
    let mut changes: Vec<(&str, Change)> = vec![
        ("random", |plot| {
            let facts = std::fs::metadata(plot.at("random")).unwrap();
            let mut content = std::fs::read(plot.at("random")).unwrap();
            content[150_000] ^= 1;
            plot.file("random", content);
            plot.time("random", mtime(&facts).0, mtime(&facts).1);
        }),
        ("empty", |plot| plot.time("empty", 7, 0)),
        ("foo", |plot| plot.mode("foo", 0o600)),
        ("names/-rf", |plot| std::fs::remove_file(plot.at("names/-rf")).unwrap()),
        ("too much", |plot| drop(plot.directory("too much"))),
        ("links to file", |plot| {
            std::fs::remove_file(plot.at("links to file")).unwrap();
            plot.link("links to file", "one bite");
        }),
        ("third", |plot| {
            let facts = std::fs::metadata(plot.at("third")).unwrap();
            let content = std::fs::read(plot.at("third")).unwrap();
            std::fs::remove_file(plot.at("third")).unwrap();
            plot.file("third", content);
            plot.mode("third", std::os::unix::fs::MetadataExt::mode(&facts) & 0o7777);
            plot.time("third", mtime(&facts).0, mtime(&facts).1);
        }),
    ];
    if is_root() {
        changes.push(("owners/1", |plot| plot.own("owners/1", 1, 2)));
        changes.push(("nodes/char 1", |plot| {
            std::fs::remove_file(plot.at("nodes/char 1")).unwrap();
            plot.node("nodes/char 1", rustix::fs::FileType::CharacterDevice, 1, 5);
        }));
    }
    for (name, change) in changes {
        change(&plot);
        let said = differences(&original, &snapshot(&copy), What::ALL);
        assert!(said.contains(name), "{name}: {said}");
        let options = [&format!("-nic{letters}"), "--delete", "--numeric-ids"];
        let said = real_client(&client, &options, &tree, &copy);
        assert!(said.contains(name), "{name}: {said}");
        // What the real client would do makes them equal again.
        real_client(&client, &[&format!("-c{letters}"), "--delete", "--numeric-ids"], &tree, &copy);
        assert_same(&original, &snapshot(&copy), What::ALL);
    }
}

fn mtime(facts: &std::fs::Metadata) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    (facts.mtime(), facts.mtime_nsec())
}

/// What the real client made of a tree passes the checks that what we make of it will have to pass.
#[test]
fn the_checks_are_content_with_the_real_client() {
    let Some(client) = Server::newest_or_skip() else { return };
    for letters in if is_root() { &["rt", "rlt", "rlptH", "a", "aHc"][..] } else { &["rt", "rlt", "rlptHc"] }
    {
        let bench = Bench::new(Direction::Upload);
        base(bench.source().0);
        let reference = bench.reference(&client, letters, &[]);
        let transferred = if letters.contains('H') { 0 } else { files(&snapshot(bench.source().0)).len() };
        assert!(reference.transferred.len() >= transferred);
        real_client(&client, &[&format!("-{letters}")], bench.source().0, bench.target().0);
        bench.assert_mirrored(letters);
        assert_same(&reference.target, &snapshot(bench.target().0), what(letters));
    }
}

#[test]
fn times_are_compared_as_exactly_as_they_are_kept() {
    let scratch = Scratch::new();
    let (one, other) = (scratch.folder("one"), scratch.folder("other"));
    for (folder, nanoseconds) in [(&one, 5), (&other, 6)] {
        set_time(&Plot(folder).file("file", "x"), 1_000, nanoseconds);
        set_time(folder, 1_000, 0);
    }
    let (one, other) = (snapshot(&one), snapshot(&other));
    assert!(differences(&one, &other, what("rlt")).starts_with("file:"));
    assert_same(&one, &other, What { times: Times::Seconds, ..what("rlt") });
}

/// Each rsync as a server of the real client, by the same pipes that our own client gets.
#[test]
fn all_three_rsyncs_serve_the_real_client() {
    let Some(client) = Server::newest_or_skip() else { return };
    let scratch = Scratch::new();
    let tree = scratch.folder("tree");
    base(&tree);
    random(&scratch.folder("tree/random tree"), 7);
    settle(&tree);
    let options = if is_root() { "-aH" } else { "-rlptDH" };
    let what = if is_root() { What::ALL } else { What { owners: false, ..What::ALL } };
    let shell = scratch.path().join("shell");
    for server in Server::all() {
        let environment = server.rsync.environment().into_iter();
        let environment = environment.map(|(name, value)| format!("{name}='{}' ", value.display()));
        // In place of ssh: the first word is the host.
        let script = format!("shift; {}exec sh -c \"$*\"\n", environment.collect::<String>());
        std::fs::write(&shell, script).unwrap();
        for is_upload in [true, false] {
            let there = scratch.folder(&format!("{}-{is_upload}", server.name));
            let far = |path: &Path| format!("there:{}/", path.display());
            let near = |path: &Path| format!("{}/", path.display());
            let (from, to) = if is_upload { (near(&tree), far(&there)) } else { (far(&tree), near(&there)) };
            let remote = format!("sh {}", shell.display());
            let said = client.rsync.client().args([options, "-e", &remote, &from, &to]).output().unwrap();
            assert!(said.status.success(), "{}: {said:?}", server.name);
            assert_same(&snapshot(&tree), &snapshot(&there), what);
        }
    }
}

const LIMIT: Duration = Duration::from_secs(20);
