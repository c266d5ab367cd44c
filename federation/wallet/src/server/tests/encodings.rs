//! What is stored, sent and shown reads back as it was; what is not an encoding is refused without a panic.

use federation_core::encoding::{decode, encode};
use proptest::prelude::*;

use super::federation::Federation;
use crate::body::{DepositInput, Item, Outcome, WithdrawalOutput};
use crate::config::{ConfigError, WalletConfig, WalletSecret};

#[tokio::test]
async fn configuration_and_secret_round_trip_and_are_checked() {
    let federation = Federation::new(4, 1).await;
    let config = &federation.config;
    assert_eq!(&decode::<WalletConfig>(&encode(config), 10_000).unwrap(), config);
    let json = serde_json::to_string(config).unwrap();
    assert_eq!(&serde_json::from_str::<WalletConfig>(&json).unwrap(), config);

    let wallet = &federation.guardians[2].wallet;
    let secret: WalletSecret = decode(&encode(&wallet.secret), 100).unwrap();
    secret.check(config, wallet.us).unwrap();
    let foreign = secret.check(config, federation_core::PeerId(1));
    assert!(matches!(foreign, Err(ConfigError::ForeignSecret(_))));

    let mut bad = config.clone();
    bad.threshold = 2;
    assert!(matches!(bad.check(), Err(ConfigError::Threshold { found: 2, expected: 3 })));
    bad.guardians.pop_last();
    assert!(matches!(bad.check(), Err(ConfigError::Guardians(3))));
    let mut bad = config.clone();
    bad.params.finality = 0;
    assert!(matches!(bad.check(), Err(ConfigError::Parameter("finality"))));
}

#[tokio::test]
async fn items_round_trip() {
    let mut federation = Federation::new(4, 1).await;
    federation.chain.mine_empty(3);
    federation.synced().await;
    federation.epoch(&[]).await;
    federation.chain.mine_empty(3);
    federation.synced().await;
    let items = federation.proposals(&[0]).await;
    assert!(items.len() >= 2);
    for (_, item) in items {
        assert_eq!(decode::<Item>(&encode(&item), 100_000).unwrap(), item);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<Item>(&bytes, 1000);
        let _ = decode::<DepositInput>(&bytes, 1000);
        let _ = decode::<WithdrawalOutput>(&bytes, 1000);
        let _ = decode::<Outcome>(&bytes, 1000);
        let _ = decode::<WalletConfig>(&bytes, 1000);
        let _ = decode::<WalletSecret>(&bytes, 1000);
    }

    #[test]
    fn withdrawals_round_trip(script in proptest::collection::vec(any::<u8>(), 0..60), amount_sat: u64, fee_sat: u64) {
        let output = WithdrawalOutput { script: script.into(), amount_sat, fee_sat };
        prop_assert_eq!(decode::<WithdrawalOutput>(&encode(&output), 1000).unwrap(), output);
    }
}
