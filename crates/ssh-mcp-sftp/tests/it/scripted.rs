//! A file service that behaves as it is told: files in memory, SFTP version 3 over a channel in memory.
//!
//! Requests are served in their order, as every server does with those on one file; what [`Behaviour`] changes is what
//! becomes of the answers. The files outlive a channel, so that a transfer can go on over another. What a client must not
//! do to a server is kept as a complaint.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ssh_mcp_core::{
    history::Origin,
    port::{
        BoxFuture,
        ssh::{Channel, ChannelControl, ChannelEvent, ChannelEvents, ChannelGone, PtySize, Signal, Start},
    },
};

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
    Realpath,
    Rename,
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

/// What a request is answered with: a type and what follows its number.
type Said = (u8, Vec<u8>);

/// A status.
struct No(u32, &'static str);

const MISSING: No = No(2, "No such file");
const FAILURE: No = No(4, "Failure");
const BAD: No = No(5, "Bad message");

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

    fn serve(&mut self, step: Step, mut body: Bytes) -> Result<Said, No> {
        let done = Ok(status(0, "Success"));
        match step {
            Step::Init => Err(BAD),
            Step::Open => {
                let (path, flags) = (take(&mut body), body.get_u32());
                let mode = attributes(&mut body).1.unwrap_or(0o666);
                let (create, truncate) = (flags & 8 != 0, flags & 16 != 0);
                let mut disk = self.disk();
                if disk.directories.contains(&*path) {
                    return Err(FAILURE);
                }
                if !disk.files.contains_key(&*path) && (!create || !disk.directories.contains(parent(&path)))
                {
                    return Err(MISSING);
                }
                let new = || File { content: Vec::new(), mode, times: (1, 2) };
                let file = disk.files.entry(path.to_vec()).or_insert_with(new);
                if truncate {
                    file.content.clear();
                }
                drop(disk);
                Ok(self.handle(Open::File(path.to_vec())))
            }
            Step::Opendir => {
                let path = take(&mut body);
                let disk = self.disk();
                if !disk.directories.contains(&*path) {
                    return Err(MISSING);
                }
                let below = disk.files.keys().chain(&disk.directories);
                let below = below.filter(|other| other.len() > 1 && parent(other) == &*path);
                let below = below.filter_map(|other| other.rsplit(|byte| *byte == b'/').next());
                let names = [&b"."[..], b".."].into_iter().chain(below).map(<[u8]>::to_vec).collect();
                drop(disk);
                Ok(self.handle(Open::Directory(names)))
            }
            Step::Readdir => {
                let handle = take(&mut body);
                let most = self.behaviour.names_at_once;
                let Some(Open::Directory(names)) = self.handles.get_mut(&handle) else { return Err(BAD) };
                let some: Vec<_> = names.drain(..most.min(names.len())).collect();
                if some.is_empty() {
                    return Err(No(1, "End of file"));
                }
                Ok(listed(&some))
            }
            Step::Close => match self.handles.remove(&take(&mut body)) {
                Some(_) => done,
                None => Err(self.unknown_handle()),
            },
            Step::Read => {
                let path = self.opened(&mut body)?;
                let (offset, len) = (body.get_u64(), body.get_u32() as usize);
                if len as u64 > self.most(1) {
                    self.complain(format!("a read of {len} bytes"));
                }
                let most = self.behaviour.most_read.min(len);
                let mut disk = self.disk();
                disk.longest.0 = disk.longest.0.max(len);
                let content = &disk.files.get(&path).ok_or(MISSING)?.content;
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
                match &content[from..content.len().min(from.saturating_add(most))] {
                    [] => Err(No(1, "End of file")),
                    piece => Ok((103, string(piece))),
                }
            }
            Step::Write => {
                let path = self.opened(&mut body)?;
                let (offset, data) = (body.get_u64() as usize, take(&mut body));
                if data.len() as u64 > self.most(2) {
                    self.complain(format!("a write of {} bytes", data.len()));
                }
                let mut disk = self.disk();
                disk.longest.1 = disk.longest.1.max(data.len());
                let content = &mut disk.files.get_mut(&path).ok_or(MISSING)?.content;
                content.resize(content.len().max(offset + data.len()), 0);
                content[offset..offset + data.len()].copy_from_slice(&data);
                done
            }
            Step::Stat => {
                let path = take(&mut body);
                self.said_of(&path)
            }
            Step::Fstat => {
                let path = self.opened(&mut body)?;
                self.said_of(&path)
            }
            Step::Setstat | Step::Fsetstat => {
                let path =
                    if step == Step::Setstat { take(&mut body).to_vec() } else { self.opened(&mut body)? };
                let (size, mode, times) = attributes(&mut body);
                let mut disk = self.disk();
                let file = disk.files.get_mut(&path).ok_or(MISSING)?;
                file.content.resize(size.map_or(file.content.len(), |size| size as usize), 0);
                file.mode = mode.unwrap_or(file.mode);
                file.times = times.unwrap_or(file.times);
                done
            }
            Step::Remove => match self.disk().files.remove(&*take(&mut body)) {
                Some(_) => done,
                None => Err(MISSING),
            },
            Step::Mkdir => match self.disk().directories.insert(take(&mut body).to_vec()) {
                true => done,
                false => Err(FAILURE),
            },
            Step::Realpath => {
                let path = take(&mut body);
                Ok(listed(&[if path == "." { b"/d".to_vec() } else { path.to_vec() }]))
            }
            Step::Rename | Step::PosixRename => {
                let (from, to) = (take(&mut body), take(&mut body));
                let mut disk = self.disk();
                // The plain one is that of the draft: never onto what is there.
                if step == Step::Rename && disk.files.contains_key(&*to) {
                    return Err(FAILURE);
                }
                let file = disk.files.remove(&*from).ok_or(MISSING)?;
                disk.files.insert(to.to_vec(), file);
                done
            }
            Step::Fsync => self.opened(&mut body).and(done),
            Step::Statvfs => {
                // Blocks of a byte, 1 TiB of them.
                let (free, numbers) = (1_u64 << 40, [1, 1, 1 << 41]);
                let numbers = numbers.into_iter().chain([free, free, 9, 9, 9, 7, 0, 255]);
                Ok((201, numbers.flat_map(u64::to_be_bytes).collect()))
            }
            Step::Limits => Ok((201, self.behaviour.limits.into_iter().flat_map(u64::to_be_bytes).collect())),
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    fn complain(&self, what: String) {
        self.disk().complaints.push(what);
    }

    fn unknown_handle(&self) -> No {
        self.complain("a handle that is not open".to_owned());
        BAD
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

    /// Handles are no text, as those of OpenSSH are not.
    fn handle(&mut self, open: Open) -> Said {
        self.handle += 1;
        let handle = Bytes::from([&b"\xff\x00"[..], &self.handle.to_be_bytes()].concat());
        self.handles.insert(handle.clone(), open);
        (102, string(&handle))
    }

    fn opened(&mut self, body: &mut Bytes) -> Result<Vec<u8>, No> {
        match self.handles.get(&take(body)) {
            Some(Open::File(path)) => Ok(path.clone()),
            Some(Open::Directory(_)) | None => Err(self.unknown_handle()),
        }
    }

    fn said_of(&self, path: &[u8]) -> Result<Said, No> {
        let disk = self.disk();
        if disk.directories.contains(path) {
            return Ok((105, [&4_u32.to_be_bytes()[..], &0o040_755_u32.to_be_bytes()].concat()));
        }
        let file = disk.files.get(path).ok_or(MISSING)?;
        let mut said = vec![0, 0, 0, 0xc];
        if self.behaviour.says_sizes {
            said[3] |= 1;
            said.put_u64(file.content.len() as u64);
        }
        said.put_u32(0o100_000 | file.mode);
        said.put_u32(file.times.0);
        said.put_u32(file.times.1);
        Ok((105, said))
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

fn step(kind: u8, body: &mut Bytes) -> Step {
    match kind {
        1 => Step::Init,
        3 => Step::Open,
        4 => Step::Close,
        5 => Step::Read,
        6 => Step::Write,
        7 | 17 => Step::Stat,
        8 => Step::Fstat,
        9 => Step::Setstat,
        10 => Step::Fsetstat,
        11 => Step::Opendir,
        12 => Step::Readdir,
        13 => Step::Remove,
        14 => Step::Mkdir,
        16 => Step::Realpath,
        18 => Step::Rename,
        200 => match std::str::from_utf8(&take(body)) {
            Ok(POSIX_RENAME) => Step::PosixRename,
            Ok(FSYNC) => Step::Fsync,
            Ok(STATVFS) => Step::Statvfs,
            Ok(LIMITS) => Step::Limits,
            other => panic!("extension {other:?}"),
        },
        other => panic!("request {other}"),
    }
}

fn take(body: &mut Bytes) -> Bytes {
    let length = body.get_u32() as usize;
    body.split_to(length)
}

/// Size, mode and times, where they are given.
fn attributes(body: &mut Bytes) -> (Option<u64>, Option<u32>, Option<(u32, u32)>) {
    let flags = body.get_u32();
    let size = (flags & 1 != 0).then(|| body.get_u64());
    let mode = (flags & 4 != 0).then(|| body.get_u32());
    (size, mode, (flags & 8 != 0).then(|| (body.get_u32(), body.get_u32())))
}

fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => b"/",
        Some(at) => &path[..at],
    }
}

pub(crate) fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text].concat()
}

fn status(code: u32, words: &str) -> Said {
    (101, [&code.to_be_bytes()[..], &string(words.as_bytes()), &string(b"en")].concat())
}

fn listed(names: &[Vec<u8>]) -> Said {
    let mut said = (names.len() as u32).to_be_bytes().to_vec();
    for name in names {
        said.extend([string(name), string(b"-rw-r--r--"), 0_u32.to_be_bytes().to_vec()].concat());
    }
    (104, said)
}

pub(crate) fn packet(id: u32, (kind, body): Said) -> Vec<u8> {
    string(&[&[kind][..], &id.to_be_bytes(), &body].concat())
}
