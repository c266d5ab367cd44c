//! The REST API, under `/v1/modules/wallet/`:
//!
//! | route | |
//! |---|---|
//! | `POST register {key}` | watch a deposit key; gives its address |
//! | `GET deposits?key=` | what was seen for it, and the proofs once they are final |
//! | `GET quote?address=&amount_sat=` | what a withdrawal costs |
//! | `GET beacon` | the latest random number, and the signature that proves it |
//! | `GET status` | heights, fee rate, coins |

use std::sync::Arc;

use bitcoin::secp256k1::XOnlyPublicKey;
use bitcoin::{Amount as Satoshis, TxOut};
use federation_core::api::{ApiError, ApiRequest, Route};
use federation_core::db::DbError;
use federation_core::encoding::encode;
use federation_core::module::ModuleError;
use federation_tbs::MessageSignature;
use serde_json::{Value, json};

use super::Wallet;
use super::blocks::last_final;
use super::tables::{ACTIVE, BEACON, CLAIMED, COINS, HEADERS, QUEUE, RESERVE, Stage};
use super::watch::{MAX_KEYS, Registration};
use crate::address::{AddressError, check_payment, script_of};
use crate::beacon::randomness;
use crate::body::{DepositStatus, DepositsStatus, Quote, Register, Registered};
use crate::descriptor::outpoint_key;

impl From<AddressError> for ApiError {
    fn from(error: AddressError) -> Self {
        Self::refused(error.code(), error.to_string())
    }
}

fn refused(error: ModuleError) -> ApiError {
    match error {
        ModuleError::Refused { code, reason } => ApiError::refused(code, reason),
        ModuleError::Db(error) => error.into(),
    }
}

fn answer<T: serde::Serialize>(value: &T) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|error| ApiError::new(500, "internal", error.to_string()))
}

/// All of them.
pub(super) fn routes(wallet: &Arc<Wallet>) -> Vec<Route> {
    // One clone to keep in the route, one a request.
    macro_rules! route {
        ($method:ident $path:literal $handler:ident) => {{
            let wallet = Arc::clone(wallet);
            Route::$method($path, move |request| {
                let wallet = Arc::clone(&wallet);
                async move { wallet.$handler(request).await }
            })
        }};
    }
    vec![
        route!(post "register" register),
        route!(get "deposits" deposits),
        route!(get "quote" quote),
        route!(get "beacon" beacon),
        route!(get "status" status),
    ]
}

impl Wallet {
    async fn register(&self, request: ApiRequest) -> Result<Value, ApiError> {
        let Register { key } = request.json()?;
        let address = self.deposit_address(&key)?;
        let script = address.script_pubkey();
        let program = self
            .descriptor
            .program(&script)
            .ok_or_else(|| ApiError::new(500, "internal", "the address is not of our descriptor"))?;
        match self.watch.register(&key, program).await? {
            Registration::New => self.nudge.notify_one(),
            Registration::Known => {}
            Registration::Full => {
                return Err(ApiError::too_many(
                    "too_many_keys",
                    format!(
                        "this guardian watches {MAX_KEYS} deposit addresses already; ask another guardian"
                    ),
                ));
            }
        }
        answer(&Registered {
            address: address.to_string(),
            min_deposit_sat: self.config.params.min_deposit_sat,
            confirmations_needed: self.config.params.finality,
        })
    }

    fn deposit_address(&self, key: &XOnlyPublicKey) -> Result<bitcoin::Address, ApiError> {
        self.descriptor.deposit_address(key).map_err(|error| ApiError::refused("bad_key", error.to_string()))
    }

    async fn deposits(&self, request: ApiRequest) -> Result<Value, ApiError> {
        let key: XOnlyPublicKey = request.parameter("key")?;
        let tip_height = self.view().tip.map(|tip| tip.height);
        let min_deposit_sat = self.config.params.min_deposit_sat;
        let mut deposits = Vec::new();
        for found in self.watch.found(&key).await? {
            let proof = &found.input.proof;
            let outpoint = found.outpoint();
            let header = HEADERS.get(&request.db, &proof.height).await?;
            let agreed = header.is_some_and(|header| header.hash() == proof.block_hash());
            let depth = tip_height.and_then(|tip| tip.checked_sub(proof.height));
            deposits.push(DepositStatus {
                outpoint: outpoint.to_string(),
                amount_sat: found.amount_sat,
                too_small: found.amount_sat < min_deposit_sat,
                height: proof.height,
                confirmations: depth.map_or(0, |depth| depth.saturating_add(1)),
                claimed: CLAIMED.contains(&request.db, &outpoint_key(&outpoint)).await?,
                proof: agreed.then(|| hex::encode(encode(&found.input))),
            });
        }
        answer(&DepositsStatus {
            address: self.deposit_address(&key)?.to_string(),
            confirmations_needed: self.config.params.finality,
            min_deposit_sat,
            tip_height,
            deposits,
        })
    }

    async fn quote(&self, request: ApiRequest) -> Result<Value, ApiError> {
        let address: String = request.parameter("address")?;
        let amount_sat: u64 = request.parameter("amount_sat")?;
        let script_pubkey = script_of(&address, self.config.network)?;
        check_payment(&script_pubkey, amount_sat)?;
        let db = &request.db;
        let (Some(rate), Some((height, _))) = (self.agreed_rate(db).await?, last_final(db).await?) else {
            return Err(ApiError::unavailable(
                "no_fee_rate",
                "the federation has not agreed on a fee rate yet: try again after the next block",
            ));
        };
        let output = TxOut { value: Satoshis::from_sat(amount_sat), script_pubkey };
        let cost = self.cost(db, &output).await.map_err(refused)?;
        let fee_sat = self.withdrawal_fee(&cost, 1, rate).map_err(refused)?;
        answer(&Quote {
            address,
            amount_sat,
            fee_sat,
            rate_sat_per_kvb: rate,
            valid_until_height: height.saturating_add(self.config.params.quote_blocks),
        })
    }

    async fn beacon(&self, request: ApiRequest) -> Result<Value, ApiError> {
        let beacon = BEACON.get(&request.db, &()).await?.ok_or_else(|| {
            ApiError::not_found("no_beacon", "there is no beacon yet: it comes with the epochs")
        })?;
        let signature = MessageSignature::from_bytes(&beacon.signature)
            .map_err(|error| DbError::Corrupt { table: "beacon".to_owned(), reason: error.to_string() })?;
        Ok(json!({
            "epoch": beacon.epoch,
            "signature": signature,
            "randomness": hex::encode(randomness(&signature)),
        }))
    }

    async fn status(&self, request: ApiRequest) -> Result<Value, ApiError> {
        let db = &request.db;
        let last = last_final(db).await?;
        let active = ACTIVE.all(db).await?;
        let signing = active.iter().filter(|(_, tx)| matches!(tx.stage, Stage::Signing(_))).count();
        let tip = self.view().tip;
        Ok(json!({
            "chain": self.source.describe(),
            "tip_height": tip.map(|tip| tip.height),
            "syncing": tip.map(|tip| tip.syncing),
            "final_height": last.map(|(height, _)| height),
            "final_hash": last.map(|(_, hash)| hash),
            "fee_rate_sat_per_kvb": self.agreed_rate(db).await?,
            "coins": COINS.all(db).await?.len(),
            "fee_reserve_sat": RESERVE.get(db, &()).await?.unwrap_or_default(),
            "withdrawals_waiting": QUEUE.all(db).await?.len(),
            "transactions_signing": signing,
            "transactions_unconfirmed": active.len() - signing,
            "watched_keys": self.watch.len(),
        }))
    }
}
