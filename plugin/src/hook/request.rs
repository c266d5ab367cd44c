//! Reads the parameters of an `htlc_accepted` request.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Names an HTLC: the channel it came in by, and its number there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HtlcKey {
    /// `short_channel_id`, or the local alias of an unconfirmed channel.
    pub channel: String,
    /// The peer's number for the HTLC (BOLT 2).
    pub id: u64,
}

/// One HTLC of a payment: what identifies it, and what it brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which HTLC it is.
    #[serde(flatten)]
    pub key: HtlcKey,
    /// What it brings, in msat.
    pub amount_msat: u64,
    /// The block height at which its peer can take it back.
    pub cltv_expiry: u32,
}

impl Part {
    /// Whether it is the same HTLC, also if its channel goes by another name since it was confirmed.
    pub fn is(&self, other: &Self) -> bool {
        let same = |part: &Self| (part.key.id, part.amount_msat, part.cltv_expiry);
        self.key == other.key || same(self) == same(other)
    }
}

/// What the payer says in the onion's last layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalHop {
    /// What this HTLC is to bring at least, in msat.
    pub forward_msat: u64,
    /// The expiry it is to have at least.
    pub outgoing_cltv: u32,
    /// What all HTLCs of the payment bring together, in msat.
    pub total_msat: u64,
    /// Proof that the payer has the invoice.
    pub payment_secret: [u8; 32],
}

/// A hook request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HtlcRequest {
    /// The HTLC.
    pub part: Part,
    /// This node's block height.
    pub height: u32,
    /// `None` if the HTLC is to be forwarded, or its onion is not one of an invoice's payer.
    pub last_hop: Option<FinalHop>,
}

/// The payment hash alone: enough to tell whether the request concerns us.
pub fn payment_hash(params: &Value) -> Option<[u8; 32]> {
    bytes32(params.get("htlc")?.get("payment_hash")?)
}

impl HtlcRequest {
    /// Reads the parameters; `None` if they are not as lightningd v26.06 writes them.
    pub fn read(params: &Value) -> Option<Self> {
        let htlc = params.get("htlc")?;
        let cltv_expiry = number(htlc.get("cltv_expiry")?)?;
        let blocks_left = htlc.get("cltv_expiry_relative")?.as_i64()?;
        let height = i64::from(cltv_expiry).checked_sub(blocks_left)?;
        let channel = htlc.get("short_channel_id")?.as_str()?.to_owned();
        Some(Self {
            part: Part {
                key: HtlcKey { channel, id: htlc.get("id")?.as_u64()? },
                amount_msat: msat(htlc.get("amount_msat")?)?,
                cltv_expiry,
            },
            height: u32::try_from(height).ok()?,
            last_hop: last_hop(params),
        })
    }
}

fn last_hop(params: &Value) -> Option<FinalHop> {
    let onion = params.get("onion")?;
    let forwards = [onion.get("short_channel_id"), onion.get("next_node_id"), params.get("forward_to")];
    if forwards.iter().any(Option::is_some) {
        return None;
    }
    Some(FinalHop {
        forward_msat: msat(onion.get("forward_msat")?)?,
        outgoing_cltv: number(onion.get("outgoing_cltv_value")?)?,
        total_msat: msat(onion.get("total_msat")?)?,
        payment_secret: bytes32(onion.get("payment_secret")?)?,
    })
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

/// Amounts are numbers since v23.08, and were texts ending in `msat` before.
fn msat(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.strip_suffix("msat")?.parse().ok())
}

fn bytes32(value: &Value) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(value.as_str()?, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A request as lightningd writes it.
    pub(crate) fn params(hash: u8, secret: u8, id: u64, amount: u64, total: u64, left: i64) -> Value {
        json!({
            "peer_id": "02".repeat(33),
            "onion": {
                "payload": "", "type": "tlv", "forward_msat": amount, "outgoing_cltv_value": 1000 + left,
                "total_msat": total, "payment_secret": hex::encode([secret; 32]),
                "next_onion": "", "shared_secret": "00".repeat(32),
            },
            "htlc": {
                "short_channel_id": "103x1x0", "id": id, "amount_msat": amount, "cltv_expiry": 1000 + left,
                "cltv_expiry_relative": left, "payment_hash": hex::encode([hash; 32]),
            },
        })
    }

    /// Any JSON value.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            Just(Value::from("01".repeat(32))),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let key = prop_oneof![
                Just("htlc"),
                Just("onion"),
                Just("payment_hash"),
                Just("amount_msat"),
                Just("id"),
                Just("cltv_expiry"),
                Just("cltv_expiry_relative"),
                Just("short_channel_id"),
                Just("payment_secret"),
                Just("total_msat"),
                Just("forward_msat"),
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((key, inner), 0..6)
                    .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            ]
        })
    }

    #[test]
    fn a_final_hop() {
        let params = params(7, 9, 3, 500, 900, 130);
        assert_eq!(payment_hash(&params), Some([7; 32]));
        let request = HtlcRequest::read(&params).unwrap();
        assert_eq!((request.height, request.part.cltv_expiry), (1000, 1130));
        let hop = request.last_hop.unwrap();
        assert_eq!((hop.forward_msat, hop.total_msat, hop.payment_secret), (500, 900, [9; 32]));
    }

    #[test]
    fn a_forward_is_not_ours() {
        for field in ["short_channel_id", "next_node_id"] {
            let mut params = params(7, 9, 3, 500, 900, 130);
            params["onion"][field] = json!("1x1x1");
            assert_eq!(HtlcRequest::read(&params).unwrap().last_hop, None);
        }
    }

    #[test]
    fn odd_numbers() {
        for (field, value) in [
            ("amount_msat", json!(-1)),
            ("cltv_expiry", json!(1u64 << 40)),
            ("id", json!("1")),
            ("cltv_expiry_relative", json!(i64::MIN)),
            ("payment_hash", json!("00")),
        ] {
            let mut params = params(7, 9, 3, 500, 900, 130);
            params["htlc"][field] = value;
            assert!(HtlcRequest::read(&params).is_none() || payment_hash(&params).is_none(), "{field}");
        }
    }

    proptest! {
        #[test]
        fn total(value in any_json()) {
            payment_hash(&value);
            HtlcRequest::read(&value);
        }
    }
}
