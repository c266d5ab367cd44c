//! A federation and a purse, for what measures whole guardians.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use federation_client::{Client, Folder};
use federation_core::module::Value;
use federation_mint::Denomination;
use federation_mint::client::Note;

use super::{Holder, disk};
use crate::federation::Guardian;
use crate::scenario::conserved;
use crate::{Bitcoind, Federation, Postgres, Sandbox, wait_for};

/// Outputs of one transaction that makes notes; the change needs some, too.
const OUTPUTS: usize = 200;
/// What a busy machine may take for what takes seconds.
pub const SOON: Duration = Duration::from_secs(120);

/// How a world is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Guardians.
    pub guardians: usize,
    /// On PostgreSQL rather than SQLite.
    pub postgres: bool,
    /// What the purse has.
    pub sat: u64,
}

/// All of it. Its parts end with it, in this order.
pub struct World {
    /// The guardians.
    pub federation: Federation,
    /// The purse, a wallet.
    pub client: Client,
    /// Reissues what the purse has given away.
    pub holder: Arc<Holder>,
    postgres: Option<Postgres>,
    _bitcoind: Bitcoind,
    /// The folder of it all.
    pub sandbox: Sandbox,
}

impl World {
    /// Sets it up, and fills the purse.
    pub async fn start(name: &str, setup: Setup) -> Result<Self> {
        let sandbox = Sandbox::new(name)?;
        let bitcoind = Bitcoind::start(&sandbox).await?;
        let (mut postgres, mut stores) = (None, vec![None; setup.guardians]);
        if setup.postgres {
            let server = Postgres::start(&sandbox).await?;
            for (at, store) in stores.iter_mut().enumerate() {
                *store = Some(server.create_database(&database(at)).await?);
            }
            postgres = Some(server);
        }
        let federation = Federation::start_on(&sandbox, &bitcoind, &stores).await?;
        let invite = federation.invite.parse().ok().context("the invite code can't be read")?;
        let folder = Folder::new(sandbox.path().join("wallet"));
        let words = folder.words_or_create()?;
        let client = Client::join(folder.database().await?, &words, &invite).await?;
        let address = client.deposit_address().await?;
        let to = address.address.parse::<bitcoin::Address<_>>()?;
        bitcoind.send(&to.require_network(bitcoin::Network::Regtest)?, setup.sat).await?;
        bitcoind.mine(2).await?;
        tokio::time::timeout(SOON, client.wait_deposit(&address, |_| {})).await??;
        let holder = Arc::new(Holder::new(&client));
        Ok(Self { federation, client, holder, postgres, _bitcoind: bitcoind, sandbox })
    }

    /// The guardian that was started as number `at`.
    pub fn guardian(&self, at: usize) -> Result<&Guardian> {
        self.federation.guardians.get(at).context("no such guardian")
    }

    /// Notes of the purse's money, many a transaction. Their numbers are those from `first` on.
    pub async fn notes(&self, first: u64, worths: &[Denomination]) -> Result<Vec<Note>> {
        let mut notes = Vec::new();
        for worths in worths.chunks(OUTPUTS) {
            let requests = self.holder.requests(first + notes.len() as u64, worths);
            let output = |request: &federation_mint::client::NoteRequest| {
                (request.output(self.holder.module()), Value::free(request.denomination.amount()))
            };
            let operation = rand::random::<[u8; 32]>();
            let outputs = requests.iter().map(output).collect();
            let txid = self.client.transact(operation, Vec::new(), outputs).await?;
            // The change of one pays for the next.
            self.client.settled(operation).await?;
            let outcomes = self.holder.ready(&self.guardian(0)?.url, txid).await?;
            notes.extend(self.holder.finish(&requests, &outcomes)?);
        }
        ensure!(notes.len() == worths.len(), "{} notes", notes.len());
        Ok(notes)
    }

    /// The sizes of a guardian's files, and of its database if that is elsewhere, by kind: see [`disk`].
    pub async fn disk(&mut self, at: usize) -> Result<BTreeMap<&'static str, u64>> {
        let guardian = self.federation.guardians.get_mut(at).context("no such guardian")?;
        let mut sizes = disk::of_stopped(guardian).await?;
        if let Some(postgres) = &self.postgres {
            sizes.insert(disk::STORE, postgres.size(&database(at)).await?);
        }
        self.federation.settled().await?;
        Ok(sizes)
    }

    /// All guardians say the same of what there is, and it is what the purse and `held` have. In msat.
    pub async fn conserved(&self, held: u64) -> Result<u64> {
        self.client.settle_all(SOON).await?;
        // The last notes' signatures may be on their way: an epoch that some guardians have applied and others not yet.
        let audit = wait_for("the same books in all guardians", SOON, || async {
            let audit = self.federation.audit().await?;
            for guardian in &self.federation.guardians {
                let other = guardian.get::<federation_core::rest::AuditResponse>("/v1/audit").await?;
                ensure!(
                    other.epoch != audit.epoch || other == audit,
                    "{} says {other:?}, but others {audit:?}",
                    guardian.process.name()
                );
                if other.epoch != audit.epoch {
                    return Ok(None);
                }
            }
            Ok(Some(audit))
        })
        .await?;
        let purse = self.client.balance().await?.msat();
        conserved(&audit, &[purse, held])?;
        Ok(purse + held)
    }
}

fn database(guardian: usize) -> String {
    format!("guardian{guardian}")
}
