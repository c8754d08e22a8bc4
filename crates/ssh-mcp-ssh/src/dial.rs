//! From an address to a TCP connection: every address of the name in turn, as OpenSSH does.
//!
//! Not here: what is spoken on the connection (`connection.rs`).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ssh_mcp_core::port::ssh::{ConnectError, Transience};
use ssh_mcp_core::target::Address;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::error;

/// A TCP connection, and what it took.
pub(crate) struct Dialled {
    /// The socket, with Nagle's algorithm off.
    pub(crate) socket: TcpStream,
    /// The address that answered.
    pub(crate) reached: SocketAddr,
    /// Time from the first packet to the connection: about one round trip.
    pub(crate) took: Duration,
}

/// Connects to the first address of the name that answers. The last one may take as long as it likes: the caller has a
/// limit for the whole attempt, of which `limit` is what all addresses share.
pub(crate) async fn dial(address: &Address, limit: Duration) -> Result<Dialled, ConnectError> {
    let found = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|error| error::from_io(&address.host, &error))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for found in found {
        // The resolver names an address once per socket type it knows.
        if !addresses.contains(&found) {
            addresses.push(found);
        }
    }
    let mut last = error::failed(format!("{}: no address", address.host), Transience::Permanent);
    // An address that swallows packets must not use up the time of those behind it.
    let share = limit / addresses.len().try_into().unwrap_or(u32::MAX).max(1);
    for (behind, reached) in addresses.iter().rev().enumerate().rev() {
        let dialled = match behind {
            0 => dial_address(*reached).await,
            _ => timeout(share, dial_address(*reached)).await.unwrap_or_else(|_| {
                Err(error::from_io(&reached.to_string(), &io::ErrorKind::TimedOut.into()))
            }),
        };
        match dialled {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects to this very address.
pub(crate) async fn dial_address(reached: SocketAddr) -> Result<Dialled, ConnectError> {
    let began = Instant::now();
    let failed = |error| error::from_io(&reached.to_string(), &error);
    let socket = TcpStream::connect(reached).await.map_err(failed)?;
    // Without it every small packet waits for a delayed acknowledgement: 44 ms a command instead of 2.
    socket.set_nodelay(true).map_err(failed)?;
    Ok(Dialled { socket, reached, took: began.elapsed() })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_name_with_several_addresses_is_tried_through() {
        // `localhost` is ::1 and 127.0.0.1 on most machines; only the latter listens.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialled = dial(&Address { host: "localhost".into(), port }, LIMIT).await.unwrap();
        assert_eq!(dialled.reached, listener.local_addr().unwrap());
        assert!(dialled.socket.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_closed_port_is_transient_and_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let refused = dial(&Address { host: "127.0.0.1".into(), port }, LIMIT).await.err();
        let Some(ConnectError::Failed { cause, transience: Transience::Transient }) = refused else {
            panic!("{refused:?}");
        };
        assert!(cause.starts_with(&format!("127.0.0.1:{port}: ")), "{cause}");
    }
}
