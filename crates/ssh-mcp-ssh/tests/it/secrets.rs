//! What the adapter writes into the log, at every level: life events, and never a secret.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ssh_mcp_core::port::resolve::Defaults;
use ssh_mcp_core::port::ssh::{ConnectRequest, Connector};
use ssh_mcp_core::target::{Address, Credentials, KeyFile, Need, Secret, Target};
use ssh_mcp_ssh::RusshConnector;
use ssh_mcp_testkit::host::defaults;
use ssh_mcp_testkit::sshd::{Config, EmbeddedSshd};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[tokio::test]
async fn no_log_line_has_a_password_or_a_pass_phrase() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let server = EmbeddedSshd::start(Config::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let pem = server.client_key_pem().unwrap();
    std::fs::write(&key, &pem).unwrap();
    for (password, is_good) in [("planted-and-wrong".to_owned(), false), (server.password().to_owned(), true)]
    {
        let target = Target {
            address: Address { host: "127.0.0.1".to_owned(), port: server.addr().port() },
            username: server.user().to_owned(),
        };
        let missing = KeyFile { path: key.with_extension("missing"), need: Need::Required };
        let credentials = Credentials {
            key_files: (!is_good).then_some(missing).into_iter().collect(),
            key_passphrase: Some(Secret::new("planted-pass-phrase".to_owned())),
            password: Some(Secret::new(password)),
            agent_socket: Some(folder.path().join("nobody")),
            ..Credentials::default()
        };
        let defaults = Defaults { known_hosts: folder.path().join("known_hosts"), ..defaults() };
        let mut request = ConnectRequest {
            via: Vec::new(),
            hop: defaults.hop(target, credentials),
            timeout: Duration::from_secs(20),
            accepted: Vec::new(),
        };
        let connector = RusshConnector::new().with_global_known_hosts(Vec::new());
        assert_eq!(connector.connect(&request).await.is_ok(), is_good);
        request.hop.credentials.key_files.clear();
        assert_eq!(connector.connect(&request).await.is_ok(), is_good);
    }
    let text = log.text.lock().unwrap().clone();
    assert!(text.contains("ssh_mcp::ssh") && text.contains("ssh_mcp::auth"), "{text}");
    for secret in ["planted", server.password(), pem.lines().nth(1).unwrap()] {
        assert!(!text.contains(secret), "{secret:?} stands in the log:\n{text}");
    }
}

/// Takes everything, at every level.
#[derive(Clone, Default)]
struct Log {
    text: Arc<Mutex<String>>,
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Fields(&mut self.text.lock().unwrap()));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Fields(&mut self.text.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = self.text.lock().unwrap();
        write!(text, "\n{}", event.metadata().target()).unwrap();
        event.record(&mut Fields(&mut text));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}
