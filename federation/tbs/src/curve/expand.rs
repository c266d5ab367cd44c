//! The step of RFC 9380 from a message to uniform bytes, for the portable engine.

use bls12_381::hash_to_curve::{ExpandMessageState, InitExpandMessage};
use sha2::{Digest, Sha256};

/// `expand_message_xmd` with SHA-256 (RFC 9380, section 5.3.1). `bls12_381` has one of its own, for an older `sha2`.
#[derive(Debug)]
pub struct ExpandXmd {
    /// What hasn't been read yet, last byte first.
    reversed: Vec<u8>,
}

impl<'x> InitExpandMessage<'x> for ExpandXmd {
    type Expander = Self;

    fn init_expand(message: &[u8], dst: &'x [u8], len_in_bytes: usize) -> Self {
        let hashed: [u8; 32];
        let (dst, dst_len) = match u8::try_from(dst.len()) {
            Ok(len) => (dst, len),
            // A tag that one byte can't count is hashed (section 5.3.3).
            Err(_) => {
                hashed = Sha256::new().chain_update(b"H2C-OVERSIZE-DST-").chain_update(dst).finalize().into();
                (hashed.as_slice(), 32)
            }
        };
        let first = Sha256::new()
            .chain_update([0; 64])
            .chain_update(message)
            .chain_update((len_in_bytes as u16).to_be_bytes())
            .chain_update([0])
            .chain_update(dst)
            .chain_update([dst_len])
            .finalize();
        let mut bytes = Vec::with_capacity(len_in_bytes + 32);
        let mut block = [0_u8; 32];
        for number in 1..=u8::MAX {
            if bytes.len() >= len_in_bytes {
                break;
            }
            block.iter_mut().zip(&first).for_each(|(byte, first)| *byte ^= first);
            let hash = Sha256::new().chain_update(block).chain_update([number]);
            block = hash.chain_update(dst).chain_update([dst_len]).finalize().into();
            bytes.extend_from_slice(&block);
        }
        bytes.truncate(len_in_bytes);
        bytes.reverse();
        Self { reversed: bytes }
    }
}

impl ExpandMessageState<'_> for ExpandXmd {
    fn read_into(&mut self, output: &mut [u8]) -> usize {
        let rest = self.reversed.len().saturating_sub(output.len());
        let read = self.reversed.drain(rest..);
        let len = read.len();
        output.iter_mut().zip(read.rev()).for_each(|(to, from)| *to = from);
        len
    }

    fn remain(&self) -> usize {
        self.reversed.len()
    }
}
