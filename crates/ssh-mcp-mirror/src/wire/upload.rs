//! Our side of an upload: the list of the source, and its files as the server asks for them.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    time::{Duration, Instant},
};

use rsync_wire::{
    checksum::Hasher,
    delta::{Op, Search},
    file_list::{Entry, FileList, Kind, ListBuilder, ListEncoder},
    filter::{Excluded, ServerRole, put_filter_list},
    io_errors::IoErrors,
    mux::{Deleted, Message, Multiplexer},
    negotiate::Protocol,
    role::{Ask, ItemFlags, Request, Sender, Terms},
    sums::Sums,
};
use ssh_mcp_core::port::mirror::{Done, FileFault, News, NewsDesk, Skip};

use super::{
    Flags, Plan,
    line::{Failure, Finished, Input, Line, Output},
};
use crate::{
    fault_of,
    local::Cursor,
    source::{Found, ScanError, Source, Wanted},
};

/// Bytes of a file that are read at once.
pub(super) const READ: usize = 256 << 10;

/// How often a file's progress is told.
pub(super) const BEAT: Duration = Duration::from_millis(250);

/// Runs an upload, on a thread of its own.
pub(super) fn run(line: Line, plan: &Plan, news: &dyn NewsDesk) -> Result<Finished, Failure> {
    let source = Source::open(&plan.job.local, plan.meant.top().is_none())
        .map_err(|cause| Failure::Refused(format!("{}: {cause}", plan.job.local.display())))?;
    let (agreed, input, output, flags) = line.agree(plan.offer())?;
    let mut upload = Upload {
        plan,
        news,
        terms: Terms { agreed, dry_run: plan.options.dry_run, in_place: plan.options.in_place },
        flags,
        input,
        output,
        gathered: Multiplexer::default(),
        done: Done { delete_skipped: plan.delete_skipped.clone(), ..Done::default() },
    };
    let result = upload.run(&source);
    if let Err(Failure::Protocol(_) | Failure::TooLarge(_) | Failure::Refused(_)) = result {
        upload.output.give_up(agreed.protocol);
    }
    result
}

struct Upload<'a> {
    plan: &'a Plan,
    news: &'a dyn NewsDesk,
    terms: Terms,
    flags: Flags,
    input: Input,
    output: Output,
    gathered: Multiplexer,
    done: Done,
}

impl Upload<'_> {
    fn run(&mut self, source: &Source) -> Result<Finished, Failure> {
        self.put_filter()?;
        let list = self.put_list(source)?;
        let files = list.active().filter(|(_, entry)| is_file(entry));
        let (files, bytes) = totals(files);
        self.news.tell(News::Planned { files, bytes });
        self.serve(source, &list)?;
        let mut on_message = on_message(self.news, self.plan.options.dry_run);
        self.input.drain(&mut on_message)?;
        Ok(Finished { done: std::mem::take(&mut self.done), ..Finished::new(self.input.verdict) })
    }

    /// Tells the server what is excluded, and so stays there, if it is to delete.
    fn put_filter(&mut self) -> Result<(), Failure> {
        if !self.plan.options.is_filter_list_sent() {
            return Ok(());
        }
        let mut out = Vec::new();
        put_filter_list(&mut out, &self.plan.rules, ServerRole::Receiver, Excluded::Kept)
            .map_err(|error| Failure::Refused(error.to_string()))?;
        self.gathered.put_data(&out);
        Ok(())
    }

    /// Scans the source, and sends the list while that goes on.
    fn put_list(&mut self, source: &Source) -> Result<FileList, Failure> {
        let layout = self.plan.options.to_layout(&self.terms.agreed);
        let Self { plan, news, flags, output, gathered, input, .. } = self;
        let (mut encoder, mut out, mut list) = (ListEncoder::new(layout), Vec::new(), ListBuilder::default());
        let takes = |name: &[u8], is_directory: bool| plan.meant.takes(name, is_directory);
        let wanted = Wanted {
            options: &plan.job.options,
            algorithm: self.terms.agreed.checksum,
            nanoseconds: self.terms.agreed.protocol >= Protocol::V31,
            limit: plan.job.list_limit,
            takes: &takes,
            effort: &flags.effort,
        };
        let scanned = source.scan(&wanted, &mut |found| {
            match found {
                Found::Entry(entry) => {
                    encoder
                        .put_entry(&mut out, &entry)
                        .map_err(|error| Failure::Refused(error.to_string()))?;
                    gathered.put_data(&out);
                    out.clear();
                    list.push(&entry).map_err(|error| Failure::TooLarge(error.to_string()))?;
                    output.send_full(gathered)?;
                }
                Found::Unread { path, cause } => {
                    let detail = cause.to_string();
                    let fault = fault_of(cause);
                    news.tell(News::Failed { path, fault, detail: &detail, planned: false });
                }
            }
            Ok(())
        });
        let scanned = scanned.map_err(|error| match error {
            ScanError::TooLarge(limit) => Failure::TooLarge(format!("more than {limit} entries")),
            ScanError::Stopped => Failure::Stopped,
            ScanError::Top(cause) => Failure::Refused(format!("{}: {cause}", plan.job.local.display())),
            ScanError::Caller(failure) => failure,
        })?;
        encoder
            .put_end(&mut out, scanned.errors, &scanned.users, &scanned.groups)
            .map_err(|error| Failure::Refused(error.to_string()))?;
        gathered.put_data(&out);
        output.send_all(gathered)?;
        input.verdict.on_errors(scanned.errors);
        if plan.job.options.delete && scanned.errors.contains(IoErrors::GENERAL) {
            self.done.delete_skipped = Some("the source could not be read completely".to_owned());
        }
        Ok(list.build())
    }

    /// Answers requests until the server has no more.
    fn serve(&mut self, source: &Source, list: &FileList) -> Result<(), Failure> {
        let level = self.plan.options.compress_level;
        let mut sender = Sender::new(self.terms, list, level)?;
        let mut cursor = source.cursor();
        let mut told = Told::new(list, self.plan.options.checksum);
        let mut on_message = on_message(self.news, self.plan.options.dry_run);
        let mut buffer = vec![0; READ];
        while !sender.is_finished() {
            if !self.input.is_waiting() {
                self.output.send_all(&mut self.gathered)?;
            }
            let data = self.input.next_data(&mut on_message)?;
            let mut rest = &data[..];
            while let Some(ask) = sender.next_ask(&mut rest, &mut self.gathered)? {
                match ask {
                    Ask::File(request) => {
                        told.skip_before(request.index, self.news);
                        self.flags.touch();
                        let Some(entry) = list.entry(request.index) else { continue };
                        self.send_file(
                            &mut sender,
                            *request,
                            source,
                            &mut cursor,
                            &entry,
                            &mut told,
                            &mut buffer,
                        )?;
                    }
                    Ask::Item { index, record } => {
                        if record.flags.contains(ItemFlags::TRANSFER) {
                            told.skip_before(index, self.news);
                            told.skip(index, Skip::DryRun, self.news);
                        } else if !self.plan.options.dry_run {
                            self.flags.touch();
                        }
                    }
                    Ask::PhaseEnded(1) => told.skip_before(list.len() as u32, self.news),
                    Ask::PhaseEnded(_) | Ask::Finished => {}
                }
                self.output.send_full(&mut self.gathered)?;
            }
        }
        self.output.send_all(&mut self.gathered)
    }

    #[expect(clippy::too_many_arguments, reason = "what one file needs of the whole run")]
    fn send_file(
        &mut self,
        sender: &mut Sender,
        mut request: Request,
        source: &Source,
        cursor: &mut Cursor,
        entry: &Entry,
        told: &mut Told<'_>,
        buffer: &mut [u8],
    ) -> Result<(), Failure> {
        let is_first = told.take(request.index);
        let opened = source.read(cursor, &entry.name).and_then(|(mut file, _)| {
            if request.append_from > 0 {
                file.seek(SeekFrom::Start(request.append_from))?;
            }
            Ok(file)
        });
        let mut file = match opened {
            Ok(file) => file,
            Err(cause) => {
                sender.refuse(&request, errors_of(&cause), &mut self.gathered);
                self.input.verdict.on_errors(errors_of(&cause));
                self.fail(entry, &cause, is_first);
                return Ok(());
            }
        };
        if is_first {
            self.news.tell(News::Started { path: &entry.name, total: entry.size });
        }
        sender.begin(&request, &mut self.gathered)?;
        let mut sent = Sent { skipped: request.append_from, ..Sent::default() };
        let mut hasher = Hasher::new(self.terms.agreed.checksum);
        let read = if request.sums.head().count() == 0 {
            self.send_whole(sender, entry, &mut file, &mut hasher, &mut sent, buffer)?
        } else {
            // They may be long, and are needed once.
            let sums = std::mem::replace(&mut request.sums, Sums::none());
            let search = Search::new(sums, sender.block_hash(), request.basis);
            self.send_delta(sender, entry, &mut file, search, &mut hasher, &mut sent, buffer)?
        };
        let digest = hasher.finish();
        match read {
            Ok(()) => {
                sender.end(digest, &mut self.gathered)?;
                if is_first {
                    let Sent { transferred, skipped, .. } = sent;
                    self.news.tell(News::Completed { path: &entry.name, transferred, skipped });
                }
            }
            Err(cause) => {
                sender.end(digest.spoilt(), &mut self.gathered)?;
                sender.add_errors(IoErrors::GENERAL);
                self.input.verdict.on_errors(IoErrors::GENERAL);
                self.fail(entry, &cause, is_first);
            }
        }
        Ok(())
    }

    /// Sends all of a file. The inner result is that of reading.
    fn send_whole(
        &mut self,
        sender: &mut Sender,
        entry: &Entry,
        file: &mut File,
        hasher: &mut Hasher,
        sent: &mut Sent,
        buffer: &mut [u8],
    ) -> Result<io::Result<()>, Failure> {
        loop {
            let bytes = match read(file, buffer) {
                Ok([]) => return Ok(Ok(())),
                Ok(bytes) => bytes,
                Err(cause) => return Ok(Err(cause)),
            };
            hasher.update(bytes);
            sender.literal(bytes, &mut self.gathered)?;
            self.output.send_full(&mut self.gathered)?;
            sent.transferred += bytes.len() as u64;
            self.flags.effort.beat();
            sent.beat(entry, self.news);
        }
    }

    /// Sends what of a file the server does not have. The inner result is that of reading.
    #[expect(clippy::too_many_arguments, reason = "what one file needs of the whole run")]
    fn send_delta(
        &mut self,
        sender: &mut Sender,
        entry: &Entry,
        file: &mut File,
        mut search: Search,
        hasher: &mut Hasher,
        sent: &mut Sent,
        buffer: &mut [u8],
    ) -> Result<io::Result<()>, Failure> {
        loop {
            let bytes = match read(file, buffer) {
                Ok(bytes) => bytes,
                Err(cause) => return Ok(Err(cause)),
            };
            if bytes.is_empty() {
                search.finish();
            }
            hasher.update(bytes);
            search.push(bytes);
            while let Some(op) = search.next_op() {
                match op {
                    Op::Literal(literal) => sender.literal(literal, &mut self.gathered)?,
                    Op::Match(block) => sender.matched(block, &mut self.gathered)?,
                }
                self.output.send_full(&mut self.gathered)?;
            }
            let work = search.work();
            (sent.transferred, sent.skipped) = (work.literal, work.matched);
            self.flags.effort.beat();
            sent.beat(entry, self.news);
            if bytes.is_empty() {
                return Ok(Ok(()));
            }
        }
    }

    fn fail(&self, entry: &Entry, cause: &io::Error, planned: bool) {
        let detail = cause.to_string();
        self.news.tell(News::Failed { path: &entry.name, fault: fault_of(cause), detail: &detail, planned });
    }
}

/// How much of a file is sent.
struct Sent {
    transferred: u64,
    skipped: u64,
    /// When that was last told.
    since: Instant,
}

impl Default for Sent {
    fn default() -> Self {
        Self { transferred: 0, skipped: 0, since: Instant::now() }
    }
}

impl Sent {
    fn beat(&mut self, entry: &Entry, news: &dyn NewsDesk) {
        if self.since.elapsed() >= BEAT {
            self.since = Instant::now();
            let done = self.transferred + self.skipped;
            news.tell(News::Moving { path: &entry.name, done, total: entry.size.max(done) });
        }
    }
}

/// Which files were told of. The server asks in the order of the list, so what it passes over is up to date.
struct Told<'a> {
    list: &'a FileList,
    /// Of an entry before this, everything was told.
    next: u32,
    /// What was told of, one bit an entry.
    bits: Vec<u8>,
    skip: Skip,
}

impl<'a> Told<'a> {
    fn new(list: &'a FileList, by_checksum: bool) -> Self {
        let skip = if by_checksum { Skip::Size } else { Skip::Mtime };
        Self { list, next: 0, bits: vec![0; list.len().div_ceil(8)], skip }
    }

    /// Whether a file was not told of yet; from now on it is.
    fn take(&mut self, index: u32) -> bool {
        let Some(byte) = self.bits.get_mut((index / 8) as usize) else { return false };
        let bit = 1 << (index % 8);
        let is_first = *byte & bit == 0;
        *byte |= bit;
        is_first
    }

    /// Tells that a file needs nothing.
    fn skip(&mut self, index: u32, because: Skip, news: &dyn NewsDesk) {
        if self.list.is_file(index)
            && self.list.is_active(index)
            && self.take(index)
            && let Some(entry) = self.list.entry(index)
        {
            news.tell(News::Skipped { path: &entry.name, bytes: entry.size, because });
        }
    }

    /// Tells that all files before an index need nothing, as far as nothing else was told of them.
    fn skip_before(&mut self, index: u32, news: &dyn NewsDesk) {
        for index in self.next..index {
            self.skip(index, self.skip, news);
        }
        self.next = self.next.max(index);
    }
}

/// How many entries there are, and the bytes they say they have: a server may say any number.
pub(super) fn totals(files: impl Iterator<Item = (u32, Entry)>) -> (u64, u64) {
    files.fold((0, 0), |(files, bytes), (_, entry)| (files + 1, entry.size.saturating_add(bytes)))
}

pub(super) fn is_file(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::File { .. })
}

/// Reads some bytes; none at the end.
fn read<'b>(file: &mut File, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    loop {
        match file.read(buffer) {
            Ok(len) => return Ok(buffer.get(..len).unwrap_or_default()),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

fn errors_of(cause: &io::Error) -> IoErrors {
    match fault_of(cause) {
        FileFault::FileNotFound => IoErrors::VANISHED,
        FileFault::PermissionDenied | FileFault::IoError | FileFault::VerifyMismatch => IoErrors::GENERAL,
    }
}

/// Tells what the server deletes.
fn on_message(news: &dyn NewsDesk, dry_run: bool) -> impl FnMut(Message) -> Result<(), Failure> + '_ {
    move |message| {
        if let Message::Deleted(Deleted::Directory(path) | Deleted::Other(path)) = message {
            news.tell(News::Deleted { path: &path, dry_run });
        }
        Ok(())
    }
}
