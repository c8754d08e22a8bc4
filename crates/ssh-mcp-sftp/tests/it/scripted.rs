//! A file service that behaves as it is told: files in memory, SFTP version 3 over a channel in memory.
//!
//! Requests are served in their order, as every server does with those on one file; what [`Behaviour`] changes is what
//! becomes of the answers. The files outlive a channel, so that a transfer can go on over another. What a client must not
//! do to a server is kept as a complaint.

mod service;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use ssh_mcp_core::{
    history::Origin,
    port::{
        BoxFuture,
        ssh::{Channel, ChannelControl, ChannelEvent, ChannelEvents, ChannelGone, PtySize, Signal, Start},
    },
};

use service::{No, status, step};
pub(crate) use service::{packet, string};

/// A machine with files; clones are the same machine.
#[derive(Clone)]
pub(crate) struct ScriptedFiles {
    disk: Arc<Mutex<Disk>>,
}

/// How a service behaves on one channel.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    /// Decides what is left to chance.
    pub(crate) seed: u64,
    /// In which order answers come.
    pub(crate) order: Order,
    /// What is sent comes in pieces of at most so many bytes, whatever messages they cut or join.
    pub(crate) pieces: usize,
    /// A read gives at most so many bytes.
    pub(crate) most_read: usize,
    /// A listing gives at most so many names at a time.
    pub(crate) names_at_once: usize,
    /// Whether attributes have a size, which they need not.
    pub(crate) says_sizes: bool,
    /// Which of [`ALL`] it knows.
    pub(crate) extensions: &'static [&'static str],
    /// What `limits@openssh.com` says: message, read, write, handles. Nothing longer is put up with.
    pub(crate) limits: [u64; 4],
    /// What goes wrong, and where.
    pub(crate) upset: Option<Upset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// That of the requests, at once.
    Asked,
    /// Any, and not at once: whoever asks gets to ask more before an answer comes.
    Any,
}

/// What goes wrong at the `nth` request of a kind, the first being 0, or at [`ALWAYS`].
#[derive(Debug, Clone)]
pub(crate) struct Upset {
    pub(crate) step: Step,
    pub(crate) nth: usize,
    pub(crate) fate: Fate,
}

pub(crate) const ALWAYS: usize = usize::MAX;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// Not done, and this status.
    Status(u32, &'static str),
    /// Done, and never answered.
    Silence,
    /// Not done, and nothing behind it either: the channel reports this.
    End(ChannelEvent),
    /// Done, and answered by what this makes of the answer, its length included.
    Garbled(Garble),
}

pub(crate) type Garble = fn(&[u8]) -> Vec<u8>;

/// Kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Init,
    Open,
    Close,
    Read,
    Write,
    Stat,
    Fstat,
    Setstat,
    Fsetstat,
    Opendir,
    Readdir,
    Remove,
    Mkdir,
    Rmdir,
    Realpath,
    Rename,
    Readlink,
    Symlink,
    PosixRename,
    Fsync,
    Statvfs,
    Limits,
}

pub(crate) const ALL: &[&str] = &[POSIX_RENAME, FSYNC, STATVFS, LIMITS];

const POSIX_RENAME: &str = "posix-rename@openssh.com";
const FSYNC: &str = "fsync@openssh.com";
const STATVFS: &str = "statvfs@openssh.com";
const LIMITS: &str = "limits@openssh.com";

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            seed: 0,
            order: Order::Asked,
            pieces: usize::MAX,
            most_read: usize::MAX,
            names_at_once: usize::MAX,
            says_sizes: true,
            extensions: ALL,
            limits: [256 * 1024, 255 * 1024, 255 * 1024, 0],
            upset: None,
        }
    }
}

impl Behaviour {
    pub(crate) fn upset(step: Step, nth: usize, fate: Fate) -> Self {
        Self { upset: Some(Upset { step, nth, fate }), ..Self::default() }
    }
}

impl ScriptedFiles {
    /// One with an empty directory `/d`.
    pub(crate) fn new() -> Self {
        let directories = BTreeSet::from([b"/".to_vec(), b"/d".to_vec()]);
        Self { disk: Arc::new(Mutex::new(Disk { directories, ..Disk::default() })) }
    }

    pub(crate) fn put(&self, path: &[u8], content: &[u8]) {
        let file = File { content: content.to_vec(), mode: 0o644, times: (1, 2) };
        lock(&self.disk).files.insert(path.to_vec(), file);
    }

    /// Permission bits of a file, which may be changed.
    pub(crate) fn mode(&self, path: &[u8]) -> Option<u32> {
        lock(&self.disk).files.get(path).map(|file| file.mode)
    }

    pub(crate) fn set_mode(&self, path: &[u8], mode: u32) {
        lock(&self.disk).files.get_mut(path).expect("it is there").mode = mode;
    }

    pub(crate) fn content(&self, path: &[u8]) -> Option<Vec<u8>> {
        lock(&self.disk).files.get(path).map(|file| file.content.clone())
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Step> {
        lock(&self.disk).seen.clone()
    }

    /// Bytes of the longest read that was asked for, and of the longest write.
    pub(crate) fn longest(&self) -> (usize, usize) {
        lock(&self.disk).longest
    }

    /// What no client may do and this one did.
    pub(crate) fn complaints(&self) -> Vec<String> {
        lock(&self.disk).complaints.clone()
    }

    /// Channels the client has not closed.
    pub(crate) fn channels(&self) -> usize {
        lock(&self.disk).lines.iter().filter(|line| line.strong_count() > 0).count()
    }

    /// Files and directories that are open on any channel.
    pub(crate) fn handles(&self) -> usize {
        let lines: Vec<_> = lock(&self.disk).lines.iter().filter_map(Weak::upgrade).collect();
        lines.iter().map(|line| lock(line).handles.len()).sum()
    }

    /// A new channel, on which the service is started as `sftp`.
    pub(crate) fn channel(&self, behaviour: Behaviour) -> Channel {
        let line = Arc::new(Mutex::new(Line {
            disk: Arc::clone(&self.disk),
            random: Random(behaviour.seed),
            behaviour,
            asked: BytesMut::new(),
            seen: Vec::new(),
            handles: BTreeMap::new(),
            handle: 0,
            answers: Vec::new(),
            sent: BytesMut::new(),
            events: VecDeque::new(),
            is_over: false,
            reader: None,
        }));
        lock(&self.disk).lines.push(Arc::downgrade(&line));
        Channel { events: Box::new(Events(Arc::clone(&line))), control: Arc::new(Control(line)) }
    }
}

#[derive(Default)]
struct Disk {
    files: BTreeMap<Vec<u8>, File>,
    directories: BTreeSet<Vec<u8>>,
    /// Where links lead.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    seen: Vec<Step>,
    longest: (usize, usize),
    complaints: Vec<String>,
    lines: Vec<Weak<Mutex<Line>>>,
}

struct File {
    content: Vec<u8>,
    mode: u32,
    times: (u32, u32),
}

/// What is open.
enum Open {
    File(Vec<u8>),
    /// Names that are still to be listed.
    Directory(VecDeque<Vec<u8>>),
}

/// One channel.
struct Line {
    disk: Arc<Mutex<Disk>>,
    behaviour: Behaviour,
    random: Random,
    /// Of a message that is not all there.
    asked: BytesMut,
    seen: Vec<Step>,
    handles: BTreeMap<Bytes, Open>,
    handle: u32,
    answers: Vec<Vec<u8>>,
    /// On its way to the client.
    sent: BytesMut,
    /// Reported behind what is on its way.
    events: VecDeque<ChannelEvent>,
    is_over: bool,
    reader: Option<Waker>,
}

impl Line {
    fn on_bytes(&mut self, bytes: &[u8]) {
        self.asked.extend_from_slice(bytes);
        while let Some(length) = self.asked.first_chunk::<4>().map(|head| u32::from_be_bytes(*head) as usize)
        {
            if self.asked.len() < 4 + length || self.is_over {
                break;
            }
            if length as u64 > self.most(0) {
                self.complain(format!("a message of {length} bytes"));
            }
            let mut message = self.asked.split_to(4 + length).freeze().split_off(4);
            let (kind, id) = (message.get_u8(), message.get_u32());
            self.on_request(kind, id, message);
        }
    }

    fn on_request(&mut self, kind: u8, id: u32, mut body: Bytes) {
        let step = step(kind, &mut body);
        let nth = self.seen.iter().filter(|before| **before == step).count();
        self.seen.push(step);
        self.disk().seen.push(step);
        let is_now = |upset: &Upset| upset.step == step && (upset.nth == nth || upset.nth == ALWAYS);
        let upset = self.behaviour.upset.clone().filter(is_now);
        let answer = match upset.map(|upset| upset.fate) {
            None => self.answer(step, id, body),
            Some(Fate::Status(code, words)) => packet(id, status(code, words)),
            Some(Fate::Silence) => {
                self.answer(step, id, body);
                return;
            }
            Some(Fate::End(event)) => {
                self.events.push_back(event);
                self.is_over = true;
                return;
            }
            Some(Fate::Garbled(garble)) => garble(&self.answer(step, id, body)),
        };
        self.answers.push(answer);
    }

    fn answer(&mut self, step: Step, id: u32, body: Bytes) -> Vec<u8> {
        if step == Step::Init {
            let names = self.behaviour.extensions.iter();
            return packet(
                3,
                (2, names.flat_map(|name| [string(name.as_bytes()), string(b"1")].concat()).collect()),
            );
        }
        packet(id, self.serve(step, body).unwrap_or_else(|No(code, words)| status(code, words)))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    fn complain(&self, what: String) {
        self.disk().complaints.push(what);
    }

    /// Bytes of a message (0), a read (1) or a write (2) that this server takes.
    fn most(&self, which: usize) -> u64 {
        match (self.behaviour.extensions.contains(&LIMITS), self.behaviour.limits[which]) {
            // Section 3 of the draft: 34000 bytes of a message, with 32768 bytes of data.
            (false, _) => [34_000, 32_768, 32_768][which],
            (true, 0) => u64::MAX,
            (true, most) => most,
        }
    }
}

struct Control(Arc<Mutex<Line>>);

impl Control {
    fn with(
        &self,
        act: impl FnOnce(&mut Line) + Send + 'static,
    ) -> BoxFuture<'static, Result<(), ChannelGone>> {
        let line = Arc::clone(&self.0);
        Box::pin(async move {
            let mut line = lock(&line);
            if line.is_over {
                return Err(ChannelGone);
            }
            act(&mut line);
            if let Some(reader) = line.reader.take() {
                reader.wake();
            }
            Ok(())
        })
    }
}

impl ChannelControl for Control {
    fn start(&self, start: Start) -> BoxFuture<'static, Result<(), ChannelGone>> {
        assert_eq!(start, Start::Subsystem("sftp"));
        self.with(|line| line.events.push_back(ChannelEvent::Started))
    }

    fn send(&self, bytes: Bytes) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.with(move |line| line.on_bytes(&bytes))
    }

    fn finish_input(&self) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.with(|_| {})
    }

    fn signal(&self, _signal: Signal) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.with(|_| {})
    }

    fn resize(&self, _size: PtySize) -> BoxFuture<'static, Result<(), ChannelGone>> {
        self.with(|_| {})
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let closed = self.with(|line| line.is_over = true);
        Box::pin(async { _ = closed.await })
    }
}

struct Events(Arc<Mutex<Line>>);

impl ChannelEvents for Events {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        let Line { behaviour, random, answers, sent, events, reader, .. } = &mut *lock(&self.0);
        match behaviour.order {
            Order::Asked => answers.drain(..).for_each(|answer| sent.extend_from_slice(&answer)),
            Order::Any if answers.is_empty() => {}
            Order::Any if random.below(3) > 0 => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Order::Any => {
                let any = random.below(answers.len());
                sent.extend_from_slice(&answers.swap_remove(any));
            }
        }
        if !sent.is_empty() {
            let len = 1 + random.below(behaviour.pieces.min(sent.len()));
            return Poll::Ready(ChannelEvent::Data(Origin::Stdout, sent.split_to(len).freeze()));
        }
        if let Some(event) = events.pop_front() {
            return Poll::Ready(event);
        }
        *reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
