//! `--print-target`: what the SSH client's configuration says about a host, in the form of `ssh -G`.
//!
//! For whoever wonders where a connection will go, and for comparing with OpenSSH. Nothing is connected to; programs of
//! `Match exec` run, as they do for `ssh -G`.

use std::path::Path;

use openssh_files::config::{Config, LoadError, Overrides, ResolveError, Source, Target, TargetError, Whose};

use crate::sources::Surroundings;
use crate::user::User;
use ssh_mcp_ssh::{run_in_shell, usual_sources};

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrintTargetError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

/// One `keyword value` per line for `host`, which may name user and port too.
pub(crate) fn print_target(
    host: &str,
    file: Option<&Path>,
    surroundings: &Surroundings<'_>,
) -> Result<String, PrintTargetError> {
    let target = Target::parse(host)?;
    let user = User::of_this_process(surroundings);
    let home_of = |name: &str| user.home_of(name);
    let sources = match file {
        None => usual_sources(&user.home),
        Some(none) if none == "none" => Vec::new(),
        Some(file) => {
            let path = surroundings.working_dir.join(file);
            vec![Source { path, whose: Whose::Own, may_be_missing: false }]
        }
    };
    let config = Config::load(&sources, &user.home, &home_of, &user.owner())?;
    let mut overrides = Overrides::default();
    overrides.target(&target);
    let exec = |command: &str| run_in_shell((surroundings.environment)("SHELL"), command);
    let local = user.as_local(surroundings.environment, &home_of, &exec);
    let resolved = config.resolve(&target.host, &overrides, &local)?;
    Ok(resolved.to_lines(|kind| Some(ssh_mcp_ssh::offer(kind))))
}
