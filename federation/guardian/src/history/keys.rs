//! The guardians' signatures of headers: BIP-340 with the identity keys of the configuration.

use std::collections::BTreeMap;

use bitcoin::secp256k1::{Keypair, Message, SECP256K1, XOnlyPublicKey, schnorr};
use federation_consensus::NodeId;
use federation_consensus::header::{Header, HeaderKeys, Signature, Signatures};
use federation_core::FederationId;
use federation_core::config::ConsensusConfig;
use federation_core::rest::header_message;

use crate::error::GuardianError;

/// This guardian's key, and the others' public ones.
pub struct IdentityKeys {
    federation: FederationId,
    own: Keypair,
    guardians: BTreeMap<NodeId, XOnlyPublicKey>,
}

impl IdentityKeys {
    /// The keys of a federation's guardians and the secret of one of them.
    pub fn new(config: &ConsensusConfig, secret: &[u8; 32]) -> Result<Self, GuardianError> {
        let own = Keypair::from_seckey_slice(SECP256K1, secret)
            .map_err(|error| GuardianError::Config(format!("the identity key: {error}")))?;
        let guardians = config.guardians.iter().map(|(peer, keys)| (peer.0, keys.identity)).collect();
        Ok(Self { federation: config.id(), own, guardians })
    }

    /// How many guardians have signed a header, each with a right signature. Wrong ones count nothing.
    pub fn count(&self, header: &Header, signatures: &Signatures) -> usize {
        let hash = header.hash();
        signatures.iter().filter(|(node, signature)| self.verify(**node, &hash, signature)).count()
    }

    fn message(&self, hash: &[u8; 32]) -> Message {
        Message::from_digest(header_message(self.federation, hash))
    }
}

impl HeaderKeys for IdentityKeys {
    fn sign(&self, hash: &[u8; 32]) -> Signature {
        // Without auxiliary randomness, as BIP-340 allows: the same signature whenever it is asked for.
        SECP256K1.sign_schnorr_no_aux_rand(&self.message(hash), &self.own).serialize()
    }

    fn verify(&self, node: NodeId, hash: &[u8; 32], signature: &Signature) -> bool {
        let Some(key) = self.guardians.get(&node) else { return false };
        let Ok(signature) = schnorr::Signature::from_slice(signature) else { return false };
        SECP256K1.verify_schnorr(&signature, &self.message(hash), key).is_ok()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bitcoin::Network;
    use bitcoin::secp256k1::SecretKey;
    use federation_core::PeerId;
    use federation_core::config::GuardianKeys;

    use super::*;

    /// A configuration without modules, and each guardian's secret.
    pub(crate) fn federation(n: u8) -> (ConsensusConfig, Vec<[u8; 32]>) {
        let secrets: Vec<[u8; 32]> = (1..=n).map(|i| [i; 32]).collect();
        let guardians = (0..).zip(&secrets).map(|(peer, secret)| {
            let key = SecretKey::from_slice(secret).unwrap();
            let identity = key.x_only_public_key(SECP256K1).0;
            (PeerId(peer), GuardianKeys { identity, certificate: *secret })
        });
        let config = ConsensusConfig {
            version: 1,
            name: "test".to_owned(),
            network: Network::Regtest,
            guardians: guardians.collect(),
            coin_keys: Vec::new(),
            modules: BTreeMap::new(),
        };
        (config, secrets)
    }

    #[test]
    fn a_signature_is_one_guardians_of_one_header_in_one_federation() {
        let (config, secrets) = federation(4);
        let keys: Vec<_> = secrets.iter().map(|secret| IdentityKeys::new(&config, secret).unwrap()).collect();
        let header = Header { epoch: 7, previous: [1; 32], items: [2; 32], state: [3; 32] };
        let hash = header.hash();
        let signature = keys[1].sign(&hash);
        assert_eq!(signature, keys[1].sign(&hash));
        assert!(keys[0].verify(1, &hash, &signature));
        assert!(!keys[0].verify(2, &hash, &signature));
        assert!(!keys[0].verify(9, &hash, &signature));
        assert!(!keys[0].verify(1, &[9; 32], &signature));
        assert!(!keys[0].verify(1, &hash, &[0; 64]));
        let (other, _) = federation(5);
        assert!(!IdentityKeys::new(&other, &secrets[0]).unwrap().verify(1, &hash, &signature));
        let signatures = Signatures::from([(0, keys[0].sign(&hash)), (1, signature), (2, signature)]);
        assert_eq!(keys[3].count(&header, &signatures), 2);
    }
}
