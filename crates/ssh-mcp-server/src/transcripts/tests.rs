//! The adapter on real files, and on a tmux server of its own where there is tmux.

use std::{
    os::unix::fs::{PermissionsExt as _, lchown, symlink},
    process::Command,
};

use ssh_mcp_core::quote;
use ssh_mcp_testkit::contract::transcript::Rig;
use tempfile::TempDir;

use super::*;

/// A state directory that is not there yet, and a tmux server nobody else uses.
struct Files {
    dir: TempDir,
    files: TranscriptFiles,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = adapter(&dir.path().join("state"), dir.path());
        Self { dir, files }
    }

    fn tmux(&self, args: &[&str]) -> std::io::Result<std::process::Output> {
        Command::new("tmux").args(args).env_remove("TMUX").env("TMUX_TMPDIR", self.dir.path()).output()
    }
}

fn adapter(state: &Path, tmux: &Path) -> TranscriptFiles {
    let settings = Settings { state_dir: Some(state.to_owned()), ..Settings::default() };
    let environment = std::env::vars_os().chain([("TMUX_TMPDIR".into(), tmux.into())]);
    TranscriptFiles::new(&settings, environment)
}

impl Drop for Files {
    fn drop(&mut self) {
        _ = self.tmux(&["kill-server"]);
    }
}

impl Rig for Files {
    fn transcripts(&self) -> &dyn Transcripts {
        &self.files
    }

    fn content(&self, path: &Path) -> Option<Vec<u8>> {
        fs::read(path).ok()
    }

    fn count(&self) -> usize {
        fs::read_dir(self.dir.path().join("state")).map_or(0, Iterator::count)
    }

    fn windows(&self) -> Option<Vec<String>> {
        let output = match self.tmux(&["list-sessions", "-F", "#{session_name}"]) {
            Ok(output) => output,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "tmux must be there in CI: {error}");
                eprintln!("SKIPPED windows: there is no tmux ({error})");
                return None;
            }
        };
        Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
    }
}

ssh_mcp_testkit::transcript_contract!(
    #[tokio::test]
    Files::new()
);

fn shell() -> ShellId {
    "01890000-0000-7000-8000-000000000001".parse().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Why `state` cannot be used.
async fn refusal(state: &Path) -> String {
    let refused = adapter(state, Path::new("/nonexistent")).create(shell()).await;
    refused.err().expect("refused").to_string()
}

#[tokio::test]
async fn only_the_owner_can_read_it() {
    let files = Files::new();
    let new = files.files.create(shell()).await.unwrap();
    let dir = new.path.parent().unwrap();
    assert_eq!(new.path, files.dir.path().join("state").join(shell().to_string()).join("transcript.log"));
    assert_eq!((mode(&new.path), mode(dir), mode(dir.parent().unwrap())), (0o600, 0o700, 0o700));
}

#[tokio::test]
async fn what_somebody_has_put_in_its_place_is_not_followed() {
    let files = Files::new();
    let (state, elsewhere) = (files.dir.path().join("state"), files.dir.path().join("elsewhere"));
    for planted in ["link", "directory", "file"] {
        fs::create_dir_all(&state).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        let place = state.join(shell().to_string());
        match planted {
            "link" => symlink(&elsewhere, &place).unwrap(),
            "directory" => {
                fs::create_dir(&place).unwrap();
                symlink(elsewhere.join("target"), place.join(FILE)).unwrap();
            }
            _ => fs::write(&place, "mine").unwrap(),
        }
        let refused = files.files.create(shell()).await.err().expect("refused").to_string();
        assert!(refused.contains("exists"), "{planted}: {refused}");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "{planted}");
        assert!(fs::symlink_metadata(&place).is_ok(), "{planted}: it is not ours to remove");
        fs::remove_dir_all(&state).unwrap();
    }
}

#[tokio::test]
async fn a_state_directory_that_others_may_change_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    for (bits, is_safe) in [(0o700, true), (0o755, true), (0o777, false), (0o1777, true)] {
        fs::set_permissions(&state, fs::Permissions::from_mode(bits)).unwrap();
        let created = adapter(&state, dir.path()).create(shell()).await;
        assert_eq!(created.is_ok(), is_safe, "{bits:o}");
        if let Err(error) = created {
            assert!(error.to_string().ends_with("others may write in it"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_state_directory_of_somebody_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (state, link) = (dir.path().join("state"), dir.path().join("link"));
    fs::create_dir(&state).unwrap();
    symlink(&state, &link).unwrap();
    assert!(adapter(&link, dir.path()).create(shell()).await.is_ok(), "one's own link is followed");
    let other = Some(geteuid().as_raw() + 4711);
    if lchown(&link, other, None).is_err() {
        eprintln!("SKIPPED: only root can make what belongs to somebody else");
        return;
    }
    assert!(refusal(&link).await.ends_with("it is a link that somebody else made"));
    lchown(&state, other, None).unwrap();
    assert!(refusal(&state).await.ends_with("it belongs to somebody else"));
}

#[tokio::test]
async fn a_place_where_nothing_can_be_made_says_which_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    // Root may write wherever a mode forbids it, but not below a file or in the kernel's own tree.
    for (state, cause) in
        [(file.join("state"), "Not a directory"), ("/proc/self/state".into(), "No such file")]
    {
        let refused = refusal(&state).await;
        assert!(refused.starts_with(&format!("cannot make {}", state.display())), "{refused}");
        assert!(refused.contains(cause), "{refused}");
    }
    let nowhere = TranscriptFiles::new(&Settings { state_dir: None, ..Settings::default() }, []);
    assert_eq!(nowhere.create(shell()).await.err(), Some(TranscriptError::NoPlace));
}

#[tokio::test]
async fn a_full_disk_says_so_and_how_far_it_came() {
    // Every write to it fails as on a full disk.
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let mut file = TranscriptFile { file: Arc::new(full), written: 7, unused: None };
    let error = file.append(Bytes::from_static(b"more")).await.unwrap_err();
    assert_eq!(error.written, 7);
    assert!(error.cause.contains("No space left"), "{}", error.cause);
}

#[tokio::test]
async fn a_missing_tmux_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        state_dir: Some(dir.path().join("state")),
        tmux_bin: Some("/nonexistent/tmux".into()),
        ..Settings::default()
    };
    let files = TranscriptFiles::new(&settings, []);
    let new = files.create(shell()).await.unwrap();
    let view = View { shell: shell(), path: &new.path, name: "x" };
    let error = files.show(view).await.err().expect("no window").to_string();
    assert!(error.starts_with("cannot start /nonexistent/tmux: No such file"), "{error}");
    // A program that only fails says so in its own words.
    let settings = Settings { tmux_bin: Some("false".into()), ..settings };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let files = TranscriptFiles::new(&settings, [("PATH".into(), path)]);
    let error = files.show(view).await.err().expect("no window");
    assert!(matches!(error, WindowError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_session_that_is_not_ours_is_never_closed() {
    let files = Files::new();
    if files.windows().is_none() {
        return;
    }
    let new = files.files.create(shell()).await.unwrap();
    let window = files.files.show(View { shell: shell(), path: &new.path, name: "taken" }).await.unwrap();
    // The server ends, and its user starts another one: name and number are the same as before.
    files.tmux(&["kill-server"]).unwrap();
    // The old one is not gone at once, and takes nothing more.
    while !files.tmux(&["new-session", "-d", "-s", "taken"]).unwrap().status.success() {}
    window.close().await;
    assert_eq!(files.windows(), Some(vec!["taken".into()]));
}

#[tokio::test]
async fn a_window_shows_what_is_written() {
    let files = Files::new();
    if files.windows().is_none() {
        return;
    }
    let mut new = files.files.create(shell()).await.unwrap();
    let window = files.files.show(View { shell: shell(), path: &new.path, name: "w" }).await.unwrap();
    new.file.append(Bytes::from_static(b"shown to a person\r\n")).await.unwrap();
    while !files.screen().contains("shown to a person") {
        tokio::task::yield_now().await;
    }
    let elsewhere = quote::readable(files.dir.path().to_str().unwrap());
    assert_eq!(window.command(), format!("TMUX_TMPDIR={elsewhere} tmux attach -r -t w"));
    window.close().await;
}

impl Files {
    fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p", "-t", "=w:"]).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
