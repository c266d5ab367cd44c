//! The guardian's side: [`LightningModule`].
//!
//! | file | what |
//! |---|---|
//! | `tables` | what is stored, and how much the contracts hold |
//! | `height` | the block height that guardians agree on |
//! | `outputs` | funding contracts |
//! | `inputs` | taking money out of them |
//! | `shares` | decrypting preimages |
//! | `registry` | gateways' announcements, outside consensus |
//! | `routes` | the REST endpoints |

mod height;
mod inputs;
mod module;
mod outputs;
mod registry;
mod routes;
mod shares;
mod tables;

use std::sync::Arc;

use federation_core::db::{Database, DbError};
use federation_core::module::Wake;
use federation_core::{FederationId, PeerId};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{LightningConfig, LightningSecret};
use registry::GatewayRegistry;

/// What the module is made from.
pub struct LightningParams {
    /// Which federation it belongs to.
    pub federation: FederationId,
    /// Which guardian this is.
    pub peer: PeerId,
    /// Keys and parameters of the federation.
    pub config: LightningConfig,
    /// This guardian's own.
    pub secret: LightningSecret,
    /// The height of the best chain that this guardian sees; 0 while it is unknown.
    pub height: watch::Receiver<u32>,
    /// Where this guardian keeps what is not consensus: gateways' announcements.
    pub local: Arc<dyn Database>,
    /// What the keys in `local` start with; nobody else's may.
    pub local_prefix: Vec<u8>,
    /// Called on a new height.
    pub wake: Wake,
}

/// The lightning module of one guardian.
pub struct LightningModule {
    federation: FederationId,
    peer: PeerId,
    config: LightningConfig,
    secret: Arc<LightningSecret>,
    height: watch::Receiver<u32>,
    gateways: GatewayRegistry,
    /// Counts commits, for those who wait for a contract's next state.
    commits: watch::Sender<u64>,
    waker: AbortHandle,
}

impl LightningModule {
    /// Starts the module. To be called within a tokio runtime.
    pub fn new(params: LightningParams) -> Self {
        let LightningParams { federation, peer, config, secret, height, local, local_prefix, wake } = params;
        let mut heights = height.clone();
        let waker = tokio::spawn(async move {
            while heights.changed().await.is_ok() {
                wake();
            }
        });
        Self {
            federation,
            peer,
            config,
            secret: Arc::new(secret),
            height,
            gateways: GatewayRegistry::new(federation, local, local_prefix),
            commits: watch::Sender::new(0),
            waker: waker.abort_handle(),
        }
    }
}

impl Drop for LightningModule {
    fn drop(&mut self) {
        self.waker.abort();
    }
}

/// Runs what takes milliseconds of a core where it keeps no other task waiting.
async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, DbError> {
    // It fails when the runtime shuts down (then nobody is left to care) or when `work` panics: to stop without a
    // commit is right in both cases.
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| DbError::Engine(format!("a computation did not finish: {error}")))
}
