//! The key generation among the guardians, and what is left of it after a crash.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use federation_consensus::links::{CHANNEL_SETUP, LinkEvent, Links};
use tokio::sync::mpsc;

use super::Guardian;
use crate::error::GuardianError;
use crate::setup::rounds::{Exchange, LINKS, Rounds};
use crate::setup::stored::StoredSetup;
use crate::setup::{SetupPhase, keygen};

impl Guardian {
    pub(super) fn spawn_generation(self: &Arc<Self>, setup: StoredSetup) {
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
