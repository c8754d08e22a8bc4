//! Lines of a scripted host: the test itself plays what is behind the server.
//!
//! As on a real line, an unread channel holds up all that comes behind it: further data, further channels, and the answer
//! to whether the line moves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use ssh_mcp_core::history::Origin;
use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::forward::{Arrival, DialError, Line, ListenError};
use ssh_mcp_core::port::ssh::{
    Channel, ChannelControl, ChannelEvent, ChannelEvents, ChannelGone, LinkLost, PtySize, Signal, Start,
};
use ssh_mcp_core::target::Address;
use tokio::sync::Notify;

use super::{Host, Seen};

/// One line.
pub(super) struct ScriptedLine {
    pub(super) shared: Arc<Shared>,
}

/// What all channels of a line share.
pub(super) struct Shared {
    pub(super) host: Arc<Host>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    tubes: Vec<Tube>,
    listening: Option<Address>,
    arrivals: VecDeque<(Address, Arc<Notify>, Answer)>,
    lost: Option<LinkLost>,
}

type Answer = Arc<Mutex<Option<Result<usize, ()>>>>;

/// One channel: what the far side sent and has not been read, and the other way round.
#[derive(Default)]
struct Tube {
    to_us: VecDeque<ChannelEvent>,
    reader: Option<Waker>,
    to_far: VecDeque<Bytes>,
    unread: usize,
    finished: bool,
    closed: bool,
}

/// Messages that a channel holds before it holds up the line.
const HELD: usize = 100;

/// Bytes the far side takes before it reads.
const WINDOW: usize = 2 << 20;

/// The far end of a channel, which the test plays. Dropping it closes nothing.
pub struct FarEnd {
    /// Where the channel was to lead, or for one that was let in: from where it came.
    pub to: Address,
    shared: Arc<Shared>,
    at: usize,
}

impl FarEnd {
    /// Sends data, as soon as the line takes it; false once it is closed.
    pub async fn send(&self, bytes: impl Into<Bytes>) -> bool {
        let bytes = bytes.into();
        self.shared
            .when(|state| {
                if state.is_gone(self.at) {
                    return Some(false);
                }
                (!state.is_held_up()).then(|| {
                    state.tell(self.at, ChannelEvent::Data(Origin::Stdout, bytes.clone()));
                    true
                })
            })
            .await
    }

    /// Sends no more data.
    pub fn finish(&self) {
        self.shared.change(|state| state.tell(self.at, ChannelEvent::Eof));
    }

    /// Closes the channel.
    pub fn close(&self) {
        self.shared.change(|state| {
            state.tell(self.at, ChannelEvent::Closed);
            if let Some(tube) = state.tubes.get_mut(self.at) {
                tube.closed = true;
            }
        });
    }

    /// The next data, or nothing where no more comes.
    pub async fn receive(&self) -> Option<Bytes> {
        self.shared
            .when(|state| {
                let lost = state.lost.is_some();
                let tube = state.tubes.get_mut(self.at)?;
                match tube.to_far.pop_front() {
                    Some(bytes) => {
                        tube.unread -= bytes.len();
                        Some(Some(bytes))
                    }
                    None => (tube.finished || tube.closed || lost).then_some(None),
                }
            })
            .await
    }

    /// Ends when the near side has closed it.
    pub async fn closed(&self) {
        self.shared.when(|state| state.is_gone(self.at).then_some(())).await;
    }

    /// Whether the near side has said that it sends no more.
    pub fn is_finished(&self) -> bool {
        self.shared.with(|state| state.tubes.get(self.at).is_some_and(|tube| tube.finished))
    }

    /// Messages sent that the near side has not taken.
    pub fn unread(&self) -> usize {
        self.shared.with(|state| state.tubes.get(self.at).map_or(0, |tube| tube.to_us.len()))
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.shared.with(|state| state.is_gone(self.at))
    }
}

impl State {
    fn is_gone(&self, at: usize) -> bool {
        self.lost.is_some() || self.tubes.get(at).is_none_or(|tube| tube.closed)
    }

    fn is_held_up(&self) -> bool {
        self.tubes.iter().any(|tube| !tube.closed && tube.to_us.len() > HELD)
    }

    fn tell(&mut self, at: usize, event: ChannelEvent) {
        if let Some(tube) = self.tubes.get_mut(at).filter(|tube| !tube.closed) {
            tube.to_us.push_back(event);
            if let Some(reader) = tube.reader.take() {
                reader.wake();
            }
        }
    }

    fn open(&mut self) -> usize {
        self.tubes.push(Tube::default());
        self.tubes.len() - 1
    }
}

impl Shared {
    pub(super) fn new(host: Arc<Host>) -> Arc<Self> {
        Arc::new(Self { host, state: Mutex::default(), changed: Notify::new() })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let done = self.with(act);
        self.changed.notify_waiters();
        done
    }

    /// Waits until there is an answer.
    async fn when<T>(&self, mut act: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            if let Some(done) = self.with(&mut act) {
                self.changed.notify_waiters();
                return done;
            }
            changed.await;
        }
    }

    pub(super) fn lose(&self, cause: &str) {
        let waiting = self.change(|state| {
            let lost = LinkLost { cause: cause.to_owned() };
            state.lost.get_or_insert(lost);
            for tube in &mut state.tubes {
                if let Some(reader) = tube.reader.take() {
                    reader.wake();
                }
            }
            state.listening = None;
            std::mem::take(&mut state.arrivals)
        });
        waiting.iter().for_each(|(_, rung, _)| rung.notify_one());
    }

    pub(super) fn listening(&self) -> Option<Address> {
        self.with(|state| state.listening.clone())
    }

    pub(super) fn is_lost(&self) -> bool {
        self.with(|state| state.lost.is_some())
    }

    /// Somebody comes to the listener; the far end once it is let in, nothing if it is turned away.
    pub(super) async fn arrive(self: &Arc<Self>, from: Address) -> Option<FarEnd> {
        let (rung, answer) = (Arc::new(Notify::new()), Answer::default());
        let is_expected = self.change(|state| {
            let is_expected = state.listening.is_some();
            if is_expected {
                state.arrivals.push_back((from.clone(), Arc::clone(&rung), Arc::clone(&answer)));
            }
            is_expected
        });
        if !is_expected {
            return None;
        }
        rung.notified().await;
        let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let at = answer.and_then(Result::ok)?;
        Some(FarEnd { to: from, shared: Arc::clone(self), at })
    }

    fn channel(self: &Arc<Self>, at: usize) -> Channel {
        let handle = Arc::new(Handle { shared: Arc::clone(self), at });
        Channel {
            events: Box::new(Events { handle: Arc::clone(&handle), over: false }),
            control: Arc::new(Control { handle }),
        }
    }
}

impl Line for ScriptedLine {
    fn dial(&self, to: &Address, origin: &Address) -> BoxFuture<'_, Result<Channel, DialError>> {
        let (to, origin) = (to.clone(), origin.clone());
        Box::pin(async move {
            let shared = &self.shared;
            shared.host.record(Seen::Dialled { to: to.clone(), origin });
            if let Some((cause, outcome)) = shared.host.with(|state| state.dial_refusals.pop_front()) {
                return Err(DialError::Refused { cause, outcome });
            }
            let opened = shared
                .when(|state| match &state.lost {
                    Some(lost) => Some(Err(DialError::Lost(lost.clone()))),
                    None => (!state.is_held_up()).then(|| Ok(state.open())),
                })
                .await;
            let at = opened?;
            let far = FarEnd { to, shared: Arc::clone(shared), at };
            shared.host.with(|state| state.far_ends.push_back(far));
            shared.host.far_ends.notify_one();
            Ok(shared.channel(at))
        })
    }

    fn listen(&self, at: &Address) -> BoxFuture<'_, Result<u16, ListenError>> {
        let at = at.clone();
        Box::pin(async move {
            self.shared.host.record(Seen::Listening { at: at.clone() });
            if self.shared.host.with(|state| std::mem::take(&mut state.refuses_to_listen)) {
                return Err(ListenError::Refused { at });
            }
            let port = if at.port == 0 { ANY_PORT } else { at.port };
            self.shared.change(|state| state.listening = Some(Address { port, ..at }));
            Ok(port)
        })
    }

    fn arrival(&self) -> BoxFuture<'_, Result<Box<dyn Arrival>, LinkLost>> {
        Box::pin(async move {
            let next = self.shared.when(|state| match (&state.lost, state.arrivals.pop_front()) {
                (Some(lost), _) => Some(Err(lost.clone())),
                (None, arrival) => arrival.map(Ok),
            });
            let (origin, rung, answer) = next.await?;
            let shared = Arc::clone(&self.shared);
            Ok(Box::new(Knocking { shared, origin, rung, answer }) as Box<dyn Arrival>)
        })
    }

    fn unlisten(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.host.record(Seen::Unlistened);
            let waiting = self.shared.change(|state| {
                state.listening = None;
                std::mem::take(&mut state.arrivals)
            });
            waiting.iter().for_each(|(_, rung, _)| rung.notify_one());
        })
    }

    fn moves(&self) -> BoxFuture<'_, Result<(), LinkLost>> {
        Box::pin(self.shared.when(|state| match &state.lost {
            Some(lost) => Some(Err(lost.clone())),
            None => (!state.is_held_up()).then_some(Ok(())),
        }))
    }

    fn lost(&self) -> BoxFuture<'_, LinkLost> {
        Box::pin(self.shared.when(|state| state.lost.clone()))
    }

    fn disconnect(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.shared.lose("disconnected") })
    }
}

impl Drop for ScriptedLine {
    fn drop(&mut self) {
        self.shared.lose("the line was dropped");
        self.shared.host.record(Seen::LineClosed);
    }
}

struct Knocking {
    shared: Arc<Shared>,
    origin: Address,
    rung: Arc<Notify>,
    answer: Answer,
}

impl Arrival for Knocking {
    fn origin(&self) -> Address {
        self.origin.clone()
    }

    fn accept(self: Box<Self>) -> BoxFuture<'static, Channel> {
        Box::pin(async move {
            let at = self.shared.change(State::open);
            *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Ok(at));
            self.shared.channel(at)
        })
    }

    fn reject(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}

impl Drop for Knocking {
    fn drop(&mut self) {
        self.rung.notify_one();
    }
}

/// Both halves hold it; the last one to go closes the channel.
struct Handle {
    shared: Arc<Shared>,
    at: usize,
}

impl Handle {
    fn close(&self) {
        self.shared.change(|state| {
            if let Some(tube) = state.tubes.get_mut(self.at) {
                tube.closed = true;
                tube.to_us.clear();
            }
        });
    }

    /// Waits until the far side takes what is sent, or the channel is gone.
    async fn send(&self, bytes: Bytes) -> Result<(), ChannelGone> {
        self.shared
            .when(|state| {
                if state.is_gone(self.at) {
                    return Some(Err(ChannelGone));
                }
                let tube = state.tubes.get_mut(self.at)?;
                (tube.unread < WINDOW).then(|| {
                    tube.unread += bytes.len();
                    tube.to_far.push_back(bytes.clone());
                    Ok(())
                })
            })
            .await
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

struct Events {
    handle: Arc<Handle>,
    over: bool,
}

impl ChannelEvents for Events {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        if self.over {
            return Poll::Pending;
        }
        let at = self.handle.at;
        let polled = self.handle.shared.with(|state| {
            let lost = state.lost.clone();
            let Some(tube) = state.tubes.get_mut(at) else { return Poll::Pending };
            match (tube.to_us.pop_front(), lost) {
                (Some(event), _) => Poll::Ready(event),
                (None, Some(lost)) => Poll::Ready(ChannelEvent::Lost(lost)),
                (None, None) => {
                    tube.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        if let Poll::Ready(event) = &polled {
            self.over = matches!(event, ChannelEvent::Closed | ChannelEvent::Lost(_));
            self.handle.shared.changed.notify_waiters();
        }
        polled
    }
}

struct Control {
    handle: Arc<Handle>,
}

impl ChannelControl for Control {
    fn start(&self, _start: Start) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(std::future::ready(Err(ChannelGone)))
    }

    fn send(&self, bytes: Bytes) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let handle = Arc::clone(&self.handle);
        Box::pin(async move { handle.send(bytes).await })
    }

    fn finish_input(&self) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let handle = Arc::clone(&self.handle);
        Box::pin(async move {
            handle.shared.change(|state| match state.is_gone(handle.at) {
                true => Err(ChannelGone),
                false => {
                    if let Some(tube) = state.tubes.get_mut(handle.at) {
                        tube.finished = true;
                    }
                    Ok(())
                }
            })
        })
    }

    fn signal(&self, _signal: Signal) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(std::future::ready(Err(ChannelGone)))
    }

    fn resize(&self, _size: PtySize) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(std::future::ready(Err(ChannelGone)))
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let handle = Arc::clone(&self.handle);
        Box::pin(async move { handle.close() })
    }
}

/// The next far end that a dial has made.
pub(super) async fn next_far_end(host: &Host) -> FarEnd {
    loop {
        let rung = host.far_ends.notified();
        if let Some(far) = host.with(|state| state.far_ends.pop_front()) {
            return far;
        }
        rung.await;
    }
}

/// The port a server takes that is asked for any.
pub const ANY_PORT: u16 = 40_022;
