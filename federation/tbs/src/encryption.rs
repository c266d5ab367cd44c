//! Threshold encryption with a label, secure against chosen ciphertexts.
//!
//! The scheme of Baek and Zheng ("Simple and efficient threshold cryptosystem from the Gap Diffie-Hellman group", 2003),
//! on a pairing of two groups and with a label, as in Shoup and Gennaro's TDH2:
//!
//! ```text
//! key          Y  = y·g2, shared as yᵢ with public shares yᵢ·g2
//! encrypt      U  = r·g2,  V = plaintext ⊕ KDF(r·Y, U),  W = r·H  with H = hash_to_g1(U, V, label)
//! valid        e(W, g2) = e(H, U)                       (who made W knew r for this label: nothing can be copied over)
//! share        Dᵢ = yᵢ·U,  right if e(H, Dᵢ) = e(W, yᵢ·g2)
//! decrypt      Σ λᵢ·Dᵢ = r·Y,  right if e(H, r·Y) = e(W, Y)
//! ```
//!
//! A guardian makes a share only of a ciphertext that is valid for the label it was given, so nobody gets another's
//! ciphertext decrypted under a label of their own.
//!
//! A plaintext is not authenticated beyond that: whoever encrypts chooses it. Whether it is what was promised (a preimage
//! of the right hash) is for the caller to check, *after* [`decrypt_checked`] has excluded wrong shares.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Write};

use borsh::{BorshDeserialize, BorshSerialize};
use hkdf::Hkdf;
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::curve::{Curve, Engine, G1, G2, Scalar};
use crate::error::{EncodingError, TbsError};
use crate::keys::{PublicKey, PublicKeyShare, SecretKeyShare};
use crate::lagrange;
use crate::wire::point_type;

/// The longest plaintext, in bytes.
pub const MAX_PLAINTEXT: usize = 64;

const DST: &[u8] = b"CLN-FEDERATION-V1-ENCRYPTION-BLS12381G1_XMD:SHA-256_SSWU_RO_";
const KDF_INFO: &[u8] = b"cln-federation/tbs/encryption/v1";

point_type! {
    /// The key that everybody encrypts to.
    EncryptionKey(G2)
}

impl From<&PublicKey> for EncryptionKey {
    fn from(key: &PublicKey) -> Self {
        Self(key.0.clone())
    }
}

point_type! {
    /// U: the ephemeral key of a ciphertext.
    EphemeralKey(G2)
}

point_type! {
    /// W: the proof that a ciphertext was made for its label.
    LabelProof(G1)
}

point_type! {
    /// One guardian's part of the decryption of one ciphertext.
    DecryptionShare(G2)
}

/// A ciphertext. Any that decodes is well-formed; whether it is valid depends on the label ([`Ciphertext::verify`]).
///
/// Borsh: 96 bytes, a u32 length (at most 64) and as many bytes, 48 bytes. Serde: an object of three hex strings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ciphertext {
    u: EphemeralKey,
    #[serde(with = "masked_hex")]
    v: Vec<u8>,
    w: LabelProof,
}

impl Ciphertext {
    /// Whether it was made for this label, by somebody who knew the plaintext. Two pairings.
    pub fn verify(&self, label: &[u8]) -> bool {
        self.valid_hash(label).is_ok()
    }

    /// Bytes of the plaintext, which every reader of the ciphertext sees.
    pub fn plaintext_len(&self) -> usize {
        self.v.len()
    }

    /// H, if the ciphertext is valid for the label.
    fn valid_hash(&self, label: &[u8]) -> Result<G1, TbsError> {
        let hash = hash(&self.u.0, &self.v, label);
        let valid = Curve::pairings_equal(&self.w.0, G2::generator(), &hash, &self.u.0);
        if valid { Ok(hash) } else { Err(TbsError::InvalidCiphertext) }
    }
}

/// H of U, V and the label. U has a fixed size and V is preceded by its own, so that nothing shifts between them.
fn hash(u: &G2, v: &[u8], label: &[u8]) -> G1 {
    let mut message = Vec::with_capacity(G2::SIZE + 8 + v.len() + label.len());
    message.extend_from_slice(&u.to_bytes());
    message.extend_from_slice(&(v.len() as u64).to_le_bytes());
    message.extend_from_slice(v);
    message.extend_from_slice(label);
    Curve::hash_to_g1(&message, DST)
}

/// `data` ⊕ KDF(r·Y, U). `data` has at most [`MAX_PLAINTEXT`] bytes; what is beyond would be cut off.
fn mask(data: &[u8], secret: &G2, u: &G2) -> Vec<u8> {
    let mut stream = Zeroizing::new([0; MAX_PLAINTEXT]);
    let secret = Zeroizing::new(secret.to_bytes());
    let u = u.to_bytes();
    // It fails only above 255 hash lengths, and this is two.
    if Hkdf::<Sha256>::new(None, secret.as_ref()).expand_multi_info(&[KDF_INFO, &u], stream.as_mut()).is_err()
    {
        return Vec::new();
    }
    data.iter().zip(stream.iter()).map(|(byte, key)| byte ^ key).collect()
}

/// Encrypts at most [`MAX_PLAINTEXT`] bytes, to be decrypted under this label only. The length is not hidden.
///
/// # Errors
/// [`TbsError::PlaintextTooLong`].
pub fn encrypt(
    key: &EncryptionKey,
    plaintext: &[u8],
    label: &[u8],
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<Ciphertext, TbsError> {
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(TbsError::PlaintextTooLong(plaintext.len()));
    }
    let mut r = Scalar::random(rng);
    while r.is_zero() {
        r = Scalar::random(rng);
    }
    let u = G2::generator().mul(&r);
    let v = mask(plaintext, &key.0.mul(&r), &u);
    let w = hash(&u, &v, label).mul(&r);
    Ok(Ciphertext { u: EphemeralKey(u), v, w: LabelProof(w) })
}

/// Guardian: its part of the decryption.
///
/// # Errors
/// [`TbsError::InvalidCiphertext`] if the ciphertext isn't valid for the label: then nothing may be revealed.
pub fn decryption_share(
    ciphertext: &Ciphertext,
    label: &[u8],
    share: &SecretKeyShare,
) -> Result<DecryptionShare, TbsError> {
    ciphertext.valid_hash(label)?;
    Ok(DecryptionShare(ciphertext.u.0.mul(&share.0)))
}

/// Whether a part is the one that belongs to this guardian's public share, and the ciphertext to the label.
pub fn verify_decryption_share(
    ciphertext: &Ciphertext,
    label: &[u8],
    share: &DecryptionShare,
    key: &PublicKeyShare,
) -> bool {
    ciphertext
        .valid_hash(label)
        .is_ok_and(|hash| Curve::pairings_equal(&ciphertext.w.0, &key.0, &hash, &share.0))
}

/// Decrypts with the first `threshold` shares, keyed by the guardians' 0-based indices, all of them verified with
/// [`verify_decryption_share`] before: a wrong one gives a wrong plaintext, which nothing here can tell.
///
/// # Errors
/// An invalid ciphertext, too few shares, a threshold or index that no federation has, shares that cancel out.
pub fn decrypt(
    ciphertext: &Ciphertext,
    label: &[u8],
    shares: &BTreeMap<u16, DecryptionShare>,
    threshold: usize,
) -> Result<Vec<u8>, TbsError> {
    ciphertext.valid_hash(label)?;
    let secret = combine(shares, threshold)?;
    Ok(mask(&ciphertext.v, &secret, &ciphertext.u.0))
}

/// As [`decrypt`], and checks what the shares combine to, all at once: two pairings instead of two a share.
///
/// # Errors
/// As [`decrypt`], and [`TbsError::WrongDecryptionShare`]: then [`verify_decryption_share`] tells whose.
pub fn decrypt_checked(
    ciphertext: &Ciphertext,
    label: &[u8],
    shares: &BTreeMap<u16, DecryptionShare>,
    threshold: usize,
    key: &EncryptionKey,
) -> Result<Vec<u8>, TbsError> {
    let hash = ciphertext.valid_hash(label)?;
    let secret = combine(shares, threshold)?;
    if !Curve::pairings_equal(&ciphertext.w.0, &key.0, &hash, &secret) {
        return Err(TbsError::WrongDecryptionShare);
    }
    Ok(mask(&ciphertext.v, &secret, &ciphertext.u.0))
}

fn combine(shares: &BTreeMap<u16, DecryptionShare>, threshold: usize) -> Result<G2, TbsError> {
    let secret = lagrange::combine(shares.iter().map(|(i, share)| (*i, &share.0)), threshold)?;
    if secret.is_identity() { Err(TbsError::Degenerate) } else { Ok(secret) }
}

impl BorshSerialize for Ciphertext {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        BorshSerialize::serialize(&self.u, writer)?;
        BorshSerialize::serialize(&self.v, writer)?;
        BorshSerialize::serialize(&self.w, writer)
    }
}

impl BorshDeserialize for Ciphertext {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let u = EphemeralKey::deserialize_reader(reader)?;
        let length = u32::deserialize_reader(reader)? as usize;
        if length > MAX_PLAINTEXT {
            return Err(Error::new(ErrorKind::InvalidData, TbsError::PlaintextTooLong(length)));
        }
        let mut v = vec![0; length];
        reader.read_exact(&mut v)?;
        let w = LabelProof::deserialize_reader(reader)?;
        Ok(Self { u, v, w })
    }
}

/// The masked plaintext as lowercase hexadecimal of bounded length.
mod masked_hex {
    use super::{EncodingError, MAX_PLAINTEXT, TbsError};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(v: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(v))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > 2 * MAX_PLAINTEXT {
            return Err(D::Error::custom(TbsError::PlaintextTooLong(text.len() / 2)));
        }
        let v = hex::decode(&text).map_err(|_| D::Error::custom(EncodingError::Hex))?;
        if hex::encode(&v) == text { Ok(v) } else { Err(D::Error::custom(EncodingError::Hex)) }
    }
}
