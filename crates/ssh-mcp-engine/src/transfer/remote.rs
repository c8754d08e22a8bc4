//! The far side of a transfer: its files, its programs that hash, and what its refusals mean.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
    time::Duration,
};

use sha2::{Digest, Sha256};
use ssh_mcp_core::{
    kind::transfer::{self, Failure},
    port::{
        BoxFuture,
        fs::{Attributes, FsError, FsErrorKind, Kind, Links, Open, RemoteFs},
    },
};

pub use ssh_mcp_core::kind::transfer::VerifyMethod;

use super::{
    file::{Fault, Refusal, blocking, local},
    local::Made,
    stream::{self, Flow, Hash, StreamError},
};

/// The far side.
#[derive(Clone)]
pub struct Remote {
    /// Its files.
    pub files: Arc<dyn RemoteFs>,
    /// Its programs that hash.
    pub hasher: Arc<dyn RemoteHash>,
    /// Bytes of one request, where the operator says so.
    pub chunk: Option<u32>,
    /// Requests under way, where the operator says so.
    pub depth: Option<usize>,
    /// Nothing moves, or nothing is answered, for so long: the transfer is given up.
    pub patience: Duration,
}

/// Hashes files on the far side without their bytes having to come here.
pub trait RemoteHash: Send + Sync {
    /// SHA-256 of the first bytes, or of all; none if no program there can.
    fn sha256(&self, path: &[u8], range: Range) -> BoxFuture<'static, Option<[u8; 32]>>;
}

/// What of a file is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// So many bytes from its beginning.
    First(u64),
    /// All of it, which should be so many.
    Whole(u64),
}

/// Which limit of the server counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Read,
    Write,
}

impl Remote {
    pub(super) fn flow(&self, limit: Limit) -> Flow {
        let limits = self.files.limits();
        let allowed = match limit {
            Limit::Read => limits.read,
            Limit::Write => limits.write,
        };
        let chunk = self.chunk.map_or(allowed, |wanted| wanted.min(allowed)).max(1);
        let depth = self.depth.unwrap_or_else(|| transfer::depth(self.files.round_trip(), chunk));
        Flow { chunk, depth, patience: self.patience }
    }

    /// The answer to a request, if the server gives one at all.
    pub(super) async fn answer<T>(&self, asked: BoxFuture<'_, Result<T, FsError>>) -> Result<T, FsError> {
        stream::patient(self.patience, || self.files.pulse(), asked).await.unwrap_or_else(|| {
            let cause = format!("no answer for {} s", self.patience.as_secs());
            Err(FsError { kind: FsErrorKind::TimedOut, cause })
        })
    }

    /// What is at a path, if anything.
    pub(super) async fn look(&self, path: &[u8]) -> Result<Option<Attributes>, Refusal> {
        match self.answer(self.files.attributes(path, Links::Follow)).await {
            Ok(attributes) => Ok(Some(attributes)),
            Err(error) if error.kind == FsErrorKind::NotFound => Ok(None),
            Err(error) => Err(Refusal::Remote { path: shown(path), error }),
        }
    }

    /// Whether a remote file, or its beginning, has this hash, and by whose word.
    ///
    /// A program there may see another file than the file service (one of them below a changed root), so only bytes that
    /// were read back are said to differ.
    async fn has(&self, path: &[u8], range: Range, ours: [u8; 32]) -> Result<Option<VerifyMethod>, FsError> {
        if self.hasher.sha256(path, range).await == Some(ours) {
            return Ok(Some(VerifyMethod::Exec));
        }
        let file = self.answer(self.files.open(path, Open::Read)).await?;
        let len = match range {
            Range::First(len) => len,
            // As long as it is, so that bytes too many are noticed; where the server does not say, its end is found by reading.
            Range::Whole(_) => self.answer(file.attributes()).await?.size.unwrap_or(u64::MAX),
        };
        match stream::read_back(&*file, len, self.flow(Limit::Read)).await {
            Ok(hash) => Ok((<[u8; 32]>::from(hash.finalize()) == ours).then_some(VerifyMethod::Sftp)),
            Err(StreamError::Remote(error)) => Err(error),
            Err(error @ StreamError::Stalled(_)) => {
                Err(FsError { kind: FsErrorKind::TimedOut, cause: error.to_string() })
            }
            Err(error @ StreamError::Local(_)) => {
                Err(FsError { kind: FsErrorKind::Failed, cause: error.to_string() })
            }
        }
    }

    /// The hash of the first `len` bytes here, which must be the same there.
    pub(super) async fn same_beginning(
        &self,
        there: &[u8],
        here: (&Path, &File),
        len: u64,
    ) -> Result<(Sha256, VerifyMethod), Refusal> {
        let (path, file) = here;
        let ours = hash_local(file, len).await.map_err(|cause| local(path, cause))?;
        let same = self.has(there, Range::First(len), ours.clone().finalize().into()).await;
        match same.map_err(|error| Refusal::Remote { path: shown(there), error })? {
            Some(method) => Ok((ours, method)),
            None => Err(Refusal::ResumeMismatch(len)),
        }
    }

    /// Compares what was streamed with what the far side has; nothing, where no hash was made.
    pub(super) async fn verify(
        &self,
        path: &[u8],
        (hash, len): (Hash, u64),
        source_changed: bool,
    ) -> Result<Option<VerifyMethod>, Fault> {
        let Some(hash) = hash else { return Ok(None) };
        let mismatch = |reason: &str| Fault {
            failure: Failure::VerifyMismatch,
            reason: format!("{}: {reason}", shown(path)),
        };
        if source_changed {
            return Err(mismatch("the source was written while it was read"));
        }
        let same = self.has(path, Range::Whole(len), hash.finalize().into()).await.map_err(|error| {
            Fault { failure: Failure::VerifyUnavailable, reason: shown_error(path, &error) }
        })?;
        same.map(Some).ok_or_else(|| mismatch("both sides have different bytes"))
    }

    /// What the refusal to make a directory means: one that is there is as good.
    pub(super) async fn made_before(&self, path: &[u8], error: &FsError) -> Result<Made, Fault> {
        if matches!(error.kind, FsErrorKind::Gone | FsErrorKind::TimedOut) {
            return Err(fault(path, error));
        }
        match self.answer(self.files.attributes(path, Links::Follow)).await {
            Ok(there) if there.kind() == Some(Kind::Directory) => Ok(Made::Before),
            Ok(_) | Err(_) => Err(fault(path, error)),
        }
    }

    /// Fails at once where the server says that there is no room for so many bytes.
    pub(super) async fn has_room(&self, path: &[u8], bytes: u64) -> Result<(), Fault> {
        // A server that cannot say lets the writes say it.
        let Ok(Some(space)) = self.answer(self.files.space(parent(path))).await else { return Ok(()) };
        if space.read_only {
            let reason = format!("{}: the file system is read-only", shown(path));
            return Err(Fault { failure: Failure::ReadOnlyFs, reason });
        }
        if space.free < bytes {
            let reason =
                format!("{}: {bytes} bytes are to be written, and {} are free", shown(path), space.free);
            return Err(Fault { failure: Failure::DiskFull, reason });
        }
        Ok(())
    }

    /// A failed write, with what the file system says where the server only says that it failed.
    pub(super) async fn explained(&self, path: &[u8], error: &FsError) -> Fault {
        if error.kind == FsErrorKind::Failed
            && let Ok(Some(space)) = self.answer(self.files.space(parent(path))).await
            && space.free < u64::from(self.flow(Limit::Write).chunk)
        {
            return Fault { failure: Failure::DiskFull, reason: shown_error(path, error) };
        }
        fault(path, error)
    }
}

/// The hash of a file's first bytes.
async fn hash_local(file: &File, len: u64) -> io::Result<Sha256> {
    let mut file = file.try_clone()?;
    blocking(move || {
        file.seek(SeekFrom::Start(0))?;
        let mut hash = Sha256::new();
        let mut rest = file.take(len);
        let mut piece = vec![0; 256 * 1024];
        loop {
            match rest.read(&mut piece)? {
                0 => return Ok(hash),
                read => hash.update(piece.get(..read).unwrap_or_default()),
            }
        }
    })
    .await
}

fn parent(file: &[u8]) -> &[u8] {
    match file.iter().rposition(|byte| *byte == b'/') {
        None => b".",
        Some(0) => b"/",
        Some(at) => file.get(..at).unwrap_or(b"/"),
    }
}

pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

pub(super) fn shown_error(path: &[u8], error: &FsError) -> String {
    format!("{}: {error}", shown(path))
}

pub(super) fn fault(path: &[u8], error: &FsError) -> Fault {
    Fault { failure: error.kind.into(), reason: shown_error(path, error) }
}
