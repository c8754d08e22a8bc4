//! Appending: what ends up in the file, and what happens when several learn at once.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;

use openssh_files::known_hosts::{
    AppendError, Hashing, HostKey, HostName, KnownHosts, Learnt, Location, ReadError, Verdict, append,
};

use crate::keys::{ed25519, fields, rsa};

fn host(name: &str) -> HostName {
    HostName::new(name, 22).unwrap()
}

/// A directory of its own and the path of a file in it that does not exist.
fn nowhere() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("known_hosts");
    (directory, path)
}

fn added(path: &Path, line: usize) -> Learnt {
    Learnt::Added(Location { file: path.to_owned(), line })
}

#[test]
fn a_new_line_goes_behind_whatever_stands_there() {
    let key = ed25519(1);
    let check = |before: &str, expected_before: &str, line: usize| {
        let (_directory, path) = nowhere();
        fs::write(&path, before).unwrap();
        assert_eq!(
            append(&path, &host("h"), &key, Hashing::Plain).unwrap(),
            added(&path, line),
            "{before:?}"
        );
        let expected = format!("{expected_before}h {}\n", fields(&key));
        assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{before:?}");
        let at = Location { file: path.clone(), line };
        assert_eq!(KnownHosts::read(&path).unwrap().verdict(&host("h"), &key), Verdict::Match(at.clone()));
        assert_eq!(append(&path, &host("h"), &key, Hashing::Hashed).unwrap(), Learnt::Present(at));
        assert_eq!(fs::read_to_string(&path).unwrap(), expected, "a second time");
    };
    check("", "", 1);
    check("\n", "\n", 2);
    check("# mine\n", "# mine\n", 2);
    check("# mine", "# mine\n", 2);
    check("a b c\r\n\nx", "a b c\r\n\nx\n", 4);
}

#[test]
fn nothing_is_learnt_into_a_list_of_keys_that_open_this_machine() {
    let (_directory, path) = nowhere();
    let text = format!("# mine\n{} me@home\n", fields(&ed25519(7)));
    fs::write(&path, &text).unwrap();
    let refused = append(&path, &host("pty"), &ed25519(1), Hashing::Plain);
    assert!(matches!(refused, Err(AppendError::NotKnownHosts { .. })), "{refused:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn names_are_hashed_as_asked_or_as_the_file_does() {
    let check = |before: &str, hashing: Hashing, expects_hash: bool| {
        let (_directory, path) = nowhere();
        fs::write(&path, before).unwrap();
        let (host, key) = (HostName::new("h", 2222).unwrap(), ed25519(1));
        assert!(matches!(append(&path, &host, &key, hashing).unwrap(), Learnt::Added(_)));
        let text = fs::read_to_string(&path).unwrap();
        let line = text.lines().last().unwrap();
        assert_eq!(line.starts_with("|1|"), expects_hash, "{before:?} {hashing:?}");
        assert_eq!(line.starts_with("[h]:2222 "), !expects_hash, "{line}");
        assert!(matches!(KnownHosts::read(&path).unwrap().verdict(&host, &key), Verdict::Match(_)));
    };
    let plain = format!("a {}\n", fields(&ed25519(2)));
    let hashed =
        format!("|1|UW3fXuloaffYSBKnotr4kZm1fEQ=|iE5SUxf7TeQtuLyTvnL+PJFptHM= {}\n", fields(&ed25519(3)));
    let mixed = format!("{plain}{hashed}");
    for before in ["", &plain, &hashed, &mixed] {
        check(before, Hashing::Plain, false);
        check(before, Hashing::Hashed, true);
    }
    check("", Hashing::AsFile, false);
    check(&plain, Hashing::AsFile, false);
    check(&hashed, Hashing::AsFile, true);
    check(&mixed, Hashing::AsFile, true);
}

#[test]
fn two_hashes_of_one_name_differ() {
    let salts: Vec<String> = (0..2)
        .map(|_| {
            let (_directory, path) = nowhere();
            assert_eq!(append(&path, &host("h"), &ed25519(1), Hashing::Hashed).unwrap(), added(&path, 1));
            fs::read_to_string(&path).unwrap()
        })
        .collect();
    assert_ne!(salts[0], salts[1]);
}

#[test]
fn nothing_is_learnt_against_what_the_file_says() {
    let check = |before: String, expected: Verdict| {
        let (_directory, path) = nowhere();
        fs::write(&path, &before).unwrap();
        let learnt = append(&path, &host("h"), &ed25519(1), Hashing::Plain).unwrap();
        let Learnt::Refused(mut verdict) = learnt else { panic!("{before:?}: {learnt:?}") };
        match &mut verdict {
            Verdict::Changed { at, .. } | Verdict::OtherTypesKnown { at, .. } | Verdict::Revoked(at) => {
                assert_eq!(std::mem::replace(&mut at.file, "kh".into()), path);
            }
            Verdict::Match(_) | Verdict::Unknown => {}
        }
        assert_eq!(verdict, expected);
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    };
    let at = |line| Location { file: "kh".into(), line };
    let other = ed25519(2);
    check(format!("\nh {}\n", fields(&other)), Verdict::Changed { at: at(2), known: other.fingerprint() });
    check(format!("h {}", fields(&rsa(1))), Verdict::OtherTypesKnown { types: vec!["ssh-rsa"], at: at(1) });
    check(format!("@revoked * {}\n", fields(&ed25519(1))), Verdict::Revoked(at(1)));
}

#[cfg(unix)]
#[test]
fn what_is_made_is_private_and_what_exists_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("home/.ssh/known_hosts");
    assert_eq!(append(&path, &host("h"), &ed25519(1), Hashing::Plain).unwrap(), added(&path, 1));
    let parent = path.parent().unwrap();
    assert_eq!((mode(&path), mode(parent), mode(parent.parent().unwrap())), (0o600, 0o700, 0o700));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(append(&path, &host("g"), &ed25519(1), Hashing::Plain).unwrap(), added(&path, 2));
    assert_eq!((mode(&path), mode(parent)), (0o644, 0o755));
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    let (directory, path) = nowhere();
    let target = directory.path().join("target");
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert_eq!(append(&path, &host("h"), &ed25519(1), Hashing::Plain).unwrap(), added(&path, 1));
    assert_eq!(append(&path, &host("g"), &ed25519(1), Hashing::Plain).unwrap(), added(&path, 2));
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&target).unwrap().lines().count(), 2);
}

#[test]
fn a_file_that_cannot_hold_lines_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let learn = |path: &Path| append(path, &host("h"), &ed25519(1), Hashing::Plain);
    assert!(matches!(learn(directory.path()), Err(AppendError::Read(ReadError::NotAFile { .. }))));

    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = learn(&file.join("known_hosts")).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot create directory {}", file.display()));
}

#[test]
fn a_device_that_forgets_takes_the_line() {
    assert_eq!(
        append("/dev/null", &host("h"), &ed25519(1), Hashing::Plain).unwrap(),
        added(Path::new("/dev/null"), 1)
    );
}

#[test]
fn threads_learning_at_once_write_one_line() {
    let (_directory, path) = nowhere();
    let outcomes = learn_at_once(&path, &[ed25519(1), ed25519(1), ed25519(1), ed25519(1)]);
    let added = outcomes.iter().filter(|learnt| matches!(learnt, Learnt::Added(_))).count();
    let present =
        outcomes.iter().filter(|learnt| matches!(learnt, Learnt::Present(at) if at.line == 1)).count();
    assert_eq!((added, present), (1, 3));
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("h {}\n", fields(&ed25519(1))));
}

#[test]
fn of_two_keys_learnt_at_once_one_is_refused() {
    for _ in 0..20 {
        let (_directory, path) = nowhere();
        let outcomes = learn_at_once(&path, &[ed25519(1), ed25519(2)]);
        let winner = outcomes.iter().position(|learnt| matches!(learnt, Learnt::Added(_))).unwrap();
        let loser = &outcomes[1 - winner];
        assert!(matches!(loser, Learnt::Refused(Verdict::Changed { at, .. }) if at.line == 1), "{loser:?}");
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }
}

fn learn_at_once(path: &Path, keys: &[HostKey]) -> Vec<Learnt> {
    let start = Barrier::new(keys.len());
    std::thread::scope(|scope| {
        let learners: Vec<_> = keys
            .iter()
            .map(|key| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    append(path, &host("h"), key, Hashing::Plain).unwrap()
                })
            })
            .collect();
        learners.into_iter().map(|learner| learner.join().unwrap()).collect()
    })
}

#[test]
fn processes_learning_at_once_write_one_line() {
    let (_directory, path) = nowhere();
    // The children reach the lock while it is held here, so all of them have seen a file without the line.
    let held = File::create(&path).unwrap();
    held.lock().unwrap();
    let mut children: Vec<_> = (0..4)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "learning::child_that_learns", "--ignored", "--nocapture"])
                .env(CHILD_LEARNS_INTO, &path)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut outputs: Vec<_> =
        children.iter_mut().map(|child| BufReader::new(child.stdout.take().unwrap()).lines()).collect();
    for output in &mut outputs {
        assert!(output.any(|line| line.unwrap().ends_with("ready")), "the child ended early");
    }
    held.unlock().unwrap();
    let reports: Vec<String> = outputs
        .into_iter()
        .map(|output| {
            // To the end, or the child fails on a pipe nobody reads.
            let lines: Vec<String> = output.map(Result::unwrap).collect();
            lines.iter().find_map(|line| line.strip_prefix("learnt ")).unwrap().to_owned()
        })
        .collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let count = |wanted: &str| reports.iter().filter(|report| *report == wanted).count();
    assert_eq!((count("added"), count("present")), (1, 3), "{reports:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("h {}\n", fields(&ed25519(1))));
}

const CHILD_LEARNS_INTO: &str = "OPENSSH_FILES_CHILD_LEARNS_INTO";

#[test]
#[ignore = "the child's part of processes_learning_at_once_write_one_line, started by it"]
fn child_that_learns() {
    let Some(path) = std::env::var_os(CHILD_LEARNS_INTO) else {
        eprintln!("skipped: not started by processes_learning_at_once_write_one_line");
        return;
    };
    println!("ready");
    std::io::stdout().flush().unwrap();
    let learnt = match append(path, &host("h"), &ed25519(1), Hashing::Plain).unwrap() {
        Learnt::Added(_) => "added",
        Learnt::Present(_) => "present",
        Learnt::Refused(_) => "refused",
    };
    println!("learnt {learnt}");
}

#[cfg(target_os = "linux")]
#[test]
fn who_waited_for_a_file_that_was_replaced_learns_into_the_new_one() {
    use std::os::unix::fs::MetadataExt as _;
    let (directory, path) = nowhere();
    fs::write(&path, "# old\n").unwrap();
    let held = File::open(&path).unwrap();
    held.lock().unwrap();
    let inode = held.metadata().unwrap().ino();
    std::thread::scope(|scope| {
        let learner = scope.spawn(|| append(&path, &host("h"), &ed25519(1), Hashing::Plain).unwrap());
        while !is_waited_for(inode) {
            std::thread::yield_now();
        }
        // As `ssh-keygen -R` does.
        let new = directory.path().join("new");
        fs::write(&new, "# new\n").unwrap();
        fs::rename(&new, &path).unwrap();
        held.unlock().unwrap();
        assert_eq!(learner.join().unwrap(), added(&path, 2));
    });
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("# new\nh {}\n", fields(&ed25519(1))));
}

/// True once somebody waits for a lock on the file: the kernel marks such lines with an arrow.
#[cfg(target_os = "linux")]
fn is_waited_for(inode: u64) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains("->") && line.contains(&format!(":{inode} ")))
}
