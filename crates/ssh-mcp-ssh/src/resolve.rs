//! From a target to the hops of a connection: ssh_config laid under what a call says (`docs/ssh_config.md`).
//!
//! The files are `openssh-files`' business; here its answer for each host on the way becomes a [`Hop`]. What a call may
//! not say is refused here, because only here it is known what its options and arguments come to.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fmt, io};

use openssh_files::config::{
    AddressFamily, AlgorithmKind, Config, ForwardAgent, HostKeyChecking, IdentityAgent, Local, OverrideError,
    Overrides, Owner, Proxy, PubkeyAuthentication, Resolved as Said, Source, Target as Named, Whose,
};
use ssh_mcp_core::port::resolve::{Asker, ConfigFiles, Forwarding, ResolveError, Resolved, TargetAsk};
use ssh_mcp_core::target::{
    Address, AgentKeys, Algorithms, Compression, Credentials, Family, Hop, HostKeyPolicy, HostKeys,
    Keepalive, KeyFile, Lendings, Means, Need, Order, Program, Target, Wire,
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
    /// The names of all variables.
    pub variables: Box<dyn Fn() -> Vec<String> + Send + Sync>,
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
pub fn run_in_shell(named: Option<String>, command: &str) -> io::Result<bool> {
    let mut command_line = Command::new(shell(named));
    let status = command_line.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    Ok(status.success())
}

/// The user's shell, if he has one of his own.
fn shell(named: Option<String>) -> String {
    named.filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".to_owned())
}

/// Reads the configuration and follows it to the target; blocks, and may run programs of `Match exec`.
pub(crate) fn resolve(ask: &TargetAsk, user: &LocalUser) -> Result<Resolved, ResolveError> {
    let named = Named::parse(&ask.target).map_err(call)?;
    let mut overrides = overrides(ask, &named)?;
    let (sources, chosen) = sources(ask, overrides.config_file.take(), user)?;
    if ask.asker == Asker::Foreign {
        refuse_foreign(ask, &named, &overrides, user)?;
    }
    refuse_names(ask, &overrides)?;
    let asked_policy = ask.host_key_policy.or(overrides.take_host_key_checking().map(policy));
    // A file that somebody else names must not lead to files he was not opened.
    let load = match (chosen, ask.asker) {
        (Chosen::ByCall, Asker::Foreign) => Config::load_alone,
        (Chosen::ByCall | Chosen::ByOperator, Asker::Local | Asker::Foreign) => Config::load,
    };
    let config = load(&sources, &user.home, &*user.home_of, &user.owner)
        .map_err(|error| ResolveError::Config(error.to_string()))?;
    let journey = Journey {
        ask,
        user,
        config: &config,
        chosen,
        asked_policy,
        leads_elsewhere: overrides.lead_elsewhere(),
    };
    let said = journey.look_up(&named.host, &overrides)?;
    let via = journey.jumps(&said, JUMPS_MAX)?;
    let mut hop = journey.hop(&said, Part::Last)?;
    hop.wire.program = journey.program(&said)?;
    hop.lendings = journey.lendings(&said)?;
    Ok(Resolved { via, timeout: said.connect_timeout, hop })
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

/// The name of a host decides what is believed and which of the operator's lines count; and names stand in the lines of
/// `ProxyCommand` and `Match exec`, where a shell reads them.
fn refuse_names(ask: &TargetAsk, overrides: &Overrides) -> Result<(), ResolveError> {
    if overrides.names_no_host() {
        return Err(ResolveError::Call("HostName and user must not mean anything to a shell".to_owned()));
    }
    match (overrides.rename(), ask.asker) {
        // Under another name a host whose key has changed would be a new one.
        (Some(keyword @ "HostKeyAlias"), _) | (Some(keyword), Asker::Foreign) => {
            Err(ResolveError::Call(format!("{keyword} is for configuration files: name the host in target")))
        }
        (Some(_), Asker::Local) | (None, _) => Ok(()),
    }
}

/// What of an answer names files that only the operator may choose, and which keyword does.
fn named_files(said: &Said) -> Option<&'static str> {
    let names_files = [
        ("IdentityFile", said.are_identity_files_given),
        ("CertificateFile", !said.certificate_files.is_empty()),
        ("IdentityAgent", said.identity_agent.is_some()),
        ("UserKnownHostsFile", said.user_known_hosts_files.is_some()),
        ("GlobalKnownHostsFile", said.global_known_hosts_files.is_some()),
    ];
    names_files.into_iter().find(|(_, given)| *given).map(|(keyword, _)| keyword)
}

/// Options and arguments of somebody else must name no file: only fields of their own are checked against what the
/// operator opened. Nor do they lend what is the operator's: his agent and his variables. Asked of the resolved answer, so
/// that no spelling gets round it.
fn refuse_foreign(
    ask: &TargetAsk,
    named: &Named,
    overrides: &Overrides,
    user: &LocalUser,
) -> Result<(), ResolveError> {
    let said = user
        .as_local(|local| Config::default().resolve(&named.host, overrides, local))
        .map_err(|error| ResolveError::Call(error.to_string()))?;
    let lends = [
        ("forward_agent", ask.forwarding == Some(Forwarding::On)),
        ("ForwardAgent", said.forward_agent != ForwardAgent::No),
        ("SendEnv", !said.send_env.is_empty()),
    ];
    if let Some((what, _)) = lends.into_iter().find(|(_, given)| *given) {
        return Err(ResolveError::Call(format!("{what} is not for callers from elsewhere")));
    }
    match named_files(&said) {
        Some(keyword) => Err(ResolveError::Call(format!(
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
    /// The call says more than the target and the user.
    leads_elsewhere: bool,
}

impl Journey<'_> {
    fn look_up(&self, host: &str, overrides: &Overrides) -> Result<Said, ResolveError> {
        let said = self
            .user
            .as_local(|local| self.config.resolve(host, overrides, local))
            .map_err(|error| ResolveError::Config(error.to_string()))?;
        match named_files(&said) {
            Some(keyword) if self.chosen == Chosen::ByCall && self.ask.asker == Asker::Foreign => {
                Err(ResolveError::Call(format!(
                    "{keyword} is not for files that callers from elsewhere name: use identity_file or known_hosts_file"
                )))
            }
            Some(_) | None => Ok(said),
        }
    }

    /// The hosts to jump over on the way to `said`, the nearest first.
    fn jumps(&self, said: &Said, left: usize) -> Result<Vec<Hop>, ResolveError> {
        match &said.proxy {
            Proxy::Direct | Proxy::Command(_) => Ok(Vec::new()),
            Proxy::Jump(hosts) => self.chain(hosts, left),
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
            let mut hop = self.hop(&said, Part::Jump)?;
            if at == 0 {
                hop.wire.program = self.program(&said)?;
            }
            hops.push(hop);
        }
        Ok(hops)
    }

    /// The program that leads to `said`, which no call may choose.
    fn program(&self, said: &Said) -> Result<Option<Program>, ResolveError> {
        let Proxy::Command(line) = &said.proxy else { return Ok(None) };
        let refused = |why: &str| ResolveError::Config(format!("{}: {why}", said.original_host));
        if self.chosen == Chosen::ByCall {
            return Err(refused("ProxyCommand is for the user's and the system's files only"));
        }
        if said.proxy_use_fdpass {
            return Err(refused("ProxyUseFdpass is not supported"));
        }
        let line = line.clone().map_err(|error| refused(&error.to_string()))?;
        Ok(Some(Program { shell: shell((self.user.environment)("SHELL")).into(), line }))
    }

    /// What the programs on the last host are lent.
    fn lendings(&self, said: &Said) -> Result<Lendings, ResolveError> {
        let Self { ask, user, .. } = self;
        let variable = |name: &str| (user.environment)(name).filter(|value| !value.is_empty());
        let agent = match (&said.forward_agent, ask.forwarding) {
            (_, Some(Forwarding::Off)) | (ForwardAgent::No, None) => None,
            (ForwardAgent::Variable(name), _) => variable(name).map(PathBuf::from),
            (ForwardAgent::Socket(path), _) => Some(path.into()),
            (ForwardAgent::Yes | ForwardAgent::No, _) => self.agent_socket(said),
        };
        if agent.is_none() && ask.forwarding == Some(Forwarding::On) {
            return Err(ResolveError::Call("forward_agent: there is no agent to forward".to_owned()));
        }
        let mut variables: Vec<(String, String)> = Vec::new();
        if !said.send_env.is_empty() {
            let mut names = (user.variables)();
            names.retain(|name| said.is_sent(name));
            names.sort_unstable();
            variables.extend(
                names.into_iter().filter_map(|name| Some((name.clone(), (user.environment)(&name)?))),
            );
        }
        variables.retain(|(name, _)| !said.set_env.iter().any(|(set, _)| set == name));
        variables.extend(said.set_env.iter().cloned());
        // A file that somebody else chose must not give away what is the operator's.
        if self.chosen == Chosen::ByCall
            && ask.asker == Asker::Foreign
            && (agent.is_some() || !said.send_env.is_empty())
        {
            return Err(ResolveError::Call(
                "ForwardAgent and SendEnv are not for files that callers from elsewhere name".to_owned(),
            ));
        }
        // The operator lends to the host he wrote about, at its own port and by its own way.
        if ask.asker == Asker::Foreign && self.leads_elsewhere {
            return Ok(Lendings::default());
        }
        Ok(Lendings { variables, agent })
    }

    fn agent_socket(&self, said: &Said) -> Option<PathBuf> {
        match &said.identity_agent {
            None | Some(IdentityAgent::AuthSock) => self.ask.defaults.agent_socket.clone(),
            Some(IdentityAgent::None) => None,
            Some(IdentityAgent::Variable(name)) => {
                (self.user.environment)(name).filter(|path| !path.is_empty()).map(PathBuf::from)
            }
            Some(IdentityAgent::Socket(path)) => Some(path.into()),
        }
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
            credentials: self.credentials(said, part)?,
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
                program: None,
                algorithms: Algorithms {
                    kex: named(said, AlgorithmKind::Kex, "KexAlgorithms")?,
                    ciphers: named(said, AlgorithmKind::Ciphers, "Ciphers")?,
                    macs: named(said, AlgorithmKind::Macs, "MACs")?,
                    host_keys: named(said, AlgorithmKind::HostKey, "HostKeyAlgorithms")?,
                },
            },
            lendings: Lendings::default(),
        })
    }

    /// Password and key files of the call are for the last host: those before it are somebody else's.
    fn credentials(&self, said: &Said, part: Part) -> Result<Credentials, ResolveError> {
        let Self { ask, .. } = self;
        let by_call: &[PathBuf] = match part {
            Part::Last => &ask.identity_files,
            Part::Jump => &[],
        };
        let mut key_files: Vec<KeyFile> =
            by_call.iter().map(|path| KeyFile { path: path.clone(), need: Need::Required }).collect();
        if said.are_identity_files_given || by_call.is_empty() {
            // A name that cannot be expanded is an error about that file alone.
            let paths = said.identity_files.iter().filter_map(|file| file.path.as_ref().ok());
            key_files.extend(paths.map(|path| KeyFile { path: path.into(), need: Need::IfUsable }));
        }
        let certificate_files = said.certificate_files.iter().filter_map(|file| file.path.as_ref().ok());
        Ok(Credentials {
            key_files,
            certificate_files: certificate_files.map(PathBuf::from).collect(),
            key_passphrase: ask.key_passphrase.clone(),
            password: ask.password.clone().filter(|_| part == Part::Last),
            agent_socket: self.agent_socket(said),
            agent_keys: if said.identities_only { AgentKeys::OfKeyFiles } else { AgentKeys::All },
            order: order(said),
            signatures: named(said, AlgorithmKind::PubkeyAccepted, "PubkeyAcceptedAlgorithms")?,
        })
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

/// What is tried, and when: where the configuration names methods, all keys stand where it names theirs.
fn order(said: &Said) -> Order {
    let mut order = match &said.preferred_authentications {
        None => Order::default(),
        Some(methods) => Order(
            methods
                .iter()
                .flat_map(|method| match method.as_str() {
                    "publickey" => [Means::NamedKeys, Means::AgentKeys].as_slice(),
                    "password" => &[Means::Password],
                    "keyboard-interactive" => &[Means::KeyboardInteractive],
                    _ => &[],
                })
                .copied()
                .collect(),
        ),
    };
    order.0.retain(|means| match means {
        Means::NamedKeys | Means::AgentKeys => said.pubkey_authentication != PubkeyAuthentication::No,
        Means::Password => said.password_authentication,
        Means::KeyboardInteractive => said.kbd_interactive_authentication,
    });
    order
}

/// The algorithms of a kind that the configuration leaves, if it speaks of them.
fn named(said: &Said, kind: AlgorithmKind, keyword: &str) -> Result<Option<Vec<String>>, ResolveError> {
    let Some(list) = said.algorithms(kind) else { return Ok(None) };
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
