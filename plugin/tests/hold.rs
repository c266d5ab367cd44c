//! Hold invoices on a real lightningd: held, settled, cancelled, across restarts.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cln_federation::cln::asked::Asked;
use cln_federation::cln::{AskedFile, ClnChain, ClnNode, Rpc};
use cln_federation::hook::{Hook, unix_now};
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

/// The node as a later process of the plugin has it.
fn start_node(rpc: &Rpc, asked: &Path) -> ClnNode {
    let asked = AskedFile::open(asked, unix_now(), false).unwrap();
    ClnNode::new(rpc.clone(), Hook::new(Output::start(tokio::io::sink())), Arc::new(asked))
}

/// What a crash leaves that comes after the payment and before its end is written.
fn forget_the_end(asked: &Path) {
    let text = std::fs::read_to_string(asked).unwrap();
    let mut lines: Vec<_> = text.split_inclusive('\n').collect();
    assert!(lines.pop().unwrap().contains("\"ended\""));
    std::fs::write(asked, lines.concat()).unwrap();
}

/// Lightningd's records are removed by its operator: nothing is paid twice, and nothing counts as failed.
#[test]
fn once_for_ever_whatever_lightningd_forgets() {
    if !lightningd_is_here() {
        return;
    }
    let Setup { bitcoind, mut payer, payee } = setup(true);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked");
    let rpc = Rpc::new(&payer.socket());
    let request = |invoice: &str, seconds| PayRequest {
        invoice: invoice.parse().unwrap(),
        amount_msat: 50_000,
        max_fee_msat: 5000,
        max_delay_blocks: 300,
        retry_for: Duration::from_secs(seconds),
    };
    let hash_of = |invoice: &str| *AsRef::<[u8; 32]>::as_ref(request(invoice, 1).invoice.payment_hash());
    let forget = |payer: &Node, hash: &[u8; 32], status: &str| {
        payer.call("delpay", &[("payment_hash", json!(hex::encode(hash))), ("status", json!(status))]);
        let left = payer.call("listsendpays", &[("payment_hash", json!(hex::encode(hash)))]);
        assert_eq!(left["payments"], json!([]));
    };
    let last_row = |payer: &Node| {
        let count =
            [("subsystem", json!("sendpays")), ("indexname", json!("created")), ("nextvalue", json!(0))];
        payer.call("wait", &count)["created"].as_u64().unwrap()
    };
    let xpays = |payer: &Node| payer.call("listpays", &[])["pays"].as_array().unwrap().len();

    let own = [("amount_msat", json!(50_000)), ("label", json!("a")), ("description", json!("d"))];
    let invoice = payee.call("invoice", &own)["bolt11"].as_str().unwrap().to_owned();
    let hash = hash_of(&invoice);
    runtime.block_on(async {
        let node = start_node(&rpc, &asked);
        let paid = node.pay(request(&invoice, 10)).await.unwrap();
        assert!(matches!(paid, PaymentStatus::Succeeded { .. }));
        forget(&payer, &hash, "complete");
        // Its preimage is written down.
        assert_eq!(start_node(&rpc, &asked).pay(request(&invoice, 10)).await.unwrap(), paid);
        // Had the process died before that, nobody could tell: and nobody guesses.
        forget_the_end(&asked);
        for _ in 0..2 {
            let later = start_node(&rpc, &asked);
            assert_eq!(later.payment(hash).await.unwrap(), PaymentStatus::Pending);
            assert_eq!(later.pay(request(&invoice, 1)).await.unwrap(), PaymentStatus::Pending);
        }
        // An invoice of the same hash that asks for something else changes nothing.
        let mut other = request(&invoice, 1);
        other.amount_msat = 49_999;
        assert_eq!(start_node(&rpc, &asked).pay(other).await.unwrap(), PaymentStatus::Pending);
    });
    assert_eq!(xpays(&payer), 0, "it was not even tried again");
    let arrived = payee.call("listinvoices", &[("label", json!("a"))]);
    assert_eq!(arrived["invoices"][0]["amount_received_msat"], 50_000);
    let moved = payee.call("listpeerchannels", &[])["channels"][0]["in_fulfilled_msat"].clone();
    assert_eq!(moved, 50_000, "the payee has it once");

    // Failed, and the process died before that was written: the rows tell, as long as none was ever removed.
    let invoice = hold_invoice(&payee, 1, 50_000);
    let hash = hash_of(&invoice);
    let count = last_row(&payer);
    let paying = xpay(&payer, &invoice);
    wait_until_held(&payee);
    payee.list("test-hold-cancel", &[&preimage(1)]);
    assert!(paying.join().unwrap()["error"]["code"].is_i64());
    let late = folder.path().join("late");
    let row =
        Asked { payment_hash: hash, at: 1, until: 2, expires_at: 3, fresh: true, last_row: Some(count) };
    assert!(AskedFile::open(&late, unix_now(), false).unwrap().ask(row).unwrap());
    let rows = std::fs::read(&late).unwrap();
    let socket = payer.socket();
    let look = || {
        std::fs::write(&late, &rows).unwrap();
        runtime.block_on(async { start_node(&Rpc::new(&socket), &late).payment(hash).await.unwrap() })
    };
    assert!(matches!(look(), PaymentStatus::Failed { .. }));
    let own = [("amount_msat", json!(50_000)), ("label", json!("b")), ("description", json!("d"))];
    let another = payee.call("invoice", &own)["bolt11"].as_str().unwrap().to_owned();
    assert!(xpay(&payer, &another).join().unwrap()["result"].is_object());
    assert!(matches!(look(), PaymentStatus::Failed { .. }));
    forget(&payer, &hash_of(&another), "complete");
    let doubt = "what was removed could have been a part of it";
    assert_eq!(look(), PaymentStatus::Pending, "{doubt}");
    payer.restart(&bitcoind, true);
    assert_eq!(look(), PaymentStatus::Pending, "{doubt}");
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
        let folder = tempfile::tempdir().unwrap();
        let asked = folder.path().join("asked");
        let start = || start_node(&rpc, &asked);
        let node = start();
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
        // After a restart of the plugin.
        let later = start();
        assert!(matches!(
            later.pay(request(&invoice, 50_000)).await.unwrap(),
            PaymentStatus::Succeeded { .. }
        ));

        // Held for a while, then cancelled.
        let invoice = hold_invoice(&payee, 1, 60_000);
        let paying = node.pay(request(&invoice, 60_000));
        let hash = *AsRef::<[u8; 32]>::as_ref(request(&invoice, 0).invoice.payment_hash());
        let meanwhile = async {
            while held(&payee).is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(node.payment(hash).await.unwrap(), PaymentStatus::Pending);
            let later = start();
            assert_eq!(later.payment(hash).await.unwrap(), PaymentStatus::Pending);
            payee.list("test-hold-cancel", &[&preimage(1)]);
        };
        let (paid, ()) = tokio::join!(paying, meanwhile);
        assert!(matches!(paid.unwrap(), PaymentStatus::Failed { .. }));
        // That is written down.
        assert!(matches!(start().payment(hash).await.unwrap(), PaymentStatus::Failed { .. }));
        // Had the process died before: xpay might have gone on until now.
        forget_the_end(&asked);
        assert_eq!(start().payment(hash).await.unwrap(), PaymentStatus::Pending);

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
        let chain = ClnChain::new(rpc.clone());
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
