//! What the gateway decides: each decision is on disk before anyone acts on it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::hashes::{Hash, sha256};
use tokio::sync::mpsc;

use super::Hook;
use super::live::{LiveError, LiveFile, LiveInvoice, LiveState};
use super::resolver::PaymentHash;

/// After a start, lightningd asks again about held HTLCs within this time.
const REPLAY_TIME: Duration = Duration::from_secs(10);

/// Why a decision could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Nothing waits for it.
    #[error("nothing is held to this payment hash")]
    NotHeld,
    /// It can't be cancelled any more.
    #[error("it is settled")]
    Settled,
    /// The preimage's SHA-256 is another.
    #[error("the preimage does not belong to the payment hash")]
    WrongPreimage,
    /// The hash is in use with other terms.
    #[error("this payment hash is in use for another invoice")]
    Taken,
    /// lightningd may still ask again about its HTLCs.
    #[error("lightningd has just started: its HTLCs have not come back yet")]
    Starting,
    /// The file.
    #[error(transparent)]
    File(#[from] LiveError),
    /// [`Hook::load`] has not been called, or the process ends.
    #[error("the plugin is not running")]
    NotRunning,
}

impl Hook {
    /// Makes a payment hash live, from when this returns. For a hash that is open already with the same amount
    /// the existing invoice is returned: its secret counts.
    pub async fn register(self: &Arc<Self>, invoice: LiveInvoice) -> Result<LiveInvoice, HookError> {
        self.change(invoice.payment_hash, move |hook, file| {
            if let Some(known) = hook.resolver().get(&invoice.payment_hash) {
                let same = known.state == LiveState::Open && known.amount_msat == invoice.amount_msat;
                return if same { Ok(known.clone()) } else { Err(HookError::Taken) };
            }
            file.put(&invoice)?;
            hook.resolver().put(invoice.clone());
            Ok(invoice)
        })
        .await
    }

    /// Claims what is held. The preimage is on disk before the first HTLC is answered, and whatever lightningd forgets
    /// in a crash is claimed when it asks again.
    pub async fn settle(self: &Arc<Self>, hash: PaymentHash, preimage: [u8; 32]) -> Result<(), HookError> {
        if sha256::Hash::hash(&preimage).to_byte_array() != hash {
            return Err(HookError::WrongPreimage);
        }
        self.change(hash, move |hook, file| {
            let Some(mut invoice) = hook.resolver().get(&hash).cloned() else {
                return Err(HookError::NotHeld);
            };
            let parts = match &invoice.state {
                LiveState::Settled { .. } => return Ok(()),
                LiveState::Open => return Err(HookError::NotHeld),
                LiveState::Held { parts } => parts.clone(),
            };
            if hook.resolver().parts(&hash).is_empty() {
                let early = hook.started.elapsed() < REPLAY_TIME;
                return Err(if early { HookError::Starting } else { HookError::NotHeld });
            }
            invoice.state = LiveState::Settled { preimage, parts, at: unix_now() };
            file.put(&invoice)?;
            let answers = {
                let mut resolver = hook.resolver();
                resolver.put(invoice);
                resolver.claim(&hash)
            };
            hook.send(answers);
            Ok(())
        })
        .await?;
        self.output.drained().await;
        Ok(())
    }

    /// Fails what is held and forgets the invoice. Cancelling what is unknown is `Ok`.
    pub async fn cancel(self: &Arc<Self>, hash: PaymentHash) -> Result<(), HookError> {
        self.change(hash, move |hook, file| {
            match hook.resolver().get(&hash).map(|invoice| &invoice.state) {
                None => return Ok(()),
                Some(LiveState::Settled { .. }) => return Err(HookError::Settled),
                Some(_) => {}
            }
            file.remove(hash)?;
            let answers = hook.resolver().remove(&hash);
            hook.send(answers);
            Ok(())
        })
        .await
    }

    /// Forgets a set that was failed at its deadline.
    pub(super) async fn forget(self: &Arc<Self>, hash: PaymentHash) -> Result<(), HookError> {
        self.change(hash, move |hook, file| {
            // A preimage that has come in the meantime is worth keeping: lightningd may ask again.
            if let Some(LiveState::Settled { .. }) = hook.resolver().get(&hash).map(|invoice| &invoice.state)
            {
                return Ok(());
            }
            file.remove(hash)?;
            let answers = hook.resolver().remove(&hash);
            hook.send(answers);
            Ok(())
        })
        .await
    }

    /// Writes complete sets down, and only then lets the gateway see them.
    pub(super) async fn write_completed(self: Arc<Self>, mut complete: mpsc::UnboundedReceiver<PaymentHash>) {
        while let Some(hash) = complete.recv().await {
            let written = self.change(hash, move |hook, file| {
                let (mut invoice, parts) = {
                    let resolver = hook.resolver();
                    // Given up or cancelled since.
                    if !resolver.is_complete(&hash) {
                        return Ok(());
                    }
                    let Some(invoice) = resolver.get(&hash).cloned() else { return Ok(()) };
                    (invoice, resolver.parts(&hash))
                };
                invoice.state = LiveState::Held { parts };
                file.put(&invoice)?;
                hook.resolver().put(invoice);
                Ok(())
            });
            if let Err(error) = written.await {
                // Not on disk, so never reported and never funded: failing it back costs nothing.
                tracing::error!("a payment was failed because it could not be written down: {error}");
                let answers = self.resolver().fail_set(&hash);
                self.send(answers);
            }
        }
    }

    /// Runs a change on a thread that may wait for the disk, one after the other. It is carried through
    /// even if the caller goes away.
    async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        hash: PaymentHash,
        change: impl FnOnce(&Hook, &mut LiveFile) -> Result<T, HookError> + Send + 'static,
    ) -> Result<T, HookError> {
        let hook = self.clone();
        let mut file = self.file.clone().lock_owned().await;
        let work = tokio::task::spawn_blocking(move || {
            let result = change(&hook, file.as_mut().ok_or(HookError::NotRunning)?);
            hook.changed();
            result
        });
        work.await.unwrap_or_else(|error| {
            tracing::error!(
                payment_hash = hex::encode(hash),
                "a change of a held payment broke off: {error}"
            );
            Err(HookError::NotRunning)
        })
    }
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
