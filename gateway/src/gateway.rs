//! A running gateway: wallets in federations, swaps, the API for users.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bitcoin::Network;
use bitcoin::secp256k1::XOnlyPublicKey;
use federation_client::Client;
use federation_client::words::Words;
use federation_core::api::ApiError;
use federation_core::invite::InviteCode;
use federation_core::{Amount, FederationId};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api;
use crate::config::{Fees, GatewayConfig, Limits};
use crate::error::GatewayError;
use crate::federation::{Federation as _, WalletFederation};
use crate::node::{Balances, LightningNode, NodeInfo};
use crate::store::FEDERATIONS;
use crate::swap::{SwapReport, Swaps};
use crate::words::GatewayWords;

/// A federation that the gateway serves.
#[derive(Debug, Clone, Serialize)]
pub struct FederationSummary {
    /// Its id.
    pub id: FederationId,
    /// Its name.
    pub name: String,
    /// Its chain.
    pub network: Network,
    /// What the gateway's wallet can spend in it now.
    #[serde(rename = "balance_msat")]
    pub balance: Amount,
    /// Until when users see this gateway, in seconds since 1970; `None`: not announced yet.
    pub announced_until: Option<u64>,
}

/// All that an operator wants to see.
#[derive(Debug, Clone, Serialize)]
pub struct GatewayStatus {
    /// The program's version.
    pub version: &'static str,
    /// Its BIP-340 key.
    pub gateway_key: XOnlyPublicKey,
    /// Where users reach it.
    pub api_url: String,
    /// The Lightning node, if it answers.
    pub node: Option<NodeInfo>,
    /// What the node owns, if it answers.
    pub node_balances: Option<Balances>,
    /// What is charged.
    pub fees: Fees,
    /// What is taken on.
    pub limits: Limits,
    /// Whether nothing new is taken.
    pub draining: bool,
    /// Whether nothing is open that needs this gateway running.
    pub safe_to_stop: bool,
    /// The federations that are served.
    pub federations: Vec<FederationSummary>,
    /// What is under way and done.
    pub swaps: SwapReport,
    /// What needs attention, a sentence each; empty when all is well.
    pub alarms: Vec<String>,
}

/// A running gateway.
pub struct Gateway {
    pub(crate) swaps: Arc<Swaps>,
    pub(crate) api_url: String,
    /// Changes when there is something new to announce.
    pub(crate) news: watch::Sender<u64>,
    /// Changes when a deposit may be on its way.
    pub(crate) deposits: watch::Sender<u64>,
    words: Words,
    data_dir: PathBuf,
    api_address: SocketAddr,
    wallets: RwLock<BTreeMap<FederationId, Arc<WalletFederation>>>,
    announced: Mutex<BTreeMap<FederationId, u64>>,
    /// Ends the servers.
    stop: watch::Sender<bool>,
    servers: Mutex<Vec<JoinHandle<()>>>,
    /// One connecting or leaving at a time.
    joining: tokio::sync::Mutex<()>,
}

impl Gateway {
    /// Opens what is in the data directory, goes on with every open swap, and serves users.
    ///
    /// # Errors
    /// A directory that can't be used or is in use, damaged words, an address that is taken.
    pub async fn start(
        config: GatewayConfig,
        node: Arc<dyn LightningNode>,
    ) -> Result<Arc<Self>, GatewayError> {
        create_private(&config.data_dir)?;
        create_private(&config.data_dir.join("federations"))?;
        let own = match &config.words {
            Some(words) => GatewayWords::parse(words)?,
            None => GatewayWords::load_or_create(&config.data_dir)?,
        };
        let words = Words::parse(&own.text()).map_err(|error| GatewayError::Words(error.to_string()))?;
        let db = federation_store::open(&url(&config.data_dir.join("gateway.sqlite"))).await?;
        let swaps = Swaps::open(Arc::clone(&db), node, own.key()?, config.fees, config.limits).await?;
        let listener = api::listen(config.api_bind).await?;
        let api_address = listener
            .local_addr()
            .map_err(|source| GatewayError::Bind { address: config.api_bind, source })?;
        let gateway = Arc::new(Self {
            swaps,
            api_url: config.api_url.unwrap_or_else(|| format!("http://{api_address}")),
            news: watch::Sender::new(0),
            deposits: watch::Sender::new(0),
            words,
            data_dir: config.data_dir,
            api_address,
            wallets: RwLock::default(),
            announced: Mutex::default(),
            stop: watch::Sender::new(false),
            servers: Mutex::default(),
            joining: tokio::sync::Mutex::new(()),
        });
        for (id, _) in FEDERATIONS.all(gateway.swaps.store.reader()).await? {
            let db = federation_store::open(&gateway.wallet_url(&id)).await?;
            let client = Client::open(db, &gateway.words).await?;
            gateway.serve_federation(WalletFederation::new(client));
        }
        gateway.swaps.resume().await?;
        gateway.add_server(listener, api::public_router(Arc::clone(&gateway.swaps)));
        Ok(gateway)
    }

    /// Serves the API for operators too. `extra`: routes of the node's own, guarded alike. Returns the address.
    ///
    /// # Errors
    /// An address that is taken, or not of this machine only; a token file that can't be written.
    pub async fn serve_admin(
        self: &Arc<Self>,
        bind: SocketAddr,
        extra: axum::Router,
    ) -> Result<SocketAddr, GatewayError> {
        if !bind.ip().is_loopback() {
            let detail = format!("the admin API must listen on a loopback address, not {bind}");
            return Err(GatewayError::refused("not_loopback", detail));
        }
        let token = api::load_or_create_token(&self.data_dir)?;
        let listener = api::listen(bind).await?;
        let address = listener.local_addr().map_err(|source| GatewayError::Bind { address: bind, source })?;
        self.add_server(listener, api::admin_router(Arc::clone(self), extra, token));
        Ok(address)
    }

    /// Where the API for users listens.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// The base URL that users are told.
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// The key that contracts name.
    pub fn key(&self) -> XOnlyPublicKey {
        self.swaps.key()
    }

    /// Joins a federation and serves it from now on; joining again changes nothing.
    ///
    /// # Errors
    /// Not an invite code, guardians not reachable, a federation of another chain than the node's.
    pub async fn connect(self: &Arc<Self>, invite: &str) -> Result<FederationSummary, GatewayError> {
        let code: InviteCode =
            invite.parse().map_err(|error| GatewayError::refused("bad_invite", format!("{error}")))?;
        let _joining = self.joining.lock().await;
        if let Ok(wallet) = self.wallet(&code.federation) {
            return self.summary(&wallet).await;
        }
        let network = self.swaps.node.info().await?.network;
        let db = federation_store::open(&self.wallet_url(&code.federation)).await?;
        let client = Client::join(db, &self.words, &code).await?;
        if client.config().network != network {
            let detail = format!("the federation is on {}, the node on {network}", client.config().network);
            return Err(GatewayError::refused("network", detail));
        }
        let wallet = WalletFederation::new(client);
        let mut change = self.swaps.store.change().await;
        FEDERATIONS.put(&mut change.batch, &code.federation, &invite.trim().to_owned());
        change.commit().await?;
        let wallet = self.serve_federation(wallet);
        self.summary(&wallet).await
    }

    fn serve_federation(self: &Arc<Self>, wallet: WalletFederation) -> Arc<WalletFederation> {
        let (id, wallet) = (wallet.id(), Arc::new(wallet));
        self.wallets.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&wallet));
        self.swaps.add_federation(Arc::clone(&wallet) as _);
        self.swaps.spawn(Arc::clone(self).announce_to(id));
        self.swaps.spawn(Arc::clone(self).watch_deposits(id));
        wallet
    }

    /// Serves a federation no more. Its wallet stays on disk.
    ///
    /// # Errors
    /// As long as swaps are open or there is money in it.
    pub async fn leave(&self, id: FederationId) -> Result<(), GatewayError> {
        let _joining = self.joining.lock().await;
        let wallet = self.wallet(&id)?;
        // First, so that nothing begins between the look and the end.
        self.swaps.remove_federation(&id);
        if let Err(error) = self.check_empty(&wallet).await {
            self.swaps.add_federation(wallet as _);
            return Err(error);
        }
        let mut change = self.swaps.store.change().await;
        FEDERATIONS.delete(&mut change.batch, &id);
        change.commit().await?;
        self.wallets.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.news.send_modify(|news| *news = news.wrapping_add(1));
        Ok(())
    }

    async fn check_empty(&self, wallet: &WalletFederation) -> Result<(), GatewayError> {
        let open = self.swaps.open_in(wallet.id()).await?;
        if open > 0 {
            let detail = format!("{open} swaps are open: drain the gateway first");
            return Err(ApiError::new(409, "open_swaps", detail).into());
        }
        let balance = wallet.balance().await?;
        if !balance.is_zero() {
            let detail = format!("there are {balance} in it: withdraw them first");
            return Err(ApiError::new(409, "not_empty", detail).into());
        }
        Ok(())
    }

    /// The federations that are served.
    pub async fn federations(&self) -> Result<Vec<FederationSummary>, GatewayError> {
        let wallets: Vec<_> =
            self.wallets.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut summaries = Vec::with_capacity(wallets.len());
        for wallet in wallets {
            summaries.push(self.summary(&wallet).await?);
        }
        Ok(summaries)
    }

    async fn summary(&self, wallet: &WalletFederation) -> Result<FederationSummary, GatewayError> {
        let announced_until =
            self.announced.lock().unwrap_or_else(PoisonError::into_inner).get(&wallet.id()).copied();
        Ok(FederationSummary {
            id: wallet.id(),
            name: wallet.name(),
            network: wallet.network(),
            balance: wallet.balance().await?,
            announced_until,
        })
    }

    /// The gateway's e-cash in all federations together.
    ///
    /// # Errors
    /// A wallet's database.
    pub async fn balance(&self) -> Result<Amount, GatewayError> {
        let federations = self.federations().await?;
        let sum = Amount::checked_sum(federations.iter().map(|federation| federation.balance));
        Ok(sum.unwrap_or(Amount::from_msat(u64::MAX)))
    }

    /// All that an operator wants to see.
    ///
    /// # Errors
    /// The gateway's or a wallet's database.
    pub async fn status(&self) -> Result<GatewayStatus, GatewayError> {
        let (info, balances) = tokio::join!(self.swaps.node.info(), self.swaps.node.balances());
        let federations = self.federations().await?;
        let swaps = self.swaps.report(info.as_ref().ok().map(|info| info.block_height)).await?;
        let mut alarms = swaps.alarms.clone();
        if let Err(error) = &info {
            alarms.push(format!("the Lightning node does not answer: {error}"));
        }
        for federation in federations.iter().filter(|federation| federation.balance.is_zero()) {
            alarms.push(format!(
                "there is no e-cash in {}: its users can't be paid before some is deposited",
                federation.name
            ));
        }
        let open = &swaps.open;
        Ok(GatewayStatus {
            version: env!("CARGO_PKG_VERSION"),
            gateway_key: self.key(),
            api_url: self.api_url.clone(),
            node: info.ok(),
            node_balances: balances.ok(),
            fees: self.swaps.fees().await?,
            limits: *self.swaps.limits(),
            draining: self.swaps.is_draining(),
            safe_to_stop: self.swaps.is_draining()
                && open.paying + open.claiming + open.waiting + open.funding + open.settling + open.refusing
                    == 0,
            federations,
            swaps,
            alarms,
        })
    }

    /// Changes the fees. Those announced within the last hour are honoured until then.
    ///
    /// # Errors
    /// The gateway's database.
    pub async fn set_fees(&self, fees: Fees) -> Result<(), GatewayError> {
        self.swaps.set_fees(fees).await?;
        self.news.send_modify(|news| *news = news.wrapping_add(1));
        Ok(())
    }

    /// Takes nothing new and finishes what is open ([`GatewayStatus::safe_to_stop`]), or takes new swaps again.
    pub fn drain(&self, draining: bool) {
        self.swaps.set_draining(draining);
        self.news.send_modify(|news| *news = news.wrapping_add(1));
    }

    /// The Lightning node.
    pub fn node(&self) -> &Arc<dyn LightningNode> {
        &self.swaps.node
    }

    /// Resolves with the reason if the gateway's database fails: then end the process.
    pub async fn failed(&self) -> String {
        self.swaps.failed().await
    }

    /// Ends the servers and all tasks. What is open goes on at the next start; the node has to run on until then only for
    /// what it holds.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        self.swaps.stop().await;
        let servers = std::mem::take(&mut *self.servers.lock().unwrap_or_else(PoisonError::into_inner));
        for server in servers {
            let _ = server.await;
        }
        // Closes their databases.
        self.wallets.write().unwrap_or_else(PoisonError::into_inner).clear();
        for federation in self.swaps.federations() {
            self.swaps.remove_federation(&federation.id());
        }
    }

    fn add_server(&self, listener: TcpListener, router: axum::Router) {
        let server = api::serve(listener, router, self.stop.subscribe());
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server);
    }

    pub(crate) fn note_announced(&self, id: FederationId, until: u64) {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).insert(id, until);
    }

    pub(crate) fn wallet(&self, id: &FederationId) -> Result<Arc<WalletFederation>, GatewayError> {
        let wallets = self.wallets.read().unwrap_or_else(PoisonError::into_inner);
        wallets.get(id).cloned().ok_or(GatewayError::UnknownFederation(*id))
    }

    fn wallet_url(&self, id: &FederationId) -> String {
        url(&self.data_dir.join("federations").join(format!("{id}.sqlite")))
    }
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn create_private(dir: &Path) -> Result<(), GatewayError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| GatewayError::File { path: dir.to_path_buf(), source })
}
