//! Puts a running federation together: modules from their configurations, consensus, main loop.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bitcoin::Network;
use borsh::BorshDeserialize;
use federation_consensus::engine::EngineConfig;
use federation_consensus::journal::FileJournal;
use federation_consensus::keygen::CoinKeys;
use federation_consensus::links::Links;
use federation_consensus::runner::{self, ConsensusEvent, ConsensusHandle};
use federation_core::config::{CONSENSUS_VERSION, MAX_CONFIG_SIZE};
use federation_core::db::Database;
use federation_core::encoding::decode;
use federation_core::module::{Registry, Wake, erased};
use federation_core::{FederationId, ModuleId};
use federation_lightning::server::{LightningModule, LightningParams};
use federation_lightning::{LightningConfig, LightningSecret};
use federation_mint::server::Mint;
use federation_mint::{MintConfig, MintSecret};
use federation_wallet::chain::ChainSource;
use federation_wallet::{Wallet, WalletConfig, WalletSecret};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::backups::Backups;
use crate::epoch::apply::Applier;
use crate::epoch::arrivals::Arrivals;
use crate::epoch::contribution::MAX_CONTRIBUTION;
use crate::epoch::faults::FaultLog;
use crate::epoch::main_loop::MainLoop;
use crate::epoch::pool::Pool;
use crate::epoch::verify::Verifier;
use crate::epoch::version::Versions;
use crate::error::GuardianError;
use crate::guardian::GuardianConfig;
use crate::health::Health;
use crate::history::snapshot::exchange;
use crate::history::snapshot::store::Snapshots;
use crate::history::{Archive, IdentityKeys};
use crate::running::{Running, next_epoch};
use crate::setup::stored::{SetupResult, StoredSetup};
use crate::state;

/// Everything but the API, which looks at what this returns. `beside` is run along with it.
pub(crate) async fn federation(
    config: &GuardianConfig,
    setup: &StoredSetup,
    db: Arc<dyn Database>,
    chain: Arc<dyn ChainSource>,
    links: Links,
    beside: Option<impl Future<Output = ()> + Send + 'static>,
) -> Result<(Arc<Running>, MainLoop), GuardianError> {
    let result = setup.result.as_ref().ok_or_else(|| wrong("the setup has no result"))?;
    if result.config.version > CONSENSUS_VERSION {
        return Err(wrong(format!(
            "it is of consensus version {}, this program knows up to {CONSENSUS_VERSION}: install the newer one",
            result.config.version
        )));
    }
    let federation = result.config.id();
    let versions =
        Versions::new(result.config.version, result.config.guardians.keys().copied(), CONSENSUS_VERSION);
    versions.check(versions.in_force(&state::agreed_reader(Arc::clone(&db) as _)).await?)?;
    let work = Arc::new(Notify::new());
    let wake: Wake = {
        let work = Arc::clone(&work);
        Arc::new(move || work.notify_one())
    };
    let modules = Arc::new(modules(setup, result, federation, &db, chain, &wake).await?);
    let verifier = Arc::new(Verifier::new(federation, Arc::clone(&modules)));
    let pool = Pool::open(Arc::clone(&db), federation, Arc::clone(&work)).await?;
    let next = next_epoch(&db).await?;
    let archive = Arc::new(Archive::open(Arc::clone(&db)).await?);
    let threshold = result.config.threshold();
    let snapshots =
        Snapshots::open(&config.data_dir, config.snapshot_interval, threshold, Arc::clone(&archive))?;
    let snapshots = Arc::new(snapshots);
    let mut tasks = serve_snapshots(&links, &snapshots)?;
    if let Some(task) = beside {
        tasks.spawn(task);
    }
    let (consensus, events) =
        start_consensus(config, setup, result, Arc::clone(&archive), links.clone()).await?;
    let backups = Backups::new(Arc::clone(&db), federation);
    let running = Arc::new(Running {
        federation,
        config: result.config.clone(),
        me: result.me,
        endpoints: result.endpoints.clone(),
        db,
        modules: Arc::clone(&modules),
        verifier: Arc::clone(&verifier),
        applier: Applier::new(modules, verifier, versions),
        archive,
        snapshots,
        pool,
        backups,
        epochs: watch::Sender::new(next),
        links,
        consensus,
        faults: FaultLog::default(),
        health: Health::default(),
        closed: AtomicBool::new(false),
        _tasks: tasks,
    });
    tracing::info!(%federation, epoch = next, "guardian {} of '{}' runs", result.me, result.config.name);
    Ok((Arc::clone(&running), MainLoop { running, arrivals: Arrivals::new(events), work }))
}

fn wrong(reason: impl ToString) -> GuardianError {
    GuardianError::Config(reason.to_string())
}

/// Reads one module's configuration and this guardian's secret of it.
fn parts<C: BorshDeserialize, S: BorshDeserialize>(
    setup: &StoredSetup,
    result: &SetupResult,
    kind: &str,
) -> Result<(ModuleId, C, S), GuardianError> {
    let (id, module) =
        result.config.module(kind).ok_or_else(|| wrong(format!("there is no {kind} module")))?;
    let config = decode(&module.config, MAX_CONFIG_SIZE).map_err(wrong)?;
    let secret = setup
        .secrets
        .modules
        .get(&id)
        .ok_or_else(|| wrong(format!("the {kind} module's secret is missing")))?;
    Ok((id, config, decode(secret, MAX_CONFIG_SIZE).map_err(wrong)?))
}

async fn modules(
    setup: &StoredSetup,
    result: &SetupResult,
    federation: FederationId,
    db: &Arc<dyn Database>,
    chain: Arc<dyn ChainSource>,
    wake: &Wake,
) -> Result<Registry, GuardianError> {
    let mut modules = Registry::new();
    let (id, config, secret) = parts::<MintConfig, MintSecret>(setup, result, "mint")?;
    modules.insert(id, erased(Arc::new(Mint::new(config, secret, result.me).map_err(wrong)?)));

    let (id, config, secret) = parts::<WalletConfig, WalletSecret>(setup, result, "wallet")?;
    let wallet = Wallet::new(
        config,
        secret,
        result.me,
        federation,
        Arc::clone(&chain),
        state::module_local(Arc::clone(db), id),
        Arc::clone(wake),
    )
    .await
    .map_err(wrong)?;
    let reader = state::module_reader(Arc::clone(db) as _, id);
    // It ends by itself when the module is dropped.
    drop(wallet.start(reader).await.map_err(wrong)?);
    modules.insert(id, erased(wallet));

    let (id, config, secret) = parts::<LightningConfig, LightningSecret>(setup, result, "lightning")?;
    let lightning = LightningModule::new(LightningParams {
        federation,
        peer: result.me,
        config,
        secret,
        height: follow_height(chain, result.config.network),
        local: state::module_local(Arc::clone(db), id),
        local_prefix: Vec::new(),
        wake: Arc::clone(wake),
    });
    modules.insert(id, erased(Arc::new(lightning)));
    Ok(modules)
}

/// The height of this guardian's chain, for the lightning module's votes. Ends with the last receiver.
fn follow_height(chain: Arc<dyn ChainSource>, network: Network) -> watch::Receiver<u32> {
    let interval =
        if network == Network::Regtest { Duration::from_millis(500) } else { Duration::from_secs(5) };
    let (sender, receiver) = watch::channel(0);
    tokio::spawn(async move {
        while !sender.is_closed() {
            // An unreachable node is the wallet module's alarm; here it only means no vote.
            if let Ok(tip) = chain.tip().await {
                sender.send_if_modified(|height| std::mem::replace(height, tip.height) != tip.height);
            }
            tokio::time::sleep(interval).await;
        }
    });
    receiver
}

async fn start_consensus(
    config: &GuardianConfig,
    setup: &StoredSetup,
    result: &SetupResult,
    archive: Arc<Archive>,
    links: Links,
) -> Result<(ConsensusHandle, mpsc::UnboundedReceiver<ConsensusEvent>), GuardianError> {
    let n = u16::try_from(result.config.guardians.len()).unwrap_or(u16::MAX);
    let keys = CoinKeys::from_bytes(&setup.secrets.coin_keys, result.me.0, n).map_err(wrong)?;
    let mut engine = EngineConfig::new(result.me.0, n, keys);
    engine.max_proposal = MAX_CONTRIBUTION;
    let path = config.data_dir.join("journal");
    let journal =
        FileJournal::open(&path).map_err(GuardianError::io(format!("the journal {}", path.display())))?;
    let identity = Arc::new(IdentityKeys::new(&result.config, &setup.secrets.identity)?);
    runner::start(engine, links, Box::new(journal), archive, identity)
        .await
        .map_err(|error| GuardianError::Consensus(error.to_string()))
}

/// Answers others that need a snapshot; what comes too late of answers to an earlier question of this guardian's is dropped.
fn serve_snapshots(links: &Links, snapshots: &Arc<Snapshots>) -> Result<JoinSet<()>, GuardianError> {
    let subscribe = |channel| links.subscribe(channel).ok_or_else(|| wrong("the links are in use"));
    let (requests, late) = (subscribe(exchange::CHANNEL_REQUEST)?, subscribe(exchange::CHANNEL_ANSWER)?);
    let mut tasks = JoinSet::new();
    tasks.spawn(exchange::serve(links.clone(), requests, Arc::clone(snapshots)));
    tasks.spawn(exchange::drain(late));
    Ok(tasks)
}
