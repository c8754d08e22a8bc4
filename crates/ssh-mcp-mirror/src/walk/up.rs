//! This side's tree sent to the far side.
//!
//! Directories are made first, level by level, with rights to fill them; then files and links, side by side; then what the
//! source does not have goes; then directories get their attributes, the innermost first.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use rsync_wire::{
    checksum::Algorithm,
    file_list::{Content, Entry, FileList, Kind},
};
use ssh_mcp_core::port::{
    fs::{self, Attributes, FsError, LinkOrder, Links, Open, RemoteFile},
    mirror::{Broken, BrokenKind, Done, FileFault, Options, Skip},
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    AHEAD, AT_ONCE, FILES, Moving, Run, broken,
    change::{Changes, seconds, wants_half},
    delete_skipped,
    far::{self, Found, Needs, Temporary, far_path, parent_of},
    first, last_name, left_out, level, lock, parent, remote_fault,
    there::{There, look},
};
use crate::{
    landing::{Fault, PARTIAL},
    local::Cursor,
    source::{Found as Scanned, ScanError, Source, Wanted},
};

pub(super) async fn upload(run: &Arc<Run>, tasks: &mut JoinSet<()>) -> Result<Done, Broken> {
    let Here { source, list, unread, devices } = scan(run).await?;
    let Options { dry_run, delete, .. } = run.job.options;
    let there = There::find(run, &list).await?;
    let has_links = list.active().any(|(_, entry)| matches!(entry.kind, Kind::Symlink { .. }));
    let order = match dry_run {
        true => LinkOrder::TargetFirst,
        false => far::probe(run, &there.base, Needs::of(&run.job.options, has_links)).await?,
    };
    run.planned(&list);
    unread.iter().chain(&there.unread).for_each(|fault| run.failed(fault, false));
    let up = Arc::new(Up {
        run: run.clone(),
        cursor: Mutex::new(source.cursor()),
        source,
        order,
        deletes: delete && unread.is_empty(),
        changes: Changes::new(run.job.options),
        partials: Mutex::default(),
        list,
        there,
    });
    let mut touched = HashSet::new();
    let failed = if dry_run { HashMap::new() } else { up.make_directories(&mut touched).await? };
    up.send_all(&failed, &mut touched, tasks).await?;

    let why_not = delete_skipped(unread.is_empty(), failed.is_empty()).filter(|_| delete);
    if delete && why_not.is_none() {
        up.delete(&mut touched).await?;
    }
    if !dry_run {
        up.finish_directories(&failed, &touched).await?;
    }
    let notes = [left_out(devices), up.odd_times()].into_iter().flatten().collect();
    Ok(Done { delete_skipped: why_not, notes })
}

/// This side's tree.
struct Here {
    source: Source,
    list: FileList,
    unread: Vec<Fault>,
    devices: u64,
}

async fn scan(run: &Arc<Run>) -> Result<Here, Broken> {
    let scanning = run.clone();
    run.thread(move || {
        let run = scanning;
        let job = &run.job;
        let refused =
            |cause: io::Error| broken(BrokenKind::Refused, &format!("{}: {cause}", job.local.display()));
        let source = Source::open(&job.local, run.meant.top().is_none()).map_err(refused)?;
        let (mut entries, mut unread, mut devices) = (Vec::new(), Vec::new(), 0);
        let wanted = Wanted {
            options: &job.options,
            algorithm: Algorithm::Xxh128,
            nanoseconds: false,
            limit: job.list_limit,
            takes: &|path, is_directory| run.meant.takes(path, is_directory),
            effort: &run.effort,
        };
        let mut found = |found: Scanned<'_>| {
            run.effort.beat();
            match found {
                Scanned::Entry(entry) => match entry.kind {
                    Kind::Directory(_) | Kind::File { .. } | Kind::Symlink { .. } => entries.push(entry),
                    Kind::BlockDevice(_) | Kind::CharDevice(_) | Kind::Fifo | Kind::Socket => devices += 1,
                },
                Scanned::Unread { path, cause } => unread.push(Fault::new(path, cause)),
            }
            Ok::<(), Broken>(())
        };
        match source.scan(&wanted, &mut found) {
            Ok(_) => match FileList::new(entries) {
                Ok(list) => Ok(Here { source, list, unread, devices }),
                Err(error) => Err(broken(BrokenKind::ListTooLarge, &error.to_string())),
            },
            Err(ScanError::Top(cause)) => Err(refused(cause)),
            Err(ScanError::TooLarge(most)) => {
                Err(broken(BrokenKind::ListTooLarge, &format!("this side has more than {most} entries")))
            }
            Err(ScanError::Stopped) => Err(broken(BrokenKind::Stopped, "the sync was stopped")),
            Err(ScanError::Caller(broken)) => Err(broken),
        }
    })
    .await?
}

/// What an upload is made of.
struct Up {
    run: Arc<Run>,
    source: Source,
    /// Of the threads that read files.
    cursor: Mutex<Cursor>,
    list: FileList,
    there: There,
    order: LinkOrder,
    /// Whether a directory in the way is removed with all that is in it.
    deletes: bool,
    changes: Changes,
    /// Directories of interrupted files that were made use of.
    partials: Mutex<HashSet<Vec<u8>>>,
}

impl Up {
    fn found(&self, entry: &Entry) -> Option<&Found> {
        self.there.found.get(&entry.name)
    }

    /// The directories of the list, by level.
    fn directories(&self) -> BTreeMap<usize, Vec<Entry>> {
        let mut levels = BTreeMap::<_, Vec<_>>::new();
        let directories = self.list.active().map(|(_, entry)| entry).filter(|entry| entry.is_directory());
        directories.for_each(|entry| levels.entry(level(&entry.name)).or_default().push(entry));
        levels
    }

    /// Makes what is missing, and fillable what is there. The answer is what failed, each with its fault.
    async fn make_directories(
        &self,
        touched: &mut HashSet<Vec<u8>>,
    ) -> Result<HashMap<Vec<u8>, Fault>, Broken> {
        let Self { run, there, .. } = self;
        run.touch();
        let perms = run.job.options.perms;
        let mut failed: HashMap<Vec<u8>, Fault> = HashMap::new();
        if there.is_new {
            // With the attributes of an entry, if the list has one for it.
            let made = run.files.make_dir(&there.base, 0o777).await;
            if let Err(error) = made {
                run.check().await?;
                let detail = format!("{}: {error}", String::from_utf8_lossy(&there.base));
                return Err(broken(BrokenKind::Refused, &detail));
            }
        }
        for directories in self.directories().into_values() {
            for some in directories.chunks(AT_ONCE) {
                let mut asked = Vec::new();
                for entry in some {
                    let name = &entry.name;
                    if let Some(fault) = failed.get(parent(name)).filter(|_| name != b".") {
                        let fault = Fault { path: name.clone(), ..fault.clone() };
                        run.failed(&fault, false);
                        failed.insert(name.clone(), fault);
                        continue;
                    }
                    let at = there.path(name);
                    match self.found(entry) {
                        Some(found) if found.is_directory() => {
                            if found.permissions() & 0o700 != 0o700 {
                                far::open_up(run, &there.base, name, found);
                                touched.insert(name.clone());
                            }
                        }
                        None if name == b"." => _ = touched.insert(name.clone()),
                        found => {
                            if found.is_some() {
                                drop(run.files.remove(&at));
                            }
                            let mask = if perms { 0o700 } else { 0o777 };
                            let mode = u32::from(entry.permissions & mask | 0o700);
                            touched.insert(name.clone());
                            touched.insert(parent(name).to_vec());
                            asked.push((name, at.clone(), run.files.make_dir(&at, mode)));
                        }
                    }
                }
                for (name, at, asked) in asked {
                    let Err(error) = asked.await else { continue };
                    run.check().await?;
                    // Somebody else may have made it meanwhile.
                    if !look(run, &at, Links::Stay)
                        .await
                        .is_ok_and(|is| is.is_some_and(|is| is.is_directory()))
                    {
                        let fault = remote_fault(name, &error);
                        run.failed(&fault, false);
                        failed.insert(name.clone(), fault);
                    }
                }
            }
        }
        Ok(failed)
    }

    /// Files and links, as many at a time as there may be.
    async fn send_all(
        self: &Arc<Self>,
        failed: &HashMap<Vec<u8>, Fault>,
        touched: &mut HashSet<Vec<u8>>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), Broken> {
        let run = &self.run;
        for (index, entry) in self.list.active() {
            let is_file = matches!(entry.kind, Kind::File { .. });
            if let Some(fault) = failed.get(parent(&entry.name)).filter(|_| !entry.is_directory()) {
                run.failed(&Fault { path: entry.name.clone(), ..fault.clone() }, is_file);
                continue;
            }
            let found = self.found(&entry);
            let (is_equal, differs) = match &entry.kind {
                Kind::File { .. } => found.map_or((false, false), |found| {
                    (is_same_file(&entry, found), !self.changes.of(&entry, found, false).is_none())
                }),
                Kind::Symlink { target } => (found.is_some_and(|found| found.target == *target), false),
                Kind::Directory(_)
                | Kind::BlockDevice(_)
                | Kind::CharDevice(_)
                | Kind::Fifo
                | Kind::Socket => continue,
            };
            if is_file && is_equal {
                run.skipped(&entry, Skip::Mtime);
            } else if is_file && run.job.options.dry_run {
                run.skipped(&entry, Skip::DryRun);
            }
            if run.job.options.dry_run || (is_equal && !differs) {
                continue;
            }
            if !is_equal {
                touched.insert(parent(&entry.name).to_vec());
            }
            run.settle(tasks, FILES - 1).await?;
            let up = self.clone();
            tasks.spawn(async move {
                match is_equal {
                    true => up.adjust(index).await,
                    false => up.send(index).await,
                }
            });
        }
        run.settle(tasks, 0).await
    }

    /// Gives a file that is up to date the attributes that it does not have.
    async fn adjust(self: Arc<Self>, index: u32) {
        let Some(entry) = self.list.entry(index) else { return };
        let Some(found) = self.found(&entry) else { return };
        let at = self.there.path(&entry.name);
        let change = self.changes.of(&entry, found, false);
        let asked = self.changes.ask(change, &|change| self.run.files.set_attributes(&at, change)).await;
        if let Err(error) = asked.await {
            self.run.failed(&remote_fault(&entry.name, &error), false);
        }
    }

    async fn send(self: Arc<Self>, index: u32) {
        let Some(entry) = self.list.entry(index) else { return };
        match &entry.kind {
            Kind::Symlink { target } => {
                let target = target.as_deref().unwrap_or_default();
                if let Err(fault) = self.send_link(&entry, target).await {
                    self.run.failed(&fault, false);
                }
            }
            Kind::File { .. } => {
                let mut moving = Moving::start(&self.run, &entry);
                let result = self.send_file(&entry, &mut moving).await;
                moving.end(result);
            }
            Kind::Directory(_) | Kind::BlockDevice(_) | Kind::CharDevice(_) | Kind::Fifo | Kind::Socket => {}
        }
    }

    async fn send_link(&self, entry: &Entry, target: &[u8]) -> Result<(), Fault> {
        let files = &self.run.files;
        let at = self.there.path(&entry.name);
        self.make_way(entry, &at).await?;
        let failed = |error: FsError| remote_fault(&entry.name, &error);
        let link = Temporary::beside(files, &at).map_err(|cause| Fault::new(&entry.name, &cause))?;
        files.make_link(&link.path, target, self.order).await.map_err(failed)?;
        files.replace(&link.path, &at).await.map_err(failed)?;
        link.placed();
        Ok(())
    }

    /// Sends a file. The answer is how many of its bytes were there before.
    async fn send_file(self: &Arc<Self>, entry: &Entry, moving: &mut Moving<'_>) -> Result<u64, Fault> {
        let files = &self.run.files;
        let at = self.there.path(&entry.name);
        let failed = |error: FsError| remote_fault(&entry.name, &error);
        self.make_way(entry, &at).await?;
        // What fits into one request is not worth keeping.
        if self.run.job.options.partial && entry.size > u64::from(self.run.chunk) {
            let directory = far_path(parent_of(&at), PARTIAL);
            if lock(&self.partials).insert(directory.clone()) {
                // It may be there.
                drop(files.make_dir(&directory, 0o700));
            }
            let partial = far_path(&directory, last_name(&at));
            let how = Open::Write { content: fs::Content::Keep, permissions: 0o600 };
            let file = files.open(&partial, how).await.map_err(failed)?;
            let there = file.attributes().await.map_err(failed)?;
            let from = kept(&there, entry);
            if from == 0 && there.size != Some(0) {
                let empty = Attributes { size: Some(0), ..Attributes::default() };
                file.set_attributes(empty).await.map_err(failed)?;
            }
            moving.moved(from);
            self.fill(entry, file, from, None, self.read(entry, from), moving).await?;
            files.replace(&partial, &at).await.map_err(failed)?;
            return Ok(from);
        }
        // Nothing is made there for what cannot be read here.
        let mut pieces = self.read(entry, 0);
        let first = pieces.recv().await.transpose().map_err(|cause| Fault::new(&entry.name, &cause))?;
        let temporary = Temporary::beside(files, &at).map_err(|cause| Fault::new(&entry.name, &cause))?;
        let permissions = match (self.run.job.options.perms, self.found(entry)) {
            (false, None) => u32::from(entry.permissions & 0o777),
            (_, _) => 0o600,
        };
        let how = Open::Write { content: fs::Content::Truncate, permissions };
        let file = files.open(&temporary.path, how).await.map_err(failed)?;
        self.fill(entry, file, 0, first, pieces, moving).await?;
        files.replace(&temporary.path, &at).await.map_err(failed)?;
        temporary.placed();
        Ok(0)
    }

    /// Writes the data of a file behind `offset`, gives it its attributes and closes it. All of that is asked for before the
    /// answers are awaited, as far as the line takes it.
    async fn fill(
        &self,
        entry: &Entry,
        file: Box<dyn RemoteFile>,
        mut offset: u64,
        mut staged: Option<Bytes>,
        mut pieces: mpsc::Receiver<io::Result<Bytes>>,
        moving: &mut Moving<'_>,
    ) -> Result<(), Fault> {
        let run = &self.run;
        let failed = |error: FsError| remote_fault(&entry.name, &error);
        let mut due = staged.as_ref().and_then(|piece| run.due(piece.len() as u64));
        let mut under_way = VecDeque::new();
        let mut has_more = true;
        while has_more || staged.is_some() {
            tokio::select! {
                biased;
                written = first(&mut under_way) => {
                    let ((), bytes, _) = written.map_err(failed)?;
                    moving.moved(bytes);
                }
                piece = pieces.recv(), if staged.is_none() => {
                    let piece = piece.transpose().map_err(|cause| Fault::new(&entry.name, &cause))?;
                    due = piece.as_ref().and_then(|piece| run.due(piece.len() as u64));
                    has_more = piece.is_some();
                    staged = piece;
                }
                slot = run.slot(due), if staged.is_some() => if let Some(piece) = staged.take() {
                    let bytes = piece.len() as u64;
                    under_way.push_back((bytes, slot, file.write(offset, piece)));
                    offset += bytes;
                },
            }
        }
        if offset < entry.size {
            let detail = "it became shorter while it was read".to_owned();
            return Err(Fault { path: entry.name.clone(), word: FileFault::IoError, detail });
        }
        let owner = if wants_half(entry) { file.attributes().await.map_err(failed)?.owner } else { None };
        let change = self.changes.of_new(entry, self.found(entry), owner);
        let changed = self.changes.ask(change, &|change| file.set_attributes(change)).await;
        let closed = file.close();
        while !under_way.is_empty() {
            let ((), bytes, _) = first(&mut under_way).await.map_err(failed)?;
            moving.moved(bytes);
        }
        changed.await.map_err(failed)?;
        closed.await.map_err(failed)
    }

    /// Reads a file ahead, in a thread.
    fn read(self: &Arc<Self>, entry: &Entry, from: u64) -> mpsc::Receiver<io::Result<Bytes>> {
        let (to, pieces) = mpsc::channel(AHEAD);
        let (up, name, size) = (self.clone(), entry.name.clone(), entry.size);
        let read = move || {
            let ended = up.read_ahead(&name, from..size, &to);
            // Whoever does not listen any more needs no reason.
            ended.unwrap_or_else(|cause| _ = to.blocking_send(Err(cause)));
        };
        drop(self.run.thread(read));
        pieces
    }

    fn read_ahead(
        &self,
        name: &[u8],
        range: Range<u64>,
        to: &mpsc::Sender<io::Result<Bytes>>,
    ) -> io::Result<()> {
        let (mut file, _) = self.source.read(&mut lock(&self.cursor), name)?;
        file.seek(SeekFrom::Start(range.start))?;
        let mut left = range.end - range.start;
        while left > 0 {
            let most = left.min(u64::from(self.run.chunk));
            let mut piece = Vec::with_capacity(usize::try_from(most).unwrap_or(0));
            let len = (&mut file).take(most).read_to_end(&mut piece)?;
            self.run.effort.beat();
            if len == 0 || to.blocking_send(Ok(piece.into())).is_err() {
                break;
            }
            left -= len as u64;
        }
        Ok(())
    }

    /// Removes a directory that is where something else belongs.
    async fn make_way(&self, entry: &Entry, at: &[u8]) -> Result<(), Fault> {
        let Some(found) = self.found(entry).filter(|found| found.is_directory()) else { return Ok(()) };
        let is_gone = match self.deletes {
            true => {
                let tops = vec![(entry.name.clone(), found.clone())];
                far::remove(&self.run, &self.there.base, tops).await.unwrap_or(false)
            }
            false => self.run.files.remove_dir(at).await.is_ok(),
        };
        if is_gone {
            return Ok(());
        }
        let detail = "a directory that is not empty is in the way".to_owned();
        Err(Fault { path: entry.name.clone(), word: FileFault::IoError, detail })
    }

    /// Removes what the source does not have.
    async fn delete(&self, touched: &mut HashSet<Vec<u8>>) -> Result<(), Broken> {
        let Self { run, list, there, .. } = self;
        let is_complete = |directory: &[u8]| {
            let kind = list.find(directory).map(|entry| entry.kind);
            matches!(kind, Some(Kind::Directory(Content::Top | Content::Listed)))
        };
        let extras: Vec<_> = there
            .found
            .iter()
            .filter(|(path, found)| {
                *path != b"."
                    && list.find(path).is_none()
                    && is_complete(parent(path))
                    && !run.meant.protects(path, found.is_directory())
            })
            .map(|(path, found)| (path.clone(), found.clone()))
            .collect();
        touched.extend(extras.iter().map(|(path, _)| parent(path).to_vec()));
        far::remove(run, &there.base, extras).await.map(drop)
    }

    /// Gives the directories their attributes.
    async fn finish_directories(
        &self,
        failed: &HashMap<Vec<u8>, Fault>,
        touched: &HashSet<Vec<u8>>,
    ) -> Result<(), Broken> {
        let Self { run, there, .. } = self;
        // Those that hold something stay.
        let partials: Vec<_> = lock(&self.partials).iter().map(|at| run.files.remove_dir(at)).collect();
        for removed in partials {
            _ = removed.await;
        }
        for directories in self.directories().into_values().rev() {
            for some in directories.chunks(AT_ONCE) {
                let mut asked = Vec::new();
                for entry in some.iter().filter(|entry| !failed.contains_key(&entry.name)) {
                    let at = there.path(&entry.name);
                    let change = match self.found(entry).filter(|found| found.is_directory()) {
                        None => {
                            let is =
                                if wants_half(entry) { look(run, &at, Links::Stay).await? } else { None };
                            self.changes.of_new(entry, None, is.and_then(|is| is.attributes.owner))
                        }
                        Some(found) => self.changes.of(entry, found, touched.contains(&entry.name)),
                    };
                    let at = there.path(&entry.name);
                    asked.push((
                        entry,
                        self.changes.ask(change, &|change| run.files.set_attributes(&at, change)).await,
                    ));
                }
                for (entry, asked) in asked {
                    if let Err(error) = asked.await {
                        run.check().await?;
                        run.failed(&remote_fault(&entry.name, &error), false);
                    }
                }
            }
        }
        Ok(())
    }

    fn odd_times(&self) -> Option<String> {
        let is_odd = |entry: &Entry| i64::from(seconds(entry)) != entry.mtime.seconds;
        let count = self.list.active().filter(|(_, entry)| is_odd(entry)).count();
        (self.run.job.options.mtime && count > 0)
            .then(|| format!("{count} times were cut: SFTP has those from 1970 to 2106 only"))
    }
}

fn is_same_file(entry: &Entry, found: &Found) -> bool {
    let Attributes { size, times, .. } = found.attributes;
    let is_same_time = times.is_some_and(|(_, changed)| changed == seconds(entry));
    found.kind() == fs::Kind::File && size == Some(entry.size) && is_same_time
}

/// How much of an interrupted file can be kept: all, if it is no longer than the source, which was not changed since.
fn kept(there: &Attributes, entry: &Entry) -> u64 {
    let is_newer = there.times.is_some_and(|(_, changed)| changed >= seconds(entry));
    there.size.filter(|size| is_newer && *size <= entry.size).unwrap_or(0)
}
