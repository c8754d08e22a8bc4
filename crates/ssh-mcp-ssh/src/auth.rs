//! Logging in (RFC 4252): key files, password, agent, in this order, each one that was given.
//!
//! A rejected method costs a try, and servers hang up after a few (`MaxAuthTries`, 6 with OpenSSH), so nothing is asked
//! that cannot succeed: methods the server does not offer are left out once it has said what it offers. Where a server
//! wants several methods, the loop goes on with what it still offers (partial success).
//!
//! What let us in is remembered as [`Way`]s: a further connection of the same link shows exactly these again.
//! Secrets stay in types that are wiped; no line of the log has one.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use ssh_mcp_core::port::ssh::{ConnectError, Transience};
use ssh_mcp_core::target::{AgentKeys, Credentials, Methods, Secret};
use ssh_mcp_core::target_names;

use crate::connection::Connection;
use crate::error;
use crate::handler::End;
use crate::key_file::Keys;

/// One step that a server accepted.
#[derive(Clone)]
pub(crate) enum Way {
    /// Nothing had to be shown.
    None,
    /// The key of a file.
    Key(Arc<PrivateKey>),
    /// Password authentication.
    Password(Secret),
    /// Keyboard-interactive, answered by the password.
    Keyboard(Secret, Repeat),
    /// A key that an agent holds.
    Agent(PathBuf, Box<AgentIdentity>),
}

/// Whether a way leads in a second time without somebody's help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It can be shown again.
    Possible,
    /// One-time codes, confirmations elsewhere, keys that want to be touched.
    Impossible,
}

impl Way {
    /// The method's name in RFC 4252.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Key(_) | Self::Agent(..) => "publickey",
            Self::Password(_) => "password",
            Self::Keyboard(..) => "keyboard-interactive",
        }
    }

    /// Whether it leads in again.
    pub(crate) fn repeat(&self) -> Repeat {
        match self {
            Self::None | Self::Key(_) | Self::Password(_) => Repeat::Possible,
            Self::Keyboard(_, repeat) => *repeat,
            Self::Agent(_, identity) => {
                let algorithm = identity.public_key().algorithm();
                match matches!(algorithm, Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) {
                    true => Repeat::Impossible,
                    false => Repeat::Possible,
                }
            }
        }
    }
}

/// Logs in with what was given; the ways that were accepted, the last one last.
pub(crate) async fn log_in(
    connection: &mut Connection,
    user: &str,
    credentials: &Credentials,
    keys: Keys,
) -> Result<Vec<Way>, ConnectError> {
    let Keys { usable, named, passed_over } = keys;
    let mut sources = Sources {
        keys: usable.into(),
        password: credentials.password.clone(),
        keyboard: credentials.password.clone(),
        agent: credentials.agent_socket.clone(),
        methods: credentials.methods,
    };
    let mut login = Login::new(connection, user);
    login.tried = passed_over;
    login.agent_keys = match credentials.agent_keys {
        AgentKeys::All => None,
        AgentKeys::OfKeyFiles => Some(named),
    };
    while let Some(source) = sources.take(&login.offered) {
        let step = match source {
            Source::Key(key) => login.show(Way::Key(key), "publickey (key file)").await?,
            Source::Password(password) => login.show(Way::Password(password), "password").await?,
            Source::Keyboard(password) => login.keyboard(password).await?,
            Source::Agent(socket) => login.agent(&socket).await?,
        };
        if step == Step::In {
            return Ok(login.accepted);
        }
    }
    // Nothing to show has reached the server. Some hosts ask for nothing, and the others say what they would take.
    if login.offered.0.is_none() && login.show(Way::None, "none").await? == Step::In {
        return Ok(login.accepted);
    }
    Err(login.rejected())
}

/// Logs in by ways that were accepted before.
pub(crate) async fn log_in_again(
    connection: &mut Connection,
    user: &str,
    ways: &[Way],
) -> Result<(), ConnectError> {
    let mut login = Login::new(connection, user);
    for way in ways {
        let step = match way.clone() {
            Way::Keyboard(password, _) => login.keyboard(password).await?,
            Way::Agent(socket, identity) => {
                login.open_agent(&socket).await;
                login.show(Way::Agent(socket, identity), "publickey (agent)").await?
            }
            way @ (Way::None | Way::Key(_) | Way::Password(_)) => {
                let name = way.method();
                login.show(way, name).await?
            }
        };
        match step {
            Step::In => return Ok(()),
            Step::OneOfSeveral => {}
            Step::No => break,
        }
    }
    Err(login.rejected())
}

/// What is left to be shown.
struct Sources {
    keys: VecDeque<Arc<PrivateKey>>,
    password: Option<Secret>,
    keyboard: Option<Secret>,
    agent: Option<PathBuf>,
    methods: Methods,
}

enum Source {
    Key(Arc<PrivateKey>),
    Password(Secret),
    Keyboard(Secret),
    Agent(PathBuf),
}

impl Sources {
    /// The next source the server may take; nothing is known of the server before its first answer.
    fn take(&mut self, offered: &Offered) -> Option<Source> {
        let Methods { publickey, password, keyboard_interactive } = self.methods;
        let may = |method| {
            let wanted = match method {
                MethodKind::PublicKey => publickey,
                MethodKind::Password => password,
                MethodKind::KeyboardInteractive => keyboard_interactive,
                MethodKind::None | MethodKind::HostBased | MethodKind::GssapiWithMic => true,
            };
            wanted && offered.0.as_deref().is_none_or(|methods| methods.contains(&method))
        };
        if may(MethodKind::PublicKey)
            && let Some(key) = self.keys.pop_front()
        {
            return Some(Source::Key(key));
        }
        if may(MethodKind::Password)
            && let Some(password) = self.password.take()
        {
            return Some(Source::Password(password));
        }
        // The same secret by another door: some servers ask for passwords only this way.
        if offered.0.is_some()
            && may(MethodKind::KeyboardInteractive)
            && let Some(password) = self.keyboard.take()
        {
            return Some(Source::Keyboard(password));
        }
        if may(MethodKind::PublicKey)
            && let Some(agent) = self.agent.take()
        {
            return Some(Source::Agent(agent));
        }
        None
    }
}

/// The methods the server would take, once it has said so.
#[derive(Default)]
struct Offered(Option<Vec<MethodKind>>);

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    In,
    /// Accepted, and more is wanted.
    OneOfSeveral,
    No,
}

/// One login on one connection.
struct Login<'a> {
    connection: &'a mut Connection,
    user: &'a str,
    offered: Offered,
    tried: Vec<String>,
    accepted: Vec<Way>,
    shown: Vec<PublicKey>,
    /// The agent's keys that may be shown; `None` is all of them.
    agent_keys: Option<Vec<PublicKey>>,
    agent: Option<AgentClient<AgentSocket>>,
}

#[cfg(unix)]
type AgentSocket = tokio::net::UnixStream;
#[cfg(windows)]
type AgentSocket = tokio::net::windows::named_pipe::NamedPipeClient;

impl<'a> Login<'a> {
    fn new(connection: &'a mut Connection, user: &'a str) -> Self {
        Self {
            connection,
            user,
            offered: Offered::default(),
            tried: Vec::new(),
            accepted: Vec::new(),
            shown: Vec::new(),
            agent_keys: None,
            agent: None,
        }
    }

    /// Shows one way that needs no dialogue.
    async fn show(&mut self, way: Way, name: &str) -> Result<Step, ConnectError> {
        self.note(name);
        let user = self.user;
        let answer = match &way {
            Way::None => self.connection.handle.authenticate_none(user).await,
            Way::Key(key) => {
                let Some(hash) = self.rsa_hash(&key.algorithm()).await? else { return Ok(Step::No) };
                self.shown.push(key.public_key().clone());
                let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
                self.connection.handle.authenticate_publickey(user, key).await
            }
            Way::Password(password) | Way::Keyboard(password, _) => {
                self.connection.handle.authenticate_password(user, password.reveal()).await
            }
            Way::Agent(_, identity) => {
                let Some(hash) = self.rsa_hash(&identity.public_key().algorithm()).await? else {
                    return Ok(Step::No);
                };
                let Some(agent) = &mut self.agent else { return Ok(Step::No) };
                let handle = &mut self.connection.handle;
                let answer = match identity.as_ref() {
                    AgentIdentity::PublicKey { key, .. } => {
                        handle.authenticate_publickey_with(user, key.clone(), hash, agent).await
                    }
                    AgentIdentity::Certificate { certificate, .. } => {
                        handle.authenticate_certificate_with(user, certificate.clone(), hash, agent).await
                    }
                };
                match answer {
                    Ok(answer) => Ok(answer),
                    Err(russh::AgentAuthError::Send(_)) => Err(russh::Error::SendError),
                    // The agent would not sign; the connection is none the worse for it.
                    Err(russh::AgentAuthError::Key(error)) => {
                        tracing::debug!(target: target_names::AUTH, %error, "the agent did not sign");
                        return Ok(Step::No);
                    }
                }
            }
        };
        match answer {
            Ok(AuthResult::Success) => {
                self.accepted.push(way);
                Ok(Step::In)
            }
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                self.refused(way, &remaining_methods, partial_success).await
            }
            Err(_) => Err(self.ended().await),
        }
    }

    /// Keyboard-interactive (RFC 4256): the password answers one hidden prompt, empty lists are answered by empty lists.
    async fn keyboard(&mut self, password: Secret) -> Result<Step, ConnectError> {
        self.note("keyboard-interactive");
        let mut answered = Answered::No;
        let mut reply =
            self.connection.handle.authenticate_keyboard_interactive_start(self.user, None::<String>).await;
        loop {
            let prompts = match reply {
                Ok(KeyboardInteractiveAuthResponse::Success) => {
                    self.accepted.push(Way::Keyboard(password, answered.repeat()));
                    return Ok(Step::In);
                }
                Ok(KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success }) => {
                    let way = Way::Keyboard(password, answered.repeat());
                    return self.refused(way, &remaining_methods, partial_success).await;
                }
                Ok(KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. }) => prompts,
                Err(_) => return Err(self.ended().await),
            };
            let answers = match (prompts.as_slice(), answered) {
                ([], _) => Vec::new(),
                ([prompt], Answered::No) if !prompt.echo => {
                    answered = Answered::Asked(asked_for(&prompt.prompt));
                    vec![password.reveal().to_owned()]
                }
                // Questions we have no answer to. Saying nothing ends this method and leaves the others open.
                (questions, _) => {
                    if let Some(last) = self.tried.last_mut() {
                        *last = "keyboard-interactive (asked for more than the password)".to_owned();
                    }
                    vec![String::new(); questions.len()]
                }
            };
            reply = self.connection.handle.authenticate_keyboard_interactive_respond(answers).await;
        }
    }

    /// Every key the agent holds, until one is accepted or the server has had enough.
    async fn agent(&mut self, socket: &Path) -> Result<Step, ConnectError> {
        self.open_agent(socket).await;
        let Some(agent) = &mut self.agent else { return Ok(Step::No) };
        let identities = match agent.request_identities().await {
            Ok(identities) if identities.is_empty() => {
                self.note("publickey (agent, which holds no key)");
                return Ok(Step::No);
            }
            Ok(identities) => identities,
            Err(error) => {
                tracing::debug!(target: target_names::AUTH, %error, "the agent does not list its keys");
                self.note("publickey (agent, which does not answer)");
                return Ok(Step::No);
            }
        };
        for (number, identity) in (1..).zip(identities) {
            // The server has judged the keys of the files already; each try counts.
            let is_among =
                |keys: &[PublicKey], key: &PublicKey| keys.iter().any(|one| one.key_data() == key.key_data());
            if let AgentIdentity::PublicKey { key, .. } = &identity
                && is_among(&self.shown, key)
            {
                continue;
            }
            if let Some(wanted) = &self.agent_keys
                && !is_among(wanted, &identity.public_key())
            {
                continue;
            }
            let name = if number == 1 { "publickey (agent)" } else { "publickey (agent, further key)" };
            let step = self.show(Way::Agent(socket.to_owned(), Box::new(identity)), name).await?;
            let is_wanted =
                self.offered.0.as_deref().is_none_or(|offered| offered.contains(&MethodKind::PublicKey));
            if step != Step::No || !is_wanted {
                return Ok(step);
            }
        }
        Ok(Step::No)
    }

    /// A connection to the agent for this login; failing is no reason to give up on the rest.
    async fn open_agent(&mut self, socket: &Path) {
        match connect_agent(socket).await {
            Ok(mut agent) => {
                if let Some(binding) = self.connection.handle.agent_session_binding()
                    && let Err(error) = agent.bind_session(binding, false).await
                {
                    // Agents older than OpenSSH 8.9 do not know the request.
                    tracing::debug!(target: target_names::AUTH, %error, "the agent does not bind sessions");
                }
                self.agent = Some(agent);
            }
            Err(error) => {
                tracing::debug!(target: target_names::AUTH, %error, "the agent cannot be reached");
                self.note("publickey (agent, which cannot be reached)");
            }
        }
    }

    /// What a key signs with here (only RSA has a choice); outer `None` where only SHA-1 is left, which is not used.
    async fn rsa_hash(&mut self, algorithm: &Algorithm) -> Result<Option<Option<HashAlg>>, ConnectError> {
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return Ok(Some(None));
        }
        match self.connection.handle.best_supported_rsa_hash().await {
            Ok(Some(Some(hash))) => Ok(Some(Some(hash))),
            Ok(Some(None)) => {
                self.note("publickey (RSA, of which the server takes only SHA-1)");
                Ok(None)
            }
            // The server does not say. RFC 8332 recommends SHA-256 and leaves SHA-512 optional.
            Ok(None) => Ok(Some(Some(HashAlg::Sha256))),
            Err(_) => Err(self.ended().await),
        }
    }

    async fn refused(
        &mut self,
        way: Way,
        remaining: &MethodSet,
        partial: bool,
    ) -> Result<Step, ConnectError> {
        if remaining.is_empty() {
            // No methods left, or no server left: russh says both in the same words. Either way it hangs up.
            return Err(self.ended().await);
        }
        self.offered = Offered(Some(remaining.to_vec()));
        tracing::debug!(target: target_names::AUTH, method = way.method(), partial, "not let in yet");
        if partial {
            self.accepted.push(way);
            return Ok(Step::OneOfSeveral);
        }
        Ok(Step::No)
    }

    /// The error of a login whose connection has ended: a server that has had enough of our tries says so.
    async fn ended(&self) -> ConnectError {
        match self.connection.watch.end().await {
            End::NoMethodsLeft => self.rejected(),
            End::Dismissed(words) => {
                tracing::debug!(target: target_names::AUTH, %words, "the server ended the login");
                self.rejected()
            }
            End::Broken(cause) => error::failed(format!("while logging in: {cause}"), Transience::Transient),
        }
    }

    fn rejected(&self) -> ConnectError {
        let offered = self.offered.0.as_deref().unwrap_or_default();
        ConnectError::Rejected {
            tried: self.tried.clone(),
            offered: offered.iter().map(|method| <&str>::from(method).to_owned()).collect(),
        }
    }

    fn note(&mut self, name: &str) {
        if self.tried.last().is_none_or(|last| last != name) {
            self.tried.push(name.to_owned());
        }
    }
}

/// What the password was the answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    No,
    Asked(Asked),
}

/// What a hidden prompt wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Password,
    SomethingElse,
}

impl Answered {
    fn repeat(self) -> Repeat {
        match self {
            Self::Asked(Asked::Password) => Repeat::Possible,
            // Let in without a question means that somebody confirmed it elsewhere.
            Self::Asked(Asked::SomethingElse) | Self::No => Repeat::Impossible,
        }
    }
}

/// Whether a prompt asks for the password rather than for a code that works once.
fn asked_for(prompt: &str) -> Asked {
    let prompt = prompt.to_lowercase();
    let names = |words: &[&str]| words.iter().any(|word| prompt.contains(word));
    if names(&CODES) || !names(&PASSWORDS) { Asked::SomethingElse } else { Asked::Password }
}

#[cfg(unix)]
async fn connect_agent(socket: &Path) -> Result<AgentClient<AgentSocket>, russh::keys::Error> {
    AgentClient::connect_uds(socket).await
}

#[cfg(windows)]
async fn connect_agent(socket: &Path) -> Result<AgentClient<AgentSocket>, russh::keys::Error> {
    AgentClient::connect_named_pipe(socket).await
}

/// Words in prompts for codes that work once, some of which speak of a "one-time password" as well.
const CODES: [&str; 8] = ["one-time", "one time", "otp", "oath", "code", "token", "challenge", "passcode"];

/// "Password" as PAM's translations have it.
const PASSWORDS: [&str; 18] = [
    "password",
    "passwort",
    "kennwort",
    "mot de passe",
    "contraseña",
    "senha",
    "parola",
    "wachtwoord",
    "lösenord",
    "adgangskode",
    "passord",
    "salasana",
    "hasło",
    "heslo",
    "пароль",
    "密码",
    "密碼",
    "パスワード",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(prompt: &str, expected: Asked) {
        assert_eq!(asked_for(prompt), expected, "{prompt}");
    }

    #[test]
    fn prompts_of_pam_and_friends() {
        check("Password: ", Asked::Password);
        check("ada@host's password:", Asked::Password);
        check("Passwort: ", Asked::Password);
        check("パスワード:", Asked::Password);
        check("One-time password (OATH) for `ada': ", Asked::SomethingElse);
        check("Verification code: ", Asked::SomethingElse);
        check("Enter PASSCODE: ", Asked::SomethingElse);
        check("", Asked::SomethingElse);
    }

    #[test]
    fn what_leads_in_a_second_time() {
        let password = Secret::new("x".to_owned());
        assert_eq!(Way::Password(password.clone()).repeat(), Repeat::Possible);
        assert_eq!(Way::Keyboard(password.clone(), Answered::No.repeat()).repeat(), Repeat::Impossible);
        let by_password = Answered::Asked(Asked::Password).repeat();
        assert_eq!(Way::Keyboard(password, by_password).repeat(), Repeat::Possible);
    }

    fn sources(key: Option<PrivateKey>) -> Sources {
        let password = Some(Secret::new("x".to_owned()));
        Sources {
            keys: key.map(Arc::new).into_iter().collect(),
            password: password.clone(),
            keyboard: password,
            agent: Some("a".into()),
            methods: Methods::default(),
        }
    }

    fn names(mut sources: Sources, offered: Option<Vec<MethodKind>>) -> Vec<&'static str> {
        let offered = Offered(offered);
        std::iter::from_fn(move || sources.take(&offered))
            .map(|source| match source {
                Source::Key(_) => "key",
                Source::Password(_) => "password",
                Source::Keyboard(_) => "keyboard",
                Source::Agent(_) => "agent",
            })
            .collect()
    }

    #[test]
    fn only_what_the_server_offers_is_shown() {
        use MethodKind::{KeyboardInteractive, Password, PublicKey};
        assert_eq!(names(sources(None), None), ["password", "agent"]);
        assert_eq!(names(sources(None), Some(vec![KeyboardInteractive])), ["keyboard"]);
        assert_eq!(
            names(sources(None), Some(vec![PublicKey, Password, KeyboardInteractive])),
            ["password", "keyboard", "agent"]
        );
        assert_eq!(names(sources(None), Some(vec![MethodKind::HostBased])), [""; 0]);
    }
}
