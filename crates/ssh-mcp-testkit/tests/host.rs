//! What a scripted host does beyond the contract: the ways of a POSIX login shell, and of servers that disappoint.

use std::future::poll_fn;
use std::time::Duration;

use ssh_mcp_core::history::Origin;
use ssh_mcp_core::kind::login_shell::{self, LoginShell};
use ssh_mcp_core::kind::pid_line::PidLine;
use ssh_mcp_core::port::ssh::{
    Channel, ChannelEvent, ConnectError, ConnectRequest, Connector, Link, Signal, Start, Transience,
};
use ssh_mcp_core::target::{Address, Credentials, Target};
use ssh_mcp_testkit::host::{Script, ScriptedHost, Seen, defaults};
use tokio::time::Instant;

fn request() -> ConnectRequest {
    ConnectRequest {
        via: Vec::new(),
        hop: defaults().hop(
            Target {
                address: Address { host: "fake.example".to_owned(), port: 22 },
                username: "ada".to_owned(),
            },
            Credentials::default(),
        ),
        timeout: Duration::from_secs(30),
        accepted: Vec::new(),
    }
}

#[cfg(test)]
async fn link(host: &ScriptedHost) -> Box<dyn Link> {
    host.connect(&request()).await.unwrap().link
}

#[cfg(test)]
async fn start(link: &dyn Link, command: &str) -> Channel {
    let channel = link.open(SECOND).await.unwrap();
    channel.control.start(Start::Exec { command: command.to_owned(), pty: None }).await.unwrap();
    channel
}

async fn next(channel: &mut Channel) -> ChannelEvent {
    poll_fn(|cx| channel.events.poll_event(cx)).await
}

async fn rest(channel: &mut Channel) -> Vec<ChannelEvent> {
    let mut events = Vec::new();
    while !matches!(events.last(), Some(ChannelEvent::Closed | ChannelEvent::Lost(_))) {
        events.push(next(channel).await);
    }
    events
}

fn output(events: &[ChannelEvent], wanted: Origin) -> Vec<u8> {
    let mut output = Vec::new();
    for event in events {
        if let ChannelEvent::Data(origin, bytes) = event
            && *origin == wanted
        {
            output.extend_from_slice(bytes);
        }
    }
    output
}

#[tokio::test(start_paused = true)]
async fn it_answers_the_question_for_its_shell_unless_that_is_a_foreign_one() {
    for (host, expected) in [
        (ScriptedHost::new(), LoginShell::Posix),
        (ScriptedHost::new().with_foreign_shell(), LoginShell::Other),
    ] {
        let link = link(&host).await;
        let events = rest(&mut start(&*link, &login_shell::question(7)).await).await;
        assert_eq!(login_shell::answer(7, &output(&events, Origin::Stdout)), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_no_signal_reaches_is_ended_by_a_kill_of_its_group() {
    let host = ScriptedHost::new().on("sleep 300", Script::new().unreached_by_signals());
    let link = link(&host).await;
    let mut line = PidLine::new(9);
    let mut channel = start(&*link, &line.prefix("sleep 300")).await;
    assert_eq!(next(&mut channel).await, ChannelEvent::Started);
    let printed = output(&[next(&mut channel).await], Origin::Stderr);
    line.pass(&printed, &mut Vec::new());
    let pid = line.pid().unwrap();
    channel.control.signal(Signal::Kill).await.unwrap();
    assert_eq!(host.running("sleep 300"), 1);

    let killed = rest(&mut start(&*link, &format!("kill -KILL -- -{pid}")).await).await;
    assert!(killed.contains(&ChannelEvent::ExitStatus(0)), "{killed:?}");
    assert!(rest(&mut channel).await.contains(&ChannelEvent::ExitSignal { name: "KILL".to_owned() }));
    assert_eq!(host.running("sleep 300"), 0);
    assert_eq!(host.signals("sleep 300"), [Signal::Kill]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_command_is_not_found() {
    let host = ScriptedHost::new();
    let events = rest(&mut start(&*link(&host).await, "frobnicate").await).await;
    assert!(events.contains(&ChannelEvent::ExitStatus(127)), "{events:?}");
    assert_eq!(host.command_lines(), ["frobnicate"]);
}

#[tokio::test(start_paused = true)]
async fn a_timetable_is_kept() {
    let host = ScriptedHost::new().on(
        "slow",
        Script::new().out("a").after(SECOND).err("b").after(SECOND).exit(4).holding_output(SECOND),
    );
    let link = link(&host).await;
    let began = Instant::now();
    let mut channel = start(&*link, "slow").await;
    let mut times = Vec::new();
    loop {
        let event = next(&mut channel).await;
        times.push((began.elapsed().as_secs(), event.clone()));
        if event == ChannelEvent::Closed {
            break;
        }
    }
    let expected = [
        (0, ChannelEvent::Started),
        (0, ChannelEvent::Data(Origin::Stdout, "a".into())),
        (1, ChannelEvent::Data(Origin::Stderr, "b".into())),
        (2, ChannelEvent::ExitStatus(4)),
        (3, ChannelEvent::Eof),
        (3, ChannelEvent::Closed),
    ];
    assert_eq!(times, expected);
}

#[tokio::test(start_paused = true)]
async fn a_closed_channel_does_not_end_its_process_and_keeps_its_place() {
    let host = ScriptedHost::new().with_places(1).on("sleep 5", Script::runs_for(SECOND * 5));
    let link = link(&host).await;
    let channel = start(&*link, "sleep 5").await;
    drop(channel);
    assert_eq!((host.open_channels(), host.running("sleep 5")), (0, 1));
    assert!(link.open(SECOND).await.is_err());
    link.open(SECOND * 10).await.unwrap();
    assert_eq!(host.running("sleep 5"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_send_ends_with_its_process() {
    let host = ScriptedHost::new().on("deaf", Script::new().not_reading());
    let link = link(&host).await;
    let mut channel = start(&*link, "deaf").await;
    let sending = channel.control.send("x".into());
    let control = channel.control.clone();
    let (sent, ()) = tokio::join!(sending, async {
        control.signal(Signal::Term).await.unwrap();
        rest(&mut channel).await;
    });
    assert!(sent.is_err());
    assert!(host.input("deaf").is_empty());
}

#[tokio::test(start_paused = true)]
async fn attempts_fail_in_the_order_they_were_told_to() {
    let host = ScriptedHost::new();
    let refused =
        ConnectError::Failed { cause: "connection refused".to_owned(), transience: Transience::Transient };
    host.then_connect_fails(refused.clone());
    assert_eq!(host.connect(&request()).await.err(), Some(refused));
    assert!(host.connect(&request()).await.is_ok());
    assert_eq!(host.connects(), 2);
    assert_eq!(host.seen()[0], Seen::Connected { target: "ada@fake.example:22".to_owned() });
}

#[tokio::test(start_paused = true)]
async fn what_is_typed_into_a_shell_is_echoed_and_answered() {
    let host = ScriptedHost::new().on("whoami", Script::new().out("ada\r\n"));
    let link = link(&host).await;
    let mut channel = link.open(SECOND).await.unwrap();
    let size = ssh_mcp_core::port::ssh::PtySize { cols: 80, rows: 24 };
    let pty = ssh_mcp_core::port::ssh::Pty { term: "xterm".to_owned(), size };
    channel.control.start(Start::Shell { pty }).await.unwrap();
    channel.control.send("whoami\r".into()).await.unwrap();
    channel.control.send(vec![0x04].into()).await.unwrap();
    let events = rest(&mut channel).await;
    assert_eq!(output(&events, Origin::Stdout), b"$ whoami\r\nada\r\n$ ");
    assert!(events.contains(&ChannelEvent::ExitStatus(0)), "{events:?}");
    assert_eq!(host.input(""), b"whoami\r\x04");
}

const SECOND: Duration = Duration::from_secs(1);
