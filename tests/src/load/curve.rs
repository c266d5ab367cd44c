//! What a transaction needs of the curve at a guardian, and nothing else: measured alone, in the same run.
//!
//! The times are CPU times, so that other programs don't count; and all cores compute at once, as under load: cores that share
//! a part of the processor are slower then.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use federation_mint::Denomination;
use federation_tbs::{
    BatchItem, BlindedMessage, BlindedSignature, BlindedSignatureShare, BlindingKey, PublicKey,
    SecretKeyShare, Signature, blind, combine, sign, threshold, unblind, verify_batch, verify_blinded_batch,
};
use serde::Serialize;

use super::{Shape, pairings};

/// The largest batch that is measured.
const MOST: usize = 256;
/// So many times each; the median counts.
const TURNS: usize = 9;
/// How often what takes microseconds is done in a turn.
const SINGLE: usize = 64;
/// The same of what takes a millisecond or more.
const CHECKS: usize = 8;

/// CPU microseconds on one core, a note where nothing else is said.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Curve {
    /// Notes of the batch that the times are of.
    pub batch: usize,
    /// An input: its signature from bytes, and its part in the check of the batch.
    pub note: f64,
    /// An output: its blinded nonce from bytes.
    pub blinded_nonce: f64,
    /// The own share of an output.
    pub sign: f64,
    /// A share of another guardian from bytes.
    pub share: f64,
    /// An output's signature, of T shares.
    pub combine: f64,
    /// Its part in the check of the batch.
    pub check: f64,
    /// What a client does: takes the blinding off one note, and checks it alone.
    pub client: f64,
    /// One signature check of `bls12_381`, to compare with: its pairings alone, keys prepared.
    pub bls12_381: f64,
}

impl Curve {
    /// Of so many transactions of this shape in a batch.
    pub fn measure(shape: &Shape, transactions: usize, guardians: usize) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let measured: Vec<Result<Self>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..cores).map(|_| scope.spawn(|| measure_here(shape, transactions, guardians))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let measured = measured.into_iter().collect::<Result<Vec<_>>>()?;
        let mean = |field: fn(&Self) -> f64| measured.iter().map(field).sum::<f64>() / measured.len() as f64;
        Ok(Self {
            batch: measured.first().map_or(0, |curve| curve.batch),
            note: mean(|curve| curve.note),
            blinded_nonce: mean(|curve| curve.blinded_nonce),
            sign: mean(|curve| curve.sign),
            share: mean(|curve| curve.share),
            combine: mean(|curve| curve.combine),
            check: mean(|curve| curve.check),
            client: mean(|curve| curve.client),
            bls12_381: mean(|curve| curve.bls12_381),
        })
    }

    /// An output, from its blinded nonce to its signature, as a guardian among `guardians`: of T shares it may have one itself.
    pub fn output(&self, guardians: usize) -> f64 {
        let foreign = (threshold(guardians) * (guardians - 1)) as f64 / guardians as f64;
        self.blinded_nonce + self.sign + foreign * self.share + self.combine + self.check
    }

    /// A transaction of this shape.
    pub fn transaction(&self, shape: &Shape, guardians: usize) -> f64 {
        shape.notes() * (self.note + self.output(guardians))
    }
}

/// The CPU time of this thread.
fn cpu() -> Result<Duration> {
    // The kernel brings the count up to date when it looks for another thread to run.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")
        .context("the kernel counts no threads' times")?;
    Ok(Duration::from_nanos(text.split_whitespace().next().context("no CPU time")?.parse()?))
}

struct Sample {
    nonce: [u8; 32],
    key: PublicKey,
    blinding: BlindingKey,
    signature: [u8; Signature::SIZE],
    blinded: BlindedMessage,
    blinded_signature: BlindedSignature,
}

fn samples(worths: impl Iterator<Item = Denomination>, secret: &[SecretKeyShare]) -> Result<Vec<Sample>> {
    let keys: Vec<PublicKey> = secret
        .iter()
        .map(|secret| PublicKey::from_bytes(&secret.public().to_bytes()))
        .collect::<Result<_, _>>()?;
    let sample = |worth: Denomination| {
        let (nonce, blinding) = (rand::random::<[u8; 32]>(), BlindingKey::random(&mut rand::thread_rng()));
        let at = usize::from(worth.exponent());
        let (secret, key) = secret.get(at).zip(keys.get(at)).context("no key of this denomination")?;
        let blinded = blind(&nonce, &blinding);
        let blinded_signature = BlindedSignature::from_bytes(&sign(&blinded, secret).to_bytes())?;
        let signature = unblind(&blinded_signature, &blinding).to_bytes();
        Ok(Sample { nonce, key: key.clone(), blinding, signature, blinded, blinded_signature })
    };
    worths.map(sample).collect()
}

/// Work that takes too little time to be measured once.
fn some<T>(times: usize, work: impl Fn() -> Result<T>) -> Result<()> {
    for _ in 0..times {
        std::hint::black_box(work()?);
    }
    Ok(())
}

/// The median of some turns of each work, in microseconds; the turns alternate.
fn medians<const N: usize>(mut works: [&mut dyn FnMut() -> Result<()>; N]) -> Result<[f64; N]> {
    let mut times: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    for _ in 0..TURNS {
        for (work, times) in works.iter_mut().zip(&mut times) {
            let before = cpu()?;
            work()?;
            times.push(cpu()?.saturating_sub(before).as_secs_f64() * 1e6);
        }
    }
    Ok(times.map(|mut times| {
        times.sort_unstable_by(f64::total_cmp);
        times.get(TURNS / 2).copied().unwrap_or_default()
    }))
}

fn measure_here(shape: &Shape, transactions: usize, guardians: usize) -> Result<Curve> {
    let secret: Vec<SecretKeyShare> =
        (1..=64).map(|byte| SecretKeyShare::from_bytes(&[byte; 32])).collect::<Result<_, _>>()?;
    let batch = ((shape.notes() * transactions as f64) as usize).clamp(1, MOST);
    let worths: Vec<Denomination> = shape.both().collect();
    let samples = samples(worths.into_iter().cycle().take(batch), &secret)?;
    let first = samples.first().context("no sample")?;
    let (any_secret, blinded) = (secret.first().context("no key")?, first.blinded.to_bytes());
    let share = sign(&first.blinded, any_secret);
    let share_bytes = share.to_bytes();
    // (Whose shares they are makes no difference to the time.)
    let needed = threshold(guardians);
    let shares: BTreeMap<u16, BlindedSignatureShare> =
        (0..u16::try_from(needed)?).map(|guardian| (guardian, share.clone())).collect();
    let reference = pairings::Check::new()?;

    let times = medians([
        &mut || {
            let signatures = samples
                .iter()
                .map(|sample| Signature::from_bytes(&sample.signature))
                .collect::<Result<Vec<_>, _>>()?;
            let notes = samples.iter().zip(&signatures);
            let items: Vec<_> = notes
                .map(|(sample, signature)| BatchItem { message: &sample.nonce, signature, key: &sample.key })
                .collect();
            ensure!(verify_batch(&items).iter().all(|valid| *valid), "a note is wrong");
            Ok(())
        },
        &mut || {
            let outputs: Vec<_> = samples
                .iter()
                .map(|sample| (sample.blinded.clone(), sample.blinded_signature.clone(), sample.key.clone()))
                .collect();
            ensure!(verify_blinded_batch(&outputs).iter().all(|valid| *valid), "a signature is wrong");
            Ok(())
        },
        &mut || some(SINGLE, || Ok(BlindedMessage::from_bytes(&blinded)?)),
        &mut || some(SINGLE, || Ok(sign(&first.blinded, any_secret))),
        &mut || some(SINGLE, || Ok(BlindedSignatureShare::from_bytes(&share_bytes)?)),
        &mut || some(SINGLE, || Ok(combine(&shares, needed)?)),
        &mut || {
            some(CHECKS, || {
                let signature = unblind(&first.blinded_signature, &first.blinding);
                let item = BatchItem { message: &first.nonce, signature: &signature, key: &first.key };
                ensure!(verify_batch(&[item]) == [true], "a note is wrong");
                Ok(())
            })
        },
        &mut || some(CHECKS, || reference.run()),
    ])?;
    let [note, check, blinded_nonce, sign, share, combine, client, bls12_381] = times;
    let (all, single) = (batch as f64, SINGLE as f64);
    Ok(Curve {
        batch,
        note: note / all,
        blinded_nonce: blinded_nonce / single,
        sign: sign / single,
        share: share / single,
        combine: combine / single,
        check: check / all,
        client: client / CHECKS as f64,
        bls12_381: bls12_381 / CHECKS as f64,
    })
}
