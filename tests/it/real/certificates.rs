//! Host certificates: whom a line `@cert-authority` makes us believe, and whom it does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::sshd::HostKey;

/// A server that shows a certificate, an authority, and the product of a user who has never been there.
struct Stand {
    server: OpenSshd,
    client: McpClient,
    files: tempfile::TempDir,
}

impl Stand {
    async fn set(host_key: HostKey) -> Option<Self> {
        let files = tempfile::tempdir().unwrap();
        let shown = format!("HostCertificate {}", certificate(files.path()).display());
        let options = Options { host_keys: vec![host_key], extra: vec![shown], ..Options::default() };
        let server = OpenSshd::start_or_skip(options)?;
        for ca in ["ca", "other"] {
            keygen(&["-q", "-t", "ed25519", "-N", "", "-f", files.path().join(ca).to_str().unwrap()]);
        }
        let client = McpClient::spawn(Era::LEGACY_2025_11, &binary("ssh-mcp-stdio"), &[], &[]).await;
        fs::create_dir_all(client.home().join(".ssh")).unwrap();
        let key = server.client_key(ClientKey::Ed25519);
        let config = format!(
            "Host box\n HostName 127.0.0.1\n HostKeyAlias box.example.org\nHost *\n Port {}\n User tester\n \
             IdentityFile {}\n",
            server.port(),
            key.display()
        );
        fs::write(client.home().join(".ssh/config"), config).unwrap();
        Some(Self { server, client, files })
    }

    /// Signs the server's key with these options of ssh-keygen, and has the server show that.
    fn sign(&mut self, ca: &str, options: &[&str]) {
        let public = self.files.path().join("host.pub");
        let line = self.server.known_hosts();
        fs::write(&public, line.split_once(' ').unwrap().1).unwrap();
        let ca = self.files.path().join(ca);
        let mut arguments = vec!["-q", "-s", ca.to_str().unwrap(), "-I", "box", "-h"];
        arguments.extend_from_slice(options);
        arguments.push(public.to_str().unwrap());
        keygen(&arguments);
        self.server.restart();
    }

    fn public(&self, name: &str) -> String {
        let text = fs::read_to_string(self.files.path().join(name).with_extension("pub")).unwrap();
        text.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    fn know(&self, lines: &str) {
        fs::write(self.client.home().join(".ssh/known_hosts"), lines).unwrap();
    }

    async fn connect(&self, target: &str) -> ToolAnswer {
        let call = json!({"target": target, "reuse": "force_new", "strict_host_key_checking": "yes"});
        self.client.call("ssh_connect", call).await
    }

    async fn is_refused(&self, target: &str, code: &str, words: &str) {
        let answer = self.connect(target).await;
        assert!(answer.is_error, "{}", answer.text);
        assert_eq!(answer.structured["code"], code, "{}", answer.text);
        assert!(answer.text.contains(words), "{words}: {}", answer.text);
    }

    async fn is_known(&self, target: &str) {
        let answer = self.connect(target).await;
        assert!(!answer.is_error, "{}", answer.text);
        assert_eq!(answer.structured["host_key"]["status"], "known", "{}", answer.text);
    }
}

/// Where ssh-keygen puts it.
fn certificate(files: &Path) -> PathBuf {
    files.join("host-cert.pub")
}

fn keygen(arguments: &[&str]) {
    let output = Command::new("ssh-keygen").args(arguments).output().expect("ssh-keygen starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_vouches_for_a_host_never_seen() {
    for host_key in HostKey::ALL {
        let Some(mut stand) = Stand::set(host_key).await else { return };
        stand.sign("ca", &["-n", "elsewhere,127.0.0.1"]);
        let ca = stand.public("ca");
        stand.know(&format!("@cert-authority 127.0.0.* {ca}\n"));
        stand.is_known("127.0.0.1").await;
        // Further connections show the same key.
        let ran = stand.client.call("ssh_run", json!({"target": "127.0.0.1", "command": "id -un"})).await;
        assert_eq!(ran.structured["stdout"], "tester\n", "{}", ran.text);
        // A name of its own, and a pattern in the certificate.
        stand.sign("ca", &["-n", "*.example.org"]);
        stand.know(&format!("@cert-authority *.example.org {ca}\n"));
        stand.is_known("box").await;
        // The key itself is known besides: the certificate is asked for all the same.
        let line = stand.server.known_hosts();
        stand.know(&format!("{line}@cert-authority [127.0.0.1]:* {ca}\n"));
        stand.sign("ca", &["-n", "127.0.0.1"]);
        stand.is_known("127.0.0.1").await;
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_vouch_for_the_host_counts_for_nothing() {
    let Some(mut stand) = Stand::set(HostKey::Ed25519).await else { return };
    let ca = stand.public("ca");
    let trusted = format!("@cert-authority 127.0.0.1 {ca}\n");
    let principal = ["-n", "127.0.0.1"];
    stand.know(&trusted);
    for (signer, options, words) in [
        ("ca", vec!["-n", "elsewhere"], "it is for other hosts (elsewhere)"),
        ("ca", vec![], "it is for other hosts ()"),
        ("ca", vec!["-n", "127.0.0.1", "-V", "20200101:20210101"], "it has expired"),
        ("ca", vec!["-n", "127.0.0.1", "-V", "20990101:21000101"], "it is not valid yet"),
        ("ca", vec!["-n", "127.0.0.1", "-O", "critical:odd=1"], "option that is not known (odd)"),
        ("other", principal.to_vec(), "is not trusted with this host"),
    ] {
        stand.sign(signer, &options);
        stand.is_refused("127.0.0.1", "HOST_KEY_UNKNOWN", words).await;
        // Its key may be known by itself.
        stand.know(&format!("{trusted}{}", stand.server.known_hosts()));
        stand.is_known("127.0.0.1").await;
        stand.know(&trusted);
    }
    // An authority for other hosts: no certificate is asked for.
    stand.sign("ca", &principal);
    stand.know(&format!("@cert-authority *.example.org {ca}\n"));
    stand.is_refused("127.0.0.1", "HOST_KEY_UNKNOWN", "the host shows ssh-ed25519").await;
}

#[tokio::test]
async fn a_revoked_authority_or_key_is_refused_whatever_the_certificate_says() {
    let Some(mut stand) = Stand::set(HostKey::Ed25519).await else { return };
    stand.sign("ca", &["-n", "127.0.0.1"]);
    let (ca, line) = (stand.public("ca"), stand.server.known_hosts());
    let key = line.trim().split_once(' ').unwrap().1.to_owned();
    let trusted = format!("@cert-authority 127.0.0.1 {ca}\n");
    for revoked in [&ca, &key] {
        stand.know(&format!("{trusted}{line}@revoked * {revoked}\n"));
        stand.is_refused("127.0.0.1", "HOST_KEY_MISMATCH", "known_hosts:3 revokes").await;
    }
    stand.know(&trusted);
    stand.is_known("127.0.0.1").await;
}

#[tokio::test]
async fn a_configuration_that_names_plain_keys_only_gets_no_certificate() {
    let Some(mut stand) = Stand::set(HostKey::Ed25519).await else { return };
    stand.sign("ca", &["-n", "127.0.0.1"]);
    stand.know(&format!("@cert-authority * {}\n", stand.public("ca")));
    for (algorithms, is_known) in [
        ("ssh-ed25519", false),
        ("-*-cert-v01@openssh.com", false),
        ("+ssh-rsa", true),
        ("ssh-ed25519-cert-v01@openssh.com", true),
    ] {
        let options = json!({"HostKeyAlgorithms": algorithms});
        let call = json!({"target": "127.0.0.1", "reuse": "force_new", "strict_host_key_checking": "yes",
            "ssh_options": options});
        let answer = stand.client.call("ssh_connect", call).await;
        assert_eq!(!answer.is_error, is_known, "{algorithms}: {}", answer.text);
    }
}
