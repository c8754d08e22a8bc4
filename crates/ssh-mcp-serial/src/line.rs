//! The two directions of an open device.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use rustix::termios::tcsendbreak;
use ssh_mcp_core::{
    port::{
        BoxFuture,
        serial::{BreakError, Line, LineEvent, LineEvents, LineLost, Located, SerialLine},
    },
    sync::Mutex,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Interval, MissedTickBehavior},
};

use crate::open::{self, Held};

/// A device that reports nothing of its end is looked for this often.
const LOOK: Duration = Duration::from_millis(500);

/// Bytes taken from the driver at once; it holds fewer.
const READ: usize = 16 * 1024;

/// The port's two halves over an open device.
pub(crate) fn line(held: Held, device: Located) -> Line {
    let held = Arc::new(Mutex::new(Some(held)));
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = Receiving { held: Arc::clone(&held), device, look, buffer: vec![0; READ], is_over: false };
    Line { events: Box::new(events), control: Arc::new(Sending { held }) }
}

/// None once it is closed. The lock is held for one call of the driver that does not wait.
type Shared = Arc<Mutex<Option<Held>>>;

struct Receiving {
    held: Shared,
    device: Located,
    look: Interval,
    buffer: Vec<u8>,
    is_over: bool,
}

impl LineEvents for Receiving {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<LineEvent> {
        if self.is_over {
            return Poll::Pending;
        }
        let cause = match self.poll_read(cx) {
            Poll::Ready(Ok(0)) => "the device is gone".to_owned(),
            Poll::Ready(Ok(read)) => {
                let bytes = self.buffer.get(..read).unwrap_or_default();
                return Poll::Ready(LineEvent::Data(Bytes::copy_from_slice(bytes)));
            }
            Poll::Ready(Err(error)) => error.to_string(),
            Poll::Pending => loop {
                match self.look.poll_tick(cx) {
                    Poll::Ready(_) if open::is_there(&self.device) => {}
                    Poll::Ready(_) => break "the device is gone".to_owned(),
                    Poll::Pending => return Poll::Pending,
                }
            },
        };
        self.is_over = true;
        Poll::Ready(LineEvent::Lost(LineLost { cause }))
    }
}

impl Receiving {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut held = self.held.lock();
        // One that was closed here is not gone; nobody asks it for anything any more.
        let Some(held) = held.as_mut() else { return Poll::Pending };
        let mut buffer = ReadBuf::new(&mut self.buffer);
        let read = Pin::new(&mut held.stream).poll_read(cx, &mut buffer);
        read.map_ok(|()| buffer.filled().len())
    }
}

struct Sending {
    held: Shared,
}

impl SerialLine for Sending {
    fn send(&self, mut bytes: Bytes) -> BoxFuture<'static, Result<(), LineLost>> {
        let held = Arc::clone(&self.held);
        Box::pin(async move {
            while !bytes.is_empty() {
                let written = std::future::poll_fn(|cx| match held.lock().as_mut() {
                    Some(held) => Pin::new(&mut held.stream).poll_write(cx, &bytes),
                    None => Poll::Ready(Ok(0)),
                });
                match written.await {
                    Ok(0) => return Err(LineLost { cause: "the device takes nothing".to_owned() }),
                    Ok(written) => _ = bytes.split_to(written),
                    Err(error) => return Err(LineLost { cause: error.to_string() }),
                }
            }
            Ok(())
        })
    }

    fn send_break(&self) -> BoxFuture<'static, Result<(), BreakError>> {
        let handle = self.held.lock().as_ref().map(|held| Arc::clone(&held.found.handle));
        Box::pin(async move {
            let Some(handle) = handle else {
                return Err(BreakError { cause: "the line is closed".to_owned() });
            };
            // The kernel waits for what it still has to send, and then for the quarter of a second.
            let sent = tokio::task::spawn_blocking(move || tcsendbreak(&*handle)).await;
            match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(BreakError { cause: error.to_string() }),
                Err(error) => Err(BreakError { cause: error.to_string() }),
            }
        })
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let held = self.held.lock().take();
        Box::pin(async move {
            // An end is no failure: what cannot be given back is gone.
            _ = tokio::task::spawn_blocking(move || drop(held)).await;
        })
    }
}
