//! The guardian as one object: what `guardiand` and the plugin start and command.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::Network;
use bytes::Bytes;
use federation_consensus::links::{
    CHANNEL_SETUP, Fingerprint, Identity, LinkConfig, LinkEvent, Links, PeerAddress,
};
use federation_core::config::Endpoint;
use federation_core::db::Database;
use federation_core::invite::InviteCode;
use federation_core::rest::{AuditResponse, StatusResponse};
use federation_wallet::chain::ChainSource;
use tokio::sync::{mpsc, watch};

use crate::api::Serving;
use crate::epoch::main_loop::{Ended, MainLoop};
use crate::error::GuardianError;
use crate::history::backup::{Backup, KeySource};
use crate::history::snapshot::recover::{self, Need};
use crate::running::Running;
use crate::secrets::SealingKey;
use crate::setup::rounds::{Exchange, LINKS, Progress, Rounds};
use crate::setup::stored::StoredSetup;
use crate::setup::{FederationParams, SetupPhase, SetupStatus, keygen};
use crate::{api, assemble};

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

    fn spawn_generation(self: &Arc<Self>, setup: StoredSetup) {
        let mut slot = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let this = Arc::clone(self);
        *slot = Some(tokio::spawn(async move {
            if let Err(error) = this.generate(setup).await {
                tracing::error!("{error}");
                *this.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                this.generation_failed(error).await;
            }
        }));
    }

    /// After an abort the operator may start again; a failed federation start stops the guardian. A result that is
    /// stored is never thrown away, whatever failed and whatever the others say: some of them may have this
    /// guardian's confirmation already and hold money with its keys. The next start goes on with it.
    async fn generation_failed(&self, error: GuardianError) {
        let mut slot = self.setup.lock().await;
        if slot.as_ref().is_none_or(|setup| setup.phase() == SetupPhase::Done) {
            self.stopped.send_replace(Some(error.to_string()));
            return;
        }
        match StoredSetup::load(&self.db, &self.key).await {
            Ok(Some(stored)) => *slot = Some(stored),
            Ok(None) => {}
            Err(error) => {
                tracing::error!("{error}");
                return;
            }
        }
        if let Some(setup) = slot.as_mut().filter(|setup| setup.result.is_none()) {
            setup.started = false;
            if let Err(error) = setup.save(&self.db, &self.key).await {
                tracing::error!("{error}");
            }
        }
    }

    /// The key generation, or what is left of it after a crash; then the federation runs.
    async fn generate(self: &Arc<Self>, mut setup: StoredSetup) -> Result<(), GuardianError> {
        let links = Links::start(self.link_config(&setup)?)
            .await
            .map_err(|error| GuardianError::io(LINKS)(std::io::Error::other(error.to_string())))?;
        let outcome = self.generate_over(&links, &mut setup).await;
        if outcome.is_err() {
            links.shutdown().await;
        }
        let frames = outcome?;
        links.drain(Duration::from_secs(30)).await;
        self.run_federation(setup, Some((links, frames))).await
    }

    async fn generate_over(
        &self,
        links: &Links,
        setup: &mut StoredSetup,
    ) -> Result<mpsc::Receiver<LinkEvent>, GuardianError> {
        let frames = links
            .subscribe(CHANNEL_SETUP)
            .ok_or_else(|| GuardianError::io(LINKS)(std::io::Error::other("they are in use")))?;
        let (me, names) = keygen::numbers(setup);
        let exchange = LinkExchange { links: links.clone(), frames };
        let mut rounds = Rounds::new(exchange, me, names, keygen::session(setup), Arc::clone(&self.progress));
        let made = self.make_keys(&mut rounds, setup).await;
        if let Err(error) = &made {
            rounds.abort(error).await;
            // They may wait for hours otherwise; that they hear it is not worth more than some seconds.
            links.drain(Duration::from_secs(5)).await;
        }
        made?;
        *self.setup.lock().await = Some(setup.clone());
        Ok(rounds.into_links().frames)
    }

    async fn make_keys(
        &self,
        rounds: &mut Rounds<LinkExchange>,
        setup: &mut StoredSetup,
    ) -> Result<(), GuardianError> {
        let mut output = None;
        let result = match setup.result.clone() {
            Some(result) => result,
            None => {
                let tip = self.chain.tip().await.map_err(|error| GuardianError::Chain(error.to_string()))?;
                let (result, secrets, made) = keygen::generate(rounds, setup, tip.height).await?;
                setup.secrets = secrets;
                setup.result = Some(result.clone());
                setup.save(&self.db, &self.key).await?;
                output = Some(made);
                result
            }
        };
        keygen::confirm(rounds, &result, output.as_ref()).await?;
        if let Some(result) = &mut setup.result {
            result.confirmed = true;
        }
        setup.save(&self.db, &self.key).await
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

    /// Starts consensus, modules and main loop. The links of the setup are used on. If the state is to be had from the
    /// others, that goes on in the background.
    async fn run_federation(
        self: &Arc<Self>,
        setup: StoredSetup,
        links: Option<(Links, mpsc::Receiver<LinkEvent>)>,
    ) -> Result<(), GuardianError> {
        let first = match recover::pending(&self.db).await? {
            Some(need) => Err(need),
            None => Ok(self.assemble(&setup, links).await?),
        };
        if first.is_err() {
            self.current.send_replace(Serving::Restoring);
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let reason = match this.drive(&setup, first).await {
                Ok(()) => "stopped by its operator".to_owned(),
                Err(error) => {
                    tracing::error!("the guardian stops: {error}");
                    error.to_string()
                }
            };
            this.close(Serving::Stopped).await;
            this.stop.send_replace(true);
            this.stopped.send_replace(Some(reason));
        });
        Ok(())
    }

    /// Runs main loops, one after another: a guardian that is too far behind gets a snapshot in between.
    async fn drive(&self, setup: &StoredSetup, first: Result<MainLoop, Need>) -> Result<(), GuardianError> {
        let mut next = first;
        loop {
            next = match next {
                Ok(main_loop) => match main_loop.run(self.stop.subscribe()).await? {
                    Ended::Stopped => return Ok(()),
                    Ended::Pruned { first } => {
                        tracing::warn!(
                            first,
                            "the others have forgotten what is needed next: a snapshot is fetched"
                        );
                        self.close(Serving::Restoring).await;
                        Err(Need::Snapshot)
                    }
                },
                Err(need) => {
                    let mut stop = self.stop.subscribe();
                    tokio::select! {
                        () = async { drop(stop.wait_for(|stop| *stop).await) } => return Ok(()),
                        recovered = recover::recover(&self.config, setup, &self.db, need, || self.links(setup)) => {
                            recovered?;
                        }
                    }
                    Ok(self.assemble(setup, None).await?)
                }
            };
        }
    }

    /// Ends what serves, whatever of it is under way.
    async fn close(&self, next: Serving) {
        let before = self.current.send_replace(next);
        if let Serving::Running(running) = before {
            running.closed.store(true, Ordering::Release);
            running.links.shutdown().await;
        }
    }

    /// Links to the other guardians.
    async fn links(&self, setup: &StoredSetup) -> Result<Links, GuardianError> {
        Links::start(self.link_config(setup)?).await.map_err(|error| GuardianError::Config(error.to_string()))
    }

    async fn assemble(
        &self,
        setup: &StoredSetup,
        links: Option<(Links, mpsc::Receiver<LinkEvent>)>,
    ) -> Result<MainLoop, GuardianError> {
        let (links, frames) = match links {
            Some((links, frames)) => (links, Some(frames)),
            None => {
                let links = self.links(setup).await?;
                let frames = links.subscribe(CHANNEL_SETUP);
                (links, frames)
            }
        };
        let answering = frames.zip(setup.result.as_ref()).map(|(frames, result)| {
            let frame = Bytes::from(keygen::confirmation_frame(keygen::session(setup), result));
            answer_resuming(links.clone(), frames, frame)
        });
        let (running, main_loop) = assemble::federation(
            &self.config,
            setup,
            Arc::clone(&self.db),
            Arc::clone(&self.chain),
            links,
            answering,
        )
        .await?;
        self.current.send_replace(Serving::Running(running));
        Ok(main_loop)
    }
}

fn no_code() -> GuardianError {
    GuardianError::SetupState("create this guardian's own setup code first".to_owned())
}

/// How often a guardian may resume the setup while this one runs. It also ends an exchange of thanks for thanks.
const MAX_RESUMED: u8 = 20;

/// Answers guardians that crashed between storing the result and knowing that all have confirmed it: that this one's
/// confirmation was delivered to an earlier life of theirs doesn't mean that it was kept.
async fn answer_resuming(links: Links, mut frames: mpsc::Receiver<LinkEvent>, frame: Bytes) {
    let mut answered = BTreeMap::<u16, u8>::new();
    while let Some(event) = frames.recv().await {
        event.accept();
        let count = answered.entry(event.from).or_default();
        // Equal bytes are confirmation enough; anything else is no resuming guardian of this setup.
        if event.frame != frame || *count >= MAX_RESUMED {
            continue;
        }
        *count = count.saturating_add(1);
        if let Err(error) = links.send(event.from, CHANNEL_SETUP, frame.clone()) {
            tracing::debug!("guardian {} resumes its setup, but: {error}", event.from);
        }
    }
}

/// The setup's channel of the links.
struct LinkExchange {
    links: Links,
    frames: mpsc::Receiver<LinkEvent>,
}

#[async_trait::async_trait]
impl Exchange for LinkExchange {
    async fn send(&mut self, to: u16, bytes: Bytes) {
        if let Err(error) = self.links.send(to, CHANNEL_SETUP, bytes) {
            tracing::warn!("a setup message to guardian {to} was not sent: {error}");
        }
    }

    async fn receive(&mut self) -> Option<(u16, Bytes)> {
        let event = self.frames.recv().await?;
        event.accept();
        Some((event.from, event.frame))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Block, Transaction};
    use federation_wallet::chain::{ChainError, Tip};
    use zeroize::Zeroizing;

    use super::*;

    /// No chain at all.
    struct Nowhere;

    fn nowhere<T>() -> Result<T, ChainError> {
        Err(ChainError::Unreachable("there is no node".to_owned()))
    }

    #[async_trait::async_trait]
    impl ChainSource for Nowhere {
        fn describe(&self) -> String {
            "no chain".to_owned()
        }
        async fn network(&self) -> Result<Network, ChainError> {
            nowhere()
        }
        async fn tip(&self) -> Result<Tip, ChainError> {
            nowhere()
        }
        async fn block(&self, _: u32) -> Result<Option<Block>, ChainError> {
            nowhere()
        }
        async fn fee_rate(&self, _: u16) -> Result<Option<u64>, ChainError> {
            nowhere()
        }
        async fn broadcast(&self, _: &Transaction) -> Result<(), ChainError> {
            nowhere()
        }
    }

    #[tokio::test]
    async fn a_stored_result_outlives_a_start_that_fails() {
        let folder = std::env::temp_dir().join(format!("guardian-setup-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = GuardianConfig {
            data_dir: folder.clone(),
            store_url: None,
            api_bind: "127.0.0.1:0".parse().unwrap(),
            api_url: "http://127.0.0.1:1".to_owned(),
            link_bind: taken.local_addr().unwrap(),
            link_address: "127.0.0.1:1".to_owned(),
            network: Network::Regtest,
            snapshot_interval: SNAPSHOT_INTERVAL,
        };
        let key = SealingKey::new(Zeroizing::new([1; 32]));
        {
            let mut setup = crate::setup::tests::with_result().await;
            setup.started = true;
            setup.save(&config.open().await.unwrap(), &key).await.unwrap();
        }
        let guardian = Guardian::start(config, key, Arc::new(Nowhere)).await.unwrap();
        for _ in 0..100 {
            if guardian.setup_status().await.detail.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // (The failure is shown before it is dealt with.)
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(guardian.setup_status().await.detail.unwrap().contains("links"));
        let stored = StoredSetup::load(&guardian.db, &guardian.key).await.unwrap().unwrap();
        assert!(stored.result.is_some() && stored.started);
        assert_eq!(guardian.setup_status().await.phase, SetupPhase::Generating);
        let _ = std::fs::remove_dir_all(&folder);
    }

    #[tokio::test]
    async fn a_guardian_that_resumes_is_answered_and_thanks_come_to_an_end() {
        let identities = [Identity::generate().unwrap(), Identity::generate().unwrap()];
        let addresses: Vec<SocketAddr> = (0..2)
            .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
            .collect();
        let mut links = Vec::new();
        for me in 0..2usize {
            let other = 1 - me;
            let fingerprint = identities[other].fingerprint();
            let peer = PeerAddress { address: addresses[other].to_string(), fingerprint };
            let peers = BTreeMap::from([(u16::try_from(other).unwrap(), peer)]);
            let me16 = u16::try_from(me).unwrap();
            let config = LinkConfig::new(me16, identities[me].clone(), vec![addresses[me]], peers);
            links.push(Links::start(config).await.unwrap());
        }
        let frame = Bytes::from_static(b"confirmed");
        let frames = links[0].subscribe(CHANNEL_SETUP).unwrap();
        tokio::spawn(answer_resuming(links[0].clone(), frames, frame.clone()));
        let mut answers = links[1].subscribe(CHANNEL_SETUP).unwrap();
        let mut answered = 0;
        links[1].send(0, CHANNEL_SETUP, frame.clone()).unwrap();
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(2), answers.recv()).await {
            event.accept();
            assert_eq!(event.frame, frame);
            answered += 1;
            links[1].send(0, CHANNEL_SETUP, event.frame.clone()).unwrap();
        }
        assert_eq!(answered, MAX_RESUMED);
    }
}
