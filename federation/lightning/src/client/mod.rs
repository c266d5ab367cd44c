//! What users and gateways compute: keys, contracts, checks, and the inputs and outputs of transactions. No I/O; time and
//! heights are arguments.

mod check;
mod envelope;
mod error;
mod keys;
mod pay;
mod receive;

pub use check::{IncomingCheck, OutgoingCheck, PaymentTerms, check_incoming, check_outgoing};
pub use envelope::{claim_incoming, claim_outgoing, fund, reclaim_incoming, refund_outgoing};
pub use error::LightningError;
pub use keys::{IncomingSecrets, LightningKeys};
pub use pay::{
    OUTGOING_EXPIRY_BLOCKS, PAY_MARGIN_BLOCKS, PayOrder, invoice_hash, outgoing_contract, payable_amount,
};
pub use receive::{FUND_WINDOW_BLOCKS, ReceiveOrder, check_hold_invoice, incoming_contract, received_amount};
