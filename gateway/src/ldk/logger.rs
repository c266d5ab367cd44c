//! LDK's log lines as `tracing` events.

use lightning::util::logger::{Level, Logger as LdkLogger, Record};

/// Hands LDK's records to `tracing`, target `ldk`.
pub(super) struct Logger;

impl LdkLogger for Logger {
    fn log(&self, record: Record) {
        let (module, args) = (record.module_path, &record.args);
        match record.level {
            Level::Gossip | Level::Trace => tracing::trace!(target: "ldk", module, "{args}"),
            Level::Debug => tracing::debug!(target: "ldk", module, "{args}"),
            Level::Info => tracing::info!(target: "ldk", module, "{args}"),
            Level::Warn => tracing::warn!(target: "ldk", module, "{args}"),
            Level::Error => tracing::error!(target: "ldk", module, "{args}"),
        }
    }
}
