//! What is logged: the operator's filter, with the libraries that quote data held back.

use std::str::FromStr;

use log::LevelFilter as LogLevel;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// A filter that was read: a default level and levels of targets, the longest matching target wins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filter {
    targets: Targets,
}

impl Filter {
    /// The filter where none was given.
    pub(super) fn info() -> Self {
        Self { targets: Targets::new().with_default(LevelFilter::INFO) }
    }

    /// Reads `level` and `target=level` separated by commas.
    ///
    /// A bare word that is no level is refused, although it could be a target: it is a misspelt level far more often, and
    /// would switch off everything else.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut targets = Targets::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (target, level) =
                part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
            let level = LevelFilter::from_str(level.trim()).map_err(|_| format!("{level} is no level"))?;
            targets = match target.map(str::trim) {
                None => targets.with_default(level),
                Some("") => return Err(format!("no target before {part}")),
                Some(target) if target.contains(|c: char| c.is_whitespace() || "[]{}\"=".contains(c)) => {
                    return Err(format!("{target} is no target"));
                }
                Some(target) => targets.with_target(target, level),
            };
        }
        Ok(Self { targets })
    }

    /// The filter over events. The SDK is silenced whatever was asked for: it logs requests whole, passwords included.
    pub(super) fn into_targets(self) -> Targets {
        let default = self.targets.default_level();
        self.targets
            .into_iter()
            .filter(|(target, _)| !target.starts_with(SDK))
            .collect::<Targets>()
            .with_default(default.unwrap_or(LevelFilter::OFF))
            .with_target(SDK, LevelFilter::OFF)
    }

    /// Whether a record of the `log` crate is taken: warnings and errors, more only where its target was named.
    pub(super) fn takes_log_record(&self, target: &str, level: log::Level) -> bool {
        level <= self.log_level(target)
    }

    /// The most that any target of the `log` crate may say.
    pub(super) fn most_for_log_records(&self) -> LogLevel {
        let named = self.named_libraries().map(|(_, level)| to_log(level)).max();
        named.unwrap_or(LogLevel::Off).max(self.log_level("russh"))
    }

    fn log_level(&self, target: &str) -> LogLevel {
        let named = self
            .named_libraries()
            .filter(|(name, _)| target.starts_with(*name))
            .max_by_key(|(name, _)| name.len());
        match named {
            // Below debug there are packets.
            Some((_, level)) => to_log(level).min(LogLevel::Debug),
            None => to_log(self.targets.default_level().unwrap_or(LevelFilter::OFF)).min(LogLevel::Warn),
        }
    }

    /// What was asked for of others than ourselves.
    fn named_libraries(&self) -> impl Iterator<Item = (&str, LevelFilter)> {
        self.targets.iter().filter(|(target, _)| !target.starts_with("ssh_mcp"))
    }
}

fn to_log(level: LevelFilter) -> LogLevel {
    match level.into_level() {
        None => LogLevel::Off,
        Some(tracing::Level::ERROR) => LogLevel::Error,
        Some(tracing::Level::WARN) => LogLevel::Warn,
        Some(tracing::Level::INFO) => LogLevel::Info,
        Some(tracing::Level::DEBUG) => LogLevel::Debug,
        Some(tracing::Level::TRACE) => LogLevel::Trace,
    }
}

/// Prefix of the MCP library's targets.
const SDK: &str = "rmcp";
