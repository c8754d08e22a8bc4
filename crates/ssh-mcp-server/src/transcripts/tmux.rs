//! Windows of tmux: a detached session that follows a file.
//!
//! tmux is started with arguments and never through a shell, and given no more of our environment than it needs: it
//! hands what it gets on to every later session of its server. The session is one among the user's own, so before it is
//! closed it is asked whether it is ours: it carries the shell's identifier as an option, which nobody has by accident,
//! while its name and number can come to be somebody else's.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use ssh_mcp_core::{
    id::ShellId,
    port::{
        BoxFuture,
        transcript::{View, Window, WindowError},
    },
    quote, text,
};
use tokio::process::Command;

/// How tmux is called.
pub(super) struct Tmux {
    program: OsString,
    environment: Vec<(OsString, OsString)>,
}

/// A session of ours.
pub(super) struct TmuxWindow {
    tmux: Arc<Tmux>,
    name: String,
    /// What tmux calls it, such as `$3`.
    session: String,
    shell: ShellId,
    is_closed: bool,
}

/// What tmux and the program in its window need. Without `TMUX` it is the user's usual server that is asked, wherever
/// ours was started.
const PASSED: &[&str] = &[
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TMUX_TMPDIR",
    "USER",
    "XDG_CONFIG_HOME",
];

/// It answers in milliseconds, or its server hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Names that are tried: the one wanted, then with a number.
const NAMES: u32 = 20;

/// Characters of a name, without the number.
const LONGEST: usize = 120;

/// The option of a session that says whose it is.
const MARK: &str = "@ssh_mcp_shell";

impl Tmux {
    pub(super) fn new(
        program: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let is_passed = |name: &OsStr| PASSED.iter().any(|passed| name == *passed);
        Self {
            program: program.map_or_else(|| "tmux".into(), PathBuf::into_os_string),
            environment: environment.into_iter().filter(|(name, _)| is_passed(name)).collect(),
        }
    }

    /// Opens a session under the name wanted, or that name with a number.
    pub(super) async fn open(self: &Arc<Self>, view: View<'_>) -> Result<TmuxWindow, WindowError> {
        let wanted = session_name(view.name);
        let mut cause = String::new();
        for number in 1..=NAMES {
            let name = if number == 1 { wanted.clone() } else { format!("{wanted}-{number}") };
            let output = self.run(self.opening(&name, view)).await?;
            if output.status.success() {
                let session = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                let tmux = Arc::clone(self);
                return Ok(TmuxWindow { tmux, name, session, shell: view.shell, is_closed: false });
            }
            cause = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if !cause.starts_with("duplicate session") {
                break;
            }
        }
        Err(WindowError::Refused { program: self.shown(), cause: text::remote_words(&cause) })
    }

    fn opening(&self, name: &str, view: View<'_>) -> Command {
        let mut command = self.command();
        command.args(["new-session", "-d", "-s", name, "-P", "-F", "#{session_id}", "--"]);
        command.args(["tail", "-n", "+1", "-F"]).arg(view.path);
        command.args([";", "set-option", "-t", &format!("={name}:"), MARK, &view.shell.to_string()]);
        command
    }

    async fn run(&self, mut command: Command) -> Result<Output, WindowError> {
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        match tokio::time::timeout(PATIENCE, output).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(WindowError::NoProgram { program: self.shown(), cause: error.to_string() }),
            Err(_) => Err(WindowError::TimedOut { program: self.shown() }),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn shown(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }
}

impl TmuxWindow {
    /// Closes the session of this number if it is the one that was opened.
    fn closing(&self) -> Command {
        let Self { tmux, session, shell, .. } = self;
        let mut command = tmux.command();
        command.args(["if-shell", "-F", "-t", &format!("{session}:")]);
        command.arg(format!("#{{==:#{{{MARK}}},{shell}}}")).arg(format!("kill-session -t '{session}'"));
        command
    }
}

impl Window for TmuxWindow {
    fn name(&self) -> &str {
        &self.name
    }

    fn command(&self) -> String {
        let elsewhere = self.tmux.environment.iter().find(|(name, _)| name == "TMUX_TMPDIR");
        let elsewhere = elsewhere.map_or_else(String::new, |(_, dir)| {
            format!("TMUX_TMPDIR={} ", quote::readable(&dir.to_string_lossy()))
        });
        format!("{elsewhere}{} attach -r -t {}", quote::readable(&self.tmux.shown()), self.name)
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // A server that does not answer, or no longer runs, has nothing more to be asked.
            _ = self.tmux.run(self.closing()).await;
            self.is_closed = true;
        })
    }
}

impl Drop for TmuxWindow {
    fn drop(&mut self) {
        if self.is_closed {
            return;
        }
        // The process is ending, and there may be no runtime left that could wait.
        let mut command = self.closing().into_std();
        _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
}

/// A name that tmux takes as it is: it gives `:`, `.` and `#` meanings of their own, and more in some places.
fn session_name(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_@-".contains(c) { c } else { '_' };
    text.chars().take(LONGEST).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_nothing_that_tmux_would_read() {
        let cases = [
            ("ssh-mcp-ann@example.org:22-build", "ssh-mcp-ann@example_org_22-build"),
            ("ssh-mcp-a@[::1]:22-#(reboot)", "ssh-mcp-a@___1__22-__reboot_"),
            ("a\nb;c'd$e*f", "a_b_c_d_e_f"),
        ];
        for (text, name) in cases {
            assert_eq!(session_name(text), name);
        }
        assert_eq!(session_name(&"x".repeat(1000)).len(), LONGEST);
    }

    #[test]
    fn secrets_of_the_environment_stay_here() {
        let all = [("PATH", "/bin"), ("MCP_AUTH_TOKEN", "secret"), ("TMUX", "/tmp/other"), ("HOME", "/h")];
        let tmux = Tmux::new(None, all.map(|(name, value)| (name.into(), value.into())));
        let names: Vec<_> = tmux.environment.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["PATH", "HOME"]);
    }
}
