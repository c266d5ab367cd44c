use super::node::Fate;
use super::*;
use crate::GatewayError;
use crate::store::TOTALS;

#[tokio::test(start_paused = true)]
async fn a_payment_is_made_and_claimed() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let order = stage.order(0, 1, 50);
    let swap = swaps.pay(order.clone()).await.unwrap();
    let done = swaps.wait_outgoing(swap.id(), HOUR).await.unwrap().unwrap();
    assert!(done.state.is_decided());
    let done = closed_outgoing(&swaps, swap.id()).await;
    assert_eq!(done.state, OutgoingState::Done { preimage: Preimage([50; 32]) });
    assert_eq!(stage.wealth(), FEE as i64 - 100);
    // Asked again, whatever comes is the same answer.
    assert_eq!(swaps.pay(order).await.unwrap(), done);
    assert_eq!(stage.node.lock().sent[&hash(50)], 1);
    let totals = TOTALS.get(swaps.store.reader(), &()).await.unwrap().unwrap();
    assert_eq!((totals.sent, totals.sent_fees.msat(), totals.routing_fees.msat()), (1, FEE, 100));
    assert!(swaps.store.open_outgoing().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_proved_refunds() {
    let stage = Stage::new();
    stage.node.lock().fate = Fate::Fails;
    let swaps = stage.start().await;
    let swap = swaps.pay(stage.order(0, 1, 50)).await.unwrap();
    assert_eq!(cancelled(&closed_outgoing(&swaps, swap.id()).await), "payment_failed");
    // The hash is spent at this gateway: what the node says of it can't be told apart from the first attempt.
    stage.node.lock().fate = Fate::Succeeds;
    let again = swaps.pay(stage.order(0, 2, 50)).await.unwrap();
    assert_eq!(cancelled(&again), "already_tried");
    assert_eq!(stage.wealth(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_node_refuses_to_do_refunds() {
    let stage = Stage::new();
    stage.node.lock().fate = Fate::Refuses;
    let swaps = stage.start().await;
    let swap = swaps.pay(stage.order(0, 1, 50)).await.unwrap();
    assert_eq!(cancelled(&closed_outgoing(&swaps, swap.id()).await), "node_refused");
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_late_is_waited_for() {
    for succeeds in [true, false] {
        let stage = Stage::new();
        stage.node.lock().fate = Fate::Hangs;
        let swaps = stage.start().await;
        let swap = swaps.pay(stage.order(0, 1, 50)).await.unwrap();
        let waited = swaps.wait_outgoing(swap.id(), HOUR).await.unwrap().unwrap();
        assert!(matches!(waited.state, OutgoingState::Started(_)), "{:?}", waited.state);
        // The user takes the money back at the expiry: still no result, and still no guess.
        stage.node.decide(hash(50), succeeds, PRICE);
        let closed = closed_outgoing(&swaps, swap.id()).await;
        if succeeds {
            assert_eq!(closed.state, OutgoingState::Done { preimage: Preimage([50; 32]) });
        } else {
            cancelled(&closed);
        }
        assert_eq!(stage.node.lock().sent[&hash(50)], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for() {
    let stage = Stage::new();
    stage.node.lock().fate = Fate::Unavailable;
    let swaps = stage.start().await;
    let swap = swaps.pay(stage.order(0, 1, 50)).await.unwrap();
    assert!(matches!(closed_outgoing(&swaps, swap.id()).await.state, OutgoingState::Done { .. }));
    assert_eq!(stage.node.lock().sent[&hash(50)], 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_forgets_neither_pays_nor_refunds() {
    let stage = Stage::new();
    stage.node.lock().fate = Fate::Forgets;
    let swaps = stage.start().await;
    let swap = swaps.pay(stage.order(0, 1, 50)).await.unwrap();
    let waited = swaps.wait_outgoing(swap.id(), 10 * HOUR).await.unwrap().unwrap();
    assert!(matches!(waited.state, OutgoingState::Started(_)), "{:?}", waited.state);
    let report = swaps.report(None).await.unwrap();
    assert_eq!(report.open.paying, 1);
    assert_eq!(stage.node.lock().asked, 1);
    // At the expiry the user takes the money back by himself.
    stage.federations[0].lock().contracts.get_mut(&swap.id()).unwrap().state = ContractState::Refunded;
    assert_eq!(closed_outgoing(&swaps, swap.id()).await.state, OutgoingState::Lapsed);
}

/// A later process finds a swap that was started and a node without a record: it is asked to pay while that is safe.
#[tokio::test(start_paused = true)]
async fn what_was_started_and_is_unknown_is_paid_while_it_is_safe_and_never_refunded() {
    for safe in [true, false] {
        let stage = Stage::new();
        let order = stage.order(0, 1, 50);
        let id = order.contract.id(order.federation);
        // The first commit is the fees', the second the swap's, the third call the node's.
        let bomb = Bomb::new(2, false);
        let swaps = stage.start_with(&bomb).await.unwrap();
        swaps.pay(order).await.unwrap();
        bomb.died().await;
        swaps.stop().await;
        assert!(stage.node.lock().payments.is_empty());
        if !safe {
            stage.node.lock().height = 1500;
        }
        let swaps = stage.start().await;
        if safe {
            assert!(matches!(closed_outgoing(&swaps, id).await.state, OutgoingState::Done { .. }));
            continue;
        }
        let waited = swaps.wait_outgoing(id, 10 * HOUR).await.unwrap().unwrap();
        assert!(matches!(waited.state, OutgoingState::Started(_)), "{:?}", waited.state);
        assert_eq!(stage.node.lock().asked, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_invoice_is_paid_for_one_contract_only() {
    for second in [0, 1] {
        let stage = Stage::new();
        stage.node.lock().fate = Fate::Hangs;
        let swaps = stage.start().await;
        let first = stage.order(0, 1, 50);
        let twin = stage.order_for(second, 2, first.invoice.clone(), PRICE + FEE);
        let first = swaps.pay(first).await.unwrap();
        let twin = swaps.pay(twin).await.unwrap();
        assert!(!cancelled(&twin).is_empty());
        stage.node.decide(hash(50), true, PRICE);
        assert!(matches!(closed_outgoing(&swaps, first.id()).await.state, OutgoingState::Done { .. }));
        assert_eq!(stage.contract_state(twin.federation, twin.id()), Some(ContractState::Funded));
    }
}

#[tokio::test(start_paused = true)]
async fn one_invoice_at_the_same_time() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let first = stage.order(0, 1, 50);
    let twin = stage.order_for(1, 2, first.invoice.clone(), PRICE + FEE);
    let (first, twin) = tokio::join!(swaps.pay(first), swaps.pay(twin));
    let (first, twin) = (first.unwrap(), twin.unwrap());
    let first = closed_outgoing(&swaps, first.id()).await;
    let twin = closed_outgoing(&swaps, twin.id()).await;
    let paid = [&first, &twin].iter().filter(|s| matches!(s.state, OutgoingState::Done { .. })).count();
    let back = [&first, &twin].iter().filter(|s| matches!(s.state, OutgoingState::Cancelled { .. })).count();
    assert_eq!((paid, back), (1, 1));
    assert_eq!(stage.wealth(), FEE as i64 - 100);
}

#[tokio::test(start_paused = true)]
async fn a_contract_that_does_not_fit_is_refunded_unpaid() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let invoice = |byte| node::invoice([byte; 32], PRICE, HOUR);
    let refused = async |order: PayOrder| {
        let id = order.contract.id(order.federation);
        let swap = swaps.pay(order).await.unwrap();
        assert_eq!(swap.id(), id);
        cancelled(&swap).to_owned()
    };
    assert_eq!(refused(stage.order_for(0, 1, invoice(50), PRICE + FEE - 1)).await, "unpayable");
    let stale = node::invoice([51; 32], PRICE, Duration::ZERO);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(refused(stage.order_for(0, 1, stale, PRICE + FEE)).await, "unpayable");
    let large = node::invoice([52; 32], 2_000_000_000, HOUR);
    assert_eq!(refused(stage.order_for(0, 1, large, 3_000_000_000)).await, "limits");
    // Too near: 504 blocks less the margin are not left any more.
    stage.node.lock().height = 1500;
    assert_eq!(refused(stage.order_for(0, 1, invoice(53), PRICE + FEE)).await, "unpayable");
    stage.node.lock().height = 1000;
    swaps.set_draining(true);
    assert_eq!(refused(stage.order_for(0, 1, invoice(54), PRICE + FEE)).await, "draining");
    swaps.set_draining(false);
    // Paid by hand, or before the database was restored from an old copy: no refund without proof.
    stage.node.decide(hash(55), true, PRICE);
    let order = stage.order_for(0, 1, invoice(55), PRICE + FEE);
    let id = order.contract.id(order.federation);
    let error = swaps.pay(order).await.unwrap_err();
    assert_eq!((error.problem().status, error.problem().code.as_str()), (409, "already_tried"));
    assert!(swaps.store.outgoing(&id).await.unwrap().is_none());
    assert!(stage.node.lock().sent.is_empty());
    assert!(swaps.store.open_outgoing().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ours_leaves_no_trace() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let refused = async |order: PayOrder| {
        let id = order.contract.id(order.federation);
        let Err(error) = swaps.pay(order).await else { panic!("accepted") };
        assert_eq!(swaps.store.outgoing(&id).await.unwrap(), None);
        error.problem()
    };
    let good = stage.order(0, 1, 50);
    let mut other = good.clone();
    other.contract.gateway_key = key(3).x_only_public_key().0;
    assert_eq!(refused(other).await.code, "wrong_gateway");
    let mut other = good.clone();
    other.invoice = node::invoice([51; 32], PRICE, HOUR);
    assert_eq!(refused(other).await.code, "wrong_invoice");
    let mut other = good.clone();
    other.federation = FederationId([5; 32]);
    assert_eq!(refused(other).await.code, "unknown_federation");
    let mut unfunded = good.clone();
    unfunded.contract.user_key = key(4).x_only_public_key().0;
    let problem = refused(unfunded).await;
    assert_eq!((problem.code.as_str(), problem.status), ("not_funded", 503));
    stage.federations[0].lock().down = true;
    assert_eq!(refused(good.clone()).await.status, 503);
    stage.federations[0].lock().down = false;
    let id = good.contract.id(good.federation);
    stage.federations[0].lock().contracts.get_mut(&id).unwrap().state = ContractState::Refunded;
    assert_eq!(refused(good).await.code, "contract_spent");
}

#[tokio::test(start_paused = true)]
async fn a_federation_that_is_down_is_claimed_from_later() {
    let stage = Stage::new();
    stage.node.lock().fate = Fate::Hangs;
    let swaps = stage.start().await;
    let swap = swaps.pay(stage.order(0, 1, 50)).await.unwrap();
    stage.federations[0].lock().down = true;
    stage.node.decide(hash(50), true, PRICE);
    tokio::time::sleep(HOUR).await;
    assert!(matches!(
        swaps.store.outgoing(&swap.id()).await.unwrap().unwrap().state,
        OutgoingState::Started(_) | OutgoingState::Paid { .. }
    ));
    stage.federations[0].lock().down = false;
    assert!(matches!(closed_outgoing(&swaps, swap.id()).await.state, OutgoingState::Done { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_shown() {
    let stage = Stage::new();
    stage.node.lock().fate = Fate::Hangs;
    let swaps = stage.start().await;
    let swap = swaps.pay(stage.order(0, 1, 50)).await.unwrap();
    stage.federations[0].lock().contracts.get_mut(&swap.id()).unwrap().state = ContractState::Refunded;
    stage.node.decide(hash(50), true, PRICE);
    assert!(matches!(closed_outgoing(&swaps, swap.id()).await.state, OutgoingState::Lost { .. }));
    let report = swaps.report(None).await.unwrap();
    assert_eq!(report.open.lost, 1);
    assert!(report.alarms[0].starts_with("LOST"), "{:?}", report.alarms);
}

#[tokio::test(start_paused = true)]
async fn fees_of_an_hour_ago_are_honoured() {
    let stage = Stage::new();
    let swaps = stage.start().await;
    let dearer = Fees { send_base: Amount::from_msat(2 * FEE), ..fees() };
    swaps.set_fees(dearer).await.unwrap();
    let swap = swaps.pay(stage.order(0, 1, 50)).await.unwrap();
    assert!(matches!(closed_outgoing(&swaps, swap.id()).await.state, OutgoingState::Done { .. }));
    // They outlive the process, unless the configuration changes.
    swaps.stop().await;
    assert_eq!(stage.start().await.fees().await.unwrap(), dearer);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_fails_stops_everything() {
    struct Full(Arc<dyn Database>);
    #[async_trait::async_trait]
    impl federation_core::db::Reader for Full {
        async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, federation_core::db::DbError> {
            self.0.get(key).await
        }
        async fn get_many(
            &self,
            keys: &[Vec<u8>],
        ) -> Result<Vec<Option<Vec<u8>>>, federation_core::db::DbError> {
            self.0.get_many(keys).await
        }
        async fn scan(
            &self,
            prefix: &[u8],
            after: Option<&[u8]>,
            limit: usize,
        ) -> Result<Vec<federation_core::db::Pair>, federation_core::db::DbError> {
            self.0.scan(prefix, after, limit).await
        }
    }
    #[async_trait::async_trait]
    impl Database for Full {
        async fn commit(&self, _: federation_core::db::Changes) -> Result<(), federation_core::db::DbError> {
            Err(federation_core::db::DbError::Engine("disk full".into()))
        }
        async fn view(&self) -> Result<Arc<dyn federation_core::db::Reader>, federation_core::db::DbError> {
            self.0.view().await
        }
    }
    let stage = Stage::new();
    drop(stage.start().await);
    let node = Arc::new(FakeNode { world: Arc::clone(&stage.node), bomb: Bomb::dud() });
    let db = Arc::new(Full(Arc::clone(&stage.db)));
    let swaps = Swaps::open(db, node, key(9), fees(), stage.limits).await.unwrap();
    swaps.add_federation(Arc::new(FakeFederation {
        world: Arc::clone(&stage.federations[0]),
        bomb: Bomb::dud(),
    }));
    assert!(matches!(swaps.pay(stage.order(0, 1, 50)).await, Err(GatewayError::Db(_))));
    assert!(swaps.failed().await.contains("disk full"));
    assert!(stage.node.lock().sent.is_empty());
}
