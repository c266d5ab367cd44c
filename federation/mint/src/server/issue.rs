//! Outputs: blinded nonces are accepted, then signed by every guardian.

use std::collections::BTreeMap;

use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::module::{ModuleError, Proposal, Value};
use federation_core::{OutPoint, PeerId};

use super::Mint;
use super::spend::unknown;
use super::tables::{COUNTS, ISSUED, Issued, PENDING, Pending, SHARES, ShareState, TOTALS};
use crate::types::MAX_PARTIAL_SIGNATURES;
use crate::{NoteOutput, PartialSignature, PartialSignatures, PointBytes};

/// Pending outputs that are read at once.
const PAGE: usize = 1000;

impl Mint {
    pub(super) async fn accept(
        &self,
        db: &mut Namespaced<'_>,
        point: OutPoint,
        output: &NoteOutput,
    ) -> Result<Value, ModuleError> {
        let denomination = output.denomination;
        if self.config.keys(denomination).is_none() {
            return Err(unknown(denomination));
        }
        let blinded_nonce = PointBytes(output.blinded_nonce.to_bytes());
        if ISSUED.contains(db, &blinded_nonce).await? {
            // Two notes with one nonce could be spent only once: the user would lose the second.
            return Err(ModuleError::refused(
                "blinded_nonce_reused",
                "a note with this blinded nonce was asked for before: use a fresh one",
            ));
        }
        let mut counts = COUNTS.get(db, &denomination).await?.unwrap_or_default();
        let mut totals = TOTALS.get(db, &()).await?.unwrap_or_default();
        counts.issued += 1;
        totals.issued += u128::from(denomination.amount().msat());
        if let Some(limit) = self.config.max_issuance
            && totals.outstanding() > u128::from(limit.msat())
        {
            return Err(ModuleError::refused(
                "issuance_limit",
                format!("the federation issues at most {limit} in all: try again when others have redeemed"),
            ));
        }
        COUNTS.put(db, &denomination, &counts);
        TOTALS.put(db, &(), &totals);
        ISSUED.put(db, &blinded_nonce, &Issued { point, denomination });
        PENDING.put(db, &point, &Pending { denomination, blinded_nonce });
        self.signer.remember(point, output);
        Ok(Value { amount: denomination.amount(), fee: self.config.fee_out })
    }

    /// Signs what is pending and not yet signed by us, as far as agreed state knows.
    pub(super) async fn sign_pending(&self, db: &dyn Reader) -> Result<Proposal<PartialSignatures>, DbError> {
        let mut unsigned = Vec::new();
        let mut after = None;
        while unsigned.len() < MAX_PARTIAL_SIGNATURES {
            let page = PENDING.scan(db, &(), after.as_ref(), PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            let keys: Vec<_> = page.iter().map(|(point, _)| (*point, self.us)).collect();
            let signed = SHARES.get_many(db, &keys).await?;
            unsigned
                .extend(page.into_iter().zip(signed).filter(|(_, s)| s.is_none()).map(|(output, _)| output));
        }
        unsigned.truncate(MAX_PARTIAL_SIGNATURES);
        if unsigned.is_empty() {
            return Ok(Proposal::none());
        }
        let shares = self.signer.sign(unsigned).await?;
        let shares = shares
            .into_iter()
            .map(|(point, share)| PartialSignature { point, share: PointBytes(share.to_bytes()) })
            .collect();
        Ok(Proposal { items: vec![PartialSignatures(shares)], opens_epoch: true })
    }

    /// Keeps what a guardian signed. What is no longer or not yet needed is passed over: being late is no fault.
    pub(super) async fn take_shares(
        &self,
        db: &mut Namespaced<'_>,
        from: PeerId,
        PartialSignatures(item): PartialSignatures,
    ) -> Result<(), ModuleError> {
        if usize::from(from.0) >= self.config.guardians() {
            return Err(ModuleError::refused("unknown_guardian", format!("there is no guardian {from}")));
        }
        if item.len() > MAX_PARTIAL_SIGNATURES {
            return Err(ModuleError::refused(
                "too_many_signatures",
                format!("{} partial signatures in one item", item.len()),
            ));
        }
        let points: Vec<_> = item.iter().map(|partial| partial.point).collect();
        let keys: Vec<_> = points.iter().map(|point| (*point, from)).collect();
        let pending = PENDING.get_many(db, &points).await?;
        let known = SHARES.get_many(db, &keys).await?;
        let mut fresh = BTreeMap::new();
        for ((partial, pending), known) in item.into_iter().zip(pending).zip(known) {
            if pending.is_some() && known.is_none() {
                fresh.entry(partial.point).or_insert(partial.share);
            }
        }
        for (point, share) in fresh {
            SHARES.put(db, &(point, from), &ShareState::Sent(share));
        }
        Ok(())
    }
}
