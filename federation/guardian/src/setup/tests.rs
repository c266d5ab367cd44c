//! The key generation among guardians in one process, with honest and other ones.

use bitcoin::Network;
use bytes::Bytes;
use federation_core::config::Endpoint;
use tokio::sync::mpsc;

use super::keygen;
use super::rounds::{Exchange, Progress, RoundMessage, Rounds};
use super::stored::{SetupPhase, SetupResult, StoredSetup};
use crate::error::GuardianError;
use crate::setup::FederationParams;

/// Links in memory; `tamper` changes what is sent.
struct Memory {
    me: u16,
    others: Vec<mpsc::UnboundedSender<(u16, Bytes)>>,
    frames: mpsc::UnboundedReceiver<(u16, Bytes)>,
    tamper: fn(u16, RoundMessage) -> RoundMessage,
}

#[async_trait::async_trait]
impl Exchange for Memory {
    async fn send(&mut self, to: u16, bytes: Bytes) {
        let message = federation_core::encoding::decode(&bytes, 1 << 20).unwrap();
        let bytes = federation_core::encoding::encode(&(self.tamper)(to, message)).into();
        let _ = self.others[usize::from(to)].send((self.me, bytes));
    }
    async fn receive(&mut self) -> Option<(u16, Bytes)> {
        self.frames.recv().await
    }
}

fn honest(_: u16, message: RoundMessage) -> RoundMessage {
    message
}

fn setups(n: u16) -> Vec<StoredSetup> {
    let mut setups: Vec<_> = (0..n)
        .map(|i| {
            let endpoint = Endpoint {
                name: format!("guardian-{i}"),
                api_url: format!("http://127.0.0.1:{}", 4000 + i),
                link_address: format!("127.0.0.1:{}", 5000 + i),
            };
            let params =
                FederationParams { denominations: 20, ..FederationParams::new("test", n, Network::Regtest) };
            StoredSetup::create(endpoint, Network::Regtest, (i == 0).then_some(params)).unwrap()
        })
        .collect();
    let codes: Vec<_> = setups.iter().map(|setup| setup.own.clone()).collect();
    for (i, setup) in setups.iter_mut().enumerate() {
        for (j, code) in codes.iter().enumerate().filter(|(j, _)| *j != i) {
            assert_ne!(setup.phase(), SetupPhase::Complete, "before code {j}");
            setup.add(code.clone()).unwrap();
        }
        assert_eq!(setup.phase(), SetupPhase::Complete);
    }
    // In the order of the guardians' numbers.
    setups.sort_by_key(|setup| keygen::numbers(setup).0);
    setups
}

async fn run(
    setups: Vec<StoredSetup>,
    tamper: fn(u16, RoundMessage) -> RoundMessage,
) -> Vec<Result<SetupResult, GuardianError>> {
    let (senders, receivers): (Vec<_>, Vec<_>) = setups.iter().map(|_| mpsc::unbounded_channel()).unzip();
    let mut tasks = Vec::new();
    for (setup, frames) in setups.into_iter().zip(receivers) {
        let (me, names) = keygen::numbers(&setup);
        // Guardian 0 is the one that may cheat.
        let tamper = if me == 0 { tamper } else { honest };
        let links = Memory { me, others: senders.clone(), frames, tamper };
        tasks.push(tokio::spawn(async move {
            let mut rounds = Rounds::new(links, me, names, keygen::session(&setup), Progress::default());
            let made = async {
                let (result, _, output) = keygen::generate(&mut rounds, &setup, 100 + u32::from(me)).await?;
                keygen::confirm(&mut rounds, &result, Some(&output)).await?;
                Ok(result)
            };
            let made = made.await;
            if let Err(error) = &made {
                rounds.abort(error).await;
            }
            made
        }));
    }
    drop(senders);
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

/// A guardian, alone in its federation, that has stored the result and not yet confirmed it.
pub(crate) async fn with_result() -> StoredSetup {
    with_result_of(1).await
}

pub(crate) async fn with_result_of(n: u16) -> StoredSetup {
    let setups = setups(n);
    let mut setup = setups[0].clone();
    setup.result = run(setups, honest).await.remove(0).ok();
    assert!(setup.result.is_some());
    setup
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sizes_come_to_one_configuration() {
    for n in 1..=7 {
        let results = run(setups(n), honest).await;
        let first = results[0].as_ref().unwrap();
        assert_eq!(first.config.guardians.len(), usize::from(n));
        for result in &results {
            assert_eq!(result.as_ref().unwrap().config.id(), first.config.id());
            assert_eq!(result.as_ref().unwrap().confirmation, first.confirmation);
        }
    }
}

#[tokio::test]
async fn a_wrong_share_ends_it_with_the_dealers_name() {
    fn wrong_share(to: u16, mut message: RoundMessage) -> RoundMessage {
        if message.round == 2 && to == 1 {
            let last = message.body.len() - 1;
            message.body[last] ^= 1;
        }
        message
    }
    let setups = setups(4);
    let cheat = setups[0].own.endpoint.name.clone();
    let results = run(setups, wrong_share).await;
    let error = results[1].as_ref().unwrap_err().to_string();
    assert!(error.contains(&cheat), "{error}");
}

#[tokio::test]
async fn another_result_ends_it_for_those_who_see_it() {
    fn other_result(to: u16, mut message: RoundMessage) -> RoundMessage {
        if message.round == 3 && to == 2 {
            let last = message.body.len() - 1;
            message.body[last] ^= 1;
        }
        message
    }
    let setups = setups(4);
    let cheat = setups[0].own.endpoint.name.clone();
    let results = run(setups, other_result).await;
    assert!(results[1].is_ok());
    assert!(results[2].as_ref().unwrap_err().to_string().contains(&cheat));
}

#[test]
fn codes_that_do_not_fit_are_refused() {
    let mut first = setups(3).remove(0);
    first.others.clear();
    let own = first.own.clone();
    assert!(first.add(own).is_err(), "its own code");
    let mut foreign = setups(3).remove(1).own;
    foreign.network = Network::Bitcoin;
    assert!(first.add(foreign).is_err(), "another network");
}
