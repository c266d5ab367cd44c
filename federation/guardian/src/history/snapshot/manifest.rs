//! What a snapshot consists of, and how its pairs are laid out.
//!
//! A snapshot is one stream of all agreed pairs in order of keys, each as `length u32 · key · length u32 · value`, cut
//! into chunks of [`CHUNK`] bytes. So all guardians have the same chunks of the same epoch. The manifest names the
//! header that the state belongs to and the chunks' hashes. That a chunk is the right one can be checked at once, that the
//! manifest is right only at the end, by the state digest in the signed header.

use std::io::Read;

use bitcoin::hashes::{Hash as _, sha256};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_consensus::header::Header;
use federation_core::db::Pair;
use federation_core::encoding::{DecodeError, decode, encode};

/// Bytes of a chunk; the last one may be shorter.
pub const CHUNK: usize = 1 << 20;
/// The largest manifest: it goes over the links in one frame. Some 30 GB of state.
pub const MAX_MANIFEST: usize = 1 << 20;
/// As many chunks as a manifest of that size names.
pub const MAX_CHUNKS: usize = (MAX_MANIFEST - (4 + Header::SIZE + 8 + 4)) / 32;
/// The largest key and value that are read from a snapshot.
const MAX_KEY: usize = 1 << 16;
const MAX_VALUE: usize = 64 << 20;

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Manifest {
    /// The encoded header of the epoch after which it was taken.
    header: Vec<u8>,
    /// Bytes of all chunks together.
    pub size: u64,
    /// SHA-256 of each chunk.
    pub chunks: Vec<[u8; 32]>,
}

impl Manifest {
    /// Of a stream that was written.
    pub fn new(header: &Header, size: u64, chunks: Vec<[u8; 32]>) -> Self {
        Self { header: header.encode(), size, chunks }
    }

    /// The header.
    pub fn header(&self) -> Option<Header> {
        Header::decode(self.header.clone().into()).ok()
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads the stored form and checks that it makes sense.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let manifest: Self = decode(bytes, MAX_MANIFEST)?;
        let chunks = manifest.size.div_ceil(CHUNK as u64);
        if manifest.header().is_none() || u64::try_from(manifest.chunks.len()).ok() != Some(chunks) {
            return Err(DecodeError::Invalid("the manifest contradicts itself".to_owned()));
        }
        Ok(manifest)
    }

    /// What it is known by: guardians with the same state have the same.
    pub fn id(&self) -> [u8; 32] {
        sha256::Hash::hash(&self.to_bytes()).to_byte_array()
    }

    /// The length of a chunk; `None` if there is no such chunk.
    pub fn chunk_length(&self, index: u32) -> Option<usize> {
        self.chunks.get(usize::try_from(index).ok()?)?;
        let begin = u64::from(index).checked_mul(CHUNK as u64)?;
        usize::try_from(self.size.checked_sub(begin)?.min(CHUNK as u64)).ok()
    }

    /// Whether these bytes are this chunk.
    pub fn is_chunk(&self, index: u32, bytes: &[u8]) -> bool {
        let wanted = usize::try_from(index).ok().and_then(|index| self.chunks.get(index));
        self.chunk_length(index) == Some(bytes.len())
            && wanted.is_some_and(|wanted| *wanted == sha256::Hash::hash(bytes).to_byte_array())
    }
}

/// Appends a pair to the stream.
pub fn put_pair(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    for bytes in [key, value] {
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(bytes);
    }
}

/// Reads the next pair of a stream; `None` at its end.
pub fn read_pair(stream: &mut impl Read) -> std::io::Result<Option<Pair>> {
    let mut length = [0; 4];
    let mut got = 0;
    while let Some(rest) = length.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest)? {
            0 if got == 0 => return Ok(None),
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => got = got.saturating_add(read),
        }
    }
    let key = read_bytes(stream, length, MAX_KEY)?;
    stream.read_exact(&mut length)?;
    let value = read_bytes(stream, length, MAX_VALUE)?;
    Ok(Some((key, value)))
}

fn read_bytes(stream: &mut impl std::io::Read, length: [u8; 4], limit: usize) -> std::io::Result<Vec<u8>> {
    let length = u32::from_be_bytes(length);
    if usize::try_from(length).map_or(true, |length| length > limit) {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a key or value is too long"));
    }
    // Not allocated at once: the length may be a lie.
    let mut bytes = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut bytes)?;
    if u32::try_from(bytes.len()) != Ok(length) {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header { epoch: 9, previous: [1; 32], items: [2; 32], state: [3; 32] }
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        let size = CHUNK as u64 + 5;
        let good =
            Manifest::new(&header(), size, vec![[1; 32], sha256::Hash::hash(b"12345").to_byte_array()]);
        assert_eq!(Manifest::from_bytes(&good.to_bytes()).unwrap(), good);
        assert_eq!(
            (good.chunk_length(0), good.chunk_length(1), good.chunk_length(2)),
            (Some(CHUNK), Some(5), None)
        );
        assert!(good.is_chunk(1, b"12345") && !good.is_chunk(1, b"1234") && !good.is_chunk(0, b"12345"));
        for (size, chunks) in [(size, 1), (size, 3), (u64::MAX, 2), (0, 1)] {
            let bad = Manifest::new(&header(), size, vec![[1; 32]; chunks]);
            assert!(Manifest::from_bytes(&bad.to_bytes()).is_err(), "{size} {chunks}");
        }
        let mut short = good;
        short.header.pop();
        assert!(Manifest::from_bytes(&short.to_bytes()).is_err());
    }

    #[test]
    fn the_largest_manifest_can_be_read() {
        let of = |chunks: usize| Manifest::new(&header(), (chunks * CHUNK) as u64, vec![[1; 32]; chunks]);
        let largest = of(MAX_CHUNKS);
        assert_eq!(Manifest::from_bytes(&largest.to_bytes()).unwrap(), largest);
        assert!(Manifest::from_bytes(&of(MAX_CHUNKS + 1).to_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn pairs_come_back(pairs in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..9), proptest::collection::vec(any::<u8>(), 0..99)), 0..9), cut: usize) {
            let mut stream = Vec::new();
            for (key, value) in &pairs {
                put_pair(&mut stream, key, value);
            }
            let mut reader = stream.as_slice();
            let mut read = Vec::new();
            while let Some(pair) = read_pair(&mut reader).unwrap() {
                read.push(pair);
            }
            prop_assert_eq!(&read, &pairs);
            // Cut off anywhere, or rubbish: an error or fewer pairs, never a panic.
            let mut reader = &stream[..cut % (stream.len() + 1)];
            let mut count = 0;
            while let Ok(Some(_)) = read_pair(&mut reader) {
                count += 1;
            }
            prop_assert!(count <= pairs.len());
        }

        #[test]
        fn rubbish_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::from_bytes(&bytes);
            let mut reader = bytes.as_slice();
            while let Ok(Some(_)) = read_pair(&mut reader) {}
        }
    }
}
