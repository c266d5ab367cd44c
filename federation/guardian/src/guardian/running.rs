//! The life of the federation on this guardian: main loops, one after another.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use federation_consensus::links::{CHANNEL_SETUP, LinkEvent, Links};
use tokio::sync::mpsc;

use super::Guardian;
use super::resuming::answer_resuming;
use crate::api::Serving;
use crate::assemble;
use crate::epoch::main_loop::{Ended, MainLoop};
use crate::error::GuardianError;
use crate::history::snapshot::recover::{self, Need};
use crate::setup::keygen;
use crate::setup::stored::StoredSetup;

impl Guardian {
    /// Starts consensus, modules and main loop. The links of the setup are used on. If the state is to be had from the
    /// others, that goes on in the background.
    pub(super) async fn run_federation(
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
