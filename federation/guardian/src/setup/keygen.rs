//! The key generation: coin keys, mint keys, preimage key, beacon key and descriptor keys, made by all
//! guardians together in four rounds.
//!
//! | round | to all | to each |
//! |---|---|---|
//! | 0 | coin encryption key, commitment to the threshold keys, descriptor key | |
//! | 1 | coin part, reveal of the threshold keys' commitments | |
//! | 2 | coin acknowledgements | shares of the threshold keys |
//! | 3 | hashes of all that was broadcast and of the resulting configuration | |
//!
//! The result is stored before round 3 is sent: a guardian that crashes after it resumes there, one
//! that crashes before it starts anew, and so do all the others.

use std::collections::BTreeMap;

use bitcoin::secp256k1::{PublicKey, SECP256K1, SecretKey};
use borsh::{BorshDeserialize, BorshSerialize};
use federation_consensus::keygen as coin;
use federation_core::config::{CONSENSUS_VERSION, ConsensusConfig, ModuleConfig};
use federation_core::encoding::{decode, encode, public_key, tagged_hash};
use federation_core::{ModuleId, PeerId};
use federation_lightning::{LightningConfig, LightningFees};
use federation_mint::MintParams;
use federation_tbs::dkg::{Dkg, DkgOutput, KeySet};
use federation_wallet::{WalletConfig, WalletParams, WalletSecret};

use super::rounds::{Exchange, MAX_MESSAGE, Rounds};
use super::stored::{SetupResult, StoredSetup};
use crate::error::GuardianError;
use crate::secrets::GuardianSecrets;

/// The instance ids of the modules that every federation has.
pub const MINT: ModuleId = ModuleId(0);
/// The wallet module.
pub const WALLET: ModuleId = ModuleId(1);
/// The lightning module.
pub const LIGHTNING: ModuleId = ModuleId(2);

const HELLO: u8 = 0;
const DEAL: u8 = 1;
const SHARE: u8 = 2;
const CONFIRM: u8 = 3;

#[derive(BorshSerialize, BorshDeserialize)]
struct Hello {
    version: u16,
    coin_key: Vec<u8>,
    commitment: Vec<u8>,
    #[borsh(serialize_with = "public_key::to", deserialize_with = "public_key::from")]
    descriptor_key: PublicKey,
    /// Where this guardian's chain stands: the federation looks for deposits from the lowest.
    height: u32,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Deal {
    coin_part: Vec<u8>,
    reveal: Vec<u8>,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Share {
    coin_acks: Vec<u8>,
    share: Vec<u8>,
}

fn aborted(error: impl std::fmt::Display) -> GuardianError {
    GuardianError::KeyGeneration(error.to_string())
}

/// The session: a hash of all setup codes, which everybody must have alike.
pub fn session(setup: &StoredSetup) -> [u8; 32] {
    let codes: Vec<_> = setup.guardians().into_iter().cloned().collect();
    tagged_hash("cln-federation/setup-session", &[&encode(&codes)])
}

/// This guardian's number and the names of all.
pub fn numbers(setup: &StoredSetup) -> (u16, Vec<String>) {
    let guardians = setup.guardians();
    let me = guardians.iter().position(|code| code.keys == setup.own.keys).unwrap_or_default();
    let names = guardians.iter().map(|code| code.endpoint.name.clone()).collect();
    (u16::try_from(me).unwrap_or(u16::MAX), names)
}

/// Runs CPU-heavy work off the async runtime.
async fn heavy<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, GuardianError> {
    tokio::task::spawn_blocking(work).await.map_err(aborted)
}

/// Rounds 0 to 2: makes the keys and the configuration, without the others' confirmation.
pub async fn generate<E: Exchange>(
    rounds: &mut Rounds<E>,
    setup: &StoredSetup,
    height: u32,
) -> Result<(SetupResult, GuardianSecrets, DkgOutput), GuardianError> {
    let params = setup.federation().ok_or_else(|| aborted("no code founds a federation"))?.clone();
    let (me, names) = numbers(setup);
    let n = names.len();
    // The denominations', the preimages' and the beacon's.
    let keys = usize::from(params.denominations).saturating_add(2);
    let session = session(setup);
    let dkg =
        heavy(move || Dkg::new(&session, me, n, keys, &mut rand::rngs::OsRng)).await?.map_err(aborted)?;
    let (coin_round, coin_key) = coin::start(me, u16::try_from(n).unwrap_or(u16::MAX)).map_err(aborted)?;
    let descriptor_secret = SecretKey::new(&mut rand::rngs::OsRng);

    let hello = encode(&Hello {
        version: CONSENSUS_VERSION,
        coin_key: coin_key.to_vec(),
        commitment: dkg.commitment(),
        descriptor_key: descriptor_secret.public_key(SECP256K1),
        height,
    });
    let hellos: BTreeMap<u16, Hello> =
        read_all(rounds, rounds_names(rounds, n), HELLO, |_| hello.clone()).await?;
    for (guardian, hello) in &hellos {
        if hello.version != CONSENSUS_VERSION {
            return Err(aborted(format!(
                "guardian '{}' runs consensus version {}, this one {CONSENSUS_VERSION}: use the same program",
                rounds.name(*guardian),
                hello.version
            )));
        }
    }
    let birthday = hellos.values().map(|hello| hello.height).min().unwrap_or_default();
    let commitments = hellos.iter().map(|(g, hello)| (*g, hello.commitment.clone())).collect();
    let coin_keys = hellos.iter().map(|(g, hello)| (*g, hello.coin_key.clone().into())).collect();
    let descriptor_keys: BTreeMap<PeerId, PublicKey> =
        hellos.iter().map(|(g, hello)| (PeerId(*g), hello.descriptor_key)).collect();
    let (committed, dealt) = heavy(move || (dkg.round_1(commitments), coin_round.next(&coin_keys))).await?;
    let committed = committed.map_err(|error| dealer(rounds, error))?;
    let (coin_round, coin_part) = dealt.map_err(aborted)?;

    let deal = encode(&Deal { coin_part: coin_part.to_vec(), reveal: committed.reveal() });
    let deals: BTreeMap<u16, Deal> =
        read_all(rounds, rounds_names(rounds, n), DEAL, |_| deal.clone()).await?;
    let reveals = deals.iter().map(|(g, deal)| (*g, deal.reveal.clone())).collect();
    let parts = deals.iter().map(|(g, deal)| (*g, deal.coin_part.clone().into())).collect();
    let (revealed, acked) = heavy(move || (committed.round_2(reveals), coin_round.next(&parts))).await?;
    let revealed = revealed.map_err(|error| dealer(rounds, error))?;
    let (coin_round, coin_acks) = acked.map_err(aborted)?;

    let share = |to| {
        let share = revealed.share_for(to).map(|share| share.to_vec()).unwrap_or_default();
        encode(&Share { coin_acks: coin_acks.to_vec(), share })
    };
    let shares: BTreeMap<u16, Share> = read_all(rounds, rounds_names(rounds, n), SHARE, share).await?;
    let acks = shares.iter().map(|(g, share)| (*g, share.coin_acks.clone().into())).collect();
    let shares = shares.iter().map(|(g, share)| (*g, share.share.clone())).collect();
    let (output, coin_keys) = heavy(move || (revealed.round_3(shares), coin_round.finish(&acks))).await?;
    let output = output.map_err(|error| dealer(rounds, error))?;
    let coin_keys = coin_keys.map_err(aborted)?;

    let mut made = output.keys.clone();
    let beacon = made.pop().ok_or_else(|| aborted("too few keys were made"))?;
    let preimage = made.pop().ok_or_else(|| aborted("too few keys were made"))?;
    let (modules, module_secrets) =
        modules(setup, made, preimage, beacon, descriptor_keys, descriptor_secret, birthday)?;
    let config = ConsensusConfig {
        version: CONSENSUS_VERSION,
        name: params.name,
        network: setup.own.network,
        guardians: by_number(setup, |code| code.keys.clone()),
        coin_keys: coin_keys.public_bytes().to_vec(),
        modules,
    };
    let mut secrets = setup.secrets.clone();
    secrets.coin_keys = coin_keys.to_bytes().to_vec();
    secrets.modules = module_secrets;
    let endpoints = by_number(setup, |code| code.endpoint.clone());
    // The endpoints too are compared: all start with the same addresses.
    let agreed = tagged_hash("cln-federation/setup-result", &[&config.id().0, &encode(&endpoints)]);
    let confirmation = [output.confirmation().as_slice(), &agreed].concat();
    let result = SetupResult { me: PeerId(me), config, endpoints, confirmation, confirmed: false };
    Ok((result, secrets, output))
}

/// Round 3: all guardians have the same result, or the setup is aborted.
pub async fn confirm<E: Exchange>(
    rounds: &mut Rounds<E>,
    result: &SetupResult,
    output: Option<&DkgOutput>,
) -> Result<(), GuardianError> {
    let received = rounds.exchange(CONFIRM, |_| result.confirmation.clone()).await?;
    let split = result.confirmation.len().saturating_sub(32);
    if let Some(output) = output {
        let confirmations =
            received.iter().map(|(g, bytes)| (*g, bytes.get(..split).unwrap_or(bytes).to_vec())).collect();
        output.confirm(confirmations).map_err(|error| dealer(rounds, error))?;
    }
    match received.iter().find(|(_, bytes)| **bytes != result.confirmation) {
        Some((guardian, _)) => Err(aborted(format!(
            "guardian '{}' came to another result; this one keeps its keys, and beginning anew takes a new data folder on every guardian",
            rounds.name(*guardian)
        ))),
        None => Ok(()),
    }
}

/// The answer to a guardian that resumes at round 3 while this one is through.
pub fn confirmation_frame(session: [u8; 32], result: &SetupResult) -> Vec<u8> {
    encode(&super::rounds::RoundMessage { session, round: CONFIRM, body: result.confirmation.clone() })
}

fn by_number<T>(setup: &StoredSetup, get: impl Fn(&super::SetupCode) -> T) -> BTreeMap<PeerId, T> {
    (0u16..).map(PeerId).zip(setup.guardians().into_iter().map(get)).collect()
}

fn dealer<E: Exchange>(rounds: &Rounds<E>, error: federation_tbs::dkg::DkgError) -> GuardianError {
    aborted(format!("guardian '{}': {}", rounds.name(error.dealer), error.kind))
}

fn rounds_names<E: Exchange>(rounds: &Rounds<E>, n: usize) -> Vec<String> {
    (0..u16::try_from(n).unwrap_or(u16::MAX)).map(|g| rounds.name(g)).collect()
}

async fn read_all<T: BorshDeserialize, E: Exchange>(
    rounds: &mut Rounds<E>,
    names: Vec<String>,
    round: u8,
    message: impl Fn(u16) -> Vec<u8>,
) -> Result<BTreeMap<u16, T>, GuardianError> {
    let received = rounds.exchange(round, message).await?;
    received
        .into_iter()
        .zip(names)
        .map(|((guardian, bytes), name)| {
            let message = decode(&bytes, MAX_MESSAGE)
                .map_err(|_| aborted(format!("guardian '{name}' sent a message that cannot be read")))?;
            Ok((guardian, message))
        })
        .collect()
}

type Modules = (BTreeMap<ModuleId, ModuleConfig>, BTreeMap<ModuleId, Vec<u8>>);

fn modules(
    setup: &StoredSetup,
    denominations: Vec<KeySet>,
    preimage: KeySet,
    beacon: KeySet,
    descriptor_keys: BTreeMap<PeerId, PublicKey>,
    descriptor_secret: SecretKey,
    birthday: u32,
) -> Result<Modules, GuardianError> {
    let params = setup.federation().ok_or_else(|| aborted("no code founds a federation"))?;
    let network = setup.own.network;
    let (mint, mint_secret) = federation_mint::generate(denominations, MintParams::default());
    let (lightning, lightning_secret) =
        LightningConfig::generate(preimage, network, LightningFees::default());
    let params = WalletParams { finality: params.finality, ..WalletParams::for_network(network) };
    let wallet =
        WalletConfig::generate(network, params, birthday, descriptor_keys, beacon.public, beacon.shares)
            .map_err(aborted)?;
    let wallet_secret = WalletSecret { key: descriptor_secret, beacon: beacon.secret };
    let config = |kind: &str, config: Vec<u8>| ModuleConfig { kind: kind.to_owned(), config };
    Ok((
        BTreeMap::from([
            (MINT, config("mint", encode(&mint))),
            (WALLET, config("wallet", encode(&wallet))),
            (LIGHTNING, config("lightning", encode(&lightning))),
        ]),
        BTreeMap::from([
            (MINT, encode(&mint_secret)),
            (WALLET, encode(&wallet_secret)),
            (LIGHTNING, encode(&lightning_secret)),
        ]),
    ))
}
