//! From an address to a TCP connection: every address of the name in turn, as OpenSSH does.
//!
//! Not here: what is spoken on the connection (`connection.rs`).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ssh_mcp_core::port::ssh::{ConnectError, Transience};
use ssh_mcp_core::target::Address;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

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

/// Connects to the first address of the name that answers.
pub(crate) async fn dial(address: &Address, deadline: Instant) -> Result<Dialled, ConnectError> {
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
    for (tried, reached) in addresses.iter().enumerate() {
        // An address that swallows packets must not use up the time of those behind it.
        let left = addresses.len().saturating_sub(tried).try_into().unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match dial_address(*reached, Instant::now() + share).await {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects to this very address.
pub(crate) async fn dial_address(reached: SocketAddr, deadline: Instant) -> Result<Dialled, ConnectError> {
    let began = Instant::now();
    let socket = match timeout_at(deadline, TcpStream::connect(reached)).await {
        Ok(connected) => connected.map_err(|error| error::from_io(&reached.to_string(), &error))?,
        Err(_) => return Err(error::from_io(&reached.to_string(), &io::ErrorKind::TimedOut.into())),
    };
    // Without it every small packet waits for a delayed ACK: 44 ms a command instead of 2.
    socket.set_nodelay(true).map_err(|error| error::from_io(&reached.to_string(), &error))?;
    Ok(Dialled { socket, reached, took: began.elapsed() })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn a_name_with_several_addresses_is_tried_through() {
        // `localhost` is ::1 and 127.0.0.1 on most machines; only the latter listens.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialled = dial(&Address { host: "localhost".into(), port }, soon()).await.unwrap();
        assert_eq!(dialled.reached, listener.local_addr().unwrap());
        assert!(dialled.socket.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_closed_port_is_transient_and_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let refused = dial(&Address { host: "127.0.0.1".into(), port }, soon()).await.err();
        let Some(ConnectError::Failed { cause, transience: Transience::Transient }) = refused else {
            panic!("{refused:?}");
        };
        assert!(cause.starts_with(&format!("127.0.0.1:{port}: ")), "{cause}");
    }
}
