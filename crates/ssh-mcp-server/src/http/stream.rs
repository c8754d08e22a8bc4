//! Event streams that can be ended from outside, because their client does not read or has opened another one.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;

use super::turnstile::Feed;

/// An event stream on its way to a client. The lock is held for one step of the stream, never across a wait.
pub(super) struct Stream {
    state: Mutex<State>,
}

struct State {
    /// `None` once it was ended.
    events: Option<Events>,
    last_asked: Instant,
    /// What `last_asked` was when the stream was first found standing still.
    suspected: Option<Instant>,
    waker: Option<Waker>,
}

/// What a stream says, and whom it tells what it takes.
struct Events {
    body: BoxBody<Bytes, Infallible>,
    feed: Option<Feed>,
}

impl Stream {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it: what feeds it is dropped at once, and the client sees the end when it reads on.
    pub(super) fn end(&self) {
        let (events, waker) = {
            let mut state = self.state();
            (state.events.take(), state.waker.take())
        };
        drop(events);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it may still say something.
    pub(super) fn is_open(&self) -> bool {
        self.state().events.is_some()
    }

    /// Whether the connection has not asked for more since `limit`: comments that keep a stream alive make a healthy one ask often.
    ///
    /// It takes two looks to be sure. After a pause of the whole process every stream looks stalled at the first one.
    fn is_stalled(&self, now: Instant, limit: Duration) -> bool {
        let mut state = self.state();
        let last_asked = state.last_asked;
        let late = state.events.is_some() && now.saturating_duration_since(last_asked) >= limit;
        let before = std::mem::replace(&mut state.suspected, late.then_some(last_asked));
        late && before == Some(last_asked)
    }
}

/// Every open stream, to find those that stand still.
#[derive(Default)]
pub(super) struct Streams {
    open: Mutex<Vec<Weak<Stream>>>,
}

impl Streams {
    /// Takes a stream over; `guard` lives as long as the body made of it, and `feed` hears what it takes.
    pub(super) fn watch<G: Send + Sync + Unpin + 'static>(
        &self,
        body: BoxBody<Bytes, Infallible>,
        feed: Option<Feed>,
        guard: G,
        now: Instant,
    ) -> (Arc<Stream>, Watched<G>) {
        let state =
            State { events: Some(Events { body, feed }), last_asked: now, suspected: None, waker: None };
        let stream = Arc::new(Stream { state: Mutex::new(state) });
        self.open().push(Arc::downgrade(&stream));
        (Arc::clone(&stream), Watched { stream, _guard: guard })
    }

    /// Ends every stream whose client has not read for `limit`; gives their number.
    pub(super) fn end_stalled(&self, now: Instant, limit: Duration) -> usize {
        let mut stalled = Vec::new();
        self.open().retain(|stream| {
            stream.upgrade().is_some_and(|stream| {
                let is_stalled = stream.is_stalled(now, limit);
                if is_stalled {
                    stalled.push(stream);
                }
                !is_stalled
            })
        });
        stalled.iter().for_each(|stream| stream.end());
        stalled.len()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Weak<Stream>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of a response that carries a stream.
pub(super) struct Watched<G> {
    stream: Arc<Stream>,
    _guard: G,
}

impl<G: Unpin> Body for Watched<G> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut state = self.stream.state();
        state.last_asked = Instant::now();
        let Some(events) = &mut state.events else { return Poll::Ready(None) };
        let polled = Pin::new(&mut events.body).poll_frame(context);
        match (&polled, &events.feed) {
            (Poll::Pending, Some(feed)) => feed.is_empty(),
            (Poll::Ready(Some(_)), Some(feed)) => feed.took_one(),
            (Poll::Ready(None), _) | (_, None) => {}
        }
        if polled.is_pending() {
            state.waker = Some(context.waker().clone());
        }
        polled
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use tokio_util::sync::{CancellationToken, DropGuard};

    use super::*;

    /// A stream that says nothing, and a token that is cancelled when it is dropped.
    fn silent() -> (BoxBody<Bytes, Infallible>, CancellationToken) {
        struct Silent(#[expect(dead_code, reason = "held for its drop")] DropGuard);
        impl Body for Silent {
            type Data = Bytes;
            type Error = Infallible;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                Poll::Pending
            }
        }
        let dropped = CancellationToken::new();
        (Silent(dropped.clone().drop_guard()).boxed(), dropped)
    }

    #[tokio::test]
    async fn a_stream_that_is_ended_wakes_its_reader() {
        let (events, dropped) = silent();
        let (stream, mut body) = Streams::default().watch(events, None, (), Instant::now());
        let mut next = std::pin::pin!(body.frame());
        assert!(std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await);
        stream.end();
        assert!(dropped.is_cancelled());
        assert!(next.await.is_none());
    }

    #[test]
    fn only_streams_that_nobody_asks_are_stalled() {
        let streams = Streams::default();
        let limit = Duration::from_secs(30);
        let start = Instant::now();
        let (first, first_dropped) = silent();
        let (second, second_dropped) = silent();
        let (third, third_dropped) = silent();
        let (_, _first) = streams.watch(first, None, (), start);
        let (_, _second) = streams.watch(second, None, (), start + limit);
        drop(streams.watch(third, None, (), start));
        assert!(third_dropped.is_cancelled());
        assert_eq!(streams.end_stalled(start + limit, limit), 0);
        assert_eq!(streams.end_stalled(start + limit, limit), 1);
        assert!(first_dropped.is_cancelled() && !second_dropped.is_cancelled());
        assert_eq!(streams.end_stalled(start + 2 * limit, limit), 0);
        assert_eq!(streams.end_stalled(start + 2 * limit, limit), 1);
        assert!(second_dropped.is_cancelled());
    }

    #[tokio::test]
    async fn what_a_stream_says_goes_through() {
        let events = Full::new(Bytes::from_static(b"one")).boxed();
        let (_, body) = Streams::default().watch(events, None, (), Instant::now());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "one");
    }
}
