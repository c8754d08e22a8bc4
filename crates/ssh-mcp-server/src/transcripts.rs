//! Transcripts of shells as files: `<state directory>/<SHELL_ID>/transcript.log`, and windows of tmux on them.
//!
//! Only the user the server runs as may read them, from their making on: directories have mode 0700 and files 0600. A
//! state directory in which somebody else could put a file of his own in the place of ours is refused, because what is
//! in it is shown on terminals. Everything is made relative to an open directory, so that what was checked is what is
//! used.
//!
//! Each write is a call to the system on a thread for such calls. What has been written is the kernel's; it is not
//! waited for that it is on the disk.

mod tmux;

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io::{ErrorKind, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    process::{getegid, geteuid},
};
use ssh_mcp_core::{
    id::ShellId,
    port::{
        BoxFuture,
        transcript::{
            AppendError, NewTranscript, Transcript, TranscriptError, Transcripts, View, Window, WindowError,
        },
    },
    settings::Settings,
};

use self::tmux::Tmux;

/// Transcripts below the state directory.
pub struct TranscriptFiles {
    root: Option<PathBuf>,
    tmux: Arc<Tmux>,
}

impl TranscriptFiles {
    /// Where the settings say; of `environment` tmux gets what it needs.
    pub fn new(settings: &Settings, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        // Where the process runs is known; a path that is shown to others must not hang on it.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Self {
            root: settings.state_dir.as_ref().map(absolute),
            tmux: Arc::new(Tmux::new(settings.tmux_bin.clone(), environment)),
        }
    }
}

impl Transcripts for TranscriptFiles {
    fn create(&self, shell: ShellId) -> BoxFuture<'_, Result<NewTranscript, TranscriptError>> {
        Box::pin(async move {
            let root = self.root.clone().ok_or(TranscriptError::NoPlace)?;
            let place = root.clone();
            // A call that is dropped meanwhile drops what comes of this, which removes it again.
            let made = tokio::task::spawn_blocking(move || TranscriptFile::make(&root, shell)).await;
            made.unwrap_or_else(|panic| Err(failed(&place, panic)))
        })
    }

    fn show<'a>(&'a self, view: View<'a>) -> BoxFuture<'a, Result<Box<dyn Window>, WindowError>> {
        Box::pin(async move {
            let window = self.tmux.open(view).await?;
            Ok(Box::new(window) as Box<dyn Window>)
        })
    }
}

/// One file in a directory of its own.
struct TranscriptFile {
    file: Arc<File>,
    written: u64,
    /// Where it is, for as long as it would be removed again.
    unused: Option<Place>,
}

/// The directory of one shell, and the one that is in.
struct Place {
    root: OwnedFd,
    dir: OwnedFd,
    name: String,
}

const FILE: &str = "transcript.log";

impl TranscriptFile {
    fn make(root: &Path, shell: ShellId) -> Result<NewTranscript, TranscriptError> {
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(|error| failed(root, error))?;
        let fd = open_safely(root)?;
        let name = shell.to_string();
        let dir_path = root.join(&name);
        // One that is there, even as a link, makes this fail: it is not ours.
        rustix::fs::mkdirat(&fd, &name, Mode::RWXU).map_err(|error| failed(&dir_path, error))?;
        let opened = Self::make_in(&fd, &name);
        let (dir, file) = opened.map_err(|error| {
            // There is nothing in it; if it cannot go, that is no worse than the failure that is told.
            _ = rustix::fs::unlinkat(&fd, &name, AtFlags::REMOVEDIR);
            failed(&dir_path, error)
        })?;
        let file = Self {
            file: Arc::new(File::from(file)),
            written: 0,
            unused: Some(Place { root: fd, dir, name }),
        };
        Ok(NewTranscript { path: dir_path.join(FILE), file: Box::new(file) })
    }

    fn make_in(root: &OwnedFd, name: &str) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        let as_dir = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(root, name, as_dir, Mode::empty())?;
        let as_new = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, FILE, as_new, Mode::RUSR | Mode::WUSR)?;
        Ok((dir, file))
    }
}

impl Transcript for TranscriptFile {
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<u64, AppendError>> {
        self.unused = None;
        let file = Arc::clone(&self.file);
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || write_all(&file, &bytes)).await;
            let (count, cause) = match done {
                Ok((count, Ok(()))) => (count, None),
                Ok((count, Err(error))) => (count, Some(error.to_string())),
                Err(panic) => (0, Some(panic.to_string())),
            };
            self.written += count as u64;
            match cause {
                None => Ok(self.written),
                Some(cause) => Err(AppendError { written: self.written, cause }),
            }
        })
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        self.unused = None;
        Box::pin(std::future::ready(()))
    }
}

impl Drop for TranscriptFile {
    fn drop(&mut self) {
        let Some(Place { root, dir, name }) = self.unused.take() else { return };
        // An empty file and an empty directory: quick, and if it fails there is nobody who could do more.
        _ = rustix::fs::unlinkat(&dir, FILE, AtFlags::empty());
        _ = rustix::fs::unlinkat(&root, &name, AtFlags::REMOVEDIR);
    }
}

/// Writes all there is; how much was written, and what stopped it.
fn write_all(mut file: &File, bytes: &[u8]) -> (usize, std::io::Result<()>) {
    let mut count = 0;
    while let Some(rest) = bytes.get(count..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (count, Err(ErrorKind::WriteZero.into())),
            Ok(written) => count += written,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (count, Err(error)),
        }
    }
    (count, Ok(()))
}

/// Opens the state directory, unless somebody else has a say in what is in it.
fn open_safely(root: &Path) -> Result<OwnedFd, TranscriptError> {
    let is_trusted = |uid: u32| uid == geteuid().as_raw() || uid == 0;
    let unsafe_for = |why| TranscriptError::Unsafe { path: root.to_owned(), why };
    let itself = fs::symlink_metadata(root).map_err(|error| failed(root, error))?;
    if itself.is_symlink() && !is_trusted(itself.uid()) {
        return Err(unsafe_for("it is a link that somebody else made"));
    }
    let fd = rustix::fs::open(root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed(root, error))?;
    let dir = rustix::fs::fstat(&fd).map_err(|error| failed(root, error))?;
    if !is_trusted(dir.st_uid) {
        return Err(unsafe_for("it belongs to somebody else"));
    }
    let mode = Mode::from_raw_mode(dir.st_mode);
    let shared = mode.contains(Mode::WOTH) || (mode.contains(Mode::WGRP) && dir.st_gid != getegid().as_raw());
    // In a sticky directory nobody moves what is another's.
    if shared && !mode.contains(Mode::SVTX) {
        return Err(unsafe_for("others may write in it"));
    }
    Ok(fd)
}

fn failed(path: &Path, cause: impl std::fmt::Display) -> TranscriptError {
    TranscriptError::Failed { path: path.to_owned(), cause: cause.to_string() }
}

#[cfg(test)]
mod tests;
