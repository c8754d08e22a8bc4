//! Why a resource or session ended: the closed list of `docs/lifecycle.md`.

use serde::Serialize;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// Why something ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {$($(#[$doc])* $name,)*}

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self {$(Reason::$name => $word,)*}
            }
        }
    };
}

reasons! {
    /// It ended by itself and has a status.
    Completed = "completed";
    /// It ended by itself without a status.
    Failed = "failed";
    /// A call cancelled it.
    Cancelled = "cancelled";
    /// Its own time limit ended it.
    TimedOut = "timed_out";
    /// The far side closed it.
    RemoteClosed = "remote_closed";
    /// The connection under it broke.
    ConnectionLost = "connection_lost";
    /// A call closed it.
    ManualClose = "manual_close";
    /// Its session was disconnected.
    CascadeDisconnect = "cascade_disconnect";
    /// Its last observer left and nobody came back in time.
    UnsubscribeGraceElapsed = "unsubscribe_grace_elapsed";
    /// It releases itself, and no observer ever came.
    NeverObserved = "never_observed";
    /// A shell nobody used or watched.
    InactivityTtlFired = "inactivity_ttl_fired";
    /// Nobody watched or used it for longer than the operator allows.
    LeakKill = "leak_kill";
    /// The server stopped.
    ServerShutdown = "server_shutdown";
    /// Of a lane: its client has gone.
    PeerGone = "peer_gone";
    /// Of a lane: its lease ran out.
    LifetimeLeaseExpired = "lifetime_lease_expired";
    /// Of a lane: the end of its resource was delivered and its grace is over.
    AutoClose = "auto_close";
    /// Of a lane: what its resource left is kept no longer.
    RetentionOver = "retention_over";
}

impl Reason {
    /// Whether it is that of something that ended by itself (`docs/lifecycle.md`, R11), not from outside.
    pub fn is_own_end(self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::TimedOut | Self::RemoteClosed | Self::ConnectionLost => {
                true
            }
            Self::Cancelled
            | Self::ManualClose
            | Self::CascadeDisconnect
            | Self::UnsubscribeGraceElapsed
            | Self::NeverObserved
            | Self::InactivityTtlFired
            | Self::LeakKill
            | Self::ServerShutdown
            | Self::PeerGone
            | Self::LifetimeLeaseExpired
            | Self::AutoClose
            | Self::RetentionOver => false,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
