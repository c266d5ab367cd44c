//! The process dies at every commit and every call that changes something, before it and after it; the next one ends what
//! it left. The money is where it belongs, to the msat, and nothing is done twice.

use super::node::Fate;
use super::*;

/// More than any swap takes.
const MOST_STEPS: usize = 40;

/// Runs one life of the gateway up to the crash; `false` if it lived through.
async fn life(stage: &Stage, bomb: &Bomb, act: impl AsyncFnOnce(Arc<Swaps>)) -> bool {
    if let Some(swaps) = stage.start_with(bomb).await {
        tokio::select! {
            () = act(Arc::clone(&swaps)) => {}
            () = bomb.died() => {}
        }
        swaps.stop().await;
    }
    bomb.is_dead()
}

async fn each_step(run: impl AsyncFn(&Bomb) -> bool) {
    for after in [false, true] {
        let mut step = 0;
        while run(&Bomb::new(step, after)).await {
            step += 1;
            assert!(step < MOST_STEPS);
        }
        assert!(step > 2, "hardly anything happened");
    }
}

#[tokio::test(start_paused = true)]
async fn outgoing_success() {
    each_step(async |bomb| {
        let stage = Stage::new();
        let order = stage.order(0, 1, 50);
        let id = order.contract.id(order.federation);
        let died = life(&stage, bomb, async |swaps| {
            swaps.pay(order.clone()).await.unwrap();
            closed_outgoing(&swaps, id).await;
        })
        .await;
        // The user asks again.
        let swaps = stage.start().await;
        swaps.pay(order.clone()).await.unwrap();
        let closed = closed_outgoing(&swaps, id).await;
        assert_eq!(closed.state, OutgoingState::Done { preimage: Preimage([50; 32]) });
        assert_eq!(stage.wealth(), FEE as i64 - 100);
        assert_eq!(stage.node.lock().sent[&hash(50)], 1);
        died
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn outgoing_failure() {
    each_step(async |bomb| {
        let stage = Stage::new();
        stage.node.lock().fate = Fate::Fails;
        let order = stage.order(0, 1, 50);
        let id = order.contract.id(order.federation);
        let died = life(&stage, bomb, async |swaps| {
            swaps.pay(order.clone()).await.unwrap();
            closed_outgoing(&swaps, id).await;
        })
        .await;
        // Even if it would succeed now: it is not tried twice.
        let tried = stage.node.lock().sent.contains_key(&hash(50));
        if tried {
            stage.node.lock().fate = Fate::Succeeds;
        }
        let swaps = stage.start().await;
        swaps.pay(order.clone()).await.unwrap();
        assert_eq!(cancelled(&closed_outgoing(&swaps, id).await), "payment_failed");
        assert_eq!(stage.node.lock().sent[&hash(50)], 1);
        assert_eq!(stage.contract_state(order.federation, id), Some(ContractState::Funded));
        assert_eq!(stage.wealth(), 0);
        died
    })
    .await;
}

async fn incoming_life(bomb: &Bomb, right: bool) -> (bool, Incoming, Stage) {
    let stage = Stage::new();
    let offer = stage.offer(0, 60, right);
    let died = life(&stage, bomb, async |swaps| {
        swaps.invoice(offer.clone()).await.unwrap();
        stage.node.arrive(hash(60), PRICE, 120);
        closed_incoming(&swaps, hash(60)).await;
    })
    .await;
    let swaps = stage.start().await;
    // The user asks again if there was no answer, and the payer pays if it was not paid.
    if swaps.store.incoming(&hash(60)).await.unwrap().is_none_or(|swap| !swap.state.is_closed()) {
        let _ = swaps.invoice(offer).await;
    }
    let node = Arc::clone(&stage.node);
    if !node.lock().held.contains_key(&hash(60)) && !node.lock().settled.contains_key(&hash(60)) {
        node.arrive(hash(60), PRICE, 120);
    }
    let closed = closed_incoming(&swaps, hash(60)).await;
    assert_eq!(swaps.exposure(), Amount::ZERO);
    swaps.stop().await;
    (died, closed, stage)
}

#[tokio::test(start_paused = true)]
async fn incoming_success() {
    each_step(async |bomb| {
        let (died, closed, stage) = incoming_life(bomb, true).await;
        assert_eq!(closed.state, IncomingState::Done { preimage: Preimage([60; 32]) });
        assert_eq!(stage.wealth(), FEE as i64);
        died
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn incoming_wrong_preimage() {
    each_step(async |bomb| {
        let (died, closed, stage) = incoming_life(bomb, false).await;
        assert!(matches!(closed.state, IncomingState::Failed { .. }), "{:?}", closed.state);
        assert_eq!(stage.wealth(), 0);
        assert!(stage.node.lock().held.is_empty());
        died
    })
    .await;
}

/// The payer gives up while the gateway is down, if nothing was funded; else it is settled with few blocks left.
#[tokio::test(start_paused = true)]
async fn incoming_payer_gone() {
    each_step(async |bomb| {
        let stage = Stage::new();
        let offer = stage.offer(0, 60, true);
        let died = life(&stage, bomb, async |swaps| {
            swaps.invoice(offer.clone()).await.unwrap();
            stage.node.arrive(hash(60), PRICE, 120);
            closed_incoming(&swaps, hash(60)).await;
        })
        .await;
        let funded = stage.federations[0].lock().balance < 1_000_000;
        // Too late to begin anything, as far as the gateway can see; the federation would still take it.
        stage.node.lock().height = 1070;
        if !funded {
            stage.node.lock().held.remove(&hash(60));
        }
        let swaps = stage.start().await;
        if swaps.store.incoming(&hash(60)).await.unwrap().is_none() {
            return died;
        }
        let closed = closed_incoming(&swaps, hash(60)).await;
        if funded {
            assert!(matches!(closed.state, IncomingState::Done { .. }), "{:?}", closed.state);
            assert_eq!(stage.wealth(), FEE as i64);
        } else {
            assert!(matches!(closed.state, IncomingState::Failed { .. }), "{:?}", closed.state);
            assert_eq!(stage.wealth(), 0);
        }
        died
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn inside() {
    for right in [true, false] {
        each_step(async |bomb| {
            let stage = Stage::new();
            let offer = stage.offer(1, 60, right);
            let meet = async |swaps: &Arc<Swaps>| {
                let invoice = swaps.invoice(offer.clone()).await.unwrap();
                let order = stage.order_for(0, 1, invoice.parse().unwrap(), PRICE + FEE);
                let id = order.contract.id(order.federation);
                swaps.pay(order).await.unwrap();
                closed_outgoing(swaps, id).await
            };
            let died = life(&stage, bomb, async |swaps| {
                meet(&swaps).await;
                closed_incoming(&swaps, hash(60)).await;
            })
            .await;
            let swaps = stage.start().await;
            let open = swaps.store.open_outgoing().await.unwrap();
            let known: Vec<_> = stage.federations[0].lock().contracts.keys().copied().collect();
            let begun = match known.first() {
                Some(id) => swaps.store.outgoing(id).await.unwrap().map(|_| *id),
                None => None,
            };
            assert!(open.len() <= 1);
            let closed = match begun {
                Some(id) => closed_outgoing(&swaps, id).await,
                None => {
                    // Nothing was begun: another try with a fresh contract.
                    stage.federations[0].lock().contracts.clear();
                    meet(&swaps).await
                }
            };
            let payee = closed_incoming(&swaps, hash(60)).await;
            if right {
                assert!(matches!(closed.state, OutgoingState::Done { .. }), "{:?}", closed.state);
                assert!(matches!(payee.state, IncomingState::Done { .. }), "{:?}", payee.state);
                assert_eq!(stage.wealth(), 2 * FEE as i64);
            } else {
                cancelled(&closed);
                assert!(matches!(payee.state, IncomingState::Failed { .. }), "{:?}", payee.state);
                assert_eq!(stage.wealth(), 0);
            }
            assert!(stage.node.lock().sent.is_empty());
            died
        })
        .await;
    }
}
