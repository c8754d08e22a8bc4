//! A test that goes on in another process of the same program: as somebody else, with another umask, or to be measured.

use std::path::Path;
use std::process::Command;

/// What the test was told, if it is the one in the other process.
pub(crate) fn told() -> Option<Vec<String>> {
    let told = std::env::var(TOLD).ok()?;
    Some(told.lines().map(str::to_owned).collect())
}

/// Runs the test that calls once more, in `program`, which is this one or a copy. The command is changed before it starts.
#[track_caller]
pub(crate) fn again(program: &Path, told: &[&str], change: impl FnOnce(Command) -> Command) {
    let this = std::thread::current().name().expect("a test has a name").to_owned();
    let mut command = Command::new(program);
    command.args(["--exact", &this, "--nocapture"]);
    let output = change(command).env(TOLD, told.join("\n")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    // Shown when the test fails.
    println!("{said}");
}

/// The same command behind others, which start it.
pub(crate) fn behind(before: &[&str], command: &Command) -> Command {
    let mut whole = Command::new(before[0]);
    whole.args(&before[1..]).arg(command.get_program()).args(command.get_args());
    whole
}

/// The most memory the process has had at a time; none where the system does not say.
pub(crate) fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().unwrap() * 1024)
}

const TOLD: &str = "SSH_MCP_TEST_AGAIN";
