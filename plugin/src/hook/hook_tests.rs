use bitcoin::hashes::{Hash, sha256};
use proptest::prelude::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, DuplexStream};

use super::live::LiveState;
use super::request::tests::{any_json, params};
use super::store::unix_now;
use super::*;

const PREIMAGE: [u8; 32] = [4; 32];

fn hash() -> PaymentHash {
    sha256::Hash::hash(&PREIMAGE).to_byte_array()
}

fn invoice() -> LiveInvoice {
    LiveInvoice {
        payment_hash: hash(),
        amount_msat: 1000,
        payment_secret: [9; 32],
        expires_at: unix_now() + 600,
        state: LiveState::Open,
    }
}

fn htlc(id: u64, amount: u64) -> Option<Value> {
    let mut params = params(0, 9, id, amount, 1000, 120);
    params["htlc"]["payment_hash"] = json!(hex::encode(hash()));
    Some(params)
}

async fn start(path: &std::path::Path) -> (Arc<Hook>, DuplexStream) {
    let (read, write) = tokio::io::duplex(1 << 20);
    let hook = Hook::new(Output::start(write));
    let (file, invoices) = LiveFile::open(path, unix_now()).unwrap();
    hook.load(file, invoices).await;
    (hook, read)
}

async fn answers(hook: &Hook, read: &mut DuplexStream) -> Vec<Value> {
    hook.output.drained().await;
    let mut bytes = vec![0; 1 << 16];
    let wait = tokio::time::timeout(Duration::from_millis(50), read.read(&mut bytes));
    let count = wait.await.map(Result::unwrap).unwrap_or(0);
    serde_json::Deserializer::from_slice(&bytes[..count]).into_iter().map(Result::unwrap).collect()
}

async fn until_held(hook: &Hook) {
    let mut seen = 0;
    while hook.held().is_empty() {
        seen = hook.held_changed(seen).await;
    }
}

#[tokio::test]
async fn hold_and_settle_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live");
    let (hook, mut read) = start(&path).await;
    hook.register(invoice()).await.unwrap();
    assert!(matches!(hook.settle(hash(), PREIMAGE).await, Err(HookError::NotHeld)));
    hook.htlc_accepted(b"1".to_vec(), htlc(0, 400));
    hook.htlc_accepted(b"2".to_vec(), htlc(1, 600));
    until_held(&hook).await;
    assert!(answers(&hook, &mut read).await.is_empty());

    // lightningd and plugin die, start again, and lightningd asks again.
    let (hook, mut read) = start(&path).await;
    assert!(matches!(hook.settle(hash(), PREIMAGE).await, Err(HookError::Starting)));
    hook.htlc_accepted(b"3".to_vec(), htlc(0, 400));
    assert!(hook.held().is_empty());
    hook.htlc_accepted(b"4".to_vec(), htlc(1, 600));
    assert_eq!(hook.held()[0].amount_msat, 1000);
    assert!(matches!(hook.settle(hash(), [5; 32]).await, Err(HookError::WrongPreimage)));
    hook.settle(hash(), PREIMAGE).await.unwrap();
    hook.settle(hash(), PREIMAGE).await.unwrap();
    assert!(matches!(hook.cancel(hash()).await, Err(HookError::Settled)));
    let sent = answers(&hook, &mut read).await;
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0]["result"], json!({ "result": "resolve", "payment_key": "04".repeat(32) }));

    // Once more: lightningd had not written the answers down.
    let (hook, mut read) = start(&path).await;
    hook.htlc_accepted(b"5".to_vec(), htlc(1, 600));
    assert_eq!(answers(&hook, &mut read).await[0]["result"]["result"], "resolve");
}

#[tokio::test]
async fn cancel_forgets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live");
    let (hook, mut read) = start(&path).await;
    hook.register(invoice()).await.unwrap();
    assert_eq!(hook.register(invoice()).await.unwrap(), invoice());
    let other = LiveInvoice { amount_msat: 7, ..invoice() };
    assert!(matches!(hook.register(other).await, Err(HookError::Taken)));
    hook.htlc_accepted(b"1".to_vec(), htlc(0, 1000));
    until_held(&hook).await;
    hook.cancel(hash()).await.unwrap();
    hook.cancel(hash()).await.unwrap();
    assert_eq!(answers(&hook, &mut read).await[0]["result"]["result"], "fail");
    hook.htlc_accepted(b"2".to_vec(), htlc(0, 1000));
    assert_eq!(answers(&hook, &mut read).await[0]["result"]["result"], "continue");
    assert!(LiveFile::open(&path, 0).unwrap().1.is_empty());
}

#[tokio::test]
async fn stop_waits_for_what_is_held_then_fails_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live");
    let (hook, mut read) = start(&path).await;
    hook.stop(Duration::from_secs(60)).await;
    let (hook, _) = (start(&path).await, &mut read);
    let (hook, mut read) = hook;
    hook.register(invoice()).await.unwrap();
    hook.htlc_accepted(b"1".to_vec(), htlc(0, 1000));
    until_held(&hook).await;
    let stopping = tokio::spawn({
        let hook = hook.clone();
        async move { hook.stop(Duration::from_secs(60)).await }
    });
    hook.settle(hash(), PREIMAGE).await.unwrap();
    stopping.await.unwrap();
    assert_eq!(answers(&hook, &mut read).await[0]["result"]["result"], "resolve");
}

fn valid(answer: &Value) -> bool {
    let result = &answer["result"];
    let hex = |field: &str| result[field].as_str().is_some_and(|text| hex::decode(text).is_ok());
    match result["result"].as_str() {
        Some("continue") => true,
        Some("fail") => hex("failure_message"),
        Some("resolve") => hex("payment_key"),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn garbage_is_answered(mut values in proptest::collection::vec(any_json(), 1..8), live: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (hook, mut read) = start(&folder.path().join("live")).await;
            hook.register(invoice()).await.unwrap();
            for value in &mut values {
                if live && value.is_object() {
                    let mut good = htlc(0, 1000).unwrap();
                    good["onion"] = value.take();
                    *value = good;
                }
            }
            let count = values.len();
            for (id, value) in values.into_iter().enumerate() {
                hook.htlc_accepted(id.to_string().into_bytes(), Some(value));
            }
            hook.htlc_accepted(b"\"last\"".to_vec(), None);
            let sent = answers(&hook, &mut read).await;
            prop_assert_eq!(sent.len() + hook.waiting(), count + 1);
            prop_assert!(sent.iter().all(valid));
            Ok(())
        })?;
    }
}
