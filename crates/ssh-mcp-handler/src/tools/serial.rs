//! The serial tools: find a device, open it, write to it, press keys on it, see what is open, close it.
//!
//! What is opened and how it ends is decided by the engine; what comes out of a port is read, awaited and pushed like
//! any stream. These tools refuse arguments they do not know: a line that runs with other settings than were meant looks
//! like a broken board.

mod close;
mod input;
mod list;
mod open;
#[cfg(test)]
mod tests;

use ssh_mcp_core::{
    code::Code,
    kind::input::InputQueue,
    port::serial::OpenError,
    registry::{Entry as _, Serial},
    text,
};
use ssh_mcp_engine::{SerialError, SerialWriteError};

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{cx::Cx, failure::Failure, next};

/// The serial tools, in the order of `tools/list`.
pub(crate) const ROWS: &[Row] =
    &[open::ROW, close::ROW, input::WRITE, input::PRESS, list::SCAN, list::ACTIVE];

/// Advice where a port says something: how to come by it.
fn awaited_hint(cx: &Cx, serial: &Serial) -> Option<String> {
    next::stream_hint(&cx.catalogue, serial.spec.id.into(), "sub_wait")
}

/// A device that was not opened.
fn not_opened(path: &str, error: SerialError) -> Failure {
    let shown = text::cut(&text::one_line(path), 120).into_owned();
    let failure = Failure::new(Code::SerialError, text::remote_words(&format!("{shown}: {error}")));
    match error {
        SerialError::Forbidden => failure.with_context("SSH_MCP_ALLOW_SERIAL does not list it"),
        SerialError::InUse { port: Some(port) } => {
            failure.with_context(format!("serial_id={port}")).with_fact("serial_id", port.to_string())
        }
        SerialError::InUse { port: None } => failure,
        SerialError::Open(OpenError::NoDevice { nearest }) => failure.with_suggestions(nearest),
        SerialError::Open(OpenError::Permission { group: Some(group) }) => {
            failure.with_context(format!("the device belongs to the group {group}"))
        }
        SerialError::Open(OpenError::Unsupported { setting }) => {
            failure.with_context(format!("setting: {setting}"))
        }
        SerialError::Open(
            OpenError::Permission { group: None }
            | OpenError::Busy
            | OpenError::NotSerial
            | OpenError::Failed { .. },
        ) => failure,
        SerialError::Draining => Failure::new(Code::SerialError, "the server is stopping"),
    }
}

/// What was not taken to be written.
fn not_written(serial: &Serial, error: &SerialWriteError) -> Failure {
    match error {
        SerialWriteError::Full => Failure::new(Code::SerialBackpressure, error.to_string())
            .with_context(format!("limit={}", InputQueue::<()>::FRAMES)),
        SerialWriteError::Break(_) => Failure::new(Code::SerialError, text::remote_words(&error.to_string())),
        SerialWriteError::Closed => {
            let failure =
                Failure::new(Code::SerialNotFound, format!("serial port {} has ended", serial.spec.id));
            let failure = match serial.ended() {
                Some((reason, _)) => failure.with_context(format!("reason={reason}")),
                None => failure,
            };
            match serial.ending.get().and_then(|end| end.facts.as_ref()) {
                Some(lost) => failure.with_context(text::remote_words(&lost.cause)),
                None => failure,
            }
        }
    }
}
