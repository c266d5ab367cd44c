//! E-cash as a line of text: `clnecash1…`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use bech32::{Bech32m, Hrp};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::encoding::{decode, encode};
use federation_core::transaction::MAX_PARTS;
use federation_core::{Amount, FederationId};
use federation_tbs::{BatchItem, verify_batch};
use zeroize::Zeroizing;

use super::Note;
use crate::{MintConfig, MintError};

const HRP: Hrp = Hrp::parse_unchecked("clnecash");
const VERSION: u8 = 0;
/// Version, federation, length, notes.
const MAX_BYTES: usize = 1 + 32 + 4 + MAX_PARTS * Note::SIZE;
/// The longest text, in characters.
pub const MAX_ECASH_TEXT: usize = 8 + 1 + (MAX_BYTES * 8).div_ceil(5) + 6;

/// Notes on their way to somebody else: whoever reads it first can have them.
///
/// As text: bech32m (BIP-350's checksum, longer than its 90 characters) with prefix `clnecash`; in upper case it fits a QR
/// code's alphanumeric mode. The content is a version byte (0) and the borsh encoding of federation id and notes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ECash {
    /// Whose notes they are.
    pub federation: FederationId,
    /// At least one, at most [`MAX_PARTS`], each once.
    pub notes: Vec<Note>,
}

impl ECash {
    /// What the notes are worth, before fees. (256 notes of 2⁶³ msat don't fit; no federation issues them.)
    pub fn amount(&self) -> Amount {
        Amount::checked_sum(self.notes.iter().map(Note::amount)).unwrap_or(Amount::from_msat(u64::MAX))
    }

    fn check_form(&self) -> Result<(), MintError> {
        if self.notes.is_empty() {
            return Err(MintError::NoNotes);
        }
        if self.notes.len() > MAX_PARTS {
            return Err(MintError::TooManyNotes(self.notes.len()));
        }
        let nonces: BTreeSet<[u8; 32]> = self.notes.iter().map(|note| note.nonce().serialize()).collect();
        if nonces.len() < self.notes.len() { Err(MintError::DuplicateNote) } else { Ok(()) }
    }

    /// Checks that all of it is of this federation and signed by it. Whether the notes are still unspent only the
    /// federation can say, by reissuing them.
    ///
    /// # Errors
    /// Another federation, a duplicate, a denomination that it doesn't have, or wrong signatures.
    pub fn check(&self, federation: FederationId, config: &MintConfig) -> Result<Amount, MintError> {
        let bad = self.signed(federation, config)?.into_iter().filter(|signed| !signed).count();
        if bad > 0 { Err(MintError::BadNotes(bad)) } else { Ok(self.amount()) }
    }

    /// What is left of it without the notes that the federation did not sign.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`MintError::NoNotes`] if nothing is left.
    pub fn good(mut self, federation: FederationId, config: &MintConfig) -> Result<Self, MintError> {
        let mut signed = self.signed(federation, config)?.into_iter();
        self.notes.retain(|_| signed.next() == Some(true));
        if self.notes.is_empty() { Err(MintError::NoNotes) } else { Ok(self) }
    }

    /// Whether each of the notes is signed.
    fn signed(&self, federation: FederationId, config: &MintConfig) -> Result<Vec<bool>, MintError> {
        if self.federation != federation {
            return Err(MintError::OtherFederation(self.federation));
        }
        self.check_form()?;
        let nonces: Vec<[u8; 32]> = self.notes.iter().map(|note| note.nonce().serialize()).collect();
        let batch = self
            .notes
            .iter()
            .zip(&nonces)
            .map(|(note, nonce)| {
                let keys = config
                    .keys(note.denomination)
                    .ok_or(MintError::UnknownDenomination(note.denomination))?;
                Ok(BatchItem { message: nonce, signature: &note.signature, key: &keys.public })
            })
            .collect::<Result<Vec<_>, MintError>>()?;
        Ok(verify_batch(&batch))
    }
}

impl fmt::Display for ECash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Zeroizing::new(vec![VERSION]);
        bytes.append(&mut encode(self));
        bech32::encode_to_fmt::<LongBech32m, _>(f, HRP, &bytes).map_err(|_| fmt::Error)
    }
}

impl FromStr for ECash {
    type Err = MintError;

    fn from_str(text: &str) -> Result<Self, MintError> {
        let text = text.trim();
        // The prefix first: who pastes something else shall read that, not of a checksum.
        if !text.get(..HRP.len() + 1).is_some_and(|prefix| prefix.eq_ignore_ascii_case("clnecash1")) {
            return Err(MintError::Text("the beginning is wrong".to_owned()));
        }
        if text.len() > MAX_ECASH_TEXT {
            return Err(MintError::Text(format!("it is longer than {MAX_ECASH_TEXT} characters")));
        }
        let parsed = bech32::primitives::decode::CheckedHrpstring::new::<LongBech32m>(text)
            .map_err(|error| MintError::Text(error.to_string()))?;
        let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(parsed.byte_iter().collect());
        let ecash: Self = match bytes.split_first() {
            Some((&VERSION, content)) => {
                decode(content, MAX_BYTES).map_err(|error| MintError::Content(error.to_string()))?
            }
            Some((version, _)) => return Err(MintError::Content(format!("it has version {version}"))),
            None => return Err(MintError::Content("it is empty".to_owned())),
        };
        ecash.check_form()?;
        Ok(ecash)
    }
}

/// Bech32m without BIP-173's length limit, like BOLT 11 and BOLT 12 texts.
enum LongBech32m {}

impl bech32::Checksum for LongBech32m {
    type MidstateRepr = u32;
    const CHECKSUM_LENGTH: usize = 6;
    const CODE_LENGTH: usize = MAX_ECASH_TEXT;
    const GENERATOR_SH: [u32; 5] = <Bech32m as bech32::Checksum>::GENERATOR_SH;
    const TARGET_RESIDUE: u32 = <Bech32m as bech32::Checksum>::TARGET_RESIDUE;
}
