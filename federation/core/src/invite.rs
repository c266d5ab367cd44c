//! Invite codes: a federation's id and where to find some of its guardians, in one line of text.

use std::fmt;
use std::str::FromStr;

use bech32::{Bech32m, Hrp};
use borsh::{BorshDeserialize, BorshSerialize};

use crate::FederationId;
use crate::encoding::{decode, encode};

const HRP: Hrp = Hrp::parse_unchecked("clnfed");
const MAX_INVITE: usize = 2048;

/// What a user needs in order to join: everything else is fetched and checked against the id.
///
/// As text: bech32m (BIP-350's checksum, longer than its 90 characters) with prefix `clnfed`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct InviteCode {
    /// The federation.
    pub federation: FederationId,
    /// Base URLs of some guardians' APIs.
    pub api_urls: Vec<String>,
}

/// Why a text is no invite code.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Mistyped or cut.
    #[error("this is no invite code: {0}. Copy it again; it starts with clnfed1")]
    Text(String),
    /// A valid bech32m text of another program or a newer version.
    #[error("this invite code cannot be read by this version: {0}")]
    Content(String),
}

impl fmt::Display for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_to_fmt::<LongBech32m, _>(f, HRP, &encode(self)).map_err(|_| fmt::Error)
    }
}

impl FromStr for InviteCode {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = bech32::primitives::decode::CheckedHrpstring::new::<LongBech32m>(text.trim())
            .map_err(|error| InviteError::Text(error.to_string()))?;
        if parsed.hrp() != HRP {
            return Err(InviteError::Text(format!("its prefix is {}", parsed.hrp())));
        }
        let bytes: Vec<u8> = parsed.byte_iter().collect();
        let invite: Self =
            decode(&bytes, MAX_INVITE).map_err(|error| InviteError::Content(error.to_string()))?;
        // Bits that pad the last letter are in no byte: they are zero.
        if !invite.to_string().eq_ignore_ascii_case(text.trim()) {
            return Err(InviteError::Text("it is not written as an invite code is".to_owned()));
        }
        Ok(invite)
    }
}

/// Bech32m without BIP-173's length limit, like BOLT 11 and BOLT 12 texts.
enum LongBech32m {}

impl bech32::Checksum for LongBech32m {
    type MidstateRepr = u32;
    const CHECKSUM_LENGTH: usize = 6;
    const CODE_LENGTH: usize = 4096;
    const GENERATOR_SH: [u32; 5] = <Bech32m as bech32::Checksum>::GENERATOR_SH;
    const TARGET_RESIDUE: u32 = <Bech32m as bech32::Checksum>::TARGET_RESIDUE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_typo() {
        let invite = InviteCode {
            federation: FederationId([7; 32]),
            api_urls: (0..7).map(|n| format!("http://guardian-{n}.example.org:8180")).collect(),
        };
        let text = invite.to_string();
        assert!(text.starts_with("clnfed1"));
        assert_eq!(text.parse(), Ok(invite));
        let typo = text.replacen('q', "p", 1);
        assert!(matches!(typo.parse::<InviteCode>(), Err(InviteError::Text(_))));
        assert!("hello".parse::<InviteCode>().is_err());
    }
}
