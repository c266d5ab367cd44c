//! `GET /metrics`: the status as Prometheus reads it (text format 0.0.4).
//!
//! Labels are guardians' numbers and names of kinds, so there are never more than some hundred series, and nothing in them is
//! secret or chosen by users.
//!
//! | name | what |
//! |---|---|
//! | `clnfed_running` | 1 once the federation exists and runs here, else 0; without it nothing else is there |
//! | `clnfed_info{federation,guardian,version}` | 1 |
//! | `clnfed_epoch`, `clnfed_last_final_epoch` | the next epoch; the last with f + 1 signatures |
//! | `clnfed_catching_up`, `clnfed_silent`, `clnfed_diverged` | 0 or 1 |
//! | `clnfed_consensus_version{of}` | `in_force`, `supported` |
//! | `clnfed_alarms` | how many; the texts are in `GET /v1/status` |
//! | `clnfed_pool_transactions`, `clnfed_pool_bytes`, `clnfed_pool_oldest_seconds` | what waits here |
//! | `clnfed_epochs_total`, `clnfed_transactions_total{outcome}` | applied since the start of the process |
//! | `clnfed_epoch_seconds_sum`, `_count` | from this guardian's proposal to the commit |
//! | `clnfed_peer_…{peer}` | `connected`, `last_seen_seconds`, `rtt_seconds`, `queued_frames`, `epoch`, `epochs_behind`, `announced_version` |
//! | `clnfed_peer_faults_total{peer,kind}` | faults since the start of the process |

use std::fmt::{Display, Write as _};

use federation_core::rest::{PeerStatus, StatusResponse};

use crate::health::Counts;

/// The media type of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text before the federation exists.
pub const NOT_RUNNING: &str = "# HELP clnfed_running Whether the federation exists and runs here.\n# TYPE clnfed_running gauge\nclnfed_running 0\n";

/// The text for a status and some counters.
pub fn render(status: &StatusResponse, counts: &Counts) -> String {
    let mut out = Text::default();
    out.one("running", "Whether the federation exists and runs here.", 1);
    let info = [
        ("federation", status.federation_id.to_string()),
        ("guardian", status.peer.to_string()),
        ("version", status.version.clone()),
    ];
    out.family("info", "gauge", "Which guardian this is.").sample("", &info, 1);
    out.one("epoch", "The next epoch: all before it are applied.", status.epoch);
    out.family("last_final_epoch", "gauge", "The last epoch whose header f + 1 guardians have signed.");
    out.some(&[], status.last_final);
    out.one(
        "catching_up",
        "Whether past epochs are being fetched from others.",
        u8::from(status.catching_up),
    );
    out.one("silent", "Whether this guardian keeps silent in consensus.", u8::from(status.silent.is_some()));
    out.one(
        "diverged",
        "Whether this guardian's state differs from the others'.",
        u8::from(status.diverged.is_some()),
    );
    let versions = out.family(
        "consensus_version",
        "gauge",
        "The consensus version in force, and the newest known here.",
    );
    versions.sample("", &[("of", "in_force".to_owned())], status.consensus_version.in_force);
    versions.sample("", &[("of", "supported".to_owned())], status.consensus_version.supported);
    out.one("alarms", "How many things need an operator's attention: see /v1/status.", status.alarms.len());
    out.one("pool_transactions", "Transactions waiting here.", status.pool);
    out.one("pool_bytes", "Bytes of transactions waiting here.", status.pool_bytes);
    out.one("pool_oldest_seconds", "How long the oldest of them has waited.", seconds(status.pool_oldest_ms));
    out.family("epochs_total", "counter", "Epochs applied since the start.").sample("", &[], counts.epochs);
    let transactions = out.family("transactions_total", "counter", "Transactions decided since the start.");
    transactions.sample("", &[("outcome", "accepted".to_owned())], counts.accepted);
    transactions.sample("", &[("outcome", "rejected".to_owned())], counts.rejected);
    let took =
        out.family("epoch_seconds", "summary", "The time from this guardian's proposal to the commit.");
    took.sample("_sum", &[], counts.took.0.as_secs_f64());
    took.sample("_count", &[], counts.took.1);
    peers(&mut out, status);
    out.text
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

fn peers(out: &mut Text, status: &StatusResponse) {
    type Value = fn(&PeerStatus) -> Option<f64>;
    // Numbers up to 2^53 are exact.
    let families: [(&str, &str, Value); 7] = [
        ("peer_connected", "Whether the link to the guardian is up.", |peer| {
            Some(f64::from(u8::from(peer.connected)))
        }),
        ("peer_last_seen_seconds", "Since the guardian was last heard of.", |peer| {
            peer.last_seen_ms.map(seconds)
        }),
        ("peer_rtt_seconds", "The last measured round trip.", |peer| peer.rtt_ms.map(seconds)),
        ("peer_queued_frames", "Messages waiting to be sent or acknowledged.", |peer| {
            Some(peer.queued as f64)
        }),
        ("peer_epoch", "The next epoch that the guardian has to commit.", |peer| {
            peer.epoch.map(|epoch| epoch as f64)
        }),
        ("peer_epochs_behind", "How many epochs the guardian is behind this one.", |peer| {
            peer.epochs_behind.map(|behind| behind as f64)
        }),
        ("peer_announced_version", "The newest consensus version that the guardian has announced.", |peer| {
            Some(f64::from(peer.announced_version))
        }),
    ];
    for (name, help, value) in families {
        out.family(name, "gauge", help);
        for (peer, seen) in &status.peers {
            out.some(&[("peer", peer.to_string())], value(seen));
        }
    }
    out.family("peer_faults_total", "counter", "Faults of the guardian since the start, by kind.");
    for (peer, seen) in &status.peers {
        for (kind, count) in &seen.faults_by_kind {
            out.sample("", &[("peer", peer.to_string()), ("kind", kind.clone())], *count);
        }
    }
}

#[derive(Default)]
struct Text {
    text: String,
    family: String,
}

impl Text {
    /// Begins a family; the samples after it are of it.
    fn family(&mut self, name: &str, kind: &str, help: &str) -> &mut Self {
        self.family = format!("clnfed_{name}");
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {} {help}\n# TYPE {} {kind}", self.family, self.family);
        self
    }

    fn sample(&mut self, suffix: &str, labels: &[(&str, String)], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.family);
        for (place, (name, label)) in labels.iter().enumerate() {
            let open = if place == 0 { '{' } else { ',' };
            let label = label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{open}{name}=\"{label}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    /// A sample of what may be unknown.
    fn some(&mut self, labels: &[(&str, String)], value: Option<impl Display>) {
        if let Some(value) = value {
            self.sample("", labels, value);
        }
    }

    /// A family of one gauge.
    fn one(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help).sample("", &[], value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use federation_core::PeerId;

    use super::*;
    use crate::status::tests::healthy;

    #[test]
    fn each_line_is_as_the_format_wants_it() {
        let mut status = healthy();
        let peer = status.peers.get_mut(&PeerId(2)).unwrap();
        peer.faults_by_kind.insert("bad_item".to_owned(), 3);
        peer.rtt_ms = Some(1500);
        peer.epoch = None;
        let counts = Counts { epochs: 9, accepted: 5, rejected: 1, took: (Duration::from_millis(2500), 4) };
        let text = render(&status, &counts);
        let (mut families, mut family) = (BTreeSet::new(), "");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
                assert!(families.insert(family), "{family} twice");
            } else if !line.starts_with("# HELP ") {
                assert!(line.starts_with(family), "{line} is not of {family}");
                let (_, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with('\n'));
        for line in [
            "clnfed_running 1",
            "clnfed_epoch 7",
            "clnfed_last_final_epoch 6",
            "clnfed_consensus_version{of=\"in_force\"} 1",
            "clnfed_transactions_total{outcome=\"accepted\"} 5",
            "clnfed_epoch_seconds_sum 2.5",
            "clnfed_epoch_seconds_count 4",
            "clnfed_peer_connected{peer=\"1\"} 1",
            "clnfed_peer_rtt_seconds{peer=\"2\"} 1.5",
            "clnfed_peer_epoch{peer=\"1\"} 7",
            "clnfed_peer_faults_total{peer=\"2\",kind=\"bad_item\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("clnfed_peer_epoch{peer=\"2\"}"), "what is unknown is left out");
        assert!(!text.contains("alice"), "no names of people's choice");
    }

    #[test]
    fn labels_are_escaped() {
        let mut out = Text::default();
        out.family("x", "gauge", "x").sample("", &[("a", "b\"\\\n".to_owned())], 1);
        assert!(out.text.ends_with("clnfed_x{a=\"b\\\"\\\\\\n\"} 1\n"), "{}", out.text);
    }
}
