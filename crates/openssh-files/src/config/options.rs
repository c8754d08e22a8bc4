//! What has been set so far, and which line adds to it: the first of a kind, with few exceptions.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::ResolveError;
use super::resolved::{HostKeyChecking, PubkeyAuthentication};
use super::setting::{AddressFamily, AlgorithmKind, AlgorithmList, Canonicalize, Jumps, Setting};
use crate::{Location, pattern};

/// What has been set so far.
#[derive(Default)]
pub(super) struct Options {
    pub(super) host_name: Option<(String, Option<Location>)>,
    pub(super) user: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) identity_files: Vec<String>,
    pub(super) certificate_files: Vec<String>,
    pub(super) identities_only: Option<bool>,
    pub(super) identity_agent: Option<(String, Option<Location>)>,
    pub(super) proxy: Option<ProxySetting>,
    pub(super) host_key_alias: Option<String>,
    pub(super) user_known_hosts_files: Option<(Vec<String>, Option<Location>)>,
    pub(super) global_known_hosts_files: Option<Vec<String>>,
    pub(super) strict_host_key_checking: Option<HostKeyChecking>,
    pub(super) address_family: Option<AddressFamily>,
    pub(super) bind_address: Option<String>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) server_alive_interval: Option<Duration>,
    pub(super) server_alive_count_max: Option<u32>,
    pub(super) compression: Option<bool>,
    pub(super) forward_agent: Option<bool>,
    pub(super) forward_agent_to: Option<(String, Option<Location>)>,
    pub(super) preferred_authentications: Option<String>,
    pub(super) pubkey_authentication: Option<PubkeyAuthentication>,
    pub(super) password_authentication: Option<bool>,
    pub(super) kbd_interactive_authentication: Option<bool>,
    pub(super) number_of_password_prompts: Option<u32>,
    pub(super) set_env: Vec<(String, String)>,
    pub(super) send_env: Vec<String>,
    pub(super) hash_known_hosts: Option<bool>,
    pub(super) proxy_use_fdpass: Option<bool>,
    pub(super) algorithms: Vec<(AlgorithmKind, AlgorithmList)>,
    pub(super) canonicalize: Option<Canonicalize>,
    pub(super) canonical_domains: Option<Vec<String>>,
    pub(super) canonicalize_max_dots: Option<u32>,
}

/// `ProxyJump` and `ProxyCommand` compete.
pub(super) enum ProxySetting {
    None,
    Jump(Jumps, Option<Location>),
    Command(String),
}

impl Options {
    /// Takes a setting over if it is the first of its kind, or of a kind that adds up; true if it was taken.
    pub(super) fn set(
        &mut self,
        setting: &Setting,
        at: impl Fn() -> Option<Location>,
    ) -> Result<bool, ResolveError> {
        let taken = match setting {
            Setting::HostName(name) => first(&mut self.host_name, || (name.clone(), at())),
            Setting::User(user) => first(&mut self.user, || user.clone()),
            Setting::Port(port) => first(&mut self.port, || *port),
            Setting::IdentityFile(file) => {
                return add_file(&mut self.identity_files, file, "IdentityFile", at);
            }
            Setting::CertificateFile(file) => {
                return add_file(&mut self.certificate_files, file, "CertificateFile", at);
            }
            Setting::IdentitiesOnly(only) => first(&mut self.identities_only, || *only),
            Setting::IdentityAgent(agent) => first(&mut self.identity_agent, || (agent.clone(), at())),
            Setting::ProxyJump(None) | Setting::ProxyCommand(None) => {
                first(&mut self.proxy, || ProxySetting::None)
            }
            Setting::ProxyJump(Some(jumps)) => {
                first(&mut self.proxy, || ProxySetting::Jump(jumps.clone(), at()))
            }
            Setting::ProxyCommand(Some(command)) => {
                first(&mut self.proxy, || ProxySetting::Command(command.clone()))
            }
            Setting::HostKeyAlias(alias) => first(&mut self.host_key_alias, || alias.clone()),
            Setting::UserKnownHostsFile(files) => {
                first(&mut self.user_known_hosts_files, || (files.clone(), at()))
            }
            Setting::GlobalKnownHostsFile(files) => {
                first(&mut self.global_known_hosts_files, || files.clone())
            }
            Setting::StrictHostKeyChecking(checking) => {
                first(&mut self.strict_host_key_checking, || *checking)
            }
            Setting::AddressFamily(family) => first(&mut self.address_family, || *family),
            Setting::BindAddress(address) => first(&mut self.bind_address, || address.clone()),
            // `none` says nothing, so a later line counts.
            Setting::ConnectTimeout(None) | Setting::ServerAliveInterval(None) => false,
            Setting::ConnectTimeout(Some(time)) => first(&mut self.connect_timeout, || *time),
            Setting::ServerAliveInterval(Some(time)) => first(&mut self.server_alive_interval, || *time),
            Setting::ServerAliveCountMax(count) => first(&mut self.server_alive_count_max, || *count),
            Setting::Compression(compression) => first(&mut self.compression, || *compression),
            Setting::ForwardAgent(forward) => first(&mut self.forward_agent, || *forward),
            Setting::ForwardAgentTo(agent) => {
                // A socket is remembered also where forwarding is off, as `ssh -G` shows.
                first(&mut self.forward_agent, || true);
                first(&mut self.forward_agent_to, || (agent.clone(), at()))
            }
            Setting::PreferredAuthentications(list) => {
                first(&mut self.preferred_authentications, || list.clone())
            }
            Setting::PubkeyAuthentication(keys) => first(&mut self.pubkey_authentication, || *keys),
            Setting::PasswordAuthentication(password) => {
                first(&mut self.password_authentication, || *password)
            }
            Setting::KbdInteractiveAuthentication(interactive) => {
                first(&mut self.kbd_interactive_authentication, || *interactive)
            }
            Setting::NumberOfPasswordPrompts(count) => first(&mut self.number_of_password_prompts, || *count),
            // Only one line counts, with all its variables.
            Setting::SetEnv(variables) if self.set_env.is_empty() => {
                self.set_env.clone_from(variables);
                true
            }
            Setting::SetEnv(_) => false,
            Setting::SendEnv(names) => {
                names.iter().for_each(|name| self.send(name));
                true
            }
            Setting::ProxyUseFdpass(fdpass) => first(&mut self.proxy_use_fdpass, || *fdpass),
            Setting::HashKnownHosts(hash) => first(&mut self.hash_known_hosts, || *hash),
            Setting::Algorithms(kind, list) => {
                let is_first = self.algorithms.iter().all(|(known, _)| known != kind);
                if is_first {
                    self.algorithms.push((*kind, list.clone()));
                }
                is_first
            }
            Setting::CanonicalizeHostname(canonicalize) => first(&mut self.canonicalize, || *canonicalize),
            Setting::CanonicalDomains(domains) => first(&mut self.canonical_domains, || domains.clone()),
            Setting::CanonicalizeMaxDots(dots) => first(&mut self.canonicalize_max_dots, || *dots),
        };
        Ok(taken)
    }

    /// A pattern to send, or with a `-` one whose like is not to be sent after all.
    fn send(&mut self, name: &str) {
        match name.strip_prefix('-') {
            Some(removed) => {
                self.send_env.retain(|name| !pattern::matches(removed.as_bytes(), name.as_bytes()));
            }
            None => self.send_env.push(name.to_owned()),
        }
    }

    pub(super) fn wants_canonical_name(&self) -> bool {
        matches!(self.canonicalize, Some(Canonicalize::Yes | Canonicalize::Always))
    }

    /// True if OpenSSH would try the name in each of `CanonicalDomains`.
    ///
    /// To go on without would be to go to another host, so this is an error and not passed over.
    pub(super) fn needs_a_canonical_name(&self, name: &str) -> bool {
        let has_domains = self.canonical_domains.as_ref().is_some_and(|domains| !domains.is_empty());
        let is_proxied = matches!(self.proxy, Some(ProxySetting::Jump(..) | ProxySetting::Command(_)));
        let is_address = name.contains(':') || name.parse::<Ipv4Addr>().is_ok();
        let dots = name.bytes().filter(|&byte| byte == b'.').count();
        let max_dots = usize::try_from(self.canonicalize_max_dots.unwrap_or(1)).unwrap_or(usize::MAX);
        self.wants_canonical_name()
            && has_domains
            && !(is_proxied && self.canonicalize == Some(Canonicalize::Yes))
            && !is_address
            && !name.ends_with('.')
            && dots <= max_dots
    }
}

fn first<T>(place: &mut Option<T>, value: impl FnOnce() -> T) -> bool {
    let is_free = place.is_none();
    if is_free {
        *place = Some(value());
    }
    is_free
}

fn add_file(
    files: &mut Vec<String>,
    file: &String,
    keyword: &'static str,
    at: impl Fn() -> Option<Location>,
) -> Result<bool, ResolveError> {
    if files.contains(file) {
        return Ok(false);
    }
    if files.len() >= FILES_MAX {
        return Err(ResolveError::TooManyFiles { at: at(), keyword });
    }
    files.push(file.clone());
    Ok(true)
}

/// `IdentityFile` and `CertificateFile`, of each.
pub(super) const FILES_MAX: usize = 100;
