//! The processes of the embedded server: a process group per command, and a mark that all of them bear.

use std::io;

use russh::Sig;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::Child;

/// The process group of one command; killed on drop while its leader has not been waited for.
pub(super) struct Group {
    /// `None` once the leader has been waited for: from then on its id may become somebody else's.
    leader: Option<Pid>,
}

impl Group {
    /// The group whose leader is this child, which has just been started as one.
    pub(super) fn led_by(child: &Child) -> io::Result<Self> {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        id.map(|id| Self { leader: Some(id) }).ok_or_else(|| io::Error::other("the process has no id"))
    }

    /// Sends a signal by its SSH name; names the system does not know are ignored, as sshd does.
    pub(super) fn signal(&self, signal: &Sig) {
        if let (Some(leader), Some(number)) = (self.leader, number_of(signal)) {
            // The group may have ended a moment ago.
            kill_process_group(leader, number).ok();
        }
    }

    /// Gives up the leader's id.
    pub(super) fn leader_has_ended(&mut self) {
        self.leader = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

/// A variable in the environment of every process of one connection, by which they are found at its end
/// whatever group or session they have moved to.
#[derive(Debug, Clone)]
pub(super) struct Mark(String);

impl Mark {
    /// A mark that no other process bears.
    pub(super) fn new() -> Self {
        // Without randomness nothing else of the server works either; the process id is then unique enough.
        Self(super::random_hex().unwrap_or_else(|_| std::process::id().to_string()))
    }

    pub(super) fn variable(&self) -> &'static str {
        "SSH_MCP_TESTKIT_CONNECTION"
    }

    pub(super) fn value(&self) -> &str {
        &self.0
    }

    /// Kills every process that bears the mark, until a look around finds none.
    ///
    /// Needs `/proc`; where there is none, only the groups of running commands end ([`Group`]).
    pub(super) fn kill_bearers(&self) {
        for _ in 0..ROUNDS {
            let bearers = self.bearers();
            if bearers.is_empty() {
                return;
            }
            for bearer in bearers {
                kill_process(bearer, Signal::KILL).ok();
            }
        }
    }

    fn bearers(&self) -> Vec<Pid> {
        let entry = format!("{}={}", self.variable(), self.0);
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        processes
            .flatten()
            .filter_map(|process| process.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
            .filter(|pid| {
                // A zombie's environment reads as empty, another user's not at all.
                let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()));
                environment.is_ok_and(|all| all.split(|byte| *byte == 0).any(|one| one == entry.as_bytes()))
            })
            .collect()
    }
}

/// The SSH name of a signal that ended a process; what RFC 4254 does not name goes by its number.
pub(super) fn signal_name(number: i32) -> Sig {
    let named = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number);
    named.map_or_else(|| Sig::Custom(format!("{number}@ssh-mcp")), |(name, _)| name.clone())
}

fn number_of(signal: &Sig) -> Option<Signal> {
    let same = |known: &Sig| match (known, signal) {
        (Sig::Custom(known), Sig::Custom(asked)) => known == asked,
        (known, asked) => std::mem::discriminant(known) == std::mem::discriminant(asked),
    };
    SIGNALS.iter().find(|(known, _)| same(known)).map(|(_, number)| *number)
}

/// RFC 4254 section 6.10 (`USR2` is the one name that russh has no variant for).
static SIGNALS: std::sync::LazyLock<[(Sig, Signal); 13]> = std::sync::LazyLock::new(|| {
    [
        (Sig::ABRT, Signal::ABORT),
        (Sig::ALRM, Signal::ALARM),
        (Sig::FPE, Signal::FPE),
        (Sig::HUP, Signal::HUP),
        (Sig::ILL, Signal::ILL),
        (Sig::INT, Signal::INT),
        (Sig::KILL, Signal::KILL),
        (Sig::PIPE, Signal::PIPE),
        (Sig::QUIT, Signal::QUIT),
        (Sig::SEGV, Signal::SEGV),
        (Sig::TERM, Signal::TERM),
        (Sig::USR1, Signal::USR1),
        (Sig::Custom("USR2".into()), Signal::USR2),
    ]
});

/// A process that forks faster than it is killed is not a test's.
const ROUNDS: u32 = 100;
