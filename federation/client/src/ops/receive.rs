//! E-cash taken in: reissued at once, so that the sender can't spend it again.

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::encoding::tagged_hash;
use federation_core::{Amount, FederationId};
use federation_mint::client::{ECash, Note};
use federation_mint::{MintConfig, MintError};

use super::flow::{Flow, put};
use super::take::Taken;
use super::{Kind, Operation};
use crate::client::Client;
use crate::store::{OPERATIONS, OpId};
use crate::{ClientError, Result};

/// A receive.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Receive {
    /// What the string says.
    pub amount: Amount,
    /// The notes, as long as they are not reissued.
    pub notes: Vec<Note>,
    /// Where it stands.
    pub state: State,
}

/// Where a receive stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum State {
    /// Being reissued.
    Pending,
    /// In the balance.
    Done {
        /// What came in: less than the string says by fees, or because some of the notes were spent.
        amount: Amount,
        /// Fees of the federation.
        fees: Amount,
    },
    /// Somebody else was first.
    Spent,
    /// Refused for another reason; the string may be tried again.
    Failed {
        /// The stable code.
        code: String,
        /// The reason.
        reason: String,
    },
}

/// What came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The operation.
    pub operation: OpId,
    /// What the string says.
    pub face: Amount,
    /// What came into the balance.
    pub amount: Amount,
    /// Fees of the federation.
    pub fees: Amount,
}

impl Client {
    /// Takes in an e-cash string. Trying one again that is under way waits for it.
    ///
    /// # Errors
    /// [`ClientError::BadEcash`], [`ClientError::ForeignEcash`], [`ClientError::EcashSpent`],
    /// [`ClientError::EcashReceived`], [`ClientError::BelowFees`]; [`ClientError::Unreachable`]: goes on at the next start.
    pub async fn receive(&self, text: &str, memo: &str) -> Result<Received> {
        self.take_in(text, memo, |ecash, federation, config| ecash.check(federation, config).map(|_| ecash))
            .await
    }

    /// The same of a string of which not all notes are signed by the federation: takes in those that are. Whoever made it has
    /// made a mistake, or lied, so it is for those only who know.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn receive_part(&self, text: &str, memo: &str) -> Result<Received> {
        self.take_in(text, memo, ECash::good).await
    }

    async fn take_in(
        &self,
        text: &str,
        memo: &str,
        checked: fn(ECash, FederationId, &MintConfig) -> std::result::Result<ECash, MintError>,
    ) -> Result<Received> {
        let ecash: ECash = text.parse().map_err(bad)?;
        let inner = self.inner.clone();
        let check = move || checked(ecash, inner.federation, &inner.mint.config);
        let ecash = tokio::task::spawn_blocking(check).await;
        let ecash = ecash.map_err(|error| ClientError::Internal(error.to_string()))?.map_err(bad)?;
        let face = ecash.amount();
        let (op, known) = self.receive_id(&ecash).await?;
        if !known {
            let notes = ecash.notes.clone();
            let receive = Receive { amount: face, notes, state: State::Pending };
            let operation = Operation::new(Kind::Receive(receive), memo);
            self.begin_take(&op, &ecash.notes, |batch, _| {
                put(batch, &op, &operation);
                Ok(())
            })
            .await?;
        }
        self.wait_operation(op, |operation| match operation.kind {
            Kind::Receive(Receive { state: State::Pending, .. }) => None,
            Kind::Receive(Receive { state: State::Done { amount, fees }, .. }) => {
                Some(Ok(Received { operation: op, face, amount, fees }))
            }
            Kind::Receive(Receive { state: State::Failed { code, reason }, .. }) => {
                Some(Err(ClientError::Rejected { code, reason }))
            }
            _ => Some(Err(ClientError::EcashSpent)),
        })
        .await
    }

    /// The operation's name comes from the notes, so that the same string is received once only; one that was refused for a
    /// passing reason gets a new name. `true`: it is under way.
    async fn receive_id(&self, ecash: &ECash) -> Result<(OpId, bool)> {
        let nonces: BTreeSet<[u8; 32]> = ecash.notes.iter().map(|note| note.nonce().serialize()).collect();
        let nonces: Vec<u8> = nonces.into_iter().flatten().collect();
        for attempt in 0u32.. {
            let id = tagged_hash("cln-federation/client/receive", &[&attempt.to_be_bytes(), &nonces]);
            match OPERATIONS.get(self.db(), &id).await?.map(|operation| operation.kind) {
                None => return Ok((id, false)),
                Some(Kind::Receive(Receive { state: State::Pending, .. })) => return Ok((id, true)),
                Some(Kind::Receive(Receive { state: State::Done { .. }, .. })) => {
                    return Err(ClientError::EcashReceived);
                }
                Some(Kind::Receive(Receive { state: State::Failed { .. }, .. })) => {}
                Some(_) => return Err(ClientError::EcashSpent),
            }
        }
        Err(ClientError::Internal("too many attempts".to_owned()))
    }

    pub(super) async fn receive_step(&self, op: OpId, receive: Receive) -> Result<Flow> {
        // One that came back with a backup has no transaction yet.
        let begun = self.begin_first_take(&op, &receive.notes).await;
        let taken = match begun {
            Ok(()) => self.finish_take(&op, &receive.notes).await?,
            Err(error @ ClientError::BelowFees(_)) => {
                Taken::Refused { code: error.code().to_owned(), reason: error.to_string() }
            }
            Err(error) => return Err(error),
        };
        let state = match taken {
            Taken::Notes { amount, fees } => State::Done { amount, fees },
            Taken::Spent => State::Spent,
            Taken::Refused { code, reason } => State::Failed { code, reason },
        };
        // The notes are of no use any more, or still with the user as text.
        Ok(Flow::Become(Kind::Receive(Receive { notes: Vec::new(), state, ..receive })))
    }
}

fn bad(error: MintError) -> ClientError {
    match error {
        MintError::OtherFederation(federation) => ClientError::ForeignEcash(federation.to_string()),
        MintError::TooManyNotes(_) => ClientError::TooManyNotes,
        error @ MintError::BadNotes(_) => {
            ClientError::BadEcash(format!("{error}; the others can be taken in by themselves (--part)"))
        }
        MintError::Text(reason) | MintError::Content(reason) => ClientError::BadEcash(reason),
        other => ClientError::BadEcash(other.to_string()),
    }
}
