//! Logging in (RFC 4252): keys that somebody named, the password, the agent's other keys, or in the order the configuration
//! says; each that was given.
//!
//! A rejected method costs a try, and servers hang up after a few (`MaxAuthTries`, 6 with OpenSSH), so nothing is asked
//! that cannot succeed: methods the server does not offer are left out once it has said what it offers, and a key is
//! signed with only when the server would take it. Where a server wants several methods, the loop goes on with what it
//! still offers (partial success).
//!
//! What let us in is remembered as [`Way`]s: a further connection of the same link shows exactly these again.
//! Secrets stay in types that are wiped; no line of the log has one.

use std::collections::VecDeque;
use std::sync::Arc;

use russh::client::{AuthResult, KeyboardInteractiveAuthResponse};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, ssh_key};
use russh::{AgentAuthError, MethodKind, MethodSet};
use ssh_mcp_core::port::ssh::{ConnectError, Transience};
use ssh_mcp_core::target::{Credentials, Means, Order, Secret};
use ssh_mcp_core::target_names;

use crate::agent::{self, Agent, Holdings, Lent};
use crate::connection::Connection;
use crate::error;
use crate::handler::End;
use crate::identities::{self, Identity, Plan, Shown, Signer};
use crate::key_file;
use crate::questions::{Answered, Gaps, answers};

/// One step that a server accepted.
#[derive(Clone)]
pub(crate) enum Way {
    /// Nothing had to be shown.
    None,
    /// A key or a certificate.
    Key(Box<Identity>),
    /// Password authentication.
    Password(Secret),
    /// Keyboard-interactive, answered by the password.
    Keyboard(Secret, Repeat),
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
            Self::Key(_) => "publickey",
            Self::Password(_) => "password",
            Self::Keyboard(..) => "keyboard-interactive",
        }
    }

    /// Whether it leads in again.
    pub(crate) fn repeat(&self) -> Repeat {
        match self {
            Self::None | Self::Password(_) => Repeat::Possible,
            Self::Keyboard(_, repeat) => *repeat,
            Self::Key(identity) => {
                match matches!(identity.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) {
                    true => Repeat::Impossible,
                    false => Repeat::Possible,
                }
            }
        }
    }
}

/// What there is to show, before the server is known.
pub(crate) struct Prepared {
    plan: Plan,
    agent: Option<Agent>,
    /// What there is to tell if the agent has nothing to show.
    trouble: Option<&'static str>,
}

/// Reads the key files and asks the agent what it holds.
///
/// # Errors
/// A key file that the caller named cannot be used.
pub(crate) async fn prepare(credentials: &Credentials) -> Result<Prepared, ConnectError> {
    let wants_keys =
        credentials.order.0.iter().any(|means| matches!(means, Means::NamedKeys | Means::AgentKeys));
    let socket = credentials.agent_socket.as_deref().filter(|_| wants_keys);
    let holdings = async {
        match socket {
            Some(socket) => agent::ask(socket).await,
            None => Holdings::default(),
        }
    };
    let (keys, holdings) = tokio::join!(key_file::load_all(credentials), holdings);
    let Holdings { agent, identities, trouble } = holdings;
    let plan = identities::plan(keys?, &identities, socket, credentials.agent_keys)?;
    Ok(Prepared { plan, agent, trouble })
}

/// Logs in with what was given; the ways that were accepted, the last one last.
pub(crate) async fn log_in(
    connection: &mut Connection,
    user: &str,
    credentials: &Credentials,
    prepared: Prepared,
) -> Result<Vec<Way>, ConnectError> {
    let Prepared { plan: Plan { named, others, passed_over }, agent, trouble } = prepared;
    let mut sources = Sources {
        order: credentials.order.clone(),
        named: named.into(),
        password: credentials.password.clone(),
        keyboard: credentials.password.clone(),
        others: others.into(),
        trouble,
    };
    let mut login = Login::new(connection, user);
    login.tried = passed_over;
    login.signatures.clone_from(&credentials.signatures);
    login.agent = agent.map(|agent| (agent, Bound::No));
    loop {
        let is_blind = login.offered.0.is_none();
        let Some(source) = sources.take(&login.offered) else {
            // Nothing to show has reached the server. Some hosts ask for nothing, and the others say what they would take.
            if is_blind {
                match login.show(Way::None, "none").await? {
                    Step::In => return Ok(login.accepted),
                    Step::OneOfSeveral | Step::No => continue,
                }
            }
            return Err(login.rejected(None));
        };
        let step = match &source {
            Source::Trouble(trouble) => {
                login.note(trouble);
                continue;
            }
            Source::Key(identity) => login.identity(identity.clone()).await?,
            Source::Password(password) => login.show(Way::Password(password.clone()), "password").await?,
            Source::Keyboard(password) => login.keyboard(password.clone()).await?,
        };
        match step {
            Step::In => return Ok(login.accepted),
            // Shown before it was known that another method has to come first: it has not been judged.
            Step::No if is_blind && !login.offered.has(source.method()) => sources.put_back(source),
            Step::OneOfSeveral | Step::No => {}
        }
    }
}

/// Logs in by ways that were accepted before.
pub(crate) async fn log_in_again(
    connection: &mut Connection,
    user: &str,
    ways: &[Way],
    signatures: Option<&[String]>,
) -> Result<(), ConnectError> {
    let mut login = Login::new(connection, user);
    login.signatures = signatures.map(<[String]>::to_vec);
    for way in ways {
        let step = match way.clone() {
            Way::Keyboard(password, _) => login.keyboard(password).await?,
            Way::Key(identity) => {
                if let Signer::Agent(socket, _) = &identity.signer {
                    login.agent = Agent::open(socket).await.ok().map(|agent| (agent, Bound::No));
                }
                login.identity(identity).await?
            }
            way @ (Way::None | Way::Password(_)) => {
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
    Err(login.rejected(None))
}

/// What is left to be shown.
struct Sources {
    order: Order,
    named: VecDeque<Identity>,
    password: Option<Secret>,
    keyboard: Option<Secret>,
    others: VecDeque<Identity>,
    trouble: Option<&'static str>,
}

enum Source {
    Key(Box<Identity>),
    Password(Secret),
    Keyboard(Secret),
    /// Nothing to show, but something to tell.
    Trouble(&'static str),
}

impl Source {
    fn method(&self) -> MethodKind {
        match self {
            Self::Key(_) | Self::Trouble(_) => MethodKind::PublicKey,
            Self::Password(_) => MethodKind::Password,
            Self::Keyboard(_) => MethodKind::KeyboardInteractive,
        }
    }
}

impl Sources {
    /// The next source the server may take; nothing is known of the server before its first answer.
    fn take(&mut self, offered: &Offered) -> Option<Source> {
        let Self { order, named, password, keyboard, others, trouble } = self;
        order.0.iter().find_map(|means| match means {
            Means::NamedKeys | Means::AgentKeys if !offered.has(MethodKind::PublicKey) => None,
            Means::NamedKeys => named.pop_front().map(|identity| Source::Key(Box::new(identity))),
            Means::AgentKeys => match others.pop_front() {
                Some(identity) => Some(Source::Key(Box::new(identity))),
                None => trouble.take().map(Source::Trouble),
            },
            Means::Password => password.take_if(|_| offered.has(MethodKind::Password)).map(Source::Password),
            // The same secret by another door: some servers ask for passwords only this way.
            Means::KeyboardInteractive => {
                keyboard.take_if(|_| offered.has(MethodKind::KeyboardInteractive)).map(Source::Keyboard)
            }
        })
    }

    /// Shows it another time.
    fn put_back(&mut self, source: Source) {
        match source {
            Source::Key(identity) => self.named.push_front(*identity),
            Source::Password(password) => self.password = Some(password),
            Source::Keyboard(password) => self.keyboard = Some(password),
            Source::Trouble(_) => {}
        }
    }
}

/// The methods the server would take, once it has said so.
#[derive(Default)]
struct Offered(Option<Vec<MethodKind>>);

impl Offered {
    /// Whether it may take this one.
    fn has(&self, method: MethodKind) -> bool {
        self.0.as_deref().is_none_or(|methods| methods.contains(&method))
    }
}

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
    /// The names keys may sign by; `None` is all but SHA-1.
    signatures: Option<Vec<String>>,
    agent: Option<(Agent, Bound)>,
}

/// Whether the agent knows whom we log in to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Yes,
    No,
}

impl<'a> Login<'a> {
    fn new(connection: &'a mut Connection, user: &'a str) -> Self {
        Self {
            connection,
            user,
            offered: Offered::default(),
            tried: Vec::new(),
            accepted: Vec::new(),
            signatures: None,
            agent: None,
        }
    }

    /// Shows one way that needs no dialogue.
    async fn show(&mut self, way: Way, name: &str) -> Result<Step, ConnectError> {
        self.note(name);
        let handle = &mut self.connection.handle;
        let answer = match &way {
            Way::None => handle.authenticate_none(self.user).await,
            Way::Password(password) | Way::Keyboard(password, _) => {
                handle.authenticate_password(self.user, password.reveal()).await
            }
            Way::Key(_) => return Ok(Step::No),
        };
        self.answered(way, answer).await
    }

    /// Shows a key or certificate, and signs if the server would take it.
    async fn identity(&mut self, identity: Box<Identity>) -> Result<Step, ConnectError> {
        let name = identity.name();
        let hash = match self.hash(&identity).await? {
            Ok(hash) => hash,
            Err(why_not) => {
                self.note(&format!("publickey ({why_not})"));
                return Ok(Step::No);
            }
        };
        // If it is let in, nobody will read this.
        let objection = match &identity.shown {
            Shown::Key(_) => None,
            Shown::Certificate(certificate) => identities::objection(certificate, self.user),
        };
        match objection {
            Some(objection) => self.note(&format!("{}: {objection})", name.trim_end_matches(')'))),
            None => self.note(name),
        }
        let mut hand = match (&identity.signer, &mut self.agent) {
            (Signer::File(key), _) => Hand::File(key),
            (Signer::Agent(_, called), Some((agent, bound))) => {
                if *bound == Bound::No
                    && let Some(binding) = self.connection.watch.binding()
                {
                    agent.bind(binding, Lent::No).await;
                    *bound = Bound::Yes;
                }
                Hand::Agent(agent, called)
            }
            (Signer::Agent(..), None) => return Ok(Step::No),
        };
        let handle = &mut self.connection.handle;
        let answer = match &identity.shown {
            Shown::Key(key) => {
                handle.authenticate_publickey_with(self.user, key.clone(), hash, &mut hand).await
            }
            Shown::Certificate(certificate) => {
                let certificate = certificate.as_ref().clone();
                handle.authenticate_certificate_with(self.user, certificate, hash, &mut hand).await
            }
        };
        let answer = match answer {
            Ok(answer) => Ok(answer),
            Err(AgentAuthError::Send(_)) => Err(russh::Error::SendError),
            // Nobody has signed; the connection is none the worse for it.
            Err(AgentAuthError::Key(error)) => {
                tracing::debug!(target: target_names::AUTH, %error, "a key did not sign");
                return Ok(Step::No);
            }
        };
        self.answered(Way::Key(identity), answer).await
    }

    async fn answered(
        &mut self,
        way: Way,
        answer: Result<AuthResult, russh::Error>,
    ) -> Result<Step, ConnectError> {
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

    /// Keyboard-interactive (RFC 4256): the password answers hidden prompts for it, empty lists are answered by empty lists.
    async fn keyboard(&mut self, password: Secret) -> Result<Step, ConnectError> {
        self.note("keyboard-interactive");
        let mut answered = Answered::No;
        let mut times_left = TIMES;
        let mut reply =
            self.connection.handle.authenticate_keyboard_interactive_start(self.user, None::<String>).await;
        for _ in 0..ROUNDS {
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
            let given = Some(&password).filter(|_| times_left > 0);
            let (answers, has_gaps) = answers(&prompts, given, &mut answered);
            if answers.iter().any(|answer| !answer.is_empty()) {
                times_left -= 1;
            }
            if has_gaps == Gaps::Some
                && let Some(last) = self.tried.last_mut()
            {
                *last = "keyboard-interactive (asked for more than the password)".to_owned();
            }
            reply = self.connection.handle.authenticate_keyboard_interactive_respond(answers).await;
        }
        if let Some(last) = self.tried.last_mut() {
            *last = format!("keyboard-interactive (asked without end: {ROUNDS} rounds)");
        }
        // The server waits for an answer and nothing else, so there is no way back to another method.
        Err(self.rejected(None))
    }

    /// What a key signs with here (only RSA has a choice), or why it must not.
    async fn hash(&mut self, identity: &Identity) -> Result<Result<Option<HashAlg>, String>, ConnectError> {
        let algorithm = identity.algorithm();
        let name = |hash| match (&identity.shown, &algorithm) {
            (Shown::Key(_), Algorithm::Rsa { .. }) => Algorithm::Rsa { hash }.as_str().to_owned(),
            (Shown::Key(_), other) => other.as_str().to_owned(),
            (Shown::Certificate(_), Algorithm::Rsa { .. }) => Algorithm::Rsa { hash }.to_certificate_type(),
            (Shown::Certificate(_), other) => other.to_certificate_type(),
        };
        let may = |hash| match &self.signatures {
            Some(names) => names.contains(&name(hash)),
            None => !(matches!(algorithm, Algorithm::Rsa { .. }) && hash.is_none()),
        };
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return Ok(may(None).then_some(None).ok_or_else(|| not_accepted(&name(None))));
        }
        // RFC 8332 recommends SHA-256 and leaves SHA-512 optional.
        let [strong, usual, old] =
            [Some(HashAlg::Sha512), Some(HashAlg::Sha256), None].map(|hash| may(hash).then_some(hash));
        let Some(first) = usual.or(strong).or(old) else {
            return Ok(Err(not_accepted(&name(Some(HashAlg::Sha256)))));
        };
        Ok(match self.connection.handle.best_supported_rsa_hash().await {
            Ok(Some(Some(HashAlg::Sha512))) => Ok(strong.unwrap_or(first)),
            Ok(Some(Some(_))) => Ok(first),
            Ok(Some(None)) => old.ok_or_else(|| "RSA, of which the server takes only SHA-1".to_owned()),
            // The server does not say.
            Ok(None) => Ok(first),
            Err(_) => return Err(self.ended().await),
        })
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
            End::NoMethodsLeft => self.rejected(None),
            End::Dismissed(words) => {
                tracing::debug!(target: target_names::AUTH, %words, "the server ended the login");
                self.rejected(Some(words))
            }
            End::Broken(cause) => error::failed(format!("while logging in: {cause}"), Transience::Transient),
        }
    }

    fn rejected(&self, cut_off: Option<String>) -> ConnectError {
        let offered = self.offered.0.as_deref().unwrap_or_default();
        ConnectError::Rejected {
            tried: self.tried.clone(),
            offered: offered.iter().map(|method| <&str>::from(method).to_owned()).collect(),
            cut_off,
        }
    }

    fn note(&mut self, name: &str) {
        if self.tried.last().is_none_or(|last| last != name) {
            self.tried.push(name.to_owned());
        }
    }
}

fn not_accepted(name: &str) -> String {
    format!("{name}, which PubkeyAcceptedAlgorithms leaves out")
}

/// What signs.
enum Hand<'a> {
    File(&'a Arc<PrivateKey>),
    Agent(&'a mut Agent, &'a russh::keys::agent::AgentIdentity),
}

impl russh::Signer for Hand<'_> {
    type Error = AgentAuthError;

    /// What is to be signed, with the signature behind it.
    async fn auth_sign(
        &mut self,
        _shown: &russh::keys::agent::AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, AgentAuthError> {
        match self {
            Self::File(key) => {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
                let signature = sign(&key, &to_sign).map_err(russh::keys::Error::from)?;
                let length = u32::try_from(signature.len()).unwrap_or(u32::MAX);
                to_sign.extend_from_slice(&length.to_be_bytes());
                to_sign.extend_from_slice(&signature);
                Ok(to_sign)
            }
            // By the name the agent listed it under: it may know the key and not the certificate.
            Self::Agent(agent, called) => Ok(agent.client.sign_request(called, hash, to_sign).await?),
        }
    }
}

fn sign(key: &PrivateKeyWithHashAlg, bytes: &[u8]) -> Result<Vec<u8>, ssh_key::Error> {
    use russh::keys::signature::Signer as _;
    use russh::keys::ssh_key::private::KeypairData;
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum; only RSA has a choice")]
    let signature = match key.key_data() {
        KeypairData::Rsa(pair) => (pair, key.hash_alg()).try_sign(bytes)?,
        pair => pair.try_sign(bytes)?,
    };
    signature.try_into()
}

/// Lists of questions that get the password: a server that asks again and again has refused it, and may lock the account.
const TIMES: u32 = 3;

/// Rounds of questions in one login; whoever asks more often than this does not want an answer.
const ROUNDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::questions::Asked;

    #[test]
    fn what_leads_in_a_second_time() {
        let password = Secret::new("x".to_owned());
        assert_eq!(Way::Password(password.clone()).repeat(), Repeat::Possible);
        assert_eq!(Way::Keyboard(password.clone(), Answered::No.repeat()).repeat(), Repeat::Impossible);
        let by_password = Answered::Asked(Asked::Password).repeat();
        assert_eq!(Way::Keyboard(password, by_password).repeat(), Repeat::Possible);
    }

    fn sources(order: Order) -> Sources {
        let password = Some(Secret::new("x".to_owned()));
        Sources {
            order,
            named: VecDeque::new(),
            password: password.clone(),
            keyboard: password,
            others: VecDeque::new(),
            trouble: Some("agent"),
        }
    }

    fn names(order: Order, offered: Option<Vec<MethodKind>>) -> Vec<&'static str> {
        let (mut sources, offered) = (sources(order), Offered(offered));
        std::iter::from_fn(move || sources.take(&offered))
            .map(|source| match source {
                Source::Key(_) => "key",
                Source::Password(_) => "password",
                Source::Keyboard(_) => "keyboard",
                Source::Trouble(trouble) => trouble,
            })
            .collect()
    }

    #[test]
    fn only_what_the_server_offers_is_shown() {
        use MethodKind::{KeyboardInteractive, Password, PublicKey};
        let usual = |offered| names(Order::default(), offered);
        assert_eq!(usual(None), ["password", "keyboard", "agent"]);
        assert_eq!(usual(Some(vec![KeyboardInteractive])), ["keyboard"]);
        assert_eq!(
            usual(Some(vec![PublicKey, Password, KeyboardInteractive])),
            ["password", "keyboard", "agent"]
        );
        assert_eq!(usual(Some(vec![MethodKind::HostBased])), [""; 0]);
        let said = Order(vec![Means::KeyboardInteractive, Means::AgentKeys, Means::Password]);
        assert_eq!(names(said, None), ["keyboard", "agent", "password"]);
    }
}
