//! A guardian without Core Lightning: a thin main over the library.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;

use anyhow::{Context, bail};
use bitcoin::Network;
use clap::{Args, Parser, Subcommand};
use federation_core::config::ConfigResponse;
use federation_core::invite::InviteCode;
use federation_guardian::setup::stored::StoredSetup;
use federation_guardian::{
    Backup, FederationParams, Guardian, GuardianConfig, KeySource, SNAPSHOT_INTERVAL, SealingKey, SetupPhase,
};
use federation_wallet::bitcoind::{Auth, Bitcoind};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

/// A guardian of a cln-federation, for members without a Core Lightning node.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Where the guardian is and how it is reached.
#[derive(Args)]
struct Place {
    /// The folder of all of the guardian's state.
    #[arg(long, env = "GUARDIAND_DATA_DIR", global = true, default_value = "guardian")]
    data_dir: PathBuf,
    /// The database: sqlite:PATH or postgres://…; by default a SQLite file in the data folder.
    #[arg(long, env = "GUARDIAND_STORE", global = true, hide_env_values = true)]
    store: Option<String>,
    /// A file with the passphrase that the guardian's keys are encrypted with; else the environment
    /// variable GUARDIAND_PASSPHRASE.
    #[arg(long, global = true)]
    passphrase_file: Option<PathBuf>,
    /// The Bitcoin network.
    #[arg(long, env = "GUARDIAND_NETWORK", global = true, default_value = "bitcoin")]
    network: Network,
    /// Where the REST API listens.
    #[arg(long, global = true, default_value = "127.0.0.1:8176")]
    api_bind: SocketAddr,
    /// How clients reach the REST API; by default http:// and where it listens.
    #[arg(long, global = true)]
    api_url: Option<String>,
    /// Where links from other guardians are accepted.
    #[arg(long, global = true, default_value = "0.0.0.0:8177")]
    link_bind: SocketAddr,
    /// How other guardians reach this one, host:port; by default where it listens.
    #[arg(long, global = true)]
    link_address: Option<String>,
    /// Epochs from one state snapshot to the next; for tests.
    #[arg(
        long,
        env = "GUARDIAND_SNAPSHOT_INTERVAL",
        global = true,
        hide = true,
        default_value_t = SNAPSHOT_INTERVAL
    )]
    snapshot_interval: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Makes this guardian's keys and prints its setup code. One operator founds the federation with
    /// --federation and --guardians.
    Setup {
        /// This guardian's name.
        #[arg(long)]
        name: String,
        /// The name of the federation that this operator founds.
        #[arg(long, requires = "guardians")]
        federation: Option<String>,
        /// How many guardians the federation has.
        #[arg(long, requires = "federation")]
        guardians: Option<u16>,
        /// Confirmations until a deposit counts; by default 10, on regtest 1.
        #[arg(long, requires = "federation")]
        finality: Option<u32>,
    },
    /// Adds the other guardians' setup codes.
    AddPeer {
        /// The codes.
        #[arg(required = true)]
        codes: Vec<String>,
    },
    /// Runs the guardian; the first time it makes the federation's keys together with all others.
    Run {
        /// The URL of Bitcoin Core's JSON-RPC.
        #[arg(long, env = "GUARDIAND_BITCOIND_URL")]
        bitcoind_url: String,
        /// Bitcoin Core's cookie file.
        #[arg(long, env = "GUARDIAND_BITCOIND_COOKIE")]
        bitcoind_cookie: Option<PathBuf>,
        /// A file with user:password for Bitcoin Core.
        #[arg(long, conflicts_with = "bitcoind_cookie")]
        bitcoind_password_file: Option<PathBuf>,
    },
    /// Prints the invite code of the running federation.
    Invite,
    /// Writes the guardian's secrets to a file, encrypted with its passphrase. Once, when the setup is done; the guardian
    /// may be running. File and passphrase together bring the guardian back.
    Backup {
        /// The file; it must not exist.
        #[arg(long)]
        to: PathBuf,
    },
    /// Brings a lost guardian back in an empty data folder. `run` then gets the federation's state from the others.
    Restore {
        /// The file that `backup` wrote.
        #[arg(long)]
        from: PathBuf,
    },
}

fn main() -> ExitCode {
    // Its tasks pass messages on: what computes is on threads of its own, and half of the cores are plenty. With more each
    // message wakes a thread that finds nothing left to do.
    let threads = available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(try_main()),
        Err(error) => Err(error).context("the runtime cannot be started"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guardiand: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn try_main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // Before any client: several crates link rustls, and none of them chooses for all.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let place = &cli.place;
    let config = GuardianConfig {
        data_dir: place.data_dir.clone(),
        store_url: place.store.clone(),
        api_bind: place.api_bind,
        api_url: place.api_url.clone().unwrap_or_else(|| format!("http://{}", place.api_bind)),
        link_bind: place.link_bind,
        link_address: place.link_address.clone().unwrap_or_else(|| place.link_bind.to_string()),
        network: place.network,
        snapshot_interval: place.snapshot_interval,
    };
    match cli.command {
        Command::Setup { name, federation, guardians, finality } => {
            let params = federation.zip(guardians).map(|(name, guardians)| {
                let params = FederationParams::new(&name, guardians, place.network);
                FederationParams { finality: finality.unwrap_or(params.finality), ..params }
            });
            let (key, db) = (place.key()?, config.open().await?);
            let known = StoredSetup::load(&db, &key).await?;
            let setup = StoredSetup::ensure(known, config.endpoint(&name), config.network, params)?;
            setup.save(&db, &key).await?;
            println!("{}", setup.own);
            eprintln!("fingerprint {}: give the code to the other operators", setup.own.fingerprint());
        }
        Command::AddPeer { codes } => {
            let (key, db) = (place.key()?, config.open().await?);
            let mut setup = StoredSetup::load(&db, &key)
                .await?
                .context("this guardian has no setup code yet: run `guardiand setup`")?;
            for code in codes {
                setup.add(code.parse()?)?;
            }
            setup.save(&db, &key).await?;
            println!("{}", serde_json::to_string_pretty(&setup.status(None))?);
        }
        Command::Run { bitcoind_url, bitcoind_cookie, bitcoind_password_file } => {
            let auth = match (bitcoind_cookie, bitcoind_password_file) {
                (Some(cookie), _) => Auth::Cookie(cookie),
                (None, Some(file)) => {
                    let text = Zeroizing::new(
                        std::fs::read_to_string(&file).with_context(|| file.display().to_string())?,
                    );
                    let (user, password) =
                        text.trim_end().split_once(':').context("the password file holds user:password")?;
                    Auth::User { name: user.to_owned(), password: password.to_owned() }
                }
                (None, None) => bail!("give --bitcoind-cookie or --bitcoind-password-file"),
            };
            let chain = Arc::new(Bitcoind::new(&bitcoind_url, auth)?);
            run(config, place.key()?, chain).await?;
        }
        Command::Invite => {
            let url = format!("{}/v1/config", config.api_url);
            let response =
                reqwest::get(&url).await.with_context(|| format!("is the guardian running? {url}"))?;
            if !response.status().is_success() {
                bail!("{}", response.text().await?);
            }
            let config: ConfigResponse = response.json().await?;
            let api_urls = config.endpoints.values().map(|endpoint| endpoint.api_url.clone()).collect();
            println!("{}", InviteCode { federation: config.federation_id, api_urls });
        }
        Command::Backup { to } => {
            let salt = place.salt()?.context("there is no guardian in this data folder")?;
            let key = place.key_with(&salt)?;
            let db = federation_store::glance(&config.store_url()).await?;
            Backup::make(db, &key, KeySource::Passphrase { salt }).await?.write(&to)?;
            eprintln!("written; with the passphrase, and the other guardians, it brings this guardian back");
        }
        Command::Restore { from } => {
            if std::fs::read_dir(&place.data_dir).is_ok_and(|mut entries| entries.next().is_some()) {
                bail!("{} is not empty: a guardian is restored into a new folder", place.data_dir.display());
            }
            let backup = Backup::read(&from)?;
            let salt = backup.salt()?;
            let key = place.key_with(&salt)?;
            let setup = backup.open(&key)?;
            std::fs::create_dir_all(&place.data_dir).with_context(|| place.data_dir.display().to_string())?;
            place.keep_salt(&salt)?;
            backup.restore(&config.open().await?, &key).await?;
            eprintln!(
                "'{}' is back; `guardiand run` gets the federation's state from the other guardians",
                setup.own.endpoint.name
            );
        }
    }
    Ok(())
}

async fn run(config: GuardianConfig, key: SealingKey, chain: Arc<Bitcoind>) -> anyhow::Result<()> {
    let guardian = Guardian::start(config, key, chain).await?;
    tracing::info!("the API listens on {}", guardian.api_address());
    if guardian.setup_status().await.phase != SetupPhase::Done {
        let status = guardian.start_setup().await?;
        tracing::info!("making the federation's keys with {} guardians", status.guardians.len());
    }
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        reason = guardian.stopped() => bail!("{reason}"),
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    guardian.shutdown().await;
    Ok(())
}

impl Place {
    /// The key for secrets at rest: from the passphrase, and a salt that is kept beside the database.
    fn key(&self) -> anyhow::Result<SealingKey> {
        let salt = match self.salt()? {
            Some(salt) => salt,
            None => {
                let salt: [u8; 16] = rand::random();
                self.keep_salt(&salt)?;
                salt
            }
        };
        self.key_with(&salt)
    }

    fn key_with(&self, salt: &[u8; 16]) -> anyhow::Result<SealingKey> {
        let passphrase = match &self.passphrase_file {
            Some(file) => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
            None => std::env::var("GUARDIAND_PASSPHRASE").context(
                "give the passphrase of the guardian's keys by --passphrase-file or GUARDIAND_PASSPHRASE",
            )?,
        };
        let passphrase = Zeroizing::new(passphrase);
        Ok(SealingKey::from_passphrase(passphrase.trim_end_matches(['\r', '\n']), salt)?)
    }

    fn salt(&self) -> anyhow::Result<Option<[u8; 16]>> {
        let file = self.data_dir.join("salt");
        match std::fs::read(&file) {
            Ok(bytes) => {
                bytes.try_into().ok().map(Some).with_context(|| format!("{} is damaged", file.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| file.display().to_string()),
        }
    }

    fn keep_salt(&self, salt: &[u8; 16]) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.data_dir).with_context(|| self.data_dir.display().to_string())?;
        let temporary = self.data_dir.join("salt.new");
        std::fs::write(&temporary, salt)?;
        std::fs::File::open(&temporary)?.sync_all()?;
        Ok(std::fs::rename(&temporary, self.data_dir.join("salt"))?)
    }
}
