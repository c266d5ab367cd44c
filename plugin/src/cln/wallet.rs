//! lightningd's on-chain wallet and what its channels hold.

use bitcoin::{Address, Network, Txid};
use gateway::node::{Balances, NodeError, OnchainSendRequest};
use serde_json::{Value, json};

use super::invoice::is_usable;
use super::rpc::{CallError, Rpc, text, unreadable};

/// `withdraw`: the wallet can't pay that much (`common/jsonrpc_errors.h`).
const CANNOT_AFFORD: i32 = 301;

/// A fresh address.
pub async fn address(rpc: &Rpc, network: Network) -> Result<Address, NodeError> {
    // Without a type, since which one is its default, and so which field is there, depends on its age.
    let answer = rpc.call("newaddr", json!({})).await.map_err(unavailable)?;
    let text = ["p2tr", "bech32"].iter().find_map(|kind| answer.get(kind)?.as_str());
    let address = text.and_then(|text| text.parse::<Address<_>>().ok());
    let address = address.ok_or_else(|| unavailable(unreadable("newaddr", "p2tr")))?;
    address.require_network(network).map_err(|error| NodeError::Unavailable(error.to_string()))
}

/// Sends coins.
pub async fn send(rpc: &Rpc, request: OnchainSendRequest, network: Network) -> Result<Txid, NodeError> {
    let address =
        request.address.require_network(network).map_err(|error| NodeError::Refused(error.to_string()))?;
    let mut params = json!({ "destination": address.to_string(), "satoshi": request.amount_sat });
    if let (Some(rate), Some(params)) = (request.fee_rate_sat_per_kwu, params.as_object_mut()) {
        params.insert("feerate".to_owned(), json!(format!("{rate}perkw")));
    }
    let answer = rpc.call("withdraw", params).await.map_err(|error| match error.code() {
        Some(CANNOT_AFFORD) => NodeError::OnchainFunds(error.to_string()),
        Some(_) => NodeError::Refused(error.to_string()),
        None => unavailable(error),
    })?;
    let txid = text("withdraw", &answer, "txid").map_err(unavailable)?;
    txid.parse().map_err(|_| unavailable(unreadable("withdraw", "txid")))
}

/// What the node owns.
pub async fn balances(rpc: &Rpc) -> Result<Balances, NodeError> {
    let funds = rpc.call("listfunds", json!({})).await.map_err(unavailable)?;
    let channels = rpc.call("listpeerchannels", json!({})).await.map_err(unavailable)?;
    Ok(sum(&funds, &channels))
}

fn sum(funds: &Value, channels: &Value) -> Balances {
    let list =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or_default();
    let mut balances = Balances::default();
    for output in list(funds, "outputs") {
        let status = output.get("status").and_then(Value::as_str);
        let reserved = output.get("reserved").and_then(Value::as_bool).unwrap_or(false);
        if matches!(status, Some("confirmed" | "unconfirmed")) && !reserved {
            balances.onchain_sat = balances.onchain_sat.saturating_add(number(&output, "amount_msat") / 1000);
        }
    }
    for channel in list(channels, "channels").iter().filter(|channel| is_usable(channel)) {
        balances.outbound_msat = balances.outbound_msat.saturating_add(number(channel, "spendable_msat"));
        balances.inbound_msat = balances.inbound_msat.saturating_add(number(channel, "receivable_msat"));
    }
    balances
}

/// What may work the next time.
pub fn unavailable(error: CallError) -> NodeError {
    NodeError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        let funds = json!({ "outputs": [
            { "amount_msat": 5_000_000, "status": "confirmed", "reserved": false },
            { "amount_msat": 7_000_000, "status": "confirmed", "reserved": true },
            { "amount_msat": 1_000, "status": "unconfirmed", "reserved": false },
            { "amount_msat": 9_000, "status": "spent", "reserved": false },
        ] });
        let channels = json!({ "channels": [
            { "state": "CHANNELD_NORMAL", "peer_connected": true, "spendable_msat": 10, "receivable_msat": 20 },
            { "state": "CHANNELD_NORMAL", "peer_connected": false, "spendable_msat": 10, "receivable_msat": 20 },
        ] });
        let balances = Balances { onchain_sat: 5_001, outbound_msat: 10, inbound_msat: 20 };
        assert_eq!(sum(&funds, &channels), balances);
        assert_eq!(sum(&json!(null), &json!([])), Balances::default());
    }
}
