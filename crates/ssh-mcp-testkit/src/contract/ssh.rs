//! The contract of the SSH port (`ssh_mcp_core::port::ssh`).
//!
//! Mount it with [`ssh_contract!`](crate::ssh_contract) on a [`Rig`]. The commands are few and plain enough for any POSIX
//! login shell; [`scripted`] is a fake that knows them. What a promise needs and a rig cannot do, the rig says by
//! returning `None`, and the function says that it checked nothing.
#![expect(clippy::panic, clippy::expect_used, reason = "a contract is a test: it fails by panicking")]

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use ssh_mcp_core::history::Origin;
use ssh_mcp_core::port::ssh::{
    Channel, ChannelError, ChannelEvent, ConnectRequest, Connected, Connector, Link, Pty, PtySize, Signal,
    Start,
};
use tokio::time::timeout;

use crate::host::{Script, ScriptedHost};

/// A connector and a machine it can reach.
pub trait Rig: Sync {
    /// What is under test.
    fn connector(&self) -> &dyn Connector;

    /// A request that is let in, as a user whom signals reach.
    fn request(&self) -> ConnectRequest;

    /// A request that is let in where every channel is refused.
    fn refusing_request(&self) -> Option<ConnectRequest>;

    /// Breaks every connection, as a crash of the server does.
    fn break_connections(&self);
}

/// Mounts the whole suite: `ssh_contract!(#[tokio::test] rig().await)`; the expression is an `Option` of a rig.
#[macro_export]
macro_rules! ssh_contract {
    (#[$attribute:meta] $rig:expr) => {
        $crate::ssh_contract! { @each #[$attribute] $rig;
            a_command_ends_with_its_status,
            both_outputs_come_apart,
            an_exit_by_signal_is_named,
            input_reaches_the_command_and_its_end_too,
            a_megabyte_of_input_comes_back_whole,
            a_requested_signal_ends_the_command,
            the_end_of_output_may_come_before_the_exit,
            a_command_on_a_terminal_has_its_size,
            a_login_shell_runs_what_is_typed,
            a_closed_channel_reports_its_close_and_takes_nothing,
            a_dropped_channel_gives_its_place_back,
            a_cancelled_open_gives_its_place_back,
            thirty_commands_run_at_once,
            a_refusal_is_said_at_once,
            a_ping_takes_a_round_trip,
            a_broken_connection_ends_link_and_channels,
            a_disconnect_ends_link_and_channels,
        }
    };
    (@each #[$attribute:meta] $rig:expr; $($name:ident,)+) => {
        $(
            #[$attribute]
            async fn $name() {
                if let Some(rig) = $rig {
                    $crate::contract::ssh::$name(&rig).await;
                }
            }
        )+
    };
}

/// A fake on which the commands of this suite exist.
pub fn scripted() -> ScriptedHost {
    ScriptedHost::new()
        .on(EXITS_3, Script::exits(3))
        .on(BOTH_OUTPUTS, Script::new().out("out\n").err("err\n").exit(0))
        .on(KILLS_ITSELF, Script::new().exit_signal("KILL"))
        .on(SLEEPS_ON, Script::new().out("begun\n"))
        .on(SLEEPS_SHORTLY, Script::runs_for(Duration::from_millis(200)))
        .on(CLOSES_OUTPUT, Script::new().eof().after(Duration::from_millis(200)).exit(5))
        .on(TERMINAL_SIZE, Script::prints("40 132\r\n"))
        .on(TYPED, Script::new().out("hello2\r\n"))
        .on("cat", Script::cat())
}

/// The status is the command's own, and `Started` comes before anything of the command.
pub async fn a_command_ends_with_its_status(rig: &impl Rig) {
    let connected = connect(rig).await;
    let ended = run(&*connected.link, exec(EXITS_3)).await;
    assert_eq!(ended.events.first(), Some(&ChannelEvent::Started), "{ended:?}");
    assert_eq!(ended.exit(), Some(ChannelEvent::ExitStatus(3)), "{ended:?}");
    assert_eq!(ended.events.last(), Some(&ChannelEvent::Closed), "{ended:?}");
}

/// Standard output and standard error are told apart.
pub async fn both_outputs_come_apart(rig: &impl Rig) {
    let connected = connect(rig).await;
    let ended = run(&*connected.link, exec(BOTH_OUTPUTS)).await;
    assert_eq!(
        (ended.output(Origin::Stdout), ended.output(Origin::Stderr)),
        (b"out\n".to_vec(), b"err\n".to_vec())
    );
    assert!(ended.events.contains(&ChannelEvent::Eof), "{ended:?}");
}

/// RFC 4254, 6.10: a command that died by a signal has no status but a name.
pub async fn an_exit_by_signal_is_named(rig: &impl Rig) {
    let connected = connect(rig).await;
    let ended = run(&*connected.link, exec(KILLS_ITSELF)).await;
    assert_eq!(ended.exit(), Some(ChannelEvent::ExitSignal { name: "KILL".to_owned() }), "{ended:?}");
}

/// What is sent arrives, and only the end of input ends a command that reads it.
pub async fn input_reaches_the_command_and_its_end_too(rig: &impl Rig) {
    let connected = connect(rig).await;
    let mut channel = start(&*connected.link, exec("cat")).await;
    channel.control.send(Bytes::from_static(b"one ")).await.expect("input is taken");
    channel.control.send(Bytes::from_static(b"two")).await.expect("input is taken");
    let mut ended = Ended::default();
    while ended.output(Origin::Stdout) != b"one two" {
        ended.events.push(next(&mut channel).await);
    }
    channel.control.finish_input().await.expect("the end of input is taken");
    ended.follow(&mut channel).await;
    assert_eq!(ended.exit(), Some(ChannelEvent::ExitStatus(0)), "{ended:?}");
}

/// More than a window holds: sending waits for the far side and loses nothing.
pub async fn a_megabyte_of_input_comes_back_whole(rig: &impl Rig) {
    let connected = connect(rig).await;
    let mut channel = start(&*connected.link, exec("cat")).await;
    let input: Bytes = (0..5u32 << 20).map(|i| (i % 251) as u8).collect::<Vec<u8>>().into();
    let control = channel.control.clone();
    let mut sending = {
        let input = input.clone();
        Box::pin(async move {
            control.send(input).await.expect("input is taken");
            control.finish_input().await.expect("the end of input is taken");
        })
    };
    let mut ended = Ended::default();
    let mut is_sent = false;
    while !ended.is_over() {
        let event = within(poll_fn(|cx| {
            if !is_sent && sending.as_mut().poll(cx).is_ready() {
                is_sent = true;
            }
            channel.events.poll_event(cx)
        }));
        ended.events.push(event.await);
    }
    assert!(ended.output(Origin::Stdout) == input, "{} bytes came back", ended.output(Origin::Stdout).len());
}

/// A signal request reaches the command of an ordinary user.
pub async fn a_requested_signal_ends_the_command(rig: &impl Rig) {
    let connected = connect(rig).await;
    let mut channel = start(&*connected.link, exec(SLEEPS_ON)).await;
    let mut ended = Ended::default();
    // The signal must not overtake the start of the program it is meant for.
    while ended.output(Origin::Stdout) != b"begun\n" {
        ended.events.push(next(&mut channel).await);
    }
    channel.control.signal(Signal::Term).await.expect("the request is sent");
    ended.follow(&mut channel).await;
    assert_eq!(ended.exit(), Some(ChannelEvent::ExitSignal { name: "TERM".to_owned() }), "{ended:?}");
}

/// A command may close its output and run on; its exit is reported all the same.
pub async fn the_end_of_output_may_come_before_the_exit(rig: &impl Rig) {
    let connected = connect(rig).await;
    let ended = run(&*connected.link, exec(CLOSES_OUTPUT)).await;
    assert_eq!(ended.exit(), Some(ChannelEvent::ExitStatus(5)), "{ended:?}");
    assert_eq!(ended.events.iter().filter(|event| **event == ChannelEvent::Eof).count(), 1, "{ended:?}");
}

/// A terminal has the size that was asked for.
pub async fn a_command_on_a_terminal_has_its_size(rig: &impl Rig) {
    let connected = connect(rig).await;
    let ended =
        run(&*connected.link, Start::Exec { command: TERMINAL_SIZE.to_owned(), pty: Some(pty()) }).await;
    assert_eq!(String::from_utf8_lossy(&ended.output(Origin::Stdout)).trim(), "40 132", "{ended:?}");
}

/// A login shell reads lines, and ends by itself.
pub async fn a_login_shell_runs_what_is_typed(rig: &impl Rig) {
    let connected = connect(rig).await;
    let mut channel = start(&*connected.link, Start::Shell { pty: pty() }).await;
    channel.control.resize(PtySize { cols: 100, rows: 30 }).await.expect("the request is sent");
    channel.control.send(Bytes::from(format!("{TYPED}\r"))).await.expect("input is taken");
    let mut ended = Ended::default();
    while !String::from_utf8_lossy(&ended.output(Origin::Stdout)).contains("hello2") {
        ended.events.push(next(&mut channel).await);
    }
    channel.control.send(Bytes::from_static(b"exit\r")).await.expect("input is taken");
    ended.follow(&mut channel).await;
    assert_eq!(ended.events.last(), Some(&ChannelEvent::Closed), "{ended:?}");
}

/// After our own close the events end with `Closed`, whatever the server does, and stay silent.
pub async fn a_closed_channel_reports_its_close_and_takes_nothing(rig: &impl Rig) {
    let connected = connect(rig).await;
    let mut channel = start(&*connected.link, exec(SLEEPS_ON)).await;
    channel.control.close().await;
    let mut ended = Ended::default();
    ended.follow(&mut channel).await;
    assert_eq!(ended.events.last(), Some(&ChannelEvent::Closed), "{ended:?}");
    assert!(channel.control.send(Bytes::from_static(b"x")).await.is_err());
    assert!(channel.control.signal(Signal::Hup).await.is_err());
    let silence = poll_fn(|cx| std::task::Poll::Ready(channel.events.poll_event(cx).is_pending())).await;
    assert!(silence, "something came after the close");
}

/// Dropping a channel closes it: many more can be opened than a server takes at a time.
pub async fn a_dropped_channel_gives_its_place_back(rig: &impl Rig) {
    let connected = connect(rig).await;
    for _ in 0..40 {
        let channel = within(connected.link.open(PATIENCE)).await.expect("a place is free");
        drop(channel);
    }
}

/// Dropping the future of an open leaves no channel behind.
pub async fn a_cancelled_open_gives_its_place_back(rig: &impl Rig) {
    let connected = connect(rig).await;
    for _ in 0..40 {
        let mut opening = connected.link.open(PATIENCE);
        poll_fn(|cx| {
            let _ = opening.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
    }
    let ended = run(&*connected.link, exec(EXITS_3)).await;
    assert_eq!(ended.exit(), Some(ChannelEvent::ExitStatus(3)), "{ended:?}");
}

/// More channels than one connection of a stock server takes (`MaxSessions` 10) are all served.
pub async fn thirty_commands_run_at_once(rig: &impl Rig) {
    let connected = connect(rig).await;
    let link = &*connected.link;
    let mut running: Vec<_> = (0..30).map(|_| Some(Box::pin(run(link, exec(SLEEPS_SHORTLY))))).collect();
    let mut exits = Vec::new();
    within(poll_fn(|cx| {
        for slot in &mut running {
            if let Some(command) = slot
                && let std::task::Poll::Ready(ended) = command.as_mut().poll(cx)
            {
                exits.push(ended.exit());
                *slot = None;
            }
        }
        if running.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    }))
    .await;
    assert_eq!(exits, vec![Some(ChannelEvent::ExitStatus(0)); 30]);
}

/// Where no channel is to be had at all, the answer is a refusal, not a wait.
pub async fn a_refusal_is_said_at_once(rig: &impl Rig) {
    let Some(request) = rig.refusing_request() else {
        return unchecked("a_refusal_is_said_at_once");
    };
    let connected = within(rig.connector().connect(&request)).await.expect("we are let in");
    match within(connected.link.open(Duration::from_secs(3600))).await {
        Err(ChannelError::Refused { .. }) => {}
        Err(other) => panic!("not a refusal: {other}"),
        Ok(_) => panic!("a channel was opened"),
    }
}

/// A ping is answered without a channel.
pub async fn a_ping_takes_a_round_trip(rig: &impl Rig) {
    let connected = connect(rig).await;
    assert!(within(connected.link.ping()).await.expect("the server is there") > Duration::ZERO);
}

/// A connection that breaks is reported by the link and by every channel.
pub async fn a_broken_connection_ends_link_and_channels(rig: &impl Rig) {
    let connected = connect(rig).await;
    let channel = start(&*connected.link, exec(SLEEPS_ON)).await;
    rig.break_connections();
    ends(connected, channel).await;
}

/// A disconnect ends everything at once, channels in use as well.
pub async fn a_disconnect_ends_link_and_channels(rig: &impl Rig) {
    let connected = connect(rig).await;
    let channel = start(&*connected.link, exec(SLEEPS_ON)).await;
    within(connected.link.disconnect()).await;
    ends(connected, channel).await;
}

async fn ends(connected: Connected, mut channel: Channel) {
    within(connected.link.lost()).await;
    let mut ended = Ended::default();
    ended.follow(&mut channel).await;
    assert!(matches!(ended.events.last(), Some(ChannelEvent::Lost(_))), "{ended:?}");
    assert!(channel.control.send(Bytes::from_static(b"x")).await.is_err());
    assert!(within(connected.link.ping()).await.is_err());
    let opened = within(connected.link.open(PATIENCE)).await;
    assert!(matches!(opened, Err(ChannelError::Lost(_))), "a dead link opened a channel or waited for one");
}

/// Everything one channel said.
#[derive(Debug, Default)]
struct Ended {
    events: Vec<ChannelEvent>,
}

impl Ended {
    async fn follow(&mut self, channel: &mut Channel) {
        while !self.is_over() {
            self.events.push(next(channel).await);
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.events.last(), Some(ChannelEvent::Closed | ChannelEvent::Lost(_)))
    }

    fn exit(&self) -> Option<ChannelEvent> {
        let is_exit = |event: &&ChannelEvent| {
            matches!(event, ChannelEvent::ExitStatus(_) | ChannelEvent::ExitSignal { .. })
        };
        self.events.iter().find(is_exit).cloned()
    }

    fn output(&self, wanted: Origin) -> Vec<u8> {
        let mut output = Vec::new();
        for event in &self.events {
            if let ChannelEvent::Data(origin, bytes) = event
                && *origin == wanted
            {
                output.extend_from_slice(bytes);
            }
        }
        output
    }
}

async fn connect(rig: &impl Rig) -> Connected {
    within(rig.connector().connect(&rig.request())).await.expect("we are let in")
}

async fn start(link: &dyn Link, start: Start) -> Channel {
    let channel = within(link.open(PATIENCE)).await.expect("a place is free");
    channel.control.start(start).await.expect("the request is sent");
    channel
}

async fn run(link: &dyn Link, program: Start) -> Ended {
    let mut channel = start(link, program).await;
    let mut ended = Ended::default();
    ended.follow(&mut channel).await;
    ended
}

async fn next(channel: &mut Channel) -> ChannelEvent {
    within(poll_fn(|cx| channel.events.poll_event(cx))).await
}

/// Nothing here takes long; the limit only turns a hang into a failure.
async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("it took too long")
}

#[expect(clippy::print_stderr, reason = "what was not checked is said aloud")]
fn unchecked(name: &str) {
    eprintln!("UNCHECKED {name}: the rig cannot show it");
}

fn exec(command: &str) -> Start {
    Start::Exec { command: command.to_owned(), pty: None }
}

fn pty() -> Pty {
    Pty { term: "xterm-256color".to_owned(), size: PtySize { cols: 132, rows: 40 } }
}

const EXITS_3: &str = "exit 3";
const BOTH_OUTPUTS: &str = "echo out; echo err >&2";
const KILLS_ITSELF: &str = "kill -9 $$";
const SLEEPS_ON: &str = "echo begun; exec sleep 300";
const SLEEPS_SHORTLY: &str = "exec sleep 0.2";
const CLOSES_OUTPUT: &str = "exec >&- 2>&-; sleep 0.2; exit 5";
const TERMINAL_SIZE: &str = "stty size";
const TYPED: &str = "echo hello$((1+1))";
const PATIENCE: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(60);
