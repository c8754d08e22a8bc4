//! The far tree brought here: its list, and the data of the files that `landing` asks for.

use std::{
    collections::VecDeque,
    io::{self, Read},
    pin::pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use rsync_wire::{
    checksum::Algorithm,
    file_list::{Content, Entry, FileList, Kind, Link},
};
use ssh_mcp_core::port::{
    fs::{self, FsError, FsErrorKind, Links, Open, RemoteFile},
    mirror::{Broken, BrokenKind, Devices, Done, FileFault, News, Options, Skip},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    AHEAD, FILES, Moving, Run, Sent, broken, delete_skipped,
    far::{self, Found, Listing, Visit},
    first, joined, left_out, lock, remote_fault,
};
use crate::{
    landing::{Basis, Fault, Incoming, Landing, Settings, Step},
    local::{Attributes, Cursor},
};

pub(super) async fn download(run: &Arc<Run>, tasks: &mut JoinSet<()>) -> Result<Done, Broken> {
    let mut source = Source::find(run).await?;
    let list = FileList::new(std::mem::take(&mut source.entries));
    let list = list.map_err(|error| broken(BrokenKind::ListTooLarge, &error.to_string()))?;
    let list = Arc::new(list);
    run.planned(&list);
    let Source { base, unread, devices, .. } = source;
    for (path, error) in &unread {
        run.failed(&remote_fault(path, error), false);
    }
    let is_complete = unread.is_empty();
    let landing = open(run, list.clone(), is_complete).await?;
    let down = Arc::new(Down { run: run.clone(), base, cursor: Mutex::new(landing.cursor()), landing });

    let (needed, mut needs) = mpsc::channel(FILES);
    let considers = down.clone();
    let mut considering = pin!(run.thread(move || considers.consider(&needed)));
    let mut has_directories = None;
    let mut has_more = true;
    while has_more || has_directories.is_none() {
        tokio::select! {
            considered = &mut considering, if has_directories.is_none() => has_directories = Some(considered?),
            next = needs.recv(), if has_more && tasks.len() < FILES => match next {
                Some(index) => {
                    tasks.spawn(down.clone().fetch(index));
                }
                None => has_more = false,
            },
            Some(ended) = tasks.join_next() => {
                joined(Some(ended))?;
                run.check().await?;
            }
        }
    }
    run.settle(tasks, 0).await?;

    let delete_skipped = delete_skipped(is_complete, has_directories.unwrap_or(false));
    let delete_skipped = delete_skipped.filter(|_| run.job.options.delete);
    let deletes = run.job.options.delete && delete_skipped.is_none();
    let faults = run.thread(move || down.finish(deletes)).await?;
    faults.iter().for_each(|fault| run.failed(fault, false));
    Ok(Done { delete_skipped, notes: left_out(devices).into_iter().collect() })
}

/// The list of the far side.
struct Source {
    /// The path of `.`.
    base: Vec<u8>,
    entries: Vec<Entry>,
    unread: Vec<(Vec<u8>, FsError)>,
    devices: u64,
}

impl Source {
    async fn find(run: &Arc<Run>) -> Result<Self, Broken> {
        let (files, job) = (&*run.files, &run.job);
        let missing = |error: FsError| {
            let detail = format!("{}: {error}", String::from_utf8_lossy(&job.remote));
            broken(BrokenKind::Refused, &detail)
        };
        let path = match far::absolute(files, &job.remote).await {
            Ok(path) => path,
            Err(error) => {
                run.check().await?;
                return Err(missing(error));
            }
        };
        let links = if run.meant.top().is_some() { Links::Stay } else { Links::Follow };
        let there = match far::look(files, &path, links).await {
            Ok(there) => there,
            Err(error) => {
                run.check().await?;
                return Err(missing(error));
            }
        };
        if run.meant.top().is_none() && !there.is_directory() {
            let detail = format!("{}: it is no directory", String::from_utf8_lossy(&job.remote));
            return Err(broken(BrokenKind::Refused, &detail));
        }
        let top = run.meant.top().unwrap_or(b".");
        let base = match run.meant.top() {
            Some(top) => path.get(..path.len() - top.len() - 1).filter(|above| !above.is_empty()),
            None => Some(path.as_slice()),
        };
        let mut source =
            Self { base: base.unwrap_or(b"/").to_vec(), entries: Vec::new(), unread: Vec::new(), devices: 0 };
        let is_entered = there.is_directory() && job.options.recursive;
        source.add(run, top.to_vec(), there);
        if is_entered {
            let mut visit = |path: &[u8], found: &Found| match run.meant.takes(path, found.is_directory()) {
                false => Visit::Skip,
                true if found.is_directory() => Visit::Enter,
                true => Visit::Take,
            };
            let Listing { found, unread } = far::list(run, &source.base, top, &mut visit).await?;
            if let Some((_, error)) = unread.iter().find(|(path, _)| path == top) {
                return Err(missing(error.clone()));
            }
            source.unread = unread;
            found.into_iter().for_each(|(path, found)| source.add(run, path, found));
        }
        Ok(source)
    }

    fn add(&mut self, run: &Run, path: Vec<u8>, found: Found) {
        let Options { recursive, links, devices, owner, group, .. } = run.job.options;
        let mut size = found.attributes.size.unwrap_or(0);
        let kind = match (found.kind(), &found.target) {
            (fs::Kind::Directory, _) => Kind::Directory(match (recursive, path.as_slice()) {
                (false, _) => Content::Unlisted,
                (true, b".") => Content::Top,
                (true, _) => Content::Listed,
            }),
            (fs::Kind::File, _) => Kind::File { checksum: None },
            (fs::Kind::Link, Some(target)) if links => {
                size = target.len() as u64;
                Kind::Symlink { target: Some(target.clone()) }
            }
            (fs::Kind::Link, _) => return,
            (fs::Kind::Other, _) => {
                self.devices += u64::from(devices != Devices::No);
                return;
            }
        };
        self.entries.push(Entry {
            name: path,
            size,
            mtime: found.mtime(),
            permissions: found.permissions(),
            kind,
            atime: None,
            uid: found.attributes.owner.map(|(user, _)| user).filter(|_| owner),
            gid: found.attributes.owner.map(|(_, users)| users).filter(|_| group),
            link: Link::Single,
        });
    }
}

async fn open(run: &Arc<Run>, list: Arc<FileList>, is_complete: bool) -> Result<Arc<Landing>, Broken> {
    let job = &run.job;
    let options = Options { delete: job.options.delete && is_complete, devices: Devices::No, ..job.options };
    let protecting = run.clone();
    let settings = Settings {
        options,
        algorithm: Algorithm::Xxh128,
        users: Vec::new(),
        groups: Vec::new(),
        // Once the run is over nothing more is removed.
        protected: Box::new(move |path, is_directory| {
            protecting.effort.is_over() || protecting.meant.protects(path, is_directory)
        }),
        effort: run.effort.clone(),
    };
    if !options.dry_run {
        run.touch();
    }
    let destination = job.local.clone();
    let opened = run.thread(move || Landing::open(list, settings, &destination)).await?;
    opened.map_err(|cause| broken(BrokenKind::Refused, &format!("{}: {cause}", job.local.display())))
}

/// What a download is made of.
struct Down {
    run: Arc<Run>,
    base: Vec<u8>,
    landing: Arc<Landing>,
    /// Of the threads that write files.
    cursor: Mutex<Cursor>,
}

/// What the thread of a file is told.
enum Piece {
    Data(Vec<Bytes>),
    /// All of it is there.
    End,
}

impl Down {
    /// Does what needs no data, and hands on what does. Whether no directory failed is the answer.
    fn consider(&self, needed: &mpsc::Sender<u32>) -> bool {
        let Self { run, landing, .. } = self;
        let mut cursor = landing.cursor();
        let mut has_directories = true;
        for (index, entry) in landing.list().active() {
            if run.effort.is_over() {
                break;
            }
            run.effort.beat();
            match landing.consider(&mut cursor, index, &entry) {
                Ok(Step::Needs { .. }) if run.job.options.dry_run => run.skipped(&entry, Skip::DryRun),
                Ok(Step::Needs { basis, .. }) => {
                    // It is opened again when its turn comes.
                    drop(basis);
                    if needed.blocking_send(index).is_err() {
                        break;
                    }
                }
                Ok(Step::UpToDate(because)) => run.skipped(&entry, because),
                Ok(Step::Done | Step::LeftOut | Step::Linked) => {}
                Err(fault) => {
                    has_directories &= !entry.is_directory();
                    run.failed(&fault, matches!(entry.kind, Kind::File { .. }));
                }
            }
        }
        has_directories
    }

    fn finish(&self, deletes: bool) -> Vec<Fault> {
        let Self { run, landing, .. } = self;
        let mut cursor = landing.cursor();
        let mut faults = Vec::new();
        if deletes {
            let dry_run = run.job.options.dry_run;
            faults = landing.delete_extras(&mut cursor, &mut |path| {
                run.effort.beat();
                run.news.tell(News::Deleted { path, dry_run });
            });
        }
        if !run.job.options.dry_run {
            faults.extend(landing.finish_directories(&mut cursor));
        }
        faults
    }

    /// Brings a file.
    async fn fetch(self: Arc<Self>, index: u32) {
        let list = self.landing.list().clone();
        let Some(entry) = list.entry(index) else { return };
        let mut moving = Moving::start(&self.run, &entry);
        let result = self.fetch_data(index, &entry, &mut moving).await;
        moving.end(result);
    }

    async fn fetch_data(
        self: &Arc<Self>,
        index: u32,
        entry: &Entry,
        moving: &mut Moving<'_>,
    ) -> Result<u64, Fault> {
        let (to, pieces) = mpsc::channel(AHEAD);
        let (begin, begun) = oneshot::channel();
        let down = self.clone();
        let writing = self.run.thread(move || down.land(index, pieces, begin));
        let opening = self.run.files.open(&far::far_path(&self.base, &entry.name), Open::Read);
        let read = async {
            // If there is no beginning the thread has failed, and says so.
            let Ok(from) = begun.await else { return Ok(()) };
            moving.moved(from);
            let file = opening.await?;
            self.read(&*file, (from, entry.size), &to, moving).await?;
            _ = to.send(Piece::End).await;
            Ok(())
        }
        .await;
        drop(to);
        let written = writing.await.unwrap_or_else(|broken| Err(interrupted(entry, broken.detail)));
        match read {
            Ok(()) => written,
            Err(error) => Err(remote_fault(&entry.name, &error)),
        }
    }

    /// Reads a range of a far file, with many requests under way, until the thread takes no more.
    async fn read(
        &self,
        file: &dyn RemoteFile,
        (from, end): (u64, u64),
        to: &mpsc::Sender<Piece>,
        moving: &mut Moving<'_>,
    ) -> Result<(), FsError> {
        let run = &self.run;
        let next = |asked: u64| u64::from(run.chunk).min(end - asked);
        let ask = |from: u64, bytes: u64| file.read(from, u32::try_from(bytes).unwrap_or(u32::MAX));
        let (mut asked, mut reached) = (from, from);
        let mut due = run.due(next(asked));
        let mut under_way: VecDeque<Sent<'_, Vec<Bytes>>> = VecDeque::new();
        while reached < end {
            tokio::select! {
                biased;
                read = first(&mut under_way) => {
                    let (pieces, bytes, slot) = read?;
                    let got: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
                    if got == 0 {
                        let cause = "it became shorter while it was read".to_owned();
                        return Err(FsError { kind: FsErrorKind::Failed, cause });
                    }
                    reached += got;
                    if got < bytes {
                        under_way.push_front((bytes - got, slot, ask(reached, bytes - got)));
                    }
                    moving.moved(got);
                    if to.send(Piece::Data(pieces)).await.is_err() {
                        return Ok(());
                    }
                }
                slot = run.slot(due), if asked < end => {
                    let bytes = next(asked);
                    under_way.push_back((bytes, slot, ask(asked, bytes)));
                    asked += bytes;
                    due = run.due(next(asked));
                }
            }
        }
        Ok(())
    }

    /// Writes a file. The answer is how many of its bytes were there before.
    fn land(
        &self,
        index: u32,
        mut pieces: mpsc::Receiver<Piece>,
        begin: oneshot::Sender<u64>,
    ) -> Result<u64, Fault> {
        let landing = &self.landing;
        let Some(entry) = landing.list().entry(index) else { return Ok(0) };
        let mut cursor = lock(&self.cursor).clone();
        let mut incoming = landing.receive(&mut cursor, &entry)?;
        let basis = landing.basis(&mut cursor, &entry).filter(|basis| continues(basis, &entry));
        *lock(&self.cursor) = cursor;
        let failed = |cause: io::Error| Fault::new(&entry.name, &cause);
        let from = basis.map_or(Ok(0), |basis| copy(basis, &mut incoming)).map_err(failed)?;
        // Whoever asked may have gone, and then there is no piece either.
        _ = begin.send(from);
        loop {
            match pieces.blocking_recv() {
                Some(Piece::Data(pieces)) => {
                    self.run.effort.beat();
                    pieces.iter().try_for_each(|piece| incoming.write(piece)).map_err(failed)?;
                }
                Some(Piece::End) => {
                    incoming.commit(index, &entry)?;
                    return Ok(from);
                }
                None => return Err(interrupted(&entry, "it was interrupted".to_owned())),
            }
        }
    }
}

/// Whether a file that was interrupted can be continued: it is no longer than the source, which was not changed since.
fn continues(basis: &Basis, entry: &Entry) -> bool {
    let is_newer = || basis.file.stat().is_ok_and(|there| there.mtime.seconds >= entry.mtime.seconds);
    basis.is_partial && basis.len <= entry.size && is_newer()
}

fn copy(basis: Basis, incoming: &mut Incoming) -> io::Result<u64> {
    let mut file = basis.file.take(basis.len);
    let mut piece = vec![0; 256 * 1024];
    let mut copied = 0;
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(copied),
            read => {
                incoming.write(piece.get(..read).unwrap_or_default())?;
                copied += read as u64;
            }
        }
    }
}

fn interrupted(entry: &Entry, detail: String) -> Fault {
    Fault { path: entry.name.clone(), word: FileFault::IoError, detail }
}
