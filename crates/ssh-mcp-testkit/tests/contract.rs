//! The fakes keep the contracts of their ports, in virtual time.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ssh_mcp_core::port::BoxFuture;
use ssh_mcp_core::port::serial::SerialBus;
use ssh_mcp_core::port::ssh::{ConnectRequest, Connector};
use ssh_mcp_core::port::transcript::Transcripts;
use ssh_mcp_core::target::{Address, Credentials, Target};
use ssh_mcp_testkit::contract::ssh::{Rig, scripted};
use ssh_mcp_testkit::host::{ScriptedHost, defaults};
use ssh_mcp_testkit::serial::{FarEnd, ScriptedBus, plain};
use ssh_mcp_testkit::transcripts::ScriptedDisk;

/// A fake with as many places as a stock server has on one connection.
struct FakeRig {
    host: ScriptedHost,
}

impl FakeRig {
    fn new() -> Self {
        Self { host: scripted().with_places(10) }
    }
}

impl Rig for FakeRig {
    fn connector(&self) -> &dyn Connector {
        &self.host
    }

    fn request(&self) -> ConnectRequest {
        ConnectRequest {
            via: Vec::new(),
            hop: defaults().hop(
                Target {
                    address: Address { host: "fake.example".to_owned(), port: 22 },
                    username: "ada".to_owned(),
                },
                Credentials::default(),
            ),
            timeout: Duration::from_secs(30),
            accepted: Vec::new(),
        }
    }

    fn refusing_request(&self) -> Option<ConnectRequest> {
        self.host.then_refuse_channels(usize::MAX);
        Some(self.request())
    }

    fn break_connections(&self) {
        self.host.lose_connections("broken by the rig");
    }
}

ssh_mcp_testkit::ssh_contract!(
    #[tokio::test(start_paused = true)]
    Some(FakeRig::new())
);

struct FakeDisk(ScriptedDisk);

impl ssh_mcp_testkit::contract::transcript::Rig for FakeDisk {
    fn transcripts(&self) -> &dyn Transcripts {
        &self.0
    }

    fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.0.content(path)
    }

    fn count(&self) -> usize {
        self.0.count()
    }

    fn windows(&self) -> Option<Vec<String>> {
        Some(self.0.windows())
    }
}

ssh_mcp_testkit::transcript_contract!(
    #[tokio::test(start_paused = true)]
    FakeDisk(ScriptedDisk::new())
);

/// A device in memory.
struct PairRig {
    bus: ScriptedBus,
    far: FarEnd,
    heard: AtomicUsize,
}

const DEVICE: &str = "/dev/ttyFAR0";

impl PairRig {
    fn new() -> Self {
        let bus = ScriptedBus::new();
        let far = bus.plug(plain(DEVICE));
        bus.link("/dev/serial/by-id/far", DEVICE);
        Self { bus, far, heard: AtomicUsize::new(0) }
    }
}

impl ssh_mcp_testkit::contract::serial::Rig for PairRig {
    fn bus(&self) -> &dyn SerialBus {
        &self.bus
    }

    fn path(&self) -> String {
        DEVICE.to_owned()
    }

    fn link(&self) -> String {
        "/dev/serial/by-id/far".to_owned()
    }

    fn say(&self, bytes: Bytes) -> BoxFuture<'_, ()> {
        self.far.say(bytes);
        Box::pin(std::future::ready(()))
    }

    fn hear(&self, count: usize) -> BoxFuture<'_, Vec<u8>> {
        Box::pin(async move {
            let before = self.heard.fetch_add(count, Ordering::Relaxed);
            self.far.hears(before + count).await.split_off(before)
        })
    }

    fn unplug(&self) {
        self.bus.unplug(DEVICE);
    }
}

mod serial {
    use super::*;

    ssh_mcp_testkit::serial_contract!(
        #[tokio::test(start_paused = true)]
        PairRig::new()
    );
}
