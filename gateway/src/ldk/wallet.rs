//! The on-chain wallet: BIP 84 on `bdk_wallet`, kept in the ledger, fed with whole blocks.
//!
//! It pays for channels and fee bumps, and takes what closed channels leave.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bdk_wallet::bitcoin::bip32::Xpriv;
use bdk_wallet::chain::{BlockId, Merge as _};
use bdk_wallet::template::Bip84;
use bdk_wallet::{ChangeSet, KeychainKind, SignOptions, Update, Wallet};
use bitcoin::{
    Address, Amount, BlockHash, FeeRate, Network, Psbt, ScriptBuf, Transaction, TxOut, Txid, WPubkeyHash,
};
use lightning::chain::{BestBlock, Listen};
use lightning::events::bump_transaction::Utxo;
use lightning::events::bump_transaction::sync::WalletSourceSync;
use lightning::sign::ChangeDestinationSourceSync;

use super::error::LdkError;
use super::ledger::Ledger;
use super::log::Batch;
use super::types::lock;

/// Changes, in the order of their numbers.
const CHANGES: &str = "wallet/";

/// The wallet and where it is kept.
pub(super) struct Onchain {
    wallet: Mutex<Wallet>,
    ledger: Arc<Ledger>,
    /// Number of the next change.
    next: Mutex<u64>,
}

impl Onchain {
    /// Loads the wallet, or makes it with `birthday` as the block it starts from.
    pub fn load_or_create(
        ledger: Arc<Ledger>,
        master: Xpriv,
        network: Network,
        birthday: (BlockHash, u32),
    ) -> Result<Self, LdkError> {
        let bad = |reason: String| LdkError::Stored { what: "on-chain wallet", reason };
        let (external, internal) =
            (Bip84(master, KeychainKind::External), Bip84(master, KeychainKind::Internal));
        let rows = ledger.scan(CHANGES);
        let mut stored = ChangeSet::default();
        for (_, bytes) in &rows {
            stored.merge(serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?);
        }
        let loaded = Wallet::load()
            .descriptor(KeychainKind::External, Some(external.clone()))
            .descriptor(KeychainKind::Internal, Some(internal.clone()))
            .extract_keys()
            .check_network(network)
            .load_wallet_no_persist(stored.clone())
            .map_err(|error| bad(error.to_string()))?;
        let fresh = loaded.is_none();
        let wallet = match loaded {
            Some(wallet) => wallet,
            None => {
                let mut wallet = Wallet::create(external, internal)
                    .network(network)
                    .create_wallet_no_persist()
                    .map_err(|error| bad(error.to_string()))?;
                let (hash, height) = birthday;
                let tip = wallet.latest_checkpoint().insert(BlockId { height, hash });
                wallet
                    .apply_update(Update { chain: Some(tip), ..Update::default() })
                    .map_err(|error| bad(error.to_string()))?;
                wallet
            }
        };
        // One row for all that was: the rows of single blocks would add up.
        let mut batch: Batch = rows.iter().map(|(key, _)| (format!("{CHANGES}{key}"), None)).collect();
        if !fresh {
            batch.insert(row_key(0), Some(encode(&stored)?));
        }
        ledger.commit(batch)?;
        let onchain = Onchain { wallet: Mutex::new(wallet), ledger, next: Mutex::new(1) };
        onchain.persist()?;
        Ok(onchain)
    }

    /// Makes what changed durable.
    pub fn persist(&self) -> Result<(), LdkError> {
        self.with(|_| ())
    }

    /// Does something to the wallet and makes it durable.
    fn with<T>(&self, change: impl FnOnce(&mut Wallet) -> T) -> Result<T, LdkError> {
        // Over both, so that changes are numbered in their order.
        let mut next = lock(&self.next);
        let (result, staged) = {
            let mut wallet = lock(&self.wallet);
            let result = change(&mut wallet);
            (result, wallet.take_staged())
        };
        if let Some(staged) = staged {
            self.ledger.commit(Batch::from([(row_key(*next), Some(encode(&staged)?))]))?;
            *next += 1;
        }
        Ok(result)
    }

    /// The block it knows as the tip.
    pub fn tip(&self) -> (BlockHash, u32) {
        let tip = lock(&self.wallet).latest_checkpoint();
        (tip.hash(), tip.height())
    }

    /// A fresh address.
    pub fn new_address(&self) -> Result<Address, LdkError> {
        self.with(|wallet| wallet.reveal_next_address(KeychainKind::External).address)
    }

    /// A change script, the same one until it was used.
    fn change_script(&self) -> Result<ScriptBuf, LdkError> {
        self.with(|wallet| wallet.next_unused_address(KeychainKind::Internal).address.script_pubkey())
    }

    /// Confirmed and own unconfirmed coins, in sat.
    pub fn spendable_sat(&self) -> u64 {
        lock(&self.wallet).balance().trusted_spendable().to_sat()
    }

    /// Builds and signs a payment, and counts its coins as spent. `keep_sat` stays in the wallet.
    pub fn pay_to(
        &self,
        script: ScriptBuf,
        amount: Amount,
        sat_per_kwu: u64,
        keep_sat: u64,
    ) -> Result<Transaction, LdkError> {
        self.with(|wallet| {
            let mut builder = wallet.build_tx();
            builder.add_recipient(script, amount).fee_rate(FeeRate::from_sat_per_kwu(sat_per_kwu));
            let mut psbt = builder.finish().map_err(|error| LdkError::Funds(error.to_string()))?;
            let signed = wallet.sign(&mut psbt, SignOptions::default());
            if !signed.map_err(|error| LdkError::Refused(error.to_string()))? {
                return Err(LdkError::Refused("the wallet can't sign all inputs".to_owned()));
            }
            let fee = psbt.fee().map_err(|error| LdkError::Refused(error.to_string()))?;
            let tx = psbt.extract_tx().map_err(|error| LdkError::Refused(error.to_string()))?;
            let left = wallet.balance().trusted_spendable().to_sat();
            if left.saturating_sub((amount + fee).to_sat()) < keep_sat {
                return Err(LdkError::Funds(format!(
                    "{keep_sat} sat are kept as the reserve of anchor channels"
                )));
            }
            wallet.apply_unconfirmed_txs([(tx.clone(), now())]);
            Ok(tx)
        })?
    }

    /// Takes note of a transaction that was broadcast.
    pub fn seen(&self, tx: &Transaction) -> Result<(), LdkError> {
        self.with(|wallet| {
            let relevant = tx.output.iter().any(|o| wallet.is_mine(o.script_pubkey.clone()))
                || tx.input.iter().any(|i| wallet.get_utxo(i.previous_output).is_some());
            if relevant {
                wallet.apply_unconfirmed_txs([(tx.clone(), now())]);
            }
        })
    }

    /// Frees the coins of a transaction that will never be broadcast.
    pub fn forget(&self, txid: Txid) -> Result<(), LdkError> {
        self.with(|wallet| wallet.apply_evicted_txs([(txid, now())]))
    }

    /// A transaction that spends or funds this wallet.
    pub fn transaction(&self, txid: Txid) -> Option<Transaction> {
        lock(&self.wallet).get_tx(txid).map(|tx| Transaction::clone(&tx.tx_node.tx))
    }

    /// Whether a transaction spends or funds this wallet and is not in a block yet.
    pub fn is_unconfirmed(&self, txid: Txid) -> bool {
        lock(&self.wallet).get_tx(txid).is_some_and(|tx| !tx.chain_position.is_confirmed())
    }

    fn sign(&self, mut psbt: Psbt) -> Result<Transaction, LdkError> {
        // LDK gives no previous transactions, but all coins are SegWit, and the amounts our own.
        let options = SignOptions { trust_witness_utxo: true, ..SignOptions::default() };
        let signed = lock(&self.wallet).sign(&mut psbt, options);
        signed.map_err(|error| LdkError::Refused(error.to_string()))?;
        // Not `extract_tx`: the input of the channel itself is signed by LDK afterwards.
        let mut tx = psbt.unsigned_tx;
        for (input, signed) in tx.input.iter_mut().zip(psbt.inputs) {
            input.witness = signed.final_script_witness.unwrap_or_default();
        }
        Ok(tx)
    }
}

fn row_key(number: u64) -> String {
    format!("{CHANGES}{number:016x}")
}

fn encode(changes: &ChangeSet) -> Result<Vec<u8>, LdkError> {
    serde_json::to_vec(changes)
        .map_err(|error| LdkError::Stored { what: "on-chain wallet", reason: error.to_string() })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Listen for Onchain {
    fn block_connected(&self, block: &bitcoin::Block, height: u32) {
        // Made durable after each poll: a block lost by a crash is fetched again.
        if let Err(error) = lock(&self.wallet).apply_block(block, height) {
            tracing::error!(height, %error, "the on-chain wallet missed a block; restart the node");
        }
    }

    fn filtered_block_connected(
        &self,
        _header: &bitcoin::block::Header,
        _txs: &lightning::chain::transaction::TransactionData,
        height: u32,
    ) {
        tracing::error!(height, "a filtered block: the chain source gives whole ones");
    }

    // The next block connects below the wallet's tip, and so replaces what lies above.
    fn blocks_disconnected(&self, _fork: BestBlock) {}
}

impl WalletSourceSync for Onchain {
    fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
        let wallet = lock(&self.wallet);
        let confirmed = wallet.list_unspent().filter(|coin| coin.chain_position.is_confirmed());
        Ok(confirmed
            .filter_map(|coin| {
                let TxOut { value, script_pubkey } = coin.txout;
                // 0x00 0x14, then the hash of the key (BIP 141).
                let hash = WPubkeyHash::from_str(&hex::encode(script_pubkey.as_bytes().get(2..)?));
                Some(Utxo::new_v0_p2wpkh(coin.outpoint, value, &hash.ok()?))
            })
            .collect())
    }

    fn get_change_script(&self) -> Result<ScriptBuf, ()> {
        self.change_script().map_err(|_| ())
    }

    fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, ()> {
        self.sign(psbt).map_err(|error| tracing::error!(%error, "the on-chain wallet can't sign a fee bump"))
    }
}

impl ChangeDestinationSourceSync for Onchain {
    fn get_change_destination_script(&self) -> Result<ScriptBuf, ()> {
        self.change_script().map_err(|_| ())
    }
}
