//! The chain as lightningd's own Bitcoin backend sees it: a guardian in the plugin needs no Bitcoin node of its own.
//!
//! The commands are those that a Bitcoin backend offers (`doc/developers-guide/plugin-development/bitcoin-backend.md`).

use async_trait::async_trait;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Block, Network, Transaction};
use federation_wallet::chain::{ChainError, ChainSource, Tip};
use serde_json::{Value, json};

use super::rpc::{CallError, Rpc, field, number, text, unreadable};

/// lightningd as a source of blocks.
pub struct ClnChain {
    rpc: Rpc,
}

impl ClnChain {
    /// Asks by these connections.
    pub fn new(rpc: Rpc) -> Self {
        Self { rpc }
    }

    /// `last_height` 0: any height of the backend is welcome, however lightningd itself stands.
    async fn chain_info(&self) -> Result<Value, ChainError> {
        self.rpc.call("getchaininfo", json!({ "last_height": 0 })).await.map_err(chain_error)
    }
}

#[async_trait]
impl ChainSource for ClnChain {
    fn describe(&self) -> String {
        "the Bitcoin backend of lightningd".to_owned()
    }

    async fn network(&self) -> Result<Network, ChainError> {
        let info = self.chain_info().await?;
        let chain = text("getchaininfo", &info, "chain").map_err(chain_error)?;
        Network::from_core_arg(chain).map_err(|error| ChainError::Malformed(error.to_string()))
    }

    async fn tip(&self) -> Result<Tip, ChainError> {
        let info = self.chain_info().await?;
        let height = number("getchaininfo", &info, "blockcount").map_err(chain_error)?;
        let syncing = field("getchaininfo", &info, "ibd").map_err(chain_error)?.as_bool();
        Ok(Tip {
            height: u32::try_from(height).map_err(|error| ChainError::Malformed(error.to_string()))?,
            syncing: syncing.ok_or_else(|| chain_error(unreadable("getchaininfo", "ibd")))?,
        })
    }

    async fn block(&self, height: u32) -> Result<Option<Block>, ChainError> {
        let answer =
            self.rpc.call("getrawblockbyheight", json!({ "height": height })).await.map_err(chain_error)?;
        // Both fields are null for a height beyond the tip, and also for a block that was pruned.
        let Some(block) = answer.get("block").and_then(Value::as_str) else {
            let pruned = self.tip().await?.height > height;
            return if pruned { Err(ChainError::Pruned(height)) } else { Ok(None) };
        };
        let block: Block =
            deserialize_hex(block).map_err(|error| ChainError::Malformed(error.to_string()))?;
        let hash = text("getrawblockbyheight", &answer, "blockhash").map_err(chain_error)?;
        if block.block_hash().to_string() != hash {
            return Err(ChainError::Malformed(format!("block {height} does not have the hash {hash}")));
        }
        Ok(Some(block))
    }

    async fn fee_rate(&self, target: u16) -> Result<Option<u64>, ChainError> {
        let answer = self.rpc.call("estimatefees", json!({})).await.map_err(chain_error)?;
        Ok(fee_rate(&answer, target))
    }

    async fn broadcast(&self, transaction: &Transaction) -> Result<(), ChainError> {
        let params = json!({ "tx": serialize_hex(transaction), "allowhighfees": true });
        let answer = self.rpc.call("sendrawtransaction", params).await.map_err(chain_error)?;
        if answer.get("success").and_then(Value::as_bool) == Some(true) {
            return Ok(());
        }
        let reason = answer.get("errmsg").and_then(Value::as_str).unwrap_or("no reason given");
        if is_known(reason) { Ok(()) } else { Err(ChainError::Node(reason.trim().to_owned())) }
    }
}

/// The first estimate that is no longer than `target`, else the fastest; in sat per 1,000 vbytes as lightningd has it.
fn fee_rate(answer: &Value, target: u16) -> Option<u64> {
    let rates = answer.get("feerates")?.as_array()?;
    let rates =
        rates.iter().filter_map(|rate| Some((rate.get("blocks")?.as_u64()?, rate.get("feerate")?.as_u64()?)));
    let rates: Vec<_> = rates.collect();
    let floor = answer.get("feerate_floor").and_then(Value::as_u64).unwrap_or_default();
    let near =
        rates.iter().filter(|(blocks, _)| *blocks <= u64::from(target)).max_by_key(|(blocks, _)| *blocks);
    let (_, rate) = near.or_else(|| rates.iter().min_by_key(|(blocks, _)| *blocks))?;
    Some((*rate).max(floor))
}

/// Bitcoin Core's texts for a transaction that it has (`validation.cpp`, `node/transaction.cpp`).
fn is_known(reason: &str) -> bool {
    ["txn-already-in-mempool", "txn-already-known", "already in block chain", "outputs already in utxo set"]
        .iter()
        .any(|known| reason.to_ascii_lowercase().contains(known))
}

fn chain_error(error: CallError) -> ChainError {
    match &error {
        CallError::Refused { .. } => ChainError::Node(error.to_string()),
        CallError::Lost { .. } => ChainError::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fee_rates() {
        let answer = json!({ "feerate_floor": 1000, "feerates": [
            { "blocks": 2, "feerate": 9000 }, { "blocks": 6, "feerate": 4000 }, { "blocks": 100, "feerate": 500 },
        ] });
        assert_eq!(fee_rate(&answer, 6), Some(4000));
        assert_eq!(fee_rate(&answer, 50), Some(4000));
        assert_eq!(fee_rate(&answer, 1), Some(9000));
        assert_eq!(fee_rate(&answer, 200), Some(1000));
        assert_eq!(fee_rate(&json!({ "feerate_floor": 1000, "feerates": [] }), 6), None);
        assert_eq!(fee_rate(&json!([]), 6), None);
    }

    #[test]
    fn known_transactions() {
        assert!(is_known("error code: -27\nerror message:\nTransaction outputs already in utxo set"));
        assert!(is_known("txn-already-in-mempool"));
        assert!(!is_known("bad-txns-inputs-missingorspent"));
    }
}
