//! The adapter keeps the contract of the serial port.

use bytes::Bytes;
use ssh_mcp_core::port::{BoxFuture, serial::SerialBus};
use ssh_mcp_serial::SystemBus;
use ssh_mcp_testkit::contract::serial::Rig;

use crate::pty::Pty;

struct PtyRig {
    bus: SystemBus,
    pty: Pty,
}

impl PtyRig {
    fn new() -> Self {
        Self { bus: SystemBus::new(), pty: Pty::new() }
    }
}

impl Rig for PtyRig {
    fn bus(&self) -> &dyn SerialBus {
        &self.bus
    }

    fn path(&self) -> String {
        self.pty.path().to_owned()
    }

    fn link(&self) -> String {
        self.pty.link().to_str().unwrap().to_owned()
    }

    fn say(&self, bytes: Bytes) -> BoxFuture<'_, ()> {
        Box::pin(self.pty.say(bytes))
    }

    fn hear(&self, count: usize) -> BoxFuture<'_, Vec<u8>> {
        Box::pin(self.pty.hear(count))
    }

    fn unplug(&self) {
        self.pty.unplug();
    }
}

ssh_mcp_testkit::serial_contract!(
    #[tokio::test]
    PtyRig::new()
);
