//! Forwards on real sockets of this machine and a scripted far side, in virtual time: whom a connection is joined to, who
//! is waited for and how long, what ends a forward and what that leaves.

use std::{io::ErrorKind, net::SocketAddr};

use ssh_mcp_core::{
    id::Id as _,
    kind::forward::{Event, KEPT, Parting, Passage, Trouble, socks::Outcome},
    port::{
        forward::{LineError, ListenError},
        ssh::{ConnectError, Transience},
    },
    registry::{Closing, Entry as _, Forward, ForwardStatus},
};
use ssh_mcp_testkit::host::{ANY_PORT, FarEnd, Seen};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{BindError, CloseForward, ForwardError, ForwardOrder, Missing, Observable, Source};

fn at(host: &str, port: u16) -> Address {
    Address { host: host.into(), port }
}

fn local(session: &Session) -> ForwardOrder {
    ForwardOrder {
        session: session.spec.id,
        passage: Passage::Local { listen: at("127.0.0.1", 0), to: at("db", 5432) },
    }
}

fn dynamic(session: &Session) -> ForwardOrder {
    ForwardOrder { session: session.spec.id, passage: Passage::Dynamic { listen: at("127.0.0.1", 0) } }
}

fn remote(session: &Session, to: u16) -> ForwardOrder {
    let passage = Passage::Remote { listen: at("127.0.0.1", 0), to: at("127.0.0.1", to) };
    ForwardOrder { session: session.spec.id, passage }
}

impl Rig {
    async fn forward(&self, order: ForwardOrder) -> Arc<Forward> {
        self.engine.forward(&self.owner, order).await.unwrap()
    }

    async fn no_forward(&self, order: ForwardOrder) -> ForwardError {
        self.engine.forward(&self.owner, order).await.err().expect("it is refused")
    }

    /// A client of a forward and the far end it is joined to.
    async fn join(&self, forward: &Forward) -> (TcpStream, FarEnd) {
        let client = connect(forward).await;
        (client, self.host.far_end().await)
    }

    /// Waits until so many connections have ended.
    async fn left(&self, forward: &Forward, count: u64) {
        let mut watch = forward.traffic.log.watch();
        loop {
            let counts = forward.traffic.counts();
            if counts.closed + counts.failed >= count {
                return;
            }
            watch.changed().await;
        }
    }
}

async fn connect(forward: &Forward) -> TcpStream {
    TcpStream::connect(("127.0.0.1", forward.spec.passage.listen().port)).await.unwrap()
}

/// Goes away without a word; a mere end of its data would leave the other direction open.
fn leave(client: TcpStream) {
    client.set_zero_linger().unwrap();
}

async fn is_refused(forward: &Forward) -> bool {
    let connected = TcpStream::connect(("127.0.0.1", forward.spec.passage.listen().port)).await;
    connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn events(forward: &Forward) -> Vec<Event> {
    forward.traffic.log.read(0, usize::MAX).events.iter().map(|(_, logged)| logged.event.clone()).collect()
}

/// How connections ended, in order.
fn partings(forward: &Forward) -> Vec<Parting> {
    let parting = |event| match event {
        Event::Closed { detail, .. } => Some(detail.reason),
        Event::Accepted { .. } | Event::Connected { .. } | Event::Error { .. } | Event::Stopped { .. } => {
            None
        }
    };
    events(forward).into_iter().filter_map(parting).collect()
}

/// Why connections failed, in order, with what was said.
fn troubles(forward: &Forward) -> Vec<(Trouble, String)> {
    let trouble = |event| match event {
        Event::Error { detail, .. } => Some((detail.code, detail.message)),
        Event::Accepted { .. } | Event::Connected { .. } | Event::Closed { .. } | Event::Stopped { .. } => {
            None
        }
    };
    events(forward).into_iter().filter_map(trouble).collect()
}

/// Why a forward ended; its last event says the same.
fn end(forward: &Forward) -> Reason {
    let reason = forward.ending.get().expect("ended").reason;
    let Some(Event::Stopped { detail }) = events(forward).pop() else { panic!("the last event is the stop") };
    assert_eq!((detail.reason, forward.status()), (reason, ForwardStatus::Stopped));
    reason
}

fn check_gave_back(rig: &Rig, session: &Session) {
    assert_eq!((session.life.snapshot().refs, session.forwards.in_use()), (0, 0));
    assert_eq!((rig.host.open_lines(), rig.host.listening()), (0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn bytes_go_both_ways_and_the_end_of_one_is_not_the_end_of_the_other() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    assert_ne!(forward.spec.passage.listen().port, 0);
    let (mut client, far) = rig.join(&forward).await;
    assert_eq!(far.to, at("db", 5432));

    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut asked = Vec::new();
    while let Some(bytes) = far.receive().await {
        asked.extend_from_slice(&bytes);
    }
    assert_eq!((asked.as_slice(), far.is_finished(), far.is_closed()), (&b"question"[..], true, false));

    far.send("an").await;
    far.send("swer").await;
    far.finish();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    far.closed().await;
    rig.left(&forward, 1).await;
    assert_eq!(partings(&forward), [Parting::Finished]);
    assert_eq!((forward.traffic.bytes_to_remote(), forward.traffic.bytes_from_remote()), (8, 6));
    let shown: Vec<String> = events(&forward).iter().map(|event| format!("{event:?}")).collect();
    let peer = client.local_addr().unwrap();
    assert!(
        shown[0].contains(&format!("Accepted {{ conn: 1, detail: Peer {{ peer: \"{peer}\"")),
        "{shown:?}"
    );
    assert!(shown[1].contains("Connected { conn: 1, detail: Target { target: \"db:5432\""), "{shown:?}");
    assert!(
        rig.host.seen().contains(&Seen::Dialled { to: at("db", 5432), origin: at("127.0.0.1", peer.port()) })
    );
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_reached_ends_that_connection_only() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    rig.host.then_refuse_dial("Connection refused", Outcome::ConnectionRefused);
    let mut refused = connect(&forward).await;
    assert_eq!(refused.read(&mut [0; 8]).await.unwrap_or(0), 0);
    rig.left(&forward, 1).await;
    assert_eq!(troubles(&forward), [(Trouble::TargetUnreachable, "Connection refused".to_owned())]);

    let (mut client, far) = rig.join(&forward).await;
    far.send("here").await;
    let mut bytes = [0; 4];
    client.read_exact(&mut bytes).await.unwrap();
    let counts = forward.traffic.counts();
    assert_eq!((counts.accepted, counts.failed, counts.open, &bytes), (2, 1, 1, b"here"));
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_taken_costs_no_connection() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    for passage in [
        Passage::Local { listen: at("127.0.0.1", port), to: at("db", 1) },
        Passage::Dynamic { listen: at("localhost", port) },
    ] {
        let refused = rig.no_forward(ForwardOrder { session: session.spec.id, passage }).await;
        assert!(
            matches!(&refused, ForwardError::Bind(BindError::InUse { at }) if at.port == port),
            "{refused}"
        );
    }
    let passage = Passage::Dynamic { listen: at("192.0.2.1", 0) };
    let refused = rig.no_forward(ForwardOrder { session: session.spec.id, passage }).await;
    assert!(matches!(refused, ForwardError::Bind(BindError::Failed { .. })), "{refused}");
    assert!(!rig.host.seen().contains(&Seen::LineOpened));
    check_gave_back(&rig, &session);
}

#[tokio::test(start_paused = true)]
async fn localhost_is_both_loopback_addresses_with_one_port() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let passage = Passage::Local { listen: at("localhost", 0), to: at("db", 1) };
    let forward = rig.forward(ForwardOrder { session: session.spec.id, passage }).await;
    let port = forward.spec.passage.listen().port;
    let families: &[&str] = match TcpListener::bind("[::1]:0").await {
        Ok(_) => &["127.0.0.1", "::1"],
        Err(_) => &["127.0.0.1"],
    };
    for host in families {
        let _client = TcpStream::connect((*host, port)).await.unwrap();
        rig.host.far_end().await;
    }
    assert_eq!(forward.traffic.counts().accepted, families.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn without_a_line_nobody_listens() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let cause = ConnectError::Failed { cause: "reset".into(), transience: Transience::Transient };
    for error in [LineError::NotAgain, LineError::Connect(cause), LineError::TimedOut { after: SECOND }] {
        rig.host.then_refuse_line(error.clone());
        let refused = rig.no_forward(local(&session)).await;
        assert!(matches!(&refused, ForwardError::Line(said) if *said == error), "{refused}");
    }
    rig.host.then_refuse_listening();
    let refused = rig.no_forward(remote(&session, 1)).await;
    assert!(matches!(refused, ForwardError::Listen(ListenError::Refused { .. })), "{refused}");
    assert!(rig.engine.registries().forwards.is_empty());
    check_gave_back(&rig, &session);
}

#[tokio::test(start_paused = true)]
async fn each_forward_has_a_line_of_its_own_and_a_session_only_so_many() {
    let rig = rig_with(ScriptedHost::new(), |settings| settings.max_forwards_per_session = 2);
    let session = rig.connect().await;
    let first = rig.forward(local(&session)).await;
    let _second = rig.forward(dynamic(&session)).await;
    assert_eq!((rig.host.open_lines(), session.life.snapshot().refs), (2, 2));
    let refused = rig.no_forward(local(&session)).await;
    assert!(matches!(refused, ForwardError::Start(StartError::TooManyForwards { limit: 2 })), "{refused}");
    assert_eq!(rig.engine.close_forward(&first, Closing::Patient).await, CloseForward::Done);
    assert_eq!(rig.host.open_lines(), 1);
    rig.forward(local(&session)).await;
}

#[tokio::test(start_paused = true)]
async fn one_connection_too_many_waits_to_be_let_in() {
    let rig = rig_with(ScriptedHost::new(), |settings| settings.max_forward_connections = 2);
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    let (first, _) = rig.join(&forward).await;
    let (_second, _) = rig.join(&forward).await;
    let mut third = connect(&forward).await;
    third.write_all(b"early").await.unwrap();
    rig.pass(HOUR).await;
    assert_eq!(forward.traffic.counts().accepted, 2);
    leave(first);
    let far = rig.host.far_end().await;
    assert_eq!(far.receive().await.unwrap(), "early");
    assert_eq!(forward.traffic.counts().accepted, 3);
}

const MESSAGE: usize = 32 << 10;

/// What a far end sends as message number `n`.
fn message(n: usize) -> Vec<u8> {
    (0..MESSAGE).map(|at| (at.wrapping_mul(31) ^ n) as u8).collect()
}

/// Sends messages until the line takes no more for a while; how many.
async fn flood(far: &FarEnd, from: usize, most: usize) -> usize {
    for n in from..most {
        match tokio::time::timeout(SECOND, far.send(message(n))).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return n,
        }
    }
    most
}

#[tokio::test(start_paused = true)]
async fn alone_a_consumer_that_pauses_is_waited_for_and_loses_nothing() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    let (mut client, far) = rig.join(&forward).await;
    let whole = 1000;
    let sent = flood(&far, 0, whole).await;
    assert!(sent < whole, "32 MiB are more than sockets and the line hold");
    rig.pass(10 * HOUR).await;
    assert_eq!(forward.traffic.counts().open, 1);
    let feeding = async {
        for n in sent..whole {
            assert!(far.send(message(n)).await);
        }
        far.finish();
    };
    let reading = async {
        let mut bytes = vec![0; MESSAGE];
        for n in 0..whole {
            client.read_exact(&mut bytes).await.unwrap();
            assert!(bytes == message(n), "message {n}");
        }
        assert_eq!(client.read(&mut bytes).await.unwrap(), 0);
    };
    tokio::join!(feeding, reading);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_holds_others_up_is_reset_after_five_seconds() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    let (mut slow, slow_far) = rig.join(&forward).await;
    // Alone it is waited for, with next to nothing held for it.
    let alone = flood(&slow_far, 0, 2000).await;
    let (mut other, other_far) = rig.join(&forward).await;
    // Beside somebody else more is held, so that the line moves.
    let beside = flood(&slow_far, alone, 2000).await;
    let more = (beside - alone) * MESSAGE;
    assert!((15 << 20..18 << 20).contains(&more), "{more} bytes more");
    let before = rig.now();
    rig.left(&forward, 1).await;
    let took = rig.now() - before;
    assert!((3 * SECOND..=6 * SECOND).contains(&took), "{took:?}");
    assert_eq!(troubles(&forward).first().map(|(code, _)| *code), Some(Trouble::SlowConsumer));
    slow_far.closed().await;
    let mut rest = Vec::new();
    let error = slow.read_to_end(&mut rest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    other_far.send("on").await;
    let mut bytes = [0; 2];
    other.read_exact(&mut bytes).await.unwrap();
    assert_eq!((&bytes, forward.traffic.counts().open), (b"on", 1));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_holds_nobody_up_is_waited_for_beside_others() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    // Two that both pause: neither would take anything.
    let (_first, first_far) = rig.join(&forward).await;
    let (mut second, second_far) = rig.join(&forward).await;
    let small = flood(&second_far, 0, 500).await;
    assert_eq!(small, 500, "what is held for it is not full");
    flood(&first_far, 0, 2000).await;
    rig.pass(HOUR).await;
    assert_eq!((forward.traffic.counts().open, troubles(&forward)), (2, vec![]));
    // As soon as one of them has taken everything, the other holds it up.
    let mut bytes = vec![0; MESSAGE];
    for _ in 0..small {
        second.read_exact(&mut bytes).await.unwrap();
    }
    rig.left(&forward, 1).await;
    assert_eq!(troubles(&forward).first().map(|(code, _)| *code), Some(Trouble::SlowConsumer));
}

#[tokio::test(start_paused = true)]
async fn a_full_consumer_with_a_line_that_moves_is_not_hurried() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    let (mut full, full_far) = rig.join(&forward).await;
    let (mut other, other_far) = rig.join(&forward).await;
    // Until its allowance is used up, and a little more that the line still holds.
    let mut n = 0;
    while full_far.send(message(n)).await && !is_full(&rig, &full_far).await {
        n += 1;
    }
    rig.pass(MINUTE).await;
    other_far.send("moves").await;
    let mut bytes = [0; 5];
    other.read_exact(&mut bytes).await.unwrap();
    assert_eq!((&bytes, forward.traffic.counts().open), (b"moves", 2));
    // Nothing is lost to who comes back.
    let mut bytes = vec![0; MESSAGE];
    for n in 0..=n {
        full.read_exact(&mut bytes).await.unwrap();
        assert!(bytes == message(n), "message {n}");
    }
}

/// Whether a message stays on the line.
async fn is_full(rig: &Rig, far: &FarEnd) -> bool {
    rig.pass(ms(1)).await;
    far.unread() > 0
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_or_a_target_that_does_is_told_apart() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    let (client, far) = rig.join(&forward).await;
    leave(client);
    far.closed().await;
    rig.left(&forward, 1).await;

    let (mut client, far) = rig.join(&forward).await;
    far.send("last words").await;
    far.close();
    let mut said = [0; 10];
    client.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"last words");
    assert_eq!(client.read(&mut said).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    rig.left(&forward, 2).await;
    assert_eq!(partings(&forward), [Parting::ClientGone, Parting::TargetGone]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_forward_takes_nobody_and_gives_those_who_are_there_five_seconds() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    let (mut quick, quick_far) = rig.join(&forward).await;
    let (mut slow, _slow_far) = rig.join(&forward).await;
    let before = rig.now();
    let closing = rig.engine.close_forward(&forward, Closing::Patient);
    let meanwhile = async {
        while !is_refused(&forward).await {
            tokio::task::yield_now().await;
        }
        quick_far.send("done").await;
        quick_far.finish();
        quick.shutdown().await.unwrap();
        let mut answer = Vec::new();
        quick.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"done");
    };
    let (closed, ()) = tokio::join!(closing, meanwhile);
    assert_eq!((closed, rig.now() - before), (CloseForward::Done, 5 * SECOND));
    assert_eq!(slow.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(partings(&forward), [Parting::Finished, Parting::ForwardStopped]);
    assert_eq!(end(&forward), Reason::ManualClose);
    assert_eq!(rig.engine.close_forward(&forward, Closing::AtOnce).await, CloseForward::AlreadyStopped);
    check_gave_back(&rig, &session);
}

#[tokio::test(start_paused = true)]
async fn force_waits_for_nobody_even_behind_a_line_that_does_not_move() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    let (_client, far) = rig.join(&forward).await;
    flood(&far, 0, 2000).await;
    let before = rig.now();
    assert_eq!(rig.engine.close_forward(&forward, Closing::AtOnce).await, CloseForward::Done);
    assert_eq!(rig.now() - before, Duration::ZERO);
    check_gave_back(&rig, &session);
}

#[tokio::test(start_paused = true)]
async fn a_forward_ends_with_its_session_its_line_or_the_server() {
    // What happens, and the reason that is given.
    for (n, expected) in
        [Reason::CascadeDisconnect, Reason::ConnectionLost, Reason::ConnectionLost, Reason::ServerShutdown]
            .into_iter()
            .enumerate()
    {
        let rig = rig(ScriptedHost::new());
        let session = rig.connect().await;
        let forward = rig.forward(local(&session)).await;
        let (mut client, _far) = rig.join(&forward).await;
        match n {
            0 => {
                let ended = rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
                assert_eq!(ended.forwards_closed, 1);
            }
            1 => rig.host.lose_connections("the cable"),
            2 => rig.host.lose_lines("that cable"),
            _ => _ = rig.engine.shutdown().await,
        }
        rig.engine.forward_ended(&forward).await;
        assert_eq!(end(&forward), expected, "{n}");
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(is_refused(&forward).await);
        assert_eq!((session.life.snapshot().refs, session.forwards.in_use()), (0, 0));
        // The loss of a line says why and is no loss of the session; nothing is opened again by stealth.
        if n == 2 {
            assert_eq!(forward.ending.get().unwrap().facts.cause.as_deref(), Some("that cable"));
            assert!(session.is_open());
            rig.pass(HOUR).await;
            assert_eq!(rig.host.open_lines(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_back_to_its_timer_when_its_last_forward_ends() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    rig.pass(HOUR).await;
    assert!(session.is_open(), "a forward outranks the timer");
    rig.engine.close_forward(&forward, Closing::AtOnce).await;
    rig.pass(290 * SECOND).await;
    assert!(session.is_open());
    rig.pass(30 * SECOND).await;
    assert!(!session.is_open());
}

#[tokio::test(start_paused = true)]
async fn an_ended_forward_is_kept_for_a_minute_and_takes_no_lanes() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    let id = forward.spec.id;
    rig.engine.close_forward(&forward, Closing::AtOnce).await;
    assert!(rig.engine.observe(Observable::Forward(&forward)).is_none());
    rig.pass(50 * SECOND).await;
    // A look keeps it for another minute.
    assert!(rig.engine.forward_of(&rig.owner, id).is_ok());
    rig.pass(50 * SECOND).await;
    assert!(rig.engine.registries().forwards.entry(id).is_some());
    rig.pass(20 * SECOND).await;
    let gone = rig.engine.forward_of(&rig.owner, id).err().unwrap();
    assert!(matches!(gone, Missing::Gone { reason: Reason::ManualClose, .. }), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn a_forward_nobody_watches_or_uses_is_reported_and_killed_if_that_is_wanted() {
    let rig = rig_with(ScriptedHost::new(), |settings| settings.leak_kill = Some(10 * SECOND));
    let session = rig.connect().await;
    let used = rig.forward(local(&session)).await;
    let (mut client, far) = rig.join(&used).await;
    let unused = rig.forward(local(&session)).await;
    for _ in 0..12 {
        rig.pass(SECOND).await;
        client.write_all(b"x").await.unwrap();
        far.receive().await;
    }
    assert_eq!(end(&unused), Reason::LeakKill);
    assert_eq!(used.status(), ForwardStatus::Active, "what goes through it is a use");
    rig.pass(30 * SECOND).await;
    assert_eq!(end(&used), Reason::LeakKill);
}

#[tokio::test(start_paused = true)]
async fn an_observer_comes_and_goes_and_the_forward_stays() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    drop(rig.engine.observe(Observable::Forward(&forward)).unwrap());
    rig.pass(HOUR).await;
    assert_eq!(forward.status(), ForwardStatus::Active);
    let resource = Source::Forward(Arc::clone(&forward)).resource();
    assert_eq!(resource.to_string(), format!("forward://{}/events", forward.spec.id));
    assert_eq!(rig.engine.take_leak(resource).map(|leak| leak.resource), Some(resource));
    assert_eq!(forward.glimpse().id, forward.spec.id.as_uuid());
}

/// Sends `request` byte by byte to a SOCKS listener and reads an answer of `size` bytes.
async fn socks(forward: &Forward, request: &[u8], size: usize) -> (TcpStream, Vec<u8>) {
    let mut client = connect(forward).await;
    for byte in request {
        client.write_all(&[*byte]).await.unwrap();
    }
    let mut answer = vec![0; size];
    client.read_exact(&mut answer).await.unwrap();
    (client, answer)
}

#[tokio::test(start_paused = true)]
async fn a_socks_client_says_where_it_wants_to_go() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(dynamic(&session)).await;
    let five: &[u8] = b"\x05\x01\x00\x05\x01\x00\x03\x02db\x15\x38first";
    let four: &[u8] = b"\x04\x01\x15\x38\x00\x00\x00\x01me\x00db\x00first";
    for (request, size, granted) in [(five, 12, 3), (four, 8, 1)] {
        let (mut client, answer) = socks(&forward, request, size).await;
        assert!([0, 0x5a].contains(&answer[granted]), "{answer:?}");
        let far = rig.host.far_end().await;
        assert_eq!(far.to, at("db", 5432));
        let mut first = Vec::new();
        while first.len() < 5 {
            first.extend_from_slice(&far.receive().await.unwrap());
        }
        assert_eq!(first, b"first");
        far.send("hi").await;
        let mut bytes = [0; 2];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hi");
    }
    assert_eq!(forward.traffic.bytes_to_remote(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_socks_request_that_is_not_served_is_told_why() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(dynamic(&session)).await;
    rig.host.then_refuse_dial("Connection refused", Outcome::ConnectionRefused);
    let (_client, answer) = socks(&forward, b"\x05\x01\x00\x05\x01\x00\x03\x02db\x15\x38", 12).await;
    assert_eq!(answer[..4], [5, 0, 5, 5]);
    // BIND, and a client that wants to log in.
    let (_client, answer) =
        socks(&forward, b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", 12).await;
    assert_eq!(answer[..4], [5, 0, 5, 7]);
    let (_client, answer) = socks(&forward, b"\x05\x01\x02", 2).await;
    assert_eq!(answer, [5, 0xff]);
    // A browser without SOCKS, and one that says nothing.
    let mut client = connect(&forward).await;
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0);
    let before = rig.now();
    let mut silent = connect(&forward).await;
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap_or(0), 0);
    assert_eq!(rig.now() - before, 10 * SECOND);
    rig.left(&forward, 5).await;
    let codes: Vec<Trouble> = troubles(&forward).into_iter().map(|(code, _)| code).collect();
    let socks = Trouble::SocksRefused;
    assert_eq!(codes, [Trouble::TargetUnreachable, socks, socks, socks, Trouble::HandshakeTimeout]);
}

#[tokio::test(start_paused = true)]
async fn the_server_listens_and_this_side_goes_on() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forward = rig.forward(remote(&session, target.local_addr().unwrap().port())).await;
    assert_eq!(forward.spec.passage.listen(), &at("127.0.0.1", ANY_PORT));
    assert_eq!(rig.host.listening(), [at("127.0.0.1", ANY_PORT)]);

    let (far, served) = tokio::join!(rig.host.arrive(at("192.0.2.9", 4000)), target.accept());
    let (far, (mut served, _)) = (far.expect("let in"), served.unwrap());
    far.send("question").await;
    far.finish();
    let mut asked = Vec::new();
    served.read_to_end(&mut asked).await.unwrap();
    served.write_all(b"answer").await.unwrap();
    drop(served);
    assert_eq!((asked.as_slice(), far.receive().await.unwrap()), (&b"question"[..], Bytes::from("answer")));
    rig.left(&forward, 1).await;
    assert_eq!((forward.traffic.bytes_to_remote(), forward.traffic.bytes_from_remote()), (6, 8));
    assert!(
        matches!(&events(&forward)[0], Event::Accepted { detail, .. } if detail.peer == "192.0.2.9:4000")
    );

    // Nobody is there any more: turned away, and the forward goes on.
    drop(target);
    assert!(rig.host.arrive(at("192.0.2.9", 4001)).await.is_none());
    rig.left(&forward, 2).await;
    assert_eq!(troubles(&forward).len(), 1);
    rig.engine.close_forward(&forward, Closing::Patient).await;
    assert!(rig.host.seen().contains(&Seen::Unlistened));
    assert!(rig.host.arrive(at("192.0.2.9", 4002)).await.is_none());
    check_gave_back(&rig, &session);
}

#[tokio::test(start_paused = true)]
async fn a_forward_on_a_session_that_ends_meanwhile_is_refused_or_ended() {
    // lifecycle 6.25
    for delay in 0..40 {
        let rig = rig(ScriptedHost::new().with_connect_time(ms(20)));
        let session = rig.connect().await;
        let opening = rig.engine.forward(&rig.owner, local(&session));
        let ending = async {
            rig.pass(ms(delay)).await;
            rig.engine.disconnect(&rig.owner, session.spec.id).await.unwrap();
        };
        let (opened, ()) = tokio::join!(opening, ending);
        if let Ok(forward) = opened {
            rig.engine.forward_ended(&forward).await;
            assert_eq!(end(&forward), Reason::CascadeDisconnect);
        }
        rig.check_left_nothing(&session);
        check_gave_back(&rig, &session);
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_keeps_the_newest_events() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    for _ in 0..KEPT / 3 + 10 {
        let (client, far) = rig.join(&forward).await;
        leave(client);
        far.closed().await;
    }
    rig.left(&forward, (KEPT / 3 + 10) as u64).await;
    let window = forward.traffic.log.read(0, usize::MAX);
    assert_eq!(window.events.len(), KEPT);
    assert_eq!(window.base, 3 * (KEPT as u64 / 3 + 10) - KEPT as u64);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_connections_at_once_keep_their_bytes_apart() {
    let rig = rig(ScriptedHost::new());
    let session = rig.connect().await;
    let forward = rig.forward(local(&session)).await;
    let mut pairs: Vec<(TcpStream, FarEnd, SocketAddr)> = Vec::new();
    for _ in 0..200 {
        let (client, far) = rig.join(&forward).await;
        let name = client.local_addr().unwrap();
        pairs.push((client, far, name));
    }
    for (client, _, name) in &mut pairs {
        client.write_all(name.to_string().as_bytes()).await.unwrap();
    }
    for (client, far, name) in &mut pairs {
        let heard = far.receive().await.unwrap();
        assert_eq!(heard, name.to_string());
        far.send(heard.clone()).await;
        let mut back = vec![0; heard.len()];
        client.read_exact(&mut back).await.unwrap();
        assert_eq!(back, heard);
    }
    assert_eq!(forward.traffic.counts().open, 200);
}
