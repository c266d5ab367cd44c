//! A wallet from its twelve words alone.
//!
//! ```text
//! scan      numbers 0, 1, 2, … are derived and blinded, 512 at a time, and looked up (`POST issued`), until GAP in a row
//!   │       were never issued; what a guardian serves is unblinded and checked, then written to FOUND
//! spent     all that was found, in an order drawn anew, is looked up in the buckets of spent notes (`GET spent?prefix`),
//!   │       over connections of its own; what is unspent moves from FOUND to NOTES
//! deposits  addresses 0, 1, 2, … are watched again, until DEPOSIT_GAP in a row were never paid to
//!   │
//! backup    history, memos, payments under way: as far as the guardians keep a backup that the wallet wrote (crate::backup)
//! ```
//!
//! Each batch is one commit, so that a second run after a crash goes on where the first one was; until the last commit there
//! is no wallet to be opened. The work is proportional to the numbers that the wallet ever used.
//!
//! # Who is believed
//!
//! - A note is believed for the federation's signature of it, whoever serves it: nobody can inject one.
//! - That a note was issued and is not signed yet, needs the word of f + 1 guardians. It comes in when it is signed, at the
//!   latest the next time that the wallet is opened.
//! - That a number was never issued, needs the answers of n − f guardians, none of which proves the contrary: what n − f have
//!   applied, one honest guardian among them knows. One that withholds hides nothing.
//! - That a note is spent, needs the word of f + 1. In doubt a note is kept; if it is spent after all, the first transaction
//!   with it is refused and the wallet drops it.
//!
//! # What a lookup reveals
//!
//! - `issued`: that these blinded nonces belong to one wallet, which is being restored; so also which transactions issued
//!   them. Not which notes they have become: blinding hides that.
//! - `spent`: the first byte or two of the nonces of the wallet's notes, spent and unspent ones, each of which it shares with
//!   the other notes of its bucket (64 spent ones at most on average; the fewer notes were spent in all, the smaller the
//!   crowd). Whoever sees all prefixes and, later, notes being spent can guess that some are of one wallet.
//! - Neither request carries what the other one does, no connection carries both, and all of one kind is done before the other
//!   begins, in another order. But the guardians see the same network address twice within a minute: who minds, restores
//!   over a network that hides it, and spends later.
//!
//! # What comes back, and what does not
//!
//! - Notes. Those in strings that were sent and that nobody has claimed are set aside again if the backup knows of them, and can
//!   be taken back; else they are part of the balance, and whoever is first has them.
//! - Deposits to the addresses of the wallet that were not claimed yet.
//! - From the backup: the history with its memos, and what was being paid or received over Lightning at the time of the loss. (A
//!   contract's id covers random bytes that the words do not give.) A payment shows as paid, or its money comes back; so does a
//!   withdrawal, whose notes are set aside until it is decided. What began
//!   after the last backup, and what does not fit into one, does not come back; nor does anything of it if no guardian that
//!   answers has a backup.
//!
//! # The old copy
//!
//! A wallet must have one copy only: two of them use the same numbers for different notes, and the federation signs a number
//! once. A wallet that finds its numbers used (it was put back from a backup, or another copy was restored) looks up what became
//! of them, takes in what is unspent, and goes on with fresh ones: see [`renumber`]. Keys of contracts start beyond all
//! that an earlier life can have used, since a preimage must not be used twice.

mod deposits;
mod lookup;
mod renumber;
mod scan;
mod settle;
mod spent;

pub(crate) use renumber::{REUSED, Renumbered};

use std::sync::Arc;
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::db::Database;
use federation_core::invite::InviteCode;
use federation_core::{Amount, OutPoint};
use federation_mint::Denomination;
use federation_store::WriteBatch;
use federation_tbs::Signature;
use rand::Rng as _;

use crate::api::{FederationApi, Http, Transport};
use crate::backup::{Applied, Fetched};
use crate::client::Client;
use crate::store::{FOUND, JOINED, NEXT, NOTES, RESTORE, counter};
use crate::words::Words;
use crate::{ClientError, Result};

/// So many numbers in a row that were never issued end the search. A wallet never hands out numbers beyond this distance from
/// one that it knows was issued: eight of the largest transactions may be under way, or refused.
pub const GAP: u64 = if cfg!(test) { 128 } else { 2048 };
/// So many deposit addresses in a row that were never paid to end the search; a wallet hands out the oldest one again instead
/// of one beyond.
pub const DEPOSIT_GAP: u32 = 20;
/// How long a restore waits for notes that are not signed yet; then they come in by themselves.
const SIGNING: Duration = Duration::from_secs(30);

/// How far the search has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Scan {
    /// The next number to look up.
    pub next: u64,
    /// One past the highest number that was issued; 0: none was.
    pub top: u64,
}

impl Scan {
    /// From a number on.
    pub(crate) fn from(next: u64) -> Self {
        Self { next, top: next }
    }

    /// Whether the gap is reached.
    pub(crate) fn is_over(&self) -> bool {
        self.next.saturating_sub(self.top) >= GAP
    }
}

/// A note that the guardians showed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Found {
    /// What it is worth.
    pub denomination: Denomination,
    /// The output that it was issued by.
    pub point: OutPoint,
    /// The federation's signature, checked; `None`: not signed yet.
    pub signature: Option<Signature>,
}

/// What a restore is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Looking for notes.
    Looking {
        /// Numbers that were looked up.
        numbers: u64,
        /// Notes that were found, spent ones among them.
        found: usize,
    },
    /// Looking which of them are spent.
    Checking {
        /// Notes that are left to be looked up.
        left: usize,
    },
    /// Waiting for signatures.
    Signing {
        /// Notes that are not signed yet.
        left: usize,
    },
    /// Looking for deposits.
    Deposits,
    /// Asking for the backup.
    Backup,
}

/// What came of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Notes that can be spent.
    pub notes: usize,
    /// What they are worth.
    pub balance: Amount,
    /// Notes that are not signed yet: they come in by themselves.
    pub pending: Amount,
    /// How many numbers the wallet had used.
    pub numbers: u64,
    /// When the backup was written that was found with the guardians, in seconds since 1970.
    pub backup: Option<u64>,
    /// How many guardians were asked for it with success.
    pub answered: usize,
    /// How many operations it brought back.
    pub operations: usize,
    /// What is in strings that were sent, and that nobody has received so far: no part of the balance.
    pub sent: Amount,
}

impl Client {
    /// Makes a wallet again in an empty `db` from its words; again after a crash, where it was. `progress` hears how far it is.
    ///
    /// # Errors
    /// [`ClientError::WalletExists`]; [`ClientError::Unreachable`] and the like: call again later, it goes on where it was;
    /// as [`join`](Self::join).
    pub async fn restore(
        db: Arc<dyn Database>,
        words: &Words,
        invite: &InviteCode,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<(Self, Restored)> {
        Self::restore_over(db, words, invite, Arc::new(Http::new()?), progress).await
    }

    /// [`restore`](Self::restore) with another way for requests to travel.
    ///
    /// # Errors
    /// As there.
    pub async fn restore_over(
        db: Arc<dyn Database>,
        words: &Words,
        invite: &InviteCode,
        transport: Arc<dyn Transport>,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<(Self, Restored)> {
        let begun = RESTORE.get(&*db, &()).await?;
        if begun.is_none() && JOINED.get(&*db, &()).await?.is_some() {
            return Err(ClientError::WalletExists);
        }
        let joined = crate::join::fetch_for(&*db, &*transport, invite).await?;
        let config = crate::join::read(&joined)?;
        let mut batch = WriteBatch::new(db.clone());
        JOINED.put(&mut batch, &(), &joined);
        RESTORE.put(&mut batch, &(), &begun.unwrap_or_default());
        batch.commit().await?;
        let first = rand::thread_rng().gen_range(0..joined.urls.len().max(1));
        let api = FederationApi::new(transport, joined.urls, first);
        let client = Self::assemble(db, api, config, words.seed()?)?;
        let restored = client.run_restore(progress).await?;
        Ok((client, restored))
    }

    /// All of it, for a client of which nothing runs yet.
    pub(crate) async fn run_restore(&self, mut progress: impl FnMut(Progress) + Send) -> Result<Restored> {
        let mut scan = RESTORE.get(self.db(), &()).await?.unwrap_or_default();
        let issued = self.inner.api.apart()?;
        let mut found = FOUND.all(self.db()).await?.len();
        while !scan.is_over() {
            let (next, more) = self.scan_batch(&issued, scan, true).await?;
            scan = next;
            found = found.saturating_add(more);
            progress(Progress::Looking { numbers: scan.next, found });
        }
        let deadline = tokio::time::Instant::now().checked_add(SIGNING);
        loop {
            self.settle_found(|left| progress(Progress::Checking { left })).await?;
            let left = FOUND.all(self.db()).await?.len();
            if left == 0 || deadline.is_none_or(|deadline| tokio::time::Instant::now() >= deadline) {
                break;
            }
            progress(Progress::Signing { left });
            self.await_signature().await?;
        }
        progress(Progress::Deposits);
        let paid = self.find_addresses().await?;
        progress(Progress::Backup);
        let fetched = self.fetch_backup().await?;
        let applied = self.finish_restore(scan, paid, &fetched).await?;
        self.resume().await?;
        // What was paid in and not claimed; whoever can't be reached now is asked the next time.
        if let Err(error) = self.check_deposits().await {
            tracing::warn!("deposits could not be looked for: {error}");
        }
        let notes = NOTES.all(self.db()).await?;
        Ok(Restored {
            notes: notes.len(),
            balance: self.balance().await?,
            pending: self.incoming().await?,
            numbers: scan.top,
            backup: fetched.contents.map(|contents| contents.written / 1000),
            answered: fetched.answered,
            operations: applied.operations,
            sent: applied.sent,
        })
    }

    /// The last commit: from now on it is a wallet like any other.
    async fn finish_restore(&self, scan: Scan, paid: u32, fetched: &Fetched) -> Result<Applied> {
        // Keys of contracts can't be looked up. Nobody counts a million contracts a second, so no earlier life has been here.
        let beyond = crate::ops::now().as_secs().saturating_mul(1 << 20);
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        for (which, number) in [
            (counter::NOTES, scan.top),
            (counter::ISSUED, scan.top),
            (counter::OUTGOING, beyond),
            (counter::INCOMING, beyond),
            (counter::DEPOSITS, u64::from(paid)),
            (counter::PAID, u64::from(paid)),
        ] {
            NEXT.put(&mut batch, &which, &number);
        }
        let applied = self.apply_backup(&mut batch, fetched).await?;
        RESTORE.delete(&mut batch, &());
        batch.commit().await?;
        self.touch();
        Ok(applied)
    }
}
