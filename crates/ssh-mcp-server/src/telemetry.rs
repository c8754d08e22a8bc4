//! The log: one line per event on the stream that is not the protocol's (`docs/configuration.md`, "Log").
//!
//! Owned by the process from start to end; installed once. Which lines exist is the business of those who write them, under
//! the targets of `ssh_mcp_core::target_names`. There are no log files and no rotation here: the supervisor collects.

mod filter;
mod line;
mod repeats;

use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::Mutex;
use std::time::Instant;

use ssh_mcp_core::settings::LogFormat;
use ssh_mcp_core::target_names;
use time::OffsetDateTime;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{SetGlobalDefaultError, set_global_default};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use filter::Filter;
use line::{Body, Fields, Scope};
use repeats::{Repeats, Verdict};

/// The stream that log lines go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Where standard output is free.
    Stdout,
    /// Where standard output belongs to the protocol.
    Stderr,
}

/// Whether lines for people may be coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// On a terminal.
    Auto,
    /// Nowhere, because `NO_COLOR` is set.
    Never,
}

/// Installs the log for the whole process, and a panic hook that writes to it.
///
/// A `filter` that cannot be read counts as `info` and leaves one warning as the first line.
///
/// # Errors
/// If the process has a log already.
pub fn start(
    filter: &str,
    format: LogFormat,
    stream: Stream,
    colour: Colour,
) -> Result<(), SetGlobalDefaultError> {
    let (filter, complaint) = match Filter::parse(filter) {
        Ok(filter) => (filter, None),
        Err(complaint) => (Filter::info(), Some(complaint)),
    };
    let terminal = match stream {
        Stream::Stdout => std::io::stdout().is_terminal(),
        Stream::Stderr => std::io::stderr().is_terminal(),
    };
    let style = match (format, colour) {
        (LogFormat::Json, Colour::Auto | Colour::Never) => line::Style::Json,
        (LogFormat::Text, Colour::Auto) if terminal => line::Style::Coloured,
        (LogFormat::Text, Colour::Auto | Colour::Never) => line::Style::Plain,
    };
    let write: WriteLine = match stream {
        Stream::Stdout => |line| std::io::stdout().lock().write_all(line),
        Stream::Stderr => |line| std::io::stderr().lock().write_all(line),
    };
    set_global_default(subscriber(filter.clone(), Lines::new(style, write)))?;
    forward::install(filter);
    std::panic::set_hook(Box::new(log_panic));
    if let Some(complaint) = complaint {
        tracing::warn!(target: target_names::MAIN, %complaint, "the log filter cannot be read; using info");
    }
    Ok(())
}

type WriteLine = fn(&[u8]) -> std::io::Result<()>;

fn subscriber(filter: Filter, lines: Lines) -> impl Subscriber + Send + Sync {
    Registry::default().with(lines).with(filter.into_targets())
}

/// Turns events into lines.
struct Lines {
    style: line::Style,
    write: WriteLine,
    // Held while a warning is compared with those before it, never across anything that waits.
    repeats: Mutex<Repeats>,
}

impl Lines {
    fn new(style: line::Style, write: WriteLine) -> Self {
        Self { style, write, repeats: Mutex::new(Repeats::default()) }
    }

    fn emit(&self, body: &Body, level: Level) {
        let now = Instant::now();
        let mut due = Vec::new();
        let verdict = match self.repeats.lock() {
            Ok(mut repeats) => {
                due = repeats.take_due(now);
                if level == Level::WARN { repeats.on_warning(body, now) } else { Verdict::Print }
            }
            Err(_) => Verdict::Print,
        };
        for (body, count) in due {
            self.print(&body, Some(count));
        }
        if let Verdict::Print = verdict {
            self.print(body, None);
        }
    }

    fn print(&self, body: &Body, repeated: Option<u32>) {
        let line = body.to_line(self.style, OffsetDateTime::now_utc(), repeated);
        // A reader that went away must not take the server with it.
        let _ = (self.write)(line.as_bytes());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let scope = context.event_scope(event).map(|spans| {
            let mut scope = Scope::default();
            for span in spans.from_root() {
                scope.enter(span.name(), span.extensions().get::<Fields>());
            }
            scope
        });
        let metadata: &Metadata<'_> = event.metadata();
        let body = Body::new(*metadata.level(), metadata.target(), fields, scope.unwrap_or_default());
        self.emit(&body, *metadata.level());
    }
}

/// A panic is a bug of ours, so its place is logged; what it says may quote data, so only a fixed text is.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(computed text)");
    tracing::error!(target: target_names::MAIN, place, what, "panic");
}

/// Records of the `log` crate, which is what russh writes to, become events of the same log.
mod forward {
    use log::{LevelFilter, Log, Metadata, Record};
    use ssh_mcp_core::target_names;

    use super::filter::Filter;

    struct Forward(Filter);

    pub(super) fn install(filter: Filter) {
        let most = filter.most_for_log_records();
        if most > LevelFilter::Off && log::set_boxed_logger(Box::new(Forward(filter))).is_ok() {
            log::set_max_level(most);
        }
    }

    impl Log for Forward {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            self.0.takes_log_record(metadata.target(), metadata.level())
        }

        fn log(&self, record: &Record<'_>) {
            if !self.enabled(record.metadata()) {
                return;
            }
            let (source, text) = (record.target(), record.args());
            match record.level() {
                log::Level::Error => tracing::error!(target: target_names::SSH, source, "{text}"),
                log::Level::Warn => tracing::warn!(target: target_names::SSH, source, "{text}"),
                log::Level::Info => tracing::info!(target: target_names::SSH, source, "{text}"),
                log::Level::Debug | log::Level::Trace => {
                    tracing::debug!(target: target_names::SSH, source, "{text}");
                }
            }
        }

        fn flush(&self) {}
    }
}

#[cfg(test)]
mod tests;
