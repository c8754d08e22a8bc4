//! The codes of errors and warnings: one table that drives tool results and JSON-RPC errors alike (`docs/errors.md`).
//!
//! A code is chosen by an exhaustive match over an error enum, never from text.

use serde::Serialize;

/// Who is to blame, and so what can be done; a host may decide on it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Category {
    /// Credentials or the host's identity.
    Auth,
    /// Network, SSH connection, local sockets.
    Transport,
    /// Files, on the far side or here.
    Remote,
    /// The thing addressed does not exist, or does no more.
    Resource,
    /// A limit or a switched-off feature.
    Policy,
    /// The request itself.
    State,
    /// A bug.
    Internal,
}

/// Whether calling again can help; finer than the category, and it wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// The same call will fail again.
    No,
    /// The same call may succeed in a moment.
    Backoff,
    /// Change or free something first.
    After,
    /// It depends on the detail.
    Judge,
}

/// Whether a call that failed may have begun its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing was started.
    None,
    /// It may have begun; a repeated call may run twice.
    Unknown,
}

macro_rules! codes {
    ($($category:ident { $($name:ident = $word:literal, $retry:ident, $when:literal, $cure:literal;)* })*) => {
        /// An error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {$($(#[doc = $when] $name,)*)*}

        impl Code {
            /// Every code, by category.
            pub const ALL: &[Code] = &[$($(Code::$name,)*)*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self {$($(Code::$name => $word,)*)*}
            }

            /// Whose fault it is.
            pub fn category(self) -> Category {
                match self {$($(Code::$name => Category::$category,)*)*}
            }

            /// Whether calling again can help.
            pub fn retry(self) -> Retry {
                match self {$($(Code::$name => Retry::$retry,)*)*}
            }

            /// When it is raised, one sentence.
            pub fn when(self) -> &'static str {
                match self {$($(Code::$name => $when,)*)*}
            }

            /// What to do, one sentence of at most 120 characters.
            pub fn cure(self) -> &'static str {
                match self {$($(Code::$name => $cure,)*)*}
            }
        }
    };
}

codes! {
    Auth {
        AuthFailed = "AUTH_FAILED", No,
            "Every method offered was rejected, or there was none to offer.",
            "Check the user name, then give a key_path or password the server accepts, or load the key into the agent.";
        AuthKeyParse = "AUTH_KEY_PARSE", No,
            "The key file is missing, unreadable, of unknown format, or its pass phrase is missing or wrong.",
            "Name a readable private key in OpenSSH, PKCS#8 or PEM form, with key_passphrase if it is encrypted.";
        HostKeyUnknown = "HOST_KEY_UNKNOWN", No,
            "Strict checking, and no known key.",
            "Compare the fingerprint with the server's own, then add its key to the known hosts file.";
        HostKeyMismatch = "HOST_KEY_MISMATCH", No,
            "The key differs from the known one, or is revoked.",
            "Somebody may be intercepting: verify the key with the host's owner, then replace the known entry.";
    }
    Transport {
        ConnectionFailed = "CONNECTION_FAILED", Backoff,
            "Name lookup, TCP or key exchange failed after all attempts of the call.",
            "Check the address, the port and that the host is reachable from here.";
        ConnectionTimeout = "CONNECTION_TIMEOUT", Backoff,
            "Not through within the time of the call.",
            "Try again, or raise timeout_secs.";
        TransportError = "TRANSPORT_ERROR", Backoff,
            "The connection broke in a way no finer code covers.",
            "Connect again and repeat the call, if effect says that nothing was started.";
        ChannelFailed = "CHANNEL_FAILED", Backoff,
            "The server refused or dropped a channel; nothing ran.",
            "Close shells or commands you no longer need; the server's session limit is the usual cause.";
        CommandFailed = "COMMAND_FAILED", Judge,
            "The connection broke while the command ran, without an exit status.",
            "The command may have finished: look at what it changed before you run it again.";
        WriteFailed = "WRITE_FAILED", No,
            "The shell's input is closed, or took nothing for 5 s.",
            "The shell is gone or stuck: close it and open a new one.";
        ForwardFailed = "FORWARD_FAILED", After,
            "Nobody can listen there, or the server does not forward.",
            "Take a port from 1024 on or another address; the server's AllowTcpForwarding or GatewayPorts may forbid it.";
        PortInUse = "PORT_IN_USE", After,
            "The local port is taken.",
            "Give another local_port; 0 takes any that is free.";
        RsyncProtocolError = "RSYNC_PROTOCOL_ERROR", Backoff,
            "The dialogue of a sync broke.",
            "Try once more, or with the other transport; the far side's words stand here.";
        RsyncPartialTransfer = "RSYNC_PARTIAL_TRANSFER", Backoff,
            "A sync was interrupted part-way.",
            "Repeat the sync with opts.partial=true, which keeps what arrives of a file.";
        Timeout = "TIMEOUT", After,
            "An inner step had no answer in time; nothing was begun.",
            "See whether the far side or its file system hangs, then try again.";
    }
    Remote {
        SftpError = "SFTP_ERROR", Judge,
            "The server's file service refused, for no finer reason.",
            "Check path, rights and space; the server's words stand here.";
        SftpOpenFailed = "SFTP_OPEN_FAILED", After,
            "The server has no file service, or does not start it.",
            "Have `Subsystem sftp` enabled in the server's sshd_config, or move the data with a command.";
        RemoteMetadataError = "REMOTE_METADATA_ERROR", Judge,
            "The remote source cannot be looked at.",
            "Check remote_path and the rights of the remote user.";
        LocalNotFile = "LOCAL_NOT_FILE", After,
            "The local path is no regular file.",
            "Give the path of a file; a directory needs recursive=true.";
        LocalFileError = "LOCAL_FILE_ERROR", After,
            "A file of the server's own machine cannot be read or made.",
            "Make the path usable for the server, as the system's words here say, or do without the file.";
        SerialError = "SERIAL_ERROR", Judge,
            "A serial device is missing, busy, forbidden, unplugged, or does not take a setting.",
            "Check path and cable, who else uses the port, and the groups of the user this server runs as.";
    }
    Resource {
        SessionNotFound = "SESSION_NOT_FOUND", No,
            "Unknown, disconnected or being disconnected.",
            "List live sessions with ssh_sessions, or connect again with ssh_connect.";
        ShellNotFound = "SHELL_NOT_FOUND", No,
            "Unknown, or closed and past retention.",
            "Open a new shell with ssh_shell_open.";
        CommandNotFound = "COMMAND_NOT_FOUND", No,
            "Unknown, or ended and past retention.",
            "List commands with ssh_commands, or run it again.";
        TransferNotFound = "TRANSFER_NOT_FOUND", No,
            "Unknown, or ended and past retention.",
            "Start the transfer again; resume=true goes on behind what has arrived.";
        ForwardNotFound = "FORWARD_NOT_FOUND", No,
            "Unknown, or ended and past retention.",
            "List forwards with ssh_resources, or open the forward again.";
        ForwardPortNotFound = "FORWARD_PORT_NOT_FOUND", No,
            "No forward has that local port.",
            "Compare with the port the forward answered when it was opened; ssh_resources lists forwards.";
        SerialNotFound = "SERIAL_NOT_FOUND", No,
            "Never opened, or closed, or the device is gone.",
            "List open ports with serial_active, or open the device with serial_open.";
        RsyncNotFound = "RSYNC_NOT_FOUND", No,
            "Unknown, or ended and past retention.",
            "Start the sync again; what is there already is not moved twice.";
        SubNotFound = "SUB_NOT_FOUND", No,
            "No such lane of this client.",
            "List your lanes with sub_list, or open a new one with sub_open.";
        ResourceNotFound = "RESOURCE_NOT_FOUND", No,
            "Well-formed URI whose id was never seen, or is forgotten.",
            "Take a URI from resources/list.";
        ResourceGone = "RESOURCE_GONE", No,
            "It existed and has ended.",
            "Create it again with the tool that makes this kind.";
    }
    Policy {
        MaxSessionsExceeded = "MAX_SESSIONS_EXCEEDED", After,
            "The limit of sessions is reached.",
            "Disconnect sessions you no longer need.";
        MaxShellsExceeded = "MAX_SHELLS_EXCEEDED", After,
            "The session holds as many shells as it may.",
            "Close a shell of this session first.";
        MaxCommandsExceeded = "MAX_COMMANDS_EXCEEDED", After,
            "The session runs as many commands as it may.",
            "Wait for a command of this session to end, or cancel one.";
        MaxTransfersExceeded = "MAX_TRANSFERS_EXCEEDED", After,
            "The session has as many transfers and syncs under way as it may.",
            "Wait for a transfer or sync of this session to end, or cancel one.";
        MaxForwardsExceeded = "MAX_FORWARDS_EXCEEDED", After,
            "The session has as many forwards as it may.",
            "Close a forward of this session first.";
        RsyncUnavailable = "RSYNC_UNAVAILABLE", After,
            "The host has no rsync, or lets none run, and no other way was allowed.",
            "Install rsync on the host, or use transport=auto.";
        RsyncVersionTooOld = "RSYNC_VERSION_TOO_OLD", After,
            "The host's rsync is older than 3.2.0, or another program of that name.",
            "Upgrade the host's rsync, or use transport=auto.";
        RsyncFileListTooLarge = "RSYNC_FILE_LIST_TOO_LARGE", After,
            "A tree has more entries than SSH_RSYNC_FILE_LIST_LIMIT.",
            "Exclude more, sync parts of the tree, or have the limit raised.";
        SftpFeatureMissing = "SFTP_FEATURE_MISSING", After,
            "The file service cannot do what was asked for; nothing was touched.",
            "Leave the option out, or have the host run rsync and use transport=wire.";
        MaxSubsPerUriExceeded = "MAX_SUBS_PER_URI_EXCEEDED", After,
            "The resource has as many lanes as it may.",
            "Use a lane you have on this resource, or close one.";
        MaxSubsTotalExceeded = "MAX_SUBS_TOTAL_EXCEEDED", After,
            "There are as many lanes as there may be.",
            "Look through your lanes with sub_list and close what you no longer need.";
        SerialBackpressure = "SERIAL_BACKPRESSURE", Backoff,
            "The port's queue of writes is full; nothing of the call was taken.",
            "Wait a little and send the same again.";
    }
    State {
        SshOptionBlocked = "SSH_OPTION_BLOCKED", No,
            "An option or argument of SSH that runs programs on this machine, opens ports or loads libraries.",
            "Leave the option out; ProxyCommand belongs into the user's own ssh_config.";
        InvalidArgument = "INVALID_ARGUMENT", No,
            "A rule of the tool is broken and no finer code fits.",
            "Correct the argument and call again.";
        ResumeOvershoot = "RESUME_OVERSHOOT", No,
            "The destination is longer than the source; nothing was touched.",
            "Check both paths, then send with resume=false.";
        ResumeMismatch = "RESUME_MISMATCH", No,
            "What the destination has is not how the source begins; nothing was touched.",
            "Check both paths, then send with resume=false.";
        InvalidRepeat = "INVALID_REPEAT", No,
            "repeat is outside 1 to 64.",
            "Give a repeat from 1 to 64.";
        ModifierNotAllowed = "MODIFIER_NOT_ALLOWED", No,
            "The key does not take that modifier.",
            "Drop the modifier, or send the raw bytes with ssh_shell_write.";
        EmptyPatterns = "EMPTY_PATTERNS", No,
            "No pattern, or an empty one.",
            "Give at least one pattern, none of them empty.";
        TooManyPatterns = "TOO_MANY_PATTERNS", No,
            "More than 16 patterns.",
            "Give at most 16 patterns; split the wait if you need more.";
        PatternTooLong = "PATTERN_TOO_LONG", No,
            "A pattern above 1024 bytes.",
            "Shorten the pattern to at most 1024 bytes.";
        InvalidLifetime = "INVALID_LIFETIME", No,
            "Unknown lifetime, or ttl_secs outside 1 to 86400.",
            "Give manual, auto_close or lease, and a ttl_secs from 1 to 86400.";
        InvalidLagPolicy = "INVALID_LAG_POLICY", No,
            "Unknown lag policy.",
            "Give snapshot, block_slow, drop_oldest or drop_newest.";
        FilterInvalid = "FILTER_INVALID", No,
            "The expression does not compile, or is too long or too large.",
            "Correct the expression: linear-time syntax, without look-around and back-references.";
        FeatureDisabled = "FEATURE_DISABLED", No,
            "This build has it not, or the operator left the tool out.",
            "Use another tool, or ask the operator for the build or the tool set named here.";
        IdempotencyKeyTooLong = "IDEMPOTENCY_KEY_TOO_LONG", No,
            "The key is above 256 bytes; nothing ran.",
            "Use a key of at most 256 bytes, such as a UUID.";
        IdempotencyKeyMismatch = "IDEMPOTENCY_KEY_MISMATCH", No,
            "The key is known with other arguments; nothing ran.",
            "Take a new key for a new call.";
        IdempotencyInProgress = "IDEMPOTENCY_IN_PROGRESS", Backoff,
            "The first call with the key ended without an answer that can be replayed.",
            "Repeat the call with the same key in a moment.";
        NameInUse = "NAME_IN_USE", No,
            "A shell of that name is open on that target.",
            "Use ensure=true to take the open shell, or choose another name.";
        InvalidOp = "INVALID_OP", No,
            "Of `ssh-mcp-tail`: a line is no JSON object, names no op, or a field of it cannot be used.",
            "Correct the line; cause and reason say what is wrong with it.";
        LineTooLong = "LINE_TOO_LONG", No,
            "Of `ssh-mcp-tail`: a line is above `SSH_NDJSON_LINE_MAX`; it was skipped.",
            "Send a shorter line, or start with a larger --line-max.";
        RefUnresolved = "REF_UNRESOLVED", No,
            "Of `ssh-mcp-tail`: a reference names an op that is unknown, failed, or made nothing of that kind.",
            "Refer to the id of an earlier op that made what is meant.";
    }
    Internal {
        InternalError = "INTERNAL_ERROR", No,
            "An unexpected failure, or a panic caught at the call's edge.",
            "Report this with the correlation id and the log around it.";
        StorageError = "STORAGE_ERROR", No,
            "A registry is inconsistent.",
            "Report this with the log around it.";
        LifecycleStateConflict = "LIFECYCLE_STATE_CONFLICT", No,
            "A state edge that must not exist was asked for.",
            "Report this with the edge and the id named here.";
        SessionRefcountUnderflow = "SESSION_REFCOUNT_UNDERFLOW", No,
            "A session reference was given back twice; the count stays 0.",
            "Report this with the session named here.";
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! warnings {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $retry:literal;)*) => {
        /// Advice that rides on a successful answer.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Warning {$($(#[$doc])* $name,)*}

        impl Warning {
            /// Every warning.
            pub const ALL: &[Warning] = &[$(Warning::$name,)*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self {$(Warning::$name => $word,)*}
            }

            /// What it asks for: `recover` nothing any more, `after` a change, `warn` attention.
            pub fn retry(self) -> &'static str {
                match self {$(Warning::$name => $retry,)*}
            }
        }
    };
}

warnings! {
    /// A command ended, but something it started still holds its output; later bytes still arrive.
    OutputStillOpen = "OUTPUT_STILL_OPEN", "warn";
    /// A command was ended by closing its channel alone, so its processes may live on.
    MayStillRun = "MAY_STILL_RUN", "warn";
    /// The call carries an argument the tool does not know; it was ignored.
    UnknownField = "UNKNOWN_FIELD", "warn";
    /// Bytes were lost because the history no longer had them.
    LagDetected = "LAG_DETECTED", "recover";
    /// A `block_slow` lane used up the time it may hold the history back.
    LagBackpressure = "LAG_BACKPRESSURE", "after";
    /// Events were dropped by policy.
    LaneBufferFull = "LANE_BUFFER_FULL", "after";
    /// A client took nothing for 5 s.
    MuxBackpressure = "MUX_BACKPRESSURE", "after";
    /// A replay asked for bytes that are no longer held.
    RingBufferOverflow = "RING_BUFFER_OVERFLOW", "recover";
    /// Nobody observes a resource that does not end by itself.
    SubLeakRisk = "SUB_LEAK_RISK", "warn";
    /// A lane's timing was out of range; the nearest bound is used.
    NotifyOverrideClamped = "NOTIFY_OVERRIDE_CLAMPED", "warn";
    /// A transcript could not be written on; its shell goes on.
    TranscriptBroken = "TRANSCRIPT_BROKEN", "warn";
    /// The source was written while it was read.
    SourceChanged = "SOURCE_CHANGED", "warn";
    /// The server cannot replace a file at once, so for a moment there was none.
    NotAtomic = "NOT_ATOMIC", "warn";
    /// rsync failed before the first file was touched; the file service took over.
    WireFallback = "WIRE_FALLBACK", "recover";
    /// A forward listens where others than its own machine reach it.
    ExposedListener = "EXPOSED_LISTENER", "warn";
    /// Files of a sync failed, or something asked for was not done.
    SyncIncomplete = "SYNC_INCOMPLETE", "warn";
    /// The window that was asked for could not be opened; the transcript is written all the same.
    ObserverUnavailable = "OBSERVER_UNAVAILABLE", "warn";
    /// The deadline of a stop passed with something left.
    GraceHardTimeout = "GRACE_HARD_TIMEOUT", "warn";
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_has_one_short_imperative_cure() {
        for code in Code::ALL {
            let cure = code.cure();
            assert!(cure.len() <= 120, "{code}: {} characters", cure.len());
            assert!(
                cure.ends_with('.') && !cure.trim_end_matches('.').contains(". "),
                "{code}: one sentence: {cure}"
            );
            assert!(cure.starts_with(char::is_uppercase), "{code}: {cure}");
            assert!(code.when().ends_with('.'), "{code}: {}", code.when());
        }
    }

    #[test]
    fn no_word_stands_for_two_codes() {
        let words: HashSet<_> = Code::ALL
            .iter()
            .map(|code| code.as_str())
            .chain(Warning::ALL.iter().map(|warning| warning.as_str()))
            .collect();
        assert_eq!(words.len(), Code::ALL.len() + Warning::ALL.len());
    }

    #[test]
    fn what_only_the_caller_can_change_is_never_retried_blindly() {
        for code in Code::ALL {
            match code.category() {
                Category::Auth | Category::Resource | Category::Internal => {
                    assert_eq!(code.retry(), Retry::No, "{code}")
                }
                // A queue empties by itself.
                Category::Policy if *code == Code::SerialBackpressure => {}
                Category::Policy => assert_eq!(code.retry(), Retry::After, "{code}"),
                Category::Transport | Category::Remote | Category::State => {}
            }
        }
    }
}
