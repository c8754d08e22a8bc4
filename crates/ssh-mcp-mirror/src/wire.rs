//! Mirroring by rsync's protocol: a server at the other end of a channel, and our side of the dialogue.
//!
//! This file awaits; what it awaits for are bytes. They go through bounded queues to a thread that does the rest, the dialogue
//! and the files, so hashing and disks hold up no other task. While a send waits for the server, input is taken all the same:
//! what opens the window for the send comes behind it.
//!
//! | File | Holds |
//! | --- | --- |
//! | `plan` | a job as options of rsync |
//! | `backlog` | what has come and waits for the thread |
//! | `line` | the stream as the thread sees it: handshake, data, messages |
//! | `upload`, `download` | our side of the dialogue |
//! | `words` | what the server wrote to its standard error, and what that says of single files |

mod backlog;
mod download;
mod line;
mod plan;
mod upload;
mod words;

use std::{
    future::{pending, poll_fn},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rsync_wire::role::ExitCode;
use ssh_mcp_core::{
    history::Origin,
    port::{
        BoxFuture,
        mirror::{Broken, BrokenKind, Done, NewsDesk},
        ssh::{Channel, ChannelControl, ChannelEvent, ChannelEvents, ChannelGone, Start},
    },
    registry::Direction,
    text::remote_words,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

pub use plan::Plan;

use crate::effort::Effort;
use backlog::Backlog;
use line::{Failure, Finished, Line};
use words::Words;

/// Pieces of output that wait to be sent, each of up to [`line::PIECE`] bytes.
const OUTBOX_PIECES: usize = 8;

/// Pieces of input that are given to the thread before it takes them.
const INBOX_PIECES: usize = 8;

/// Nothing moves for so long: the run is given up. A server is silent while it hashes or scans, so this is long.
const SILENCE: Duration = Duration::from_secs(600);

/// How long the server has to end after the last word, and after a broken one.
const TO_END: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(5));

/// How long the thread has to end after everything was taken from it; a disk may hang.
const THREAD_TO_END: Duration = Duration::from_secs(10);

/// Runs a plan with a server that it starts on the channel.
pub async fn run(
    channel: Channel,
    plan: Plan,
    news: Arc<dyn NewsDesk>,
    stop: BoxFuture<'static, ()>,
) -> Result<Done, Broken> {
    let command = plan.command()?;
    let root = plan.job.remote.clone();
    let Channel { events, control } = channel;
    if control.start(Start::Exec { command, pty: None }).await.is_err() {
        return Err(broken(BrokenKind::Lost, "the channel is closed".to_owned(), false));
    }
    let (input, from_server) = mpsc::channel(INBOX_PIECES);
    let (to_server, output) = mpsc::channel(OUTBOX_PIECES);
    let flags = Flags::default();
    // A server that sends is told the limit; one that receives is sent no more than that.
    let rate = match plan.job.direction {
        Direction::Upload => plan.job.bwlimit.map(|kib| kib.max(1).saturating_mul(1024)),
        Direction::Download => None,
    };
    let line = Line::new(from_server, to_server, rate, flags.clone());
    let backlog = Backlog::new(plan.job.direction);
    let worker = {
        let news = Arc::clone(&news);
        tokio::task::spawn_blocking(move || match plan.job.direction {
            Direction::Upload => upload::run(line, &plan, &*news),
            Direction::Download => download::run(line, &plan, &*news),
        })
    };
    let mut pump = Pump {
        events,
        control,
        backlog,
        input: Some(input),
        output: Some(output),
        rate,
        free: Instant::now(),
        flags,
        exit: None,
        ending: None,
    };
    let result = pump.run(worker, stop).await;
    pump.judge(result, &root, &*news)
}

/// What the thread and who waits for it tell each other without a queue.
#[derive(Clone, Default)]
struct Flags {
    /// The data of a file has begun to move, or the server has changed something.
    touched: Arc<AtomicBool>,
    effort: Arc<Effort>,
    /// What the server has to say of failures, by whichever way.
    words: Arc<Mutex<Words>>,
}

impl Flags {
    fn touch(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever drops the run has its thread stop.
impl Drop for Pump {
    fn drop(&mut self) {
        self.flags.effort.end();
    }
}

/// What the thread came back with, or why it was not waited for.
type Outcome = Result<Finished, Failure>;

/// What moves bytes between the channel and the thread.
struct Pump {
    events: Box<dyn ChannelEvents>,
    control: Arc<dyn ChannelControl>,
    backlog: Backlog,
    /// Gone when the server sends no more, or nobody takes it.
    input: Option<mpsc::Sender<Bytes>>,
    /// Gone when the thread has nothing more to say.
    output: Option<mpsc::Receiver<Bytes>>,
    /// Bytes a second that are not exceeded.
    rate: Option<u64>,
    /// When the next piece may go.
    free: Instant,
    flags: Flags,
    exit: Option<Exit>,
    /// Why no more events come.
    ending: Option<Ending>,
}

/// How the server's process ended.
enum Exit {
    Status(u32),
    Signal(String),
}

/// What the pump wakes for.
enum Happened {
    Event(ChannelEvent),
    /// The thread takes a piece of input.
    Wanted,
    /// The thread takes no more.
    Unwanted,
    /// Output; none is the end of it.
    Piece(Option<Bytes>),
    Sent(Result<(), ChannelGone>),
    Worked(Outcome),
    Stop,
    Nothing,
}

enum Ending {
    Closed,
    Lost(String),
    Refused,
}

impl Pump {
    /// Until the thread is done and the server has ended, or one of them is given up.
    async fn run(&mut self, mut worker: JoinHandle<Outcome>, mut stop: BoxFuture<'static, ()>) -> Outcome {
        let mut sending: Option<BoxFuture<'static, Result<(), ChannelGone>>> = None;
        let mut outcome: Option<Outcome> = None;
        let mut moved = self.now();
        let mut is_finished = false;
        // Until when the server may take to end, once there is nothing more to say.
        let mut until = None;
        loop {
            if let Some(outcome) = outcome.take_if(|_| self.ending.is_some()) {
                return outcome;
            }
            let is_sending = sending.is_some();
            let next_piece = async {
                match (&mut self.output, is_sending) {
                    (Some(output), false) => {
                        sleep_until(self.free).await;
                        output.recv().await
                    }
                    (Some(_) | None, _) => pending().await,
                }
            };
            let sent = async {
                match &mut sending {
                    Some(sending) => sending.await,
                    None => pending().await,
                }
            };
            let wanted = async {
                match &self.input {
                    Some(input) if !self.backlog.is_empty() => match input.reserve().await {
                        Ok(_) => Happened::Wanted,
                        Err(_) => Happened::Unwanted,
                    },
                    Some(input) => {
                        input.closed().await;
                        Happened::Unwanted
                    }
                    None => pending().await,
                }
            };
            let silent = moved.0 + SILENCE;
            let wake = until.map_or(silent, |until: Instant| until.min(silent));
            let is_open = self.ending.is_none() && self.backlog.has_room();
            let happened = tokio::select! {
                event = poll_fn(|cx| self.events.poll_event(cx)), if is_open => Happened::Event(event),
                wanted = wanted => wanted,
                piece = next_piece => Happened::Piece(piece),
                sent = sent => Happened::Sent(sent),
                result = &mut worker, if outcome.is_none() => {
                    Happened::Worked(result.unwrap_or(Err(Failure::Crashed)))
                }
                () = &mut stop => Happened::Stop,
                () = sleep_until(wake) => Happened::Nothing,
            };
            match happened {
                Happened::Event(event) => {
                    moved = self.now();
                    self.on_event(event);
                    // A server that never stops talking holds up no other task, nor the word to stop.
                    tokio::task::coop::consume_budget().await;
                }
                Happened::Wanted => {
                    // There is room, and nobody else sends.
                    if let (Some(input), Some(piece)) = (&self.input, self.backlog.pop()) {
                        _ = input.try_send(piece);
                    }
                }
                Happened::Unwanted => {
                    self.drop_input();
                    // A thread that has failed waits for nothing that is sent.
                    if self.flags.effort.is_over() {
                        self.output = None;
                    }
                }
                Happened::Piece(Some(piece)) => {
                    if let Some(rate) = self.rate {
                        self.free = Instant::now() + line::time_for(piece.len(), rate);
                    }
                    sending = Some(self.control.send(piece));
                }
                Happened::Piece(None) => self.output = None,
                Happened::Sent(result) => {
                    moved = self.now();
                    sending = None;
                    if result.is_err() {
                        self.output = None;
                    }
                }
                Happened::Worked(result) => {
                    until = Some(Instant::now() + if result.is_ok() { TO_END.0 } else { TO_END.1 });
                    outcome = Some(result);
                    self.drop_input();
                }
                Happened::Stop => {
                    self.abandon(outcome.is_none().then_some(worker)).await;
                    return Err(Failure::Stopped);
                }
                Happened::Nothing => {}
            }
            // The server sends no more: the thread learns that when it has taken the rest.
            if self.ending.is_some() && self.backlog.is_empty() {
                self.input = None;
            }
            if outcome.is_some() && self.output.is_none() && sending.is_none() && !is_finished {
                // Everything is said. A channel that is closed needs not be told.
                _ = self.control.finish_input().await;
                is_finished = true;
            }
            if let Some(outcome) = outcome.take_if(|_| until.is_some_and(|until| until <= Instant::now())) {
                self.control.close().await;
                return outcome;
            }
            if moved.0.elapsed() >= SILENCE {
                if self.flags.effort.beats() == moved.1 {
                    self.abandon(outcome.is_none().then_some(worker)).await;
                    return Err(Failure::Silence);
                }
                // The line is silent because this side works.
                moved = self.now();
            }
        }
    }

    /// The time, and what the thread has done by then.
    fn now(&self) -> (Instant, u64) {
        (Instant::now(), self.flags.effort.beats())
    }

    fn on_event(&mut self, event: ChannelEvent) {
        match event {
            ChannelEvent::Data(Origin::Stdout, bytes) => {
                if self.input.is_some() {
                    self.backlog.push(bytes);
                }
            }
            ChannelEvent::Data(Origin::Stderr, bytes) => self.flags.words().add(&bytes),
            ChannelEvent::ExitStatus(status) => self.exit = Some(Exit::Status(status)),
            ChannelEvent::ExitSignal { name } => self.exit = Some(Exit::Signal(remote_words(&name))),
            ChannelEvent::Closed => self.ending = Some(Ending::Closed),
            ChannelEvent::Lost(lost) => self.ending = Some(Ending::Lost(lost.cause)),
            ChannelEvent::Refused { .. } => self.ending = Some(Ending::Refused),
            ChannelEvent::Started | ChannelEvent::Eof => {}
        }
    }

    fn drop_input(&mut self) {
        self.input = None;
        self.backlog.clear();
    }

    /// Takes everything from the thread and the server, and waits for the thread to have tidied up.
    async fn abandon(&mut self, worker: Option<JoinHandle<Outcome>>) {
        self.flags.effort.end();
        self.drop_input();
        self.output = None;
        self.control.close().await;
        if let Some(worker) = worker {
            _ = timeout(THREAD_TO_END, worker).await;
        }
    }

    /// What the run came to, from what both sides say.
    fn judge(self, outcome: Outcome, remote_root: &[u8], news: &dyn NewsDesk) -> Result<Done, Broken> {
        let touched = self.flags.touched.load(Ordering::Relaxed);
        if let Some(Ending::Lost(cause)) = &self.ending
            && !matches!(outcome, Err(Failure::Stopped))
        {
            return Err(broken(BrokenKind::Lost, format!("connection lost: {cause}"), touched));
        }
        let words = self.flags.words();
        let said = words.text();
        let ended = match (&self.exit, &self.ending) {
            (_, Some(Ending::Refused)) => "the server refuses to run commands".to_owned(),
            (Some(Exit::Status(status)), _) => format!("rsync on the far side ended with code {status}"),
            (Some(Exit::Signal(name)), _) => format!("rsync on the far side was ended by SIG{name}"),
            (None, _) => String::new(),
        };
        let remote = match &self.exit {
            Some(Exit::Status(status)) => ExitCode(*status),
            Some(Exit::Signal(_)) => ExitCode::STOPPED,
            None => ExitCode::OK,
        };
        let detail = |ours: &str| {
            let parts = [ours, said.trim(), ended.as_str()];
            parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("; ")
        };
        let partial = if touched { BrokenKind::Partial } else { BrokenKind::Protocol };
        match outcome {
            Ok(finished) => {
                let code = finished.verdict.code(remote);
                if finished.is_empty && code != ExitCode::OK {
                    return Err(broken(BrokenKind::Refused, detail("there is no source"), touched));
                }
                if code.is_complete() {
                    words.tell_failures(&finished.refused, code, remote_root, news);
                    return Ok(finished.done);
                }
                Err(broken(partial, detail(""), touched))
            }
            Err(Failure::Stopped) => Err(broken(BrokenKind::Stopped, "stopped".to_owned(), touched)),
            Err(Failure::Ended) => Err(broken(partial, detail("the stream ended early"), touched)),
            Err(Failure::Silence) => {
                let words = format!("nothing moved for {} s", SILENCE.as_secs());
                Err(broken(BrokenKind::Partial, detail(&words), touched))
            }
            Err(Failure::GaveUp) => Err(broken(partial, detail("rsync on the far side gave up"), touched)),
            Err(Failure::Refused(words)) => Err(broken(BrokenKind::Refused, words, touched)),
            Err(Failure::TooLarge(words)) => Err(broken(BrokenKind::ListTooLarge, words, touched)),
            Err(Failure::Protocol(words)) => Err(broken(BrokenKind::Protocol, detail(&words), touched)),
            Err(Failure::Crashed) => Err(broken(partial, "internal error".to_owned(), touched)),
        }
    }
}

fn broken(kind: BrokenKind, detail: String, touched: bool) -> Broken {
    Broken { kind, detail, touched }
}
