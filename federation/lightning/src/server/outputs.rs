//! Funding contracts.

use federation_core::OutPoint;
use federation_core::db::Namespaced;
use federation_core::module::{ModuleError, Value};

use super::tables::{CONTRACTS, OUTPUTS, PENDING, Record, hold};
use super::{LightningModule, compute, height};
use crate::contract::Contract;
use crate::{ContractState, LightningOutput};

impl LightningModule {
    pub(super) async fn fund(
        &self,
        db: &mut Namespaced<'_>,
        point: OutPoint,
        output: &LightningOutput,
    ) -> Result<Value, ModuleError> {
        let contract = output.0.clone();
        let (id, amount) = (contract.id(self.federation), contract.amount());
        if amount.is_zero() {
            return Err(ModuleError::refused("zero_amount", "a contract holds at least 1 msat"));
        }
        if CONTRACTS.contains(db, &id).await? {
            return Err(ModuleError::refused("contract_exists", "this contract has been funded before"));
        }
        let height = height::agreed(db).await?;
        match &contract {
            Contract::Outgoing(contract) if contract.expiry_height <= height => {
                return Err(ModuleError::refused(
                    "contract_expired",
                    format!("the contract expired at height {}, and it is {height}", contract.expiry_height),
                ));
            }
            Contract::Incoming(contract) if contract.terms.fund_before_height <= height => {
                return Err(ModuleError::refused(
                    "too_late",
                    format!(
                        "the contract had to be funded before height {}, and it is {height}",
                        contract.terms.fund_before_height
                    ),
                ));
            }
            _ => {}
        }
        if let Contract::Incoming(contract) = &contract {
            let (contract, federation) = (contract.clone(), self.federation);
            if !compute(move || contract.verify_ciphertext(federation)).await? {
                return Err(ModuleError::refused(
                    "bad_ciphertext",
                    "the encrypted preimage was not made for this contract",
                ));
            }
            PENDING.put(db, &id, &());
        }
        let record = Record { contract, state: ContractState::Funded, preimage: None };
        hold(db, record.direction(), amount).await?;
        CONTRACTS.put(db, &id, &record);
        OUTPUTS.put(db, &point, &id);
        Ok(Value { amount, fee: self.config.fees.fund })
    }
}
