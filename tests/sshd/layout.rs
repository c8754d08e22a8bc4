//! The directory a test server lives in: users, homes and configuration, and how `sshd` itself is found.
//!
//! `namespace.sh` mounts `etc/*` over the machine's own files, in the server's namespace only.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::keys::HostKey;

/// Who may log in. sshd treats root specially (signals, forced process ids), so most tests run as both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// An ordinary user with a uid, group and home of its own.
    Tester,
    /// The superuser, with a home inside the temporary directory.
    Root,
}

impl User {
    /// Both of them, the ordinary one first.
    pub(crate) const BOTH: [Self; 2] = [Self::Tester, Self::Root];

    /// The login name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tester => "tester",
            Self::Root => "root",
        }
    }

    fn uid(self) -> u32 {
        match self {
            Self::Tester => TESTER_UID,
            Self::Root => 0,
        }
    }
}

/// Whether `PasswordAuthentication` is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PasswordLogin {
    /// The password of [`super::OpenSshd::password`] logs in.
    Accepted,
    /// The method is not offered.
    Off,
}

/// Whether keyboard-interactive logins work. Without PAM, sshd on Linux offers the method but has no device
/// behind it: every try fails without a question. So a working one means `UsePAM yes` with a service file of
/// the fixture's own that asks for the Unix password and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyboardInteractive {
    /// Asks for the password, through PAM.
    ByPam,
    /// The same, and it asks twice, one round after the other.
    TwiceByPam,
    /// The method is not offered.
    Off,
}

/// How the server is set up; the default is a stock server that skips login files.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// `MaxSessions`; `None` leaves sshd's 10.
    pub(crate) max_sessions: Option<u32>,
    /// `MaxStartups`; `None` leaves sshd's `10:30:100`.
    pub(crate) max_startups: Option<String>,
    /// `PasswordAuthentication`.
    pub(crate) password: PasswordLogin,
    /// `KbdInteractiveAuthentication`, with `UsePAM`.
    pub(crate) keyboard_interactive: KeyboardInteractive,
    /// `ForceCommand`.
    pub(crate) force_command: Option<String>,
    /// `AuthenticationMethods`, for example `publickey,password`.
    pub(crate) authentication_methods: Option<String>,
    /// The host keys, in the order of the configuration.
    pub(crate) host_keys: Vec<HostKey>,
    /// The login shell of both users.
    pub(crate) login_shell: PathBuf,
    /// Further lines of `sshd_config`. They come first, and sshd takes the first value of each keyword.
    pub(crate) extra: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_sessions: None,
            max_startups: None,
            password: PasswordLogin::Accepted,
            keyboard_interactive: KeyboardInteractive::Off,
            force_command: None,
            authentication_methods: None,
            host_keys: vec![HostKey::Ed25519],
            login_shell: "/bin/bash".into(),
            extra: Vec::new(),
        }
    }
}

/// The `sshd` to run, or why no server can be started here.
pub(super) fn find_sshd() -> Result<PathBuf, String> {
    let uid = fs::metadata("/proc/self").map(|own| own.uid());
    if uid.ok() != Some(0) {
        return Err("a real sshd needs root (users of its own in a mount namespace)".into());
    }
    let named = std::env::var_os("SSH_MCP_SSHD").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let sshd = named
        .into_iter()
        .chain(std::env::split_paths(&path).chain(usual).map(|folder| folder.join("sshd")))
        // sshd runs itself again for each connection and insists on an absolute path.
        .find(|candidate| candidate.is_absolute() && candidate.is_file())
        .ok_or("sshd is not installed (`scripts/test` fetches it)")?;
    for tool in ["ssh", "ssh-keygen", "openssl", "unshare", "setpriv"] {
        let found = std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
        found.then_some(()).ok_or(format!("{tool} is not installed"))?;
    }
    let namespaces = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--mount-proc", "true"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("unshare does not start: {error}"))?;
    if !namespaces.status.success() {
        let said = String::from_utf8_lossy(&namespaces.stderr);
        return Err(format!("namespaces are not allowed here: {}", said.trim()));
    }
    Ok(sshd)
}

/// Where an unpacked (not installed) `sshd` finds its libraries; nothing for one that is installed.
pub(super) fn library_path(sshd: &Path) -> Option<(&'static str, String)> {
    let prefix = sshd.ancestors().nth(3).filter(|prefix| *prefix != Path::new("/"))?;
    let folders = ["usr/lib", "lib"].into_iter().filter_map(|lib| fs::read_dir(prefix.join(lib)).ok());
    let libraries: Vec<_> = folders
        .flat_map(|folder| folder.flatten())
        .filter(|entry| entry.file_name().to_string_lossy().contains("-linux-"))
        .map(|entry| entry.path().display().to_string())
        .collect();
    (!libraries.is_empty()).then(|| ("LD_LIBRARY_PATH", libraries.join(":")))
}

/// A new directory that the ordinary user may pass through on the way to its home.
pub(super) fn temporary_directory() -> TempDir {
    let dir = tempfile::Builder::new().prefix("ssh-mcp-sshd-").tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("our own directory");
    for folder in dir.path().ancestors() {
        let mode = fs::metadata(folder).expect("an existing directory").mode();
        assert!(mode & 0o001 != 0, "{} is closed to ordinary users: set TMPDIR", folder.display());
    }
    dir
}

/// A password nobody else knows: the server admits root on loopback, and other users may share the machine.
pub(super) fn random_password() -> String {
    let mut bytes = [0_u8; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .expect("random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The home directory of a user.
pub(super) fn home(dir: &Path, user: User) -> PathBuf {
    dir.join("home").join(user.name())
}

/// Writes passwd, shadow, group, the PAM service if wanted, and both homes.
pub(super) fn write_users(dir: &Path, password: &str, options: &Options) {
    let etc = dir.join("etc");
    fs::create_dir(&etc).expect("a new directory");
    let hash = crypt(password);
    let mut passwd = String::new();
    let mut shadow = String::new();
    for user in User::BOTH {
        let (name, uid, home) = (user.name(), user.uid(), home(dir, user));
        let shell = options.login_shell.display();
        passwd.push_str(&format!("{name}:x:{uid}:{uid}::{}:{shell}\n", home.display()));
        shadow.push_str(&format!("{name}:{hash}:19000:0:99999:7:::\n"));
        fs::create_dir_all(home.join(".ssh")).expect("a new directory");
        fs::write(home.join(".ssh/authorized_keys"), "").expect("a new file");
        for (path, mode) in [("", 0o700), (".ssh", 0o700), (".ssh/authorized_keys", 0o600)] {
            let path = home.join(path);
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own file");
            chown(&path, Some(uid), Some(uid)).expect("root may give files away");
        }
    }
    // sshd's own unprivileged half, and the owner of what nobody owns.
    passwd.push_str("sshd:x:23457:65534::/run/sshd:/usr/sbin/nologin\n");
    passwd.push_str("nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n");
    shadow.push_str("sshd:!:19000::::::\nnobody:!:19000::::::\n");
    let group = format!("root:x:0:\ntty:x:5:\ntester:x:{TESTER_UID}:\nnogroup:x:65534:\n");
    for (file, content, mode) in
        [("passwd", passwd, 0o644), ("shadow", shadow, 0o600), ("group", group, 0o644)]
    {
        let path = etc.join(file);
        fs::write(&path, content).expect("a new file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own file");
    }
    match options.keyboard_interactive {
        KeyboardInteractive::ByPam => fs::write(etc.join("pam"), PAM_SERVICE).expect("a new file"),
        KeyboardInteractive::TwiceByPam => {
            fs::write(etc.join("pam"), format!("{PAM_QUESTION}{PAM_SERVICE}")).expect("a new file");
        }
        KeyboardInteractive::Off => {}
    }
}

/// Writes `sshd_config`.
pub(super) fn write_config(dir: &Path, port: u16, sshd: &Path, options: &Options) {
    let mut lines = options.extra.clone();
    lines.push(format!("ListenAddress 127.0.0.1:{port}"));
    lines.extend(options.host_keys.iter().map(|key| format!("HostKey {}", key.path(dir).display())));
    let on = |yes: bool| if yes { "yes" } else { "no" };
    let pam = options.keyboard_interactive != KeyboardInteractive::Off;
    lines.push(format!("UsePAM {}", on(pam)));
    lines.push(format!("KbdInteractiveAuthentication {}", on(pam)));
    lines.push(format!("PasswordAuthentication {}", on(options.password == PasswordLogin::Accepted)));
    lines.extend(options.max_sessions.map(|limit| format!("MaxSessions {limit}")));
    lines.extend(options.max_startups.as_ref().map(|limit| format!("MaxStartups {limit}")));
    lines.extend(options.force_command.as_ref().map(|command| format!("ForceCommand {command}")));
    lines.extend(
        options.authentication_methods.as_ref().map(|methods| format!("AuthenticationMethods {methods}")),
    );
    lines.extend(FIXED_LINES.map(str::to_owned));
    // From 9.8 on sshd shuns an address after failed logins, and the tests' logins fail on purpose.
    if version(sshd) >= (9, 8) {
        lines.push("PerSourcePenalties no".into());
        let helpers =
            sshd.ancestors().nth(3).map(|prefix| prefix.join("usr/lib/openssh")).unwrap_or_default();
        for (keyword, helper) in [("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")] {
            let path = helpers.join(helper);
            lines.extend(path.is_file().then(|| format!("{keyword} {}", path.display())));
        }
    }
    fs::write(dir.join("sshd_config"), lines.join("\n") + "\n").expect("the temporary directory is writable");
}

/// Major and minor version; (0, 0) where sshd does not say.
fn version(sshd: &Path) -> (u32, u32) {
    // `-V` is an unknown option before 9.2, and then the usage names the version too.
    let said = Command::new(sshd).envs(library_path(sshd)).arg("-V").stdin(Stdio::null()).output();
    let said = said.expect("sshd starts").stderr;
    let said = String::from_utf8_lossy(&said);
    let numbers = said.split_once("OpenSSH_").map_or("", |(_, rest)| rest);
    let mut numbers = numbers.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The password as shadow(5) wants it.
fn crypt(password: &str) -> String {
    let mut openssl = Command::new("openssl")
        .args(["passwd", "-6", "-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl starts");
    let mut stdin = openssl.stdin.take().expect("stdin is piped");
    stdin.write_all(password.as_bytes()).expect("openssl reads");
    drop(stdin);
    let output = openssl.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "openssl passwd failed");
    String::from_utf8(output.stdout).expect("a hash is text").trim().to_owned()
}

/// Not a uid that a machine's own users have: file ownership is shared with the world outside.
const TESTER_UID: u32 = 23_456;

/// `SetEnv SHLVL=1` makes bash believe it was started by a shell: for a command it then reads no `.bashrc`.
const FIXED_LINES: [&str; 9] = [
    "SetEnv SHLVL=1",
    "PermitRootLogin yes",
    "PidFile none",
    "LogLevel VERBOSE",
    "PrintMotd no",
    "PrintLastLog no",
    "UseDNS no",
    "X11Forwarding no",
    "StrictModes yes",
];

const PAM_QUESTION: &str = "auth required pam_unix.so\n";

const PAM_SERVICE: &str =
    "auth required pam_unix.so\naccount required pam_unix.so\nsession required pam_permit.so\n";
