//! Padding and encryption.
//!
//! A sealed backup is a nonce of 24 bytes and the ciphertext of: format (1 byte), length (4 bytes, big-endian), content, zeros.
//! Federation and version are authenticated along with it.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use federation_core::FederationId;
use federation_core::backup::MAX_SEALED;
use rand::RngCore as _;
use zeroize::Zeroizing;

use super::BackupKeys;
use crate::{ClientError, Result};

/// The sizes of sealed backups.
const SIZES: [usize; 4] = [1 << 10, 4 << 10, 16 << 10, MAX_SEALED];
const NONCE: usize = 24;
const HEAD: usize = 5;
/// All that is no content: nonce, head, authentication tag.
const OVERHEAD: usize = NONCE + HEAD + 16;
/// The longest content.
pub(super) const MAX_CONTENT: usize = MAX_SEALED - OVERHEAD;
/// The only format there is.
const FORMAT: u8 = 1;

fn context(federation: FederationId, version: u64) -> Vec<u8> {
    [federation.0.as_slice(), &version.to_be_bytes()].concat()
}

/// Seals a content of at most [`MAX_CONTENT`] bytes.
pub(super) fn seal(
    keys: &BackupKeys,
    federation: FederationId,
    version: u64,
    content: &[u8],
) -> Result<Vec<u8>> {
    let too_large = || ClientError::Internal(format!("a backup of {} bytes", content.len()));
    let size = content.len().saturating_add(OVERHEAD);
    let size = SIZES.into_iter().find(|fits| *fits >= size).ok_or_else(too_large)?;
    let length = u32::try_from(content.len()).map_err(|_| too_large())?;
    let mut plain = Zeroizing::new(Vec::with_capacity(size));
    plain.push(FORMAT);
    plain.extend_from_slice(&length.to_be_bytes());
    plain.extend_from_slice(content);
    plain.resize(size.saturating_sub(NONCE + 16), 0);
    let mut nonce = [0; NONCE];
    rand::rngs::OsRng.fill_bytes(&mut nonce);
    let payload = Payload { msg: &plain, aad: &context(federation, version) };
    let sealed = XChaCha20Poly1305::new(keys.sealing.as_slice().into())
        .encrypt(XNonce::from_slice(&nonce), payload)
        .map_err(|_| too_large())?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// The content; `None`: not sealed by these words, for another version, or in a newer format.
pub(super) fn open(
    keys: &BackupKeys,
    federation: FederationId,
    version: u64,
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    let payload = Payload { msg: sealed, aad: &context(federation, version) };
    let plain = XChaCha20Poly1305::new(keys.sealing.as_slice().into())
        .decrypt(XNonce::from_slice(nonce), payload)
        .ok()?;
    let plain = Zeroizing::new(plain);
    let (format, rest) = plain.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    (*format == FORMAT).then(|| rest.get(..length).map(|content| Zeroizing::new(content.to_vec())))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEDERATION: FederationId = FederationId([1; 32]);

    fn keys(byte: u8) -> BackupKeys {
        BackupKeys::derive(&[byte; 64], FEDERATION).unwrap()
    }

    #[test]
    fn only_the_words_open_it() {
        let sealed = seal(&keys(1), FEDERATION, 7, b"content").unwrap();
        assert_eq!(open(&keys(1), FEDERATION, 7, &sealed).unwrap().as_slice(), b"content");
        assert!(open(&keys(2), FEDERATION, 7, &sealed).is_none());
        assert!(open(&keys(1), FEDERATION, 8, &sealed).is_none());
        assert!(open(&keys(1), FederationId([2; 32]), 7, &sealed).is_none());
        for place in [0, 30, sealed.len() - 1] {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            assert!(open(&keys(1), FEDERATION, 7, &damaged).is_none());
        }
        assert!(open(&keys(1), FEDERATION, 7, &[]).is_none());
    }

    #[test]
    fn the_length_says_little() {
        for length in [0, 1, 500, 979, 980, 4000, 10_000, 60_000, MAX_CONTENT] {
            let content = vec![3; length];
            let sealed = seal(&keys(1), FEDERATION, 1, &content).unwrap();
            assert!(SIZES.contains(&sealed.len()), "{length}: {}", sealed.len());
            assert_eq!(*open(&keys(1), FEDERATION, 1, &sealed).unwrap(), content);
        }
        assert!(seal(&keys(1), FEDERATION, 1, &vec![0; MAX_CONTENT + 1]).is_err());
    }
}
