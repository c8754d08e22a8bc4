//! Files up and down against `scp`: `scripts/bench files`.
//!
//! The peer is `scp` as people run it, with a connection of its own each time, in SFTP mode and with the cipher that the
//! product agrees on; the product's session is open before. Both ends of a transfer are in memory where there is room, or
//! the disk would be measured. A destination is removed before it is written again, and that takes no part.

use std::{
    fs::{self, File, Permissions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    MIB, Master, at,
    client::McpClient,
    connect, millis, ratio, row,
    sshd::{ClientKey, OpenSshd, Options, Proxy, User, processes::wait_until},
    status_kib, stdio, stdio_saying, timed,
};

pub(crate) const GIB: u64 = 1 << 30;

/// Of the large file there are two at a time; the rest is for whoever shares the machine.
pub(crate) const ROOM: u64 = 4 * GIB;

/// The parts that are wanted.
pub(crate) async fn measure(run: impl Fn(&str) -> bool) {
    if run("files large") {
        large(&Depot::set().await).await;
    }
    if run("files afar") {
        afar(&Depot::set().await).await;
    }
    if run("files tree") {
        tree(&Depot::set().await).await;
    }
    if run("files verify") {
        verify(&Depot::set().await).await;
    }
    if run("files growth") {
        growth(&Depot::set().await).await;
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Up,
    Down,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Up, Self::Down];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A server with a file service, and a folder for what goes there and comes back.
struct Depot {
    server: OpenSshd,
    folder: TempDir,
    cipher: String,
}

impl Depot {
    async fn set() -> Self {
        let options = Options { extra: vec!["Subsystem sftp internal-sftp".into()], ..Options::default() };
        let server = OpenSshd::start_or_skip(options).expect("benchmarks need a real sshd and root");
        let folder = if in_memory_is_room().unwrap_or_default() {
            tempfile::Builder::new().prefix("ssh-mcp-bench-").tempdir_in("/dev/shm")
        } else {
            eprintln!("no room in /dev/shm: the disk takes part in the figures of files");
            tempfile::Builder::new().prefix("ssh-mcp-bench-").tempdir()
        };
        let folder = folder.unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let cipher = agreed_cipher(&server).await;
        let depot = Self { server, folder, cipher };
        let owner = fs::metadata(depot.server.home(User::Tester)).unwrap();
        for side in Way::BOTH.map(|way| depot.side(way)) {
            fs::create_dir(&side).unwrap();
        }
        chown(depot.side(Way::Up), Some(owner.uid()), Some(owner.gid())).unwrap();
        depot
    }

    /// The folder that transfers of this way end in: of what goes up, one that the user of the far side owns.
    fn side(&self, way: Way) -> PathBuf {
        self.folder.path().join(match way {
            Way::Up => "there",
            Way::Down => "here",
        })
    }

    /// A file that everybody may read, so that it is the source of both ways; no two blocks of it are the same.
    fn file(&self, size: u64) -> PathBuf {
        let path = self.folder.path().join("source");
        let mut bytes = File::open("/dev/urandom").unwrap().take(size);
        io::copy(&mut bytes, &mut File::create(&path).unwrap()).unwrap();
        path
    }

    /// 2,000 files of 4 KiB in 20 directories, likewise.
    fn files(&self) -> PathBuf {
        let root = self.folder.path().join("tree");
        let mut random = File::open("/dev/urandom").unwrap();
        let mut content = [0; 4096];
        for directory in 0..20 {
            let directory = root.join(format!("directory{directory}"));
            fs::create_dir_all(&directory).unwrap();
            for file in 0..100 {
                random.read_exact(&mut content).unwrap();
                fs::write(directory.join(format!("file{file}")), content).unwrap();
            }
        }
        root
    }

    /// Where `source` arrives, after removing what an earlier transfer left there.
    fn clear(&self, way: Way, source: &Path) -> PathBuf {
        let arrives = self.side(way).join(source.file_name().unwrap());
        if arrives.is_dir() {
            fs::remove_dir_all(&arrives).unwrap();
        } else if arrives.exists() {
            fs::remove_file(&arrives).unwrap();
        }
        arrives
    }

    /// The folder of that way is the destination, so that a tree arrives under its own name for both.
    fn scp(&self, port: u16, way: Way, source: &Path, master: Option<&Master>) -> Command {
        let ssh = self.server.client(User::Tester, ClientKey::Ed25519);
        let options: Vec<_> = ssh.get_args().collect();
        // The last three are `-p PORT USER@HOST`, which are other words here.
        let (options, _) = options.split_at(options.len() - 3);
        let far = |path: &Path| format!("{}@127.0.0.1:{}", User::Tester.name(), path.display());
        let (from, to) = match way {
            Way::Up => (source.display().to_string(), far(&self.side(way))),
            Way::Down => (far(source), self.side(way).display().to_string()),
        };
        let mut scp = Command::new("scp");
        scp.args(["-s", "-P", &port.to_string(), "-c", &self.cipher]).args(options);
        // Through a proxy the host key is that of the server still.
        scp.args(["-o", &format!("HostKeyAlias=[127.0.0.1]:{}", self.server.port())]);
        if source.is_dir() {
            scp.arg("-r");
        }
        if let Some(master) = master {
            scp.args(["-o", &format!("ControlPath={}", master.path().display())]);
        }
        scp.args([from, to]).env_remove("SSH_AUTH_SOCK").stdin(Stdio::null());
        scp
    }
}

/// Whether the machine can hold both ends in memory.
pub(crate) fn in_memory_is_room() -> Option<bool> {
    let df = Command::new("df").args(["--output=avail", "--block-size=1", "/dev/shm"]).output().ok()?;
    let free: u64 = String::from_utf8(df.stdout).ok()?.lines().nth(1)?.trim().parse().ok()?;
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available: u64 = available.split_whitespace().next()?.parse().ok()?;
    Some(free.min(available * 1024) >= ROOM)
}

/// What the product and this server agree on, as the product's log says it.
pub(crate) async fn agreed_cipher(server: &OpenSshd) -> String {
    let client = stdio_saying(server, "debug").await;
    connect(&client, server, &server.addr().to_string()).await;
    let named = || {
        let log = client.log();
        let cipher = log.split_once("cipher=").and_then(|(_, rest)| rest.split_whitespace().next())?;
        Some(cipher.trim_matches('"').to_owned())
    };
    // The log comes in a thread of its own.
    wait_until(Duration::from_secs(5), || named().is_some());
    named().unwrap_or_else(|| panic!("the log names no cipher:\n{}", client.log()))
}

/// The product with one session.
struct Product {
    client: McpClient,
    session: String,
}

impl Product {
    async fn start(depot: &Depot, port: u16) -> Self {
        let client = stdio(&depot.server).await;
        let session = connect(&client, &depot.server, &format!("127.0.0.1:{port}")).await;
        Self { client, session }
    }

    /// From the call that starts it to the answer that says it is complete.
    async fn transfer(&self, depot: &Depot, way: Way, source: &Path, how: &Value) -> Cost {
        let (tool, from, to) = match way {
            Way::Up => ("ssh_upload", "local_path", "remote_path"),
            Way::Down => ("ssh_download", "remote_path", "local_path"),
        };
        let mut ask = how.clone();
        ask["session_id"] = self.session.as_str().into();
        ask[from] = source.to_str().into();
        ask[to] = depot.side(way).to_str().into();
        let spent = processor(self.client.pid(), OWN);
        let begun = Instant::now();
        let mut answer = self.client.call(tool, ask).await;
        assert!(!answer.is_error, "{}", answer.text);
        let wait =
            json!({"transfer_id": answer.structured["transfer_id"], "wait": true, "wait_timeout_secs": 60});
        while ["started", "running"].iter().any(|status| answer.structured["status"] == *status) {
            answer = self.client.call("ssh_transfer_progress", wait.clone()).await;
        }
        let time = begun.elapsed();
        assert_eq!(answer.structured["status"], "completed", "{}", answer.text);
        assert_eq!(answer.structured["verified"] == true, how["verify"] == true, "{}", answer.text);
        Cost { time, processor: processor(self.client.pid(), OWN) - spent }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) time: Duration,
    processor: Duration,
}

/// Places in `/proc/PID/stat` behind the name: user and system time of a process, and of its children that have ended, with
/// theirs.
pub(crate) const OWN: [usize; 2] = [11, 12];
pub(crate) const CHILDREN: [usize; 2] = [13, 14];

pub(crate) fn processor(pid: u32, places: [usize; 2]) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // Of user space, a tick is 10 ms on every Linux.
    places.iter().map(|place| Duration::from_millis(fields[*place].parse::<u64>().unwrap() * 10)).sum()
}

/// A peer that is one or several programs, one after the other. `scp` waits for the `ssh` it starts, so that is counted.
pub(crate) fn peer(commands: impl IntoIterator<Item = Command>) -> Cost {
    let spent = processor(std::process::id(), CHILDREN);
    let time = commands.into_iter().map(timed).sum();
    Cost { time, processor: processor(std::process::id(), CHILDREN) - spent }
}

#[derive(Default)]
pub(crate) struct Costs {
    times: Vec<Duration>,
    processor: Vec<Duration>,
}

impl Costs {
    fn push(&mut self, cost: Cost) {
        self.times.push(cost.time);
        self.processor.push(cost.processor);
    }

    fn time(&mut self) -> Duration {
        at(&mut self.times, 0.5)
    }

    fn processor(&mut self) -> Duration {
        at(&mut self.processor, 0.5)
    }
}

/// Whether two files or trees are the same; a figure is worth nothing if what arrived is not what was sent.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    if one.is_dir() {
        let names = |folder: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(one), names(other));
        names(one).iter().for_each(|name| assert_same(&one.join(name), &other.join(name)));
        return;
    }
    let [mut one, mut other] =
        [one, other].map(|path| BufReader::with_capacity(1 << 16, File::open(path).unwrap()));
    loop {
        let (left, right) = (one.fill_buf().unwrap(), other.fill_buf().unwrap());
        let length = left.len().min(right.len());
        assert!(left[..length] == right[..length] && left.is_empty() == right.is_empty(), "not the same");
        if length == 0 {
            return;
        }
        one.consume(length);
        other.consume(length);
    }
}

/// Product and peer in turns. The first round warms both up, and what arrived is looked at in it.
async fn turns<const PEERS: usize>(
    depot: &Depot,
    rounds: usize,
    (way, source, how): (Way, &Path, Value),
    product: &Product,
    peers: [&dyn Fn() -> Cost; PEERS],
) -> (Costs, [Costs; PEERS]) {
    let mut own = Costs::default();
    let mut others = [(); PEERS].map(|()| Costs::default());
    for round in 0..=rounds {
        let arrives = depot.clear(way, source);
        let ours = product.transfer(depot, way, source, &how).await;
        if round == 0 {
            assert_same(source, &arrives);
        } else {
            own.push(ours);
        }
        for (peer, costs) in peers.iter().zip(&mut others) {
            depot.clear(way, source);
            let theirs = peer();
            if round == 0 {
                assert_same(source, &arrives);
            } else {
                costs.push(theirs);
            }
        }
        depot.clear(way, source);
    }
    (own, others)
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

async fn large(depot: &Depot) {
    let source = depot.file(GIB);
    let port = depot.server.port();
    let product = Product::start(depot, port).await;
    for way in Way::BOTH {
        let scp = || peer([depot.scp(port, way, &source, None)]);
        let (mut own, [mut scp]) = turns(depot, 5, (way, &source, json!({})), &product, [&scp]).await;
        let what = format!("1 GiB {} (peer: plain `scp`, {})", way.name(), depot.cipher);
        let (ours, theirs) = (own.time(), scp.time());
        row(&what, &millis(ours), &millis(theirs), ratio(ours, theirs), "<= 1.0");
        let what = format!("processor time of that, {}", way.name());
        let (ours, theirs) = (own.processor(), scp.processor());
        row(&what, &seconds(ours), &seconds(theirs), ratio(ours, theirs), "<= 1.0");
    }
}

async fn afar(depot: &Depot) {
    let source = depot.file(256 * MIB);
    let proxy = Proxy::start(depot.server.addr(), Duration::from_millis(25));
    let port = proxy.addr().port();
    let product = Product::start(depot, port).await;
    for (way, target) in [(Way::Down, "<= 0.4"), (Way::Up, "<= 1.0")] {
        let scp = || peer([depot.scp(port, way, &source, None)]);
        let (mut own, [mut scp]) = turns(depot, 3, (way, &source, json!({})), &product, [&scp]).await;
        let what = format!("256 MiB {} at 50 ms round trip (peer: plain `scp`)", way.name());
        let (ours, theirs) = (own.time(), scp.time());
        row(&what, &millis(ours), &millis(theirs), ratio(ours, theirs), target);
    }
}

async fn tree(depot: &Depot) {
    let source = depot.files();
    let port = depot.server.port();
    let product = Product::start(depot, port).await;
    let master = Master::start(&depot.server);
    for way in Way::BOTH {
        let plain = || peer([depot.scp(port, way, &source, None)]);
        let through_master = || peer([depot.scp(port, way, &source, Some(&master))]);
        let what = (way, source.as_path(), json!({"recursive": true}));
        let (mut own, [mut plain, mut through_master]) =
            turns(depot, 5, what, &product, [&plain, &through_master]).await;
        let ours = own.time();
        for (peer, costs, target) in [
            ("plain `scp -r`", &mut plain, "<= 0.6"),
            ("`scp -r` with ControlMaster", &mut through_master, "-"),
        ] {
            let what = format!("2,000 files of 4 KiB in 20 directories {} (peer: {peer})", way.name());
            let theirs = costs.time();
            row(&what, &millis(ours), &millis(theirs), ratio(ours, theirs), target);
        }
    }
    master.stop(&depot.server);
}

async fn verify(depot: &Depot) {
    let source = depot.file(GIB);
    let port = depot.server.port();
    let product = Product::start(depot, port).await;
    let peer = || {
        let mut here = Command::new("sha256sum");
        here.arg(&source);
        let mut there = depot.server.client(User::Tester, ClientKey::Ed25519);
        there.arg(format!("sha256sum {}/source", depot.side(Way::Up).display()));
        peer([depot.scp(port, Way::Up, &source, None), here, there])
    };
    let what = (Way::Up, source.as_path(), json!({"verify": true}));
    let (mut own, [mut peer]) = turns(depot, 5, what, &product, [&peer]).await;
    let (own, peer) = (own.time(), peer.time());
    let what = "1 GiB up, verified (peer: plain `scp`, `sha256sum`, `ssh host sha256sum`)";
    row(what, &millis(own), &millis(peer), ratio(own, peer), "<= 0.5");
}

/// Each with a fresh process: what an earlier transfer left free would hide the growth of the next.
async fn growth(depot: &Depot) {
    let (file, files) = (depot.file(GIB), depot.files());
    let kinds = [("1 GiB", &file, json!({})), ("2,000 files of 4 KiB", &files, json!({"recursive": true}))];
    for (what, source, how) in kinds {
        for way in Way::BOTH {
            let product = Product::start(depot, depot.server.port()).await;
            let pid = product.client.pid();
            // The highest so far becomes what it is now.
            let mut reset = File::create(format!("/proc/{pid}/clear_refs")).unwrap();
            reset.write_all(b"5").unwrap();
            let before = status_kib(pid, "VmRSS");
            product.transfer(depot, way, source, &how).await;
            let grown = status_kib(pid, "VmHWM").saturating_sub(before);
            depot.clear(way, source);
            let what = format!("memory that {what} {} takes at most", way.name());
            let shown = format!("{:.1} MiB", grown as f64 / 1024.0);
            row(&what, &shown, "-", None, "<= 16 MiB (window 8 MiB)");
        }
    }
}
