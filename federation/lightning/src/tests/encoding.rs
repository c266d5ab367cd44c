//! Every encoding comes back, and no bytes make a reader panic.

use bitcoin::Network;
use borsh::BorshDeserialize;
use federation_core::Amount;
use federation_core::encoding::{decode, encode};
use federation_tbs::dkg;
use federation_tbs::encryption::{decryption_share, encrypt};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::federation::{ID, gateway, gateway_key};
use crate::contract::sign_cancellation;
use crate::message::Cancellation;
use crate::*;

fn round_trip<T: borsh::BorshSerialize + BorshDeserialize + PartialEq + std::fmt::Debug>(value: &T) {
    let bytes = encode(value);
    assert_eq!(&decode::<T>(&bytes, bytes.len()).unwrap(), value);
    assert!(decode::<T>(&[bytes, vec![0]].concat(), usize::MAX).is_err());
}

fn json<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value);
}

fn outgoing(bytes: [u8; 32], amount: u64, height: u32) -> OutgoingContract {
    OutgoingContract {
        payment_hash: PaymentHash(bytes),
        amount: Amount::from_msat(amount),
        gateway_key: gateway().key,
        user_key: gateway().key,
        expiry_height: height,
        invoice_hash: bytes,
    }
}

proptest! {
    #[test]
    fn inputs_outputs_outcomes(bytes: [u8; 32], amount: u64, height: u32, which in 0..4) {
        let contract = ContractId(bytes);
        round_trip(&match which {
            0 => LightningInput::ClaimOutgoing { contract, preimage: Preimage(bytes) },
            1 => LightningInput::ClaimIncoming { contract },
            2 => LightningInput::ReclaimIncoming { contract },
            _ => {
                let signature = sign_cancellation(ID, contract, &gateway_key());
                let cancellation = (amount % 2 == 0).then_some(Cancellation(signature));
                LightningInput::RefundOutgoing { contract, cancellation }
            }
        });
        let contract = outgoing(bytes, amount, height);
        json(&contract);
        json(&Contract::Outgoing(contract.clone()));
        round_trip(&LightningOutput(Contract::Outgoing(contract)));
        round_trip(&LightningItem::Height(height));
        let outcome = LightningOutcome::Preimage { preimage: Preimage(bytes) };
        json(&outcome);
        round_trip(&outcome);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode::<LightningInput>(&bytes, 400);
        let _ = decode::<LightningOutput>(&bytes, 400);
        let _ = decode::<LightningItem>(&bytes, 400);
        let _ = decode::<Announcement>(&bytes, 400);
        let _ = decode::<LightningConfig>(&bytes, 400);
    }

    #[test]
    fn a_changed_contract_has_another_id(bytes: [u8; 32], amount in 0..u64::MAX, height in 0..u32::MAX) {
        let contract = outgoing(bytes, amount, height);
        let id = contract.id(ID);
        let more = OutgoingContract { amount: Amount::from_msat(amount + 1), ..contract.clone() };
        let later = OutgoingContract { expiry_height: height + 1, ..contract.clone() };
        prop_assert!(id != more.id(ID) && id != later.id(ID));
        prop_assert_ne!(id, contract.id(federation_core::FederationId([8; 32])));
    }
}

#[test]
fn with_points() {
    let mut rng = StdRng::seed_from_u64(3);
    let key = dkg::testing::run(4, 1, &mut rng).unwrap().remove(0).keys.remove(0);
    let (config, secret) = LightningConfig::generate(key, Network::Signet, LightningFees::default());
    assert_eq!((config.threshold, config.shares.len()), (3, 4));
    round_trip(&config);
    json(&config);
    assert_eq!(config.shares[0], decode::<LightningSecret>(&encode(&secret), 32).unwrap().share.public());
    let terms = IncomingTerms {
        payment_hash: PaymentHash([1; 32]),
        amount: Amount::from_msat(5),
        user_key: gateway().key,
        gateway_key: gateway().key,
        fund_before_height: 7,
    };
    let label = terms.label(ID);
    let ciphertext = encrypt(&config.encryption, &[4; 32], &label, &mut rng).unwrap();
    let share = decryption_share(&ciphertext, &label, &secret.share).unwrap();
    round_trip(&LightningItem::Shares(vec![(ContractId([1; 32]), share)]));
    let contract = IncomingContract { terms, ciphertext };
    assert!(contract.verify_ciphertext(ID));
    json(&Contract::Incoming(contract.clone()));
    round_trip(&LightningOutput(Contract::Incoming(contract)));
    round_trip(&Announcement::sign(ID, gateway(), &gateway_key()));
}

#[test]
fn a_preimage_stays_out_of_logs() {
    assert_eq!(format!("{:?}", Preimage([0xab; 32])), "Preimage(…)");
}
