//! Single operations of both engines.

use blstrs::{Bls12, G2Prepared};
use federation_tbs::curve::scalar::Scalar;
use federation_tbs::curve::{Affine, Engine, G1Of, G2Of, Point};
use group::Group;
use pairing::{MillerLoopResult, MultiMillerLoop};

use crate::table::Row;
use crate::turns::{medians, micros};

const TURNS: usize = 31;
const DST: &[u8] = b"CLN-FEDERATION-BENCHMARK-BLS12381G1_XMD:SHA-256_SSWU_RO_";
/// Terms of the sums, as in a batch of 256 notes of 8 denominations.
const SUMS: [usize; 2] = [32, 256];
const PAIRS: usize = 9;

type Work<'a> = (&'static str, Box<dyn FnMut() + 'a>);

struct Sample<E: Engine> {
    scalar: Scalar<E::Fr>,
    messages: Vec<G1Of<E>>,
    signature: G1Of<E>,
    keys: Vec<G2Of<E>>,
}

impl<E: Engine> Sample<E> {
    fn new() -> Self {
        let scalar = Scalar::random(&mut rand::thread_rng());
        let messages: Vec<G1Of<E>> = (0_u16..256).map(|n| E::hash_to_g1(&n.to_le_bytes(), DST)).collect();
        let signature = E::hash_to_g1(b"message", DST).mul(&scalar);
        let key = |n| Point::generator().mul(&Scalar::from_u128(n).mul(&scalar));
        let keys = (1..=PAIRS as u128).map(key).collect();
        Self { scalar, messages, signature, keys }
    }

    /// In the order of the rows.
    fn works(&self) -> Vec<Work<'_>> {
        let (Some(message), Some(key), [a, b, c, ..]) =
            (self.messages.first(), self.keys.first(), self.messages.as_slice())
        else {
            return Vec::new();
        };
        let (in_g1, in_g2) = (message.to_bytes(), key.to_bytes());
        let terms = |count| {
            let scalar = |n: u128| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            (1..).map(scalar).zip(&self.messages).take(count).collect::<Vec<_>>()
        };
        let [few, many] = SUMS.map(terms);
        let pairs: Vec<_> = self.messages.iter().zip(&self.keys).collect();
        vec![
            ("hash to G1", Box::new(|| drop(E::hash_to_g1(b"message", DST)))),
            ("decompress and check, G1", Box::new(move || decoded::<E::G1Affine>(&in_g1))),
            ("decompress and check, G2", Box::new(move || decoded::<E::G2Affine>(&in_g2))),
            ("sign (G1 times a secret)", Box::new(|| drop(message.mul(&self.scalar)))),
            (
                "verify (hash and two pairings)",
                Box::new(|| {
                    let hash = E::hash_to_g1(b"message", DST);
                    assert!(E::pairings_equal(&self.signature, Point::generator(), &hash, key));
                }),
            ),
            // The largest coefficients of four guardians.
            (
                "combine three of four shares",
                Box::new(|| drop(Point::small_sum(&[(18, a), (-24, b), (9, c)]))),
            ),
            ("sum of 32 terms, 128 bit", Box::new(move || drop(E::msm_128(&few)))),
            ("sum of 256 terms, 128 bit", Box::new(move || drop(E::msm_128(&many)))),
            ("product of nine pairings", Box::new(move || assert!(!E::pairing_product_is_one(&pairs)))),
        ]
    }
}

fn decoded<A: Affine>(bytes: &A::Bytes) {
    assert!(Point::<A>::from_bytes(bytes).is_ok());
}

/// The rows.
pub fn measure() -> Vec<Row> {
    let prepared = Prepared::new();
    let (fast, portable) = (Sample::<Bls12>::new(), Sample::<bls12_381::Bls12>::new());
    let (names, mut works): (Vec<_>, Vec<_>) = fast.works().into_iter().unzip();
    works.extend(portable.works().into_iter().map(|(_, work)| work));
    works.push(Box::new(|| assert!(!prepared.product_is_one())));
    let mut times = medians(TURNS, &mut works).into_iter().map(micros);
    let fast: Vec<f64> = times.by_ref().take(names.len()).collect();
    let mut rows: Vec<Row> = names
        .iter()
        .zip(fast.iter().zip(times.by_ref()))
        .map(|(name, (blst, portable))| {
            Row::info(*name, format!("blst {blst:.0} µs, bls12_381 {portable:.0} µs"))
        })
        .collect();
    rows.extend(times.map(|time| {
        Row::info("product of nine pairings, keys prepared by blstrs", format!("blst {time:.0} µs"))
    }));
    rows
}

/// What the fast engine doesn't do, because it isn't faster: lines computed before, a loop for each pair.
struct Prepared {
    points: Vec<blstrs::G1Affine>,
    keys: Vec<G2Prepared>,
}

impl Prepared {
    fn new() -> Self {
        let scalar = |n: usize| blstrs::Scalar::from(n as u64 + 1);
        Self {
            points: (0..PAIRS).map(|n| (blstrs::G1Projective::generator() * scalar(n)).into()).collect(),
            keys: (0..PAIRS)
                .map(|n| blstrs::G2Affine::from(blstrs::G2Projective::generator() * scalar(n)).into())
                .collect(),
        }
    }

    fn product_is_one(&self) -> bool {
        let terms: Vec<_> = self.points.iter().zip(&self.keys).collect();
        Bls12::multi_miller_loop(&terms).final_exponentiation() == blstrs::Gt::identity()
    }
}
