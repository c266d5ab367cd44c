//! Transactions: what users submit and the federation agrees on.

use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Keypair, Message, SECP256K1, XOnlyPublicKey};
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::encoding::{DecodeError, decode, encode, schnorr, tagged_hash, xonly};
use crate::{FederationId, ModuleId, TxId};

/// The most inputs, and the most outputs, of one transaction.
pub const MAX_PARTS: usize = 256;
/// The largest encoded transaction, in bytes. A deposit's proof is the largest input there is.
pub const MAX_TRANSACTION_SIZE: usize = 450_000;

/// Money that comes into a transaction: an envelope whose `body` only its module understands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Input {
    /// The module that owns the input.
    pub module: ModuleId,
    /// The BIP-340 key that must sign the transaction: of a note its nonce, of a deposit its
    /// tweak, of a contract the key named in it. The module checks that it is the right one.
    #[borsh(serialize_with = "xonly::to", deserialize_with = "xonly::from")]
    pub key: XOnlyPublicKey,
    /// The module's canonical encoding of its input type.
    #[serde(with = "hex::serde")]
    pub body: Vec<u8>,
}

/// Money that goes out of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Output {
    /// The module that owns the output.
    pub module: ModuleId,
    /// The module's canonical encoding of its output type.
    #[serde(with = "hex::serde")]
    pub body: Vec<u8>,
}

/// What a guardian says on its own behalf, for one module.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ConsensusItem {
    /// The module that the item is for.
    pub module: ModuleId,
    /// The module's canonical encoding of its item type.
    pub body: Vec<u8>,
}

/// One BIP-340 signature of the [`TxId`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WitnessSignature(
    #[borsh(serialize_with = "schnorr::to", deserialize_with = "schnorr::from")] pub Signature,
);

/// Inputs, outputs, and one signature an input.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Transaction {
    /// Where the money comes from; never empty.
    pub inputs: Vec<Input>,
    /// Where the money goes; never empty.
    pub outputs: Vec<Output>,
    /// The signatures, in the order of the inputs.
    pub witness: Vec<WitnessSignature>,
}

/// Why a transaction is malformed, whatever its modules would say.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// No inputs or no outputs.
    #[error("a transaction needs at least one input and one output")]
    Empty,
    /// More than [`MAX_PARTS`] inputs or outputs.
    #[error("a transaction has at most {MAX_PARTS} inputs and {MAX_PARTS} outputs: split it")]
    TooManyParts,
    /// Over [`MAX_TRANSACTION_SIZE`], or not an encoding of a transaction.
    #[error("the transaction cannot be read: {0}")]
    Encoding(#[from] DecodeError),
    /// Not exactly one signature an input.
    #[error("{signatures} signatures for {inputs} inputs")]
    WitnessCount {
        /// How many signatures there are.
        signatures: usize,
        /// How many inputs there are.
        inputs: usize,
    },
    /// A signature does not fit the input's key and this transaction.
    #[error("the signature of input {0} is wrong")]
    BadSignature(usize),
}

impl Transaction {
    /// Builds and signs: `keys` in the order of `inputs`, each the secret of that input's key.
    pub fn sign(
        federation: FederationId,
        inputs: Vec<Input>,
        outputs: Vec<Output>,
        keys: &[Keypair],
    ) -> Self {
        let txid = txid(federation, &inputs, &outputs);
        let message = Message::from_digest(txid.0);
        let witness =
            keys.iter().map(|key| WitnessSignature(SECP256K1.sign_schnorr(&message, key))).collect();
        Self { inputs, outputs, witness }
    }

    /// The name of the transaction: what is signed, and what outputs are found by.
    pub fn txid(&self, federation: FederationId) -> TxId {
        txid(federation, &self.inputs, &self.outputs)
    }

    /// SHA-256 of the whole encoding, witness included: what makes two submissions the same.
    pub fn hash(&self) -> [u8; 32] {
        tagged_hash("cln-federation/transaction-hash", &[&encode(self)])
    }

    /// Checks form and size; cheap.
    pub fn check_form(&self) -> Result<(), TransactionError> {
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return Err(TransactionError::Empty);
        }
        if self.inputs.len() > MAX_PARTS || self.outputs.len() > MAX_PARTS {
            return Err(TransactionError::TooManyParts);
        }
        if self.witness.len() != self.inputs.len() {
            return Err(TransactionError::WitnessCount {
                signatures: self.witness.len(),
                inputs: self.inputs.len(),
            });
        }
        Ok(())
    }

    /// Checks every signature against its input's key; CPU-heavy. Returns what was signed.
    pub fn check_signatures(&self, federation: FederationId) -> Result<TxId, TransactionError> {
        self.check_form()?;
        let txid = self.txid(federation);
        let message = Message::from_digest(txid.0);
        for (index, (input, signature)) in self.inputs.iter().zip(&self.witness).enumerate() {
            SECP256K1
                .verify_schnorr(&signature.0, &message, &input.key)
                .map_err(|_| TransactionError::BadSignature(index))?;
        }
        Ok(txid)
    }

    /// Reads a transaction and checks its form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TransactionError> {
        let transaction: Self = decode(bytes, MAX_TRANSACTION_SIZE)?;
        transaction.check_form()?;
        Ok(transaction)
    }
}

fn txid(federation: FederationId, inputs: &[Input], outputs: &[Output]) -> TxId {
    let (inputs, outputs) = (encode(inputs), encode(outputs));
    TxId(tagged_hash("cln-federation/txid", &[&federation.0, &inputs, &outputs]))
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::SecretKey;
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> Keypair {
        Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[byte; 32]).unwrap())
    }

    fn sample() -> Transaction {
        let keys = [key(1), key(2)];
        let inputs = keys
            .iter()
            .map(|k| Input { module: ModuleId(0), key: k.x_only_public_key().0, body: vec![1, 2] })
            .collect();
        let outputs = vec![Output { module: ModuleId(1), body: vec![3] }];
        Transaction::sign(FederationId([9; 32]), inputs, outputs, &keys)
    }

    #[test]
    fn a_signed_transaction_is_good_in_its_federation_only() {
        let tx = sample();
        tx.check_signatures(FederationId([9; 32])).unwrap();
        assert!(matches!(tx.check_signatures(FederationId([8; 32])), Err(TransactionError::BadSignature(0))));
    }

    #[test]
    fn a_redirected_output_breaks_the_signature() {
        let mut tx = sample();
        tx.outputs[0].body = vec![4];
        assert!(tx.check_signatures(FederationId([9; 32])).is_err());
    }

    #[test]
    fn form_is_checked() {
        let mut empty = sample();
        empty.outputs.clear();
        assert!(matches!(empty.check_form(), Err(TransactionError::Empty)));
        let mut unsigned = sample();
        unsigned.witness.pop();
        assert!(matches!(unsigned.check_form(), Err(TransactionError::WitnessCount { .. })));
        let mut many = sample();
        many.outputs = vec![many.outputs[0].clone(); MAX_PARTS + 1];
        assert!(matches!(many.check_form(), Err(TransactionError::TooManyParts)));
    }

    #[test]
    fn json_round_trip() {
        let tx = sample();
        let json = serde_json::to_string(&tx).unwrap();
        assert_eq!(serde_json::from_str::<Transaction>(&json).unwrap(), tx);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Transaction::from_bytes(&bytes);
        }

        #[test]
        fn encoding_round_trips(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut tx = sample();
            tx.outputs[0].body = body;
            prop_assert_eq!(Transaction::from_bytes(&encode(&tx)).unwrap(), tx);
        }
    }
}
