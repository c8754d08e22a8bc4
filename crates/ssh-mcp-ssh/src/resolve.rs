//! From a target to the hops of a connection: ssh_config laid under what a call says (`docs/ssh_config.md`).
//!
//! The files are `openssh-files`' business; here its answer for each host on the way becomes a [`Hop`]. What a call may
//! not say is refused here, because only here it is known what its options and arguments come to.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fmt, io};

use openssh_files::config::{
    AddressFamily, AlgorithmKind, Config, HostKeyChecking, IdentityAgent, Local, OverrideError, Overrides,
    Owner, Proxy, PubkeyAuthentication, Resolved as Said, Source, Target as Named, Whose,
};
use ssh_mcp_core::port::resolve::{Asker, ConfigFiles, ResolveError, Resolved, TargetAsk};
use ssh_mcp_core::target::{
    Address, AgentKeys, Algorithms, Compression, Credentials, Family, Hop, HostKeyPolicy, HostKeys,
    Keepalive, KeyFile, Methods, Need, Target, Wire,
};

use crate::algorithms;

/// Who connects and from which machine, as the configuration speaks of them.
pub struct LocalUser {
    /// Home directory: `~` and `%d`.
    pub home: String,
    /// Account: `%u`, and the name to log in by where nothing else is said.
    pub name: String,
    /// Numeric id: `%i`.
    pub uid: u32,
    /// The machine: `%l`.
    pub host_name: String,
    /// Who may own the configuration.
    pub owner: Owner,
    /// The home directory of somebody.
    pub home_of: LookUp,
    /// Looks a variable up.
    pub environment: LookUp,
}

/// Finds what belongs to a name.
pub type LookUp = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

impl fmt::Debug for LocalUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalUser")
            .field("name", &self.name)
            .field("home", &self.home)
            .finish_non_exhaustive()
    }
}

impl LocalUser {
    /// Asks `with` under what is known of this user; programs of `Match exec` run in his shell.
    fn as_local<T>(&self, with: impl FnOnce(&Local<'_>) -> T) -> T {
        let exec = |command: &str| run_in_shell((self.environment)("SHELL"), command);
        with(&Local {
            home: &self.home,
            user: &self.name,
            uid: self.uid,
            host_name: &self.host_name,
            environment: &*self.environment,
            home_of: &*self.home_of,
            exec: &exec,
        })
    }
}

/// The files OpenSSH reads where nobody names one, below this home directory.
pub fn usual_sources(home: &str) -> Vec<Source> {
    vec![
        Source { path: Path::new(home).join(".ssh/config"), whose: Whose::Own, may_be_missing: true },
        Source { path: PathBuf::from("/etc/ssh/ssh_config"), whose: Whose::System, may_be_missing: true },
    ]
}

/// Runs a command line in a shell; true if it ends with 0.
///
/// Its output goes nowhere: standard output is for answers.
pub fn run_in_shell(shell: Option<String>, command: &str) -> io::Result<bool> {
    let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".to_owned());
    let status =
        Command::new(shell).arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    Ok(status.success())
}

/// Reads the configuration and follows it to the target; blocks, and may run programs of `Match exec`.
pub(crate) fn resolve(ask: &TargetAsk, user: &LocalUser) -> Result<Resolved, ResolveError> {
    let named = Named::parse(&ask.target).map_err(call)?;
    let mut overrides = overrides(ask, &named)?;
    let (sources, chosen) = sources(ask, overrides.config_file.take(), user)?;
    if ask.asker == Asker::Foreign {
        refuse_files(&named, &overrides, user)?;
    }
    let asked_policy = ask.host_key_policy.or(overrides.take_host_key_checking().map(policy));
    let config = Config::load(&sources, &user.home, &*user.home_of, &user.owner)
        .map_err(|error| ResolveError::Config(error.to_string()))?;
    let journey = Journey { ask, user, config: &config, chosen, asked_policy };
    let said = journey.look_up(&named.host, &overrides)?;
    let via = journey.jumps(&said, JUMPS_MAX)?;
    Ok(Resolved { via, timeout: said.connect_timeout, hop: journey.hop(&said, Part::Last)? })
}

/// What a call lays before the files, the strongest first.
fn overrides(ask: &TargetAsk, named: &Named) -> Result<Overrides, ResolveError> {
    let twice = |what| ResolveError::Call(format!("{what} and target name different ones; give one of them"));
    let mut overrides = Overrides::default();
    if named.user.is_some() && ask.username.is_some() && named.user != ask.username {
        return Err(twice("username"));
    }
    if named.port.is_some() && ask.port.is_some() && named.port != ask.port {
        return Err(twice("port"));
    }
    overrides.target(&Named {
        user: named.user.clone().or_else(|| ask.username.clone()),
        host: named.host.clone(),
        port: named.port.or(ask.port),
    });
    if let Some(jump) = &ask.proxy_jump {
        overrides.option("ProxyJump", jump).map_err(refused)?;
    }
    for (keyword, value) in &ask.options {
        overrides.option(keyword, value).map_err(refused)?;
    }
    overrides.arguments(&ask.arguments).map_err(refused)?;
    Ok(overrides)
}

/// Which files are read, and whether a call chose them.
fn sources(
    ask: &TargetAsk,
    by_argument: Option<String>,
    user: &LocalUser,
) -> Result<(Vec<Source>, Chosen), ResolveError> {
    let files = match (&ask.config, by_argument) {
        (ConfigFiles::Usual, Some(none)) if none == "none" => ConfigFiles::None,
        (ConfigFiles::Usual, Some(_)) if ask.asker == Asker::Foreign => {
            return Err(ResolveError::Call(
                "-F is not for callers from elsewhere: use ssh_config_file".to_owned(),
            ));
        }
        (ConfigFiles::Usual, Some(file)) => ConfigFiles::Only(file.into()),
        (files, _) => files.clone(),
    };
    let usual = usual_sources(&user.home);
    Ok(match files {
        ConfigFiles::Usual => (usual, Chosen::ByOperator),
        ConfigFiles::None => (Vec::new(), Chosen::ByOperator),
        ConfigFiles::Only(path) => match usual.into_iter().find(|source| source.path == path) {
            Some(one) => (vec![Source { may_be_missing: false, ..one }], Chosen::ByOperator),
            // Whoever calls may have written it as well, and is not to run programs here by it.
            None => (vec![Source { path, whose: Whose::Foreign, may_be_missing: false }], Chosen::ByCall),
        },
    })
}

/// Options and arguments of somebody else must name no file: only fields of their own are checked against what the
/// operator opened. Asked of the resolved answer, so that no spelling gets round it.
fn refuse_files(named: &Named, overrides: &Overrides, user: &LocalUser) -> Result<(), ResolveError> {
    let said = user
        .as_local(|local| Config::default().resolve(&named.host, overrides, local))
        .map_err(|error| ResolveError::Call(error.to_string()))?;
    let names_files = [
        ("IdentityFile", said.are_identity_files_given),
        ("CertificateFile", !said.certificate_files.is_empty()),
        ("IdentityAgent", said.identity_agent.is_some()),
        ("UserKnownHostsFile", said.user_known_hosts_files.is_some()),
        ("GlobalKnownHostsFile", said.global_known_hosts_files.is_some()),
    ];
    match names_files.into_iter().find(|(_, given)| *given) {
        Some((keyword, _)) => Err(ResolveError::Call(format!(
            "{keyword} is not for options of callers from elsewhere: use identity_file or known_hosts_file"
        ))),
        None => Ok(()),
    }
}

/// Who chose the configuration file: what weakens a check counts only from the operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    ByOperator,
    ByCall,
}

/// A host's place on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Jump,
    Last,
}

/// One way through the configuration.
struct Journey<'a> {
    ask: &'a TargetAsk,
    user: &'a LocalUser,
    config: &'a Config,
    chosen: Chosen,
    asked_policy: Option<HostKeyPolicy>,
}

impl Journey<'_> {
    fn look_up(&self, host: &str, overrides: &Overrides) -> Result<Said, ResolveError> {
        self.user
            .as_local(|local| self.config.resolve(host, overrides, local))
            .map_err(|error| ResolveError::Config(error.to_string()))
    }

    /// The hosts to jump over on the way to `said`, the nearest first.
    fn jumps(&self, said: &Said, left: usize) -> Result<Vec<Hop>, ResolveError> {
        match &said.proxy {
            Proxy::Direct => Ok(Vec::new()),
            Proxy::Jump(hosts) => self.chain(hosts, left),
            Proxy::Command(_) => Err(ResolveError::Config(format!(
                "{}: ProxyCommand is not supported yet; ProxyJump is",
                said.original_host
            ))),
        }
    }

    /// The hosts of one list. Only the first may say itself how it is reached: the list says it of the others.
    fn chain(&self, hosts: &[Named], left: usize) -> Result<Vec<Hop>, ResolveError> {
        let mut hops = Vec::new();
        for (at, host) in hosts.iter().enumerate() {
            let mut overrides = Overrides::default();
            overrides.target(host);
            let said = self.look_up(&host.host, &overrides)?;
            if at == 0 {
                let Some(left) = left.checked_sub(hosts.len()).filter(|left| *left > 0) else {
                    return Err(ResolveError::Config(format!("more than {JUMPS_MAX} hosts to jump over")));
                };
                hops = self.jumps(&said, left)?;
            }
            hops.push(self.hop(&said, Part::Jump)?);
        }
        Ok(hops)
    }

    fn hop(&self, said: &Said, part: Part) -> Result<Hop, ResolveError> {
        let Self { ask, .. } = self;
        let defaults = &ask.defaults;
        let compression = match (ask.compression, said.compression) {
            (Some(asked), _) => asked,
            (None, Some(true)) => Compression::On,
            (None, Some(false)) => Compression::Off,
            (None, None) => defaults.compression,
        };
        let keepalive = Keepalive {
            // 0 would leave a dead peer unnoticed.
            interval: said
                .server_alive_interval
                .filter(|interval| !interval.is_zero())
                .unwrap_or(defaults.keepalive.interval),
            max: said.server_alive_count_max.unwrap_or(defaults.keepalive.max),
        };
        Ok(Hop {
            target: Target {
                address: Address { host: said.host_name.clone(), port: said.port },
                username: said.user.clone(),
            },
            host_key_name: said.host_key_alias.clone(),
            credentials: self.credentials(said, part),
            host_keys: self.host_keys(said, part),
            wire: Wire {
                compression,
                keepalive,
                family: match said.address_family {
                    AddressFamily::Any => Family::Any,
                    AddressFamily::Inet => Family::V4,
                    AddressFamily::Inet6 => Family::V6,
                },
                bind_address: said.bind_address.clone(),
                algorithms: named_algorithms(said)?,
            },
        })
    }

    /// Password and key files of the call are for the last host: those before it are somebody else's.
    fn credentials(&self, said: &Said, part: Part) -> Credentials {
        let Self { ask, user, .. } = self;
        let named: &[PathBuf] = match part {
            Part::Last => &ask.identity_files,
            Part::Jump => &[],
        };
        let mut key_files: Vec<KeyFile> =
            named.iter().map(|path| KeyFile { path: path.clone(), need: Need::Required }).collect();
        if said.are_identity_files_given || named.is_empty() {
            // A name that cannot be expanded is an error about that file alone.
            let paths = said.identity_files.iter().filter_map(|file| file.path.as_ref().ok());
            key_files.extend(paths.map(|path| KeyFile { path: path.into(), need: Need::IfUsable }));
        }
        let variable =
            |name: &str| (user.environment)(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let wants = |method: &str| {
            said.preferred_authentications
                .as_ref()
                .is_none_or(|list| list.iter().any(|known| known == method))
        };
        Credentials {
            key_files,
            key_passphrase: ask.key_passphrase.clone(),
            password: ask.password.clone().filter(|_| part == Part::Last),
            agent_socket: match &said.identity_agent {
                None | Some(IdentityAgent::AuthSock) => ask.defaults.agent_socket.clone(),
                Some(IdentityAgent::None) => None,
                Some(IdentityAgent::Variable(name)) => variable(name),
                Some(IdentityAgent::Socket(path)) => Some(path.into()),
            },
            agent_keys: if said.identities_only { AgentKeys::OfKeyFiles } else { AgentKeys::All },
            methods: Methods {
                publickey: said.pubkey_authentication != PubkeyAuthentication::No && wants("publickey"),
                password: said.password_authentication && wants("password"),
                keyboard_interactive: said.kbd_interactive_authentication && wants("keyboard-interactive"),
            },
        }
    }

    fn host_keys(&self, said: &Said, part: Part) -> HostKeys {
        let Self { ask, .. } = self;
        let said_policy = said.strict_host_key_checking.map(policy);
        let setting = ask.defaults.host_key_policy;
        // A call may ask for more than the operator wants, never for less, and a file it chose is its own word.
        let policy = match self.chosen {
            Chosen::ByOperator => {
                let wanted = said_policy.unwrap_or(setting);
                self.asked_policy.map_or(wanted, |asked| asked.max(wanted))
            }
            Chosen::ByCall => self.asked_policy.or(said_policy).map_or(setting, |asked| asked.max(setting)),
        };
        let by_config =
            said.user_known_hosts_files.as_ref().map(|files| files.iter().map(PathBuf::from).collect());
        let by_call = ask.known_hosts_file.clone().map(|file| vec![file]);
        let user_files = match part {
            Part::Last => by_call.or(by_config),
            Part::Jump => by_config.or(by_call),
        };
        HostKeys {
            policy,
            user_files: user_files.unwrap_or_else(|| vec![ask.defaults.known_hosts.clone()]),
            global_files: said
                .global_known_hosts_files
                .as_ref()
                .map(|files| files.iter().map(PathBuf::from).collect()),
            hashed: said.hash_known_hosts,
        }
    }
}

fn policy(checking: HostKeyChecking) -> HostKeyPolicy {
    match checking {
        HostKeyChecking::Yes => HostKeyPolicy::Strict,
        HostKeyChecking::Ask => HostKeyPolicy::Ask,
        HostKeyChecking::AcceptNew => HostKeyPolicy::AcceptNew,
        HostKeyChecking::No => HostKeyPolicy::DangerAcceptAny,
    }
}

fn named_algorithms(said: &Said) -> Result<Algorithms, ResolveError> {
    let of = |kind, keyword: &str| match said.algorithms(kind) {
        None => Ok(None),
        Some(list) => {
            let offer = algorithms::offer(kind);
            let names: Vec<String> =
                list.apply(offer.default, offer.known).into_iter().map(|name| name.to_string()).collect();
            match names.is_empty() {
                true => Err(ResolveError::Config(format!(
                    "{}: none of the algorithms of {keyword} is known here",
                    said.original_host
                ))),
                false => Ok(Some(names)),
            }
        }
    };
    Ok(Algorithms {
        kex: of(AlgorithmKind::Kex, "KexAlgorithms")?,
        ciphers: of(AlgorithmKind::Ciphers, "Ciphers")?,
        macs: of(AlgorithmKind::Macs, "MACs")?,
        host_keys: of(AlgorithmKind::HostKey, "HostKeyAlgorithms")?,
    })
}

fn call(error: impl fmt::Display) -> ResolveError {
    ResolveError::Call(error.to_string())
}

fn refused(error: OverrideError) -> ResolveError {
    match error {
        OverrideError::Blocked(name) => ResolveError::Blocked(name),
        other @ (OverrideError::Unknown(_)
        | OverrideError::NoValue(_)
        | OverrideError::SecondJump
        | OverrideError::Problem(_)) => call(other),
    }
}

/// More hosts than anybody jumps over: hosts that jump over each other end here.
const JUMPS_MAX: usize = 16;

#[cfg(test)]
mod tests;
