//! The agent of this machine (draft-miller-ssh-agent): what it holds, and lending it to the other side.
//!
//! Not here: which of its keys are shown (`identities.rs`), and signing (`auth.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{ChannelOpenHandle, Msg};
use russh::keys::agent::client::AgentClient;
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::{Channel, ChannelOpenFailure};
use ssh_mcp_core::target_names;
use tokio::io::copy_bidirectional;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::handler::Watch;
use crate::tasks::Tasks;

#[cfg(unix)]
type Socket = tokio::net::UnixStream;
#[cfg(windows)]
type Socket = tokio::net::windows::named_pipe::NamedPipeClient;

/// A connection to an agent, for one login.
pub(crate) struct Agent {
    pub(crate) client: AgentClient<Socket>,
}

/// What an agent had to say.
#[derive(Default)]
pub(crate) struct Holdings {
    /// The agent, if it answers.
    pub(crate) agent: Option<Agent>,
    /// What it holds, in its order.
    pub(crate) identities: Vec<AgentIdentity>,
    /// What there is to tell if none of its keys can be shown.
    pub(crate) trouble: Option<&'static str>,
}

impl Agent {
    /// A connection to the agent at a socket.
    pub(crate) async fn open(socket: &Path) -> Result<Self, russh::keys::Error> {
        Ok(Self { client: AgentClient::connect(connect(socket).await?) })
    }

    /// Ties the connection to a server, so that the agent can enforce what a key is restricted to.
    pub(crate) async fn bind(&mut self, to: &AgentSessionBinding, lent: Lent) {
        if let Err(error) = self.client.bind_session(to, lent == Lent::Yes).await {
            // Agents older than OpenSSH 8.9 do not know the request.
            tracing::debug!(target: target_names::AUTH, %error, "the agent does not bind sessions");
        }
    }
}

/// Whether it is the other side that asks the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lent {
    Yes,
    No,
}

/// Asks the agent what it holds. Failing is no reason to give up on the rest, and an agent that says nothing is left alone.
pub(crate) async fn ask(socket: &Path) -> Holdings {
    let asked = async {
        let mut agent = Agent::open(socket).await.map_err(|error| {
            tracing::debug!(target: target_names::AUTH, %error, "the agent cannot be reached");
            "publickey (agent, which cannot be reached)"
        })?;
        let identities = agent.client.request_identities().await.map_err(|error| {
            tracing::debug!(target: target_names::AUTH, %error, "the agent does not list its keys");
            SILENT
        })?;
        Ok((agent, identities))
    };
    match timeout(PATIENCE, asked).await.unwrap_or(Err(SILENT)) {
        Ok((agent, identities)) => {
            let trouble = identities.is_empty().then_some("publickey (agent, which holds no key)");
            Holdings { agent: Some(agent), identities, trouble }
        }
        Err(trouble) => Holdings { trouble: Some(trouble), ..Holdings::default() },
    }
}

/// The agent as it is lent to the programs of one connection.
pub(crate) struct Lending {
    socket: PathBuf,
    tasks: Tasks,
    /// Conversations that may go on at the same time.
    places: Arc<Semaphore>,
}

impl Lending {
    /// Lends the agent at this socket for as long as the tasks may run.
    pub(crate) fn new(socket: PathBuf, tasks: Tasks) -> Self {
        Self { socket, tasks, places: Arc::new(Semaphore::new(CONVERSATIONS)) }
    }

    /// Joins a channel the server opens to the agent, until either ends or the connection does.
    pub(crate) fn join(&self, channel: Channel<Msg>, reply: ChannelOpenHandle, watch: Arc<Watch>) {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        let socket = self.socket.clone();
        self.tasks.spawn(async move {
            let open = async {
                let mut agent = Agent::open(&socket).await.ok()?;
                if let Some(binding) = watch.binding() {
                    agent.bind(binding, Lent::Yes).await;
                }
                Some(agent)
            };
            let opened = match &place {
                Some(_) => timeout(PATIENCE, open).await.ok().flatten(),
                None => None,
            };
            let Some(agent) = opened else {
                tracing::debug!(target: target_names::AUTH, "the agent that is lent is away, or too busy");
                return reply.reject(ChannelOpenFailure::ConnectFailed).await;
            };
            reply.accept().await;
            let (mut here, mut there) = (agent.client.into_inner(), channel.into_stream());
            tokio::select! {
                carried = copy_bidirectional(&mut there, &mut here) => {
                    tracing::debug!(target: target_names::AUTH, ok = carried.is_ok(), "the lent agent was asked");
                }
                _ = watch.gone() => {}
            }
        });
    }
}

#[cfg(unix)]
async fn connect(socket: &Path) -> std::io::Result<Socket> {
    Socket::connect(socket).await
}

#[cfg(windows)]
async fn connect(socket: &Path) -> std::io::Result<Socket> {
    use tokio::net::windows::named_pipe::ClientOptions;
    const ALL_BUSY: i32 = 231;
    loop {
        match ClientOptions::new().open(socket) {
            Err(error) if error.raw_os_error() == Some(ALL_BUSY) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            opened => return opened,
        }
    }
}

const SILENT: &str = "publickey (agent, which does not answer)";

/// A local answer takes a millisecond; nobody is asked anything for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Programs there that ask the agent at the same time.
const CONVERSATIONS: usize = 16;
