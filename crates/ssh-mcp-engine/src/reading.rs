//! Reading a channel against a deadline, as the tasks of commands and shells do.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use ssh_mcp_core::port::ssh::{ChannelEvent, ChannelEvents};
use tokio::time::Sleep;

use crate::Clock;

/// The events of a channel, and the timer beside them.
pub(crate) struct Reading {
    clock: Clock,
    events: Box<dyn ChannelEvents>,
    timer: Pin<Box<Sleep>>,
    set_to: Option<Duration>,
}

/// What goes first when an event is there and the deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// The deadline, so that a flood cannot hold it up.
    Deadline,
    /// The event: what was printed before an exit has come in time, however late this task is.
    Event,
}

impl Reading {
    pub(crate) fn new(clock: Clock, events: Box<dyn ChannelEvents>) -> Self {
        Self { clock, events, timer: Box::pin(tokio::time::sleep(Duration::ZERO)), set_to: None }
    }

    /// Reads from another channel from now on.
    pub(crate) fn turn_to(&mut self, events: Box<dyn ChannelEvents>) {
        self.events = events;
    }

    /// How the channel has ended by now, if it has. For one of which nothing has been asked: whatever else it says is dropped.
    pub(crate) async fn end_so_far(&mut self) -> Option<ChannelEvent> {
        poll_fn(|cx| {
            loop {
                match self.events.poll_event(cx) {
                    Poll::Ready(end @ (ChannelEvent::Closed | ChannelEvent::Lost(_))) => {
                        return Poll::Ready(Some(end));
                    }
                    // Dropbear closes every channel on which nothing runs yet whenever a program of the connection ends.
                    Poll::Ready(_) => {}
                    Poll::Pending => return Poll::Ready(None),
                }
            }
        })
        .await
    }

    /// The next event, or none because the deadline has passed. Dropped half-way, it has taken nothing.
    pub(crate) async fn next(&mut self, deadline: Option<Duration>, first: First) -> Option<ChannelEvent> {
        if deadline != self.set_to {
            self.set_to = deadline;
            if let Some(at) = deadline {
                self.timer.as_mut().reset(self.clock.instant(at));
            }
        }
        poll_fn(|cx| {
            if first == First::Event
                && let Poll::Ready(event) = self.events.poll_event(cx)
            {
                return Poll::Ready(Some(event));
            }
            if self.set_to.is_some() && self.timer.as_mut().poll(cx).is_ready() {
                self.set_to = None;
                return Poll::Ready(None);
            }
            self.events.poll_event(cx).map(Some)
        })
        .await
    }
}
