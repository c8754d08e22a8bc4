//! The fakes keep the contracts of their ports, in virtual time.

use std::path::Path;
use std::time::Duration;

use ssh_mcp_core::port::ssh::{ConnectRequest, Connector};
use ssh_mcp_core::port::transcript::Transcripts;
use ssh_mcp_core::target::{Address, Credentials, Target};
use ssh_mcp_testkit::contract::ssh::{Rig, scripted};
use ssh_mcp_testkit::host::{ScriptedHost, defaults};
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
