//! What russh calls us for: the host key, the end of the connection, and what servers try to open.
//!
//! The handler lives in russh's task and dies with it. What the rest of the crate wants to know of it stands in
//! [`Watch`]. Every channel a server opens is rejected, except those to an agent that is lent to it and those of a listener
//! that it was asked for: russh's own defaults would accept them.

use std::sync::{Mutex, OnceLock, PoisonError};

use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::compression::Compression;
use russh::keys::agent::AgentSessionBinding;
use russh::keys::{PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelId, ChannelOpenFailure, Names};
use ssh_mcp_core::port::ssh::{ConnectError, HostKeyReport, LinkLost};
use ssh_mcp_core::target::Address;
use ssh_mcp_core::target_names;
use ssh_mcp_core::text::remote_words;
use tokio_util::sync::CancellationToken;

use crate::agent::Lending;
use crate::error;
use crate::guests::{Guest, Guests};
use crate::host_key::Trust;

/// What is known of a connection from outside of russh's task.
#[derive(Default)]
pub(crate) struct Watch {
    gone: CancellationToken,
    end: OnceLock<End>,
    shown: OnceLock<(PublicKey, HostKeyReport)>,
    zlib: OnceLock<()>,
    binding: OnceLock<AgentSessionBinding>,
    refusal: Mutex<Option<String>>,
}

/// How a connection ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The server said good-bye, with its words.
    Dismissed(String),
    /// The server takes no further authentication method.
    NoMethodsLeft,
    /// It broke, or we broke it.
    Broken(String),
}

impl Watch {
    /// Resolves when russh's task has ended.
    pub(crate) async fn gone(&self) -> LinkLost {
        self.gone.cancelled().await;
        self.loss()
    }

    /// The loss, if there is one.
    pub(crate) fn lost(&self) -> Option<LinkLost> {
        self.gone.is_cancelled().then(|| self.loss())
    }

    /// Why the connection ended; the cause may stand before the task has ended.
    pub(crate) fn loss(&self) -> LinkLost {
        let cause = match self.end.get() {
            Some(End::Dismissed(words)) => format!("the server disconnected: {words}"),
            Some(End::NoMethodsLeft) => "the server takes no authentication method".to_owned(),
            Some(End::Broken(cause)) => cause.clone(),
            None => "the connection is gone".to_owned(),
        };
        LinkLost { cause }
    }

    /// Resolves with the way the connection ended.
    pub(crate) async fn end(&self) -> End {
        self.gone.cancelled().await;
        self.end.get().cloned().unwrap_or_else(|| End::Broken("the connection is gone".to_owned()))
    }

    /// Gives the end a cause of ours; the first cause stands.
    pub(crate) fn end_with(&self, cause: &str) {
        let _ = self.end.set(End::Broken(cause.to_owned()));
    }

    /// The host key and what was known of it, once the key exchange is over.
    pub(crate) fn shown(&self) -> Option<&(PublicKey, HostKeyReport)> {
        self.shown.get()
    }

    /// Whether zlib was agreed upon.
    pub(crate) fn is_compressed(&self) -> bool {
        self.zlib.get().is_some()
    }

    /// Remembers what an agent is told of the server.
    pub(crate) fn bind(&self, binding: AgentSessionBinding) {
        let _ = self.binding.set(binding);
    }

    /// What an agent is told of the server, once the key exchange is over.
    pub(crate) fn binding(&self) -> Option<&AgentSessionBinding> {
        self.binding.get()
    }

    /// The server's words for the last channel it refused.
    pub(crate) fn last_refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Ends with the handler, however russh's task ends: not all of its ends call [`Handler::disconnected`].
struct Alive(std::sync::Arc<Watch>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.gone.cancel();
    }
}

/// The client side of one connection.
pub(crate) struct Client {
    trust: Trust,
    agent: Option<Lending>,
    guests: Option<Guests>,
    alive: Alive,
}

impl Client {
    /// A client that judges by `trust`, writes down what it sees in `watch`, lends `agent` and lets `guests` in.
    pub(crate) fn new(
        trust: Trust,
        watch: std::sync::Arc<Watch>,
        agent: Option<Lending>,
        guests: Option<Guests>,
    ) -> Self {
        Self { trust, agent, guests, alive: Alive(watch) }
    }

    fn watch(&self) -> &Watch {
        &self.alive.0
    }
}

/// Why a handshake ended: russh's reasons and ours.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// The protocol or the line failed.
    Russh(russh::Error),
    /// The host key was not accepted.
    HostKey(ConnectError),
}

impl From<russh::Error> for HandshakeError {
    fn from(error: russh::Error) -> Self {
        Self::Russh(error)
    }
}

impl From<HandshakeError> for ConnectError {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Russh(error) => error::from_russh(&error),
            HandshakeError::HostKey(error) => error,
        }
    }
}

impl Handler for Client {
    type Error = HandshakeError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, HandshakeError> {
        let report = self.trust.judge(shown).await.map_err(HandshakeError::HostKey)?;
        let _ = self.watch().shown.set((shown.public_key(), report));
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _shared_secret: Option<&[u8]>,
        names: &Names,
        session: &mut Session,
    ) -> Result<(), HandshakeError> {
        if !matches!(names.client_compression, Compression::None) {
            let _ = self.watch().zlib.set(());
        }
        tracing::debug!(
            target: target_names::SSH,
            software = %remote_words(&String::from_utf8_lossy(session.remote_sshid())),
            kex = names.kex.as_ref(),
            cipher = names.cipher.as_ref(),
            host_key = names.key.as_str(),
            "keys exchanged"
        );
        Ok(())
    }

    async fn auth_banner(&mut self, banner: &str, _session: &mut Session) -> Result<(), HandshakeError> {
        tracing::debug!(target: target_names::AUTH, banner = %remote_words(banner), "the server shows a banner");
        Ok(())
    }

    async fn channel_open_failure(
        &mut self,
        _channel: ChannelId,
        reason: ChannelOpenFailure,
        description: &str,
        _language: &str,
        _session: &mut Session,
    ) -> Result<(), HandshakeError> {
        let words = match description.trim() {
            "" => format!("{reason:?}"),
            words => words.to_owned(),
        };
        *self.watch().refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(remote_words(&words));
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<HandshakeError>) -> Result<(), HandshakeError> {
        let (end, result) = match reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                (End::Dismissed(remote_words(&said.message)), Ok(()))
            }
            DisconnectReason::Error(HandshakeError::Russh(russh::Error::NoAuthMethod)) => {
                (End::NoMethodsLeft, Err(HandshakeError::Russh(russh::Error::NoAuthMethod)))
            }
            DisconnectReason::Error(HandshakeError::Russh(error)) => {
                (End::Broken(error::words(&error)), Err(HandshakeError::Russh(error)))
            }
            DisconnectReason::Error(HandshakeError::HostKey(error)) => {
                (End::Broken(error.to_string()), Err(HandshakeError::HostKey(error)))
            }
        };
        let _ = self.watch().end.set(end);
        result
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _connected_address: &str,
        connected_port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandshakeError> {
        let Some(guests) = &self.guests else { return reject(reply, "forwarded-tcpip").await };
        let port = u16::try_from(originator_port).unwrap_or_default();
        let origin = Address { host: remote_words(originator_address), port };
        let guest = Guest { channel, reply, origin, port: connected_port };
        match guests.announce(guest) {
            Ok(()) => Ok(()),
            Err(guest) => reject(guest.reply, "forwarded-tcpip").await,
        }
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandshakeError> {
        reject(reply, "forwarded-streamlocal").await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandshakeError> {
        match &self.agent {
            Some(agent) => {
                agent.join(channel, reply, std::sync::Arc::clone(&self.alive.0));
                Ok(())
            }
            None => reject(reply, "auth-agent").await,
        }
    }

    fn should_accept_unknown_server_channel(
        &mut self,
        _id: ChannelId,
        _channel_type: &str,
    ) -> impl Future<Output = bool> + Send {
        std::future::ready(false)
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandshakeError> {
        reject(reply, "session").await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandshakeError> {
        reject(reply, "direct-tcpip").await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandshakeError> {
        reject(reply, "direct-streamlocal").await
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), HandshakeError> {
        reject(reply, "x11").await
    }
}

async fn reject(reply: ChannelOpenHandle, kind: &'static str) -> Result<(), HandshakeError> {
    tracing::debug!(target: target_names::SSH, kind, "rejected a channel the server wanted to open");
    reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    Ok(())
}
