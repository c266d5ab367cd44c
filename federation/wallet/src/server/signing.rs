//! From a PSBT to a confirmed transaction, by consensus items.
//!
//! Guardians sign what the agreed state holds, and nothing else. Each signature is verified when it is applied, so T of them
//! make a valid transaction, the same on every guardian. A proof against an agreed header then says that it is final.

use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::{Message, SECP256K1};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{PublicKey, Txid, ecdsa};
use federation_core::PeerId;
use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::module::ModuleError;
use miniscript::psbt::PsbtExt as _;
use tracing::{error, info};

use super::Wallet;
use super::tables::{ACTIVE, Active, COINS, CONFIRMED, HEADERS, OUTCOMES, Stage};
use crate::body::{InputSignature, Item, Outcome};
use crate::descriptor::{Tweak, outpoint_key};
use crate::proof::TxProof;

/// How many transactions a guardian signs in one epoch.
const MAX_SIGNED: usize = 4;

/// Bytes that this program wrote itself cannot be read.
fn corrupt(reason: impl ToString) -> DbError {
    DbError::Corrupt { table: "unconfirmed transactions".to_owned(), reason: reason.to_string() }
}

/// What is signed in each input.
fn messages(psbt: &Psbt) -> Result<Vec<Message>, DbError> {
    let mut cache = SighashCache::new(&psbt.unsigned_tx);
    let message = |(index, input): (usize, &bitcoin::psbt::Input)| {
        let coin = input.witness_utxo.as_ref().ok_or_else(|| corrupt("an input without its coin"))?;
        let hash = match &input.witness_script {
            Some(script) => cache
                .p2wsh_signature_hash(index, script, coin.value, EcdsaSighashType::All)
                .map_err(corrupt)?,
            None => cache
                .p2wpkh_signature_hash(index, &coin.script_pubkey, coin.value, EcdsaSighashType::All)
                .map_err(corrupt)?,
        };
        Ok(Message::from(hash))
    };
    psbt.inputs.iter().enumerate().map(message).collect()
}

impl Wallet {
    /// The guardian's key for a coin. That such a key exists was found when the coin's script was made.
    fn guardian_key(&self, peer: PeerId, tweak: &Tweak) -> Result<PublicKey, DbError> {
        let key = self.config.guardians.get(&peer).ok_or_else(|| corrupt("no such guardian"))?;
        tweak.public(key).map(PublicKey::new).map_err(corrupt)
    }

    /// Our signatures of all that we did not sign yet.
    pub(super) async fn propose_signatures(&self, db: &dyn Reader) -> Result<Vec<Item>, DbError> {
        let mut items = Vec::new();
        for (txid, active) in ACTIVE.all(db).await? {
            let Stage::Signing(psbt) = &active.stage else { continue };
            let psbt = Psbt::deserialize(psbt).map_err(corrupt)?;
            if let (Some(input), Some(tweak)) = (psbt.inputs.first(), active.tweaks.first())
                && input.partial_sigs.contains_key(&self.guardian_key(self.us, tweak)?)
            {
                continue;
            }
            let mut signatures = Vec::with_capacity(active.tweaks.len());
            for (message, tweak) in messages(&psbt)?.iter().zip(&active.tweaks) {
                let mut secret = tweak.secret(&self.secret.key).map_err(corrupt)?;
                signatures.push(InputSignature(SECP256K1.sign_ecdsa(message, &secret)));
                secret.non_secure_erase();
            }
            items.push(Item::Signatures { txid: bitcoin::hashes::Hash::from_byte_array(txid), signatures });
            if items.len() == MAX_SIGNED {
                break;
            }
        }
        Ok(items)
    }

    /// Verifies a guardian's signatures and adds them; completes the transaction with the T-th.
    pub(super) async fn apply_signatures(
        &self,
        db: &mut Namespaced<'_>,
        from: PeerId,
        txid: Txid,
        signatures: &[InputSignature],
    ) -> Result<(), ModuleError> {
        let key: [u8; 32] = bitcoin::hashes::Hash::to_byte_array(txid);
        let Some(mut active) = ACTIVE.get(db, &key).await? else {
            // One that is done needs no more signatures; that is nobody's fault.
            let known = CONFIRMED.contains(db, &key).await?;
            return if known { Ok(()) } else { Err(unknown(txid)) };
        };
        let Stage::Signing(psbt) = &active.stage else { return Ok(()) };
        let mut psbt = Psbt::deserialize(psbt).map_err(corrupt)?;
        if signatures.len() != psbt.inputs.len() {
            return Err(ModuleError::refused(
                "bad_signature",
                format!("not one signature an input of {txid}"),
            ));
        }
        let messages = messages(&psbt)?;
        let parts = psbt.inputs.iter_mut().zip(&messages).zip(&active.tweaks).zip(signatures);
        for (((input, message), tweak), signature) in parts {
            let key = self.guardian_key(from, tweak)?;
            SECP256K1.verify_ecdsa(message, &signature.0, &key.inner).map_err(|_| {
                ModuleError::refused("bad_signature", format!("guardian {from} signed {txid} wrongly"))
            })?;
            let signature = ecdsa::Signature { signature: signature.0, sighash_type: EcdsaSighashType::All };
            input.partial_sigs.insert(key, signature);
        }
        let enough =
            psbt.inputs.iter().all(|input| input.partial_sigs.len() >= usize::from(self.config.threshold));
        active.stage = Stage::Signing(psbt.serialize());
        if enough {
            match psbt.finalize_mut(SECP256K1) {
                Ok(()) => {
                    active.stage = Stage::Signed(psbt.extract_tx_unchecked_fee_rate());
                    put_outcomes(db, &active, txid);
                    info!("transaction {txid} is signed");
                }
                // Verified signatures of all inputs: cannot fail. If it did, more signatures may still help.
                Err(errors) => error!("transaction {txid} cannot be completed: {errors:?}"),
            }
        }
        ACTIVE.put(db, &key, &active);
        Ok(())
    }

    /// Proofs that transactions of ours are in final blocks.
    pub(super) async fn propose_confirmed(&self, db: &dyn Reader) -> Result<Vec<Item>, DbError> {
        let proofs: Vec<TxProof> = self.view().proofs.values().cloned().collect();
        let mut items = Vec::new();
        for proof in proofs {
            let active = ACTIVE.contains(db, &bitcoin::hashes::Hash::to_byte_array(proof.txid())).await?;
            let header = HEADERS.get(db, &proof.height).await?;
            if active && header.is_some_and(|header| header.hash() == proof.block_hash()) {
                items.push(Item::Confirmed(proof));
                if items.len() == MAX_SIGNED {
                    break;
                }
            }
        }
        Ok(items)
    }

    /// The transaction is final: its change is a coin again.
    pub(super) async fn apply_confirmed(
        &self,
        db: &mut Namespaced<'_>,
        proof: &TxProof,
    ) -> Result<(), ModuleError> {
        let txid = proof.txid();
        let key: [u8; 32] = bitcoin::hashes::Hash::to_byte_array(txid);
        if CONFIRMED.contains(db, &key).await? {
            return Ok(());
        }
        let Some(active) = ACTIVE.get(db, &key).await? else { return Err(unknown(txid)) };
        proof.check().map_err(|error| ModuleError::refused("bad_proof", error.to_string()))?;
        let header = HEADERS.get(db, &proof.height).await?;
        if header.is_none_or(|header| header.hash() != proof.block_hash()) {
            return Err(ModuleError::refused("wrong_block", "the proof is for a block that is not final"));
        }
        if let Some(change) = active.change {
            let outpoint = bitcoin::OutPoint { txid, vout: change.vout };
            COINS.put(db, &outpoint_key(&outpoint), &change.coin);
        }
        put_outcomes(db, &active, txid);
        ACTIVE.delete(db, &key);
        CONFIRMED.put(db, &key, &proof.height);
        Ok(())
    }
}

fn put_outcomes(db: &mut Namespaced<'_>, active: &Active, txid: Txid) {
    for point in &active.points {
        OUTCOMES.put(db, point, &Outcome { txid });
    }
}

fn unknown(txid: Txid) -> ModuleError {
    ModuleError::refused("unknown_transaction", format!("{txid} is no transaction of this federation"))
}
