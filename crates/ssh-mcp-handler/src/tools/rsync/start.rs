//! `ssh_rsync`: start a sync of two trees.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use ssh_mcp_core::{
    code::Effect as Begun,
    kind::rsync::{Transport, Way, sides},
    lifecycle::AutoRelease,
    port::mirror::{Devices, Options},
    registry::{Direction, Rsync},
    text,
    uri::Scheme,
};
use ssh_mcp_engine::SyncOrder;

use super::{Effect, Key, Reach, Repeat, Row, Set, call};
use crate::{
    args::Arguments,
    cx::Cx,
    failure::{self, Failure},
    next::{self, After},
    progress::{Beat, EVERY_5_S, Waiting},
    reply::{Answer, Body, Text},
    tools::process,
};

pub(super) const ROW: Row = Row {
    name: "ssh_rsync",
    title: "Sync a directory tree",
    description: "Makes a tree on one side like one on the other and returns its RSYNC_ID at once; takes rsync where the \
                  host has it, else SFTP. Only what differs is moved: prefer it to many uploads. One of src and dst is \
                  remote, written label:path; src/ is its content, src itself goes below dst. Directories need \
                  opts.archive or opts.recursive. opts.delete removes what src has not: look with opts.dry_run first. \
                  It ends by itself, by ssh_rsync_cancel or with its session.",
    effect: Effect::Destroys,
    repeat: Repeat::Counts,
    reach: Reach::Remote,
    key: Key::Honoured,
    sets: &[Set::Rsync],
    makes: Some(Scheme::Rsync),
    call: call!(start, StartArgs, StartBody),
};

#[derive(Debug, Deserialize, JsonSchema)]
struct StartArgs {
    session_id: String,
    src: String,
    dst: String,
    /// Then src and dst have no label.
    direction: Option<DirectionWord>,
    #[schemars(extend("default" = "auto"))]
    transport: Option<TransportWord>,
    opts: Option<OptsArgs>,
    /// Run-time limit; 0 is none.
    #[serde(default)]
    timeout_secs: u64,
    /// End it when nobody waits or reads.
    #[serde(default)]
    release_when_no_subs: bool,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum DirectionWord {
    Upload,
    Download,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum TransportWord {
    Auto,
    Wire,
    Sftp,
}

/// What is set here wins over archive.
#[derive(Debug, Default, Deserialize, JsonSchema)]
struct OptsArgs {
    #[schemars(extend("default" = false))]
    recursive: Option<bool>,
    /// recursive and all of preserve but hardlinks and sparse.
    #[serde(default)]
    archive: bool,
    #[serde(default)]
    delete: bool,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    compress: bool,
    /// Keep halves and go on behind them.
    #[serde(default)]
    partial: bool,
    /// Compare content, not times.
    #[serde(default)]
    verify_checksum: bool,
    /// As in .gitignore.
    #[serde(default)]
    exclude: Vec<String>,
    /// Wins over exclude.
    #[serde(default)]
    include: Vec<String>,
    bwlimit_kbps: Option<u64>,
    preserve: Option<PreserveArgs>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
struct PreserveArgs {
    #[schemars(extend("default" = true))]
    perms: Option<bool>,
    #[schemars(extend("default" = true))]
    mtime: Option<bool>,
    #[schemars(extend("default" = true))]
    owner: Option<bool>,
    #[schemars(extend("default" = true))]
    group: Option<bool>,
    #[schemars(extend("default" = true))]
    links: Option<bool>,
    #[serde(default)]
    hardlinks: bool,
    #[serde(default)]
    sparse: bool,
    #[schemars(extend("default" = false))]
    devices: Option<bool>,
}

impl Arguments for StartArgs {}

impl OptsArgs {
    fn options(&self) -> Options {
        let none = PreserveArgs::default();
        let preserve = self.preserve.as_ref().unwrap_or(&none);
        Options {
            recursive: self.recursive.unwrap_or(self.archive),
            delete: self.delete,
            dry_run: self.dry_run,
            compress: self.compress,
            partial: self.partial,
            checksum: self.verify_checksum,
            perms: preserve.perms.unwrap_or(true),
            mtime: preserve.mtime.unwrap_or(true),
            owner: preserve.owner.unwrap_or(true),
            group: preserve.group.unwrap_or(true),
            links: preserve.links.unwrap_or(true),
            hard_links: preserve.hardlinks,
            sparse: preserve.sparse,
            devices: match (preserve.devices, self.archive) {
                (Some(true), _) => Devices::Asked,
                (None, true) => Devices::Implied,
                (Some(false), _) | (None, false) => Devices::No,
            },
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct StartBody {
    rsync_id: String,
    session_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    from: String,
    to: String,
    transport: &'static str,
    /// 0 until the list is complete.
    files_planned: u64,
    bytes_planned: u64,
    dry_run: bool,
    delete: bool,
}

impl Body for StartBody {
    const STATUSES: &'static [&'static str] = &["started"];

    fn write(&self, text: &mut Text) {
        text.key("RSYNC_ID", &self.rsync_id);
        text.key("SESSION_ID", &self.session_id);
        text.maybe("AGENT_ID", self.agent_id.as_ref());
        text.key("FROM", &self.from);
        text.key("TO", &self.to);
        text.key("TRANSPORT", self.transport);
        text.key("FILES_PLANNED", self.files_planned);
        let human = text::human_size(self.bytes_planned);
        text.key("BYTES_PLANNED", format_args!("{} ({human})", self.bytes_planned));
        text.maybe("DRY_RUN", self.dry_run.then_some(true));
        text.maybe("DELETE", self.delete.then_some(true));
    }
}

async fn start(cx: &Cx, args: StartArgs) -> Result<Answer<StartBody>, Failure> {
    let StartArgs { session_id, src, dst, direction, transport, opts, timeout_secs, release_when_no_subs } =
        args;
    process::without_nul("src", &src)?;
    process::without_nul("dst", &dst)?;
    let direction = direction.map(|word| match word {
        DirectionWord::Upload => Direction::Upload,
        DirectionWord::Download => Direction::Download,
    });
    let sides = sides(&src, &dst, direction).map_err(|error| Failure::argument(error.to_string()))?;
    let direction = sides.direction;
    let local = cx.local_path(if direction == Direction::Upload { "src" } else { "dst" }, &sides.local)?;
    let opts = opts.unwrap_or_default();
    let options = opts.options();
    let order = SyncOrder {
        session: cx.session(&session_id)?.spec.id,
        sides,
        local,
        here: cx.open_files(),
        way: match transport {
            None | Some(TransportWord::Auto) => Way::Auto,
            Some(TransportWord::Wire) => Way::Only(Transport::Wire),
            Some(TransportWord::Sftp) => Way::Only(Transport::Sftp),
        },
        options,
        include: opts.include,
        exclude: opts.exclude,
        bwlimit: opts.bwlimit_kbps.filter(|kib| *kib > 0),
        limit: (timeout_secs > 0).then(|| Duration::from_secs(timeout_secs)),
        auto_release: if release_when_no_subs { AutoRelease::On } else { AutoRelease::Off },
    };
    let looking = || Beat { progress: 0, total: None, message: "looking at both sides".to_owned() };
    let starting = cx.engine.sync(&cx.owner, order);
    let rsync = match cx.progress.while_waiting(EVERY_5_S, starting, looking).await {
        Waiting::Done(started) => started.map_err(|error| failure::sync(error, direction))?,
        Waiting::Cancelled => return Err(super::super::exec::called_off(Begun::Unknown)),
    };
    let id = rsync.spec.id;
    let body = StartBody::new(&rsync);
    let empty = rsync.course.has_plan() && body.files_planned == 0 && !options.recursive;
    let alone = empty.then(|| {
        "no file is planned: without opts.recursive or opts.archive a directory is taken without its content".to_owned()
    });
    // Also of one that has ended meanwhile: how it ended is not said here.
    let answer = Answer::new("started", body).with_warnings(super::warnings(&rsync)).with_hint(alone);
    let release = rsync.life.snapshot().auto_release;
    let own_grace = cx.settings().lifecycle_own_grace;
    let waiter = super::stats::ROW.name;
    Ok(match rsync.status().has_ended() {
        true => answer,
        false => answer.with_hint(next::follow_hint(&cx.catalogue, id.into())).with_hint(next::release_hint(
            &cx.catalogue,
            release,
            own_grace,
            waiter,
        )),
    }
    .with_next(next::next(&cx.catalogue, After::SyncRuns(id))))
}

impl StartBody {
    fn new(rsync: &Rsync) -> Self {
        let spec = &rsync.spec;
        let stats = rsync.course.stats();
        let remote = if spec.remote.is_empty() { "~" } else { &spec.remote };
        let (from, to) = match spec.direction {
            Direction::Upload => (spec.local.as_str(), remote),
            Direction::Download => (remote, spec.local.as_str()),
        };
        Self {
            rsync_id: spec.id.to_string(),
            session_id: spec.session.to_string(),
            agent_id: spec.agent.clone(),
            from: from.to_owned(),
            to: to.to_owned(),
            transport: rsync.course.transport().as_str(),
            files_planned: stats.files_total,
            bytes_planned: stats.bytes_total,
            dry_run: spec.dry_run,
            delete: spec.delete,
        }
    }
}
