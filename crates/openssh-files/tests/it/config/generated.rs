//! Generated configurations, asked of this crate and of the real `ssh -G`: the same cases in every run.
//!
//! `SSH_CONFIG_CASES` asks for more of them, `SSH_CONFIG_SEED` for others.

use openssh_files::config::Overrides;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::against_ssh::Me;
use super::oracle::{self, Folder};

const HOSTS: [&str; 4] = ["h", "db1", "x.y", "H"];

fn word(words: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    prop::sample::select(words.to_vec()).prop_map(str::to_owned)
}

/// Lists of patterns for hosts and users.
fn patterns(separator: &'static str) -> impl Strategy<Value = String> {
    let pattern =
        word(&["h", "H", "*", "db?", "!h", "!*.y", "x.*", "x.y", "root", "u1", "t.z", "?", "\"h\"", "h*"]);
    prop::collection::vec(pattern, 1..4).prop_map(move |patterns| patterns.join(separator))
}

fn criterion() -> impl Strategy<Value = String> {
    let name = word(&["host", "originalhost", "user", "localuser", "!host", "!user", "Host"]);
    prop_oneof![
        6 => (name, word(&[" ", "=", "  "]), patterns(",")).prop_map(|(name, between, list)| format!("{name}{between}{list}")),
        2 => word(&["final", "!final", "canonical", "!canonical", "FINAL"]),
        2 => word(&["all", "!all"]),
        1 => word(&["exec true", "!exec \"test %n = h\"", "exec \"test %h = t.z\"", "exec false"]),
    ]
}

/// A keyword, what stands between, and a value; now and then one that is refused.
fn setting() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        4 => word(&["User u1", "User u2", "User \"u 3\"", "User root # not", "user=u4"]),
        4 => word(&["HostName t.z", "HostName %h.z", "HostName T.Z", "Hostname 127.1", "HostName %%h", "HostName=x.y"]),
        3 => word(&["Port 33", "Port\t44", "PORT = 55", "Port 22"]),
        4 => word(&["IdentityFile a", "IdentityFile ~/b", "IdentityFile \"c d\"", "IdentityFile none", "IdentityFile %h#"]),
        2 => word(&["CertificateFile a", "CertificateFile ${NOPE}", "CertificateFile none"]),
        3 => word(&["ProxyJump j", "ProxyJump none", "ProxyJump u@a:2,b", "ProxyCommand nc %h  %p", "ProxyCommand none", "ProxyJump h", "ProxyJump=t.z:33"]),
        2 => word(&["IdentityAgent none", "IdentityAgent ~/%h-%p-%r-%n-%k", "IdentityAgent $FOO", "IdentityAgent %C"]),
        3 => word(&["UserKnownHostsFile a b", "UserKnownHostsFile none", "UserKnownHostsFile ~/%h ${FOO}", "GlobalKnownHostsFile g ~"]),
        2 => word(&["StrictHostKeyChecking yes", "StrictHostKeyChecking off", "StrictHostKeyChecking accept-new"]),
        2 => word(&["ConnectTimeout 1m", "ConnectTimeout none", "ServerAliveInterval 5", "ServerAliveCountMax 1"]),
        2 => word(&["Compression yes", "Compression no", "IdentitiesOnly true", "AddressFamily inet6", "AddressFamily any", "BindAddress b"]),
        3 => word(&["SendEnv A B*", "SendEnv -A", "SendEnv -B? C", "SetEnv A=1", "SetEnv B=2 \"C=3 4\" B=5", "SendEnv -*"]),
        2 => word(&["ForwardAgent yes", "ForwardAgent no", "ForwardAgent /s", "ForwardAgent ~/%n", "HostKeyAlias Ka", "PreferredAuthentications p,q"]),
        1 => word(&["CanonicalizeHostname yes", "CanonicalizeHostname no", "NumberOfPasswordPrompts 1", "HashKnownHosts yes", "PubkeyAuthentication no"]),
        1 => word(&["User", "User \"x", "Port 0", "Port x", "SetEnv A", "ProxyJump a,", "ConnectTimeout x", "User a b", "HostName %z", "UserKnownHostsFile %z", "IdentityAgent $", "Compression maybe"]),
    ];
    (word(&["", "  ", "\t"]), value, word(&["", " ", " # c", "\r"])).prop_map(|(indent, value, end)| {
        // Behind a command a comment belongs to it, and behind a quotation without an end it would be one.
        format!("{indent}{value}{end}")
    })
}

fn line(includes: &'static [&'static str]) -> BoxedStrategy<String> {
    let include = word(includes).prop_map(|name| match name.as_str() {
        "" => "# nothing".to_owned(),
        name => format!("Include {{D}}/{name}"),
    });
    prop_oneof![
        12 => setting(),
        4 => patterns(" ").prop_map(|list| format!("Host {list}")),
        4 => prop::collection::vec(criterion(), 1..4).prop_map(|criteria| format!("Match {}", criteria.join(" "))),
        1 => word(&["", "# comment", "   ", "\t# \"open"]),
        2 => include,
    ]
    .boxed()
}

fn file(includes: &'static [&'static str], length: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(line(includes), 0..length)
        .prop_map(|lines| lines.iter().map(|line| format!("{line}\n")).collect())
}

#[test]
fn generated_files_resolve_as_with_ssh() {
    if !oracle::is_there() {
        return;
    }
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let cases = number("SSH_CONFIG_CASES").unwrap_or(1000);
    let seed = number("SSH_CONFIG_SEED").unwrap_or(4);
    let settings = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed.into()),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    let me = Me::new();
    let folder = Folder::new();
    let (mut agreed, mut refused) = (0, 0);
    let inputs = (
        file(&["i1", "i*", "i2", "missing", ""], 12),
        file(&["i2", ""], 6),
        file(&[""], 6),
        prop::sample::select(HOSTS.to_vec()),
    );
    let counts = std::cell::RefCell::new((&mut agreed, &mut refused));
    TestRunner::new(settings)
        .run(&inputs, |(config, first, second, host)| {
            folder.write("config", &config);
            folder.write("i1", &first);
            folder.write("i2", &second);
            let path = folder.path("config");
            let theirs = oracle::ssh(&path, host, &[]);
            let ours = me.lines(&path, host, &Overrides::default());
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => {
                    prop_assert_eq!(oracle::lines(&ours), oracle::lines(&theirs), "{}", host);
                    *counts.borrow_mut().0 += 1;
                }
                (Err(_), Err(_)) => *counts.borrow_mut().1 += 1,
                (ours, theirs) => prop_assert!(false, "{}: {:?}, but ssh: {:?}", host, ours, theirs),
            }
            Ok(())
        })
        .unwrap();
    eprintln!("{agreed} configurations resolved alike, {refused} were refused alike");
    assert!(agreed > refused, "{agreed} agreed, {refused} refused: too few say anything");
}
