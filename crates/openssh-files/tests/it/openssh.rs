//! The real OpenSSH as oracle: `ssh-keygen` for files, `ssh` itself for verdicts.
//!
//! `ssh` talks to an `sshd -i` on a pipe, so no port is opened and no file outside the test's directory is used.
//! Where a program is missing the test says so and passes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use openssh_files::known_hosts::{Hashing, HostKey, HostName, KnownHosts, Learnt, Verdict, append};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use crate::cases::{CASES, Case, Expected, HOST, Keys, Query};
use crate::keys::{ed25519, fields};

/// Says why and ends the test when a program is not there.
macro_rules! need {
    ($program:expr) => {
        if !is_there($program) {
            eprintln!("skipped: {} is not installed", $program);
            return;
        }
    };
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("-?").stdin(Stdio::null()).output().is_ok()
}

const SSHD: &str = "/usr/sbin/sshd";

/// Runs `ssh-keygen` and gives its standard output; it ends with 1 when it finds nothing.
fn ssh_keygen(arguments: &[&str]) -> String {
    let output = Command::new("ssh-keygen").args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "ssh-keygen {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A fresh key pair: the path of the private half, and the public one.
fn generate(directory: &Path, kind: &str, bits: &str) -> (PathBuf, HostKey) {
    let path = directory.join(format!("{kind}-{bits}"));
    ssh_keygen(&["-q", "-t", kind, "-b", bits, "-N", "", "-f", path.to_str().unwrap()]);
    let public = fs::read_to_string(path.with_added_extension("pub")).unwrap();
    let base64 = public.split(' ').nth(1).unwrap();
    let blob = base64::engine::general_purpose::STANDARD.decode(base64).unwrap();
    (path, HostKey::parse(&blob).unwrap())
}

#[test]
fn keys_and_fingerprints_are_those_of_ssh_keygen() {
    need!("ssh-keygen");
    let directory = tempfile::tempdir().unwrap();
    for (kind, bits, algorithm) in [
        ("ed25519", "256", "ssh-ed25519"),
        ("rsa", "1024", "ssh-rsa"),
        ("rsa", "3072", "ssh-rsa"),
        ("ecdsa", "256", "ecdsa-sha2-nistp256"),
        ("ecdsa", "384", "ecdsa-sha2-nistp384"),
        ("ecdsa", "521", "ecdsa-sha2-nistp521"),
    ] {
        let (path, key) = generate(directory.path(), kind, bits);
        assert_eq!(key.algorithm(), algorithm);
        let printed = ssh_keygen(&["-l", "-f", path.to_str().unwrap()]);
        assert_eq!(printed.split(' ').nth(1), Some(key.fingerprint().as_str()), "{kind} {bits}");
    }
}

#[test]
fn ssh_keygen_finds_what_was_learnt() {
    need!("ssh-keygen");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("known_hosts");
    let file = path.to_str().unwrap();
    let lessons = [
        ("plain.example", 22, Hashing::Plain),
        ("plain.example", 2222, Hashing::Plain),
        ("hidden.example", 22, Hashing::Hashed),
        ("hidden.example", 2222, Hashing::Hashed),
        ("2001:db8::1", 22, Hashing::AsFile),
        ("2001:db8::1", 2222, Hashing::Plain),
    ];
    for (fill, (host, port, hashing)) in (1..).zip(lessons) {
        let name = HostName::new(host, port).unwrap();
        // Under its port first, else the bare name answers for it.
        let learnt = append(&path, &name, &ed25519(fill), hashing).unwrap();
        match port {
            22 => assert!(matches!(learnt, Learnt::Added(_)), "{name}: {learnt:?}"),
            _ => assert!(
                matches!(learnt, Learnt::Added(ref at) if at.line == usize::from(fill)),
                "{name}: {learnt:?}"
            ),
        }
    }
    for (fill, (host, port, _)) in (1..).zip(lessons) {
        let name = HostName::new(host, port).unwrap();
        let found = ssh_keygen(&["-l", "-F", name.as_str(), "-f", file]);
        assert!(found.contains(&format!("# Host {name} found: line {fill}")), "{found}");
        assert!(found.contains(&ed25519(fill).fingerprint()), "{found}");
    }

    // What it takes out is unknown to us, and the rest stays.
    ssh_keygen(&["-R", "[hidden.example]:2222", "-f", file]);
    ssh_keygen(&["-R", "plain.example", "-f", file]);
    let known = KnownHosts::read(&path).unwrap();
    for (fill, (host, port, _)) in (1..).zip(lessons) {
        let verdict = known.verdict(&HostName::new(host, port).unwrap(), &ed25519(fill));
        match fill {
            1 | 4 => assert_eq!(verdict, Verdict::Unknown, "{host} {port}"),
            _ => assert!(matches!(verdict, Verdict::Match(_)), "{host} {port}: {verdict:?}"),
        }
    }
}

/// Files with one key per line, so that a verdict about a key tells whether its line speaks of the host.
fn file() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "a", "b", "a.b", "A.b", "*", "a*", "*.b", "?", "??b", "!a", "!*.b", "[a]:2222", "[*]:2222", "!b",
        "\\a",
    ]);
    let names = prop::collection::vec(name, 1..4).prop_map(|names| names.join(","));
    let marker = prop::sample::select(vec!["", "", "", "@revoked ", "  ", "\t", "#", "@other "]);
    let end = prop::sample::select(vec!["\n", "\r\n", " comment\n", "\n\n", "\n# comment\n"]);
    prop::collection::vec((marker, names, end), 1..8).prop_map(|lines| {
        let line = |(fill, (marker, names, end)): (u8, (&str, String, &str))| {
            format!("{marker}{names} {}{end}", fields(&ed25519(fill)))
        };
        (1..).zip(lines).map(line).collect()
    })
}

/// Proptest's loop, for tests that first look whether their oracle is there.
fn for_files(cases: u32, check: impl Fn(&Path, &str)) {
    let config = ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(3),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("known_hosts");
    TestRunner::new(config)
        .run(&file(), |text| {
            fs::write(&path, &text).unwrap();
            check(&path, &text);
            Ok(())
        })
        .unwrap();
}

const HOSTS: [(&str, u16); 5] = [("a", 22), ("b", 22), ("a.b", 22), ("a", 2222), ("c", 22)];

#[test]
fn lines_that_ssh_keygen_finds_are_the_lines_that_count() {
    need!("ssh-keygen");
    for_files(60, |path, text| {
        let known = KnownHosts::read(path).unwrap();
        for (host, port) in HOSTS {
            let name = HostName::new(host, port).unwrap();
            let output = ssh_keygen(&["-F", name.as_str(), "-f", path.to_str().unwrap()]);
            let prefix = format!("# Host {name} found: line ");
            let found: Vec<usize> = output
                .lines()
                .filter_map(|line| line.strip_prefix(&prefix)?.split(' ').next()?.parse().ok())
                .collect();
            let mut counting: Vec<usize> = (1..=8)
                .filter_map(|fill| match known.verdict(&name, &ed25519(fill)) {
                    Verdict::Match(at) | Verdict::Revoked(at) => Some(at.line),
                    Verdict::Unknown | Verdict::Changed { .. } | Verdict::OtherTypesKnown { .. } => None,
                })
                .collect();
            // Falling back to the bare name is ssh's doing, not the file's.
            if found.is_empty() && port != 22 {
                counting.clear();
            }
            // A host with a port that only has a revoked line counts as unknown there and falls back as well.
            counting.retain(|line| port == 22 || found.contains(line) || !is_bare(text, *line));
            assert_eq!(counting, found, "{name} in\n{text}");
        }
    });
}

fn is_bare(text: &str, line: usize) -> bool {
    !text.split('\n').nth(line - 1).unwrap().contains("2222")
}

#[test]
fn a_file_hashed_by_ssh_keygen_says_what_it_said() {
    need!("ssh-keygen");
    for_files(60, |path, text| {
        // It refuses files with lines it cannot read.
        fs::write(path, text.replace("@other ", "")).unwrap();
        let said = |path: &Path| -> Vec<&str> {
            let known = KnownHosts::read(path).unwrap();
            let verdicts = HOSTS.iter().flat_map(|&(host, port)| {
                let name = HostName::new(host, port).unwrap();
                (1..=8).map(|fill| known.verdict(&name, &ed25519(fill))).collect::<Vec<_>>()
            });
            verdicts.map(|verdict| word(&verdict)).collect()
        };
        let before = said(path);
        ssh_keygen(&["-H", "-f", path.to_str().unwrap()]);
        assert_eq!(said(path), before, "hashed from\n{text}into\n{}", fs::read_to_string(path).unwrap());
    });
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Match(_) => "match",
        Verdict::Unknown => "unknown",
        Verdict::Changed { .. } | Verdict::OtherTypesKnown { .. } => "changed",
        Verdict::Revoked(_) => "revoked",
    }
}

/// A server on a pipe with one Ed25519 key, and what `ssh` thinks of it.
struct Oracle {
    directory: tempfile::TempDir,
}

impl Oracle {
    fn start(directory: tempfile::TempDir, key: &Path) -> Oracle {
        let config =
            format!("HostKey {}\nUsePAM no\nLogLevel ERROR\nAuthorizedKeysFile none\n", key.display());
        fs::write(directory.path().join("sshd_config"), config).unwrap();
        Oracle { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// Strict checking tells the four answers apart without writing anything.
    fn says(&self, case: &Case, keys: &Keys) -> Result<&'static str, String> {
        fs::write(self.path("user"), keys.fill(case.user)).unwrap();
        fs::write(self.path("global"), keys.fill(case.global)).unwrap();
        self.ssh(&case.query, "yes")
    }

    fn ssh(&self, query: &Query, strict: &str) -> Result<&'static str, String> {
        let (host, port, alias) = match query {
            Query::Port(port) => (HOST, *port, None),
            Query::Host(host) => (*host, 22, None),
            Query::Alias(alias) => (HOST, 2222, Some(format!("HostKeyAlias={alias}"))),
        };
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-p", &port.to_string()]);
        for option in [
            format!("ProxyCommand={SSHD} -i -e -f {}", self.path("sshd_config")),
            format!("UserKnownHostsFile={}", self.path("user")),
            format!("GlobalKnownHostsFile={}", self.path("global")),
            format!("StrictHostKeyChecking={strict}"),
            "BatchMode=yes".to_owned(),
            "IdentityFile=none".to_owned(),
            "IdentityAgent=none".to_owned(),
            "PreferredAuthentications=none".to_owned(),
            "KexAlgorithms=curve25519-sha256".to_owned(),
        ]
        .into_iter()
        .chain(alias)
        {
            ssh.args(["-o", &option]);
        }
        let output = ssh.args([host, "true"]).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        let answers = [
            ("REVOKED HOST KEY DETECTED", "revoked"),
            ("HOST IDENTIFICATION HAS CHANGED", "changed"),
            ("host key is known for", "unknown"),
            ("Permission denied", "match"),
        ];
        let answer = answers.iter().find(|(sign, _)| text.contains(sign));
        answer.map(|(_, word)| *word).ok_or_else(|| text.into_owned())
    }
}

fn oracle() -> Option<(Oracle, Keys)> {
    let directory = tempfile::tempdir().unwrap();
    let (path, shown) = generate(directory.path(), "ed25519", "256");
    let (_, rsa) = generate(directory.path(), "rsa", "2048");
    let (_, ecdsa) = generate(directory.path(), "ecdsa", "256");
    let keys = Keys { shown, other: ed25519(2), rsa, ecdsa };
    let oracle = Oracle::start(directory, &path);
    let known = Case {
        name: "",
        user: "host.example {E}\n",
        global: "",
        query: Query::Port(22),
        expected: Expected::Match(1),
        openssh: None,
    };
    match oracle.says(&known, &keys) {
        Ok("match") => Some((oracle, keys)),
        Ok(other) => panic!("a known host is {other} to ssh"),
        // Where root never started the service, its directory under /run is missing.
        Err(text) if text.contains("privilege separation directory") => {
            eprintln!("skipped: sshd cannot run here: {text}");
            None
        }
        Err(text) => panic!("sshd does not answer on a pipe: {text}"),
    }
}

#[test]
fn ssh_says_of_every_case_what_the_table_says() {
    need!("ssh-keygen");
    need!("ssh");
    need!(SSHD);
    let Some((oracle, keys)) = oracle() else { return };
    for case in CASES {
        let expected = match case.openssh.unwrap_or(case.expected) {
            Expected::Match(_) => "match",
            Expected::Unknown => "unknown",
            Expected::Changed(_) | Expected::OtherTypes(_) => "changed",
            Expected::Revoked(_) => "revoked",
        };
        assert_eq!(oracle.says(case, &keys).as_deref(), Ok(expected), "{}", case.name);
    }
}

#[test]
fn ssh_and_we_learn_for_each_other() {
    need!("ssh-keygen");
    need!("ssh");
    need!(SSHD);
    let Some((oracle, keys)) = oracle() else { return };
    let user = oracle.path("user");
    for (port, hashing) in
        [(22, Hashing::Plain), (2222, Hashing::Plain), (22, Hashing::Hashed), (2222, Hashing::Hashed)]
    {
        let name = HostName::new(HOST, port).unwrap();
        fs::remove_file(&user).unwrap();
        assert!(matches!(append(&user, &name, &keys.shown, hashing).unwrap(), Learnt::Added(_)));
        assert_eq!(oracle.ssh(&Query::Port(port), "yes").as_deref(), Ok("match"), "{port} {hashing:?}");

        fs::remove_file(&user).unwrap();
        assert_eq!(oracle.ssh(&Query::Port(port), "accept-new").as_deref(), Ok("match"));
        let verdict = KnownHosts::read(&user).unwrap().verdict(&name, &keys.shown);
        assert!(matches!(verdict, Verdict::Match(at) if at.line == 1), "{port}");
    }
}
