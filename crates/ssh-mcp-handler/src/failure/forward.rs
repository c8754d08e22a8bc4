//! Forwards that were not opened.

use ssh_mcp_core::{
    code::{Code, Effect},
    port::forward::{LineError, ListenError},
    text,
};
use ssh_mcp_engine::{BindError, ForwardError};

use super::Failure;

impl From<ForwardError> for Failure {
    fn from(error: ForwardError) -> Self {
        let reason = text::remote_words(&error.to_string());
        let failure = |code| Self::new(code, reason).with_effect(Effect::None);
        match error {
            ForwardError::Start(error) => error.into(),
            ForwardError::Bind(BindError::InUse { at }) => {
                failure(Code::PortInUse).with_context(format!("port={}", at.port))
            }
            ForwardError::Bind(BindError::Failed { .. }) => failure(Code::ForwardFailed),
            ForwardError::Line(LineError::NotAgain | LineError::Connect(_)) => failure(Code::ForwardFailed),
            ForwardError::Line(LineError::TimedOut { .. }) | ForwardError::NoAnswer { .. } => {
                failure(Code::Timeout)
            }
            ForwardError::Line(LineError::Lost(_)) | ForwardError::Listen(ListenError::Lost(_)) => {
                failure(Code::TransportError)
            }
            ForwardError::Listen(ListenError::Refused { .. }) => failure(Code::ForwardFailed).with_context(
                "the server's AllowTcpForwarding, PermitListen or GatewayPorts forbid it, or its port is taken",
            ),
        }
    }
}
