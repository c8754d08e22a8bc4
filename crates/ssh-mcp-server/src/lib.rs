//! Settings, assembly and fronts of ssh-mcp: the composition root.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`flags`], [`sources`] | command line, environment and file become one set of settings |
//! | `user`, `print_target` | who runs this, and what his SSH configuration says about a host |
//! | [`telemetry`] | the log |
//! | [`signals`] | requests to stop |
//! | [`stdio`], [`http`], [`ndjson`] | the fronts |
//! | [`transcripts`] | the adapter for transcripts: files below the state directory, windows of tmux |
//!
//! The binaries are [`stdio_main`], [`http_main`] and [`ndjson::main`]. What they serve is made by [`assemble`]; everything that has an
//! opinion about SSH or MCP is in other crates.

pub mod flags;
pub mod http;
pub mod ndjson;
mod print_target;
pub mod signals;
pub mod sources;
pub mod stdio;
pub mod telemetry;
pub mod transcripts;
mod user;

use std::{process::ExitCode, sync::Arc, time::Duration};

use ssh_mcp_core::{
    settings::{Binary, Settings},
    target_names,
};
use ssh_mcp_engine::{Drained, Engine, Ports};
use ssh_mcp_handler::{Handler, Shared, Transport};
use ssh_mcp_serial::SystemBus;
use ssh_mcp_sftp::Sftp;
use ssh_mcp_ssh::RusshConnector;
use tokio_util::sync::CancellationToken;

use crate::{
    flags::{HttpFlags, StdioFlags},
    http::{Room, Span},
    signals::Signals,
    sources::{Loaded, Start},
    transcripts::TranscriptFiles,
    user::User,
};

/// The product under these settings, over real SSH and on the serial ports of this machine. Must be called inside a runtime.
pub fn assemble(settings: Arc<Settings>) -> Arc<Shared> {
    let mut seed = [0; 8];
    // Only the jitter between connection attempts hangs on it.
    _ = getrandom::fill(&mut seed);
    let transcripts = TranscriptFiles::new(&settings, std::env::vars_os());
    let user = User::new(&sources::environment, settings.home.clone()).into_connecting();
    let connector = RusshConnector::new().for_user(user);
    let ports = Ports {
        connector: Arc::new(connector),
        files: Arc::new(Sftp),
        mirror: Arc::new(ssh_mcp_mirror::BothWays),
        serial: Arc::new(SystemBus::new()),
        transcripts: Arc::new(transcripts),
    };
    Shared::new(Engine::start(settings, ports, u64::from_le_bytes(seed)))
}

/// `ssh-mcp-stdio`: one client on the standard streams.
pub fn stdio_main() -> ExitCode {
    forbid_core_dumps();
    let (_, loaded) = match sources::start::<StdioFlags>() {
        Start::Run(flags, loaded) => (flags, loaded),
        Start::Leave(code) => return code,
    };
    run(loaded, Binary::Stdio, serve_stdio)
}

/// `ssh-mcp`: many clients over HTTP.
pub fn http_main() -> ExitCode {
    forbid_core_dumps();
    let (flags, loaded) = match sources::start::<HttpFlags>() {
        Start::Run(flags, loaded) => (flags, loaded),
        Start::Leave(code) => return code,
    };
    if flags.healthcheck {
        return ExitCode::from(u8::from(http::healthcheck(&loaded.settings).is_err()));
    }
    run(loaded, Binary::Http, serve_http)
}

/// Passwords and keys are in this process's memory, and must not be in a file because it crashed.
///
/// Not `PR_SET_DUMPABLE`: it would close `/proc` of this process to its own user, monitoring included.
fn forbid_core_dumps() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        // Lowering a limit is always allowed.
        _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    }
}

/// Exit code of a stop whose deadline passed with something left.
const EXIT_LEFT: u8 = 3;

/// Calls that are running when a stop is asked for have this long.
const LAST_CALLS: Duration = Duration::from_secs(2);

fn run<F: Future<Output = u8>>(
    loaded: Loaded,
    binary: Binary,
    serve: impl FnOnce(Arc<Settings>) -> F,
) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One connection is as fast on one thread; a second keeps a call answered while another is busy.
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match (loaded.start_log(binary), runtime) {
        (Ok(()), Ok(runtime)) => runtime,
        (Err(_), _) | (_, Err(_)) => return ExitCode::FAILURE,
    };
    let code = runtime.block_on(serve(loaded.settings));
    // Where the input is no pipe, a thread is blocked in reading it, and the runtime would wait for it.
    std::process::exit(code.into());
}

async fn serve_stdio(settings: Arc<Settings>) -> u8 {
    let Ok(mut signals) = Signals::new() else { return 1 };
    let shared = assemble(settings);
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(target: target_names::MAIN, version, "serving on the standard streams");
    let stop = CancellationToken::new();
    let (reader, writer) = rmcp::transport::stdio_pipes();
    let output = stdio::Output::new(writer);
    let shortcut = Arc::clone(&output);
    let handler = Handler::new(Arc::clone(&shared), Transport::Stdio).with_shortcut(shortcut);
    let served = stdio::serve(handler, reader, output, stop.clone());
    tokio::pin!(served);
    tokio::select! {
        () = &mut served => {}
        signal = signals.next() => {
            tracing::info!(target: target_names::MAIN, ?signal, "stopping");
            stop.cancel();
            tokio::select! {
                () = &mut served => {}
                signal = signals.next() => return signal.exit_code(),
            }
        }
    }
    leave(&shared, signals).await
}

async fn serve_http(settings: Arc<Settings>) -> u8 {
    let Ok(mut signals) = Signals::new() else { return 1 };
    let bound = match http::bind(&settings).await {
        Ok(bound) => bound,
        Err(error) => {
            tracing::error!(target: target_names::HTTP, "{error}");
            return error.exit_code();
        }
    };
    let shared = assemble(settings);
    let (made, engine) = (Arc::clone(&shared), Arc::clone(shared.engine()));
    let running = bound.serve(
        move |span| {
            let transport = match span {
                Span::Session => Transport::HttpSession,
                Span::Request => Transport::HttpStateless,
            };
            Handler::new(Arc::clone(&made), transport)
        },
        move || if engine.has_room() { Room::Left } else { Room::Full },
    );
    let signal = signals.next().await;
    tracing::info!(target: target_names::MAIN, ?signal, "stopping");
    running.refuse_new();
    tokio::select! {
        _ = tokio::time::timeout(LAST_CALLS, running.calls_done()) => {}
        signal = signals.next() => return signal.exit_code(),
    }
    let code = leave(&shared, signals).await;
    running.close().await;
    code
}

/// Ends everything in order; a second signal leaves at once.
async fn leave(shared: &Shared, mut signals: Signals) -> u8 {
    let drained = tokio::select! {
        drained = shared.engine().shutdown() => drained,
        signal = signals.next() => return signal.exit_code(),
    };
    match drained {
        Drained::Clean => {
            tracing::info!(target: target_names::MAIN, "stopped");
            0
        }
        Drained::Left(left) => {
            tracing::warn!(target: target_names::MAIN, left, "the deadline passed; leaving");
            EXIT_LEFT
        }
    }
}
