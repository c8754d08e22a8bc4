//! A server that follows its script, whatever it is told, on a channel without a process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use rsync_wire::mux::{Demultiplexer, Event, MessageLimits};
use ssh_mcp_core::history::Origin;
use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::ssh::{
    Channel, ChannelControl, ChannelEvent, ChannelEvents, ChannelGone, PtySize, Signal, Start,
};
use tokio::sync::watch;

/// What a server does, in order. It ends when nothing is left, or when the client has no more to say.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    acts: VecDeque<Act>,
    /// One byte an event.
    is_fragmented: bool,
    /// Bytes after which nothing more comes, and what is then.
    cut: (usize, Cut),
    /// It takes nothing that the client sends.
    is_deaf: bool,
    /// It stays when the client has no more to say.
    is_rude: bool,
    /// Strings in the client's part of the handshake.
    strings: usize,
}

/// What a server does when it has sent so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It closes the channel without a word.
    Close,
    /// It says nothing any more.
    Silence,
}

#[derive(Debug, Clone)]
enum Act {
    Send(Bytes),
    Complain(Bytes),
    /// Until the client has sent so many bytes of data, the handshake and the frames not counted.
    Await(usize),
    /// Until the client has sent this.
    Hear(Bytes),
    Repeat(Bytes, u64),
    Wait,
    Event(ChannelEvent),
}

impl Script {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            acts: VecDeque::new(),
            is_fragmented: false,
            cut: (usize::MAX, Cut::Close),
            is_deaf: false,
            is_rude: false,
            strings: 1,
        }
    }

    /// Sends bytes.
    pub(crate) fn send(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.then(Act::Send(bytes.into().into()))
    }

    /// Sends the same so many times, each in an event of its own.
    pub(crate) fn repeat(self, bytes: impl Into<Vec<u8>>, times: u64) -> Self {
        self.then(Act::Repeat(bytes.into().into(), times))
    }

    /// Writes to the standard error.
    pub(crate) fn complain(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.then(Act::Complain(bytes.into().into()))
    }

    /// Waits until the client has sent so many bytes of data.
    pub(crate) fn until(self, bytes: usize) -> Self {
        self.then(Act::Await(bytes))
    }

    /// Waits until the client has sent these bytes as data.
    pub(crate) fn hear(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.then(Act::Hear(bytes.into().into()))
    }

    /// Says nothing any more.
    pub(crate) fn silence(self) -> Self {
        self.then(Act::Wait)
    }

    /// Something else happens on the channel.
    pub(crate) fn event(self, event: ChannelEvent) -> Self {
        self.then(Act::Event(event))
    }

    /// The process ends.
    pub(crate) fn exit(self, status: u32) -> Self {
        self.event(ChannelEvent::ExitStatus(status)).event(ChannelEvent::Closed)
    }

    /// The same, with more bytes behind all others.
    pub(crate) fn before_the_end(mut self, bytes: &[u8]) -> Self {
        let place = self.acts.iter().position(|act| matches!(act, Act::Event(_))).unwrap();
        self.acts.insert(place, Act::Send(bytes.to_vec().into()));
        self
    }

    /// The same, with one byte another, behind which the server does not wait any more.
    pub(crate) fn changed(mut self, at: usize, flip: u8) -> Self {
        let mut sent = 0;
        for act in std::mem::take(&mut self.acts) {
            if sent > at && matches!(act, Act::Await(_) | Act::Hear(_)) {
                continue;
            }
            let Act::Send(bytes) = act else {
                self.acts.push_back(act);
                continue;
            };
            let mut bytes = bytes.to_vec();
            if let Some(byte) = at.checked_sub(sent).and_then(|at| bytes.get_mut(at)) {
                *byte ^= flip;
            }
            sent += bytes.len();
            self.acts.push_back(Act::Send(bytes.into()));
        }
        self
    }

    /// The same, one byte an event.
    pub(crate) fn fragmented(self) -> Self {
        Self { is_fragmented: true, ..self }
    }

    /// The same, up to a byte.
    pub(crate) fn cut(self, length: usize, cut: Cut) -> Self {
        Self { cut: (length, cut), ..self }
    }

    /// The same, but it takes nothing that the client sends.
    pub(crate) fn deaf(self) -> Self {
        Self { is_deaf: true, ..self }
    }

    /// The same, but it does not end because the client does.
    pub(crate) fn rude(self) -> Self {
        Self { is_rude: true, ..self }
    }

    /// The same, but instead of its end there is silence.
    pub(crate) fn staying(mut self) -> Self {
        self.acts.retain(|act| !matches!(act, Act::Event(_)));
        self.silence().rude()
    }

    /// The same, with a client that names a compressor as well.
    pub(crate) fn compressed(self) -> Self {
        Self { strings: 2, ..self }
    }

    /// How many bytes it sends, if nothing is repeated.
    pub(crate) fn length(&self) -> usize {
        let sent = self.acts.iter().map(|act| match act {
            Act::Send(bytes) => bytes.len(),
            Act::Complain(_) | Act::Await(_) | Act::Hear(_) | Act::Repeat(..) | Act::Wait | Act::Event(_) => {
                0
            }
        });
        sent.sum()
    }

    /// A channel with this server behind it, and what the client says to it.
    pub(crate) fn open(self) -> (Channel, Heard) {
        let (silent, _) = watch::channel(false);
        let stage = Arc::new(Stage(Mutex::new(State {
            script: self,
            silent,
            said: Vec::new(),
            data: Vec::new(),
            framed: 0,
            frames: Demultiplexer::new(MessageLimits::default()),
            is_finished: false,
            is_closed: false,
            polls: 0,
            waker: None,
        })));
        let channel = Channel {
            events: Box::new(Events(Arc::clone(&stage))),
            control: Arc::new(Control(Arc::clone(&stage))),
        };
        (channel, Heard(stage))
    }

    fn then(mut self, act: Act) -> Self {
        self.acts.push_back(act);
        self
    }
}

/// What a client has said.
pub(crate) struct Heard(Arc<Stage>);

impl Heard {
    /// All bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.state().said.clone()
    }

    /// Until the server has nothing more to say, but does not end.
    pub(crate) fn silence(&self) -> BoxFuture<'static, ()> {
        let mut silent = self.0.state().silent.subscribe();
        Box::pin(async move { drop(silent.wait_for(|is_silent| *is_silent).await.unwrap()) })
    }

    /// How often the client has asked for an event.
    pub(crate) fn polls(&self) -> u64 {
        self.0.state().polls
    }

    /// Whether it has closed the channel.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.state().is_closed
    }
}

struct Stage(Mutex<State>);

struct State {
    script: Script,
    silent: watch::Sender<bool>,
    said: Vec<u8>,
    data: Vec<u8>,
    /// How much of what was said has gone through the frames.
    framed: usize,
    frames: Demultiplexer,
    is_finished: bool,
    is_closed: bool,
    polls: u64,
    waker: Option<Waker>,
}

impl Stage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Something has changed that the server may wait for.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        changed
    }
}

impl State {
    fn next(&mut self) -> Poll<ChannelEvent> {
        self.polls += 1;
        if self.is_closed || self.is_finished && !self.script.is_rude {
            self.script.acts.retain(|act| matches!(act, Act::Event(_)));
        }
        if self.script.cut.0 == 0 {
            self.script.acts.clear();
            if self.script.cut.1 == Cut::Silence {
                self.script.acts.push_back(Act::Wait);
            }
        }
        match self.script.acts.pop_front() {
            None => Poll::Ready(ChannelEvent::Closed),
            Some(Act::Event(event)) => {
                if event == ChannelEvent::Closed {
                    self.script.acts.clear();
                }
                Poll::Ready(event)
            }
            Some(Act::Complain(bytes)) => Poll::Ready(ChannelEvent::Data(Origin::Stderr, bytes)),
            Some(Act::Send(mut bytes)) => {
                let most = if self.script.is_fragmented { 1 } else { usize::MAX };
                let now = bytes.split_to(bytes.len().min(most).min(self.script.cut.0));
                self.script.cut.0 -= now.len();
                if !bytes.is_empty() {
                    self.script.acts.push_front(Act::Send(bytes));
                }
                Poll::Ready(ChannelEvent::Data(Origin::Stdout, now))
            }
            Some(Act::Repeat(bytes, times)) => {
                if times > 1 {
                    self.script.acts.push_front(Act::Repeat(bytes.clone(), times - 1));
                }
                Poll::Ready(ChannelEvent::Data(Origin::Stdout, bytes))
            }
            Some(Act::Await(wanted)) if self.data.len() >= wanted => self.next(),
            Some(Act::Hear(wanted)) if self.data.windows(wanted.len()).any(|heard| heard == wanted) => {
                self.next()
            }
            Some(act @ (Act::Await(_) | Act::Hear(_) | Act::Wait)) => {
                self.silent.send_replace(matches!(act, Act::Wait));
                self.script.acts.push_front(act);
                Poll::Pending
            }
        }
    }

    /// Takes the data out of what was said behind the handshake.
    fn unframe(&mut self) {
        if self.framed == 0 {
            let mut at = 4;
            for _ in 0..self.script.strings {
                at += 1 + self.said.get(at).map_or(usize::MAX / 4, |length| usize::from(*length));
            }
            if at > self.said.len() {
                return;
            }
            self.framed = at;
        }
        let mut rest = &self.said[self.framed..];
        while let Some(event) = self.frames.next_event(&mut rest).expect("the client sends frames") {
            if let Event::Data(data) = event {
                self.data.extend_from_slice(data);
            }
        }
        self.framed = self.said.len();
    }
}

struct Events(Arc<Stage>);

impl ChannelEvents for Events {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        let mut state = self.0.state();
        let event = state.next();
        if event.is_pending() {
            state.waker = Some(cx.waker().clone());
        }
        event
    }
}

struct Control(Arc<Stage>);

impl ChannelControl for Control {
    fn start(&self, start: Start) -> BoxFuture<'static, Result<(), ChannelGone>> {
        assert!(matches!(start, Start::Exec { pty: None, .. }), "only commands run here: {start:?}");
        Box::pin(async { Ok(()) })
    }

    fn send(&self, bytes: Bytes) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let stage = Arc::clone(&self.0);
        Box::pin(async move {
            if stage.state().script.is_deaf {
                std::future::pending().await
            }
            stage.change(|state| {
                state.said.extend_from_slice(&bytes);
                state.unframe();
            });
            Ok(())
        })
    }

    fn finish_input(&self) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.0.change(|state| state.is_finished = true);
        Box::pin(async { Ok(()) })
    }

    fn signal(&self, _: Signal) -> BoxFuture<'static, Result<(), ChannelGone>> {
        Box::pin(async { Ok(()) })
    }

    fn resize(&self, _: PtySize) -> BoxFuture<'static, Result<(), ChannelGone>> {
        panic!("there is no terminal here")
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.0.change(|state| state.is_closed = true);
        Box::pin(async {})
    }
}
