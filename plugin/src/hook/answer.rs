//! The only answers that a hook of this plugin can give.
//!
//! lightningd ends itself on an unknown `result`, on `fail` without a failure and on an error (`plugin_hook.c`,
//! `peer_htlcs.c`): so there is no way here to write one of these.

use serde_json::{Value, json};

/// What lightningd is to do with an HTLC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// What it would do without this plugin.
    Continue,
    /// Fail it back to the payer.
    Fail(Failure),
    /// Claim it with this preimage. lightningd checks nothing: the caller has.
    Resolve([u8; 32]),
}

/// Why an HTLC is failed: BOLT 4, failure messages of a final node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// `incorrect_or_unknown_payment_details`.
    UnknownPayment {
        /// What the HTLC brought, in msat.
        amount_msat: u64,
        /// The block height of this node.
        height: u32,
    },
    /// `mpp_timeout`: the other parts have not come.
    MppTimeout,
    /// `temporary_node_failure`: the plugin stops.
    Stopping,
}

impl Failure {
    /// The message as BOLT 4 writes it: type, then data.
    pub fn message(&self) -> Vec<u8> {
        match self {
            // PERM | 15
            Self::UnknownPayment { amount_msat, height } => {
                let mut bytes = vec![0x40, 0x0f];
                bytes.extend(amount_msat.to_be_bytes());
                bytes.extend(height.to_be_bytes());
                bytes
            }
            Self::MppTimeout => vec![0x00, 0x17],
            // NODE | 2
            Self::Stopping => vec![0x20, 0x02],
        }
    }
}

impl Answer {
    /// The `result` of the hook's JSON-RPC answer.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Continue => json!({ "result": "continue" }),
            Self::Fail(failure) => {
                json!({ "result": "fail", "failure_message": hex::encode(failure.message()) })
            }
            Self::Resolve(preimage) => json!({ "result": "resolve", "payment_key": hex::encode(preimage) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_lightningd_reads_them() {
        assert_eq!(Answer::Continue.to_json().to_string(), r#"{"result":"continue"}"#);
        let failure = Failure::UnknownPayment { amount_msat: 100, height: 800_000 };
        assert_eq!(Answer::Fail(failure).to_json()["failure_message"], "400f0000000000000064000c3500");
        assert_eq!(Answer::Fail(Failure::MppTimeout).to_json()["failure_message"], "0017");
        assert_eq!(Answer::Resolve([1; 32]).to_json()["payment_key"], "01".repeat(32));
    }
}
