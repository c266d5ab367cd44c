//! Decrypting the preimages of funded incoming contracts, together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use federation_core::PeerId;
use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::module::ModuleError;
use federation_tbs::encryption::{DecryptionShare, decrypt, decryption_share, verify_decryption_share};

use super::tables::{CONTRACTS, PENDING, Record, SHARES};
use super::{LightningModule, compute};
use crate::contract::{Contract, IncomingContract};
use crate::message::MAX_SHARES;
use crate::{ContractId, ContractState, Preimage};

/// The incoming contracts of these ids.
async fn incoming(
    db: &dyn Reader,
    ids: &[ContractId],
) -> Result<Vec<(ContractId, IncomingContract)>, DbError> {
    let records = CONTRACTS.get_many(db, ids).await?;
    Ok(ids
        .iter()
        .zip(records)
        .filter_map(|(id, record)| match record {
            Some(Record { contract: Contract::Incoming(contract), .. }) => Some((*id, contract)),
            _ => None,
        })
        .collect())
}

impl LightningModule {
    /// This guardian's shares that are not agreed on yet. Only of funded contracts, so whose ciphertexts are proved to be
    /// made for them.
    pub(super) async fn own_shares(
        &self,
        db: &dyn Reader,
    ) -> Result<Vec<(ContractId, DecryptionShare)>, DbError> {
        let pending: Vec<ContractId> = PENDING.all(db).await?.into_iter().map(|(id, ())| id).collect();
        if pending.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = pending.iter().map(|id| (*id, self.peer)).collect();
        let given = SHARES.get_many(db, &keys).await?;
        let missing = pending.iter().zip(given).filter(|(_, given)| given.is_none());
        let missing: Vec<ContractId> = missing.map(|(id, _)| *id).take(MAX_SHARES).collect();
        let contracts = incoming(db, &missing).await?;
        let (secret, federation) = (Arc::clone(&self.secret), self.federation);
        compute(move || {
            let share = |contract: &IncomingContract| {
                let label = contract.terms.label(federation);
                decryption_share(&contract.ciphertext, &label, &secret.share).ok()
            };
            contracts.iter().filter_map(|(id, contract)| Some((*id, share(contract)?))).collect()
        })
        .await
    }

    /// Takes a guardian's shares. One wrong one and none is taken: an honest guardian makes no wrong ones.
    pub(super) async fn accept_shares(
        &self,
        db: &mut Namespaced<'_>,
        from: PeerId,
        shares: Vec<(ContractId, DecryptionShare)>,
    ) -> Result<(), ModuleError> {
        let ids: BTreeSet<ContractId> = shares.iter().map(|(id, _)| *id).collect();
        if ids.is_empty() || ids.len() != shares.len() || shares.len() > MAX_SHARES {
            return Err(ModuleError::refused("bad_shares", "no shares, too many, or two of one contract"));
        }
        // Shares of contracts that have been decrypted without them are no fault, and cost nothing.
        let ids: Vec<ContractId> = ids.into_iter().collect();
        let pending = PENDING.get_many(db, &ids).await?;
        let given = SHARES.get_many(db, &ids.iter().map(|id| (*id, from)).collect::<Vec<_>>()).await?;
        let wanted = ids.iter().zip(pending.iter().zip(given));
        let wanted = wanted.filter(|(_, (pending, given))| pending.is_some() && given.is_none());
        let wanted: Vec<ContractId> = wanted.map(|(id, _)| *id).collect();
        let contracts = incoming(db, &wanted).await?;
        if contracts.is_empty() {
            return Ok(());
        }

        let mut shares: BTreeMap<_, _> = shares.into_iter().collect();
        let (key, federation) = (self.config.shares.get(usize::from(from.0)).cloned(), self.federation);
        let verified = compute(move || {
            let key = key?;
            let verify = |(id, contract): (ContractId, IncomingContract)| {
                let (share, label) = (shares.remove(&id)?, contract.terms.label(federation));
                verify_decryption_share(&contract.ciphertext, &label, &share, &key)
                    .then_some((id, contract, share))
            };
            contracts.into_iter().map(verify).collect::<Option<Vec<_>>>()
        })
        .await?;
        let Some(verified) = verified else {
            return Err(ModuleError::refused("wrong_share", "a decryption share is wrong"));
        };
        for (id, contract, share) in verified {
            SHARES.put(db, &(id, from), &share);
            self.settle(db, id, contract).await?;
        }
        Ok(())
    }

    /// Decrypts a contract that has shares enough.
    async fn settle(
        &self,
        db: &mut Namespaced<'_>,
        id: ContractId,
        contract: IncomingContract,
    ) -> Result<(), DbError> {
        let shares = SHARES.all_under(db, &id).await?;
        let threshold = usize::from(self.config.threshold);
        if shares.len() < threshold {
            return Ok(());
        }
        for (key, _) in &shares {
            SHARES.delete(db, key);
        }
        PENDING.delete(db, &id);

        let label = contract.terms.label(self.federation);
        let shares: BTreeMap<u16, DecryptionShare> =
            shares.into_iter().map(|((_, peer), share)| (peer.0, share)).collect();
        let ciphertext = contract.ciphertext.clone();
        let plaintext = compute(move || decrypt(&ciphertext, &label, &shares, threshold)).await?;
        // The shares are verified, so if anything else comes out, that is what the user encrypted.
        let preimage = plaintext.ok().and_then(|bytes| bytes.try_into().ok()).map(Preimage);
        let preimage = preimage.filter(|preimage| preimage.payment_hash() == contract.terms.payment_hash);
        let state = if preimage.is_some() { ContractState::Decrypted } else { ContractState::Invalid };
        CONTRACTS.put(db, &id, &Record { contract: Contract::Incoming(contract), state, preimage });
        Ok(())
    }
}
