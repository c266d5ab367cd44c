//! What can go wrong for a wallet, each with what the user can do.

use std::time::Duration;

use bitcoin::Network;
use federation_core::db::DbError;
use federation_core::{Amount, FederationId};

/// The result of everything here.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Why an operation did not go through. [`code`](ClientError::code) is stable, for programs.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The wallet belongs to no federation yet.
    #[error(
        "this wallet has joined no federation yet: run `ecash join INVITE` with an invite code from a guardian"
    )]
    NotJoined,
    /// The wallet belongs to another federation.
    #[error("this wallet belongs to federation {0} already: use another --data-dir for another federation")]
    AlreadyJoined(FederationId),
    /// A restore into a folder with a wallet in it.
    #[error(
        "there is a wallet here already, and restoring over it could lose what it holds: use another --data-dir for the restore"
    )]
    WalletExists,
    /// A restore was begun and is not finished.
    #[error(
        "restoring this wallet is not finished: run `ecash restore INVITE` again, it goes on where it was"
    )]
    RestoreUnfinished,
    /// The configuration that guardians served is not the invite's.
    #[error(
        "no guardian of the invite served the configuration that the invite names: get a new invite code from someone you trust"
    )]
    WrongConfig,
    /// The federation lacks a module, or its configuration cannot be read.
    #[error("the federation has no {0} module that this version understands: update ecash")]
    NoModule(&'static str),
    /// The words are no BIP-39 mnemonic, or not the ones of this wallet.
    #[error("{0}")]
    Words(String),
    /// The data folder or a file in it.
    #[error("{path}: {reason}")]
    Files {
        /// Which file or folder.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// Too few guardians answered. What was begun is saved.
    #[error(
        "too few guardians answer ({0}): nothing is lost, try again later; what was begun goes on at the next start"
    )]
    Unreachable(String),
    /// Guardians contradict each other, so that no f + 1 of them say the same.
    #[error("the guardians' answers about {0} differ: try again; if it stays, tell the guardians")]
    Disagreement(String),
    /// An answer that this version cannot read.
    #[error("{from} gave an answer that cannot be read ({reason}): update ecash, or tell its operator")]
    BadAnswer {
        /// Who.
        from: String,
        /// What does not fit.
        reason: String,
    },
    /// A guardian or gateway said no, with an RFC 9457 problem document.
    #[error("{detail} ({code})")]
    Refused {
        /// The document's stable code.
        code: String,
        /// The document's sentence.
        detail: String,
    },
    /// The federation agreed on the transaction and refused it: nothing was moved.
    #[error("the federation refused the transaction: {reason} ({code}). Your notes are still here")]
    Rejected {
        /// The stable code.
        code: String,
        /// The reason.
        reason: String,
    },
    /// Not enough notes at hand.
    #[error("the balance of {} msat is not enough: {} msat are needed, fees included", available.msat(), needed.msat())]
    InsufficientFunds {
        /// What it takes, with fees.
        needed: Amount,
        /// What can be spent.
        available: Amount,
    },
    /// More parts than one transaction has.
    #[error("this takes more notes than one transaction can hold: try a smaller amount, or two payments")]
    TooManyNotes,
    /// So much is undecided that a restore could not find it all again.
    #[error(
        "too much is under way and not decided yet: try again when the federation has caught up (`ecash info` shows it)"
    )]
    TooManyPending,
    /// An amount of nothing.
    #[error("the amount is zero: give an amount of at least 1 msat, such as 1000sat or 2500msat")]
    ZeroAmount,
    /// An amount over what fits.
    #[error("the amount is too large")]
    AmountTooLarge,
    /// Too little is left after fees.
    #[error("{} msat are less than the fees for them: nothing would be left", .0.msat())]
    BelowFees(Amount),
    /// Not an e-cash string.
    #[error("this is no e-cash that can be read: {0}. Copy the whole string again")]
    BadEcash(String),
    /// E-cash of another federation.
    #[error("this e-cash is of another federation ({0}): receive it with a wallet of that one")]
    ForeignEcash(String),
    /// All notes of an e-cash string were spent by somebody else before.
    #[error("this e-cash was spent before: ask the sender for a new one")]
    EcashSpent,
    /// This wallet itself received the same e-cash before.
    #[error("this wallet received this e-cash before; it is in the history")]
    EcashReceived,
    /// What was sent has been received by somebody, so it cannot be taken back.
    #[error("this e-cash was received by somebody already: it cannot be taken back")]
    EcashClaimed,
    /// Not a BOLT 11 invoice.
    #[error("this is no BOLT 11 invoice: {0}")]
    BadInvoice(String),
    /// The invoice is too old.
    #[error("the invoice expired {} s ago: ask the payee for a new one", .0.as_secs())]
    InvoiceExpired(Duration),
    /// The invoice is of another network.
    #[error(
        "the invoice is of {invoice}, this federation is on {federation}: ask the payee for an invoice of {federation}"
    )]
    InvoiceNetwork {
        /// Of the invoice.
        invoice: String,
        /// Of the federation.
        federation: Network,
    },
    /// The invoice leaves the amount open.
    #[error("the invoice names no amount: ask the payee for one with the amount in it")]
    InvoiceWithoutAmount,
    /// Paid by this wallet before.
    #[error("this wallet paid this invoice already; `ecash history` shows it with its preimage")]
    InvoicePaid,
    /// The federation has no gateway that answers.
    #[error("there is no gateway{0}: your notes are still here; try again later")]
    NoGateway(String),
    /// The chosen gateway does not answer.
    #[error(
        "the gateway {url} does not answer ({reason}): try again later, or choose another one of `ecash gateways`"
    )]
    GatewayDown {
        /// Its base URL.
        url: String,
        /// What happened.
        reason: String,
    },
    /// A gateway did something that it must not.
    #[error(
        "the gateway {url} answered with something false ({reason}): do not use it; choose another one of `ecash gateways`"
    )]
    GatewayFalse {
        /// Its base URL.
        url: String,
        /// What is false.
        reason: String,
    },
    /// The payment failed and the money is back.
    #[error("the payment failed: {0}. Your money is back in the wallet")]
    PaymentFailed(String),
    /// The payment's result is not known yet.
    #[error(
        "the payment is still under way ({0}): it goes on at every start of ecash, and ends paid or with the money back; `ecash history` shows which"
    )]
    PaymentPending(String),
    /// An incoming payment that came to nothing.
    #[error("nobody paid the invoice before it expired")]
    NotPaid,
    /// Not an address, or of another network.
    #[error("{0}")]
    BadAddress(String),
    /// The on-chain fee is over the user's limit.
    #[error("the on-chain fee is {} sat now, more than the limit of {} sat: raise --fee-max or try later", fee.sat_floor(), limit.sat_floor())]
    FeeTooHigh {
        /// The fee now.
        fee: Amount,
        /// The user's limit.
        limit: Amount,
    },
    /// No operation has this id.
    #[error("there is no operation {0} in this wallet: see `ecash history`")]
    NoOperation(String),
    /// An idempotency key was used for something else before.
    #[error("the operation {0} exists already and is another one")]
    OperationConflict(String),
    /// The wallet's own database.
    #[error("{0}")]
    Db(String),
    /// A mistake of this program.
    #[error("internal error: {0}. Please report it; nothing is lost")]
    Internal(String),
}

impl ClientError {
    /// The stable code, such as `insufficient_funds`; of a refusal, the code that the other side gave.
    pub fn code(&self) -> &str {
        match self {
            Self::NotJoined => "not_joined",
            Self::AlreadyJoined(_) => "already_joined",
            Self::WalletExists => "wallet_exists",
            Self::RestoreUnfinished => "restore_unfinished",
            Self::TooManyPending => "too_many_pending",
            Self::WrongConfig => "wrong_config",
            Self::NoModule(_) => "no_module",
            Self::Words(_) => "words",
            Self::Files { .. } => "files",
            Self::Unreachable(_) => "unreachable",
            Self::Disagreement(_) => "disagreement",
            Self::BadAnswer { .. } => "bad_answer",
            Self::Refused { code, .. } | Self::Rejected { code, .. } => code,
            Self::InsufficientFunds { .. } => "insufficient_funds",
            Self::TooManyNotes => "too_many_notes",
            Self::ZeroAmount => "zero_amount",
            Self::AmountTooLarge => "amount_too_large",
            Self::BelowFees(_) => "below_fees",
            Self::BadEcash(_) => "bad_ecash",
            Self::ForeignEcash(_) => "foreign_ecash",
            Self::EcashSpent => "ecash_spent",
            Self::EcashReceived => "ecash_received",
            Self::EcashClaimed => "ecash_claimed",
            Self::BadInvoice(_) => "bad_invoice",
            Self::InvoiceExpired(_) => "invoice_expired",
            Self::InvoiceNetwork { .. } => "invoice_network",
            Self::InvoiceWithoutAmount => "invoice_without_amount",
            Self::InvoicePaid => "invoice_paid",
            Self::NoGateway(_) => "no_gateway",
            Self::GatewayDown { .. } => "gateway_down",
            Self::GatewayFalse { .. } => "gateway_false",
            Self::PaymentFailed(_) => "payment_failed",
            Self::PaymentPending(_) => "payment_pending",
            Self::NotPaid => "not_paid",
            Self::BadAddress(_) => "bad_address",
            Self::FeeTooHigh { .. } => "fee_too_high",
            Self::NoOperation(_) => "no_operation",
            Self::OperationConflict(_) => "operation_conflict",
            Self::Db(_) => "database",
            Self::Internal(_) => "internal",
        }
    }

    /// Whether trying the same again later can help without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Disagreement(_) | Self::GatewayDown { .. } | Self::TooManyPending
        )
    }
}

impl From<DbError> for ClientError {
    fn from(error: DbError) -> Self {
        Self::Db(error.to_string())
    }
}
