//! What the mint owes, and what its operators should know.

use federation_core::Amount;
use federation_core::db::{DbError, Reader};
use federation_core::module::AuditLine;
use serde::Serialize;

use super::tables::{COUNTS, FAULTS, TOTALS, Totals};
use crate::{Denomination, MintConfig};

/// The mint's books, as `GET /v1/modules/mint/audit` shows them.
#[derive(Serialize)]
pub struct Books {
    issued_msat: u128,
    spent_msat: u128,
    outstanding_msat: u128,
    max_issuance_msat: Option<Amount>,
    denominations: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    denomination: Denomination,
    amount_msat: Amount,
    issued: u64,
    spent: u64,
}

pub async fn books(db: &dyn Reader, config: &MintConfig) -> Result<Books, DbError> {
    let totals = TOTALS.get(db, &()).await?.unwrap_or_default();
    let denominations = COUNTS
        .all(db)
        .await?
        .into_iter()
        .map(|(denomination, counts)| Line {
            denomination,
            amount_msat: denomination.amount(),
            issued: counts.issued,
            spent: counts.spent,
        })
        .collect();
    Ok(Books {
        issued_msat: totals.issued,
        spent_msat: totals.spent,
        outstanding_msat: totals.outstanding(),
        max_issuance_msat: config.max_issuance,
        denominations,
    })
}

pub async fn lines(db: &dyn Reader) -> Result<Vec<AuditLine>, DbError> {
    let totals: Totals = TOTALS.get(db, &()).await?.unwrap_or_default();
    // (There are fewer msat in the world than an i64 holds.)
    let owed = i64::try_from(totals.outstanding()).unwrap_or(i64::MAX);
    Ok(vec![AuditLine { name: "e-cash notes in circulation".to_owned(), amount_msat: -owed }])
}

pub async fn alarms(db: &dyn Reader) -> Result<Vec<String>, DbError> {
    Ok(FAULTS
        .all(db)
        .await?
        .into_iter()
        .map(|(guardian, faults)| {
            format!(
                "guardian {guardian} sent {faults} wrong partial signatures of notes: its keys or its program are damaged"
            )
        })
        .collect())
}
