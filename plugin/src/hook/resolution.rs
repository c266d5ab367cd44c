//! Which HTLCs are taken for an invoice: rules alone, no waiting and no state.
//!
//! Source: BOLT 4, "Requirements" of the final node and of basic multi-part payments.

use super::request::{FinalHop, Part};

/// An HTLC with fewer blocks left is failed: it could not be funded and claimed in time.
pub const MIN_BLOCKS_LEFT: u32 = 60;
/// A held HTLC is failed when only this many blocks are left, so that the channel is not closed over it.
///
/// lightningd closes half of its `cltv-delta` before the expiry: 17 blocks on mainnet.
pub const CLAIM_MARGIN: u32 = 24;

/// What a payment must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The invoice's amount, in msat.
    pub amount_msat: u64,
    /// The invoice's secret.
    pub payment_secret: [u8; 32],
}

/// Why an HTLC is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The payer does not have the invoice.
    #[error("it carries another payment secret")]
    Secret,
    /// The peer forwarded less than the payer told it to.
    #[error("it brings less than its onion says")]
    Amount,
    /// The peer left less time than the payer told it to.
    #[error("it expires earlier than its onion says")]
    Expiry,
    /// Too late to fund and claim.
    #[error("it has too few blocks left")]
    BlocksLeft,
    /// The payment as a whole would be too small, or more than double.
    #[error("its payment's total does not fit the invoice")]
    Total,
    /// The parts of one payment contradict each other.
    #[error("its payment's total differs from that of the other parts")]
    OtherTotal,
}

/// Whether a part is taken. `set_total` is the total of the parts that are there already.
pub fn admit(
    part: &Part,
    hop: &FinalHop,
    terms: &Terms,
    set_total: Option<u64>,
    height: u32,
) -> Result<(), Refusal> {
    if hop.payment_secret != terms.payment_secret {
        return Err(Refusal::Secret);
    }
    if part.amount_msat < hop.forward_msat {
        return Err(Refusal::Amount);
    }
    if part.cltv_expiry < hop.outgoing_cltv {
        return Err(Refusal::Expiry);
    }
    if part.cltv_expiry.saturating_sub(height) < MIN_BLOCKS_LEFT {
        return Err(Refusal::BlocksLeft);
    }
    if hop.total_msat < terms.amount_msat || hop.total_msat > terms.amount_msat.saturating_mul(2) {
        return Err(Refusal::Total);
    }
    if set_total.is_some_and(|total| total != hop.total_msat) {
        return Err(Refusal::OtherTotal);
    }
    Ok(())
}

/// The last height at which a part can be claimed safely.
pub fn claim_deadline(part: &Part) -> u32 {
    part.cltv_expiry.saturating_sub(CLAIM_MARGIN)
}

#[cfg(test)]
mod tests {
    use super::super::request::HtlcKey;
    use super::*;

    const TERMS: Terms = Terms { amount_msat: 1000, payment_secret: [5; 32] };

    fn part(amount_msat: u64, cltv_expiry: u32) -> Part {
        Part { key: HtlcKey { channel: "1x1x1".into(), id: 0 }, amount_msat, cltv_expiry }
    }

    fn hop() -> FinalHop {
        FinalHop { forward_msat: 600, outgoing_cltv: 220, total_msat: 1000, payment_secret: [5; 32] }
    }

    #[test]
    fn each_rule() {
        let good = part(600, 220);
        assert_eq!(admit(&good, &hop(), &TERMS, None, 100), Ok(()));
        assert_eq!(admit(&good, &hop(), &TERMS, Some(1000), 160), Ok(()));
        assert_eq!(admit(&good, &hop(), &TERMS, Some(1001), 100), Err(Refusal::OtherTotal));
        assert_eq!(admit(&good, &hop(), &TERMS, None, 161), Err(Refusal::BlocksLeft));
        assert_eq!(admit(&good, &hop(), &TERMS, None, 500), Err(Refusal::BlocksLeft));
        assert_eq!(admit(&part(599, 220), &hop(), &TERMS, None, 100), Err(Refusal::Amount));
        assert_eq!(admit(&part(600, 219), &hop(), &TERMS, None, 100), Err(Refusal::Expiry));
        let other = FinalHop { payment_secret: [6; 32], ..hop() };
        assert_eq!(admit(&good, &other, &TERMS, None, 100), Err(Refusal::Secret));
        for total_msat in [999, 2001] {
            let other = FinalHop { total_msat, ..hop() };
            assert_eq!(admit(&good, &other, &TERMS, None, 100), Err(Refusal::Total));
        }
    }
}
