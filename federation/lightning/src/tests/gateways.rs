//! Gateways' announcements.

use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use federation_core::FederationId;
use federation_core::api::Method;
use serde_json::{Value, json};

use super::federation::{Federation, ID, gateway, gateway_key};
use crate::gateway::{AnnouncementError, CLOCK_SKEW, LIFETIME};
use crate::{Announcement, GatewayInfo};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn signed(key: &Keypair, change: impl FnOnce(&mut GatewayInfo)) -> Announcement {
    let mut info = GatewayInfo { key: key.x_only_public_key().0, expires_at: now() + LIFETIME, ..gateway() };
    change(&mut info);
    Announcement::sign(ID, info, key)
}

async fn post(federation: &Federation, announcement: &Announcement) -> Result<Value, String> {
    let answer = federation.call(Method::Post, "gateways", &[], json!(announcement)).await;
    answer.map_err(|error| error.code)
}

async fn known(federation: &Federation) -> Vec<Announcement> {
    let answer = federation.call(Method::Get, "gateways", &[], Value::Null).await.unwrap();
    serde_json::from_value(answer).unwrap()
}

#[tokio::test]
async fn gateways_announce_renew_and_expire() {
    let federation = Federation::new(1).await;
    let first = signed(&gateway_key(), |info| info.expires_at -= 100);
    post(&federation, &first).await.unwrap();
    assert_eq!(known(&federation).await, std::slice::from_ref(&first));
    let second = signed(&gateway_key(), |info| info.send_fees.ppm = 1);
    post(&federation, &second).await.unwrap();
    assert_eq!(known(&federation).await, std::slice::from_ref(&second));
    assert_eq!(post(&federation, &first).await, Err("older_announcement".to_owned()));

    let key = Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[1; 32]).unwrap());
    let short = signed(&key, |info| info.expires_at = now() + 2);
    post(&federation, &short).await.unwrap();
    assert_eq!(known(&federation).await.len(), 2);
    while now() < short.info.expires_at {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(known(&federation).await, std::slice::from_ref(&second));
    assert_eq!(post(&federation, &short).await, Err("bad_announcement".to_owned()));
    let answer = federation.call(Method::Post, "gateways", &[], json!({"info": 1})).await;
    assert_eq!(answer.unwrap_err().code, "bad_body");
}

#[tokio::test]
async fn there_is_room_for_so_many() {
    let federation = Federation::new(1).await;
    let key = |i: u32| {
        let mut bytes = [1; 32];
        bytes[..4].copy_from_slice(&i.to_be_bytes());
        Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&bytes).unwrap())
    };
    for i in 0..200 {
        post(&federation, &signed(&key(i), |_| ())).await.unwrap();
    }
    assert_eq!(post(&federation, &signed(&key(200), |_| ())).await, Err("too_many_gateways".to_owned()));
    post(&federation, &signed(&key(7), |_| ())).await.unwrap();
    assert_eq!(known(&federation).await.len(), 200);
}

#[test]
fn announcements_are_checked() {
    use AnnouncementError as E;
    let key = gateway_key();
    let check = |change: fn(&mut GatewayInfo)| signed(&key, change).verify(ID, now());
    assert_eq!(check(|_| ()), Ok(()));
    assert_eq!(check(|i| i.expires_at = now()), Err(E::Expired));
    assert_eq!(check(|i| i.expires_at = now() + LIFETIME + CLOCK_SKEW + 10), Err(E::TooLong));
    assert_eq!(check(|i| i.api_url = "ftp://x".into()), Err(E::Url));
    assert_eq!(check(|i| i.api_url = format!("http://{}", "x".repeat(250))), Err(E::Url));
    assert_eq!(check(|i| i.api_url = "http://x\x1b[2J".into()), Err(E::Url));
    assert_eq!(check(|i| i.alias = "x\ny".into()), Err(E::Alias));
    assert_eq!(check(|i| std::mem::swap(&mut i.min, &mut i.max)), Err(E::Limits));
    let good = signed(&key, |_| ());
    assert_eq!(good.verify(FederationId([8; 32]), now()), Err(E::Signature));
    let mut forged = good.clone();
    forged.info.api_url = "http://thief".into();
    assert_eq!(forged.verify(ID, now()), Err(E::Signature));
    let back: Announcement = serde_json::from_value(json!(good)).unwrap();
    assert_eq!(back, good);
}
