//! A proposal cut into n shards of which any n - 2f give it back (Reed–Solomon over GF(2^8)).
//!
//! The coded bytes are the proposal's 32-bit length, the proposal, and zeros up to a multiple of
//! n - 2f. All shards are slices of one buffer, and so is the proposal: nothing is copied twice.

use bytes::Bytes;
use reed_solomon_erasure::galois_8::ReedSolomon;

use crate::max_faulty;

const PREFIX: usize = 4;

/// The code of a federation of n.
#[derive(Debug)]
pub struct Coding {
    data: usize,
    total: usize,
    /// Without faults to tolerate (n < 4) there is no parity, and nothing to compute.
    code: Option<ReedSolomon>,
}

impl Coding {
    /// The code for `n` guardians, 1 to 255.
    #[must_use]
    pub fn new(n: u16) -> Self {
        let (total, parity) = (n as usize, 2 * max_faulty(n) as usize);
        let data = total - parity;
        let code = if parity == 0 { None } else { ReedSolomon::new(data, parity).ok() };
        Self { data, total, code }
    }

    /// How long each shard of a proposal of `len` bytes is.
    #[must_use]
    pub const fn shard_len(&self, len: usize) -> usize {
        len.saturating_add(PREFIX).div_ceil(self.data)
    }

    /// The n shards of `value`, which is shorter than 4 GiB.
    #[must_use]
    pub fn encode(&self, value: &[u8]) -> Vec<Bytes> {
        let shard = self.shard_len(value.len());
        let mut buffer = Vec::with_capacity(shard * self.total);
        buffer.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        buffer.extend_from_slice(value);
        buffer.resize(shard * self.total, 0);
        self.finish(buffer, shard).1
    }

    /// All n shards and the value, from at least n - 2f shards of one length, by index.
    ///
    /// `None` if there are too few, their lengths differ, or the length written inside is wrong. The
    /// caller has to compare the root of the returned shards with the committed one: only then
    /// is it certain that everyone else decodes the same value, whichever shards they have.
    #[must_use]
    pub fn decode(&self, shards: &[(u16, Bytes)]) -> Option<(Vec<Bytes>, Bytes)> {
        let shard = shards.first()?.1.len();
        if shard == 0 || shards.iter().any(|(_, s)| s.len() != shard) {
            return None;
        }
        if shards.iter().any(|(index, _)| *index as usize >= self.total) {
            return None;
        }
        let mut buffer = Vec::with_capacity(shard * self.total);
        let data: Option<Vec<&Bytes>> = (0..self.data)
            .map(|at| shards.iter().find(|(index, _)| *index as usize == at).map(|(_, bytes)| bytes))
            .collect();
        if let Some(data) = data {
            data.into_iter().for_each(|bytes| buffer.extend_from_slice(bytes));
        } else {
            let mut slots: Vec<Option<Vec<u8>>> = vec![None; self.total];
            for (index, bytes) in shards {
                *slots.get_mut(*index as usize)? = Some(bytes.to_vec());
            }
            self.code.as_ref()?.reconstruct_data(&mut slots).ok()?;
            for slot in slots.iter().take(self.data) {
                buffer.extend_from_slice(slot.as_ref()?);
            }
        }
        buffer.resize(shard * self.total, 0);
        let (buffer, shards) = self.finish(buffer, shard);
        let (prefix, rest) = buffer.split_at_checked(PREFIX)?;
        let len = u32::from_be_bytes(prefix.try_into().ok()?) as usize;
        let room = (shard * self.data).checked_sub(PREFIX)?;
        // The one encoding only: as many shards' bytes as needed, and zeros behind.
        if len > room || self.shard_len(len) != shard || rest.get(len..room)?.iter().any(|b| *b != 0) {
            return None;
        }
        Some((shards, buffer.slice(PREFIX..PREFIX + len)))
    }

    /// Fills in the parity and cuts the buffer.
    fn finish(&self, mut buffer: Vec<u8>, shard: usize) -> (Bytes, Vec<Bytes>) {
        if let Some(code) = &self.code {
            let (data, parity) = buffer.split_at_mut(shard * self.data);
            let data: Vec<&[u8]> = data.chunks_exact(shard).collect();
            let mut parity: Vec<&mut [u8]> = parity.chunks_exact_mut(shard).collect();
            // Fails on wrong counts and lengths only, and both are fixed three lines above.
            let coded = code.encode_sep(&data, &mut parity);
            debug_assert!(coded.is_ok());
        }
        let buffer = Bytes::from(buffer);
        let shards = (0..self.total).map(|i| buffer.slice(i * shard..(i + 1) * shard)).collect();
        (buffer, shards)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_enough_shards_decode(n in 1u16..=20, value in proptest::collection::vec(any::<u8>(), 0..300), skip in 0usize..20) {
            let coding = Coding::new(n);
            let shards = coding.encode(&value);
            prop_assert_eq!(shards.len(), n as usize);
            let need = (n - 2 * max_faulty(n)) as usize;
            let some: Vec<_> = (0..n).map(|i| (i + skip as u16) % n).take(need).map(|i| (i, shards[i as usize].clone())).collect();
            let (again, decoded) = coding.decode(&some).unwrap();
            prop_assert_eq!(&decoded[..], &value[..]);
            prop_assert_eq!(again, shards);
            prop_assert!(coding.decode(&some[1..]).is_none());
        }
    }
}
