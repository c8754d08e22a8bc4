//! A host resolved against a long configuration, and looked up in a long `known_hosts`: ours beside OpenSSH's own programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{at, binary, millis, ratio, row, timed};

const LINES: usize = 5000;

/// Blocks as people have them, each with a few settings; one in ten is a `Match`. The host asked for is in the last.
fn long_file() -> String {
    let mut text = String::new();
    for block in 0..LINES / 5 {
        let head = match block % 10 {
            9 => format!("Match host *.rack{block}.example user deploy"),
            _ => format!("Host web{block} web{block}.*.example !*.old.example"),
        };
        text += &format!(
            "{head}\n    HostName web{block}.rack.example\n    User deploy\n    IdentityFile ~/.ssh/rack{block}\n    \
             ProxyJump jump{}\n",
            block % 7
        );
    }
    text + "Host last\n    HostName last.example\n"
}

/// Resolving alone is the product's share of a connection; the whole process is what `--print-target` costs.
pub(crate) fn resolve() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    fs::write(&file, long_file()).unwrap();
    let measured = Command::new(binary("examples/resolve")).arg(&file).arg("last").output().unwrap();
    let measured = String::from_utf8(measured.stdout).unwrap();
    let mut micros = measured.split_whitespace().map(|micros| Duration::from_micros(micros.parse().unwrap()));
    let (reading, resolving) = (micros.next().unwrap(), micros.next().unwrap());

    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for round in 0..43 {
        let mut print = Command::new(binary("ssh-mcp-stdio"));
        print.args(["--print-target", "last", "--ssh-config-file"]).arg(&file).stdin(Stdio::null());
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&file).args(["-G", "last"]).stdin(Stdio::null());
        let (ours, theirs) = (timed(print), timed(ssh));
        if round >= 3 {
            own.push(ours);
            peer.push(theirs);
        }
    }
    let (own, peer) = (at(&mut own, 0.5), at(&mut peer, 0.5));
    let what = "a host in 5,000 lines of ssh_config";
    row(
        &format!("{what}, fresh process (peer: `ssh -G`)"),
        &millis(own),
        &millis(peer),
        ratio(own, peer),
        "<= 1",
    );
    row(&format!("{what}, read and resolved"), &millis(reading + resolving), "-", None, "<= 2 ms");
    row(&format!("{what}, resolved once read"), &millis(resolving), "-", None, "-");
}

const HOSTS: usize = 20_000;

/// A file as OpenSSH hashes it. The key is the same everywhere, because nobody compares it.
fn many_hosts(folder: &Path) -> PathBuf {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcI";
    let text: String = (0..HOSTS).map(|host| format!("host{host}.example {key}\n")).collect();
    let file = folder.join("known_hosts");
    fs::write(&file, text).unwrap();
    let hashed = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&file).output().unwrap();
    assert!(hashed.status.success(), "{hashed:?}");
    file
}

/// What a connection to a host that is not known costs: each line has to be looked at, under two names with a port.
pub(crate) fn judge() {
    let folder = tempfile::tempdir().unwrap();
    let file = many_hosts(folder.path());
    for (port, name) in [("22", "stranger.example"), ("2222", "[stranger.example]:2222")] {
        let measured =
            Command::new(binary("examples/judge")).arg(&file).args(["stranger.example", port]).output();
        let measured = String::from_utf8(measured.unwrap().stdout).unwrap();
        let micros: Vec<u64> = measured.split_whitespace().map(|micros| micros.parse().unwrap()).collect();
        let [reading, judging, learning] = micros[..] else { panic!("three figures: {measured:?}") };
        let mut peer = Vec::new();
        for _ in 0..11 {
            let mut find = Command::new("ssh-keygen");
            find.args(["-F", "host19999.example", "-f"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            peer.push(timed(find));
        }
        let peer = at(&mut peer, 0.5);
        let judged = Duration::from_micros(reading + judging);
        let what = format!("{name} in 20,000 hashed lines of known_hosts");
        let judge = format!("{what}, judged (peer: `ssh-keygen -F`)");
        row(&judge, &millis(judged), &millis(peer), ratio(judged, peer), "<= 20 ms");
        row(&format!("{what}, learnt"), &millis(Duration::from_micros(learning)), "-", None, "-");
    }
}
