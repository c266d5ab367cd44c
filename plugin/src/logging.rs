//! The log: tracing events become lightningd's `log` notifications.
//!
//! lightningd shows `error` as BROKEN and `warn` as UNUSUAL, and operators (and test suites) watch for both. So only our
//! own crates may use them; what a dependency finds worth a warning is shown as debug.

use std::panic;

use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::wire::output::Output;

/// Overrides the level, in tracing's syntax: `CLN_PLUGIN_LOG=debug`.
const VARIABLE: &str = "CLN_PLUGIN_LOG";

/// Sends all events to lightningd, and panics as errors. The first call counts.
pub fn init(output: Output) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var(VARIABLE)
        .from_env_lossy();
    if tracing_subscriber::registry().with(filter).with(ToLightningd { output }).try_init().is_err() {
        return;
    }
    // stderr goes nowhere that an operator looks.
    panic::set_hook(Box::new(|info| tracing::error!("panic: {info}")));
}

struct ToLightningd {
    output: Output,
}

impl<S: Subscriber> Layer<S> for ToLightningd {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = level(event.metadata().level(), event.metadata().target());
        let note = json!({
            "jsonrpc": "2.0",
            "method": "log",
            "params": { "level": level, "message": text.message + &text.fields },
        });
        self.output.send(format!("{note}\n\n").into_bytes());
    }
}

fn level(level: &Level, target: &str) -> &'static str {
    let root = target.split("::").next().unwrap_or_default();
    let ours =
        root.starts_with("federation_") || matches!(root, "cln_federation" | "gateway" | "hold_plugin");
    match *level {
        Level::ERROR if ours => "error",
        Level::WARN if ours => "warn",
        Level::INFO if ours => "info",
        _ => "debug",
    }
}

/// `message field=value field=value`
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            // What the log crate's bridge adds.
            name if name.starts_with("log.") => {}
            name => self.fields.push_str(&format!(" {name}={value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_alarms_are_alarms() {
        assert_eq!(level(&Level::ERROR, "cln_federation::hook"), "error");
        assert_eq!(level(&Level::WARN, "federation_guardian"), "warn");
        assert_eq!(level(&Level::ERROR, "sqlx::query"), "debug");
        assert_eq!(level(&Level::WARN, "cln_plugin"), "debug");
    }
}
