//! Trees both ways against rsync: `scripts/bench mirror`.
//!
//! The peer is `rsync -a -e ssh` as people run it, with a connection of its own each time and the cipher that the product agrees
//! on; the product's session is open before. Both sides have the same options, trees and destinations, and take turns. Both
//! ends are in memory where there is room.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    net::SocketAddr,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    MIB, at,
    client::McpClient,
    connect,
    files::{GIB, Way, agreed_cipher, assert_same, in_memory_is_room},
    millis, ratio, row,
    sshd::{ClientKey, OpenSshd, Options, Proxy, Rsync, User},
    status_kib, stdio, timed,
};

/// The parts that are wanted.
pub(crate) async fn measure(run: impl Fn(&str) -> bool) {
    if run("mirror large") {
        let yard = Yard::set().await;
        yard.large();
        yard.rounds("first copy of 1 GiB in one file", "<= 1.1", 3, Before::Nothing).await;
    }
    if run("mirror delta") {
        let yard = Yard::set().await;
        yard.large();
        yard.older();
        yard.rounds("1 GiB with 1 % changed and 1 MiB inserted", "<= 1.1", 3, Before::Older).await;
        passed(&yard).await;
    }
    if run("mirror many") {
        let yard = Yard::set().await;
        yard.many(200, 100, 4096);
        yard.rounds("first copy of 20,000 files of 4 KiB", "<= 1.1", 5, Before::Nothing).await;
        yard.rounds("nothing to do on 20,000 files", "<= 1.2", 5, Before::Same).await;
    }
    if run("mirror walk") {
        let yard = Yard::set().await;
        yard.many(20, 100, 4096);
        walk(&yard).await;
    }
    if run("mirror memory") {
        let yard = Yard::set().await;
        yard.many(200, 1000, 0);
        memory(&yard, "200,000 files", Before::Nothing, &["--no-inc-recursive"], "<= 1.2").await;
    }
    if run("mirror huge") {
        let yard = Yard::set().await;
        yard.huge();
        memory(&yard, "4 GiB in one file with a changed MiB", Before::Older, &[], "its block table").await;
    }
}

/// What is at a destination before a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// An older version of the source.
    Older,
    /// What the first round left.
    Same,
}

/// A server whose users find an rsync, and the folders.
struct Yard {
    server: OpenSshd,
    rsync: Rsync,
    cipher: String,
    folder: TempDir,
    _programs: TempDir,
}

impl Yard {
    async fn set() -> Self {
        let programs = tempfile::tempdir().unwrap();
        fs::set_permissions(programs.path(), Permissions::from_mode(0o755)).unwrap();
        let rsync = Rsync::copied_or_skip(programs.path()).expect("this part needs an rsync");
        let mut extra = rsync.for_sshd();
        extra.push("Subsystem sftp internal-sftp".into());
        let server = OpenSshd::start_or_skip(Options { extra, ..Options::default() });
        let server = server.expect("benchmarks need a real sshd and root");
        let folder = if in_memory_is_room().unwrap_or_default() {
            tempfile::Builder::new().prefix("ssh-mcp-bench-").tempdir_in("/dev/shm")
        } else {
            eprintln!("no room in /dev/shm: the disk takes part in the figures of mirrors");
            tempfile::Builder::new().prefix("ssh-mcp-bench-").tempdir()
        };
        let folder = folder.unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let cipher = agreed_cipher(&server).await;
        let yard = Self { server, rsync, cipher, folder, _programs: programs };
        for part in ["source", "older", "far", "here"] {
            fs::create_dir(yard.path(part)).unwrap();
        }
        yard.give(&yard.path("far"));
        yard
    }

    fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    /// Makes something the property of the user of the far side.
    fn give(&self, path: &Path) {
        let owner = fs::metadata(self.server.home(User::Tester)).unwrap();
        chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    fn large(&self) {
        let mut bytes = File::open("/dev/urandom").unwrap().take(GIB);
        io::copy(&mut bytes, &mut File::create(self.path("source").join("file")).unwrap()).unwrap();
    }

    /// 4 GiB, most of them never written but no two blocks of them alike to a search, and an older version.
    fn huge(&self) {
        for (part, changed) in [("older", 1), ("source", 2)] {
            let mut file = File::create(self.path(part).join("file")).unwrap();
            for block in 0..4 * GIB / MIB {
                file.seek(SeekFrom::Start(block * MIB)).unwrap();
                file.write_all(&block.to_le_bytes()).unwrap();
            }
            file.seek(SeekFrom::Start(3 * GIB)).unwrap();
            file.write_all(&vec![changed; MIB as usize]).unwrap();
            file.set_len(4 * GIB).unwrap();
        }
        self.age_older();
    }

    /// The same with 1 MiB missing and 160 pieces of 64 KiB, one in a hundred bytes, different.
    fn older(&self) {
        let mut source = File::open(self.path("source").join("file")).unwrap();
        let mut older = File::create(self.path("older").join("file")).unwrap();
        io::copy(&mut (&source).take(300 * MIB), &mut older).unwrap();
        source.seek(SeekFrom::Start(301 * MIB)).unwrap();
        let len = io::copy(&mut source, &mut older).unwrap() + 300 * MIB;
        let mut random = File::open("/dev/urandom").unwrap();
        for place in 0..160 {
            let mut piece = vec![0; 65536];
            random.read_exact(&mut piece).unwrap();
            older.seek(SeekFrom::Start(place * (len / 160))).unwrap();
            older.write_all(&piece).unwrap();
        }
        self.age_older();
    }

    fn age_older(&self) {
        let older = File::options().write(true).open(self.path("older").join("file")).unwrap();
        older.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    }

    fn many(&self, directories: usize, files: usize, len: usize) {
        let mut random = File::open("/dev/urandom").unwrap();
        let mut content = vec![0; len];
        for directory in 0..directories {
            let directory = self.path("source").join(format!("directory-{directory:03}"));
            fs::create_dir_all(&directory).unwrap();
            for file in 0..files {
                random.read_exact(&mut content).unwrap();
                fs::write(directory.join(format!("some-file-{file:04}")), &content).unwrap();
            }
        }
    }

    /// Where a way ends, for one of the two who take turns.
    fn destination(&self, way: Way, who: &str) -> PathBuf {
        self.path(match way {
            Way::Up => "far",
            Way::Down => "here",
        })
        .join(who)
    }

    fn prepare(&self, destination: &Path, way: Way, before: Before) {
        if before == Before::Same {
            return;
        }
        if destination.exists() {
            fs::remove_dir_all(destination).unwrap();
        }
        if before == Before::Older {
            fs::create_dir(destination).unwrap();
            let mut copy = Command::new("cp");
            copy.arg("--preserve=timestamps").arg(self.path("older").join("file")).arg(destination);
            assert!(copy.status().unwrap().success());
            if let Way::Up = way {
                self.give(destination);
                self.give(&destination.join("file"));
            }
        }
    }

    /// `rsync -a` of the source's content.
    fn peer(&self, way: Way, options: &[&str]) -> Command {
        self.peer_by(way, options, self.server.addr())
    }

    /// The same by another address of the server.
    fn peer_by(&self, way: Way, options: &[&str], addr: SocketAddr) -> Command {
        let ssh = self.server.client(User::Tester, ClientKey::Ed25519);
        let words: Vec<_> = ssh.get_args().collect();
        // The last one is the host.
        let (_, options_of_ssh) = words.split_last().unwrap();
        // Of each option ssh takes the first.
        let (known, port) = (self.server.addr(), addr.port());
        let known = format!("[{}]:{}", known.ip(), known.port());
        let shell = format!("ssh -c {} -o HostKeyAlias={known} -p {port}", self.cipher);
        let mut shell = shell.into_bytes();
        for word in options_of_ssh {
            shell.push(b' ');
            shell.extend_from_slice(word.as_bytes());
        }
        let far = |path: &Path| format!("{}@127.0.0.1:{}", User::Tester.name(), path.display());
        let (source, to) = (self.path("source").join(""), self.destination(way, "rsync"));
        let (from, to) = match way {
            Way::Up => (source.display().to_string(), far(&to)),
            Way::Down => (far(&source), to.display().to_string()),
        };
        let mut rsync = self.rsync.client();
        rsync.arg("-a").args(options).arg("-e").arg(String::from_utf8(shell).unwrap()).args([from, to]);
        rsync.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
        rsync
    }

    /// Product and peer in turns, both ways; in the first round both warm up, and what arrived is looked at.
    async fn rounds(&self, what: &str, target: &str, rounds: usize, before: Before) {
        let product = Product::start(self).await;
        for way in Way::BOTH {
            let (mut own, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..=rounds {
                let (ours, other) = (self.destination(way, "ours"), self.destination(way, "rsync"));
                self.prepare(&ours, way, before);
                let time = product.sync(self, way, "auto").await;
                self.prepare(&other, way, before);
                let peer = timed(self.peer(way, &[]));
                if round == 0 {
                    assert_same(&self.path("source"), &ours);
                    assert_same(&self.path("source"), &other);
                } else {
                    own.push(time);
                    theirs.push(peer);
                }
            }
            let (ours, theirs) = (at(&mut own, 0.5), at(&mut theirs, 0.5));
            let what = format!("{what}, {} (peer: `rsync -a`, {})", way.name(), self.cipher);
            row(&what, &millis(ours), &millis(theirs), ratio(ours, theirs), target);
            if before != Before::Nothing || rounds < 5 {
                for who in ["ours", "rsync"] {
                    _ = fs::remove_dir_all(self.destination(way, who));
                }
            }
        }
    }
}

/// The product with one session.
struct Product {
    client: McpClient,
    session: String,
}

impl Product {
    async fn start(yard: &Yard) -> Self {
        Self::start_by(yard, yard.server.addr()).await
    }

    /// The same by another address of the server.
    async fn start_by(yard: &Yard, addr: SocketAddr) -> Self {
        let client = stdio(&yard.server).await;
        let session = connect(&client, &yard.server, &addr.to_string()).await;
        Self { client, session }
    }

    /// From the call that starts it to the answer that says it is complete.
    async fn sync(&self, yard: &Yard, way: Way, transport: &str) -> Duration {
        let (source, to) = (yard.path("source").join(""), yard.destination(way, "ours"));
        let direction = match way {
            Way::Up => "upload",
            Way::Down => "download",
        };
        let ask = json!({
            "session_id": self.session, "src": source, "dst": to, "direction": direction, "transport": transport,
            "opts": {"archive": true},
        });
        let begun = Instant::now();
        let started = self.client.call("ssh_rsync", ask).await;
        assert!(!started.is_error, "{}", started.text);
        let id = &started.structured["rsync_id"];
        let wait =
            json!({"uris": [format!("rsync://{}/progress", id.as_str().unwrap())], "timeout_secs": 60});
        let stats: Value = loop {
            let stats = self.client.call("ssh_rsync_stats", json!({"rsync_id": id})).await.structured;
            if !["pending", "probing", "running"].iter().any(|status| stats["session_status"] == *status) {
                break stats;
            }
            self.client.call("sub_wait", wait.clone()).await;
        };
        let time = begun.elapsed();
        assert_eq!(
            (&stats["session_status"], &stats["files_failed"]),
            (&json!("completed"), &json!(0)),
            "{stats}"
        );
        time
    }
}

/// The walk over SFTP against rsync's protocol, both by the product.
async fn walk(yard: &Yard) {
    let product = Product::start(yard).await;
    for way in Way::BOTH {
        let (mut walks, mut wires) = (Vec::new(), Vec::new());
        for round in 0..=5 {
            for (transport, times) in [("sftp", &mut walks), ("wire", &mut wires)] {
                yard.prepare(&yard.destination(way, "ours"), way, Before::Nothing);
                let time = product.sync(yard, way, transport).await;
                if round > 0 {
                    times.push(time);
                }
            }
        }
        let (walk, wire) = (at(&mut walks, 0.5), at(&mut wires, 0.5));
        let what = format!(
            "2,000 files of 4 KiB over SFTP, {} (peer: the product over rsync's protocol)",
            way.name()
        );
        row(&what, &millis(walk), &millis(wire), ratio(walk, wire), "<= 3.0");
    }
}

/// Bytes that a changed file costs on the wire, both ways together.
async fn passed(yard: &Yard) {
    let proxy = Proxy::start(yard.server.addr(), Duration::ZERO);
    let product = Product::start_by(yard, proxy.addr()).await;
    for way in Way::BOTH {
        yard.prepare(&yard.destination(way, "ours"), way, Before::Older);
        let before = proxy.bytes();
        product.sync(yard, way, "auto").await;
        let ours = proxy.bytes() - before;
        yard.prepare(&yard.destination(way, "rsync"), way, Before::Older);
        let before = proxy.bytes();
        timed(yard.peer_by(way, &[], proxy.addr()));
        let theirs = proxy.bytes() - before;
        let shown = |bytes: u64| format!("{:.2} MiB", bytes as f64 / MIB as f64);
        let what = format!("bytes on the wire of that, {}", way.name());
        row(&what, &shown(ours), &shown(theirs), Some(ours as f64 / theirs as f64), "<= 1.1");
    }
}

/// The highest memory of a fresh process, and of the peer's processes on this side together.
async fn memory(yard: &Yard, what: &str, before: Before, options: &[&str], target: &str) {
    for way in Way::BOTH {
        yard.prepare(&yard.destination(way, "ours"), way, before);
        yard.prepare(&yard.destination(way, "rsync"), way, before);
        let product = Product::start(yard).await;
        let pid = product.client.pid();
        let idle = status_kib(pid, "VmRSS");
        product.sync(yard, way, "auto").await;
        let ours = status_kib(pid, "VmHWM");
        let mut peer = yard.peer(way, options).spawn().unwrap();
        let mut theirs = 0;
        while peer.try_wait().unwrap().is_none() {
            theirs = theirs.max(resident_of_rsync(peer.id()));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let shown = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
        let what = format!(
            "memory for {what}, {}, of which {} before it began (peer: all local processes of `rsync -a` but `ssh`)",
            way.name(),
            shown(idle)
        );
        row(&what, &shown(ours), &shown(theirs), Some(ours as f64 / theirs as f64), target);
        for who in ["ours", "rsync"] {
            fs::remove_dir_all(yard.destination(way, who)).unwrap();
        }
    }
}

/// The resident memory of a process and its descendants, as far as they are rsync.
fn resident_of_rsync(pid: u32) -> u64 {
    let is_rsync = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "rsync");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let own = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let below: u64 =
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(resident_of_rsync).sum();
    if is_rsync { own + below } else { below }
}
