use russh::keys::ssh_key::certificate::Builder;
use russh::keys::ssh_key::private::Ed25519Keypair;

use super::*;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn certificate(seed: u8, change: impl FnOnce(&mut Builder)) -> Certificate {
    let mut builder = Builder::new([7; 16], key(seed).public_key().key_data().clone(), 0, u64::MAX).unwrap();
    builder.cert_type(CertType::User).unwrap();
    change(&mut builder);
    builder.sign(&key(99)).unwrap()
}

fn for_ada(seed: u8) -> Certificate {
    certificate(seed, |builder| {
        builder.valid_principal("ada").unwrap();
    })
}

/// A file whose key can be used, or one that keeps it to itself.
fn file(seed: u8, need: Need, is_open: bool) -> Loaded {
    let private = if is_open { Ok(Arc::new(key(seed))) } else { Err("it is encrypted".to_owned()) };
    Loaded { path: format!("/{seed}").into(), need, public: Some(key(seed).public_key().clone()), private }
}

fn held(seed: u8) -> AgentIdentity {
    key(seed).public_key().clone().into()
}

/// What is shown: `key` or `cert`, whose, and by whom it is signed.
fn words(identities: &[Identity]) -> Vec<String> {
    let whose =
        |key: &PublicKey| (0..=99).find(|seed| self::key(*seed).public_key().key_data() == key.key_data());
    identities
        .iter()
        .map(|identity| {
            let (kind, seed) = match &identity.shown {
                Shown::Key(key) => ("key", whose(key)),
                Shown::Certificate(certificate) => {
                    ("cert", whose(&PublicKey::new(certificate.public_key().clone(), "")))
                }
            };
            let by = match &identity.signer {
                Signer::File(_) => "file",
                Signer::Agent(..) => "agent",
            };
            format!("{kind} {} {by}", seed.unwrap())
        })
        .collect()
}

fn planned(files: Vec<Loaded>, certificates: &[u8], holdings: &[AgentIdentity], wanted: AgentKeys) -> Plan {
    let certificates = certificates.iter().map(|seed| ("/c".into(), for_ada(*seed))).collect();
    let keys = Keys { files, certificates, passed_over: Vec::new() };
    plan(keys, holdings, Some(Path::new("/agent")), wanted).unwrap()
}

#[test]
fn what_is_likely_to_be_right_comes_first() {
    use Need::{IfUsable, Required};
    let files = vec![file(1, IfUsable, true), file(2, IfUsable, true), file(3, Required, true)];
    let plan = planned(files, &[1], &[held(5), held(2), held(6)], AgentKeys::All);
    assert_eq!(words(&plan.named), ["key 3 file", "cert 1 file", "key 2 file", "key 1 file"]);
    assert_eq!(words(&plan.others), ["key 5 agent", "key 6 agent"]);
}

#[test]
fn an_agent_signs_for_what_a_file_keeps_to_itself() {
    let closed = |need| vec![file(1, need, false), file(2, Need::IfUsable, false)];
    let plan = planned(closed(Need::Required), &[], &[held(3), held(1)], AgentKeys::OfKeyFiles);
    assert_eq!(words(&plan.named), ["key 1 agent"]);
    assert!(plan.others.is_empty());
    let keys = Keys { files: closed(Need::Required), ..Keys::default() };
    let failed = super::plan(keys, &[held(3)], Some(Path::new("/agent")), AgentKeys::All);
    assert!(
        matches!(failed, Err(ConnectError::Key { path, cause }) if path == "/1" && cause == "it is encrypted")
    );
}

#[test]
fn certificates_find_their_keys() {
    let cert = AgentIdentity::from(for_ada(4));
    // Of a file, of the agent, of nobody; and one that only the agent knows, for a key that a file names.
    let files = || vec![file(1, Need::IfUsable, true), file(4, Need::IfUsable, false)];
    let holdings = [held(2), cert.clone(), held(4)];
    let plan = planned(files(), &[1, 2, 3], &holdings, AgentKeys::OfKeyFiles);
    assert_eq!(
        words(&plan.named),
        ["cert 1 file", "cert 2 agent", "cert 4 agent", "key 4 agent", "key 1 file"]
    );
    assert_eq!(plan.passed_over, ["publickey (certificate /c: its key is missing)"]);
    // Without a file that names it, it is one of the others.
    let plan = planned(Vec::new(), &[], &holdings, AgentKeys::All);
    assert_eq!(words(&plan.others), ["key 2 agent", "cert 4 agent", "key 4 agent"]);
}

#[test]
fn what_speaks_against_a_certificate() {
    let says = |certificate: &Certificate| objection(certificate, "ada");
    assert_eq!(says(&for_ada(1)), None);
    let nobody = certificate(1, |builder| {
        builder.all_principals_valid().unwrap();
    });
    assert_eq!(says(&nobody).as_deref(), Some("it names no principal"));
    let other = certificate(1, |builder| {
        builder.valid_principal("bob").unwrap().valid_principal("cid").unwrap();
    });
    assert_eq!(says(&other).as_deref(), Some("it is for the principals bob cid, not for ada"));
    let of = |after, before| {
        let mut builder =
            Builder::new([7; 16], key(1).public_key().key_data().clone(), after, before).unwrap();
        builder.cert_type(CertType::User).unwrap().valid_principal("ada").unwrap();
        builder.sign(&key(99)).unwrap()
    };
    assert_eq!(says(&of(0, 1)).as_deref(), Some("it has expired"));
    assert_eq!(says(&of(1 << 40, 1 << 41)).as_deref(), Some("it is not valid yet"));
    let mut host = Builder::new([7; 16], key(1).public_key().key_data().clone(), 0, u64::MAX).unwrap();
    host.cert_type(CertType::Host).unwrap().valid_principal("ada").unwrap();
    assert_eq!(says(&host.sign(&key(99)).unwrap()).as_deref(), Some("it is a host's, not a user's"));
}
