//! What the rows of `listsendpays` prove about a payment.
//!
//! Neither `xpay`'s answer nor `listpays` is proof: both have been seen failed with HTLCs under way, and even after a
//! payment had arrived (Core Lightning #9036, #8046, #9096). A preimage is proof of success. Proof of failure is that
//! every HTLC of our own attempt is there and failed, and that the attempt will send no other.

use bitcoin::hashes::{Hash, sha256};
use gateway::node::PaymentStatus;
use serde_json::Value;

/// One HTLC that was sent, as `listsendpays` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The attempt it belongs to.
    pub group: u64,
    /// `pending`, `failed` or `complete`.
    pub status: RowStatus,
    /// What the payee gets by it, in msat, if known.
    pub amount_msat: Option<u64>,
    /// What left this node, in msat.
    pub sent_msat: u64,
    /// The preimage, once it is complete.
    pub preimage: Option<[u8; 32]>,
    /// The attempt's label.
    pub label: Option<String>,
}

/// Where an HTLC stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowStatus {
    /// Under way.
    Pending,
    /// Failed back.
    Failed,
    /// Arrived.
    Complete,
}

impl Row {
    /// Reads a row; `None` if it makes no sense.
    pub fn read(value: &Value) -> Option<Self> {
        let preimage = value.get("payment_preimage").and_then(Value::as_str).and_then(|text| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
        });
        Some(Self {
            group: value.get("groupid")?.as_u64()?,
            status: match value.get("status")?.as_str()? {
                "pending" => RowStatus::Pending,
                "failed" => RowStatus::Failed,
                "complete" => RowStatus::Complete,
                _ => return None,
            },
            amount_msat: value.get("amount_msat").and_then(Value::as_u64),
            sent_msat: value.get("amount_sent_msat").and_then(Value::as_u64).unwrap_or_default(),
            preimage,
            label: value.get("label").and_then(Value::as_str).map(str::to_owned),
        })
    }
}

/// What this plugin knows about its own attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// `xpay` may send further HTLCs.
    Running,
    /// `xpay` has returned with an error.
    Over {
        /// What it said.
        reason: String,
        /// There were no rows of this hash before it: all that are there now are its own.
        fresh: bool,
        /// It says that it had nothing to send: no route, or no valid invoice.
        sent_nothing: bool,
    },
    /// `xpay` has returned with a preimage that fits.
    Paid {
        /// The preimage.
        preimage: [u8; 32],
        /// What routing cost, in msat.
        fee_msat: u64,
    },
    /// `xpay` says that the invoice is paid already (error 219). Without a row of it that is a case for people.
    AlreadyPaid,
    /// This plugin has begun none since it started.
    None,
}

/// The label of our attempts: it tells until when `xpay` may send, also after a restart.
pub fn label(started: u64, retry_for: u64) -> String {
    format!("{LABEL}{}", started.saturating_add(retry_for).saturating_add(LABEL_MARGIN))
}

const LABEL: &str = "cln-federation until ";
/// `xpay` stops looking for routes after `retry_for`; it is given this much longer, in seconds.
const LABEL_MARGIN: u64 = 120;

fn label_end(row: &Row) -> Option<u64> {
    row.label.as_deref()?.strip_prefix(LABEL)?.parse().ok()
}

/// Judges a payment. `rows` are all of its hash, `now` is in seconds since 1970.
pub fn judge(hash: &[u8; 32], rows: &[Row], attempt: &Attempt, now: u64) -> PaymentStatus {
    let proof = rows.iter().find_map(|row| {
        let preimage = row.preimage?;
        (sha256::Hash::hash(&preimage).as_byte_array() == hash).then_some((preimage, row.group))
    });
    if let Some((preimage, group)) = proof {
        return PaymentStatus::Succeeded { preimage, fee_msat: fee(rows, group) };
    }
    // A complete row without a right preimage would be a contradiction: a case for people.
    if rows.iter().any(|row| row.status != RowStatus::Failed) {
        return PaymentStatus::Pending;
    }
    let own_end = rows.iter().filter_map(label_end).max();
    match attempt {
        Attempt::Paid { preimage, fee_msat } => {
            PaymentStatus::Succeeded { preimage: *preimage, fee_msat: *fee_msat }
        }
        Attempt::Running => PaymentStatus::Pending,
        Attempt::AlreadyPaid => PaymentStatus::Unknown,
        Attempt::Over { reason, fresh, sent_nothing } => {
            let rows_are_ours = !rows.is_empty() && (*fresh || own_end.is_some());
            let never_began = rows.is_empty() && *fresh && *sent_nothing;
            if rows_are_ours || never_began {
                PaymentStatus::Failed { reason: reason.clone() }
            } else {
                PaymentStatus::Unknown
            }
        }
        Attempt::None => match own_end {
            Some(end) if now > end => {
                PaymentStatus::Failed { reason: "every attempt failed before the last restart".to_owned() }
            }
            Some(_) => PaymentStatus::Pending,
            None => PaymentStatus::Unknown,
        },
    }
}

/// What routing cost: all that is spent on the payment, less what arrives.
fn fee(rows: &[Row], group: u64) -> u64 {
    let spent = rows.iter().filter(|row| row.group == group && row.status != RowStatus::Failed);
    spent.fold(0, |sum, row| {
        let fee = row.amount_msat.map_or(0, |amount| row.sent_msat.saturating_sub(amount));
        sum.saturating_add(fee)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const PREIMAGE: [u8; 32] = [6; 32];

    fn hash() -> [u8; 32] {
        sha256::Hash::hash(&PREIMAGE).to_byte_array()
    }

    fn row(status: RowStatus, ours: bool) -> Row {
        let preimage = (status == RowStatus::Complete).then_some(PREIMAGE);
        let label = ours.then(|| label(1000, 60));
        Row { group: 1, status, amount_msat: Some(100), sent_msat: 103, preimage, label }
    }

    fn over(fresh: bool, sent_nothing: bool) -> Attempt {
        Attempt::Over { reason: "no".into(), fresh, sent_nothing }
    }

    #[test]
    fn the_table() {
        use RowStatus::*;
        let judge = |rows: &[Row], attempt: Attempt, now| judge(&hash(), rows, &attempt, now);
        let failed = |status| matches!(status, PaymentStatus::Failed { .. });
        let paid = PaymentStatus::Succeeded { preimage: PREIMAGE, fee_msat: 6 };
        assert_eq!(
            judge(&[row(Failed, true), row(Complete, true), row(Pending, true)], Attempt::None, 0),
            paid
        );
        assert_eq!(judge(&[row(Pending, true)], over(true, true), 9999), PaymentStatus::Pending);
        assert_eq!(judge(&[row(Failed, true)], Attempt::Running, 9999), PaymentStatus::Pending);
        assert!(failed(judge(&[row(Failed, true)], over(false, false), 0)));
        assert!(failed(judge(&[row(Failed, false)], over(true, false), 0)));
        // After a restart: not before xpay must have given up.
        assert_eq!(judge(&[row(Failed, true)], Attempt::None, 1180), PaymentStatus::Pending);
        assert!(failed(judge(&[row(Failed, true)], Attempt::None, 1181)));
        // Rows of someone else's attempt, or none, prove nothing.
        assert_eq!(judge(&[row(Failed, false)], over(false, false), 9999), PaymentStatus::Unknown);
        assert_eq!(judge(&[row(Failed, false)], over(false, true), 9999), PaymentStatus::Unknown);
        assert_eq!(judge(&[], over(true, false), 9999), PaymentStatus::Unknown);
        assert_eq!(judge(&[], Attempt::None, 9999), PaymentStatus::Unknown);
        assert_eq!(judge(&[row(Failed, true)], Attempt::AlreadyPaid, 9999), PaymentStatus::Unknown);
        assert_eq!(judge(&[], Attempt::Running, 9999), PaymentStatus::Pending);
        assert!(failed(judge(&[], over(true, true), 0)));
    }

    #[test]
    fn a_row_as_lightningd_writes_it() {
        let row = Row::read(&json!({
            "created_index": 2, "id": 2, "payment_hash": "00", "groupid": 7, "partid": 1, "created_at": 1,
            "amount_msat": 10, "amount_sent_msat": 11, "status": "complete",
            "payment_preimage": hex::encode(PREIMAGE), "label": "x",
        }));
        let row = row.unwrap();
        assert_eq!((row.group, row.status, row.preimage), (7, RowStatus::Complete, Some(PREIMAGE)));
        assert_eq!(Row::read(&json!({ "groupid": 1, "status": "new" })), None);
    }

    fn any_row() -> impl Strategy<Value = Row> {
        (0..3u8, any::<bool>()).prop_map(|(status, ours)| {
            row([RowStatus::Pending, RowStatus::Failed, RowStatus::Complete][usize::from(status)], ours)
        })
    }

    proptest! {
        /// A refund is only ever given when nothing is under way and nothing has arrived.
        #[test]
        fn no_wrong_refund(rows in proptest::collection::vec(any_row(), 0..5), kind in 0..6usize, now in 0..5000u64) {
            let attempt = [
                Attempt::Running, Attempt::None, Attempt::AlreadyPaid,
                over(false, false), over(true, false), over(true, true),
            ][kind].clone();
            let paid = rows.iter().any(|row| row.preimage.is_some());
            let status = judge(&hash(), &rows, &attempt, now);
            prop_assert_eq!(paid, matches!(status, PaymentStatus::Succeeded { .. }));
            if let PaymentStatus::Failed { .. } = status {
                prop_assert!(rows.iter().all(|row| row.status == RowStatus::Failed));
                prop_assert!(attempt != Attempt::Running);
                let fresh = matches!(attempt, Attempt::Over { fresh: true, .. });
                prop_assert!(fresh || rows.iter().any(|row| row.label.is_some()));
            }
        }
    }
}
