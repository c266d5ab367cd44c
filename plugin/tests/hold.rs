//! Hold invoices on a real lightningd: held, settled, cancelled, across restarts.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use cln_federation::cln::{ClnChain, ClnNode, Rpc};
use cln_federation::hook::Hook;
use cln_federation::wire::Output;
use federation_wallet::chain::ChainSource;
use gateway::node::{LightningNode, PayRequest, PaymentStatus};
use serde_json::{Value, json};
use support::{Bitcoind, Node, hold_plugin, lightningd_is_here, wait_for};

fn preimage(number: u8) -> String {
    hex::encode([number; 32])
}

fn hold_invoice(payee: &Node, number: u8, msat: u64) -> String {
    let answer = payee.list("test-hold-invoice", &[&preimage(number), &msat.to_string()]);
    answer["bolt11"].as_str().unwrap().to_owned()
}

fn held(node: &Node) -> Vec<Value> {
    node.list("test-hold-list", &[])["held"].as_array().unwrap().clone()
}

fn wait_until_held(node: &Node) -> Value {
    wait_for("a held payment", || held(node).pop())
}

/// Pays in the background.
fn xpay(payer: &Node, invoice: &str) -> std::thread::JoinHandle<Value> {
    let request = json!({ "jsonrpc": "2.0", "id": "p", "method": "xpay", "params": [invoice] }).to_string();
    let socket = payer.socket();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while !bytes.ends_with(b"\n\n") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0);
            bytes.extend_from_slice(&buffer[..count]);
        }
        serde_json::from_slice(&bytes).unwrap()
    })
}

struct Setup {
    bitcoind: Bitcoind,
    payer: Node,
    payee: Node,
}

fn setup(announce: bool) -> Setup {
    let bitcoind = Bitcoind::start();
    let payer = Node::start(&bitcoind, "payer", &[]);
    let payee = Node::start(&bitcoind, "payee", &[format!("--plugin={}", hold_plugin().display())]);
    payer.open_channel(&bitcoind, &payee, announce);
    Setup { bitcoind, payer, payee }
}

#[test]
fn held_settled_and_cancelled() {
    if !lightningd_is_here() {
        return;
    }
    let Setup { bitcoind: _bitcoind, payer, payee } = setup(false);

    // An invoice of lightningd's own is none of our business.
    let own = [("amount_msat", json!(5000)), ("label", json!("own")), ("description", json!("d"))];
    let own = payee.call("invoice", &own);
    let paid = xpay(&payer, own["bolt11"].as_str().unwrap()).join().unwrap();
    assert!(paid["result"]["payment_preimage"].is_string(), "{paid}");

    let invoice = hold_invoice(&payee, 1, 100_000);
    let decoded = payer.list("decode", &[&invoice]);
    assert_eq!((&decoded["valid"], &decoded["payee"]), (&json!(true), &json!(payee.id())));
    assert_eq!(decoded["min_final_cltv_expiry"], 120);
    assert!(decoded["routes"][0].is_array(), "no hint for an unannounced channel: {decoded}");
    let paying = xpay(&payer, &invoice);
    let set = wait_until_held(&payee);
    assert_eq!(set["amount_msat"], 100_000);
    assert!(!paying.is_finished());
    assert!(payee.try_json("test-hold-settle", json!([preimage(9)])).is_err());
    payee.list("test-hold-settle", &[&preimage(1)]);
    let paid = paying.join().unwrap();
    assert_eq!(paid["result"]["payment_preimage"], preimage(1), "{paid}");
    payee.list("test-hold-settle", &[&preimage(1)]);
    assert!(payee.try_json("test-hold-cancel", json!([preimage(1)])).is_err(), "it is settled");
    // Somebody pays the same invoice again.
    let again = payer.try_json("xpay", json!([invoice]));
    assert!(again.is_err() || again.unwrap()["payment_preimage"] == preimage(1));

    let invoice = hold_invoice(&payee, 2, 100_000);
    let paying = xpay(&payer, &invoice);
    wait_until_held(&payee);
    payee.list("test-hold-cancel", &[&preimage(2)]);
    let failed = paying.join().unwrap();
    assert!(failed["error"]["code"].is_i64(), "{failed}");
    assert!(held(&payee).is_empty());

    // With nothing held the plugin ends at once.
    let start = std::time::Instant::now();
    let plugin = hold_plugin().display().to_string();
    payee.list("plugin", &["stop", &plugin]);
    assert!(start.elapsed() < Duration::from_secs(3));
    payee.list("plugin", &["start", &plugin]);
    // What is held when it is stopped is failed, and only then does it end.
    let paying = xpay(&payer, &hold_invoice(&payee, 3, 100_000));
    wait_until_held(&payee);
    payee.list("plugin", &["stop", &plugin]);
    let failed = paying.join().unwrap();
    assert!(failed["error"]["code"].is_i64(), "{failed}");
    assert_eq!(payee.alarms("hold-plugin"), Vec::<String>::new());
}

#[test]
fn held_across_restarts_of_lightningd() {
    if !lightningd_is_here() {
        return;
    }
    let Setup { bitcoind, payer, mut payee } = setup(true);
    for (number, kill) in [(1, false), (2, true)] {
        let invoice = hold_invoice(&payee, number, 70_000);
        let paying = xpay(&payer, &invoice);
        wait_until_held(&payee);
        payee.restart(&bitcoind, kill);
        assert_eq!(wait_until_held(&payee)["amount_msat"], 70_000);
        assert!(!paying.is_finished());
        payee.list("test-hold-settle", &[&preimage(number)]);
        wait_for("the link", || {
            payer.try_call("ping", &[("id", json!(payee.id()))]).ok().or_else(|| {
                payer.connect(&payee);
                None
            })
        });
        let paid = paying.join().unwrap();
        assert_eq!(paid["result"]["payment_preimage"], preimage(number), "{paid}");
    }
    for node in [&payer, &payee] {
        let channels = node.call("listpeerchannels", &[]);
        assert_eq!(channels["channels"][0]["state"], "CHANNELD_NORMAL");
    }
}

#[test]
fn paying_and_looking_at_the_chain() {
    if !lightningd_is_here() {
        return;
    }
    let Setup { bitcoind, payer, payee } = setup(true);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let rpc = Rpc::new(&payer.socket());
        let node = ClnNode::new(rpc.clone(), Hook::new(Output::start(tokio::io::sink())));
        let info = node.info().await.unwrap();
        assert_eq!(info.node_id.to_string(), payer.id());
        assert_eq!(u64::from(info.block_height), bitcoind.height());
        assert!(info.route_hints.is_empty());

        let request = |invoice: &str, amount_msat| PayRequest {
            invoice: invoice.parse().unwrap(),
            amount_msat,
            max_fee_msat: 5000,
            max_delay_blocks: 300,
            retry_for: Duration::from_secs(10),
        };
        // Nothing is known of it.
        assert_eq!(node.payment([1; 32]).await.unwrap(), PaymentStatus::Unknown);

        let own = [("amount_msat", json!(50_000)), ("label", json!("a")), ("description", json!("d"))];
        let invoice = payee.call("invoice", &own)["bolt11"].as_str().unwrap().to_owned();
        assert!(node.pay(request(&invoice, 49_999)).await.is_err());
        let (first, second) =
            tokio::join!(node.pay(request(&invoice, 50_000)), node.pay(request(&invoice, 50_000)));
        assert!(matches!(first.unwrap(), PaymentStatus::Succeeded { fee_msat: 0, .. }));
        assert!(matches!(second.unwrap(), PaymentStatus::Succeeded { .. }));
        // After a restart of the plugin lightningd's rows alone tell.
        let later = ClnNode::new(rpc.clone(), Hook::new(Output::start(tokio::io::sink())));
        assert!(matches!(
            later.pay(request(&invoice, 50_000)).await.unwrap(),
            PaymentStatus::Succeeded { .. }
        ));
        // Rows deleted: paid, and nobody may conclude anything else.
        let hash = request(&invoice, 0).invoice.payment_hash().to_string();
        payer.call("delpay", &[("payment_hash", json!(hash)), ("status", json!("complete"))]);
        let hash: [u8; 32] = hex::decode(hash).unwrap().try_into().unwrap();
        let later = ClnNode::new(rpc.clone(), Hook::new(Output::start(tokio::io::sink())));
        assert_eq!(later.payment(hash).await.unwrap(), PaymentStatus::Unknown);

        // Held for a while, then cancelled.
        let invoice = hold_invoice(&payee, 1, 60_000);
        let paying = node.pay(request(&invoice, 60_000));
        let hash = *AsRef::<[u8; 32]>::as_ref(request(&invoice, 0).invoice.payment_hash());
        let meanwhile = async {
            while held(&payee).is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(node.payment(hash).await.unwrap(), PaymentStatus::Pending);
            let later = ClnNode::new(rpc.clone(), Hook::new(Output::start(tokio::io::sink())));
            assert_eq!(later.payment(hash).await.unwrap(), PaymentStatus::Pending);
            payee.list("test-hold-cancel", &[&preimage(1)]);
        };
        let (paid, ()) = tokio::join!(paying, meanwhile);
        assert!(matches!(paid.unwrap(), PaymentStatus::Failed { .. }));
        // Its label says that xpay might have gone on until now.
        let later = ClnNode::new(rpc.clone(), Hook::new(Output::start(tokio::io::sink())));
        assert_eq!(later.payment(hash).await.unwrap(), PaymentStatus::Pending);

        // More than the channel holds: no route, nothing sent.
        let invoice = hold_invoice(&payee, 2, 900_000_000);
        let paid = node.pay(request(&invoice, 900_000_000)).await.unwrap();
        assert!(matches!(paid, PaymentStatus::Failed { .. }), "{paid:?}");

        // Coins.
        let balances = node.balances().await.unwrap();
        assert!(balances.onchain_sat > 8_000_000 && balances.outbound_msat > 0 && balances.inbound_msat > 0);
        let address = node.onchain_address().await.unwrap();
        let send = |amount_sat| gateway::node::OnchainSendRequest {
            address: address.to_string().parse().unwrap(),
            amount_sat,
            fee_rate_sat_per_kwu: Some(500),
        };
        let error = node.onchain_send(send(100_000_000_000)).await.unwrap_err();
        assert!(matches!(error, gateway::node::NodeError::OnchainFunds(_)), "{error}");
        let txid = node.onchain_send(send(10_000)).await.unwrap();

        // The chain.
        let chain = ClnChain::new(rpc);
        assert_eq!(chain.network().await.unwrap(), bitcoin::Network::Regtest);
        let tip = chain.tip().await.unwrap();
        assert_eq!(u64::from(tip.height), bitcoind.height());
        bitcoind.mine(1);
        let block = chain.block(tip.height + 1).await.unwrap().unwrap();
        let transaction = block.txdata.iter().find(|transaction| transaction.compute_txid() == txid).unwrap();
        assert!(chain.block(tip.height + 2).await.unwrap().is_none());
        chain.broadcast(transaction).await.unwrap();
        let mut wrong = transaction.clone();
        wrong.output[0].value = bitcoin::Amount::ONE_BTC;
        assert!(chain.broadcast(&wrong).await.is_err());
        chain.fee_rate(6).await.unwrap();
    });
}
