//! What every engine must do.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use federation_core::db::{Changes, Database, DbError, Reader};
use sqlx::{ConnectOptions as _, Connection as _};

use super::cluster::Cluster;
use crate::{glance, open};

fn changes(pairs: &[(&[u8], Option<&[u8]>)]) -> Changes {
    pairs.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect()
}

async fn reads_and_writes(db: &Arc<dyn Database>) {
    db.commit(changes(&[
        (b"", Some(b"empty key")),
        (b"a", Some(b"")),
        (b"a\x00", Some(b"1")),
        (b"a\xff", Some(b"2")),
        (b"b", Some(b"3")),
        (b"\xff", Some(b"4")),
        (b"\xff\xff", Some(b"5")),
    ]))
    .await
    .unwrap();
    assert_eq!(db.get(b"a").await.unwrap(), Some(Vec::new()), "an empty value is a value");
    assert_eq!(db.get(b"").await.unwrap().unwrap(), b"empty key");
    assert_eq!(db.get(b"c").await.unwrap(), None);

    let keys = [b"b".to_vec(), b"c".to_vec(), b"b".to_vec(), b"a".to_vec()];
    let values = db.get_many(&keys).await.unwrap();
    assert_eq!(values, [Some(b"3".to_vec()), None, Some(b"3".to_vec()), Some(Vec::new())]);
    assert!(db.get_many(&[]).await.unwrap().is_empty());

    let scan = async |prefix: &'static [u8], after: Option<&'static [u8]>, limit| -> Vec<Vec<u8>> {
        db.scan(prefix, after, limit).await.unwrap().into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(scan(b"a", None, 10).await, [b"a".to_vec(), b"a\x00".to_vec(), b"a\xff".to_vec()]);
    assert_eq!(scan(b"a", Some(b"a"), 1).await, [b"a\x00".to_vec()]);
    assert_eq!(scan(b"a", Some(b"a\xff"), 10).await, Vec::<Vec<u8>>::new());
    assert_eq!(scan(b"\xff", None, 10).await, [b"\xff".to_vec(), b"\xff\xff".to_vec()]);
    assert_eq!(scan(b"", None, 100).await.len(), 7);
    assert_eq!(scan(b"", None, 0).await.len(), 0);

    db.commit(changes(&[(b"a", None), (b"b", Some(b"new")), (b"nothing", None)])).await.unwrap();
    assert_eq!(db.get(b"a").await.unwrap(), None);
    assert_eq!(db.get(b"b").await.unwrap().unwrap(), b"new");
    db.commit(Changes::new()).await.unwrap();
}

/// More rows than one statement takes, and a value of some megabytes.
async fn large_commits(db: &Arc<dyn Database>) {
    let key = |n: u32| [b"large".as_slice(), &n.to_be_bytes()].concat();
    let rows: Changes = (0..10_001).map(|n| (key(n), Some(n.to_le_bytes().to_vec()))).collect();
    db.commit(rows).await.unwrap();
    let keys: Vec<_> = (0..10_002).map(key).collect();
    let values = db.get_many(&keys).await.unwrap();
    for (n, value) in (0..10_001u32).zip(&values) {
        assert_eq!(value.as_deref(), Some(n.to_le_bytes().as_slice()));
    }
    assert_eq!(values.last(), Some(&None));
    db.commit((0..10_000).map(|n| (key(n), None)).collect()).await.unwrap();
    assert_eq!(db.scan(b"large", None, usize::MAX).await.unwrap().len(), 1);

    let blob = vec![0xa5; 5 << 20];
    db.commit(changes(&[(b"blob", Some(&blob))])).await.unwrap();
    assert_eq!(db.get(b"blob").await.unwrap().unwrap(), blob);
}

/// Commits go on while a view stands still.
async fn views(db: &Arc<dyn Database>) {
    db.commit(changes(&[(b"view1", Some(b"1")), (b"view2", Some(b"2"))])).await.unwrap();
    let view = db.view().await.unwrap();
    db.commit(changes(&[(b"view1", Some(b"other")), (b"view2", None), (b"view3", Some(b"3"))]))
        .await
        .unwrap();
    let second = db.view().await.unwrap();
    let pairs = |view: Arc<dyn Reader>| async move { view.scan(b"view", None, 10).await.unwrap() };
    let before = [(b"view1".to_vec(), b"1".to_vec()), (b"view2".to_vec(), b"2".to_vec())];
    assert_eq!(pairs(Arc::clone(&view)).await, before);
    assert_eq!(view.get(b"view3").await.unwrap(), None);
    assert_eq!(view.get_many(&[b"view2".to_vec()]).await.unwrap(), [Some(b"2".to_vec())]);
    assert_eq!(pairs(second).await, pairs(Arc::clone(db) as _).await);
    db.commit(changes(&[(b"view1", None), (b"view3", None)])).await.unwrap();
    assert_eq!(pairs(view).await, before);
}

async fn stays(url: &str) {
    assert!(glance(url).await.is_err(), "a glance makes no store");
    let db = open(url).await.unwrap();
    reads_and_writes(&db).await;
    large_commits(&db).await;
    views(&db).await;
    let glance = glance(url).await.unwrap();
    assert_eq!(glance.get(b"b").await.unwrap(), db.get(b"b").await.unwrap());
    db.commit(changes(&[(b"b", Some(b"newer"))])).await.unwrap();
    assert_eq!(glance.get(b"b").await.unwrap().unwrap(), b"newer");
    drop(glance);
    let error = open(url).await.err().unwrap();
    assert!(error.to_string().contains("in use by another process"), "{error}");
    let before = db.scan(b"", None, usize::MAX).await.unwrap();
    drop(db);
    let db = open(url).await.unwrap();
    assert_eq!(db.scan(b"", None, usize::MAX).await.unwrap(), before);
}

#[tokio::test]
async fn memory() {
    let db = open("sqlite::memory:").await.unwrap();
    reads_and_writes(&db).await;
    large_commits(&db).await;
    views(&db).await;
}

#[tokio::test]
async fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a folder%20?").join("guardian.db");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let url = format!("sqlite://{}", path.display());
    stays(&url).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::query("UPDATE meta SET value = 2 WHERE name = 'schema'").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert!(matches!(open(&url).await, Err(DbError::TooNew { found: 2, known: 1 })));
}

#[tokio::test]
async fn postgres() {
    let Some(cluster) = Cluster::start() else {
        println!("SKIPPED: no PostgreSQL 15 binaries on this machine");
        return;
    };
    let url = cluster.url();
    stays(&url).await;

    let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
    let mut other = options.connect().await.unwrap();
    sqlx::query("UPDATE meta SET value = 2 WHERE name = 'schema'").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert!(matches!(open(&url).await, Err(DbError::TooNew { found: 2, known: 1 })));
}

#[tokio::test]
async fn a_url_of_another_kind_is_explained_without_repeating_it() {
    let error = open("mysql://root:secret@host/db").await.err().unwrap().to_string();
    assert!(error.contains("sqlite:///path") && !error.contains("secret"), "{error}");
    let missing = open("sqlite:///nonexistent-folder/x.db").await.err().unwrap().to_string();
    assert!(missing.contains("/nonexistent-folder/x.db"), "{missing}");
}
