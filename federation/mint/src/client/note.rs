//! A note, as its holder has it.

use std::fmt;

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey, XOnlyPublicKey};
use borsh::io::{Error, ErrorKind, Read, Result, Write};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_core::encoding::encode;
use federation_core::{Amount, Input, ModuleId};
use federation_tbs::Signature;

use crate::{Denomination, NoteInput, PointBytes};

/// Money: whoever knows it can spend it. 81 bytes: denomination, signature, secret key. The key is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is worth.
    pub denomination: Denomination,
    /// The federation's signature of the nonce.
    pub signature: Signature,
    /// The secret side of the nonce.
    key: SecretKey,
}

impl Note {
    /// The bytes of the encoding.
    pub const SIZE: usize = 1 + Signature::SIZE + 32;

    /// A note of its parts; nothing is checked.
    pub fn new(denomination: Denomination, signature: Signature, key: SecretKey) -> Self {
        Self { denomination, signature, key }
    }

    /// What it is worth.
    pub fn amount(&self) -> Amount {
        self.denomination.amount()
    }

    /// What the note is known by when it is spent.
    pub fn nonce(&self) -> XOnlyPublicKey {
        self.keypair().x_only_public_key().0
    }

    /// What a transaction that spends it must be signed with.
    pub fn keypair(&self) -> Keypair {
        Keypair::from_secret_key(SECP256K1, &self.key)
    }
}

/// The input that spends a note, and the key that must sign the transaction for it.
pub fn spend_input(note: &Note, module: ModuleId) -> (Input, Keypair) {
    let body = encode(&NoteInput {
        denomination: note.denomination,
        signature: PointBytes(note.signature.to_bytes()),
    });
    let keypair = note.keypair();
    (Input { module, key: keypair.x_only_public_key().0, body }, keypair)
}

impl Drop for Note {
    fn drop(&mut self) {
        self.key.non_secure_erase();
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Note({}, {})", self.denomination, self.nonce())
    }
}

impl BorshSerialize for Note {
    fn serialize<W: Write>(&self, writer: &mut W) -> Result<()> {
        self.denomination.serialize(writer)?;
        self.signature.serialize(writer)?;
        self.key.secret_bytes().serialize(writer)
    }
}

impl BorshDeserialize for Note {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Self> {
        let denomination = Denomination::deserialize_reader(reader)?;
        let signature = Signature::deserialize_reader(reader)?;
        let key = <[u8; 32]>::deserialize_reader(reader)?;
        let key = SecretKey::from_slice(&key).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
        Ok(Self { denomination, signature, key })
    }
}
