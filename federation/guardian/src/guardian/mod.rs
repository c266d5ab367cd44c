//! The guardian as one object: what `guardiand` and the plugin start and command.
//!
//! Its life: the [generation] of keys together with the others, then [running] main loops; those that crashed at the end of the
//! generation are helped while [resuming].

mod generation;
mod resuming;
mod running;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::Network;
use federation_consensus::links::{Fingerprint, Identity, LinkConfig, PeerAddress};
use federation_core::config::Endpoint;
use federation_core::db::Database;
use federation_core::invite::InviteCode;
use federation_core::rest::{AuditResponse, StatusResponse};
use federation_wallet::chain::ChainSource;
use tokio::sync::watch;

use crate::api;
use crate::api::Serving;
use crate::error::GuardianError;
use crate::history::backup::{Backup, KeySource};
use crate::running::Running;
use crate::secrets::SealingKey;
use crate::setup::rounds::Progress;
use crate::setup::stored::StoredSetup;
use crate::setup::{FederationParams, SetupPhase, SetupStatus, keygen};

/// A state snapshot is taken every so many epochs.
pub const SNAPSHOT_INTERVAL: u64 = 1000;

/// How a guardian is reached and where it keeps its state.
#[derive(Clone, Debug)]
pub struct GuardianConfig {
    /// The folder of database and journal; created if missing.
    pub data_dir: PathBuf,
    /// `sqlite:…` or `postgres://…`; by default `guardian.sqlite` in the data folder.
    pub store_url: Option<String>,
    /// Where the REST API listens.
    pub api_bind: SocketAddr,
    /// How clients reach it, such as `https://guardian.example.org`.
    pub api_url: String,
    /// Where links from other guardians are accepted.
    pub link_bind: SocketAddr,
    /// How other guardians reach it: `host:port`.
    pub link_address: String,
    /// The Bitcoin network.
    pub network: Network,
    /// Epochs from one state snapshot to the next: [`SNAPSHOT_INTERVAL`], but for tests. It is no rule of consensus.
    pub snapshot_interval: u64,
}

impl GuardianConfig {
    /// The database's URL.
    pub fn store_url(&self) -> String {
        let default = || format!("sqlite://{}", self.data_dir.join("guardian.sqlite").display());
        self.store_url.clone().unwrap_or_else(default)
    }

    /// What others learn of this guardian.
    pub fn endpoint(&self, name: &str) -> Endpoint {
        Endpoint {
            name: name.to_owned(),
            api_url: self.api_url.clone(),
            link_address: self.link_address.clone(),
        }
    }

    /// Opens the database, in a folder that is made if it is missing.
    pub async fn open(&self) -> Result<Arc<dyn Database>, GuardianError> {
        std::fs::create_dir_all(&self.data_dir)
            .map_err(GuardianError::io(format!("the data folder {}", self.data_dir.display())))?;
        // Journal and snapshots tell who did what: nobody else's business.
        std::fs::set_permissions(&self.data_dir, std::fs::Permissions::from_mode(0o700))
            .map_err(GuardianError::io(format!("the data folder {}", self.data_dir.display())))?;
        Ok(federation_store::open(&self.store_url()).await?)
    }
}

/// A guardian, from its first start on.
pub struct Guardian {
    config: GuardianConfig,
    key: SealingKey,
    db: Arc<dyn Database>,
    chain: Arc<dyn ChainSource>,
    setup: tokio::sync::Mutex<Option<StoredSetup>>,
    progress: Progress,
    generation: Mutex<Option<tokio::task::JoinHandle<()>>>,
    current: watch::Sender<Serving>,
    stop: watch::Sender<bool>,
    stopped: watch::Sender<Option<String>>,
    api_address: SocketAddr,
}

impl Guardian {
    /// Opens the database, serves the API, and goes on where the last process ended.
    pub async fn start(
        config: GuardianConfig,
        key: SealingKey,
        chain: Arc<dyn ChainSource>,
    ) -> Result<Arc<Self>, GuardianError> {
        let db = config.open().await?;
        Self::start_on(db, config, key, chain).await
    }

    /// The same on a database that is open already.
    pub async fn start_on(
        db: Arc<dyn Database>,
        config: GuardianConfig,
        key: SealingKey,
        chain: Arc<dyn ChainSource>,
    ) -> Result<Arc<Self>, GuardianError> {
        let setup = StoredSetup::load(&db, &key).await?;
        let current = watch::Sender::new(Serving::default());
        let stop = watch::Sender::new(false);
        let api_address = api::start(config.api_bind, current.subscribe(), stop.subscribe()).await?;
        let guardian = Arc::new(Self {
            config,
            key,
            db,
            chain,
            setup: tokio::sync::Mutex::new(setup.clone()),
            progress: Progress::default(),
            generation: Mutex::default(),
            current,
            stop,
            stopped: watch::Sender::new(None),
            api_address,
        });
        match setup {
            Some(setup) if setup.phase() == SetupPhase::Done => guardian.run_federation(setup, None).await?,
            Some(setup) if setup.started => guardian.spawn_generation(setup),
            _ => {}
        }
        Ok(guardian)
    }

    /// Where the API really listens.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Makes this guardian's keys, once, and gives its setup code. The founder gives the federation's
    /// parameters; all others leave them out.
    pub async fn setup_code(
        &self,
        name: &str,
        federation: Option<FederationParams>,
    ) -> Result<String, GuardianError> {
        let mut slot = self.setup.lock().await;
        let setup =
            StoredSetup::ensure(slot.take(), self.config.endpoint(name), self.config.network, federation);
        // Whatever happens, what was known stays known.
        let setup = match setup {
            Ok(setup) => setup,
            Err(error) => {
                *slot = StoredSetup::load(&self.db, &self.key).await?;
                return Err(error);
            }
        };
        setup.save(&self.db, &self.key).await?;
        let code = setup.own.to_string();
        *slot = Some(setup);
        Ok(code)
    }

    /// Adds another guardian's setup code.
    pub async fn add_peer(&self, code: &str) -> Result<SetupStatus, GuardianError> {
        let code = code.parse()?;
        let mut slot = self.setup.lock().await;
        let mut setup = slot.clone().ok_or_else(no_code)?;
        setup.add(code)?;
        setup.save(&self.db, &self.key).await?;
        let status = setup.status(None);
        *slot = Some(setup);
        Ok(status)
    }

    /// Starts the key generation. It ends when all guardians have started it.
    pub async fn start_setup(self: &Arc<Self>) -> Result<SetupStatus, GuardianError> {
        let mut slot = self.setup.lock().await;
        let mut setup = slot.clone().ok_or_else(no_code)?;
        match setup.phase() {
            SetupPhase::Done => {
                return Err(GuardianError::SetupState("the federation exists already".to_owned()));
            }
            SetupPhase::New | SetupPhase::Collecting => {
                let wanted = setup.federation().map(|params| params.guardians);
                return Err(GuardianError::SetupState(match wanted {
                    Some(wanted) => format!(
                        "{} of {wanted} setup codes are here: add the others' first",
                        setup.others.len().saturating_add(1)
                    ),
                    None => {
                        "no setup code founds the federation: one operator gives its name and size".to_owned()
                    }
                }));
            }
            SetupPhase::Generating | SetupPhase::Complete => {}
        }
        setup.started = true;
        setup.save(&self.db, &self.key).await?;
        *slot = Some(setup.clone());
        drop(slot);
        self.spawn_generation(setup);
        Ok(self.setup_status().await)
    }

    /// Where the setup stands.
    pub async fn setup_status(&self) -> SetupStatus {
        let detail = self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match &*self.setup.lock().await {
            Some(setup) => setup.status(detail.filter(|_| setup.phase() != SetupPhase::Done)),
            None => SetupStatus {
                phase: SetupPhase::New,
                code: None,
                federation: None,
                guardians: Vec::new(),
                detail: None,
            },
        }
    }

    /// The running federation; the error says that there is none yet.
    pub fn running(&self) -> Result<Arc<Running>, GuardianError> {
        match self.current.borrow().clone() {
            Serving::Running(running) => Ok(running),
            Serving::Setup => Err(GuardianError::SetupState(
                "the federation does not exist yet: finish the setup first".to_owned(),
            )),
            Serving::Restoring => Err(GuardianError::SetupState(
                "this guardian is getting its state from the others: wait until it is done".to_owned(),
            )),
            Serving::Stopped => Err(GuardianError::SetupState("the guardian has stopped".to_owned())),
        }
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<StatusResponse, GuardianError> {
        Ok(self.running()?.status().await?)
    }

    /// `GET /v1/audit`.
    pub async fn audit(&self) -> Result<AuditResponse, GuardianError> {
        Ok(self.running()?.audit().await?)
    }

    /// The guardian's secrets, encrypted as they are stored; `source` says where their key comes from.
    pub async fn backup(&self, source: KeySource) -> Result<Backup, GuardianError> {
        Backup::make(Arc::clone(&self.db) as _, &self.key, source).await
    }

    /// What a user needs in order to join.
    pub fn invite(&self) -> Result<InviteCode, GuardianError> {
        Ok(self.running()?.invite())
    }

    /// Stops everything; what was committed stays.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        if let Some(task) = self.generation.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        let serves = matches!(*self.current.borrow(), Serving::Running(_) | Serving::Restoring);
        if serves {
            let mut stopped = self.stopped.subscribe();
            // The main loop may be in the middle of an epoch; its commit is short.
            let _ = tokio::time::timeout(Duration::from_secs(10), stopped.wait_for(Option::is_some)).await;
        }
    }

    /// Resolves when the guardian has ended, with the reason.
    pub async fn stopped(&self) -> String {
        let mut stopped = self.stopped.subscribe();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the guardian was dropped".to_owned(),
        }
    }

    fn link_config(&self, setup: &StoredSetup) -> Result<LinkConfig, GuardianError> {
        let (me, _) = keygen::numbers(setup);
        let identity = Identity::from_bytes(&setup.secrets.link_identity)
            .map_err(|error| GuardianError::Config(error.to_string()))?;
        let peers: BTreeMap<u16, PeerAddress> = (0u16..)
            .zip(setup.guardians())
            .filter(|(guardian, _)| *guardian != me)
            .map(|(guardian, code)| {
                let fingerprint = Fingerprint(code.keys.certificate);
                (guardian, PeerAddress { address: code.endpoint.link_address.clone(), fingerprint })
            })
            .collect();
        Ok(LinkConfig::new(me, identity, vec![self.config.link_bind], peers))
    }
}

fn no_code() -> GuardianError {
    GuardianError::SetupState("create this guardian's own setup code first".to_owned())
}
