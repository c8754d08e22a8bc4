//! Several sources and whole directories: first everything is looked at, then the directories are made, then the files go,
//! in name order and several at a time (`docs/transfers.md`, "Several files").
//!
//! Links are followed. A directory that is reached through a link is entered once, so that loops end. What cannot be
//! transferred is recorded, and the rest goes on.

use std::{
    collections::HashSet,
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ssh_mcp_core::{
    kind::transfer::{self, Failure, Fault, Outcome, Progress},
    port::fs::{Attributes, FsError, FsErrorKind, Kind, Links},
    registry::Direction,
};
use tokio::task::JoinSet;

use super::{
    file::{Ask, Destination, Download, Refusal, Sides, Upload, blocking, last_name, path},
    local::{Local, Made},
    remote::{Limit, Remote, fault, shown},
};

/// Everything that is to be transferred.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Parents before what is in them.
    folders: Vec<Folder>,
    /// In the order of their names.
    files: Vec<Item>,
    /// Bytes of all files.
    pub(super) total: u64,
    /// What cannot be transferred: how much, and the first.
    failed: u64,
    failures: Vec<Fault>,
    /// Entries of all directories that were listed, and bytes of the paths they are kept under.
    listed: usize,
    names: usize,
    /// The most entries there may be.
    most: usize,
}

#[derive(Debug)]
struct Folder {
    here: PathBuf,
    there: Vec<u8>,
    /// Of the source.
    attributes: Attributes,
}

#[derive(Debug)]
struct Item {
    here: PathBuf,
    there: Vec<u8>,
    size: u64,
    /// The folder it goes into, by number; none is one that is not ours to make.
    folder: Option<usize>,
}

/// Files that move: how much of the line each takes, and how it ended.
pub(super) type UnderWay = JoinSet<(u64, Result<Outcome, Fault>)>;

/// How a tree ended, or how far it came.
#[derive(Default)]
pub(super) struct TreeEnd {
    /// Of the files that arrived, together.
    pub(super) outcome: Outcome,
    /// The first files that did not.
    pub(super) failures: Vec<Fault>,
}

/// Files under way at a time (`docs/transfers.md`).
const UNDER_WAY: usize = 16;

/// Bytes under way of all files together.
const IN_FLIGHT: u64 = 8 << 20;

/// Bytes of the paths of one tree: what is known of each entry is kept until the end, and who lists them may be hostile.
const MOST_NAMES: usize = 512 << 20;

/// Files whose failure is told one by one.
pub(super) const TOLD: usize = 20;

/// Requests about directories under way.
const AT_ONCE: usize = 64;

/// Permission bits without which the owner could not fill a directory.
const FILL: u32 = 0o700;

impl Tree {
    /// How many files there are.
    pub(super) fn count(&self) -> u64 {
        self.files.len() as u64
    }

    /// What an upload of these sources moves.
    ///
    /// # Errors
    /// [`Refusal`], if a source is not there, or is a directory and `recursive` is not set.
    pub(super) async fn up(
        sides: &Sides,
        sources: Vec<PathBuf>,
        to: Vec<u8>,
        recursive: bool,
    ) -> Result<Self, Refusal> {
        let mut tree = Self { most: sides.most_entries, ..Self::default() };
        let is = sides.there.look(&to).await?.and_then(|there| there.kind());
        let several = sources.len() > 1;
        tree.destination_above(sides, &to, is, several, recursive).await?;
        let here = sides.here.clone();
        let mut taken = HashSet::new();
        blocking(move || {
            for source in sources {
                let target = place(&to, is, last_part(source.as_os_str().as_bytes()), several);
                let there = here.look(&source)?;
                match there.kind {
                    Kind::File if !taken.insert(target.clone()) => {
                        return Err(Refusal::Twins(shown(&target)));
                    }
                    Kind::File => tree.add(source, target, there.size, None),
                    Kind::Directory if recursive => {
                        let mut entered = HashSet::from([there.identity]);
                        tree.walk_here(&here, source, target, &mut entered)?;
                    }
                    Kind::Directory | Kind::Link | Kind::Other => return Err(Refusal::LocalNotFile(source)),
                }
            }
            Ok(tree)
        })
        .await
    }

    /// What a download of these sources moves.
    ///
    /// # Errors
    /// As [`up`](Self::up).
    pub(super) async fn down(
        sides: &Sides,
        sources: Vec<Vec<u8>>,
        to: PathBuf,
        recursive: bool,
    ) -> Result<Self, Refusal> {
        let mut tree = Self { most: sides.most_entries, ..Self::default() };
        let several = sources.len() > 1;
        let (here, named) = (sides.here.clone(), to.clone());
        let is = blocking(move || here.find(&named)).await?.map(|there| there.kind);
        tree.destination_below(&sides.here, &to, is, several, recursive).await?;
        let mut taken = HashSet::new();
        let remote = &sides.there;
        for source in sources {
            let unseen = |error| Refusal::Remote { path: shown(&source), error };
            let there =
                remote.answer(remote.files.attributes(&source, Links::Follow)).await.map_err(unseen)?;
            let target = path(place(to.as_os_str().as_bytes(), is, last_part(&source), several));
            match there.kind() {
                Some(Kind::File) | None if !taken.insert(target.clone()) => {
                    return Err(Refusal::Twins(target.display().to_string()));
                }
                Some(Kind::File) | None => tree.add(target, source, there.size.unwrap_or(0), None),
                Some(Kind::Directory) if recursive => {
                    let real = remote.answer(remote.files.real_path(&source)).await.map_err(unseen)?;
                    tree.walk_there(remote, (source, there), target, real).await?;
                }
                Some(Kind::Directory | Kind::Link | Kind::Other) => {
                    return Err(Refusal::RemoteNotFile(shown(&source)));
                }
            }
        }
        Ok(tree)
    }

    /// Moves everything; `progress` is told of all of it. What is left in `under_way` is the caller's to end.
    pub(super) async fn run(
        self,
        sides: Sides,
        pattern: Pattern,
        progress: &Arc<Progress>,
        under_way: &mut UnderWay,
        end: &mut TreeEnd,
    ) {
        let Self { folders, files, total, failed, failures, .. } = self;
        (failures.len() as u64..failed).for_each(|_| progress.file_failed());
        failures.into_iter().for_each(|failure| end.fail(failure, progress));
        let mut made = Vec::with_capacity(folders.len());
        for folder in pattern.make_folders(&sides, &folders).await {
            match folder {
                Ok(folder) => made.push(folder),
                Err(failure) => {
                    let ends_all = ends_all(failure.failure);
                    end.fail(failure, progress);
                    if ends_all {
                        return;
                    }
                    // What was to go into it fails by itself.
                    made.push(Made::Before);
                }
            }
        }
        // What is there already gives its place to what comes, and how much that is nobody has counted.
        let is_all_new = made.iter().all(|made| *made == Made::New);
        if is_all_new && let Err(failure) = pattern.has_room(&sides, &folders, total).await {
            end.fail(failure, progress);
            return;
        }
        let written = folders.first().map(|folder| folder.here.clone());
        let written = written.or_else(|| Some(files.first()?.here.parent()?.to_owned()));
        let window = pattern.window(&sides);
        let mut weight = 0;
        let mut files = files.into_iter().peekable();
        loop {
            // A file that is alone may be as large as it likes.
            while let Some(file) = files.next_if(|file| {
                let fits = weight + file.size.min(window) <= IN_FLIGHT;
                under_way.is_empty() || (under_way.len() < UNDER_WAY && fits)
            }) {
                let weighs = file.size.min(window);
                weight += weighs;
                let is_new =
                    file.folder.and_then(|folder| made.get(folder)).is_some_and(|made| *made == Made::New);
                let destination = if is_new { Destination::New } else { Destination::Exact };
                let ask = pattern.ask(file, destination);
                let (sides, progress) = (sides.clone(), Arc::clone(progress));
                under_way.spawn(async move { (weighs, pattern.transfer(&sides, ask, &progress).await) });
            }
            match under_way.join_next().await {
                None => break,
                Some(Ok((weighs, done))) => {
                    weight -= weighs;
                    match done {
                        Ok(outcome) => {
                            progress.file_done();
                            end.outcome.merge(outcome);
                        }
                        Err(failure) => {
                            let ends_all = ends_all(failure.failure);
                            end.fail(failure, progress);
                            if ends_all {
                                return;
                            }
                        }
                    }
                }
                Some(Err(ended)) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                // The runtime is shutting down.
                Some(Err(_)) => return,
            }
        }
        if let (Direction::Download, Some(folder)) = (pattern.way, written) {
            let here = sides.here.clone();
            if let Err(refusal) = blocking(move || here.flush(&folder)).await {
                end.fail(refusal.into(), progress);
            }
        }
        if pattern.preserve {
            pattern.finish_folders(&sides, &folders, end, progress).await;
        }
    }

    fn add(&mut self, here: PathBuf, there: Vec<u8>, size: u64, folder: Option<usize>) {
        self.total += size;
        self.files.push(Item { here, there, size, folder });
    }

    fn fail(&mut self, fault: Fault) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            self.failures.push(fault);
        }
    }

    /// What cannot be looked at is recorded, unless whatever comes behind it could not be either.
    fn missed(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        let is_last = match &refusal {
            Refusal::TooMany { .. } => true,
            Refusal::Remote { error, .. } => ends_all(error.kind.into()),
            Refusal::Local { .. }
            | Refusal::Outside(_)
            | Refusal::Busy(_)
            | Refusal::Twins(_)
            | Refusal::NoDirectory(_)
            | Refusal::LocalNotFile(_)
            | Refusal::RemoteNotFile(_)
            | Refusal::Overshoot(_)
            | Refusal::ResumeMismatch(_) => false,
        };
        if is_last {
            return Err(refusal);
        }
        self.fail(refusal.into());
        Ok(())
    }

    /// Entries of a directory were listed: the lengths of their names, and of both paths of the directory.
    fn list(&mut self, at: &[u8], paths: usize, names: impl Iterator<Item = usize>) -> Result<(), Refusal> {
        for name in names {
            self.listed += 1;
            self.names = self.names.saturating_add(paths).saturating_add(2 * name);
        }
        match self.listed <= self.most && self.names <= MOST_NAMES {
            true => Ok(()),
            false => Err(Refusal::TooMany { path: shown(at), limit: self.most }),
        }
    }

    fn enter(&mut self, here: &Path, there: &[u8], attributes: Attributes) -> usize {
        self.folders.push(Folder { here: here.to_owned(), there: there.to_vec(), attributes });
        self.folders.len() - 1
    }

    /// The directory that several sources go into, and with `recursive` the missing ones above the destination.
    async fn destination_above(
        &mut self,
        sides: &Sides,
        to: &[u8],
        is: Option<Kind>,
        several: bool,
        recursive: bool,
    ) -> Result<(), Refusal> {
        let is_folder = several || to.ends_with(b"/");
        match is {
            Some(Kind::Directory) => return Ok(()),
            Some(_) if is_folder => return Err(Refusal::NoDirectory(shown(to))),
            Some(_) => return Ok(()),
            None if !recursive && is_folder => {
                let error = FsError { kind: FsErrorKind::NotFound, cause: "no such directory".to_owned() };
                return Err(Refusal::Remote { path: shown(to), error });
            }
            None if !recursive => return Ok(()),
            None => {}
        }
        let trimmed = without_slashes(to);
        let mut missing = if is_folder { vec![trimmed.to_vec()] } else { Vec::new() };
        let mut above = parent(trimmed);
        while let Some(folder) = above.filter(|folder| !folder.is_empty()) {
            if sides.there.look(folder).await?.is_some() {
                break;
            }
            missing.push(folder.to_vec());
            above = parent(folder);
        }
        for folder in missing.into_iter().rev() {
            self.enter(Path::new(""), &folder, Attributes { mode: Some(0o777), ..Attributes::default() });
        }
        Ok(())
    }

    /// The same on this side.
    async fn destination_below(
        &mut self,
        here: &Local,
        to: &Path,
        is: Option<Kind>,
        several: bool,
        recursive: bool,
    ) -> Result<(), Refusal> {
        let is_folder = several || to.as_os_str().as_bytes().ends_with(b"/");
        match is {
            Some(Kind::Directory) => return Ok(()),
            Some(_) if is_folder => return Err(Refusal::NoDirectory(to.display().to_string())),
            Some(_) => return Ok(()),
            None if !recursive && is_folder => {
                let cause = std::io::ErrorKind::NotFound.into();
                return Err(Refusal::Local { path: to.to_owned(), cause });
            }
            None if !recursive => return Ok(()),
            None => {}
        }
        let (here, to) = (here.clone(), to.to_owned());
        let missing = blocking(move || {
            let mut missing = if is_folder { vec![to.clone()] } else { Vec::new() };
            let mut above = to.parent();
            while let Some(folder) = above.filter(|folder| !folder.as_os_str().is_empty()) {
                if here.find(folder)?.is_some() {
                    break;
                }
                missing.push(folder.to_owned());
                above = folder.parent();
            }
            Ok::<_, Refusal>(missing)
        });
        for folder in missing.await?.into_iter().rev() {
            self.enter(&folder, b"", Attributes { mode: Some(0o777), ..Attributes::default() });
        }
        Ok(())
    }

    /// A directory of this side. `entered` are the directories that have been entered.
    fn walk_here(
        &mut self,
        here: &Local,
        from: PathBuf,
        to: Vec<u8>,
        entered: &mut HashSet<(i128, u64)>,
    ) -> Result<(), Refusal> {
        // Innermost last, with what is left of it in reverse.
        let mut open = vec![self.open_here(here, &from, &to)?];
        while let Some((folder, names, (from, to))) = open.last_mut() {
            let Some((name, is_link)) = names.pop() else {
                open.pop();
                continue;
            };
            let source = from.join(&name);
            let target = [to.as_slice(), b"/", name.as_bytes()].concat();
            match here.look(&source) {
                Err(refusal) => self.missed(refusal)?,
                Ok(there) => match there.kind {
                    Kind::File => {
                        let folder = Some(*folder);
                        self.add(source, target, there.size, folder);
                    }
                    Kind::Directory => {
                        if !entered.insert(there.identity) && is_link {
                            continue;
                        }
                        match self.open_here(here, &source, &target) {
                            Ok(level) => open.push(level),
                            Err(refusal) => self.missed(refusal)?,
                        }
                    }
                    Kind::Link | Kind::Other => {
                        self.missed(Refusal::LocalNotFile(source))?;
                    }
                },
            }
        }
        Ok(())
    }

    fn open_here(&mut self, here: &Local, from: &Path, to: &[u8]) -> Result<Level, Refusal> {
        let mut names = here.list(from)?;
        let paths = from.as_os_str().len() + to.len();
        self.list(from.as_os_str().as_bytes(), paths, names.iter().map(|(name, _)| name.len()))?;
        names.reverse();
        let there = here.look(from)?;
        let modified = u32::try_from(there.modified.as_secs()).unwrap_or(u32::MAX);
        let attributes =
            Attributes { mode: Some(there.mode), times: Some((modified, modified)), ..Attributes::default() };
        let folder = self.enter(from, to, attributes);
        Ok((folder, names, (from.to_owned(), to.to_vec())))
    }

    /// A directory of the far side. `real` is its path without links.
    async fn walk_there(
        &mut self,
        remote: &Remote,
        (from, is): (Vec<u8>, Attributes),
        to: PathBuf,
        real: Vec<u8>,
    ) -> Result<(), Refusal> {
        let mut entered = HashSet::from([real.clone()]);
        let mut open = vec![self.open_there(remote, (from, is), to, real).await?];
        while let Some((folder, entries, at)) = open.last_mut() {
            let Some((name, mut is)) = entries.pop() else {
                open.pop();
                continue;
            };
            let source = [at.from.as_slice(), b"/", &name].concat();
            if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
                let reason = format!("{}: no name of a file", shown(&source));
                self.fail(Fault { failure: Failure::SftpProtocol, reason });
                continue;
            }
            let target = at.to.join(OsString::from_vec(name.clone()));
            let mut real = [at.real.as_slice(), b"/", &name].concat();
            let is_link = is.kind() == Some(Kind::Link);
            if is_link || is.kind().is_none() {
                match remote.answer(remote.files.attributes(&source, Links::Follow)).await {
                    Ok(there) => is = there,
                    Err(error) => {
                        self.missed(Refusal::Remote { path: shown(&source), error })?;
                        continue;
                    }
                }
            }
            match is.kind() {
                Some(Kind::File) | None => {
                    let folder = Some(*folder);
                    self.add(target, source, is.size.unwrap_or(0), folder);
                }
                Some(Kind::Directory) => {
                    if is_link {
                        match remote.answer(remote.files.real_path(&source)).await {
                            Ok(path) => real = path,
                            Err(error) => {
                                self.missed(Refusal::Remote { path: shown(&source), error })?;
                                continue;
                            }
                        }
                    }
                    if !entered.insert(real.clone()) && is_link {
                        continue;
                    }
                    match self.open_there(remote, (source, is), target, real).await {
                        Ok(level) => open.push(level),
                        Err(refusal) => self.missed(refusal)?,
                    }
                }
                Some(Kind::Link | Kind::Other) => {
                    self.missed(Refusal::RemoteNotFile(shown(&source)))?;
                }
            }
        }
        Ok(())
    }

    async fn open_there(
        &mut self,
        remote: &Remote,
        (from, is): (Vec<u8>, Attributes),
        to: PathBuf,
        real: Vec<u8>,
    ) -> Result<RemoteLevel, Refusal> {
        let unseen = |error| Refusal::Remote { path: shown(&from), error };
        let mut directory = remote.answer(remote.files.open_dir(&from)).await.map_err(unseen)?;
        let mut entries = Vec::new();
        loop {
            let some = remote.answer(directory.next()).await.map_err(unseen)?;
            if some.is_empty() {
                break;
            }
            let paths = from.len() + to.as_os_str().len();
            self.list(&from, paths, some.iter().map(|entry| entry.name.len()))?;
            entries.extend(some.into_iter().map(|entry| (entry.name, entry.attributes)));
        }
        entries.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        let folder = self.enter(&to, &from, is);
        Ok((folder, entries, At { from, to, real }))
    }
}

/// An open directory of this side: its number, the names that are left, and its paths here and there.
type Level = (usize, Vec<(OsString, bool)>, (PathBuf, Vec<u8>));

/// The same of the far side.
type RemoteLevel = (usize, Vec<(Vec<u8>, Attributes)>, At);

/// Where a directory of the far side is.
struct At {
    from: Vec<u8>,
    to: PathBuf,
    real: Vec<u8>,
}

/// What holds for every file of a tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pattern {
    pub(super) way: Direction,
    pub(super) resume: transfer::Resume,
    pub(super) verify: bool,
    pub(super) atomic: bool,
    pub(super) preserve: bool,
}

impl Pattern {
    /// One file.
    pub(super) fn asking(self, local: PathBuf, remote: Vec<u8>, destination: Destination) -> Ask {
        let Self { resume, verify, atomic, preserve, .. } = self;
        Ask { local, remote, destination, resume, verify, atomic, preserve }
    }

    fn ask(self, file: Item, destination: Destination) -> Ask {
        self.asking(file.here, file.there, destination)
    }

    /// Moves one file.
    async fn transfer(self, sides: &Sides, ask: Ask, progress: &Arc<Progress>) -> Result<Outcome, Fault> {
        let counting = Arc::clone(progress);
        let moved = move |bytes| counting.add(bytes);
        match self.way {
            Direction::Upload => {
                let upload = Upload::prepare(sides, ask).await?;
                progress.resume(upload.resumed_from());
                upload.run(sides, moved).await
            }
            Direction::Download => {
                let download = Download::prepare(sides, ask).await?;
                progress.resume(download.resumed_from());
                download.run(sides, moved).await
            }
        }
    }

    /// Bytes that one large file has under way.
    fn window(self, sides: &Sides) -> u64 {
        let flow = sides.there.flow(match self.way {
            Direction::Upload => Limit::Write,
            Direction::Download => Limit::Read,
        });
        u64::from(flow.chunk) * flow.depth as u64
    }

    /// Fails at once where the far side says that it has no room for all of it.
    async fn has_room(self, sides: &Sides, folders: &[Folder], total: u64) -> Result<(), Fault> {
        match (self.way, self.resume, folders.first()) {
            (Direction::Upload, transfer::Resume::No, Some(first)) => {
                sides.there.has_room(&first.there, total).await
            }
            (Direction::Upload | Direction::Download, ..) => Ok(()),
        }
    }

    /// Makes the directories; each in turn says whether it is new.
    async fn make_folders(self, sides: &Sides, folders: &[Folder]) -> Vec<Result<Made, Fault>> {
        let mode = |folder: &Folder| (folder.attributes.mode.unwrap_or(0o777) & 0o777) | FILL;
        match self.way {
            Direction::Upload => {
                let mut made = Vec::with_capacity(folders.len());
                // Requests are answered in the order they are sent, so those of parents come first.
                for some in folders.chunks(AT_ONCE) {
                    let make = |folder: &Folder| sides.there.files.make_dir(&folder.there, mode(folder));
                    let asked: Vec<_> = some.iter().map(make).collect();
                    for (folder, asked) in some.iter().zip(asked) {
                        let folder = match sides.there.answer(asked).await {
                            Ok(()) => Ok(Made::New),
                            Err(error) => sides.there.made_before(&folder.there, &error).await,
                        };
                        let ends_all = folder.as_ref().is_err_and(|fault| ends_all(fault.failure));
                        made.push(folder);
                        if ends_all {
                            return made;
                        }
                    }
                }
                made
            }
            Direction::Download => {
                let wanted: Vec<_> =
                    folders.iter().map(|folder| (folder.here.clone(), mode(folder))).collect();
                let here = sides.here.clone();
                let make =
                    move |(folder, mode): (PathBuf, u32)| here.make_dir(&folder, mode).map_err(Fault::from);
                blocking(move || wanted.into_iter().map(make).collect()).await
            }
        }
    }

    /// Gives directories the source's permissions and times, the inner ones first.
    async fn finish_folders(self, sides: &Sides, folders: &[Folder], end: &mut TreeEnd, progress: &Progress) {
        let same = |folder: &Folder| Attributes {
            mode: folder.attributes.mode.map(|mode| mode & 0o7777),
            times: folder.attributes.times,
            ..Attributes::default()
        };
        let sources: Vec<_> =
            folders.iter().rev().filter(|folder| folder.attributes.times.is_some()).collect();
        for some in sources.chunks(AT_ONCE) {
            match self.way {
                Direction::Upload => {
                    let keep =
                        |folder: &&Folder| sides.there.files.set_attributes(&folder.there, same(folder));
                    let asked: Vec<_> = some.iter().map(keep).collect();
                    for (folder, asked) in some.iter().zip(asked) {
                        let Err(error) = sides.there.answer(asked).await else { continue };
                        let failure = fault(&folder.there, &error);
                        let ends_all = ends_all(failure.failure);
                        end.fail(failure, progress);
                        if ends_all {
                            return;
                        }
                    }
                }
                Direction::Download => {
                    let here = sides.here.clone();
                    let wanted: Vec<_> =
                        some.iter().map(|folder| (folder.here.clone(), same(folder))).collect();
                    let keep = move |(folder, same): &(PathBuf, Attributes)| here.keep(folder, same).err();
                    let failures: Vec<Refusal> =
                        blocking(move || wanted.iter().filter_map(keep).collect()).await;
                    failures.into_iter().for_each(|failure| end.fail(failure.into(), progress));
                }
            }
        }
    }
}

impl TreeEnd {
    /// A file has ended.
    pub(super) fn one(&mut self, done: Result<Outcome, Fault>, progress: &Progress) {
        match done {
            Ok(outcome) => {
                progress.file_done();
                self.outcome.merge(outcome);
            }
            Err(failure) => self.fail(failure, progress),
        }
    }

    /// All of it took longer than it may.
    pub(super) fn took_longer(&mut self, limit: Duration) {
        let reason = format!("the transfer took longer than {} s", limit.as_secs());
        self.first(Fault { failure: Failure::Timeout, reason });
    }

    /// What a caller should hear before everything else.
    fn first(&mut self, failure: Fault) {
        self.failures.insert(0, failure);
        self.failures.truncate(TOLD);
    }

    fn fail(&mut self, failure: Fault, progress: &Progress) {
        progress.file_failed();
        if ends_all(failure.failure) {
            self.first(failure);
        } else if self.failures.len() < TOLD {
            self.failures.push(failure);
        }
    }
}

/// Whether what one file failed of is what all that are left would fail of, each after its own patience.
fn ends_all(failure: Failure) -> bool {
    matches!(failure, Failure::ConnectionLost | Failure::Timeout)
}

/// Where a source goes: `several` go below the destination whatever it is.
fn place(to: &[u8], is: Option<Kind>, name: &[u8], several: bool) -> Vec<u8> {
    match (name, several) {
        // Of `.` and `..` only what is in them has a name.
        (b"" | b"." | b"..", _) => without_slashes(to).to_vec(),
        (name, true) => [without_slashes(to), b"/", name].concat(),
        (name, false) => transfer::destination(to, is, name),
    }
}

/// The last part of a path, whatever slashes stand behind it.
fn last_part(path: &[u8]) -> &[u8] {
    last_name(without_slashes(path))
}

fn without_slashes(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    path.get(..end).unwrap_or(path)
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    let at = path.iter().rposition(|byte| *byte == b'/')?;
    path.get(..at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_listing_says_is_kept_within_bounds() {
        // Entries, whether or not they become files; and one directory in another without end.
        const MOST: usize = 1000;
        let mut tree = Tree { most: MOST, ..Tree::default() };
        assert!(tree.list(b"/many", 10, (0..MOST).map(|_| 10)).is_ok());
        assert!(matches!(tree.list(b"/more", 10, std::iter::once(1)), Err(Refusal::TooMany { .. })));
        let mut tree = Tree { most: usize::MAX, ..Tree::default() };
        let levels =
            (0..100_000).take_while(|level| tree.list(b"/deep", 400 * level, std::iter::once(200)).is_ok());
        assert!(levels.count() < 2000);

        let mut tree = Tree::default();
        for _ in 0..100 {
            assert!(tree.missed(Refusal::RemoteNotFile("x".to_owned())).is_ok());
        }
        assert_eq!((tree.failed, tree.failures.len()), (100, TOLD));
        for kind in [FsErrorKind::Gone, FsErrorKind::TimedOut] {
            let error = FsError { kind, cause: "no".to_owned() };
            assert!(tree.missed(Refusal::Remote { path: "x".to_owned(), error }).is_err());
        }
    }
}
