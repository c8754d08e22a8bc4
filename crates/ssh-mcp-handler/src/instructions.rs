//! What a client is told before its first call: how to use this server well, in at most 2 KiB.
//!
//! Written from the catalogue, so that it names only what is listed.

use std::fmt::Write as _;

use ssh_mcp_core::uri;

use crate::{catalogue::Catalogue, legacy};

/// The text of `instructions`.
pub(crate) fn instructions(catalogue: &Catalogue) -> String {
    if catalogue.is_legacy() {
        return legacy::INSTRUCTIONS.to_owned();
    }
    let schemes: Vec<&str> = catalogue.schemes().map(|row: &uri::Row| row.name).collect();
    let mut text = format!(
        "Works on other machines over SSH: {} tools, {} kinds of resources ({}). Each answer is a text block and the \
         same facts as structured content. Ids end in _ID. NEXT lists the calls that make sense, ids filled in; HINT \
         and WARN lines matter.\n",
        catalogue.count(),
        schemes.len(),
        schemes.join(", "),
    );
    let mut section = |title: &str, lines: &[(&[&str], &str)]| {
        let kept: Vec<_> =
            lines.iter().filter(|(tools, _)| tools.iter().all(|tool| catalogue.has(tool))).collect();
        if !kept.is_empty() {
            _ = writeln!(text, "\n{title}");
            kept.iter().for_each(|(_, line)| _ = writeln!(text, "- {line}"));
        }
    };
    section("Paths, best first", PATHS);
    section("Rules", RULES);
    text.push_str(RETRY);
    text
}

/// Each line with the tools it names.
const PATHS: &[(&[&str], &str)] = &[
    (
        &["ssh_connect", "ssh_exec", "sub_wait"],
        "Commands: ssh_connect (agent_id, reuse=auto), ssh_exec for each, then sub_wait for news of any of them. Many \
         run side by side on one session.",
    ),
    (
        &["sub_open", "sub_close"],
        "Notifications reach you? sub_open once, read ?cursor=auto when told, sub_close; each SUB_ID is yours to close.",
    ),
    (&["ssh_exec_batch"], "A few short commands in order: ssh_exec_batch."),
    (
        &["ssh_shell_open", "ssh_shell_write", "ssh_shell_wait_for", "ssh_shell_close"],
        "Programs that ask or draw: ssh_shell_open, ssh_shell_write with wait_secs or then ssh_shell_wait_for, \
         ssh_shell_close.",
    ),
    (
        &["ssh_upload", "ssh_download", "ssh_transfer_progress"],
        "Files: ssh_upload, ssh_download, then ssh_transfer_progress wait=true; not by commands.",
    ),
    (&["ssh_rsync"], "Trees, and more than 5 files: ssh_rsync, which moves what differs."),
    (
        &["ssh_forward", "ssh_forward_close"],
        "Ports of the host or behind it: ssh_forward, until ssh_forward_close.",
    ),
    (&["serial_open", "serial_write"], "Boards here: serial_open, then serial_write with wait_for."),
    (&["ssh_run"], "Last choice: ssh_run, which connects anew (200 to 2000 ms more)."),
];

const RULES: &[(&[&str], &str)] = &[
    (
        &["ssh_connect", "ssh_disconnect_agent"],
        "Give your own agent_id to ssh_connect; when done, and after any error you do not understand, end everything \
         with ssh_disconnect_agent.",
    ),
    (
        &["ssh_connect"],
        "What is idle ends by itself (EXPIRES_AT), and a command at its time limit; what must not be left over gets \
         release_when_no_subs=true.",
    ),
    (&["sub_wait"], "Never poll: sub_wait waits, and a wait that runs out loses nothing."),
    (&["ssh_exec_output"], "The end of one command: ssh_exec_output wait=true."),
    (&["ssh_shell_wait_for"], "The prompt of a shell: ssh_shell_wait_for."),
    (
        &["sub_stats", "sub_replay"],
        "lagged_drops or gap_bytes above 0 in sub_stats: bytes are missing; sub_replay what is held.",
    ),
    (&[], "resources/read URI?cursor=auto returns each byte once; it is the same output the tools show."),
    (&["ssh_resources"], "Lost an id? ssh_resources finds it."),
    (&[], "Repeat a call safely with the same _meta.idempotency_key."),
];

const RETRY: &str = "\nErrors by category: AUTH never unchanged; TRANSPORT with growing pauses, but look first where effect is \
                     unknown; RESOURCE make it again; POLICY free something; STATE correct the call; INTERNAL report.\n";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ssh_mcp_core::settings::Settings;

    use super::*;
    use crate::tools;

    fn under(toolsets: &str) -> String {
        let toolsets = toolsets.split(',').map(str::to_owned).collect();
        instructions(&Catalogue::new(Arc::new(Settings { toolsets, ..Settings::default() })))
    }

    #[test]
    fn they_fit_into_what_hosts_keep() {
        assert!(under("all").len() <= 2048, "{} bytes", under("all").len());
    }

    #[test]
    fn they_name_only_what_is_listed() {
        for toolsets in [
            "all",
            "core",
            "read_only",
            "connection",
            "exec",
            "shell",
            "transfer",
            "rsync",
            "forward",
            "sub",
            "serial",
            "all,-ssh_disconnect_agent",
        ] {
            let text = under(toolsets);
            let words: Vec<String> = toolsets.split(',').map(str::to_owned).collect();
            let catalogue = Catalogue::new(Arc::new(Settings { toolsets: words, ..Settings::default() }));
            for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
                let named = tools::rows().any(|row| row.name == word)
                    || word.starts_with("ssh_")
                    || word.starts_with("serial_");
                assert!(!named || catalogue.has(word), "{toolsets}: {word}");
            }
        }
    }

    #[test]
    fn they_count_what_is_listed() {
        let all = tools::rows().count();
        assert!(under("all").contains(&format!("{all} tools, ")), "{}", under("all"));
    }
}
