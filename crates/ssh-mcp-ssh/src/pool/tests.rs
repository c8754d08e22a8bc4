//! Links with more than one connection, on russh's own server in this process.

use std::future::poll_fn;

use russh::keys::PublicKey;
use ssh_mcp_core::port::ssh::{ChannelEvent, ConnectError, Start};
use ssh_mcp_core::target::{Algorithms, Keepalive, Secret};
use ssh_mcp_testkit::sshd::{Config, EmbeddedSshd};

use super::*;
use crate::auth::{Repeat, Way};
use crate::connection::{Terms, Zlib};
use crate::hops::Origin;

/// A server that takes two channels on a connection, and a link to it.
struct Bench {
    link: RusshLink,
    server: EmbeddedSshd,
}

impl Bench {
    async fn start(way: impl FnOnce(Secret) -> Way) -> Self {
        let server = EmbeddedSshd::start(Config { max_sessions: 2, ..Config::default() }).await.unwrap();
        let way = way(Secret::new(server.password().to_owned()));
        let leg = Leg {
            origin: Origin::Address(server.addr(), None),
            host_key: host_key(&server),
            username: server.user().to_owned(),
            ways: vec![way],
            signatures: None,
            terms: Terms {
                keepalive: Keepalive { interval: Duration::from_secs(30), max: 3 },
                zlib: Zlib::Off,
                algorithms: Algorithms::default(),
                lendings: Lendings::default(),
                took: Duration::ZERO,
            },
        };
        let first = leg.again().await.unwrap();
        let host_key = first.watch.shown().unwrap().0.clone();
        let recipe = Recipe { leg: Leg { host_key, ..leg }, below: Vec::new(), timeout: LIMIT };
        Self { link: RusshLink::new(first, recipe), server }
    }

    /// A channel on which something runs.
    async fn hold(&self) -> Channel {
        let channel = self.link.open(LIMIT).await.unwrap();
        channel.control.start(Start::Exec { command: "exec sleep 600".to_owned(), pty: None }).await.unwrap();
        channel
    }

    fn connections(&self) -> usize {
        self.link.pool.all().len()
    }
}

fn host_key(server: &EmbeddedSshd) -> PublicKey {
    let line = server.known_hosts_line();
    let (_, key) = line.split_once(' ').unwrap();
    PublicKey::from_openssh(key.trim()).unwrap()
}

async fn next(channel: &mut Channel) -> ChannelEvent {
    timeout(LIMIT, poll_fn(|cx| channel.events.poll_event(cx))).await.expect("something happens")
}

#[tokio::test]
async fn further_connections_serve_what_the_first_has_no_place_for() {
    let bench = Bench::start(Way::Password).await;
    let mut held = Vec::new();
    for expected in [1, 1, 2, 2, 3] {
        held.push(bench.hold().await);
        assert_eq!(bench.connections(), expected);
    }
}

#[tokio::test]
async fn credentials_that_work_once_wait_for_a_place_and_say_so() {
    let bench = Bench::start(|password| Way::Keyboard(password, Repeat::Impossible)).await;
    let first = bench.hold().await;
    let _second = bench.hold().await;
    let patience = Duration::from_millis(50);
    let refused = bench.link.open(patience).await.err();
    assert_eq!(refused, Some(ChannelError::NoPlace { waited: patience }));

    let end = async {
        first.control.signal(ssh_mcp_core::port::ssh::Signal::Kill).await.unwrap();
        let mut first = first;
        while next(&mut first).await != ChannelEvent::Closed {}
    };
    let (opened, ()) = tokio::join!(bench.link.open(LIMIT), end);
    drop(opened.unwrap());
    assert_eq!(bench.connections(), 1);
}

#[tokio::test]
async fn a_login_that_works_once_opens_no_line() {
    let once = Bench::start(|password| Way::Keyboard(password, Repeat::Impossible)).await;
    assert_eq!(once.link.line().await.err(), Some(LineError::NotAgain));
    let again = Bench::start(Way::Password).await;
    let line = again.link.line().await.unwrap();
    assert!(line.moves().await.is_ok());
    line.disconnect().await;
    assert!(line.moves().await.is_err());
    assert!(again.link.ping().await.is_ok(), "the session's own connection stays");
}

#[tokio::test]
async fn the_loss_of_a_further_connection_ends_only_what_ran_on_it() {
    let bench = Bench::start(Way::Password).await;
    let mut channels = [bench.hold().await, bench.hold().await, bench.hold().await];
    let further = bench.link.pool.all().pop().unwrap();
    further.cut();
    while !matches!(next(&mut channels[2]).await, ChannelEvent::Lost(_)) {}
    let [first, ..] = &mut channels;
    assert_eq!(next(first).await, ChannelEvent::Started);
    assert!(bench.link.ping().await.is_ok());
    // The next channel finds its way to a new one.
    let _fourth = bench.hold().await;
    assert_eq!(bench.connections(), 2);
}

#[tokio::test]
async fn a_further_connection_takes_no_other_host_key() {
    let bench = Bench::start(Way::Password).await;
    let other = EmbeddedSshd::start(Config::default()).await.unwrap();
    let leg = &bench.link.pool.recipe.leg;
    let elsewhere = Leg {
        origin: Origin::Address(other.addr(), None),
        host_key: leg.host_key.clone(),
        username: leg.username.clone(),
        ways: vec![Way::Password(Secret::new(other.password().to_owned()))],
        signatures: None,
        terms: Terms {
            keepalive: leg.terms.keepalive,
            zlib: Zlib::Off,
            algorithms: Algorithms::default(),
            lendings: Lendings::default(),
            took: Duration::ZERO,
        },
    };
    let refused = elsewhere.again().await.err();
    // A line believes no other host either.
    let line = RusshLine::open(&elsewhere, &[]).await.err();
    assert!(matches!(line, Some(LineError::Connect(ConnectError::ChangedHostKey { .. }))), "{line:?}");
    assert!(matches!(refused, Some(ConnectError::ChangedHostKey { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_loss_of_the_first_connection_is_the_loss_of_the_link() {
    let bench = Bench::start(Way::Password).await;
    let _held = [bench.hold().await, bench.hold().await, bench.hold().await];
    bench.link.pool.first.cut();
    timeout(LIMIT, bench.link.lost()).await.unwrap();
    assert!(matches!(bench.link.open(LIMIT).await, Err(ChannelError::Lost(_))));
    drop(bench.server);
}

#[tokio::test]
async fn no_task_outlives_a_disconnected_link() {
    let bench = Bench::start(Way::Password).await;
    let _held = [bench.hold().await, bench.hold().await, bench.hold().await];
    bench.link.disconnect().await;
    timeout(LIMIT, bench.link.pool.tasks.ended()).await.unwrap();
    for connection in bench.link.pool.all() {
        assert!(connection.watch.lost().is_some());
    }
}

const LIMIT: Duration = Duration::from_secs(20);
