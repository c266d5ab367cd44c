//! A federation that keeps to its rules, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::secp256k1::Keypair;
use federation_client::ClientError;
use federation_core::{Amount, FederationId, TxId};
use federation_lightning::{
    Announcement, Contract, ContractId, ContractState, IncomingContract, LightningFees, Preimage,
};

use super::bomb::Bomb;
use crate::federation::{ContractView, Federation};

pub struct Held {
    pub contract: Contract,
    pub state: ContractState,
    pub preimage: Option<Preimage>,
}

#[derive(Default)]
pub struct Ledger {
    pub contracts: HashMap<ContractId, Held>,
    pub operations: HashMap<[u8; 32], Result<(), &'static str>>,
    /// The gateway's e-cash, msat.
    pub balance: u64,
    pub height: u32,
    /// What ciphertexts decrypt to, by payment hash.
    pub plaintexts: HashMap<[u8; 32], Preimage>,
    pub down: bool,
    /// Whether funded contracts stay closed.
    pub slow: bool,
}

/// The federation's lasting part, the gateway's wallet included.
pub struct World {
    pub id: FederationId,
    pub ledger: Mutex<Ledger>,
}

impl World {
    pub fn new(byte: u8) -> Arc<Self> {
        let ledger = Ledger { balance: 1_000_000, height: 1000, ..Ledger::default() };
        Arc::new(Self { id: FederationId([byte; 32]), ledger: Mutex::new(ledger) })
    }

    pub fn lock(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }
}

/// The federation as one process of the gateway sees it.
pub struct FakeFederation {
    pub world: Arc<World>,
    pub bomb: Bomb,
}

fn rejected(code: &str) -> ClientError {
    ClientError::Rejected { code: code.into(), reason: code.into() }
}

impl FakeFederation {
    /// A transaction: once for each operation.
    async fn transact(
        &self,
        operation: [u8; 32],
        apply: impl FnOnce(&mut Ledger) -> Result<Result<(), &'static str>, ClientError> + Send,
    ) -> Result<TxId, ClientError> {
        self.bomb
            .around(async {
                let mut ledger = self.world.lock();
                if ledger.down {
                    return Err(ClientError::Unreachable("down".into()));
                }
                let result = match ledger.operations.get(&operation) {
                    Some(result) => *result,
                    None => {
                        let result = apply(&mut ledger)?;
                        ledger.operations.insert(operation, result);
                        result
                    }
                };
                result.map(|()| TxId(operation)).map_err(rejected)
            })
            .await
    }
}

#[async_trait]
impl Federation for FakeFederation {
    fn id(&self) -> FederationId {
        self.world.id
    }

    fn name(&self) -> String {
        "fake".into()
    }

    fn network(&self) -> Network {
        Network::Regtest
    }

    fn fees(&self) -> LightningFees {
        LightningFees::default()
    }

    async fn balance(&self) -> Result<Amount, ClientError> {
        Ok(Amount::from_msat(self.world.lock().balance))
    }

    async fn height(&self) -> Result<u32, ClientError> {
        self.bomb.alive().await;
        let ledger = self.world.lock();
        if ledger.down { Err(ClientError::Unreachable("down".into())) } else { Ok(ledger.height) }
    }

    async fn contract(
        &self,
        contract: ContractId,
        _: Duration,
        _: Option<ContractState>,
    ) -> Result<Option<ContractView>, ClientError> {
        self.bomb.alive().await;
        let ledger = self.world.lock();
        if ledger.down {
            return Err(ClientError::Unreachable("down".into()));
        }
        Ok(ledger.contracts.get(&contract).map(|held| ContractView {
            id: contract,
            state: if ledger.slow && held.state == ContractState::Decrypted {
                ContractState::Funded
            } else {
                held.state
            },
            preimage: held.preimage,
        }))
    }

    async fn claim_outgoing(
        &self,
        operation: [u8; 32],
        contract: ContractId,
        amount: Amount,
        _: &Keypair,
        preimage: Preimage,
    ) -> Result<TxId, ClientError> {
        self.transact(operation, |ledger| {
            let held = ledger.contracts.get_mut(&contract).unwrap();
            let Contract::Outgoing(outgoing) = &held.contract else { panic!("not outgoing") };
            if held.state != ContractState::Funded {
                return Ok(Err("already_spent"));
            }
            assert_eq!(preimage.payment_hash(), outgoing.payment_hash);
            assert_eq!(amount, outgoing.amount);
            held.state = ContractState::Claimed;
            ledger.balance += amount.msat();
            Ok(Ok(()))
        })
        .await
    }

    async fn fund_incoming(
        &self,
        operation: [u8; 32],
        contract: &IncomingContract,
    ) -> Result<TxId, ClientError> {
        let (id, contract) = (contract.id(self.world.id), contract.clone());
        self.transact(operation, |ledger| {
            let amount = contract.terms.amount;
            if amount.msat() > ledger.balance {
                let available = Amount::from_msat(ledger.balance);
                return Err(ClientError::InsufficientFunds { needed: amount, available });
            }
            if ledger.contracts.contains_key(&id) {
                return Ok(Err("contract_exists"));
            }
            if contract.terms.fund_before_height <= ledger.height {
                return Ok(Err("too_late"));
            }
            ledger.balance -= amount.msat();
            let hash = contract.terms.payment_hash;
            let preimage = ledger.plaintexts.get(&hash.0).copied().filter(|p| p.payment_hash() == hash);
            let state = if preimage.is_some() { ContractState::Decrypted } else { ContractState::Invalid };
            ledger.contracts.insert(id, Held { contract: Contract::Incoming(contract), state, preimage });
            Ok(Ok(()))
        })
        .await
    }

    async fn reclaim_incoming(
        &self,
        operation: [u8; 32],
        contract: ContractId,
        amount: Amount,
        _: &Keypair,
    ) -> Result<TxId, ClientError> {
        self.transact(operation, |ledger| {
            let held = ledger.contracts.get_mut(&contract).unwrap();
            if held.state != ContractState::Invalid {
                return Ok(Err("already_spent"));
            }
            held.state = ContractState::Refunded;
            ledger.balance += amount.msat();
            Ok(Ok(()))
        })
        .await
    }

    async fn has_begun(&self, operation: [u8; 32]) -> Result<bool, ClientError> {
        self.bomb.alive().await;
        Ok(self.world.lock().operations.contains_key(&operation))
    }

    async fn announce(&self, _: &Announcement) -> Result<(), ClientError> {
        Ok(())
    }
}
