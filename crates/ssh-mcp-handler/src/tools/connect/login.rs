//! Who logs in where, with what: the arguments of `ssh_connect` and `ssh_run` that become a [`Connect`].

use std::time::Duration;

use serde_json::Value;
use ssh_mcp_core::{
    registry::Expiry,
    target::{Address, Credentials, Secret, Target},
};
use ssh_mcp_engine::{Connect, Reuse};

use crate::{args, cx::Cx, failure::Failure};

/// Who logs in where, with what: the arguments `ssh_connect` and `ssh_run` share.
#[derive(Default)]
pub(in crate::tools) struct Login {
    /// `host`, `host:port` or `[v6]:port`.
    pub(in crate::tools) address: Option<String>,
    /// The account.
    pub(in crate::tools) username: Option<String>,
    /// A password.
    pub(in crate::tools) password: Option<String>,
    /// A private key file.
    pub(in crate::tools) key_path: Option<String>,
    /// What opens it.
    pub(in crate::tools) key_passphrase: Option<String>,
}

impl Login {
    /// What the engine is asked, everything else as the settings have it: reuse is automatic, no session is named, and
    /// all attempts together end within 50 s.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming the field.
    pub(in crate::tools) fn into_connect(self, cx: &Cx) -> Result<Connect, Failure> {
        let target = self.target()?;
        let settings = cx.settings();
        let key_path = match &self.key_path {
            Some(path) => Some(cx.local_file("key_path", path)?),
            None => None,
        };
        Ok(Connect {
            target,
            session: None,
            credentials: Credentials {
                key_path,
                key_passphrase: self.key_passphrase.map(Secret::new),
                password: self.password.map(Secret::new),
                agent_socket: settings.auth_sock.clone(),
            },
            timeout: settings.connect_timeout,
            max_retries: settings.max_retries,
            retry_delay: settings.retry_delay,
            overall: Some(OVERALL),
            compression: settings.compression,
            host_key_policy: settings.host_key_checking.policy(),
            known_hosts: settings.known_hosts.clone().unwrap_or_default(),
            name: None,
            agent: None,
            expiry: settings.inactivity_timeout.map_or(Expiry::Never, Expiry::After),
            reuse: Reuse::Auto,
        })
    }

    /// The target, or none where neither part is given.
    fn target(&self) -> Result<Option<Target>, Failure> {
        let missing = |field, other| {
            Err(Failure::argument(format!("{field} is missing: it must be a text, because {other} is given")))
        };
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
}

/// All attempts and waits of a call that names neither `timeout_secs` nor `max_retries`: hosts give up on a call after a
/// minute.
const OVERALL: Duration = Duration::from_secs(50);
