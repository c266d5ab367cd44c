//! A guardian's TLS certificate and key, made once and pinned by the others.

use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::LinkError;
use crate::wire::{Reader, put_bytes};

/// SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    #[must_use]
    pub fn of(cert_der: &[u8]) -> Self {
        Self(Sha256::digest(cert_der).into())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A self-signed certificate (ECDSA P-256) and its key.
#[derive(Clone)]
pub struct Identity {
    cert_der: Vec<u8>,
    key_der: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Identity {
    /// A fresh identity. The certificate says nothing about the guardian: what counts is its hash.
    ///
    /// # Errors
    /// [`LinkError::Identity`] if no key can be made.
    pub fn generate() -> Result<Self, LinkError> {
        let made = rcgen::generate_simple_self_signed(vec!["guardian".to_owned()])
            .map_err(|e| LinkError::Identity(e.to_string()))?;
        Ok(Self {
            cert_der: made.cert.der().to_vec(),
            key_der: Zeroizing::new(made.key_pair.serialize_der()),
        })
    }

    /// From a certificate and a PKCS #8 key, both in DER.
    #[must_use]
    pub fn from_der(cert_der: Vec<u8>, key_der: Vec<u8>) -> Self {
        Self { cert_der, key_der: Zeroizing::new(key_der) }
    }

    /// The certificate in DER.
    #[must_use]
    pub fn cert_der(&self) -> &[u8] {
        &self.cert_der
    }

    /// The key in PKCS #8 DER. Secret.
    #[must_use]
    pub fn key_der(&self) -> &[u8] {
        &self.key_der
    }

    /// What the others pin.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.cert_der)
    }

    /// Both in one. Secret: to be encrypted at rest.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(self.cert_der.len() + self.key_der.len() + 8));
        put_bytes(&mut out, &self.cert_der);
        put_bytes(&mut out, &self.key_der);
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`LinkError::Identity`] if it doesn't decode.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LinkError> {
        let bad = |_| LinkError::Identity("it does not decode".to_owned());
        let mut reader = Reader::new(bytes.to_vec().into());
        let cert = reader.bytes().map_err(bad)?;
        let key = reader.bytes().map_err(bad)?;
        reader.end().map_err(bad)?;
        Ok(Self::from_der(cert.to_vec(), key.to_vec()))
    }
}
