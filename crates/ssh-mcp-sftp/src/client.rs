//! Requests and their answers over one channel, any number under way.
//!
//! One task sends what is queued and reads what comes; it ends with the client, and with it the channel. A caller that
//! goes away leaves nothing behind: an answer nobody waits for is dropped, and a handle nobody wants is closed.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use ssh_mcp_core::{
    history::Origin,
    port::{
        fs::{FsError, FsErrorKind},
        ssh::{Channel, ChannelControl, ChannelEvent, ChannelEvents, ChannelGone, Start},
    },
    text::remote_words,
};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::Instant,
};

use crate::wire::{Answer, Decoder, Incoming, Request, WireError, request};

/// The client's side of one SFTP service.
pub(crate) struct Client {
    shared: Arc<Shared>,
    number: AtomicU32,
    _task: JoinSet<()>,
}

/// What the server says of itself.
pub(crate) struct Hello {
    /// Names of extensions, and their data.
    pub(crate) extensions: Vec<(Bytes, Bytes)>,
    /// From the greeting to its answer.
    pub(crate) took: Duration,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Rung when something is to be sent.
    filled: Notify,
    /// Counts what the channel took and gave.
    pulse: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    /// As long as callers make it: what waits here has a caller who waits, too.
    queue: Vec<Packet>,
    answers: HashMap<u32, oneshot::Sender<Answer>>,
    /// Why nothing is answered any more.
    gone: Option<FsError>,
}

/// A request that has been sent.
pub(crate) struct Asked {
    answered: oneshot::Receiver<Answer>,
    shared: Arc<Shared>,
}

impl Asked {
    /// Waits for the answer.
    pub(crate) async fn answer(self) -> Result<Answer, FsError> {
        self.answered.await.map_err(|_| self.shared.why())
    }
}

/// A message to send: what was written for it, and data that follows as it is.
struct Packet {
    head: Bytes,
    data: Bytes,
}

impl Client {
    /// Starts the service and greets it.
    pub(crate) async fn open(channel: Channel) -> Result<(Self, Hello), FsError> {
        let Channel { events, control } = channel;
        control.start(Start::Subsystem("sftp")).await.map_err(|_| gone("the channel is closed"))?;
        let shared = Arc::<Shared>::default();
        let (greeted, greeting) = oneshot::channel();
        let mut task = JoinSet::new();
        let began = Instant::now();
        shared.send(&mut shared.waiting(), Request::greeting(), Bytes::new());
        task.spawn(drive(Arc::clone(&shared), events, control, greeted));
        match greeting.await {
            Ok(extensions) => {
                let client = Self { shared, number: AtomicU32::new(0), _task: task };
                Ok((client, Hello { extensions, took: began.elapsed() }))
            }
            Err(_) => Err(shared.why()),
        }
    }

    /// Sends a request, now.
    pub(crate) fn ask(&self, kind: u8, data: Bytes, write: impl FnOnce(Request) -> Request) -> Asked {
        self.shared.ask(self.number.fetch_add(1, Ordering::Relaxed), kind, data, write)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.shared.waiting().gone.is_some()
    }

    pub(crate) fn pulse(&self) -> u64 {
        self.shared.pulse.load(Ordering::Relaxed)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // What has been asked may outlive it, and the task that would answer ends here.
        self.shared.end(gone("the file service was given up"));
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat(&self) {
        self.pulse.fetch_add(1, Ordering::Relaxed);
    }

    fn why(&self) -> FsError {
        self.waiting().gone.clone().unwrap_or_else(|| gone("the file service has ended"))
    }

    fn send(&self, waiting: &mut Waiting, head: Bytes, data: Bytes) {
        waiting.queue.push(Packet { head, data });
        self.filled.notify_one();
    }

    fn ask(
        self: &Arc<Self>,
        number: u32,
        kind: u8,
        data: Bytes,
        write: impl FnOnce(Request) -> Request,
    ) -> Asked {
        let (answer, answered) = oneshot::channel();
        let head = write(Request::new(kind, number)).finish(data.len());
        {
            let mut waiting = self.waiting();
            if waiting.gone.is_none() {
                waiting.answers.insert(number, answer);
                self.send(&mut waiting, head, data);
            }
        }
        Asked { answered, shared: Arc::clone(self) }
    }

    /// Gives an answer to whoever waits for it.
    fn settle(self: &Arc<Self>, number: u32, answer: Answer) -> Result<(), WireError> {
        let waiter = self.waiting().answers.remove(&number).ok_or(WireError::Malformed)?;
        if let Err(Answer::Handle(handle)) = waiter.send(answer) {
            // A number of its own is not needed: nobody asks for another while this one is in use.
            drop(self.ask(number, request::CLOSE, Bytes::new(), |close| close.string(&handle)));
        }
        Ok(())
    }

    /// Nothing will be answered any more.
    fn end(&self, why: FsError) {
        let mut waiting = self.waiting();
        waiting.gone = Some(why);
        // Whoever waits finds the reason once its sender is gone.
        let answers = std::mem::take(&mut waiting.answers);
        waiting.queue.clear();
        drop(waiting);
        drop(answers);
    }
}

async fn drive(
    shared: Arc<Shared>,
    events: Box<dyn ChannelEvents>,
    control: Arc<dyn ChannelControl>,
    greeted: oneshot::Sender<Vec<(Bytes, Bytes)>>,
) {
    let why = tokio::select! {
        why = read(&shared, events, greeted) => why,
        () = write(&shared, &*control) => gone("the channel takes nothing any more"),
    };
    shared.end(why);
}

/// Sends what is queued, for ever; small messages that are there together go together.
async fn write(shared: &Shared, control: &dyn ChannelControl) {
    loop {
        shared.filled.notified().await;
        let packets = std::mem::take(&mut shared.waiting().queue);
        if send(shared, control, packets).await.is_err() {
            // The channel is closed, and its events say why.
            return std::future::pending().await;
        }
    }
}

async fn send(
    shared: &Shared,
    control: &dyn ChannelControl,
    packets: Vec<Packet>,
) -> Result<(), ChannelGone> {
    let mut small = BytesMut::new();
    for Packet { head, data } in packets {
        small.extend_from_slice(&head);
        if !data.is_empty() {
            control.send(small.split().freeze()).await?;
            control.send(data).await?;
            shared.beat();
        }
    }
    if !small.is_empty() {
        control.send(small.freeze()).await?;
    }
    Ok(())
}

/// Reads until there is nothing more to read; the answer says why.
async fn read(
    shared: &Arc<Shared>,
    mut events: Box<dyn ChannelEvents>,
    greeted: oneshot::Sender<Vec<(Bytes, Bytes)>>,
) -> FsError {
    let mut decoder = Decoder::default();
    let mut greeted = Some(greeted);
    loop {
        match poll_fn(|cx| events.poll_event(cx)).await {
            ChannelEvent::Data(Origin::Stdout, bytes) => {
                shared.beat();
                decoder.feed(bytes);
                loop {
                    let settled = match decoder.next() {
                        Ok(None) => break,
                        Ok(Some(Incoming::Answer(number, answer))) => shared.settle(number, answer),
                        Ok(Some(Incoming::Version(_, extensions))) => match greeted.take() {
                            Some(greeted) => {
                                // Whoever opens may have gone away; the task ends with it.
                                _ = greeted.send(extensions);
                                Ok(())
                            }
                            None => Err(WireError::Malformed),
                        },
                        Err(error) => Err(error),
                    };
                    if let Err(error) = settled {
                        return FsError {
                            kind: FsErrorKind::Protocol,
                            cause: remote_words(&error.to_string()),
                        };
                    }
                }
            }
            ChannelEvent::Data(..) | ChannelEvent::Started => {}
            ChannelEvent::Refused { .. } => return gone("the server has no SFTP subsystem"),
            // No answer comes behind the end of the output, whether or not the server then closes the channel.
            ChannelEvent::Eof
            | ChannelEvent::ExitStatus(_)
            | ChannelEvent::ExitSignal { .. }
            | ChannelEvent::Closed => {
                return gone("the server has ended the file service");
            }
            ChannelEvent::Lost(lost) => return gone(&lost.to_string()),
        }
    }
}

fn gone(cause: &str) -> FsError {
    FsError { kind: FsErrorKind::Gone, cause: remote_words(cause) }
}
