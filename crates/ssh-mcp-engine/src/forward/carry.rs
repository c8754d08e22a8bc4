//! Bytes between a socket and a channel, both ways at once, until both sides have said all they had to say.
//!
//! What comes from the channel waits in pieces, uncopied, until the socket takes it; how much may wait depends on who else
//! is on the line ([`allowance`]). Beyond that the channel rests, and with it the line: that is how a consumer is waited
//! for, and [`Patience`] says when it no longer is. The other way, the socket is read only as fast as the server takes it.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io::IoSlice,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use ssh_mcp_core::{
    kind::forward::{Patience, allowance},
    port::{
        forward::Line,
        ssh::{Channel, ChannelControl, ChannelEvent, ChannelEvents},
    },
    registry::{Forward, Session},
    sync::{AtomicBool, AtomicU64, Ordering},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};
use tokio_util::sync::CancellationToken;

use super::crowd::{Member, Others};
use crate::Clock;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides had said all they had to say.
    Finished,
    /// The socket's side went away without a word.
    SocketGone,
    /// The channel's side did.
    ChannelGone,
    /// The line is gone.
    Lost,
    /// The forward ended.
    Cut,
    /// The socket's side took nothing while others waited for it.
    Slow,
}

/// Who joins the two.
pub(super) struct Carrier<'a> {
    pub(super) clock: Clock,
    pub(super) session: &'a Session,
    pub(super) forward: &'a Forward,
    pub(super) line: &'a Arc<dyn Line>,
    pub(super) cut: &'a CancellationToken,
}

/// What was carried, and how it ended.
pub(super) struct Carried {
    pub(super) end: End,
    pub(super) to_server: u64,
    pub(super) from_server: u64,
}

/// What happens while bytes are carried.
enum Happening {
    Cut,
    Down(Turn),
    Up(UpEnd),
    CrowdChanged,
    LineMoved,
    PatienceLooked,
}

/// A line that was seen to move is not looked at again for this long.
const SEEN: Duration = Duration::from_secs(1);

impl Carrier<'_> {
    /// Joins a socket to a channel; `first` has been read from the socket already.
    pub(super) async fn carry(
        &self,
        socket: &mut TcpStream,
        channel: Channel,
        first: Vec<u8>,
        member: &mut Member,
    ) -> Carried {
        let (reader, writer) = socket.split();
        let Channel { events, control } = channel;
        let sent = Sent::default();
        let mut down = Down::new(events, writer);
        let mut up = pin!(self.up(reader, &*control, first, &sent));
        let end = self.both(&mut down, up.as_mut(), &sent, member).await;
        Carried { end, to_server: sent.bytes.load(Ordering::Relaxed), from_server: down.written }
    }

    async fn both(
        &self,
        down: &mut Down<'_>,
        mut up: Pin<&mut impl Future<Output = UpEnd>>,
        up_has: &Sent,
        member: &mut Member,
    ) -> End {
        let crowd = member.crowd();
        let mut patience = Patience::default();
        let mut line_moves: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        let mut sent: Option<UpEnd> = None;
        loop {
            // Before the others are looked at, so that no change of theirs is missed.
            let changed = crowd.changed();
            let Others { all, waiting } = member.look(down.held.size);
            let now = self.clock.now();
            let deadline = patience.on_look(now, down.held.size, all, waiting);
            match deadline {
                None => line_moves = None,
                Some(_) if line_moves.is_none() => line_moves = Some(self.line_moves(Duration::ZERO)),
                Some(_) => {}
            }
            let room = || allowance(all, up_has.waits.load(Ordering::Relaxed));
            let happening = tokio::select! {
                biased;
                () = self.cut.cancelled() => Happening::Cut,
                // Before the other way, which has more room if this one waits.
                end = &mut up, if sent.is_none() => Happening::Up(end),
                turn = poll_fn(|cx| down.poll_turn(cx, room())) => Happening::Down(turn),
                () = changed => Happening::CrowdChanged,
                () = until_done(&mut line_moves) => Happening::LineMoved,
                () = self.until(deadline) => Happening::PatienceLooked,
            };
            match happening {
                Happening::Cut => return End::Cut,
                Happening::Down(Turn::Moved(bytes)) => {
                    self.forward.traffic.moved_from_remote(bytes);
                    self.touch();
                }
                Happening::Down(Turn::Finished) if sent == Some(UpEnd::Finished) => return End::Finished,
                Happening::Down(Turn::Finished) => {}
                Happening::Down(Turn::SocketGone) => return End::SocketGone,
                Happening::Down(Turn::Closed) if sent == Some(UpEnd::Finished) => return End::Finished,
                Happening::Down(Turn::Closed) => return End::ChannelGone,
                Happening::Down(Turn::Lost) => return End::Lost,
                Happening::Up(UpEnd::Finished) if down.is_finished() => return End::Finished,
                Happening::Up(UpEnd::SocketGone) => return End::SocketGone,
                // How the channel ended is said by its other half.
                Happening::Up(end) => sent = Some(end),
                Happening::CrowdChanged => {}
                Happening::LineMoved => {
                    // Nobody was held up so far; the time begins anew with the next look.
                    patience.on_line_moved(self.clock.now() + SEEN);
                    line_moves = Some(self.line_moves(SEEN));
                }
                Happening::PatienceLooked => {
                    if patience.is_over(self.clock.now()) {
                        return End::Slow;
                    }
                }
            }
        }
    }

    /// Ends when the line was seen to move, beginning to look after a while.
    fn line_moves(&self, after: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (clock, line) = (self.clock, Arc::clone(self.line));
        let at = clock.now() + after;
        Box::pin(async move {
            if !after.is_zero() {
                clock.sleep_until(at).await;
            }
            // A line that is lost says so by its channels.
            _ = line.moves().await;
        })
    }

    async fn until(&self, deadline: Option<Duration>) {
        match deadline {
            Some(at) => self.clock.sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// From the socket to the channel.
    async fn up(
        &self,
        mut reader: ReadHalf<'_>,
        control: &dyn ChannelControl,
        first: Vec<u8>,
        sent: &Sent,
    ) -> UpEnd {
        let mut next = Bytes::from(first);
        let mut buffer = BytesMut::new();
        loop {
            if !next.is_empty() {
                let size = next.len() as u64;
                sent.waits.store(true, Ordering::Relaxed);
                if control.send(next).await.is_err() {
                    return UpEnd::ChannelGone;
                }
                sent.waits.store(false, Ordering::Relaxed);
                sent.bytes.fetch_add(size, Ordering::Relaxed);
                self.forward.traffic.moved_to_remote(size);
                self.touch();
            }
            if buffer.capacity() < LEAST {
                buffer.reserve(BUFFER);
            }
            match reader.read_buf(&mut buffer).await {
                Ok(0) => {
                    return match control.finish_input().await {
                        Ok(()) => UpEnd::Finished,
                        Err(_) => UpEnd::ChannelGone,
                    };
                }
                Ok(_) => next = buffer.split().freeze(),
                Err(_) => return UpEnd::SocketGone,
            }
        }
    }

    fn touch(&self) {
        let now = self.clock.now();
        self.forward.active.touch(now);
        self.session.active.touch(now);
    }
}

/// What is read at once: 8 KiB would halve the throughput.
const BUFFER: usize = 256 << 10;
/// A rest of the buffer that is still worth reading into.
const LEAST: usize = 32 << 10;

/// What the way to the channel has done, for the other one, which is in the same task.
#[derive(Default)]
struct Sent {
    bytes: AtomicU64,
    /// The server has not taken what was read last.
    waits: AtomicBool,
}

/// How the way to the channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UpEnd {
    Finished,
    ChannelGone,
    SocketGone,
}

async fn until_done(future: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// From the channel to the socket.
struct Down<'a> {
    events: Box<dyn ChannelEvents>,
    writer: WriteHalf<'a>,
    held: Held,
    source: Source,
    written: u64,
}

/// What the channel may still bring.
///
/// ```text
/// Flows -> Ended      end of file; what is held goes out, then the socket hears of it
/// Ended -> Told       it has heard
/// any -> Closed       the channel is closed; what is held still goes out
/// any -> Lost         the line is gone
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Flows,
    Ended,
    Told,
    Closed,
    Lost,
}

enum Turn {
    /// So many bytes went out, or came in.
    Moved(u64),
    /// The socket has heard that no more comes.
    Finished,
    /// The channel is closed, and all it brought is out.
    Closed,
    Lost,
    SocketGone,
}

impl<'a> Down<'a> {
    fn new(events: Box<dyn ChannelEvents>, writer: WriteHalf<'a>) -> Self {
        Self { events, writer, held: Held::default(), source: Source::Flows, written: 0 }
    }

    fn is_finished(&self) -> bool {
        self.source == Source::Told
    }

    /// Takes what the channel has, as long as there is room, and gives the socket what it takes.
    fn poll_turn(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Turn> {
        let mut has_taken = false;
        while self.held.size < room && matches!(self.source, Source::Flows | Source::Ended | Source::Told) {
            match self.events.poll_event(cx) {
                Poll::Ready(ChannelEvent::Data(_, bytes)) if self.source == Source::Flows => {
                    self.held.push(bytes);
                    has_taken = true;
                }
                Poll::Ready(ChannelEvent::Eof) if self.source == Source::Flows => self.source = Source::Ended,
                Poll::Ready(ChannelEvent::Closed) => self.source = Source::Closed,
                Poll::Ready(ChannelEvent::Lost(_)) => self.source = Source::Lost,
                // Nothing runs on it, and behind its end nothing counts.
                Poll::Ready(
                    ChannelEvent::Data(..)
                    | ChannelEvent::Eof
                    | ChannelEvent::Started
                    | ChannelEvent::Refused { .. }
                    | ChannelEvent::ExitStatus(_)
                    | ChannelEvent::ExitSignal { .. },
                ) => {}
                Poll::Pending => break,
            }
        }
        if self.source == Source::Lost {
            return Poll::Ready(Turn::Lost);
        }
        let mut bytes = 0;
        while !self.held.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.held.fill(&mut slices);
            let slices = slices.get(..count).unwrap_or_default();
            match Pin::new(&mut self.writer).poll_write_vectored(cx, slices) {
                Poll::Ready(Ok(size)) => {
                    self.held.drop_first(size);
                    bytes += size as u64;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Turn::SocketGone),
                Poll::Pending => break,
            }
        }
        self.written += bytes;
        if bytes > 0 || has_taken {
            return Poll::Ready(Turn::Moved(bytes));
        }
        match (self.held.is_empty(), self.source) {
            (true, Source::Closed) => Poll::Ready(Turn::Closed),
            (true, Source::Ended) => match Pin::new(&mut self.writer).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {
                    self.source = Source::Told;
                    Poll::Ready(Turn::Finished)
                }
                Poll::Ready(Err(_)) => Poll::Ready(Turn::SocketGone),
                Poll::Pending => Poll::Pending,
            },
            (true, Source::Flows | Source::Told | Source::Lost) | (false, _) => Poll::Pending,
        }
    }
}

/// Pieces that go out in one call of the system.
const SLICES: usize = 64;

/// What the socket has not taken yet.
#[derive(Default)]
struct Held {
    pieces: VecDeque<Bytes>,
    size: usize,
}

impl Held {
    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.size += bytes.len();
            self.pieces.push_back(bytes);
        }
    }

    fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = slices.iter_mut().zip(&self.pieces);
        pieces.map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    fn drop_first(&mut self, mut size: usize) {
        self.size = self.size.saturating_sub(size);
        while size > 0
            && let Some(first) = self.pieces.front_mut()
        {
            let part = size.min(first.len());
            first.advance(part);
            size -= part;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}
