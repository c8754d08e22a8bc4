//! Where settings come from: flags, environment, environment file; and what is said about them before work begins.
//!
//! This is the only place that reads the environment. The rules are in `ssh_mcp_core::settings`; they are read once.

mod env_file;
mod report;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use ssh_mcp_core::settings::{Binary, Entry, Origin, Outcome, Settings, Severity};
use ssh_mcp_core::target_names;

use crate::flags::Flags;
use crate::print_target::print_target;
use crate::telemetry::{self, Colour, Stream};
use env_file::EnvFile;

/// What the parts of a process share, and what is to be said about it.
pub struct Loaded {
    /// Every setting.
    pub settings: Arc<Settings>,
    /// Every setting of this binary with its origin, in the order of the documentation.
    pub entries: Vec<Entry>,
    /// What somebody should know, to be logged once the log exists.
    pub findings: Vec<Finding>,
    /// Whether lines for people may be coloured.
    pub colour: Colour,
}

/// One thing to know about the configuration, in one line without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is.
    pub text: String,
    /// What is used instead, where the start goes on.
    pub used: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.used.as_ref().map_or(Ok(()), |used| write!(f, "; using {used}"))
    }
}

/// Why the configuration refuses the start; one line each. The process leaves with [`EXIT_USAGE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Exit code for a bad command line or configuration.
pub const EXIT_USAGE: u8 = 2;

/// The surroundings of a process, as far as settings depend on them.
pub struct Surroundings<'a> {
    /// Looks a variable up.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Where `.env` is looked for.
    pub working_dir: &'a Path,
    /// Home directory of last resort.
    pub home: Option<PathBuf>,
}

/// A variable of this process.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|text| text.to_string_lossy().into_owned())
}

/// Resolves all settings of a binary.
///
/// # Errors
/// A bad flag, a missing `--env-file`, a value that is never allowed; under strict configuration every bad value.
pub fn load<F: Flags>(flags: &F, surroundings: &Surroundings<'_>) -> Result<Loaded, ConfigErrors> {
    let (file, mut findings) = read_env_file(flags, surroundings.working_dir)?;
    let sources = |origin: Origin, name: &str| match origin {
        Origin::Flag => flags.text(name),
        Origin::Environment => (surroundings.environment)(name),
        Origin::File => file.text(name),
        Origin::Default => None,
    };
    let Outcome { settings, entries, problems } =
        Settings::resolve(F::BINARY, &sources, surroundings.home.clone());
    findings.extend(problems.iter().map(|problem| Finding {
        severity: problem.severity(),
        text: problem.to_string(),
        used: problem.used().map(str::to_owned),
    }));
    findings.extend(ssh_mcp_handler::unknown_toolsets(&settings.toolsets).into_iter().map(|unknown| {
        Finding {
            severity: Severity::Warning,
            text: format!("SSH_MCP_TOOLSETS: {unknown}; the word is passed over"),
            used: None,
        }
    }));
    let refusal = if settings.strict_config { Severity::Warning } else { Severity::Error };
    let errors: Vec<_> = findings.iter().filter(|finding| finding.severity >= refusal).collect();
    if !errors.is_empty() {
        return Err(ConfigErrors(errors.iter().map(|finding| finding.text.clone()).collect()));
    }
    let no_color = (surroundings.environment)("NO_COLOR").is_some_and(|text| !text.is_empty());
    let colour = if no_color { Colour::Never } else { Colour::Auto };
    Ok(Loaded { settings: Arc::new(settings), entries, findings, colour })
}

impl Loaded {
    /// Starts the log on the stream that is free in `binary`, then says what was found.
    ///
    /// # Errors
    /// If the process has a log already.
    pub fn start_log(&self, binary: Binary) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
        let stream = match binary {
            Binary::Http => Stream::Stdout,
            Binary::Stdio | Binary::Tail => Stream::Stderr,
        };
        telemetry::start(&self.settings.log_filter, self.settings.log_format, stream, self.colour)?;
        for finding in &self.findings {
            match finding.severity {
                Severity::Notice => tracing::info!(target: target_names::MAIN, "configuration: {finding}"),
                Severity::Warning | Severity::Error => {
                    tracing::warn!(target: target_names::MAIN, "configuration: {finding}");
                }
            }
        }
        Ok(())
    }
}

/// What `main` does after its command line and its settings were read.
pub enum Start<F> {
    /// Work begins.
    Run(F, Loaded),
    /// The process leaves; everything has been said.
    Leave(ExitCode),
}

/// Reads command line and settings of this process; answers `--help`, `--version`, `--print-config`, `--check-config` and
/// `--print-target`.
///
/// Answers go to standard output, complaints to standard error.
pub fn start<F: Flags>() -> Start<F> {
    let working_dir = std::env::current_dir().unwrap_or_default();
    let surroundings =
        Surroundings { environment: &environment, working_dir: &working_dir, home: std::env::home_dir() };
    start_with(std::env::args_os(), &surroundings, &mut io::stdout(), &mut io::stderr())
}

/// [`start`] with everything it touches given.
pub fn start_with<F: Flags>(
    arguments: impl IntoIterator<Item = OsString>,
    surroundings: &Surroundings<'_>,
    answers: &mut dyn Write,
    complaints: &mut dyn Write,
) -> Start<F> {
    // A reader that went away changes nothing about the exit code.
    let leave = |code: u8| Start::Leave(ExitCode::from(code));
    let flags = match F::try_parse_from(arguments) {
        Ok(flags) => flags,
        Err(error) => {
            let (code, stream): (u8, &mut dyn Write) =
                if error.use_stderr() { (EXIT_USAGE, complaints) } else { (0, answers) };
            let _ = write!(stream, "{error}");
            return leave(code);
        }
    };
    if let Some(host) = &flags.common().print_target {
        return match print_target(host, flags.common().ssh_config_file.as_deref(), surroundings) {
            Ok(lines) => {
                let _ = answers.write_all(lines.as_bytes());
                leave(0)
            }
            Err(error) => {
                let _ = writeln!(complaints, "error: {error}");
                leave(EXIT_USAGE)
            }
        };
    }
    let loaded = match load(&flags, surroundings) {
        Ok(loaded) => loaded,
        Err(errors) => {
            let _ = errors.0.iter().try_for_each(|error| writeln!(complaints, "error: {error}"));
            return leave(EXIT_USAGE);
        }
    };
    let common = flags.common();
    if common.check_config {
        let unsound = loaded.findings.iter().filter(|finding| finding.severity >= Severity::Warning);
        let mut problems: Vec<String> = unsound.map(|finding| finding.text.clone()).collect();
        problems.extend(F::check(&loaded.settings).err());
        let _ = problems.iter().try_for_each(|problem| writeln!(complaints, "error: {problem}"));
        return leave(if problems.is_empty() { 0 } else { EXIT_USAGE });
    }
    if common.print_config {
        let _ = loaded.findings.iter().try_for_each(|finding| writeln!(complaints, "warning: {finding}"));
        let _ = answers.write_all(report::report(F::BINARY, &loaded.entries, common.json).as_bytes());
        return leave(0);
    }
    Start::Run(flags, loaded)
}

/// The file that `--env-file` names; without the flag, for the HTTP server alone, `.env` where there is one.
fn read_env_file<F: Flags>(flags: &F, working_dir: &Path) -> Result<(EnvFile, Vec<Finding>), ConfigErrors> {
    let (path, named) = match (&flags.common().env_file, F::BINARY) {
        (Some(path), _) => (working_dir.join(path), true),
        (None, Binary::Http) => (working_dir.join(".env"), false),
        (None, Binary::Stdio | Binary::Tail) => return Ok((EnvFile::default(), Vec::new())),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let (file, bad_lines) = EnvFile::parse(&text);
            let findings = bad_lines.into_iter().map(|line| Finding {
                severity: Severity::Warning,
                text: format!("{}:{line}: not NAME=value; the line is skipped", path.display()),
                used: None,
            });
            Ok((file, findings.collect()))
        }
        Err(error) if !named && error.kind() == io::ErrorKind::NotFound => {
            Ok((EnvFile::default(), Vec::new()))
        }
        Err(error) => {
            Err(ConfigErrors(vec![format!("cannot read environment file {}: {error}", path.display())]))
        }
    }
}

#[cfg(test)]
mod tests;
