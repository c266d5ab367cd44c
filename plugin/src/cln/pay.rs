//! What the rows of `listsendpays` prove about a payment.
//!
//! Neither `xpay`'s answer nor `listpays` is proof: both have been seen failed with HTLCs under way, and even after a
//! payment had arrived (Core Lightning #9036, #8046, #9096). A preimage is proof of success. Proof of failure is that
//! every HTLC of our own attempt is there and failed, and that the attempt will send no other.

use bitcoin::hashes::{Hash, sha256};
use gateway::node::PaymentStatus;
use serde_json::Value;

use super::asked::{Outcome, Record};

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

/// What this process has seen of the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// `xpay` may send further HTLCs, or is about to be called.
    Running,
    /// `xpay` was not called, and nothing was written down about it.
    NotBegun {
        /// Why, if that was a fault.
        fault: Option<String>,
    },
    /// `xpay` has returned with an error.
    Over {
        /// What it said.
        reason: String,
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
    /// Nothing: it was begun by an earlier process, or never, or `xpay` gave no answer.
    None,
}

/// Until when `xpay` may send, whatever becomes of this process.
pub fn sends_until(started: u64, retry_for: u64) -> u64 {
    started.saturating_add(retry_for).saturating_add(MARGIN)
}

/// The label of our attempts: their rows are told from others' by it.
pub fn label(until: u64) -> String {
    format!("{LABEL}{until}")
}

const LABEL: &str = "cln-federation until ";
/// `xpay` stops looking for routes after `retry_for`; it is given this much longer, in seconds.
const MARGIN: u64 = 120;

fn is_labelled(row: &Row) -> bool {
    row.label.as_deref().is_some_and(|label| label.starts_with(LABEL))
}

/// A judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// For the gateway.
    pub status: PaymentStatus,
    /// Why it may stay `Pending` for ever: neither paid nor failed can be proved, and nothing more is expected.
    pub doubt: Option<&'static str>,
}

impl From<PaymentStatus> for Verdict {
    fn from(status: PaymentStatus) -> Self {
        Self { status, doubt: None }
    }
}

/// All that is known about a payment.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// What this plugin has written down; `None` if it never asked `xpay` to pay this hash.
    pub record: Option<&'a Record>,
    /// What this process has seen.
    pub attempt: &'a Attempt,
    /// All rows of the hash, read after the attempt's state.
    pub rows: &'a [Row],
    /// No row can have been removed since `xpay` was asked, by `delpay` or autoclean. A part that has arrived may be
    /// removed while those that failed before it stay, and they alone would look like a failure.
    pub whole: bool,
    /// Seconds since 1970.
    pub now: u64,
}

/// Judges a payment.
///
/// | asked | rows | verdict |
/// |---|---|---|
/// | any | one with the preimage | succeeded |
/// | any | one that has not failed | pending |
/// | never | with our label | pending, doubtful: our record is lost |
/// | never | others, or none | unknown |
/// | yes, and its end is written | all failed, or none | as written |
/// | yes, `xpay` may still send | all failed, or none | pending |
/// | yes, over | all failed, ours, none removed | failed |
/// | yes, over | none, and this process saw `xpay` say that it had nothing to send | failed, if there were none before and none was removed |
/// | yes, over | anything else | pending, doubtful |
pub fn judge(hash: &[u8; 32], evidence: Evidence<'_>) -> Verdict {
    let Evidence { record, attempt, rows, whole, now } = evidence;
    let proof = rows.iter().find_map(|row| {
        let preimage = row.preimage?;
        (sha256::Hash::hash(&preimage).as_byte_array() == hash).then_some((preimage, row.group))
    });
    if let Some((preimage, group)) = proof {
        return PaymentStatus::Succeeded { preimage, fee_msat: fee(rows, group) }.into();
    }
    if let Attempt::Paid { preimage, fee_msat } = attempt {
        return PaymentStatus::Succeeded { preimage: *preimage, fee_msat: *fee_msat }.into();
    }
    let outcome = record.and_then(|record| record.outcome.as_ref());
    if let Some(Outcome::Paid { preimage, fee_msat }) = outcome {
        return PaymentStatus::Succeeded { preimage: *preimage, fee_msat: *fee_msat }.into();
    }
    // A complete row without a right preimage would be a contradiction: a case for people.
    if rows.iter().any(|row| row.status != RowStatus::Failed) || *attempt == Attempt::Running {
        return PaymentStatus::Pending.into();
    }
    let doubtful = |doubt| Verdict { status: PaymentStatus::Pending, doubt: Some(doubt) };
    let Some(asked) = record.map(|record| &record.asked) else {
        return match rows.iter().any(is_labelled) {
            true => doubtful("lightningd has rows of it, and this plugin's own record is missing"),
            false => PaymentStatus::Unknown.into(),
        };
    };
    let failed = |reason: &str| PaymentStatus::Failed { reason: reason.to_owned() }.into();
    if let Some(Outcome::Failed { reason }) = outcome {
        return failed(reason);
    }
    let ours = asked.fresh || rows.iter().any(is_labelled);
    let reason = match attempt {
        Attempt::Over { sent_nothing: true, reason } if rows.is_empty() && asked.fresh && whole => {
            return failed(reason);
        }
        Attempt::Over { reason, .. } => reason.as_str(),
        Attempt::AlreadyPaid => {
            return doubtful("xpay says that it is paid, and there is no row that proves it");
        }
        _ if now <= asked.until => return PaymentStatus::Pending.into(),
        _ => "every attempt failed before the last restart",
    };
    match (rows.is_empty(), ours, whole) {
        (false, true, true) => failed(reason),
        (true, ..) => {
            doubtful("lightningd has no record of it: never sent, or removed by delpay or autoclean")
        }
        (_, false, _) => doubtful("what lightningd has on it is not known to be ours"),
        (.., false) => doubtful("every part that lightningd has failed, but some may have been removed"),
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

    use super::super::asked::Asked;
    use super::*;

    const PREIMAGE: [u8; 32] = [6; 32];

    fn hash() -> [u8; 32] {
        sha256::Hash::hash(&PREIMAGE).to_byte_array()
    }

    fn row(status: RowStatus, ours: bool) -> Row {
        let preimage = (status == RowStatus::Complete).then_some(PREIMAGE);
        let label = ours.then(|| label(1180));
        Row { group: 1, status, amount_msat: Some(100), sent_msat: 103, preimage, label }
    }

    fn over(sent_nothing: bool) -> Attempt {
        Attempt::Over { reason: "no".into(), sent_nothing }
    }

    fn record(fresh: bool, outcome: Option<Outcome>) -> Record {
        let until = sends_until(1000, 60);
        let asked =
            Asked { payment_hash: hash(), at: 1000, until, expires_at: 4600, fresh, last_row: Some(0) };
        Record { asked, outcome }
    }

    fn paid() -> Outcome {
        Outcome::Paid { preimage: PREIMAGE, fee_msat: 6 }
    }

    fn failed() -> Outcome {
        Outcome::Failed { reason: "no".into() }
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Short {
        Unknown,
        Pending,
        Doubt,
        Paid,
        Failed,
    }

    fn short(verdict: &Verdict) -> Short {
        match (&verdict.status, verdict.doubt) {
            (PaymentStatus::Pending, Some(_)) => Short::Doubt,
            (PaymentStatus::Pending, None) => Short::Pending,
            (_, Some(_)) => panic!("a doubt about what is known"),
            (PaymentStatus::Unknown, None) => Short::Unknown,
            (PaymentStatus::Succeeded { preimage, .. }, None) => {
                assert_eq!(*preimage, PREIMAGE);
                Short::Paid
            }
            (PaymentStatus::Failed { .. }, None) => Short::Failed,
        }
    }

    #[test]
    fn the_table() {
        use RowStatus::*;
        let look = |record: Option<Record>, rows: &[Row], attempt: Attempt, whole: bool, now: u64| {
            let evidence = Evidence { record: record.as_ref(), attempt: &attempt, rows, whole, now };
            short(&judge(&hash(), evidence))
        };
        let late = 9999;
        let mine = [row(Failed, true)];
        let other = [row(Failed, false)];
        let fresh = || Some(record(true, None));
        let stale = || Some(record(false, None));

        // A preimage is the truth.
        let some = [row(Failed, true), row(Complete, true), row(Pending, true)];
        assert_eq!(look(None, &some, Attempt::None, true, 0), Short::Paid);
        assert_eq!(look(Some(record(true, Some(failed()))), &some, over(true), true, late), Short::Paid);
        assert_eq!(look(Some(record(true, Some(paid()))), &[], Attempt::None, false, late), Short::Paid);
        assert_eq!(look(Some(record(true, Some(paid()))), &mine, Attempt::None, true, late), Short::Paid);

        // Under way.
        assert_eq!(look(fresh(), &[row(Pending, true)], over(true), true, late), Short::Pending);
        assert_eq!(look(fresh(), &mine, Attempt::Running, true, late), Short::Pending);
        assert_eq!(look(None, &[], Attempt::Running, true, late), Short::Pending);
        assert_eq!(look(None, &[row(Pending, false)], Attempt::None, true, late), Short::Pending);

        // Never asked.
        assert_eq!(look(None, &[], Attempt::None, true, late), Short::Unknown);
        assert_eq!(look(None, &other, Attempt::None, true, late), Short::Unknown);
        assert_eq!(look(None, &mine, Attempt::None, true, late), Short::Doubt);

        // Asked, and `xpay` has said that it failed.
        assert_eq!(look(fresh(), &mine, over(false), true, 1000), Short::Failed);
        assert_eq!(look(fresh(), &other, over(false), true, 1000), Short::Failed);
        assert_eq!(look(stale(), &mine, over(false), true, 1000), Short::Failed);
        assert_eq!(look(stale(), &other, over(true), true, late), Short::Doubt);
        assert_eq!(look(fresh(), &mine, over(false), false, late), Short::Doubt);
        assert_eq!(look(fresh(), &[], over(true), true, 1000), Short::Failed);
        assert_eq!(look(fresh(), &[], over(true), false, late), Short::Doubt);
        assert_eq!(look(fresh(), &[], over(false), true, late), Short::Doubt);
        assert_eq!(look(stale(), &[], over(true), true, late), Short::Doubt);
        assert_eq!(look(fresh(), &mine, Attempt::AlreadyPaid, true, late), Short::Doubt);

        // Asked by an earlier process: not before `xpay` must have given up.
        assert_eq!(look(fresh(), &mine, Attempt::None, true, 1180), Short::Pending);
        assert_eq!(look(fresh(), &mine, Attempt::None, true, 1181), Short::Failed);
        assert_eq!(look(fresh(), &other, Attempt::None, true, 1181), Short::Failed);
        assert_eq!(look(fresh(), &mine, Attempt::None, false, late), Short::Doubt);
        assert_eq!(look(fresh(), &[], Attempt::None, true, 1180), Short::Pending);
        assert_eq!(look(fresh(), &[], Attempt::None, true, late), Short::Doubt);

        // The end is written.
        let ended = || Some(record(false, Some(failed())));
        assert_eq!(look(ended(), &[], Attempt::None, false, 0), Short::Failed);
        assert_eq!(look(ended(), &mine, Attempt::None, false, 0), Short::Failed);
        assert_eq!(look(ended(), &[row(Pending, false)], Attempt::None, true, late), Short::Pending);
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

    fn any_attempt() -> impl Strategy<Value = Attempt> {
        let not_begun = Attempt::NotBegun { fault: None };
        proptest::sample::select(vec![
            Attempt::Running,
            Attempt::None,
            Attempt::AlreadyPaid,
            not_begun,
            over(false),
            over(true),
        ])
    }

    fn any_record() -> impl Strategy<Value = Option<Record>> {
        let outcome = proptest::sample::select(vec![None, Some(paid()), Some(failed())]);
        proptest::option::of((any::<bool>(), outcome).prop_map(|(fresh, outcome)| record(fresh, outcome)))
    }

    proptest! {
        /// A refund is only ever given when nothing is under way and nothing has arrived, and what was asked for is
        /// never taken for what was not.
        #[test]
        fn no_wrong_refund_and_no_second_payment(
            rows in proptest::collection::vec(any_row(), 0..5), attempt in any_attempt(), record in any_record(),
            whole in any::<bool>(), now in 0..5000u64,
        ) {
            let evidence = Evidence { record: record.as_ref(), attempt: &attempt, rows: &rows, whole, now };
            let verdict = judge(&hash(), evidence);
            let outcome = record.as_ref().and_then(|record| record.outcome.clone());
            let arrived = rows.iter().any(|row| row.preimage.is_some()) || outcome == Some(paid());
            let status = short(&verdict);
            prop_assert_eq!(arrived, status == Short::Paid);
            match status {
                Short::Failed => {
                    prop_assert!(rows.iter().all(|row| row.status == RowStatus::Failed));
                    prop_assert!(attempt != Attempt::Running);
                    let record = record.as_ref().unwrap();
                    let seen = matches!(attempt, Attempt::Over { .. });
                    let by_rows = whole && !rows.is_empty() && (seen || now > record.asked.until);
                    let by_answer = whole && record.asked.fresh && attempt == over(true);
                    prop_assert!(outcome == Some(failed()) || by_rows || by_answer);
                }
                // The only answer after which `xpay` may be called.
                Short::Unknown => {
                    prop_assert!(record.is_none() && attempt != Attempt::Running);
                    prop_assert!(rows.iter().all(|row| row.status == RowStatus::Failed && row.label.is_none()));
                }
                Short::Pending | Short::Doubt | Short::Paid => {}
            }
        }

        /// Removing rows never turns what is open or paid into a failure, once their numbers are watched.
        #[test]
        fn no_cleaning_makes_a_refund(
            rows in proptest::collection::vec(any_row(), 1..5), kept in proptest::collection::vec(any::<bool>(), 5),
            attempt in any_attempt(), fresh in any::<bool>(), now in 0..5000u64,
        ) {
            let record = record(fresh, None);
            let left: Vec<_> = rows.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(row, _)| row.clone()).collect();
            prop_assume!(left.len() < rows.len());
            let evidence = Evidence { record: Some(&record), attempt: &attempt, rows: &left, whole: false, now };
            let status = short(&judge(&hash(), evidence));
            prop_assert!(status != Short::Failed && status != Short::Unknown);
        }
    }
}
