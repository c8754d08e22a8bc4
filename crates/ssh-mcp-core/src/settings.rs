//! Every setting of the product: its name, form, default, bounds, and who reads it.
//!
//! This table is the only home of these numbers. `--print-config`, the tables of `docs/configuration.md` and the table test
//! are made from it. It is pure: reading flags, the environment and files is the server's business, which hands over a look-up.
//! One [`Settings`] value is made at start and shared by all parts; nothing is read again while the process runs.
//!
//! To add a setting, add one row (its doc comment is its meaning in the documentation) and read the field.

mod form;
mod quantity;
mod reader;
mod row;
mod words;

use std::path::PathBuf;
use std::time::Duration;

pub use form::{Bind, Form, Listen, Token};
pub use quantity::{Bounds, Quantity, Unit};
pub use reader::{Entry, Origin, Outcome, Problem, Severity};
pub use row::{Alias, Binary, Effect, Row};
pub use words::{HostKeyChecking, LegacyTools, LogFormat, Words};

use crate::{lane::LagPolicy, target::Compression};

use form::{address, bind, choice, home, list, path, paths, secret, switch, text, url_path};
use quantity::{count, millis, seconds, size};
use row::{H, HS, HST, Spec, T, settings};

/// No upper bound but that of the type.
const ANY: u64 = u64::MAX;
const U32: u64 = u32::MAX as u64;
/// What a `--bind` leaves out.
const HTTP_HOST: &str = "0.0.0.0";
const HTTP_PORT: u16 = 8000;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

settings! {
"Connection":
    /// Longest time for one attempt: TCP, key exchange and authentication together.
    connect_timeout: Duration = HST, "SSH_CONNECT_TIMEOUT", seconds(30, 1, 3600), .parameter("`timeout_secs` of `ssh_connect`");
    /// Longest run time of a command; then it is ended and its output kept.
    command_timeout: Option<Duration> = HST, "SSH_COMMAND_TIMEOUT", seconds(180, 1, ANY).or_zero("no limit"), .parameter("`timeout_secs` of `ssh_exec`");
    /// Further attempts after a transient failure to connect; never after a refused login.
    max_retries: u32 = HST, "SSH_MAX_RETRIES", count(3, 0, 100), .parameter("`max_retries`");
    /// First wait between two attempts; it doubles with jitter and never exceeds 10 s.
    retry_delay: Duration = HST, "SSH_RETRY_DELAY_MS", millis(1000, 0, 10_000), .parameter("`retry_delay_ms`");
    /// An idle session is disconnected after this time; never while it holds live resources.
    inactivity_timeout: Option<Duration> = HST, "SSH_INACTIVITY_TIMEOUT", seconds(300, 1, ANY).or_zero("never"), .parameter("`persistent`");
    /// Whether zlib is offered to the server; `auto` offers it when the TCP connect took 10 ms or longer.
    compression: Compression = HST, "SSH_COMPRESSION", choice(Compression::Auto), .parameter("`compress`");
    /// Time between two keepalives of a session.
    keepalive_interval: Duration = HST, "SSH_KEEPALIVE_INTERVAL_S", seconds(30, 5, 3600), ;
    /// Unanswered keepalives after which a session counts as lost.
    keepalive_max: u32 = HST, "SSH_KEEPALIVE_MAX", count(3, 2, 100), ;
    /// Open sessions at most.
    max_sessions: Option<u32> = HST, "SSH_MAX_SESSIONS", count(0, 1, U32).or_zero("no limit"), ;
    /// Time the reaper waits past the expiry of an idle session, so that a call at the deadline wins.
    session_idle_grace: Duration = HST, "SSH_SESSION_IDLE_GRACE_MS", millis(5000, 0, 600_000), ;

"Host keys and files":
    /// File of known host keys, read and extended as OpenSSH does.
    known_hosts: Option<PathBuf> = HST, "SSH_MCP_KNOWN_HOSTS", path(Some("~/.ssh/known_hosts")), .parameter("`known_hosts_file`");
    /// What happens to an unknown host key: refuse, learn, ask the client, or take anything (`no`, `off`). A changed key is refused except with the last two.
    host_key_checking: HostKeyChecking = HST, "SSH_STRICT_HOST_KEY_CHECKING", choice(HostKeyChecking::AcceptNew), .parameter("only to ask for more");
    /// Directory for what must outlive the process; made with mode 0700.
    state_dir: Option<PathBuf> = HST, "SSH_MCP_STATE_DIR", path(Some("~/.local/state/ssh-mcp")), ;
    /// Directories below which the local side of a call's files must lie, after resolving links; none listed means anywhere.
    allow_local_paths: Vec<PathBuf> = HST, "SSH_MCP_ALLOW_LOCAL_PATHS", paths(), ;
    /// Socket of the SSH agent.
    auth_sock: Option<PathBuf> = HST, "SSH_AUTH_SOCK", path(None), ;
    /// Home directory, what `~` stands for.
    home: Option<PathBuf> = HST, "HOME", home(), .or("USERPROFILE");
    /// External program of older versions.
    ssh_bin: Option<PathBuf> = HST, "SSH_MCP_SSH_BIN", path(None), .unused(Effect::NoPrograms);
    /// External program of older versions.
    scp_bin: Option<PathBuf> = HST, "SSH_MCP_SCP_BIN", path(None), .unused(Effect::NoPrograms);
    /// External program of older versions.
    rsync_bin: Option<PathBuf> = HST, "SSH_MCP_RSYNC_BIN", path(None), .unused(Effect::NoPrograms);

"Commands and answers":
    /// Time an ended command (or session record) stays readable; after the first 60 s with its newest 64 KiB.
    command_retention: Duration = HST, "SSH_COMMAND_CLEANUP_TTL", seconds(3600, 0, ANY), ;
    /// History of one command; the oldest bytes go first.
    command_history: usize = HST, "SSH_COMMAND_MAX_BUFFER_SIZE", size(10 * MIB, 4 * KIB, GIB), ;
    /// Upper bound of the output in one answer and of one `resources/read`.
    output_cap: usize = HST, "SSH_MCP_OUTPUT_MAX_BYTES_CAP", size(MIB, KIB, 64 * MIB), ;
    /// Output in one answer when the call does not say.
    output_default: usize = HST, "SSH_MCP_OUTPUT_DEFAULT_BYTES", size(16 * KIB, 1, 64 * MIB).capped_by("SSH_MCP_OUTPUT_MAX_BYTES_CAP"), .parameter("`max_output_bytes`");
    /// Upper bound of the entries in one list answer.
    list_cap: usize = HST, "SSH_MCP_LIST_MAX_ITEMS_CAP", count(10_000, 1, ANY), ;
    /// Entries in one list answer when the call does not say; page size of `resources/list`.
    list_default: usize = HST, "SSH_MCP_LIST_MAX_ITEMS", count(500, 1, ANY).capped_by("SSH_MCP_LIST_MAX_ITEMS_CAP"), .parameter("`max_items`");
    /// Commands running at once in one session.
    max_commands_per_session: u32 = HST, "SSH_MAX_COMMANDS_PER_SESSION", count(100, 1, U32), ;
    /// Bytes of all histories together; beyond it those of ended resources go first, then each live one is held to its fair share.
    history_total: usize = HST, "SSH_HISTORY_TOTAL_MAX", size(512 * MIB, 16 * MIB, 64 * GIB), ;
    /// Whether tools answer a structured form and publish its schema, or text only.
    structured_content: bool = HS, "SSH_MCP_STRUCTURED_CONTENT", switch(true), ;
    /// Which tools exist.
    toolsets: Vec<String> = HS, "SSH_MCP_TOOLSETS", list("all"), ;
    /// Tools of an older system, under its names and with its arguments and fields, in place of this version's.
    legacy_tools: LegacyTools = HS, "SSH_MCP_LEGACY_TOOLS", choice(LegacyTools::Off), ;

"Shells":
    /// An unobserved shell without input and output for this long is closed.
    shell_inactivity: Option<Duration> = HST, "SSH_SHELL_INACTIVITY_TTL", seconds(600, 1, ANY).or_zero("never"), .parameter("`inactivity_ttl`").deprecated("SSH_SHELL_INACTIVITY_TTL_SECS");
    /// History of one shell; the oldest bytes go first.
    shell_history: usize = HST, "SSH_SHELL_MAX_BUFFER_SIZE", size(10 * MIB, 4 * KIB, GIB), .parameter("`max_buffer_size`").or("SSH_SHELL_MAX_BUFFER");
    /// Open shells of one session.
    max_shells_per_session: u32 = HST, "SSH_MAX_SHELLS_PER_SESSION", count(10, 1, U32), ;
    /// Longest wait for the first output when a shell is opened.
    shell_peek: Option<Duration> = HST, "SSH_SHELL_OPEN_INITIAL_PEEK_MS", millis(100, 1, 10_000).or_zero("off"), ;
    /// Quiet time after the first output that ends that wait early.
    shell_peek_quiet: Duration = HST, "SSH_SHELL_OPEN_INITIAL_PEEK_TICK_MS", millis(5, 1, 1000), ;
    /// Program that opens the windows of `observer_mode=tmux`.
    tmux_bin: Option<PathBuf> = HST, "SSH_MCP_TMUX_BIN", path(Some("tmux")), ;
    /// Bytes of the first output that the answer shows.
    shell_peek_bytes: usize = HST, "SSH_SHELL_OPEN_INITIAL_BUFFER_MAX_BYTES", size(4 * KIB, 1, MIB), ;

"Transfers":
    /// Transfers and syncs under way in one session.
    max_transfers_per_session: u32 = HST, "SSH_MAX_TRANSFERS_PER_SESSION", count(10, 1, U32), ;
    /// Time an ended transfer or sync stays readable.
    transfer_retention: Duration = HST, "SSH_TRANSFER_CLEANUP_TTL", seconds(300, 0, ANY), ;
    /// Bytes of one SFTP request; automatic is what the server allows, 32k where it does not say. More than it allows is lowered to that.
    sftp_chunk: Option<u32> = HST, "SSH_SFTP_CHUNK_BYTES", size(0, 4 * KIB, 255 * KIB).or_zero("automatic"), ;
    /// SFTP requests under way per transfer; automatic follows the round trip, at most 8 MiB of them.
    sftp_pipeline: Option<usize> = HST, "SSH_SFTP_PIPELINE", count(0, 1, 256).or_zero("automatic"), ;

"Rsync":
    /// Longest wait for a host to say which rsync it has; after that it counts as having none for this call.
    rsync_probe_timeout: Duration = HST, "SSH_RSYNC_PROBE_TIMEOUT_MS", millis(2000, 100, 60_000), ;
    /// Length of the blocks that changed files are compared by; automatic follows the file. Over rsync's protocol only.
    rsync_block_size: Option<u32> = HST, "SSH_RSYNC_BLOCK_SIZE", size(0, 512, 128 * KIB).or_zero("automatic"), ;
    /// Entries of one tree at most, of syncs and of recursive transfers.
    rsync_file_list_limit: u32 = HST, "SSH_RSYNC_FILE_LIST_LIMIT", count(1_000_000, 1, 100_000_000), ;

"Forwards":
    /// Forwards of one session.
    max_forwards_per_session: u32 = HST, "SSH_MAX_FORWARDS_PER_SESSION", count(32, 1, U32), ;
    /// Connections of one forward at a time; further ones wait to be let in.
    max_forward_connections: usize = HST, "SSH_MAX_FORWARD_CONNECTIONS", count(256, 1, U32), ;

"Serial ports":
    /// Devices that may be opened, as patterns of paths in which `*` and `?` stop at a slash; none listed means any, `none` means none.
    allow_serial: Vec<String> = HST, "SSH_MCP_ALLOW_SERIAL", list(""), ;

"Notifications":
    /// At most one announcement of a lane in this time, the byte threshold aside; it goes out early when the producer pauses.
    notify_debounce: Duration = HST, "SSH_NOTIFY_DEBOUNCE_MS", millis(200, 5, 5000), .parameter("`debounce_ms` of `sub_open`").with_unit("SSH_NOTIFY_DEBOUNCE");
    /// Upper bound between data and its announcement, where a lane asked for a longer window; never fires without data.
    notify_force: Duration = HST, "SSH_NOTIFY_FORCE_FLUSH_MS", millis(1000, 100, 60_000), .with_unit("SSH_NOTIFY_FORCE_FLUSH");
    /// A lane that has nothing to say is notified all the same at this interval.
    notify_keepalive: Option<Duration> = HST, "SSH_NOTIFY_KEEPALIVE_S", seconds(0, 5, 300).or_zero("off"), .with_unit("SSH_NOTIFY_KEEPALIVE");
    /// A lane announces at once when so much is unannounced.
    notify_bytes: Option<u64> = HST, "SSH_NOTIFY_FLUSH_BYTES", size(64 * KIB, KIB, MIB).or_zero("off"), .parameter("`flush_bytes` of `sub_open`");
    /// Whether a lane sends the bytes inside its notifications when the call does not say; only to clients that can take them.
    inline_push: bool = HS, "SSH_INLINE_PUSH_DEFAULT", switch(false), .parameter("`inline_push` of `sub_open`");
    /// Bytes in one notification that carries them; 0 removes the capability.
    inline_piece: Option<usize> = HS, "SSH_INLINE_PUSH_MAX_BYTES_PER_NOTIFY", size(32 * KIB, KIB, MIB).or_zero("off"), ;

"Lanes and clients":
    /// Events that wait in one lane; beyond it the lane's policy acts.
    lane_queue: usize = HST, "SSH_LANE_BUFFER", count(1024, 16, 65_536), ;
    /// Messages that wait behind one client.
    mux_queue: u32 = HST, "SSH_MUX_BUFFER", count(8192, 64, 1_048_576), .unused(Effect::NoOutbox);
    /// Lanes on one resource, of all clients together.
    lanes_per_uri: u32 = HST, "SSH_MAX_SUBS_PER_URI", count(16, 1, 65_535), ;
    /// Lanes altogether.
    lanes_total: u32 = HST, "SSH_MAX_SUBS_TOTAL", count(1024, 1, 65_535), ;
    /// What a lane does when its queue is full.
    lag_policy: LagPolicy = HST, "SSH_LAG_POLICY_DEFAULT", choice(LagPolicy::Snapshot), .parameter("`lag_policy` of `sub_open`");
    /// Longest time a `block_slow` lane keeps its resource's history from dropping bytes beyond its bound.
    block_timeout: Duration = HST, "SSH_BP_BLOCK_TIMEOUT_MS", millis(5000, 100, 60_000), ;
    /// Characters of a filter.
    filter_length: usize = HST, "SSH_FILTER_REGEX_MAX", count(1024, 16, 65_536), ;
    /// How far back a replay or a resynchronisation reaches.
    replay_window: u64 = HST, "SSH_REPLAY_WINDOW_BYTES", size(MIB, 4 * KIB, 64 * MIB), .parameter("`bytes` of `sub_replay`");
    /// Age at which a resource that nobody observes is reported.
    leak_warn: Duration = HST, "SSH_SUB_LEAK_RISK_WARN_S", seconds(2, 1, 3600), ;
    /// Time without observer, input and reads after which such a resource is closed.
    leak_kill: Option<Duration> = HST, "SSH_SUB_LEAK_RISK_KILL_S", seconds(0, 1, 86_400).or_zero("off"), ;
    /// How often lanes are looked for whose client's end was missed.
    peer_sweep: Duration = HST, "SSH_MCP_PEER_GC_INTERVAL_S", seconds(30, 5, 300), ;

"Life of resources":
    /// Time between the last observer's leaving and the end of a resource that releases itself.
    lifecycle_grace: Duration = HST, "SSH_LIFECYCLE_GRACE_MS", millis(2000, 0, 3_600_000), .parameter("`grace_ms`");
    /// The same time before the first observer has come, and after a call that only read or waited.
    lifecycle_own_grace: Duration = HST, "SSH_LIFECYCLE_OWN_GRACE_MS", millis(30_000, 0, 3_600_000), ;
    /// Deadline of an orderly stop.
    shutdown_deadline: Duration = HST, "SSH_GRACE_HARD_TIMEOUT_S", seconds(30, 1, 3600), .flag("--grace-secs");
    /// Time an answer is replayed under its idempotency key.
    idempotency_ttl: Duration = HST, "SSH_IDEMPOTENCY_TTL_SECS", seconds(300, 1, 86_400), ;
    /// Answers kept for replay; the oldest goes first.
    idempotency_entries: usize = HST, "SSH_IDEMPOTENCY_MAX_ENTRIES", count(1024, 1, 1_000_000), ;

"Event channels":
    /// Queue for events of commands in older versions.
    command_broadcast: u32 = HST, "SSH_COMMAND_BROADCAST_CAP", count(1024, 16, 65_536), .unused(Effect::NoCapacity);
    /// Queue for events of shells and serial ports in older versions.
    shell_broadcast: u32 = HST, "SSH_SHELL_BROADCAST_CAP", count(1024, 16, 65_536), .unused(Effect::NoCapacity);
    /// Queue for events of transfers and syncs in older versions.
    transfer_broadcast: u32 = HST, "SSH_TRANSFER_BROADCAST_CAP", count(256, 8, 4096), .unused(Effect::NoCapacity);
    /// Queue for health events of sessions in older versions.
    session_broadcast: u32 = HST, "SSH_SESSION_BROADCAST_CAP", count(256, 8, 4096), .unused(Effect::NoCapacity);
    /// Queue for events of forwards in older versions.
    forward_broadcast: u32 = HST, "SSH_FORWARD_BROADCAST_CAP", count(256, 8, 4096), .unused(Effect::NoCapacity);

"Lines of JSON":
    /// Longest line of input.
    line_max: usize = T, "SSH_NDJSON_LINE_MAX", size(MIB, KIB, 16 * MIB), .flag("--line-max");
    /// Time between two heartbeats of `daemon`; `run` and `shell` send them only if asked to by the flag.
    heartbeat: Option<Duration> = T, "SSH_HEARTBEAT_INTERVAL_S", seconds(30, 1, 3600).or_zero("off"), .flag("--heartbeat-secs");
    /// Time between two `daemon_stats` of `daemon`.
    daemon_stats: Option<Duration> = T, "SSH_DAEMON_STATS_INTERVAL_S", seconds(60, 1, 3600).or_zero("off"), .flag("--stats-secs");
    /// Several lines for each event: for eyes only, no program can read them.
    ndjson_pretty: bool = T, "SSH_NDJSON_PRETTY", switch(false), ;

"HTTP":
    /// Listen address.
    http_host: String = H, "MCP_HOST", address(HTTP_HOST), ;
    /// Listen port; 0 takes any free one, which the `listening` line of the log names.
    http_port: u16 = H, "MCP_PORT", count(HTTP_PORT as u64, 0, 65_535), ;
    /// Listen addresses as `HOST:PORT`, `:PORT` or `HOST`; the flag may be repeated and replaces `MCP_HOST` and `MCP_PORT` together.
    http_bind: Vec<Listen> = H, "--bind", bind(HTTP_HOST, HTTP_PORT), .flag("--bind");
    /// Path at which MCP is served; with `/` also at `/mcp` and `/sse`.
    http_path: String = H, "MCP_HTTP_PATH", url_path("/"), .flag("--path");
    /// Token that requests from elsewhere must show.
    auth_token: Option<Token> = H, "MCP_AUTH_TOKEN", secret(), ;
    /// File with the token, or with one `name:token` per line; must not be readable by others.
    auth_token_file: Option<PathBuf> = H, "MCP_AUTH_TOKEN_FILE", path(None), .flag("--auth-token-file");
    /// Whether local requests must show a token too.
    require_token: bool = H, "MCP_REQUIRE_TOKEN", switch(false), .flag("--require-token");
    /// Names accepted in `Host` besides loopback names, addresses and the machine's own name; `*` accepts all.
    allowed_hosts: Vec<String> = H, "MCP_ALLOWED_HOSTS", list(""), .flag("--allowed-hosts");
    /// Browser origins accepted besides loopback ones and the server's own.
    allowed_origins: Vec<String> = H, "MCP_ALLOWED_ORIGINS", list(""), .flag("--allowed-origins");
    /// Largest request body; a larger one is answered 413.
    http_max_body: usize = H, "MCP_MAX_BODY", size(16 * MIB, 64 * KIB, 256 * MIB), ;
    /// An HTTP session without an open stream and without a request for this long is dropped.
    http_session_idle: Duration = H, "MCP_SESSION_IDLE_S", seconds(3600, 60, 604_800), ;
    /// HTTP sessions at most; then 503.
    max_http_sessions: usize = H, "MCP_MAX_HTTP_SESSIONS", count(1024, 1, U32), ;
    /// Whether plain requests without a session are served; a missing `Accept` then counts as both types.
    stateless_post: bool = H, "MCP_STATELESS_POST", switch(true), ;

"Log and start":
    /// Log filter: a level, or `target=level` pairs separated by commas.
    log_filter: String = HST, "RUST_LOG", text("info"), .flag("--log");
    /// Form of the log lines.
    log_format: LogFormat = HST, "SSH_MCP_LOG_FORMAT", choice(LogFormat::Text), .flag("--log-format");
    /// Whether a value that cannot be read, or lies outside its range, refuses the start.
    strict_config: bool = HST, "SSH_MCP_STRICT_CONFIG", switch(false), ;
}

impl Settings {
    /// Resolves every setting of `binary` from `sources`, which answers what a place says about a name.
    ///
    /// `home` is the home directory of last resort, where neither `HOME` nor `USERPROFILE` is set.
    pub fn resolve(
        binary: Binary,
        sources: &dyn Fn(Origin, &str) -> Option<String>,
        home: Option<PathBuf>,
    ) -> Outcome {
        let mut reader = reader::Reader::new(binary, sources, home);
        let settings = Self::read(&mut reader);
        reader.finish(settings)
    }

    /// Describes every setting of every program, in the order of the table.
    pub fn rows() -> Vec<Row> {
        let mut reader = reader::Reader::new(Binary::Http, &|_, _| None, None);
        Self::read(&mut reader);
        reader.into_rows()
    }

    /// Addresses to listen on: those of `--bind`, else `MCP_HOST` with `MCP_PORT`.
    pub fn listen(&self) -> Vec<Listen> {
        if self.http_bind.is_empty() {
            vec![Listen { host: self.http_host.clone(), port: self.http_port }]
        } else {
            self.http_bind.clone()
        }
    }
}

impl Default for Settings {
    /// The built-in defaults, with no home directory.
    fn default() -> Self {
        Self::resolve(Binary::Http, &|_, _| None, None).settings
    }
}

#[cfg(test)]
#[cfg(not(ssh_mcp_loom))]
mod tests;
