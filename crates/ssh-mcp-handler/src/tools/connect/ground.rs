//! The session a call works on: one that leads to the right place, or a new one.

use std::sync::Arc;

use ssh_mcp_core::{
    code::{Code, Effect as Begun},
    port::ssh::HostKeyStatus,
    registry::Session,
};
use ssh_mcp_engine::{Connect, ConnectAnswer};

use super::trust;
use crate::{
    cx::Cx,
    failure::Failure,
    progress::{Beat, EVERY_5_S, Waiting},
};

/// What becomes of a session that the call opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tools) enum After {
    /// The call ends it.
    Disconnect,
    /// It stays.
    Keep,
}

/// The session a call runs on.
pub(in crate::tools) struct Ground {
    /// The session.
    pub(in crate::tools) session: Arc<Session>,
    /// Whether the call opened it.
    pub(in crate::tools) ours: bool,
}

impl Ground {
    /// A session to work on; an attempt that the client calls off is dropped with all it had opened.
    pub(in crate::tools) async fn find(cx: &Cx, connect: Connect) -> Result<Self, Failure> {
        let beat = || Beat { progress: 0, total: None, message: trust::doing(cx).to_owned() };
        let quiet = |_, _: &_| {};
        let work = trust::connect(cx, connect, &quiet);
        match cx.progress.while_waiting(EVERY_5_S, work, beat).await {
            Waiting::Done(Ok(ConnectAnswer::Connected { session, .. })) => Ok(Self { session, ours: true }),
            Waiting::Done(Ok(ConnectAnswer::Reused { session, .. })) => Ok(Self { session, ours: false }),
            // Only asked for by `Reuse::Suggest`, which this tool does not use.
            Waiting::Done(Ok(ConnectAnswer::Suggested { .. })) => {
                Err(Failure::new(Code::StorageError, "sessions were suggested where one was asked for"))
            }
            Waiting::Done(Err(failure)) => Err(failure),
            Waiting::Cancelled => {
                Err(Failure::new(Code::ConnectionFailed, "the client called the request off")
                    .with_effect(Begun::None))
            }
        }
    }

    /// Ends a session that the call opened, unless it is to be kept; one that was there before is never touched.
    pub(in crate::tools) async fn leave(&self, cx: &Cx, after: After) {
        if self.ours && after == After::Disconnect {
            // Already gone is as good.
            _ = cx.engine.disconnect(&cx.owner, self.session.spec.id).await;
        }
    }

    /// What was learnt on the way.
    pub(in crate::tools) fn learnt_hint(&self) -> Option<String> {
        let key = &self.session.spec.host_key;
        (self.ours && key.status == HostKeyStatus::Learnt).then(|| {
            format!(
                "the host key was unknown and has been added to the known hosts; compare its fingerprint if you can: \
                 {} {}",
                key.algorithm, key.fingerprint
            )
        })
    }
}
