//! What must hold when all is over: nothing that was promised is lost, and all guardians have the same.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use federation_core::TxId;
use federation_core::rest::{AuditResponse, TransactionResponse, TransactionStatus};
use futures::StreamExt as _;
use reqwest::StatusCode;

use super::LOST_DISKS;
use super::summary::Summary;
use super::witness::Said;
use super::world::World;
use crate::ecash::text;
use crate::scenario::conserved;

/// How long the wallets may take to finish what is under way.
const END: Duration = Duration::from_secs(240);
/// How many transactions are asked for at a time.
const AT_ONCE: usize = 8;

/// Ends the load and checks everything; all guardians must have been healed. An error says what could not be checked, or
/// whose money is missing; what differs between guardians is in the summary.
pub async fn finish(world: &mut World) -> Result<()> {
    let held = world.load.end(&world.bitcoind, END).await?;
    world.summary.epochs = world.quiet().await?;
    world.summary.handed = world.load.received();
    world.summary.races = world.load.races();
    compare(world).await?;
    panics(world)?;
    let audit: AuditResponse = world.federation.audit().await?;
    conserved(&audit, &held)?;
    let total: u64 = held.iter().sum();
    let deposited = world.load.deposited() * 1000;
    ensure!(total == deposited, "{deposited} msat were deposited, {total} msat are held");
    Ok(())
}

/// Compares the guardians, when nothing is under way, with each other and with what they have said: into the summary.
pub async fn compare(world: &mut World) -> Result<()> {
    transactions(world).await?;
    if LOST_DISKS {
        headers(world).await?;
    }
    let mut audits = Vec::new();
    for guardian in &world.federation.guardians {
        audits.push(guardian.get::<AuditResponse>("/v1/audit").await?);
        for alarm in guardian.status().await?.alarms {
            world.summary.findings.push(format!("ALARM of {}: {alarm}", guardian.process.name()));
        }
    }
    let first = audits.first().context("no guardians")?;
    for (guardian, audit) in world.federation.guardians.iter().zip(&audits) {
        if audit != first {
            world.summary.fork(format!("{}'s audit is {audit:?}, not {first:?}", guardian.process.name()));
        }
    }
    Ok(())
}

/// No guardian may ever panic, whatever happens.
fn panics(world: &mut World) -> Result<()> {
    for guardian in &world.federation.guardians {
        let log = BufReader::new(File::open(guardian.process.log())?);
        for line in log.split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            if line.contains("panicked at") {
                world.summary.findings.push(format!("PANIC of {}: {line}", guardian.process.name()));
            }
        }
    }
    Ok(())
}

/// Asks all guardians for all transactions that anybody has ever said anything about.
async fn transactions(world: &mut World) -> Result<()> {
    let http = reqwest::Client::new();
    let urls: Vec<_> = world.federation.guardians.iter().map(|guardian| guardian.url.as_str()).collect();
    let asked = world.load.ledger().all().into_iter().map(|(txid, said)| {
        let (http, urls) = (&http, &urls);
        async move {
            let mut now = Vec::new();
            for url in urls {
                now.push(ask(http, url, txid).await?);
            }
            anyhow::Ok((txid, said, now))
        }
    });
    let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    for answer in answers {
        let (txid, said, now) = answer?;
        judge(txid, &said, &now, &mut world.summary);
    }
    Ok(())
}

/// Compares the headers of all epochs that are still known; the last one must be.
async fn headers(world: &mut World) -> Result<()> {
    let http = reqwest::Client::new();
    let urls: Vec<_> = world.federation.guardians.iter().map(|guardian| guardian.url.as_str()).collect();
    let last = world.federation.settled().await?.saturating_sub(1);
    let asked = (0..=last).map(|epoch| {
        let (http, urls) = (&http, &urls);
        async move {
            let mut hashes = Vec::new();
            for url in urls {
                hashes.push(header(http, url, epoch).await?);
            }
            anyhow::Ok((epoch, hashes))
        }
    });
    let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    for answer in answers {
        let (epoch, hashes) = answer?;
        let known: BTreeSet<_> = hashes.iter().flatten().collect();
        let compared = hashes.iter().flatten().count() > 1;
        if known.len() > 1 || (epoch == last && hashes.contains(&None)) {
            world.summary.fork(format!("the header of epoch {epoch} is {hashes:?}"));
        }
        world.summary.headers += u64::from(compared && known.len() == 1);
    }
    Ok(())
}

/// The hash of an epoch's header, which covers the digest of the state; `None` if the guardian has forgotten it.
async fn header(http: &reqwest::Client, url: &str, epoch: u64) -> Result<Option<String>> {
    let response = http.get(format!("{url}/v1/epochs/{epoch}")).send().await?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::OK => Ok(Some(text(&response.json().await?, "hash")?)),
        status => bail!("{url} answers {status} about epoch {epoch}"),
    }
}

/// Where a transaction stands at a guardian; `None` if it is unknown there.
async fn ask(http: &reqwest::Client, url: &str, txid: TxId) -> Result<Option<TransactionStatus>> {
    let response = http.get(format!("{url}/v1/transactions/{txid}")).send().await?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::OK => Ok(Some(response.json::<TransactionResponse>().await?.status)),
        status => bail!("{url} answers {status} about {txid}"),
    }
}

/// One transaction: what was said of it against what all guardians say now. A rejection is no part of the state: a guardian that
/// got its state as a snapshot doesn't know it, and all forget it in the end.
fn judge(txid: TxId, said: &Said, now: &[Option<TransactionStatus>], summary: &mut Summary) {
    let (mut accepted, mut rejected) = (BTreeSet::new(), BTreeSet::new());
    let (mut proposed, mut unknown) = (false, false);
    for status in now {
        match status {
            Some(TransactionStatus::Accepted { epoch }) => _ = accepted.insert(*epoch),
            Some(TransactionStatus::Rejected { code, .. }) => _ = rejected.insert(code.clone()),
            Some(TransactionStatus::Proposed) => proposed = true,
            None => unknown = true,
        }
    }
    let promised = !said.proposed.is_empty() || said.is_accepted() || !said.rejected.is_empty();
    let decisions = accepted.len() + rejected.len();
    let forgotten = !said.rejected.is_empty() && !said.is_accepted() && !proposed;
    if decisions == 0 && promised && !forgotten {
        summary.lost(format!("{txid}: {said:?}, now {now:?}"));
    } else if decisions > 1 || (decisions == 1 && proposed) || (!accepted.is_empty() && unknown) {
        summary.fork(format!("{txid}: {said:?}, now {now:?}"));
    } else if !said.accepted.is_subset(&accepted) || (said.is_accepted() && accepted.is_empty()) {
        summary.lost(format!("{txid} was accepted: {said:?}, now {now:?}"));
    }
    summary.transactions += u64::from(!accepted.is_empty());
    summary.rejected += u64::from(!rejected.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(said: &Said, now: &[Option<TransactionStatus>]) -> (u64, u64) {
        let mut summary = Summary::default();
        judge(TxId([1; 32]), said, now, &mut summary);
        (summary.lost, summary.forks)
    }

    #[test]
    fn what_was_promised_is_there_and_the_same_everywhere() {
        let accepted = |epoch| Some(TransactionStatus::Accepted { epoch });
        let rejected = || Some(TransactionStatus::Rejected { code: "c".to_owned(), reason: String::new() });
        let open = || Some(TransactionStatus::Proposed);
        let proposed = Said { proposed: BTreeSet::from([2]), ..Said::default() };
        let was_accepted = Said { accepted: BTreeSet::from([7]), ..Said::default() };
        let signed = Said { signed: BTreeSet::from([1]), ..Said::default() };
        let wiped = Said::default();
        for good in [[accepted(7), accepted(7)], [rejected(), rejected()]] {
            assert_eq!(found(&proposed, &good), (0, 0));
        }
        assert_eq!(found(&was_accepted, &[accepted(7), accepted(7)]), (0, 0));
        assert_eq!(found(&wiped, &[None, None]), (0, 0));
        assert_eq!(found(&proposed, &[None, None]), (1, 0));
        assert_eq!(found(&proposed, &[open(), open()]), (1, 0));
        let was_rejected = Said { rejected: BTreeSet::from(["c".to_owned()]), ..Said::default() };
        assert_eq!(found(&was_rejected, &[rejected(), None]), (0, 0));
        assert_eq!(found(&was_rejected, &[None, None]), (0, 0));
        assert_eq!(found(&was_rejected, &[open(), None]), (1, 0));
        assert_eq!(found(&was_rejected, &[rejected(), open()]), (0, 1));
        assert_eq!(found(&was_accepted, &[accepted(8), accepted(8)]), (1, 0));
        assert_eq!(found(&was_accepted, &[rejected(), rejected()]), (1, 0));
        assert_eq!(found(&signed, &[accepted(8), accepted(8)]), (0, 0));
        assert_eq!(found(&signed, &[rejected(), rejected()]), (1, 0));
        assert_eq!(found(&signed, &[None, None]), (1, 0));
        assert_eq!(found(&was_accepted, &[accepted(7), accepted(8)]), (0, 1));
        assert_eq!(found(&proposed, &[accepted(7), None]), (0, 1));
        assert_eq!(found(&proposed, &[accepted(7), rejected()]), (0, 1));
        assert_eq!(found(&wiped, &[accepted(7), open()]), (0, 1));
    }
}
