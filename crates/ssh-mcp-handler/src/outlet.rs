//! What a lane's messages look like on the wire, in both eras (`docs/subscriptions.md`, "Messages"). Nothing else knows.
//!
//! | | with `initialize` | 2026-07-28 |
//! | --- | --- | --- |
//! | goes out by | the connection's peer | the sink of one `subscriptions/listen` |
//! | announcement | `notifications/resources/updated` | the same, `_meta["ssh-mcp/sub_id"]` |
//! | bytes | `notifications/ssh/output` | `_meta["ssh-mcp/output"]` of the same |

use std::{io, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rmcp::{
    RoleServer,
    model::{
        ClientCapabilities, CustomNotification, NotificationMetaObject, ResourceListChangedNotification,
        ResourceUpdatedNotification, ResourceUpdatedNotificationParam, ServerNotification,
    },
    service::{Peer, SubscriptionSendError, SubscriptionSink},
};
use serde_json::{Map, Value};
use ssh_mcp_core::{
    id::SubId,
    lane::{Delivery, Piece, Rest, Why},
    port::{BoxFuture, EndWords, Message, Outlet, OutletClosed},
};
use tokio_util::sync::CancellationToken;

/// The vendor capability, and the name its notification goes by.
pub(crate) const CAPABILITY: &str = "ssh_inline_push";
const METHOD: &str = "notifications/ssh/output";

/// What a client that takes bytes has declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encodings {
    /// Base64 alone.
    Base64,
    /// Text where it is text.
    Utf8,
}

impl Encodings {
    /// What a client's capabilities say; none if it takes no bytes in notifications.
    pub(crate) fn declared(capabilities: Option<&ClientCapabilities>) -> Option<Self> {
        let declared = capabilities?.experimental.as_ref()?.get(CAPABILITY)?;
        let is_ours = declared.get("version").is_none_or(|version| version == "1");
        let words = declared.get("encodings").and_then(Value::as_array);
        let takes_text = words.is_some_and(|words| words.iter().any(|word| word == "utf8"));
        is_ours.then_some(if takes_text { Self::Utf8 } else { Self::Base64 })
    }
}

/// A way to the client of a connection that is shorter than the SDK's, where a front has one.
///
/// The SDK takes a notification through its loop and a task of its own, which costs several times what writing it does.
pub trait Shortcut: Send + Sync {
    /// Writes a notification, behind whatever is being written.
    ///
    /// # Errors
    /// If nothing will ever be written again.
    fn send(&self, notification: ServerNotification) -> BoxFuture<'static, io::Result<()>>;
}

/// Says when one more notification may be handed to the SDK, where a front knows what the SDK does not say.
///
/// The SDK serves an HTTP session by one loop, which waits for the stream of notifications to take one: behind a client
/// that does not read that stream, the client's own answers would wait.
pub trait Gate: Send + Sync {
    /// Waits until one may go.
    fn pass(&self) -> BoxFuture<'_, ()>;
}

/// The way to a connection: everything it hears that is no answer.
pub(crate) struct PeerOutlet {
    pub(crate) peer: Peer<RoleServer>,
    pub(crate) shortcut: Option<Arc<dyn Shortcut>>,
    pub(crate) gate: Option<Arc<dyn Gate>>,
    pub(crate) encodings: Encodings,
}

/// The way to one `subscriptions/listen` request.
pub(crate) struct ListenOutlet {
    pub(crate) sink: SubscriptionSink,
    pub(crate) encodings: Encodings,
    /// Cancelled when the request ends.
    pub(crate) ended: CancellationToken,
}

impl Outlet for PeerOutlet {
    fn deliver<'a>(&'a self, message: Message<'a>) -> BoxFuture<'a, Result<(), OutletClosed>> {
        let notification = match message {
            Message::Lane { sub_id, uri, delivery, ending } => {
                match output(sub_id, uri, delivery, ending, self.encodings) {
                    None => updated(uri, NotificationMetaObject::default()),
                    Some(params) => {
                        let params = Some(Value::Object(params));
                        ServerNotification::CustomNotification(CustomNotification::new(METHOD, params))
                    }
                }
            }
            Message::ListChanged => list_changed(),
        };
        // Whatever the error is, nothing went out and nothing will.
        match &self.shortcut {
            Some(shortcut) => {
                let sent = shortcut.send(notification);
                Box::pin(async move { sent.await.map_err(|_| OutletClosed) })
            }
            None => Box::pin(async move {
                if let Some(gate) = &self.gate {
                    gate.pass().await;
                }
                self.peer.send_notification(notification).await.map_err(|_| OutletClosed)
            }),
        }
    }

    fn is_closed(&self) -> bool {
        self.peer.is_transport_closed()
    }
}

impl Outlet for ListenOutlet {
    fn deliver<'a>(&'a self, message: Message<'a>) -> BoxFuture<'a, Result<(), OutletClosed>> {
        let notification = match message {
            Message::Lane { sub_id, uri, delivery, ending } => {
                let mut meta = NotificationMetaObject::default();
                meta.0.insert("ssh-mcp/sub_id".to_owned(), sub_id.to_string().into());
                if let Some(output) = output(sub_id, uri, delivery, ending, self.encodings) {
                    meta.0.insert("ssh-mcp/output".to_owned(), Value::Object(output));
                }
                updated(uri, meta)
            }
            Message::ListChanged => list_changed(),
        };
        Box::pin(async move {
            match self.sink.send(notification).await {
                // What the request did not ask for is not sent, and no reason to end it.
                Ok(()) | Err(SubscriptionSendError::NotificationNotAccepted(_)) => Ok(()),
                Err(_) => Err(OutletClosed),
            }
        })
    }

    fn is_closed(&self) -> bool {
        self.ended.is_cancelled()
    }
}

fn updated(uri: &str, meta: NotificationMetaObject) -> ServerNotification {
    let mut notification = ResourceUpdatedNotification::new(ResourceUpdatedNotificationParam::new(uri));
    if !meta.0.is_empty() {
        notification.extensions.insert(meta);
    }
    ServerNotification::ResourceUpdatedNotification(notification)
}

fn list_changed() -> ServerNotification {
    ServerNotification::ResourceListChangedNotification(ResourceListChangedNotification {
        method: Default::default(),
        extensions: Default::default(),
    })
}

/// The object that carries bytes, or the end; none for an announcement.
fn output(
    sub_id: SubId,
    uri: &str,
    delivery: &Delivery,
    ending: Option<&EndWords>,
    encodings: Encodings,
) -> Option<Map<String, Value>> {
    let mut params = Map::new();
    params.insert("sub_id".into(), sub_id.to_string().into());
    params.insert("uri".into(), uri.into());
    let (seq, cursor, gap, dropped) = match delivery {
        Delivery::Updated => return None,
        Delivery::Piece(piece) => (piece.seq, piece.cursor_after, piece.gap, piece.dropped),
        Delivery::End { seq, cursor, gap, dropped } => (*seq, *cursor, *gap, *dropped),
        Delivery::Closed { seq, cursor, .. } => (*seq, *cursor, 0, 0),
    };
    params.insert("seq".into(), seq.into());
    params.insert("cursor_after".into(), cursor.into());
    if gap > 0 {
        params.insert("gap_bytes".into(), gap.into());
    }
    if dropped > 0 {
        params.insert("dropped".into(), dropped.into());
    }
    match delivery {
        Delivery::Piece(piece) => carry(&mut params, piece, encodings),
        Delivery::Updated | Delivery::End { .. } | Delivery::Closed { .. } => {
            carry_bytes(&mut params, &[], encodings);
            params.insert("closed".into(), true.into());
        }
    }
    match (delivery, ending) {
        (Delivery::Closed { reason, .. }, _) => {
            params.insert("reason".into(), reason.as_str().into());
        }
        (Delivery::End { .. }, Some(words)) => {
            params.insert("reason".into(), words.reason.as_str().into());
            params.extend(words.exit_code.map(|code| ("exit_code".to_owned(), code.into())));
        }
        (Delivery::Updated | Delivery::Piece(_) | Delivery::End { .. }, _) => {}
    }
    Some(params)
}

fn carry(params: &mut Map<String, Value>, piece: &Piece, encodings: Encodings) {
    carry_bytes(params, &piece.bytes, encodings);
    if piece.rest == Rest::Follows {
        params.insert("truncated".into(), true.into());
    }
    match piece.why {
        Why::News => {}
        Why::Replay => _ = params.insert("replay".into(), true.into()),
        Why::Snapshot => _ = params.insert("snapshot".into(), true.into()),
    }
}

fn carry_bytes(params: &mut Map<String, Value>, bytes: &[u8], encodings: Encodings) {
    params.insert("len".into(), bytes.len().into());
    match (encodings, std::str::from_utf8(bytes)) {
        (Encodings::Utf8, Ok(text)) => {
            params.insert("encoding".into(), "utf8".into());
            params.insert("text".into(), text.into());
        }
        (Encodings::Base64 | Encodings::Utf8, _) => {
            params.insert("encoding".into(), "base64".into());
            params.insert("bytes_b64".into(), STANDARD.encode(bytes).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use ssh_mcp_core::reason::Reason;

    use super::*;

    fn shown(delivery: &Delivery, ending: Option<&EndWords>, encodings: Encodings) -> Value {
        let sub_id = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".parse().unwrap();
        output(sub_id, "shell://s/output", delivery, ending, encodings).map_or(Value::Null, Value::Object)
    }

    fn piece(bytes: &[u8]) -> Piece {
        Piece {
            seq: 7,
            cursor_after: 20,
            bytes: bytes.to_vec(),
            runs: Vec::new(),
            rest: Rest::Nothing,
            why: Why::News,
            gap: 0,
            dropped: 0,
        }
    }

    #[test]
    fn a_piece_says_where_it_ends_and_what_it_is() {
        let said = shown(&Delivery::Piece(piece(b"hi")), None, Encodings::Base64);
        assert_eq!(
            said,
            json!({ "sub_id": "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "uri": "shell://s/output", "seq": 7,
                "cursor_after": 20, "len": 2, "encoding": "base64", "bytes_b64": "aGk=" })
        );
        let cut =
            Piece { rest: Rest::Follows, why: Why::Snapshot, gap: 5, dropped: 3, ..piece("ä".as_bytes()) };
        let said = shown(&Delivery::Piece(cut), None, Encodings::Utf8);
        for (name, value) in [
            ("encoding", json!("utf8")),
            ("text", json!("ä")),
            ("truncated", json!(true)),
            ("snapshot", json!(true)),
            ("gap_bytes", json!(5)),
            ("dropped", json!(3)),
        ] {
            assert_eq!(said[name], value, "{name}");
        }
        let said = shown(&Delivery::Piece(piece(b"\xff")), None, Encodings::Utf8);
        assert_eq!(said["encoding"], "base64");
    }

    #[test]
    fn the_last_message_says_why() {
        let end = Delivery::End { seq: 8, cursor: 20, gap: 0, dropped: 0 };
        let words = EndWords { reason: Reason::Completed, exit_code: Some(3) };
        let said = shown(&end, Some(&words), Encodings::Utf8);
        assert_eq!(
            (&said["closed"], &said["reason"], &said["exit_code"]),
            (&json!(true), &json!("completed"), &json!(3))
        );
        assert_eq!(said["len"], 0);
        let closed = Delivery::Closed { seq: 8, cursor: 20, reason: Reason::LifetimeLeaseExpired };
        assert_eq!(shown(&closed, None, Encodings::Base64)["reason"], "lifetime_lease_expired");
    }

    #[test]
    fn clients_declare_what_they_take() {
        let declared = |value: Value| {
            let capabilities =
                serde_json::from_value(json!({ "experimental": { "ssh_inline_push": value } })).unwrap();
            Encodings::declared(Some(&capabilities))
        };
        assert_eq!(declared(json!({ "version": "1" })), Some(Encodings::Base64));
        assert_eq!(declared(json!({})), Some(Encodings::Base64));
        assert_eq!(
            declared(json!({ "version": "1", "encodings": ["base64", "utf8"] })),
            Some(Encodings::Utf8)
        );
        assert_eq!(declared(json!({ "version": "2" })), None);
        assert_eq!(Encodings::declared(Some(&ClientCapabilities::default())), None);
        assert_eq!(Encodings::declared(None), None);
    }
}
