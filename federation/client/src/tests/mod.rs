//! The wallet against a federation in memory, with faults and restarts.

mod backup;
mod early;
mod engine;
mod lost;
mod mortal;
mod pay;
mod quorum;
mod restore;
mod restore_faults;
mod send;
mod tidy;

use std::sync::Arc;

use federation_core::Amount;
use federation_core::db::Database;

use crate::store::{RESERVED, SENT, UNFINISHED};
use crate::testing::World;
use crate::{Client, Words};

/// A wallet that can be restarted.
struct Wallet {
    world: Arc<World>,
    db: Arc<dyn Database>,
    words: Words,
    client: Client,
}

impl Wallet {
    async fn new(world: &Arc<World>) -> Self {
        let (db, words) = (federation_store::memory(), Words::generate().unwrap());
        let client = world.join(&db, &words).await;
        Self { world: world.clone(), db, words, client }
    }

    async fn with(world: &Arc<World>, msat: u64) -> Self {
        let wallet = Self::new(world).await;
        crate::testing::fund(&wallet.client, msat).await;
        wallet
    }

    /// As after `kill -9`: tasks are gone, and what was committed is there.
    async fn restart(&mut self) {
        self.client = self.world.open(&self.db, &self.words).await;
    }

    async fn balance(&self) -> u64 {
        self.client.balance().await.unwrap().msat()
    }

    async fn sent(&self) -> u64 {
        let notes = SENT.all(&*self.db).await.unwrap();
        notes.iter().map(|(_, held)| held.denomination.amount().msat()).sum()
    }

    /// Nothing is undecided and nothing is held back.
    async fn is_settled(&self) -> bool {
        RESERVED.all(&*self.db).await.unwrap().is_empty()
            && UNFINISHED.all(&*self.db).await.unwrap().is_empty()
    }
}

fn msat(msat: u64) -> Amount {
    Amount::from_msat(msat)
}
