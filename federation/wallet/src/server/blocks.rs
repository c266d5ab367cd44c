//! Which blocks are final for the federation.
//!
//! Guardians vote for (height, header) of blocks that are deep enough in their own chain. A header becomes final when n − f
//! voted for it and it builds on the last final one. Heights follow one another from the birthday on, so that every
//! block's Merkle root is agreed state and any deposit can be checked against it.

use std::collections::BTreeMap;

use bitcoin::BlockHash;
use federation_core::PeerId;
use federation_core::db::{DbError, Namespaced, Reader};
use federation_core::module::ModuleError;

use super::Wallet;
use super::tables::{FINAL, HEADERS, VOTES};
use crate::body::{BlockHeader, Item, MAX_HEADERS};

impl BlockHeader {
    pub(super) fn hash(&self) -> BlockHash {
        self.0.block_hash()
    }
}

/// The last final block; `None` in a young federation.
pub(super) async fn last_final(db: &dyn Reader) -> Result<Option<(u32, BlockHash)>, DbError> {
    let Some(height) = FINAL.get(db, &()).await? else { return Ok(None) };
    Ok(HEADERS.get(db, &height).await?.map(|header| (height, header.hash())))
}

impl Wallet {
    /// The first height that is not final.
    pub(super) fn next_height(&self, last: Option<(u32, BlockHash)>) -> u32 {
        last.map_or(self.config.birthday, |(height, _)| height.saturating_add(1))
    }

    /// Our vote, if our chain has final blocks that we did not vote for yet.
    pub(super) async fn propose_blocks(&self, db: &dyn Reader) -> Result<Option<Item>, DbError> {
        let last = last_final(db).await?;
        let next = self.next_height(last);
        let headers = self.view().deep_headers(next, self.config.params.finality);
        let first_links = match (last, headers.first()) {
            (Some((_, hash)), Some(first)) => first.0.prev_blockhash == hash,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        // Our node is on another branch than the federation: `alarms` says so.
        if !first_links {
            return Ok(None);
        }
        let voted: BTreeMap<u32, BlockHeader> = VOTES
            .all_under(db, &self.us)
            .await?
            .into_iter()
            .map(|((_, height), header)| (height, header))
            .collect();
        let news = (next..).zip(&headers).position(|(height, header)| voted.get(&height) != Some(header));
        let Some(skip) = news else { return Ok(None) };
        let height = next.saturating_add(u32::try_from(skip).unwrap_or(u32::MAX));
        Ok(Some(Item::Blocks { height, headers: headers.into_iter().skip(skip).collect() }))
    }

    /// Records a guardian's vote.
    pub(super) async fn apply_blocks(
        &self,
        db: &mut Namespaced<'_>,
        from: PeerId,
        height: u32,
        headers: &[BlockHeader],
    ) -> Result<(), ModuleError> {
        if headers.is_empty() || headers.len() > MAX_HEADERS {
            return Err(ModuleError::refused("bad_vote", "a vote names 1 to 144 blocks"));
        }
        let linked = headers.iter().zip(headers.iter().skip(1)).all(|(a, b)| b.0.prev_blockhash == a.hash());
        if !linked {
            return Err(ModuleError::refused("bad_vote", "the headers of a vote do not follow one another"));
        }
        let next = self.next_height(last_final(db).await?);
        // Who votes saw at most this state, so it cannot be further ahead.
        let most = u32::try_from(MAX_HEADERS).unwrap_or(u32::MAX);
        let count = u32::try_from(headers.len()).unwrap_or(u32::MAX);
        if height.saturating_add(count) > next.saturating_add(most) {
            return Err(ModuleError::refused("bad_vote", "a vote for a block too far ahead"));
        }
        for (height, header) in (height..).zip(headers).filter(|(height, _)| *height >= next) {
            VOTES.put(db, &(from, height), header);
        }
        Ok(())
    }

    /// Makes final what n − f guardians voted for.
    pub(super) async fn finalise_blocks(&self, db: &mut Namespaced<'_>) -> Result<(), DbError> {
        let mut last = last_final(db).await?;
        loop {
            let height = self.next_height(last);
            let votes = self.votes(db, height).await?;
            let winner = votes.values().find(|header| {
                votes.values().filter(|other| other == header).count() >= usize::from(self.config.threshold)
            });
            let Some(header) = winner.copied() else { return Ok(()) };
            if last.is_some_and(|(_, hash)| header.0.prev_blockhash != hash) {
                return Ok(());
            }
            HEADERS.put(db, &height, &header);
            FINAL.put(db, &(), &height);
            for peer in self.config.guardians.keys() {
                VOTES.delete(db, &(*peer, height));
            }
            last = Some((height, header.hash()));
        }
    }

    /// The votes for a height.
    async fn votes(&self, db: &dyn Reader, height: u32) -> Result<BTreeMap<PeerId, BlockHeader>, DbError> {
        let keys: Vec<_> = self.config.guardians.keys().map(|peer| (*peer, height)).collect();
        let votes = VOTES.get_many(db, &keys).await?;
        Ok(keys.into_iter().zip(votes).filter_map(|((peer, _), vote)| Some((peer, vote?))).collect())
    }

    /// What a status page should say about the chain.
    pub(super) async fn block_alarms(&self, db: &dyn Reader) -> Result<Vec<String>, DbError> {
        let mut alarms = Vec::new();
        let last = last_final(db).await?;
        let votes = self.votes(db, self.next_height(last)).await?;
        if let Some((height, hash)) = last {
            let ours = self.view().headers.get(&height).map(|header| header.block_hash());
            if ours.is_some_and(|ours| ours != hash) {
                alarms.push(format!(
                    "our Bitcoin node has another block at height {height} than the federation agreed on \
                     ({hash}): a reorganisation deeper than the finality, or a node on a wrong branch"
                ));
            }
            let strangers: Vec<String> = votes
                .iter()
                .filter(|(_, header)| header.0.prev_blockhash != hash)
                .map(|(peer, _)| peer.to_string())
                .collect();
            if !strangers.is_empty() {
                alarms.push(format!(
                    "guardians {} vote for blocks that do not build on the final block {height}",
                    strangers.join(", ")
                ));
            }
        }
        if votes.values().any(|header| votes.values().next() != Some(header)) {
            alarms.push(format!("guardians disagree about the block at height {}", self.next_height(last)));
        }
        Ok(alarms)
    }
}
