//! Many notes with real guardians: small ones that pile up become few, and of 256 one bad one spoils nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::time::Instant;

use bitcoin::secp256k1::SecretKey;
use federation_core::rest::ProblemDocument;
use federation_mint::Denomination;
use federation_mint::client::{ECash, Note};
use federation_tests::Ecash;
use federation_tests::ecash::{Refusal, number, text};
use federation_tests::load::{Setup, World};

const SETUP: Setup = Setup { guardians: 4, postgres: false, sat: 20_000 };

fn string(world: &World, notes: &[Note]) -> String {
    ECash { federation: world.client.federation_id(), notes: notes.to_vec() }.to_string()
}

/// A string a payment, of one note of each of the eight smallest denominations.
const PAYMENTS: usize = 14;
const SMALL: usize = 8;

#[tokio::test]
async fn many_small_notes_become_few_by_the_way() {
    let begun = Instant::now();
    let world = World::start("small", SETUP).await.unwrap();
    let bob = Ecash::join(&world.sandbox, "bob", &world.federation.invite).await.unwrap();
    let worths: Vec<_> =
        (0..PAYMENTS * SMALL).map(|n| Denomination::new((n % SMALL) as u8).unwrap()).collect();
    let notes = world.notes(0, &worths).await.unwrap();
    for payment in notes.chunks(SMALL) {
        bob.run_with(&["receive", "-"], &string(&world, payment)).await.unwrap();
    }
    let each: u64 = (1 << SMALL) - 1;
    let balance = bob.balance().await.unwrap();
    assert_eq!(balance, PAYMENTS as u64 * each, "nothing costs anything here");
    world.conserved(balance).await.unwrap();

    // How many there are: a restore counts them. Each payment alone came in as eight notes or more.
    let words = world.sandbox.path().join("words-bob");
    std::fs::write(&words, text(&bob.run(&["words"]).await.unwrap(), "words").unwrap()).unwrap();
    let again = Ecash::unborn(&world.sandbox, "bob-2").unwrap();
    let args = ["restore", &world.federation.invite, "--words-file", words.to_str().unwrap()];
    let restored = again.run(&args).await.unwrap();
    let count = number(&restored, "notes").unwrap();
    println!("{count} notes after {PAYMENTS} payments, in {:.1} s", begun.elapsed().as_secs_f32());
    assert_eq!(number(&restored, "balance_msat").unwrap(), balance);
    assert!(count < (PAYMENTS * SMALL) as u64 * 3 / 4, "{count}");

    // All of it is money.
    let back = again.run(&["send", &format!("{balance}msat")]).await.unwrap();
    world.client.receive(&text(&back, "ecash").unwrap(), "").await.unwrap();
    assert_eq!(again.balance().await.unwrap(), 0);
    assert_eq!(world.conserved(0).await.unwrap(), 20_000_000);
}

#[tokio::test]
async fn of_256_notes_a_bad_one_is_refused_by_each_guardian_and_the_others_are_taken_in() {
    let world = World::start("256", SETUP).await.unwrap();
    let bob = Ecash::join(&world.sandbox, "bob", &world.federation.invite).await.unwrap();
    let one = Denomination::new(0).unwrap();
    let mut notes = world.notes(0, &[one; 256]).await.unwrap();
    let good = notes[77].clone();
    // A right signature, of another nonce.
    notes[77] = Note::new(one, good.signature.clone(), SecretKey::from_slice(&[3; 32]).unwrap());

    let requests = world.holder.requests(1000, &[Denomination::new(8).unwrap()]);
    let transaction = world.holder.transaction(&notes, &requests);
    let http = reqwest::Client::new();
    for guardian in &world.federation.guardians {
        let posted = http.post(format!("{}/v1/transactions", guardian.url)).json(&transaction).send();
        let response = posted.await.unwrap();
        let status = response.status().as_u16();
        let problem: ProblemDocument = response.json().await.unwrap();
        assert_eq!((status, problem.code.as_str()), (422, "bad_note"), "{}", problem.detail);
        assert!(problem.detail.contains("1 msat"), "{}", problem.detail);
    }

    let string_of_all = string(&world, &notes);
    let refused = bob.run_with(&["receive", "-"], &string_of_all).await.unwrap_err();
    let refused = refused.downcast::<Refusal>().unwrap();
    assert!(refused.code == "bad_ecash" && refused.message.contains("1 of the notes"), "{refused}");
    assert_eq!(bob.balance().await.unwrap(), 0);
    bob.run_with(&["receive", "--part", "-"], &string_of_all).await.unwrap();
    assert_eq!(bob.balance().await.unwrap(), 255);
    // The good one that it stood for is still whose it was.
    world.conserved(255 + 1).await.unwrap();
    bob.run_with(&["receive", "-"], &string(&world, &[good])).await.unwrap();
    assert_eq!(bob.balance().await.unwrap(), 256);
    assert_eq!(world.conserved(256).await.unwrap(), 20_000_000);
}
