//! The proof that a transaction is in a block.
//!
//! It holds the block's header, the transaction without its witness, and a partial Merkle tree (BIP-37's, as rust-bitcoin
//! has it) with two leaves: the transaction and the block's coinbase. Two known tricks are closed:
//!
//! - a 64-byte transaction can be read as an inner node of the tree: none is accepted;
//! - a real 64-byte transaction in a block can be read as an inner node with a made-up leaf below it: the coinbase proves
//!   the tree's depth, since it cannot be moved down the same way.
//!
//! That the header is final for the federation is not proved here: the federation agreed on it, or not.

use bitcoin::consensus::serialize;
use bitcoin::{Block, BlockHash, MerkleBlock, OutPoint, Transaction, TxOut, Txid};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::encoding::bitcoin_bytes;

/// A transaction and the way to its block's header.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TxProof {
    /// The height of the block.
    pub height: u32,
    /// The block's header, and the path to it from the coinbase and the transaction.
    #[borsh(serialize_with = "bitcoin_bytes::to", deserialize_with = "bitcoin_bytes::from")]
    pub path: MerkleBlock,
    /// The block's first transaction, without its witness.
    #[borsh(serialize_with = "bitcoin_bytes::to", deserialize_with = "bitcoin_bytes::from")]
    pub coinbase: Transaction,
    /// The transaction, without its witness.
    #[borsh(serialize_with = "bitcoin_bytes::to", deserialize_with = "bitcoin_bytes::from")]
    pub transaction: Transaction,
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A transaction of 64 bytes, which could be an inner node of the tree.
    #[error("a transaction of 64 bytes proves nothing")]
    SixtyFourBytes,
    /// The transaction creates coins: they can be spent only 100 blocks later, so it makes no deposit.
    #[error("newly mined coins cannot be deposited directly: send them by an ordinary transaction")]
    Coinbase,
    /// The first leaf is not a coinbase.
    #[error("the proof's first transaction is not the block's coinbase")]
    NotCoinbase,
    /// The path does not lead from the two transactions to the header.
    #[error("the Merkle path does not lead to the block's header")]
    Path,
    /// The transaction has no such output.
    #[error("the transaction has no output {0}")]
    NoOutput(u32),
}

impl TxProof {
    /// Proves the transaction at `position` of a block; `None` if there is none, or it is the coinbase.
    pub fn new(block: &Block, height: u32, position: usize) -> Option<Self> {
        let transaction = without_witness(block.txdata.get(position).filter(|tx| !tx.is_coinbase())?);
        let coinbase = without_witness(block.txdata.first()?);
        let (first, second) = (coinbase.compute_txid(), transaction.compute_txid());
        let path = MerkleBlock::from_block_with_predicate(block, |txid| *txid == first || *txid == second);
        Some(Self { height, path, coinbase, transaction })
    }

    /// The hash of the block that this proof leads to.
    pub fn block_hash(&self) -> BlockHash {
        self.path.header.block_hash()
    }

    /// The transaction's id.
    pub fn txid(&self) -> Txid {
        self.transaction.compute_txid()
    }

    /// An output of the transaction.
    ///
    /// # Errors
    /// [`ProofError::NoOutput`].
    pub fn output(&self, vout: u32) -> Result<(OutPoint, &TxOut), ProofError> {
        let place = usize::try_from(vout).map_err(|_| ProofError::NoOutput(vout))?;
        let output = self.transaction.output.get(place).ok_or(ProofError::NoOutput(vout))?;
        Ok((OutPoint { txid: self.txid(), vout }, output))
    }

    /// Checks that the transaction is in the block of this header. Pure; some hashes.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self) -> Result<(), ProofError> {
        if size(&self.transaction) == 64 || size(&self.coinbase) == 64 {
            return Err(ProofError::SixtyFourBytes);
        }
        if self.transaction.is_coinbase() {
            return Err(ProofError::Coinbase);
        }
        if !self.coinbase.is_coinbase() {
            return Err(ProofError::NotCoinbase);
        }
        let (mut txids, mut places) = (Vec::new(), Vec::new());
        // Refuses flawed trees (CVE-2012-2459 too) and compares the root with the header's.
        self.path.extract_matches(&mut txids, &mut places).map_err(|_| ProofError::Path)?;
        let expected = [self.coinbase.compute_txid(), self.txid()];
        if txids != expected || places.first() != Some(&0) {
            return Err(ProofError::Path);
        }
        Ok(())
    }
}

fn without_witness(transaction: &Transaction) -> Transaction {
    let mut transaction = transaction.clone();
    for input in &mut transaction.input {
        input.witness.clear();
    }
    transaction
}

fn size(transaction: &Transaction) -> usize {
    serialize(&without_witness(transaction)).len()
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, Sequence, TxIn, TxMerkleNode};
    use federation_core::encoding::{decode, encode};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::block;

    #[test]
    fn each_transaction_of_a_block_has_a_proof_but_the_coinbase() {
        for count in 1..12 {
            let block = block(BlockHash::from_raw_hash(bitcoin::hashes::Hash::all_zeros()), 7, count);
            assert!(TxProof::new(&block, 7, 0).is_none());
            for position in 1..block.txdata.len() {
                let proof = TxProof::new(&block, 7, position).unwrap();
                proof.check().unwrap();
                assert_eq!(proof.txid(), block.txdata[position].compute_txid());
                let read = decode::<TxProof>(&encode(&proof), 10_000).unwrap();
                read.check().unwrap();
                assert_eq!(encode(&read), encode(&proof));
            }
        }
    }

    #[test]
    fn another_transaction_another_header_or_another_coinbase_is_refused() {
        let block = block(BlockHash::from_raw_hash(bitcoin::hashes::Hash::all_zeros()), 7, 5);
        let good = TxProof::new(&block, 7, 3).unwrap();
        let mut other = good.clone();
        other.transaction = TxProof::new(&block, 7, 2).unwrap().transaction;
        assert_eq!(other.check(), Err(ProofError::Path));
        let mut header = good.clone();
        header.path.header.merkle_root = TxMerkleNode::from_raw_hash(bitcoin::hashes::Hash::all_zeros());
        assert_eq!(header.check(), Err(ProofError::Path));
        let mut coinbase = good.clone();
        coinbase.coinbase = good.transaction.clone();
        assert_eq!(coinbase.check(), Err(ProofError::NotCoinbase));
        let mut mined = good.clone();
        mined.transaction = good.coinbase.clone();
        assert_eq!(mined.check(), Err(ProofError::Coinbase));
        assert_eq!(good.output(99).unwrap_err(), ProofError::NoOutput(99));
    }

    #[test]
    fn sixty_four_bytes_are_refused() {
        let block = block(BlockHash::from_raw_hash(bitcoin::hashes::Hash::all_zeros()), 7, 2);
        let mut proof = TxProof::new(&block, 7, 1).unwrap();
        proof.transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint { vout: 0, ..proof.transaction.input[0].previous_output },
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: bitcoin::Witness::new(),
            }],
            output: vec![TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(vec![0x51; 4]) }],
        };
        assert_eq!(serialize(&proof.transaction).len(), 64);
        assert_eq!(proof.check(), Err(ProofError::SixtyFourBytes));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_checked_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(proof) = decode::<TxProof>(&bytes, 1000) {
                let _ = proof.check();
            }
        }

        #[test]
        fn a_flipped_bit_never_passes(place in any::<prop::sample::Index>(), bit in 0u8..8) {
            let block = block(BlockHash::from_raw_hash(bitcoin::hashes::Hash::all_zeros()), 7, 6);
            let good = TxProof::new(&block, 7, 4).unwrap();
            let mut bytes = encode(&good);
            *place.get_mut(&mut bytes) ^= 1 << bit;
            if let Ok(bad) = decode::<TxProof>(&bytes, 10_000) {
                // What may change without notice: height and header, which are compared with what was agreed on, and
                // the padding of the path's bits.
                let same = bad.height != good.height || bad.block_hash() != good.block_hash();
                let same = same || bad.transaction == good.transaction;
                prop_assert!(same || bad.check().is_err());
            }
        }
    }
}
