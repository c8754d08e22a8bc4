//! `serial_scan` and `serial_active`: which devices there are, and which are open here.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_mcp_core::{
    code::Code,
    id::SerialId,
    kind::serial::Allowed,
    port::serial::Device,
    registry::Serial,
    text::{self, human_size},
    uri::Resource,
};

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::Failure,
    reply::{Answer, Body, Text},
};

pub(super) const SCAN: Row = Row {
    name: "serial_scan",
    title: "List serial devices",
    description: "Lists the serial devices of this server's own machine that have hardware behind them, with what USB tells of \
                  them. Opens none.",
    effect: Effect::ReadOnly,
    repeat: Repeat::Harmless,
    reach: Reach::Remote,
    key: Key::Ignored,
    sets: &[Set::Serial],
    makes: None,
    call: call!(scan, NoArgs, ScanBody),
};

pub(super) const ACTIVE: Row = Row {
    name: "serial_active",
    title: "List open serial ports",
    description: "Lists the serial ports you hold open, with how they run and what went through. Touches no device.",
    effect: Effect::ReadOnly,
    repeat: Repeat::Harmless,
    reach: Reach::Held,
    key: Key::Ignored,
    sets: &[Set::Serial],
    makes: None,
    call: call!(active, NoArgs, ActiveBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoArgs {}

impl Arguments for NoArgs {}

#[derive(Debug, Serialize, JsonSchema)]
struct ScanBody {
    total: usize,
    paths: Vec<String>,
    ports: Vec<Found>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Found {
    path: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manufacturer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    product: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_use_by: Option<String>,
}

impl Body for ScanBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("TOTAL", self.total);
        for port in &self.ports {
            text.key("PORT", port.line());
        }
    }
}

impl Found {
    fn new(device: Device, in_use_by: Option<SerialId>) -> Self {
        let Device { path, kind, vid, pid, serial_number, manufacturer, product, by_id } = device;
        Self {
            path,
            kind: kind.as_str(),
            vid,
            pid,
            serial_number,
            manufacturer,
            product,
            by_id,
            in_use_by: in_use_by.map(|port| port.to_string()),
        }
    }

    fn line(&self) -> String {
        let mut line = format!("{} {}", self.path, self.kind);
        if let (Some(vid), Some(pid)) = (&self.vid, &self.pid) {
            line.push_str(&format!(" {vid}:{pid}"));
        }
        let said = [&self.manufacturer, &self.product].into_iter().flatten();
        line.extend(said.map(|said| format!(" {said}")));
        line.extend(self.serial_number.iter().map(|number| format!(" serial_number={number}")));
        line.extend(self.by_id.iter().map(|name| format!(" by_id={name}")));
        line.extend(self.in_use_by.iter().map(|port| format!(" in_use_by={port}")));
        line
    }
}

async fn scan(cx: &Cx, _: NoArgs) -> Result<Answer<ScanBody>, Failure> {
    if Allowed::new(&cx.settings().allow_serial).is_none() {
        return Err(Failure::new(Code::SerialError, "this server may open no serial device")
            .with_context("SSH_MCP_ALLOW_SERIAL is none"));
    }
    let scanned = cx.engine.scan_serial().await;
    let (devices, kept_back) =
        scanned.map_err(|error| Failure::new(Code::SerialError, text::remote_words(&error.to_string())))?;
    let open = open_ports(cx);
    let port_on = |path: &str| open.iter().find(|serial| serial.spec.device.path == path);
    let ports: Vec<Found> = devices
        .into_iter()
        .map(|device| {
            let port = port_on(&device.path).map(|serial| serial.spec.id);
            Found::new(device, port)
        })
        .collect();
    let paths: Vec<String> = ports.iter().map(|port| port.path.clone()).collect();
    let hint = (kept_back > 0)
        .then(|| format!("{kept_back} devices are not listed: SSH_MCP_ALLOW_SERIAL does not allow them"));
    Ok(Answer::new("ok", ScanBody { total: paths.len(), paths, ports }).with_hint(hint))
}

#[derive(Debug, Serialize, JsonSchema)]
struct ActiveBody {
    total: usize,
    ports: Vec<Open>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Open {
    serial_id: String,
    path: String,
    baud_rate: u32,
    framing: String,
    flow_control: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    uri: String,
    opened_at: String,
    rx_bytes: u64,
    tx_bytes: u64,
    queue_depth: usize,
    subscribers: u32,
}

impl Body for ActiveBody {
    const STATUSES: &'static [&'static str] = &["ok"];

    fn write(&self, text: &mut Text) {
        text.key("TOTAL", self.total);
        for port in &self.ports {
            text.item(port.line());
        }
    }
}

impl Open {
    fn new(cx: &Cx, serial: &Serial) -> Self {
        let mode = &serial.spec.mode;
        Self {
            serial_id: serial.spec.id.to_string(),
            path: serial.spec.path.clone(),
            baud_rate: mode.baud,
            framing: mode.framing(),
            flow_control: mode.flow.as_str(),
            label: serial.spec.label.clone(),
            uri: Resource::from(serial.spec.id).to_string(),
            opened_at: cx.rfc3339(serial.spec.opened),
            rx_bytes: serial.history.mark().end,
            tx_bytes: serial.written(),
            queue_depth: serial.queue.depth(),
            subscribers: serial.lanes.in_use(),
        }
    }

    fn line(&self) -> String {
        let mut line = format!(
            "{} {} {} {} flow={}",
            self.serial_id, self.path, self.baud_rate, self.framing, self.flow_control
        );
        line.extend(self.label.iter().map(|label| format!(" label={label}")));
        line.push_str(&format!(
            " opened={} rx={} ({}) tx={} ({}) queue={} subscribers={} {}",
            self.opened_at,
            self.rx_bytes,
            human_size(self.rx_bytes),
            self.tx_bytes,
            human_size(self.tx_bytes),
            self.queue_depth,
            self.subscribers,
            self.uri
        ));
        line
    }
}

async fn active(cx: &Cx, _: NoArgs) -> Result<Answer<ActiveBody>, Failure> {
    let open = open_ports(cx);
    let leaks: Vec<_> = open.iter().filter_map(|serial| cx.leak(serial.spec.id.into())).collect();
    let ports: Vec<Open> = open.iter().map(|serial| Open::new(cx, serial)).collect();
    Ok(Answer::new("ok", ActiveBody { total: ports.len(), ports }).with_warnings(leaks))
}

/// The caller's ports that are open, newest first.
fn open_ports(cx: &Cx) -> Vec<Arc<Serial>> {
    let mut serials = cx.engine.registries().serials.of_owner(&cx.owner);
    serials.retain(|serial| serial.is_open());
    serials
}
