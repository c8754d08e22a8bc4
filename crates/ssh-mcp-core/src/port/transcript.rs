//! Transcripts: files that keep what a shell printed beyond its history and the process, and windows in which a person
//! watches one grow.
//!
//! Which output goes into one, and when, is the engine's business; where the files are and how a window is made is the
//! adapter's.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::BoxFuture;
use crate::id::ShellId;

/// The place where transcripts are kept.
pub trait Transcripts: Send + Sync {
    /// Makes the transcript of a shell, empty and readable by its owner only.
    ///
    /// # Errors
    /// See [`TranscriptError`]; then nothing was left behind.
    fn create(&self, shell: ShellId) -> BoxFuture<'_, Result<NewTranscript, TranscriptError>>;

    /// Opens a window that shows a transcript and follows it.
    ///
    /// # Errors
    /// See [`WindowError`]; the transcript is no worse for it.
    fn show<'a>(&'a self, view: View<'a>) -> BoxFuture<'a, Result<Box<dyn Window>, WindowError>>;
}

/// A transcript that was just made.
pub struct NewTranscript {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// The way to write it.
    pub file: Box<dyn Transcript>,
}

/// A transcript that is being written. Dropped before anything was written to it or it was finished, it is removed.
pub trait Transcript: Send {
    /// Writes at the end; the answer is how many bytes were written in all. When it ends, they outlive the process.
    ///
    /// # Errors
    /// If not all could be written.
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<u64, AppendError>>;

    /// Nothing follows; it is kept even if it is empty.
    fn finish(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// What a window is to show.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The shell.
    pub shell: ShellId,
    /// Its transcript.
    pub path: &'a Path,
    /// The name a person is to find it by. It may have to be changed; the window knows the one it has.
    pub name: &'a str,
}

/// An open window. Dropping it closes it too, without waiting for that.
pub trait Window: Send {
    /// Its name.
    fn name(&self) -> &str;

    /// The command a person enters in a terminal to see it, read-only.
    fn command(&self) -> String;

    /// Closes it, unless somebody has; ends when that is done or has failed.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Why there is no transcript.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranscriptError {
    /// There is no directory for it.
    #[error("no directory for transcripts is set, and the home directory is not known")]
    NoPlace,
    /// The file or a directory above it cannot be made.
    #[error("cannot make {}: {cause}", path.display())]
    Failed {
        /// What could not be made.
        path: PathBuf,
        /// The system's answer.
        cause: String,
    },
    /// Somebody else could replace what is written there.
    #[error("{} is not a safe place for transcripts: {why}", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Why output is missing from a transcript.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot write: {cause}")]
pub struct AppendError {
    /// How many bytes were written in all.
    pub written: u64,
    /// The system's answer.
    pub cause: String,
}

/// Why there is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The program that makes windows is not there or cannot be started.
    #[error("cannot start {program}: {cause}")]
    NoProgram {
        /// Its name or path.
        program: String,
        /// The system's answer.
        cause: String,
    },
    /// The program refused.
    #[error("{program} opened no window: {cause}")]
    Refused {
        /// Its name or path.
        program: String,
        /// Its own words, one line.
        cause: String,
    },
    /// The program did not answer.
    #[error("{program} did not answer in time")]
    TimedOut {
        /// Its name or path.
        program: String,
    },
}
