//! The first commit of a transaction.

use std::time::Duration;

use bitcoin::secp256k1::Keypair;
use federation_core::module::Value;
use federation_core::transaction::MAX_PARTS;
use federation_core::{Amount, Input, Output, Transaction};
use federation_mint::Denomination;
use federation_mint::client::{Note, NoteRequest, spend_input};
use federation_store::WriteBatch;

use super::balance::{Given, balance, reissue};
use crate::client::Client;
use crate::store::{
    Destination, Held, Issue, KEYS, NOTES, OpId, RESERVED, TRANSACTIONS, TxRecord, TxState, UNFINISHED,
};
use crate::{ClientError, Result};

/// How long a transaction waits for change of earlier ones that it needs.
const CHANGE: Duration = Duration::from_secs(30);

/// What a transaction is to do; own notes come in and change goes out as needed.
#[derive(Clone)]
pub(crate) struct Plan {
    /// The idempotency key.
    pub op: OpId,
    /// Inputs other than own notes, with their keys.
    pub inputs: Vec<(Input, Keypair, Value)>,
    /// Outputs other than own notes: the first ones of the transaction.
    pub outputs: Vec<(Output, Value)>,
    /// Notes that must come out, beside the change.
    pub notes: Vec<Denomination>,
    /// What these are for.
    pub destination: Destination,
    /// Instead of all this: own notes to be reissued.
    pub reissue: Option<Reissue>,
    /// Whether it is backed up before it is handed in: what must not be done twice must not be forgotten.
    pub back_up: bool,
}

/// How many own notes of each denomination become others, with so many of each small one among them.
#[derive(Clone, Debug)]
pub(crate) struct Reissue {
    /// What is spent.
    pub spend: federation_mint::client::Held,
    /// The spread of what comes out.
    pub spread: usize,
}

impl Plan {
    /// No notes but change.
    pub fn new(op: OpId, inputs: Vec<(Input, Keypair, Value)>, outputs: Vec<(Output, Value)>) -> Self {
        let (notes, destination) = (Vec::new(), Destination::Keep);
        Self { op, inputs, outputs, notes, destination, reissue: None, back_up: false }
    }
}

impl Plan {
    /// The larger number of given inputs, or outputs and notes.
    fn parts(&self) -> usize {
        self.inputs.len().max(self.outputs.len().saturating_add(self.notes.len()))
    }
}

impl Client {
    /// Writes a transaction down, with whatever `extra` writes, in one commit, and starts to drive it. If the operation has
    /// one already, that one is returned and nothing is written. If notes are missing that are on their way as change, they
    /// are waited for.
    pub(crate) async fn begin(
        &self,
        plan: Plan,
        extra: impl FnOnce(&mut WriteBatch, &TxRecord) -> Result<()> + Send,
    ) -> Result<TxRecord> {
        let mut changes = self.inner.changes.subscribe();
        let deadline = tokio::time::Instant::now().checked_add(CHANGE);
        loop {
            changes.borrow_and_update();
            let guard = self.inner.money.lock().await;
            if let Some(record) = TRANSACTIONS.get(self.db(), &plan.op).await? {
                return Ok(record);
            }
            let mut batch = WriteBatch::new(self.inner.db.clone());
            match self.prepare(&mut batch, plan.clone()).await {
                Ok(record) => {
                    extra(&mut batch, &record)?;
                    batch.commit().await?;
                    drop(guard);
                    self.touch();
                    if plan.back_up {
                        self.back_up_first(None).await;
                    }
                    self.spawn_driver(plan.op);
                    return Ok(record);
                }
                Err(error @ (ClientError::InsufficientFunds { .. } | ClientError::TooManyPending)) => {
                    drop(guard);
                    let hope = match &error {
                        ClientError::InsufficientFunds { needed, available } => {
                            let sum = available.checked_add(self.incoming().await?);
                            sum.is_some_and(|sum| sum >= *needed)
                        }
                        _ => true,
                    };
                    let Some(deadline) = deadline.filter(|_| hope) else { return Err(error) };
                    match tokio::time::timeout_at(deadline, changes.changed()).await {
                        Ok(Ok(())) => {}
                        _ => return Err(error),
                    }
                }
                // Fewer and larger ones will do, if it isn't the rest that is too much.
                Err(error @ ClientError::TooManyNotes)
                    if plan.reissue.is_none() && plan.parts() < MAX_PARTS =>
                {
                    drop(guard);
                    if self.merge_notes().await? {
                        continue;
                    }
                    // Unless somebody else is at it.
                    let Some(deadline) = deadline else { return Err(error) };
                    if self.incoming().await?.is_zero() {
                        return Err(error);
                    }
                    match tokio::time::timeout_at(deadline, changes.changed()).await {
                        Ok(Ok(())) => {}
                        _ => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Selects, derives, signs, and writes it all into the batch. The caller holds the money lock.
    pub(crate) async fn prepare(&self, batch: &mut WriteBatch, plan: Plan) -> Result<TxRecord> {
        let mint = &self.inner.mint;
        let free = NOTES.all(batch).await?;
        let denominations: Vec<_> = free.iter().map(|(_, held)| held.denomination).collect();
        let given_in: Vec<_> = plan.inputs.iter().map(|(_, _, value)| *value).collect();
        let issued = plan.notes.iter().map(|d| Value { amount: d.amount(), fee: mint.config.fee_out });
        let given_out: Vec<_> = plan.outputs.iter().map(|(_, value)| *value).chain(issued).collect();
        let balanced = match plan.reissue {
            Some(Reissue { spend, spread }) => {
                reissue(&mint.config, &denominations, places(&denominations, spend)?, spread)?
            }
            None => balance(&mint.config, &denominations, &Given { inputs: &given_in, outputs: &given_out })?,
        };

        let mut inputs = Vec::new();
        let mut keys = Vec::new();
        for (input, key, _) in plan.inputs {
            inputs.push(input);
            keys.push(key);
        }
        if !keys.is_empty() {
            // To sign again, should the numbers of the notes turn out to be used.
            KEYS.put(batch, &plan.op, &keys.iter().map(Keypair::secret_bytes).collect());
        }
        for place in balanced.spend {
            let Some((nonce, held)) = free.get(place) else { continue };
            let (input, key) = spend_input(&self.note(held), mint.id);
            inputs.push(input);
            keys.push(key);
            NOTES.delete(batch, nonce);
            RESERVED.put(batch, &(plan.op, *nonce), held);
        }

        let mut outputs: Vec<_> = plan.outputs.into_iter().map(|(output, _)| output).collect();
        let wanted = plan.notes.into_iter().map(|denomination| (denomination, plan.destination));
        let change = balanced.change.into_iter().map(|denomination| (denomination, Destination::Keep));
        let issued: Vec<_> = wanted.chain(change).collect();
        let numbers = self.take_numbers(batch, issued.len()).await?;
        let mut issues = Vec::new();
        for ((denomination, destination), index) in issued.into_iter().zip(numbers) {
            let output = u16::try_from(outputs.len().saturating_add(issues.len()))
                .map_err(|_| ClientError::TooManyNotes)?;
            issues.push(Issue { output, index, denomination, destination });
        }
        outputs.extend(self.requests(&issues).await?.iter().map(|request| request.output(mint.id)));

        let transaction = Transaction::sign(self.federation_id(), inputs, outputs, &keys);
        transaction.check_form().map_err(|error| ClientError::Internal(error.to_string()))?;
        let txid = transaction.txid(self.federation_id());
        let record = TxRecord { txid, transaction, issues, state: TxState::Pending, fees: balanced.fees };
        TRANSACTIONS.put(batch, &plan.op, &record);
        UNFINISHED.put(batch, &plan.op, &());
        Ok(record)
    }

    /// A note of ours with its secret.
    pub(crate) fn note(&self, held: &Held) -> Note {
        let secret = self.inner.deriver.note(held.index);
        Note::new(held.denomination, held.signature.clone(), secret.key)
    }

    /// The requests of issues, derived again; half a millisecond of CPU each.
    pub(crate) async fn requests(&self, issues: &[Issue]) -> Result<Vec<NoteRequest>> {
        let wanted: Vec<_> = issues.iter().map(|issue| (issue.index, issue.denomination)).collect();
        let inner = self.inner.clone();
        let derive =
            move || wanted.into_iter().map(|(index, d)| NoteRequest::new(&inner.deriver, index, d)).collect();
        tokio::task::spawn_blocking(derive).await.map_err(|error| ClientError::Internal(error.to_string()))
    }
}

/// Where so many notes of each denomination are.
fn places(available: &[Denomination], mut wanted: federation_mint::client::Held) -> Result<Vec<usize>> {
    let mut places = Vec::new();
    for (place, denomination) in available.iter().enumerate() {
        if let Some(count) = wanted.get_mut(denomination).filter(|count| **count > 0) {
            *count -= 1;
            places.push(place);
        }
    }
    // Spent meanwhile.
    if wanted.values().any(|count| *count > 0) {
        Err(ClientError::BelowFees(Amount::ZERO))
    } else {
        Ok(places)
    }
}
