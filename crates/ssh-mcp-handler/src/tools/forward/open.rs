//! `ssh_forward`: open a forward.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use ssh_mcp_core::{
    code::{Code, Effect as Begun, Warning},
    kind::forward::{Passage, is_exposed},
    registry::{Forward, Session},
    target::Address,
    uri::{Resource, Scheme},
};
use ssh_mcp_engine::{Connect, ForwardOrder};

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::{self, Arguments},
    cx::Cx,
    failure::Failure,
    next::{self, After},
    progress::{Beat, EVERY_5_S, Waiting},
    reply::{Answer, Body, Text, Warned},
    tools::connect::{Afterwards, Ground, Login},
};

pub(super) const ROW: Row = Row {
    name: "ssh_forward",
    title: "Forward a TCP port",
    description: "Opens a TCP forward and returns its FORWARD_ID. local: a port here leads to remote_address:remote_port as the \
                  server reaches it. remote: a port of the server leads to local_port here. dynamic: a SOCKS 4 or 5 \
                  listener here; each client says where to. It listens on loopback only, unless bind_address says \
                  otherwise. Its forward:// URI tells of connections and why one failed. It ends by ssh_forward_close \
                  or with its session.",
    effect: Effect::Adds,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Forward],
    makes: Some(Scheme::Forward),
    call: call!(open, OpenArgs, OpenBody),
};

#[derive(Deserialize, JsonSchema)]
struct OpenArgs {
    /// Or target.
    session_id: Option<String>,
    #[serde(flatten)]
    login: Login,
    /// 0 is any free one; with remote, the port connections go to.
    local_port: u16,
    /// With remote 127.0.0.1, if not given; none with dynamic.
    remote_address: Option<String>,
    /// With remote, the port the server listens on; 0 is any.
    remote_port: Option<u16>,
    /// The same as remote_address.
    remote_host: Option<String>,
    #[schemars(extend("default" = "local"))]
    direction: Option<DirectionWord>,
    /// Where it listens; localhost is both families.
    #[serde(default = "loopback")]
    bind_address: String,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DirectionWord {
    Local,
    Remote,
    Dynamic,
}

impl Arguments for OpenArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct OpenBody {
    forward_id: String,
    session_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    /// The end on this side.
    local: String,
    /// The end on the server's side; with dynamic there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<String>,
    active: bool,
    direction: &'static str,
    bind_address: String,
    local_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_port: Option<u16>,
    /// The host of the session.
    target: String,
    running: bool,
    started_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_at: Option<String>,
    connections_total: u64,
}

impl Body for OpenBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("FORWARD_ID", &self.forward_id);
        text.key("SESSION_ID", &self.session_id);
        text.maybe("AGENT_ID", self.agent_id.as_ref());
        text.key("DIRECTION", self.direction);
        text.key("LOCAL", &self.local);
        text.maybe("REMOTE", self.remote.as_ref());
        text.key("BIND_ADDRESS", &self.bind_address);
        text.key("TARGET", &self.target);
        text.key("ACTIVE", self.active);
        text.key("STARTED_AT", &self.started_at);
    }
}

async fn open(cx: &Cx, args: OpenArgs) -> Result<Answer<OpenBody>, Failure> {
    let (on, passage) = args.parse(cx)?;
    let exposed = is_exposed(&passage.listen().host);
    let ground = match on {
        On::Session(session) => Ground { session, ours: false },
        On::Host(connect) => Ground::find(cx, *connect).await?,
    };
    let order = ForwardOrder { session: ground.session.spec.id, passage };
    let opening = || Beat { progress: 0, total: None, message: "opening a connection of its own".to_owned() };
    let waited = cx.progress.while_waiting(EVERY_5_S, cx.engine.forward(&cx.owner, order), opening).await;
    let forward = match waited {
        Waiting::Done(Ok(forward)) => forward,
        Waiting::Done(Err(error)) => {
            // An error leaves nothing behind.
            ground.leave(cx, Afterwards::Disconnect).await;
            return Err(error.into());
        }
        Waiting::Cancelled => {
            ground.leave(cx, Afterwards::Disconnect).await;
            let failure = Failure::new(Code::ForwardFailed, "the client called the request off");
            return Err(failure.with_effect(Begun::None));
        }
    };
    let resource = Resource::from(forward.spec.id);
    let exposed = exposed.then(|| {
        let msg = format!("others than its own machine reach {}", forward.spec.passage.listen());
        Warned::new(Warning::ExposedListener, msg).with_resource(resource)
    });
    Ok(Answer::new("ok", OpenBody::new(cx, &forward))
        .with_warnings(exposed)
        .with_hint(ground.learnt_hint())
        .with_hint(next::stream_hint(&cx.catalogue, resource, "sub_wait"))
        .with_next(next::next(&cx.catalogue, After::ForwardOpened(forward.spec.id))))
}

/// What a forward is to be opened on.
enum On {
    Session(Arc<Session>),
    Host(Box<Connect>),
}

impl OpenArgs {
    fn parse(self, cx: &Cx) -> Result<(On, Passage), Failure> {
        let passage = self.passage()?;
        let on = match (&self.session_id, self.login.names_a_host()) {
            (Some(_), true) => {
                return Err(Failure::argument("session_id and a host are both given: give one of them"));
            }
            (Some(id), false) => On::Session(cx.session(id)?),
            (None, true) => On::Host(Box::new(self.login.into_connect(cx, None)?)),
            (None, false) => {
                return Err(Failure::argument(
                    "session_id is missing: it must be a text, unless target is given",
                ));
            }
        };
        Ok((on, passage))
    }

    /// Which side listens, and where it leads.
    fn passage(&self) -> Result<Passage, Failure> {
        let listen = host("bind_address", &self.bind_address)?;
        let (field, address) = match (&self.remote_address, &self.remote_host) {
            (Some(_), Some(_)) => {
                return Err(Failure::argument(
                    "remote_address and remote_host are both given: give one of them",
                ));
            }
            (Some(address), None) => ("remote_address", Some(address)),
            (None, address) => ("remote_host", address.as_ref()),
        };
        let address = address.map(|address| host(field, address)).transpose()?;
        match self.direction.unwrap_or(DirectionWord::Local) {
            DirectionWord::Local => {
                let missing = |field, kind| {
                    Failure::argument(format!(
                        "{field} is missing: it must be {kind}, because direction is local"
                    ))
                };
                let host = address.ok_or_else(|| missing("remote_address", "a text"))?;
                let port =
                    self.remote_port.ok_or_else(|| missing("remote_port", "an integer from 1 to 65535"))?;
                let to = Address { host, port: some_port("remote_port", port)? };
                Ok(Passage::Local { listen: Address { host: listen, port: self.local_port }, to })
            }
            DirectionWord::Remote => {
                let port = self.remote_port.ok_or_else(|| {
                    Failure::argument(
                        "remote_port is missing: it must be an integer, because direction is remote",
                    )
                })?;
                let host = address.unwrap_or_else(loopback);
                let to = Address { host, port: some_port("local_port", self.local_port)? };
                Ok(Passage::Remote { listen: Address { host: listen, port }, to })
            }
            DirectionWord::Dynamic => match (address, self.remote_port) {
                (None, None) => {
                    Ok(Passage::Dynamic { listen: Address { host: listen, port: self.local_port } })
                }
                (Some(_), _) | (None, Some(_)) => Err(Failure::argument(
                    "remote_address and remote_port have no place where direction is dynamic: each client says where to",
                )),
            },
        }
    }
}

/// A name or an address; IPv6 with its brackets or without.
fn host(field: &str, text: &str) -> Result<String, Failure> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let is_plain = |c: char| !c.is_control() && !c.is_whitespace() && !"[]/@".contains(c);
    match !bare.is_empty() && bare.len() <= 255 && bare.chars().all(is_plain) {
        true => Ok(bare.to_owned()),
        false => {
            let got = args::shown(field, &json!(text));
            Err(Failure::argument(format!(
                "{field} must be a host name or an address without a port; got {got}"
            )))
        }
    }
}

fn some_port(field: &str, port: u16) -> Result<u16, Failure> {
    match port {
        0 => Err(Failure::argument(format!(
            "{field} must be an integer from 1 to 65535, because connections go there; got the number 0"
        ))),
        port => Ok(port),
    }
}

fn loopback() -> String {
    "127.0.0.1".into()
}

impl OpenBody {
    fn new(cx: &Cx, forward: &Forward) -> Self {
        let spec = &forward.spec;
        let listen = spec.passage.listen();
        let (local, remote, remote_port) = match &spec.passage {
            Passage::Local { listen, to } => (listen, Some(to), Some(to.port)),
            Passage::Remote { listen, to } => (to, Some(listen), Some(listen.port)),
            Passage::Dynamic { listen } => (listen, None, None),
        };
        let ended = forward.ending.get().map(|end| end.at);
        Self {
            forward_id: spec.id.to_string(),
            session_id: spec.session.to_string(),
            agent_id: spec.agent.clone(),
            local: local.to_string(),
            remote: remote.map(ToString::to_string),
            active: ended.is_none(),
            direction: spec.passage.facing().as_str(),
            bind_address: listen.host.clone(),
            local_port: spec.passage.local_port(),
            remote_address: spec.passage.to().map(|to| to.host.clone()),
            remote_port,
            target: spec.target.clone(),
            running: ended.is_none(),
            started_at: cx.rfc3339(spec.started),
            stopped_at: ended.map(|at| cx.rfc3339(at)),
            connections_total: forward.traffic.counts().accepted,
        }
    }
}
