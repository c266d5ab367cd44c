//! `GET /v1/status`: this guardian's view of itself and of the others, and what needs its operator's attention.

use std::time::{Duration, Instant};

use federation_consensus::runner::{ConsensusStatus, PeerStatus as ConsensusPeer};
use federation_core::PeerId;
use federation_core::db::DbError;
use federation_core::rest::{ConsensusVersion, PeerStatus, StatusResponse};

use crate::health::{Sample, Trouble};
use crate::running::Running;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a sample of the guardian's health is taken of.
pub(crate) fn sample(status: &ConsensusStatus) -> Sample {
    Sample {
        next_epoch: status.next_epoch,
        last_final: status.last_final,
        connected: status.peers.iter().map(|(peer, seen)| (PeerId(*peer), seen.link.connected)).collect(),
    }
}

/// Why a guardian says nothing in consensus, in plain words.
fn silent(status: &ConsensusStatus) -> Option<String> {
    let why = "It was restored, or its disk went back to an earlier state, so it cannot know what it has said already; \
               saying something else now would be a fault";
    match status.speaks_from {
        u64::MAX => Some(format!(
            "this guardian keeps silent until n - f guardians have told it how far they have heard it. {why}"
        )),
        from if from > status.next_epoch => {
            Some(format!("this guardian keeps silent in all epochs before {from}. {why}"))
        }
        _ => None,
    }
}

impl Running {
    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<StatusResponse, DbError> {
        let consensus = self.consensus.status();
        let versions = self.applier.versions();
        let announced = versions.announced(&self.agreed()).await?;
        let consensus_version = ConsensusVersion {
            in_force: versions.in_force(&self.agreed()).await?,
            supported: versions.supported(),
        };
        let epoch = *self.epochs.borrow();
        let peers = consensus.peers.iter().map(|(peer, seen)| {
            let peer = PeerId(*peer);
            (peer, self.peer(peer, seen, epoch, announced.get(&peer).copied().unwrap_or_default()))
        });
        let waiting = self.pool.waiting();
        let mut status = StatusResponse {
            federation_id: self.federation,
            name: self.config.name.clone(),
            peer: self.me,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch,
            last_final: consensus.last_final,
            catching_up: consensus.catching_up,
            silent: silent(&consensus),
            diverged: self.archive.divergence().map(|found| found.epoch),
            consensus_version,
            pool: waiting.entries as u64,
            pool_bytes: waiting.bytes as u64,
            pool_oldest_ms: millis(waiting.oldest),
            peers: peers.collect(),
            alarms: Vec::new(),
        };
        let trouble = self.health.trouble(epoch, Instant::now());
        status.alarms = alarms(&status, &trouble, waiting.nearly_full());
        status.alarms.extend(self.snapshots.problem());
        for (id, module) in self.modules.iter() {
            status.alarms.extend(module.alarms(&self.module_reader(*id)).await?);
        }
        Ok(status)
    }

    fn peer(&self, peer: PeerId, seen: &ConsensusPeer, epoch: u64, announced_version: u16) -> PeerStatus {
        let link = &seen.link;
        let mut faults_by_kind = std::collections::BTreeMap::new();
        let mut count = |kind: String, number: u64| {
            let sum: &mut u64 = faults_by_kind.entry(kind).or_default();
            *sum = sum.saturating_add(number);
        };
        seen.faults.iter().for_each(|(kind, number)| count(snake(&format!("{kind:?}")), *number));
        self.faults.of(peer).into_iter().for_each(|(kind, number)| count(kind.to_owned(), number));
        if link.violations > 0 {
            count("link_rules".to_owned(), link.violations);
        }
        PeerStatus {
            name: self.endpoints.get(&peer).map(|endpoint| endpoint.name.clone()).unwrap_or_default(),
            connected: link.connected,
            rtt_ms: link.rtt.map(millis),
            queued: link.queued_frames as u64,
            faults: faults_by_kind.values().fold(0, |sum: u64, number| sum.saturating_add(*number)),
            faults_by_kind,
            last_seen_ms: link.last_seen.map(millis),
            last_error: link.last_error.clone().filter(|_| !link.connected),
            epoch: seen.next_epoch,
            epochs_behind: seen.next_epoch.map(|next| epoch.saturating_sub(next)),
            announced_version,
        }
    }
}

/// A variant's name as it is written in status and metrics.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for (place, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && place > 0 {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} minutes", seconds / 60),
        seconds => format!("{} hours", seconds / 3600),
    }
}

/// One sentence for each thing that an operator should look at.
fn alarms(status: &StatusResponse, trouble: &Trouble, pool_nearly_full: bool) -> Vec<String> {
    let mut alarms = Vec::new();
    if let Some(epoch) = status.diverged {
        alarms.push(format!(
            "this guardian's state differs from the others' since epoch {epoch}: it signs nothing any more and only \
             answers what it knows. Stop it, keep its data folder for an analysis, and restore it from its backup"
        ));
    }
    alarms.extend(status.silent.clone());
    for (peer, time) in &trouble.away {
        let name = status.peers.get(peer).map_or("", |peer| peer.name.as_str());
        alarms.push(format!(
            "there has been no connection to guardian {peer} ({name}) for {}: look at its machine, its address and the \
             network",
            seconds(*time)
        ));
    }
    if let Some((epoch, time)) = trouble.stalled {
        alarms.push(format!(
            "epoch {epoch} has not ended for {}: it takes n - f guardians, so too many are away",
            seconds(time)
        ));
    }
    if let Some(time) = trouble.not_final {
        alarms.push(format!(
            "the last epoch has not been final for {}: fewer than f + 1 guardians have signed it",
            seconds(time)
        ));
    }
    if pool_nearly_full {
        alarms.push(format!(
            "{} transactions of {} bytes wait here: soon no more will be taken",
            status.pool, status.pool_bytes
        ));
    }
    alarms.extend(missing_announcements(status));
    alarms
}

/// Somebody knows newer rules, and others have yet to be upgraded.
fn missing_announcements(status: &StatusResponse) -> Option<String> {
    let ConsensusVersion { in_force, supported } = status.consensus_version;
    let announced = || {
        let others = status.peers.iter().map(|(peer, seen)| (*peer, seen.announced_version));
        others.chain([(status.peer, supported)])
    };
    let newest = announced().map(|(_, version)| version).max().filter(|newest| *newest > in_force)?;
    let mut missing: Vec<_> =
        announced().filter(|(_, version)| *version < newest).map(|(peer, _)| peer).collect();
    missing.sort_unstable();
    let missing: Vec<_> = missing.iter().map(PeerId::to_string).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "consensus version {newest} is announced, but not by all: it waits for an upgrade of guardian {}",
            missing.join(", ")
        )
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use federation_core::FederationId;

    use super::*;

    pub(crate) fn healthy() -> StatusResponse {
        let peer = |name: &str| PeerStatus {
            name: name.to_owned(),
            connected: true,
            rtt_ms: Some(1),
            queued: 0,
            faults: 0,
            faults_by_kind: BTreeMap::new(),
            last_seen_ms: Some(3),
            last_error: None,
            epoch: Some(7),
            epochs_behind: Some(0),
            announced_version: 1,
        };
        StatusResponse {
            federation_id: FederationId([1; 32]),
            name: "test".to_owned(),
            peer: PeerId(0),
            version: "1".to_owned(),
            epoch: 7,
            last_final: Some(6),
            catching_up: false,
            silent: None,
            diverged: None,
            consensus_version: ConsensusVersion { in_force: 1, supported: 1 },
            pool: 0,
            pool_bytes: 0,
            pool_oldest_ms: 0,
            peers: [(PeerId(1), peer("alice")), (PeerId(2), peer("bob"))].into(),
            alarms: Vec::new(),
        }
    }

    #[test]
    fn a_healthy_guardian_has_no_alarms_and_each_trouble_has_one() {
        let quiet = Trouble::default();
        let minute = Duration::from_secs(90);
        assert_eq!(alarms(&healthy(), &quiet, false), Vec::<String>::new());
        let only = |status: &StatusResponse, trouble: &Trouble, full| match alarms(status, trouble, full)
            .as_slice()
        {
            [alarm] => alarm.clone(),
            other => panic!("{other:?}"),
        };
        let away = Trouble { away: [(PeerId(2), minute)].into(), ..quiet.clone() };
        assert!(only(&healthy(), &away, false).contains("guardian 2 (bob) for 90 s"));
        let not_final = Trouble { not_final: Some(minute), ..quiet.clone() };
        assert!(only(&healthy(), &not_final, false).contains("not been final"));
        let stalled = Trouble { stalled: Some((7, minute)), ..quiet.clone() };
        assert!(only(&healthy(), &stalled, false).contains("epoch 7 has not ended"));
        assert!(only(&healthy(), &quiet, true).contains("no more will be taken"));
        assert!(
            only(&StatusResponse { diverged: Some(3), ..healthy() }, &quiet, false).contains("since epoch 3")
        );
        let silent = StatusResponse { silent: Some("quiet".to_owned()), ..healthy() };
        assert_eq!(only(&silent, &quiet, false), "quiet");
    }

    #[test]
    fn who_has_to_be_upgraded_is_named() {
        let mut status = healthy();
        status.consensus_version.supported = 2;
        assert!(missing_announcements(&status).unwrap().ends_with("guardian 1, 2"));
        status.peers.get_mut(&PeerId(1)).unwrap().announced_version = 2;
        assert!(missing_announcements(&status).unwrap().ends_with("guardian 2"));
        status.peers.get_mut(&PeerId(2)).unwrap().announced_version = 3;
        assert!(missing_announcements(&status).unwrap().contains("version 3"));
        status.consensus_version.in_force = 3;
        assert_eq!(missing_announcements(&status), None);
    }

    #[test]
    fn kinds_have_plain_names() {
        assert_eq!(snake("Oversized"), "oversized");
        assert_eq!(snake("NotACodeword"), "not_a_codeword");
    }

    #[test]
    fn silence_is_explained() {
        let status =
            |speaks_from| ConsensusStatus { next_epoch: 10, speaks_from, ..ConsensusStatus::default() };
        assert_eq!(silent(&status(0)), None);
        assert_eq!(silent(&status(10)), None);
        assert!(silent(&status(11)).unwrap().contains("before 11"));
        assert!(silent(&status(u64::MAX)).unwrap().contains("until n - f"));
    }
}
