//! The far tree: its paths, its list, what is removed there, and what its server can do.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rsync_wire::file_list::Time;
use ssh_mcp_core::port::{
    BoxFuture,
    fs::{Attributes, Content, FsError, FsErrorKind, Kind, LinkOrder, Links, Open, RemoteFs},
    mirror::{Broken, BrokenKind, News, Options},
};
use tokio::task::JoinSet;

use super::{AT_ONCE, FILES, Run, broken, joined, last_name, level, parent, remote_fault};
use crate::local::{join, temporary_name};

/// What there is at a path of the far tree.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) attributes: Attributes,
    /// Where it leads, if it is a link.
    pub(super) target: Option<Vec<u8>>,
}

/// What becomes of something that is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    Skip,
    Take,
    /// What is in it is looked at as well.
    Enter,
}

/// A list of the far tree.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) found: Vec<(Vec<u8>, Found)>,
    /// What could not be looked at.
    pub(super) unread: Vec<(Vec<u8>, FsError)>,
}

impl Found {
    pub(super) fn kind(&self) -> Kind {
        self.attributes.kind().unwrap_or(Kind::Other)
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == Kind::Directory
    }

    pub(super) fn permissions(&self) -> u16 {
        (self.attributes.mode.unwrap_or(0) & 0o7777) as u16
    }

    pub(super) fn mtime(&self) -> Time {
        let seconds = self.attributes.times.map_or(0, |(_, changed)| i64::from(changed));
        Time { seconds, nanoseconds: 0 }
    }
}

/// The longest path that a list can have.
const PATH_LEN: usize = 4095;

/// Bytes of all names of a list: who lists them may be hostile.
const NAMES: u64 = 512 << 20;

/// The absolute path of what a user wrote.
pub(super) async fn absolute(files: &dyn RemoteFs, path: &[u8]) -> Result<Vec<u8>, FsError> {
    if path.starts_with(b"/") {
        return Ok(without_slashes(path).to_vec());
    }
    let below = if path == b"~" { b"" } else { path.strip_prefix(b"~/").unwrap_or(path) };
    let login = files.real_path(b".").await?;
    Ok(if below.is_empty() { login } else { far_path(&login, without_slashes(below)) })
}

/// The absolute path of a path of the list.
pub(super) fn far_path(base: &[u8], path: &[u8]) -> Vec<u8> {
    match (base, path) {
        (base, b".") => base.to_vec(),
        (b"/", path) => [b"/", path].concat(),
        (base, path) => [base, b"/", path].concat(),
    }
}

/// The directory of an absolute path.
pub(super) fn parent_of(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) | None => b"/",
        Some(slash) => path.get(..slash).unwrap_or(b"/"),
    }
}

fn without_slashes(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte != b'/') {
        Some(last) => path.get(..=last).unwrap_or(path),
        None => path.get(..1).unwrap_or(path),
    }
}

/// Looks at one path.
pub(super) async fn look(files: &dyn RemoteFs, path: &[u8], links: Links) -> Result<Found, FsError> {
    let attributes = files.attributes(path, links).await?;
    let target = match attributes.kind() {
        Some(Kind::Link) => Some(files.read_link(path).await?),
        Some(Kind::File | Kind::Directory | Kind::Other) | None => None,
    };
    Ok(Found { attributes, target })
}

/// Lists what is in the directory `top` and below, both given as in the list, several directories at a time. What `visit`
/// skips is left out.
pub(super) async fn list(
    run: &Arc<Run>,
    base: &[u8],
    top: &[u8],
    visit: &mut (dyn FnMut(&[u8], &Found) -> Visit + Send),
) -> Result<Listing, Broken> {
    let seen = Arc::<Seen>::default();
    let mut listing = Listing::default();
    let mut waiting = vec![top.to_vec()];
    let mut readings = JoinSet::new();
    loop {
        while readings.len() < FILES
            && let Some(directory) = waiting.pop()
        {
            let (run, seen, path) = (run.clone(), seen.clone(), far_path(base, &directory));
            readings.spawn(async move { (directory, read_directory(&run, &path, &seen).await) });
        }
        let Some((directory, read)) = joined(readings.join_next().await)? else { return Ok(listing) };
        run.check().await?;
        let found = match read {
            Ok(found) => found,
            Err(Unread::Run(broken)) => return Err(broken),
            Err(Unread::Directory(error)) => {
                listing.unread.push((directory, error));
                continue;
            }
        };
        let mut names = HashSet::new();
        for (name, found) in found {
            let path = join(&directory, &name);
            let found = match found {
                Ok(_) if path.len() > PATH_LEN => {
                    let cause = "the path is too long".to_owned();
                    Err(FsError { kind: FsErrorKind::Failed, cause })
                }
                found => found,
            };
            match found {
                // Told twice it is there once.
                Ok(_) if !names.insert(name) => {}
                Ok(found) => {
                    let visit = visit(&path, &found);
                    if visit == Visit::Enter {
                        waiting.push(path.clone());
                    }
                    if visit != Visit::Skip {
                        listing.found.push((path, found));
                    }
                }
                Err(error) => listing.unread.push((path, error)),
            }
        }
    }
}

/// How much a list has.
#[derive(Default)]
struct Seen {
    entries: AtomicU64,
    names: AtomicU64,
}

/// Why a directory was not read.
enum Unread {
    Directory(FsError),
    Run(Broken),
}

impl From<FsError> for Unread {
    fn from(error: FsError) -> Self {
        Self::Directory(error)
    }
}

/// A name of a directory and what is there.
type Named = (Vec<u8>, Result<Found, FsError>);

async fn read_directory(run: &Run, path: &[u8], seen: &Seen) -> Result<Vec<Named>, Unread> {
    let mut directory = run.files.open_dir(path).await?;
    let mut all = Vec::new();
    loop {
        let entries = directory.next().await?;
        if entries.is_empty() {
            return Ok(all);
        }
        let bytes: usize = entries.iter().map(|entry| path.len() + entry.name.len()).sum();
        let names = seen.names.fetch_add(bytes as u64, Ordering::Relaxed);
        let count = seen.entries.fetch_add(entries.len() as u64, Ordering::Relaxed) + entries.len() as u64;
        if count > u64::from(run.job.list_limit) || names > NAMES {
            let detail = format!("the far side has more than {} entries", run.job.list_limit);
            return Err(Unread::Run(broken(BrokenKind::ListTooLarge, &detail)));
        }
        let is_name =
            |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0);
        if let Some(entry) = entries.iter().find(|entry| !is_name(&entry.name)) {
            let detail = format!("the server lists {:?} as a name", String::from_utf8_lossy(&entry.name));
            return Err(Unread::Run(broken(BrokenKind::Protocol, &detail)));
        }
        // What the server has not said is asked for, all of it before the first answer.
        let asked: Vec<_> = entries
            .into_iter()
            .map(|entry| {
                let at = far_path(path, &entry.name);
                let Attributes { size, mode, .. } = entry.attributes;
                let more = (mode.is_none() || size.is_none()).then(|| run.files.attributes(&at, Links::Stay));
                let is_link = entry.attributes.kind() == Some(Kind::Link);
                let target = is_link.then(|| run.files.read_link(&at));
                (entry, at, more, target)
            })
            .collect();
        for (entry, at, more, target) in asked {
            let found = async {
                let attributes = match more {
                    Some(more) => more.await?,
                    None => entry.attributes,
                };
                let target = match target {
                    Some(target) => Some(target.await?),
                    None if attributes.kind() == Some(Kind::Link) => Some(run.files.read_link(&at).await?),
                    None => None,
                };
                Ok(Found { attributes, target })
            };
            let found: Result<Found, FsError> = found.await;
            all.push((entry.name, found));
        }
    }
}

/// Removes what was found at paths of the list with all that is below, deepest first, and tells each that is gone. What is
/// protected stays, and so do the directories on the way to it; what failed is told. Whether nothing stayed is the answer.
pub(super) async fn remove(run: &Arc<Run>, base: &[u8], tops: Vec<(Vec<u8>, Found)>) -> Result<bool, Broken> {
    let mut files = Vec::new();
    let mut directories = BTreeMap::<usize, Vec<Vec<u8>>>::new();
    let mut stays = HashSet::new();
    for (top, found) in tops {
        if !found.is_directory() {
            files.push(top);
            continue;
        }
        open_up(run, base, &top, &found);
        let mut kept = Vec::new();
        let listing = list(run, base, &top, &mut |path, found| {
            if run.meant.protects(path, found.is_directory()) {
                kept.push(path.to_vec());
                return Visit::Skip;
            }
            if !found.is_directory() {
                return Visit::Take;
            }
            open_up(run, base, path, found);
            Visit::Enter
        })
        .await?;
        for (path, error) in &listing.unread {
            run.failed(&remote_fault(path, error), false);
            stays.insert(path.clone());
        }
        kept.iter()
            .chain(listing.unread.iter().map(|(path, _)| path))
            .for_each(|path| keep(&mut stays, path));
        directories.entry(level(&top)).or_default().push(top);
        for (path, found) in listing.found {
            match found.is_directory() {
                true => directories.entry(level(&path)).or_default().push(path),
                false => files.push(path),
            }
        }
    }
    files.sort_unstable();
    let files_first = std::iter::once((files, false));
    for (mut paths, is_directory) in
        files_first.chain(directories.into_values().rev().map(|paths| (paths, true)))
    {
        paths.retain(|path| !stays.contains(path));
        for some in paths.chunks(AT_ONCE) {
            let ask = |path: &Vec<u8>| -> BoxFuture<'static, Result<(), FsError>> {
                let at = far_path(base, path);
                match (run.job.options.dry_run, is_directory) {
                    (true, _) => Box::pin(std::future::ready(Ok(()))),
                    (false, true) => run.files.remove_dir(&at),
                    (false, false) => run.files.remove(&at),
                }
            };
            let asked: Vec<_> = some.iter().map(ask).collect();
            for (path, asked) in some.iter().zip(asked) {
                match asked.await {
                    Ok(()) => {
                        run.news.tell(News::Deleted { path, dry_run: run.job.options.dry_run });
                    }
                    Err(error) => {
                        run.check().await?;
                        keep(&mut stays, path);
                        run.failed(&remote_fault(path, &error), false);
                    }
                }
            }
        }
    }
    Ok(stays.is_empty())
}

/// Lets its owner read and change a directory. If that is not allowed, what is done in it may say so.
pub(super) fn open_up(run: &Run, base: &[u8], path: &[u8], found: &Found) {
    const ALL: u32 = 0o700;
    let mode = u32::from(found.permissions());
    if mode & ALL != ALL && !run.job.options.dry_run {
        let mode = Some(mode | ALL);
        drop(run.files.set_attributes(&far_path(base, path), Attributes { mode, ..Attributes::default() }));
    }
}

/// What is above a path stays with it.
fn keep(stays: &mut HashSet<Vec<u8>>, path: &[u8]) {
    let mut above = parent(path);
    while above != b"." && stays.insert(above.to_vec()) {
        above = parent(above);
    }
}

/// A file on the far side that is removed when this is dropped.
pub(super) struct Temporary {
    files: Arc<dyn RemoteFs>,
    pub(super) path: Vec<u8>,
    is_placed: bool,
}

impl Temporary {
    /// A free name beside a path; nothing is made yet.
    pub(super) fn beside(files: &Arc<dyn RemoteFs>, path: &[u8]) -> std::io::Result<Self> {
        let name = temporary_name(last_name(path))?;
        let path = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => [path.get(..=slash).unwrap_or_default(), &name].concat(),
            None => name,
        };
        Ok(Self { files: files.clone(), path, is_placed: false })
    }

    /// It has its final name.
    pub(super) fn placed(mut self) {
        self.is_placed = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_placed {
            // The request goes out all the same.
            drop(self.files.remove(&self.path));
        }
    }
}

/// What is to be found out about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) links: bool,
    pub(super) perms: bool,
    pub(super) mtime: bool,
}

/// Finds out what the server can do, by a file and a link that are made, changed and removed: in the parent of the
/// destination, or where that is not allowed in the login directory, or in the destination. The answer is how it wants links.
pub(super) async fn probe(run: &Run, base: &[u8], needs: Needs) -> Result<LinkOrder, Broken> {
    if needs == (Needs { links: false, perms: false, mtime: false }) {
        return Ok(LinkOrder::TargetFirst);
    }
    let login = run.files.real_path(b".").await.unwrap_or_else(|_| b".".to_vec());
    let mut refusal = None;
    for directory in [parent_of(base), &login, base] {
        match probe_in(run, &far_path(directory, b"ssh-mcp"), needs).await {
            Ok(result) => return result.map_err(|missing| broken(BrokenKind::FeatureMissing, missing)),
            Err(error) => {
                run.check().await?;
                refusal.get_or_insert(error.cause);
            }
        }
    }
    let detail = format!("the server lets nothing be tried out: {}", refusal.unwrap_or_default());
    Err(broken(BrokenKind::FeatureMissing, &detail))
}

/// What the server cannot, or how it wants links; an error where nothing can be made there.
async fn probe_in(run: &Run, path: &[u8], needs: Needs) -> Result<Result<LinkOrder, &'static str>, FsError> {
    /// Bits and a time that nothing has by itself.
    const MODE: u32 = 0o610;
    const TIME: u32 = 1_000_000_007;

    let files = &run.files;
    let scratch = || {
        let failed = |cause: std::io::Error| FsError { kind: FsErrorKind::Failed, cause: cause.to_string() };
        Temporary::beside(files, path).map_err(failed)
    };
    let file = scratch()?;
    let how = Open::Write { content: Content::Truncate, permissions: 0o600 };
    let opened = files.open(&file.path, how).await?;
    let change = Attributes { mode: Some(MODE), times: Some((TIME, TIME)), ..Attributes::default() };
    let (changed, is) = (opened.set_attributes(change), opened.attributes());
    if !needs.links {
        _ = changed.await;
        return Ok(check_attributes(is.await, needs, MODE, TIME).map(|()| LinkOrder::TargetFirst));
    }
    let (link, other) = (scratch()?, scratch()?);
    // A server of the other kind makes the link at what is the target here.
    let made = files.make_link(&link.path, &other.path, LinkOrder::TargetFirst);
    let (one, two) = (files.read_link(&link.path), files.read_link(&other.path));
    _ = (changed.await, made.await);
    let is = check_attributes(is.await, needs, MODE, TIME);
    let order = match (one.await, two.await) {
        (Ok(target), _) if target == other.path => Ok(LinkOrder::TargetFirst),
        (_, Ok(target)) if target == link.path => Ok(LinkOrder::PathFirst),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Err("the server makes no symbolic links"),
    };
    Ok(is.and(order))
}

fn check_attributes(
    is: Result<Attributes, FsError>,
    needs: Needs,
    mode: u32,
    time: u32,
) -> Result<(), &'static str> {
    let is = is.unwrap_or_default();
    if needs.perms && is.mode.is_none_or(|is| is & 0o7777 != mode) {
        return Err("the server does not set permissions");
    }
    if needs.mtime && is.times.is_none_or(|(_, changed)| changed != time) {
        return Err("the server does not set times");
    }
    Ok(())
}

impl Needs {
    pub(super) fn of(options: &Options, has_links: bool) -> Self {
        Self { links: has_links, perms: options.perms, mtime: options.mtime }
    }
}
