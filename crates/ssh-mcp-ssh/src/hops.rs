//! The way to a host: straight by TCP, by a program, or through the connections to other hosts.
//!
//! Each hop is dialled, its key judged and its login done before the next one is thought of. A connection through another
//! one is a channel of it (`direct-tcpip`, RFC 4254, 7.2), so what is below must live as long as what is above.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::ChannelOpenFailure;
use russh::keys::PublicKey;
use ssh_mcp_core::port::ssh::{ConnectError, ConnectRequest, HostKeyReport, Transience};
use ssh_mcp_core::target::{Address, Hop, Program};
use ssh_mcp_core::target_names;
use tokio::time::Instant;

use crate::auth::{self, Repeat, Way};
use crate::connection::{Connection, Terms, Zlib};
use crate::guests::Guests;
use crate::host_key::Trust;
use crate::line::Socket;
use crate::{dial, error, program};

/// A connection that is logged in, and what it takes to make another one like it.
pub(crate) struct Reached {
    pub(crate) connection: Connection,
    pub(crate) report: HostKeyReport,
    pub(crate) leg: Leg,
    /// The same for the hosts jumped over, the nearest first.
    pub(crate) below: Vec<Leg>,
}

/// One host on the way, and what it takes to log in there once more.
pub(crate) struct Leg {
    /// Where a connection to it begins.
    pub(crate) origin: Origin,
    /// The key it showed.
    pub(crate) host_key: PublicKey,
    /// Whom to log in as.
    pub(crate) username: String,
    /// What let us in.
    pub(crate) ways: Vec<Way>,
    /// By what keys may sign.
    pub(crate) signatures: Option<Vec<String>>,
    /// What was agreed on.
    pub(crate) terms: Terms,
}

impl Leg {
    /// Whether it can be logged in there without somebody's help.
    pub(crate) fn repeats(&self) -> bool {
        self.ways.iter().all(|way| way.repeat() == Repeat::Possible)
    }

    /// Another connection to the host, by the same way.
    pub(crate) async fn again(&self) -> Result<Connection, ConnectError> {
        let (socket, _) = self.origin.open().await?;
        self.log_in(socket, None).await
    }

    /// Another connection to the host, over another one to the host before it, if there is one; `guests` are let in.
    pub(crate) async fn again_over(
        &self,
        below: Option<&Connection>,
        guests: Option<Guests>,
    ) -> Result<Connection, ConnectError> {
        let socket = match (&self.origin, below) {
            (Origin::Through(_, address), Some(below)) => below.open_socket(address).await?,
            (Origin::Through(..) | Origin::Address(..) | Origin::Program(_), _) => {
                self.origin.open().await?.0
            }
        };
        self.log_in(socket, guests).await
    }

    async fn log_in(&self, socket: Socket, guests: Option<Guests>) -> Result<Connection, ConnectError> {
        let trust = Trust::Exactly(Box::new(self.host_key.clone()));
        let mut connection = establish(socket, &self.terms, trust, guests).await?;
        let signatures = self.signatures.as_deref();
        auth::log_in_again(&mut connection, &self.username, &self.ways, signatures).await?;
        Ok(connection)
    }
}

/// What a connection begins with.
pub(crate) enum Origin {
    /// The address that answered, and the local one to come from.
    Address(SocketAddr, Option<String>),
    /// A host as the last one of these knows it; the nearest first, each running through the one before it.
    Through(Vec<Arc<Connection>>, Address),
    /// A program whose ends lead there.
    Program(Program),
}

impl Origin {
    /// The connections below, the nearest first.
    pub(crate) fn jumps(&self) -> &[Arc<Connection>] {
        match self {
            Self::Address(..) | Self::Program(_) => &[],
            Self::Through(jumps, _) => jumps,
        }
    }

    /// Another socket to the same place, and how long it took.
    pub(crate) async fn open(&self) -> Result<(Socket, Duration), ConnectError> {
        match self {
            Self::Address(reached, bind) => {
                let dialled = dial::dial_address(*reached, bind.as_deref()).await?;
                Ok((Socket::Tcp(dialled.socket), dialled.took))
            }
            Self::Program(program) => {
                Ok((Socket::Program(Box::new(program::start(program)?)), Duration::ZERO))
            }
            Self::Through(jumps, address) => {
                let began = Instant::now();
                let Some(last) = jumps.last() else {
                    return Err(error::failed("no host to go through", Transience::Permanent));
                };
                Ok((last.open_socket(address).await?, began.elapsed()))
            }
        }
    }
}

/// Goes all the way.
pub(crate) async fn reach(request: &ConnectRequest, global: &[PathBuf]) -> Result<Reached, ConnectError> {
    let mut jumps: Vec<Arc<Connection>> = Vec::new();
    let mut below = Vec::new();
    for hop in &request.via {
        let reached = reach_hop(hop, jumps.clone(), request, global)
            .await
            .map_err(|error| ConnectError::Jump { host: hop.target.clone(), error: Box::new(error) })?;
        jumps.push(Arc::new(reached.connection));
        below.push(reached.leg);
    }
    Ok(Reached { below, ..reach_hop(&request.hop, jumps, request, global).await? })
}

async fn reach_hop(
    hop: &Hop,
    jumps: Vec<Arc<Connection>>,
    request: &ConnectRequest,
    global: &[PathBuf],
) -> Result<Reached, ConnectError> {
    let Hop { target, credentials, wire, .. } = hop;
    let trust = Trust::from_files(hop, &request.accepted, global).await?;
    let open = async {
        if let (true, Some(program)) = (jumps.is_empty(), &wire.program) {
            let origin = Origin::Program(program.clone());
            let (socket, took) = origin.open().await?;
            return Ok((origin, socket, took));
        }
        if jumps.is_empty() {
            let dialled = dial::dial(&target.address, wire, request.timeout).await?;
            let origin = Origin::Address(dialled.reached, wire.bind_address.clone());
            return Ok((origin, Socket::Tcp(dialled.socket), dialled.took));
        }
        let origin = Origin::Through(jumps, target.address.clone());
        let (socket, took) = origin.open().await?;
        Ok::<_, ConnectError>((origin, socket, took))
    };
    // A key that cannot be used is said at once, whether or not the host can be reached.
    let (prepared, opened) = tokio::try_join!(auth::prepare(credentials), async { Ok(open.await) })?;
    let (origin, socket, took) = opened?;
    tracing::debug!(target: target_names::SSH, host = %target.address, "connected");

    let terms = Terms {
        keepalive: wire.keepalive,
        zlib: Zlib::decide(wire.compression, took),
        algorithms: wire.algorithms.clone(),
        lendings: hop.lendings.clone(),
        took,
    };
    let mut connection = establish(socket, &terms, trust, None).await?;
    let ways = auth::log_in(&mut connection, &target.username, credentials, prepared).await?;
    let Some((host_key, report)) = connection.watch.shown().cloned() else {
        return Err(error::failed("no host key was shown", Transience::Permanent));
    };
    let (username, signatures) = (target.username.clone(), credentials.signatures.clone());
    let leg = Leg { origin, host_key, username, ways, signatures, terms };
    Ok(Reached { connection, report, leg, below: Vec::new() })
}

/// A connection over a socket; where a program carries it, its own words say why it broke.
pub(crate) async fn establish(
    socket: Socket,
    terms: &Terms,
    trust: Trust,
    guests: Option<Guests>,
) -> Result<Connection, ConnectError> {
    let running = match &socket {
        Socket::Program(ends) => Some(Arc::clone(&ends.running)),
        Socket::Tcp(_) | Socket::Channel(_) => None,
    };
    match (Connection::establish(socket, terms, trust, guests).await, running) {
        (Err(error), Some(running)) => Err(running.explain(error).await),
        (established, _) => established,
    }
}

impl Connection {
    async fn open_socket(&self, to: &Address) -> Result<Socket, ConnectError> {
        Ok(Socket::Channel(Box::new(self.open_tunnel(to).await?.into_stream())))
    }

    /// A channel to a host as this connection's host knows it.
    async fn open_tunnel(&self, to: &Address) -> Result<russh::Channel<russh::client::Msg>, ConnectError> {
        let opened = self.handle.channel_open_direct_tcpip(&to.host, to.port.into(), "127.0.0.1", 0).await;
        opened.map_err(|failure| {
            let russh::Error::ChannelOpenFailure(reason) = failure else {
                return error::from_russh(&failure);
            };
            let words = self.watch.last_refusal().unwrap_or_else(|| format!("{reason:?}"));
            let is_transient =
                matches!(reason, ChannelOpenFailure::ConnectFailed | ChannelOpenFailure::ResourceShortage);
            let transience = if is_transient { Transience::Transient } else { Transience::Permanent };
            error::failed(format!("{to}, from the last jump host: {words}"), transience)
        })
    }
}
