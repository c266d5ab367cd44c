//! Blocks and a chain source for the unit tests.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::Hash as _;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
};

/// A transaction that pays these outputs, from coins made up of `seed`.
pub(crate) fn payment(seed: u64, output: Vec<TxOut>) -> Transaction {
    let mut txid = [0; 32];
    txid[..8].copy_from_slice(&seed.to_le_bytes());
    let input = TxIn {
        previous_output: OutPoint { txid: Txid::from_byte_array(txid), vout: 0 },
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[[7u8; 70]]),
    };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output }
}

fn coinbase(height: u32) -> Transaction {
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig: ScriptBuf::builder().push_int(height.into()).push_int(77).into_script(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let output = TxOut { value: Amount::from_sat(50), script_pubkey: ScriptBuf::from_bytes(vec![0x51; 5]) };
    Transaction { version: Version::ONE, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
}

/// A block of these transactions behind a coinbase.
pub(crate) fn block_of(parent: BlockHash, height: u32, transactions: Vec<Transaction>) -> Block {
    let header = Header {
        version: BlockVersion::TWO,
        prev_blockhash: parent,
        merkle_root: bitcoin::TxMerkleNode::all_zeros(),
        time: height,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    let mut txdata = vec![coinbase(height)];
    txdata.extend(transactions);
    let mut block = Block { header, txdata };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    block
}

/// A block with `count` transactions in all.
pub(crate) fn block(parent: BlockHash, height: u32, count: u64) -> Block {
    let output =
        |i| TxOut { value: Amount::from_sat(1000 + i), script_pubkey: ScriptBuf::from_bytes(vec![0x51]) };
    let transactions = (1..count).map(|i| payment(i, vec![output(i)])).collect();
    block_of(parent, height, transactions)
}
