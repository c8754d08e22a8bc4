//! `ssh -G` of the installed OpenSSH, and a folder for the files of a case.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cases::Case;

/// What is compared: every keyword that both print.
pub(crate) const COMPARED: &[&str] = &[
    "host",
    "user",
    "hostname",
    "port",
    "addressfamily",
    "compression",
    "hashknownhosts",
    "identitiesonly",
    "kbdinteractiveauthentication",
    "passwordauthentication",
    "pubkeyauthentication",
    "stricthostkeychecking",
    "numberofpasswordprompts",
    "serveralivecountmax",
    "serveraliveinterval",
    "bindaddress",
    "hostkeyalias",
    "identityagent",
    "preferredauthentications",
    "identityfile",
    "certificatefile",
    "globalknownhostsfile",
    "userknownhostsfile",
    "sendenv",
    "setenv",
    "forwardagent",
    "connecttimeout",
    "proxyjump",
    "proxycommand",
];

/// Variables of every run, besides those that find programs.
pub(crate) const ENVIRONMENT: [(&str, &str); 2] = [("FOO", "/opt/foo"), ("EMPTY", "")];

/// Values by keyword, in the order printed.
pub(crate) type Lines = BTreeMap<String, Vec<String>>;

/// The lines of `text` whose keyword is compared.
pub(crate) fn lines(text: &str) -> Lines {
    let mut lines = Lines::new();
    for (keyword, value) in text.split('\n').filter_map(|line| line.split_once(' ')) {
        if COMPARED.contains(&keyword) {
            lines.entry(keyword.to_owned()).or_default().push(value.to_owned());
        }
    }
    lines
}

/// True if `ssh` is installed; else says why nothing is tested, which is a failure in CI.
pub(crate) fn is_there() -> bool {
    let is_there = Command::new("ssh").arg("-V").stdin(Stdio::null()).output().is_ok();
    if !is_there {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        assert!(std::env::var_os("CI").is_none(), "{test} must not be skipped in CI: ssh is not installed");
        eprintln!("SKIPPED {test}: ssh is not installed");
    }
    is_there
}

/// What `ssh -G` prints, or what it complains about.
pub(crate) fn ssh(config: &Path, host: &str, arguments: &[&str]) -> Result<String, String> {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config).arg("-G").args(arguments).arg(host);
    ssh.env_clear().envs(ENVIRONMENT).envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    let output = ssh.stdin(Stdio::null()).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A folder with the files of a case.
pub(crate) struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn of(case: &Case) -> Folder {
        let folder = Folder::new();
        folder.write("config", case.config);
        case.included.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text.replace("{D}", self.folder.path().to_str().unwrap())).unwrap();
        // Whatever the mask of whoever runs the tests: OpenSSH refuses included files that a group may write.
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
}
