//! Transcripts: one task per shell that follows its history into a file, and one that minds its window.
//!
//! The task that follows reads the history by position, as any reader does, so the history is all the buffer there is
//! and the shell's own task never hears of a slow or full disk. What the history has dropped before it was written is
//! marked in the file.

use std::sync::Arc;

use bytes::Bytes;
use ssh_mcp_core::{
    port::transcript::{NewTranscript, Transcript, Transcripts, View},
    reason::Reason,
    registry::{Entry as _, Observer, Recording, Shell, Watchable},
    target_names,
};

use crate::{Engine, tasks::Tasks};

/// Written in one go; as much as a quick shell prints while a disk takes a write.
const PIECE: usize = 256 * 1024;

impl Engine {
    /// Resolves when it is known how a person can watch the shell.
    pub async fn watchable(&self, shell: &Shell) {
        until(shell, Recording::is_watchable).await;
    }

    /// Resolves when the transcript is written to its end and no window is open any more.
    pub(crate) async fn transcript_over(&self, shell: &Shell) {
        until(shell, Recording::is_over).await;
    }
}

/// Begins the transcript of a shell that has been published.
pub(crate) fn begin(
    tasks: &Tasks,
    port: &Arc<dyn Transcripts>,
    shell: &Arc<Shell>,
    file: Box<dyn Transcript>,
) {
    tasks.spawn(follow(Part(Arc::clone(shell)), file));
    if shell.recording.as_ref().is_some_and(|recording| recording.wanted() == Observer::Tmux) {
        tasks.spawn(mind_window(Part(Arc::clone(shell)), Arc::clone(port)));
    }
}

/// The entry's side of a transcript that was just made.
pub(crate) fn recording(new: Option<&NewTranscript>, observer: Option<Observer>) -> Option<Recording> {
    new.zip(observer).map(|(new, observer)| Recording::new(new.path.clone(), observer))
}

/// A task's part in a shell's transcript; it is over however the task ends.
struct Part(Arc<Shell>);

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(recording) = &self.0.recording {
            recording.part_over();
        }
    }
}

async fn follow(part: Part, mut file: Box<dyn Transcript>) {
    let shell = &part.0;
    let Some(recording) = &shell.recording else { return };
    let mut watch = shell.history.watch();
    let mut at = 0;
    loop {
        let window = shell.history.read(at, PIECE);
        at = window.next;
        let mut piece = if window.gap > 0 { gap_line(window.gap).into_bytes() } else { Vec::new() };
        piece.extend_from_slice(&window.bytes);
        if !piece.is_empty() {
            match file.append(Bytes::from(piece)).await {
                Ok(size) => recording.grown_to(size),
                Err(error) => {
                    tracing::warn!(
                        target: target_names::MAIN,
                        shell_id = %shell.spec.id,
                        cause = error.cause,
                        "transcript broken off"
                    );
                    recording.grown_to(error.written);
                    recording.break_off(error.to_string());
                    break;
                }
            }
        }
        if window.next < window.end {
            // There is more to write; a file that is written at once must not keep others from running.
            tokio::task::yield_now().await;
            continue;
        }
        if window.ended {
            break;
        }
        watch.changed().await;
    }
    // Of a shell that was refused to its opener nothing is left.
    if at == 0 && matches!(shell.ended(), Some((Reason::Failed, _))) {
        return;
    }
    file.finish().await;
}

async fn mind_window(part: Part, port: Arc<dyn Transcripts>) {
    let shell = &part.0;
    let Some(recording) = &shell.recording else { return };
    let id = shell.spec.id;
    let name = match &shell.spec.name {
        Some(name) => format!("ssh-mcp-{}-{name}", shell.spec.target),
        None => format!("ssh-mcp-{}-{id}", shell.spec.target),
    };
    let opened = port.show(View { shell: id, path: &recording.path, name: &name }).await;
    let window = match opened {
        Ok(window) => window,
        Err(error) => return recording.settle_window(Err(error.to_string())),
    };
    recording.settle_window(Ok(Watchable { name: window.name().to_owned(), command: window.command() }));
    shell.over().await;
    window.close().await;
}

/// Stands on a line of its own, whatever is before and behind it.
fn gap_line(missing: u64) -> String {
    format!("\r\n[ssh-mcp: {missing} bytes are missing here]\r\n")
}

async fn until(shell: &Shell, is_so: impl Fn(&Recording) -> bool) {
    let Some(recording) = &shell.recording else { return };
    let mut watch = recording.watch();
    while !is_so(recording) {
        watch.changed().await;
    }
}
