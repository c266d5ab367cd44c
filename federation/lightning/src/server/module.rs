//! The module as core knows it: what the other files do, put into its places.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::secp256k1::XOnlyPublicKey;
use federation_core::api::Route;
use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::module::{AuditLine, Epoch, ModuleError, Proposal, ServerModule, Value};
use federation_core::{OutPoint, PeerId};

use super::tables::{CONTRACTS, Direction, OUTPUTS, held};
use super::{LightningModule, height};
use crate::{
    ContractState, KIND, LightningInput, LightningItem, LightningOutcome, LightningOutput, PaymentHash,
};

/// How many blocks this guardian's own node may be behind the others' before it is an alarm.
const STALE_BLOCKS: u32 = 3;

#[async_trait]
impl ServerModule for LightningModule {
    type Input = LightningInput;
    type Output = LightningOutput;
    type Item = LightningItem;
    type Outcome = LightningOutcome;
    /// The hash of the input's preimage, if it has one.
    type Prepared = Option<PaymentHash>;

    fn kind(&self) -> &'static str {
        KIND
    }

    async fn propose(&self, db: &dyn Reader) -> Result<Proposal<LightningItem>, DbError> {
        let mut items = Vec::new();
        let seen = *self.height.borrow();
        if seen > height::voted(db, self.peer).await? {
            items.push(LightningItem::Height(seen));
        }
        let shares = self.own_shares(db).await?;
        if !shares.is_empty() {
            items.push(LightningItem::Shares(shares));
        }
        let opens_epoch = !items.is_empty();
        Ok(Proposal { items, opens_epoch })
    }

    async fn apply_item(
        &self,
        db: &mut Namespaced<'_>,
        _epoch: Epoch,
        from: PeerId,
        item: LightningItem,
    ) -> Result<(), ModuleError> {
        if usize::from(from.0) >= self.config.shares.len() {
            return Err(ModuleError::refused("unknown_guardian", "there is no guardian of this number"));
        }
        match item {
            LightningItem::Height(height) => {
                Ok(height::vote(db, self.config.shares.len(), from, height).await?)
            }
            LightningItem::Shares(shares) => self.accept_shares(db, from, shares).await,
        }
    }

    fn prepare(
        &self,
        inputs: &[(XOnlyPublicKey, LightningInput)],
    ) -> Vec<Result<Option<PaymentHash>, ModuleError>> {
        let hash = |input: &LightningInput| match input {
            LightningInput::ClaimOutgoing { preimage, .. } => Some(preimage.payment_hash()),
            _ => None,
        };
        inputs.iter().map(|(_, input)| Ok(hash(input))).collect()
    }

    async fn apply_input(
        &self,
        db: &mut Namespaced<'_>,
        _epoch: Epoch,
        key: XOnlyPublicKey,
        input: &LightningInput,
        prepared: &Option<PaymentHash>,
    ) -> Result<Value, ModuleError> {
        self.spend(db, key, input, *prepared).await
    }

    async fn apply_output(
        &self,
        db: &mut Namespaced<'_>,
        _epoch: Epoch,
        point: OutPoint,
        output: &LightningOutput,
    ) -> Result<Value, ModuleError> {
        self.fund(db, point, output).await
    }

    async fn end_epoch(&self, _db: &mut Namespaced<'_>, _epoch: Epoch) -> Result<(), DbError> {
        Ok(())
    }

    async fn committed(&self, _db: &dyn Reader, _epoch: Epoch) -> Result<(), DbError> {
        self.commits.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    async fn outcome(&self, db: &dyn Reader, point: OutPoint) -> Result<Option<LightningOutcome>, DbError> {
        let Some(id) = OUTPUTS.get(db, &point).await? else { return Ok(None) };
        let Some(record) = CONTRACTS.get(db, &id).await? else { return Ok(None) };
        Ok(match (record.direction(), record.state, record.preimage) {
            (Direction::Outgoing, _, _) => Some(LightningOutcome::Funded),
            (Direction::Incoming, ContractState::Funded, _) => None,
            (Direction::Incoming, _, Some(preimage)) => Some(LightningOutcome::Preimage { preimage }),
            (Direction::Incoming, _, None) => Some(LightningOutcome::Invalid),
        })
    }

    async fn audit(&self, db: &dyn Reader) -> Result<Vec<AuditLine>, DbError> {
        let mut lines = Vec::new();
        for (name, direction) in
            [("outgoing contracts", Direction::Outgoing), ("incoming contracts", Direction::Incoming)]
        {
            // More than i64::MAX msat is more than there will ever be.
            let held = i64::try_from(held(db, direction).await?.msat()).unwrap_or(i64::MAX);
            lines.push(AuditLine { name: name.to_owned(), amount_msat: -held });
        }
        Ok(lines)
    }

    fn config_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.config).unwrap_or_default()
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        super::routes::routes(self)
    }

    async fn alarms(&self, db: &dyn Reader) -> Result<Vec<String>, DbError> {
        let seen = *self.height.borrow();
        let agreed = height::agreed(db).await?;
        if seen.saturating_add(STALE_BLOCKS) > agreed {
            return Ok(Vec::new());
        }
        Ok(vec![format!(
            "this guardian's Bitcoin node is at block {seen}, the others are at {agreed}: check whether it is in sync"
        )])
    }
}
