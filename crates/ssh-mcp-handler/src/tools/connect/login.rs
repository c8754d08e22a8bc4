//! Who logs in where, with what: the arguments of `ssh_connect`, `ssh_run` and `ssh_shell_open` that become a [`Connect`].
//!
//! Two ways to say where: `address` and `username` mean just that host; `target` means what `ssh TARGET` would make of it,
//! and everything else here that speaks of OpenSSH's configuration goes with it.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use ssh_mcp_core::{
    port::resolve::{Asker, ConfigFiles, Defaults, Forwarding, TargetAsk},
    registry::Expiry,
    settings::{HostKeyChecking, Words as _},
    target::{Address, Compression, Credentials, HostKeyPolicy, Keepalive, KeyFile, Need, Secret, Target},
};
use ssh_mcp_engine::{Connect, Goal, Reuse};

use super::secrets;
use crate::{args, cx::Cx, failure::Failure};

/// Who logs in where, with what; to be flattened into the arguments of a tool. No `Debug`: it holds secrets.
#[derive(Default, Deserialize, JsonSchema)]
pub(in crate::tools) struct Login {
    /// user@host:port or an ssh alias.
    target: Option<String>,
    /// Instead of target.
    address: Option<String>,
    username: Option<String>,
    #[schemars(range(min = 1, max = 65_535))]
    port: Option<u16>,
    password: Option<String>,
    /// A variable of the server that holds it.
    password_env: Option<String>,
    /// A file on the server's machine that holds it.
    password_file: Option<String>,
    /// A file where this server runs.
    key_path: Option<String>,
    key_passphrase: Option<String>,
    /// A variable of the server that holds it.
    key_passphrase_env: Option<String>,
    /// A text or a list.
    identity_file: Option<Value>,
    /// A text or a list.
    proxy_jump: Option<Value>,
    known_hosts_file: Option<String>,
    /// A flag, or yes, accept-new, ask, no.
    strict_host_key_checking: Option<Value>,
    ssh_config_file: Option<String>,
    forward_agent: Option<bool>,
    ssh_options: Option<BTreeMap<String, String>>,
    extra_ssh_args: Option<Vec<String>>,
}

/// The fields `ssh_connect` takes without showing them: other ways to say what is shown.
pub(crate) const UNSHOWN_BY_CONNECT: &[&str] = &[
    "identity_file",
    "extra_ssh_args",
    "password_env",
    "password_file",
    "key_passphrase_env",
    "forward_agent",
];

/// The fields `ssh_run` takes without showing them: `ssh_connect` names them, and naming them thrice would cost every
/// client tokens.
pub(crate) const UNSHOWN_BY_RUN: &[&str] = UNSHOWN.split_at(3).1;

/// The same for `ssh_shell_open`, which shows `target` alone.
pub(crate) const UNSHOWN_BY_SHELL: &[&str] = UNSHOWN;

const UNSHOWN: &[&str] = &[
    "address",
    "username",
    "password",
    "key_path",
    "key_passphrase",
    "password_env",
    "password_file",
    "key_passphrase_env",
    "port",
    "identity_file",
    "proxy_jump",
    "known_hosts_file",
    "strict_host_key_checking",
    "ssh_config_file",
    "forward_agent",
    "ssh_options",
    "extra_ssh_args",
];

/// One text or several.
fn texts(field: &str, given: Option<Value>) -> Result<Vec<String>, Failure> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let texts = match &given {
        None => Some(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(text).collect(),
        Some(value) => text(value).map(|text| vec![text]),
    };
    texts.ok_or_else(|| {
        let shown = args::shown(field, &given.unwrap_or_default());
        Failure::argument(format!("{field} must be a text or a list of texts; got {shown}"))
    })
}

/// `StrictHostKeyChecking` as a flag or a word.
fn checking(given: Option<Value>) -> Result<Option<HostKeyPolicy>, Failure> {
    let policy = match &given {
        None => return Ok(None),
        Some(Value::Bool(true)) => Some(HostKeyPolicy::Strict),
        Some(Value::Bool(false)) => Some(HostKeyPolicy::DangerAcceptAny),
        Some(value) => value.as_str().and_then(HostKeyChecking::from_word).map(HostKeyChecking::policy),
    };
    policy.map(Some).ok_or_else(|| {
        let shown = args::shown(CHECKING, &given.unwrap_or_default());
        Failure::argument(format!(
            "{CHECKING} must be true, false, yes, no, ask, accept-new or off; got {shown}"
        ))
    })
}

const CHECKING: &str = "strict_host_key_checking";

impl Login {
    /// Whether it says where to.
    pub(in crate::tools) fn names_a_host(&self) -> bool {
        self.target.is_some() || self.address.is_some()
    }

    /// What the engine is asked, everything else as the settings have it: reuse is automatic, no session is named, and
    /// all attempts together end within 50 s. `compression` is the call's word.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming the field.
    pub(in crate::tools) fn into_connect(
        mut self,
        cx: &Cx,
        compression: Option<Compression>,
    ) -> Result<Connect, Failure> {
        self.fetch_secrets(cx)?;
        let settings = cx.settings();
        let (max_retries, retry_delay) = (settings.max_retries, settings.retry_delay);
        let expiry = settings.inactivity_timeout.map_or(Expiry::Never, Expiry::After);
        let goal = match self.target.is_some() {
            true => Some(Goal::Target(Box::new(self.into_ask(cx, compression)?))),
            false => self.into_host(cx, compression)?,
        };
        Ok(Connect {
            goal,
            session: None,
            timeout: None,
            max_retries,
            retry_delay,
            overall: Some(OVERALL),
            name: None,
            agent: None,
            expiry,
            reuse: Reuse::Auto,
            accepted: Vec::new(),
        })
    }

    /// Puts secrets in the place of what the call says about where they are.
    fn fetch_secrets(&mut self, cx: &Cx) -> Result<(), Failure> {
        let sources = [&self.password, &self.password_env, &self.password_file];
        if sources.into_iter().flatten().count() > 1 {
            return Err(Failure::argument("give one of password, password_env and password_file"));
        }
        if self.key_passphrase.is_some() && self.key_passphrase_env.is_some() {
            return Err(Failure::argument("give one of key_passphrase and key_passphrase_env"));
        }
        if let Some(name) = &self.password_env {
            self.password = Some(secrets::from_variable(cx, "password_env", name)?);
        }
        if let Some(path) = &self.password_file {
            self.password = Some(secrets::from_file(&cx.local_file("password_file", path)?)?);
        }
        if let Some(name) = &self.key_passphrase_env {
            self.key_passphrase = Some(secrets::from_variable(cx, "key_passphrase_env", name)?);
        }
        Ok(())
    }

    /// This very host, or none where neither part of it is given.
    fn into_host(self, cx: &Cx, compression: Option<Compression>) -> Result<Option<Goal>, Failure> {
        let Some(target) = self.host()? else { return Ok(None) };
        let defaults = defaults(cx);
        let key_files = match &self.key_path {
            Some(path) => vec![KeyFile { path: cx.local_file("key_path", path)?, need: Need::Required }],
            None => Vec::new(),
        };
        let credentials = Credentials {
            key_files,
            key_passphrase: self.key_passphrase.map(Secret::new),
            password: self.password.map(Secret::new),
            agent_socket: defaults.agent_socket.clone(),
            ..Credentials::default()
        };
        let mut hop = defaults.hop(target, credentials);
        hop.wire.compression = compression.unwrap_or(hop.wire.compression);
        Ok(Some(Goal::Host(Box::new(hop))))
    }

    fn host(&self) -> Result<Option<Target>, Failure> {
        let missing = |field, other| {
            Err(Failure::argument(format!("{field} is missing: it must be a text, because {other} is given")))
        };
        if let Some(field) = self.field_of_targets() {
            return missing("target", field);
        }
        let (address, username) = match (&self.address, &self.username) {
            (None, None) => return Ok(None),
            (Some(_), None) => return missing("username", "address"),
            (None, Some(_)) => return missing("address", "username"),
            (Some(address), Some(username)) => (address, username),
        };
        let shown = |field, text: &String| args::shown(field, &Value::from(text.as_str()));
        let parsed: Address = address.parse().map_err(|error| {
            let shown = shown("address", address);
            Failure::argument(format!("address must be host, host:port or [v6]:port; got {shown}: {error}"))
        })?;
        if username.is_empty() || username.chars().any(char::is_control) {
            let shown = shown("username", username);
            return Err(Failure::argument(format!("username must be the name of an account; got {shown}")));
        }
        Ok(Some(Target { address: parsed, username: username.clone() }))
    }

    /// A field that has no meaning without `target`.
    fn field_of_targets(&self) -> Option<&'static str> {
        let fields = [
            ("port", self.port.is_some()),
            ("identity_file", self.identity_file.is_some()),
            ("proxy_jump", self.proxy_jump.is_some()),
            ("known_hosts_file", self.known_hosts_file.is_some()),
            ("strict_host_key_checking", self.strict_host_key_checking.is_some()),
            ("ssh_config_file", self.ssh_config_file.is_some()),
            ("forward_agent", self.forward_agent.is_some()),
            ("ssh_options", self.ssh_options.is_some()),
            ("extra_ssh_args", self.extra_ssh_args.is_some()),
        ];
        fields.into_iter().find(|(_, is_given)| *is_given).map(|(field, _)| field)
    }

    /// What the configuration is asked.
    fn into_ask(self, cx: &Cx, compression: Option<Compression>) -> Result<TargetAsk, Failure> {
        if self.address.is_some() {
            return Err(Failure::argument("target and address are both given: give one of them"));
        }
        let mut identity_files = Vec::new();
        if let Some(path) = &self.key_path {
            identity_files.push(cx.local_file("key_path", path)?);
        }
        for path in texts("identity_file", self.identity_file)? {
            identity_files.push(cx.local_file("identity_file", &path)?);
        }
        let config = match self.ssh_config_file.as_deref() {
            None => ConfigFiles::Usual,
            Some("none") => ConfigFiles::None,
            Some(path) => ConfigFiles::Only(cx.local_file("ssh_config_file", path)?),
        };
        let known_hosts_file: Option<PathBuf> = match &self.known_hosts_file {
            Some(path) => Some(cx.local_file("known_hosts_file", path)?),
            None => None,
        };
        Ok(TargetAsk {
            target: self.target.unwrap_or_default(),
            username: self.username,
            port: self.port,
            identity_files,
            key_passphrase: self.key_passphrase.map(Secret::new),
            password: self.password.map(Secret::new),
            config,
            known_hosts_file,
            host_key_policy: checking(self.strict_host_key_checking)?,
            proxy_jump: Some(texts("proxy_jump", self.proxy_jump)?.join(","))
                .filter(|hosts| !hosts.is_empty()),
            compression,
            forwarding: self.forward_agent.map(|on| if on { Forwarding::On } else { Forwarding::Off }),
            options: self.ssh_options.unwrap_or_default().into_iter().collect(),
            arguments: self.extra_ssh_args.unwrap_or_default(),
            asker: if cx.owner.is_local() { Asker::Local } else { Asker::Foreign },
            defaults: defaults(cx),
        })
    }
}

fn defaults(cx: &Cx) -> Defaults {
    let settings = cx.settings();
    Defaults {
        agent_socket: settings.auth_sock.clone(),
        host_key_policy: settings.host_key_checking.policy(),
        known_hosts: settings.known_hosts.clone().unwrap_or_default(),
        compression: settings.compression,
        keepalive: Keepalive { interval: settings.keepalive_interval, max: settings.keepalive_max },
    }
}

/// All attempts and waits of a call that names neither `timeout_secs` nor `max_retries`: hosts give up on a call after a
/// minute.
const OVERALL: Duration = Duration::from_secs(50);
