//! A disk for transcripts that is as slow and as full as a test wants it, and the windows on it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ssh_mcp_core::{
    id::ShellId,
    port::{
        BoxFuture,
        transcript::{
            AppendError, NewTranscript, Transcript, TranscriptError, Transcripts, View, Window, WindowError,
        },
    },
    sync::Mutex,
};

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub struct ScriptedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Vec<u8>>,
    finished: Vec<PathBuf>,
    windows: Vec<String>,
    pace: Duration,
    room: Option<usize>,
    refusal: Option<TranscriptError>,
    no_windows: Option<WindowError>,
    window_time: Duration,
}

impl ScriptedDisk {
    /// A quick disk with room for everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Each write takes this long.
    pub fn with_pace(self, pace: Duration) -> Self {
        self.state.lock().pace = pace;
        self
    }

    /// It has room for so many bytes from now on.
    pub fn with_room(self, bytes: usize) -> Self {
        self.state.lock().room = Some(bytes);
        self
    }

    /// It has room for everything again.
    pub fn make_room(&self) {
        self.state.lock().room = None;
    }

    /// Nothing can be made on it, for this reason.
    pub fn refusing(self, error: TranscriptError) -> Self {
        self.state.lock().refusal = Some(error);
        self
    }

    /// There are no windows, for this reason.
    pub fn without_windows(self, error: WindowError) -> Self {
        self.state.lock().no_windows = Some(error);
        self
    }

    /// A window takes so long to open.
    pub fn with_window_time(self, time: Duration) -> Self {
        self.state.lock().window_time = time;
        self
    }

    /// Where the transcript of a shell is.
    pub fn path(shell: ShellId) -> PathBuf {
        Path::new("/disk").join(shell.to_string()).join("transcript.log")
    }

    /// What a transcript holds, if it is there.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.state.lock().files.get(path).cloned()
    }

    /// How many transcripts there are.
    pub fn count(&self) -> usize {
        self.state.lock().files.len()
    }

    /// Whether a transcript was finished.
    pub fn is_finished(&self, path: &Path) -> bool {
        self.state.lock().finished.iter().any(|finished| finished == path)
    }

    /// The names of the windows that are open.
    pub fn windows(&self) -> Vec<String> {
        self.state.lock().windows.clone()
    }
}

impl Transcripts for ScriptedDisk {
    fn create(&self, shell: ShellId) -> BoxFuture<'_, Result<NewTranscript, TranscriptError>> {
        Box::pin(async move {
            let path = Self::path(shell);
            let mut state = self.state.lock();
            if let Some(error) = &state.refusal {
                return Err(error.clone());
            }
            if state.files.contains_key(&path) {
                return Err(TranscriptError::Failed { path, cause: "it exists".to_owned() });
            }
            state.files.insert(path.clone(), Vec::new());
            let file = ScriptedFile { disk: self.clone(), path: path.clone(), kept: false };
            Ok(NewTranscript { path, file: Box::new(file) })
        })
    }

    fn show<'a>(&'a self, view: View<'a>) -> BoxFuture<'a, Result<Box<dyn Window>, WindowError>> {
        Box::pin(async move {
            let time = self.state.lock().window_time;
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            let mut state = self.state.lock();
            if let Some(error) = &state.no_windows {
                return Err(error.clone());
            }
            let others = (2..).map(|number| format!("{}-{number}", view.name));
            let mut names = std::iter::once(view.name.to_owned()).chain(others);
            let name = names.find(|name| !state.windows.contains(name)).unwrap_or_default();
            state.windows.push(name.clone());
            Ok(Box::new(ScriptedWindow { disk: self.clone(), name }) as Box<dyn Window>)
        })
    }
}

struct ScriptedFile {
    disk: ScriptedDisk,
    path: PathBuf,
    kept: bool,
}

impl Transcript for ScriptedFile {
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<u64, AppendError>> {
        Box::pin(async move {
            let pace = self.disk.state.lock().pace;
            if !pace.is_zero() {
                tokio::time::sleep(pace).await;
            }
            self.kept = true;
            let mut state = self.disk.state.lock();
            let room = state.room.unwrap_or(usize::MAX);
            let fits = bytes.get(..room).unwrap_or(bytes.as_ref());
            state.room = state.room.map(|room| room - fits.len());
            let file = state.files.entry(self.path.clone()).or_default();
            file.extend_from_slice(fits);
            let written = file.len() as u64;
            match fits.len() == bytes.len() {
                true => Ok(written),
                false => Err(AppendError { written, cause: "no space left on the disk".to_owned() }),
            }
        })
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        self.kept = true;
        self.disk.state.lock().finished.push(self.path.clone());
        Box::pin(std::future::ready(()))
    }
}

impl Drop for ScriptedFile {
    fn drop(&mut self) {
        if !self.kept {
            self.disk.state.lock().files.remove(&self.path);
        }
    }
}

struct ScriptedWindow {
    disk: ScriptedDisk,
    name: String,
}

impl Window for ScriptedWindow {
    fn name(&self) -> &str {
        &self.name
    }

    fn command(&self) -> String {
        format!("look at {}", self.name)
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        // Dropping it is closing it.
        Box::pin(async move { drop(self) })
    }
}

impl Drop for ScriptedWindow {
    fn drop(&mut self) {
        self.disk.state.lock().windows.retain(|name| *name != self.name);
    }
}
