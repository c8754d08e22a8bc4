//! Certificates as ssh-keygen makes them; against a real server they are in the product's own tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;

fn keygen(arguments: &[&str]) -> bool {
    let output = Command::new("ssh-keygen").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// A certificate for a host's key by an authority of this type; `None` where there is no ssh-keygen.
fn sign(folder: &Path, authority: &[&str], options: &[&str]) -> Option<Certificate> {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (ca, key, public) = (path("ca"), path("host"), path("host.pub"));
    for name in ["ca", "ca.pub", "host", "host.pub"] {
        _ = fs::remove_file(folder.join(name));
    }
    let made = keygen(&[&["-q", "-N", "", "-f", &ca], authority].concat())
        && keygen(&["-q", "-N", "", "-t", "ed25519", "-f", &key])
        && keygen(&[&["-q", "-s", &ca, "-I", "id", "-n", "box"], options, &[&public]].concat());
    if !made {
        eprintln!("skipped: ssh-keygen is not installed, or does not make {authority:?}");
        return None;
    }
    Some(Certificate::from_openssh(&fs::read_to_string(folder.join("host-cert.pub")).unwrap()).unwrap())
}

fn name(host: &str) -> HostName {
    HostName::new(host, 2222).unwrap()
}

const ED25519: &[&str] = &["-t", "ed25519"];

#[test]
fn every_kind_of_authority_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let kinds: [&[&str]; 4] =
        [ED25519, &["-t", "ecdsa", "-b", "256"], &["-t", "ecdsa", "-b", "521"], &["-t", "rsa", "-b", "2048"]];
    for kind in kinds {
        let Some(certificate) = sign(folder.path(), kind, &["-h"]) else { return };
        assert_eq!(refusal(&certificate, &name("box")), None, "{kind:?}");
    }
    // Whatever SHA-1 says.
    let Some(weak) = sign(folder.path(), kinds[3], &["-h", "-t", "ssh-rsa"]) else { return };
    assert_eq!(refusal(&weak, &name("box")).as_deref(), Some("its signature does not hold"));
}

#[test]
fn a_certificate_counts_within_its_time_for_its_host_and_as_it_was_signed() {
    let folder = tempfile::tempdir().unwrap();
    let Some(certificate) = sign(folder.path(), ED25519, &["-h", "-V", "0x64:0xc8"]) else { return };
    for (host, now, words) in [
        ("box", 99, Some("it is not valid yet")),
        ("box", 100, None),
        ("BOX", 199, None),
        ("box", 200, Some("it has expired")),
        ("other", 150, Some("it is for other hosts (box)")),
    ] {
        assert_eq!(refusal_at(&certificate, &name(host), now).as_deref(), words, "{host} at {now}");
    }
    let mut bytes = certificate.to_bytes().unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = Certificate::from_bytes(&bytes).unwrap();
    assert_eq!(refusal_at(&forged, &name("box"), 150).as_deref(), Some("its signature does not hold"));
}

#[test]
fn a_users_certificate_is_no_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let Some(certificate) = sign(folder.path(), ED25519, &[]) else { return };
    assert_eq!(refusal(&certificate, &name("box")).as_deref(), Some("it is not a host's"));
}
