use super::*;

/// An invoice of the gateway's own, and a contract that pays it.
async fn meet(stage: &Stage, swaps: &Arc<Swaps>, payer: usize, payee: usize, right: bool) -> PayOrder {
    let invoice = swaps.invoice(stage.offer(payee, 60, right)).await.unwrap();
    stage.order_for(payer, 1, invoice.parse().unwrap(), PRICE + FEE)
}

#[tokio::test(start_paused = true)]
async fn payer_and_payee_meet_without_lightning() {
    for (payer, payee) in [(0, 0), (0, 1)] {
        let stage = Stage::new();
        let swaps = stage.start().await;
        let order = meet(&stage, &swaps, payer, payee, true).await;
        let swap = swaps.pay(order).await.unwrap();
        let done = closed_outgoing(&swaps, swap.id()).await;
        assert_eq!(done.state, OutgoingState::Done { preimage: Preimage([60; 32]) });
        assert!(matches!(closed_incoming(&swaps, hash(60)).await.state, IncomingState::Done { .. }));
        assert_eq!(stage.wealth(), 2 * FEE as i64);
        let node = stage.node.lock();
        assert!(node.sent.is_empty() && node.settled.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_payer_is_failed() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let order = meet(&stage, &swaps, 0, 1, true).await;
    let twin = stage.order_for(1, 2, order.invoice.clone(), PRICE + FEE);
    let swap = swaps.pay(order).await.unwrap();
    assert_eq!(cancelled(&swaps.pay(twin).await.unwrap()), "already_paid");
    closed_outgoing(&swaps, swap.id()).await;
    // Over Lightning, too.
    stage.node.arrive(hash(60), PRICE, 120);
    tokio::time::sleep(HOUR).await;
    assert!(stage.node.lock().held.is_empty());
    assert_eq!(stage.wealth(), 2 * FEE as i64);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_preimage_refunds_the_payer() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let order = meet(&stage, &swaps, 0, 1, false).await;
    let swap = swaps.pay(order).await.unwrap();
    assert_eq!(cancelled(&closed_outgoing(&swaps, swap.id()).await), "wrong_preimage");
    assert!(matches!(closed_incoming(&swaps, hash(60)).await.state, IncomingState::Failed { .. }));
    assert_eq!(stage.wealth(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_ecash_the_invoice_stays_payable() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let order = meet(&stage, &swaps, 0, 1, true).await;
    let twin = stage.order_for(0, 2, order.invoice.clone(), PRICE + FEE);
    stage.federations[1].lock().balance = 0;
    let swap = swaps.pay(order).await.unwrap();
    assert_eq!(cancelled(&closed_outgoing(&swaps, swap.id()).await), "no_ecash");
    stage.federations[1].lock().balance = 1_000_000;
    let swap = swaps.pay(twin).await.unwrap();
    assert!(matches!(closed_outgoing(&swaps, swap.id()).await.state, OutgoingState::Done { .. }));
}

#[tokio::test(start_paused = true)]
async fn another_invoice_to_the_same_hash_is_not_paid() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    swaps.invoice(stage.offer(0, 60, true)).await.unwrap();
    // Signed by somebody else, for less: paying it would give the preimage away.
    let forged = node::invoice([60; 32], 2_000, HOUR);
    let swap = swaps.pay(stage.order_for(0, 1, forged, 2_000 + FEE)).await.unwrap();
    assert_eq!(cancelled(&swap), "wrong_invoice");
    assert!(stage.node.lock().sent.is_empty());
}
