//! A program in place of a connection (`ProxyCommand`): what it prints comes from the host, what it reads goes there.
//!
//! It runs in a process group of its own, which ends with the connection: asked to at first, then without being asked.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ssh_mcp_core::port::ssh::{ConnectError, Transience};
use ssh_mcp_core::target::Program;
use ssh_mcp_core::target_names;
use ssh_mcp_core::text::remote_words;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error;
use crate::tasks::Tasks;

/// The two ends of a program that runs.
pub(crate) struct Ends {
    pub(crate) input: ChildStdin,
    pub(crate) output: ChildStdout,
    /// It runs for as long as somebody has this.
    pub(crate) running: Arc<Running>,
}

/// A program that runs; the drop of the last reference ends it.
pub(crate) struct Running {
    /// Its process group, until it is known to have ended.
    group: Arc<Mutex<Option<Group>>>,
    unwanted: CancellationToken,
    end: Arc<End>,
}

/// How a program ended.
#[derive(Default)]
struct End {
    over: CancellationToken,
    how: OnceLock<(String, Transience)>,
}

/// Starts a program. Must be called inside a runtime.
pub(crate) fn start(program: &Program) -> Result<Ends, ConnectError> {
    let mut command = Command::new(&program.shell);
    // As OpenSSH does: where the line is one command, the shell makes room for it.
    command.arg("-c").arg(format!("exec {}", program.line));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let failed = |cause: String| error::failed(format!("ProxyCommand: {cause}"), Transience::Permanent);
    let mut child =
        command.spawn().map_err(|cause| failed(format!("{}: {cause}", program.shell.display())))?;
    let (Some(input), Some(output), Some(words)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(failed("it has no input or output".to_owned()));
    };
    let group = Arc::new(Mutex::new(child.id().and_then(Group::of)));
    let running =
        Running { group: Arc::clone(&group), unwanted: CancellationToken::new(), end: Arc::default() };
    let (unwanted, end) = (running.unwanted.clone(), Arc::clone(&running.end));
    let complaints = Arc::<Complaints>::default();
    // Never stopped: their work is to see the program off.
    let tasks = Tasks::new();
    let kept = Arc::clone(&complaints);
    tasks.spawn(async move { listen(words, &kept).await });
    tasks.spawn(async move { attend(child, &complaints, &group, &unwanted, &end).await });
    Ok(Ends { input, output, running: Arc::new(running) })
}

impl Running {
    /// What a broken connection means if the program has ended: its own words say more than ours.
    pub(crate) async fn explain(&self, error: ConnectError) -> ConnectError {
        if !matches!(error, ConnectError::Failed { .. }) {
            return error;
        }
        let _ = timeout(LAST_WORDS * 2, self.end.over.cancelled()).await;
        match self.end.how.get() {
            Some((how, transience)) => error::failed(how, *transience),
            None => error,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Here and not in the task, which may not get a turn if the whole process is about to end.
        if let Some(group) = &*self.group.lock().unwrap_or_else(PoisonError::into_inner) {
            group.ask_to_end();
        }
        self.unwanted.cancel();
    }
}

/// Stays with a program until it has ended and says how.
async fn attend(
    mut child: Child,
    complaints: &Complaints,
    group: &Mutex<Option<Group>>,
    unwanted: &CancellationToken,
    end: &End,
) {
    let ended = tokio::select! {
        status = child.wait() => Some(status),
        () = unwanted.cancelled() => None,
    };
    let take_group = || group.lock().unwrap_or_else(PoisonError::into_inner).take();
    match ended {
        Some(status) => {
            // What it has started and left has lost its purpose.
            if let Some(group) = take_group() {
                group.ask_to_end();
            }
            // What it said last may still be in the pipe, which others may hold open.
            let _ = timeout(LAST_WORDS, complaints.heard.cancelled()).await;
            if let Ok(status) = status {
                let said = complaints.kept.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = end.how.set(verdict(status, &String::from_utf8_lossy(&said)));
            }
        }
        None => {
            let polite = timeout(GRACE, child.wait()).await;
            // Whoever it has started gets no longer than itself.
            if let Some(group) = take_group() {
                group.end_now();
            }
            if polite.is_err() {
                // Fails only where it has ended by itself.
                let _ = child.kill().await;
            }
        }
    }
    end.over.cancel();
}

/// What a program complains of.
#[derive(Default)]
struct Complaints {
    /// The beginning.
    kept: Mutex<Vec<u8>>,
    /// Nothing more will come.
    heard: CancellationToken,
}

/// Reads what a program complains of; the beginning is kept, all of it goes to the log.
async fn listen(words: ChildStderr, complaints: &Complaints) {
    let _heard = complaints.heard.clone().drop_guard();
    let mut words = BufReader::new(words);
    let mut piece = [0; 1024];
    while let Ok(length @ 1..) = words.read(&mut piece).await {
        let piece = piece.get(..length).unwrap_or_default();
        for line in String::from_utf8_lossy(piece).lines().filter(|line| !line.trim().is_empty()) {
            tracing::debug!(target: target_names::SSH, words = %remote_words(line), "ProxyCommand says");
        }
        let mut kept = complaints.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(kept.len()).min(piece.len());
        kept.extend_from_slice(piece.get(..room).unwrap_or_default());
    }
}

fn verdict(status: ExitStatus, said: &str) -> (String, Transience) {
    let how = match status.code() {
        Some(code) => format!("ended with exit status {code}"),
        None => "was ended by a signal".to_owned(),
    };
    let said = match said.trim() {
        "" => "without a word".to_owned(),
        said => remote_words(said),
    };
    // A shell says so of a command that is not there or not to be run.
    let transience = match status.code() {
        Some(126 | 127) => Transience::Permanent,
        Some(_) | None => Transience::Transient,
    };
    (format!("the ProxyCommand {how}: {said}"), transience)
}

/// A process group of ours.
#[cfg(unix)]
struct Group(rustix::process::Pid);

#[cfg(unix)]
impl Group {
    fn of(leader: u32) -> Option<Self> {
        i32::try_from(leader).ok().and_then(rustix::process::Pid::from_raw).map(Self)
    }

    fn ask_to_end(&self) {
        // A failure means that nobody is left in it.
        let _ = rustix::process::kill_process_group(self.0, rustix::process::Signal::TERM);
    }

    fn end_now(&self) {
        let _ = rustix::process::kill_process_group(self.0, rustix::process::Signal::KILL);
    }
}

/// Elsewhere there are none: the program itself is ended, and those it started lose their pipes.
#[cfg(not(unix))]
struct Group;

#[cfg(not(unix))]
impl Group {
    fn of(_: u32) -> Option<Self> {
        Some(Self)
    }

    fn ask_to_end(&self) {}

    fn end_now(&self) {}
}

/// How long a program may take to end once nobody wants it.
const GRACE: Duration = Duration::from_secs(1);

/// How long its end and its last words may take once its output has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// So much of its complaints is kept for an error.
const KEPT: usize = 1024;

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    async fn explained(line: &str) -> (String, Transience) {
        let Ends { input, output, running } =
            start(&Program { shell: "/bin/sh".into(), line: line.to_owned() }).unwrap();
        drop((input, output));
        let broken = error::failed("the line broke", Transience::Transient);
        let ConnectError::Failed { cause, transience } = running.explain(broken).await else {
            panic!("a failure stays one")
        };
        (cause, transience)
    }

    #[tokio::test]
    async fn a_program_that_fails_is_quoted() {
        let said = explained("sh -c 'echo no way >&2; exit 3'").await;
        assert_eq!(
            said,
            ("the ProxyCommand ended with exit status 3: no way".to_owned(), Transience::Transient)
        );
        assert_eq!(explained("sh -c 'exit 127'").await.1, Transience::Permanent);
        assert!(explained("sh -c 'kill -9 $$'").await.0.contains("was ended by a signal: without a word"));
    }
}
