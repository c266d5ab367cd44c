use super::*;

/// Asks for an invoice and has it paid.
async fn receive(stage: &Stage, swaps: &Arc<Swaps>, offer: InvoiceOrder, blocks: u32) -> Incoming {
    let hash = offer.contract.terms.payment_hash.0;
    swaps.invoice(offer).await.unwrap();
    stage.node.arrive(hash, PRICE, blocks);
    closed_incoming(swaps, hash).await
}

fn code(swap: &Incoming) -> &str {
    match &swap.state {
        IncomingState::Failed { code, .. } => code,
        other => panic!("not failed: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_payment_is_funded_and_settled() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let offer = stage.offer(0, 60, true);
    let invoice = swaps.invoice(offer.clone()).await.unwrap();
    // The same one again.
    assert_eq!(swaps.invoice(offer.clone()).await.unwrap(), invoice);
    assert_eq!(swaps.report(Some(1000)).await.unwrap().open.waiting, 1);
    let done = receive(&stage, &swaps, offer, 120).await;
    assert_eq!(done.state, IncomingState::Done { preimage: Preimage([60; 32]) });
    assert_eq!(stage.node.lock().settled[&hash(60)], PRICE);
    assert_eq!(stage.wealth(), FEE as i64);
    assert_eq!(swaps.exposure(), Amount::ZERO);
    assert!(swaps.store.open_incoming().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_preimage_costs_nobody_anything() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let failed = receive(&stage, &swaps, stage.offer(0, 60, false), 120).await;
    assert_eq!(code(&failed), "wrong_preimage");
    assert_eq!(stage.wealth(), 0);
    assert!(stage.node.lock().cancelled.contains(&hash(60)));
    assert_eq!(swaps.exposure(), Amount::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_funded_is_failed_early() {
    // Too near its expiry.
    let stage = Stage::new();
    let swaps = stage.start().await;
    assert_eq!(code(&receive(&stage, &swaps, stage.offer(0, 60, true), 59).await), "expiry_near");
    assert!(stage.node.lock().held.is_empty());
    // No e-cash.
    stage.federations[0].lock().balance = 10;
    assert_eq!(code(&receive(&stage, &swaps, stage.offer(0, 61, true), 120).await), "no_ecash");
    stage.federations[0].lock().balance = 1_000_000;
    // The federation does not answer.
    let offer = stage.offer(0, 62, true);
    swaps.invoice(offer.clone()).await.unwrap();
    stage.federations[0].lock().down = true;
    assert_eq!(code(&receive(&stage, &swaps, offer, 120).await), "federation_down");
    stage.federations[0].lock().down = false;
    // Later than its contract allows: by the node's height, and by the federation's alone.
    stage.node.lock().height = 1049;
    assert_eq!(code(&receive(&stage, &swaps, stage.offer(0, 63, true), 120).await), "too_late");
    stage.node.lock().height = 1000;
    stage.federations[0].lock().height = 1050;
    assert_eq!(code(&receive(&stage, &swaps, stage.offer(0, 64, true), 120).await), "funding_rejected");
    assert_eq!(stage.wealth(), 0);
    assert!(stage.node.lock().held.is_empty());
    assert_eq!(swaps.exposure(), Amount::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_cap_holds() {
    let mut stage = Stage::new();
    stage.limits.max_exposure = Amount::from_msat(PRICE);
    stage.federations[0].lock().slow = true;
    let swaps = stage.start().await;
    let (first, second) = (stage.offer(0, 60, true), stage.offer(0, 61, true));
    swaps.invoice(first).await.unwrap();
    stage.node.arrive(hash(60), PRICE, 120);
    while swaps.exposure() == Amount::ZERO {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let failed = receive(&stage, &swaps, second.clone(), 120).await;
    assert_eq!(code(&failed), "exposure");
    // A later process knows the sum.
    swaps.stop().await;
    let swaps = stage.start().await;
    assert_eq!(swaps.exposure(), Amount::from_msat(PRICE - FEE));
    stage.federations[0].lock().slow = false;
    assert!(matches!(closed_incoming(&swaps, hash(60)).await.state, IncomingState::Done { .. }));
    assert_eq!(swaps.exposure(), Amount::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_late_is_waited_for_until_the_deadline() {
    for late in [5, u32::MAX] {
        let stage = Stage::new();
        stage.node.lock().late = late;
        let swaps = stage.start().await;
        let offer = stage.offer(0, 60, true);
        swaps.invoice(offer).await.unwrap();
        stage.node.arrive(hash(60), PRICE, 120);
        tokio::time::sleep(HOUR).await;
        let near = swaps.report(Some(1100)).await.unwrap();
        stage.node.lock().height = 1121;
        let closed = closed_incoming(&swaps, hash(60)).await;
        if late == 5 {
            assert!(matches!(closed.state, IncomingState::Done { .. }));
        } else {
            assert!(near.alarms[0].contains("within 20 blocks"), "{:?}", near.alarms);
            assert!(matches!(closed.state, IncomingState::Lost { .. }));
            assert!(swaps.report(None).await.unwrap().alarms[0].starts_with("LOST"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_contract_that_was_funded_before_is_settled() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let offer = stage.offer(0, 60, true);
    let id = offer.contract.id(offer.federation);
    let held = Held {
        contract: Contract::Incoming(offer.contract.clone()),
        state: ContractState::Decrypted,
        preimage: Some(Preimage([60; 32])),
    };
    stage.federations[0].lock().contracts.insert(id, held);
    let done = receive(&stage, &swaps, offer, 120).await;
    assert!(matches!(done.state, IncomingState::Done { .. }));
    assert_eq!(stage.wealth(), PRICE as i64);
}

#[tokio::test(start_paused = true)]
async fn bad_offers_are_refused() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let refused = async |offer: InvoiceOrder| swaps.invoice(offer).await.unwrap_err().problem().code;
    let good = stage.offer(0, 60, true);
    let mut other = good.clone();
    other.contract.terms.gateway_key = key(3).x_only_public_key().0;
    assert_eq!(refused(other).await, "bad_contract");
    let mut other = good.clone();
    other.amount = Amount::from_msat(PRICE - 1);
    assert_eq!(refused(other).await, "bad_contract");
    // A ciphertext that was made for other terms.
    let mut other = good.clone();
    other.contract.terms.user_key = key(3).x_only_public_key().0;
    assert_eq!(refused(other).await, "bad_contract");
    let mut other = good.clone();
    other.description = "x".repeat(640);
    assert_eq!(refused(other).await, "long_description");
    let mut other = good.clone();
    other.federation = FederationId([5; 32]);
    assert_eq!(refused(other).await, "unknown_federation");
    swaps.set_draining(true);
    assert_eq!(refused(good.clone()).await, "draining");
    swaps.set_draining(false);
    swaps.invoice(good).await.unwrap();
    // Another contract to the same hash, in another federation.
    assert_eq!(refused(stage.offer(1, 60, true)).await, "hash_used");
    // A hash that the gateway pays to.
    let pay = stage.order(0, 1, 61);
    let swap = swaps.pay(pay).await.unwrap();
    closed_outgoing(&swaps, swap.id()).await;
    assert_eq!(refused(stage.offer(0, 61, true)).await, "hash_used");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_is_failed_before_it_costs_a_channel() {
    let stage = Stage::new();
    let request = crate::node::HoldInvoiceRequest {
        payment_hash: hash(70),
        amount_msat: PRICE,
        description: String::new(),
        expiry: HOUR,
    };
    stage.node.lock().hold.insert(hash(70), request);
    let _swaps = stage.start().await;
    stage.node.arrive(hash(70), PRICE, 100);
    tokio::time::sleep(HOUR).await;
    assert!(stage.node.lock().held.contains_key(&hash(70)));
    stage.node.lock().height = 1090;
    tokio::time::sleep(HOUR).await;
    assert!(stage.node.lock().cancelled.contains(&hash(70)));
}

#[tokio::test(start_paused = true)]
async fn an_invoice_that_nobody_pays_is_closed() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    swaps.invoice(stage.offer(0, 60, true)).await.unwrap();
    stage.node.lock().height = 1050;
    assert_eq!(code(&closed_incoming(&swaps, hash(60)).await), "expired");
    assert!(stage.node.lock().cancelled.contains(&hash(60)));
}
