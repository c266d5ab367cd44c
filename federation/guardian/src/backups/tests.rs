//! What is kept, what replaces it, and what is refused.

use bitcoin::secp256k1::{Keypair, SECP256K1};
use federation_core::backup::do_work;

use super::*;

const FEDERATION: FederationId = FederationId([7; 32]);
const NOW: Duration = Duration::from_secs(1_800_000_000);

fn key(byte: u8) -> Keypair {
    Keypair::from_seckey_slice(SECP256K1, &[byte; 32]).unwrap()
}

fn work(key: &Keypair) -> u64 {
    static KNOWN: std::sync::Mutex<std::collections::BTreeMap<[u8; 32], u64>> =
        std::sync::Mutex::new(std::collections::BTreeMap::new());
    let public = key.x_only_public_key().0;
    *KNOWN.lock().unwrap().entry(public.serialize()).or_insert_with(|| do_work(FEDERATION, &public))
}

fn backup(byte: u8, version: u64, sealed: &[u8]) -> Backup {
    let key = key(byte);
    Backup::sign(FEDERATION, &key, version, work(&key), sealed.to_vec())
}

fn backups() -> Backups {
    Backups::new(federation_store::memory(), FEDERATION)
}

async fn refused(backups: &Backups, backup: Backup) -> String {
    backups.put_at(backup, NOW).await.unwrap_err().code
}

#[tokio::test]
async fn the_newest_version_is_kept_and_an_old_one_does_not_come_back() {
    let backups = backups();
    let public = key(1).x_only_public_key().0;
    assert_eq!(backups.get(&public).await.unwrap(), None);
    let (old, new) = (backup(1, 5, b"old"), backup(1, 6, b"new"));
    backups.put_at(old.clone(), NOW).await.unwrap();
    assert_eq!(backups.get(&public).await.unwrap(), Some(old.clone()));
    backups.put_at(new.clone(), NOW).await.unwrap();
    assert_eq!(refused(&backups, old).await, "backup_old");
    assert_eq!(refused(&backups, backup(1, 6, b"other")).await, "backup_old");
    // An answer was lost, and it is handed in again.
    backups.put_at(new.clone(), NOW).await.unwrap();
    let found = backups.get(&public).await.unwrap().unwrap();
    assert!(found == new && found.is_signed(FEDERATION) && found.is_worked(FEDERATION));
}

#[tokio::test]
async fn garbage_is_refused() {
    let backups = backups();
    let good = backup(1, 1, b"mine");
    // Somebody else's signature, and content that was not signed.
    let other = Backup { key: key(2).x_only_public_key().0, work: work(&key(2)), ..good.clone() };
    assert_eq!(refused(&backups, other).await, "backup_signature");
    assert_eq!(
        refused(&backups, Backup { sealed: b"theirs".to_vec(), ..good.clone() }).await,
        "backup_signature"
    );
    let foreign = Backup::sign(FederationId([8; 32]), &key(1), 1, work(&key(1)), b"mine".to_vec());
    assert_eq!(refused(&backups, foreign).await, "backup_signature");
    let lazy = Backup { work: good.work + 1, ..good.clone() };
    assert_eq!(refused(&backups, lazy).await, "backup_work");
    assert_eq!(refused(&backups, backup(1, 1, &vec![0; MAX_SEALED + 1])).await, "backup_too_large");
    assert_eq!(backups.get(&good.key).await.unwrap(), None);
    backups.put_at(backup(1, 1, &vec![0; MAX_SEALED]), NOW).await.unwrap();
}

#[tokio::test]
async fn a_key_is_written_at_a_limited_rate() {
    let backups = backups();
    let burst = u64::from(BURST);
    for version in 1..=burst {
        backups.put_at(backup(1, version, b""), NOW).await.unwrap();
    }
    let error = backups.put_at(backup(1, burst + 1, b""), NOW).await.unwrap_err();
    assert_eq!((error.status, error.code.as_str()), (429, "backup_rate"));
    // Another key has its own measure; and time heals.
    backups.put_at(backup(2, 1, b""), NOW).await.unwrap();
    backups.put_at(backup(1, burst + 1, b""), NOW + INTERVAL).await.unwrap();
    assert_eq!(
        backups.put_at(backup(1, burst + 2, b""), NOW + INTERVAL).await.unwrap_err().code,
        "backup_rate"
    );
}

#[test]
fn rates_end_and_come_back() {
    let second = Duration::from_secs(1);
    let count = |rate: Rate, now| rate.count(now, 3, second);
    let rate = (0..3).fold(Rate::default(), |rate, _| count(rate, 10_000).unwrap());
    assert_eq!(count(rate, 10_000), Err(second));
    assert_eq!(count(rate, 10_400), Err(Duration::from_millis(600)));
    let rate = count(rate, 11_000).unwrap();
    assert!(count(rate, 11_000).is_err());
    // A clock that was an hour ahead is no reason to wait for an hour.
    assert!(count(Rate(3_600_000), 10_000).is_ok());
}

#[tokio::test]
async fn a_flood_pushes_nobody_out() {
    let mut backups = backups();
    backups.max_keys = 2;
    backups.put_at(backup(1, 1, b"first"), NOW).await.unwrap();
    backups.put_at(backup(2, 1, b"second"), NOW).await.unwrap();
    let error = backups.put_at(backup(3, 1, b"third"), NOW).await.unwrap_err();
    assert_eq!((error.status, error.code.as_str()), (507, "backups_full"));
    // Who is here may go on.
    let later = NOW + Duration::from_secs(86_400 * 100);
    backups.put_at(backup(1, 2, b"first again"), later).await.unwrap();
    // A year after the second one was written last it makes room; the first one does not.
    let year = NOW + Duration::from_secs(86_400 * (IDLE_DAYS + 1));
    backups.put_at(backup(3, 1, b"third"), year).await.unwrap();
    assert_eq!(backups.get(&key(2).x_only_public_key().0).await.unwrap(), None);
    assert_eq!(backups.get(&key(1).x_only_public_key().0).await.unwrap().unwrap().version, 2);
    assert_eq!(backups.put_at(backup(2, 2, b"second"), year).await.unwrap_err().code, "backups_full");
}

#[tokio::test]
async fn they_are_no_part_of_the_agreed_state() {
    let backups = backups();
    backups.put_at(backup(1, 1, b"mine"), NOW).await.unwrap();
    let pairs = backups.db.scan(&[], None, 100).await.unwrap();
    assert_eq!(pairs.len(), 3);
    for (key, _) in pairs {
        assert!(!state::is_agreed(&key));
        assert!(!state::FEDERATION_PREFIXES.iter().any(|prefix| key.starts_with(prefix)));
    }
}
