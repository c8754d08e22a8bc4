//! Our side of a download, on two threads: one goes through the list and asks for what differs, the other takes what comes.
//!
//! The server sends while it still has requests to read, so neither thread may wait for the other but in two places: whoever
//! asks waits when [`UNANSWERED`] requests are unanswered, and for the files that arrived wrong, which it asks for once more.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use rsync_wire::{
    apply::{Apply, ApplyError},
    file_list::{Entry, FileList, Item, ListBuilder, ListDecoder, ListEnd, ListLimits, TreeError},
    filter::{Excluded, ServerRole, put_filter_list},
    io_errors::IoErrors,
    mux::{Message, Multiplexer},
    role::{Arrival, Expected, Generator, ItemFlags, Receiver, Taken, Terms},
    sums::{Strength, SumHead, SumWriter},
    token::Token,
};
use ssh_mcp_core::port::mirror::{Done, FileFault, News, NewsDesk, Skip};

use super::{
    Flags, Plan,
    line::{Failure, Finished, Input, Line, Output},
    upload::{BEAT, READ, is_file, totals},
};
use crate::{
    landing::{Basis, Fault, Incoming, Landing, Settings, Step},
    local::Cursor,
    meant::{Meant, below},
};

/// Requests that are unanswered at a time.
const UNANSWERED: usize = 16_384;

/// A file may become longer than the list says while it is sent, but not by more than this or its length again.
const GROWTH: u64 = 1 << 30;

/// Runs a download, on a thread of its own.
pub(super) fn run(line: Line, plan: &Plan, news: &dyn NewsDesk) -> Result<Finished, Failure> {
    let (agreed, mut input, output, flags) = line.agree(plan.offer())?;
    let terms = Terms { agreed, dry_run: plan.options.dry_run, in_place: None };
    let mut gathered = Multiplexer::default();
    let result = begin(plan, terms, &mut gathered, &mut input, &output, &flags).and_then(|(list, end)| {
        if list.is_empty() {
            input.drain(&mut |_| Ok(()))?;
            return Ok(Finished { is_empty: true, ..Finished::new(input.verdict) });
        }
        let download = Download::new(plan, news, terms, flags, list, end)?;
        download.run(input, &output)
    });
    if let Err(Failure::Protocol(_) | Failure::TooLarge(_) | Failure::Refused(_)) = result {
        output.give_up(agreed.protocol);
    }
    result
}

/// Tells the server what is excluded, and reads its list.
fn begin(
    plan: &Plan,
    terms: Terms,
    gathered: &mut Multiplexer,
    input: &mut Input,
    output: &Output,
    flags: &Flags,
) -> Result<(FileList, ListEnd), Failure> {
    let mut out = Vec::new();
    put_filter_list(&mut out, &plan.rules, ServerRole::Sender, Excluded::Kept)
        .map_err(|error| Failure::Refused(error.to_string()))?;
    gathered.put_data(&out);
    output.send_all(gathered)?;

    let limits = ListLimits { entries: plan.job.list_limit, ..ListLimits::default() };
    let mut decoder = ListDecoder::new(plan.options.to_layout(&terms.agreed), limits);
    let (mut list, mut is_single) = (ListBuilder::default(), false);
    loop {
        let data = input.next_data(&mut |_| Ok(()))?;
        if flags.effort.is_over() {
            return Err(Failure::Stopped);
        }
        let mut rest = &data[..];
        while let Some(item) = decoder.next_item(&mut rest)? {
            match item {
                Item::Entry(entry) => {
                    check_asked(plan, &entry, &mut is_single)?;
                    list.push(&entry).map_err(too_long)?;
                }
                Item::End(end) => {
                    input.verdict.on_errors(end.errors);
                    if !rest.is_empty() {
                        return Err(Failure::Protocol("data before the first request".to_owned()));
                    }
                    let list = list.build();
                    list.check_tree().map_err(|error| Failure::Protocol(error.to_string()))?;
                    return Ok((list, end));
                }
            }
        }
    }
}

fn too_long(error: TreeError) -> Failure {
    Failure::TooLarge(error.to_string())
}

/// Refuses what was not asked for: a server could plant any file beside the one that is wanted.
fn check_asked(plan: &Plan, entry: &Entry, is_single: &mut bool) -> Result<(), Failure> {
    let is_recursive = plan.job.options.recursive;
    let is_asked = match plan.meant.top() {
        // The decoder takes only names below the root.
        None => is_recursive || entry.name == b".",
        Some(top) if entry.name == top => {
            *is_single = !entry.is_directory();
            true
        }
        // A file has nothing below it.
        Some(top) => is_recursive && !*is_single && below(&entry.name, Some(top)).is_some(),
    };
    if is_asked {
        return Ok(());
    }
    let name = String::from_utf8_lossy(&entry.name);
    Err(Failure::Protocol(format!("the server lists {name:?}, which was not asked for")))
}

/// A download whose list is known.
struct Download<'a> {
    plan: &'a Plan,
    news: &'a dyn NewsDesk,
    terms: Terms,
    flags: Flags,
    list: Arc<FileList>,
    landing: Arc<Landing>,
    /// Which entries are meant, if the server was not told everything that is not.
    wanted: Option<Vec<bool>>,
    requests: Requests,
    /// A directory failed, so that what is in it is not known to be there.
    is_broken: AtomicBool,
    /// Something failed here.
    has_failed: AtomicBool,
}

/// What was asked for and is not answered.
#[derive(Default)]
struct Requests {
    open: Mutex<Open>,
    answered: Condvar,
}

#[derive(Default)]
struct Open {
    by_index: HashMap<u32, Expected>,
    /// How many phases have no further requests.
    ended: u8,
    /// Nobody takes answers any more.
    is_closed: bool,
}

impl Requests {
    /// Notes a request before it is sent, when there is room.
    fn add(&self, index: u32, expected: Expected) -> Result<(), Failure> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = self
            .answered
            .wait_while(open, |open| open.by_index.len() >= UNANSWERED && !open.is_closed)
            .unwrap_or_else(PoisonError::into_inner);
        if open.is_closed {
            return Err(Failure::Ended);
        }
        open.by_index.insert(index, expected);
        Ok(())
    }

    fn take(&self, index: u32) -> Option<Expected> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = open.by_index.remove(&index);
        // Whoever waits is woken when there is room for more than one.
        if open.by_index.len() == UNANSWERED / 2 {
            self.answered.notify_one();
        }
        taken
    }

    /// Notes, before the server is told, that so many phases have no further requests.
    fn end(&self, phases: u8) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).ended = phases;
    }

    /// Whether so many phases have no further requests, and all requests are answered.
    fn are_done(&self, phases: u8) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.ended >= phases && open.by_index.is_empty()
    }

    fn close(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.answered.notify_one();
    }
}

impl<'a> Download<'a> {
    fn new(
        plan: &'a Plan,
        news: &'a dyn NewsDesk,
        terms: Terms,
        flags: Flags,
        list: FileList,
        end: ListEnd,
    ) -> Result<Self, Failure> {
        let list = Arc::new(list);
        let wanted = (!plan.meant.is_everything()).then(|| wanted(&plan.meant, &list));
        let meant = Arc::clone(&plan.meant);
        let settings = Settings {
            options: plan.job.options,
            algorithm: terms.agreed.checksum,
            users: end.users,
            groups: end.groups,
            protected: Box::new(move |name, is_directory| meant.protects(name, is_directory)),
            effort: Arc::clone(&flags.effort),
        };
        let local = &plan.job.local;
        let landing = Landing::open(Arc::clone(&list), settings, local)
            .map_err(|cause| Failure::Refused(format!("{}: {cause}", local.display())))?;
        Ok(Self {
            plan,
            news,
            terms,
            flags,
            list,
            landing,
            wanted,
            requests: Requests::default(),
            is_broken: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
        })
    }

    fn run(&self, input: Input, output: &Output) -> Result<Finished, Failure> {
        let files = self.wanted().filter(|(_, entry)| is_file(entry));
        let (files, bytes) = totals(files);
        self.news.tell(News::Planned { files, bytes });

        let (again, wrong) = mpsc::sync_channel(1);
        let (asked, received) = thread::scope(|scope| {
            let asking = scope.spawn(move || self.ask(output, &wrong));
            let received = self.receive(input, again);
            self.requests.close();
            if received.is_err() {
                // Whoever asks may wait for a server that does not read.
                self.flags.effort.end();
            }
            (asking.join().unwrap_or(Err(Failure::Crashed)), received)
        });
        let (mut input, refused) = received?;
        asked?;

        let mut last = Vec::new();
        Generator::new(self.terms).goodbye(&mut last);
        let mut gathered = Multiplexer::default();
        gathered.put_data(&last);
        output.send_all(&mut gathered)?;
        let done = self.tidy(&mut input);
        input.drain(&mut |_| Ok(()))?;
        if self.has_failed.load(Ordering::Relaxed) {
            input.verdict.on_failure();
        }
        Ok(Finished { done, refused, ..Finished::new(input.verdict) })
    }

    /// The entries that are meant, in order.
    fn wanted(&self) -> impl Iterator<Item = (u32, Entry)> {
        let is_wanted = |index: u32| match &self.wanted {
            None => true,
            Some(wanted) => wanted.get(index as usize).is_some_and(|&wanted| wanted),
        };
        self.list.active().filter(move |(index, _)| is_wanted(*index))
    }

    /// What is left when all data is here: links, deletions, directories.
    fn tidy(&self, input: &mut Input) -> Done {
        let mut cursor = self.landing.cursor();
        self.landing.link_followers(&mut cursor, &mut |index, step| {
            self.flags.effort.beat();
            let Some(entry) = self.list.entry(index).filter(is_file) else { return };
            let (path, size) = (&entry.name, entry.size);
            match step {
                Ok(Step::UpToDate(because)) => self.news.tell(News::Skipped { path, bytes: size, because }),
                Ok(Step::Linked) if self.plan.options.dry_run => {
                    self.news.tell(News::Skipped { path, bytes: size, because: Skip::DryRun });
                }
                Ok(Step::Done | Step::LeftOut | Step::Linked | Step::Needs { .. }) => {
                    self.news.tell(News::Started { path, total: size });
                    self.news.tell(News::Completed { path, transferred: 0, skipped: size });
                }
                Err(fault) => self.fail(&fault, true),
            }
        });
        let mut done = Done::default();
        let dry_run = self.plan.options.dry_run;
        if self.plan.job.options.delete {
            if input.verdict.errors().contains(IoErrors::GENERAL) {
                done.delete_skipped = Some("the source could not be read completely".to_owned());
            } else if self.is_broken.load(Ordering::Relaxed) {
                done.delete_skipped = Some("a directory failed".to_owned());
            } else {
                let told = &mut |path: &[u8]| {
                    self.flags.effort.beat();
                    self.news.tell(News::Deleted { path, dry_run });
                };
                for fault in self.landing.delete_extras(&mut cursor, told) {
                    self.fail(&fault, false);
                }
            }
        }
        for fault in self.landing.finish_directories(&mut cursor) {
            self.fail(&fault, false);
        }
        done
    }

    fn fail(&self, fault: &Fault, planned: bool) {
        self.has_failed.store(true, Ordering::Relaxed);
        let Fault { path, word, detail } = fault;
        self.news.tell(News::Failed { path, fault: *word, detail, planned });
    }

    /// Goes through the list, and asks for what differs; then once more for what arrived wrong.
    fn ask(&self, output: &Output, wrong: &mpsc::Receiver<Vec<u32>>) -> Result<(), Failure> {
        let mut asking = Asking {
            generator: Generator::new(self.terms),
            gathered: Multiplexer::default(),
            output,
            out: Vec::new(),
            buffer: Vec::new(),
        };
        let mut cursor = self.landing.cursor();
        for (index, entry) in self.wanted() {
            self.flags.effort.beat();
            if self.flags.effort.is_over() {
                return Err(Failure::Stopped);
            }
            let step = match self.landing.consider(&mut cursor, index, &entry) {
                Ok(step) => step,
                Err(fault) => {
                    if entry.is_directory() {
                        self.is_broken.store(true, Ordering::Relaxed);
                    }
                    self.fail(&fault, is_file(&entry));
                    continue;
                }
            };
            match step {
                Step::UpToDate(because) => {
                    self.news.tell(News::Skipped { path: &entry.name, bytes: entry.size, because });
                }
                Step::Needs { .. } if self.plan.options.dry_run => {
                    let because = Skip::DryRun;
                    self.news.tell(News::Skipped { path: &entry.name, bytes: entry.size, because });
                }
                Step::Needs { basis, is_new } => {
                    let flags = if is_new { ItemFlags::NEW } else { ItemFlags::default() };
                    self.request(&mut asking, index, flags, basis, Strength::Sized)?;
                }
                Step::Done | Step::LeftOut | Step::Linked => {}
            }
        }
        self.requests.end(1);
        asking.generator.end_phase(&mut asking.out);
        asking.flush()?;
        output.send_all(&mut asking.gathered)?;

        // If nobody takes answers any more, that is the reason that counts.
        let Ok(wrong) = wrong.recv() else { return Ok(()) };
        for index in wrong {
            let Some(entry) = self.list.entry(index) else { continue };
            let basis = self.landing.basis(&mut cursor, &entry);
            self.request(&mut asking, index, ItemFlags::default(), basis, Strength::Full)?;
        }
        self.requests.end(u8::MAX);
        asking.generator.end_requests(&mut asking.out);
        asking.flush()?;
        output.send_all(&mut asking.gathered)
    }

    /// Asks for a file, with the sums of what is here of it.
    fn request(
        &self,
        asking: &mut Asking<'_>,
        index: u32,
        flags: ItemFlags,
        basis: Option<Basis>,
        strength: Strength,
    ) -> Result<(), Failure> {
        let basis = basis.filter(|_| !self.plan.options.whole_file);
        let algorithm = self.terms.agreed.checksum;
        let head = match &basis {
            // A basis that cannot be cut is none.
            Some(basis) => SumHead::for_basis(basis.len, self.plan.job.block_len, strength, algorithm)
                .unwrap_or(SumHead::NONE),
            None => SumHead::NONE,
        };
        let expected = asking.generator.request(index, flags, head, &mut asking.out)?;
        self.requests.add(index, expected)?;
        asking.flush()?;
        if let Some(basis) = basis.filter(|_| head.count() > 0) {
            asking.put_sums(head, &basis.file)?;
        }
        asking.output.send_full(&mut asking.gathered)
    }

    /// Takes what comes, to the last word of the server. The answer is the rest of the stream, and what could not be sent.
    fn receive(
        &self,
        mut input: Input,
        again: mpsc::SyncSender<Vec<u32>>,
    ) -> Result<(Input, Vec<Vec<u8>>), Failure> {
        let mut receiver = Receiver::new(self.terms)?;
        let mut taking = Taking {
            download: self,
            cursor: self.landing.cursor(),
            file: None,
            wrong: Vec::new(),
            is_second: false,
        };
        let mut refused = Vec::new();
        loop {
            let data = input.next_data(&mut |message| {
                if let Message::NoSend(index) = message {
                    let entry = self.requests.take(index).and_then(|_| self.list.entry(index));
                    let entry =
                        entry.ok_or_else(|| Failure::Protocol(format!("no request for entry {index}")))?;
                    refused.push(entry.name);
                }
                Ok(())
            })?;
            if self.flags.effort.is_over() {
                return Err(Failure::Stopped);
            }
            let mut rest = &data[..];
            loop {
                let Taken { used, arrival } =
                    receiver.next_arrival(rest, &mut |index| self.requests.take(index))?;
                rest = rest.get(used..).unwrap_or_default();
                match arrival {
                    None => break,
                    Some(Arrival::Begin { index, head }) => taking.begin(index, head),
                    Some(Arrival::Token(token)) => taking.token(token)?,
                    Some(Arrival::End { digest, .. }) => taking.end(digest),
                    Some(Arrival::PhaseEnded(phase)) => {
                        if !self.requests.are_done(phase) {
                            return Err(Failure::Protocol("requests without an answer".to_owned()));
                        }
                        if phase == 1 {
                            taking.is_second = true;
                            // Whoever asks has gone only after a failure, which is found in the stream as well.
                            _ = again.send(std::mem::take(&mut taking.wrong));
                        }
                    }
                    Some(Arrival::Finished(_)) => return Ok((input, refused)),
                }
            }
        }
    }
}

/// Which entries are meant: what is below one that is not is not either.
fn wanted(meant: &Meant, list: &FileList) -> Vec<bool> {
    let mut left_out: Option<Vec<u8>> = None;
    let mut wanted = vec![true; list.len()];
    for (index, entry) in list.active() {
        let is_inside = left_out.as_ref().is_some_and(|out| below(&entry.name, Some(out)).is_some());
        let is_wanted = !is_inside && meant.takes(&entry.name, entry.is_directory());
        if !is_wanted {
            if !is_inside && entry.is_directory() {
                left_out = Some(entry.name.clone());
            }
            if let Some(wanted) = wanted.get_mut(index as usize) {
                *wanted = false;
            }
        }
    }
    wanted
}

/// What the asking thread works with.
struct Asking<'a> {
    generator: Generator,
    gathered: Multiplexer,
    output: &'a Output,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl Asking<'_> {
    fn flush(&mut self) -> Result<(), Failure> {
        self.gathered.put_data(&self.out);
        self.out.clear();
        self.output.send_full(&mut self.gathered)
    }

    /// Writes the sums of a basis, as many as its head says. A basis that has become shorter goes on with zeros: what is made
    /// of it is found wrong, and asked for again.
    fn put_sums(&mut self, head: SumHead, mut file: &File) -> Result<(), Failure> {
        let mut writer = SumWriter::new(head, self.generator.block_hash());
        let mut left = head.basis_len();
        self.buffer.resize(READ, 0);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(READ);
            let Some(buffer) = self.buffer.get_mut(..most) else { return Ok(()) };
            let len = match file.read(buffer) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Ok(len) if len > 0 => len,
                Ok(_) | Err(_) => {
                    buffer.fill(0);
                    most
                }
            };
            left -= len as u64;
            let bytes = self.buffer.get(..len).unwrap_or_default();
            writer.push(bytes, &mut self.out).map_err(|error| Failure::Protocol(error.to_string()))?;
            self.flush()?;
        }
        Ok(())
    }
}

/// What the taking thread works with.
struct Taking<'a> {
    download: &'a Download<'a>,
    cursor: Cursor,
    file: Option<Arriving>,
    /// What arrived wrong.
    wrong: Vec<u32>,
    /// What arrives was wrong once.
    is_second: bool,
}

/// A file that arrives.
struct Arriving {
    index: u32,
    entry: Entry,
    apply: Apply,
    /// None after it could not be written: its data is passed over.
    incoming: Option<Incoming>,
    basis: Option<Basis>,
    /// The basis is not what it was.
    is_spoilt: bool,
    /// When its progress was last told.
    since: Instant,
    /// Bytes so far.
    len: u64,
}

impl Taking<'_> {
    fn begin(&mut self, index: u32, head: SumHead) {
        let download = self.download;
        let Some(entry) = download.list.entry(index) else { return };
        download.flags.touch();
        let basis = (head.count() > 0).then(|| download.landing.basis(&mut self.cursor, &entry)).flatten();
        if !self.is_second {
            download.news.tell(News::Started { path: &entry.name, total: entry.size });
        }
        let incoming = download.landing.receive(&mut self.cursor, &entry);
        let incoming = incoming.map_err(|fault| download.fail(&fault, true)).ok();
        let limit = entry.size.saturating_add(entry.size.max(GROWTH));
        let apply = Apply::new(head, download.terms.agreed.checksum, limit);
        let (is_spoilt, since, len) = (head.count() > 0 && basis.is_none(), Instant::now(), 0);
        self.file = Some(Arriving { index, entry, apply, incoming, basis, is_spoilt, since, len });
    }

    fn token(&mut self, token: Token<'_>) -> Result<(), Failure> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let (basis, incoming, is_spoilt) = (&file.basis, &mut file.incoming, file.is_spoilt);
        let mut len = 0;
        // What is spoilt is not read or written any further, but what there would be of it is limited as ever.
        let read_at = |offset, block: &mut [u8]| {
            len = block.len();
            match basis {
                Some(basis) if !is_spoilt => basis.file.read_exact_at(block, offset),
                Some(_) | None => Ok(()),
            }
        };
        let write = |bytes: &[u8]| match incoming {
            Some(incoming) if !is_spoilt => incoming.write(bytes),
            Some(_) | None => Ok(()),
        };
        match file.apply.token(token, read_at, write) {
            Ok(()) => {}
            Err(ApplyError::Read(_)) => file.is_spoilt = true,
            Err(ApplyError::Write(cause)) => {
                file.incoming = None;
                let fault = Fault::new(&file.entry.name, &cause);
                self.download.fail(&fault, true);
                return Ok(());
            }
            Err(error @ (ApplyError::NoSuchBlock { .. } | ApplyError::TooLong(_))) => {
                return Err(Failure::Protocol(error.to_string()));
            }
        }
        if let Token::Literal(bytes) = token {
            len = bytes.len();
        }
        file.len += len as u64;
        if file.since.elapsed() >= BEAT {
            file.since = Instant::now();
            let (path, done) = (&file.entry.name, file.len);
            self.download.news.tell(News::Moving { path, done, total: file.entry.size.max(done) });
        }
        Ok(())
    }

    fn end(&mut self, digest: rsync_wire::checksum::Digest) {
        let Some(Arriving { index, entry, apply, incoming, is_spoilt, .. }) = self.file.take() else {
            return;
        };
        // What could not be written was told.
        let Some(incoming) = incoming else { return };
        let applied = apply.finish();
        let download = self.download;
        if is_spoilt || applied.digest != digest {
            drop(incoming);
            match self.is_second {
                false => self.wrong.push(index),
                true => {
                    let detail = "what arrived is not what was sent, twice".to_owned();
                    let (path, word) = (entry.name.clone(), FileFault::VerifyMismatch);
                    download.fail(&Fault { path, word, detail }, true);
                }
            }
            return;
        }
        match incoming.commit(index, &entry) {
            Ok(()) => {
                let (transferred, skipped) = (applied.len - applied.copied, applied.copied);
                download.news.tell(News::Completed { path: &entry.name, transferred, skipped });
            }
            Err(fault) => download.fail(&fault, true),
        }
    }
}
