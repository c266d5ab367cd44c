//! Hold invoices: built here, signed by lightningd.

use std::time::Duration;

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use gateway::node::{HOLD_MIN_FINAL_CLTV, HoldInvoiceRequest};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret};
use lightning_invoice::{RouteHint, RouteHintHop, RoutingFees};
use serde_json::{Value, json};

use super::rpc::{CallError, Rpc, text, unreadable};
use crate::hook::unix_now;

/// Why there is no invoice.
#[derive(Debug, thiserror::Error)]
pub enum InvoiceError {
    /// The request can't be written as BOLT 11.
    #[error("no invoice can be made of this: {0}")]
    Request(String),
    /// lightningd.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Builds an invoice and has lightningd sign it (`signinvoice` needs no preimage).
pub async fn sign(
    rpc: &Rpc,
    request: &HoldInvoiceRequest,
    payment_secret: [u8; 32],
    network: Network,
    hints: &[RouteHint],
) -> Result<Bolt11Invoice, InvoiceError> {
    let draft = draft(request, payment_secret, network, hints)?;
    let answer = rpc.call("signinvoice", json!({ "invstring": draft.to_string() })).await?;
    let signed: Bolt11Invoice =
        text("signinvoice", &answer, "bolt11")?.parse().map_err(|_| unreadable("signinvoice", "bolt11"))?;
    // What payers rely on must be what was asked for.
    let same = signed.payment_hash() == draft.payment_hash()
        && signed.payment_secret() == draft.payment_secret()
        && signed.amount_milli_satoshis() == draft.amount_milli_satoshis()
        && signed.min_final_cltv_expiry_delta() == draft.min_final_cltv_expiry_delta();
    if same { Ok(signed) } else { Err(unreadable("signinvoice", "bolt11").into()) }
}

/// The same with a signature that means nothing: `signinvoice` ignores it.
fn draft(
    request: &HoldInvoiceRequest,
    payment_secret: [u8; 32],
    network: Network,
    hints: &[RouteHint],
) -> Result<Bolt11Invoice, InvoiceError> {
    let mut builder = InvoiceBuilder::new(Currency::from(network))
        .description(request.description.clone())
        .payment_hash(sha256::Hash::from_byte_array(request.payment_hash))
        .payment_secret(PaymentSecret(payment_secret))
        .duration_since_epoch(Duration::from_secs(unix_now()))
        .min_final_cltv_expiry_delta(u64::from(HOLD_MIN_FINAL_CLTV))
        .expiry_time(request.expiry.max(Duration::from_secs(1)))
        .amount_milli_satoshis(request.amount_msat)
        .basic_mpp();
    for hint in hints {
        builder = builder.private_route(hint.clone());
    }
    let key = SecretKey::from_slice(&[1; 32]).map_err(|error| InvoiceError::Request(error.to_string()))?;
    builder
        .build_signed(|message| Secp256k1::signing_only().sign_ecdsa_recoverable(message, &key))
        .map_err(|error| InvoiceError::Request(error.to_string()))
}

/// Hints from the answer of `listpeerchannels`: one for each usable unannounced channel, none if there is an
/// announced one.
pub fn route_hints(channels: &Value) -> Vec<RouteHint> {
    let channels = channels.get("channels").and_then(Value::as_array);
    let usable: Vec<_> = channels.into_iter().flatten().filter(|channel| is_usable(channel)).collect();
    let private = |channel: &&&Value| channel.get("private").and_then(Value::as_bool).unwrap_or(false);
    if usable.iter().any(|channel| !private(&channel)) {
        return Vec::new();
    }
    usable.into_iter().filter_map(hint).collect()
}

/// Whether a channel can carry payments now.
pub fn is_usable(channel: &Value) -> bool {
    let is = |name: &str| channel.get(name).and_then(Value::as_str);
    matches!(is("state"), Some("CHANNELD_NORMAL" | "CHANNELD_AWAITING_SPLICE"))
        && channel.get("peer_connected").and_then(Value::as_bool).unwrap_or(false)
}

/// The peer must know the channel by the name in the hint: its own alias, or the channel's place in the chain.
fn hint(channel: &Value) -> Option<RouteHint> {
    let remote = channel.get("updates")?.get("remote")?;
    let alias = channel.get("alias").and_then(|alias| alias.get("remote"));
    let scid = alias.or_else(|| channel.get("short_channel_id"))?.as_str()?;
    let number = |name: &str| remote.get(name).and_then(Value::as_u64);
    let peer: PublicKey = channel.get("peer_id")?.as_str()?.parse().ok()?;
    Some(RouteHint(vec![RouteHintHop {
        src_node_id: peer,
        short_channel_id: short_channel_id(scid)?,
        fees: RoutingFees {
            base_msat: u32::try_from(number("fee_base_msat")?).ok()?,
            proportional_millionths: u32::try_from(number("fee_proportional_millionths")?).ok()?,
        },
        cltv_expiry_delta: u16::try_from(number("cltv_expiry_delta")?).ok()?,
        htlc_minimum_msat: number("htlc_minimum_msat"),
        htlc_maximum_msat: number("htlc_maximum_msat"),
    }]))
}

/// `block x transaction x output`, packed as BOLT 7 says.
fn short_channel_id(text: &str) -> Option<u64> {
    let mut parts = text.split('x').map(|part| part.parse::<u64>().ok());
    let (block, transaction, output) = (parts.next()??, parts.next()??, parts.next()??);
    let fits = block < 1 << 24 && transaction < 1 << 24 && output < 1 << 16 && parts.next().is_none();
    fits.then_some(block << 40 | transaction << 16 | output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(private: bool, connected: bool) -> Value {
        json!({
            "state": "CHANNELD_NORMAL", "peer_connected": connected, "private": private,
            "peer_id": "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
            "short_channel_id": "103x1x0", "alias": { "local": "1x2x3", "remote": "4x5x6" },
            "updates": { "local": {}, "remote": {
                "fee_base_msat": 1, "fee_proportional_millionths": 10, "cltv_expiry_delta": 6,
                "htlc_minimum_msat": 0, "htlc_maximum_msat": 100,
            } },
        })
    }

    #[test]
    fn hints_for_private_channels_only() {
        let hints = route_hints(&json!({ "channels": [channel(true, true), channel(true, false)] }));
        assert_eq!(hints.len(), 1);
        assert_eq!(hints[0].0[0].short_channel_id, 4 << 40 | 5 << 16 | 6);
        assert!(route_hints(&json!({ "channels": [channel(true, true), channel(false, true)] })).is_empty());
        assert!(route_hints(&json!({ "channels": [{}, null, 3] })).is_empty());
        assert_eq!(short_channel_id("1x2"), None);
        assert_eq!(short_channel_id("1x2x3x4"), None);
    }

    #[test]
    fn a_draft_says_what_was_asked() {
        let request = HoldInvoiceRequest {
            payment_hash: [3; 32],
            amount_msat: 12_345,
            description: "ü".into(),
            expiry: Duration::from_secs(600),
        };
        let draft = draft(&request, [8; 32], Network::Regtest, &[]).unwrap();
        assert!(draft.to_string().starts_with("lnbcrt"));
        assert_eq!(draft.amount_milli_satoshis(), Some(12_345));
        assert_eq!(draft.min_final_cltv_expiry_delta(), 120);
        assert_eq!(draft.expiry_time(), Duration::from_secs(600));
        let long = HoldInvoiceRequest { description: "x".repeat(640), ..request };
        assert!(super::draft(&long, [8; 32], Network::Regtest, &[]).is_err());
    }
}
