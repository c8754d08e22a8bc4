//! The tables of `cases`, asked of this crate and of the real `ssh -G`.

use std::path::Path;
use std::process::Command;

use openssh_files::config::{
    AlgorithmKind, Config, LoadError, Local, Offer, Overrides, Owner, ResolveError, Source, Whose,
};

use super::cases::{AGREED, REFUSED};
use super::oracle::{self, ENVIRONMENT, Folder};

/// Who runs the tests, as `ssh` sees him.
pub(crate) struct Me {
    home: String,
    user: String,
    uid: u32,
    host_name: String,
}

impl Me {
    pub(crate) fn new() -> Me {
        let say = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
        };
        let uid = say("id", &["-u"]).parse().unwrap();
        let user = say("id", &["-un"]);
        Me { home: home_of(&user).unwrap(), user, uid, host_name: say("uname", &["-n"]) }
    }

    /// The whole way from a file to lines.
    pub(crate) fn lines(&self, config: &Path, host: &str, overrides: &Overrides) -> Result<String, String> {
        let config = self.load(config).map_err(|error| error.to_string())?;
        self.resolve(&config, host, overrides).map_err(|error| error.to_string())
    }

    pub(crate) fn load(&self, config: &Path) -> Result<Config, LoadError> {
        let source = Source { path: config.to_owned(), whose: Whose::Own, may_be_missing: false };
        let owner = Owner { uid: self.uid, private_group: None };
        Config::load(&[source], &self.home, &home_of, &owner)
    }

    fn resolve(&self, config: &Config, host: &str, overrides: &Overrides) -> Result<String, ResolveError> {
        let environment = |name: &str| {
            ENVIRONMENT.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let local = Local {
            home: &self.home,
            user: &self.user,
            uid: self.uid,
            host_name: &self.host_name,
            environment: &environment,
            home_of: &home_of,
            exec: &|command| Ok(Command::new("sh").arg("-c").arg(command).status()?.success()),
        };
        let resolved = config.resolve(host, overrides, &local)?;
        Ok(resolved.to_lines(|_| None))
    }
}

fn home_of(user: &str) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(5).map(str::to_owned)
}

#[test]
fn every_host_resolves_as_with_ssh() {
    if !oracle::is_there() {
        return;
    }
    let me = Me::new();
    let mut compared = 0;
    for case in AGREED {
        let folder = Folder::of(case);
        let config = folder.path("config");
        for host in case.hosts {
            let theirs = oracle::ssh(&config, host, &[]).map(|text| oracle::lines(&text));
            let ours = me.lines(&config, host, &Overrides::default()).map(|text| oracle::lines(&text));
            assert_eq!(ours, theirs, "{}, {host:?}:\n{}", case.name, case.config);
            assert!(ours.is_ok(), "{}, {host:?}: {ours:?}", case.name);
            compared += 1;
        }
    }
    assert!(compared >= 60, "only {compared} pairs of file and host");
}

#[test]
fn what_ssh_refuses_is_refused() {
    if !oracle::is_there() {
        return;
    }
    let me = Me::new();
    for case in REFUSED {
        let folder = Folder::of(case);
        let config = folder.path("config");
        for host in case.hosts {
            let theirs = oracle::ssh(&config, host, &[]);
            assert!(theirs.is_err(), "ssh takes {}: {theirs:?}", case.name);
            let ours = me.lines(&config, host, &Overrides::default());
            let error = ours.expect_err(case.name);
            assert!(!error.contains('\n'), "{}: {error}", case.name);
        }
    }
}

#[test]
fn arguments_of_a_call_hold_as_with_ssh() {
    if !oracle::is_there() {
        return;
    }
    const CONFIG: &str = "User file\nPort 1\nIdentityFile file\nAddressFamily inet\nForwardAgent yes\nCompression no\n\
        SetEnv A=1\nSendEnv A\nProxyJump file\nHostName %h.file\nMatch user call\n BindAddress b\n";
    let me = Me::new();
    let folder = Folder::new();
    folder.write("config", CONFIG);
    let config = folder.path("config");
    for arguments in [
        &["-p", "4"][..],
        &["-p4", "-lcall"],
        &["-o", "Port=5", "-p", "6"],
        &["-p", "6", "-o", "Port=5"],
        &["-l", "call", "-l", "b"],
        &["-o", "User = call # b"],
        &["-oUser call"],
        &["-6"],
        &["-46"],
        &["-4", "-o", "AddressFamily=inet6"],
        &["-o", "AddressFamily=any", "-6"],
        &["-o", "Compression=no", "-C"],
        &["-A", "-a"],
        &["-a", "-o", "ForwardAgent=yes"],
        &["-vCAp", "7"],
        &["-J", "a,b"],
        &["-J", "none"],
        &["-J", "a", "-o", "ProxyJump=b"],
        &["-o", "ProxyJump=none"],
        &["-o", "SetEnv=B=2", "-o", "SendEnv=B C"],
        &["-o", "HostName=%h.call"],
        &["-o", "IdentityFile=a", "-o", "IdentityFile=b"],
        &["-o", "UserKnownHostsFile=~/a b", "-o", "StrictHostKeyChecking=no"],
        // Both refuse.
        &["-p", "0"],
        &["-J", "a", "-J", "b"],
        &["-o", "ProxyJump=b", "-J", "a"],
        &["-o", "Port"],
        &["-o", "Host=x"],
        &["-o", "Match=all"],
        &["-o", "Include=/x"],
        &["-l", "a;b"],
        &["-l", "-a"],
        &["-J", "a:x"],
    ] {
        let theirs = oracle::ssh(&config, "h", arguments).map(|text| oracle::lines(&text));
        let mut overrides = Overrides::default();
        let ours = match overrides.arguments(arguments) {
            Ok(()) => me.lines(&config, "h", &overrides).map(|text| oracle::lines(&text)),
            Err(error) => Err(error.to_string()),
        };
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{arguments:?}"),
            (Err(_), Err(_)) => {}
            (ours, theirs) => panic!("{arguments:?}: {ours:?}, but ssh: {theirs:?}"),
        }
    }
}

/// ssh's own defaults are what ours are laid on: then even whole lists must be equal.
#[test]
fn algorithm_lists_are_those_of_ssh() {
    if !oracle::is_there() {
        return;
    }
    let me = Me::new();
    let folder = Folder::new();
    let config = folder.path("config");
    let value = |text: &str, keyword: &str| -> Vec<String> {
        let line = text.lines().find_map(|line| line.strip_prefix(keyword)?.strip_prefix(' ')).unwrap();
        line.split(',').map(str::to_owned).collect()
    };
    for (query, keyword, kind, values) in [
        ("cipher", "ciphers", AlgorithmKind::Ciphers, &["aes128-ctr", "aes256-ctr,aes128-cbc"][..]),
        ("mac", "macs", AlgorithmKind::Macs, &["hmac-sha1", "hmac-sha2-512,hmac-md5,hmac-sha1"]),
        ("kex", "kexalgorithms", AlgorithmKind::Kex, &["curve25519-sha256", "diffie-hellman-group1-sha1"]),
        ("key", "hostkeyalgorithms", AlgorithmKind::HostKey, &["ssh-rsa", "*ed25519*", "rsa-sha2-256,ssh-*"]),
        (
            "key",
            "pubkeyacceptedalgorithms",
            AlgorithmKind::PubkeyAccepted,
            &["ssh-rsa", "ecdsa*,ssh-ed25519"],
        ),
    ] {
        folder.write("config", "");
        let default = value(&oracle::ssh(&config, "h", &[]).unwrap(), keyword);
        let default: Vec<&str> = default.iter().map(String::as_str).collect();
        let query = if query == "key" { "HostKeyAlgorithms" } else { query };
        let known = Command::new("ssh").args(["-Q", query]).output().unwrap().stdout;
        let known = String::from_utf8(known).unwrap();
        let known: Vec<&str> = known.lines().collect();
        for written in
            values.iter().flat_map(|value| ["", "+", "-", "^"].map(|sign| format!("{sign}{value}")))
        {
            folder.write(
                "config",
                &format!("{keyword} {written}\n{keyword} ignored\n").replace("ignored", "-x"),
            );
            let theirs = value(&oracle::ssh(&config, "h", &[]).unwrap(), keyword);
            let config = me.load(&config).unwrap();
            let local = Local {
                home: "/",
                user: "me",
                uid: 0,
                host_name: "here",
                environment: &|_| None,
                home_of: &|_| None,
                exec: &|_| Ok(false),
            };
            let resolved = config.resolve("h", &Overrides::default(), &local).unwrap();
            let ours =
                resolved.to_lines(|of| (of == kind).then_some(Offer { default: &default, known: &known }));
            assert_eq!(value(&ours, keyword), theirs, "{keyword} {written}");
        }
    }
}

#[test]
fn included_files_that_others_may_write_are_refused_in_the_same_words() {
    use std::os::unix::fs::PermissionsExt as _;
    if !oracle::is_there() {
        return;
    }
    let me = Me::new();
    let folder = Folder::new();
    folder.write("config", "Include {D}/included\n");
    for mode in [0o620, 0o602, 0o666, 0o644, 0o400] {
        folder.write("included", "User a\n");
        let included = folder.path("included");
        std::fs::set_permissions(&included, std::fs::Permissions::from_mode(mode)).unwrap();
        let theirs = oracle::ssh(&folder.path("config"), "h", &[]);
        let ours = me.lines(&folder.path("config"), "h", &Overrides::default());
        let refusal = format!("Bad owner or permissions on {}", included.display());
        match mode & 0o022 {
            0 => assert!(theirs.is_ok() && ours.is_ok(), "{mode:o}: {ours:?} {theirs:?}"),
            _ => {
                // A group with nobody else in it may write, with Debian's OpenSSH; we were told of none.
                if mode & 0o002 != 0 {
                    assert_eq!(theirs.unwrap_err().trim_end(), refusal, "{mode:o}");
                }
                assert_eq!(ours.unwrap_err(), refusal, "{mode:o}");
            }
        }
    }
}
