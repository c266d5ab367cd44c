//! What a round ends with: old epochs are forgotten, peers are told what this guardian has to say, and operators how it is.

use std::collections::BTreeSet;
use std::io;

use super::{ASK_AGAIN, Core, KEEP, KEEP_MOST};
use crate::links::{CHANNEL_CONSENSUS, lock};
use crate::max_faulty;
use crate::runner::network::Network;
use crate::runner::statement::Statement;

impl<N: Network> Core<N> {
    /// Forgets epochs that nobody needs this guardian for: n - f have signed them (so that f + 1 honest ones give them to the
    /// others as history), and all have them, or 2f + 1 have and they are old. Never one that isn't committed: until then
    /// its inputs are what keeps this guardian from contradicting itself after a crash.
    pub(super) fn prune(&mut self) -> io::Result<()> {
        let history = self.finality.last_complete().map_or(0, |epoch| epoch.saturating_add(1));
        self.peers.values_mut().for_each(|peer| peer.outbox.is_history(history));
        let mut next: Vec<u64> = self.peers.values().map(|peer| peer.outbox.next().unwrap_or(0)).collect();
        next.push(self.committed);
        next.sort_unstable_by(|a, b| b.cmp(a));
        let all = next.last().copied().unwrap_or(0);
        let enough = next.get(2 * max_faulty(self.config.n) as usize).copied().unwrap_or(0);
        let below = all
            .max(enough.min(self.committed.saturating_sub(KEEP)))
            .min(history)
            .max(self.committed.saturating_sub(KEEP_MOST))
            .min(self.committed);
        if below > self.engine.base() {
            self.engine.prune(below);
            self.journal.truncate(below)?;
            self.speech.forget(below);
            self.peers.values_mut().for_each(|peer| peer.forget(below));
        }
        Ok(())
    }

    /// Tells every connected peer where this guardian is and what it has signed, then what the engine says.
    pub(super) fn say(&mut self) {
        let mut partners = BTreeSet::new();
        for (id, connects) in self.network.connections() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let now = (self.committed, self.announced, connects);
            if peer.told != Some(now) {
                let before = peer.told.filter(|(.., connection)| *connection == connects);
                let signed: Vec<_> = match before {
                    Some((signed, ..)) => {
                        (signed..self.committed).filter_map(|e| self.finality.own_signature(e)).collect()
                    }
                    None => self.finality.own_signatures(),
                };
                let statements = signed.into_iter().map(Statement::Signed);
                let next = before.is_none_or(|(_, next, _)| next != self.announced);
                let mut all = statements.chain(next.then_some(Statement::Next(self.announced)));
                if all.all(|said| self.network.send(id, CHANNEL_CONSENSUS, said.encode())) {
                    peer.told = Some(now);
                }
            }
            if self.speech.is_settled() && peer.told == Some(now) {
                peer.outbox.flush(&self.network, id, self.config.window);
            }
            let at = self.committed.saturating_sub(1)..=self.committed;
            if peer.outbox.next().is_some_and(|next| at.contains(&next)) {
                partners.insert(id);
            }
        }
        self.gather.partners(partners);
    }

    /// Asks the peers that know where this guardian is what they have heard of it.
    pub(super) fn ask(&mut self) {
        let again = self.ticks.is_multiple_of(ASK_AGAIN);
        for (id, connects) in self.network.connections() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let told = peer.told.is_some_and(|(.., connection)| connection == connects);
            if told
                && !self.speech.has_answered(id)
                && (peer.asked != Some(connects) || again)
                && self.network.send(id, CHANNEL_CONSENSUS, Statement::Ask(self.life).encode())
            {
                peer.asked = Some(connects);
            }
        }
    }

    /// Whether epochs are fetched that are there for certain: one liar's word is none.
    fn is_behind(&self) -> bool {
        let ahead = || self.peers.values().filter(|peer| peer.outbox.next() > Some(self.emitted)).count();
        self.catchup.active()
            && (self.catchup.has_proof()
                || ahead() > max_faulty(self.config.n) as usize
                || self.finality.is_final_beyond(self.emitted))
    }

    pub(super) fn publish(&self) {
        let mut status = lock(&self.status);
        status.next_epoch = self.committed;
        status.next_output = self.emitted;
        status.speaks_from = if self.speech.is_settled() { self.speaks_from } else { u64::MAX };
        status.catching_up = self.is_behind();
        status.last_final = self.finality.last_final();
        status.diverged = self.finality.diverged();
        for (id, peer) in &self.peers {
            let shown = status.peers.entry(*id).or_default();
            shown.next_epoch = peer.outbox.next();
            if let Some(faults) = self.faults.get(id) {
                shown.faults.clone_from(faults);
            }
        }
    }
}
