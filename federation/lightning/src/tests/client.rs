//! What users and gateways compute, and what they refuse.

use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::{PublicKey, SECP256K1, SecretKey};
use federation_core::{Amount, FederationId};
use federation_tbs::dkg;
use lightning_invoice::{Bolt11Invoice, Currency};
use rand::SeedableRng as _;
use rand::rngs::{OsRng, StdRng};

use super::federation::{ID, START, gateway, invoice, keys};
use crate::client::*;
use crate::{
    GatewayFees, GatewayInfo, IncomingContract, LightningConfig, LightningFees, OutgoingContract, Preimage,
};

const NOW: Duration = Duration::from_secs(2000);

fn good_invoice() -> Bolt11Invoice {
    invoice(&Preimage([5; 32]), Some(1_000_000), Currency::Regtest)
}

fn order(invoice: &Bolt11Invoice, gateway: &GatewayInfo) -> Result<OutgoingContract, LightningError> {
    outgoing_contract(&PayOrder {
        invoice,
        gateway,
        network: Network::Regtest,
        now: NOW,
        height: START,
        user_key: keys(1).outgoing(0)?.x_only_public_key().0,
    })
}

#[test]
fn keys_differ_by_purpose_index_and_federation() {
    let mut seen = std::collections::BTreeSet::new();
    for federation in [ID, FederationId([8; 32])] {
        let keys = LightningKeys::new(&[1; 64], federation);
        for index in 0..3 {
            let incoming = keys.incoming(index).unwrap();
            assert!(seen.insert(keys.outgoing(index).unwrap().secret_bytes()));
            assert!(seen.insert(incoming.key.secret_bytes()));
            assert!(seen.insert(incoming.preimage.0));
        }
        assert!(seen.insert(keys.gateway().unwrap().secret_bytes()));
    }
    let again = LightningKeys::new(&[1; 64], ID).outgoing(2).unwrap();
    assert!(seen.contains(&again.secret_bytes()));
}

#[test]
fn users_refuse_invoices_that_cannot_be_paid() {
    let preimage = Preimage([5; 32]);
    let check =
        |invoice: &Bolt11Invoice, now| payable_amount(invoice, Network::Regtest, Duration::from_secs(now));
    assert_eq!(check(&good_invoice(), 2000), Ok(Amount::from_msat(1_000_000)));
    assert_eq!(check(&good_invoice(), 1000 + 3601), Err(LightningError::InvoiceExpired));
    assert_eq!(check(&invoice(&preimage, None, Currency::Regtest), 2000), Err(LightningError::NoAmount));
    assert_eq!(check(&invoice(&preimage, Some(0), Currency::Regtest), 2000), Err(LightningError::ZeroAmount));
    let main = invoice(&preimage, Some(1000), Currency::Bitcoin);
    let error = LightningError::Network { invoice: Network::Bitcoin, federation: Network::Regtest };
    assert_eq!(check(&main, 2000), Err(error));
    let test = invoice(&preimage, Some(1000), Currency::BitcoinTestnet);
    assert!(payable_amount(&test, Network::Testnet4, NOW).is_ok());

    let small = GatewayInfo { max: Amount::from_msat(999_999), ..gateway() };
    assert!(matches!(order(&good_invoice(), &small), Err(LightningError::Limits { .. })));
    let dear = GatewayFees { base: Amount::from_msat(u64::MAX), ppm: 1 };
    let dear = GatewayInfo { send_fees: dear, ..gateway() };
    assert_eq!(order(&good_invoice(), &dear), Err(LightningError::Overflow));
}

#[test]
fn gateways_refuse_contracts_that_cost_them() {
    let (invoice, gateway) = (good_invoice(), gateway());
    let contract = order(&invoice, &gateway).unwrap();
    let check = |contract: &OutgoingContract, invoice: &Bolt11Invoice, height| {
        check_outgoing(&OutgoingCheck {
            contract,
            invoice,
            gateway_key: gateway.key,
            fees: &gateway.send_fees,
            network: Network::Regtest,
            now: NOW,
            height,
        })
    };
    let terms = check(&contract, &invoice, START).unwrap();
    assert_eq!(
        terms,
        PaymentTerms {
            amount: Amount::from_msat(1_000_000),
            budget: Amount::from_msat(6000),
            max_delay: OUTGOING_EXPIRY_BLOCKS - PAY_MARGIN_BLOCKS,
        }
    );
    let poor = OutgoingContract { amount: Amount::from_msat(1_005_999), ..contract.clone() };
    assert!(matches!(check(&poor, &invoice, START), Err(LightningError::Underfunded { .. })));
    let poorer = OutgoingContract { amount: Amount::from_msat(1), ..contract.clone() };
    assert!(matches!(check(&poorer, &invoice, START), Err(LightningError::Underfunded { .. })));
    let other = OutgoingContract { gateway_key: contract.user_key, ..contract.clone() };
    assert_eq!(check(&other, &invoice, START), Err(LightningError::OtherGateway));
    let same_hash = super::federation::invoice(&Preimage([5; 32]), Some(2000), Currency::Regtest);
    assert_eq!(check(&contract, &same_hash, START), Err(LightningError::OtherInvoice));
    let other_hash = super::federation::invoice(&Preimage([6; 32]), Some(1_000_000), Currency::Regtest);
    assert_eq!(check(&contract, &other_hash, START), Err(LightningError::OtherInvoice));
    let last = START + OUTGOING_EXPIRY_BLOCKS - PAY_MARGIN_BLOCKS - 18;
    assert_eq!(check(&contract, &invoice, last - 1).unwrap().max_delay, 19);
    // However long the contract goes on.
    let endless = OutgoingContract { expiry_height: u32::MAX, ..contract.clone() };
    assert_eq!(check(&endless, &invoice, START).unwrap().max_delay, 504 - 72 + 10);
    for height in [last, contract.expiry_height, u32::MAX] {
        assert!(matches!(check(&contract, &invoice, height), Err(LightningError::ExpiryNear { .. })));
    }
}

#[test]
fn receiving_is_checked_on_both_sides() {
    let key = dkg::testing::run(1, 1, &mut StdRng::seed_from_u64(1)).unwrap().remove(0).keys.remove(0);
    let (config, _) = LightningConfig::generate(key, Network::Regtest, LightningFees::default());
    let (gateway, secrets) = (gateway(), keys(1).incoming(0).unwrap());
    let make = |msat| {
        let invoice_amount = Amount::from_msat(msat);
        let order = ReceiveOrder {
            federation: ID,
            config: &config,
            gateway: &gateway,
            invoice_amount,
            height: START,
            secrets: &secrets,
        };
        incoming_contract(&order, &mut OsRng)
    };
    let contract = make(10_000).unwrap();
    assert_eq!(contract.terms.amount, Amount::from_msat(9_950));
    assert_eq!(make(0), Err(LightningError::ZeroAmount));
    assert!(matches!(make(999), Err(LightningError::Limits { .. })));
    let all = GatewayFees { base: Amount::from_msat(10_000), ppm: 0 };
    assert!(matches!(
        received_amount(Amount::from_msat(10_000), &all),
        Err(LightningError::FeeTooHigh { .. })
    ));

    let check = |contract: &IncomingContract, paid, height| {
        check_incoming(&IncomingCheck {
            contract,
            federation: ID,
            gateway_key: gateway.key,
            fees: &gateway.receive_fees,
            invoice_amount: Amount::from_msat(paid),
            height,
        })
    };
    assert_eq!(check(&contract, 10_000, START), Ok(()));
    assert_eq!(check(&contract, 10_000, START - 10), Ok(()), "a node that lags a little");
    assert!(matches!(check(&contract, 9_999, START), Err(LightningError::Overfunded { .. })));
    for height in [START - 11, START + FUND_WINDOW_BLOCKS] {
        assert!(matches!(check(&contract, 10_000, height), Err(LightningError::FundWindow { .. })));
    }
    let mut other = contract.clone();
    other.terms.gateway_key = other.terms.user_key;
    assert_eq!(check(&other, 10_000, START), Err(LightningError::OtherGateway));
    let mut copied = contract.clone();
    copied.terms.user_key = gateway.key;
    assert_eq!(check(&copied, 10_000, START), Err(LightningError::Ciphertext));

    let amount = Amount::from_msat(10_000);
    let accept = |invoice: &Bolt11Invoice, gateway: &GatewayInfo| {
        check_hold_invoice(invoice, &contract, gateway, amount, Network::Regtest, NOW)
    };
    let good = invoice(&secrets.preimage, Some(10_000), Currency::Regtest);
    assert_eq!(accept(&good, &gateway), Ok(()));
    let dearer = invoice(&secrets.preimage, Some(10_001), Currency::Regtest);
    assert_eq!(accept(&dearer, &gateway), Err(LightningError::HoldInvoice("amount")));
    let foreign = invoice(&Preimage([1; 32]), Some(10_000), Currency::Regtest);
    assert_eq!(accept(&foreign, &gateway), Err(LightningError::HoldInvoice("payment hash")));
    let node_id = PublicKey::from_secret_key(SECP256K1, &SecretKey::from_slice(&[9; 32]).unwrap());
    let stranger = GatewayInfo { node_id, ..gateway.clone() };
    assert_eq!(accept(&good, &stranger), Err(LightningError::HoldInvoice("payee")));
}
