//! The canonical byte encoding: borsh, with a size limit and no trailing bytes.
//!
//! Bitcoin types go through their own consensus encoding ([`bitcoin_bytes`]), keys through their
//! standard byte form ([`xonly`], [`public_key`]).

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256};
use borsh::{BorshDeserialize, BorshSerialize};

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than the reader accepts.
    #[error("{size} bytes, but at most {limit} are accepted here")]
    TooLarge {
        /// The size that was met.
        size: usize,
        /// The limit of this reader.
        limit: usize,
    },
    /// Not the encoding of the wanted type, or bytes left over.
    #[error("not a valid encoding: {0}")]
    Invalid(String),
}

/// The canonical bytes of a value.
pub fn encode<T: BorshSerialize + ?Sized>(value: &T) -> Vec<u8> {
    // Writing to a Vec cannot fail; a length over u32::MAX would be the only error, and no value of
    // this project comes near it.
    borsh::to_vec(value).unwrap_or_default()
}

/// Reads a value that takes up all of `bytes`, which must be no longer than `limit`.
pub fn decode<T: BorshDeserialize>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { size: bytes.len(), limit });
    }
    T::try_from_slice(bytes).map_err(|error| DecodeError::Invalid(error.to_string()))
}

/// BIP-340's tagged hash: `SHA-256(SHA-256(tag) ‖ SHA-256(tag) ‖ part₀ ‖ part₁ …)`.
///
/// Parts are joined as they are; a caller with parts of variable length encodes their lengths.
pub fn tagged_hash(tag: &str, parts: &[&[u8]]) -> [u8; 32] {
    let tag = sha256::Hash::hash(tag.as_bytes());
    let mut engine = sha256::Hash::engine();
    engine.input(tag.as_byte_array());
    engine.input(tag.as_byte_array());
    for part in parts {
        engine.input(part);
    }
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// For `#[borsh(serialize_with, deserialize_with)]`: a type of rust-bitcoin by its consensus encoding,
/// behind a length.
pub mod bitcoin_bytes {
    use bitcoin::consensus::{Decodable, Encodable, deserialize, serialize};
    use borsh::io::{Error, ErrorKind, Read, Result, Write};
    use borsh::{BorshDeserialize, BorshSerialize};

    /// Writes the consensus encoding behind its length.
    pub fn to<T: Encodable, W: Write>(value: &T, writer: &mut W) -> Result<()> {
        serialize(value).serialize(writer)
    }

    /// Reads what [`to`] wrote.
    pub fn from<T: Decodable, R: Read>(reader: &mut R) -> Result<T> {
        let bytes = Vec::<u8>::deserialize_reader(reader)?;
        deserialize(&bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error.to_string()))
    }
}

/// For `#[borsh(serialize_with, deserialize_with)]`: a BIP-340 key as its 32 bytes.
pub mod xonly {
    use bitcoin::secp256k1::XOnlyPublicKey;
    use borsh::io::{Error, ErrorKind, Read, Result, Write};
    use borsh::{BorshDeserialize, BorshSerialize};

    /// Writes the 32 bytes.
    pub fn to<W: Write>(key: &XOnlyPublicKey, writer: &mut W) -> Result<()> {
        key.serialize().serialize(writer)
    }

    /// Reads 32 bytes that are the x coordinate of a point.
    pub fn from<R: Read>(reader: &mut R) -> Result<XOnlyPublicKey> {
        let bytes = <[u8; 32]>::deserialize_reader(reader)?;
        XOnlyPublicKey::from_slice(&bytes).map_err(|e| Error::new(ErrorKind::InvalidData, e.to_string()))
    }
}

/// For `#[borsh(serialize_with, deserialize_with)]`: a secp256k1 key as its 33 compressed bytes.
pub mod public_key {
    use bitcoin::secp256k1::PublicKey;
    use borsh::io::{Error, ErrorKind, Read, Result, Write};
    use borsh::{BorshDeserialize, BorshSerialize};

    /// Writes the 33 bytes.
    pub fn to<W: Write>(key: &PublicKey, writer: &mut W) -> Result<()> {
        key.serialize().serialize(writer)
    }

    /// Reads 33 bytes that are a compressed point.
    pub fn from<R: Read>(reader: &mut R) -> Result<PublicKey> {
        let bytes = <[u8; 33]>::deserialize_reader(reader)?;
        PublicKey::from_slice(&bytes).map_err(|e| Error::new(ErrorKind::InvalidData, e.to_string()))
    }
}

/// For `#[borsh(serialize_with, deserialize_with)]`: a BIP-340 signature as its 64 bytes.
pub mod schnorr {
    use bitcoin::secp256k1::schnorr::Signature;
    use borsh::io::{Error, ErrorKind, Read, Result, Write};
    use borsh::{BorshDeserialize, BorshSerialize};

    /// Writes the 64 bytes.
    pub fn to<W: Write>(signature: &Signature, writer: &mut W) -> Result<()> {
        signature.serialize().serialize(writer)
    }

    /// Reads 64 bytes.
    pub fn from<R: Read>(reader: &mut R) -> Result<Signature> {
        let bytes = <[u8; 64]>::deserialize_reader(reader)?;
        Signature::from_slice(&bytes).map_err(|e| Error::new(ErrorKind::InvalidData, e.to_string()))
    }
}

/// For `#[borsh(serialize_with, deserialize_with)]`: a Bitcoin network by its name.
pub mod network {
    use bitcoin::Network;
    use borsh::io::{Error, ErrorKind, Read, Result, Write};
    use borsh::{BorshDeserialize, BorshSerialize};

    /// Writes the name, such as `regtest`.
    pub fn to<W: Write>(network: &Network, writer: &mut W) -> Result<()> {
        network.to_string().serialize(writer)
    }

    /// Reads a name that rust-bitcoin knows.
    pub fn from<R: Read>(reader: &mut R) -> Result<Network> {
        let name = String::deserialize_reader(reader)?;
        name.parse().map_err(|_| Error::new(ErrorKind::InvalidData, "unknown Bitcoin network"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_trailing_bytes_and_oversize() {
        let bytes = encode(&7u32);
        assert_eq!(decode::<u32>(&bytes, 4).unwrap(), 7);
        assert!(matches!(decode::<u32>(&bytes, 3), Err(DecodeError::TooLarge { size: 4, limit: 3 })));
        let longer = [bytes, vec![0]].concat();
        assert!(matches!(decode::<u32>(&longer, 10), Err(DecodeError::Invalid(_))));
    }

    #[test]
    fn a_false_length_allocates_nothing_and_fails() {
        let bytes = encode(&u32::MAX);
        assert!(decode::<Vec<u8>>(&bytes, 10).is_err());
    }
}
