//! Joining a federation, and opening the wallet again later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use federation_core::PeerId;
use federation_core::config::{ConfigResponse, ConsensusConfig, MAX_CONFIG_SIZE};
use federation_core::db::Database;
use federation_core::encoding::decode;
use federation_core::invite::InviteCode;
use federation_store::WriteBatch;
use rand::Rng as _;

use crate::api::{FederationApi, Http, Request, Transport};
use crate::client::Client;
use crate::store::{JOINED, Joined, RESTORE};
use crate::words::Words;
use crate::{ClientError, Result};

/// How long one guardian may take to send the configuration.
const FETCH: Duration = Duration::from_secs(20);

impl Client {
    /// Joins a federation: fetches its configuration, checks it against the invite's id, saves it into `db` and opens the
    /// wallet. Joining the same federation again renews the guardians' addresses. Every key is derived from the words and the
    /// federation.
    ///
    /// # Errors
    /// [`ClientError::AlreadyJoined`], [`ClientError::WrongConfig`], [`ClientError::Unreachable`].
    pub async fn join(db: Arc<dyn Database>, words: &Words, invite: &InviteCode) -> Result<Self> {
        Self::join_over(db, words, invite, Arc::new(Http::new()?)).await
    }

    /// [`join`](Self::join) with another way for requests to travel.
    ///
    /// # Errors
    /// As there.
    pub async fn join_over(
        db: Arc<dyn Database>,
        words: &Words,
        invite: &InviteCode,
        transport: Arc<dyn Transport>,
    ) -> Result<Self> {
        let joined = fetch_for(&*db, &*transport, invite).await?;
        let mut batch = WriteBatch::new(db.clone());
        JOINED.put(&mut batch, &(), &joined);
        batch.commit().await?;
        Self::open_over(db, words, transport).await
    }

    /// Opens the wallet in `db`, which has joined before, and goes on with everything that is unfinished.
    ///
    /// # Errors
    /// [`ClientError::NotJoined`], [`ClientError::RestoreUnfinished`], [`ClientError::NoModule`], [`ClientError::Db`].
    pub async fn open(db: Arc<dyn Database>, words: &Words) -> Result<Self> {
        Self::open_over(db, words, Arc::new(Http::new()?)).await
    }

    /// [`open`](Self::open) with another way for requests to travel.
    ///
    /// # Errors
    /// As there.
    pub async fn open_over(
        db: Arc<dyn Database>,
        words: &Words,
        transport: Arc<dyn Transport>,
    ) -> Result<Self> {
        let joined = JOINED.get(&*db, &()).await?.ok_or(ClientError::NotJoined)?;
        if RESTORE.contains(&*db, &()).await? {
            return Err(ClientError::RestoreUnfinished);
        }
        let config = read(&joined)?;
        let first = rand::thread_rng().gen_range(0..joined.urls.len().max(1));
        let api = FederationApi::new(transport, joined.urls, first);
        let client = Self::assemble(db, api, config, words.seed()?)?;
        client.resume().await?;
        Ok(client)
    }
}

/// The configuration for a wallet that has joined no other federation.
pub(crate) async fn fetch_for(
    db: &dyn Database,
    transport: &dyn Transport,
    invite: &InviteCode,
) -> Result<Joined> {
    if let Some(joined) = JOINED.get(db, &()).await? {
        let config = read(&joined)?;
        if config.id() != invite.federation {
            return Err(ClientError::AlreadyJoined(config.id()));
        }
    }
    let joined = fetch(transport, invite).await?;
    read(&joined)?;
    Ok(joined)
}

pub(crate) fn read(joined: &Joined) -> Result<ConsensusConfig> {
    decode(&joined.consensus, MAX_CONFIG_SIZE).map_err(|error| ClientError::Db(error.to_string()))
}

/// The first configuration that is the invite's. Who serves it does not matter: the id covers it. Addresses are not covered;
/// those that other guardians know are good enough, since nobody is believed alone.
async fn fetch(transport: &dyn Transport, invite: &InviteCode) -> Result<Joined> {
    let mut reasons = Vec::new();
    let mut wrong = false;
    for url in &invite.api_urls {
        let answer = match transport.call(url, &Request::get("/v1/config"), FETCH).await {
            Ok(answer) => answer,
            Err(error) => {
                reasons.push(error.to_string());
                continue;
            }
        };
        let Ok(response) = serde_json::from_value::<ConfigResponse>(answer) else {
            wrong = true;
            continue;
        };
        let Some(config) = response.verified(invite.federation) else {
            wrong = true;
            continue;
        };
        let urls: BTreeMap<PeerId, String> = config
            .guardians
            .keys()
            .filter_map(|peer| Some((*peer, response.endpoints.get(peer)?.api_url.clone())))
            .collect();
        if urls.len() == config.guardians.len() {
            return Ok(Joined { consensus: response.consensus, urls });
        }
        wrong = true;
    }
    if wrong { Err(ClientError::WrongConfig) } else { Err(ClientError::Unreachable(reasons.join("; "))) }
}
