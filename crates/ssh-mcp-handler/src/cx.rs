//! What a tool function is given besides its arguments: the engine, who calls, how it waits, and how it looks things up.
//!
//! One value per call. Nothing in here outlives the call but the automatic cursors of the client's peer.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ssh_mcp_core::{
    code::Code,
    id::{CommandId, ForwardId, RsyncId, SerialId, SessionId, ShellId, SubId, TransferId},
    owner::Owner,
    registry::{Command, Entry, Forward, Registry, Rsync, Serial, Session, Shell, Transfer},
    settings::Settings,
    text,
    uri::{Resource, Scheme},
};
use ssh_mcp_engine::{Engine, LaneEntry, Local, Missing};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use crate::{
    asking::Asking, catalogue::Catalogue, failure::Failure, progress::Progress, push::Push, reply::Warned,
};

/// One call.
pub(crate) struct Cx {
    /// Does the work.
    pub(crate) engine: Arc<Engine>,
    /// Which tools exist, and so which may be named.
    pub(crate) catalogue: Arc<Catalogue>,
    /// Whom everything this call makes belongs to.
    pub(crate) owner: Owner,
    /// The client connection, if it outlives the call: its automatic cursors and how it hears of its lanes.
    pub(crate) push: Option<Push>,
    /// Waits and tells of it.
    pub(crate) progress: Progress,
    /// Asks the user.
    pub(crate) asking: Asking,
}

impl Cx {
    /// The settings of the process.
    pub(crate) fn settings(&self) -> &Settings {
        self.engine.settings()
    }

    /// An open session of the caller.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, with the nearest live ones.
    pub(crate) fn session(&self, id: &str) -> Result<Arc<Session>, Failure> {
        let sessions = &self.engine.registries().sessions;
        self.find(sessions, id, |id: SessionId| self.engine.session(&self.owner, id))
    }

    /// A command of the caller, running or retained.
    ///
    /// # Errors
    /// `COMMAND_NOT_FOUND`, with the nearest live ones.
    pub(crate) fn command(&self, id: &str) -> Result<Arc<Command>, Failure> {
        let commands = &self.engine.registries().commands;
        self.find(commands, id, |id: CommandId| self.engine.command(&self.owner, id))
    }

    /// A shell of the caller, open or retained.
    ///
    /// # Errors
    /// `SHELL_NOT_FOUND`, with the nearest live ones.
    pub(crate) fn shell(&self, id: &str) -> Result<Arc<Shell>, Failure> {
        let shells = &self.engine.registries().shells;
        self.find(shells, id, |id: ShellId| self.engine.shell(&self.owner, id))
    }

    /// A transfer of the caller, under way or retained.
    ///
    /// # Errors
    /// `TRANSFER_NOT_FOUND`, with the nearest live ones.
    pub(crate) fn transfer(&self, id: &str) -> Result<Arc<Transfer>, Failure> {
        let transfers = &self.engine.registries().transfers;
        self.find(transfers, id, |id: TransferId| self.engine.transfer_of(&self.owner, id))
    }

    /// A sync of the caller, under way or retained.
    ///
    /// # Errors
    /// `RSYNC_NOT_FOUND`, with the nearest live ones.
    pub(crate) fn rsync(&self, id: &str) -> Result<Arc<Rsync>, Failure> {
        let rsyncs = &self.engine.registries().rsyncs;
        self.find(rsyncs, id, |id: RsyncId| self.engine.rsync(&self.owner, id))
    }

    /// A forward of the caller, active or retained.
    ///
    /// # Errors
    /// `FORWARD_NOT_FOUND`, with the nearest live ones.
    #[cfg_attr(not(feature = "port_forward"), expect(dead_code, reason = "of the forward tools only"))]
    pub(crate) fn forward(&self, id: &str) -> Result<Arc<Forward>, Failure> {
        let forwards = &self.engine.registries().forwards;
        self.find(forwards, id, |id: ForwardId| self.engine.forward_of(&self.owner, id))
    }

    /// A serial port of the caller, open or retained.
    ///
    /// # Errors
    /// `SERIAL_NOT_FOUND`, with the nearest open ones.
    pub(crate) fn serial(&self, id: &str) -> Result<Arc<Serial>, Failure> {
        let serials = &self.engine.registries().serials;
        self.find(serials, id, |id: SerialId| self.engine.serial(&self.owner, id))
    }

    /// A lane of the caller.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for text that is no identifier; `SUB_NOT_FOUND`, with the nearest ones.
    pub(crate) fn lane(&self, id: &str) -> Result<Arc<LaneEntry>, Failure> {
        let sub_id = Self::sub_id(id)?;
        self.engine.lane(&self.owner, sub_id).ok_or_else(|| {
            let lanes = self.engine.lanes_of(&self.owner);
            // Those of about the same age share a prefix, and are the likelier ones.
            let nearest = text::nearest(&sub_id.to_string(), lanes.iter().map(|lane| lane.id.to_string()), 3);
            Failure::new(Code::SubNotFound, format!("no lane {sub_id}")).with_suggestions(nearest)
        })
    }

    /// What the leak watcher has to say about an entry that is shown; it says it once.
    pub(crate) fn leak(&self, resource: Resource) -> Option<Warned> {
        self.engine.take_leak(resource).map(Warned::leak)
    }

    /// What it has to say about everything on some sessions.
    pub(crate) fn leaks_on(&self, sessions: &[Arc<Session>]) -> Vec<Warned> {
        let registries = self.engine.registries();
        let is_on = |session: SessionId| sessions.iter().any(|shown| shown.spec.id == session);
        let commands = registries.commands.of_owner(&self.owner);
        let shells = registries.shells.of_owner(&self.owner);
        let commands = commands.iter().filter(|one| is_on(one.spec.session)).map(|one| one.spec.id.into());
        let shells = shells.iter().filter(|one| is_on(one.spec.session)).map(|one| one.spec.id.into());
        let transfers = registries.transfers.of_owner(&self.owner);
        let transfers = transfers.iter().filter(|one| is_on(one.spec.session)).map(|one| one.spec.id.into());
        let rsyncs = registries.rsyncs.of_owner(&self.owner);
        let rsyncs = rsyncs.iter().filter(|one| is_on(one.spec.session)).map(|one| one.spec.id.into());
        let forwards = registries.forwards.of_owner(&self.owner);
        let forwards = forwards.iter().filter(|one| is_on(one.spec.session)).map(|one| one.spec.id.into());
        commands
            .chain(shells)
            .chain(transfers)
            .chain(rsyncs)
            .chain(forwards)
            .filter_map(|resource| self.leak(resource))
            .collect()
    }

    /// The identifier of a lane.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for text that is none.
    pub(crate) fn sub_id(id: &str) -> Result<SubId, Failure> {
        id.trim().parse().map_err(|_| {
            let shown = text::cut(&text::one_line(id), 80).into_owned();
            Failure::argument(format!(
                "sub_id must be a SUB_ID of sub_open or sub_list; got the text {shown:?}"
            ))
        })
    }

    /// `max_output_bytes` of a call: what was asked for, held to the server's bounds.
    pub(crate) fn output_bytes(&self, asked: Option<u64>) -> usize {
        let Settings { output_default, output_cap, .. } = self.settings();
        asked.map_or(*output_default, clamped).clamp(1, *output_cap)
    }

    /// `max_items` of a call: what was asked for, held to the server's bounds.
    pub(crate) fn list_items(&self, asked: Option<u64>) -> usize {
        let Settings { list_default, list_cap, .. } = self.settings();
        asked.map_or(*list_default, clamped).clamp(1, *list_cap)
    }

    /// A time of the engine in RFC 3339, UTC, to the millisecond.
    pub(crate) fn rfc3339(&self, at: Duration) -> String {
        rfc3339(&self.engine, at)
    }

    /// The time of day of a time of the engine, UTC, `HH:MM:SS`.
    pub(crate) fn clock_time(&self, at: Duration) -> String {
        format(&self.engine, at, format_description!("[hour]:[minute]:[second]"))
    }

    /// A file of this machine that a call names in `field`: `~/` resolved, and for owners other than the local one only
    /// below the directories the operator opened, after following links (`docs/configuration.md`, "HTTP").
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where it lies outside, or nothing is open.
    pub(crate) fn local_file(&self, field: &str, path: &str) -> Result<PathBuf, Failure> {
        let file = self.expand_home(path);
        if self.owner.is_local() {
            return Ok(file);
        }
        let outside = || {
            Failure::argument(format!(
                "{field} must lie below a directory the operator opened to remote callers; got the text {path:?}"
            ))
        };
        // The same answer for "missing" and "not yours": a remote caller learns nothing about the server's files.
        let real = file.canonicalize().map_err(|_| outside())?;
        let open = self.settings().allow_local_paths.iter().filter_map(|root| root.canonicalize().ok());
        if open.into_iter().any(|root| real.starts_with(root)) { Ok(real) } else { Err(outside()) }
    }

    /// The local side of a transfer that a call names in `field`: from the home directory, where it is relative.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if it is relative and there is no home directory, or no path.
    pub(crate) fn local_path(&self, field: &str, path: &str) -> Result<PathBuf, Failure> {
        crate::tools::without_nul(field, path)?;
        let path = self.expand_home(path);
        match &self.settings().home {
            _ if path.is_absolute() => Ok(path),
            Some(home) => Ok(home.join(path)),
            None => Err(Failure::argument(format!(
                "{field} must be an absolute path: the server's user has no home directory"
            ))),
        }
    }

    /// What transfers of the caller may use of this machine's files: what the operator opened, and where nothing is said,
    /// everything for the local owner and nothing for others (`docs/configuration.md`, "HTTP").
    pub(crate) fn open_files(&self) -> Local {
        match self.settings().allow_local_paths.as_slice() {
            [] if self.owner.is_local() => Local::unrestricted(),
            open => Local::below(open),
        }
    }

    fn expand_home(&self, path: &str) -> PathBuf {
        match (&self.settings().home, path.strip_prefix('~')) {
            (Some(home), Some("")) => home.clone(),
            (Some(home), Some(rest)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
            (Some(_) | None, _) => Path::new(path).to_path_buf(),
        }
    }

    /// Looks an identifier up; text that is no identifier at all is as unknown as a wrong one.
    fn find<E: Entry, I: std::str::FromStr>(
        &self,
        registry: &Registry<E>,
        id: &str,
        look_up: impl FnOnce(I) -> Result<Arc<E>, Missing>,
    ) -> Result<Arc<E>, Failure> {
        let found = match id.trim().parse::<I>() {
            Ok(id) => look_up(id),
            Err(_) => Err(Missing::Unknown { nearest: self.nearest(registry, id) }),
        };
        found.map_err(|missing| Failure::missing(E::SCHEME, id, missing))
    }

    /// Up to three live identifiers nearest to a text.
    pub(crate) fn nearest<E: Entry>(&self, registry: &Registry<E>, id: &str) -> Vec<String> {
        ssh_mcp_core::port::Directory::nearest(registry, &self.owner, id)
    }

    /// The canonical URI of a resource.
    pub(crate) fn uri(scheme: Scheme, id: impl ssh_mcp_core::id::Id) -> String {
        Resource { scheme, id: id.as_uuid() }.to_string()
    }
}

/// A time of the engine in RFC 3339, UTC, to the millisecond.
pub(crate) fn rfc3339(engine: &Engine, at: Duration) -> String {
    const FORM: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    format(engine, at, FORM)
}

fn format(engine: &Engine, at: Duration, form: &[BorrowedFormatItem<'_>]) -> String {
    // Every part of the formats exists in every date, so nothing can fail but a date beyond the year 9999.
    OffsetDateTime::from(engine.clock().wall(at)).format(form).unwrap_or_default()
}

fn clamped(asked: u64) -> usize {
    usize::try_from(asked).unwrap_or(usize::MAX)
}
