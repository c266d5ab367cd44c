//! `ecash withdraw ADDRESS AMOUNT|all [--fee-max FEE]`

use std::fmt;
use std::str::FromStr;

use federation_client::ops::withdraw::Wish;
use federation_client::{Client, Result};
use federation_core::Amount;
use serde::Serialize;

use crate::output::{print, sat};
use crate::progress::Progress;

/// Pay bitcoin out.
#[derive(Debug, clap::Args)]
pub struct Withdraw {
    /// The Bitcoin address
    address: String,
    /// How much arrives there, in whole satoshi; `all` for as much as there is
    pub amount: Much,
    /// Give up if the on-chain fee is higher than this
    #[arg(long, value_name = "FEE")]
    fee_max: Option<Amount>,
    /// A note for your own history
    #[arg(long, default_value = "")]
    memo: String,
}

/// An amount on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Much {
    /// So much.
    Sat(u64),
    /// As much as there is.
    All,
}

impl FromStr for Much {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let amount: Amount =
            text.parse().map_err(|error: federation_core::amount::ParseAmountError| error.to_string())?;
        let sat = amount.sat_exact().ok_or("on the chain there are whole satoshi only")?;
        Ok(Self::Sat(sat))
    }
}

#[derive(Serialize)]
struct Output {
    txid: String,
    amount_sat: u64,
    fee_sat: u64,
    operation: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |sat_| Amount::from_sat(sat_).map_or_else(|| format!("{sat_} sat"), sat);
        writeln!(f, "withdrew {} at an on-chain fee of {}", amount(self.amount_sat), amount(self.fee_sat))?;
        write!(f, "transaction {}", self.txid)
    }
}

pub async fn run(client: &Client, withdraw: &Withdraw, json: bool) -> Result<()> {
    let progress = Progress::new("waiting for the guardians' signatures");
    let wish = match withdraw.amount {
        Much::Sat(sat) => Wish::Sat(sat),
        Much::All => Wish::All,
    };
    let done = client.withdraw(&withdraw.address, wish, withdraw.fee_max, &withdraw.memo).await?;
    drop(progress);
    let output = Output {
        txid: done.txid,
        amount_sat: done.amount.sat_floor(),
        fee_sat: done.fee.sat_floor(),
        operation: hex::encode(done.operation),
    };
    print(&output, json)
}
