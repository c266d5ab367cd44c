//! Lies beside the engine's frames: how far one is, what one has signed, what one has heard, what has been.

use std::collections::BTreeMap;

use federation_consensus::engine::epoch_of;
use federation_consensus::{Bytes, Header, max_faulty};
use rand::Rng;

use super::{Adversary, Lie};

impl Adversary {
    /// `epoch u64 · 0xffff · kind u8 · body`.
    pub(super) fn twist_statement(&mut self, frame: Bytes) -> Bytes {
        let mut bytes = frame.to_vec();
        let epoch = epoch_of(&frame).unwrap_or(0);
        match frame.get(10) {
            Some(1) if self.feels_like(Lie::FalseNext) => {
                bytes[..8].copy_from_slice(&self.epoch_near(epoch).to_be_bytes());
            }
            Some(2) if self.feels_like(Lie::FalseSignature) => {
                if self.rng.gen_bool(0.3) {
                    bytes[..8].copy_from_slice(&self.epoch_near(epoch).to_be_bytes());
                }
                let at = self.rng.gen_range(11..bytes.len());
                bytes[at] ^= 1;
            }
            Some(4) if self.feels_like(Lie::ThinProof) => return self.thin_proof(frame),
            Some(4) if self.feels_like(Lie::FalseHeard) => return self.false_heard(bytes),
            _ => return frame,
        }
        bytes.into()
    }

    /// Of f + 1 signatures one is its own, so that one honest guardian may have the epoch and nobody be able to prove it.
    fn thin_proof(&self, frame: Bytes) -> Bytes {
        let Some((header, signatures)) = &self.proof else { return frame };
        let others =
            signatures.iter().filter(|(node, _)| **node != self.me).take(max_faulty(self.n) as usize);
        let few: BTreeMap<_, _> =
            signatures.iter().filter(|(node, _)| **node == self.me).chain(others).collect();
        let mut out = (header.epoch + 1).to_be_bytes().to_vec();
        out.extend_from_slice(&frame[8..19]);
        out.push(1);
        out.extend(header.encode());
        out.extend((few.len() as u16).to_be_bytes());
        for (node, signature) in few {
            out.extend(node.to_be_bytes());
            out.extend(signature);
        }
        out.into()
    }

    /// `base · mark · 4 · life · a final header or not · (epoch · id · tag)*`: forgets what it has heard, or makes up more.
    fn false_heard(&mut self, mut bytes: Vec<u8>) -> Bytes {
        const FRAME: usize = 8 + 8 + 8;
        let mut base = u64::from_be_bytes(bytes[..8].try_into().unwrap());
        let signatures = bytes.get(20 + Header::SIZE..).and_then(|rest| rest.first_chunk::<2>());
        let signatures = signatures.map_or(0, |count| u16::from_be_bytes(*count) as usize);
        let frames = 20 + if bytes[19] == 1 { Header::SIZE + 2 + 66 * signatures } else { 0 };
        let latest = bytes.get(frames..).and_then(|frames| frames.chunks_exact(FRAME).last());
        let latest =
            latest.and_then(|frame| frame.first_chunk::<8>()).map_or(base, |e| u64::from_be_bytes(*e));
        match self.rng.gen_range(0..4) {
            0 => bytes.truncate(frames),
            1 => base = self.epoch_near(base),
            2 if bytes.len() > frames => {
                // A right tag for another frame, or epoch.
                let at = self.rng.gen_range(frames..bytes.len());
                bytes[at] ^= 1;
            }
            _ => {
                for _ in 0..self.rng.gen_range(1..20) {
                    let epoch = latest.min(1 << 40) + self.rng.gen_range(0..5);
                    bytes.extend_from_slice(&epoch.to_be_bytes());
                    bytes.extend((0..16).map(|_| self.rng.r#gen::<u8>()));
                }
            }
        }
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes.into()
    }

    pub(super) fn twist_answer(&mut self, frame: &Bytes) -> Vec<Bytes> {
        let mut bytes = frame.to_vec();
        match self.rng.gen_range(0..5) {
            0 => Vec::new(),
            1 => {
                // Pretends that all of it is gone.
                let mut begins = vec![2];
                let first = self.rng.gen_range(0..40u64);
                begins.extend_from_slice(&first.to_be_bytes());
                vec![begins.into()]
            }
            2 => vec![self.garble(frame)],
            _ => {
                // Another batch, header or signature.
                if bytes.len() > 1 {
                    let at = self.rng.gen_range(1..bytes.len());
                    bytes[at] = bytes[at].wrapping_add(1);
                }
                vec![bytes.into()]
            }
        }
    }
}
