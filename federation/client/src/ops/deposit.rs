//! Bitcoin paid in: an address that the guardians watch, and a proof from them that becomes an input.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::secp256k1::XOnlyPublicKey;
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::Amount;
use federation_core::encoding::tagged_hash;
use federation_core::module::Value;
use federation_store::WriteBatch;
use federation_wallet::KIND;
use federation_wallet::body::{DepositStatus, DepositsStatus};
use federation_wallet::client::{DepositKeys, deposit_address, deposit_input};
use serde_json::json;

use super::flow::{Flow, put};
use super::{Kind, Operation, step_id};
use crate::api::Request;
use crate::client::Client;
use crate::engine::Plan;
use crate::restore::DEPOSIT_GAP;
use crate::store::{ADDRESSES, NEXT, OPERATIONS, OpId, counter};
use crate::{ClientError, Result};

/// How often guardians are asked while a deposit is waited for.
const POLL: Duration = Duration::from_secs(2);

/// A deposit that was found in a final block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Deposit {
    /// Its output, `txid:vout`.
    pub outpoint: String,
    /// What was paid in.
    pub amount: Amount,
    /// The number of its key.
    pub key: u32,
    /// The proof, in hex.
    pub proof: String,
    /// Where it stands.
    pub state: State,
}

/// Where a deposit stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum State {
    /// Being turned into notes.
    Claiming,
    /// In the balance.
    Done {
        /// What came in.
        amount: Amount,
    },
    /// Refused for good.
    Failed {
        /// The stable code.
        code: String,
        /// The reason.
        reason: String,
    },
}

/// An address to pay to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepositAddress {
    /// The number of its key.
    pub key: u32,
    /// The address.
    pub address: String,
    /// The smallest deposit that is credited.
    pub minimum_sat: u64,
    /// Confirmations that a deposit needs.
    pub confirmations: u32,
}

/// A deposit on its way, as guardians see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The address that it was paid to.
    pub address: String,
    /// Its output, `txid:vout`.
    pub outpoint: String,
    /// What was paid in.
    pub amount_sat: u64,
    /// Too little to be credited.
    pub too_small: bool,
    /// How many confirmations it has.
    pub confirmations: u32,
    /// How many it needs.
    pub needed: u32,
    /// Where it stands with us, once its block is final.
    pub state: Option<State>,
}

impl Client {
    fn deposit_keys(&self) -> DepositKeys {
        DepositKeys::new(&self.inner.seed, self.inner.federation)
    }

    /// The number of an address that nobody has paid to: a fresh one, or the oldest one again if so many were handed out in
    /// vain that a restore would not find another one.
    async fn next_deposit_key(&self) -> Result<u32> {
        let _guard = self.inner.money.lock().await;
        let mut batch = WriteBatch::new(self.inner.db.clone());
        let next = NEXT.get(&batch, &counter::DEPOSITS).await?.unwrap_or_default();
        let paid = match NEXT.get(&batch, &counter::PAID).await? {
            Some(paid) => paid,
            // A wallet of an older version has not counted.
            None => {
                NEXT.put(&mut batch, &counter::PAID, &next);
                next
            }
        };
        let fresh = next < paid.saturating_add(u64::from(DEPOSIT_GAP));
        let key = if fresh { next } else { paid };
        NEXT.put(&mut batch, &counter::DEPOSITS, &next.max(key.saturating_add(1)));
        batch.commit().await?;
        u32::try_from(key).map_err(|_| ClientError::Internal("no addresses are left".to_owned()))
    }

    /// The public key and the address of a number.
    pub(crate) fn deposit_place(&self, key: u32) -> Result<(XOnlyPublicKey, String)> {
        let public = self.deposit_keys().key(key).x_only_public_key().0;
        let address = deposit_address(self.wallet().1, &public);
        let address = address.map_err(|error| ClientError::Internal(error.to_string()))?;
        Ok((public, address.to_string()))
    }

    /// A fresh address, computed here, whose key n − f guardians at least have begun to watch.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Refused`]: do not pay anything in then.
    pub async fn deposit_address(&self) -> Result<DepositAddress> {
        let key = self.next_deposit_key().await?;
        let (_, config) = self.wallet();
        let (public, address) = self.deposit_place(key)?;
        {
            // Before anybody can pay to it.
            let _guard = self.inner.money.lock().await;
            let mut batch = WriteBatch::new(self.inner.db.clone());
            ADDRESSES.put(&mut batch, &key, &address);
            batch.commit().await?;
        }
        self.module_post_all(KIND, "register", &json!({ "key": public })).await?;
        let (minimum_sat, confirmations) = (config.params.min_deposit_sat, config.params.finality);
        Ok(DepositAddress { key, address, minimum_sat, confirmations })
    }

    /// Looks for deposits at all our addresses, and begins to claim those that are final. Guardians that have lost an
    /// address with their disk are asked to watch it again.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`].
    pub async fn check_deposits(&self) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for (key, address) in ADDRESSES.all(self.db()).await? {
            let public = self.deposit_keys().key(key).x_only_public_key().0;
            // Whoever can't be reached now is asked the next time.
            let register = Request::module_post(KIND, "register", json!({ "key": public }));
            self.inner.api.all(&register, Duration::ZERO).await;
            seen.extend(self.check_address(key, &address).await?);
        }
        Ok(seen)
    }

    /// The same for one address.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`].
    pub async fn check_address(&self, key: u32, address: &str) -> Result<Vec<Seen>> {
        let public = self.deposit_keys().key(key).x_only_public_key().0;
        let request = Request::module_get(KIND, "deposits", &[("key", public.to_string())]);
        // Proofs prove themselves, so one guardian is enough that watches the address; but which one does, nobody knows:
        // those whose disks were lost since have forgotten it.
        let answers = self.inner.api.some(&request, self.inner.config.guardians.len()).await?;
        let mut found: BTreeMap<String, (DepositStatus, u32)> = BTreeMap::new();
        let mut claimed: BTreeMap<String, usize> = BTreeMap::new();
        for answer in answers {
            let Ok(answer) = serde_json::from_value::<DepositsStatus>(answer) else { continue };
            for deposit in answer.deposits {
                if deposit.claimed {
                    let count = claimed.entry(deposit.outpoint.clone()).or_default();
                    *count = count.saturating_add(1);
                }
                let better = |known: &(DepositStatus, u32)| {
                    (known.0.proof.is_some(), known.0.confirmations)
                        < (deposit.proof.is_some(), deposit.confirmations)
                };
                if found.get(&deposit.outpoint).is_none_or(better) {
                    found.insert(deposit.outpoint.clone(), (deposit, answer.confirmations_needed));
                }
            }
        }
        let mut seen = Vec::new();
        for (outpoint, (deposit, needed)) in found {
            let taken = claimed.get(&outpoint).is_some_and(|count| *count > self.inner.api.max_faulty());
            if taken && !OPERATIONS.contains(self.db(), &deposit_id(&outpoint)).await? {
                // By this wallet before it was lost and restored.
                continue;
            }
            let state = match &deposit.proof {
                Some(proof) if !deposit.too_small => self.claim_deposit(key, &outpoint, proof).await?,
                _ => None,
            };
            seen.push(Seen {
                address: address.to_owned(),
                outpoint,
                amount_sat: deposit.amount_sat,
                too_small: deposit.too_small,
                confirmations: deposit.confirmations,
                needed,
                state,
            });
        }
        Ok(seen)
    }

    /// Begins to claim a deposit, once; says where that stands. `None`: the proof is wrong.
    async fn claim_deposit(&self, key: u32, outpoint: &str, proof: &str) -> Result<Option<State>> {
        let op = deposit_id(outpoint);
        if let Some(Kind::Deposit(deposit)) = OPERATIONS.get(self.db(), &op).await?.map(|op| op.kind) {
            return Ok(Some(deposit.state));
        }
        let (module, config) = self.wallet();
        let public = self.deposit_keys().key(key).x_only_public_key().0;
        let amount = match deposit_input(config, module, &public, proof) {
            Ok((_, amount)) => amount,
            Err(error) => {
                tracing::warn!("a guardian's proof of {outpoint} is wrong: {error}");
                return Ok(None);
            }
        };
        let (outpoint, proof) = (outpoint.to_owned(), proof.to_owned());
        let deposit = Deposit { outpoint, amount, key, proof, state: State::Claiming };
        {
            let _guard = self.inner.money.lock().await;
            let mut batch = WriteBatch::new(self.inner.db.clone());
            if OPERATIONS.get(&batch, &op).await?.is_none() {
                put(&mut batch, &op, &Operation::new(Kind::Deposit(deposit), ""));
                let paid = NEXT.get(&batch, &counter::PAID).await?.unwrap_or_default();
                NEXT.put(&mut batch, &counter::PAID, &paid.max(u64::from(key).saturating_add(1)));
                batch.commit().await?;
            }
        }
        self.spawn_flow(op);
        Ok(Some(State::Claiming))
    }

    pub(super) async fn deposit_step(&self, op: OpId, deposit: Deposit) -> Result<Flow> {
        for round in 0u32.. {
            let id = step_id(&op, "claim", round);
            if self.transaction(id).await?.is_none() {
                let key = self.deposit_keys().key(deposit.key);
                let (module, config) = self.wallet();
                let input = deposit_input(config, module, &key.x_only_public_key().0, &deposit.proof);
                let (input, amount) = input.map_err(|error| ClientError::Internal(error.to_string()))?;
                let plan = Plan::new(id, vec![(input, key, Value::free(amount))], Vec::new());
                self.begin(plan, |_, _| Ok(())).await?;
            }
            let state = match self.wait_transaction(id, true).await {
                Ok(record) => {
                    let amount =
                        deposit.amount.checked_sub(record.fees).ok_or(ClientError::AmountTooLarge)?;
                    State::Done { amount }
                }
                // The guardian that gave the proof was ahead of the others.
                Err(ClientError::Rejected { code, .. }) if code == "not_final" => {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Err(ClientError::Rejected { code, reason }) => State::Failed { code, reason },
                Err(error) => return Err(error),
            };
            return Ok(Flow::Become(Kind::Deposit(Deposit { state, ..deposit })));
        }
        Ok(Flow::Finished)
    }

    /// Waits until something was paid to an address and is in the balance; `progress` hears what is seen meanwhile. Guardians
    /// that do not answer are asked again.
    ///
    /// # Errors
    /// [`ClientError::Rejected`].
    pub async fn wait_deposit(
        &self,
        address: &DepositAddress,
        mut progress: impl FnMut(&[Seen]) + Send,
    ) -> Result<Amount> {
        loop {
            match self.check_address(address.key, &address.address).await {
                Ok(seen) => {
                    progress(&seen);
                    let arrived = seen.iter().filter_map(|seen| match &seen.state {
                        Some(State::Done { amount }) => Some(*amount),
                        _ => None,
                    });
                    let arrived = Amount::checked_sum(arrived).ok_or(ClientError::AmountTooLarge)?;
                    let under_way = seen.iter().any(|seen| seen.state == Some(State::Claiming));
                    if !arrived.is_zero() && !under_way {
                        return Ok(arrived);
                    }
                    let failed = seen.into_iter().find_map(|seen| match seen.state {
                        Some(State::Failed { code, reason }) => Some(ClientError::Rejected { code, reason }),
                        _ => None,
                    });
                    if let Some(error) = failed.filter(|_| !under_way) {
                        return Err(error);
                    }
                }
                Err(error) if error.is_transient() => tracing::debug!("{error}"),
                Err(error) => return Err(error),
            }
            // Sooner if something of ours moves on.
            let mut changes = self.inner.changes.subscribe();
            let _ = tokio::time::timeout(POLL, changes.changed()).await;
        }
    }
}

/// The name of the operation that claims a deposit.
fn deposit_id(outpoint: &str) -> OpId {
    tagged_hash("cln-federation/client/deposit", &[outpoint.as_bytes()])
}
