//! Whether a host certificate is good for a host (OpenSSH's PROTOCOL.certkeys; ssh-keygen(1), CERTIFICATES).
//!
//! Who may sign is for `known_hosts` to say, and is asked before.

use std::time::{SystemTime, UNIX_EPOCH};

use openssh_files::known_hosts::HostName;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate};

/// Why a certificate does not vouch for `host`; `None` if it does.
pub(super) fn refusal(certificate: &Certificate, host: &HostName) -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    refusal_at(certificate, host, now)
}

fn refusal_at(certificate: &Certificate, host: &HostName, now: u64) -> Option<String> {
    // SHA-1 has been broken for signatures, and DSA knows nothing else.
    let is_weak =
        matches!(certificate.signature().algorithm(), Algorithm::Dsa | Algorithm::Rsa { hash: None });
    if is_weak || certificate.verify_signature().is_err() {
        return Some("its signature does not hold".to_owned());
    }
    if certificate.cert_type() != CertType::Host {
        return Some("it is not a host's".to_owned());
    }
    if now < certificate.valid_after() {
        return Some("it is not valid yet".to_owned());
    }
    if now >= certificate.valid_before() {
        return Some("it has expired".to_owned());
    }
    // Without principals it would vouch for every host.
    if !certificate.valid_principals().iter().any(|principal| host.is_principal(principal)) {
        let named = certificate.valid_principals().join(", ");
        return Some(format!("it is for other hosts ({named})"));
    }
    if let Some((option, _)) = certificate.critical_options().iter().next() {
        return Some(format!("it has an option that is not known ({option})"));
    }
    None
}

#[cfg(test)]
mod tests;
