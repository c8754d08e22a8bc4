//! What waits for standard output: one queue, one writer, whole lines (`docs/daemon.md`, "Backpressure").
//!
//! Replies go first and always find room: there are never more than ops under way. Events wait for room before they are
//! put in, so a consumer that does not read holds back the lanes and nothing else. A heartbeat or a `daemon_stats` that
//! finds the one before still waiting is left out.
//!
//! *Invariant:* whatever was put in first among replies, or among events, is written first; and a reply that was put in
//! before an event is written before it.

use std::{collections::VecDeque, io, sync::Arc};

use ssh_mcp_core::sync::{AtomicU64, Mutex, Ordering};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use super::event::Event;

/// Bytes of events that may wait.
const ROOM: usize = 1 << 20;

/// Bytes that are written at once, if so many wait.
const BATCH: usize = 256 * 1024;

/// How events become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One line each.
    Lines,
    /// Several lines each, for eyes.
    Pretty,
    /// Remote bytes alone; what is no remote byte is said on standard error, if it is a failure.
    Raw,
}

/// Which of the standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Errors,
}

/// What is told at intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    Heartbeat,
    Stats,
}

/// Nothing will be written any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unheard;

/// The queue before the writer.
pub(super) struct Outbox {
    form: Form,
    waiting: Mutex<Waiting>,
    news: Notify,
    room: Semaphore,
    /// Cancelled once a line could not be written: nobody hears, and none ever will.
    unheard: CancellationToken,
    waits: AtomicU64,
    most: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    replies: VecDeque<(Chunk, Option<OwnedSemaphorePermit>)>,
    beats: [Option<Chunk>; 2],
    events: VecDeque<Chunk>,
    closed: bool,
}

struct Chunk {
    stream: Stream,
    bytes: Vec<u8>,
}

/// What the writer has taken.
#[derive(Default)]
struct Batch {
    output: Vec<u8>,
    errors: Vec<u8>,
    /// Room that events took up.
    room: usize,
    /// Places of ops, given back once their replies are written.
    places: Vec<OwnedSemaphorePermit>,
}

/// What there was to take.
enum Taken {
    Some,
    /// Nothing now.
    Nothing,
    /// Nothing, and it is closed.
    End,
}

impl Outbox {
    pub(super) fn new(form: Form) -> Arc<Self> {
        Arc::new(Self {
            form,
            waiting: Mutex::default(),
            news: Notify::new(),
            room: Semaphore::new(ROOM),
            unheard: CancellationToken::new(),
            waits: AtomicU64::new(0),
            most: AtomicU64::new(0),
        })
    }

    /// How events become bytes.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Puts a reply in. Its op's place is free again once it is written.
    pub(super) fn reply(&self, event: &Event, place: Option<OwnedSemaphorePermit>) {
        let chunk = self.chunk(event);
        self.waiting.lock().replies.push_back((chunk, place));
        self.note_depth();
        self.news.notify_one();
    }

    /// Puts in what is told at intervals, unless the one before still waits.
    pub(super) fn beat(&self, beat: Beat, event: &Event) {
        let chunk = self.chunk(event);
        let mut waiting = self.waiting.lock();
        let slot = match (beat, &mut waiting.beats) {
            (Beat::Heartbeat, [slot, _]) | (Beat::Stats, [_, slot]) => slot,
        };
        if slot.is_none() {
            *slot = Some(chunk);
        }
        drop(waiting);
        self.news.notify_one();
    }

    /// Waits for room and puts an event in.
    ///
    /// # Errors
    /// Nobody hears.
    pub(super) async fn send(&self, event: &Event) -> Result<(), Unheard> {
        self.put(self.chunk(event)).await
    }

    /// The same for bytes as they are.
    ///
    /// # Errors
    /// Nobody hears.
    pub(super) async fn send_bytes(&self, stream: Stream, bytes: &[u8]) -> Result<(), Unheard> {
        self.put(Chunk { stream, bytes: bytes.to_vec() }).await
    }

    async fn put(&self, chunk: Chunk) -> Result<(), Unheard> {
        let need = u32::try_from(chunk.room()).unwrap_or(u32::MAX);
        if self.room.available_permits() < chunk.room() {
            // Relaxed: a number that is shown.
            self.waits.fetch_add(1, Ordering::Relaxed);
        }
        let room = self.unheard.run_until_cancelled(self.room.acquire_many(need)).await;
        let Some(Ok(room)) = room else { return Err(Unheard) };
        // The writer gives it back.
        room.forget();
        self.waiting.lock().events.push_back(chunk);
        self.note_depth();
        self.news.notify_one();
        Ok(())
    }

    fn chunk(&self, event: &Event) -> Chunk {
        let line = |bytes| Chunk { stream: Stream::Output, bytes };
        match self.form {
            Form::Lines => line(event.clone().line()),
            Form::Pretty => {
                // As in a line, nothing fails.
                let mut lines = serde_json::to_vec_pretty(event).unwrap_or_default();
                lines.push(b'\n');
                line(lines)
            }
            Form::Raw => {
                let said = if let Event::Err(failed) = event {
                    format!("ssh-mcp-tail: {}: {}\n", failed.code, failed.reason)
                } else {
                    String::new()
                };
                Chunk { stream: Stream::Errors, bytes: said.into_bytes() }
            }
        }
    }

    /// Nothing is put in any more; the writer ends once it has written what waits.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.news.notify_one();
    }

    /// Ends once nobody hears.
    pub(super) async fn unheard(&self) {
        self.unheard.cancelled().await;
    }

    /// Whether nobody hears.
    pub(super) fn is_unheard(&self) -> bool {
        self.unheard.is_cancelled()
    }

    /// Chunks that wait.
    pub(super) fn depth(&self) -> u64 {
        let waiting = self.waiting.lock();
        (waiting.replies.len() + waiting.events.len()) as u64
    }

    /// The most that ever waited, and how often an event had to wait for room.
    pub(super) fn highest(&self) -> (u64, u64) {
        (self.most.load(Ordering::Relaxed), self.waits.load(Ordering::Relaxed))
    }

    fn note_depth(&self) {
        self.most.fetch_max(self.depth(), Ordering::Relaxed);
    }

    /// Writes what is put in until it is closed and everything is out, or nobody hears. One task runs it.
    pub(super) async fn write(
        &self,
        mut output: impl AsyncWrite + Unpin,
        mut errors: impl AsyncWrite + Unpin,
    ) {
        let mut batch = Batch::default();
        loop {
            match self.take(&mut batch) {
                Taken::Some => {}
                Taken::Nothing => {
                    self.news.notified().await;
                    continue;
                }
                Taken::End => return,
            }
            let written: io::Result<()> = async {
                if !batch.errors.is_empty() {
                    errors.write_all(&batch.errors).await?;
                    errors.flush().await?;
                }
                if !batch.output.is_empty() {
                    output.write_all(&batch.output).await?;
                    output.flush().await?;
                }
                Ok(())
            }
            .await;
            self.room.add_permits(batch.room);
            batch.clear();
            if written.is_err() {
                self.unheard.cancel();
                return self.waiting.lock().replies.clear();
            }
        }
    }

    /// Takes what is to be written next into an empty batch.
    fn take(&self, batch: &mut Batch) -> Taken {
        let mut waiting = self.waiting.lock();
        for (chunk, place) in std::mem::take(&mut waiting.replies) {
            batch.add(&chunk);
            batch.places.extend(place);
        }
        for slot in &mut waiting.beats {
            if let Some(chunk) = slot.take() {
                batch.add(&chunk);
            }
        }
        while batch.output.len() + batch.errors.len() < BATCH
            && let Some(chunk) = waiting.events.pop_front()
        {
            batch.room += chunk.room();
            batch.add(&chunk);
        }
        let is_empty = batch.output.is_empty() && batch.errors.is_empty() && batch.room == 0;
        match is_empty && batch.places.is_empty() {
            false => Taken::Some,
            true if waiting.closed => Taken::End,
            true => Taken::Nothing,
        }
    }
}

impl Batch {
    fn add(&mut self, chunk: &Chunk) {
        match chunk.stream {
            Stream::Output => self.output.extend_from_slice(&chunk.bytes),
            Stream::Errors => self.errors.extend_from_slice(&chunk.bytes),
        }
    }

    /// Gives the places back and keeps the memory for the next one, unless a single line made it large.
    fn clear(&mut self) {
        self.output.clear();
        self.output.shrink_to(2 * BATCH);
        self.errors.clear();
        self.errors.shrink_to(2 * BATCH);
        self.room = 0;
        self.places.clear();
    }
}

impl Chunk {
    /// What it takes up of the room for events; the largest finds room once the queue is empty.
    fn room(&self) -> usize {
        self.bytes.len().clamp(1, ROOM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ndjson::event::{Ack, Heartbeat, SubClosed};

    fn ack(id: u64) -> Event {
        Event::Ack(Box::new(Ack { cursor: Some(id), ..Ack::default() }))
    }

    fn news(reason: &str) -> Event {
        Event::SubClosed(SubClosed { reason: reason.to_owned(), ..SubClosed::default() })
    }

    #[tokio::test]
    async fn replies_are_written_before_events_and_heartbeats_do_not_pile_up() {
        let outbox = Outbox::new(Form::Lines);
        outbox.send(&news("first")).await.unwrap();
        outbox.reply(&ack(1), None);
        for uptime_s in 0..3 {
            let beat = Heartbeat { uptime_s, ..Heartbeat::default() };
            outbox.beat(Beat::Heartbeat, &Event::Heartbeat(beat));
        }
        outbox.send(&news("second")).await.unwrap();
        outbox.close();
        let mut written = Vec::new();
        outbox.write(&mut written, tokio::io::sink()).await;
        let text = String::from_utf8(written).unwrap();
        let order: Vec<&str> = text.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
        assert_eq!(order, ["ack", "heartbeat", "sub_closed", "sub_closed"]);
        assert!(text.contains("\"uptime_s\":0") && text.find("first") < text.find("second"), "{text}");
    }

    #[tokio::test]
    async fn events_wait_for_room_and_replies_do_not() {
        let outbox = Outbox::new(Form::Lines);
        let large = news(&"x".repeat(ROOM));
        outbox.send(&large).await.unwrap();
        let blocked = outbox.send(&large);
        tokio::pin!(blocked);
        assert!(tokio::time::timeout(std::time::Duration::ZERO, blocked.as_mut()).await.is_err());
        outbox.reply(&ack(1), None);
        let (mut written, mut errors) = (Vec::new(), tokio::io::sink());
        {
            let writing = outbox.write(&mut written, &mut errors);
            tokio::pin!(writing);
            tokio::select! {
                () = &mut writing => unreachable!("it is open"),
                sent = &mut blocked => assert_eq!(sent, Ok(())),
            }
            outbox.close();
            writing.await;
        }
        assert!(written.starts_with(b"{\"ev\":\"ack\"") && written.len() > 2 * ROOM);
        assert_eq!(outbox.highest().1, 1);
    }

    #[tokio::test]
    async fn a_consumer_that_is_gone_lets_nobody_wait() {
        let outbox = Outbox::new(Form::Lines);
        let (ours, theirs) = tokio::io::duplex(16);
        drop(theirs);
        outbox.reply(&ack(1), None);
        outbox.write(ours, tokio::io::sink()).await;
        outbox.unheard().await;
        let large = news(&"x".repeat(ROOM));
        let sent = [outbox.send(&large).await, outbox.send(&large).await];
        assert!(sent.contains(&Err(Unheard)), "{sent:?}");
    }
}
