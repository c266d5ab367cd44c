//! Tells the guardians of each federation about this gateway, again and again: an announcement is good for an hour.

use std::sync::Arc;
use std::time::Duration;

use federation_core::FederationId;
use federation_lightning::gateway::{LIFETIME, MAX_ALIAS};
use federation_lightning::{Announcement, GatewayInfo};

use crate::GatewayError;
use crate::gateway::Gateway;
use crate::store::now;

/// The first pause after a failure.
const SHORT_PAUSE: Duration = Duration::from_millis(500);
/// The longest.
const LONG_PAUSE: Duration = Duration::from_secs(60);
/// From this pause on an operator should know. Guardians that start along with this gateway are up sooner.
const ALARMING_PAUSE: Duration = Duration::from_secs(4);

impl Gateway {
    /// Runs as long as the federation is served.
    pub(crate) async fn announce_to(self: Arc<Self>, federation: FederationId) {
        let mut pause = SHORT_PAUSE;
        let mut news = self.news.subscribe();
        loop {
            news.borrow_and_update();
            let rest = match self.announce_once(federation).await {
                Ok(()) => {
                    pause = SHORT_PAUSE;
                    Duration::from_secs(LIFETIME / 2)
                }
                Err(GatewayError::UnknownFederation(_)) => return,
                Err(error) => {
                    if pause < ALARMING_PAUSE {
                        tracing::info!(%federation, %error, "the federation can't be told about this gateway yet");
                    } else {
                        tracing::warn!(%federation, %error, "the federation could not be told about this gateway");
                    }
                    let rest = pause;
                    pause = (pause * 2).min(LONG_PAUSE);
                    rest
                }
            };
            // New fees are told at once.
            if let Ok(Err(_)) = tokio::time::timeout(rest, news.changed()).await {
                return;
            }
        }
    }

    async fn announce_once(&self, id: FederationId) -> Result<(), GatewayError> {
        let federation = self.swaps.federation(&id)?;
        // Who would come in vain is not invited; what was announced ends by itself.
        if self.swaps.is_draining() {
            return Ok(());
        }
        let (node, fees, limits) =
            (self.swaps.node.info().await?, self.swaps.fees().await?, self.swaps.limits());
        let expires_at = now().as_secs().saturating_add(LIFETIME);
        let info = GatewayInfo {
            key: self.swaps.key(),
            alias: alias(&node.alias),
            api_url: self.api_url.clone(),
            node_id: node.node_id,
            send_fees: fees.send(),
            receive_fees: fees.receive(),
            min: limits.min,
            max: limits.max,
            expires_at,
        };
        federation.announce(&Announcement::sign(id, info, self.swaps.keypair())).await?;
        self.note_announced(id, expires_at);
        tracing::info!(federation = %id, "the federation's guardians know this gateway");
        Ok(())
    }
}

/// A node's name as an announcement takes it.
fn alias(name: &str) -> String {
    let mut alias = String::new();
    for c in name.chars().filter(|c| !c.is_control()) {
        if alias.len() + c.len_utf8() > MAX_ALIAS {
            break;
        }
        alias.push(c);
    }
    alias
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(alias("a\nb"), "ab");
        assert_eq!(alias(&"ü".repeat(20)), "ü".repeat(16));
        assert_eq!(alias(&format!("a{}", "ü".repeat(20))).len(), 31);
    }
}
