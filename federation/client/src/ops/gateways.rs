//! The federation's gateways: found at the guardians, believed by their signatures, tried before any money moves.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::secp256k1::XOnlyPublicKey;
use federation_core::Amount;
use federation_lightning::{Announcement, GatewayFees, GatewayInfo, KIND};
use serde_json::Value;

use super::now;
use crate::api::{CallError, Request};
use crate::client::Client;
use crate::{ClientError, Result};

/// How long a gateway may take to show that it is there.
const PROBE: Duration = Duration::from_secs(5);

/// The most that a gateway may take which the user has not named, so that nobody grows rich on being the only one: 50 sat
/// and 5 %.
const MAX_FEE: GatewayFees = GatewayFees { base: Amount::from_msat(50_000), ppm: 50_000 };

/// Which way a payment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// An invoice is paid.
    Send,
    /// An invoice is made.
    Receive,
}

fn fee(info: &GatewayInfo, direction: Direction, amount: Amount) -> Option<Amount> {
    match direction {
        Direction::Send => info.send_fees.of(amount),
        Direction::Receive => info.receive_fees.of(amount),
    }
}

impl Client {
    /// The gateways that have announced themselves within the last hour, by their keys. Guardians need not agree: each
    /// announcement is signed by its gateway.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if no guardian answers.
    pub async fn gateways(&self) -> Result<Vec<GatewayInfo>> {
        let request = Request::module_get(KIND, "gateways", &[]);
        // One honest guardian among them is enough: it has all that are alive.
        let answers = self.inner.api.some(&request, self.inner.api.max_faulty().saturating_add(1)).await?;
        let mut newest: BTreeMap<XOnlyPublicKey, GatewayInfo> = BTreeMap::new();
        let listed = answers.into_iter().filter_map(|value| match value {
            Value::Array(list) => Some(list),
            _ => None,
        });
        for entry in listed.flatten() {
            let Ok(announcement) = serde_json::from_value::<Announcement>(entry) else { continue };
            if announcement.verify(self.federation_id(), now().as_secs()).is_err() {
                continue;
            }
            let info = announcement.info;
            if newest.get(&info.key).is_none_or(|known| known.expires_at < info.expires_at) {
                newest.insert(info.key, info);
            }
        }
        Ok(newest.into_values().collect())
    }

    /// Whether anybody answers at a gateway's API.
    ///
    /// # Errors
    /// [`ClientError::GatewayDown`].
    pub async fn probe_gateway(&self, url: &str) -> Result<()> {
        match self.inner.api.transport().call(url, &Request::get("/v1/info"), PROBE).await {
            // Any answer of its own shows that it is alive.
            Ok(_) | Err(CallError::Refused { status: 0..500, .. }) => Ok(()),
            Err(error) => Err(ClientError::GatewayDown { url: url.to_owned(), reason: error.to_string() }),
        }
    }

    /// The gateway for a payment: the one that the user names, or the cheapest that is alive and takes the amount.
    ///
    /// # Errors
    /// [`ClientError::NoGateway`], [`ClientError::GatewayDown`]; nothing has been begun.
    pub(super) async fn choose_gateway(
        &self,
        direction: Direction,
        amount: Amount,
        wanted: Option<&str>,
    ) -> Result<GatewayInfo> {
        let mut gateways = self.gateways().await?;
        if let Some(wanted) = wanted {
            let same = |url: &str| url.trim_end_matches('/') == wanted.trim_end_matches('/');
            let found =
                gateways.into_iter().find(|info| same(&info.api_url) || info.key.to_string() == wanted);
            let found = found.ok_or_else(|| ClientError::NoGateway(format!(" to the name {wanted}")))?;
            self.probe_gateway(&found.api_url).await?;
            return Ok(found);
        }
        if gateways.is_empty() {
            return Err(ClientError::NoGateway(" (none has announced itself)".to_owned()));
        }
        gateways.retain(|info| (info.min..=info.max).contains(&amount));
        if gateways.is_empty() {
            return Err(ClientError::NoGateway(format!(" that takes on payments of {} msat", amount.msat())));
        }
        gateways
            .retain(|info| fee(info, direction, amount).is_some_and(|fee| Some(fee) <= MAX_FEE.of(amount)));
        if gateways.is_empty() {
            let why = " (each takes more than 50 sat and 5 %: `ecash gateways` shows them, `--gateway` accepts one)";
            return Err(ClientError::NoGateway(why.to_owned()));
        }
        gateways.sort_by_key(|info| fee(info, direction, amount).unwrap_or(Amount::from_msat(u64::MAX)));
        let mut reasons = Vec::new();
        for info in gateways {
            match self.probe_gateway(&info.api_url).await {
                Ok(()) => return Ok(info),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(ClientError::NoGateway(format!(" ({})", reasons.join("; "))))
    }

    /// The block height that the guardians agree on.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::BadAnswer`].
    pub async fn height(&self) -> Result<u32> {
        let request = Request::module_get(KIND, "height", &[]);
        let read = |value: Value| value.get("height")?.as_u64().and_then(|height| u32::try_from(height).ok());
        match self.inner.api.agreed(&request, Duration::ZERO, read).await {
            // A new block has reached some of them: the middle one lies between two honest ones.
            Err(ClientError::Disagreement(_)) => {
                let answers = self.inner.api.all(&request, Duration::ZERO).await;
                let mut heights: Vec<u32> =
                    answers.into_values().filter_map(Result::ok).filter_map(read).collect();
                heights.sort_unstable();
                // Of fewer it may be a liar's, and a contract that expires in a thousand years is the gateway's.
                let enough = self.inner.api.max_faulty().saturating_mul(2).saturating_add(1);
                let middle = heights.get(heights.len() / 2).filter(|_| heights.len() >= enough).copied();
                middle.ok_or_else(|| ClientError::Disagreement("the block height".to_owned()))
            }
            other => other,
        }
    }
}
