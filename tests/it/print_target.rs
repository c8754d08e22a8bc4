//! `--print-target` of the binaries says of every case of `openssh-files` what `ssh -G` says.
//!
//! Here it is the whole way: command line, environment, files, standard output and exit code. Larger numbers of generated
//! files are compared in that crate.

#[path = "../../crates/openssh-files/tests/it/config/cases.rs"]
mod cases;
#[path = "../../crates/openssh-files/tests/it/config/oracle.rs"]
mod oracle;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use cases::{AGREED, REFUSED};
use oracle::{ENVIRONMENT, Folder};

use crate::client::binary;

/// The binary with the variables that `ssh` gets, and the home directory that `ssh` takes from the system.
fn print_target(name: &str, arguments: &[&str], home: &str) -> Output {
    let mut program = Command::new(binary(name));
    program.args(arguments).env_clear().envs(ENVIRONMENT).env("HOME", home);
    program
        .envs(std::env::vars_os().filter(|(name, _)| name == "PATH"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn of_file(name: &str, config: &Path, host: &str) -> Result<String, String> {
    let arguments = ["--print-target", host, "--ssh-config-file", config.to_str().unwrap()];
    let output = print_target(name, &arguments, &home());
    let (said, complained) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    match output.status.code() {
        Some(0) => {
            assert_eq!(complained, "", "{host}");
            Ok(said)
        }
        code => {
            assert_eq!((code, said.as_str()), (Some(2), ""), "{host}: {complained}");
            assert_eq!(complained.matches('\n').count(), 1, "{complained}");
            Err(complained)
        }
    }
}

fn home() -> String {
    let uid = Command::new("id").arg("-u").output().unwrap().stdout;
    let uid = String::from_utf8(uid).unwrap();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let mine = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.trim()));
    mine.and_then(|line| line.split(':').nth(5)).unwrap().to_owned()
}

#[test]
fn every_host_of_every_case_is_printed_as_ssh_prints_it() {
    if !oracle::is_there() {
        return;
    }
    let binaries = ["ssh-mcp-stdio", "ssh-mcp"];
    let mut compared = 0;
    for case in AGREED {
        let folder = Folder::of(case);
        let config = folder.path("config");
        for host in case.hosts {
            let theirs = oracle::ssh(&config, host, &[]).unwrap();
            let ours = of_file(binaries[compared % 2], &config, host).unwrap();
            assert_eq!(
                oracle::lines(&ours),
                oracle::lines(&theirs),
                "{}, {host:?}:\n{}",
                case.name,
                case.config
            );
            compared += 1;
        }
    }
    assert!(compared >= 60, "only {compared} pairs of file and host");
}

#[test]
fn what_ssh_refuses_is_refused_in_one_line() {
    if !oracle::is_there() {
        return;
    }
    for case in REFUSED {
        let folder = Folder::of(case);
        let config = folder.path("config");
        for host in case.hosts {
            assert!(oracle::ssh(&config, host, &[]).is_err(), "ssh takes {}", case.name);
            let error = of_file("ssh-mcp-stdio", &config, host).expect_err(case.name);
            assert!(error.starts_with("error: "), "{error}");
        }
    }
}

#[test]
fn algorithm_lists_agree_on_what_both_know() {
    if !oracle::is_there() {
        return;
    }
    let folder = Folder::new();
    let value = |text: &str, keyword: &str, known: &[String]| -> Vec<String> {
        let line = text.lines().find_map(|line| line.strip_prefix(keyword)?.strip_prefix(' ')).unwrap();
        line.split(',').filter(|name| known.iter().any(|known| known == name)).map(str::to_owned).collect()
    };
    let all = |text: &str, keyword: &str| -> Vec<String> {
        let line = text.lines().find_map(|line| line.strip_prefix(keyword)?.strip_prefix(' ')).unwrap();
        line.split(',').map(str::to_owned).collect()
    };
    for (query, keyword, lists) in [
        (
            "cipher",
            "ciphers",
            &["", "aes128-ctr,aes256-cbc", "+aes128-cbc", "-aes128*", "^aes256-ctr,aes192-cbc"][..],
        ),
        ("mac", "macs", &["", "hmac-sha2-512", "-*etm*", "^hmac-sha1"]),
        ("kex", "kexalgorithms", &["", "+diffie-hellman-group1-sha1", "-diffie*", "^ecdh-sha2-nistp521"]),
        ("HostKeyAlgorithms", "hostkeyalgorithms", &["", "ssh-rsa", "+ssh-rsa", "-ecdsa*", "^rsa-sha2-256"]),
        ("PubkeyAcceptedAlgorithms", "pubkeyacceptedalgorithms", &["", "+ssh-rsa", "-*cert*", "^*ed25519"]),
    ] {
        // What both know: all that `ssh` knows, and all that we do, which is what is left when nothing is taken away.
        let theirs = Command::new("ssh").args(["-Q", query]).output().unwrap().stdout;
        let theirs: Vec<String> = String::from_utf8(theirs).unwrap().lines().map(str::to_owned).collect();
        folder.write("config", &format!("{keyword} +{}\n", theirs.join(",")));
        let ours = all(&of_file("ssh-mcp-stdio", &folder.path("config"), "h").unwrap(), keyword);
        let known: Vec<String> = theirs.into_iter().filter(|name| ours.contains(name)).collect();
        assert!(known.len() >= 6, "{known:?}");
        for list in lists {
            let line = if list.is_empty() { String::new() } else { format!("{keyword} {list}\n") };
            folder.write("config", &line);
            let theirs = oracle::ssh(&folder.path("config"), "h", &[]).unwrap();
            let ours = of_file("ssh-mcp-stdio", &folder.path("config"), "h").unwrap();
            assert_eq!(value(&ours, keyword, &known), value(&theirs, keyword, &known), "{keyword} {list:?}");
        }
    }
}

#[test]
fn which_files_are_read() {
    let home = Folder::new();
    let path = home.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    home.write(".ssh/config", "Include more\nPort 33\n");
    home.write(".ssh/more", "User included\n");
    let said = |arguments: &[&str]| {
        let output = print_target("ssh-mcp-stdio", arguments, &path);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let has = |text: &str, line: &str| text.lines().any(|known| known == line);
    let usual = said(&["--print-target", "h"]);
    assert!(has(&usual, "port 33") && has(&usual, "user included"), "{usual}");
    assert!(has(&usual, &format!("userknownhostsfile {path}/.ssh/known_hosts {path}/.ssh/known_hosts2")));
    let none = said(&["--print-target", "you@[2001:db8::1]:44", "--ssh-config-file", "none"]);
    for line in ["host 2001:db8::1", "user you", "port 44", "hashknownhosts no"] {
        assert!(has(&none, line), "{none}");
    }

    let refused = |arguments: &[&str]| {
        let output = print_target("ssh-mcp", arguments, &path);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let missing = refused(&["--print-target", "h", "--ssh-config-file", "/no/such/file"]);
    assert_eq!(missing, "error: cannot read /no/such/file: No such file or directory (os error 2)\n");
    assert_eq!(
        refused(&["--print-target", "-oProxyCommand=x@h"]).lines().next(),
        Some("error: unexpected argument '-o' found")
    );
    assert_eq!(refused(&["--print-target=a;b"]), "error: bad host name \"a;b\"\n");
    refused(&["--ssh-config-file", "none"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let config = home.path(".ssh/config");
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = refused(&["--print-target", "h"]);
        assert_eq!(error, format!("error: Bad owner or permissions on {}\n", config.display()));
    }
}
