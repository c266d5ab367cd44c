//! Taking money out of contracts, once for ever.

use bitcoin::secp256k1::XOnlyPublicKey;
use federation_core::db::Namespaced;
use federation_core::module::{ModuleError, Value};

use super::tables::{CONTRACTS, Record, release};
use super::{LightningModule, height};
use crate::contract::{Contract, IncomingTerms, OutgoingContract, verify_cancellation};
use crate::message::Cancellation;
use crate::{ContractId, ContractState, LightningInput, PaymentHash};

fn refused<T>(code: &'static str, reason: &str) -> Result<T, ModuleError> {
    Err(ModuleError::refused(code, reason))
}

fn check_key(key: XOnlyPublicKey, named: &XOnlyPublicKey, whose: &str) -> Result<(), ModuleError> {
    if key == *named {
        return Ok(());
    }
    Err(ModuleError::refused("wrong_key", format!("the input must be signed by the contract's {whose} key")))
}

/// The contract, if it is outgoing.
fn outgoing(record: &Record) -> Result<&OutgoingContract, ModuleError> {
    match &record.contract {
        Contract::Outgoing(contract) => Ok(contract),
        Contract::Incoming(_) => refused("wrong_kind", "this is an incoming contract"),
    }
}

/// The contract's terms, if it is incoming.
fn incoming(record: &Record) -> Result<&IncomingTerms, ModuleError> {
    match &record.contract {
        Contract::Incoming(contract) => Ok(&contract.terms),
        Contract::Outgoing(_) => refused("wrong_kind", "this is an outgoing contract"),
    }
}

impl LightningModule {
    /// `hash`: the hash of the input's preimage, if it has one.
    pub(super) async fn spend(
        &self,
        db: &mut Namespaced<'_>,
        key: XOnlyPublicKey,
        input: &LightningInput,
        hash: Option<PaymentHash>,
    ) -> Result<Value, ModuleError> {
        let id = match input {
            LightningInput::ClaimOutgoing { contract, .. }
            | LightningInput::RefundOutgoing { contract, .. }
            | LightningInput::ClaimIncoming { contract }
            | LightningInput::ReclaimIncoming { contract } => *contract,
        };
        let Some(mut record) = CONTRACTS.get(db, &id).await? else {
            return refused("unknown_contract", "no such contract has been funded");
        };
        if record.state.is_spent() {
            return refused("already_spent", "the contract's money has been taken before");
        }
        match input {
            LightningInput::ClaimOutgoing { preimage, .. } => {
                let contract = outgoing(&record)?;
                check_key(key, &contract.gateway_key, "gateway")?;
                if hash != Some(contract.payment_hash) {
                    return refused("wrong_preimage", "the preimage does not hash to the payment hash");
                }
                record.preimage = Some(*preimage);
                record.state = ContractState::Claimed;
            }
            LightningInput::RefundOutgoing { cancellation, .. } => {
                let contract = outgoing(&record)?;
                check_key(key, &contract.user_key, "user")?;
                self.check_refund(id, contract, cancellation.as_ref(), height::agreed(db).await?)?;
                record.state = ContractState::Refunded;
            }
            LightningInput::ClaimIncoming { .. } => {
                check_key(key, &incoming(&record)?.user_key, "user")?;
                match record.state {
                    ContractState::Decrypted => record.state = ContractState::Claimed,
                    ContractState::Invalid => {
                        return refused("wrong_preimage", "the encrypted preimage was wrong");
                    }
                    _ => return refused("not_decrypted", "the preimage is not decrypted yet"),
                }
            }
            LightningInput::ReclaimIncoming { .. } => {
                check_key(key, &incoming(&record)?.gateway_key, "gateway")?;
                match record.state {
                    ContractState::Invalid => record.state = ContractState::Refunded,
                    ContractState::Decrypted => {
                        return refused("right_preimage", "the preimage was right: the money is the user's");
                    }
                    _ => return refused("not_decrypted", "the preimage is not decrypted yet"),
                }
            }
        }
        let amount = record.contract.amount();
        release(db, record.direction(), amount).await?;
        CONTRACTS.put(db, &id, &record);
        Ok(Value { amount, fee: self.config.fees.spend })
    }

    /// A cancellation that is given must be right, even after the expiry: a wrong one is a fault of whoever made it.
    fn check_refund(
        &self,
        id: ContractId,
        contract: &OutgoingContract,
        cancellation: Option<&Cancellation>,
        height: u32,
    ) -> Result<(), ModuleError> {
        match cancellation {
            Some(Cancellation(signature)) => {
                if verify_cancellation(self.federation, id, &contract.gateway_key, signature) {
                    return Ok(());
                }
                refused("bad_cancellation", "the cancellation is not signed by the contract's gateway")
            }
            None if height >= contract.expiry_height => Ok(()),
            None => Err(ModuleError::refused(
                "not_expired",
                format!(
                    "before height {} a refund needs the gateway's cancellation, and it is {height}",
                    contract.expiry_height
                ),
            )),
        }
    }
}
