//! Links that behave worse than the scripted host: output in crumbs, no answer to a disconnect, one host per connect.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use ssh_mcp_core::{
    history::Origin,
    port::{
        BoxFuture,
        forward::{Line, LineError},
        resolve::{ResolveError, Resolved, TargetAsk},
        ssh::{
            Channel, ChannelControl, ChannelError, ChannelEvent, ChannelEvents, ChannelGone, ConnectError,
            ConnectRequest, Connected, Connector, Link, LinkLost, PtySize, Signal, Start,
        },
    },
    sync::Mutex,
};
use ssh_mcp_testkit::host::{ScriptedHost, plainly};

/// What is wrong with a link.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    /// Output comes a byte at a time.
    Crumbs,
    /// The exit overtakes the output before it.
    ExitFirst,
    /// A disconnect is never answered.
    NoGoodbye,
    /// A channel takes 10 ms to open.
    SlowOpen,
    /// A question for a channel is never answered, keepalives are.
    NoOpen,
    /// More than one byte of input waits 500 ms for the window.
    SlowInput,
    /// So many channels are closed before anything runs on them.
    ClosesUnused(u32),
}

/// A host behind faulty links.
pub(super) struct Faulty(pub(super) ScriptedHost, pub(super) Fault);

impl Connector for Faulty {
    fn resolve<'a>(&'a self, ask: &'a TargetAsk) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        Box::pin(async move { plainly(ask) })
    }

    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, Result<Connected, ConnectError>> {
        Box::pin(async move {
            let Connected { link, host_key, auth_method, compressed } = self.0.connect(request).await?;
            let link = Box::new(FaultyLink { link, fault: self.1, opened: AtomicU32::new(0) });
            Ok(Connected { link, host_key, auth_method, compressed })
        })
    }
}

struct FaultyLink {
    link: Box<dyn Link>,
    fault: Fault,
    opened: AtomicU32,
}

impl Link for FaultyLink {
    fn open(&self, patience: Duration) -> BoxFuture<'_, Result<Channel, ChannelError>> {
        Box::pin(async move {
            if matches!(self.fault, Fault::SlowOpen) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if matches!(self.fault, Fault::NoOpen) {
                std::future::pending::<()>().await;
            }
            if let Fault::ClosesUnused(count) = self.fault
                && self.opened.fetch_add(1, Ordering::Relaxed) < count
            {
                return Ok(Channel {
                    events: Box::new(Unused(Some(ChannelEvent::Closed))),
                    control: Arc::new(Deaf),
                });
            }
            let Channel { events, control } = self.link.open(patience).await?;
            let events = Box::new(FaultyEvents { events, fault: self.fault, queue: VecDeque::new() });
            Ok(match self.fault {
                Fault::SlowInput => Channel { events, control: Arc::new(SlowControl(control)) },
                Fault::Crumbs
                | Fault::ExitFirst
                | Fault::NoGoodbye
                | Fault::SlowOpen
                | Fault::NoOpen
                | Fault::ClosesUnused(_) => Channel { events, control },
            })
        })
    }

    fn line(&self) -> BoxFuture<'_, Result<Box<dyn Line>, LineError>> {
        self.link.line()
    }

    fn ping(&self) -> BoxFuture<'_, Result<Duration, LinkLost>> {
        self.link.ping()
    }

    fn lost(&self) -> BoxFuture<'_, LinkLost> {
        self.link.lost()
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        match self.fault {
            Fault::Crumbs
            | Fault::ExitFirst
            | Fault::SlowOpen
            | Fault::NoOpen
            | Fault::SlowInput
            | Fault::ClosesUnused(_) => self.link.disconnect(),
            Fault::NoGoodbye => Box::pin(std::future::pending()),
        }
    }
}

struct FaultyEvents {
    events: Box<dyn ChannelEvents>,
    fault: Fault,
    queue: VecDeque<ChannelEvent>,
}

impl ChannelEvents for FaultyEvents {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Poll::Ready(event);
            }
            let event = ready!(self.events.poll_event(cx));
            match (event, self.fault) {
                (ChannelEvent::Data(origin, bytes), Fault::Crumbs) => {
                    self.queue.extend(crumbs(origin, &bytes))
                }
                (ChannelEvent::Data(origin, bytes), Fault::ExitFirst) => {
                    let held = ChannelEvent::Data(origin, bytes);
                    let Poll::Ready(next) = self.events.poll_event(cx) else { return Poll::Ready(held) };
                    let overtakes =
                        matches!(next, ChannelEvent::ExitStatus(_) | ChannelEvent::ExitSignal { .. });
                    self.queue.extend(if overtakes { [next, held] } else { [held, next] });
                }
                (event, _) => return Poll::Ready(event),
            }
        }
    }
}

fn crumbs(origin: Origin, bytes: &Bytes) -> impl Iterator<Item = ChannelEvent> {
    bytes.chunks(1).map(move |crumb| ChannelEvent::Data(origin, Bytes::copy_from_slice(crumb)))
}

struct SlowControl(Arc<dyn ChannelControl>);

impl ChannelControl for SlowControl {
    fn start(&self, start: Start) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.0.start(start)
    }

    fn send(&self, bytes: Bytes) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let (control, waits) = (Arc::clone(&self.0), bytes.len() > 1);
        Box::pin(async move {
            if waits {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            control.send(bytes).await
        })
    }

    fn finish_input(&self) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.0.finish_input()
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.0.signal(signal)
    }

    fn resize(&self, size: PtySize) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.0.resize(size)
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.0.close()
    }
}

/// A channel that nothing runs on.
struct Unused(Option<ChannelEvent>);

impl ChannelEvents for Unused {
    fn poll_event(&mut self, _cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        self.0.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// What is asked of it is sent, and reaches nobody.
struct Deaf;

impl ChannelControl for Deaf {
    fn start(&self, _start: Start) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(async { Ok(()) })
    }

    fn send(&self, _bytes: Bytes) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(async { Err(ChannelGone) })
    }

    fn finish_input(&self) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(async { Err(ChannelGone) })
    }

    fn signal(&self, _signal: Signal) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(async { Err(ChannelGone) })
    }

    fn resize(&self, _size: PtySize) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(async { Err(ChannelGone) })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// One machine after the other answers under one name, so that sessions to one target can fare differently.
pub(super) struct Fleet(Mutex<VecDeque<ScriptedHost>>);

impl Fleet {
    pub(super) fn new(hosts: impl IntoIterator<Item = ScriptedHost>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(hosts.into_iter().collect())))
    }
}

impl Connector for Fleet {
    fn resolve<'a>(&'a self, ask: &'a TargetAsk) -> BoxFuture<'a, Result<Resolved, ResolveError>> {
        Box::pin(async move { plainly(ask) })
    }

    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, Result<Connected, ConnectError>> {
        Box::pin(async move {
            let host = {
                let mut hosts = self.0.lock();
                let host = hosts.pop_front().unwrap();
                hosts.push_back(host.clone());
                host
            };
            host.connect(request).await
        })
    }
}
