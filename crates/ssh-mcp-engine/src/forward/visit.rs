//! One connection of a forward: whom it is joined to, and what is told of it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ssh_mcp_core::{
    kind::forward::{
        Carried as Told, HELD_AT_MOST, Parting, Passage, Trouble, Why, allowance,
        socks::{Dialect, Handshake, Outcome, Step},
    },
    port::{
        forward::{Arrival, DialError, Line},
        ssh::Channel,
    },
    registry::{Forward, Session},
    target::Address,
    text,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    carry::{Carrier, End},
    crowd::Member,
};
use crate::Clock;

/// Who came in.
pub(super) enum Guest {
    /// On this machine.
    Here(TcpStream, SocketAddr),
    /// On the server.
    There(Box<dyn Arrival>),
}

impl Guest {
    /// From where.
    pub(super) fn peer(&self) -> String {
        match self {
            Self::Here(_, peer) => peer.to_string(),
            Self::There(arrival) => arrival.origin().to_string(),
        }
    }
}

/// What one connection is served with.
pub(super) struct Visit {
    pub(super) clock: Clock,
    pub(super) session: Arc<Session>,
    pub(super) forward: Arc<Forward>,
    pub(super) line: Arc<dyn Line>,
    pub(super) member: Member,
    /// The forward ends.
    pub(super) cut: CancellationToken,
    /// Its number.
    pub(super) conn: u64,
    /// When it came in.
    pub(super) came: Duration,
    /// How long a target on this side may take to answer.
    pub(super) reach: Duration,
}

/// A connection and its target.
struct Joined {
    socket: TcpStream,
    channel: Channel,
    target: Address,
    /// What was read already.
    first: Vec<u8>,
}

/// A SOCKS client says what it wants in this time.
const HANDSHAKE: Duration = Duration::from_secs(10);

impl Visit {
    pub(super) async fn run(mut self, guest: Guest) {
        let cut = self.cut.clone();
        let joined = cut.run_until_cancelled(self.join(guest)).await;
        let joined = joined.unwrap_or_else(|| Err(why(Trouble::ForwardStopped, "the forward ended", None)));
        let Joined { mut socket, channel, target, first } = match joined {
            Ok(joined) => joined,
            Err(why) => return self.forward.traffic.failed(self.clock.now(), self.conn, why),
        };
        self.forward.traffic.connected(self.clock.now(), self.conn, target.to_string());
        let carrier = Carrier {
            clock: self.clock,
            session: &self.session,
            forward: &self.forward,
            line: &self.line,
            cut: &self.cut,
        };
        let carried = carrier.carry(&mut socket, channel, first, &mut self.member).await;
        let is_reset = !matches!(carried.end, End::Finished | End::SocketGone);
        if is_reset {
            // Closed without a word, the other side would take a stump for the whole.
            _ = socket.set_zero_linger();
        }
        drop(socket);
        let now = self.clock.now();
        let reason = match carried.end {
            End::Slow => {
                let message = format!(
                    "{} MiB wait for it, and others have waited behind them for {} s",
                    allowance(1, false) >> 20,
                    HELD_AT_MOST.as_secs()
                );
                let why = why(Trouble::SlowConsumer, message, Some(&target));
                return self.forward.traffic.failed(now, self.conn, why);
            }
            End::Finished => Parting::Finished,
            End::SocketGone => self.side_gone(Side::Socket),
            End::ChannelGone => self.side_gone(Side::Channel),
            End::Lost => Parting::ConnectionLost,
            End::Cut => Parting::ForwardStopped,
        };
        let told = Told {
            bytes_to_remote: carried.to_server,
            bytes_from_remote: carried.from_server,
            duration_ms: u64::try_from(now.saturating_sub(self.came).as_millis()).unwrap_or(u64::MAX),
            reason,
        };
        self.forward.traffic.closed(now, self.conn, told);
    }

    fn side_gone(&self, side: Side) -> Parting {
        match (side, &self.forward.spec.passage) {
            (Side::Socket, Passage::Local { .. } | Passage::Dynamic { .. })
            | (Side::Channel, Passage::Remote { .. }) => Parting::ClientGone,
            (Side::Channel, Passage::Local { .. } | Passage::Dynamic { .. })
            | (Side::Socket, Passage::Remote { .. }) => Parting::TargetGone,
        }
    }

    /// Finds the target and joins it.
    async fn join(&self, guest: Guest) -> Result<Joined, Why> {
        match (guest, &self.forward.spec.passage) {
            (Guest::Here(socket, peer), Passage::Local { to, .. }) => {
                prompt(&socket);
                match self.dial(to, peer).await {
                    Ok(channel) => Ok(Joined { socket, channel, target: to.clone(), first: Vec::new() }),
                    Err(error) => Err(unreachable(&error, to)),
                }
            }
            (Guest::Here(socket, peer), Passage::Dynamic { .. }) => {
                prompt(&socket);
                self.join_by_socks(socket, peer).await
            }
            (Guest::There(arrival), Passage::Remote { to, .. }) => self.join_here(arrival, to).await,
            // Each passage has one door.
            (Guest::Here(..), Passage::Remote { .. })
            | (Guest::There(_), Passage::Local { .. } | Passage::Dynamic { .. }) => {
                Err(why(Trouble::AcceptFailed, "it came by the wrong door", None))
            }
        }
    }

    async fn dial(&self, to: &Address, peer: SocketAddr) -> Result<Channel, DialError> {
        let origin = Address { host: peer.ip().to_string(), port: peer.port() };
        self.line.dial(to, &origin).await
    }

    async fn join_by_socks(&self, mut socket: TcpStream, peer: SocketAddr) -> Result<Joined, Why> {
        let asked = timeout(HANDSHAKE, ask(&mut socket)).await;
        let (target, dialect, first) = asked.unwrap_or_else(|_| {
            let message = format!("no SOCKS request within {} s", HANDSHAKE.as_secs());
            Err(why(Trouble::HandshakeTimeout, message, None))
        })?;
        let (answer, channel) = match self.dial(&target, peer).await {
            Ok(channel) => (dialect.granted(), Ok(channel)),
            Err(error) => {
                let outcome = match &error {
                    DialError::Refused { outcome, .. } => *outcome,
                    DialError::Lost(_) => Outcome::Failed,
                };
                (dialect.refused(outcome), Err(unreachable(&error, &target)))
            }
        };
        let told = tell(&mut socket, &answer).await;
        let channel = channel?;
        match told {
            Ok(()) => Ok(Joined { socket, channel, target, first }),
            Err(error) => Err(why(Trouble::ClientGone, error.to_string(), Some(&target))),
        }
    }

    async fn join_here(&self, arrival: Box<dyn Arrival>, to: &Address) -> Result<Joined, Why> {
        let reaching = timeout(self.reach, TcpStream::connect((to.host.as_str(), to.port))).await;
        let reached = reaching.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match reached {
            Ok(socket) => {
                prompt(&socket);
                let channel = arrival.accept().await;
                Ok(Joined { socket, channel, target: to.clone(), first: Vec::new() })
            }
            Err(error) => {
                arrival.reject().await;
                Err(why(Trouble::TargetUnreachable, error.to_string(), Some(to)))
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Socket,
    Channel,
}

/// The handshake: where the client wants to go, and what it has sent behind it.
async fn ask(socket: &mut TcpStream) -> Result<(Address, Dialect, Vec<u8>), Why> {
    let mut handshake = Handshake::default();
    let mut bytes = [0; 512];
    loop {
        match handshake.next_step() {
            Step::More => match socket.read(&mut bytes).await {
                Ok(size) if size > 0 => handshake.on_bytes(bytes.get(..size).unwrap_or_default()),
                Ok(_) | Err(_) => return Err(why(Trouble::ClientGone, "it left in the handshake", None)),
            },
            Step::Answer(answer) => {
                if let Err(error) = tell(socket, &answer).await {
                    return Err(why(Trouble::ClientGone, error.to_string(), None));
                }
            }
            Step::Wanted(target, dialect) => return Ok((target, dialect, handshake.into_rest())),
            Step::Refused(answer, unfit) => {
                // Whether it hears why is its business.
                _ = tell(socket, &answer).await;
                _ = socket.shutdown().await;
                return Err(why(Trouble::SocksRefused, unfit.to_string(), None));
            }
        }
    }
}

async fn tell(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    socket.write_all(bytes).await?;
    socket.flush().await
}

/// Small packets are not held back.
fn prompt(socket: &TcpStream) {
    // Nothing depends on it but time.
    _ = socket.set_nodelay(true);
}

fn unreachable(error: &DialError, to: &Address) -> Why {
    why(Trouble::TargetUnreachable, text::remote_words(&error.to_string()), Some(to))
}

fn why(code: Trouble, message: impl Into<String>, target: Option<&Address>) -> Why {
    Why { code, message: message.into(), target: target.map(ToString::to_string) }
}
