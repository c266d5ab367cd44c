//! The wallet of one user in one federation.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::Keypair;
use borsh::BorshDeserialize;
use federation_core::config::ConsensusConfig;
use federation_core::db::Database;
use federation_core::invite::InviteCode;
use federation_core::module::Value;
use federation_core::{Amount, FederationId, Input, OutPoint, Output, TxId};

use crate::{ClientError, Result};

/// Twelve BIP-39 words; wiped when dropped.
#[derive(Clone)]
pub struct Words(zeroize::Zeroizing<String>);

impl Words {
    /// Twelve fresh words.
    pub fn generate() -> Result<Self> {
        Err(stub())
    }
    /// Words typed by a person.
    pub fn parse(text: &str) -> Result<Self> {
        let _ = text;
        Err(stub())
    }
}

/// A wallet; clones are cheap and share everything.
#[derive(Clone)]
pub struct Client {
    _inner: Arc<()>,
}

fn stub() -> ClientError {
    ClientError::Internal("not written yet".to_owned())
}

impl Client {
    /// Joins a federation: fetches its configuration, checks it against the invite's id, saves it into `db` and opens
    /// the wallet. Joining the same federation again just opens it. Every key is derived from the words and the federation.
    pub async fn join(_db: Arc<dyn Database>, _words: &Words, _invite: &InviteCode) -> Result<Self> {
        Err(stub())
    }

    /// Opens the wallet in `db`, which has joined before, and goes on with everything that is unfinished.
    pub async fn open(_db: Arc<dyn Database>, _words: &Words) -> Result<Self> {
        Err(stub())
    }

    /// The federation's id.
    pub fn federation_id(&self) -> FederationId {
        FederationId([0; 32])
    }

    /// The verified configuration.
    pub fn config(&self) -> &ConsensusConfig {
        unreachable!()
    }

    /// What can be spent now: notes that are in no unfinished operation.
    pub async fn balance(&self) -> Result<Amount> {
        Err(stub())
    }

    /// Makes one transaction of `inputs`, own notes as needed, `outputs`, and change into own notes; returns when the
    /// federation has accepted it.
    ///
    /// `operation_id` is the caller's idempotency key: a second call with the same one (after a crash too) makes nothing
    /// new, whatever the other arguments, and returns the same txid or the same refusal. The caller's outputs are the
    /// transaction's first ones, in the order given, so that `outputs[i]` is output `i`. `inputs` may be worth more than
    /// `outputs`: all that is left becomes notes (claiming a contract is an input and no output). Each [`Value`] is what the
    /// module will say: amount, and fee on top.
    ///
    /// # Errors
    /// [`ClientError::Rejected`]: refused for good, own notes are free again; a new try needs a new `operation_id`.
    /// [`ClientError::InsufficientFunds`], [`ClientError::TooManyNotes`]: nothing was written.
    /// [`ClientError::Unreachable`]: it is saved and goes on by itself, at the latest when the wallet is opened again; call again to wait.
    pub async fn transact(
        &self,
        _operation_id: [u8; 32],
        _inputs: Vec<(Input, Keypair, Value)>,
        _outputs: Vec<(Output, Value)>,
    ) -> Result<TxId> {
        Err(stub())
    }

    /// The transaction of an operation that [`transact`](Self::transact) was called for, whatever its state; `None`: never begun.
    pub async fn transaction(&self, _operation_id: [u8; 32]) -> Result<Option<TxId>> {
        Err(stub())
    }

    /// Waits until all change of an operation is in the balance (the acceptance comes an epoch earlier).
    pub async fn settled(&self, _operation_id: [u8; 32]) -> Result<()> {
        Err(stub())
    }

    /// What became of an output, as f + 1 guardians say: its module's outcome type. `None`: not yet, after `wait`.
    pub async fn outcome<T: BorshDeserialize>(
        &self,
        _point: OutPoint,
        _wait: Duration,
    ) -> Result<Option<T>> {
        Err(stub())
    }

    /// The JSON that f + 1 guardians give for `GET /v1/modules/{kind}/{path}?{query}`.
    pub async fn module_get<T: serde::de::DeserializeOwned>(
        &self,
        _kind: &str,
        _path: &str,
        _query: &[(&str, String)],
    ) -> Result<T> {
        Err(stub())
    }

    /// Hands the same body to every guardian's `POST /v1/modules/{kind}/{path}`; good when `n − f` took it.
    pub async fn module_post_all(&self, _kind: &str, _path: &str, _body: &serde_json::Value) -> Result<()> {
        Err(stub())
    }

    /// A secret key of the wallet for a purpose of the caller, from the words: `purpose` names the use, `index` counts within it.
    /// Derived by HKDF-SHA256 separately from all keys of the wallet's own.
    pub fn derive_key(&self, _purpose: &str, _index: u64) -> Result<Keypair> {
        Err(stub())
    }
}
