//! The methods of the file port as requests, and what their answers mean.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use ssh_mcp_core::{
    port::{
        BoxFuture,
        fs::{
            Attributes, Content, Entry, FsError, FsErrorKind, Limits, LinkOrder, Links, Open, RemoteDir,
            RemoteFile, RemoteFs, Replaced, Space, Synced,
        },
        ssh::Channel,
    },
    text::remote_words,
};

use crate::{
    client::{Asked, Client},
    wire::{Answer, Request, open, request, status},
};

/// The files of one host.
pub(crate) struct Files {
    client: Arc<Client>,
    extensions: Arc<BTreeSet<Bytes>>,
    limits: Limits,
    round_trip: Duration,
}

/// What every server takes, where it does not say more.
const USUAL: Limits = Limits { read: 32 * 1024, write: 32 * 1024 };

/// More than this is not asked for: OpenSSH's messages are at most 256 KiB.
const MOST: u64 = 256 * 1024 - AROUND;

/// Bytes of a message that OpenSSH keeps for what stands around the data.
const AROUND: u64 = 1024;

const FSYNC: &[u8] = b"fsync@openssh.com";
const LIMITS: &[u8] = b"limits@openssh.com";
const POSIX_RENAME: &[u8] = b"posix-rename@openssh.com";
const STATVFS: &[u8] = b"statvfs@openssh.com";

impl Files {
    /// Starts the service on a channel.
    pub(crate) async fn open(channel: Channel) -> Result<Self, FsError> {
        let (client, hello) = Client::open(channel).await?;
        let extensions: BTreeSet<Bytes> = hello.extensions.into_iter().map(|(name, _)| name).collect();
        let limits = match extensions.contains(LIMITS) {
            true => {
                limits(client.ask(request::EXTENDED, Bytes::new(), |ask| ask.string(LIMITS)).answer().await?)
            }
            false => USUAL,
        };
        let (client, extensions) = (Arc::new(client), Arc::new(extensions));
        Ok(Self { client, extensions, limits, round_trip: hello.took })
    }

    fn has(&self, extension: &[u8]) -> bool {
        self.extensions.contains(extension)
    }

    /// Sends a request that carries no data.
    fn ask(&self, kind: u8, write: impl FnOnce(Request) -> Request) -> Asked {
        self.client.ask(kind, Bytes::new(), write)
    }

    /// The same, for what is answered by a status alone.
    fn act(
        &self,
        kind: u8,
        write: impl FnOnce(Request) -> Request,
    ) -> BoxFuture<'static, Result<(), FsError>> {
        done(self.ask(kind, write))
    }
}

impl RemoteFs for Files {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn round_trip(&self) -> Duration {
        self.round_trip
    }

    fn is_gone(&self) -> bool {
        self.client.is_gone()
    }

    fn pulse(&self) -> u64 {
        self.client.pulse()
    }

    fn real_path(&self, path: &[u8]) -> BoxFuture<'static, Result<Vec<u8>, FsError>> {
        name(self.ask(request::REALPATH, |ask| ask.string(path)))
    }

    fn attributes(&self, path: &[u8], links: Links) -> BoxFuture<'static, Result<Attributes, FsError>> {
        let kind = match links {
            Links::Follow => request::STAT,
            Links::Stay => request::LSTAT,
        };
        attributes(self.ask(kind, |ask| ask.string(path)))
    }

    fn set_attributes(&self, path: &[u8], attributes: Attributes) -> BoxFuture<'static, Result<(), FsError>> {
        self.act(request::SETSTAT, |ask| ask.string(path).attributes(&attributes))
    }

    fn open(&self, path: &[u8], how: Open) -> BoxFuture<'static, Result<Box<dyn RemoteFile>, FsError>> {
        let (flags, new) = match how {
            Open::Read => (open::READ, Attributes::default()),
            Open::Write { content, permissions } => {
                let truncate = if content == Content::Truncate { open::TRUNCATE } else { 0 };
                let new = Attributes { mode: Some(permissions), ..Attributes::default() };
                (open::READ | open::WRITE | open::CREATE | truncate, new)
            }
        };
        let asked = self.ask(request::OPEN, |ask| ask.string(path).u32(flags).attributes(&new));
        let (client, syncs) = (Arc::clone(&self.client), self.has(FSYNC));
        Box::pin(async move {
            let handle = Handle { client, bytes: handle(asked.answer().await?)? };
            let file: Box<dyn RemoteFile> = Box::new(File { handle, syncs });
            Ok(file)
        })
    }

    fn open_dir(&self, path: &[u8]) -> BoxFuture<'static, Result<Box<dyn RemoteDir>, FsError>> {
        let asked = self.ask(request::OPENDIR, |ask| ask.string(path));
        let client = Arc::clone(&self.client);
        Box::pin(async move {
            let dir: Box<dyn RemoteDir> =
                Box::new(Dir(Handle { client, bytes: handle(asked.answer().await?)? }));
            Ok(dir)
        })
    }

    fn make_dir(&self, path: &[u8], permissions: u32) -> BoxFuture<'static, Result<(), FsError>> {
        let new = Attributes { mode: Some(permissions), ..Attributes::default() };
        self.act(request::MKDIR, |ask| ask.string(path).attributes(&new))
    }

    fn remove(&self, path: &[u8]) -> BoxFuture<'static, Result<(), FsError>> {
        self.act(request::REMOVE, |ask| ask.string(path))
    }

    fn remove_dir(&self, path: &[u8]) -> BoxFuture<'static, Result<(), FsError>> {
        self.act(request::RMDIR, |ask| ask.string(path))
    }

    fn make_link(
        &self,
        path: &[u8],
        target: &[u8],
        order: LinkOrder,
    ) -> BoxFuture<'static, Result<(), FsError>> {
        let (first, second) = match order {
            LinkOrder::TargetFirst => (target, path),
            LinkOrder::PathFirst => (path, target),
        };
        self.act(request::SYMLINK, |ask| ask.string(first).string(second))
    }

    fn read_link(&self, path: &[u8]) -> BoxFuture<'static, Result<Vec<u8>, FsError>> {
        name(self.ask(request::READLINK, |ask| ask.string(path)))
    }

    fn replace(&self, from: &[u8], to: &[u8]) -> BoxFuture<'static, Result<Replaced, FsError>> {
        if self.has(POSIX_RENAME) {
            let renamed = self.act(request::EXTENDED, |ask| ask.string(POSIX_RENAME).string(from).string(to));
            return Box::pin(async move { renamed.await.map(|()| Replaced::Atomically) });
        }
        // Requests are served in their order, so both may go at once; that there was nothing to remove is no failure.
        let removed = self.act(request::REMOVE, |ask| ask.string(to));
        let renamed = self.act(request::RENAME, |ask| ask.string(from).string(to));
        Box::pin(async move {
            match removed.await {
                Ok(()) => {}
                Err(error) if error.kind == FsErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            renamed.await.map(|()| Replaced::InTwoSteps)
        })
    }

    fn space(&self, path: &[u8]) -> BoxFuture<'static, Result<Option<Space>, FsError>> {
        if !self.has(STATVFS) {
            return Box::pin(async { Ok(None) });
        }
        let asked = self.ask(request::EXTENDED, |ask| ask.string(STATVFS).string(path));
        Box::pin(async move {
            let answer = asked.answer().await?;
            let Answer::Extended(bytes) = answer else { return Err(refusal(answer)) };
            space(bytes).map(Some).ok_or_else(unexpected)
        })
    }
}

/// Something that is open on the server; dropping it closes it.
struct Handle {
    client: Arc<Client>,
    bytes: Bytes,
}

impl Handle {
    fn ask(&self, kind: u8, write: impl FnOnce(Request) -> Request) -> Asked {
        self.client.ask(kind, Bytes::new(), |ask| write(ask.string(&self.bytes)))
    }

    fn close(&mut self) -> BoxFuture<'static, Result<(), FsError>> {
        let closed = done(self.ask(request::CLOSE, |ask| ask));
        self.bytes = Bytes::new();
        closed
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // No handle is empty; one that is has been closed.
        if !self.bytes.is_empty() {
            drop(self.close());
        }
    }
}

struct File {
    handle: Handle,
    syncs: bool,
}

impl RemoteFile for File {
    fn read(&self, offset: u64, len: u32) -> BoxFuture<'static, Result<Vec<Bytes>, FsError>> {
        let asked = self.handle.ask(request::READ, |ask| ask.u64(offset).u32(len));
        Box::pin(async move {
            let answer = asked.answer().await?;
            if is_end(&answer) {
                return Ok(Vec::new());
            }
            let Answer::Data(pieces) = answer else { return Err(refusal(answer)) };
            // Whatever is behind the end is asked for on its own, and would be there twice.
            let got: usize = pieces.iter().map(Bytes::len).sum();
            if got > len as usize { Err(unexpected()) } else { Ok(pieces) }
        })
    }

    fn write(&self, offset: u64, data: Bytes) -> BoxFuture<'static, Result<(), FsError>> {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let handle = &self.handle.bytes;
        let ask = |ask: Request| ask.string(handle).u64(offset).u32(len);
        done(self.handle.client.ask(request::WRITE, data, ask))
    }

    fn attributes(&self) -> BoxFuture<'static, Result<Attributes, FsError>> {
        attributes(self.handle.ask(request::FSTAT, |ask| ask))
    }

    fn set_attributes(&self, attributes: Attributes) -> BoxFuture<'static, Result<(), FsError>> {
        done(self.handle.ask(request::FSETSTAT, |ask| ask.attributes(&attributes)))
    }

    fn sync(&self) -> BoxFuture<'static, Result<Synced, FsError>> {
        if !self.syncs {
            return Box::pin(async { Ok(Synced::Unsupported) });
        }
        let handle = &self.handle.bytes;
        let ask = |ask: Request| ask.string(FSYNC).string(handle);
        let synced = done(self.handle.client.ask(request::EXTENDED, Bytes::new(), ask));
        Box::pin(async move { synced.await.map(|()| Synced::Yes) })
    }

    fn pulse(&self) -> u64 {
        self.handle.client.pulse()
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, Result<(), FsError>> {
        self.handle.close()
    }
}

struct Dir(Handle);

impl RemoteDir for Dir {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, FsError>> {
        Box::pin(async move {
            // The two that are left out may come one at a time; who still has nothing then would be asked for ever.
            for _ in 0..3 {
                let answer = self.0.ask(request::READDIR, |ask| ask).answer().await?;
                if is_end(&answer) {
                    return Ok(Vec::new());
                }
                let Answer::Names(mut entries) = answer else { return Err(refusal(answer)) };
                entries.retain(|entry| entry.name != b"." && entry.name != b"..");
                if !entries.is_empty() {
                    return Ok(entries);
                }
            }
            Err(unexpected())
        })
    }
}

fn done(asked: Asked) -> BoxFuture<'static, Result<(), FsError>> {
    Box::pin(async move {
        let answer = asked.answer().await?;
        if matches!(answer, Answer::Status { code: status::OK, .. }) { Ok(()) } else { Err(refusal(answer)) }
    })
}

fn name(asked: Asked) -> BoxFuture<'static, Result<Vec<u8>, FsError>> {
    Box::pin(async move {
        let answer = asked.answer().await?;
        let Answer::Names(names) = answer else { return Err(refusal(answer)) };
        names.into_iter().next().map(|entry| entry.name).ok_or_else(unexpected)
    })
}

fn attributes(asked: Asked) -> BoxFuture<'static, Result<Attributes, FsError>> {
    Box::pin(async move {
        let answer = asked.answer().await?;
        let Answer::Attributes(attributes) = answer else { return Err(refusal(answer)) };
        Ok(attributes)
    })
}

fn handle(answer: Answer) -> Result<Bytes, FsError> {
    let Answer::Handle(handle) = answer else { return Err(refusal(answer)) };
    if handle.is_empty() { Err(unexpected()) } else { Ok(handle) }
}

/// Whether it says that there is nothing more.
fn is_end(answer: &Answer) -> bool {
    matches!(answer, Answer::Status { code: status::EOF, .. })
}

/// What `limits@openssh.com` says: longest message, longest read, longest write, handles at a time.
fn limits(answer: Answer) -> Limits {
    let Answer::Extended(mut bytes) = answer else { return USUAL };
    let mut next = || bytes.try_get_u64().ok();
    let (longest, read, write) = (next(), next(), next());
    // 0 is "as much as you like".
    let any = |most: u64| if most == 0 { u64::MAX } else { most };
    let fits = MOST.min(any(longest.unwrap_or(0)).saturating_sub(AROUND));
    let held = |said: Option<u64>, usual: u32| match said {
        None => usual,
        Some(most) => u32::try_from(any(most).min(fits)).unwrap_or(usual),
    };
    Limits { read: held(read, USUAL.read), write: held(write, USUAL.write) }
}

/// What `statvfs@openssh.com` says, in the order of statvfs(3).
fn space(mut bytes: Bytes) -> Option<Space> {
    let mut next = || bytes.try_get_u64().ok();
    let (_size, fragment, _blocks, _free, available) = (next()?, next()?, next()?, next()?, next()?);
    let (_files, _free_files, _available_files, _id, flags) = (next()?, next()?, next()?, next()?, next()?);
    const READ_ONLY: u64 = 1;
    Some(Space { free: available.saturating_mul(fragment), read_only: flags & READ_ONLY != 0 })
}

/// An answer that is not the one hoped for.
fn refusal(answer: Answer) -> FsError {
    let Answer::Status { code, words } = answer else { return unexpected() };
    let said = words.to_lowercase();
    let says = |all: &[&str]| all.iter().any(|words| said.contains(words));
    let kind = match code {
        status::NO_SUCH_FILE => FsErrorKind::NotFound,
        status::PERMISSION_DENIED => FsErrorKind::Denied,
        status::BAD_MESSAGE | status::OK | status::EOF => FsErrorKind::Protocol,
        status::NO_CONNECTION | status::CONNECTION_LOST => FsErrorKind::Gone,
        status::UNSUPPORTED => FsErrorKind::Unsupported,
        // A failure of any kind; some servers say of which.
        _ if says(&["no space", "quota", "disk full"]) => FsErrorKind::NoSpace,
        _ if says(&["read-only", "read only"]) => FsErrorKind::ReadOnly,
        _ => FsErrorKind::Failed,
    };
    let cause = match words.trim() {
        "" => format!("status {code}"),
        words => remote_words(words),
    };
    FsError { kind, cause }
}

fn unexpected() -> FsError {
    FsError {
        kind: FsErrorKind::Protocol,
        cause: "the server's answer is not one to the question".to_owned(),
    }
}
