//! What the reader says, case by case, and how it fails.

use std::path::Path;

use openssh_files::known_hosts::{
    Authority, HostKey, HostKeyError, HostName, HostNameError, KnownHosts, Location, ReadError, Verdict,
};

use crate::cases::{CASES, Case, Expected, HOST, Keys, Query};
use crate::keys::{blob, ecdsa, ed25519, fields, rsa};

#[test]
fn every_case_of_the_table() {
    let keys = Keys { shown: ed25519(1), other: ed25519(2), rsa: rsa(3), ecdsa: ecdsa(4) };
    let directory = tempfile::tempdir().unwrap();
    for case in CASES {
        let (user, global) = (directory.path().join("user"), directory.path().join("global"));
        std::fs::write(&user, keys.fill(case.user)).unwrap();
        std::fs::write(&global, keys.fill(case.global)).unwrap();
        let known = KnownHosts::read_all([&user, &global]).unwrap();
        // Who reads about one host only hears the same of it.
        let about = KnownHosts::read_about([&user, &global], &name(case)).unwrap();
        let of = |known: &KnownHosts| {
            let name = name(case);
            (known.verdict(&name, &keys.shown), known.known_key_types(&name), known.has_authority(&name))
        };
        assert_eq!(of(&about), of(&known), "{}", case.name);
        let lines_before = |at: &Location| if at.file == user { 0 } else { case.user.split('\n').count() };
        let line = |at: Location| lines_before(&at) + at.line;
        let said = match known.verdict(&name(case), &keys.shown) {
            Verdict::Match(at) => Expected::Match(line(at)),
            Verdict::Unknown => Expected::Unknown,
            Verdict::Changed { at, known } => {
                assert_eq!(known, keys.other.fingerprint(), "{}", case.name);
                Expected::Changed(line(at))
            }
            Verdict::OtherTypesKnown { types, at } => {
                assert!(!types.is_empty() && !types.contains(&"ssh-ed25519"), "{}: {types:?}", case.name);
                Expected::OtherTypes(line(at))
            }
            Verdict::Revoked(at) => Expected::Revoked(line(at)),
        };
        assert_eq!(said, case.expected, "{}", case.name);
    }
}

pub(crate) fn name(case: &Case) -> HostName {
    match case.query {
        Query::Port(port) => HostName::new(HOST, port),
        Query::Host(host) => HostName::new(host, 22),
        Query::Alias(alias) => HostName::alias(alias),
    }
    .unwrap()
}

#[test]
fn other_types_are_named_once_in_the_order_of_the_file() {
    let text = format!("h {}\nh {}\nh {}\n", fields(&rsa(1)), fields(&ecdsa(1)), fields(&rsa(2)));
    let Verdict::OtherTypesKnown { types, at } = verdict(&text, "h", &ed25519(1)) else {
        panic!("not refused")
    };
    assert_eq!((types, at.to_string()), (vec!["ssh-rsa", "ecdsa-sha2-nistp256"], "kh:1".to_owned()));
}

#[test]
fn known_types_come_in_the_order_of_the_file_without_revoked_keys() {
    let text = format!(
        "*.x {rsa}\na.x,b.x {ed}\n@revoked b.x {rsa}\n@cert-authority * {ec}\nb.x {other_rsa}\n[c.x]:22 {ec}\n",
        rsa = fields(&rsa(1)),
        other_rsa = fields(&rsa(2)),
        ed = fields(&ed25519(1)),
        ec = fields(&ecdsa(1)),
    );
    let known = KnownHosts::parse("kh", text.as_bytes());
    let check = |host: &str, port, expected: &[&str]| {
        assert_eq!(known.known_key_types(&HostName::new(host, port).unwrap()), expected, "{host}:{port}");
    };
    check("a.x", 22, &["ssh-rsa", "ssh-ed25519"]);
    check("b.x", 22, &["ssh-ed25519", "ssh-rsa"]);
    check("a.x", 2222, &["ssh-rsa", "ssh-ed25519"]);
    check("a.y", 22, &[]);
}

#[test]
fn an_authority_is_trusted_with_the_hosts_of_its_line_unless_revoked() {
    let (ca, other, key, plain) = (ed25519(1), ed25519(2), ed25519(3), ed25519(4));
    let text = format!(
        "@cert-authority *.x,!bad.x {ca}\n@cert-authority [p.y]:* {ca}\nh.z {ca}\n@revoked r.x {key}\n\
         @revoked s.x {ca}\n@cert-authority q.y {ca}\n",
        ca = fields(&ca),
        key = fields(&key),
    );
    let known = KnownHosts::parse("kh", text.as_bytes());
    let at = |line| Location { file: "kh".into(), line };
    let check = |host: &str, port, key: &HostKey, signer: &HostKey, expected: Authority| {
        let name = HostName::new(host, port).unwrap();
        assert_eq!(known.authority(&name, key, signer), expected, "{name}");
    };
    check("a.x", 22, &plain, &ca, Authority::Trusted(at(1)));
    check("a.x", 2222, &plain, &ca, Authority::Trusted(at(1)));
    check("p.y", 2222, &plain, &ca, Authority::Trusted(at(2)));
    check("q.y", 2222, &plain, &ca, Authority::Trusted(at(6)));
    for (host, signer) in [("a.x", &other), ("bad.x", &ca), ("p.y", &ca), ("h.z", &ca)] {
        check(host, 22, &plain, signer, Authority::Unknown);
    }
    check("r.x", 22, &key, &ca, Authority::Revoked(at(4)));
    check("r.x", 2222, &key, &ca, Authority::Revoked(at(4)));
    check("r.x", 22, &plain, &ca, Authority::Trusted(at(1)));
    check("s.x", 22, &plain, &ca, Authority::Revoked(at(5)));
    for (host, port, expected) in
        [("a.x", 2222, true), ("p.y", 22, false), ("p.y", 23, true), ("h.z", 22, false)]
    {
        assert_eq!(known.has_authority(&HostName::new(host, port).unwrap()), expected, "{host}:{port}");
    }
}

#[test]
fn principals_name_a_host_without_its_port() {
    for (principal, host, is_it) in [
        ("Box.example", "box.EXAMPLE", true),
        ("*.example", "box.example", true),
        ("bo?.example", "box.example", true),
        ("example", "box.example", false),
        ("", "box.example", false),
        // One pattern, not a list.
        ("box.example,other", "box.example", false),
        ("!other", "box.example", false),
    ] {
        for port in [22, 2222] {
            assert_eq!(
                HostName::new(host, port).unwrap().is_principal(principal),
                is_it,
                "{principal} {host}"
            );
        }
    }
    assert!(HostName::alias("alias").unwrap().is_principal("alias"));
}

#[test]
fn names_as_they_stand_in_the_file() {
    let check = |host: &str, port, expected: Result<&str, HostNameError>| {
        assert_eq!(HostName::new(host, port).as_ref().map(HostName::as_str), expected.as_ref().copied());
    };
    check("Host.Example", 22, Ok("host.example"));
    check("host", 2222, Ok("[host]:2222"));
    check("192.0.2.1", 22, Ok("192.0.2.1"));
    check("2001:DB8::1", 22, Ok("2001:db8::1"));
    check("[2001:db8::1]", 22, Ok("2001:db8::1"));
    check("2001:db8::1", 2222, Ok("[2001:db8::1]:2222"));
    check("fe80::1%eth0", 22, Ok("fe80::1%eth0"));
    check("", 22, Err(HostNameError::Empty));
    check("[]", 22, Err(HostNameError::Empty));
    check("a\nb ssh-ed25519 AAAA", 22, Err(HostNameError::Forbidden('\n')));
    check("a\u{a0}b", 22, Err(HostNameError::Forbidden('\u{a0}')));
    check("a]:1", 22, Err(HostNameError::Forbidden(']')));
    for forbidden in " \t\r\0,*?!|#@[".chars() {
        check(&format!("a{forbidden}b"), 22, Err(HostNameError::Forbidden(forbidden)));
    }
    check(&"a".repeat(1000), 22, Ok(&"a".repeat(1000)));
    check(&"a".repeat(1001), 22, Err(HostNameError::TooLong));
    assert_eq!(HostName::alias("[Cluster]:7").unwrap().as_str(), "[cluster]:7");
    assert_eq!(HostName::alias("a,b"), Err(HostNameError::Forbidden(',')));
}

#[test]
fn blobs_that_are_keys() {
    let point = |length: usize| [&[4][..], &vec![9; length - 1]].concat();
    let modulus = [&[0, 0x80][..], &[9; 127]].concat();
    let check = |fields: &[&[u8]]| {
        let key = HostKey::parse(&blob(fields)).unwrap();
        assert_eq!((key.algorithm().as_bytes(), key.as_blob()), (fields[0], blob(fields).as_slice()));
    };
    check(&[b"ssh-ed25519", &[9; 32]]);
    check(&[b"ecdsa-sha2-nistp256", b"nistp256", &point(65)]);
    check(&[b"ecdsa-sha2-nistp384", b"nistp384", &point(97)]);
    check(&[b"ecdsa-sha2-nistp521", b"nistp521", &point(133)]);
    check(&[b"ssh-rsa", &[1, 0, 1], &modulus]);
    check(&[b"ssh-rsa", &[3], &[0x7f; 129]]);
    check(&[b"ssh-dss", &[1], &[2], &[3], &[4]]);
    check(&[b"sk-ssh-ed25519@openssh.com", &[9; 32], b"ssh:"]);
    check(&[b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", &point(65), b"ssh:"]);
}

#[test]
fn blobs_that_are_not() {
    let check = |bytes: &[u8], expected: HostKeyError| {
        assert_eq!(HostKey::parse(bytes), Err(expected), "{bytes:?}");
    };
    let unknown = |name: &str| HostKeyError::UnknownType(name.to_owned());
    check(b"", HostKeyError::Malformed);
    check(&[0, 0, 0, 9, b'x'], HostKeyError::Malformed);
    check(&[0xff; 64], HostKeyError::Malformed);
    check(&blob(&[b"", b"x"]), HostKeyError::Malformed);
    check(&blob(&[b"a b"]), HostKeyError::Malformed);
    check(&blob(&[b"\xff\xfe"]), HostKeyError::Malformed);
    check(&blob(&[&[b'x'; 65]]), HostKeyError::Malformed);
    check(&blob(&[b"ssh-nope", b"x"]), unknown("ssh-nope"));
    check(&blob(&[b"ssh-ed25519-cert-v01@openssh.com", b"x"]), unknown("ssh-ed25519-cert-v01@openssh.com"));
    check(&blob(&[b"ssh-ed25519"]), HostKeyError::Malformed);
    check(&blob(&[b"ssh-ed25519", &[9; 31]]), HostKeyError::Malformed);
    check(&blob(&[b"ssh-ed25519", &[9; 32], b""]), HostKeyError::Malformed);
    check(&blob(&[b"ecdsa-sha2-nistp256", b"nistp384", &[4; 65]]), HostKeyError::Malformed);
    check(&blob(&[b"ecdsa-sha2-nistp256", b"nistp256", &[2; 65]]), HostKeyError::Malformed);
    check(&blob(&[b"ssh-rsa", &[3], &[0x7f; 128]]), HostKeyError::Malformed);
    check(&blob(&[b"ssh-rsa", &[3], &[0x80; 256]]), HostKeyError::Malformed);
    check(&blob(&[b"ssh-rsa", &[3], &[0x7f; 17 << 10]]), HostKeyError::Malformed);
}

#[test]
fn a_missing_file_is_empty_and_an_unreadable_one_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no/such/file");
    let host = HostName::new("h", 22).unwrap();
    assert_eq!(KnownHosts::read(&missing).unwrap().verdict(&host, &ed25519(1)), Verdict::Unknown);
    assert_eq!(KnownHosts::read("/dev/null").unwrap().verdict(&host, &ed25519(1)), Verdict::Unknown);

    let error = KnownHosts::read_all([missing.as_path(), directory.path()]).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is not a file", directory.path().display()));

    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below_a_file = file.join("known_hosts");
    let ReadError::Io { path, source } = KnownHosts::read(&below_a_file).unwrap_err() else {
        panic!("other error")
    };
    assert_eq!((path, source.kind()), (below_a_file, std::io::ErrorKind::NotADirectory));
}

#[cfg(unix)]
#[test]
fn a_file_without_permission_is_an_error() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("known_hosts");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::File::open(&file).is_ok() {
        eprintln!("skipped: this user may read files of mode 0000");
        return;
    }
    let error = KnownHosts::read(&file).unwrap_err();
    assert!(
        matches!(&error, ReadError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
    );
    assert_eq!(error.to_string(), format!("cannot read {}", file.display()));
}

#[cfg(unix)]
#[test]
fn what_could_block_or_never_end_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(KnownHosts::read(&socket), Err(ReadError::NotAFile { .. })));

    // Sparse: takes no room on the disk.
    let large = directory.path().join("large");
    std::fs::File::create(&large).unwrap().set_len((64 << 20) + 1).unwrap();
    assert!(matches!(KnownHosts::read(&large), Err(ReadError::TooLarge { .. })));
}

#[test]
fn long_lines_are_read_and_hide_nothing() {
    let key = ed25519(1);
    let check = |line: String, expected: usize| {
        let text = format!("{line}\nlast {}\n", fields(&key));
        let at = |line| Verdict::Match(Location { file: "kh".into(), line });
        assert_eq!(verdict(&text, "last", &key), at(2));
        let first = verdict(&text, "first", &key);
        assert_eq!(first, if expected == 0 { Verdict::Unknown } else { at(expected) });
    };
    let many: String = (0..20_000).map(|n| format!("host{n},")).collect();
    check(format!("{many}first {}", fields(&key)), 1);
    check(format!("first {} {}", fields(&key), "comment ".repeat(100_000)), 1);
    check(format!("first ssh-ed25519 {}", "A".repeat(1 << 20)), 0);
    check("first".repeat(1 << 20), 0);
    check(format!("{},first {}", "a".repeat(2000), fields(&key)), 0);
}

fn verdict(text: &str, host: &str, key: &HostKey) -> Verdict {
    KnownHosts::parse(Path::new("kh"), text.as_bytes()).verdict(&HostName::new(host, 22).unwrap(), key)
}
