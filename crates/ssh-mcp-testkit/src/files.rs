//! The files of a scripted machine behind the file port: in memory, and as slow as a test wants.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ssh_mcp_core::port::{
    BoxFuture,
    fs::{
        Attributes, Content, Entry, FsError, FsErrorKind, FsMount, Limits, LinkOrder, Links, Open, RemoteDir,
        RemoteFile, RemoteFs, Replaced, Space, Synced,
    },
    ssh::Channel,
};
use tokio::sync::watch;

/// The files of a machine; clones are the same ones. Its login directory is `/home`.
#[derive(Clone)]
pub struct Shelf(Arc<Inner>);

struct Inner {
    /// Content by path; a directory has none.
    files: Mutex<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    /// Bytes of files are moved only while this is set.
    moving: watch::Sender<bool>,
    /// Paths are looked at only while this is set.
    looking: watch::Sender<bool>,
    has_service: AtomicBool,
    /// Counts what moved for others than those who wait.
    pulse: AtomicU64,
    mounts: AtomicUsize,
    /// Services that have not been dropped.
    open: AtomicUsize,
    /// Services up to this one have been ended by the machine.
    ended: AtomicUsize,
}

impl Default for Shelf {
    fn default() -> Self {
        Self::new()
    }
}

impl Shelf {
    /// A machine with an empty login directory.
    pub fn new() -> Self {
        let files = BTreeMap::from([(b"/home".to_vec(), None)]);
        Self(Arc::new(Inner {
            files: Mutex::new(files),
            moving: watch::Sender::new(true),
            looking: watch::Sender::new(true),
            has_service: AtomicBool::new(true),
            pulse: AtomicU64::new(0),
            mounts: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        }))
    }

    /// Puts a file there.
    pub fn put(&self, path: &str, content: &[u8]) {
        self.files().insert(path.into(), Some(content.to_vec()));
    }

    /// Makes a directory.
    pub fn make_dir(&self, path: &str) {
        self.files().insert(path.into(), None);
    }

    /// What is in a file, if there is one.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.files().get(path.as_bytes()).cloned().flatten()
    }

    /// From now on reads and writes wait.
    pub fn hold(&self) {
        self.0.moving.send_replace(false);
    }

    /// From now on looks at paths wait.
    pub fn hold_looks(&self) {
        self.0.looking.send_replace(false);
    }

    /// All goes on.
    pub fn go_on(&self) {
        self.0.moving.send_replace(true);
        self.0.looking.send_replace(true);
    }

    /// The machine does something for somebody else.
    pub fn beat(&self) {
        self.0.pulse.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the machine has a file service.
    pub fn set_service(&self, has: bool) {
        self.0.has_service.store(has, Ordering::SeqCst);
    }

    /// The machine ends the services that run.
    pub fn end_services(&self) {
        self.0.ended.store(self.mounts(), Ordering::SeqCst);
    }

    /// How often the service was started.
    pub fn mounts(&self) -> usize {
        self.0.mounts.load(Ordering::SeqCst)
    }

    /// How many services somebody holds.
    pub fn open_services(&self) -> usize {
        self.0.open.load(Ordering::SeqCst)
    }

    #[expect(clippy::unwrap_used, reason = "a poisoned lock is a test that has failed already")]
    fn files(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
        self.0.files.lock().unwrap()
    }

    fn attributes_of(&self, path: &[u8]) -> Result<Attributes, FsError> {
        match self.files().get(path) {
            None => Err(refusal(FsErrorKind::NotFound)),
            Some(None) => Ok(Attributes { mode: Some(0o040_755), ..Attributes::default() }),
            Some(Some(content)) => {
                let size = Some(content.len() as u64);
                let is = Attributes { mode: Some(0o100_644), times: Some((1, 1)), ..Attributes::default() };
                Ok(Attributes { size, ..is })
            }
        }
    }

    /// Waits until bytes may move.
    fn moving(&self) -> BoxFuture<'static, ()> {
        until(&self.0.moving)
    }
}

impl FsMount for Shelf {
    fn mount(&self, channel: Channel) -> BoxFuture<'static, Result<Arc<dyn RemoteFs>, FsError>> {
        let shelf = self.clone();
        Box::pin(async move {
            if !shelf.0.has_service.load(Ordering::SeqCst) {
                return Err(refusal(FsErrorKind::Gone));
            }
            let number = shelf.0.mounts.fetch_add(1, Ordering::SeqCst) + 1;
            shelf.0.open.fetch_add(1, Ordering::SeqCst);
            let service: Arc<dyn RemoteFs> =
                Arc::new(Service { shelf, number, _channel: Mutex::new(channel) });
            Ok(service)
        })
    }
}

struct Service {
    shelf: Shelf,
    number: usize,
    /// Kept open as long as the service runs.
    _channel: Mutex<Channel>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shelf.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl RemoteFs for Service {
    fn limits(&self) -> Limits {
        Limits { read: 1000, write: 1000 }
    }

    fn round_trip(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn is_gone(&self) -> bool {
        self.number <= self.shelf.0.ended.load(Ordering::SeqCst)
    }

    fn pulse(&self) -> u64 {
        self.shelf.0.pulse.load(Ordering::SeqCst)
    }

    fn real_path(&self, path: &[u8]) -> BoxFuture<'static, Result<Vec<u8>, FsError>> {
        done(Ok(if path == b"." { b"/home".to_vec() } else { path.to_vec() }))
    }

    fn attributes(&self, path: &[u8], _links: Links) -> BoxFuture<'static, Result<Attributes, FsError>> {
        let (shelf, path) = (self.shelf.clone(), path.to_vec());
        Box::pin(async move {
            until(&shelf.0.looking).await;
            shelf.attributes_of(&path)
        })
    }

    fn set_attributes(
        &self,
        _path: &[u8],
        _attributes: Attributes,
    ) -> BoxFuture<'static, Result<(), FsError>> {
        done(Ok(()))
    }

    fn open(&self, path: &[u8], how: Open) -> BoxFuture<'static, Result<Box<dyn RemoteFile>, FsError>> {
        let mut files = self.shelf.files();
        let is_there = files.contains_key(path);
        match how {
            Open::Read if !is_there => return done(Err(refusal(FsErrorKind::NotFound))),
            Open::Read => {}
            Open::Write { content: Content::Keep, .. } if is_there => {}
            Open::Write { .. } => _ = files.insert(path.to_vec(), Some(Vec::new())),
        }
        let file: Box<dyn RemoteFile> = Box::new(Opened { shelf: self.shelf.clone(), path: path.to_vec() });
        done(Ok(file))
    }

    fn open_dir(&self, path: &[u8]) -> BoxFuture<'static, Result<Box<dyn RemoteDir>, FsError>> {
        let prefix = [path, b"/"].concat();
        let names: Vec<Vec<u8>> = self
            .shelf
            .files()
            .keys()
            .filter_map(|file| file.strip_prefix(prefix.as_slice()))
            .filter(|name| !name.contains(&b'/'))
            .map(<[u8]>::to_vec)
            .collect();
        let entries = names
            .into_iter()
            .filter_map(|name| {
                let attributes = self.shelf.attributes_of(&[prefix.as_slice(), &name].concat()).ok()?;
                Some(Entry { name, attributes })
            })
            .collect();
        let directory: Box<dyn RemoteDir> = Box::new(Listing(entries));
        done(Ok(directory))
    }

    fn make_dir(&self, path: &[u8], _permissions: u32) -> BoxFuture<'static, Result<(), FsError>> {
        let mut files = self.shelf.files();
        if files.contains_key(path) {
            return done(Err(refusal(FsErrorKind::Failed)));
        }
        files.insert(path.to_vec(), None);
        done(Ok(()))
    }

    fn remove(&self, path: &[u8]) -> BoxFuture<'static, Result<(), FsError>> {
        done(self.shelf.files().remove(path).map(drop).ok_or_else(|| refusal(FsErrorKind::NotFound)))
    }

    fn remove_dir(&self, path: &[u8]) -> BoxFuture<'static, Result<(), FsError>> {
        self.remove(path)
    }

    fn make_link(
        &self,
        _path: &[u8],
        _target: &[u8],
        _order: LinkOrder,
    ) -> BoxFuture<'static, Result<(), FsError>> {
        done(Err(refusal(FsErrorKind::Unsupported)))
    }

    fn read_link(&self, _path: &[u8]) -> BoxFuture<'static, Result<Vec<u8>, FsError>> {
        done(Err(refusal(FsErrorKind::Unsupported)))
    }

    fn replace(&self, from: &[u8], to: &[u8]) -> BoxFuture<'static, Result<Replaced, FsError>> {
        let mut files = self.shelf.files();
        let Some(content) = files.remove(from) else { return done(Err(refusal(FsErrorKind::NotFound))) };
        files.insert(to.to_vec(), content);
        done(Ok(Replaced::Atomically))
    }

    fn space(&self, _path: &[u8]) -> BoxFuture<'static, Result<Option<Space>, FsError>> {
        done(Ok(None))
    }
}

struct Opened {
    shelf: Shelf,
    path: Vec<u8>,
}

impl RemoteFile for Opened {
    fn read(&self, offset: u64, len: u32) -> BoxFuture<'static, Result<Vec<Bytes>, FsError>> {
        let (shelf, path) = (self.shelf.clone(), self.path.clone());
        Box::pin(async move {
            shelf.moving().await;
            let files = shelf.files();
            let content = files.get(&path).cloned().flatten().unwrap_or_default();
            let rest = content.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
            let piece = rest.get(..rest.len().min(len as usize)).unwrap_or_default();
            Ok(vec![Bytes::copy_from_slice(piece)].into_iter().filter(|piece| !piece.is_empty()).collect())
        })
    }

    fn write(&self, offset: u64, data: Bytes) -> BoxFuture<'static, Result<(), FsError>> {
        let (shelf, path) = (self.shelf.clone(), self.path.clone());
        Box::pin(async move {
            shelf.moving().await;
            let mut files = shelf.files();
            let content = files.entry(path).or_default().get_or_insert_default();
            let end = usize::try_from(offset).unwrap_or(usize::MAX) + data.len();
            content.resize(content.len().max(end), 0);
            if let Some(place) = content.get_mut(end - data.len()..end) {
                place.copy_from_slice(&data);
            }
            Ok(())
        })
    }

    fn attributes(&self) -> BoxFuture<'static, Result<Attributes, FsError>> {
        done(self.shelf.attributes_of(&self.path))
    }

    fn set_attributes(&self, _attributes: Attributes) -> BoxFuture<'static, Result<(), FsError>> {
        done(Ok(()))
    }

    fn sync(&self) -> BoxFuture<'static, Result<Synced, FsError>> {
        done(Ok(Synced::Unsupported))
    }

    fn pulse(&self) -> u64 {
        self.shelf.0.pulse.load(Ordering::SeqCst)
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), FsError>> {
        done(Ok(()))
    }
}

struct Listing(Vec<Entry>);

impl RemoteDir for Listing {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, FsError>> {
        done(Ok(std::mem::take(&mut self.0)))
    }
}

/// Waits until the flag is set.
fn until(flag: &watch::Sender<bool>) -> BoxFuture<'static, ()> {
    let mut flag = flag.subscribe();
    Box::pin(async move {
        // The machine outlives its services.
        _ = flag.wait_for(|is_set| *is_set).await;
    })
}

fn done<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

fn refusal(kind: FsErrorKind) -> FsError {
    FsError { kind, cause: format!("{kind:?}") }
}
